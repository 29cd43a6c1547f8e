"""What the three packages show: lazily resolved names, none of them shadowed by a module (docs/decisions/005)."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ["preprocess", "cache_store", "loaders"]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_is_a_modules_name(name):
    package = import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}

    assert not modules & set(package.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_resolves_and_others_do_not(name):
    package = import_module(name)

    assert all(getattr(package, public) is not None for public in package.__all__)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = package.nothing_of_ours


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_package_imports_nothing_heavy(name):
    heavy = ("torch", "cv2", "albumentations", "zarr", "numpy")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
