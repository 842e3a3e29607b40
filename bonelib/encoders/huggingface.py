"""Towers in Hugging Face folders, loaded by transformers: complete, or refused.

A folder (or the name of a repository, where the hub can be reached) comes in; the bare network of
one side, what its pixels must look like, or its tokenizer go out. A folder that holds an image-text
model gives the side that is asked for.
"""

import contextlib
import importlib.util
import inspect
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bonelib.encoders.weights import WeightsNotAvailable, hub_answers


def vision(
    folder: str, *, weights: str = "pretrained", size: int = 0
) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Return a vision tower, its preprocessing and what rebuilds it.

    Raises:
        ValueError: The weights don't fill the network, or it is no vision tower.
        WeightsNotAvailable: Not a folder, and the hub can't be reached.
    """
    from transformers import AutoImageProcessor

    trunk = _network(folder, "vision_config", weights)
    channels = getattr(trunk.config, "num_channels", 3)
    pixels: dict[str, Any] = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    native = getattr(trunk.config, "image_size", None)
    if weights == "pretrained":
        # Without a processor nobody knows the mean and std these weights expect: an error is right.
        found = _from(AutoImageProcessor, folder)
        if getattr(found, "do_normalize", True):
            pixels = {"mean": tuple(found.image_mean), "std": tuple(found.image_std)}
        else:
            pixels = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
        sizes = dict(getattr(found, "crop_size", None) or found.size)
        native = native or sizes.get("height") or sizes.get("shortest_edge")
    native = native if isinstance(native, int) or native is None else native[0]
    return trunk, pixels | {"size": size or native or 224, "channels": channels}, config(trunk)


def text(folder: str, *, weights: str = "pretrained") -> tuple[nn.Module, Any]:
    """Return a text tower without its pooler, and its tokenizer.

    Raises:
        ValueError: The weights don't fill the network, or it is no encoder of text.
        WeightsNotAvailable: Not a folder, and the hub can't be reached.
    """
    from transformers import AutoTokenizer

    trunk: Any = _network(folder, "text_config", weights)
    if getattr(trunk.config, "is_encoder_decoder", False):
        raise ValueError(f"{folder} holds an encoder with a decoder. Save its encoder by itself.")
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None  # sentence encoders pool by a mean; unused weights break DDP
    return trunk, _from(AutoTokenizer, folder)


def run(trunk: Any, image: Tensor) -> Any:
    """Return what a vision tower of transformers puts out."""
    asked = inspect.signature(trunk.forward).parameters
    options: dict[str, Any] = {}
    if "interpolate_pos_encoding" in asked:
        options["interpolate_pos_encoding"] = True
    if "noise" in asked:  # ViT-MAE puts its patches in the order of this, else in a random one
        patches = math.prod(n // trunk.config.patch_size for n in image.shape[-2:])
        options["noise"] = torch.arange(patches, device=image.device).expand(len(image), -1)
    return trunk(pixel_values=image, **options)


def see(trunk: nn.Module, image: Tensor) -> Tensor:
    """Return pooled features ``(B, width)``: the tower's own pooling, else the class token."""
    out = run(trunk, image)
    pooled = getattr(out, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)  # convolutional nets leave a map of one pixel
    hidden = out.last_hidden_state
    return hidden[:, 0] if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


def width(config: Any) -> int:
    """Return how many features a tower with this configuration puts out."""
    found = getattr(config, "hidden_size", None)
    return found if found is not None else config.hidden_sizes[-1]


def config(trunk: Any) -> dict[str, Any]:
    """Return what rebuilds a network without its weights."""
    pooler = getattr(trunk, "pooler", None) is not None
    return {"transformers": trunk.config.to_dict(), "pooler": pooler}


def from_config(config: dict[str, Any]) -> nn.Module:
    """Build the network of ``config`` with random weights."""
    from transformers import AutoConfig, AutoModel

    known = dict(config["transformers"])
    trunk = AutoModel.from_config(_unmasked(AutoConfig.for_model(known.pop("model_type"), **known)))
    if not config["pooler"] and getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    return trunk


def of_timm(folder: str) -> tuple[str, Path] | None:
    """Return timm's architecture and the weight file of a folder that timm wrote; else None."""
    known = timm_config(Path(folder))
    if "architecture" not in known:
        return None
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (Path(folder) / name).is_file():
            return known["architecture"], Path(folder) / name
    raise WeightsNotAvailable(
        f"{folder} holds no model.safetensors. Fetch it with its config.json."
    )


def timm_config(folder: Path) -> dict[str, Any]:
    """Return timm's ``config.json`` of a folder; empty where there is none, or another's."""
    file = folder / "config.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        return {}  # of something else that lies there
    # Files of early timm have no table of their own for the pixels.
    if not isinstance(known, dict) or "architecture" not in known:
        return {}
    return known | {"pretrained_cfg": known.get("pretrained_cfg") or known}


def _unmasked(config: Any) -> Any:
    """Turn off the mask of masked autoencoders, which transformers draws in eval mode too."""
    if getattr(config, "mask_ratio", None):
        config.mask_ratio = 0.0
    return config


def _network(folder: str, side: str, weights: str) -> nn.Module:
    """Return the bare network of a folder, or of one side of an image-text model."""
    from transformers import AutoConfig, AutoModel

    found = _from(AutoConfig, folder)
    if hasattr(found, side):
        found = getattr(found, side)
    if found.model_type == "timm_wrapper":
        raise ValueError(
            f"hf:{folder} is a repository of timm. Pass timm:<model> with its name, or fetch it "
            "into a folder and pass hf:FOLDER."
        )
    _unmasked(found)
    if weights == "random":
        return AutoModel.from_config(found)
    if weights != "pretrained":
        raise ValueError(
            f"hf:{folder} takes weights 'pretrained' (those of the folder) or 'random', "
            f"not {weights!r}."
        )
    with _quiet():  # what is missing is judged here
        trunk, report = _from(
            AutoModel, folder, config=found, output_loading_info=True, dtype=torch.float32
        )
    absent = sorted(k for k in report["missing_keys"] if "pooler" not in k)
    wrong = sorted(str(k) for k in report["mismatched_keys"])
    if absent or wrong:
        raise ValueError(
            f"The weights in {folder} do not fit its config.json ({type(trunk).__name__}): "
            f"{len(absent)} tensors missing (first {absent[:1]}), {len(wrong)} of another shape."
        )
    if report["missing_keys"]:
        trunk.pooler = None  # not trained: random numbers would stand in for it
    return trunk


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _from(kind: Any, folder: str, **options: Any) -> Any:
    """Call ``from_pretrained`` without minutes of retries where there is no network."""
    local = Path(folder).is_dir() or not hub_answers()
    try:
        return kind.from_pretrained(folder, local_files_only=local, **options)
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        first = " ".join(str(error).split())[:160]
        lacks = [m for m in ("sentencepiece", "google.protobuf") if not _installed(m)]
        pieces = [*Path(folder).glob("*.model")] or re.search("sentencepiece|tiktoken", str(error))
        if kind.__name__ == "AutoTokenizer" and lacks and pieces:
            raise ValueError(
                f"The tokenizer of {folder} is a file of sentencepiece. Run: pip install "
                "sentencepiece protobuf"
            ) from error
        if Path(folder).is_dir():
            raise ValueError(f"{folder} can't be read by {kind.__name__}: {first}") from error
        raise WeightsNotAvailable(
            f"Weights of hf:{folder} can't be downloaded here ({first}). Fetch the repository on a "
            "machine with a network (hf download NAME --local-dir FOLDER) and pass hf:FOLDER."
        ) from error


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False
