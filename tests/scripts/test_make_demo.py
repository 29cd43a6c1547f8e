"""The demo folder: what is in it, that it comes out the same every time, and that its classes are worth learning."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_demo.py"

spec = importlib.util.spec_from_file_location("make_demo", SCRIPT)
make_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_demo)


def run(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def read(path):
    """A file as OpenCV decodes it: uint8 (height, width, 3), blue, green, red, upright; None if it cannot."""
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "not there yet" / "demo"
    finished = run(folder)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("\n") == 1
    assert "400 pictures" in finished.stdout
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]  # the scratch folder is gone
    return folder


@pytest.fixture(scope="module")
def odd():
    return {picture.odd: picture for picture in make_demo.plan() if picture.odd}


@pytest.fixture(scope="module")
def splits(demo):
    """Both splits at 64 x 64: {split: (uint8 (n, 3, 64, 64), int64 (n,))}, without the cut file."""
    made = {}
    for split in make_demo.PER_CLASS:
        images, labels = [], []
        for label, name in enumerate(make_demo.CLASSES):
            for path in sorted((demo / split / name).iterdir()):
                image = read(path)
                if image is not None:
                    images.append(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA))
                    labels.append(label)
        made[split] = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels)
    return made


def test_counts_and_names(demo):
    files = sorted(path.relative_to(demo).as_posix() for path in demo.rglob("*") if path.is_file())
    assert files == sorted(picture.path for picture in make_demo.plan())
    for split, count in {"train": 80, "val": 20}.items():
        folders = sorted(path for path in (demo / split).iterdir())
        assert [path.name for path in folders] == ["cross", "disc", "ring", "triangle"]
        for folder in folders:
            suffixes = [path.suffix for path in folder.iterdir()]
            assert len(suffixes) == count
            assert set(suffixes) == {".jpg", ".png"}
    assert sum(path.stat().st_size for path in demo.rglob("*.*")) < 40e6


@pytest.mark.parametrize("seed", range(5))
def test_plan(seed):
    pictures = make_demo.plan(seed)
    assert len({picture.path for picture in pictures}) == len({picture.key for picture in pictures}) == 400
    sides = np.array([(picture.width, picture.height) for picture in pictures])
    assert sides.min() == 64
    assert sides.max() == 2000
    assert 100 < (sides[:, 0] > sides[:, 1]).sum() < 300
    assert 250 < np.median(sides.max(axis=1)) < 500
    assert sorted(picture.odd for picture in pictures if picture.odd) == sorted(make_demo.ODD.values())


def test_files_are_as_planned(demo):
    for picture in make_demo.plan():
        with Image.open(demo / picture.path) as image:  # reads the header only
            stored = (picture.width, picture.height)[:: -1 if picture.odd == "rotated" else 1]
            assert image.size == stored
            assert image.format == ("PNG" if picture.path.endswith(".png") else "JPEG")
            assert image.mode == {"grey-jpg": "L", "grey-png": "L", "cmyk": "CMYK"}.get(picture.odd, "RGB")
            assert image.getexif().get(make_demo.EXIF_ORIENTATION, 1) == (6 if picture.odd == "rotated" else 1)


def test_only_the_cut_file_does_not_decode(demo, odd):
    failed = [picture.path for picture in make_demo.plan() if read(demo / picture.path) is None]
    assert failed == [odd["cut"].path]
    with Image.open(demo / odd["cut"].path) as image, pytest.raises(OSError, match="truncated"):
        image.load()


@pytest.mark.parametrize("kind", ["cmyk", "rotated"])
def test_odd_files_show_what_was_drawn(demo, odd, kind):
    drawn = make_demo.draw(odd[kind]).astype(int)
    with Image.open(demo / odd[kind].path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert np.abs(shown - drawn).mean() < 8  # what JPEG loses
    assert np.abs(read(demo / odd[kind].path)[..., ::-1] - drawn).mean() < 8


def test_same_seed_same_bytes(demo):
    # The fixture was drawn by another process, whole and in order; here a few are drawn alone.
    pictures = make_demo.plan()
    for picture in [*pictures[::16], *(picture for picture in pictures if picture.odd)]:
        assert make_demo.encode(picture) == (demo / picture.path).read_bytes(), picture.path


def test_other_seed_other_pictures(demo):
    other = make_demo.plan(1)
    assert [picture.path for picture in other] != [picture.path for picture in make_demo.plan()]
    picture = make_demo.plan()[5]
    assert make_demo.encode(picture._replace(key=other[5].key)) != (demo / picture.path).read_bytes()


def test_finished_demo_is_left_alone(demo):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    finished = run(demo)
    assert finished.returncode == 0
    assert "already there" in finished.stdout
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_foreign_folder_is_refused(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"mine")
    finished = run(photos)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert "photos exists and is not the whole demo of seed 0" in finished.stderr
    assert (photos / "cat.jpg").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.rglob("*")] == ["photos", "cat.jpg"]


def test_demo_of_another_seed_and_plain_file_are_refused(demo, tmp_path):
    with pytest.raises(FileExistsError, match="demo of seed 1"):
        make_demo.make_demo(demo, seed=1)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_demo.make_demo(tmp_path / "file")


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def interrupt(picture):
        drawn.append(picture)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return b"some"

    monkeypatch.setattr(make_demo, "encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_demo.make_demo(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(make_demo, "encode", lambda picture: b"some")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    make_demo.make_demo(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == ["train", "val"]


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        make_demo.main([str(tmp_path / "demo"), "--seed", "-1"])


def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
    )


def fit_cnn(splits, seed, epochs=25):
    """Validation accuracy of a small network on 64 x 64 pictures, flipped and turned at random while it learns."""
    torch.manual_seed(seed)
    images, labels = splits["train"]
    net = nn.Sequential(
        block(3, 16),
        block(16, 32),
        block(32, 64),
        block(64, 64),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    rounds = -(-len(images) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * rounds)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(32):
            batch = torch.rot90(images[chosen].float() / 255, int(torch.randint(4, ())), (2, 3))
            batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(net(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        images, labels = splits["val"]
        return (net(images.float() / 255).argmax(1) == labels).float().mean().item()


def histograms(images):
    """Colour histograms: float32 (n, 512), the share of pixels in each of 8 x 8 x 8 colours."""
    bins = (images.long() // 32 * torch.tensor([64, 8, 1])[:, None, None]).sum(1).flatten(1)
    return torch.stack([row.bincount(minlength=512) for row in bins]) / bins.shape[1]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_small_network_learns_it(splits, one_thread):
    assert fit_cnn(splits, seed=0) >= 0.9


def test_colour_histogram_does_not(splits, one_thread):
    (train, train_labels), (val, val_labels) = splits["train"], splits["val"]
    train, val = histograms(train).sqrt(), histograms(val).sqrt()
    nearest = torch.cdist(val, train).topk(5, largest=False).indices
    votes = nn.functional.one_hot(train_labels[nearest], 4).sum(1)
    assert (votes.argmax(1) == val_labels).float().mean() < 0.6

    torch.manual_seed(0)
    linear = nn.Linear(512, 4)
    optimizer = torch.optim.AdamW(linear.parameters(), 0.01, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(train), train_labels).backward()
        optimizer.step()
    assert (linear(val).argmax(1) == val_labels).float().mean() < 0.6
