"""Batches of tensors drawn from a cache, each epoch with its own order and its own variation.

A cache and plain arrays (labels, tokens, attribute keys) come in; dictionaries of tensors go out.
Everything drawn follows from (seed, epoch, batch), so a run that is resumed sees what it would have
seen. There are no worker processes: indexing the memory map is faster than handing arrays over.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bonelib.images.store import Cache

if TYPE_CHECKING:
    import torch


@dataclass
class Loader:
    """Batches of one list of images; made by ``loader``.

    Each ``iter()`` starts the next epoch. Set ``epoch`` before it to resume or to replay one.
    """

    cache: Cache
    image_ids: list[str]
    rows: np.ndarray
    extras: dict[str, "torch.Tensor"] = field(repr=False)
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    augment: dict[str, float] | None
    flip: bool
    shuffle: bool
    drop_last: bool
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        count = len(self.rows) / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        import torch

        order = np.arange(len(self.rows))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        for number in range(len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            image = torch.from_numpy(self.cache.images[self.rows[chosen]])  # (B, S, S), a copy
            image = image.unsqueeze(1).to(torch.float32).mul_(1 / 255)
            if self.augment is not None:
                state = np.random.SeedSequence([self.seed, epoch, number]).generate_state(2)
                generator = torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
                image = augment(image, generator=generator, flip=self.flip, **self.augment)
            picked = torch.from_numpy(chosen)
            yield {
                "image": self._normalise(image),
                **{name: values[picked] for name, values in self.extras.items()},
                "image_id": [self.image_ids[i] for i in chosen],
            }

    def _normalise(self, image: "torch.Tensor") -> "torch.Tensor":
        """Centre and scale ``(B, 1, H, W)`` in place where all channels agree, and spread it."""
        import torch

        if len({*self.mean}) == len({*self.std}) == 1:
            # The channels are one block of memory seen C times: nothing is copied.
            image = image.sub_(self.mean[0]).div_(self.std[0])
            return image.expand(-1, self.channels, -1, -1)
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (image - mean) / std


def loader(
    cache: Cache,
    image_ids: Sequence[str],
    *,
    batch_size: int,
    labels: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    channels: int = 3,
    augment: dict[str, float] | None = None,
    flip: bool = False,
    shuffle: bool = False,
    drop_last: bool = False,
    seed: int = 0,
) -> Loader:
    """Prepare batches of the images named, in that order or shuffled anew each epoch.

    A batch is ``{"image": (B, C, H, W) float32, "label": (B,), "tokens": (B, T), "keys": (B, K),
    "image_id": list}``; what was not given is not in it. Where mean and std are numbers, the
    channels share memory: call ``.contiguous()`` before writing into ``image``.

    Args:
        labels: ``(N,)`` in the order of ``image_ids``, integers with -1 for missing, or float32.
        tokens: ``(N, T)``, token ids of each image's caption.
        keys: ``(N, K)``, attribute keys for losses with several positives, -1 for missing.
        mean: Subtracted from grey values in 0–1; one number, or one per channel.
        std: Divides them afterwards.
        augment: Strengths for ``augment``; ``{}`` takes its defaults, None leaves images alone.
        flip: Let ``augment`` mirror images. Only where neither labels nor captions name a side.

    Raises:
        ValueError: Images are not in the cache, or arrays and settings don't fit; all are listed.
    """
    import torch

    image_ids = [str(i) for i in image_ids]
    given = {"label": labels, "tokens": tokens, "keys": keys}
    arrays = {name: np.asarray(a) for name, a in given.items() if a is not None}
    spread = [
        (float(v),) * channels if np.ndim(v) == 0 else tuple(map(float, v)) for v in (mean, std)
    ]
    problems = [
        f"{name} has {len(array)} rows, there are {len(image_ids)} images."
        for name, array in arrays.items()
        if len(array) != len(image_ids)
    ]
    problems += [
        f"{name} has {len(values)} values for {channels} channels."
        for name, values in zip(("mean", "std"), spread, strict=True)
        if len(values) != channels
    ]
    if batch_size < 1 or not image_ids or (drop_last and len(image_ids) < batch_size):
        problems.append(
            f"{len(image_ids)} images make no batch of {batch_size} (drop_last={drop_last})."
        )
    if flip and augment is None:
        problems.append("flip=True does nothing without augment; pass augment={}.")
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ValueError(f"The loader can't be made:\n{lines}")
    return Loader(
        cache=cache,
        image_ids=image_ids,
        rows=cache.rows(image_ids),
        extras={name: torch.from_numpy(array.copy()) for name, array in arrays.items()},
        batch_size=batch_size,
        mean=spread[0],
        std=spread[1],
        channels=channels,
        augment=augment,
        flip=flip,
        shuffle=shuffle,
        drop_last=drop_last,
        seed=seed,
    )


def augment(
    batch: "torch.Tensor",
    *,
    generator: "torch.Generator",
    rotate: float = 10,
    translate: float = 0.06,
    scale: float = 0.1,
    brightness: float = 0.2,
    contrast: float = 0.2,
    noise: float = 0.02,
    flip: bool = False,
) -> "torch.Tensor":
    """Vary each image of a batch by its own draw: position in one resampling, then grey values.

    Strengths are the largest change either way, drawn uniformly.

    Args:
        batch: float ``(B, 1, H, W)`` in 0–1, square pixels.
        generator: On the CPU; the draws don't depend on the device of the batch.
        rotate: Degrees.
        translate: Share of the width and of the height.
        scale: Share by which the image grows or shrinks.
        brightness: Share by which grey values are multiplied.
        contrast: Share by which they move away from the image's mean.
        noise: Largest standard deviation of Gaussian noise.
        flip: Mirror half of the images. A flip turns left into right: only where no side is named.

    Returns:
        A new tensor of the same shape, in 0–1.
    """
    import torch
    import torch.nn.functional as F

    count, _, height, width = batch.shape
    # Always eight draws an image: a strength set to 0 leaves the other draws as they were.
    draws = torch.rand(count, 8, generator=generator).to(batch.device)
    unit = 2 * draws - 1
    angle = unit[:, 0] * math.radians(rotate)
    zoom = 1 + unit[:, 1] * scale
    mirror = torch.where(draws[:, 7] < 0.5, -1.0, 1.0) if flip else torch.ones_like(zoom)
    # grid_sample asks where each output pixel comes from, in units of half the side. The grid is
    # spelled out because affine_grid's product with 2 × 3 matrices takes twice the resampling.
    sine, cosine = torch.sin(angle) / zoom, torch.cos(angle) / zoom
    across = (torch.arange(width, device=batch.device) * 2 + 1) / width - 1
    down = ((torch.arange(height, device=batch.device) * 2 + 1) / height - 1).view(-1, 1)
    grid = torch.empty(count, height, width, 2, device=batch.device)
    for axis, (along_x, along_y) in enumerate(
        ((mirror * cosine, -sine * height / width), (mirror * sine * width / height, cosine))
    ):
        shift = unit[:, 2 + axis] * translate * 2
        x, y, move = (v.view(-1, 1, 1) for v in (along_x, along_y, shift))
        grid[..., axis] = x * across + (y * down + move)  # (B, H, W)
    image = F.grid_sample(batch, grid, padding_mode="border", align_corners=False)

    gain = (1 + unit[:, 4] * brightness).view(-1, 1, 1, 1)
    slope = (1 + unit[:, 5] * contrast).view(-1, 1, 1, 1)
    mean = image.mean(dim=(2, 3), keepdim=True)
    image = image.mul_(slope).add_(mean * (1 - slope)).mul_(gain)
    if noise:
        sigma = (draws[:, 6] * noise).view(-1, 1, 1, 1)
        image += sigma * torch.randn(batch.shape, generator=generator).to(batch.device)
    return image.clamp_(0, 1)
