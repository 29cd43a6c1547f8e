"""Data parallelism in one process: one loader fills one large batch, and it is split over all GPUs.

    python examples/data_parallel.py CACHE [--batch-size 64] [--parts 2]

With GPUs that is `torch.nn.DataParallel`. Without, the same is done by hand on the CPU, one part after another: each
part goes through the model alone (so BatchNorm sees it alone), and the outputs are put together again. The loader does
not change either way: batches come out of the cache at the speed of memory, so one process feeds several devices.
For training on many GPUs PyTorch recommends DistributedDataParallel: see train_ddp.py.
"""

import argparse

import torch
from small_network import small_network
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from loaders import CachedDataset, ShardShuffleSampler, to_device


class InParts(nn.Module):
    """What DataParallel does to a batch, on one device."""

    def __init__(self, model: nn.Module, parts: int) -> None:
        super().__init__()
        self.module, self.parts = model, parts

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.module(part) for part in images.chunk(self.parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64, help="of all devices together")
    parser.add_argument("--parts", type=int, default=2, help="without GPUs: parts of a batch")
    args = parser.parse_args()
    torch.manual_seed(0)
    gpus = torch.cuda.device_count()
    device = "cuda:0" if gpus else "cpu"

    dataset = CachedDataset(args.cache, split="train")
    sampler = ShardShuffleSampler(dataset, seed=0)
    # A last batch that is smaller would leave some devices with nothing, or with one image, which BatchNorm refuses.
    loader = DataLoader(dataset, args.batch_size, sampler=sampler, drop_last=True)
    network = small_network(dataset[0][0].shape[0], len(dataset.classes)).to(device)
    model = nn.DataParallel(network) if gpus else InParts(network, args.parts)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    print(f"{len(loader)} batches of {args.batch_size}, each in {gpus or args.parts} parts on {gpus or 'no'} GPUs")
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for images, labels in to_device(loader, device, torch.float32):
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}  loss of the last batch {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
