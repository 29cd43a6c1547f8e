"""How long a training step of a common model takes here. Imports torch."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torchvision.models import resnet18

_CPU_BATCH, _CPU_PIXELS = 8, 224 * 224


def time_model(shape: Sequence[int], classes: int, batch: int, seconds: float) -> dict[str, Any]:
    """Forward, backward and step of a ResNet-18 in float32, on the GPU if there is one.

    On the CPU a smaller batch is timed: it takes as long an image.

    Returns
    -------
    images_per_s, model, device, on_gpu
    """
    channels, height, width = shape
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        batch = min(batch, max(2, _CPU_BATCH * _CPU_PIXELS // (height * width)))
    device = torch.device("cuda" if on_gpu else "cpu")
    model = resnet18(num_classes=max(classes, 2))
    if channels != 3:
        model.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images = torch.randn(max(batch, 2), *shape, device=device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=device)

    def step(count: int) -> float:
        begun = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[:count]), labels[:count]).backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    count = len(images)
    step(count if on_gpu else 2)  # the first one allocates and chooses algorithms
    if not on_gpu and step(2) > seconds / 4:
        count = 2  # a loaded or a small machine
    taken = [step(count)]
    while sum(taken) < seconds:
        taken.append(step(count))
    name = torch.cuda.get_device_name() if on_gpu else "the CPU"
    return {
        "images_per_s": len(taken) * count / sum(taken),
        "model": "resnet18, float32",
        "device": name,
        "on_gpu": on_gpu,
    }
