"""Draw a demo image folder: FOLDER/{train,val}/<class>/*.jpg|png, four shapes in any colours on any backgrounds.

The class of a picture is the outline of its one large shape (cross, disc, ring or triangle). Everything else -
place, area, rotation, colours, textures, clutter, grain, size of the picture and file format - is drawn from
distributions that do not depend on the class, so a small convolutional network learns the demo and a colour
histogram does not. A few of the files are the odd ones that real folders have: see `ODD`.
"""

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

CLASSES = ("cross", "disc", "ring", "triangle")
PER_CLASS = {"train": 80, "val": 20}
SHORTEST, LONGEST = 64, 2000  # pixels, of any side
PNG_LONGEST = 512  # larger pictures are always JPEG: grain does not compress, and the demo should stay small

# Train pictures that are not plain three-channel files. "cut" is the first half of a JPEG file, which no decoder
# should accept: it is there so that a first build shows how a failure is reported.
ODD = {
    ("cross", 12): "grey-jpg",
    ("cross", 57): "rotated",
    ("disc", 31): "cmyk",
    ("ring", 44): "cut",
    ("triangle", 23): "grey-png",
}
ODD_SIZES = {
    "grey-jpg": (640, 427),
    "rotated": (720, 480),
    "cmyk": (800, 600),
    "cut": (640, 480),
    "grey-png": (300, 400),
}
EXIF_ORIENTATION = 0x0112
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green and blue


class Picture(NamedTuple):
    """What is settled about one picture before it is drawn.

    Attributes
    ----------
    path : str
        File path relative to the demo folder, with forward slashes; its suffix is the file format.
    label : str
        One of `CLASSES`.
    width, height : int
        Size in pixels as a viewer shows it, 64 to 2,000 each.
    odd : str
        One of the values of `ODD`, or "" for a plain three-channel file.
    key : tuple of int
        Seed of the random numbers that draw this picture, so that any one can be drawn without the others.
    """

    path: str
    label: str
    width: int
    height: int
    odd: str
    key: tuple[int, ...]


def plan(seed: int = 0) -> list[Picture]:
    """Settle the files of the demo of one seed, 100 per class, without drawing any (milliseconds).

    Half of the pictures are landscape, half portrait. The long side is skewed towards moderate sizes on a
    logarithmic scale; the first train picture of all has the smallest size and the last the largest, so that both
    ends of the range are there whatever the seed.
    """
    rng = np.random.default_rng(seed)
    pictures = []
    for split, count in PER_CLASS.items():
        for label in CLASSES:
            for index in range(count):
                long = SHORTEST * (LONGEST / SHORTEST) ** rng.beta(1.8, 2.4)
                short = max(SHORTEST, long / rng.uniform(1.0, 1.6))
                width, height = (long, short) if rng.random() < 0.5 else (short, long)
                wants_png = rng.random() < 0.4
                odd = ODD.get((label, index), "") if split == "train" else ""
                if odd in ODD_SIZES:
                    width, height = ODD_SIZES[odd]
                elif (split, label, index) == ("train", CLASSES[0], 0):
                    width, height = SHORTEST, SHORTEST
                elif (split, label, index) == ("train", CLASSES[-1], count - 1):
                    width, height = LONGEST, 1400
                is_png = odd == "grey-png" or (not odd and wants_png and max(width, height) <= PNG_LONGEST)
                path = f"{split}/{label}/{index:03d}.{'png' if is_png else 'jpg'}"
                # From 1: numpy takes (seed, 0) for seed, which is the plan's own.
                key = (seed, 1 + len(pictures))
                pictures.append(Picture(path, label, round(width), round(height), odd, key))
    return pictures


def outlines(label: str) -> list[np.ndarray]:
    """Closed outlines of one class, filled by the even-odd rule: area 1, centre of the bounding circle at 0.

    Returns
    -------
    list of ndarray, float32 (points, 2)
        x and y of the corners. Equal areas keep the share of shape pixels the same for every class.
    """
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if label == "disc":
        loops = [circle]
    elif label == "ring":
        loops = [circle, 0.62 * circle]
    elif label == "triangle":
        corner = 2 * np.pi / 3 * np.arange(3)
        loops = [np.stack([np.cos(corner), np.sin(corner)], axis=1)]
    else:
        a = 0.34  # half the width of an arm, where half its length is 1
        quarter = np.array([[1, -a], [1, a], [a, a]])
        turn = np.array([[0, 1], [-1, 0]])
        loops = [np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])]
    loops = [loop.astype(np.float32) for loop in loops]
    area = cv2.contourArea(loops[0]) - sum(cv2.contourArea(hole) for hole in loops[1:])
    return [loop / np.float32(np.sqrt(area)) for loop in loops]


def colour(rng: np.random.Generator, luma: float) -> np.ndarray:
    """Random colour of a given luma (0 to 1): float32 (3,), red, green, blue in 0 to 1."""
    drawn = rng.random(3).astype(np.float32)
    own = float(drawn @ LUMA)
    if own < luma:
        return drawn + (1 - drawn) * np.float32((luma - own) / (1 - own))
    return drawn * np.float32(luma / own)


def texture(rng: np.random.Generator, width: int, height: int, luma: float) -> np.ndarray:
    """A surface of two random colours near `luma`: a gradient, stripes, clouds or checks; uint8 (height, width, 3).

    Shapes and backgrounds both take their surface from here, so neither colours nor patterns give a shape away.
    """
    short = min(width, height)
    first, second = (255 * colour(rng, luma + sign * rng.uniform(0, 0.08)) for sign in (-1, 1))
    second += np.float32(0.5) * (first - second)  # related colours: two of any hue hurt the eye
    angle = rng.uniform(0, 2 * np.pi)
    x = (np.arange(width, dtype=np.float32)[None, :] - width / 2) / short
    y = (np.arange(height, dtype=np.float32)[:, None] - height / 2) / short
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    kind = rng.integers(4)
    if kind == 0:
        share = along * np.float32(0.8) + np.float32(0.5)
    elif kind == 1:
        share = np.sin(along * np.float32(rng.uniform(25, 80))) * 2 + np.float32(0.5)
    elif kind == 2:
        grid = rng.random((rng.integers(3, 7), rng.integers(3, 7)), dtype=np.float32)
        share = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        across = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x
        pitch = np.float32(rng.uniform(8, 20))
        share = ((np.floor(along * pitch) + np.floor(across * pitch)) % 2).astype(np.float32)
    share = np.clip(share, 0, 1, out=share)
    steps = np.arange(256, dtype=np.float32)[:, None] / 255
    blend = np.rint(first + (second - first) * steps).astype(np.uint8)
    return blend[(share * 255).astype(np.uint8)]


def scatter(rng: np.random.Generator, canvas: np.ndarray, luma: float, count: int) -> None:
    """Draw `count` strokes, dots and slivers near `luma` on a canvas, uint8 (height, width, 3), in place."""
    height, width = canvas.shape[:2]
    short = min(width, height)
    for _ in range(count):
        ink = tuple(float(c) for c in 255 * colour(rng, np.clip(luma + rng.uniform(-0.13, 0.13), 0.03, 0.97)))
        place = rng.uniform(0, 1, 2) * (width, height)
        reach = rng.normal(0, 0.22 * short, (2, 2))
        kind = rng.integers(3)
        if kind == 0:
            ends = np.rint(place + reach).astype(int)
            thickness = max(1, round(short * rng.uniform(0.006, 0.02)))
            cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), ink, thickness, cv2.LINE_AA)
        elif kind == 1:
            radius = max(1, round(short * rng.uniform(0.008, 0.03)))
            cv2.circle(canvas, np.rint(place).astype(int).tolist(), radius, ink, cv2.FILLED, cv2.LINE_AA)
        else:
            thin = place + 0.06 * short * rng.uniform(-1, 1, 2)
            corners = np.rint(np.stack([place, thin, place + reach[0]])).astype(np.int32)
            cv2.fillPoly(canvas, [corners], ink, cv2.LINE_AA)


def draw(picture: Picture) -> np.ndarray:
    """Draw one picture, upright: uint8 (height, width, 3), red, green, blue."""
    rng = np.random.default_rng(picture.key)
    width, height = picture.width, picture.height
    short = min(width, height)

    # The shape is lighter or darker than the background by a margin: it must stay visible in the grey pictures too.
    ground = rng.uniform(0.12, 0.88)
    gap = 0.3
    below, above = max(0.0, ground - gap - 0.08), max(0.0, 0.92 - ground - gap)
    where = rng.uniform(0, below + above)
    luma = 0.08 + where if where < below else ground + gap + where - below

    canvas = texture(rng, width, height, ground)
    scatter(rng, canvas, ground, rng.integers(6, 22))

    loops = outlines(picture.label)
    scale = short * np.sqrt(rng.uniform(0.07, 0.2))
    reach = scale * max(float(np.hypot(*loop.T).max()) for loop in loops)
    # Within the central square, so that a centre crop of a long picture still has all of the shape.
    free = short / 2 - reach
    centre = np.array([width, height]) / 2 + rng.uniform(-1, 1, 2) * free
    angle = rng.uniform(0, 2 * np.pi)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = 4  # fractional bits of the corners: small pictures need places finer than a pixel
    corners = [np.rint((loop @ turn + centre) * 2**shift).astype(np.int32) for loop in loops]

    # A soft shadow, blurred small: a blur at full size would take longer than all of the rest.
    stencil = np.zeros((height, width), np.uint8)
    cv2.fillPoly(stencil, corners, 255, cv2.LINE_AA, shift)
    small = cv2.resize(stencil, None, fx=64 / short, fy=64 / short, interpolation=cv2.INTER_AREA)
    offset = np.float32([[1, 0, rng.uniform(-2.5, 2.5)], [0, 1, rng.uniform(-2.5, 2.5)]])
    small = cv2.GaussianBlur(cv2.warpAffine(small, offset, small.shape[::-1]), (0, 0), 1.6)
    light = 255 - cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(rng.uniform(0.1, 0.4))
    canvas = cv2.multiply(canvas, cv2.merge([light] * 3), scale=1 / 255, dtype=cv2.CV_8U)

    surface = texture(rng, width, height, luma)
    weight = stencil.astype(np.float32) / 255
    canvas = cv2.blendLinear(surface, canvas, weight, 1 - weight)
    scatter(rng, canvas, ground, rng.integers(0, 4))

    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(0, 9))
    return cv2.add(canvas, cv2.merge([grain] * 3), dtype=cv2.CV_8U)


def encode(picture: Picture) -> bytes:
    """Draw one picture and return the bytes of its file.

    Everything is written by Pillow, because OpenCV writes neither CMYK nor an EXIF orientation.
    """
    image = Image.fromarray(draw(picture))
    file = io.BytesIO()
    if picture.odd.startswith("grey"):
        image = image.convert("L")
    elif picture.odd == "cmyk":
        image = image.convert("CMYK")
    if picture.path.endswith(".png"):
        image.save(file, "PNG")
        return file.getvalue()
    options = {"quality": 70 + picture.key[-1] % 25}
    if picture.odd == "rotated":
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = 6  # a viewer turns it clockwise, back to upright
        options["exif"] = exif
    image.save(file, "JPEG", **options)
    data = file.getvalue()
    return data[: len(data) // 2] if picture.odd == "cut" else data


def is_finished(folder: Path, pictures: list[Picture]) -> bool:
    """Whether all of the files are there; names are enough, as a folder gets its name only when it is whole."""
    return all((folder / picture.path).is_file() for picture in pictures)


def make_demo(folder: Path, seed: int = 0) -> str:
    """Draw the demo of one seed to `folder`, or leave it alone if it is there.

    Parameters
    ----------
    folder : Path
        Must not exist, be empty, or be the demo of the same seed. Its name has no influence on the files.
    seed : int
        Not negative. The same seed and library versions give the same bytes.

    Returns
    -------
    str
        One line for the user that says what was done.

    Raises
    ------
    FileExistsError
        If `folder` has something else in it. Nothing is changed then.
    """
    pictures = plan(seed)
    target = folder.resolve()  # a link to an empty folder is followed, not replaced
    if is_finished(target, pictures):
        return f"{folder}: the demo is already there, left as it is"
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(
            f"{folder} exists and is not the whole demo of seed {seed}: name another folder, or remove it yourself"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    # A sibling is on the same file system, so that the rename at the end is one step.
    # Ctrl-C and errors remove it; after a hard kill a hidden folder of this prefix stays, never a half `folder`.
    with tempfile.TemporaryDirectory(prefix=".decant-demo-", dir=target.parent) as scratch:
        drawn = Path(scratch) / "demo"
        for picture in pictures:
            path = drawn / picture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            size += path.write_bytes(encode(picture))
        os.replace(drawn, target)
    return (
        f"{folder}: drew {len(pictures)} pictures of {len(CLASSES)} classes "
        f"({', '.join(f'{count} {split}' for split, count in PER_CLASS.items())} each), {size / 1e6:.1f} MB; "
        f"{len(ODD)} are odd on purpose, one of them cut in half"
    )


def natural(text: str) -> int:
    """Parse a number that is not negative, as numpy wants its seeds."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 if the folder is not free."""
    parser = argparse.ArgumentParser(description="Draw a small image classification folder to try decant on.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder to make, with train and val in it")
    parser.add_argument("--seed", type=natural, default=0, help="same seed, same files (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        print(make_demo(arguments.folder, arguments.seed))
    except FileExistsError as error:
        print(f"make_demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
