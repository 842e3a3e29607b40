"""Bundles: folders that hold all a model needs, and load offline.

Weights (safetensors), architecture, preprocessing, tokenizer, and a hash that is checked when the
bundle is loaded. A bundle that does not fit is refused. Facts beside them say how to apply the
model: task and classes, how images become squares, the threshold.
"""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bonelib import encoders
from bonelib.encoders import CachedText, ImageEncoder
from bonelib.models.dense import DenseHead
from bonelib.models.heads import (
    Classifier,
    CosineHead,
    DualEncoder,
    FeatureHead,
    LinearProbe,
    Model,
    MultiHead,
)
from bonelib.models.places import PlaceHead
from bonelib.models.tuning import has_lora, merge_lora
from bonelib.runs.files import file_hash, replacing, replacing_folder

FORMAT = 2  # of bundle.json; 1 had no number, and neither classes nor resize mode nor threshold


def tower(
    name: str, *, size: int, weights: str = "pretrained", bundle: Path | None = None, seed: int = 0
) -> ImageEncoder:
    """Return the image tower a fine-tuning starts from: by name, or out of a bundle.

    Raises:
        ValueError: The bundle's tower has another name or input size than asked for.
    """
    if bundle is None:
        return encoders.image(name, weights=weights, size=size, seed=seed)
    image = load_image_tower(bundle)
    if (image.name, image.preprocessing.size) != (name, size):
        raise ValueError(
            f"{bundle} holds {image.name} at {image.preprocessing.size} px, asked for {name} at "
            f"{size} px. Fine-tune with the tower and the size of the pretraining."
        )
    return image


def save_bundle(folder: Path, model: Model, **facts: Any) -> Path:
    """Write ``model`` as a bundle; the folder appears whole or not at all.

    A frozen text tower that came with a package is named by its hash instead of copied. LoRA is
    merged in what is written; the model itself keeps it.

    Args:
        facts: What a reader of ``bundle.json`` should know: ``caption_fields``, say, or how the
            model is applied (``resize``, ``task``, ``classes``, ``threshold``).
    """
    from safetensors.torch import save_file

    if has_lora(model):
        model = copy.deepcopy(model)
        merge_lora(model)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    kind, image = type(model).__name__, model.image.architecture()
    architecture: dict[str, Any] = {"kind": kind, "image": image}
    if isinstance(model, DualEncoder):
        architecture |= {
            "text": model.text.architecture(),
            "dim": model.dim,
            "projection": model.projection,
            "bias": model.logit_bias is not None,
            "projector": model.projector[-1].out_features if model.projector else 0,
            "heads": [head.out_features for head in model.heads],
            "label_projection": model.label_projection is not None,
            "stages": model.stages is not None,
        }
        cached = model.text if isinstance(model.text, CachedText) else None
        if cached and cached.weights == "pretrained" and cached.name.startswith("packaged:"):
            architecture["text"]["hash"] = encoders.weights_hash(cached.encoder)
            state = {k: v for k, v in state.items() if not k.startswith("text.encoder.")}
    elif isinstance(model, MultiHead):
        architecture |= {"classes": [head.out_features for head in model.heads]}
    else:
        fitted = isinstance(model, LinearProbe | FeatureHead)
        architecture |= {"outputs": model.outputs if fitted else model.head.out_features}
        head = model.head
        if isinstance(head, CosineHead):
            architecture |= {"dim": head.dim, "projection": head.kind}
        if isinstance(head, DenseHead):
            architecture |= {"hidden": head.in_features}
        if isinstance(head, PlaceHead):
            shape = {"pool": head.pool, "channels": head.channels, "fused": head.in_features}
            architecture |= shape
        if isinstance(model, FeatureHead):
            kept = {name: (str(a.dtype), a.shape) for name, a in model.arrays().items()}
            architecture |= {"head": model.kind, "arrays": kept}
    with replacing_folder(folder) as temporary:
        save_file(state, temporary / "weights.safetensors")
        if isinstance(model, DualEncoder) and "config" in architecture["text"]:
            text = model.text  # without a config its name gives the tokenizer
            (text.encoder if isinstance(text, CachedText) else text).save_tokenizer(temporary)
        digest = file_hash(temporary / "weights.safetensors")
        record = {"architecture": architecture, "sha256": digest, "facts": facts}
        _write(temporary / "bundle.json", record | {"format": FORMAT})
    return folder


def _write(file: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    file.write_text(text, encoding="utf-8")


def note_bundle(folder: str | Path, **facts: Any) -> None:
    """Add facts to a bundle that is there, such as the threshold that was chosen after training."""
    record = read_bundle(folder)
    record["facts"] |= facts
    with replacing(Path(folder) / "bundle.json") as temporary:
        _write(temporary, record)


def read_bundle(folder: str | Path) -> dict[str, Any]:
    """Return what ``bundle.json`` says: ``format``, ``architecture``, ``sha256`` and ``facts``.

    Raises:
        FileNotFoundError: The folder is no bundle.
        ValueError: The file is damaged, or a later version of bonelib wrote it.
    """
    folder = Path(folder)
    for name in ("bundle.json", "weights.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} is no bundle: {name} is missing.")
    try:
        record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        record = {"format": 1, "facts": {}} | record
        made_by, _ = record["format"], record["architecture"]["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'bundle.json'} is damaged ({error!r}). Make the bundle again."
        ) from error
    if made_by > FORMAT:
        raise ValueError(
            f"{folder} has the format {made_by}, this version of bonelib reads up to {FORMAT}. "
            "Install the version that made it."
        )
    return record


def load_bundle(folder: str | Path) -> Model:
    """Rebuild the model of a bundle, offline, in evaluation mode.

    Raises:
        FileNotFoundError: The folder is no bundle.
        ValueError: Weights don't have the recorded hash, or don't fit the architecture; or see
            `read_bundle`.
    """
    record, state = _read(Path(folder))
    shape = record["architecture"]
    model = _build(shape, Path(folder))
    model.image.weights = "bundle"
    own = model.state_dict()
    packaged = "hash" in shape.get("text", {})  # its text tower is not in the file
    missing = [k for k in own.keys() - state if not (packaged and k.startswith("text.encoder."))]
    _fill(model, state, missing, folder)
    text = getattr(model, "text", None)
    known = encoders.weights_hash(text.encoder) if isinstance(text, CachedText) else ""
    if packaged and known != shape["text"]["hash"]:
        raise ValueError(f"{folder} was made with other weights of {shape['text']['name']}.")
    return model.eval()


def load_image_tower(folder: str | Path) -> ImageEncoder:
    """Rebuild the image tower of a bundle alone, as `load_bundle` does; texts are not built.

    Raises:
        FileNotFoundError, ValueError: As of `load_bundle`, but for texts and heads: not looked at.
    """
    record, state = _read(Path(folder))
    image = encoders.rebuild_image(record["architecture"]["image"])
    image.weights = "bundle"
    own = {k.removeprefix("image."): v for k, v in state.items() if k.startswith("image.")}
    _fill(image, own, [*(image.state_dict().keys() - own)], folder)
    return image.eval()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the record and the tensors of a bundle, whose hash must be the recorded one."""
    from safetensors.torch import load_file

    record, weights = read_bundle(folder), folder / "weights.safetensors"
    found = file_hash(weights)
    if found != record["sha256"]:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}…, the bundle records {record['sha256'][:12]}…. "
            "The file was changed or damaged; make the bundle again."
        )
    return record, load_file(weights)


def _fill(
    model: nn.Module, state: dict[str, torch.Tensor], missing: list[str], folder: str | Path
) -> None:
    """Load tensors into a model that they fit, or say which don't."""
    own = model.state_dict()
    problems = {
        "missing": missing,
        "unexpected": list(state.keys() - own),
        "of another shape": [k for k in own.keys() & state if own[k].shape != state[k].shape],
    }
    if any(problems.values()):
        listed = [f"{len(k)} tensors {what} (first {min(k)})" for what, k in problems.items() if k]
        raise ValueError(f"{folder} does not fit its architecture: {', '.join(listed)}.")
    model.load_state_dict(state, strict=False)


# Of a DualEncoder, if recorded.
SHAPE = ("projection", "bias", "projector", "heads", "label_projection", "stages")


def _build(shape: dict[str, Any], folder: Path) -> Model:
    image = encoders.rebuild_image(shape["image"])
    if shape["kind"] == "DualEncoder":
        text = encoders.rebuild_text(shape["text"], folder)
        options = {key: shape[key] for key in SHAPE if key in shape}
        return DualEncoder(image, text, dim=shape["dim"], **options)
    if shape["kind"] == "MultiHead":
        return MultiHead(image, classes=shape["classes"])
    if shape["kind"] == "LinearProbe":
        return LinearProbe(image, outputs=shape["outputs"])
    if shape["kind"] == "FeatureHead":
        kept = {name: np.zeros(sides, kind) for name, (kind, sides) in shape["arrays"].items()}
        return FeatureHead(image, outputs=shape["outputs"], kind=shape["head"], arrays=kept)
    head = None
    if "dim" in shape:
        given = {key: shape[key] for key in ("outputs", "dim", "projection")}
        head = CosineHead(image.width, **given)
    if "hidden" in shape:
        head = DenseHead(image.width, outputs=shape["outputs"], hidden=shape["hidden"])
    if "pool" in shape:
        given = dict(outputs=shape["outputs"], pool=shape["pool"], dim=shape["fused"])
        head = PlaceHead(shape["channels"], **given)
    return Classifier(image, outputs=shape["outputs"], head=head)
