"""Strategies that fine-tune from the head of a linear probe, so that the features bend less.

A head of zeros pulls the features about before it says anything (Kumar et al. 2022); one that fits
the frozen features leaves the tower near its start, where weights can be averaged.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from bonelib import training
from bonelib.adaptation.objectives import standard
from bonelib.adaptation.towers import full
from bonelib.adaptation.tunings import Training, Tuning

ALPHAS = tuple(k / 10 for k in range(10, -1, -1))  # of a tie the first counts: the fine-tuned end


def lp_ft(tuning: Tuning) -> AbstractContextManager[Training]:
    """Train every weight, from the head of a linear probe on frozen features.

    LP-FT, Kumar et al. 2022, arXiv:2202.10054. The probe's clip of features
    that lie far out (``support.REACH``) has no place in a linear head and is left out.
    """
    take_probe(tuning)
    return full(tuning)


def take_probe(tuning: Tuning) -> None:
    """Write a probe on frozen features into the head.

    Raises:
        ValueError: There is no probe.
    """
    probe, head = tuning.probe, tuning.model.head
    if probe is None:
        raise ValueError(
            "The training starts from a linear probe, and none is given. Pass "
            "probe=adaptation.probe(…) on frozen features of the training images."
        )
    weights = (probe.weights / probe.scale[:, None]).T  # of raw features
    bias = probe.bias - weights @ probe.mean
    if tuning.regression:  # the head learns standardised values
        center, scale = standard(tuning.labels)
        weights, bias = weights / scale, (bias - center) / scale
    with torch.no_grad():
        head.get_parameter("weight").copy_(torch.from_numpy(weights))
        head.get_parameter("bias").copy_(torch.from_numpy(bias))


@contextlib.contextmanager
def wise_ft(tuning: Tuning) -> Iterator[Training]:
    r"""Train as ``lp_ft``, then average all weights with those of the start.

    .. math:: \theta = (1 - \alpha)\, \theta_0 + \alpha\, \theta_{FT}

    WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903, equation 1. Departures: the start's head is a
    probe's in place of the zero-shot one, so that towers without texts have it too; alpha is chosen
    among 0, 0.1, …, 1 on validation images, where the paper reports 0.5.

    Raises:
        ValueError: There is no probe, or nothing to judge by.
    """
    if tuning.judge is None:
        raise ValueError("WiSE-FT chooses alpha on validation images: pass judge.")
    with lp_ft(tuning) as trained:
        model = tuning.model
        first = {name: value.detach().clone() for name, value in model.state_dict().items()}
        yield trained
        last = {name: value.detach().clone() for name, value in model.state_dict().items()}
        scores = {}
        for alpha in ALPHAS:
            mix(model, first, last, alpha)
            scores[alpha] = tuning.judge(model)
        trained.chosen["alpha"] = max(scores, key=scores.__getitem__)
        mix(model, first, last, trained.chosen["alpha"])


def mix(
    model: torch.nn.Module,
    first: dict[str, torch.Tensor],
    last: dict[str, torch.Tensor],
    alpha: float,
) -> None:
    """Put ``alpha`` of the last weights and the rest of the first ones into a model."""
    model.load_state_dict(last)
    model.load_state_dict(training.toward(model, first, 1 - alpha))
