"""Whether users would notice what changed since an older commit: the same probes in both trees, and what differs.

    python scripts/same_behaviour.py COMMIT      (or: make same OLD=COMMIT)

The old tree is the commit's, the new one what stands in this checkout, committed or not. Both are copied into a
temporary folder, where behaviour.py (see there for the probes) runs with each, and where a wheel of each is built and
run. A dataset, a sampler's state and a cache of the old tree are opened by both. Ends with 1 if anything differs.
"""

import argparse
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
PARTS = ("names", "commands", "mistakes", "caches", "leave")
PACKAGES = ("preprocess", "cache_store", "loaders")
LIMIT_S = 1200
SHOWN = 5
WIDTH = 400
NO_EDITABLE = """# An editable install would stand in for modules that a tree lacks: not in processes that start here.
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""


# -- the trees ---------------------------------------------------------------------------------------------------------


def run(command: list[Any], folder: Path, **environment: str) -> str:
    """Stdout of a command.

    Raises
    ------
    RuntimeError : it failed; with the end of its stderr
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DECANT_"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def copy_commit(commit: str, tree: Path) -> None:
    archive = tree.with_suffix(".tar")
    run(["git", "archive", "--output", archive, commit], ROOT)
    shutil.unpack_archive(archive, tree)


def copy_checkout(tree: Path) -> None:
    """All files that git does not ignore, as they are now."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


# -- the probes --------------------------------------------------------------------------------------------------------


def probe(part: str, tree: Path, folder: Path) -> dict[str, Any]:
    """What behaviour.py finds with the modules of `tree`."""
    folder.mkdir(exist_ok=True)
    program = tree.parent / "probe"
    printed = run([sys.executable, program / "behaviour.py", part, tree], folder, PYTHONPATH=f"{tree}:{program}")
    return {f"{part}: {name}": value for name, value in json.loads(printed).items()}


def wheel(tree: Path) -> dict[str, Any]:
    """What a wheel of `tree` holds, and whether it works outside of any checkout."""
    wheels, site = tree.with_name(f"{tree.name} wheels"), tree.with_name(f"{tree.name}-wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", wheels, tree], tree.parent)
    (file,) = wheels.glob("*.whl")
    run([sys.executable, "-m", "zipfile", "-e", file, site], tree.parent)
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    command = [sys.executable, "-c", "from decant_cli import main; main()", "--help"]
    modules = {path.relative_to(tree) for package in PACKAGES for path in (tree / package).rglob("*.py")}
    found = {
        "wheel: top level": sorted(path.name for path in site.iterdir()),
        "wheel: entry points": entry_points.read_text().splitlines(),
        "wheel: modules that are left out": sorted(str(path) for path in modules if not (site / path).exists()),
    }
    found["wheel: decant --help"] = run(command, site, PYTHONPATH=f"{site}:{tree.parent / 'probe'}").splitlines()
    for part in ("names", "leave"):
        found |= {f"wheel: {k}": v for k, v in probe(part, site, tree.with_name(f"{tree.name} wheel {part}")).items()}
    return found


def all_of(tree: Path) -> dict[str, Any]:
    """Every probe of one tree but `open`, which comes when the old tree is done."""
    found: dict[str, Any] = {}
    for part in PARTS:
        began = time.monotonic()
        found |= probe(part, tree, tree.with_name(f"{tree.name} {part}"))
        print(f"{tree.name} tree: {part}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return found | wheel(tree)


# -- the comparison ----------------------------------------------------------------------------------------------------


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """What differs between two JSON values, a line each; none if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in old | new:
            where = f"{place} > {key}" if place else key
            if key not in new:
                found.append(f"{where}: only in the old tree: {old[key]!r:.{WIDTH}}")
            elif key not in old:
                found.append(f"{where}: only in the new tree: {new[key]!r:.{WIDTH}}")
            else:
                found += differences(old[key], new[key], where)
        return found
    if isinstance(old, list) and isinstance(new, list):
        if len(old) == len(new):
            return [line for i, pair in enumerate(zip(old, new)) for line in differences(*pair, f"{place}[{i}]")]
        lines = difflib.ndiff([json.dumps(each) for each in old], [json.dumps(each) for each in new])
        return [f"{place}: {line:.{WIDTH}}" for line in lines if line[0] in "-+"]
    if type(old) is type(new) and old == new:
        return []
    return [f"{place}: old {old!r:.{WIDTH}}\n{' ' * len(place)}  new {new!r:.{WIDTH}}"]


def compare(commit: str) -> int:
    """Print what differs; 1 if anything does."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="decant-same-") as temporary:
        old, new = (Path(temporary).resolve() / name for name in ("old", "new"))
        copy_commit(commit, old)
        copy_checkout(new)
        program = old.with_name("probe")
        program.mkdir()
        for name in ("behaviour.py", "mistakes.py"):
            shutil.copy(SCRIPTS / name, program)
        (program / "sitecustomize.py").write_text(NO_EDITABLE)
        with ThreadPoolExecutor(2) as pool:
            found_old, found_new = pool.map(all_of, (old, new))
        for tree, found in ((new, found_new), (old, found_old)):
            found |= probe("open", tree, old.with_name("old leave"))
    count = 0
    for name in found_old | found_new:
        before, after = ({name: found[name]} if name in found else {} for found in (found_old, found_new))
        lines = differences(before, after)
        count += bool(lines)
        print("".join(f"{line}\n" for line in lines[:SHOWN]), end="")
        if len(lines) > SHOWN:
            print(f"{name}: and {len(lines) - SHOWN} more")
    said = (
        f"{count} of {len(found_old | found_new)} probes differ"
        if count
        else f"no difference in {len(found_old)} probes"
    )
    print(f"{said}: {commit} and this checkout, {time.monotonic() - began:.0f} s")
    return 1 if count else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="COMMIT", help="what to compare this checkout with")
    try:
        sys.exit(compare(parser.parse_args().old))
    except RuntimeError as error:
        sys.exit(f"{error}\nnothing was compared")


if __name__ == "__main__":
    main()
