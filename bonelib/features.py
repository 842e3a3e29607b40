"""The store of frozen features: each image goes through each set of weights once.

An encoder and a loader come in; raw pooled features, float32 ``(N, D)``, go out and stay on disk
under a key of weights, preprocessing and image content. Unit length is taken where cosines are
used, not here.
"""

import contextlib
import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonelib import encoders
from bonelib.runs.files import replacing

PIECE = 2**22  # bytes of a feature file that are looked at at once
TRIED = 1  # images on which folded batch norms are compared with the tower as it is


def key(encoder: Any, weights: str, content: str, image_ids: Iterable[str]) -> str:
    """Return the name of a feature file: a hash of all that the features depend on.

    The architecture is one of them: the same tensors in another network give other features.
    """
    facts = [weights, encoder.architecture(), content, list(image_ids)]
    facts += ["folded"] * any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def encode(
    forward: Callable[[Tensor], Tensor],
    loader: Iterable[dict[str, Any]],
    *,
    rows: int = 0,
    fold: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Run ``forward`` over the images of a loader without gradients: float32 ``(N, D)``.

    Images go to the device of the module that ``forward`` is or belongs to. ``no_grad`` rather than
    ``inference_mode``: under the latter bf16 autocast makes ``nn.MultiheadAttention`` four to five
    times slower on a CPU.

    Args:
        rows: How many images there are, if known: their features then lie in memory once, and no
            more than one batch beside them.
        fold: Fold batch norms (``encoders.foldable``) of the module in evaluation mode that
            ``forward`` is or belongs to, as its first ``TRIED`` images show that they can be.
        progress: Called with (images done, ``rows``) after each batch.

    Raises:
        ValueError: The loader gives another number of images than ``rows``.
    """
    if not rows:
        return np.concatenate(list(_batches(forward, loader, fold)))
    out, done = np.empty((0, 0), np.float32), 0
    for part in _batches(forward, loader, fold):
        if not done:
            out = np.empty((rows, *part.shape[1:]), np.float32)
        if done + len(part) <= rows:
            out[done : done + len(part)] = part
        done += len(part)
        if progress is not None:
            progress(done, rows)
    if done != rows:
        raise ValueError(f"The loader gave {done} images, not the {rows} that it names.")
    return out


def _batches(
    forward: Callable[[Tensor], Tensor], loader: Iterable[dict[str, Any]], fold: bool
) -> Iterator[np.ndarray]:
    module = getattr(forward, "__self__", forward)
    parameters = module.parameters() if isinstance(module, nn.Module) else iter(())
    device = next((p.device for p in parameters), torch.device("cpu"))
    with contextlib.ExitStack() as stack:
        for batch in loader:
            with torch.no_grad():  # not around the yield: it would hold for the caller as well
                image = batch["image"].to(device, memory_format=torch.channels_last)
                if fold and isinstance(module, nn.Module):
                    pairs = encoders.foldable(module, forward, image[:TRIED])
                    stack.enter_context(encoders.folded(pairs))
                fold = False
                found = forward(image).float().cpu().numpy()
            yield found


def encode_text(model: Any, tokens: Tensor, *, at_once: int = 256) -> np.ndarray:
    """Return ``model.encode_text`` of many tokens without gradients: float32 ``(N, D)``."""
    with torch.no_grad():
        parts = [model.encode_text(part).float().cpu() for part in tokens.split(at_once)]
    return torch.cat(parts).numpy()


def projected(model: Any, pooled: np.ndarray) -> np.ndarray:
    """Return the unit features that ``model.encode_image`` makes of stored ones, ``(N, dim)``."""
    with torch.no_grad():
        x = model.image_projection(torch.from_numpy(pooled).to(model.logit_scale.device))
        return nn.functional.normalize(x, dim=-1).cpu().numpy()


def _check(encoder: Any, loader: Any) -> None:
    found = [f"{name}=True" for name in ("shuffle", "drop_last") if getattr(loader, name, False)]
    if getattr(loader, "augment", None) is not None:
        found.append("augment is on")
    expected = encoder.preprocessing
    for name in ("mean", "std"):
        given = tuple(getattr(loader, name, getattr(expected, name)))
        if given != tuple(getattr(expected, name)):
            found.append(f"{name}={given}, the weights expect {getattr(expected, name)}")
    if found:
        raise ValueError(
            f"This loader can't fill the feature store: {'; '.join(found)}. Make it with "
            "images.loader(cache, ids, batch_size=…, **encoder.preprocessing.pixels())."
        )


def image_features(
    encoder: nn.Module,
    loader: Any,
    *,
    folder: Path,
    weights: str,
    content: str,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return pooled features ``(N, D)`` in the loader's order, computed once.

    A file that is cut off or whose bytes changed (it ends in their CRC-32) is made anew.

    Args:
        encoder: An image tower; for the pass it is put into evaluation mode, and on a GPU if there
            is one, and back after it.
        loader: Loader over images preprocessed for the tower, in order and as they are.
        folder: Where the store lies.
        weights: ``encoders.weights_hash(encoder)``.
        content: The key of the image cache.
        progress: Called with (images done, images in all) where they are not stored yet.

    Raises:
        ValueError: The loader shuffles, varies or drops images, or prepares them for other weights;
            such features would be stored under a name they don't deserve.
    """
    _check(encoder, loader)
    path = folder / f"{key(encoder, weights, content, loader.image_ids)}.npy"
    stored = _stored(path)
    if stored is not None:
        return stored
    modes = {module: module.training for module in encoder.modules()}
    home = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    where = "cuda" if torch.cuda.is_available() else home  # a GPU has not run here
    encoder.eval().to(where).to(memory_format=torch.channels_last)
    try:
        told = dict(rows=len(loader.image_ids), progress=progress)
        found = encode(encoder, loader, **told)
    finally:
        for module, training in modes.items():
            module.training = training
        encoder.to(home)
    try:
        _store(path, found)
    except OSError as error:  # they serve this run nevertheless
        told = f"Features can't be kept in {folder} ({error.strerror or error})"
        warnings.warn(f"{told}: they are computed again by the next run.", stacklevel=2)
    return found


def _store(path: Path, found: np.ndarray) -> None:
    """Write what ``np.save`` writes and its CRC-32, from the memory in which the features lie."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(found))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(head.getvalue())
        file.write(found.data)
        file.write(zlib.crc32(found.data, zlib.crc32(head.getvalue())).to_bytes(4))


def _stored(path: Path) -> np.ndarray | None:
    """Read a feature file; None where there is none that is whole, so that it is made anew."""
    try:
        with open(path, "rb") as file:
            crc, left = 0, path.stat().st_size - 4
            while left > 0 and (piece := file.read(min(left, PIECE))):
                crc, left = zlib.crc32(piece, crc), left - len(piece)
            if left == 0 and crc == int.from_bytes(file.read()):
                file.seek(0)
                return np.load(file)
    except OSError:
        return None
    warnings.warn(f"{path} is cut off or damaged: its features are computed anew.", stacklevel=3)
    return None
