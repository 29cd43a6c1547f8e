"""From drawn steps to actions, and their run over a batch: few launches, whatever was drawn for each image."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preprocess.augment import Pipeline
from preprocess.decisions import Step
from preprocess.torch_engine import colour, equalize, filters, geometry, holes, tables
from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.images import Images, alike, pixels_at_once

_MODULES = (geometry, tables, colour, equalize, filters, holes)
COMPILERS: dict[str, Compile] = {name: compile for module in _MODULES for name, compile in module.COMPILERS.items()}
"""By the name of the Albumentations transform."""

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {
    name: reason for module in _MODULES for name, reason in getattr(module, "UNSUPPORTED", {}).items()
}
"""Why a transform as it is set, for images of so many channels, is not supported; None if it is."""

Program = list[Action]
"""What is done to one image, in turn."""


def program_of(steps: Sequence[Step], hw: tuple[int, int], channels: int) -> Program:
    """Actions for an image of this size, as few as fold together."""
    program: Program = []
    for step in steps:
        for action in COMPILERS[type(step.transform).__name__](step.transform, step.params, hw, channels):
            both = program[-1].then(action) if program else None
            if both is None:
                program.append(action)
            else:
                program[-1] = both
        hw = step.shape[0], step.shape[1]
    return program


def first_unsupported(transforms: Sequence[Mapping[str, Any]], channels: int) -> str | None:
    """The first of a recipe's transforms that this engine does not render, with the reason; None if there is none.

    Parameters
    ----------
    transforms : canonical, see `augment.resolve`
    channels : of the decoded images
    """
    pipeline = Pipeline(transforms)
    if pipeline.other is not None:
        return pipeline.other
    for transform in pipeline.leaves():
        name = type(transform).__name__
        if name not in COMPILERS:
            return name
        reason = UNSUPPORTED[name](transform, channels) if name in UNSUPPORTED else None
        if reason is not None:
            return f"{name} ({reason})"
    return None


@dataclass(frozen=True, slots=True)
class _Group:
    """Images that are equally far: `samples` int64 (n,), their places among all of them."""

    images: Images
    samples: np.ndarray

    def some(self, places: np.ndarray) -> "_Group":
        return self if len(places) == len(self.samples) else _Group(self.images[places], self.samples[places])


def run(batches: Sequence[Images], programs: Sequence[Program]) -> list[torch.Tensor]:
    """Do to each image its program; the given images stay as they are.

    Images whose next action is of one kind go through it together, if they are of similar size. Those with the most
    left to do go first: the others wait for them, so that as many as possible meet again at the next action.

    Parameters
    ----------
    batches : at best of images that are `alike`
    programs : one an image, for those of all batches in turn

    Returns
    -------
    each uint8 (C, h, w), views of batches
    """
    done = np.zeros(len(programs), np.int64)
    left = np.array([len(program) for program in programs])
    waiting: dict[Hashable, list[_Group]] = {}
    finished: dict[int, torch.Tensor] = {}

    def file(group: _Group) -> None:
        keys = [_kind(programs[sample], done[sample]) for sample in group.samples]
        for key in dict.fromkeys(keys):
            part = group.some(np.array([place for place, other in enumerate(keys) if other == key]))
            if key is None:
                finished.update(
                    (sample, part.images.image(place)) for place, sample in enumerate(part.samples.tolist())
                )
            else:
                waiting.setdefault(key, []).append(part)

    start = 0
    for batch in batches:
        file(_Group(batch, np.arange(start, start + len(batch))))
        start += len(batch)
    while waiting:
        key = max(waiting, key=lambda kind: max(int(left[group.samples].max()) for group in waiting[kind]))
        for group in _gathered(waiting.pop(key)):
            actions = [programs[sample][done[sample]] for sample in group.samples]
            out = type(actions[0]).run(group.images, actions)
            done[group.samples] += 1
            left[group.samples] -= 1
            file(_Group(out, group.samples))
    return [finished[sample] for sample in range(len(programs))]


def _gathered(groups: Sequence[_Group]) -> Iterator[_Group]:
    """The same images in batches of those that are alike, no larger than what is computed together."""
    bounds = np.cumsum([len(group.samples) for group in groups])
    sizes = np.concatenate([group.images.sizes for group in groups])
    for places in alike(sizes, pixels_at_once(groups[0].images.pixels)):
        places = np.sort(places)
        parts = [
            group.some(own - end + len(group.samples))
            for group, own, end in zip(
                groups, np.split(places, np.searchsorted(places, bounds[:-1])), bounds, strict=True
            )
            if len(own)
        ]
        yield _Group(Images.joined([part.images for part in parts]), np.concatenate([part.samples for part in parts]))


def _kind(program: Program, done: int) -> Hashable:
    """Of the next action; None after the last one."""
    if done == len(program):
        return None
    return type(program[done]), program[done].group
