"""What an error on a device is about: memory that is short, the device itself, or else whatever was computed."""

import torch

from preprocess import render


def short_of_memory(error: Exception) -> bool:
    """As `render.short_of_memory`, for all that torch raises."""
    return isinstance(error, torch.OutOfMemoryError) or render.short_of_memory(error)


def is_lost(device: torch.device) -> bool:
    """Whether this process can use a device no more, as after an illegal access or a failed assertion in a kernel.

    Then CUDA answers every call with the same error, until the process ends; any other error it tells once. So the
    device is asked, whatever the error said.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return not short_of_memory(error)
    return False
