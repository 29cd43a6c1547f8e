import importlib
import sys
import types
import warnings

import numpy as np
import pytest
import torch

from preprocess.errors import UsageError
from preprocess.jobs import Failure
from preprocess.torch_engine.baseline import jpeg_for_nvjpeg
from preprocess.torch_engine.nvjpeg import Nvjpeg, library
from tests.jpegs import BIG, NVJPEGS, FakeNvjpeg, exif, inserted, jpeg, stored

CPU = torch.device("cpu")
HEIGHT, WIDTH = 16, 24


def bare(data):
    return jpeg_for_nvjpeg(data, max_pixels=BIG)


def batch(count, height=HEIGHT, width=WIDTH):
    return [jpeg(seed, height, width) for seed in range(count)]


def decode(fake, files, **options):
    options.setdefault("synchronise", lambda: None)
    return Nvjpeg(fake, CPU, **options)([bare(file) for file in files])


def check(results, files, failed=()):
    """Each image is right, those in `failed` apart, which are failures."""
    assert len(results) == len(files)
    for place, (result, file) in enumerate(zip(results, files, strict=True)):
        if place in failed:
            assert isinstance(result, Failure), place
        else:
            assert np.array_equal(result.permute(1, 2, 0), stored(file)), place


def refuses(culprits, error="nvjpeg: no"):
    """Fails a list that holds one of these."""
    bad = {bytes(bare(file).data) for file in culprits}

    def spoil(files, images):
        if bad & set(files):
            raise RuntimeError(error)
        return images

    return FakeNvjpeg(spoil)


def test_a_batch_is_one_call():
    fake, files = FakeNvjpeg(), [*NVJPEGS.values()]
    check(decode(fake, files), files)
    assert len(fake.calls) == 1


def test_nothing_is_no_call():
    fake = FakeNvjpeg()
    assert decode(fake, []) == []
    assert not fake.calls


def test_gray():
    [image] = decode(FakeNvjpeg(channels="gray"), [NVJPEGS["4:2:0"]], channels="gray")
    assert np.array_equal(image.permute(1, 2, 0), stored(NVJPEGS["4:2:0"], "gray"))


def test_batches_are_bounded_by_pixels_and_a_larger_image_goes_alone():
    large = jpeg(5, 2 * HEIGHT, 2 * WIDTH)
    files = [large, *batch(5), large, *batch(4)]
    fake = FakeNvjpeg()
    check(decode(fake, files, batch_pixels=3 * HEIGHT * WIDTH), files)
    assert [len(call) for call in fake.calls] == [1, 3, 2, 1, 3, 1]


# A bad file


@pytest.mark.parametrize("place", range(7))
def test_a_bad_file_costs_only_itself(place):
    files = batch(7)
    fake = refuses([files[place]])
    results = decode(fake, files)
    check(results, files, failed={place})
    assert results[place] == Failure("decode", "nvJPEG: nvjpeg: no")
    assert fake.calls.count([bytes(bare(files[place]).data)]) == 2, "tried once more, alone"
    assert len(fake.calls) <= 2 + 2 * 3


@pytest.mark.parametrize("failed", [{0, 1}, {0, 6}, {2, 3, 4}, set(range(7))])
def test_several_bad_files_cost_only_themselves(failed):
    files = batch(7)
    check(decode(refuses([files[place] for place in failed]), files), files, failed)


def test_a_bad_file_does_not_touch_other_batches():
    files = batch(6)
    fake = refuses([files[1]])
    check(decode(fake, files, batch_pixels=3 * HEIGHT * WIDTH), files, failed={1})
    assert [bytes(bare(file).data) for file in files[3:]] in fake.calls


def test_a_failure_that_passes_costs_nothing():
    files = batch(4)
    failures = iter([True] * 4)  # the batch, a half, the culprit; then the next

    def spoil(given, images):
        if bytes(bare(files[0]).data) in given and next(failures, False):
            raise RuntimeError("a bad moment")
        return images

    check(decode(FakeNvjpeg(spoil), files), files, failed={0})

    failures = iter([True] * 3)
    check(decode(FakeNvjpeg(spoil), files), files)


def test_the_reason_is_one_short_line():
    [result] = decode(refuses(batch(1), "Failed to decode batch: 3\nException raised from\n"), batch(1))
    assert result.reason == "nvJPEG: Failed to decode batch: 3"

    [result] = decode(refuses(batch(1), "so " * 1000), batch(1))
    assert len(result.reason) < 400


def test_what_is_no_failure_of_a_file_ends_all():
    def spoil(files, images):
        raise TypeError("a bug")

    with pytest.raises(TypeError):
        decode(FakeNvjpeg(spoil), batch(2))


# Success reported, images wrong


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: torch.empty(0, dtype=torch.uint8),
        lambda image: image[:, :-1],
        lambda image: image[:, :, :-1],
        lambda image: image[:1],
        lambda image: image.transpose(1, 2),
    ],
    ids=["nothing", "rows", "columns", "channels", "turned"],
)
def test_an_image_of_the_wrong_shape_is_a_failure_of_its_file_only(wrong):
    files = batch(5)
    culprit = bytes(bare(files[3]).data)
    fake = FakeNvjpeg(lambda given, images: [wrong(i) if g == culprit else i for g, i in zip(given, images)])
    results = decode(fake, files)
    check(results, files, failed={3})
    assert results[3].stage == "decode"
    assert f"for one image of (3, {HEIGHT}, {WIDTH})" in results[3].reason


@pytest.mark.parametrize("spoil", [lambda files, images: images[:-1], lambda files, images: [*images, images[0]]])
def test_too_few_or_too_many_images_are_failures(spoil):
    files = batch(3)
    check(decode(FakeNvjpeg(spoil), files), files, failed={0, 1, 2})

    only_batches = FakeNvjpeg(lambda given, images: spoil(given, images) if len(given) > 1 else images)
    check(decode(only_batches, files), files)


def test_images_in_another_order_are_noticed_by_their_sizes():
    files = [jpeg(seed, HEIGHT, WIDTH + seed) for seed in range(4)]
    check(decode(FakeNvjpeg(lambda given, images: images[::-1]), files), files)


# Memory

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.OutOfMemoryError("in other words"),
    RuntimeError("Error while decoding JPEG images: CUDA out of memory. Tried to allocate"),
    RuntimeError("Error while decoding JPEG images: Failed to decode batch: 5"),
    RuntimeError("nvjpegDecode failed: 5\nException raised from decode_software"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_batch_that_memory_does_not_hold_is_halved(error):
    def spoil(files, images):
        if sum(image.numel() for image in images) > 3 * 2 * HEIGHT * WIDTH:
            raise error
        return images

    files = [*batch(5), jpeg(5, 2 * HEIGHT, 2 * WIDTH), *batch(2)]
    results = decode(FakeNvjpeg(spoil), files)
    check(results, files, failed={5})
    assert results[5] == Failure("memory", "not enough GPU memory to decode it")


def test_another_status_is_not_a_lack_of_memory():
    [result] = decode(refuses(batch(1), "Failed to decode batch: 15"), batch(1))
    assert result.stage == "decode"


# Streams


def test_the_stream_is_synchronised_right_before_each_decode():
    files, order = batch(4), []
    fake = refuses([files[0]])
    nvjpeg = Nvjpeg(
        lambda given: order.append("decode") or fake(given), CPU, synchronise=lambda: order.append("synchronise")
    )
    nvjpeg([bare(file) for file in files])
    decodes = [place for place, what in enumerate(order) if what == "decode"]
    assert [order[place - 1] for place in decodes] == ["synchronise"] * len(fake.calls)
    assert len(fake.calls) > 3


def test_a_broken_device_is_no_failure_of_a_file():
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    fake = FakeNvjpeg()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        decode(fake, batch(2), synchronise=broken)
    assert not fake.calls


def test_a_file_that_breaks_the_device_at_its_last_attempt_is_not_just_listed():
    files, fake = batch(1), refuses(batch(1), "CUDA error: an illegal memory access was encountered")

    def synchronise():
        if len(fake.calls) == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        decode(fake, files, synchronise=synchronise)


# The libraries


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_torchvision_decodes_every_kind_of_ours_without_turning_it(channels):
    """On the CPU, where it decodes with the same libjpeg-turbo as OpenCV does."""
    files = [*NVJPEGS.values(), inserted(jpeg(), exif(8))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # neither its deprecation nor anything of ours
        results = Nvjpeg(library(CPU, channels), CPU, channels)([bare(file) for file in files])
    for image, file in zip(results, files, strict=True):
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - stored(file, channels)).max() <= 2


def test_only_the_deprecation_is_silenced(monkeypatch):
    def decode_jpeg(files, mode, device):
        for what in ("The image decoding and encoding capabilities of TorchVision are", "something else is"):
            warnings.warn(f"{what} deprecated", DeprecationWarning, stacklevel=2)
        return []

    monkeypatch.setattr("torchvision.io.decode_jpeg", decode_jpeg)
    with pytest.warns(DeprecationWarning, match="deprecated") as caught:
        library(CPU)
    assert [str(warning.message) for warning in caught] == ["something else is deprecated"]


@pytest.fixture
def torchcodec(monkeypatch):
    """A torchcodec of our own; `asked` is what its `decode_jpeg` was called with."""
    module, asked = types.ModuleType("torchcodec.decoders"), []

    def decode_jpeg(source, *, mode="RGB", output_dtype=torch.uint8, device="cpu"):
        asked.append((len(source), mode, device))
        return FakeNvjpeg(channels="rgb" if mode == "RGB" else "gray")(source)

    module.decode_jpeg = decode_jpeg
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return asked


def without_nvjpeg(files, mode, device):
    raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nfrom a C++ stack")


@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize("torchvision", ["without the function", "without nvJPEG"])
def test_torchcodec_where_torchvision_has_no_decoder(monkeypatch, torchcodec, torchvision, channels):
    if torchvision == "without nvJPEG":
        monkeypatch.setattr("torchvision.io.decode_jpeg", without_nvjpeg)
    else:
        monkeypatch.delattr(importlib.import_module("torchvision.io"), "decode_jpeg")
    [image] = Nvjpeg(library(CPU, channels), CPU, channels)([bare(jpeg())])
    assert np.array_equal(image.permute(1, 2, 0), stored(jpeg(), channels))
    assert torchcodec == [(1, "RGB" if channels == "rgb" else "GRAY", CPU)] * 2


def test_torchvision_comes_first(torchcodec):
    library(CPU)
    assert not torchcodec


def test_no_decoder_at_all(monkeypatch):
    monkeypatch.setattr("torchvision.io.decode_jpeg", without_nvjpeg)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(UsageError) as caught:
        library(torch.device("cuda:0"))
    text = str(caught.value)
    assert text.startswith("no JPEG decoder for cuda:0: ")
    assert "torchvision: decode_jpegs_cuda: torchvision not compiled with nvJPEG support; torchcodec: " in text
    assert text.endswith("--device cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_nvjpeg_decodes_every_kind_of_ours(channels):
    cuda = torch.device("cuda")
    results = Nvjpeg(library(cuda, channels), cuda, channels)([bare(file) for file in NVJPEGS.values()])
    for image, (name, file) in zip(results, NVJPEGS.items(), strict=True):
        assert image.device.type == "cuda", name
        assert np.abs(image.permute(1, 2, 0).cpu().numpy().astype(int) - stored(file, channels)).mean() < 3, name
