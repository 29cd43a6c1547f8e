#!/bin/sh
# Makes .venv ready: `scripts/setup.sh run` to use decant, `scripts/setup.sh dev` to test it too, and
# `scripts/setup.sh frameworks` to test it with frameworks that only those tests need.
# When nothing has changed since the last time, it looks and ends.
#
# Settings come from the environment, or from `make setup NAME=value`:
#
#   PYTHON        the interpreter to make .venv with; if not given python3, or python3.13 down to 3.11
#   PIP_ARGS      goes to every `pip install`, split at blanks: a mirror, a proxy, --no-cache-dir
#   SYSTEM_TORCH  1: use the torch and torchvision that PYTHON has; 0: install them into .venv
#
# A setting that is not given stays as it was when .venv was made; one that differs rebuilds .venv.
# All is said on stderr, so that the output of `make cache` is decant's own.
# .venv/ready-run, ready-dev and ready-frameworks hold the checksum of what the last complete installation of each was
# made from.
set -eu
cd -- "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)"
here=$(pwd)
level=${1:-run}
failed=

say() {
    printf 'setup: %s\n' "$*" >&2
}

# What is wrong, and the line that mends it. The remaining checks go on, so that all is said at once.
problem() {
    printf 'setup: %s\n  to mend it: %s\n' "$1" "$2" >&2
    failed=1
}

# Three lines about an interpreter: its version, its base, its path. With .venv activated, `python3` is the one that
# may be about to vanish, so its base is named instead. This runs on any Python, were it only to be called too old.
probe() {
    "$1" -c '
import os, sys
own = os.path.realpath(sys.prefix) == os.path.realpath(".venv")
print("%d.%d" % sys.version_info[:2])
print(getattr(sys, "base_prefix", sys.prefix))
print(sys._base_executable if own else sys.executable)' 2> /dev/null
}

new_enough() { # VERSION
    [ "${1%.*}" -gt 3 ] || { [ "${1%.*}" -eq 3 ] && [ "${1#*.}" -ge 11 ]; }
}

apt_line() { # PACKAGES
    sudo='sudo '
    [ "$(id -u)" -ne 0 ] || sudo=
    printf '%sapt-get update && %sapt-get install -y %s' "$sudo" "$sudo" "$1"
}

is_ready() {
    [ "$(cat ".venv/ready-$level" 2> /dev/null)" = "$wanted" ]
}

# Prints 1 or 0: does .venv see the packages of the Python that it was made with?
sees_system() {
    if grep -q '^include-system-site-packages = true' .venv/pyvenv.cfg 2> /dev/null; then echo 1; else echo 0; fi
}

# Prints why .venv cannot be used as it is; nothing if it can.
reason_to_rebuild() {
    made_with=$(probe .venv/bin/python | head -n 2 | paste -s -d ' ' -)
    if [ -z "$made_with" ]; then
        echo ".venv is not whole: its Python does not run"
    elif ! is_ready && ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
        echo ".venv is not whole: it has no pip"
    elif [ -n "${SYSTEM_TORCH:-}" ] && [ "$SYSTEM_TORCH" != "$(sees_system)" ]; then
        echo ".venv was made with SYSTEM_TORCH=$(sees_system), and SYSTEM_TORCH=$SYSTEM_TORCH is asked for"
    elif [ -n "${PYTHON:-}" ]; then
        asked=$(probe "$PYTHON" | head -n 2 | paste -s -d ' ' -)
        [ "$asked" = "$made_with" ] || echo ".venv was made with Python $made_with, and PYTHON=$PYTHON is asked for"
    fi
}

# Sets python (its path) and version, or reports a problem.
find_python() {
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    seen=
    for candidate; do
        # A name on PATH may be a launcher with no interpreter behind it, so each one is run.
        facts=$(probe "$candidate") || continue
        version=$(printf '%s\n' "$facts" | sed -n 1p)
        python=$(printf '%s\n' "$facts" | sed -n 3p)
        if new_enough "$version"; then return; fi
        seen="${seen:+$seen, }$candidate is $version"
    done
    python=
    if [ -n "${PYTHON:-}" ]; then
        problem "Python 3.11 or newer is needed: ${seen:-$PYTHON does not run}" "make setup PYTHON=python3.12"
    elif command -v apt-get > /dev/null; then
        problem "Python 3.11 or newer is needed: ${seen:-none found}" "$(apt_line 'python3.11 python3.11-venv')"
    else
        problem "Python 3.11 or newer is needed: ${seen:-none found}" "install one, then make setup PYTHON=/path/to/python3"
    fi
}

check_venv_module() {
    if "$python" -c 'import venv, ensurepip' 2> /dev/null; then return; fi
    if command -v apt-get > /dev/null; then
        problem "$python cannot make virtual environments" "$(apt_line "python3-venv python$version-venv")"
    else
        problem "$python cannot make virtual environments" "install another one, then make setup PYTHON=/path/to/python3"
    fi
}

# Sets torch_pins to the two versions found: pinned so, no other requirement can replace them.
check_system_torch() {
    if found=$("$python" -c '
import sys
from importlib.metadata import version
import torch, torchvision
for name, least in ("torch", (2, 4)), ("torchvision", (0, 19)):
    pin = name + "==" + version(name)
    if tuple(int(part) for part in version(name).split(".")[:2]) < least:
        sys.exit("%s is older than %d.%d" % (pin, *least))
    print(pin)' 2>&1); then
        torch_pins=$(printf '%s\n' "$found" | grep -E '^torch(vision)?==')
    else
        problem "SYSTEM_TORCH=1, but $python has no torch and torchvision to use: $(printf '%s\n' "$found" | tail -n 1)" \
            "make setup SYSTEM_TORCH=0, or name a Python that has them: PYTHON=/path/to/python3"
    fi
}

# Megabytes at the worst moment: what is installed, plus the wheels that pip holds until the end.
check_disk() {
    need_mb=1300
    cache_mb=0
    if [ "$system_torch" = 0 ] && [ "$(uname -s)" = Linux ]; then need_mb=9700 cache_mb=3300; fi
    # An old .venv has part of it already, or is about to go. With torch in place, only small things can be missing.
    [ ! -d .venv ] || need_mb=$((need_mb - $(du -sm .venv | cut -f 1)))
    if [ "$python" = .venv/bin/python ]; then
        for torch in .venv/lib/python*/site-packages/torch-*.dist-info; do [ ! -d "$torch" ] || need_mb=0 cache_mb=0; done
    fi
    [ "$need_mb" -ge 500 ] || need_mb=500
    free_mb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    if [ "$free_mb" -lt "$need_mb" ]; then
        problem "$here has $free_mb MB of disk left; installing needs $need_mb MB" \
            "free $((need_mb - free_mb)) MB there$([ "$need_mb" -lt 5000 ] || echo ', or use an installed torch: SYSTEM_TORCH=1')"
    elif [ "$free_mb" -lt $((need_mb + cache_mb)) ]; then
        say "little disk: pip keeps no copy of what it downloads"
        PIP_ARGS="${PIP_ARGS:-} --no-cache-dir"
    fi
}

make_venv() {
    say "making .venv with $python ($version)"
    if [ "$system_torch" = 0 ]; then
        "$python" -m venv --clear .venv
        return
    fi
    "$python" -m venv --clear --system-site-packages .venv
    # When PYTHON lives in a virtual environment itself, .venv sees only the base of both; a path file adds the rest.
    "$python" -c 'import sys, sysconfig; sys.prefix == sys.base_prefix or print(sysconfig.get_path("purelib"))' \
        > "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/system-torch.pth"
}

install() {
    constraints=constraints.txt
    if [ "$system_torch" = 1 ]; then
        constraints=.venv/constraints.txt
        { sed '/^# torch, and what only torch brings/,$d' constraints.txt && printf '%s\n' "$torch_pins"; } > "$constraints"
        say "using $(printf '%s\n' "$torch_pins" | paste -s -d ' ' -); downloading at most 0.3 GB"
    elif [ "$(uname -s)" = Linux ]; then
        say "downloading what is missing of torch with its CUDA libraries (3.0 GB) and the rest (0.3 GB)"
        say "on disk: 6 GB. SYSTEM_TORCH=1 reuses an installed torch instead"
    fi
    # pip writes INSTALLER last: a package without it was cut off half-way, and would pass for installed.
    for package in .venv/lib/python*/site-packages/*.dist-info; do
        [ ! -d "$package" ] || [ -f "$package/INSTALLER" ] || rm -rf "$package"
    done
    # Wheels are unpacked beside .venv: /tmp is often kept in memory, and too small for them.
    rm -rf .venv/tmp
    mkdir .venv/tmp
    case $level in
    run) extras="[report]" ;; # who uses decant gets `decant report` with it; dev has what that needs
    dev) extras="[dev]" ;;
    frameworks) extras="[dev,frameworks]" ;;
    esac
    set -f # PIP_ARGS falls into words, but a * in it stays a *
    # shellcheck disable=SC2086
    TMPDIR="$here/.venv/tmp" PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 \
        .venv/bin/python -m pip install ${PIP_ARGS:-} -c "$constraints" -e ".$extras" >&2 || {
        say "pip failed, see above; the same command goes on from here (behind a mirror: PIP_ARGS='--index-url …')"
        exit 1
    }
    set +f
    rm -rf .venv/tmp
}

# The pins in force may still be too new for an old torch: NumPy 2 for one compiled against NumPy 1.
check_together() {
    if ! found=$(.venv/bin/python -c 'import torch, torchvision; torch.zeros(1).numpy()' 2>&1); then
        problem "this torch does not work with the packages that decant needs: $(printf '%s\n' "$found" | tail -n 1)" \
            "make setup SYSTEM_TORCH=0"
        exit 1
    fi
}

case $level in run | dev | frameworks) ;; *) say "run, dev or frameworks expected, '$level' found" && exit 2 ;; esac
case ${SYSTEM_TORCH:-} in '' | 0 | 1) ;; *) say "SYSTEM_TORCH is 1 or 0, not '$SYSTEM_TORCH'" && exit 2 ;; esac

# The checkout's place counts too: the installation points to it, so a moved checkout is installed again.
wanted=$({ cat pyproject.toml constraints.txt && echo "$here"; } | cksum)
system_torch=${SYSTEM_TORCH:-$(sees_system)}
python=
if [ -e .venv ]; then
    reason=$(reason_to_rebuild)
    if [ -z "$reason" ]; then
        if is_ready; then exit 0; fi
        python=.venv/bin/python
    else
        say "$reason: making it anew"
    fi
fi

if [ -z "$python" ]; then
    find_python
    [ -z "$python" ] || check_venv_module
fi
[ "$system_torch" = 0 ] || [ -z "$python" ] || check_system_torch
check_disk
[ -z "$failed" ] || exit 1

[ "$python" = .venv/bin/python ] || make_venv
rm -f ".venv/ready-$level"
install
[ "$system_torch" = 0 ] || check_together
echo "$wanted" > .venv/ready-run
[ "$level" = run ] || echo "$wanted" > .venv/ready-dev
[ "$level" != frameworks ] || echo "$wanted" > .venv/ready-frameworks
say "ready"
