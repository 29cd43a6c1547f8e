"""Zarr metadata and small arrays, encoded by zarr-python into memory; bytes only, nothing touches the disk here.

The only import of zarr in the product, and a late one: reading a cache needs none of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache_store.canonical import canonical_json, digest_of


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


def encode_arrays(arrays: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> dict[str, bytes]:
    """Each array as one chunk of raw little-endian bytes followed by its CRC32C, and its `zarr.json`.

    Parameters
    ----------
    arrays : name -> (array, dimension names)

    Returns
    -------
    relative path -> bytes
    """
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    blobs: dict[str, Any] = {}
    store = MemoryStore(blobs)
    for name, (data, dimensions) in arrays.items():
        array = zarr.create_array(
            store,
            name=name,
            shape=data.shape,
            chunks=tuple(max(n, 1) for n in data.shape),
            dtype=data.dtype,
            fill_value=0,
            filters=None,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            dimension_names=list(dimensions),
            config={"write_empty_chunks": True},
        )
        if data.size:
            array[...] = data
    # zarr-python adds groups of its own on the way to nested arrays: those are the caller's to write.
    groups = {f"{path.rpartition('/')[0]}/zarr.json" for path in arrays} | {"zarr.json"}
    return {path: bytes(blob.to_bytes()) for path, blob in blobs.items() if path not in groups}


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
