"""Modules made of towers: the dual encoder, and heads on the image tower for its controls.

Towers come in; modules with CLIP's names go out (``encode_image``, ``image_features``,
``logit_scale``). Every module keeps its image tower as ``image``.
CLIP: Radford et al. 2021, arXiv:2103.00020. SigLIP: Zhai et al. 2023, arXiv:2303.15343.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib.encoders import CachedText, ImageEncoder, TextEncoder
from bonelib.models.places import PlaceHead, evidence, stage_maps
from bonelib.models.stages import StageViews

PROJECTIONS = ("linear", "mlp", "none")


def pool_studies(features: Tensor, study: Tensor) -> Tensor:
    """Return one row a study, the mean of its images: ``(N, D)`` to ``(S, D)``.

    Args:
        features: ``(N, D)``, one row an image, in any order.
        study: ``(N,)`` the row of each image's study, 0 … S-1.

    Raises:
        ValueError: A study has no image.
    """
    count = torch.bincount(study)
    if not count.all():
        empty = (count == 0).nonzero()[:, 0].tolist()
        raise ValueError(f"{len(empty)} of {len(count)} studies have no image, e.g. {empty[:3]}.")
    total = features.new_zeros(len(count), features.shape[1]).index_add(0, study, features)
    return total / count[:, None]


class DualEncoder(nn.Module):
    """An image and a text tower, each projected to a shared space of ``dim`` dimensions.

    Args:
        projection: ``linear``; ``mlp``, the shapes of open_clip (image: twice ``dim`` wide; text:
            midway); or ``none`` for towers that were trained together and already share a space.
        bias: SigLIP's learnable bias, which starts at -10 with a factor of 10 (its section 3.2).
        projector: Width of SimCLR's projector beside the image projection (Chen et al. 2020,
            arXiv:2002.05709, section 2.1: a hidden layer as wide as the features); 0 for none.
        stages: Each stage of the image trunk has a projector too; see ``stages.StageViews``.
        heads: How many values each attribute key has; each gets a linear head on the pooled
            features, for supervision beside the captions.
        label_projection: The heads see a projection of the pooled features of their own, as wide
            and of the same kind as that for texts, so that labels and texts pull at different
            spaces (DLILP, Silva-Rodríguez et al. 2025, arXiv:2504.05227).

    Attributes:
        logit_scale: Natural logarithm of the factor on the cosines; starts at ln(1/0.07) as in
            CLIP, section 2.5, and never exceeds ln 100.
        logit_bias: Added to the logits, or ``None``.
    """

    def __init__(
        self,
        image: ImageEncoder,
        text: TextEncoder | CachedText,
        *,
        dim: int = 256,
        projection: str = "linear",
        bias: bool = False,
        projector: int = 0,
        heads: Sequence[int] = (),
        label_projection: bool = False,
        stages: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        if projection not in PROJECTIONS:
            raise ValueError(f"Unknown projection {projection!r}. Choose {', '.join(PROJECTIONS)}.")
        if projection == "none" and not image.width == text.width == dim:
            raise ValueError(
                f"Without projections both towers must give dim={dim} features; {image.name} gives "
                f"{image.width}, {text.name} {text.width}. Choose projection='linear'."
            )
        self.image, self.text, self.dim, self.projection = image, text, dim, projection
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image_projection = _projection(projection, image.width, 2 * dim, dim, inner=True)
            hidden = (text.width + dim) // 2
            self.text_projection = _projection(projection, text.width, hidden, dim, inner=False)
            self.projector = None
            if projector:
                first, last = nn.Linear(image.width, image.width), nn.Linear(image.width, projector)
                self.projector = nn.Sequential(first, nn.ReLU(), last)
            self.label_projection = None
            if label_projection:
                parts = (projection, image.width, 2 * dim, dim)
                self.label_projection = _projection(*parts, inner=True)
            self.stages = StageViews(image.trunk) if stages else None
        wide = dim if label_projection else image.width
        self.heads = nn.ModuleList(_undecided(wide, count) for count in heads)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10 if bias else 1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if bias else None
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

    def forward(
        self,
        image: Tensor,
        tokens: Tensor | None,
        *,
        second: Tensor | None = None,
        neighbour_tokens: Tensor | None = None,
        study: Tensor | None = None,
        apart: bool = False,
    ) -> dict[str, Tensor]:
        """Return what the losses ask for, by name.

        ``image_features``, the raw ``pooled`` ones, the factor ``logit_scale`` and, with a bias,
        ``logit_bias``; ``text_features`` of ``tokens`` and ``neighbour_features`` of
        ``neighbour_tokens`` where given. With ``study``, image rows are studies, as texts should
        be. With ``second``, another view of the same images, both views go through the projector
        as ``view_features`` and ``second_features``, and those of each stage, where it has a
        projector, as ``stage_0``, ``second_stage_0``, …; stages that are ``apart`` hand on no
        gradient. A ``second`` of N crops, ``(B, N, C, h, w)``, gives ``second_features``
        ``(B, N, dim)``. Heads give ``attribute_0``, …: logits.
        """
        with torch.no_grad():  # in place, as CLIP does: beyond a clamp no gradient leads back
            self.logit_scale.clamp_(max=math.log(100))
        out = {"logit_scale": self.logit_scale.exp()}
        if self.logit_bias is not None:
            out["logit_bias"] = self.logit_bias
        crops = second if second is not None and second.ndim == 5 else None
        both = image if second is None or second.ndim == 5 else torch.cat([image, second])
        watching = contextlib.nullcontext([])
        if self.stages is not None:
            watching = self.stages.watching(self.image.trunk, apart=apart)
        with watching as seen:
            pooled = self.image(both)
        if crops is not None:  # of another size: a pass of their own
            pooled = torch.cat([pooled, self.image(crops.flatten(0, 1))])
        for k, features in enumerate(seen if second is not None else ()):
            out[f"stage_{k}"], out[f"second_stage_{k}"] = features.chunk(2)
        if second is not None:
            assert self.projector is not None, "a second view is for a model with a projector"
            views = F.normalize(self.projector(pooled), dim=-1)
            first, others = views.split([len(image), len(views) - len(image)])
            others = others if crops is None else others.unflatten(0, crops.shape[:2])
            out |= {"view_features": first, "second_features": others}
            pooled = pooled[: len(image)]
        out["pooled"] = pooled
        if study is not None:
            pooled = pool_studies(pooled, study)
        out["image_features"] = F.normalize(self.image_projection(pooled), dim=-1)
        seen = pooled if self.label_projection is None else self.label_projection(pooled)
        out |= {f"attribute_{k}": head(seen) for k, head in enumerate(self.heads)}
        if tokens is not None:
            out["text_features"] = self.encode_text(tokens)
        if neighbour_tokens is not None:
            out["neighbour_features"] = self.encode_text(neighbour_tokens)
        return out


def _projection(kind: str, width: int, hidden: int, dim: int, *, inner: bool) -> nn.Module:
    """Return a projection in the shape of open_clip's; ``inner``: the hidden layer has a bias."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(width, dim, bias=False)
    return nn.Sequential(
        nn.Linear(width, hidden, bias=inner), nn.GELU(), nn.Linear(hidden, dim, bias=False)
    )


class CosineHead(nn.Module):
    """Scaled cosines between projected features and one vector a class, such as its name in words.

    The vectors are fixed; the projection and the scale train.

    Args:
        width: Of the features.
        outputs: Columns of logits; 1 is a binary task: the second class against the first.
        dim: Width of the class vectors.
        projection: As in ``DualEncoder``.

    Attributes:
        classes: ``(C, dim)`` unit vectors in class order, zeros until they are set.
        logit_scale: As in ``DualEncoder``.
    """

    def __init__(self, width: int, *, outputs: int, dim: int, projection: str = "linear"):
        super().__init__()
        self.in_features, self.out_features = width, outputs
        self.dim, self.kind = dim, projection
        self.projection = _projection(projection, width, 2 * dim, dim, inner=True)
        self.register_buffer("classes", torch.zeros(max(2, outputs), dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits: ``(B, width)`` to ``(B, outputs)``."""
        with torch.no_grad():  # as in DualEncoder
            self.logit_scale.clamp_(max=math.log(100))
        unit = F.normalize(self.projection(features), dim=-1)
        logits = self.logit_scale.exp() * unit @ self.classes.T
        return logits[:, 1:] - logits[:, :1] if self.out_features == 1 else logits


class Classifier(nn.Module):
    """An image tower with a head, linear unless one is given; returns logits, never probabilities.

    A binary task has one output, the logit of its positive class.
    """

    def __init__(
        self, image: ImageEncoder, *, outputs: int, head: nn.Linear | CosineHead | None = None
    ):
        super().__init__()
        self.image = image
        self.head = _undecided(image.width, outputs) if head is None else head
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor, *, places: bool = False) -> Any:
        """Return logits ``(B, outputs)``; with ``places`` those of each place too."""
        if not isinstance(self.head, PlaceHead):
            return self.head(self.image(image))
        maps = stage_maps(self.image, image, len(self.head.channels))
        return self.head.judge(maps)[:2] if places else self.head(maps)

    def evidence(self, image: Tensor) -> Tensor:
        """Return the model's own heat map ``(B, outputs, h, w)``; see ``places.evidence``.

        Raises:
            ValueError: The head averages the features before it judges them: there is no such map.
        """
        if not isinstance(self.head, PlaceHead):
            raise ValueError(
                f"A {type(self.head).__name__} on pooled features has no map of its own. Explain "
                "a model trained by top_k, attention_pool or outlined, or take grad_cam."
            )
        maps = stage_maps(self.image, image, len(self.head.channels))
        return evidence(*self.head.judge(maps)[1:])


class LinearProbe(nn.Module):
    """A frozen image tower with a linear model on its standardised features, in double precision.

    What ``adaptation.Probe`` computes, as one module from pixels to logits.

    Args:
        fitted: ``mean``, ``scale``, ``limit`` ``(D,)``, ``weights`` ``(D, outputs)`` and ``bias``
            ``(outputs,)`` of a probe; without, they are zeros and ones that a bundle replaces.
    """

    def __init__(
        self, image: ImageEncoder, *, outputs: int, fitted: Mapping[str, Any] | None = None
    ):
        super().__init__()
        self.image, self.outputs = image, outputs
        plain = {"mean": torch.zeros(image.width), "scale": torch.ones(image.width)}
        plain |= {"limit": torch.zeros(image.width), "bias": torch.zeros(outputs)}
        plain["weights"] = torch.zeros(image.width, outputs)
        for name, start in plain.items():
            value = torch.as_tensor((fitted or {}).get(name, start), dtype=torch.float64)
            if value.shape != start.shape:
                raise ValueError(
                    f"{name} of the probe is {tuple(value.shape)}; {image.name} with {outputs} "
                    f"outputs needs {tuple(start.shape)}."
                )
            self.register_buffer(name, value.clone())
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, outputs)``, or values of a regression, float64."""
        return self.head(self.image(image))

    def head(self, features: Tensor) -> Tensor:
        """Return the logits of raw features ``(B, D)``."""
        mean, scale, limit = map(self.get_buffer, ("mean", "scale", "limit"))
        z = ((features.double() - mean) / scale).clamp(-limit, limit)
        return z @ self.get_buffer("weights") + self.get_buffer("bias")


class FeatureHead(nn.Module):
    """A frozen image tower with a head that is no layer: support vectors, trees, neighbours.

    It only holds them; ``adaptation.unpack`` makes the head of them again.

    Args:
        outputs: Columns of logits.
        kind: The strategy that made it.
        arrays: What it consists of, by name.
    """

    def __init__(self, image: ImageEncoder, *, outputs: int, kind: str, arrays: Mapping[str, Any]):
        super().__init__()
        self.image, self.outputs, self.kind = image, outputs, kind
        self.head = nn.Module()
        for name, value in arrays.items():
            self.head.register_buffer(name, torch.from_numpy(np.array(value)))
        self.to(memory_format=torch.channels_last)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the head consists of, by name."""
        return {name: value.numpy() for name, value in self.head.named_buffers()}


class MultiHead(nn.Module):
    """An image tower with one linear head an attribute: supervised training on caption facts.

    The control that asks whether text adds anything to the labels it was written from.

    Args:
        classes: How many values each attribute key has, in the order of the keys.
    """

    def __init__(self, image: ImageEncoder, *, classes: Sequence[int]):
        super().__init__()
        self.image = image
        self.heads = nn.ModuleList(_undecided(image.width, count) for count in classes)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the logits of each attribute: K times ``(B, classes[k])``."""
        features = self.image(image)
        return [head(features) for head in self.heads]


Model = DualEncoder | Classifier | LinearProbe | FeatureHead | MultiHead


def _undecided(width: int, outputs: int) -> nn.Linear:
    """Return a linear layer of zeros.

    timm's default head starts a binary task at a loss of 2.3 nats instead of ln 2; starting from
    zero is the small start that draws nothing at random.
    """
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(width, outputs)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
