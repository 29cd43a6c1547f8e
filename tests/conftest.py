"""Which tests `make test` leaves to `make test-all`: those that take minutes and seldom find what others miss."""

import os

import pytest

# Tests run `make` themselves: what this run was told, such as ARGS, is not meant for those.
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "SOURCE", "CACHE", "RECIPE"):
    os.environ.pop(_name, None)

_LONG = ("tests/scripts/", "tests/setup/", "tests/docs/test_pages", "tests/docs/test_site", "test_page_in_browser")
_SHORT = "[docs/tutorial.md]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(part in item.nodeid for part in _LONG) and _SHORT not in item.nodeid:
            item.add_marker("long")
