"""A head for grades on frozen features: one logistic regression for each threshold.

Frank & Hall 2001, A simple approach to ordinal classification, ECML (recalled). Each threshold has
slopes of its own: what tells a doubtful joint from a normal one is not what tells a severe one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bonelib.adaptation.linear import Linear, probe
from bonelib.adaptation.support import Point, Support, never_winning

TINY = 1e-12  # a grade between thresholds that cross has no share; its logarithm stays finite


@dataclass(frozen=True)
class Cumulative:
    """Heads of K masks and P points, a linear one for each threshold between grades.

    Attributes:
        above: C - 1 binary heads; the second class of head k is "above grade k".
        present: ``(K, C)`` bool, the grades that have a row.
    """

    above: Sequence[Linear]
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``: the logarithm of the share of each grade."""
        both = np.stack([head.logits(features) for head in self.above], axis=-1)
        shares = 0.5 * (1 + np.tanh((both[..., 1, :] - both[..., 0, :]) / 2))  # above each grade
        # What lies above a grade lies above those below it: thresholds fitted apart may cross.
        shares = np.minimum.accumulate(shares, axis=-1)
        ends = np.ones_like(shares[..., :1])
        grades = -np.diff(np.concatenate([ends, shares, 0 * ends], axis=-1), axis=-1)
        return never_winning(np.log(np.maximum(grades, TINY)), self.present)

    def of(self, mask: int) -> "Cumulative":
        """Return the heads of one mask, K = 1."""
        one = slice(mask, mask + 1)
        return Cumulative([head.of(mask) for head in self.above], self.present[one])


def cumulative(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Cumulative:
    """Fit ``P(y > k)`` for each grade k but the last; see the module.

    Args:
        points: ``strength``, the C of `linear.probe`, the same for all thresholds.
    """
    heads = [
        probe(
            replace(support, labels=(support.labels > k).astype(int), classes=2, ordinal=False),
            rows,
            points,
        )
        for k in range(support.classes - 1)
    ]
    return Cumulative(heads, support.present(rows))
