"""A gate between zero-shot and few-shot: who is unsure asks the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bonelib import evaluation
from bonelib.adaptation import descent, text_heads
from bonelib.adaptation.support import Heads, Point, Strategy, Support, never_winning

SECOND = {"rate": 1e-3, "constraint": 100.0}  # CLAP as published, which needs no search


@dataclass(frozen=True)
class CascadeHeads:
    """Zero-shot where its entropy is low, a second head elsewhere.

    Attributes:
        second: Heads of K masks and one point.
        texts: ``(C, D)`` unit rows.
        scale: Factor on the cosines.
        thresholds: ``(P,)``, shares of the largest entropy, below which zero-shot decides: never
            at 0, always above 1.
        present: ``(K, C)``.
    """

    second: Heads
    texts: np.ndarray
    scale: float
    thresholds: np.ndarray
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return log-probabilities ``(K, P, M, C)``; absent classes never win."""
        with descent.one_thread():
            cosines = descent.unit(features).numpy() @ self.texts.T
        closed = np.where(self.present, 0.0, -np.inf)[:, None, None]  # (K, 1, 1, C)
        first = _log_share(self.scale * cosines)  # (M, C)
        second = _log_share(self.second.logits(features) + closed)  # (K, 1, M, C)
        sure = evaluation.entropy(first) < self.thresholds[:, None]  # (P, M)
        out = np.where(sure[:, :, None], _log_share(first + closed), second)
        return never_winning(out, self.present)


def cascade(
    support: Support,
    rows: np.ndarray,
    points: Sequence[Point],
    *,
    second: Strategy = text_heads.clap,
    at: Point = SECOND,
) -> CascadeHeads:
    """Fit the entropy gate of CascadeVLM, with a few-shot head as the second stage.

    Wei 2024, arXiv:2405.11301: zero-shot probabilities are accepted where their entropy ``-sum p
    log p`` is below a threshold, else a second model decides. There it is a large vision-language
    model that is shown the candidates; here it is a head fitted to the shots. The threshold is a
    point, so it is chosen on inner folds, on images that the second head has not seen.

    Args:
        second: A strategy, fitted once a mask at the point ``at``.
    """
    descent.class_targets(support, rows, "cascade")
    assert support.texts is not None, "which class_targets has refused"
    thresholds = descent.by_name(points, threshold=0.0)["threshold"].numpy()
    heads = second(support, rows, [at])
    present = support.present(rows)
    return CascadeHeads(heads, support.texts, support.scale, thresholds, present)


def _log_share(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
