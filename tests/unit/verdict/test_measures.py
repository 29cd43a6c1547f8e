"""Why a figure is missing, in one line."""

import pytest

from preprocess.verdict.measures import reason_of

OF_A_WORKER = """Caught RuntimeError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 375, in _worker_loop
    data = fetcher.fetch(index)
RuntimeError: unable to write to file </torch_1_2>: No space left on device (28)
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("75% of it stays in memory"), "75% of it stays in memory"),
        (RuntimeError("DataLoader worker is killed\n"), "RuntimeError: DataLoader worker is killed"),
        (RuntimeError(OF_A_WORKER), "RuntimeError: unable to write to file </torch_1_2>: No space left on device (28)"),
        (ValueError(), "ValueError: no reason given"),
        (ValueError("x" * 500), "ValueError: " + "x" * 188),
    ],
)
def test_reason_is_what_happened(error, reason):
    assert reason_of(error) == reason
