"""CachedDataset under a plain DataLoader: shape and type, variants, workers, pickling, and what goes wrong."""

import contextlib
import copy
import io
import linecache
import os
import pickle
import re
import resource
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split
from torchvision.transforms import v2

from cache_store import layout
from cache_store.errors import IntegrityError, NotFoundError, UsageError
from cache_store.normalise import normalisation_table
from cache_store.reader import open_cache
from loaders import CachedDataset, ShardShuffleSampler
from loaders.threads import THREADS
from preprocess import Recipe, build
from tests.helpers import TINY, image_folder, write_image

ROOT = Path(__file__).resolve().parents[3]
CROPS = [{"RandomCrop": {"height": 8, "width": 8}}]


def recipe(variants, **changes):
    return {"size": 8, "splits": {"train": {"folder": ".", "variants": variants, "transforms": CROPS}}} | changes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("dataset") / "photos")


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    """Eight images, four variants each."""
    cache = tmp_path_factory.mktemp("dataset") / "cache"
    build(photos, cache, recipe(4), workers=1)
    return cache


@pytest.fixture(scope="module")
def expected(photos, cache):
    """What the recipe makes of each image: [sample][variant] -> tensor."""
    rendered = Recipe.of(cache)
    files = sorted(photos.rglob("*.png"))
    return [[torch.from_numpy(rendered.render(path, "train", k)) for k in range(4)] for path in files]


def variant_of(image, expected):
    """(sample, variant) of a stored tensor."""
    ((found),) = [(i, k) for i, row in enumerate(expected) for k, other in enumerate(row) if torch.equal(image, other)]
    return found


# -- one sample --------------------------------------------------------------------------------------------------------


def test_a_sample_is_what_the_recipe_makes_of_the_file(cache, expected):
    dataset = CachedDataset(cache)
    for variant in range(4):
        dataset.set_epoch(variant)
        for index in range(8):
            image, label = dataset[index]
            assert (image.dtype, tuple(image.shape)) == (torch.float16, (3, 8, 8))
            assert torch.equal(image, expected[index][variant])
            assert type(label) is int
            assert label == index // 4


def test_a_sample_owns_its_memory(cache):
    dataset = CachedDataset(cache, variant=0)
    image, _ = dataset[0]
    before = image.clone()

    image.add_(1)

    assert image.is_contiguous()
    assert torch.equal(dataset[0][0], before)
    dataset.close()
    assert torch.equal(image, before + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_on_request(cache, expected, dtype):
    image, _ = CachedDataset(cache, variant=0, dtype=dtype)[3]

    assert image.dtype == dtype
    assert torch.equal(image, expected[3][0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.bool])
def test_a_type_that_is_not_for_images_is_refused(cache, dtype):
    with pytest.raises(
        UsageError, match=f"dtype: torch.float16, torch.float32 or torch.bfloat16 expected.* found {dtype}"
    ):
        CachedDataset(cache, dtype=dtype)


@pytest.fixture(scope="module")
def bytes_cache(photos, tmp_path_factory):
    """The photos as uint8 and as float16."""
    folder = tmp_path_factory.mktemp("bytes")
    build(photos, folder / "bytes", TINY | {"dtype": "uint8"}, workers=1)
    build(photos, folder / "halves", TINY, workers=1)
    return folder / "bytes", folder / "halves"


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float32, torch.bfloat16])
def test_a_uint8_cache_is_normalised_when_loaded(bytes_cache, dtype):
    """The same values as out of a float16 cache, whatever is kept on disk."""
    bytes_dataset, halves = (CachedDataset(cache, dtype=dtype) for cache in bytes_cache)

    images, _ = next(iter(DataLoader(bytes_dataset, batch_size=8)))

    assert images.dtype == (dtype or torch.float16)
    assert all(torch.equal(image, halves[i][0]) for i, image in enumerate(images))
    assert bytes_dataset.mean == halves.mean
    thawed = pickle.loads(pickle.dumps(bytes_dataset))
    assert torch.equal(thawed[2][0], halves[2][0])


def test_the_pixels_of_a_uint8_cache_as_they_are_on_request(bytes_cache, photos):
    dataset = CachedDataset(bytes_cache[0], dtype=torch.uint8)

    image, _ = dataset[3]

    assert image.dtype == torch.uint8
    rendered = Recipe.of(bytes_cache[0]).render(photos / dataset.samples[3][0], "train")
    np.testing.assert_array_equal(image.numpy(), rendered)
    image.zero_()
    assert dataset[3][0].any()


def test_indices_count_from_the_end_and_end(cache):
    dataset = CachedDataset(cache, variant=0)

    assert torch.equal(dataset[-1][0], dataset[7][0])
    assert torch.equal(dataset[-8][0], dataset[0][0])
    assert torch.equal(dataset[np.int64(3)][0], dataset[3][0])
    assert torch.equal(dataset[torch.tensor(3)][0], dataset[3][0])
    for index in (8, -9, 1000):
        with pytest.raises(IndexError, match=f"{index}"):
            dataset[index]
    assert len(list(iter(dataset))) == 8  # Python's old protocol of iteration ends at the IndexError


def test_it_prints_as_torchvisions_datasets_do(cache):
    dataset = CachedDataset(cache, transform=v2.RandomHorizontalFlip())
    dataset.close()

    assert repr(dataset).splitlines() == [
        "Dataset CachedDataset",
        "    Number of datapoints: 8",
        f"    Root location: {cache}",
        "    Split: train",
        "    Snapshot: 000001",
        "    Variants: 4",
        "    Type: torch.float16",
        "    Transform: RandomHorizontalFlip(p=0.5)",
    ]


@pytest.mark.parametrize(("crop", "shape"), [(None, (3, 8, 8)), (5, (3, 5, 5)), ((4, 6), (3, 4, 6))])
def test_its_shape_is_that_of_its_images(cache, crop, shape):
    dataset = CachedDataset(cache, crop=crop)

    assert dataset.shape == shape == tuple(dataset[0][0].shape)


def test_what_a_training_script_asks_a_dataset(cache, photos):
    dataset = CachedDataset(cache)

    assert len(dataset) == 8
    assert dataset.classes == ["cat", "dog"]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1}
    assert dataset.targets == [0] * 4 + [1] * 4
    assert dataset.samples[5] == ("dog/001.png", 1)
    assert dataset.failures == []
    assert dataset.variants == 4
    assert dataset.snapshot_id == "000001"
    with open_cache(cache) as opened:
        assert dataset.mean == list(opened.split("train").mean)
        assert dataset.std == list(opened.split("train").std)


def test_transforms_are_applied_last(cache):
    plain = CachedDataset(cache, variant=1)
    dataset = CachedDataset(
        cache, variant=1, transform=lambda image: image * 2, target_transform=lambda label: label + 10
    )

    image, label = dataset[6]

    assert torch.equal(image, plain[6][0] * 2)
    assert label == 11


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_torchvisions_batch_transforms_go_in_as_they_are(cache, expected, name, workers):
    torch.manual_seed(0)
    mix = getattr(v2, name)(num_classes=2, alpha=100.0)  # nearly one half of each: nothing is left as it was
    dataset = CachedDataset(cache, variant=0, dtype=torch.float32, batch_transform=mix)

    batches = list(DataLoader(dataset, batch_size=4, num_workers=workers))

    for number, (images, labels) in enumerate(batches):
        assert images.shape == (4, 3, 8, 8)
        assert labels.shape == (4, 2)
        assert torch.allclose(labels.sum(1), torch.ones(4))
        plain = torch.stack([row[0].float() for row in expected[4 * number : 4 * number + 4]])
        assert not torch.equal(images, plain)
        assert torch.allclose(images.sum(0), plain.sum(0), atol=1e-4) or name == "CutMix"


def test_a_batch_transform_follows_the_others(cache):
    dataset = CachedDataset(
        cache,
        variant=0,
        transform=lambda image: image + 1,
        target_transform=lambda label: label * 10,
        batch_transform=lambda images, labels: (images * 2, labels + 1),
    )
    plain = CachedDataset(cache, variant=0)

    ((images, labels),) = DataLoader(dataset, batch_size=8)
    image, label = dataset[7]

    assert torch.equal(images[7], (plain[7][0] + 1) * 2)
    assert torch.equal(image, images[7])
    assert labels.tolist() == [1] * 4 + [11] * 4
    assert int(label) == 11


def test_transforms_see_the_type_that_was_asked_for(cache):
    seen = []

    CachedDataset(cache, dtype=torch.float32, transform=lambda image: seen.append(image.dtype))[0]

    assert seen == [torch.float32]


# -- variants ----------------------------------------------------------------------------------------------------------


def test_a_fixed_variant(cache, expected):
    dataset = CachedDataset(cache, variant=2)
    dataset.set_epoch(1)

    assert variant_of(dataset[4][0], expected) == (4, 2)


@pytest.mark.parametrize("variant", [-1, 4])
def test_a_variant_that_is_not_there(cache, variant):
    with pytest.raises(NotFoundError, match=f"has variants 0 to 3, there is no {variant}"):
        CachedDataset(cache, variant=variant)


def test_the_epoch_chooses_the_variant_modulo_k(cache, expected):
    dataset = CachedDataset(cache)
    seen = []
    for epoch in range(6):
        dataset.set_epoch(epoch)
        seen.append(variant_of(dataset[2][0], expected))

    assert seen == [(2, 0), (2, 1), (2, 2), (2, 3), (2, 0), (2, 1)]


@pytest.mark.parametrize("epoch", [1.0, 1.7, "1", None, True, 2**63])
def test_an_epoch_that_is_no_integer_is_refused(cache, epoch):
    dataset = CachedDataset(cache)

    for taken in (np.int64(3), torch.tensor(3), 3):
        dataset.set_epoch(taken)
        assert dataset.epoch == 3
    for each in (dataset, ShardShuffleSampler(dataset)):
        with pytest.raises(UsageError, match="epoch: an integer of 0 or more expected"):
            each.set_epoch(epoch)
    assert dataset.epoch == 3


@pytest.mark.parametrize(
    "argument",
    [{"split": ["train"]}, {"split": None}, {"snapshot": 1}, {"variant": "0"}, {"variant": 1.0}, {"variant": True}],
)
def test_arguments_of_another_kind_are_refused(cache, argument):
    with pytest.raises(UsageError, match=f"^{next(iter(argument))}: .* expected, found "):
        CachedDataset(cache, **argument)


def test_extras_of_one_dataset_alone(cache):
    dataset = CachedDataset(cache)
    dataset.extras = lambda indices: (indices * 2,)

    assert dataset[3][2] == 6
    assert next(iter(DataLoader(dataset, batch_size=2)))[2].tolist() == [0, 2]


def test_a_negative_epoch_is_refused(cache):
    with pytest.raises(UsageError, match="epoch: an integer of 0 or more expected, found -2"):
        CachedDataset(cache).set_epoch(-2)


def test_without_an_epoch_variants_are_drawn_from_torchs_generator(cache, expected):
    dataset = CachedDataset(cache)

    def draw():
        torch.manual_seed(5)
        return [variant_of(dataset[i][0], expected) for i in range(8) for _ in range(8)]

    first = draw()

    assert {variant for _, variant in first} == {0, 1, 2, 3}
    assert [sample for sample, _ in first] == [i for i in range(8) for _ in range(8)]
    assert draw() == first


# -- DataLoader --------------------------------------------------------------------------------------------------------


def seen_in(loader, expected):
    """(sample, variant) of every image that a loader gives, with its label."""
    return [
        (*variant_of(image, expected), int(label))
        for images, labels in loader
        for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (1, "spawn"), (2, "forkserver")])
def test_a_plain_dataloader_gives_every_sample_once(cache, expected, workers, context):
    dataset = CachedDataset(cache)
    dataset.set_epoch(3)
    loader = DataLoader(dataset, batch_size=3, shuffle=True, num_workers=workers, multiprocessing_context=context)

    seen = seen_in(loader, expected)

    assert sorted(seen) == [(i, 3, i // 4) for i in range(8)]
    assert len(loader) == 3


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_persistent_workers_see_the_epoch_change(cache, expected, context):
    """They have had the dataset since the first epoch; in four epochs each image shows its four variants."""
    dataset = CachedDataset(cache)
    loader = DataLoader(
        dataset,
        batch_size=4,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=context,
        prefetch_factor=2,
    )
    seen = []
    for epoch in range(5):
        dataset.set_epoch(epoch)
        seen.append(sorted(seen_in(loader, expected)))

    assert seen == [[(i, epoch % 4, i // 4) for i in range(8)] for epoch in range(5)]


def saved_and_loaded(dataset):
    file = io.BytesIO()
    torch.save(dataset, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset)), saved_and_loaded]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_shares_epochs_and_workers_with_its_own_workers_only(cache, expected, copied):
    original = CachedDataset(cache)
    original.set_epoch(1)
    original._shared._values[5] = os.getpid()  # a worker that lives
    dataset = copied(original)
    loader = DataLoader(
        dataset, batch_size=8, num_workers=1, persistent_workers=True, multiprocessing_context="fork", prefetch_factor=1
    )

    assert dataset._shared.living_workers() == []
    for epoch in (None, 2, 3):
        if epoch is not None:
            dataset.set_epoch(epoch)
        assert {variant for _, variant, _ in seen_in(loader, expected)} == {epoch or 1}
    assert len(dataset._shared.living_workers()) == 1
    assert original._shared.living_workers() == [os.getpid()]
    assert original.epoch == 1


def test_a_copy_that_a_former_version_pickled_shares_with_its_workers(cache):
    dataset = CachedDataset(cache)
    dataset.set_epoch(3)
    values = torch.zeros(66, dtype=torch.int64)
    values[0] = 3
    values[7] = os.getpid()

    dataset._shared.__setstate__({"_values": values, "_entered": 5})

    assert dataset.epoch == 3
    assert dataset._shared._values.is_shared()
    assert dataset._shared.living_workers() == []


def test_a_dataset_that_was_used_before_the_fork(cache, expected):
    dataset = CachedDataset(cache)
    dataset.set_epoch(1)
    kept = [dataset[i] for i in range(8)]

    seen = seen_in(DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork"), expected)

    assert sorted(seen) == [(i, 1, i // 4) for i in range(8)]
    assert variant_of(kept[7][0], expected) == (7, 1)


def test_a_fork_after_batches_that_threads_copied_into_pooled_memory(cache, expected, monkeypatch):
    """The children have none of the parent's threads, and must not write into its buffers."""
    monkeypatch.setattr("loaders.gather.THREADED_BYTES", 1)
    monkeypatch.setattr(THREADS, "count", 3)
    dataset = CachedDataset(cache)
    dataset.set_epoch(1)
    kept = list(DataLoader(dataset, batch_size=4))
    before = [images.clone() for images, _ in kept]
    del kept[0]  # its buffer is free, the other is in use

    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60)
    seen = seen_in(loader, expected)

    assert sorted(seen) == [(i, 1, i // 4) for i in range(8)]
    assert torch.equal(kept[0][0], before[1])
    assert sorted(seen_in(DataLoader(dataset, batch_size=4), expected)) == sorted(seen)


def test_batches_have_one_type_and_can_be_written_to(cache):
    dataset = CachedDataset(cache, dtype=torch.float32)

    images, labels = next(iter(DataLoader(dataset, batch_size=8)))
    images += 1

    assert (images.dtype, tuple(images.shape)) == (torch.float32, (8, 3, 8, 8))
    assert labels.dtype == torch.int64


def test_subsets_and_concatenations(cache, expected):
    dataset = CachedDataset(cache, variant=0)
    parts = random_split(dataset, [5, 3], torch.Generator().manual_seed(0))

    seen = [seen_in(DataLoader(part, batch_size=2), expected) for part in (*parts, Subset(dataset, [6, 1]))]

    assert sorted(seen[0] + seen[1]) == [(i, 0, i // 4) for i in range(8)]
    assert seen[2] == [(6, 0, 1), (1, 0, 0)]
    assert len(seen_in(DataLoader(ConcatDataset([dataset, dataset]), batch_size=5), expected)) == 16


# -- snapshots and pickling --------------------------------------------------------------------------------------------


def test_a_pickled_dataset_keeps_its_snapshot_after_a_newer_one_was_built(tmp_path):
    photos = image_folder(tmp_path / "photos", count=2)
    build(photos, tmp_path / "cache", TINY, workers=1)
    old = CachedDataset(tmp_path / "cache", dtype=torch.float32)
    before = [old[i][0] for i in range(4)]
    frozen = pickle.dumps(old)
    write_image(photos / "cat" / "000.png", 99)
    write_image(photos / "ant" / "new.png", 98)
    build(photos, tmp_path / "cache", workers=1)

    thawed, new = pickle.loads(frozen), CachedDataset(tmp_path / "cache")
    named = CachedDataset(tmp_path / "cache", snapshot="000001")

    assert (old.snapshot_id, thawed.snapshot_id, new.snapshot_id) == ("000001", "000001", "000002")
    assert [len(dataset) for dataset in (old, thawed, named, new)] == [4, 4, 4, 5]
    assert all(torch.equal(thawed[i][0], before[i]) and torch.equal(old[i][0], before[i]) for i in range(4))
    assert thawed.classes == named.classes == ["cat", "dog"]
    assert new.classes == ["ant", "cat", "dog"]
    assert thawed[0][0].dtype == torch.float32


def test_pickling_is_cheap_and_carries_no_table(cache):
    dataset = CachedDataset(cache)
    dataset[0]

    assert len(pickle.dumps(dataset)) < 3000


def test_a_snapshot_split_or_cache_that_is_not_there(cache, tmp_path):
    with pytest.raises(NotFoundError, match="no snapshot '000009'; there are: 000001"):
        CachedDataset(cache, snapshot="000009")
    with pytest.raises(NotFoundError, match="no split 'val'; there are: train"):
        CachedDataset(cache, split="val")
    with pytest.raises(NotFoundError, match="does not exist"):
        CachedDataset(tmp_path / "nowhere")


# -- closing -----------------------------------------------------------------------------------------------------------


def holds(cache):
    """How many descriptors of this process are open on the snapshot: its leases."""
    lease = os.path.realpath(layout.snapshot_dir(cache, "000001") / layout.METADATA)
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return links.count(lease)


def test_close_gives_up_the_hold_on_the_snapshot_and_the_next_access_takes_it_again(cache):
    before = holds(cache)
    dataset = CachedDataset(cache, variant=0)
    image, _ = dataset[0]
    assert holds(cache) == before + 1

    dataset.close()
    dataset.close()

    assert holds(cache) == before
    assert torch.equal(dataset[0][0], image)
    assert holds(cache) == before + 1
    dataset.close()


def test_a_with_block_closes(cache):
    before = holds(cache)
    with CachedDataset(cache) as dataset:
        dataset[0]
        assert holds(cache) == before + 1

    assert holds(cache) == before


def test_a_refused_dataset_holds_nothing(cache):
    before = holds(cache)
    for arguments in ({"variant": 9}, {"dtype": torch.int8}, {"split": "val"}):
        with pytest.raises((NotFoundError, UsageError)):
            CachedDataset(cache, **arguments)

        assert holds(cache) == before


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_cache(photos, tmp_path):
    build(photos, tmp_path / "cache", TINY, workers=1)
    (shard,) = (tmp_path / "cache").glob("tensors/*/image/c.*")
    return tmp_path / "cache", shard


def test_a_missing_shard_names_sample_and_file(own_cache):
    cache, shard = own_cache
    dataset = CachedDataset(cache)
    shard.unlink()

    with pytest.raises(IntegrityError) as caught:
        dataset[5]

    assert "'dog/001.png' variant 0" in str(caught.value)
    assert str(shard) in str(caught.value)
    assert "No such file" in str(caught.value)


def test_a_cut_shard_names_sample_and_file(own_cache):
    cache, shard = own_cache
    shard.write_bytes(shard.read_bytes()[:-10])

    with pytest.raises(IntegrityError, match=re.escape(str(shard))) as caught:
        CachedDataset(cache)[0]

    assert "'cat/000.png'" in str(caught.value)


def test_a_damaged_table_is_noticed(own_cache):
    cache, _ = own_cache
    label = next(cache.glob("snapshots/000001/train/label/c*"))
    data = bytearray(label.read_bytes())
    data[0] ^= 1
    label.write_bytes(data)

    with pytest.raises(IntegrityError, match="its checksum is wrong"):
        CachedDataset(cache)[0]


def test_errors_of_workers_arrive_whole(own_cache):
    """A DataLoader's worker sends them so, and makes them anew from their class and text alone."""
    cache, shard = own_cache
    dataset = CachedDataset(cache)
    shard.unlink()
    try:
        dataset[0]
    except IntegrityError:
        sent = pickle.dumps(ExceptionWrapper(where="in DataLoader worker process 0"))

    with pytest.raises(IntegrityError, match="'cat/000.png' variant 0"):
        pickle.loads(sent).reraise()


# -- other caches ------------------------------------------------------------------------------------------------------


def test_gray_and_flat(tmp_path):
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", i, 20 + i, 30)
    build(tmp_path / "photos", tmp_path / "cache", TINY | {"channels": "gray"}, workers=1)

    images, labels = next(iter(DataLoader(CachedDataset(tmp_path / "cache"), batch_size=3)))

    assert tuple(images.shape) == (3, 1, 8, 8)
    assert labels.tolist() == [-1, -1, -1]


def test_values_are_pixels_normalised_with_the_mean_and_std_it_names(cache):
    dataset = CachedDataset(cache, variant=0)
    table = normalisation_table(dataset.mean, dataset.std)

    image = dataset[1][0].numpy()

    for channel in range(3):
        assert set(image[channel].reshape(-1).tolist()) <= set(table[channel].tolist())


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_many_shards_with_few_descriptors(tmp_path, io):
    """The usual limit of open files is 1,024, here 256; a map of each shard must not hold one."""
    photos = image_folder(tmp_path / "photos", count=50)
    small = {
        "size": 4,
        "normalize": "imagenet",
        "splits": {"train": {"folder": ".", "variants": 30, "transforms": [{"RandomCrop": {"height": 4, "width": 4}}]}},
    }
    build(photos, tmp_path / "cache", small, workers=1, shard_mib=1e-6)
    assert len(list((tmp_path / "cache").glob("tensors/*/image/c.*"))) == 3000
    code = """
        import sys, zlib
        from loaders import CachedDataset
        dataset, total = CachedDataset(sys.argv[1], io=sys.argv[2]), 0
        for epoch in range(30):
            dataset.set_epoch(epoch)
            for i in range(len(dataset)):
                total = zlib.crc32(dataset[i][0].numpy().tobytes(), total)
        print(total)
    """

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "cache", io],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )

    assert ran.returncode == 0, ran.stderr
    total = 0
    with open_cache(tmp_path / "cache") as opened:
        for k in range(30):
            for i in range(100):
                total = zlib.crc32(opened.image("train", i, k).tobytes(), total)
    assert int(ran.stdout) == total
    rendered = Recipe.of(tmp_path / "cache")
    with CachedDataset(tmp_path / "cache", variant=17) as dataset:
        for index in (0, 21, 99):
            want = rendered.render(photos / dataset.samples[index][0], "train", 17)
            np.testing.assert_array_equal(dataset[index][0].numpy(), want)


# -- settings of the script that reach into libraries ------------------------------------------------------------------


def everything(cache):
    """What the ways into a dataset give, for one state of torch's generator."""
    torch.manual_seed(5)
    found = []
    for options in ({}, {"dtype": torch.float32}, {"dtype": torch.bfloat16}, {"crop": 6, "flip": True}):
        dataset = CachedDataset(cache, **options)
        found += [dataset[3][0], dataset.__getitems__([1, 0, 7]).images, dataset.__getitems__([2, 5]).labels]
    return found


@contextlib.contextmanager
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "setting",
    [
        double_precision,
        lambda: torch.device("meta"),
        torch.inference_mode,
        lambda: np.errstate(all="raise"),
    ],
    ids=["float64", "device", "inference", "errstate"],
)
def test_defaults_that_a_script_has_set_do_not_reach_into_a_dataset(cache, setting):
    wanted = everything(cache)
    with setting():
        found = everything(cache)
    for one, other in zip(wanted, found, strict=True):
        assert other.device.type == "cpu"
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_the_advice_shows_the_line_that_iterates(cache, tmp_path, monkeypatch):
    def show(message, category, filename, lineno, *_):
        (tmp_path / "shown").write_text(f"{linecache.getline(filename, lineno).strip()}\n{message}")

    monkeypatch.setattr("warnings.showwarning", show)  # in the worker, too
    loader = DataLoader(CachedDataset(cache), batch_size=4, num_workers=1, multiprocessing_context="fork")
    list(loader)
    line, text = (tmp_path / "shown").read_text().splitlines()
    assert line == "list(loader)"
    assert text.endswith("use num_workers=0 (decant bench SOURCE CACHE measures it)")


def test_a_cache_in_the_home_folder_may_be_named_by_a_tilde(cache, monkeypatch):
    monkeypatch.setenv("HOME", str(cache.parent))
    assert torch.equal(CachedDataset(f"~/{cache.name}", variant=0)[0][0], CachedDataset(cache, variant=0)[0][0])
