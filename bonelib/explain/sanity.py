"""Whether a heat map depends on what the model has learnt: Adebayo et al. 2018, arXiv:1810.03292.

A map that stays as it is when the weights or the labels are random shows the image, not the model.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

from bonelib.explain.localisation import LEFT_OUT


def randomised(
    model: nn.Module, seed: int = 0, *, steps: int = 6
) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies of a model whose weights are random from the top down, more with each.

    In the first the head alone is random, in the last all is. Modules count in the order in which
    they are registered: that of the forward pass in timm and in our models. A weight is drawn from
    a normal distribution with the mean and the deviation of its tensor, so that the signal neither
    dies nor grows; running statistics stay. A matrix that the model itself holds as a buffer is its
    head: the weights of a fitted probe, the vectors of classes in words. A random head speaks
    against a fixed class as often as for it, and Grad-CAM is blank then: compare maps of the
    highest of several outputs, and of the size of a single one.

    Args:
        steps: How many copies, at equal numbers of modules.

    Yields:
        The name of the module that was drawn last, and the model.
    """
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    owners = dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters())
    parts = {name: [*model.get_submodule(name).parameters(recurse=False)] for name in owners}
    buffers = ((n, b) for n, b in model.named_buffers(recurse=False) if b.is_floating_point())
    parts |= {name: [held] for name, held in buffers if held.ndim == 2 and held.isfinite().all()}
    stops = {round(at) for at in np.linspace(0, len(parts) - 1, steps)}
    for number, name in enumerate([*parts][::-1]):
        for tensor in parts[name]:
            value = tensor.detach().float()
            noise = torch.randn(value.shape, generator=generator).to(value.device)
            tensor.data.copy_(value.mean() + value.std(correction=0) * noise)
        if number in stops:
            yield name, copy.deepcopy(model)


def resemblance(maps: np.ndarray, others: np.ndarray) -> pd.DataFrame:
    """Compare two maps of each image: of a model, and of the same with other weights.

    The others are those of a `randomised` model, or of one that was trained on shuffled labels.
    ``np.roll(maps, 1, axis=0)``, maps of other images, shows how alike any two are.

    Args:
        maps: ``(N, H, W)``, not negative, and ``others`` of the same shape.

    Returns:
        ``spearman``: rank correlation over pixels, ties by mean ranks, 0 if the other map alone is
        constant. ``ssim``: of maps divided by their maximum, by the uniform window of 7 × 7 and the
        constants of Wang et al. 2004, doi:10.1109/TIP.2003.819861. ``left_out``: an image whose
        own map is constant, or one of whose maps is not finite, has no scores.
    """
    from scipy.stats import rankdata

    if np.shape(maps) != np.shape(others) or np.ndim(maps) != 3:
        raise ValueError(f"Maps {np.shape(maps)}, {np.shape(others)}; expected both (N, H, W).")
    rows: list[dict[str, float | str]] = []
    for pair in zip(maps, others, strict=True):
        one, other = (np.asarray(heat, dtype=np.float64) for heat in pair)
        if not np.isfinite([one, other]).all():
            rows.append({LEFT_OUT: "map is not finite"})
        elif one.min() == one.max():
            rows.append({LEFT_OUT: "constant map"})
        else:
            flat = other.min() == other.max()
            ranks = 0.0 if flat else np.corrcoef(rankdata(one), rankdata(other))[0, 1]
            alike = _ssim(one / one.max(), other / (other.max() or 1))
            rows.append({"spearman": ranks, "ssim": alike, LEFT_OUT: ""})
    return pd.DataFrame(rows, columns=["spearman", "ssim", LEFT_OUT])


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean structural similarity of two pictures in 0–1 (Wang et al. 2004, eq. 13)."""
    from scipy.ndimage import uniform_filter

    a, b, aa, bb, ab = (uniform_filter(of, 7) for of in (one, other, one**2, other**2, one * other))
    light = (2 * a * b + 0.01**2) / (a**2 + b**2 + 0.01**2)
    spread = aa - a**2 + bb - b**2 + 0.03**2
    return float((light * (2 * (ab - a * b) + 0.03**2) / spread).mean())


def verdict(means: pd.DataFrame, *, threshold: float = 0.5) -> pd.DataFrame:
    """Add ``threshold`` and ``verdict`` to a table of ``evaluation.means`` of `resemblance`.

    "pass": the whole interval lies below the threshold: the map depends on what was randomised.
    "fail": it does not. "open": there is no interval (a single patient). A map that uses no class,
    as EigenCAM, rightly fails where labels were shuffled: it explains features, not a decision.
    Coarse maps of different images have an ``ssim`` near .5 already: judge them by ``spearman``.
    """
    said = np.where(means["high"] < threshold, "pass", "fail")
    said = np.where(means["high"].isna(), "open", said)
    return means.assign(threshold=threshold, verdict=said)
