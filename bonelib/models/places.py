"""Heads that keep the place: they judge each place of the feature maps and pool the judgements.

The mean over the last map lets a large background outvote a small lesion, and leaves no map but
that of its gradients. These heads put out a logit for each place; what they pool is what can be
shown. Multiple-instance pooling: Ilse et al. 2018, arXiv:1802.04712.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POOLS = ("top_k", "attention_pool")
STAGES = 3  # resolutions that are fused: strides 32, 16 and 8 of most convolutional towers
DIM = 64  # channels of the fused map
TOP = 1 / 64  # share of the places that `top_k` averages: 4 of 16 x 16


def stage_maps(tower: nn.Module, image: Tensor, stages: int = STAGES) -> list[Tensor]:
    """Return the feature maps ``(B, C, h, w)`` of a tower's last stages, the finest first.

    The last one is what the tower pools itself.

    Raises:
        ValueError: The tower's features are no maps.
    """
    forward = getattr(tower.trunk, "forward_intermediates", None)
    found = forward(image) if forward else None
    last, maps = found if isinstance(found, tuple) else (image[:, 0], [])  # open_clip's is a dict
    if last.ndim == 4 and maps and last.shape[1:3] == maps[-1].shape[2:] != last.shape[2:]:
        last = last.movedim(-1, 1)  # channels last, as Swin has them, where stages have them first
    if last.ndim != 4 or len(maps) < stages:
        raise ValueError(
            f"{tower.name} has no feature maps of {stages} resolutions to look at. Choose a "
            "convolutional tower, such as packaged:efficientnet_lite0 or timm:resnet50.a1_in1k, "
            "or the strategy full."
        )
    return [*maps[-stages:-1], last]


class PlaceHead(nn.Linear):
    """A logit for each place and output, pooled to the logits of the image.

    The stages' maps are brought to ``dim`` channels and summed at the resolution of the finest
    (feature pyramid, Lin et al. 2017, arXiv:1612.03144), and one convolution mixes neighbours.
    ``weight`` and ``bias`` are those of the outputs; both start at 0, as in a linear head.

    Args:
        channels: Of each stage, the finest first.
        pool: ``top_k``, the mean of the highest logits, at least one and ``TOP`` of the places; or
            ``attention_pool``, their mean weighed by gated attention (Ilse et al., equation 9).
        seed: Draws the layers below the outputs.
    """

    def __init__(
        self,
        channels: list[int],
        *,
        outputs: int,
        pool: str = "top_k",
        dim: int = DIM,
        seed: int = 0,
    ):
        if pool not in POOLS:
            raise ValueError(f"Unknown pool {pool!r}. Choose {', '.join(POOLS)}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(dim, outputs)
            self.lateral = nn.ModuleList(nn.Conv2d(count, dim, 1) for count in channels)
            self.mix = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU())
            self.attend = None
            if pool == "attention_pool":
                gates = (nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, 1))
                self.attend = nn.ModuleList(gates)
        self.channels, self.pool = list(channels), pool
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits ``(B, outputs)`` of maps as from `stage_maps`."""
        return self.judge(maps)[0]

    def judge(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits ``(B, outputs)``, those of places ``(B, outputs, h, w)``, and weights.

        Weights ``(B, 1, h, w)`` sum to 1 over the places; those of `top_k` are all alike.
        """
        side, fused = maps[0].shape[-2:], 0
        for layer, found in zip(self.lateral, maps, strict=True):
            # towers scale their stages as they like; along channels each place has one length
            even = F.layer_norm(found.movedim(1, -1), found.shape[1:2]).movedim(-1, 1)
            fused = fused + F.interpolate(layer(even), side, mode="bilinear")
        tokens = self.mix(fused).flatten(2).mT  # (B, places, dim)
        places = super().forward(tokens)  # (B, places, outputs)
        if self.attend is None:
            count = max(1, round(TOP * places.shape[1]))
            logits = places.topk(count, dim=1).values.mean(dim=1)
            weights = torch.full_like(places[..., :1], 1 / places.shape[1])
        else:
            value, gate, score = self.attend
            weights = score(value(tokens).tanh() * gate(tokens).sigmoid()).softmax(dim=1)
            logits = (weights * places).sum(dim=1)
        return logits, places.mT.unflatten(2, side), weights.mT.unflatten(2, side)


def evidence(places: Tensor, weights: Tensor) -> Tensor:
    """Return what each place says for each output, not negative: ``(B, C, h, w)``.

    The odds of the class at the place, against all others, times the weight that the pooling gives
    it: the logarithm of this is what the head adds up.
    """
    if places.shape[1] == 1:
        odds = places
    else:  # log p - log (1 - p)
        log_p = places.log_softmax(dim=1)
        odds = log_p - torch.log1p(-log_p.exp().clamp_max(1 - 1e-6))
    return odds.clamp_max(20).exp() * weights
