"""DDP under torchrun: two processes stop in the middle of an epoch, one goes on."""

from collections import Counter
from pathlib import Path

from tests.examples.conftest import run


def trained(folder: Path) -> list[tuple[str, int, int]]:
    """(rank, epoch, sample) of all that was trained on, rank by rank."""
    return [
        (path.stem, *map(int, line.split()))
        for path in sorted(folder.iterdir())
        for line in path.read_text().splitlines()
    ]


def test_each_sample_of_the_epoch_is_trained_once_in_all(cache, tmp_path):
    def train(processes, *options):
        folder = tmp_path / " ".join([f"by {processes}", *options])
        folder.mkdir()
        launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes)
        example = ("examples/train_ddp.py", cache, "--checkpoint", tmp_path / "run.pt", "--batch-size", "4")
        done = run(*launch, *example, "--write-samples", folder, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout, trained(folder)

    _, before = train(2, "--stop-after", "3")
    assert Counter(rank for rank, _, _ in before) == {"rank-0": 12, "rank-1": 12}
    said, after = train(1, "--epochs", "1")
    assert "goes on in epoch 0 at sample 24" in said
    said, last = train(1, "--epochs", "2")
    assert "goes on in epoch 0 at sample 40" in said
    samples = Counter((epoch, sample) for _, epoch, sample in before + after + last)
    assert samples == {(epoch, sample): 1 for epoch in range(2) for sample in range(40)}
