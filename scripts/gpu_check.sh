#!/bin/sh
# All that needs a CUDA device: the tests marked `gpu`, then the benchmark. For a bare machine whose Python has torch.
#
#   sh scripts/gpu_check.sh [--device cuda|cpu]     cpu: a trial of this script on a machine without a GPU
#
# Settings come from the environment:
#
#   PYTHON   the interpreter, 3.11 or newer, that has torch and torchvision; if not given python3
#   WHEELS   a folder of wheels of all else that is needed: nothing is downloaded then
#   PHOTOS   a folder with train/<class>/ and val/<class>/ of JPEG for the benchmark; without it that is left out
#   IMAGES   how many images the benchmark builds from, 8000 if not given
#   OUT      where results go; if not given gpu-results
set -eu
cd -- "$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)"

say() {
    printf 'gpu_check: %s\n' "$*" >&2
}

device=cuda
case ${1:-} in
'') ;;
--device) device=${2:-} ;;
*) say "--device cuda or --device cpu expected, '$1' found" && exit 2 ;;
esac
case $device in cuda | cpu) ;; *) say "--device is cuda or cpu, not '$device'" && exit 2 ;; esac

python=${PYTHON:-python3}
out=${OUT:-gpu-results}
mkdir -p "$out"

if ! "$python" -c 'import sys, torch, torchvision; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    say "$python is older than 3.11, or has no torch and torchvision; name one that has: PYTHON=/path/to/python3"
    exit 2
fi
if [ "$device" = cuda ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    say "torch finds no CUDA device on this machine; --device cpu tries this script out without one"
    exit 2
fi

# What is there is used; what is missing goes into an environment beside the results, which sees the Python's own packages.
needed='import albumentations, cv2, zarr, click, pydantic, yaml, rich, google_crc32c, pytest, hypothesis'
if ! "$python" -c "$needed" 2> /dev/null; then
    say "making $out/venv for the packages that $python lacks"
    "$python" -m venv --system-site-packages "$out/venv"
    # When the Python lives in a virtual environment itself, the new one sees only the base of both.
    "$python" -c 'import sys, sysconfig; sys.prefix == sys.base_prefix or print(sysconfig.get_path("purelib"))' \
        > "$("$out/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/system-torch.pth"
    python=$out/venv/bin/python
    set -- 'albumentations>=2.0.8,<2.1' 'opencv-python-headless>=4.11' 'zarr>=3.1.4' 'click>=8.1' 'pydantic>=2.9.2' \
        'PyYAML>=6.0' 'rich>=13.0' 'google-crc32c>=1.5' 'pytest>=8.0' 'hypothesis>=6.100'
    if [ -n "${WHEELS:-}" ]; then set -- --no-index --find-links "$WHEELS" "$@"; fi
    "$python" -m pip install "$@" >&2
fi

PYTHONPATH=$(pwd)
export PYTHONPATH
"$python" - > "$out/machine.txt" <<'END'
import platform, sys, torch, torchvision, cv2, albumentations
print("python", sys.version.split()[0], "torch", torch.__version__, "torchvision", torchvision.__version__)
print("opencv", cv2.__version__, "albumentations", albumentations.__version__, platform.platform())
for number in range(torch.cuda.device_count()):
    print("gpu", number, torch.cuda.get_device_properties(number))
END
cat "$out/machine.txt"

# The benchmark runs whatever the tests say; this script fails if either does.
status=0
if [ "$device" = cpu ]; then
    DECANT_TEST_DEVICE=torch-cpu
    export DECANT_TEST_DEVICE
fi
"$python" -m pytest -m gpu tests/unit tests/integration > "$out/tests.txt" 2>&1 || status=1
tail -n 15 "$out/tests.txt"
if [ -n "${PHOTOS:-}" ]; then
    "$python" scripts/bench_gpu.py --photos "$PHOTOS" --device "$device" --images "${IMAGES:-8000}" \
        --work "$out/work" --json "$out/bench.json" > "$out/bench.txt" 2>&1 || status=1
    tail -n 30 "$out/bench.txt"
    rm -rf "$out/work"
else
    say "PHOTOS is not given: no benchmark"
fi
say "results are in $out"
exit "$status"
