"""Training from the cache and training on the fly: the same losses, and a difference is noticed."""

from tests.examples.conftest import run
from tests.helpers import write_image


def test_all_losses_are_the_same_to_the_last_bit(photos, cache):
    done = run("examples/same_losses.py", photos, cache, "--epochs", "2", "--batch-size", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("8 losses from the cache")
    assert done.stdout.endswith("all are the same to the last bit\n")


def test_a_source_that_has_changed_is_noticed(photos, cache, tmp_path):
    other = tmp_path / "photos"
    for path in photos.rglob("train/*/*.*"):
        target = other / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    target.unlink()
    write_image(target, 1)
    done = run("examples/same_losses.py", other, cache, "--epochs", "1", "--batch-size", "10")
    assert done.returncode == 1, done.stderr
    assert "differ" in done.stdout
