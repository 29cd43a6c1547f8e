"""From bytes to pixels: exact sums, the one normalisation, and no exception but ours."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_store.canonical import digest_of
from cache_store.normalise import normalisation_table, normalise
from preprocess import augment
from preprocess.decode import decode
from preprocess.errors import SourceError, UsageError
from preprocess.levels import apply_window
from preprocess.plan import REMEMBERED_STAGES
from preprocess.render import Normaliser, Renderer, channel_sums, to_planes
from preprocess.rendering import Rendering
from tests.helpers import picture


def rendering(*transforms, size_hw=(24, 20), channels="rgb", reduced=False, seed=0):
    given = tuple(augment.resolve(list(transforms), "here")[0])
    return Rendering(size_hw, channels, "uint8", given, seed, reduced, "opencv", "")


RESIZE = {"Resize": {"height": 24, "width": 20}}


# -- sums --------------------------------------------------------------------------------------------------------------


def check_sums(planes: np.ndarray) -> None:
    wide = planes.astype(np.int64)
    total, total_of_squares = channel_sums(planes)
    assert list(total) == wide.sum((1, 2)).tolist()
    assert list(total_of_squares) == (wide * wide).sum((1, 2)).tolist()
    assert all(type(value) is int for value in (*total, *total_of_squares))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 7, 3), (3, 224, 224), (3, 2000, 3000)])
@pytest.mark.parametrize("kind", ["random", "black", "white", "one level below white"])
def test_sums_are_exact(shape, kind):
    constant = {"black": 0, "white": 255, "one level below white": 254}
    random = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    check_sums(random if kind == "random" else np.full(shape, constant[kind], np.uint8))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(1, 256))
def test_sums_are_exact_for_any_shape_and_contrast(seed, channels, height, width, levels):
    check_sums(np.random.default_rng(seed).integers(0, levels, (channels, height, width), dtype=np.uint8))


def test_sums_of_the_largest_plane_are_exact():
    """2**28 pixels of nearly white: one less than the largest sum, and an odd one."""
    plane = np.full((1, 1 << 14, 1 << 14), 255, np.uint8)
    plane[0, 5, 5] = 254
    total, total_of_squares = channel_sums(plane)
    assert total == (255 * 2**28 - 1,)
    assert total_of_squares == (255**2 * 2**28 - 255**2 + 254**2,)


# -- normalisation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.5,), (0.001,)),
        ((0.1, 0.9, 0.5), (5.0, 0.01, 1.0)),
    ],
)
def test_the_renderers_normalisation_is_the_stores_bit_for_bit(mean, std):
    shape = (len(mean), 40, 30)
    normaliser = Normaliser((mean, std), shape)
    table = normalisation_table(mean, std)
    for seed in range(3):
        planes = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        planes.reshape(-1)[:256] = np.arange(256)
        out = normaliser(planes)
        assert out.dtype == np.float16
        assert out.tobytes() == normalise(planes, table).tobytes()


def test_planes_are_the_channels():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_planes(pixels, np.empty((3, 5, 7), np.uint8)), pixels.transpose(2, 0, 1))
    gray = pixels[:, :, 1:2]
    np.testing.assert_array_equal(to_planes(gray, np.empty((1, 5, 7), np.uint8))[0], gray[..., 0])


# -- variants ----------------------------------------------------------------------------------------------------------


def encoded(seed=0):
    return cv2.imencode(".png", picture(seed, 40, 50))[1].tobytes()


def test_one_decode_serves_all_variants_undisturbed():
    transforms = [{"RandomResizedCrop": {"size": [24, 20]}}, {"ColorJitter": {"p": 1}}, {"CoarseDropout": {"p": 1}}]
    renderer, data = Renderer(rendering(*transforms)), encoded()
    digest, image = digest_of(data), renderer.decode(data).image
    assert not image.flags.writeable
    before = image.copy()
    together = [renderer.pixels(image, digest, k) for k in range(4)]
    np.testing.assert_array_equal(image, before)
    apart = [Renderer(rendering(*transforms)).pixels(renderer.decode(data).image, digest, k) for k in (3, 2, 1, 0)]
    np.testing.assert_array_equal(together, apart[::-1])
    assert len({out.tobytes() for out in together}) == 4


def test_without_transforms_the_result_is_the_read_only_decode_itself():
    renderer = Renderer(rendering(size_hw=(40, 50)))
    image = renderer.decode(encoded()).image
    np.testing.assert_array_equal(renderer.pixels(image, bytes(16), 0), image)


def test_seed_and_digest_reach_the_draws():
    crop = {"RandomResizedCrop": {"size": [24, 20]}}
    image = picture(0, 40, 50)
    outs = [
        Renderer(rendering(crop, seed=seed)).pixels(image, digest, k).tobytes()
        for seed in (0, 1)
        for digest in (bytes(16), bytes(15) + b"\1")
        for k in (0, 1)
    ]
    assert len(set(outs)) == 8


def test_gray_and_colour():
    for channels, depth in (("gray", 1), ("rgb", 3)):
        renderer = Renderer(rendering(RESIZE, channels=channels))
        assert renderer.pixels(renderer.decode(encoded()).image, bytes(16), 0).shape == (24, 20, depth)


def test_reduced_decodes_small_what_is_resized_small():
    data = cv2.imencode(".jpg", picture(0, 400, 400))[1].tobytes()
    assert Renderer(rendering(RESIZE, reduced=True)).decode(data).image.shape == (50, 50, 3)
    assert Renderer(rendering(RESIZE)).decode(data).image.shape == (400, 400, 3)


def test_the_cap_holds():
    with pytest.raises(SourceError, match="over the cap") as failed:
        Renderer(rendering(RESIZE), max_pixels=1999).decode(encoded())
    assert failed.value.stage == "decode"


def refusal(monkeypatch, error):
    """What a renderer raises whose transforms raise `error`."""
    renderer = Renderer(rendering(RESIZE))

    def fail(image, state):
        raise error

    monkeypatch.setattr(renderer, "_pipeline", fail)
    with pytest.raises(SourceError) as failed:
        renderer.pixels(picture(0), bytes(16), 0)
    return failed.value


@pytest.mark.parametrize(
    "error",
    [ValueError("too\nmany  lines"), RuntimeError(), cv2.error("odd"), KeyError("bboxes"), ZeroDivisionError("x")],
)
def test_whatever_a_transform_raises_is_this_images_failure(monkeypatch, error):
    failed = refusal(monkeypatch, error)
    assert failed.stage == "render"
    assert failed.reason.startswith(f"{type(error).__name__}:")
    assert "\n" not in failed.reason
    assert failed.__cause__ is error


def no_memory() -> cv2.error:
    error = cv2.error("OpenCV(5.0.0) error: (-4:Insufficient memory) Failed to allocate 120000000000000 bytes")
    error.code = cv2.Error.StsNoMem
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        no_memory(),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 70368744177664 bytes."
        ),
    ],
    ids=str,
)
def test_memory_that_is_short_is_not_remembered_as_this_images_failure(monkeypatch, error):
    failed = refusal(monkeypatch, error)
    assert (failed.stage, failed.reason) == ("memory", "not enough memory to render it")
    assert failed.stage not in REMEMBERED_STAGES


def test_a_very_long_reason_is_cut(monkeypatch):
    assert len(refusal(monkeypatch, ValueError("x" * 10_000)).reason) == 300


def test_a_crop_larger_than_the_image_says_so():
    renderer = Renderer(rendering({"CenterCrop": {"height": 24, "width": 20}}))
    with pytest.raises(SourceError, match=r"render: CropSizeError: Crop size .*\(24, 20\) vs \(10, 50\)"):
        renderer.pixels(picture(0, 10, 50), bytes(16), 0)


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.zeros((24, 21, 3), np.uint8), r"uint8 \(24, 21, 3\)"),
        (np.zeros((24, 20), np.uint8), r"uint8 \(24, 20\)"),
        (np.zeros((24, 20, 3), np.float32), r"float32 \(24, 20, 3\)"),
    ],
)
def test_a_result_of_another_shape_or_type_is_refused(monkeypatch, out, found):
    renderer = Renderer(rendering(RESIZE))
    monkeypatch.setattr(renderer, "_pipeline", lambda image, state: out)
    with pytest.raises(SourceError, match=rf"uint8 \(24, 20, 3\) expected, the transforms gave {found}"):
        renderer.pixels(picture(0), bytes(16), 0)


# -- what the recipe says of odd images --------------------------------------------------------------------------------


def plain_decoder(data, *, channels, max_pixels, reduce_to):
    return decode(data, channels=channels, max_pixels=max_pixels, reduce_to=reduce_to)


def window_decoder(data, *, levels=None, **options):
    return decode(data, levels=levels, **options)


def deep() -> tuple[np.ndarray, bytes]:
    values = (np.arange(24 * 20, dtype=np.uint16) * 8).reshape(24, 20)
    return values, cv2.imencode(".png", values)[1].tobytes()


def test_a_window_is_applied_before_the_transforms():
    values, data = deep()
    found = Renderer(replace(rendering(channels="gray"), window=(0, 4095))).decode(data).image
    assert np.array_equal(found[..., 0], apply_window(values, (0, 4095)))


def test_decoders_of_old_go_on_where_no_key_is_set_and_are_told_where_one_is():
    here = f"{__name__}:plain_decoder"
    assert Renderer(rendering(), here).decode(cv2.imencode(".png", deep()[0] * 16)[1].tobytes())
    wanted = replace(rendering(), window=(0, 4095), admitted=(("pages", "first"),))
    with pytest.raises(UsageError, match="takes no argument 'pages', which the recipe's decode.pages is for"):
        Renderer(wanted, here)
    assert Renderer(replace(rendering(), window=(0, 4095)), f"{__name__}:window_decoder").decode(deep()[1])
    assert Renderer(wanted, f"{__name__}:window_decoder")
