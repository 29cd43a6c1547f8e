"""ShardShuffleSampler under Hugging Face Accelerate: each sample once, in two processes and in one."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from loaders import ShardShuffleSampler
from preprocess import build
from tests.helpers import TINY, image_folder

pytest.importorskip("accelerate")

from tests.frameworks.sharing import BATCH, SETTINGS, TIMEOUT_S, Numbered, accelerator, numbers

ROOT = Path(__file__).parents[2]
COUNT = 60


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    root = tmp_path_factory.mktemp("accelerate")
    image_folder(root / "photos", classes=("a", "b", "c", "d"), count=COUNT // 4)
    build(root / "photos", root / "cache", TINY, workers=1, shard_mib=4 * 384 / (1 << 20))
    return root / "cache"


@pytest.fixture(scope="module")
def both(cache, tmp_path_factory):
    """What each case gave in each of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.frameworks.sharing", str(rank), str(port), cache, folder / f"{rank}.json"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=2 * TIMEOUT_S)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return {case: [each[case] for each in found] for case in found[0]}


def each_once(shares, filled=0):
    """All samples are in the shares; Accelerate fills the last batches up with some of them."""
    counts = Counter(number for share in shares for number in share)
    assert sorted(counts) == list(range(COUNT))
    assert counts.total() == COUNT + filled
    assert max(counts.values()) <= 1 + bool(filled)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_sample_arrives_once_an_epoch(both, name, workers):
    found = [each[f"{name}, {workers} workers"] for each in both["settings"]]
    fills = 0 if name == "uneven" or "split" in name or "dispatch" in name else BATCH

    for epoch in range(2):
        each_once([each["epochs"][epoch] for each in found], fills)
    assert found[0]["epochs"][0] != found[0]["epochs"][1]  # Accelerate sets the epoch
    assert {each["plain"] for each in found} == {15}
    assert found[0]["prepared"] == (15 if "split" in name else 8)


@pytest.mark.parametrize(("case", "fills"), [("made_before", 10), ("batch_sampler", 4), ("to_device", 4)])
def test_each_sample_arrives_once_however_the_loader_is_made(both, case, fills):
    each_once(both[case], fills)


def test_ranks_that_were_given_are_refused_in_all_processes(both):
    for said in both["given"]:
        assert {text.split(":")[0] for text in said.values()} == {"a share of a share"}


def test_a_loader_that_was_not_prepared_shares_by_itself_and_says_so(both):
    each_once([each["seen"] for each in both["not_prepared"]])
    for each in both["not_prepared"]:
        assert any("did not prepare this loader" in said for said in each["said"])


@pytest.mark.parametrize("stop", [1, 3, None])
@pytest.mark.parametrize("name", ["as it comes", "split"])
def test_a_checkpoint_goes_on_at_the_next_sample(both, name, stop):
    found = [each[f"{name}, {stop}"] for each in both["resumed"]]
    fills = 0 if name == "split" else BATCH

    each_once([each["before"] + each["rest"] for each in found], fills)
    each_once([each["next"] for each in found], fills)
    assert found[0]["next"] != both["settings"][0][f"{name}, 0 workers"]["epochs"][1]


def test_batches_may_be_skipped(both):
    whole = [each["as it comes, 0 workers"]["epochs"][0] for each in both["settings"]]

    assert both["skipped"] == [share[2 * BATCH :] for share in whole]


@pytest.mark.parametrize("stop", [1, 3, 15])
def test_in_one_process_the_batch_that_is_fetched_ahead_counts_as_not_seen(cache, stop):
    dataset = Numbered(cache)
    sampler = ShardShuffleSampler(dataset)
    loader = accelerator().prepare(DataLoader(dataset, BATCH, sampler=sampler))
    seen = []
    for step, batch in enumerate(loader, start=1):
        seen += numbers([batch])
        if step == stop:
            break
    state = sampler.state_dict()

    assert state["position"] == stop * BATCH
    other = ShardShuffleSampler(dataset)
    other.load_state_dict(state)
    each_once([seen, list(other)])
