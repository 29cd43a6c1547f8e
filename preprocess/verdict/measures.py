"""What the measuring process does: answers one request after the other. Imports torch; `hand` is the other side."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from preprocess.verdict.cached import Part
from preprocess.verdict.imagefolder import images_of, rate, suitable_batch
from preprocess.verdict.model import time_model

_REASON_LENGTH = 200
_COLD_ROUNDS = 3


def batch_for_sweep(request: dict[str, Any]) -> int:
    """Images a batch while `num_workers` is swept."""
    return suitable_batch(images_of(request), request["batch"])


def imagefolder_rate(request: dict[str, Any]) -> float:
    """Images a second with so many workers."""
    return rate(images_of(request), request["workers"], request["batch"], request["seconds"], request["patience_s"])


def warm_rates(request: dict[str, Any]) -> dict[str, float]:
    """Images a second, in the two types that are trained with."""
    part = Part(*request["part"])
    each_s = request["seconds"] / 2
    return {"float32": part.warm(torch.float32, each_s), "float16": part.warm(torch.float16, each_s)}


def cold_rates(request: dict[str, Any]) -> dict[str, float]:
    """Images a second, in two orders that take turns: a disk that others use is not the same for long."""
    part = Part(*request["part"])
    loaders = {"shuffled": part.shuffled, "by_shards": part.in_order}
    found: dict[str, list[float]] = {name: [] for name in loaders}
    begun = time.perf_counter()
    for _ in range(_COLD_ROUNDS):
        for name, loader_of in loaders.items():
            found[name].append(part.cold(loader_of, request["seconds"] / 2))
        if time.perf_counter() - begun > request["seconds"] / 2:
            break
    return {name: statistics.median(rates) for name, rates in found.items()}


def model_rate(request: dict[str, Any]) -> dict[str, Any]:
    """See `model.time_model`."""
    return time_model(request["shape"], request["classes"], request["batch"], request["seconds"])


REQUESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    each.__name__: each for each in (batch_for_sweep, imagefolder_rate, warm_rates, cold_rates, model_rate)
}


def reason_of(error: Exception) -> str:
    """One line for a person."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    if isinstance(error, OSError):  # ours, and the system's, speak for themselves
        text = lines[0]
    elif "Traceback" in str(error):  # that of a DataLoader's worker, as a text: its end says what happened
        text = lines[-1]
    else:
        text = f"{type(error).__name__}: {lines[0]}"
    return text[:_REASON_LENGTH]


def main(descriptor: int) -> None:
    """Serve until the other end is closed: True and the answer, or False and why there is none."""
    connection = Connection(descriptor)
    connection.send((True, None))
    while True:
        try:
            name, request = connection.recv()
        except (EOFError, OSError):
            sys.stdout.flush()
            os._exit(0)  # nothing of a library's clean-up is wanted
        try:
            answer = (True, REQUESTS[name](request))
        except Exception as error:  # whatever a library raises is a figure that is missing, with its reason
            answer = (False, reason_of(error))
        connection.send(answer)
