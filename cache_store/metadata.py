"""Zarr metadata as zarr-python writes it, and small arrays; bytes only, nothing touches the disk here.

The only import of zarr in the product, and a late one: reading a cache needs none of it.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache_store.canonical import canonical_json, digest_of
from cache_store.shard import CHECKSUM_BYTES, checksum


def encode_group(attributes: Mapping[str, Any]) -> bytes:
    """A group's `zarr.json`."""
    import zarr
    from zarr.storage import MemoryStore

    blobs: dict[str, Any] = {}
    zarr.create_group(MemoryStore(blobs), attributes=dict(attributes))
    return bytes(blobs["zarr.json"].to_bytes())


def encode_image_array(slots: int, shape: tuple[int, int, int], dtype: np.dtype) -> bytes:
    """`zarr.json` of an image array that has no shard yet: float16 or uint8 (0, channel, y, x), S = `slots`."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    blobs: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(blobs),
        shape=(0, *shape),
        shards=(slots, *shape),
        chunks=(1, *shape),
        dtype=dtype,
        fill_value=np.nan if dtype.kind == "f" else 0,
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["slot", "channel", "y", "x"],
    )
    return bytes(blobs["zarr.json"].to_bytes())


def encode_array(name: str, data: np.ndarray, dimensions: Sequence[str]) -> dict[str, bytes]:
    """A little-endian array as one chunk of raw bytes followed by its CRC32C, and its `zarr.json`.

    Returns
    -------
    path, beginning with `name` -> bytes
    """
    metadata = json.loads(_array_metadata(data.dtype.str, tuple(dimensions)))
    metadata["shape"] = list(data.shape)
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [max(n, 1) for n in data.shape]
    files = {f"{name}/zarr.json": json.dumps(metadata, indent=2).encode()}
    if data.size:
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        key = ".".join(["c", *("0" for _ in data.shape)])
        files[f"{name}/{key}"] = b"".join((raw.data, checksum(raw).to_bytes(CHECKSUM_BYTES, "little")))
    return files


@functools.cache
def _array_metadata(dtype: str, dimensions: tuple[str, ...]) -> bytes:
    """`zarr.json` of a small array whose lengths are all 1, by zarr-python; asked once for each kind of array, as it
    takes longer for one than writing a small snapshot does."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    blobs: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(blobs),
        shape=(1,) * len(dimensions),
        chunks=(1,) * len(dimensions),
        dtype=np.dtype(dtype),
        fill_value=0,
        filters=None,
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=list(dimensions),
    )
    return bytes(blobs["zarr.json"].to_bytes())


def resized(image_metadata: bytes, slots: int) -> bytes:
    """The same array metadata with another length along the slots."""
    metadata = json.loads(image_metadata)
    metadata["shape"][0] = slots
    return json.dumps(metadata, indent=2).encode()


def image_digest(image_metadata: bytes) -> str:
    """Digest of an image array's metadata that stays the same while the array grows: shape[0] set to 0."""
    metadata = json.loads(image_metadata)
    metadata["shape"][0] = 0
    return digest_of(canonical_json(metadata)).hex()
