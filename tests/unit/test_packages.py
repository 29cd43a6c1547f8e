"""What the three packages show: lazily resolved names, none of them shadowed by a module (docs/decisions/005)."""

import ast
import inspect
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["preprocess", "cache_store", "loaders"]

USER_CODE = """
import torch
from torch.utils.data import DataLoader

from cache_store import open_cache
from loaders import CachedDataset, ShardShuffleSampler, to_device
from preprocess import BuildReport, Recipe, build, repair

recipe = Recipe(size=64, splits={"train": {"variants": 4, "transforms": [{"HorizontalFlip": {"p": 0.5}}]}})
report: BuildReport = build("photos", "cache", recipe, workers=3, progress=True)
build("photos", "cache", {"size": [64, 96]})
dataset = CachedDataset("cache", split="train", dtype=torch.float32, crop=32, flip=True)
loader = DataLoader(dataset, batch_size=4, sampler=ShardShuffleSampler(dataset, seed=3))
for images, labels in to_device(loader, "cpu"):
    print(images.shape, labels)
print(open_cache("cache").splits, repair("photos", "cache"))

Recipe(sise=64)  # wrong
build("a", "b", wrokers=3)  # wrong
CachedDataset("a", splt="train")  # wrong
open_cache(3)  # wrong
ShardShuffleSampler(dataset, sede=1)  # wrong
to_device(loader, "cpu", ahaed=2)  # wrong
"""


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
def test_type_checkers_see_the_names_that_resolve(name):
    package = import_module(name)
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(package))) if isinstance(node, ast.ImportFrom)]
    seen = {(node.module, alias.asname) for node in imports for alias in node.names if alias.asname}

    assert Path(package.__path__[0], "py.typed").is_file()
    assert seen == {(f"{name}.{module}", public) for public, module in package._PUBLIC.items()}


@pytest.mark.long
def test_mistakes_in_code_of_users_are_found_by_a_type_checker(tmp_path):
    script = tmp_path / "training.py"
    script.write_text(USER_CODE)
    mypy = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--follow-imports=silent"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}  # mypy does not follow an editable installation
    options = ["--python-version", "3.12", "--cache-dir", str(tmp_path / "mypy"), str(script)]
    ran = subprocess.run(
        [*mypy, *options], check=False, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
    )

    found = {int(line.split(":")[1]) for line in ran.stdout.splitlines() if ": error:" in line}
    wrong = {number for number, line in enumerate(USER_CODE.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_package_imports_nothing_heavy(name):
    heavy = ("torch", "cv2", "albumentations", "zarr", "numpy")
    code = f"import sys, {name}; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
