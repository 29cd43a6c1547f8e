"""Files rendered in batches are what they are alone; whatever fails costs one file."""

import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cache_store.canonical import digest_of
from preprocess import augment
from preprocess.errors import SourceError, UsageError
from preprocess.jobs import Failure
from preprocess.render import DECODERS, File, Finished, Rendered, Renderer, Stored
from preprocess.rendering import NVJPEG, TORCH, Rendering
from preprocess.torch_engine import renderer as module
from preprocess.torch_engine.nvjpeg import Nvjpeg
from preprocess.torch_engine.renderer import TorchRenderer
from tests.helpers import picture
from tests.jpegs import OPENCVS, FakeNvjpeg, exif, gray_jpeg, inserted, jpeg

CPU = torch.device("cpu")
RESIZE = {"Resize": {"height": 12, "width": 10}}
CROP = {"RandomResizedCrop": {"size": [12, 10]}}
MIXED = (
    CROP,
    {"HorizontalFlip": {"p": 0.5}},
    {"OneOf": {"transforms": [{"ColorJitter": {"p": 1}}, {"GaussianBlur": {"p": 1}}], "p": 0.8}},
)


def rendering(*transforms, **changes):
    given = tuple(augment.resolve(list(transforms), "here")[0])
    return replace(Rendering((12, 10), "rgb", "uint8", given, 0, False, TORCH, ""), **changes)


def png(seed, height=24, width=32):
    return cv2.imencode(".png", picture(seed, height, width))[1].tobytes()


def files_of(encoded, variants=(0, 1)):
    """Files by place; `variants` the same for all, or a list of them."""
    each = variants if isinstance(variants, list) else [variants] * len(encoded)
    return [File(place, lambda data=data: data, digest_of(data), each[place]) for place, data in enumerate(encoded)]


def unreadable(place):
    def read():
        raise SourceError("read", "gone")

    return File(place, read, bytes(16), (0,))


def outcome(renderer, files, begun=None):
    """place -> {variant: bytes}, and place -> its end; each file ends once, and nothing comes of it afterwards."""
    images, ends = {}, {}
    for result in renderer.render(files, (begun if begun is not None else []).append):
        assert result.place not in ends
        if isinstance(result, Rendered):
            assert result.planes.shape == renderer.rendering.shape
            assert result.planes.dtype == np.uint8
            images.setdefault(result.place, {})[result.variant] = result.planes.tobytes()
        else:
            assert isinstance(result, Finished)
            ends[result.place] = (result.error.stage, result.error.reason) if result.error else result.notes
    assert sorted(ends) == sorted(file.place for file in files)
    return images, ends


@pytest.fixture
def encoded():
    sizes = [(24, 32), (1, 1), (100, 20), (7, 90), (24, 32), (64, 64), (3, 3)]
    return [png(seed, *hw) for seed, hw in enumerate(sizes)]


@pytest.fixture
def decodes(monkeypatch):
    """How many files each decoded batch has, as it comes."""
    counts = []
    real = module.Decoder.__call__

    def counted(self, files, *rest):
        counts.append(len(files))
        return real(self, files, *rest)

    monkeypatch.setattr(module.Decoder, "__call__", counted)
    return counts


@pytest.fixture
def short_of_memory(monkeypatch):
    """Lets the device hold a number of images; notes how many each run was asked for."""
    asked = []

    def hold(most):
        real = module.run

        def run(images, programs):
            asked.append(len(programs))
            if len(programs) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(images, programs)

        monkeypatch.setattr(module, "run", run)
        return asked

    return hold


# Pixels


@pytest.mark.parametrize("changes", [{}, {"channels": "gray"}, {"seed": 5}], ids=str)
def test_all_is_as_the_other_engine_has_it(encoded, changes):
    wanted = rendering(*MIXED, **changes)
    files = files_of(encoded, (0, 1, 2))
    assert outcome(TorchRenderer(wanted), files) == outcome(Renderer(wanted), files)


def test_a_file_alone_is_what_it_is_in_a_batch(encoded):
    renderer = TorchRenderer(rendering(*MIXED))
    images, _ = outcome(renderer, files_of(encoded))
    for place, data in enumerate(encoded):
        for variant in (0, 1):
            pixels = renderer.pixels(renderer.decode(data).image, digest_of(data), variant)
            assert pixels.flags.c_contiguous
            assert pixels.transpose(2, 0, 1).tobytes() == images[place][variant]


@pytest.mark.parametrize("batch_files", [1, 2, 3, 64])
@pytest.mark.parametrize("batch_pixels", [1, 2000, 64_000_000])
def test_the_bounds_of_a_batch_change_no_bit(encoded, monkeypatch, batch_files, batch_pixels):
    files = files_of(encoded)
    expected = outcome(TorchRenderer(rendering(*MIXED)), files)
    monkeypatch.setattr(module, "BATCH_FILES", batch_files)
    monkeypatch.setattr(module, "BATCH_PIXELS", batch_pixels)
    assert outcome(TorchRenderer(rendering(*MIXED)), files) == expected


def test_batches_have_so_many_files_and_no_more(encoded, decodes, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 3)
    outcome(TorchRenderer(rendering(RESIZE)), files_of(encoded))
    assert decodes == [3, 3, 1]


def test_batches_are_bounded_by_the_pixels_that_they_take_with_their_padding(decodes, monkeypatch):
    monkeypatch.setattr(module, "BATCH_PIXELS", 4000)
    tall, wide = png(0, 100, 10), png(1, 10, 100)
    assert len(outcome(TorchRenderer(rendering(RESIZE)), files_of([tall, tall, tall, tall, wide, wide]))[0]) == 6
    assert decodes == [4, 2]  # a wide one among the tall would make all of them 100 x 100


def test_an_image_larger_than_a_batch_goes_alone(decodes, monkeypatch):
    monkeypatch.setattr(module, "BATCH_PIXELS", 2000)
    images, _ = outcome(TorchRenderer(rendering(RESIZE)), files_of([png(0), png(1), png(2, 100, 100), png(3), png(4)]))
    assert len(images) == 5
    assert decodes == [2, 1, 2]


def test_a_file_of_unknown_size_goes_alone(decodes):
    outcome(TorchRenderer(rendering(RESIZE)), files_of([png(0), b"no image", png(1)]))
    assert decodes == [1, 1, 1]


def test_each_file_gets_the_variants_that_it_asks_for(encoded):
    variants = [(0,), (3, 1), (), (2,), (0, 1, 2, 3), (7,), (0,)]
    renderer = TorchRenderer(rendering(*MIXED))
    images, ends = outcome(renderer, files_of(encoded, variants))
    everything, _ = outcome(renderer, files_of(encoded, tuple(range(8))))
    assert {place: tuple(found) for place, found in images.items()} == {
        place: given for place, given in enumerate(variants) if given
    }
    for place, found in images.items():
        assert found == {variant: everything[place][variant] for variant in found}
    assert len(ends) == len(encoded)


def test_pixels_are_taken_as_an_array_that_stays_as_it_is():
    image = np.ascontiguousarray(picture(0)[..., ::-1])
    image.flags.writeable = False
    before = image.copy()
    for channels in (3, 1):
        given = np.ascontiguousarray(image[..., :channels])
        given.flags.writeable = False
        wanted = rendering(*MIXED[:2], channels="rgb" if channels == 3 else "gray")
        found = TorchRenderer(wanted).pixels(given, bytes(16), 1)
        np.testing.assert_array_equal(found, Renderer(wanted).pixels(given, bytes(16), 1))
    np.testing.assert_array_equal(image, before)


def test_no_transforms_give_the_decoded_image():
    data = png(0, 12, 10)
    images, _ = outcome(TorchRenderer(rendering()), files_of([data, png(1, 12, 10)], (0,)))
    assert images[0][0] == cv2.cvtColor(picture(0, 12, 10), cv2.COLOR_BGR2RGB).transpose(2, 0, 1).tobytes()


def test_what_is_recorded_of_a_file(encoded):
    turned = inserted(jpeg(0, 40, 56), exif(6))
    alpha = cv2.imencode(".png", cv2.cvtColor(picture(0), cv2.COLOR_BGR2BGRA))[1].tobytes()
    files = files_of([turned, alpha], (0,))
    found = {r.place: (r.source_hw, DECODERS[r.decoder]) for r in renders(TorchRenderer(rendering(RESIZE)), files)}
    assert found == {0: ((56, 40), "opencv"), 1: ((24, 32), "opencv")}
    assert outcome(TorchRenderer(rendering(RESIZE)), files)[1] == {0: (), 1: ("alpha",)}


def renders(renderer, files):
    return [result for result in renderer.render(files, lambda place: None) if isinstance(result, Rendered)]


def test_the_decoder_of_each_file_is_recorded():
    fake = FakeNvjpeg()
    renderer = TorchRenderer(rendering(RESIZE), device=CPU, nvjpeg=Nvjpeg(fake, CPU))
    files = files_of([png(0), jpeg(1), OPENCVS["progressive"], gray_jpeg(2)], (0, 1))
    found = {r.place: DECODERS[r.decoder] for r in renders(renderer, files)}
    assert found == {0: "opencv", 1: "nvjpeg", 2: "opencv", 3: "nvjpeg"}
    assert len(fake.decoded) == 2


# Failures


def test_files_that_cannot_be_decoded_cost_only_themselves(encoded):
    sound, _ = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    spoilt = [OPENCVS[name] for name in ("12 bits", "cut", "huge", "text", "empty")]
    files = files_of([*encoded[:3], *spoilt, *encoded[3:]])
    images, ends = outcome(TorchRenderer(rendering(*MIXED)), files)
    assert [found for _, found in sorted(images.items())] == [sound[place] for place in range(len(encoded))]
    assert ends == outcome(Renderer(rendering(*MIXED)), files)[1]
    assert [ends[place][0] for place in range(3, 8)] == ["decode"] * 5


def test_files_that_cannot_be_read_cost_only_themselves(encoded):
    files = files_of(encoded[:2])
    images, ends = outcome(TorchRenderer(rendering(RESIZE)), [unreadable(8), files[0], unreadable(9), files[1]])
    assert ends == {8: ("read", "gone"), 9: ("read", "gone"), 0: (), 1: ()}
    assert sorted(images) == [0, 1]


def test_nothing_but_failures_is_fine():
    _, ends = outcome(TorchRenderer(rendering(RESIZE)), [unreadable(0), *files_of([b"", b"no image"])[1:]])
    assert [ends[place][0] for place in (0, 1)] == ["read", "decode"]
    assert outcome(TorchRenderer(rendering(RESIZE)), []) == ({}, {})


def test_an_image_that_a_transform_refuses_costs_only_itself(encoded):
    crop = rendering({"RandomCrop": {"height": 12, "width": 10}})
    files = files_of(encoded)
    images, ends = outcome(TorchRenderer(crop), files)
    assert sorted(images) == [0, 2, 4, 5]
    assert ends[1][0] == "render"
    assert "CropSizeError" in ends[1][1]
    assert (images, ends) == outcome(Renderer(crop), files)


def test_of_an_image_that_is_refused_at_a_later_variant_nothing_more_comes():
    sometimes = {"OneOf": {"transforms": [RESIZE, {"RandomCrop": {"height": 12, "width": 10, "p": 1}}], "p": 1}}
    files = files_of([png(seed, 11, 40) for seed in range(6)], tuple(range(4)))
    images, ends = outcome(TorchRenderer(rendering(sometimes)), files)
    assert ends == outcome(Renderer(rendering(sometimes)), files)[1]
    assert any(end and 0 < len(images.get(place, {})) < 4 for place, end in ends.items())


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        ({"Resize": {"height": 12, "width": 11}}, "uint8 (12, 11, 3)"),
        ({"SmallestMaxSize": {"max_size": 10}}, "uint8 (10, 13, 3)"),
        ({"PadIfNeeded": {"min_height": 30, "min_width": 10}}, "uint8 (30, 32, 3)"),
        ({"Affine": {"rotate": (45, 45), "fit_output": True, "p": 1}}, "uint8"),
        ({"NoOp": {}}, "uint8 (24, 32, 3)"),
    ],
    ids=str,
)
def test_a_result_of_another_size_is_refused_in_the_same_words(transform, found):
    _, ends = outcome(TorchRenderer(rendering(transform)), files_of([png(0)], (0,)))
    stage, reason = ends[0]
    assert stage == "render"
    assert reason.startswith(f"uint8 (12, 10, 3) expected, the transforms gave {found}")
    assert ends == outcome(Renderer(rendering(transform)), files_of([png(0)], (0,)))[1]


def test_one_image_says_why_it_cannot_be_had():
    renderer = TorchRenderer(rendering({"CenterCrop": {"height": 12, "width": 10}}))
    with pytest.raises(SourceError, match="decode: "):
        renderer.decode(b"no image")
    with pytest.raises(SourceError, match="render: CropSizeError"):
        renderer.pixels(renderer.decode(png(0, 5, 5)).image, bytes(16), 0)


def test_where_memory_is_short_a_batch_is_halved(encoded, short_of_memory):
    expected = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    asked = short_of_memory(2)
    assert outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded)) == expected
    assert asked == [7, 3, 1, 2, 4, 2, 2] * 2


def test_an_image_too_large_for_the_memory_is_a_failure(encoded, short_of_memory):
    short_of_memory(0)
    images, ends = outcome(TorchRenderer(rendering(RESIZE)), files_of(encoded[:3]))
    assert images == {}
    assert set(ends.values()) == {("memory", "not enough memory on the device to render it")}


def test_memory_that_is_short_for_the_decoded_images_halves_the_batch(encoded, decodes, monkeypatch):
    expected = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    real = module.Images.of

    def at_most_two(images):
        if len(images) > 2 or any(image.shape[1] == 100 for image in images):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(images)

    monkeypatch.setattr(module.Images, "of", at_most_two)
    decodes.clear()
    images, ends = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    assert decodes == [7, 3, 1, 2, 1, 1, 4]  # the last four are alike two by two
    assert ends.pop(2) == ("memory", "not enough memory on the device to decode it")
    assert images == {place: found for place, found in expected[0].items() if place != 2}


def test_decoders_that_lack_memory_for_a_batch_get_smaller_ones(encoded, decodes, monkeypatch):
    """nvJPEG says so file by file: those that it had no room for are no worse than the others."""
    expected = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    counted = module.Decoder.__call__

    def at_most_three(self, files, *rest):
        results = counted(self, files, *rest)
        return [*results[:3], *(Failure("memory", "not enough GPU memory to decode it") for _ in results[3:])]

    monkeypatch.setattr(module.Decoder, "__call__", at_most_three)
    decodes.clear()
    assert outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded)) == expected
    assert decodes == [7, 3, 4, 2, 2]


def test_a_lost_device_is_no_images_failure(encoded, monkeypatch):
    """Each of its calls fails: halves of the batch would, too, and every image would be listed."""
    calls = []

    def run(batches, programs):
        calls.append(len(programs))
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "is_lost", lambda device: True)
    renderer = TorchRenderer(rendering(*MIXED))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        outcome(renderer, files_of(encoded))
    assert calls == [7]
    assert renderer.is_lost()


def test_an_image_that_breaks_its_run_is_listed_and_the_rest_rendered(encoded, monkeypatch):
    expected, _ = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    real = module.run

    def run(batches, programs):
        if any((batch.sizes == [100, 20]).all(axis=1).any() for batch in batches):
            raise RuntimeError("kernel\nof our own")
        return real(batches, programs)

    monkeypatch.setattr(module, "run", run)
    images, ends = outcome(TorchRenderer(rendering(*MIXED)), files_of(encoded))
    assert ends.pop(2) == ("render", "RuntimeError: kernel of our own")
    assert set(ends.values()) == {()}
    assert images == {place: found for place, found in expected.items() if place != 2}


# What is in hand


def test_the_file_in_hand_is_told(encoded, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 2)
    begun = []
    outcome(TorchRenderer(rendering(RESIZE)), files_of(encoded[:3], (0, 1)), begun)
    # both of the first batch are read, and the next file, with which it is full; then it is decoded and rendered twice
    assert begun == [0, 1, 2, *(0, 0, 1, 1, 1), *(2, 2, 2, 2)]  # the smaller one comes first


def test_an_engine_whose_decoder_is_not_here_is_refused_before_any_file(monkeypatch):
    def none(device, channels):
        raise UsageError(f"no JPEG decoder for {device}")

    monkeypatch.setattr(module, "library", none)
    with pytest.raises(UsageError, match="no JPEG decoder for cpu"):
        TorchRenderer(rendering(RESIZE, engine=NVJPEG), device=CPU)


# What is stored


def stored(renderer, files):
    """(place, variant) -> bytes, type and sums of the chunk, and place -> its end; each chunk is released at once."""
    chunks, ends = {}, {}
    for result in renderer.stored(files, lambda place: None):
        if isinstance(result, Stored):
            chunk = result.fetch()
            about = chunk.total, chunk.total_of_squares, result.source_hw, result.decoder
            chunks[result.place, result.variant] = chunk.tensor.tobytes(), chunk.tensor.dtype, *about
            result.release()
        else:
            ends[result.place] = (result.error.stage, result.error.reason) if result.error else result.notes
    return chunks, ends


@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_chunks_are_what_the_other_engine_stores(encoded, channels, dtype):
    statistics = ((0.4,) * 3, (0.2,) * 3) if channels == "rgb" else ((0.4,), (0.2,))
    wanted = rendering(*MIXED[:2], channels=channels, dtype=dtype).with_statistics(statistics)
    files = [*files_of([*encoded, b"no image"]), unreadable(20)]
    found = stored(TorchRenderer(wanted), files)
    assert found == stored(Renderer(wanted), files)
    assert len(found[0]) == 2 * len(encoded)
    assert {chunk[1] for chunk in found[0].values()} == {np.dtype(dtype)}


def test_a_pause_ends_a_batch_and_changes_no_bit(encoded, decodes):
    wanted = rendering(*MIXED)
    files = files_of(encoded)
    expected = stored(TorchRenderer(wanted), files)
    paused = [None, *files[:3], None, None, *files[3:], None]
    decodes.clear()
    assert stored(TorchRenderer(wanted), paused) == expected
    assert decodes == [3, 4]
    assert stored(Renderer(wanted), paused) == stored(Renderer(wanted), files)


def test_chunks_stay_valid_until_they_are_released(encoded, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 3)
    wanted = rendering(*MIXED)
    expected, _ = stored(TorchRenderer(wanted), files_of(encoded, (0,)))
    results = [
        r for r in TorchRenderer(wanted).stored(files_of(encoded, (0,)), lambda p: None) if isinstance(r, Stored)
    ]
    assert {(r.place, r.variant): r.fetch().tensor.tobytes() for r in results} == {
        key: chunk[0] for key, chunk in expected.items()
    }


def test_memory_that_is_short_for_what_is_stored_halves_the_batch(encoded, monkeypatch):
    wanted = rendering(*MIXED)
    expected = stored(TorchRenderer(wanted), files_of(encoded))
    real, asked = module.Finisher.__call__, []

    def at_most_one(self, planes):
        asked.append(len(planes))
        if len(planes) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, planes)

    monkeypatch.setattr(module.Finisher, "__call__", at_most_one)
    assert stored(TorchRenderer(wanted), files_of(encoded)) == expected  # more batches at a time than there are buffers
    assert asked.count(1) == 2 * len(encoded)


@pytest.mark.parametrize(
    "error", ["CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'", "CUDA out of memory"]
)
def test_memory_that_cannot_be_pinned_halves_the_batch_and_is_never_an_images_fault(encoded, monkeypatch, error):
    wanted = rendering(*MIXED)
    expected = stored(TorchRenderer(wanted), files_of(encoded))
    real, most = module.Staging._buffer, 2000

    def buffer(self, least_bytes):
        if least_bytes > most:
            raise RuntimeError(error)
        return real(self, least_bytes)

    monkeypatch.setattr(module.Staging, "_buffer", buffer)
    assert stored(TorchRenderer(wanted), files_of(encoded)) == expected
    most = 0
    chunks, ends = stored(TorchRenderer(wanted), files_of(encoded))
    assert chunks == {}
    assert set(ends.values()) == {("memory", "not enough memory to render it")}


@pytest.fixture
def two_batches(encoded, monkeypatch):
    """What is stored of two batches, nothing of it fetched before the end: in memory are then, by a name for each, the
    tensors that the first one was copied from."""
    monkeypatch.setattr(module, "BATCH_FILES", 4)
    held, real = [], module.Finisher.__call__

    def finish(self, planes):
        finished = real(self, planes)
        held.extend(map(weakref.ref, finished))
        return finished

    def store():
        renderer, files = TorchRenderer(rendering(*MIXED)), files_of(encoded, (0,))
        results = list(renderer.stored(files, lambda place: None))
        assert not [r.error for r in results if isinstance(r, Finished) and r.error]
        return {r.place: r.fetch().tensor.tobytes() for r in results if isinstance(r, Stored)}

    def in_use():
        return sum(tensor() is not None for tensor in held)

    monkeypatch.setattr(module.Finisher, "__call__", finish)
    return store, in_use


def test_memory_of_copies_that_are_over_is_given_up_before_a_batch_is_halved(two_batches, monkeypatch):
    store, in_use = two_batches
    expected = store()
    real, asked = module.run, []

    def run(batches, programs):
        asked.append((len(programs), in_use()))
        if in_use():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batches, programs)

    monkeypatch.setattr(module, "run", run)
    assert store() == expected
    assert asked == [(4, 0), (3, 2), (3, 0)]


def test_that_memory_is_given_up_for_decoding_too(two_batches, decodes, monkeypatch):
    store, in_use = two_batches
    expected = store()
    real = module.batched

    def batch(images):
        if in_use():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(images)

    monkeypatch.setattr(module, "batched", batch)
    decodes.clear()
    assert store() == expected
    assert decodes == [4, 3, 3]


@pytest.mark.parametrize(("chunk_bytes", "files"), [(8 << 20, 32), (256 << 20, 1), (1 << 30, 1)])
def test_batches_are_bounded_by_what_is_stored_of_them(monkeypatch, chunk_bytes, files):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 << 30, 80 << 30))
    assert module.limits(torch.device("cuda:0"), chunk_bytes)[0] == module.limits(CPU, chunk_bytes)[0] == files


@pytest.mark.parametrize(("dtype", "batches"), [("uint8", [4, 3]), ("float16", [2, 2, 2, 1])])
def test_large_tensors_make_small_batches(encoded, decodes, monkeypatch, dtype, batches):
    monkeypatch.setattr(module, "BATCH_BYTES", 4 * 3 * 12 * 10)
    stored(TorchRenderer(rendering(RESIZE, dtype=dtype)), files_of(encoded, (0,)))
    assert decodes == batches


@pytest.mark.parametrize(("free", "pixels"), [(80 << 30, 128_000_000), (2 << 30, 67_108_864), (0, 32_000_000)])
def test_a_gpus_batches_are_bounded_by_its_free_memory(monkeypatch, free, pixels):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    assert module.limits(torch.device("cuda:1"), 3 * 224 * 224) == (512, pixels)
    assert module.limits(CPU, 3 * 224 * 224) == (64, 32_000_000)


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1]), (3, [0, 1, 2, 0])])
def test_workers_share_gpus_out_by_their_numbers(monkeypatch, count, expected):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    devices = [module.own_gpu(number) for number in range(4)]
    assert devices == chosen == [torch.device("cuda", place) for place in expected]
