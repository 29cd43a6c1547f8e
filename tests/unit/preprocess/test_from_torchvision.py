"""A recipe out of a pipeline of torchvision's gives what the pipeline gives, or is refused by name."""

import re
import subprocess
import sys

import albumentations
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as functional
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms._presets import ImageClassification

from preprocess import Recipe, RecipeError
from preprocess import from_torchvision as module
from preprocess.augment import Pipeline
from tests.helpers import picture, write_image

BICUBIC, LANCZOS = InterpolationMode.BICUBIC, InterpolationMode.LANCZOS
NEAREST, NEAREST_EXACT = InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT
SIZES = [(375, 500), (401, 333), (300, 300), (90, 70)]


def ours_of(recipe, image):
    return Pipeline(recipe.splits["train"].transforms)(image, 0)


def theirs_of(pipeline, image):
    """uint8 (H, W, C), or float in 0..255."""
    out = pipeline(Image.fromarray(image))
    if isinstance(out, Image.Image):
        return np.asarray(out)
    return out.numpy().transpose(1, 2, 0) * (1 if out.dtype == torch.uint8 else 255)


def apart(pipeline, height, width):
    """Largest difference of a pixel, and the mean one, in levels of 255; sizes are the same."""
    image = picture(height, height, width)[..., ::-1].copy()
    recipe = Recipe.from_torchvision(pipeline)
    ours, theirs = ours_of(recipe, image), theirs_of(pipeline, image)
    assert ours.shape == theirs.shape == (*recipe.size, 3)
    difference = np.abs(ours.astype(float) - theirs)
    return difference.max(), difference.mean()


@pytest.mark.parametrize(
    ("pipeline", "largest"),
    [
        (v1.Compose([v1.Resize(256), v1.CenterCrop(224)]), 2),
        (v2.Compose([v2.Resize([256]), v2.CenterCrop((200, 224)), v2.ToImage()]), 2),
        (v1.Resize((100, 150)), 1),
        (v1.Resize((100, 150), BICUBIC), 2),
        (v1.Resize((100, 150), LANCZOS), 2),
        (v1.Resize((100, 150), NEAREST), 0),
        (v2.Resize((700, 800), interpolation=2), 1),
        (v2.Resize((700, 800), "bicubic"), 2),
        (v2.Compose([v2.ToImage(), v2.Resize((100, 150), antialias=True)]), 1),
        (v2.Compose([v2.ToImage(), v2.Resize((100, 150), antialias=False)]), 1),
        (v2.Compose([v2.ToImage(), v2.Resize((100, 150), NEAREST_EXACT)]), 3),
        (v1.CenterCrop(700), 0),
        (v1.Compose([v1.Resize((250, 300)), v1.CenterCrop(200), v1.Resize(90)]), 2),
        (v1.Compose([v1.Resize((250, 300)), v1.Resize(90)]), 2),
        (v1.Compose([v1.Resize((96, 96)), v1.ToTensor()]), 1),
        (ImageClassification(crop_size=224, resize_size=256, mean=(0.0,) * 3, std=(1.0,) * 3), 2),
    ],
    ids=lambda value: re.sub(r"\s+", " ", str(value)),
)
def test_resizing_and_cropping_give_the_same_pixels_of_a_smooth_picture(pipeline, largest):
    """Measured: 1 level of 255; 2 where a cubic enlarges, or a second resize or a crop shifted by a pixel comes on top;
    0.3 on average. torch's nearest-exact now and then takes the neighbour."""
    for height, width in SIZES:
        most, mean = apart(pipeline, height, width)
        assert most <= largest, (height, width)
        assert mean <= 0.35, (height, width)


def test_antialiasing_is_kept_and_its_lack_too():
    """A fine chequerboard: averaged it is gray, sampled at every seventh pixel it is not."""
    board = np.repeat(((np.indices((280, 280)).sum(0) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for pipeline, averaged in (
        (v1.Resize((40, 40)), True),
        (v1.Resize((40, 40), antialias=False), True),  # PIL averages in spite of it
        (v1.Resize((40, 40), NEAREST), False),
        (v1.Compose([v1.PILToTensor(), v1.Resize((40, 40))]), True),
        (v1.Compose([v1.PILToTensor(), v1.Resize((40, 40), NEAREST)]), False),
    ):
        ours, theirs = ours_of(Recipe.from_torchvision(pipeline), board), theirs_of(pipeline, board)
        assert (np.ptp(ours) < 10) == (np.ptp(theirs) < 10) == averaged, pipeline
    plain = Recipe.from_torchvision(v1.Compose([v1.PILToTensor(), v1.Resize((40, 40), antialias=False)]))
    assert plain.splits["train"].transforms[0]["Resize"]["area_for_downscale"] is None


@pytest.mark.parametrize(
    ("step", "largest"),
    [
        (v1.Grayscale(3), 1),
        (v2.ColorJitter(brightness=(1.3, 1.3)), 1),
        (v1.ColorJitter(contrast=(0.6, 0.6)), 1),
        (v1.ColorJitter(saturation=(1.4, 1.4)), 2),
        # torchvision itself turns hues of tensors and of PIL images differently, by up to 15 levels
        (v1.Compose([v1.PILToTensor(), v2.ColorJitter(hue=(0.1, 0.1))]), 6),
        (v1.ColorJitter(), 0),
        (v1.GaussianBlur(9, (2.0, 2.0)), 1),
        (v2.GaussianBlur((5, 5), 1.5), 1),
        (v1.RandomHorizontalFlip(1.0), 0),
        (v2.RandomVerticalFlip(1.0), 0),
        (v1.RandomHorizontalFlip(0.0), 0),
    ],
    ids=str,
)
def test_colours_and_flips_that_leave_nothing_to_chance(step, largest):
    most, mean = apart(v1.Compose([v1.CenterCrop((64, 60)), step]), 64, 60)

    assert most <= largest
    assert mean <= max(1, largest / 4)


@pytest.mark.parametrize(
    "crop",
    [
        v1.RandomCrop(5, padding=1),
        v2.RandomCrop(5, padding=1),
        v1.RandomCrop((5, 6), padding=(0, 1), padding_mode="reflect"),
        v2.RandomCrop((5, 6), padding=[0, 1], padding_mode="symmetric"),
        v1.RandomCrop(6, padding=(2, 0, 1, 1), fill=90, padding_mode="constant"),
        v2.RandomCrop(6, padding=(2, 0, 1, 1), fill=(9, 200, 90)),
        v1.RandomCrop(8, pad_if_needed=True, padding_mode="edge"),
        v2.RandomCrop((8, 5), pad_if_needed=True, fill=7),
    ],
    ids=lambda crop: f"{type(crop).__module__.split('.')[2]} {vars(crop)['size']} {crop.padding} {crop.padding_mode}",
)
def test_a_random_crop_can_give_exactly_what_torchvisions_can(crop):
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    torch.manual_seed(0)
    pipeline = Pipeline(Recipe.from_torchvision(crop).splits["train"].transforms)

    ours = {pipeline(image, state).tobytes() for state in range(300)}
    theirs = {np.asarray(crop(Image.fromarray(image))).tobytes() for _ in range(300)}

    assert len(theirs) > 2
    assert ours == theirs


@pytest.mark.parametrize(
    "crop",
    [
        v1.RandomResizedCrop(32),
        v2.RandomResizedCrop((24, 40), scale=(0.35, 0.5), ratio=(1.0, 2.0), antialias=True),
    ],
    ids=["v1", "v2"],
)
def test_a_random_resized_crop_cuts_windows_of_the_same_sizes(crop):
    """Measured on a picture whose pixels are their own coordinates: width and height of the window, on average."""
    rows, columns = np.indices((120, 200), np.uint8)
    image = np.dstack([rows, columns, rows])
    torch.manual_seed(0)
    recipe = Recipe.from_torchvision(crop)
    pipeline = Pipeline(recipe.splits["train"].transforms)

    ours = np.array([np.ptp(pipeline(image, state), axis=(0, 1)) for state in range(500)], float)
    theirs = np.array([np.ptp(np.asarray(crop(Image.fromarray(image))), axis=(0, 1)) for _ in range(500)], float)

    error = np.hypot(ours.std(0), theirs.std(0)) / np.sqrt(500)
    assert recipe.size == tuple(_pair(crop.size))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error + 0.5).all()
    assert (np.abs(ours.std(0) / theirs.std(0) - 1) < 0.2).all()


def _pair(size):
    return (size, size) if isinstance(size, int) else size


def test_a_training_pipeline_becomes_a_recipe():
    train = v1.Compose(
        [
            v1.RandomResizedCrop(32, scale=(0.3, 1.0)),
            v1.RandomHorizontalFlip(),
            v1.ColorJitter(0.4, 0.3, hue=0.1),
            v1.RandomGrayscale(0.2),
            v1.GaussianBlur(3),
            v1.ToTensor(),
            v1.Normalize((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        ]
    )
    val = v2.Compose(
        [
            v2.ToImage(),
            torch.nn.Sequential(v2.Resize(36), v2.CenterCrop(32)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]),
            v2.ToPureTensor(),
        ]
    )

    recipe = Recipe.from_torchvision({"train": train, "val": val}, variants=3, dtype="uint8", seed=4)

    assert (recipe.size, recipe.channels, recipe.dtype, recipe.seed) == ((32, 32), "rgb", "uint8", 4)
    assert recipe.fixed_statistics == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    assert {name: split.variants for name, split in recipe.splits.items()} == {"train": 3, "val": 1}
    steps = {name: args for step in recipe.splits["train"].transforms for name, args in step.items()}
    assert list(steps) == ["RandomResizedCrop", "HorizontalFlip", "ColorJitter", "ToGray", "GaussianBlur"]
    assert steps["RandomResizedCrop"]["scale"] == [0.3, 1.0]
    assert steps["HorizontalFlip"]["p"] == 0.5
    jitter = {"brightness": [0.6, 1.4], "contrast": [0.7, 1.3], "saturation": [1.0, 1.0], "hue": [-0.1, 0.1], "p": 1.0}
    assert steps["ColorJitter"].keys() == jitter.keys()
    assert all(steps["ColorJitter"][key] == pytest.approx(value) for key, value in jitter.items())
    assert steps["ToGray"]["p"] == 0.2
    assert steps["GaussianBlur"]["sigma_limit"] == [0.1, 2.0]
    assert Recipe.from_torchvision({"train": train, "val": val}, variants={"val": 2}).splits["val"].variants == 2


@pytest.mark.parametrize(
    ("tail", "statistics"),
    [
        ([v1.ToTensor(), v1.Normalize((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))], ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))),
        ([v1.ToTensor(), v1.Normalize([0.5], [0.25])], ((0.5,) * 3, (0.25,) * 3)),
        ([v1.PILToTensor(), v1.ConvertImageDtype(torch.float32)], ((0.0,) * 3, (1.0,) * 3)),
        ([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)], ((0.0,) * 3, (1.0,) * 3)),
    ],
)
def test_the_cache_holds_the_values_that_the_pipeline_gives(tmp_path, tail, statistics):
    """A float16 below 4 is exact to 2**-10, and so is that of a pixel that is the same."""
    pipeline = v1.Compose([v1.CenterCrop((24, 30)), *tail])
    path = write_image(tmp_path / "a.png", 1, 24, 30)
    recipe = Recipe.from_torchvision({"val": pipeline})

    ours = recipe.render(path, "val").astype(np.float32)

    assert recipe.fixed_statistics == statistics
    np.testing.assert_allclose(ours, pipeline(Image.open(path)).numpy(), rtol=0, atol=2**-10)


def test_gray_images_have_one_channel(tmp_path):
    pipeline = v1.Compose([v1.Grayscale(), v1.CenterCrop(20), v1.ToTensor(), v1.Normalize([0.5], [0.25])])
    path = write_image(tmp_path / "a.png", 1, 20, 20)
    recipe = Recipe.from_torchvision({"val": pipeline})

    ours, theirs = recipe.render(path, "val"), pipeline(Image.open(path)).numpy()

    assert (recipe.channels, ours.shape) == ("gray", theirs.shape)
    assert np.abs(ours - theirs).max() <= 1 / 255 / 0.25 + 2**-10  # one level of 255


def test_pixels_that_stay_in_0_to_255_leave_normalisation_open():
    plain = v2.Compose([v2.Resize((8, 8)), v2.ToImage()])

    assert Recipe.from_torchvision(plain).normalize == "dataset"
    scaled = v1.Compose([plain, v1.ToTensor()])
    assert Recipe.from_torchvision(scaled, normalize="dataset").normalize == "dataset"
    with pytest.raises(RecipeError, match="disagrees"):
        Recipe.from_torchvision(v1.Compose([scaled, v1.Normalize([0.5], [0.5])]), normalize="dataset")


def refused(pipeline, **options):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_torchvision(pipeline, **options)
    return str(caught.value)


class MyCrop(v1.CenterCrop):
    pass


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([v1.RandomRotation(10)], "splits.train[0].RandomRotation: RandomRotation has no counterpart"),
        ([v1.CenterCrop(8), v1.ToTensor(), v1.Normalize([0.5], [0.5]), v1.RandomErasing()], "write Erasing of"),
        ([v2.Lambda(lambda image: image)], "CachedDataset(transform=...)"),
        ([lambda image: image], ".function is none of torchvision's own"),
        ([MyCrop(8)], "MyCrop is none of torchvision's own transforms"),
        ([v2.MixUp(num_classes=2)], "CachedDataset(batch_transform=...)"),
        ([v1.Resize(8)], "splits.train: no step fixes both height and width of the result"),
        ([v1.ToTensor()], "no step fixes both height and width"),
        ([v1.Resize(8, max_size=20)], "max_size has no counterpart"),
        ([v1.Resize((8, 8), InterpolationMode.HAMMING)], "interpolation 'hamming' cannot be had"),
        ([v1.CenterCrop(8), v1.Normalize([0.5], [0.5])], "pixels are not in 0..1 yet"),
        ([v2.ToImage(), v2.ToDtype(torch.float32)], "scale=True expected"),
        ([v2.ToImage(), v2.ToDtype(torch.int64)], "found torch.int64"),
        ([v1.ToTensor(), v1.Normalize([0.5], [0.5]), v1.CenterCrop(8)], "[2].CenterCrop: it follows Normalize"),
        ([v1.CenterCrop(8), v1.GaussianBlur((3, 5))], "a square kernel expected, found 3x5"),
        ([v2.RandomCrop(8, fill={Image.Image: 3})], "fill as a number"),
        ([v1.Compose([v1.CenterCrop(8), v1.TrivialAugmentWide()])], "splits.train[0][1].TrivialAugmentWide:"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_rest_is_refused_by_name_with_what_to_do_instead(steps, message):
    assert message in refused(v1.Compose(steps))


def test_splits_agree_in_what_a_cache_has_one_of():
    small, large = v1.CenterCrop(8), v1.CenterCrop((8, 9))

    assert "gives size 8x9 (height x width), that of 'a' 8x8" in refused({"a": small, "b": large})
    assert "gives channels gray" in refused({"a": small, "b": [v1.Grayscale(), small]})
    normalised = [small, v1.ToTensor(), v1.Normalize([0.5], [0.5])]
    assert "one normalisation" in refused({"a": [small, v1.ToTensor()], "b": normalised})
    assert "size: follows from the transforms" in refused(small, size=8)
    assert "'vall' has no pipeline; did you mean 'val'?" in refused({"val": small}, variants={"vall": 2})
    assert "found none" in refused({})


def test_advice_names_what_there_is():
    for name, advice in module._INSTEAD.items():
        assert hasattr(v2, name) or hasattr(v1, name), name
        for named in re.findall(r"(\w+) of Albumentations", advice):
            assert hasattr(albumentations, named), advice


def test_neither_torch_nor_torchvision_is_imported():
    code = "import sys, preprocess.from_torchvision, preprocess.recipe; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "preprocess.from_torchvision" in loaded
    assert not {"torch", "torchvision"} & set(loaded)


def test_tolerances_would_notice_another_crop():
    """The smooth pictures are not so smooth that anything passes."""
    image = Image.fromarray(picture(375, 375, 500))
    shifted = functional.crop(functional.resize(image, 256), 16, 62, 224, 224)
    straight = functional.crop(functional.resize(image, 256), 16, 58, 224, 224)

    assert np.abs(np.asarray(shifted, float) - np.asarray(straight, float)).max() > 4
