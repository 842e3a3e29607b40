"""Classify and retrieve by words alone.

Unit features of images and prompts come in; logits, ranks and recalls go out. Whether a number may
be called zero-shot depends on the captions of the pretraining (``captions.supervision``).
Prompt ensembles: Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
"""

from typing import Any

import numpy as np
import torch


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
    ask for one string among equals.

    Args:
        image_features: ``(N, D)`` unit rows.
        text_features: ``(N, D)`` unit rows, caption i beside image i.
        keys: ``(N, K)`` attribute keys, -1 where missing.
    """
    similarity = image_features @ text_features.T  # (N, N)
    right = np.eye(len(similarity), dtype=bool)
    if keys is not None:
        right |= ((keys[:, None] == keys[None]) & (keys[:, None] >= 0)).all(-1)
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
    rank = (similarity > best).sum(axis=1) + 1
    share, n = right.mean(axis=1), len(similarity)
    found = {f"recall_{k}": float((rank <= k).mean()) for k in (1, 5, 10)}
    # Chance that none of k captions drawn without replacement is one of the right ones.
    chance = {
        f"chance_{k}": float(
            1
            - np.mean(
                [np.prod((n - s * n - np.arange(k)).clip(0) / (n - np.arange(k))) for s in share]
            )
        )
        for k in (1, 5, 10)
        if k <= n
    }
    return found | {"median_rank": float(np.median(rank))} | chance
