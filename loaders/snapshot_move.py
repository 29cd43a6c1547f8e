"""When a dataset may go from its snapshot to another: only its samples may differ."""

from cache_store.errors import NotFoundError, UsageError
from cache_store.reader import Cache
from loaders.advice import say


def check_class_ids(class_to_idx: dict[str, int], new: Cache, here: str) -> None:
    """Refuse a snapshot in which a class has another id.

    Raises
    ------
    UsageError : it names the classes
    """
    now = {name: number for number, name in enumerate(new.snapshot.classes)}
    moved = [f"{name!r} {old} -> {now.get(name, 'none')}" for name, old in class_to_idx.items() if now.get(name) != old]
    if moved:
        raise UsageError(
            f"refresh: class ids differ between {here} and {new.snapshot.name}: {', '.join(moved[:5])}; "
            "open a new CachedDataset, or list 'classes' in the recipe to pin them"
        )


def check_workers(holders: list[int], here: str) -> None:
    """Refuse while worker processes read the snapshot that is left.

    Raises
    ------
    UsageError : it names them
    """
    if holders:
        raise UsageError(
            f"refresh: worker process {', '.join(map(str, holders))} still reads {here}; refresh between "
            "epochs, without persistent_workers"
        )


def check_undigested(known: dict[str, object], opened: Cache, split: str) -> None:
    """Compare what a dataset knows that was pickled before pickles carried the snapshot's digest.

    Raises
    ------
    NotFoundError : the cache was replaced by another one
    """
    table, where = opened.split(split), f"snapshot {opened.snapshot.name} of {str(opened.path)!r}"
    found = {
        "samples": len(table),
        "variants": table.variants,
        "classes": list(opened.snapshot.classes),
        "mean": list(table.mean),
        "std": list(table.std),
    }
    for name, value in found.items():
        if value != known[name]:
            raise NotFoundError(
                f"{where} is not the one of the pickled dataset: {name} {known[name]!s:.80} expected, {value!s:.80} "
                "found; open a new CachedDataset"
            )
    say(
        f"this dataset was pickled by a decant whose pickles carry no digest: {where} has the same classes, number of "
        "samples and statistics, but that it is the same snapshot is not certain; pickle the dataset again"
    )
