"""A build that is stopped, at any point and by any means: the old snapshot stays, the next build goes on from there."""

import os
import signal

import pytest

from cache_store import writer
from cache_store.errors import NotFoundError
from cache_store.reader import open_cache
from preprocess.builder import build
from preprocess.standby import STANDBY
from tests import decoders
from tests.helpers import TINY, image_folder
from tests.integration.checks import SHARDS_OF_FOUR, Watcher, assert_as_rendered, contents, stop_at
from tests.integration.processes import children, decoded, running, slow_build, stop_and_wait, wait_until

NOTING = "tests.decoders:decode"
IMAGES = 40
OPTIONS = ("--workers", "2", "--shard-mib", str(SHARDS_OF_FOUR))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("interrupt") / "photos", count=IMAGES // 2)


@pytest.fixture(scope="module")
def uninterrupted(photos, tmp_path_factory):
    """What a build that nobody stops makes of the photos."""
    cache = tmp_path_factory.mktemp("interrupt") / "cache"
    build(photos, cache, TINY, workers=2)
    return contents(cache)


def finished(cache):
    """Shards that an interrupted build has left, and how many variants are in them."""
    shards, _ = writer.recover(cache)
    return len(shards), sum(len(shard.rows) for shard in shards)


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True), (signal.SIGUSR1, True)],
)
def test_a_stopped_build_ends_at_once_and_the_next_one_goes_on(tmp_path, notes, photos, uninterrupted, number, group):
    """Ctrl-C, closed terminals and schedulers reach the whole group; a service manager sends SIGTERM to the builder."""
    cache = tmp_path / "cache"
    with slow_build(photos, cache, TINY, *OPTIONS, sleep_s=0.05) as process:
        # The second worker is started when the first has shown that there is work for two.
        wait_until(lambda: decoded() >= 14 and len(children(process.pid)) == 2, process=process)
        workers = children(process.pid)
        took_s, errors = stop_and_wait(process, number, group=group)

    assert process.returncode == 130
    assert took_s < 2
    assert (
        errors.splitlines()[-1] == "decant: interrupted; finished shards are kept, the same command goes on from there"
    )
    assert len(workers) == 2
    assert not any(running(worker) for worker in workers)
    with pytest.raises(NotFoundError, match="no finished snapshot"):
        open_cache(cache)
    _, kept = finished(cache)
    assert 4 <= kept < IMAGES
    decoders.noted().unlink()

    report = build(photos, cache, TINY, workers=1, decoder=NOTING)

    assert report.rendered == decoded() == IMAGES - kept
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)
    assert list((cache / "pending").glob("*/")) == []


def test_a_killed_builder_takes_its_workers_along(tmp_path, notes, photos):
    cache = tmp_path / "cache"
    build(image_folder(tmp_path / "few", count=2), cache, TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
    before = contents(cache)
    with slow_build(photos, cache, TINY, *OPTIONS, sleep_s=0.05) as process:
        # The second worker is started when the first has shown that there is work for two.
        wait_until(lambda: decoded() >= 14 and len(children(process.pid)) == 2, process=process)
        workers = children(process.pid)
        assert contents(cache) == before  # while it is built
        stop_and_wait(process, signal.SIGKILL, group=False)

    assert len(workers) == 2
    wait_until(lambda: not any(running(worker) for worker in workers), timeout_s=2)
    assert contents(cache) == before
    _, kept = finished(cache)
    assert kept >= 4
    decoders.noted().unlink()

    report = build(photos, cache, workers=1, decoder=NOTING)

    assert report.rendered == decoded() == IMAGES - 4 - kept
    assert contents(cache, "000001") == before
    assert_as_rendered(cache, photos)


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def interrupted(photos, cache, watcher=None, **options):
    """A build that does not come to its end."""
    with pytest.raises(KeyboardInterrupt):
        build(photos, cache, TINY, workers=1, decoder=NOTING, shard_mib=SHARDS_OF_FOUR, progress=watcher, **options)


def test_stopped_while_it_normalises(tmp_path, notes, photos, uninterrupted):
    """Some shards hold their final values by then, some 8-bit pixels: no image is decoded again."""
    cache = tmp_path / "cache"
    interrupted(photos, cache, stop_at("normalise", 12))
    assert decoded() == IMAGES
    assert {shard.mean is None for shard in writer.recover(cache)[0]} == {True, False}

    report = build(photos, cache, TINY, workers=1, decoder=NOTING)

    assert report.rendered == 0
    assert decoded() == IMAGES
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)


def test_stopped_while_it_normalises_and_then_the_photos_change(tmp_path, notes):
    """The statistics are others then: shards that were normalised already are brought to them."""
    cache = tmp_path / "cache"
    photos = image_folder(tmp_path / "photos", count=IMAGES // 2)
    interrupted(photos, cache, stop_at("normalise", 12))
    for path in sorted((photos / "dog").iterdir())[:10]:
        path.unlink()

    report = build(photos, cache, TINY, workers=1, decoder=NOTING)
    build(photos, tmp_path / "fresh", TINY, workers=1)

    assert decoded() == IMAGES
    assert report.rendered == 0
    assert contents(cache) == contents(tmp_path / "fresh")
    assert_as_rendered(cache, photos)


def test_stopped_and_then_another_type_is_asked_for(tmp_path, notes, photos):
    """Normalisation and type come last: what was rendered for one serves the other."""
    halves, staged = tmp_path / "halves", tmp_path / "bytes"
    interrupted(photos, halves, stop_at("normalise", 12))
    interrupted(photos, staged, stop_at("normalise"))

    as_bytes = build(photos, halves, TINY | {"dtype": "uint8"}, workers=1, decoder=NOTING)
    fixed = build(photos, staged, TINY | {"normalize": "imagenet"}, workers=1, decoder=NOTING)

    assert (as_bytes.rendered, fixed.rendered) == (0, 0)
    assert decoded() == 2 * IMAGES
    assert_as_rendered(halves, photos)
    assert_as_rendered(staged, photos)


@pytest.mark.parametrize("where", ["before", "after"])
def test_stopped_between_adopting_and_publishing(tmp_path, notes, photos, uninterrupted, monkeypatch, where):
    """The shards lie in the array already; or the tables are written, but the pointer is not."""
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        if where == "before":
            patch.setattr(writer.Commit, "publish", stop)
        else:
            write_root = writer.write_root
            patch.setattr(writer, "write_root", lambda c, root: stop() if root.snapshot else write_root(c, root))
        interrupted(photos, cache)
    assert list(cache.glob("tensors/*/image/c.*"))
    with pytest.raises(NotFoundError):
        open_cache(cache)

    report = build(photos, cache, workers=1, recipe=TINY, decoder=NOTING)

    assert report.rendered == 0
    assert decoded() == IMAGES
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)


def test_stopped_while_it_adopts(tmp_path, notes, photos, uninterrupted, monkeypatch):
    """Half of the shards are in the array, half are still pending."""
    cache, calls = tmp_path / "cache", []
    rename = writer.durable.rename

    def rename_some(old, new):
        if new.name.startswith("c."):
            calls.append(new)
            if len(calls) == 5:
                raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(writer.durable, "rename", rename_some)
        interrupted(photos, cache)

    report = build(photos, cache, TINY, workers=1, decoder=NOTING)

    assert (report.rendered, decoded()) == (0, IMAGES)
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)


def test_stopped_twice_at_the_same_place(tmp_path, notes, photos, uninterrupted, monkeypatch):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(writer.Commit, "publish", stop)
        interrupted(photos, cache)
        interrupted(photos, cache)

    build(photos, cache, TINY, workers=1, decoder=NOTING)

    assert decoded() == IMAGES
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)


def test_an_interrupted_build_that_is_not_needed_any_more_leaves_no_trace(tmp_path, photos, monkeypatch):
    """New images were being added when it was stopped; they are taken away again."""
    cache = tmp_path / "cache"
    copy = image_folder(tmp_path / "copy", count=4)
    build(copy, cache, TINY, workers=1)
    image_folder(copy, ("owl",), count=4, first_seed=500)
    with monkeypatch.context() as patch:
        patch.setattr(writer.Commit, "ensure_tensors", stop)
        with pytest.raises(KeyboardInterrupt):
            build(copy, cache, workers=1)
    assert finished(cache)[1] == 4
    for path in (copy / "owl").iterdir():
        path.unlink()
    (copy / "owl").rmdir()

    report = build(copy, cache, workers=1)

    assert report.up_to_date
    assert report.snapshot == "000001"
    assert list((cache / "pending").glob("*/")) == []


def test_a_damaged_shard_of_an_interrupted_build_is_rendered_again(tmp_path, notes, photos, uninterrupted):
    cache = tmp_path / "cache"
    interrupted(photos, cache, stop_at("normalise"))
    cut, flipped, lost, *_ = sorted(shard.path for shard in writer.recover(cache)[0])
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(flipped.read_bytes())
    data[5] ^= 1
    flipped.write_bytes(data)
    lost.unlink()

    report = build(photos, cache, TINY, workers=1, decoder=NOTING)

    assert report.rendered == 12
    assert contents(cache) == uninterrupted
    assert_as_rendered(cache, photos)


def test_an_error_of_ours_in_the_middle_leaves_no_worker(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("preprocess.pipeline._FEW_ITEMS", 0)  # both workers from the start
    STANDBY.clear()  # the worker of an earlier build
    others, workers = set(children(os.getpid())), set()

    def fail(stage, done):
        workers.update(set(children(os.getpid())) - others)
        if done:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        build(photos, tmp_path / "cache", TINY, workers=2, progress=Watcher(at_update=fail))

    assert len(workers) == 2
    assert not any(running(worker) for worker in workers)
