"""The LightningDataModule trains under Lightning; without Lightning the example says what to install."""

import re

from tests.examples.conftest import run


def test_a_training_run(cache):
    done = run("examples/lightning_module.py", cache, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^accuracy on val \d+\.\d%$", done.stdout, re.MULTILINE)


def test_lightning_keeps_the_sampler_and_tells_it_the_epoch(cache):
    code = """
import sys; sys.path.insert(0, "examples")
import pytorch_lightning, torch
from lightning_module import CacheDataModule, Classifier
class Watched(Classifier):
    def training_step(self, batch, number):
        print("seen", type(self.trainer.train_dataloader.sampler).__name__, self.trainer.datamodule.train.epoch)
        return super().training_step(batch, number)
options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
pytorch_lightning.Trainer(max_epochs=2, **options).fit(Watched(3, 4), datamodule=CacheDataModule(sys.argv[1], 40))
"""
    done = run("-c", code, cache)
    assert done.returncode == 0, done.stderr
    seen = [line for line in done.stdout.splitlines() if line.startswith("seen")]
    assert seen == ["seen ShardShuffleSampler 0", "seen ShardShuffleSampler 1"]


def test_a_checkpoint_goes_on_at_the_next_sample(cache, tmp_path):
    code = """
import sys; sys.path.insert(0, "examples")
import pytorch_lightning
from lightning_module import CacheDataModule, Classifier
options = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
def save(trainer, *_):
    if trainer.global_step == 2:
        trainer.save_checkpoint(sys.argv[2])
saves = pytorch_lightning.callbacks.LambdaCallback(on_train_batch_end=save)
def fit(checkpoint=None, **limit):
    trainer, data = pytorch_lightning.Trainer(callbacks=saves, **limit, **options), CacheDataModule(sys.argv[1], 8)
    trainer.fit(Classifier(3, 4), datamodule=data, ckpt_path=checkpoint)
    print("trained up to", data.sampler.state_dict()["position"])
fit(max_steps=2)
fit(sys.argv[2], max_epochs=1)
"""
    done = run("-c", code, cache, tmp_path / "run.ckpt")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("trained")] == [
        "trained up to 16",
        "trained up to 40",
    ]


def test_without_lightning_it_says_what_to_install(cache):
    code = """
import runpy, sys
sys.modules["pytorch_lightning"] = None
sys.path.insert(0, "examples")
runpy.run_path("examples/lightning_module.py", run_name="__main__")
"""
    done = run("-c", code, cache)
    assert done.returncode == 1
    assert "-m pip install pytorch-lightning" in done.stderr
    assert "Traceback" not in done.stderr
