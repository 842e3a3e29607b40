"""Where a model still has rows and columns: the layers that a heat map weighs, and their shape."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bonelib.explain.passes import ToMap, explaining, gradients, kept

PREFIX = 16  # most tokens of a transformer that stand for no patch


@dataclass
class Pass:
    """What one image leaves in a model: shapes, or the name of what is no tensor."""

    outputs: list[tuple[nn.Module, Any]]  # of its modules, in order
    logits: Any
    entries: list[tuple[nn.Module, Any, int]]  # what a module takes in, after how many outputs


def look(model: nn.Module, image: Tensor) -> Pass:
    """Send one image through a model in eval mode, and leave the model as it was.

    Raises:
        ValueError: The model has no pass from images to logits, or not at this size.
    """
    if type(model).forward is torch.nn.Module.forward:
        raise ValueError(
            f"There are no heat maps of {getattr(model, 'kind', type(model).__name__)}: its head "
            "has no gradient. Take a probe, or a fine-tuned model."
        )
    seen = Pass([], None, [])

    def shape(found: object = None) -> tuple[int, ...] | str:
        kind = type(found).__name__
        return tuple(found.shape) if isinstance(found, Tensor) else f"a {kind}, no tensor"

    def enter(module: nn.Module, given: tuple[object, ...]) -> None:
        seen.entries.append((module, shape(*given[:1]), len(seen.outputs)))

    def leave(module: nn.Module, _: object, output: object) -> None:
        seen.outputs.append((module, shape(output)))

    with contextlib.ExitStack() as stack, explaining(model):
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        try:
            seen.logits = shape(model(image[:1]))
        except (AssertionError, RuntimeError) as error:  # transformers are built for one size
            raise ValueError(
                f"The model refuses images of {_by(image)}: {error}. Load them at its size, or "
                "build the transformer for theirs (size, or set_input_size of its trunk)."
            ) from error
    return seen


def _by(image: Tensor) -> str:
    return " × ".join(map(str, image.shape[-2:]))


def _fits(rows: int, columns: int, image: Tensor) -> bool:
    """Whether a map has the shape of the image; attention weights often do not."""
    height, width = image.shape[-2:]
    return min(rows, columns) > 1 and abs(rows * width - columns * height) <= max(height, width)


def _sides(shape: Any, image: Tensor) -> tuple[int, int] | None:
    """Return rows and columns of an output that is a map, channels first or last."""
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[0] != 1:
        return None
    return next((s for s in (shape[2:], shape[1:3]) if _fits(*s, image)), None)


def _maps(seen: Pass, image: Tensor) -> list[tuple[int, tuple[int, int]]]:
    """Return the place among the outputs, rows and columns of each map.

    A trunk's first map is its finest; what is finer is the weights or the heads of an attention.
    """
    maps = [(i, s) for i, (_, shape) in enumerate(seen.outputs) if (s := _sides(shape, image))]
    return [(i, s) for i, s in maps if math.prod(s) <= math.prod(maps[0][1])]


def _are_tokens(shape: Any) -> bool:
    return isinstance(shape, tuple) and len(shape) == 3 and shape[0] == 1


def speaks_in_tokens(seen: Pass, image: Tensor) -> bool:
    """Whether a model is a transformer: one that cuts patches and then speaks in tokens alone."""
    maps = _maps(seen, image)
    after = seen.outputs[maps[-1][0] :] if maps else seen.outputs
    # Pooling by attention speaks in a few tokens after many maps.
    return sum(_are_tokens(shape) for _, shape in after) > len(maps)


def target_layer(model: nn.Module, image: Tensor) -> nn.Module:
    """Return the last module whose output still has rows and columns: where Grad-CAM looks.

    Found by one forward pass, so it holds for any trunk with maps and not for a list of names.

    Raises:
        ValueError: The features are no map but tokens (a transformer, see `last_tokens`), or
            nothing is left of rows and columns (an image that is too small).
    """
    return last_maps(look(model, image), image, 1)[0]


def last_maps(seen: Pass, image: Tensor, count: int) -> list[nn.Module]:
    """Return a module for each of the last resolutions, the coarsest first.

    Of the last resolution it is the last module; of another the last before the stage that makes
    it coarser, for the stage too begins at that resolution.

    Raises:
        ValueError: There are no maps, or fewer resolutions.
    """
    maps = _maps(seen, image)
    if not maps or speaks_in_tokens(seen, image):
        raise ValueError(
            f"No layer of this model puts out a feature map of a {_by(image)} image that its "
            "features are made of; Grad-CAM needs one. Pass a layer, or a convolutional model."
        )
    sizes = list(dict.fromkeys(sides for _, sides in reversed(maps)))
    if not 1 <= count <= len(sizes):
        raise ValueError(
            f"layers={count}: the model has maps of {len(sizes)} resolutions of {_by(image)} "
            f"pixels. Pass 1 to {len(sizes)}, or modules."
        )
    found, puts_out = [maps[-1][0]], dict(seen.outputs)
    for coarse, fine in zip(sizes[: count - 1], sizes[1:count], strict=True):
        ends = (
            before
            for module, given, before in seen.entries
            if (_sides(given, image), _sides(puts_out.get(module), image)) == (fine, coarse)
        )
        end = next(ends, len(seen.outputs))
        found.append([place for place, sides in maps if sides == fine and place < end][-1])
    return [seen.outputs[place][0] for place in found]


def tokens_of_patches(seen: Pass, image: Tensor) -> dict[nn.Module, ToMap]:
    """Return blocks and norms that put out tokens of patches, in order, with what makes maps."""
    layers: dict[nn.Module, ToMap] = {}
    for module, shape in seen.outputs:
        # neither queries, keys and values nor LoRA around them
        whole = any(module.children()) or "Norm" in type(module).__name__
        if whole and not hasattr(module, "in_features") and _are_tokens(shape):
            with contextlib.suppress(ValueError):  # tokens of something else
                layers[module] = as_map(module, seen, image)
    return layers


def last_tokens(model: nn.Module, seen: Pass, image: Tensor) -> nn.Module:
    """Return the last block or norm of a transformer whose patches the output still depends on.

    A head that reads a class token alone is blind to the patches after the last attention: every
    map there would be blank, so it is the norm before it. Pooling of patches sees the last norm.

    Raises:
        ValueError: No layer puts out tokens of patches, or the output depends on none.
    """
    layers = tokens_of_patches(seen, image)
    with torch.enable_grad(), explaining(model), kept(layers) as outputs:
        logits = model(image[:1])
        mixed = logits @ torch.arange(1, logits.shape[-1] + 1).to(logits)
    slopes = gradients(mixed.sum(), [outputs[layer] for layer in layers])
    read = [
        layer
        for (layer, reshape), slope in zip(layers.items(), slopes, strict=True)
        if slope is not None and reshape(slope).any()
    ]
    if not read:
        raise ValueError(
            "The output depends on no tokens of patches of this model: their maps would be blank. "
            "Pass a layer, or choose another method."
        )
    return read[-1]


def as_map(layer: nn.Module, seen: Pass, image: Tensor) -> ToMap:
    """Return what makes ``(B, C, H, W)`` of a layer's output: a map or tokens.

    A map may have its channels last. Tokens are rows and columns of the image after some that stand
    for all of it (a class token, registers). How many rows there are is read off the maps that the
    model made of the image before, its patches, or is the largest grid that leaves at most
    ``PREFIX`` tokens.

    Raises:
        ValueError: The output is none of these.
    """
    shape = dict(seen.outputs).get(layer)
    if shape is not None and _sides(shape, image):
        last = not _fits(shape[2], shape[3], image)
        return lambda output: output.movedim(-1, 1) if last else output
    if isinstance(shape, tuple) and len(shape) == 3:
        height, width = image.shape[-2:]
        made = {s[2:] for _, s in seen.outputs if isinstance(s, tuple) and len(s) == 4}
        every = {(rows, round(rows * width / height)) for rows in range(2, shape[1])}
        for grids in (made, every):  # what the model cut itself comes before a guess
            near = [g for g in grids if _fits(*g, image) and 0 <= shape[1] - g[0] * g[1] <= PREFIX]
            if near:
                rows, columns = max(near, key=math.prod)
                return lambda output: (
                    output[:, -rows * columns :].unflatten(1, (rows, columns)).movedim(-1, 1)
                )
    if shape is None:
        reason = "the model does not call it"
    elif isinstance(shape, str):
        reason = f"it puts out {shape}"
    else:
        reason = f"its output {shape} has no rows and columns of a {_by(image)} image"
    raise ValueError(
        f"Grad-CAM can't look at {type(layer).__name__}: {reason}. Pass another layer."
    )
