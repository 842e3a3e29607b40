"""Gradient steps of many heads at once: every part of the training images, every point.

Heads on frozen features are small, so a loop over fits spends its time between the operations. Here
the fits of K masks and P points are one tensor ``(K, P, …)``, and a step is a handful of batched
products for all of them. Fits don't meet: each is the one that it would be alone.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bonelib.adaptation.support import Point, Support, class_texts, refuse_values

BATCH = 256  # rows of a step, as in the codes of Tip-Adapter, TaskRes and CLAP
NEVER = -1e9  # added to the logit of a class that a mask has no row of, so that it has no share


@dataclass(frozen=True)
class Batch:
    """The rows that K masks use in one step.

    Attributes:
        features: ``(K, b, D)``.
        targets: ``(C, K, b, 1)``: 1 where a row may be of a class.
        weights: ``(K, b, 1)``, with sum 1 over the rows of a mask; 0 for padding.
        bars: ``(C, K, 1, 1)``: 0, or ``NEVER`` for a class that the mask has no row of.
        masks: ``(K,)``, which masks these are.
    """

    features: Tensor
    targets: Tensor
    weights: Tensor
    bars: Tensor
    masks: Tensor


Gradient = Callable[[list[Tensor], Batch], Sequence[Tensor]]


def batches(rows: np.ndarray, features: Tensor, targets: Tensor, *, seed: int) -> list[list[Batch]]:
    """Cut the rows of each mask into batches of at most ``BATCH``, shuffled once.

    Masks with equally many batches go together, so that a fit is the same in any company.

    Args:
        rows: ``(K, N)`` bool.
        features: ``(N, D)``, or ``(K, N, D)`` where each mask has its own.
        targets: ``(N, C)``, 1 where a row may be of a class.
        seed: Fixes the order.
    """
    present = seen(rows, targets)
    own = [np.random.default_rng(seed).permutation(np.flatnonzero(mask)) for mask in rows]
    counts = np.array([math.ceil(len(o) / BATCH) for o in own])
    cut = []
    for count in np.unique(counts):
        masks = np.flatnonzero(counts == count)
        longest = max(len(own[k]) for k in masks)
        index = np.zeros((len(masks), longest), dtype=np.int64)
        real = np.zeros((len(masks), longest), dtype=np.float32)
        for place, k in enumerate(masks):
            index[place, : len(own[k])], real[place, : len(own[k])] = own[k], 1
        chosen, weights = torch.from_numpy(index), torch.from_numpy(real)
        x = _gather(features, masks, chosen)
        y = targets[chosen].permute(2, 0, 1)[..., None].contiguous()  # (C, K, n, 1)
        bars = torch.where(present[masks], 0.0, NEVER).T[..., None, None]
        parts = []
        for start in range(0, longest, BATCH):
            part = slice(start, start + BATCH)
            share = weights[:, part] / weights[:, part].sum(dim=1, keepdim=True)
            cut_off = x[:, part], y[:, :, part], share[..., None], bars
            parts.append(Batch(*cut_off, torch.from_numpy(masks)))
        cut.append(parts)
    return cut


def _gather(features: Tensor, masks: np.ndarray, chosen: Tensor) -> Tensor:
    if features.ndim == 2:
        return features[chosen]
    return features[torch.from_numpy(masks)[:, None], chosen]


def seen(rows: np.ndarray, targets: Tensor) -> Tensor:
    """Return which classes each mask has a row of, ``(K, C)`` bool."""
    return torch.from_numpy(rows.astype(np.float32)) @ targets > 0


def descend(
    parameters: list[Tensor],
    gradient: Gradient,
    parts: list[list[Batch]],
    *,
    rates: Tensor,
    steps: int,
    kind: str = "adam",
    decay: float | Tensor = 0.0,
    epsilon: float = 1e-8,
) -> None:
    """Take ``steps`` steps in place, the rate falling to 0 along half a cosine.

    PyTorch's optimisers take one rate for a tensor; here each point has its own, and views of the
    tensor in groups of one rate were no faster, fused or not. The steps are those of
    ``torch.optim.AdamW`` (decay apart from the gradient) or of ``SGD`` with momentum .9.

    Args:
        parameters: Each ``(K, P, …)``.
        gradient: Gives the gradient of each fit's loss by the parameters of a batch's masks.
        parts: From :func:`batches`.
        rates: ``(P,)``, those of the first step.
        kind: ``adam`` or ``sgd``.
        decay: A share of the rate by which weights shrink in a step, or ``(P,)`` of them.
        epsilon: Adam's.
    """
    for group in parts:
        masks = group[0].masks
        own = [parameter[masks] for parameter in parameters]
        first = [torch.zeros_like(parameter) for parameter in own]
        second = [torch.zeros_like(parameter) for parameter in own] if kind == "adam" else first
        spare = [torch.empty_like(parameter) for parameter in own]
        shapes = [(1, -1) + (1,) * (parameter.ndim - 2) for parameter in own]
        for step in range(steps):
            slow = 0.5 * (1 + math.cos(math.pi * step / steps))
            found = gradient(own, group[step % len(group)])
            each = zip(own, found, first, second, spare, shapes, strict=True)
            for w, g, m, v, room, shape in each:
                rate = (rates * slow).view(shape)
                if torch.is_tensor(decay) or decay:
                    w.mul_(1 - rate * (decay.view(shape) if torch.is_tensor(decay) else decay))
                if kind == "sgd":
                    m.mul_(0.9).add_(g)
                    w.addcmul_(m, rate, value=-1)
                    continue
                m.lerp_(g, 0.1)
                v.mul_(0.999).addcmul_(g, g, value=0.001)
                root = torch.sqrt(v, out=room).mul_(1 / math.sqrt(1 - 0.999 ** (step + 1)))
                change = torch.div(m, root.add_(epsilon), out=room)
                w.addcmul_(change, rate / (1 - 0.9 ** (step + 1)), value=-1)
        for parameter, fitted in zip(parameters, own, strict=True):
            parameter[masks] = fitted


def by_autograd(loss: Callable[[list[Tensor], Batch], Tensor]) -> Gradient:
    """Return the gradient of a loss ``(K, P)``; the sum's parts don't share parameters."""

    def gradient(parameters: list[Tensor], batch: Batch) -> Sequence[Tensor]:
        leaves = [parameter.detach().requires_grad_() for parameter in parameters]
        with torch.enable_grad():
            return torch.autograd.grad(loss(leaves, batch).sum(), leaves)

    return gradient


def residual(logits: Tensor, batch: Batch) -> Tensor:
    """Return the gradient of the mean cross-entropy by logits ``(K, b, P, C)``."""
    share = (logits.movedim(3, 0) + batch.bars).softmax(dim=0)  # along the last it is slow
    return share.sub_(batch.targets).mul_(batch.weights).movedim(0, 3).contiguous()


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of logits ``(K, b, P, C)``, ``(K, P)``."""
    share = (logits.movedim(3, 0) + batch.bars).log_softmax(dim=0)
    return -(share * batch.targets).sum(dim=0).mul(batch.weights).sum(dim=1)


def unit(features: np.ndarray) -> Tensor:
    """Return rows of length one, float32."""
    x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    return torch.nn.functional.normalize(x, dim=1)


def class_targets(support: Support, rows: np.ndarray, name: str, *, texts: bool = True) -> Tensor:
    """Return one row a label ``(N, C)``, if the strategy ``name`` can learn this task.

    Grades are learnt as classes. Without ``texts`` the strategy needs none.

    Raises:
        ValueError: The labels are values, there are no texts of the classes, or a mask has no row.
    """
    empty = np.flatnonzero(~rows.any(axis=1)).tolist()
    if empty:
        raise ValueError(f"Masks {empty} have no row to learn from. Leave them out.")
    (class_texts if texts else refuse_values)(support, name)
    labels = torch.from_numpy(np.asarray(support.labels, dtype=np.int64))
    return torch.nn.functional.one_hot(labels, support.classes).float()


def by_name(points: Sequence[Point], **defaults: float) -> dict[str, Tensor]:
    """Return each hyper-parameter's values ``(P,)``, by name; a point may leave some out.

    Raises:
        ValueError: A point names a hyper-parameter that the strategy does not have.
    """
    unknown = sorted({name for point in points for name in point} - set(defaults))
    if unknown:
        raise ValueError(
            f"Unknown hyper-parameters {', '.join(unknown)}. Choose among {', '.join(defaults)}."
        )
    return {
        name: torch.tensor([float(point.get(name, value)) for point in points])
        for name, value in defaults.items()
    }


def drawn(shapes: Sequence[tuple[int, int]], fits: tuple[int, int], *, seed: int) -> list[Tensor]:
    """Draw matrices as ``nn.Linear`` does, the same ones for all K masks and P points ``fits``."""
    draw = torch.Generator().manual_seed(seed)
    first = [(2 * torch.rand(shape, generator=draw) - 1) / shape[0] ** 0.5 for shape in shapes]
    return [matrix.expand(*fits, *matrix.shape).clone() for matrix in first]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: products of this size gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)
