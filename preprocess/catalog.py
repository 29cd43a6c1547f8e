"""Which renderings exist already, committed or pending: (digest, variant) -> row, by sorted arrays instead of objects.

A million samples of several variants must not cost a Python object each.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.manifest import SplitTable
from cache_store.records import row_dtype


class Catalog:
    """Rows of one rendering, found by digest and variant, and numbered through; they stay in their tables.

    Parameters
    ----------
    channels : C
    tables : `row_dtype` rows, in order of preference from last to first: of equal (digest, variant) the last counts
    """

    def __init__(self, channels: int, tables: Sequence[np.ndarray]) -> None:
        self._tables = [np.zeros(0, row_dtype(channels)), *tables]
        self._starts = np.cumsum([0, *(len(table) for table in tables)])
        self._digests, inverse = _unique(np.concatenate([table["digest"] for table in self._tables]))
        variant = np.concatenate([table["variant"] for table in self._tables])
        self._places = np.full((len(self._digests), int(variant.max(initial=0)) + 1), -1, np.int64)
        self._places[inverse, variant] = np.arange(len(variant))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def table(self, rows: np.ndarray) -> np.ndarray:
        """Which table each row is in: int64, of the same shape."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def index(self, rows: np.ndarray) -> np.ndarray:
        """Where in its table each row is: int64, of the same shape."""
        return rows - self._starts[self.table(rows)]

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """One field of `row_dtype` of each row: (*rows.shape, *the field's own)."""
        asked = rows.reshape(-1)
        field = self._tables[0][name]
        out = np.empty((len(asked), *field.shape[1:]), field.dtype)
        for table, wanted in self.by_table(asked):
            out[wanted] = self._tables[table + 1][name][asked[wanted] - self._starts[table]]
        return out.reshape(*rows.shape, *field.shape[1:])

    def by_table(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each table that some rows (n,) are in, and the places of those rows among them, in order."""
        tables = self.table(rows)
        order = np.argsort(tables, kind="stable")
        for wanted in np.split(order, np.flatnonzero(np.diff(tables[order])) + 1) if len(rows) else ():
            yield int(tables[wanted[0]]), wanted

    def find(self, digests: np.ndarray, variants: int) -> np.ndarray:
        """Row number of each variant of each digest, -1 where there is none.

        Parameters
        ----------
        digests : uint8 (n, 16)
        variants : K

        Returns
        -------
        int64 (n, K)
        """
        found = np.full((len(digests), variants), -1, np.int64)
        if len(self._digests) == 0 or len(digests) == 0:
            return found
        asked = _keys(digests)
        place = np.minimum(np.searchsorted(self._digests, asked), len(self._digests) - 1)
        known = self._digests[place] == asked
        width = min(variants, self._places.shape[1])
        found[known, :width] = self._places[place[known], :width]
        return found


def committed_rows(table: SplitTable) -> tuple[np.ndarray, np.ndarray]:
    """Rows and slots of a committed split, sample by sample, all variants of each."""
    samples, variants = table["slot"].shape
    channels = table["sum"].shape[2]
    rows = np.zeros((samples, variants), row_dtype(channels))
    rows["digest"] = table["digest"][:, None, :]
    rows["variant"] = np.arange(variants)
    rows["source_hw"] = table["source_hw"][:, None, :]
    for name in ("checksum", "sum", "sumsq", "decoder"):
        rows[name] = table[name]
    return rows.reshape(-1), table["slot"].reshape(-1)


def _keys(digests: np.ndarray) -> np.ndarray:
    """Digests as one sortable item each. numpy compares its strings like memcmp and without their trailing zeros, which
    tells strings apart all the same where they are equally long."""
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").reshape(-1)


def _unique(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, inverse = np.unique(_keys(digests), return_inverse=True)
    return unique, inverse


def distinct(digests: np.ndarray) -> np.ndarray:
    """For each digest the number of the first equal one: int64 (n,)."""
    _, first, inverse = np.unique(_keys(digests), return_index=True, return_inverse=True)
    return first[inverse]


def among(digests: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which of the digests are among the others: bool (n,)."""
    return np.isin(_keys(digests), _keys(others))
