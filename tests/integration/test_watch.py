"""`decant watch` as a process of its own."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cache_store.verify import verify
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_as_rendered, paths
from tests.integration.processes import ROOT, children, running, stop_and_wait, wait_until

_DECANT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
from preprocess.cli import main
sys.argv[0] = "decant"
main()
"""


@pytest.mark.parametrize(("number", "group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_files_that_are_added_get_into_the_cache_until_a_signal_ends_it(tmp_path, number, group):
    photos, cache = image_folder(tmp_path / "photos of größe", count=2), tmp_path / "cache"
    build(photos, cache, TINY, workers=1)
    process = subprocess.Popen(
        [sys.executable, "-c", _DECANT, "watch", photos, cache, "--workers", "1", "--settle", "0.3", "--poll", "0.1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    out = process.stdout
    assert out is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(out.readline, "")), daemon=True)
    reader.start()
    try:
        wait_until(lambda: any("up to date: snapshot 000001" in line for line in lines), process=process)
        write_image(photos / "cat" / "new ä.png", 77)
        wait_until(lambda: any("built snapshot 000002" in line for line in lines), process=process)
        assert "cat/new ä.png" in paths(cache)
        (photos / "dog" / "000.png").unlink()
        wait_until(lambda: any("built snapshot 000003" in line for line in lines), process=process)
        workers = children(process.pid)
        process.stdout = None  # the thread reads it
        took_s, errors = stop_and_wait(process, number, group=group)
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        out.close()

    assert process.returncode == 130
    assert took_s < 5
    assert errors.split("\n", 1)[0] == f"watching {photos}; Ctrl-C ends it"
    assert errors.strip().splitlines()[-1].startswith("decant: interrupted; finished shards are kept")
    assert "Traceback" not in errors
    assert len(lines) == 3, "a line for each build"
    assert workers, "one waits for the next build"
    assert not any(running(worker) for worker in workers)
    assert verify(cache).exit_code == 0
    assert_as_rendered(cache, photos)
    assert not list(Path(cache / "pending").glob("*/"))


def test_what_cannot_be_meant_ends_it_at_once(tmp_path, decant):
    image_folder(tmp_path / "photos", count=1)

    refused = decant("watch", "photos", "photos/cache", "--settle", "0", cwd=tmp_path, code=2)
    missing = decant("watch", "nowhere", "cache", cwd=tmp_path, code=2)

    assert "CACHE 'photos/cache' lies inside SOURCE 'photos'" in refused.stderr
    assert "SOURCE 'nowhere' does not exist" in missing.stderr
    assert refused.stdout == missing.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
