"""The way in: `make` on a machine that lacks something, with settings that change, with paths that bite.

Nothing is downloaded. Each test works in a copy of the set-up files, in a folder with a blank in its name, with a
stand-in for Python on PATH: it answers the questions that setup.sh asks, makes a `.venv` that holds itself, and
writes down what pip was told. What is installed is a `decant` that prints its arguments.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SETUP_FILES = ("Makefile", "pyproject.toml", "constraints.txt", "scripts/setup.sh")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# Answers by what it is asked for. FAKE_* come from the test; a copy in .venv/bin knows whose copy it is by its place.
FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
*_base_executable*) printf '%s\n' "${FAKE_VERSION:-3.11}" "${FAKE_BASE:-/fake}" "$0" ;;
*"import venv, ensurepip"*) exit "${FAKE_NO_VENV:-0}" ;;
*"import torch, torchvision; torch.zeros"*) exit "${FAKE_NUMPY_STATUS:-0}" ;;
*"import torch"*)
    if [ -n "${FAKE_TORCH:-}" ]; then printf 'torch==%s\ntorchvision==0.21.0\n' "$FAKE_TORCH"; exit; fi
    echo "ModuleNotFoundError: No module named 'torch'" >&2; exit 1 ;;
*purelib*) case $0 in .venv/*) echo .venv/lib/python3.11/site-packages ;; esac ;;
"-m venv"*)
    echo "$*" >> log
    rm -rf .venv; mkdir -p .venv/bin .venv/lib/python3.11/site-packages
    cp "$0" .venv/bin/python
    case "$*" in *--system-site-packages*) system=true ;; *) system=false ;; esac
    echo "include-system-site-packages = $system" > .venv/pyvenv.cfg ;;
"-m pip --version") ;;
"-m pip install"*)
    shift 2; printf '[%s]' "$@" >> log; echo >> log
    [ "${FAKE_PIP_STATUS:-0}" = 0 ] || exit "$FAKE_PIP_STATUS"
    printf '#!/bin/sh\nprintf "[%%s]" decant "$@"; echo\n' > .venv/bin/decant; chmod +x .venv/bin/decant ;;
*) printf '[%s]' python "$@"; echo ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Checkout:
    """A copy of the set-up files, and PATH with the stand-ins first."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a check out"
        self.programs = folder / "programs"
        for name in SETUP_FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        # The settings of the `make test` that runs these tests must not reach the `make` under test.
        ours = ("SOURCE", "CACHE", "RECIPE", "PYTHON", "PIP_ARGS", "SYSTEM_TORCH", "ARGS")
        inherited = {k: v for k, v in os.environ.items() if k not in ours and not k.startswith(("MAKE", "MFLAGS"))}
        self.environment = {**inherited, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        for name in ("python3", "python3.13", "python3.12", "python3.11"):
            write_program(self.programs / name, FAKE_PYTHON)
        self.set_free_mb(100_000)

    def set_free_mb(self, mb: int) -> None:
        lines = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/disk 1 1 {mb * 1024} 1% /\n"
        write_program(self.programs / "df", f"#!/bin/sh\ncat <<'END'\n{lines}END\n")

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def log(self) -> list[str]:
        """The calls of `venv` and `pip install` so far."""
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def stamps(self) -> set[str]:
        return {path.name for path in self.root.glob(".venv/ready-*")}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_plain_make_lists_every_target_with_a_line(checkout: Checkout) -> None:
    done = checkout.make()
    assert done.returncode == 0
    targets = "help setup cache test test-frameworks lint bench bench-load bench-variants demo clean"
    for target in targets.split():
        assert re.search(rf"^ *make {target} +\S+", done.stdout, re.MULTILINE), target
    assert checkout.log == []


# --- what is checked before anything is downloaded


def test_old_python_is_named_with_the_line_that_mends_it(checkout: Checkout) -> None:
    done = checkout.make("setup", FAKE_VERSION="3.9")
    assert done.returncode != 0
    assert "3.11 or newer" in done.stderr
    assert "python3 is 3.9" in done.stderr
    assert re.search(r"to mend it: .*(apt-get install|PYTHON=)", done.stderr)
    assert checkout.log == []


def test_a_newer_python_is_found_when_python3_is_too_old(checkout: Checkout) -> None:
    write_program(checkout.programs / "python3", FAKE_PYTHON.replace("${FAKE_VERSION:-3.11}", "3.9"))
    write_program(checkout.programs / "python3.13", "#!/bin/sh\necho 'a launcher without a Python' >&2; exit 127\n")
    done = checkout.make("setup", FAKE_VERSION="3.12")
    assert done.returncode == 0, done.stderr
    assert f"{checkout.programs}/python3.12" in done.stderr


def test_the_named_python_is_never_replaced_by_another(checkout: Checkout) -> None:
    done = checkout.make("setup", "PYTHON=/no/such/python")
    assert done.returncode != 0
    assert "PYTHON=" in done.stderr
    assert checkout.log == []


def test_missing_venv_module(checkout: Checkout) -> None:
    done = checkout.make("setup", FAKE_NO_VENV="1")
    assert done.returncode != 0
    assert "virtual environments" in done.stderr
    assert re.search(r"to mend it: .*(apt-get install -y python3-venv|PYTHON=)", done.stderr)
    assert checkout.log == []


def test_too_little_disk_says_how_much_is_missing(checkout: Checkout) -> None:
    checkout.set_free_mb(700)
    done = checkout.make("setup")
    assert done.returncode != 0
    assert "700 MB" in done.stderr
    assert re.search(r"to mend it: free \d{4} MB", done.stderr)
    assert checkout.log == []


def test_little_disk_is_spared_a_second_copy(checkout: Checkout) -> None:
    checkout.set_free_mb(10_500)
    assert checkout.make("setup").returncode == 0
    assert "[--no-cache-dir]" in checkout.log[-1]


def test_all_problems_are_said_at_once(checkout: Checkout) -> None:
    checkout.set_free_mb(700)
    done = checkout.make("setup", FAKE_NO_VENV="1")
    assert done.stderr.count("to mend it:") == 2


def test_sizes_are_said_before_the_download(checkout: Checkout) -> None:
    done = checkout.make("setup")
    if sys.platform == "linux":
        assert re.search(r"CUDA libraries \(\d.\d GB\)", done.stderr)
        assert "SYSTEM_TORCH=1" in done.stderr


# --- once is enough, and half is not


def test_cache_installs_for_use_and_test_for_development(checkout: Checkout) -> None:
    assert checkout.make("cache", "SOURCE=a", "CACHE=b").returncode == 0
    assert checkout.log[-1] == "[install][-c][constraints.txt][-e][.[report]]"
    assert checkout.stamps == {"ready-run"}
    assert checkout.make("test").returncode == 0
    assert checkout.log[-1] == "[install][-c][constraints.txt][-e][.[dev]]"
    assert checkout.stamps == {"ready-run", "ready-dev"}


def test_frameworks_are_installed_for_their_tests_alone(checkout: Checkout) -> None:
    done = checkout.make("test-frameworks", "ARGS=-k 'this or that'")
    assert done.stdout == "[python][-m][pytest][tests/frameworks][-k][this or that]\n"
    assert checkout.log[-1] == "[install][-c][constraints.txt][-e][.[dev,frameworks]]"
    assert checkout.stamps == {"ready-run", "ready-dev", "ready-frameworks"}
    before = checkout.log
    checkout.make("test")
    checkout.make("test-frameworks")
    assert checkout.log == before


def test_with_the_setup_done_nothing_is_installed_and_little_time_passes(checkout: Checkout) -> None:
    checkout.make("setup")
    before = checkout.log
    start = time.perf_counter()
    done = checkout.make("cache", "SOURCE=a", "CACHE=b")
    seconds = time.perf_counter() - start
    assert done.stdout == "[decant][build][a][b]\n"
    assert done.stderr == ""
    assert checkout.log == before
    assert seconds < 2


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed(checkout: Checkout, name: str) -> None:
    checkout.make("setup")
    with (checkout.root / name).open("a") as file:
        file.write("\n# changed\n")
    before = len(checkout.log)
    checkout.make("setup")
    assert [line.split("]")[0] for line in checkout.log[before:]] == ["[install"]


def test_a_moved_checkout_is_installed_again(checkout: Checkout) -> None:
    checkout.make("setup")
    before = len(checkout.log)
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.make("cache", "SOURCE=a", "CACHE=b").returncode == 0
    assert len(checkout.log) == before + 1


def test_a_failed_installation_leaves_no_stamp_and_the_next_one_goes_on(checkout: Checkout) -> None:
    failed = checkout.make("setup", FAKE_PIP_STATUS="1")
    assert failed.returncode != 0
    assert "goes on from here" in failed.stderr
    assert checkout.stamps == set()
    assert checkout.make("setup").returncode == 0
    assert sum("-m venv" in line for line in checkout.log) == 1, "the .venv was to be kept"
    assert checkout.stamps == {"ready-run", "ready-dev"}


def test_a_package_that_was_cut_off_is_not_taken_for_installed(checkout: Checkout) -> None:
    checkout.make("setup", FAKE_PIP_STATUS="1")
    packages = checkout.root / ".venv/lib/python3.11/site-packages"
    for name in ("whole-1.dist-info", "cut-1.dist-info"):
        (packages / name).mkdir()
        (packages / name / "METADATA").touch()
    (packages / "whole-1.dist-info/INSTALLER").touch()
    checkout.make("setup")
    assert [path.name for path in packages.glob("*.dist-info")] == ["whole-1.dist-info"]


def test_a_venv_without_a_working_python_is_made_anew(checkout: Checkout) -> None:
    checkout.make("setup")
    (checkout.root / ".venv/bin/python").unlink()
    done = checkout.make("setup")
    assert done.returncode == 0, done.stderr
    assert "not whole" in done.stderr


# --- settings


def test_pip_arguments_reach_every_installation(checkout: Checkout) -> None:
    checkout.make("setup", "PIP_ARGS=--index-url https://user:p&s$$w*@mirror/simple --retries 9")
    expected = "[install][--index-url][https://user:p&s$$w*@mirror/simple][--retries][9][-c]"
    assert checkout.log[-1].startswith(expected)


def test_another_python_rebuilds_and_none_named_keeps(checkout: Checkout) -> None:
    checkout.make("setup", "PYTHON=python3.12")
    before = checkout.log
    assert checkout.make("setup", "PYTHON=python3.12").stderr == ""
    assert checkout.make("setup").stderr == ""
    assert checkout.log == before
    write_program(checkout.programs / "python3.13", FAKE_PYTHON.replace("${FAKE_BASE:-/fake}", "/other"))
    done = checkout.make("setup", "PYTHON=python3.13")
    assert ".venv was made with Python 3.11 /fake" in done.stderr
    assert [line.split()[0] for line in checkout.log[len(before) :]] == [
        "-m",
        "[install][-c][constraints.txt][-e][.[dev]]",
    ]


def test_system_torch_is_pinned_to_what_is_there(checkout: Checkout) -> None:
    done = checkout.make("cache", "SOURCE=a", "CACHE=b", "SYSTEM_TORCH=1", FAKE_TORCH="2.6.0+cu124")
    assert done.returncode == 0, done.stderr
    assert "--system-site-packages" in checkout.log[0]
    pins = (checkout.root / ".venv/constraints.txt").read_text()
    about_torch = re.findall(r"^(?:torch(?!data|metrics)|nvidia|sympy).*", pins, re.MULTILINE)
    assert about_torch == ["torch==2.6.0+cu124", "torchvision==0.21.0"]
    assert "\nnumpy==" in pins
    # Not asked again: a later command keeps the setting.
    assert checkout.make("cache", "SOURCE=a", "CACHE=b").stderr == ""


def test_system_torch_that_is_not_there(checkout: Checkout) -> None:
    done = checkout.make("setup", "SYSTEM_TORCH=1")
    assert done.returncode != 0
    assert "No module named 'torch'" in done.stderr
    assert "to mend it: make setup SYSTEM_TORCH=0" in done.stderr
    assert checkout.log == []


def test_system_torch_that_the_pins_break(checkout: Checkout) -> None:
    done = checkout.make("setup", "SYSTEM_TORCH=1", FAKE_TORCH="2.4.0", FAKE_NUMPY_STATUS="1")
    assert done.returncode != 0
    assert "does not work with the packages" in done.stderr
    assert checkout.stamps == set()


def test_a_changed_system_torch_rebuilds(checkout: Checkout) -> None:
    checkout.make("setup")
    done = checkout.make("setup", "SYSTEM_TORCH=1", FAKE_TORCH="2.6.0")
    assert done.returncode == 0
    assert "made with SYSTEM_TORCH=0, and SYSTEM_TORCH=1 is asked for" in done.stderr
    assert sum("-m venv" in line for line in checkout.log) == 2


# --- the main job


PATHS_THAT_BITE = 'my photos, it\'s, say "x", a$b, a$(echo b), a$(b, a`b`, a\\b, a\\, a#b, *, a;b&c|d, é×, a:b=c'.split(
    ", "
)


@pytest.mark.parametrize("path", PATHS_THAT_BITE)
def test_any_path_reaches_the_command_intact(checkout: Checkout, path: str) -> None:
    checkout.make("setup")
    expected = f"[decant][build][{path}][{path}/c][--recipe][{path}.yaml][--workers][4]\n"
    values = {"SOURCE": path, "CACHE": f"{path}/c", "RECIPE": f"{path}.yaml"}
    given = checkout.make("cache", *(f"{name}={value}" for name, value in values.items()), "ARGS=--workers 4")
    assert given.stdout == expected
    assert checkout.make("cache", "ARGS=--workers 4", **values).stdout == expected


def test_source_without_cache_is_refused_before_any_setup(checkout: Checkout) -> None:
    done = checkout.make("cache", "SOURCE=photos")
    assert done.returncode == 2
    assert "CACHE=" in done.stderr.splitlines()[0]
    assert checkout.log == []


def test_without_a_source_a_demo_is_drawn_and_built(checkout: Checkout) -> None:
    done = checkout.make("cache")
    assert "[python][scripts/make_demo.py][demo/photos]" in done.stderr
    assert done.stdout == "[decant][build][demo/photos][demo/cache]\n"


def test_the_demo_gets_its_arguments(checkout: Checkout) -> None:
    assert checkout.make("demo", "ARGS=--epochs 1").stdout == "[python][scripts/demo.py][--epochs][1]\n"


def test_arguments_reach_the_tests(checkout: Checkout) -> None:
    done = checkout.make("test-all", "ARGS=-k 'this or that'")
    assert done.stdout == "[python][-m][pytest][-k][this or that]\n"
    done = checkout.make("test", "ARGS=-x")
    assert done.stdout == "[python][-m][pytest][-m][not long][-x]\n"


def test_clean_keeps_the_venv(checkout: Checkout) -> None:
    checkout.make("setup")
    for name in ("demo/photos", "scripts/__pycache__", ".pytest_cache"):
        (checkout.root / name).mkdir(parents=True)
    checkout.make("clean")
    assert not (checkout.root / "demo").exists()
    assert not (checkout.root / "scripts/__pycache__").exists()
    assert checkout.stamps == {"ready-run", "ready-dev"}


def test_the_continuous_check_says_what_is_missing(tmp_path: Path) -> None:
    # PATH holds next to nothing, so that `make` is not found; apt-get is there, and must not be run.
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    write_program(tmp_path / "apt-get", f"#!/bin/sh\ntouch {tmp_path}/installed\n")
    write_program(tmp_path / "python3", "#!/bin/sh\n")
    environment = {"PATH": str(tmp_path), "CI": "false"}
    done = subprocess.run([ROOT / ".ci/run"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install make" in done.stderr
    assert not (tmp_path / "installed").exists()


# --- the files agree with each other


def test_every_direct_requirement_has_a_pin_that_satisfies_it() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]:
        requirement = Requirement(text)
        assert versions[requirement.name.lower()] in requirement.specifier, text


def test_setup_finds_the_line_that_parts_torch_from_the_rest() -> None:
    above, _, below = (ROOT / "constraints.txt").read_text().partition("\n# torch, and what only torch brings")
    assert "\nnumpy==" in above
    assert "torch==" not in above
    assert "\ntorch==" in below
