"""Attributes of a dataset that follow from its snapshot and arguments: assigned, they would change no sample."""

from typing import Any

from cache_store.errors import UsageError

_LABELS = "open the dataset with targets= (a tensor, an array, or {path: value})"
_NAMES = "open the dataset with targets= for other labels; `classes` in the recipe chooses names and their order"
_SAMPLES = "open the dataset with targets= for other labels, and take torch.utils.data.Subset for fewer samples"
_STATISTICS = "choose `normalize` in the recipe"

_INSTEAD = {
    "targets": _LABELS,
    "samples": _SAMPLES,
    "imgs": _SAMPLES,
    "classes": _NAMES,
    "class_to_idx": _NAMES,
    "mean": _STATISTICS,
    "std": _STATISTICS,
    "shape": "open the dataset with crop=",
    "variants": "open the dataset with variant=, or build with another number of them",
    "split": "open another CachedDataset with split=",
    "snapshot_id": "open another CachedDataset with snapshot=",
    "failures": "they are the build's",
    "transforms": "assign transform, target_transform or batch_transform",
}

_NOTHING = object()


class Settled:
    """Refuses their assignment, except of the value in force; the class itself sets them by `vars(self)`.

    Raises
    ------
    UsageError : says what to do instead
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _INSTEAD:
            if _is_in_force(getattr(self, name, _NOTHING), value):
                return
            raise UsageError(
                f"{name} cannot be assigned: it follows from the snapshot, and no sample would change; {_INSTEAD[name]}"
            )
        super().__setattr__(name, value)


def _is_in_force(now: Any, value: Any) -> bool:
    if now is value or type(now) is not type(value):
        return now is value
    return bool(now == value)  # lists, texts and numbers: nothing that compares element by element
