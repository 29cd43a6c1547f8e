"""Transforms by name: random draws, what is proved of them, and that the canonical form loses nothing."""

import inspect
import os
import random
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import albumentations as A
import numpy as np
import pytest

from cache_store.canonical import canonical_json
from preprocess import augment
from preprocess.augment import Pipeline, nearest, prove_size, random_state, resolve
from preprocess.errors import RecipeError
from tests.helpers import picture

DIGEST = bytes(range(16))
PLACE = "splits.train.transforms"


def canonical(*transforms):
    return resolve(list(transforms), PLACE)[0]


# -- random state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "digest", "variant", "state"),
    [
        (0, bytes(16), 0, 0xA141AF8A4A120DC5),
        (0, DIGEST, 0, 0xA340A45BEB284525),
        (0, DIGEST, 1, 0x90E1288BEC9F514A),
        (1, DIGEST, 0, 0x8C4637440027E6A7),
        (2**63 - 1, b"\xff" * 16, 9_999, 0x7A2F4301BF3F5039),
    ],
)
def test_the_random_state_is_frozen(seed, digest, variant, state):
    """Another formula would render every cache anew."""
    assert random_state(seed, digest, variant) == state


def test_seed_digest_and_variant_each_matter():
    states = {
        random_state(seed, digest, k)
        for seed in (0, 1, 2**40)
        for digest in (bytes(16), DIGEST, DIGEST[::-1])
        for k in range(100)
    }
    assert len(states) == 3 * 3 * 100
    assert all(0 <= state < 2**64 for state in states)


# -- draws -------------------------------------------------------------------------------------------------------------


def coordinates(height: int, width: int) -> np.ndarray:
    """Each pixel says where it was: uint8 (height, width, 3)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)
    return image


GEOMETRY = (
    {"RandomResizedCrop": {"size": [8, 8], "scale": [0.1, 1], "ratio": [1, 1], "interpolation": "nearest"}},
    {"HorizontalFlip": {"p": 0.5}},
    {"VerticalFlip": {"p": 0.5}},
)


def traits(out: np.ndarray) -> list[bool]:
    """Flipped left to right, flipped upside down, cut out of more than half of the sides."""
    rows, columns = out[..., 0].astype(int), out[..., 1].astype(int)
    return [
        bool(columns[0, 0] > columns[0, -1]),
        bool(rows[0, 0] > rows[-1, 0]),
        bool(rows.max() - rows.min() > 40),
    ]


def chi_squared(table: np.ndarray) -> float:
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum())


def test_draws_of_one_variant_are_independent_of_each_other():
    """One pair of generators serves all transforms in turn; the library's own way of seeding is contrasted below."""
    pipeline, image = Pipeline(canonical(*GEOMETRY)), coordinates(64, 64)
    found = np.array([traits(pipeline(image, random_state(0, DIGEST, k))) for k in range(4000)])
    assert (abs(found[:, :2].mean(0) - 0.5) < 0.03).all()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        table = np.array([[np.sum((found[:, one] == a) & (found[:, other] == b)) for b in (0, 1)] for a in (0, 1)])
        assert chi_squared(table) < 10.8, f"{one} and {other}: {table}"  # p = 0.001 with one degree of freedom


def test_seeding_each_transform_alike_would_flip_both_ways_or_not_at_all():
    compose, image = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]), coordinates(64, 64)
    for k in range(50):
        compose.set_random_seed(k)
        across, upside_down, _ = traits(compose(image=image)["image"])
        assert across == upside_down


def test_variants_depend_on_nothing_but_their_state():
    """Not on the order of calls, nor on the global generators, nor on what was rendered before."""
    transforms = canonical(
        {"RandomResizedCrop": {"size": [24, 24]}},
        {"OneOf": ["HorizontalFlip", {"SomeOf": {"transforms": ["Transpose", "InvertImg", "VerticalFlip"], "n": 2}}]},
        {"ColorJitter": {"p": 1}},
        {"GaussNoise": {"p": 1}},
        {"CoarseDropout": {"p": 1}},
    )
    images = [picture(seed, 40, 30 + seed) for seed in range(3)]
    for image in images:
        image.flags.writeable = False
    calls = [(number, state) for number in range(3) for state in range(6)]
    pipeline = Pipeline(transforms)
    expected = {call: pipeline(images[call[0]], call[1]) for call in calls}
    assert len({out.tobytes() for out in expected.values()}) == len(calls)
    random.Random(1).shuffle(calls)
    for call in calls:
        np.random.seed(call[1])
        random.seed(call[0])
        other = pipeline if call[1] % 2 else Pipeline(transforms)
        np.testing.assert_array_equal(other(images[call[0]], call[1]), expected[call])


def test_an_image_stays_as_it_is_where_the_library_writes_into_it():
    """Its `Equalize` does, as Pillow's, for one channel; and fails on an image that is read-only."""
    pipeline = Pipeline(canonical({"Equalize": {"mode": "pil", "p": 1}}))
    image = picture(1)[..., :1].copy()
    before = image.copy()

    out = pipeline(image, 0)

    assert (image == before).all()
    assert (out != before).any()
    image.flags.writeable = False
    np.testing.assert_array_equal(pipeline(image, 0), out)


def test_the_documented_generators_are_the_ones_in_use():
    image = picture(3, 40, 50)
    compose = A.Compose([A.RandomResizedCrop((24, 24), area_for_downscale="image"), A.HorizontalFlip(), A.Rotate()])
    compose.set_random_state(np.random.default_rng(99), random.Random(99))
    given = canonical({"RandomResizedCrop": {"size": [24, 24]}}, "HorizontalFlip", "Rotate")
    np.testing.assert_array_equal(Pipeline(given)(image, 99), compose(image=image)["image"])


# -- every transform of the library ------------------------------------------------------------------------------------

REQUIRED = {
    "CenterCrop": {"height": 24, "width": 20},
    "Crop": {"x_max": 20, "y_max": 24},
    "CropAndPad": {"px": 2},
    "FrequencyMasking": {},
    "GridElasticDeform": {"num_grid_xy": (3, 3), "magnitude": 4},
    "LongestMaxSize": {"max_size": 20},
    "RandomCrop": {"height": 24, "width": 20},
    "RandomCropFromBorders": {},
    "RandomResizedCrop": {"size": (24, 20)},
    "RandomSizedCrop": {"min_max_height": (10, 20), "size": (24, 20)},
    "Resize": {"height": 24, "width": 20},
    "SmallestMaxSize": {"max_size": 20},
}
EVERY = sorted(augment._usable() - augment._COMPOSITIONS - set(augment.TAIL))


def other_value(value):
    """A value of the same kind that is likely to be valid too; None where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    if isinstance(value, tuple) and value and all(isinstance(item, (int, float)) for item in value):
        return tuple(item / 2 if isinstance(item, float) else item for item in value)
    return None


def objects_of(name: str):
    """(what was changed, object): with the library's defaults, and with each argument changed in turn."""
    cls = getattr(A, name)
    required = REQUIRED.get(name, {})
    changes: list[dict] = [{}]
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        value = other_value(required.get(key, parameter.default))
        if key not in ("self", "p", "seed", "strict") and value is not None:
            changes.append({key: value})
    for change in changes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield change, cls(**(required | change | {"p": 1.0}))
            except ValueError:
                continue  # the library does not take it: nothing to compare


def test_the_list_of_transforms_is_the_librarys():
    assert len(EVERY) > 90
    assert {"RandomResizedCrop", "ShiftScaleRotate", "Equalize", "D4"} <= set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_the_canonical_form_runs_as_the_object_that_it_came_from(name):
    image = picture(5, 40, 50)
    image.flags.writeable = False
    before = image.copy()
    tried = 0
    for change, item in objects_of(name):
        if getattr(item, "area_for_downscale", "") is None and item.interpolation == 1:
            item.area_for_downscale = "image"  # as `resolve` does
        compose = A.Compose([item])
        compose.set_random_state(np.random.default_rng(7), random.Random(7))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes = []
            for run in (lambda c=compose: c(image=image)["image"], lambda i=item: Pipeline(canonical(i))(image, 7)):
                try:
                    outcomes.append(run())
                except RecipeError:
                    raise
                except Exception as error:
                    outcomes.append(np.frombuffer(f"{type(error).__name__}: {error}".encode(), np.uint8))
        np.testing.assert_array_equal(*outcomes, f"{name} with {change}")
        np.testing.assert_array_equal(image, before, "the image was changed")
        tried += 1
    assert tried


MEMBERS = [A.HorizontalFlip(p=0.7), A.Rotate(p=0.5), A.ColorJitter(p=0.8), A.Transpose(p=0.3)]


@pytest.mark.parametrize(
    "item",
    [
        A.OneOf(MEMBERS, p=0.8),
        A.SomeOf(MEMBERS, n=2),
        A.SomeOf(MEMBERS, n=3, replace=True, p=0.9),
        A.RandomOrder(MEMBERS, n=3),
        A.Sequential(MEMBERS, p=0.5),
        A.Compose(MEMBERS, p=0.5),
        A.Sequential([A.OneOf([A.Compose(MEMBERS[:2]), A.SomeOf(MEMBERS[2:], n=2)], p=1), A.Blur()], p=1),
    ],
    ids=lambda item: type(item).__name__,
)
def test_so_do_compositions(item):
    image, compose = picture(5, 40, 40), A.Compose([item])
    pipeline = Pipeline(canonical(item))
    outs = set()
    for state in range(40):
        compose.set_random_state(np.random.default_rng(state), random.Random(state))
        expected = compose(image=image)["image"]
        np.testing.assert_array_equal(pipeline(image, state), expected)
        outs.add(expected.tobytes())
    assert len(outs) > 3


@pytest.mark.parametrize("name", EVERY)
def test_one_and_one_point_nought_are_one_identity(name):
    required = REQUIRED.get(name, {})
    assert repr(canonical({name: required | {"p": 1}})) == repr(canonical({name: required | {"p": 1.0}}))


@pytest.mark.parametrize("name", EVERY)
def test_the_canonical_form_is_read_back_as_itself(name):
    """Byte for byte: otherwise a cache would not find its own tensors at the next build."""
    for change, item in objects_of(name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = canonical(item)
        assert canonical_json(canonical(*first)) == canonical_json(first), f"{name} with {change}"


def test_so_they_are_for_compositions():
    for name in sorted(augment._COMPOSITIONS):
        forms = [canonical({name: {"transforms": ["Blur"], "p": p}}) for p in (1, 1.0)]
        assert repr(forms[0]) == repr(forms[1])
    assert repr(canonical({"SomeOf": ["Blur"]})) == repr(canonical({"SomeOf": {"transforms": ["Blur"], "p": 1.0}}))


# -- proof of size -----------------------------------------------------------------------------------------------------

RESIZE = {"Resize": {"height": 32, "width": 48}}
SIZE = (32, 48)


@pytest.mark.parametrize(
    "transforms",
    [
        [RESIZE],
        [{"RandomScale": {"scale_limit": [0.1, 0.5]}}, RESIZE],
        [{"RandomResizedCrop": {"size": list(SIZE)}}, {"Rotate": {"p": 1}}],
        [{"SmallestMaxSize": {"max_size": 48}}, {"CenterCrop": {"height": 32, "width": 48}}],
        [{"OneOf": {"transforms": [RESIZE, {"RandomResizedCrop": {"size": list(SIZE)}}], "p": 1}}],
    ],
)
def test_transforms_of_the_right_size_need_no_word(transforms):
    assert prove_size(canonical(*transforms), SIZE, 3, PLACE) == []


@pytest.mark.parametrize(
    ("transforms", "found"),
    [
        ([{"Resize": {"height": 32, "width": 47}}], "32x47 for an image of 375x500"),
        ([{"Resize": {"height": 48, "width": 32}}], "48x32 for an image of 375x500"),
        ([{"SmallestMaxSize": {"max_size": 32}}], "32x43 for an image of 375x500"),
        ([], "375x500 for an image of 375x500"),
        # only now and then of another size
        ([RESIZE, {"Transpose": {"p": 0.5}}], "48x32 for an image of"),
        ([RESIZE, {"RandomScale": {"p": 0.2}}], "for an image of"),
        ([{"Resize": {"height": 32, "width": 48, "p": 0.8}}], "for an image of"),
        # only for images of some shapes
        (
            [{"LongestMaxSize": {"max_size": 48}}, {"PadIfNeeded": {"min_height": 32, "min_width": 48}}],
            "for an image of",
        ),
    ],
)
def test_a_wrong_or_varying_size_is_refused_with_the_sizes(transforms, found):
    with pytest.raises(RecipeError) as refused:
        prove_size(canonical(*transforms), SIZE, 3, PLACE)
    text = str(refused.value)
    assert text.startswith(f"{PLACE}: the transforms give ")
    assert found in text
    assert "the recipe promises 32x48 in uint8 with 3 channels; end with a crop or Resize of that size" in text


def test_floats_are_refused():
    with pytest.raises(RecipeError, match=r"the transforms give values of type float\d\d for"):
        prove_size([*canonical(RESIZE), {"ToFloat": {"p": 1}}], SIZE, 3, PLACE)


def test_another_number_of_channels_is_refused():
    with pytest.raises(RecipeError, match=r"give 3 channels for .* in uint8 with 1 channel;"):
        prove_size(canonical(RESIZE, {"ToRGB": {"p": 1}}), SIZE, 1, PLACE)


def test_a_transform_that_has_no_use_for_gray_is_refused():
    with pytest.raises(RecipeError, match="fail on every image; one of .*ChannelDropout is not defined"):
        prove_size(canonical(RESIZE, {"ChannelDropout": {"p": 1}}), SIZE, 1, PLACE)


def test_one_that_fails_only_when_it_is_drawn_is_refused_too():
    """As a warning it would stop the build at its failure budget, after half an hour."""
    with pytest.raises(RecipeError, match="fail now and then on images of every size; .*ChannelDropout is not defined"):
        prove_size(canonical(RESIZE, {"ChannelDropout": {"p": 0.5}}), SIZE, 1, PLACE)


@pytest.mark.parametrize(
    ("crop", "arguments"),
    [
        ("CenterCrop", {"height": 224, "width": 224}),
        ("RandomCrop", {"height": 224, "width": 224}),
        ("Crop", {"x_max": 224, "y_max": 224}),
    ],
)
def test_a_crop_that_small_images_lack_is_a_warning_and_its_advice_works(crop, arguments):
    warned = prove_size(canonical({crop: arguments}), (224, 224), 3, PLACE)
    assert len(warned) == 1
    assert warned[0].startswith(f"{PLACE}: an image of 2000x64 fails: ")
    advice = f"such images would be left out and listed; to keep them, set pad_if_needed: true in {crop}"
    assert warned[0].endswith(advice)
    mended = canonical({crop: arguments | {"pad_if_needed": True}})
    assert prove_size(mended, (224, 224), 3, PLACE) == []


def test_the_advice_reaches_into_compositions_and_names_each_crop_once():
    crop = {"RandomCrop": {"height": 200, "width": 200}}
    transforms = canonical(
        {"Sequential": {"transforms": [crop, crop], "p": 1}}, {"CenterCrop": {"height": 9, "width": 9}}
    )
    (warned,) = prove_size(transforms, (9, 9), 3, PLACE)
    assert warned.endswith("set pad_if_needed: true in RandomCrop and CenterCrop")


def test_a_crop_larger_than_every_image_is_refused():
    with pytest.raises(
        RecipeError, match=r"fail on every image; one of 3000x4000 fails: CropSizeError.* in CenterCrop"
    ):
        prove_size(canonical({"CenterCrop": {"height": 5000, "width": 5000}}), (5000, 5000), 3, PLACE)


def test_a_crop_that_only_large_images_have_is_a_warning():
    (warned,) = prove_size(canonical({"CenterCrop": {"height": 1000, "width": 1000}}), (1000, 1000), 3, PLACE)
    assert "an image of 375x500 fails: CropSizeError" in warned


def test_slow_transforms_are_tried_on_each_size_all_the_same(monkeypatch):
    tried = []

    def record(pipeline, shape, state):
        tried.append((shape, state))
        return np.zeros((*SIZE, 3), np.uint8)

    monkeypatch.setattr(augment, "_on_blank", record)
    monkeypatch.setattr(augment, "_PROOF_S", 0.0)
    (warned,) = prove_size(canonical(RESIZE), SIZE, 3, PLACE)
    assert warned.endswith("the transforms are slow: their size was tried on 4 of 83 blank images")
    assert tried == [((height, width, 3), 0) for height, width in ((375, 500), (64, 2000), (2000, 64), (1, 1))]
    tried.clear()
    monkeypatch.undo()
    monkeypatch.setattr(augment, "_on_blank", record)
    prove_size(canonical(RESIZE), SIZE, 3, PLACE)
    assert len(tried) == 4 * 20 + 3
    assert ((3000, 4000, 3), 2) in tried


# -- names -------------------------------------------------------------------------------------------------------------


def test_nearest_names_the_closest_or_lists_a_few():
    assert nearest("SISE", ["size", "seed"]) == "; did you mean 'size'?"
    assert nearest("zzz", ["size", "seed"]) == "; known are: seed, size"
    assert nearest("zzz", [str(i) for i in range(31)]) == ""


# -- the library -------------------------------------------------------------------------------------------------------


def run_python(code: str, *path: Path) -> str:
    """Standard output of a fresh interpreter, started as workers are."""
    root = Path(__file__).parents[3]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NO_ALBUMENTATIONS_UPDATE")}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*path, root)))
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_albumentationsx_is_refused_however_it_came(tmp_path):
    folder = tmp_path / "albumentationsx-2.0.11.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: albumentationsx\nVersion: 2.0.11\n")
    code = """
        import sys
        from preprocess import augment
        from preprocess.errors import UsageError
        if {first}:
            import albumentations
        for _ in range(2):
            try:
                augment.library()
            except UsageError as error:
                print(error)
        assert {first} or "albumentations" not in sys.modules
    """
    for first in (False, True):
        said = run_python(code.format(first=first), tmp_path)
        assert said.count("albumentationsx 2.0.11 is installed") == 2
        assert "pip uninstall -y albumentationsx && pip install --force-reinstall 'albumentations>=2.0.8,<2.1'" in said


def test_without_torch_none_is_loaded_and_it_can_still_be():
    said = run_python(
        """
        import os, sys
        from preprocess import augment
        augment.library(without_torch=True)
        assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
        assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
        print(augment.resolve(["HorizontalFlip", "ToTensorV2"], "x")[0])
        import torch
        from albumentations.pytorch import ToTensorV2
        print(augment.resolve([ToTensorV2()], "x")[0], torch.ones(2).sum().item())
        """
    )
    assert said.splitlines() == [
        "[{'HorizontalFlip': {'p': 0.5}}, {'ToTensorV2': {}}]",
        "[{'ToTensorV2': {'p': 1.0, 'transpose_mask': False}}] 2.0",
    ]


def test_what_a_worker_imports_has_no_torch_and_no_zarr():
    said = run_python(
        """
        import sys
        import preprocess.worker
        from preprocess import augment
        augment.library(without_torch=True)
        print(sorted({"torch", "torchvision", "zarr", "pandas"} & set(sys.modules)))
        """
    )
    assert said == "[]\n"
