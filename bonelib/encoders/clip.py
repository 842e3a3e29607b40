"""open_clip's models: created by it, loaded whole, offline or with a message that says what to do.

A name comes in (an architecture, ``local-dir:FOLDER`` or ``hf-hub:REPOSITORY``); the model with a
separate text tower goes out, with the configuration that rebuilds either tower without weights.
"""

import copy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import nn

from bonelib.encoders.weights import WeightsNotAvailable, obtainable


def configuration(model: str) -> dict[str, Any]:
    """Return open_clip's configuration of an architecture or a folder.

    A folder written elsewhere names its Hugging Face text tower by a path or repository that need
    not exist here; open_clip resolves that name as written, so it is turned to the folder itself.

    Raises:
        ValueError: Unknown architecture.
        WeightsNotAvailable: No such folder, or a repository that can't be reached.
    """
    from open_clip.factory import get_model_config, list_models, parse_model_name

    schema, place = parse_model_name(model)
    if schema == "hf-hub" and not obtainable(place, "open_clip_config.json"):
        raise _unreachable(model, f"the repository {place}")
    if schema == "local-dir" and not (Path(place) / "open_clip_config.json").is_file():
        raise WeightsNotAvailable(f"{place} holds no open_clip_config.json. Pass such a folder.")
    config = get_model_config(model)
    if config is None:
        import difflib

        near = difflib.get_close_matches(model, list_models(), 4, 0.3)
        raise ValueError(f"open_clip has no architecture {model!r}. Near: {', '.join(near)}.")
    tower = config["text_cfg"].get("hf_model_name")
    if schema == "local-dir" and tower:
        if (Path(place) / "config.json").is_file():
            config["text_cfg"]["hf_model_name"] = place
        elif not obtainable(tower, "config.json"):
            raise WeightsNotAvailable(
                f"{place} holds no config.json for its text tower. Fetch that of {tower} on a "
                "machine with a network and put it there."
            )
        config["text_cfg"]["hf_model_pretrained"] = False
    return config


def parts(config: dict[str, Any], side: str, *, size: int = 0) -> dict[str, Any]:
    """Return the part of a configuration that rebuilds one tower: ``vision`` or ``text``."""
    kept = {key: config[key] for key in ("embed_dim", f"{side}_cfg")}
    kept = copy.deepcopy(kept | {"quick_gelu": config.get("quick_gelu", False)})
    if side == "vision" and size:
        kept["vision_cfg"]["image_size"] = size
    if side == "text" and kept["text_cfg"].get("hf_model_name"):
        kept["text_cfg"]["hf_model_pretrained"] = False
    return kept


def tower(config: dict[str, Any]) -> nn.Module:
    """Build one tower with random weights from its ``parts``.

    Raises:
        WeightsNotAvailable: The configuration of its Hugging Face text tower can't be had.
    """
    from open_clip.model import _build_text_tower, _build_vision_tower

    if "vision_cfg" in config:
        built = _build_vision_tower(**config)
        if config["vision_cfg"].get("timm_model_name"):
            built.set_input_size(config["vision_cfg"]["image_size"])
        return built
    name = config["text_cfg"].get("hf_model_name")
    if name and not Path(name).is_dir() and not obtainable(name, "config.json"):
        raise _unreachable(name, f"the repository {name}")
    return _build_text_tower(**config)


def load(model: str, *, weights: str, size: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model with its weights, and its configuration.

    Args:
        weights: ``pretrained`` for a folder or repository, which has its own; for an architecture
            a tag of open_clip or a checkpoint file.
        size: Side of the input in pixels; 0 takes the architecture's.

    Raises:
        ValueError: Unknown architecture or tag, or a checkpoint of another architecture.
        WeightsNotAvailable: The weights would have to be downloaded and can't be.
    """
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    from open_clip.factory import _find_checkpoint_in_dir, parse_model_name

    config = configuration(model)
    tags = open_clip.list_pretrained_tags_by_model(model)
    settings: dict[str, Any] = {}
    schema, place = parse_model_name(model)
    if schema:
        if weights != "pretrained":
            raise ValueError(f"{model} has its own weights; leave weights='pretrained'.")
        if schema == "local-dir":
            if _find_checkpoint_in_dir(Path(place)) is None:
                raise WeightsNotAvailable(f"{place} holds no checkpoint file.")
            settings["text_cfg"] = config["text_cfg"]  # with the folder's name of today
    elif weights in tags:
        hub = open_clip.get_pretrained_cfg(model, weights)["hf_hub"].rstrip("/")
        if hub and not obtainable(hub, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME):
            raise _unreachable(f"{model} {weights!r}", hub)
        settings["pretrained"] = weights
    elif Path(weights).is_file():
        # A file doesn't say what its pixels were; open_clip would take the mean of CLIP for all.
        known = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
        pixels = {(tuple(k["mean"]), tuple(k["std"])) for k in known if "mean" in k}
        if len(pixels) == 1:
            settings["force_preprocess_cfg"] = dict(zip(("mean", "std"), *pixels, strict=True))
        settings["pretrained"] = weights
    else:
        raise ValueError(
            f"open_clip has no weights {weights!r} of {model}, and there is no such file. Pass a "
            f"checkpoint as weights='/path/to/file', or a tag: {', '.join(tags) or 'none known'}."
        )
    try:
        built = open_clip.create_model(
            model,
            force_custom_text=True,
            force_image_size=size or None,
            require_pretrained=True,
            pretrained_text=False,
            **settings,
        )
    except OSError as error:
        raise _unreachable(model, "its text tower") from error
    except (RuntimeError, KeyError, AssertionError, AttributeError, UnpicklingError) as error:
        if "download" in str(error):
            raise _unreachable(model, "its checkpoint") from error
        first = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{settings.get('pretrained', model)} does not fit open_clip's {model}: {first} "
            "Choose the architecture that the file was made with."
        ) from error
    return built, config


def _unreachable(what: str, where: str) -> WeightsNotAvailable:
    return WeightsNotAvailable(
        f"Weights of open_clip:{what} can't be downloaded here. Fetch {where} on a machine with a "
        "network and pass the file or folder as weights=, or 'open_clip:local-dir:FOLDER'."
    )
