"""Classes by what a reader sees: signs named first, then added up by a stated table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def attribute_logits(
    image_features: np.ndarray,
    signs: Mapping[str, Mapping[str, np.ndarray]],
    weights: pd.DataFrame,
    classes: Sequence[str],
    *,
    scale: float,
) -> np.ndarray:
    """Return ``(N, C)`` logits, the points that an image's signs are expected to give a class.

    ``logit[c] = sum over signs s and terms t of weight[c, s, t] * p(t | s)``, where
    ``p(t | s) = softmax over the terms of s of scale * cos(image, t)``. So each sign is read by
    itself, as a softmax among its own terms, and a class is a linear score of them, as a points
    table of radiology is (attribute-based classification: Lampert et al. 2009, recalled).

    Args:
        image_features: ``(N, D)`` unit rows.
        signs: For each sign its terms, each with unit features ``(D,)``.
        weights: Rows of ``captions.attribute_weights``: class, sign, term, weight.

    Raises:
        ValueError: A class has no weight, or a weight is of a term that has no prompts.
    """
    from scipy.special import softmax

    lacking = [name for name in classes if name not in set(weights["class"])]
    if lacking:
        raise ValueError(f"The table of signs gives no weight to {', '.join(lacking)}.")
    out = np.zeros((len(image_features), len(classes)))
    rows = weights[weights["class"].isin(classes)]
    for sign, part in rows.groupby("sign"):
        terms = signs.get(sign, {})
        odd = sorted(set(part["term"]) - set(terms))
        if odd:
            raise ValueError(f"No prompts for {sign} = {', '.join(odd)}, which the table weighs.")
        p = softmax(scale * image_features @ np.stack(list(terms.values())).T, axis=1)
        points = part.pivot_table("weight", "term", "class", aggfunc="sum")
        points = points.reindex(index=list(terms), columns=list(classes)).fillna(0.0)
        out += p @ points.to_numpy(dtype=float)
    return out
