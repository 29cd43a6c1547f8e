"""A LightningDataModule over a cache, and a training run with it.

    pip install pytorch-lightning
    python examples/lightning_module.py CACHE [--epochs 3]

Lightning knows ShardShuffleSampler for a distributed sampler: it leaves it in place, and tells it every epoch.
A checkpoint holds the place in the epoch, so `trainer.fit(…, ckpt_path=…)` goes on at the next sample.
"""

import argparse
import sys

import torch
from small_network import small_network
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from loaders import CachedDataset, ShardShuffleSampler

try:
    import pytorch_lightning as lightning
except ImportError as error:
    sys.exit(
        f"this example needs Lightning, which cannot be imported ({error}); "
        f"run: {sys.executable} -m pip install pytorch-lightning"
    )


class CacheDataModule(lightning.LightningDataModule):
    """The splits train and val of a cache.

    Parameters
    ----------
    cache : folder of the cache
    batch_size : of each process
    dtype : of the images; None: float16, for `Trainer(precision="16-mixed")`
    """

    def __init__(self, cache: str, batch_size: int = 32, dtype: torch.dtype | None = torch.float32) -> None:
        super().__init__()
        self.cache, self.batch_size, self.dtype = cache, batch_size, dtype
        self.sampler: ShardShuffleSampler | None = None
        self.place: dict = {}

    def setup(self, stage: str) -> None:
        self.train = CachedDataset(self.cache, split="train", dtype=self.dtype)
        self.val = CachedDataset(self.cache, split="val", dtype=self.dtype)

    def train_dataloader(self) -> DataLoader:
        self.sampler = ShardShuffleSampler(self.train, seed=0)  # order and variant follow the trainer's epoch
        if self.place:
            self.sampler.load_state_dict(self.place)
        # With workers Lightning tells the epoch too late: they are given samples when the iterator is made.
        return DataLoader(self.train, self.batch_size, sampler=self.sampler, num_workers=0)

    def state_dict(self) -> dict:
        """Lightning puts it into each checkpoint."""
        return self.sampler.state_dict() if self.sampler is not None else {}

    def load_state_dict(self, state: dict) -> None:
        self.place = state

    def val_dataloader(self) -> DataLoader:
        sampler = ShardShuffleSampler(self.val, shuffle=False)
        return DataLoader(self.val, self.batch_size, sampler=sampler, num_workers=0)


class Classifier(lightning.LightningModule):
    """The small network with cross entropy."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.network = small_network(channels, classes)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(self.network(images), labels)

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        images, labels = batch
        right = self.network(images).argmax(1) == labels
        self.log("accuracy", right.float().mean(), batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    lightning.seed_everything(0)
    data = CacheDataModule(args.cache)
    data.setup("fit")
    model = Classifier(data.train[0][0].shape[0], len(data.train.classes))
    trainer = lightning.Trainer(max_epochs=args.epochs, logger=False, enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    print(f"accuracy on val {trainer.callback_metrics['accuracy'].item():.1%}")


if __name__ == "__main__":
    main()
