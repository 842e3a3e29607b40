"""A second stage for whom the first is not sure of.

Entropy gate: Wei 2024 (CascadeVLM), arXiv:2405.11301. How much the sure err:
``evaluation.risk_coverage``.
"""

from collections.abc import Callable

import numpy as np

from bonelib import evaluation

STEPS = 10  # thresholds that validation chooses among, at equal steps of its images


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
