"""Read a batch of a cache with tensorstore alone: nothing of decant is imported.

    python examples/read_with_tensorstore.py CACHE [--split val] [--samples 8] [--variant 0]

Prints the shape of the batch and the mean of its de-normalised pixels, and compares each checksum with the one that
the snapshot recorded. tensorstore compares the checksum behind each chunk by itself, too.
"""

import argparse
import json
import sys
from pathlib import Path

import google_crc32c
import numpy as np
import tensorstore


def array(path: Path) -> tensorstore.TensorStore:
    return tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path.resolve()}/"}}).result()


def attributes(group: Path) -> dict:
    return json.loads((group / "zarr.json").read_text())["attributes"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--samples", type=int, default=8, help="the first so many")
    parser.add_argument("--variant", type=int, default=0)
    args = parser.parse_args()

    split = args.cache / "snapshots" / attributes(args.cache)["decant"]["snapshot"] / args.split
    described = attributes(split)
    slots = array(split / "slot")[: args.samples, args.variant].read().result()
    recorded = array(split / "checksum")[: args.samples, args.variant].read().result()
    images = array(args.cache / "tensors" / described["tensors_id"] / "image")
    batch = images[slots.tolist()].read().result()  # (n, C, H, W), all chunks at once

    pixels = batch.astype(np.float64)
    if batch.dtype != np.uint8:
        column = (-1, 1, 1)
        pixels = pixels * np.reshape(described["std"], column) + np.reshape(described["mean"], column)
        pixels = np.rint(pixels * 255)
    found = [google_crc32c.value(tensor.tobytes()) for tensor in batch]
    wrong = [number for number, (one, other) in enumerate(zip(found, recorded.tolist(), strict=True)) if one != other]
    print(f"{batch.dtype} {batch.shape}, mean pixel {pixels.mean():.3f}")
    print(f"checksums: {len(found) - len(wrong)} as recorded, {len(wrong)} not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
