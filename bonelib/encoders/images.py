"""Image towers by name, each with the preprocessing its weights were made for.

A name comes in; a module that maps pixels to one pooled vector goes out. Grey radiographs enter
with the mean and std of the weights' own preprocessing, one grey value in each channel.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bonelib.encoders import clip, fetched, huggingface, onnx, pooling, timm_towers
from bonelib.encoders.tower import ImageEncoder, Preprocessing

UNSTEADY = 1e-3  # of the largest feature: by how much two passes over an image may differ


def image(
    name: str, *, weights: str = "pretrained", size: int = 0, seed: int = 0, pooling: str = ""
) -> ImageEncoder:
    """Build an image tower.

    Weights that are not here are looked for in the tower's folder (``fetched.folder``), then asked
    of the network.

    Args:
        name: ``packaged:efficientnet_lite0`` or ``…lite2``; ``timm:<model>``, e.g.
            ``timm:vit_small_patch14_dinov2.lvd142m``; ``open_clip:<architecture>``, its projection
            included, or ``open_clip:local-dir:<folder>``; ``hf:<folder>`` of a Hugging Face or a
            timm model; ``torchxrayvision:densenet121`` or ``…resnet50``, from a file;
            ``onnx:<file>``, with a JSON beside it (``onnx.load``), frozen.
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
    return _pooled(built, pooling) if pooling else built


def _pooled(tower: ImageEncoder, how: str) -> ImageEncoder:
    """Set how a tower pools its tokens, after a try."""
    if how not in pooling.POOLINGS:
        named = ", ".join(pooling.POOLINGS)
        raise ValueError(f"Unknown pooling {how!r}. Choose {named}, or none for the tower's own.")
    side = tower.preprocessing.size
    tower.pooling = how
    try:
        with _evaluating(tower), torch.no_grad():
            tower(torch.zeros(1, tower.preprocessing.channels, side, side))
    except ValueError as error:
        raise ValueError(f"{tower.name} can't pool by {how}: {error}. Leave it empty.") from error
    return tower


def _built(name: str, weights: str, size: int) -> ImageEncoder:
    kind, _, model = name.partition(":")
    if kind == "onnx" and model:
        if weights != "pretrained":
            raise ValueError(f"{name} has its own weights; leave weights='pretrained'.")
        trunk, pixels = onnx.load(Path(model), size=size)
        config = {"onnx": trunk.described()}
        own = f"onnx:{Path(model).name}"
        return ImageEncoder(
            own, trunk, Preprocessing(**pixels), weights, width=trunk.width, config=config
        )
    if kind == "open_clip" and model:
        here = fetched.brought(name, "open_clip_config.json") if weights == "pretrained" else None
        return _open_clip(name, f"local-dir:{here.parent}" if here else model, weights, size)
    if kind != "hf" or not model:
        return timm_towers.build(name, kind, model, weights, size)
    here = fetched.brought(name, "config.json")
    model = str(here.parent) if here else model
    timms = huggingface.of_timm(model)
    if timms:
        architecture, file = timms
        if weights != "pretrained":
            file = weights
        built = timm_towers.build(f"timm:{architecture}", "timm", architecture, str(file), size)
        built.name, built.config = name, {"timm": architecture}
        built.weights = weights
        return built
    trunk, pixels, config = huggingface.vision(model, weights=weights, size=size)
    if here:  # the same features wherever the cache lies
        config["transformers"]["_name_or_path"] = name
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
    try:
        with _evaluating(tower), torch.enable_grad():
            (gradient,) = torch.autograd.grad(tower(pixels).square().sum(), pixels)
    except AssertionError:  # some refuse what they would cut off
        return first.stride[0]
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
    pixels = Preprocessing(**known | {key: tuple(known[key]) for key in ("mean", "std")})
    config, multiple = architecture.get("config"), architecture.get("multiple", 0)
    if config is None or "timm" in config:
        own = f"timm:{config['timm']}" if config else name
        grown = -(-pixels.size // multiple) * multiple if multiple else pixels.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = _built(own, "random", grown)
        trunk, width = built.trunk, built.width
    elif "onnx" in config:
        trunk = onnx.Network(**config["onnx"])
        width = trunk.width
    elif "transformers" in config:
        trunk = huggingface.from_config(config)
        width = huggingface.width(trunk.config)
    else:
        trunk, width = clip.tower(config), config["embed_dim"]
    how = dict(multiple=multiple, pooling=architecture.get("pooling", ""))
    return ImageEncoder(name, trunk, pixels, "random", width=width, config=config, **how)


def _open_clip(name: str, model: str, weights: str, size: int) -> ImageEncoder:
    if weights != "random":
        built, config = clip.load(model, weights=weights, size=size)
        return of_open_clip(name, built, config, weights)
    config = clip.parts(clip.configuration(model), "vision", size=size)
    side = config["vision_cfg"].get("image_size", 224)
    pixels = Preprocessing(side, (0.5,) * 3, (0.5,) * 3)
    trunk = clip.tower(config)
    return ImageEncoder(name, trunk, pixels, "random", width=config["embed_dim"], config=config)


def of_open_clip(name: str, built: Any, config: dict[str, Any], weights: str) -> ImageEncoder:
    """Return the image tower of a model that ``clip.load`` returned."""
    known = built.visual.preprocess_cfg
    side = known["size"] if isinstance(known["size"], int) else known["size"][0]
    pixels = Preprocessing(side, tuple(known["mean"]), tuple(known["std"]))
    config = clip.parts(config, "vision", size=side)
    source = weights if weights == "pretrained" else Path(weights).name
    return ImageEncoder(
        name, built.visual, pixels, source, width=config["embed_dim"], config=config
    )
