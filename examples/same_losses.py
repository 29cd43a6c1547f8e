"""Does training from a cache change anything? The same run twice, and every loss compared to the last bit.

    python examples/same_losses.py SOURCE CACHE [--epochs 2]

Once the batches come from CACHE; once every image is read from SOURCE, decoded, augmented and normalised when it is
asked for, by `Recipe.of(CACHE).render`. Seed, model, order and variants are the same. Exit code 1 if a loss differs.
"""

import argparse
import struct
import sys
from pathlib import Path

import torch
from small_network import small_network
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from loaders import CachedDataset
from preprocess import Recipe


class OnTheFly(Dataset):
    """A split of a cache, rendered from its source files whenever a sample is asked for."""

    def __init__(self, source: Path, cache: Path, split: str) -> None:
        self.source, self.split = source, split
        self.recipe = Recipe.of(cache)
        with CachedDataset(cache, split) as cached:
            self.samples, self.variants, self.classes = cached.samples, cached.variants, cached.classes
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        tensor = self.recipe.render(self.source / path, self.split, self.epoch % self.variants)
        return torch.from_numpy(tensor), label


def losses(dataset: CachedDataset | OnTheFly, epochs: int, batch_size: int, seed: int) -> list[float]:
    """The loss of every step of a training run."""
    dataset.set_epoch(0)
    channels = dataset[0][0].shape[0]
    torch.manual_seed(seed)  # after the look at a sample: a dataset may draw
    model = small_network(channels, len(dataset.classes))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(dataset, batch_size, shuffle=True, drop_last=True, generator=order)
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for images, labels in loader:
            loss = cross_entropy(model(images.float()), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the folder that CACHE was built from")
    parser.add_argument("cache", metavar="CACHE", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    once = losses(CachedDataset(args.cache, split="train"), args.epochs, args.batch_size, args.seed)
    again = losses(OnTheFly(args.source, args.cache, "train"), args.epochs, args.batch_size, args.seed)
    pairs = zip(once, again, strict=True)
    differ = [step for step, (one, other) in enumerate(pairs) if struct.pack("d", one) != struct.pack("d", other)]
    print(f"{len(once)} losses from the cache, first {once[0]:.9f}, last {once[-1]:.9f}")
    print(f"{len(again)} losses on the fly,    first {again[0]:.9f}, last {again[-1]:.9f}")
    if differ:
        print(f"{len(differ)} differ, the first one at step {differ[0]}")
        return 1
    print("all are the same to the last bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
