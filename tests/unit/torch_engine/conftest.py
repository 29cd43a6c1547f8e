import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """As in a worker process; threads that wait for each other on busy cores take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
