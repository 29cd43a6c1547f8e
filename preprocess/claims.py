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
        place = int.from_bytes(digest[:8], "little") & self._mask
        while (other := self._sources[place]) != _EMPTY:
            if other != _RELEASED and self._digests[other].tobytes() == digest:
                return False
            place = (place + 1) & self._mask
        self._sources[place] = source
        return True

    def release(self, sources: np.ndarray) -> None:
        """Take back the claims of these sources."""
        self._sources[np.isin(self._sources, sources)] = _RELEASED
        # Released places are not used again, and a search ends at an empty one. As the sources are fewer than half of
        # the places, some stay empty until the next release.
        if 2 * np.count_nonzero(self._sources != _EMPTY) > len(self._sources):
            held = [source for source in self._sources.tolist() if source not in (_EMPTY, _RELEASED)]
            self._sources[:] = _EMPTY
            for source in held:
                self.claim(source)
