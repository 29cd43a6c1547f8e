"""A build in a forked process that kills itself with SIGKILL at a named step."""

import functools
import importlib
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from preprocess.builder import build
from tests.integration.checks import SHARDS_OF_FOUR

STEPS = {
    "claim": "cache_store.writer:claim_folder",
    "recover": "cache_store.writer:recover",
    "begin": "cache_store.writer:begin",
    "hash": "preprocess.builder:hash_first",
    "take up": "preprocess.stock:Stock.add_recovered",
    "render": "preprocess.run:Run.render_missing",
    "shard": "preprocess.stock:Stock.add",
    "statistics": "preprocess.run:Run.settle_statistics",
    "normalise": "preprocess.run:Run.normalise",
    "tensors": "cache_store.writer:Commit.ensure_tensors",
    "adopt": "cache_store.writer:Commit.adopt",
    "journal": "cache_store.writer:Commit._write_journal",
    "publish": "cache_store.writer:Commit.publish",
    "folder": "cache_store.durable:make_dir",
    "table": "cache_store.durable:write_file",
    "replace": "cache_store.durable:replace_file",
    "rename": "cache_store.durable:rename",
    "flush": "cache_store.durable:flush_file",
    "flush folder": "cache_store.durable:flush_dir",
    "root": "cache_store.writer:write_root",
    "clear": "cache_store.writer:clear_pending",
}


def arm(step: str, count: int) -> None:
    """Have this process die at a step."""
    when, _, name = step.partition(":")
    module_name, _, path = STEPS[name].partition(":")
    *owner_path, attribute = path.split(".")
    owner: Any = importlib.import_module(module_name)
    for part in owner_path:
        owner = getattr(owner, part)
    function: Callable[..., Any] = getattr(owner, attribute)
    left = [count]

    @functools.wraps(function)
    def deadly(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if left[0] == 0 and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, deadly)


def start(source: Path, cache: Path, recipe: dict[str, Any], step: str, count: int = 1) -> BaseProcess:
    """Build in a process of its own, which dies at the `count`-th call of a step.

    Parameters
    ----------
    step : `before:NAME` or `after:NAME` of one of `STEPS`, or `never`
    """

    def run() -> None:
        if step != "never":
            arm(step, count)
        build(source, cache, recipe, workers=1, shard_mib=SHARDS_OF_FOUR)

    process = get_context("fork").Process(target=run)  # an interpreter of its own would take most of the time
    process.start()
    return process
