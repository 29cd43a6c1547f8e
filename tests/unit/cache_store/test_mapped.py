import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache_store.mapped import map_file

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def maps_of(path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a file"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def test_map_has_the_bytes_of_the_file(path):
    mapped = map_file(path)

    assert mapped.dtype == np.uint8
    assert mapped.tobytes() == path.read_bytes()


def test_map_cannot_be_made_writable(path):
    mapped = map_file(path)

    with pytest.raises(ValueError):
        mapped[0] = 1
    with pytest.raises(ValueError):
        mapped.flags.writeable = True
    with pytest.raises(ValueError):
        mapped[10:20].view(np.float16).flags.writeable = True


@linux
def test_unmapped_when_the_last_view_dies(path):
    assert maps_of(path) == 0
    mapped = map_file(path)
    view = mapped[100:200].view(np.float16).reshape(5, 10)
    buffer = memoryview(mapped)[3:4]

    del mapped
    assert maps_of(path) == 1
    assert view.tobytes() == path.read_bytes()[100:200]
    del view
    assert maps_of(path) == 1
    assert buffer[0] == 3
    del buffer
    assert maps_of(path) == 0


@linux
def test_each_map_is_its_own(path):
    first, second = map_file(path), map_file(path)
    del first

    assert second[255] == 255


def test_map_outlives_its_file(path):
    mapped = map_file(path)
    path.unlink()

    assert mapped[255] == 255


def test_file_replaced_by_another_keeps_its_bytes_in_the_map(path, tmp_path):
    mapped = map_file(path)
    (tmp_path / "other").write_bytes(bytes(10240))
    (tmp_path / "other").replace(path)

    assert mapped[255] == 255


def test_empty_file_is_an_empty_array(tmp_path):
    (tmp_path / "empty").write_bytes(b"")

    mapped = map_file(tmp_path / "empty")

    assert mapped.shape == (0,)
    assert mapped.dtype == np.uint8


@pytest.mark.parametrize(("name", "kind"), [("nothing", FileNotFoundError), (".", OSError)])
def test_what_cannot_be_mapped_is_an_error(tmp_path, name, kind):
    with pytest.raises(kind):
        map_file(tmp_path / name)


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_maps_keep_no_descriptor_open(path):
    script = """
import resource, sys
from pathlib import Path
from cache_store.mapped import map_file
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
maps = [map_file(Path(sys.argv[1])) for _ in range(400)]
print(sum(int(m[1]) for m in maps))
"""
    done = run(script, path)

    assert done.stdout == "400\n", done.stderr


def test_maps_can_be_read_until_the_process_has_ended(path):
    script = """
import atexit, sys
from pathlib import Path
kept = []
atexit.register(lambda: print(int(kept[0][255])))  # runs after the exit handlers of all that is imported below
from cache_store.mapped import map_file
kept.append(map_file(Path(sys.argv[1])))
"""
    done = run(script, path)

    assert done.returncode == 0, "killed while it read the map"
    assert done.stdout == "255\n"
