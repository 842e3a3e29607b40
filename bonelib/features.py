"""The store of frozen features: each image goes through each set of weights once.

An encoder and a loader come in; raw pooled features, float32 ``(N, D)``, go out and stay on disk
under a key of weights, preprocessing and image content. Unit length is taken where cosines are
used, not here.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def _stored(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Read ``path``, or compute it and write it by rename."""
    if path.exists():
        return np.load(path)
    array = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npy")
    with os.fdopen(handle, "wb") as file:
        np.save(file, array)
    Path(temporary).replace(path)
    return array


def key(encoder: Any, weights: str, content: str, image_ids: Iterable[str]) -> str:
    """Return the name of a feature file: a hash of all that the features depend on."""
    facts = [weights, asdict(encoder.preprocessing), content, list(image_ids)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def encode(forward: Callable[[Tensor], Tensor], loader: Iterable[dict[str, Any]]) -> np.ndarray:
    """Run ``forward`` over the images of a loader without gradients: float32 ``(N, D)``.

    ``no_grad`` rather than ``inference_mode``: under the latter bf16 autocast makes
    ``nn.MultiheadAttention`` four to five times slower on a CPU.
    """
    with torch.no_grad():
        parts = [
            forward(batch["image"].to(memory_format=torch.channels_last)).float().cpu()
            for batch in loader
        ]
    return torch.cat(parts).numpy()


def image_features(
    encoder: nn.Module, loader: Any, *, folder: Path, weights: str, content: str
) -> np.ndarray:
    """Return pooled features ``(N, D)`` in the loader's order, computed once.

    Args:
        encoder: An image tower; it is put into evaluation mode for the pass and back after it.
        loader: Loader without shuffling or augmentation over images preprocessed for the tower.
        folder: Where the store lies.
        weights: ``encoders.weights_hash(encoder)``.
        content: The key of the image cache.
    """

    def compute() -> np.ndarray:
        training = encoder.training
        encoder.eval().to(memory_format=torch.channels_last)
        try:
            return encode(encoder, loader)
        finally:
            encoder.train(training)

    return _stored(folder / f"{key(encoder, weights, content, loader.image_ids)}.npy", compute)
