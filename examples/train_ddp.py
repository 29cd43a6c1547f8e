"""DistributedDataParallel: stop in the middle of an epoch, go on with another number of processes.

    torchrun --standalone --nproc-per-node 2 examples/train_ddp.py CACHE --checkpoint run.pt --stop-after 7
    torchrun --standalone --nproc-per-node 1 examples/train_ddp.py CACHE --checkpoint run.pt

The second command finds run.pt and goes on at the next sample: the order of an epoch does not depend on the number of
processes. On GPUs each process takes one; without, all share the CPU.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from small_network import small_network
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate

from loaders import CachedDataset, ShardShuffleSampler


class Numbered(Dataset):
    """Gives the numbers of the samples beside them, a whole batch at a time, as the dataset itself does."""

    def __init__(self, dataset: CachedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        return [*default_collate(self.dataset.__getitems__(numbers)), torch.tensor(numbers)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", metavar="CACHE")
    parser.add_argument("--checkpoint", type=Path, required=True, help="written at each stop; read if it is there")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16, help="of each process")
    parser.add_argument("--stop-after", type=int, help="steps of this run after which it stops")
    parser.add_argument("--write-samples", type=Path, help="folder for lists of the samples trained on")
    args = parser.parse_args()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        train(args, device)
    finally:
        dist.destroy_process_group()
    if device.type == "cpu":
        # torch keeps gloo's threads after DistributedDataParallel was used, and now and then one of them aborts the
        # process while Python ends ("terminate called without an active exception"). All is written: end without that.
        sys.stdout.flush()
        os._exit(0)


def train(args: argparse.Namespace, device: torch.device) -> None:
    torch.manual_seed(0)
    dataset = CachedDataset(args.cache, split="train", dtype=torch.float32)
    sampler = ShardShuffleSampler(dataset, seed=0)  # takes rank and world size from torch.distributed
    loader = DataLoader(Numbered(dataset), args.batch_size, sampler=sampler, collate_fn=lambda batch: batch)
    network = small_network(dataset[0][0].shape[0], len(dataset.classes)).to(device)
    model = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def save() -> None:
        """Rank 0 writes for all: they have seen equally many samples. A kill leaves the old file or the new one."""
        state = {"sampler": sampler.state_dict(), "model": network.state_dict(), "optimizer": optimizer.state_dict()}
        if dist.get_rank() == 0:
            scratch = args.checkpoint.with_name(args.checkpoint.name + ".part")
            torch.save(state, scratch)
            os.replace(scratch, args.checkpoint)

    first = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.load_state_dict(state["sampler"])
        first = sampler.epoch
        print(f"rank {dist.get_rank()} goes on in epoch {first} at sample {state['sampler']['position']}", flush=True)
    steps = 0
    for epoch in range(first, args.epochs):
        sampler.set_epoch(epoch)  # order and variant; where a checkpoint was loaded for this epoch, its place stays
        for images, labels, numbers in loader:
            loss = cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if args.write_samples:
                with (args.write_samples / f"rank-{dist.get_rank()}.txt").open("a") as file:
                    file.writelines(f"{epoch} {number}\n" for number in numbers.tolist())
            if steps == args.stop_after:
                save()
                return
        save()
        if dist.get_rank() == 0 and steps:  # after a checkpoint of an epoch's end there are none yet
            print(f"epoch {epoch}  loss of the last batch {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
