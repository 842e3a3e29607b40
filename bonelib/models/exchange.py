"""Dual encoders to and from open_clip: folders that ``local-dir:`` reads, and its own models.

A dual encoder goes out as a folder with open_clip's configuration, weights, tokenizer and pixel
statistics; any model that open_clip can create comes in as a dual encoder.
"""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bonelib.encoders import CachedText, TextEncoder, clip, images, texts
from bonelib.models.heads import DualEncoder
from bonelib.models.tuning import has_lora, merge_lora
from bonelib.runs.files import replacing_folder

POOLERS = {"mean": "mean_pooler", "cls": "cls_last_hidden_state_pooler"}
# Where the layers of a perceptron lie: ours by number, open_clip's by the names of timm's Mlp.
IMAGE_MLP = {"0.": "head.mlp.fc1.", "2.": "head.mlp.fc2."}


def from_open_clip(model: str, *, weights: str = "pretrained") -> DualEncoder:
    """Return a model of open_clip as a dual encoder, its features unchanged.

    The projections stay inside the towers, so ``image`` gives the shared space's features, not yet
    normalised.

    Args:
        model: ``local-dir:<folder>``, ``hf-hub:<repository>``, or an architecture.
        weights: For an architecture a tag or a checkpoint file.

    Raises:
        ValueError: Unknown architecture or tag, or a checkpoint of another architecture.
        WeightsNotAvailable: The weights would have to be downloaded and can't be.
    """
    built, config = clip.load(model, weights=weights)
    name = f"open_clip:{model}"
    image = images.of_open_clip(name, built, config, weights)
    text = texts.of_open_clip(name, built, config, weights)
    bias = built.logit_bias is not None
    found = DualEncoder(image, text, dim=config["embed_dim"], projection="none", bias=bias)
    with torch.no_grad():
        found.logit_scale.copy_(built.get_parameter("logit_scale").squeeze())
        if found.logit_bias is not None:
            found.logit_bias.copy_(built.get_parameter("logit_bias").squeeze())
    return found.eval()


def export_open_clip(folder: Path, model: DualEncoder) -> Path:
    """Write a folder from which open_clip creates the same model by ``local-dir:<folder>``.

    open_clip resolves the name of a Hugging Face text tower as written, so the configuration names
    the folder itself by its absolute path: after a move, load it with ``from_open_clip``, which
    does not mind, and export it again. LoRA is merged in what is written. open_clip's own transform
    pads an image with black where our cache continues its edges.

    Raises:
        ValueError: A tower that open_clip can't build: our ``small`` text tower (open_clip has no
            mask for padding), a vision tower of Hugging Face, a net whose features open_clip takes
            elsewhere or at another size, or towers of open_clip under new projections.
    """
    from open_clip.model import CustomTextCLIP
    from safetensors.torch import save_file

    if has_lora(model):
        model = copy.deepcopy(model)
        merge_lora(model)
    text = model.text.encoder if isinstance(model.text, CachedText) else model.text
    foreign = any(tower.name.startswith("open_clip:") for tower in (model.image, text))
    if foreign and model.projection != "none":
        raise ValueError("Towers of open_clip have their own; only projection='none' exports.")
    vision_cfg, state = _vision(model)
    folder = folder.resolve()
    with replacing_folder(folder) as temporary:
        text.save_tokenizer(temporary)
        text_cfg, more = _text(model, text, temporary)
        state |= more | {"logit_scale": model.logit_scale.detach()}
        config: dict[str, Any] = {"embed_dim": model.dim, "custom_text": True}
        config |= {"vision_cfg": vision_cfg, "text_cfg": text_cfg}
        config |= {"quick_gelu": bool((model.image.config or {}).get("quick_gelu"))}
        if model.logit_bias is not None:
            state["logit_bias"] = model.logit_bias.detach()
            config["init_logit_bias"] = model.logit_bias.item()
        state = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
        known = {k: v for k, v in config.items() if k != "custom_text"}
        try:  # what open_clip builds must take every tensor, and have no other
            with torch.random.fork_rng(devices=[]):
                CustomTextCLIP(**copy.deepcopy(known)).load_state_dict(state, strict=True)
        except RuntimeError as error:
            first = " ".join(str(error).split())[:200]
            raise ValueError(f"open_clip builds {model.image.name} otherwise: {first}") from error
        save_file(state, temporary / "open_clip_model.safetensors")
        if "hf_model_name" in text_cfg:
            text_cfg |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
        pixels = asdict(model.image.preprocessing)
        preprocess = {"size": model.image.side, "mean": pixels["mean"], "std": pixels["std"]}
        preprocess |= {"interpolation": "bicubic", "resize_mode": "longest"}
        record = {"model_cfg": config, "preprocess_cfg": preprocess}
        (temporary / "open_clip_config.json").write_text(
            json.dumps(record, indent=1) + "\n", encoding="utf-8"
        )
    return folder


def _vision(model: DualEncoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return open_clip's vision_cfg and the tensors of the image side."""
    image, config = model.image, model.image.config or {}
    kind = image.name.partition(":")[0]
    if kind == "open_clip":
        state = {f"visual.{k}": v for k, v in image.trunk.state_dict().items()}
        return copy.deepcopy(config["vision_cfg"]), state
    if kind == "hf" or image.preprocessing.channels != 3:
        raise ValueError(f"open_clip can't build {image.name}. Use a tower of timm or open_clip.")
    if model.projection == "none":
        raise ValueError("open_clip needs a projection on a tower of timm: 'linear' or 'mlp'.")
    cfg = {
        "timm_model_name": vars(image.trunk)["pretrained_cfg"]["architecture"],
        "timm_model_pretrained": False,
        "timm_pool": "",  # the network's own, whatever it is
        "timm_proj": model.projection,
        "image_size": image.side,
    }
    state = {f"visual.trunk.{k}": v for k, v in image.trunk.state_dict().items()}
    head = model.image_projection.state_dict()
    if model.projection == "linear":
        return cfg, state | {"visual.head.proj.weight": head["weight"]}
    names = {k: IMAGE_MLP[k[:2]] + k[2:] for k in head}
    return cfg, state | {f"visual.{names[k]}": v for k, v in head.items()}


def _text(
    model: DualEncoder, text: TextEncoder, folder: Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return open_clip's text_cfg and the tensors of the text side."""
    if text.name.startswith("open_clip:"):
        cfg = copy.deepcopy((text.config or {})["text_cfg"])
        if cfg.get("hf_model_name"):
            cfg |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
        return cfg, {f"text.{k}": v for k, v in text.trunk.state_dict().items()}
    if not text.pooling or model.projection == "none":
        raise ValueError(f"open_clip can't build {text.name}: it has no mask for padding.")
    cfg = {
        "hf_model_name": str(folder),
        "hf_model_pretrained": False,
        "hf_tokenizer_name": str(folder),
        "hf_pooler_type": POOLERS[text.pooling],  # bert's default would be another
        "hf_proj_type": model.projection,
        "context_length": text.context,
    }
    state = {f"text.transformer.{k}": v for k, v in text.trunk.state_dict().items()}
    head = model.text_projection.state_dict()
    return cfg, state | {f"text.proj.{k}": v for k, v in head.items()}
