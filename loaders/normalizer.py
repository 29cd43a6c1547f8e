"""8-bit batches to normalised ones, on the device that trains."""

import torch

from cache_store.normalise import normalisation_table


class Normalizer(torch.nn.Module):
    """Looks each level up in the normalisation table: the values that a float16 cache would hold.

    Parameters
    ----------
    mean, std : in 0..1, one value a channel
    dtype : of the result
    """

    table: torch.Tensor

    def __init__(
        self, mean: list[float] | tuple[float, ...], std: list[float] | tuple[float, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        table = torch.from_numpy(normalisation_table(mean, std)).to(dtype)
        self.register_buffer("table", table, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, C, H, W) or (C, H, W), on the device of `images`.

        Parameters
        ----------
        images : uint8 (n, C, H, W) or (C, H, W), on the module's device

        Raises
        ------
        ValueError : another type or number of channels; the message gives what was found
        """
        channels = len(self.table)
        if images.dtype != torch.uint8 or images.dim() not in (3, 4) or images.shape[-3] != channels:
            raise ValueError(
                f"uint8 images of {channels} channels, (n, C, H, W) or (C, H, W), expected, found {images.dtype} "
                f"{tuple(images.shape)}"
            )
        channel = torch.arange(channels, device=images.device, dtype=torch.int32).view(-1, 1, 1)
        return self.table.view(-1)[images.int() + channel * 256]
