import pickle
import random

import cv2
import numpy as np
import pytest
import torch

import preprocess.torch_engine.decoder
from cache_store.canonical import digest_of
from preprocess.decode import decode
from preprocess.errors import DecoderUntrusted, SourceError
from preprocess.jobs import Failure
from preprocess.torch_engine.baseline import jpeg_for_nvjpeg
from preprocess.torch_engine.decoder import TOLERANCE, Decoder, DeviceImage, difference, upright
from preprocess.torch_engine.nvjpeg import Nvjpeg, library
from tests.helpers import picture
from tests.jpegs import BIG, NVJPEGS, OPENCVS, FakeNvjpeg, exif, inserted, jpeg

CPU = torch.device("cpu")
NEVER = 1 << 64
DAMAGED = NVJPEGS["4:2:0"][:-300] + b"\0" * 298 + b"\xff\xd9"


def decoder(fake, channels="rgb", checked_1_in=NEVER, **options):
    nvjpeg = Nvjpeg(fake, CPU, channels)
    return Decoder(CPU, channels=channels, max_pixels=BIG, nvjpeg=nvjpeg, checked_1_in=checked_1_in, **options)


def run(decode_all, files):
    return decode_all(files, [digest_of(file) for file in files])


def is_compared(file, one_in):
    return int.from_bytes(digest_of(file)[:8], "big") % one_in == 0


def same(one, other):
    if isinstance(one, Failure) or isinstance(other, Failure):
        return one == other
    return one[1:] == other[1:] and torch.equal(one.image, other.image)


def expected(file, channels="rgb"):
    try:
        return decode(file, channels=channels, max_pixels=BIG)
    except SourceError as error:
        return Failure(error.stage, error.reason)


def check(results, files, channels="rgb"):
    """All is as OpenCV has it."""
    for result, file in zip(results, files, strict=True):
        wanted = expected(file, channels)
        if isinstance(wanted, Failure):
            assert result == wanted
        else:
            assert result.image.dtype == torch.uint8
            assert np.array_equal(result.image.permute(1, 2, 0), wanted.image)
            assert (result.source_hw, result.notes) == (wanted.source_hw, wanted.notes)


# Which decoder


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_files_of_all_kinds_are_decoded_side_by_side(channels):
    files = [*NVJPEGS.values(), *OPENCVS.values()]
    random.Random(0).shuffle(files)
    fake = FakeNvjpeg(channels=channels)
    results = run(decoder(fake, channels, threads=3), files)

    check(results, files, channels)
    nvjpegs = set(NVJPEGS.values())
    for result, file in zip(results, files, strict=True):
        assert isinstance(result, Failure) or result.decoder == ("nvjpeg" if file in nvjpegs else "opencv")
    assert len(fake.decoded) == len(NVJPEGS)


@pytest.mark.parametrize("name", [*NVJPEGS, *OPENCVS])
def test_a_file_gets_the_same_alone_and_in_any_batch(name):
    everything = NVJPEGS | OPENCVS
    [alone] = run(decoder(FakeNvjpeg()), [everything[name]])
    for seed in range(2):
        names = random.Random(seed).sample([*everything], 12)
        among = run(decoder(FakeNvjpeg()), [everything[name], *(everything[other] for other in names)])
        assert same(among[0], alone)


def test_without_nvjpeg_all_is_opencvs():
    files = [*NVJPEGS.values(), *OPENCVS.values()]
    results = run(Decoder(CPU, max_pixels=BIG), files)

    check(results, files)
    assert {result.decoder for result in results if isinstance(result, DeviceImage)} == {"opencv"}


def test_an_absurdly_large_file_is_refused_before_any_decode():
    fake, files = FakeNvjpeg(), [NVJPEGS["4:2:0"], OPENCVS["huge"], NVJPEGS["gray"]]
    results = run(decoder(fake), files)

    check(results, files)
    assert "over the cap of 1 Mpx" in results[1].reason
    assert len(fake.decoded) == 2


def test_a_recipe_with_reduced_decodes_gets_them_from_opencv():
    fake, files = FakeNvjpeg(), [jpeg(0, 80, 80), jpeg(1, 16, 16)]
    large, small = run(decoder(fake, reduce_to=(10, 10)), files)

    assert (large.decoder, tuple(large.image.shape), large.source_hw) == ("opencv", (3, 20, 20), (80, 80))
    assert (small.decoder, tuple(small.image.shape)) == ("nvjpeg", (3, 16, 16))


def test_what_nvjpeg_cannot_decode_is_not_handed_to_opencv():
    files = [NVJPEGS["4:2:0"], NVJPEGS["4:4:4"]]
    bad = jpeg_for_nvjpeg(files[0], max_pixels=BIG).data

    def spoil(given, images):
        if bytes(bad) in given:
            raise RuntimeError("not supported")
        return images

    failed, well = run(decoder(FakeNvjpeg(spoil), checked_1_in=1), files)
    assert failed == Failure("decode", "nvJPEG: not supported")
    check([well], files[1:])


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_orientation_is_applied_as_opencv_applies_it(orientation, channels):
    file = inserted(NVJPEGS["4:2:0"], exif(orientation))
    [result] = run(decoder(FakeNvjpeg(channels=channels), channels), [file])

    mode = cv2.IMREAD_COLOR_RGB if channels == "rgb" else cv2.IMREAD_GRAYSCALE
    wanted = cv2.imdecode(np.frombuffer(file, np.uint8), mode)
    assert result.decoder == "nvjpeg"
    assert np.array_equal(result.image.permute(1, 2, 0), wanted.reshape(*wanted.shape[:2], -1))
    assert result.source_hw == wanted.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_leaves_every_channel_where_it_is(orientation):
    image = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    planes = [preprocess.decode.upright(plane.numpy(), orientation) for plane in image]
    assert np.array_equal(upright(image, orientation), np.stack(planes))


# The comparison with OpenCV


@pytest.fixture
def compared(monkeypatch):
    """The files that OpenCV decodes."""
    seen = []

    def noting(data, **options):
        seen.append(data)
        return decode(data, **options)

    monkeypatch.setattr(preprocess.torch_engine.decoder, "decode", noting)
    return seen


def test_the_digest_says_which_files_are_compared(compared):
    files = [jpeg(seed, 8, 8) for seed in range(60)]
    run(decoder(FakeNvjpeg(), checked_1_in=4), files)
    chosen = set(compared)
    assert chosen == {file for file in files if is_compared(file, 4)}
    assert 5 < len(chosen) < 25

    compared.clear()
    for file in reversed(files):
        run(decoder(FakeNvjpeg(), checked_1_in=4), [file])
    assert set(compared) == chosen


def blind(image):
    return torch.zeros_like(image)


def stale(image):
    """Memory that was never written."""
    garbage = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
    return torch.from_numpy(garbage // 2)


def swapped(image):
    return image.flip(0)


@pytest.mark.parametrize("wrong", [blind, stale, swapped])
def test_wrong_pixels_end_the_build(wrong):
    files = [jpeg(seed) for seed in range(3)]
    fake = FakeNvjpeg(lambda given, images: [wrong(image) for image in images])
    with pytest.raises(DecoderUntrusted) as caught:
        run(decoder(fake, checked_1_in=1), files)

    text = str(caught.value)
    assert text.startswith(f"nvJPEG on cpu gives wrong pixels for the image with digest {digest_of(files[0]).hex()}")
    assert "up to 16 expected" in text
    assert text.endswith("--device cpu")
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_wrong_pixels_of_files_that_are_not_compared_pass():
    files = [jpeg(seed) for seed in range(3)]
    results = run(decoder(FakeNvjpeg(lambda given, images: [blind(image) for image in images])), files)
    assert not any(result.image.any() for result in results)


def test_gray_files_are_compared_as_gray_files(compared):
    files = [NVJPEGS["gray"]]
    fake = FakeNvjpeg(lambda given, images: [blind(image) for image in images])
    with pytest.raises(DecoderUntrusted):
        run(decoder(fake, checked_1_in=1), files)
    assert len(fake.decoded) == 3
    assert fake.decoded[-1][: fake.decoded[-1].index(b"\xff\xc4")][-3:] == b"\1\x11\0", "the sound copy is gray, too"


def test_colour_files_of_a_gray_recipe_are_compared():
    fake = FakeNvjpeg(channels="gray")
    check(run(decoder(fake, "gray", checked_1_in=1), [*NVJPEGS.values()]), [*NVJPEGS.values()], "gray")
    fake.spoil = lambda given, images: [blind(image) for image in images]
    with pytest.raises(DecoderUntrusted):
        run(decoder(fake, "gray", checked_1_in=1), [jpeg()])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda given, images: [*images[:1], blind(images[1]), *images[2:]] if len(images) > 1 else images,
        lambda given, images: images[1:] + images[:1],
    ],
    ids=["an image is skipped", "another order"],
)
def test_a_batch_with_wrong_pixels_is_decoded_again_one_by_one(spoil):
    files = [jpeg(seed) for seed in range(60)]
    compared_one = next(file for file in files if is_compared(file, 32))
    files = [file for file in files if not is_compared(file, 32)][:4]
    files.insert(1, compared_one)
    check(run(decoder(FakeNvjpeg(spoil), checked_1_in=32), files), files)


def test_a_damaged_file_that_decodes_differently_costs_only_itself():
    files = [jpeg(1), DAMAGED, jpeg(2)]
    culprit = jpeg_for_nvjpeg(DAMAGED, max_pixels=BIG).data

    def spoil(given, images):
        return [255 - image if file == culprit else image for file, image in zip(given, images, strict=True)]

    results = run(decoder(FakeNvjpeg(spoil), checked_1_in=1), files)
    check([results[0], results[2]], [files[0], files[2]])
    assert results[1].stage == "decode"
    assert results[1].reason.startswith("JPEG data is damaged: nvJPEG and OpenCV decode it differently")


def test_a_file_that_opencv_refuses_is_not_compared():
    def refuse(data, **options):
        raise SourceError("decode", "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess.torch_engine.decoder, "decode", refuse)
        results = run(decoder(FakeNvjpeg(), checked_1_in=1), [jpeg()])
    check(results, [jpeg()])


def nearest(given, images):
    """As nvJPEG has it: chroma of 4:2:0 repeated instead of interpolated."""
    results = []
    for image in images:
        ycc = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2YCrCb)
        chroma = cv2.resize(ycc[..., 1:], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        ycc[..., 1:] = cv2.resize(chroma, ycc.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        results.append(torch.from_numpy(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB)).permute(2, 0, 1))
    return results


def colourful() -> dict[str, np.ndarray]:
    """Pictures whose chroma changes as abruptly as it can."""
    rng = np.random.default_rng(0)
    text = np.full((128, 128, 3), 255, np.uint8)
    for row in range(10, 128, 9):
        colour = [(0, 0, 255), (255, 0, 0), (0, 200, 0), (255, 0, 255)][row % 4]
        cv2.putText(text, "Pour for ever 839!", (row % 7 - 20, row), cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour)
    corners = rng.integers(0, 2, (64, 64, 3), dtype=np.uint8) * 255
    return {
        "text": text,
        "noise": rng.integers(0, 256, (128, 128, 3), dtype=np.uint8),
        "saturated noise": np.kron(corners, np.ones((2, 2, 1), np.uint8)),
        "stripes": np.tile(np.repeat(np.uint8([[[0, 0, 255], [255, 255, 255]]]), 2, axis=1), (128, 32, 1)),
        "smooth": picture(5, 128, 128),
    }


@pytest.mark.parametrize("name", colourful())
@pytest.mark.parametrize("quality", [30, 95])
def test_chroma_that_is_repeated_is_not_wrong(name, quality):
    file = cv2.imencode(".jpg", colourful()[name], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    fake = FakeNvjpeg(nearest)
    [result] = run(decoder(fake, checked_1_in=1), [file])

    assert result.decoder == "nvjpeg"
    assert len(fake.calls) == 1
    assert name == "smooth" or not torch.equal(result.image, torch.from_numpy(decode(file).image).permute(2, 0, 1))


def test_difference():
    image = picture(0, 50, 70)
    assert difference(image, image) == 0
    assert difference(image // 2 + 40, image // 2) == pytest.approx(40, abs=0.1)
    assert difference(image[..., :1] // 2 + 40, image[..., :1] // 2) == pytest.approx(40, abs=0.1)
    lost = image.copy()
    lost[25:] = 128
    assert difference(lost, image) == pytest.approx(difference(lost[25:], image[25:]) / 2, rel=0.2)
    assert difference(np.uint8([[[0, 0, 255]]]), np.uint8([[[0, 0, 0]]])) == 85
    assert difference(picture(1, 50, 70), image) > TOLERANCE
    grain = np.kron(np.ones((8, 16, 3), np.uint8), np.uint8([[0, 60], [60, 0]])[..., None])
    assert difference(grain, np.full_like(grain, 30)) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_on_cuda(channels):
    cuda = torch.device("cuda")
    files = [*NVJPEGS.values(), *OPENCVS.values(), *(inserted(NVJPEGS["4:4:4"], exif(n)) for n in range(1, 9))]
    nvjpeg = Nvjpeg(library(cuda, channels), cuda, channels)
    results = run(Decoder(cuda, channels=channels, max_pixels=BIG, nvjpeg=nvjpeg, checked_1_in=1), files)
    for result, file in zip(results, files, strict=True):
        wanted = expected(file, channels)
        if isinstance(wanted, Failure):
            assert result == wanted
        else:
            assert result.image.device.type == "cuda"
            assert difference(np.ascontiguousarray(result.image.permute(1, 2, 0).cpu().numpy()), wanted.image) < 2
