"""Plain PyTorch: train from a cache, in single precision or under autocast.

    python examples/train.py CACHE [--epochs 3] [--autocast] [--device cuda]

CACHE has the splits train and val. `make demo` leaves one in demo/small.cache, `make cache` without SOURCE a larger
one in demo/cache.
"""

import argparse
import time
from collections.abc import Iterator

import torch
from small_network import small_network
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from loaders import CachedDataset, to_device


class Stopwatch:
    """Adds up the seconds that a loop waits for its batches."""

    waited_s = 0.0

    def batches(self, loader: object) -> Iterator:
        iterator = iter(loader)
        while True:
            begun = time.perf_counter()
            batch = next(iterator, None)
            self.waited_s += time.perf_counter() - begun
            if batch is None:
                return
            yield batch


def accuracy(model: torch.nn.Module, batches: object, autocast: torch.autocast) -> float:
    """Share of the images whose class the model says."""
    model.eval()
    right = total = 0
    with torch.no_grad(), autocast:
        for images, labels in batches:
            right += (model(images).argmax(1) == labels).sum().item()
            total += len(labels)
    model.train()
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autocast", action="store_true", help="bfloat16 where autocast allows it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    autocast = torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.autocast)

    # Batches come as the float16 that is stored; a model without autocast wants float32.
    dtype = None if args.autocast else torch.float32
    train = CachedDataset(args.cache, split="train")
    val = CachedDataset(args.cache, split="val")
    # The last batch may be a single image, which BatchNorm cannot use: drop_last.
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    batches = to_device(loader, args.device, dtype)
    val_batches = to_device(DataLoader(val, args.batch_size), args.device, dtype)

    model = small_network(train[0][0].shape[0], len(train.classes)).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.epochs * len(loader))
    for epoch in range(args.epochs):
        train.set_epoch(epoch)  # variant `epoch` mod K of every image
        watch, begun, losses = Stopwatch(), time.perf_counter(), []
        for images, labels in watch.batches(batches):
            with autocast:
                loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()  # waits for the device, so that the clock is right
        seconds = time.perf_counter() - begun
        speed, waiting = len(losses) * args.batch_size / seconds, watch.waited_s / seconds
        right = accuracy(model, val_batches, autocast)
        print(f"epoch {epoch}  loss {mean:.3f}  accuracy on val {right:.1%}", end="  ")
        print(f"{speed:,.0f} images/s, {waiting:.1%} of the time spent waiting for them", flush=True)


if __name__ == "__main__":
    main()
