"""What a method is called, and its colour: both made of its columns, never of each other."""

import csv
import hashlib
from pathlib import Path

import pandas as pd

from bonelib.evaluation import Method, method_columns
from bonelib.figures.style import BLUE, BROWN, FAINT, GREEN, GREY, INDIGO, ORANGE, PINK, RED, SKY

# Starts that notebooks train, as a reader calls them, with their colour.
STARTS = {
    "scratch": ("scratch", SKY),
    "imagenet": ("ImageNet", BLUE),
    "captions": ("captions", RED),
}
ORIGINS = {"scratch": "random weights", "imagenet": "ImageNet weights"}
ORIGINS |= {"captions": "pretrained with captions"}
SEEN = {
    "metadata": ("metadata", GREY),
    "sex": ("sex", GREY),
    "file": ("file", BROWN),
    "thumbnail": ("32 x 32 pixels", ORANGE),
    "text": ("text", PINK),
    "image": ("image", BLUE),
}
FITTED = {"probe": "linear probe", "full": "fine-tuned", "lora": "LoRA"}
FITTED |= {"last_block": "last block", "layer_rates": "layer-wise rates", "l2_sp": "L2-SP"}
FITTED |= {"lp_ft": "LP-FT", "wise_ft": "WiSE-FT", "head_then_all": "head, then all"}
FITTED |= {"flyp": "FLYP", "class_text_ft": "towards class words"}
FITTED |= {"class_text_random": "towards random vectors"}
FITTED |= {"cumulative": "cumulative logits"}
FITTED |= {"linear_svm": "linear SVM", "rbf_svm": "RBF SVM", "knn": "k-NN", "mlp": "MLP"}
FITTED |= {"class_mean": "class mean", "gda": "Gaussian discriminant", "xgboost": "XGBoost"}
FITTED |= {"lp_plus_plus": "LP++", "ss_text": "SS-Text+", "tip_adapter": "Tip-Adapter"}
FITTED |= {"tip_adapter_f": "Tip-Adapter-F", "clip_adapter": "CLIP-Adapter", "clap": "CLAP"}
FITTED |= {"taskres": "TaskRes", "prolip": "ProLIP", "class_text": "class-text head"}
FITTED |= {"coop": "CoOp", "clip_it": "CLIP-IT", "cascade": "cascade"}
FITTED |= {"hierarchy": "entity hierarchy", "calibrated": "calibrated prompts"}
FITTED |= {"normal_knn": "k-NN of normal images", "mahalanobis": "Mahalanobis, normal images"}
FITTED |= {"patch_knn": "patches of normal images", "mvfa": "MVFA"}
FITTED |= {"early_fusion": "early fusion", "late_fusion": "late fusion"}
FITTED |= {"sentence_fusion": "fusion network", "dense_head": "dense head"}
FITTED |= {"top_k": "top-k places", "attention_pool": "attention pooling"}
FITTED |= {"outlined": "taught with outlines", "lesion_crops": "lesion crops with outlines"}
# Towers as papers write them, by timm's name without the weights' tag.
_LINES = Path(__file__).with_name("towers.csv").read_text(encoding="utf-8").splitlines()
TOWERS = dict(csv.reader(_LINES[1:]))
# They come with their ImageNet weights, so that their names have no tag.
PACKAGED = ("efficientnet_lite0", "efficientnet_lite2")
_IMAGENET = ("in1k", "in12k", "in21k", "in22k")  # in timm's tags


def display_name(method: Method) -> str:
    """Name a method for readers, from its start to what was done with it.

    ``captions, fine-tuned``; ``metadata only``; ``Lite0, ImageNet, frozen``; ``prompts by signs``.
    """
    if method.wording:
        return f"{method.detail}: {method.wording}"
    if method.strategy == "prompt":
        return _prompts(method)
    if method.strategy == "cascade" and method.detail:
        return f"cascade: prompts by {method.detail}"
    if method.sees == "none":
        return method.detail
    if method.strategy == "selected":
        return "best by inner folds"
    if method.start == "none":
        seen = " + ".join(SEEN[part][0] for part in method.sees.split("+"))
        only = method.detail or ("" if method.sees == "thumbnail" else "only")
        named = f"{seen}, {only}" if method.detail else f"{seen} {only}".strip()
        head = FITTED.get(method.strategy, "") if method.strategy != "probe" else ""
        return f"{named}, {head}" if head else named
    beside = [SEEN[part][0] for part in method.sees.split("+") if part != "image"]
    frozen = "" if beside else "frozen"
    if method.start == "scratch" and method.detail:
        parts = [TOWERS.get(_split(method.detail)[0], method.detail), "random weights"]
        fitted = FITTED | {"probe": ""}
    elif method.start in STARTS:
        parts, fitted = [STARTS[method.start][0]], FITTED
    else:
        parts, fitted = _tower(method.start), FITTED | {"probe": frozen}
    parts[-1] = " + ".join([parts[-1], *beside])
    detail = "" if method.start == "scratch" else method.detail
    return ", ".join(part for part in (*parts, fitted.get(method.strategy, ""), detail) if part)


def display_names(table: pd.DataFrame) -> pd.Series:
    """Name the method of each row of a table, by its columns ``start, strategy, sees, detail``."""
    rows = table[method_columns(table)].fillna("").to_dict("records")
    return pd.Series([display_name(Method(**row)) for row in rows], index=table.index, dtype="str")


def colours(table: pd.DataFrame) -> list[str]:
    """Return the colour of the method of each row."""
    rows = table[method_columns(table)].fillna("").to_dict("records")
    return [colour(Method(**row)) for row in rows]


def origins(table: pd.DataFrame) -> list[str]:
    """Say where the weights of the method of each row come from, in words of a heading."""
    rows = table[method_columns(table)].fillna("").to_dict("records")
    return [_origin(Method(**row)) for row in rows]


def _origin(method: Method) -> str:
    if method.strategy == "prompt" or method.wording:
        return "prompts"
    if method.strategy == "selected":
        return "chosen among all"
    if method.start == "none":
        return "no image encoder"
    if method.start in ORIGINS:
        return ORIGINS[method.start]
    return ORIGINS["imagenet"] if _imagenet(*_split(method.start)) else "other pretrained towers"


def colour(method: Method) -> str:
    """Return the colour of a method: where its weights come from, or else what it sees."""
    if method.strategy == "prompt" or method.wording:
        return GREEN
    if method.start in STARTS:
        return STARTS[method.start][1]
    if method.start == "none":
        return SEEN.get(method.sees.split("+")[0], ("", FAINT))[1]
    name, tag = _split(method.start)
    if "dino" in name or "dino" in tag:
        return PINK
    if "clip" in name or tag == "openai":
        return INDIGO
    if _imagenet(name, tag):
        return BLUE
    shades = (BLUE, ORANGE, GREEN, RED, SKY, PINK)  # drawn from its name, so for ever the same
    return shades[hashlib.sha256(method.start.encode()).digest()[0] % len(shades)]


def _prompts(method: Method) -> str:
    words = f"prompts by {method.detail}" if method.detail else "prompts"
    words = {"own": "your own prompts", "windows": "windows by prompts"}.get(method.detail, words)
    if method.start in ("captions", "none"):
        return words
    return ", ".join([*_tower(method.start), words])


def _split(start: str) -> tuple[str, str]:
    """Part a tower's name from the tag of its weights: ``timm:resnet50.a1_in1k``."""
    name, _, tag = start.rpartition(":")[2].partition(".")
    return name, tag


def _imagenet(name: str, tag: str) -> bool:
    return name in PACKAGED or any(word in tag for word in _IMAGENET)


def _tower(start: str) -> list[str]:
    name, tag = _split(start)
    if name not in TOWERS:
        return [start.rpartition(":")[2]]
    dino = ["DINOv3"] if "dinov3" in tag and "DINO" not in TOWERS[name] else []
    return [TOWERS[name], *(["ImageNet"] if _imagenet(name, tag) else dino)]
