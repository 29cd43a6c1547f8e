"""Images compared with their checksums when they are first touched."""

import os

import numpy as np

from cache_store.errors import REPAIR, IntegrityError
from cache_store.manifest import SplitTable
from loaders.gather import Gatherer


class FirstCheck:
    """Compares each stored image of a split with the manifest's checksum once.

    Parameters
    ----------
    table : of the split
    gatherer : reads its slots
    """

    def __init__(self, table: SplitTable, gatherer: Gatherer) -> None:
        self._table = table
        self._gatherer = gatherer
        self._seen = np.zeros(table["slot"].shape, bool)

    def see(self, numbers: np.ndarray, variants: np.ndarray) -> None:
        """Check those of the samples' variants that were not seen yet.

        Raises
        ------
        IntegrityError : one is damaged, missing or another one than was committed; names the sample and its file
        """
        fresh = ~self._seen[numbers, variants]
        numbers, variants = numbers[fresh], variants[fresh]
        slots = self._table["slot"][numbers, variants]
        found, expected = self._gatherer.checksums(slots), self._table["checksum"][numbers, variants]
        for place in np.flatnonzero(found != expected).tolist():
            path = os.fsdecode(self._table.paths()[int(numbers[place])])
            raise IntegrityError(
                f"{self._gatherer.where(int(slots[place]))}: sample {path!r} variant {variants[place]} has checksum "
                f"{found[place]:08x}, the manifest says {expected[place]:08x}; {REPAIR}"
            )
        self._seen[numbers, variants] = True
