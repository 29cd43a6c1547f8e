"""Claims: one source of equal ones is rendered."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocess.claims import Claims


def digests_of(contents):
    """A digest for each content; they agree in the bytes that choose the place in the table."""
    return np.array([[*[0] * 8, *[content] * 8] for content in contents], np.uint8).reshape(-1, 16)


def test_equal_contents_are_claimed_once():
    claims = Claims(digests_of([1, 2, 1, 2, 3]))

    assert [claims.claim(source) for source in range(5)] == [True, True, False, False, True]


def test_digests_may_become_known_later():
    digests = np.zeros((2, 16), np.uint8)
    claims = Claims(digests)
    digests[:] = 7

    assert [claims.claim(source) for source in (1, 0)] == [True, False]


def test_room_that_was_released_is_used_again():
    claims = Claims(digests_of([1, 2]))
    for _ in range(100):
        assert claims.claim(0)
        assert claims.claim(1)
        assert not claims.claim(0)
        claims.release(np.array([0, 1]))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.data())
def test_any_history_is_that_of_a_set(contents, data):
    claims, held = Claims(digests_of(contents)), {}
    for source in data.draw(st.lists(st.integers(0, len(contents) - 1), max_size=60)):
        if data.draw(st.booleans()):
            assert claims.claim(source) == (contents[source] not in held)
            held.setdefault(contents[source], source)
        else:
            claims.release(np.array([source]))
            held = {content: owner for content, owner in held.items() if owner != source}


def test_claims_can_be_taken_back_any_number_of_times():
    """A folder of files that kill their worker: each death takes back the claims of a job."""
    claims = Claims(digests_of([1, 2, 3]))
    for _ in range(20):
        assert [claims.claim(source) for source in range(3)] == [True, True, True]
        claims.release(np.array([0, 1]))
        assert not claims.claim(2)
        claims.release(np.array([2]))
