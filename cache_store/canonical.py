"""One spelling for every value that has an identity, and the digest that names it."""

import hashlib
import json
from typing import Any

DIGEST_BYTES = 16


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    """blake2b with 128 bits (RFC 7693): 16 bytes that name a content."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and only ASCII: equal values give equal bytes.

    Raises
    ------
    ValueError : the value holds NaN or an infinity, which JSON lacks
    TypeError : the value holds something that JSON lacks
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def identity(value: Any) -> str:
    """Hex digest of the canonical JSON of `value`; names tensors and renderings."""
    return digest_of(canonical_json(value)).hex()
