"""Classify and retrieve by words alone.

Unit features of images and prompts come in; logits, ranks and recalls go out. Whether a number may
be called zero-shot depends on the captions of the pretraining (``captions.supervision``).
Prompt ensembles: Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

TIE = 1e-6  # cosines closer than this are equal: the resolution of float32 sums


def class_features(model: Any, prompts: dict[str, list[str]]) -> np.ndarray:
    """Return one unit vector a class ``(C, D)``: the normalised mean of its prompts' features."""
    rows = []
    with torch.no_grad():
        for sentences in prompts.values():
            mean = model.encode_text(model.tokenize(sentences)).mean(dim=0)
            rows.append((mean / mean.norm()).cpu().numpy())
    return np.stack(rows)


def logits(image_features: np.ndarray, class_features: np.ndarray, *, scale: float) -> np.ndarray:
    """Return ``(N, C)`` logits, the scaled cosines; ``evaluation`` makes probabilities of them."""
    return scale * image_features @ class_features.T


def expected(logits: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Return the value that the classes expect, where each stands for one: ``(N, C)`` to ``(N,)``.

    So a regression is asked in words: the mean age of the stages, weighed by their probabilities.

    Raises:
        ValueError: There are not as many values as columns.
    """
    values = np.asarray(values, dtype=np.float64)
    if logits.shape[1:] != values.shape:
        raise ValueError(f"Logits {logits.shape} need {logits.shape[1]} values, not {len(values)}.")
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p @ values / p.sum(axis=1)


def wording_logits(model: Any, image_features: np.ndarray, prompts: dict[str, list[str]]) -> dict:
    """Return logits for each single prompt position, to show how much hangs on the wording.

    Position k takes the k-th prompt of every class; classes with fewer prompts repeat theirs.
    """
    longest = max(len(sentences) for sentences in prompts.values())
    out = {}
    for k in range(longest):
        single = {name: [s[k % len(s)]] for name, s in prompts.items()}
        wording = " / ".join(s[0] for s in single.values())
        out[wording] = logits(image_features, class_features(model, single), scale=1.0)
    return out


def retrieval(
    image_features: np.ndarray, text_features: np.ndarray, *, keys: np.ndarray | None = None
) -> dict[str, float]:
    """Return recall@1, @5, @10 and the median rank, image to text, and the same by chance.

    A caption that means the same (equal keys) counts as found: a set whose captions repeat can't
    ask for one string among equals. Where captions tie in similarity, any order of them is as good
    as another and the expectation over orders counts, so that constant features score by chance.

    Args:
        image_features: ``(N, D)`` unit rows.
        text_features: ``(N, D)`` unit rows, caption i beside image i.
        keys: ``(N, K)`` attribute keys, -1 where a caption says nothing.
    """
    ahead, among, hits, right = _places(image_features, text_features, keys)
    rank = ahead + (among + 1) / (hits + 1)  # expected place of the first right one among the tied
    found, chance = {}, {}
    for k in (1, 5, 10):
        found[f"recall_{k}"] = float(np.mean(_drawn(among, hits, k - ahead)))
        if k <= len(right):
            everything = np.full(len(right), len(right))
            drawn = _drawn(everything, right.sum(axis=1), np.full(len(right), k))
            chance[f"chance_{k}"] = float(np.mean(drawn))
    return found | {"median_rank": float(np.median(rank))} | chance


def hits(
    query_features: np.ndarray,
    found_features: np.ndarray,
    *,
    keys: np.ndarray | None = None,
    first: int = 1,
) -> np.ndarray:
    """Return for each query whether a right answer stands among the ``first`` found, ``(N,)``.

    The rows behind ``recall_k`` of :func:`retrieval`, for an interval over patients; between 0 and
    1 where answers tie.
    """
    ahead, among, right, _ = _places(query_features, found_features, keys)
    return _drawn(among, right, first - ahead)


def _places(queries: np.ndarray, found: np.ndarray, keys: np.ndarray | None) -> tuple:
    """Return how many stand ahead of the best right answer, tie with it, and are right of those."""
    similarity = queries @ found.T  # (N, N)
    right = np.eye(len(similarity), dtype=bool)
    if keys is not None:
        right |= (keys[:, None] == keys[None]).all(-1) & (keys >= 0).any(1)
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    # Equal captions come out of a matrix product equal to the last bits only.
    ahead = (similarity > best + TIE).sum(axis=1)
    tied = np.abs(similarity - best) <= TIE
    return ahead, tied.sum(axis=1), (tied & right).sum(axis=1), right


def _drawn(pool: np.ndarray, right: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the chance that ``draws`` of ``pool`` without replacement hold one of ``right``."""
    steps = np.arange(max(1, int(draws.max(initial=0))))  # (draws,)
    pool, right, draws = (v[:, None] for v in (pool, right, draws))
    missed = (pool - right - steps).clip(0) / (pool - steps).clip(1)
    return 1 - np.where(steps < draws, missed, 1.0).prod(axis=1)
