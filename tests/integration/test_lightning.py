"""Lightning goes on in the middle of an epoch, batch by batch, with torchdata's loader and with a plain one."""

import contextlib
import logging
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from cache_store.errors import UsageError
from loaders import CachedDataset, ShardShuffleSampler
from preprocess import build
from tests.helpers import TINY, image_folder
from tests.unit.loaders.test_sampler import Numbered

lightning = pytest.importorskip("pytorch_lightning")
StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
DistributedSamplerWrapper = pytest.importorskip("lightning_fabric.utilities.distributed").DistributedSamplerWrapper

COUNT, EPOCHS = 60, 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    root = tmp_path_factory.mktemp("lightning")
    image_folder(root / "photos", count=COUNT // 2)
    build(root / "photos", root / "cache", TINY, workers=1, shard_mib=4 * 384 / (1 << 20))
    return root / "cache"


class Data(lightning.LightningDataModule):
    """With a plain DataLoader the module keeps the sampler's place, as examples/lightning_module.py does."""

    def __init__(self, cache, kind, batch, **options):
        super().__init__()
        self.dataset, self.kind, self.batch, self.options = Numbered(cache), kind, batch, options
        self.place = None

    def train_dataloader(self):
        self.sampler = ShardShuffleSampler(self.dataset, seed=5)
        if self.place is not None:
            self.sampler.load_state_dict(self.place)
        elif self.options:  # workers are given samples before Lightning calls set_epoch
            self.sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return self.kind(self.dataset, self.batch, sampler=self.sampler, **self.options)

    def state_dict(self):
        return self.sampler.state_dict() if self.kind is DataLoader else {}

    def load_state_dict(self, state):
        self.place = state or None


class Seeing(lightning.LightningModule):
    """Notes epochs and samples; saves and stops after so many steps of all runs, or at the end of an epoch."""

    def __init__(self, stop, path):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.stop, self.path = stop, path
        self.seen = []
        self.lasts = []

    def training_step(self, batch, _):
        self.seen += [(self.current_epoch, number) for number in batch[1].tolist()]
        return self.layer(torch.ones(1, 1)).sum()

    def save_and_stop(self):
        self.trainer.save_checkpoint(self.path)
        raise KeyboardInterrupt

    def on_train_batch_end(self, *_):
        if self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.lasts.append(self.global_step)
        if self.global_step == self.stop:
            self.save_and_stop()

    def on_train_epoch_end(self):
        if self.stop == "end":
            self.save_and_stop()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        if self.trainer.datamodule.kind is StatefulDataLoader:
            return optimizer  # Lightning forgets that loader's state where somebody asks for the number of steps
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, self.trainer.estimated_stepping_batches)
        return [optimizer], [{"scheduler": self.schedule, "interval": "step"}]


def train(data, stop, resume_from, path):
    model = Seeing(stop, path)
    quiet = dict.fromkeys("logger enable_checkpointing enable_progress_bar enable_model_summary".split(), False)
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", **quiet)
    with warnings.catch_warnings(action="ignore"):
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            trainer.fit(model, datamodule=data, ckpt_path=resume_from, weights_only=False)
    return model


def all_runs(cache, folder, stops, *arguments, **options):
    """Samples of all runs, each going on from the one before, and the steps that Lightning took for an epoch's last."""
    seen, lasts, before = [], [], None
    for number, stop in enumerate((*stops, None)):
        path = Path(folder) / f"{number}.ckpt"
        model = train(Data(cache, *arguments, **options), stop, before, path)
        seen, lasts, before = seen + model.seen, lasts + model.lasts, path
        if hasattr(model, "schedule"):
            assert model.schedule.total_steps == EPOCHS * 10  # before and after a stop
    return seen, lasts


def whole_epochs(cache, length=COUNT):
    """What a run sees that never stopped."""
    sampler = ShardShuffleSampler(CachedDataset(cache), seed=5)
    seen = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        seen += [(epoch, number) for number in list(sampler)[:length]]
    return seen


@pytest.mark.parametrize("stops", [(4,), (2, 13), (10,), ("end",)], ids=str)
@pytest.mark.parametrize("kind", [StatefulDataLoader, DataLoader])
def test_stopped_runs_together_see_what_one_would(cache, tmp_path, kind, stops):
    seen, lasts = all_runs(cache, tmp_path, stops, kind, 6)

    assert seen == whole_epochs(cache)
    assert lasts == [10, 20, 30]


@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_that_do_not_divide_the_epoch(cache, tmp_path, drop_last):
    seen, lasts = all_runs(cache, tmp_path, (4, 11), StatefulDataLoader, 7, drop_last=drop_last)

    assert seen == whole_epochs(cache, 56 if drop_last else 60)
    assert lasts == ([8, 16, 24] if drop_last else [9, 18, 27])


@pytest.mark.parametrize(
    ("kind", "stops"), [(StatefulDataLoader, (2, 13)), (StatefulDataLoader, ("end",)), (DataLoader, (13,))], ids=str
)
def test_batches_that_workers_have_fetched_ahead(cache, tmp_path, kind, stops):
    seen, _ = all_runs(cache, tmp_path, stops, kind, 6, num_workers=2, persistent_workers=True)

    assert seen == whole_epochs(cache)


def test_lightnings_wrapper_of_samplers_cannot_share_a_share(cache):
    """Lightning puts it around samplers that are no DistributedSampler; by hand it goes around any."""
    dataset = Numbered(cache)
    shares = [list(DistributedSamplerWrapper(ShardShuffleSampler(dataset), 2, rank)) for rank in range(2)]

    assert sorted(shares[0] + shares[1]) == list(range(COUNT))
    with pytest.raises(UsageError, match="a share of a share"):
        list(DistributedSamplerWrapper(ShardShuffleSampler(dataset, 2, 1), 2, 1))
