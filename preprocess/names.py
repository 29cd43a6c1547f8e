"""What names of files and folders say: a split, a part of another layout than classes, or junk. Looks at no disk."""

import re

SPLIT_NAMES = ("train", "val", "valid", "validation", "test")
"""Names of splits that stay as they are; the order is the order in which splits are listed."""

_SYNONYMS = {"training": "train", "dev": "val", "eval": "val", "evaluation": "val", "testing": "test"}

_SPLIT_WORD = re.compile(
    "(trainval|train|training|trn|val|valid|validation|dev|eval|evaluation|test|testing|tst)"
    r"(?:set|data|images?|imgs?)?\d*"
)
_FILLING_WORD = re.compile(
    r"\d+|sets?|split|data|dataset|subset|part|folder|images?|imgs?|pics|pictures|photos|jpe?gs?|pngs?|seg|"
    "full|small|mini|final|resized|cropped|clean"
)
_SHORT = {"trainval": "train", "trn": "train", "tst": "test"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_CAPITALS = {"Tr": "train", "Ts": "test"}

IMAGE_WORDS = frozenset({"image", "images", "img", "imgs", "jpegimages", "jpgimages", "leftimg8bit", "rgb"})
TARGET_WORDS = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots", "ann", "anns", "imagesets"}
    | {"depth", "depths", "depthmap", "depthmaps", "disparity", "disparities", "normals"}
    | {"gt", "gts", "groundtruth", "gtfine", "gtcoarse", "segmentation", "segmentations", "segmentationclass"}
    | {"segmentationclassaug", "segmentationobject", "trimaps", "bboxes", "boxes", "keypoints", "xml", "xmls"}
)
"""Folders of data sets for detection and segmentation, without '_', '-' and ' ', in lower case."""
_WEAK_IMAGE_WORDS = frozenset({"photo", "photos", "picture", "pictures", "pics"})

_JUNK = frozenset(
    {"@eadir", "@synoresource", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "~snapshot"}
    | {"$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db"}
    | {"desktop.ini", "__macosx", ".ds_store", ".appledouble", ".spotlight-v100", ".fseventsd", ".trashes", "icon\r"}
    | {".temporaryitems", "network trash folder", "temporary items", ".ipynb_checkpoints", "__pycache__"}
    | {".thumbnails", "thumbnails"}
)


def split_of(name: str) -> str | None:
    """The split that a folder's name means, in any case, synonyms included; None for any other name.

    >>> split_of("Train"), split_of("testing"), split_of("validation"), split_of("train2017")
    ('train', 'test', 'validation', None)
    """
    folded = name.casefold()
    return folded if folded in SPLIT_NAMES else _SYNONYMS.get(folded)


def probable_split_of(name: str) -> str | None:
    """The split that a name says among other words without meaning, such as a year; None for any other name.

    >>> probable_split_of("train2017"), probable_split_of("Test_Images"), probable_split_of("train station")
    ('train', 'test', None)
    """
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    found = [match[1] for word in words if (match := _SPLIT_WORD.fullmatch(word))]
    if len(found) != 1 or sum(_FILLING_WORD.fullmatch(word) is not None for word in words) != len(words) - 1:
        return None
    return _SHORT.get(found[0]) or split_of(found[0])


def split_word_in(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split of which a name holds one word, and its other words; enough for a doubt, not for a reading.

    >>> split_word_in("cars_train"), split_word_in("testA"), split_word_in("training-vs-test")
    (('train', ('cars',)), ('test', ('a',)), None)
    """
    words = _WORD.findall(name)
    found = {place: split for place, word in enumerate(words) if (split := _split_word(word))}
    if len(found) != 1:
        return None
    ((place, split),) = found.items()
    return split, tuple(word.lower() for i, word in enumerate(words) if i != place)


def _split_word(word: str) -> str | None:
    folded = word.lower()
    match = _SPLIT_WORD.fullmatch(folded) or _SPLIT_WORD.fullmatch(folded.removesuffix("s"))
    return (_SHORT.get(match[1]) or split_of(match[1])) if match else _CAPITALS.get(word)


def is_image_word(name: str, *, beside_targets: bool = False) -> bool:
    """Whether data sets that are no class folders keep their images under such a name, as `JPEGImages`.

    Parameters
    ----------
    beside_targets : a folder beside it is named like one of targets, so that `photos` is no class either
    """
    return _folded(name) in IMAGE_WORDS or (beside_targets and _folded(name) in _WEAK_IMAGE_WORDS)


def is_target_word(name: str) -> bool:
    """Whether such data sets keep masks, boxes or annotations under such a name, as `SegmentationClass`."""
    return _folded(name) in TARGET_WORDS


def _folded(name: str) -> str:
    return re.sub("[ _-]", "", name.casefold())


def junk_of(name: str) -> str | None:
    """What file servers, desktops and editors leave in a folder, by the name to count it under; None if it is no junk.

    >>> junk_of("Thumbs.db"), junk_of("._cat.jpg"), junk_of("cat.jpg")
    ('Thumbs.db', '._*', None)
    """
    if name.startswith("._"):
        return "._*"
    return name if name.casefold() in _JUNK else None
