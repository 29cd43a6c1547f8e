"""What the package pulls in: a worker process that only writes shards must stay small."""

import pkgutil
import subprocess
import sys

import pytest

import cache_store

SUBMODULES = sorted(f"cache_store.{module.name}" for module in pkgutil.iter_modules(cache_store.__path__))


def imported_by(statement: str) -> set[str]:
    """Names of all modules after a statement in a fresh interpreter."""
    script = f"{statement}\nimport sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


def test_store_imports_no_torch_cv2_or_albumentations_and_no_package_above_it():
    modules = imported_by("import cache_store.metadata as m; m.encode_group({}); import " + ", ".join(SUBMODULES))

    assert set(SUBMODULES) <= modules
    assert "zarr" in modules
    assert not modules & {"torch", "cv2", "albumentations", "preprocess", "loaders"}


@pytest.mark.parametrize("statement", ["import cache_store.shard, cache_store.records, cache_store.durable"])
def test_writing_shards_needs_no_zarr(statement):
    assert not imported_by(statement) & {"zarr", "numcodecs", "asyncio"}


def test_reading_needs_no_zarr():
    assert "zarr" not in imported_by("from cache_store import open_cache, Cache")


def test_package_alone_imports_nothing():
    assert not imported_by("import cache_store") & {*SUBMODULES, "numpy"}


def test_public_names_resolve():
    for name in cache_store.__all__:
        assert getattr(cache_store, name).__name__ == name
    assert dir(cache_store) == cache_store.__all__


def test_other_names_do_not():
    with pytest.raises(AttributeError, match="no attribute 'write_cache'"):
        cache_store.write_cache  # noqa: B018
