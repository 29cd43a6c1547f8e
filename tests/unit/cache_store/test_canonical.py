import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_store.canonical import DIGEST_BYTES, canonical_json, digest_of, identity

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_digest_is_blake2b_of_128_bits():
    # From the reference implementation: `printf abc | b2sum -l 128`.
    assert digest_of(b"abc").hex() == "cf4ab791c62b8d2b2109c90275287816"
    assert digest_of(b"").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert len(digest_of(b"abc")) == DIGEST_BYTES


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_digest_takes_any_buffer(kind):
    assert digest_of(kind(b"abc")) == digest_of(b"abc")


def test_spelling_is_fixed():
    value = {"b": [1, 2.5, True, None], "a": {"z": "ü", "y": ""}}

    assert canonical_json(value) == b'{"a":{"y":"","z":"\\u00fc"},"b":[1,2.5,true,null]}'


@settings(max_examples=25)
@given(st.dictionaries(st.text(), values, max_size=4), st.randoms(use_true_random=False))
def test_order_of_keys_makes_no_difference(value, random):
    keys = list(value)
    random.shuffle(keys)

    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)


@given(values)
def test_nothing_is_lost_and_all_is_ascii(value):
    text = canonical_json(value)

    assert json.loads(text) == value
    assert text.isascii()
    assert b"\n" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError):
        canonical_json(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), np.float32(1)])
def test_values_that_json_lacks_are_refused(value):
    with pytest.raises(TypeError):
        canonical_json({"a": value})


def test_identity_is_the_digest_of_the_spelling():
    assert identity({"b": 1, "a": 2}) == digest_of(b'{"a":2,"b":1}').hex()
    assert identity({"a": 1}) != identity({"a": "1"}) != identity({"a": True})
