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

from bonelib.images import cuts
from bonelib.images.orders import Order, Plain, members_of
from bonelib.images.store import Cache

if TYPE_CHECKING:
    import torch

AT_ONCE = 2**17  # pixels that ``augment`` works on at a time on a CPU


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
    order: Order
    drop_last: bool
    seed: int
    views: int = 1
    sides: tuple[int, ...] = ()
    crops: int = 0
    masked: float = 0.0
    rank: int = 0
    ranks: int = 1
    members: list[np.ndarray] | None = field(default=None, repr=False)  # the images of each study
    epoch: int = 0

    @property
    def shuffle(self) -> bool:
        """Whether images come in any order but that of the list, each once."""
        return not (isinstance(self.order, Plain) and not self.order.shuffle)

    def __len__(self) -> int:
        count = len(self.order) / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def side(self, epoch: int) -> int:
        """Return the side of the images of an epoch in pixels."""
        sides = self.sides or self.cache.images.shape[-1:]
        return sides[min(epoch, len(sides) - 1)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._batches(epoch)

    def arrays(self, *, epoch: int) -> Iterator[dict[str, "torch.Tensor"]]:
        """Yield what the batches of an epoch hold beside the images, which are not read."""
        import torch

        for chosen in self._chosen(epoch):
            if self.members is not None:
                chosen = np.array([self.members[study][0] for study in chosen])
            picked = torch.from_numpy(chosen)
            yield {name: values[picked] for name, values in self.extras.items()}

    def _chosen(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the images (or studies) of each batch that are this process's."""
        order = self.order.draw(np.random.default_rng([self.seed, epoch]))
        for number in range(len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield chosen[self.rank :: self.ranks]

    def _batches(self, epoch: int) -> Iterator[dict[str, Any]]:
        import torch

        for number, chosen in enumerate(self._chosen(epoch)):
            studies, picked = {}, torch.from_numpy(chosen)
            if self.members is not None:
                parts = [self.members[study] for study in chosen]
                chosen = np.concatenate(parts)
                picked = torch.tensor([part[0] for part in parts])
                lengths = torch.tensor([len(part) for part in parts])
                studies["study"] = torch.arange(len(parts)).repeat_interleave(lengths)
            stored = self.cache.images[self.rows[chosen]]  # (B, S, S), a copy
            plain = cuts.floats(cuts.shrunk(stored, self.side(epoch)))
            state = np.random.SeedSequence([self.seed, epoch, number, self.rank]).generate_state(2)
            generator = torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
            others = {name: values[picked] for name, values in self.extras.items()}
            varied = self._varied(plain, generator, others.get("mask"))
            pictures = {"image": self._normalise(varied)}
            if self.views == 2:
                pictures["second"] = self._second(stored, plain, generator)
            yield {
                **pictures,
                **studies,
                **others,
                "image_id": [self.image_ids[i] for i in chosen],
            }

    def _varied(
        self,
        plain: "torch.Tensor",
        generator: "torch.Generator",
        mask: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        if self.augment is None:
            return plain
        return augment(plain, generator=generator, mask=mask, flip=self.flip, **self.augment)

    def _second(
        self, stored: np.ndarray, plain: "torch.Tensor", generator: "torch.Generator"
    ) -> "torch.Tensor":
        """Return the other view: the image varied anew, ``(B, C, H, W)``, or its crops."""
        if self.crops:
            side = plain.shape[-1] // 2
            parts = cuts.floats(cuts.crops(stored, self.crops, side=side, generator=generator))
            return self._normalise(self._varied(parts, generator)).unflatten(0, (-1, self.crops))
        varied = self._varied(plain, generator)
        return self._normalise(cuts.blanked(varied, self.masked, generator=generator))

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
    more: dict[str, np.ndarray] | None = None,
    mean: float | Sequence[float] = 0.5,
    std: float | Sequence[float] = 0.5,
    channels: int = 3,
    augment: dict[str, float] | None = None,
    flip: bool = False,
    shuffle: bool = False,
    order: Order | None = None,
    drop_last: bool = False,
    seed: int = 0,
    views: int = 1,
    sides: Sequence[int] = (),
    crops: int = 0,
    masked: float = 0.0,
    studies: Sequence[str] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Loader:
    """Prepare batches of the images named, in that order or shuffled anew each epoch.

    A batch is ``{"image": (B, C, H, W) float32, "label": (B,), "tokens": (B, T), "keys": (B, K),
    "image_id": list}``; what was not given is not in it. Where mean and std are numbers, the
    channels share memory: call ``.contiguous()`` before writing into ``image``.

    Args:
        labels: ``(N,)`` in the order of ``image_ids``, integers with -1 for missing, or float32.
        tokens: ``(N, T)``, token ids of each image's caption.
        keys: ``(N, K)``, attribute keys for losses with several positives, -1 for missing.
        more: Other arrays with a row an image, by the name they get in a batch (tokens of a
            neighbouring caption, say). What is called ``mask``, bool ``(N, S, S)`` in the pixels of
            the cache, moves with the image.
        mean: Subtracted from grey values in 0–1; one number, or one per channel.
        std: Divides them afterwards.
        augment: Strengths for ``augment``; ``{}`` takes its defaults, None leaves images alone.
        flip: Let ``augment`` mirror images. Only where neither labels nor captions name a side.
        order: Which rows an epoch takes, where not each once: see ``images.orders``.
        views: 2 adds ``second``, the same images varied by a draw of their own (for SimCLR).
        sides: Side of the images in each epoch in pixels, shrunk from the cache by area; the last
            one holds from there on. Empty: that of the cache.
        crops: ``second`` is so many cuts of each image as it is in the cache, half as wide as the
            whole view: ``(B, crops, C, H, W)`` (multi-crop: Caron et al. 2020, arXiv:2006.09882).
        masked: Share of the squares of ``second`` that are blank, see ``cuts.blanked``.
        studies: The study of each image. ``batch_size`` then counts studies, each with all its
            images: ``study`` ``(B,)`` gives an image its row among the S studies of the batch, and
            every other array has a row a study, that of its first image. An image without a study
            is one of its own. Not with ``order``.
        rank: Which of ``ranks`` processes this is; each gets every so-many-th image of a batch,
            with draws of its own.

    Raises:
        ValueError: Images are not in the cache, or arrays and settings don't fit; all are listed.
    """
    import torch

    image_ids = [str(i) for i in image_ids]
    given = {"label": labels, "tokens": tokens, "keys": keys} | (more or {})
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
    members = None
    if studies is not None and len(studies) == len(image_ids):
        members = members_of(studies)
    elif studies is not None:
        problems.append(f"studies has {len(studies)} rows, there are {len(image_ids)} images.")
    if studies is not None and order is not None:
        problems.append("order draws images, studies come whole: pass one of them.")
    units = len(image_ids) if members is None else len(members)
    rows = units if order is None else len(order)
    if batch_size < 1 or not rows or (drop_last and rows < batch_size):
        problems.append(f"{rows} images make no batch of {batch_size} (drop_last={drop_last}).")
    if flip and augment is None:
        problems.append("flip=True does nothing without augment; pass augment={}.")
    if views not in (1, 2) or (views == 2 and augment is None):
        problems.append(f"views={views}: 1, or 2 that differ by augment={{}}.")
    if (crops or masked) and (views == 1 or (crops and masked)):
        problems.append(f"crops={crops}, masked={masked:g}: one of them, of views=2.")
    drawn = arrays["mask"].shape if "mask" in arrays else ()
    if drawn and (drawn[1:] != (cache.size, cache.size) or sides or studies is not None):
        problems.append(f"mask {drawn}, sides={sides}: {cache.size} pixels a side, no studies.")
    if any(not 0 < side <= cache.size for side in sides):
        problems.append(f"sides={sides}: from 1 to {cache.size} pixels, as many as the cache has.")
    if batch_size % ranks or (ranks > 1 and not drop_last):
        problems.append(
            f"{ranks} processes can't share a batch of {batch_size} (drop_last={drop_last}) evenly."
        )
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
        order=order or Plain(units, shuffle),
        drop_last=drop_last,
        seed=seed,
        views=views,
        sides=tuple(sides),
        crops=crops,
        masked=masked,
        rank=rank,
        ranks=ranks,
        members=members,
    )


def augment(
    batch: "torch.Tensor",
    *,
    generator: "torch.Generator",
    mask: "torch.Tensor | None" = None,
    rotate: float = 10,
    translate: float = 0.06,
    scale: float = 0.1,
    brightness: float = 0.2,
    contrast: float = 0.2,
    noise: float = 0.02,
    blur: float = 0,
    focus: float = 0,
    flip: bool = False,
) -> "torch.Tensor":
    """Vary each image of a batch by its own draw: position in one resampling, then grey values.

    Strengths are the largest change either way, drawn uniformly.

    Args:
        batch: float ``(B, 1, H, W)`` in 0–1, square pixels.
        generator: On the CPU; the draws don't depend on the device of the batch.
        mask: Outlines, bool ``(B, H, W)``, empty where none is: moved with the images, in place.
        rotate: Degrees.
        translate: Share of the width and of the height.
        scale: Share by which the image grows or shrinks.
        brightness: Share by which grey values are multiplied.
        contrast: Share by which they move away from the image's mean.
        noise: Largest standard deviation of Gaussian noise.
        blur: Largest standard deviation of a Gaussian blur, in pixels; the noise is added after it.
            Off by default: at training sizes little more than a pixel of bone texture is left.
        focus: Share of the images that are seen twice as large around their outline, the others
            around that of another one of the batch: the place says nothing of the class.
        flip: Mirror half of the images. A flip turns left into right: only where no side is named.

    Returns:
        A new tensor of the same shape, in 0–1.
    """
    import torch

    count, _, height, width = batch.shape
    # Always nine draws an image: a strength set to 0 leaves the other draws as they were.
    draws = torch.rand(count, 9, generator=generator)
    unit = 2 * draws - 1
    angle = unit[:, 0] * math.radians(rotate)
    zoom = 1 + unit[:, 1] * scale
    mirror = torch.where(draws[:, 7] < 0.5, -1.0, 1.0) if flip else torch.ones_like(zoom)
    near, center = _near(mask, focus, count, generator)
    zoom = zoom * (1 + near)
    # grid_sample asks where each output pixel comes from, in units of half the side.
    sine, cosine = torch.sin(angle) / zoom, torch.cos(angle) / zoom
    along = {
        "xx": mirror * cosine,
        "xy": -sine * height / width,
        "yx": mirror * sine * width / height,
        "yy": cosine,
        "x": unit[:, 2] * translate * 2 + near * center[:, 0],
        "y": unit[:, 3] * translate * 2 + near * center[:, 1],
        "gain": 1 + unit[:, 4] * brightness,
        "slope": 1 + unit[:, 5] * contrast,
        "noise": draws[:, 6] * noise,
        "blur": draws[:, 8] * blur,
    }
    # A few images at a time stay in a CPU's cache, read there in order by ``clone``: a rotation
    # reads across rows, three times slower from main memory.
    few = max(1, AT_ONCE // (height * width)) if batch.device.type == "cpu" else count
    out = torch.empty_like(batch)
    for start in range(0, count, few):
        part = slice(start, start + few)
        each = {name: v[part].view(-1, 1, 1, 1).to(batch.device) for name, v in along.items()}
        if mask is not None:
            mask[part] = _moved(mask[part, None].float(), each)[:, 0] > 0.5
        image = _blurred(_moved(batch[part].clone(), each), each["blur"], blur)
        mean = image.mean(dim=(2, 3), keepdim=True)
        image = image.mul_(each["slope"] * each["gain"])
        image = image.add_(mean * (1 - each["slope"]) * each["gain"])
        if noise:
            grain = torch.randn(image.shape, generator=generator)
            image.addcmul_(grain.to(batch.device), each["noise"])
        torch.clamp(image, 0, 1, out=out[part])
    return out


def _near(
    mask: "torch.Tensor | None", focus: float, count: int, generator: "torch.Generator"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Draw which images are seen from near, 0 or 1, and around which point in -1 to 1, (x, y)."""
    import torch

    if focus and mask is None:
        raise ValueError(f"focus={focus:g}: around what? Pass outlines (mask), empty where none.")
    if not focus or not mask.any():
        return torch.zeros(count), torch.zeros(count, 2)
    draws, center = torch.rand(count, 2, generator=generator), torch.empty(count, 2)
    shown = mask.cpu().flatten(1).any(dim=1)
    for axis, across in enumerate((1, 2)):  # across rows, then columns
        line = mask.cpu().sum(dim=across).float()
        scale = (torch.arange(line.shape[1]) * 2 + 1) / line.shape[1] - 1
        center[:, axis] = (line * scale).sum(dim=1) / line.sum(dim=1)
    rows = shown.nonzero()[:, 0]
    center = torch.where(shown[:, None], center, center[rows[(draws[:, 1] * len(rows)).long()]])
    return (draws[:, 0] < focus).float(), center.clamp(-0.5, 0.5)  # within the image


def _moved(image: "torch.Tensor", each: dict[str, "torch.Tensor"]) -> "torch.Tensor":
    import torch
    import torch.nn.functional as F

    count, _, height, width = image.shape
    # The grid is spelled out because affine_grid's product with 2 × 3 matrices takes twice the
    # resampling.
    across = (torch.arange(width, device=image.device) * 2 + 1) / width - 1
    down = ((torch.arange(height, device=image.device) * 2 + 1) / height - 1).view(-1, 1)
    grid = torch.empty(count, height, width, 2, device=image.device)
    for axis, name in enumerate("xy"):
        x, y, move = (each[key].view(-1, 1, 1) for key in (f"{name}x", f"{name}y", name))
        torch.add(x * across, y * down + move, out=grid[..., axis])  # (B, H, W)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _blurred(image: "torch.Tensor", sigma: "torch.Tensor", most: float) -> "torch.Tensor":
    """Blur each image ``(B, 1, H, W)`` by its own Gaussian, first along rows, then columns."""
    import torch
    import torch.nn.functional as F

    if not most:
        return image
    reach = min(max(1, math.ceil(3 * most)), *(side - 1 for side in image.shape[2:]))
    distance = torch.arange(reach + 1, device=image.device)
    weight = torch.exp(-0.5 * (distance / sigma.clamp_min(1e-3)) ** 2)  # (B, 1, 1, reach + 1)
    weight = weight / (2 * weight.sum(dim=-1, keepdim=True) - 1)
    for axis in (3, 2):
        side = image.shape[axis]
        edge = [reach, reach, 0, 0] if axis == 3 else [0, 0, reach, reach]
        wide = F.pad(image, edge, mode="reflect")
        # Shifted copies added up: a convolution with a kernel an image takes three times as long.
        image = wide.narrow(axis, reach, side) * weight[..., :1]
        for step in range(1, reach + 1):
            pair = wide.narrow(axis, reach - step, side) + wide.narrow(axis, reach + step, side)
            image.addcmul_(pair, weight[..., step : step + 1])
    return image
