"""Classes as the mean of their prompts: sentences and unit features in, logits out.

Prompt ensembles: Radford et al. 2021, arXiv:2103.00020, section 3.1.4. The pair's own bias:
Zhai et al. 2023, arXiv:2303.15343.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

AT_ONCE = 256  # sentences that go through a text tower together


def text_features(model: Any, sentences: Iterable[str]) -> dict[str, np.ndarray]:
    """Encode each distinct sentence once; its unit features ``(D,)`` by the sentence."""
    distinct, rows = list(dict.fromkeys(sentences)), []
    with torch.no_grad():
        for start in range(0, len(distinct), AT_ONCE):
            tokens = model.tokenize(distinct[start : start + AT_ONCE])
            rows += [*model.encode_text(tokens).float().cpu().numpy()]
    return dict(zip(distinct, rows, strict=True))


def class_features(model: Any, prompts: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return one unit vector a class ``(C, D)``: the normalised mean of its prompts' features.

    Raises:
        ValueError: A class has no prompt, or two have the same, which no image can tell apart.
    """
    seen: dict[frozenset[str], str] = {}
    for name, said in prompts.items():
        if not said:
            raise ValueError(f"The class {name!r} has no prompt. Give it one, or leave it out.")
        if (other := seen.setdefault(frozenset(said), name)) != name:
            raise ValueError(
                f"The classes {other!r} and {name!r} have the same prompts: no image can tell them "
                "apart. Name each in its own words."
            )
    known = text_features(model, (s for said in prompts.values() for s in said))
    return unit_means([known[s] for s in said] for said in prompts.values())


def unit_means(parts: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    """Return the mean of each part's rows, at unit length."""
    means = [np.mean(rows, axis=0) for rows in parts]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def logits(
    image_features: np.ndarray, class_features: np.ndarray, *, scale: float, bias: float = 0.0
) -> np.ndarray:
    """Return ``(N, C)`` logits, ``scale * cos + bias``; ``evaluation`` makes probabilities of them.

    The bias of a sigmoid pair is the same for all classes: softmax does not feel it, but the logit
    of one class alone, read by the sigmoid, does.
    """
    return scale * image_features @ class_features.T + bias


def site_logits(
    image_features: np.ndarray,
    classes: Mapping[str, np.ndarray],
    sites: Sequence[tuple[str, ...]],
    *,
    scale: float,
) -> np.ndarray:
    """Return ``(N, C)`` logits where each image is asked by the prompts of its own site.

    Args:
        classes: ``(C, D)`` of `class_features` by site; under ``""`` those that name none.
        sites: Of each image. Where there are several, a class is the unit mean over them; where
            none has prompts, those without a site are asked.
    """
    out = np.empty((len(image_features), len(classes[""])), np.float32)
    asked = [tuple(s for s in named if s in classes) or ("",) for named in sites]
    for named in set(asked):
        rows = np.array([one == named for one in asked])
        means = unit_means(zip(*(classes[site] for site in named), strict=True))
        out[rows] = logits(image_features[rows], means, scale=scale)
    return out


def expected(logits: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Return the value that the classes expect, where each stands for one: ``(N, C)`` to ``(N,)``.

    So a regression is asked in words: the mean age of the stages, weighed by their probabilities.

    Raises:
        ValueError: There are not as many values as columns.
    """
    if logits.shape[1:] != np.shape(values):
        raise ValueError(f"Logits {logits.shape} need {logits.shape[1]} values, not {len(values)}.")
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p @ np.asarray(values, dtype=np.float64) / p.sum(axis=1)


def wording_logits(
    model: Any, image_features: np.ndarray, prompts: Mapping[str, Sequence[str]]
) -> dict:
    """Return cosines for each single prompt position, to show how much hangs on the wording.

    Position k takes the k-th prompt of every class; classes with fewer prompts repeat theirs.
    """
    known = text_features(model, (s for said in prompts.values() for s in said))
    out = {}
    for k in range(max(map(len, prompts.values()))):
        single = [said[k % len(said)] for said in prompts.values()]
        classes = np.stack([known[s] for s in single])
        out[" / ".join(single)] = logits(image_features, classes, scale=1.0)
    return out
