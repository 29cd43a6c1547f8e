"""Errors of a device: memory that is short, a device that is lost, or neither."""

import pytest
import torch

from preprocess.torch_engine.faults import is_lost, short_of_memory

ILLEGAL = "CUDA error: an illegal memory access was encountered"


def test_the_hosts_memory_that_is_short():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 48, dtype=torch.uint8)
    assert short_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (torch.OutOfMemoryError("in other words"), True),
        (RuntimeError("CUDA error: out of memory"), True),  # where memory was to be pinned
        (MemoryError(), True),
        (RuntimeError(ILLEGAL), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_a_devices_memory_that_is_short(error, short):
    assert short_of_memory(error) == short


@pytest.mark.parametrize(
    ("answer", "lost"),
    [(None, False), (RuntimeError(ILLEGAL), True), (torch.OutOfMemoryError("CUDA out of memory"), False)],
    ids=str,
)
def test_a_device_is_asked_whether_it_is_lost(monkeypatch, answer, lost):
    def synchronize(device):
        assert device == torch.device("cuda:1")
        if answer is not None:
            raise answer

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert is_lost(torch.device("cuda:1")) == lost


def test_the_processor_is_never_lost(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: pytest.fail("there may be no CUDA"))
    assert not is_lost(torch.device("cpu"))
