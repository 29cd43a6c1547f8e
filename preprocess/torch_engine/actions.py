"""What is done to pixels: the common shape of all operations."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from preprocess.torch_engine.images import Images


class Action(Protocol):
    """One thing to do to one image, settled on the host before a pixel is touched: immutable, without tensors."""

    @property
    def group(self) -> Hashable:
        """Actions of one class and one group run together."""

    def then(self, following: "Action") -> "Action | None":
        """Both as one action, if that gives the very pixels; None if they cannot be folded."""

    @staticmethod
    def run(images: Images, actions: Sequence[Any]) -> Images:
        """Do one action to each image, all of one group; the given images stay as they are.

        The pixels of an image depend on that image and its action alone: not on the batch's size, order or padding.
        """


Compile = Callable[[Any, dict[str, Any], tuple[int, int], int], list[Action]]
"""(Albumentations transform, parameters that it drew, height and width of its input, channels) -> actions."""
