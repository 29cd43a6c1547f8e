"""Read a sample of a cache with zarr-python alone: nothing of decant is imported.

    python examples/read_with_zarr.py CACHE [--split val] [--sample 0] [--variant 0] [--png sample.png]

Prints path, class and checksum of the sample, and compares the checksum with the one that its snapshot recorded.
"""

import argparse
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from PIL import Image


def to_pixels(tensor: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """A tensor of a cache, (C, H, W), as uint8 (H, W, C): float16 is de-normalised, uint8 is pixels already."""
    planes = tensor
    if tensor.dtype != np.uint8:
        column = (-1, 1, 1)
        scaled = tensor.astype(np.float64) * np.reshape(std, column) + np.reshape(mean, column)
        planes = np.rint(scaled * 255).astype(np.uint8)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE")
    parser.add_argument("--split", default="val")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--variant", type=int, default=0)
    parser.add_argument("--png", type=Path, help="write the sample as a picture")
    args = parser.parse_args()

    root = zarr.open_group(args.cache, mode="r")
    snapshot = root[f"snapshots/{root.attrs['decant']['snapshot']}"]
    split = snapshot[args.split]  # one array a column of its table, one row a sample
    images = root[f"tensors/{split.attrs['tensors_id']}/image"]  # (slot, channel, y, x)

    slot = int(split["slot"][args.sample, args.variant])
    tensor = images[slot]
    ends = split["path_end"][:]  # all paths, one after another; each ends where the next one begins
    begin = ends[args.sample - 1] if args.sample else 0
    path = bytes(split["path"][begin : ends[args.sample]]).decode()
    label = int(split["label"][args.sample])
    recorded = int(split["checksum"][args.sample, args.variant])
    found = google_crc32c.value(tensor.tobytes())
    print(f"{path}  class {snapshot.attrs['classes'][label] if label >= 0 else 'none'}  slot {slot}")
    print(f"{tensor.dtype} {tensor.shape}  checksum {found:08x}, recorded {recorded:08x}")
    if args.png:
        pixels = to_pixels(tensor, split.attrs["mean"], split.attrs["std"])
        Image.fromarray(pixels.squeeze()).save(args.png)
        print(f"wrote {args.png}")
    return 0 if found == recorded else 1


if __name__ == "__main__":
    sys.exit(main())
