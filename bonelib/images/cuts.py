"""Parts and sizes of decoded images that a training sees: shrunk by area, cut out, blanked.

Arrays and tensors of one batch come in and go out; what is drawn follows from the generator.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SQUARE = 16  # pixels of a side of what a masked view blanks


def floats(stored: np.ndarray) -> "torch.Tensor":
    """Return grey values 0–255 ``(B, S, S)`` as float32 ``(B, 1, S, S)`` in 0–1."""
    import torch

    return torch.from_numpy(stored).unsqueeze(1).to(torch.float32).mul_(1 / 255)


def shrunk(stored: np.ndarray, side: int) -> np.ndarray:
    """Return images ``(B, S, S)`` with ``side`` pixels a side, each the mean of its area."""
    if side == stored.shape[-1]:
        return stored
    import cv2

    way = cv2.INTER_AREA
    return np.stack([cv2.resize(image, (side, side), interpolation=way) for image in stored])


def crops(stored: np.ndarray, count: int, *, side: int, generator: "torch.Generator") -> np.ndarray:
    """Cut ``count`` squares out of each image ``(B, S, S)``, anywhere: ``(B · count, side, side)``.

    The cuts of one image stand together.
    """
    import torch

    rows, most = len(stored), stored.shape[-1] - side
    corners = torch.randint(most + 1, (rows * count, 2), generator=generator).tolist()
    return np.stack(
        [
            stored[number // count, top : top + side, left : left + side]
            for number, (top, left) in enumerate(corners)
        ]
    )


def blanked(image: "torch.Tensor", share: float, *, generator: "torch.Generator") -> "torch.Tensor":
    """Give a share of the squares of each image ``(B, 1, H, W)`` its mean grey.

    Masked siamese views (Assran et al. 2022, arXiv:2204.07141, recalled), here for a convolutional
    tower, for which what is left out must be blank and not absent.
    """
    import torch

    if not share:
        return image
    count, _, *shape = image.shape
    high, wide = (max(2, side // SQUARE) for side in shape)
    drawn = torch.rand(count, high * wide, generator=generator).argsort(1).argsort(1)
    blank = (drawn < round(share * high * wide)).view(count, 1, high, wide)
    blank = torch.nn.functional.interpolate(blank.float(), size=shape).bool()
    return torch.where(blank, image.mean(dim=(2, 3), keepdim=True), image)
