"""Who is sure enough to answer: risk against coverage, and a second stage for the rest.

Entropy gate: Wei 2024 (CascadeVLM), arXiv:2405.11301. Risk-coverage curves and the area below them:
El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017, arXiv:1705.08500 (both recalled).
"""

from collections.abc import Callable

import numpy as np

from bonelib import evaluation

STEPS = 10  # thresholds that validation chooses among, at equal steps of its images


def selective_risk(
    errors: np.ndarray, doubt: np.ndarray, coverage: float = 0.0
) -> Callable[[np.ndarray], float]:
    """Return the risk at a coverage as a function of image weights, for intervals.

    That is the mean error of the images of least doubt. Where images tie, the expectation over
    their orders counts.

    Args:
        errors: ``(N,)``, 1 where the answer is wrong, or how far it is off.
        doubt: ``(N,)``, larger where the answer is less sure, such as ``evaluation.entropy``.
        coverage: Share of images that are answered; 0 takes the mean risk over all coverages, the
            area below the curve (AURC). A doubt that knows nothing of the errors gets their mean.
    """
    codes = np.unique(doubt, return_inverse=True)[1]

    def statistic(weights: np.ndarray) -> float:
        drawn = np.bincount(codes, weights).astype(int)  # a weight is how often an image is drawn
        mean = np.bincount(codes, weights * errors) / np.maximum(drawn, 1)  # of those that tie
        risk = np.cumsum(np.repeat(mean, drawn)) / np.arange(1, drawn.sum() + 1)
        return risk[max(1, round(coverage * len(risk))) - 1] if coverage else risk.mean()

    return statistic


def gated(first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Return log-probabilities of ``first`` where its entropy is below the threshold, else second.

    Args:
        first: Logits ``(N, C)``. second: Those of the stage that is asked in doubt.
        threshold: Share of the largest entropy; at 0 the second stage decides all, above 1 none.
    """
    shares = [x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (first, second)]
    return np.where((evaluation.entropy(first) < threshold)[:, None], *shares)


def choose_gate(
    first: np.ndarray, second: np.ndarray, score: Callable[[np.ndarray], float]
) -> float:
    """Return the threshold of the highest score, the one that asks the second least among equals.

    Args:
        first, second: Logits of *validation* images; a gate chosen on test images is none.
        score: Of the logits that a gate lets through; higher is better.
    """
    inner = np.quantile(evaluation.entropy(first), np.linspace(0, 1, STEPS + 1)[1:-1])
    cuts = np.unique([0.0, *inner, 2.0])[::-1]
    return float(cuts[np.argmax([score(gated(first, second, cut)) for cut in cuts])])
