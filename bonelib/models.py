"""Models made of towers: the dual encoder, the classifier, and bundles on disk.

Towers come in; modules with CLIP's names go out (``encode_image``, ``image_features``,
``logit_scale``). A bundle is a folder that holds all a model needs: weights (safetensors),
architecture, preprocessing, tokenizer, and a hash that is checked when it is loaded.
CLIP: Radford et al. 2021, arXiv:2103.00020.
"""

import hashlib
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib import encoders
from bonelib.encoders import CachedText, ImageEncoder, TextEncoder


class DualEncoder(nn.Module):
    """An image and a text tower, each projected to a shared space of ``dim`` dimensions.

    Attributes:
        logit_scale: Natural logarithm of the factor on the cosines; starts at ln(1/0.07) as in
            CLIP, section 2.5, and never exceeds ln 100.
    """

    def __init__(
        self, image: ImageEncoder, text: TextEncoder | CachedText, *, dim: int = 256, seed: int = 0
    ):
        super().__init__()
        self.image, self.text, self.dim = image, text, dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image_projection = nn.Linear(image.width, dim, bias=False)
            self.text_projection = nn.Linear(text.width, dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.to(memory_format=torch.channels_last)  # one layout from birth, so reloading keeps bits

    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit image features: ``(B, C, H, W)`` to ``(B, dim)``."""
        return F.normalize(self.image_projection(self.image(image)), dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return unit text features: ``(B, T)`` to ``(B, dim)``, on the device of the model."""
        tokens = tokens.to(self.logit_scale.device)
        return F.normalize(self.text_projection(self.text(tokens)), dim=-1)

    def tokenize(self, sentences: list[str]) -> Tensor:
        """Return tokens ``(N, T)`` for ``encode_text``."""
        return self.text.tokenize(sentences)

    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Return ``image_features``, ``text_features`` and the factor ``logit_scale``."""
        with torch.no_grad():  # in place, as CLIP does: beyond a clamp no gradient leads back
            self.logit_scale.clamp_(max=math.log(100))
        return {
            "image_features": self.encode_image(image),
            "text_features": self.encode_text(tokens),
            "logit_scale": self.logit_scale.exp(),
        }


class Classifier(nn.Module):
    """An image tower with a linear head; returns logits, never probabilities.

    A binary task has one output, the logit of its positive class.
    """

    def __init__(self, image: ImageEncoder, *, outputs: int):
        super().__init__()
        self.image = image
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Linear(image.width, outputs)
        # timm's default head starts a binary task at a loss of 2.3 nats instead of ln 2; starting
        # from zero is the small start that draws nothing at random.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, outputs)``."""
        return self.head(self.image(image))


def tower(
    name: str, *, size: int, weights: str = "pretrained", bundle: Path | None = None, seed: int = 0
) -> ImageEncoder:
    """Return the image tower a fine-tuning starts from: by name, or out of a bundle.

    Raises:
        ValueError: The bundle's tower has another name or input size than asked for.
    """
    if bundle is None:
        return encoders.image(name, weights=weights, size=size, seed=seed)
    image = load_bundle(bundle).image
    if (image.name, image.preprocessing.size) != (name, size):
        raise ValueError(
            f"{bundle} holds {image.name} at {image.preprocessing.size} px, asked for {name} at "
            f"{size} px. Fine-tune with the tower and the size of the pretraining."
        )
    return image


def save_bundle(folder: Path, model: DualEncoder | Classifier, **facts: Any) -> Path:
    """Write ``model`` as a bundle; the folder appears whole or not at all.

    A frozen text tower that came with a package is named by its hash instead of copied.

    Args:
        facts: What a reader of ``bundle.json`` should know, e.g. ``caption_fields``.
    """
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    architecture: dict[str, Any] = {
        "kind": type(model).__name__,
        "image": model.image.architecture(),
    }
    if isinstance(model, DualEncoder):
        architecture |= {"text": model.text.architecture(), "dim": model.dim}
        if isinstance(model.text, CachedText):
            architecture["text"]["hash"] = encoders.weights_hash(model.text.encoder)
            if model.text.weights == "pretrained":
                state = {k: v for k, v in state.items() if not k.startswith("text.encoder.")}
    else:
        architecture |= {"outputs": model.head.out_features}
    try:
        save_file(state, temporary / "weights.safetensors")
        digest = hashlib.sha256((temporary / "weights.safetensors").read_bytes()).hexdigest()
        record = {"architecture": architecture, "sha256": digest, "facts": facts}
        (temporary / "bundle.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_bundle(folder: Path) -> DualEncoder | Classifier:
    """Rebuild the model of a bundle, offline.

    Raises:
        FileNotFoundError: The folder is no bundle.
        ValueError: Weights don't have the recorded hash, or don't fit the architecture.
    """
    from safetensors.torch import load_file

    weights = folder / "weights.safetensors"
    for file in (folder / "bundle.json", weights):
        if not file.exists():
            raise FileNotFoundError(f"{folder} is no bundle: {file.name} is missing.")
    record = json.loads((folder / "bundle.json").read_text())
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != record["sha256"]:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}…, the bundle records {record['sha256'][:12]}…. "
            "The file was changed or damaged; make the bundle again."
        )
    shape = record["architecture"]
    image = encoders.image(
        shape["image"]["name"], weights="random", size=shape["image"]["preprocessing"]["size"]
    )
    image.preprocessing = encoders.Preprocessing(
        **{
            k: tuple(v) if isinstance(v, list) else v
            for k, v in shape["image"]["preprocessing"].items()
        }
    )
    image.weights = "bundle"
    model: DualEncoder | Classifier
    if shape["kind"] == "DualEncoder":
        text = encoders.text(shape["text"]["name"], cached=shape["text"].get("cached", False))
        model = DualEncoder(image, text, dim=shape["dim"])
    else:
        model = Classifier(image, outputs=shape["outputs"])
    state = load_file(weights)
    own = model.state_dict()
    packaged = isinstance(getattr(model, "text", None), CachedText)
    missing = [k for k in own.keys() - state if not (packaged and k.startswith("text.encoder."))]
    problems = {
        "missing": missing,
        "unexpected": list(state.keys() - own),
        "of another shape": [k for k in own.keys() & state if own[k].shape != state[k].shape],
    }
    if any(problems.values()):
        listed = [f"{len(k)} tensors {what} (first {min(k)})" for what, k in problems.items() if k]
        raise ValueError(f"{folder} does not fit its architecture: {', '.join(listed)}.")
    model.load_state_dict(state, strict=False)
    if packaged and encoders.weights_hash(model.text.encoder) != shape["text"]["hash"]:
        raise ValueError(f"{folder} was made with other weights of {shape['text']['name']}.")
    return model.eval()
