"""Which contents are on their way to being rendered, so that equal files are rendered once."""

import numpy as np

_EMPTY, _RELEASED = -1, -2


class Claims:
    """A hash table of digests with open addressing. It keeps numbers of sources alone: a million take 8 MB, where a set
    of bytes would take a hundred.

    Parameters
    ----------
    digests : uint8 (n, 16), of all sources; that of a source is known when it is claimed, and stays
    """

    def __init__(self, digests: np.ndarray) -> None:
        self._digests = digests
        self._mask = (1 << (2 * len(digests)).bit_length()) - 1
        self._sources = np.full(self._mask + 1, _EMPTY, np.int32 if len(digests) < 1 << 31 else np.int64)

    def claim(self, source: int) -> bool:
        """Whether nobody has claimed this content yet; from now on this source has."""
        digest = self._digests[source].tobytes()
        first = int.from_bytes(digest[:8], "little") & self._mask
        free = None
        for step in range(self._mask + 1):
            place = (first + step) & self._mask
            other = self._sources[place]
            if other >= 0:
                if self._digests[other].tobytes() == digest:
                    return False
                continue
            free = place if free is None else free
            if other == _EMPTY:
                break
        assert free is not None, "there is more room than there are sources"
        self._sources[free] = source
        return True

    def release(self, sources: np.ndarray) -> None:
        """Take back the claims of these sources."""
        self._sources[np.isin(self._sources, sources)] = _RELEASED
