"""Multi-level adapters that compare each patch of an image with words: normal, or not.

A frozen image tower and two unit vectors of text come in; scores and maps of abnormality go out.
After MVFA, Huang et al., CVPR 2024, arXiv:2403.12570: at several levels of the trunk
``m = LeakyReLU(W1 x)`` is as wide as the texts and is compared with them, ``a = LeakyReLU(W2 m)``
goes back into the trunk, ``x <- .8 x + .1 a_seg + .1 a_det``; outlines and labels have adapters of
their own. Zero-shot in its sense means that the adapters learnt from outlines of *other* data;
few-shot that they saw some outlines of these, and that patches are also compared with a bank of
normal ones.

Where this departs from the published code, on purpose:

- One sigmoid: the loss of labels is the cross-entropy of the mean patch *logit*. There it is
  ``BCEWithLogitsLoss`` of a mean probability, a sigmoid of a sigmoid, which never exceeds .73.
- The epoch is chosen on validation patients, there on the test set.
- Nothing is stretched to 0–1 over the test set, and words and bank are not added as they come:
  validation images calibrate scores (`normal.calibrated`) and choose the mix of maps
  (`pixels.mixed`).
- Stages of a CNN serve as levels too. Where texts and images share no space, W1 aligns them.
- Images come in batches, mirrored at random, by AdamW; there one at a time, by Adam. Levels are
  averaged. The bank is a coreset.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bonelib import evaluation, training
from bonelib.anomaly.levels import as_grid, names, watching
from bonelib.anomaly.normal import coreset
from bonelib.losses import Batch, Objective, Outputs

KINDS = ("seg", "det")  # what outlines teach, and what labels teach
MIX = 0.1  # share of each adapter in what goes on through the trunk
POOL = 4_000  # normal patches among which a bank is chosen
Bank = list[dict[str, Tensor]]  # for each level and kind unit patches (M, D)


class Adapter(nn.Module):
    """Two linear layers: to the width of the texts, and back; the last level needs no way back."""

    def __init__(self, channels: int, width: int, *, last: bool):
        super().__init__()
        self.down = nn.Linear(channels, width, bias=False)
        self.up = None if last else nn.Linear(width, channels, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what is compared with texts ``(…, width)``, and what goes back ``(…, C)``."""
        m = F.leaky_relu(self.down(x))
        return m, None if self.up is None else F.leaky_relu(self.up(m))


class MVFA(nn.Module):
    """A frozen tower, none of whose weights moves, with adapters at several levels.

    Args:
        image: An image tower whose trunk timm built.
        texts: ``(2, D)`` unit features: of what is normal, and of what is not.
        scale: On the cosines; 100 as in CLIP and in the paper.

    Raises:
        ValueError: There are not two texts, or the trunk names no levels.
    """

    def __init__(self, image: nn.Module, texts: np.ndarray, *, scale: float = 100, seed: int = 0):
        super().__init__()
        if np.ndim(texts) != 2 or len(texts) != 2:
            raise ValueError(f"Texts {np.shape(texts)}; expected (2, D): normal, then abnormal.")
        self.image, self.scale = image.requires_grad_(False), scale
        channels, width = [wide for _, wide in names(image.get_submodule("trunk"))], len(texts[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList()
            for left, wide in zip(range(len(channels))[::-1], channels, strict=True):
                pair = {kind: Adapter(wide, width, last=not left) for kind in KINDS}
                self.adapters.append(nn.ModuleDict(pair))
        self.register_buffer("texts", torch.as_tensor(np.asarray(texts), dtype=torch.float32))

    def levels(self, image: Tensor) -> list[dict[str, Tensor]]:
        """Return the unit features of patches, for each level and kind ``(B, h, w, D)``."""
        seen: list[dict[str, Tensor]] = []

        def adapt(level: int, x: Tensor) -> Tensor | None:
            found = {kind: adapter(x) for kind, adapter in self.adapters[level].named_children()}
            seen.append({k: F.normalize(as_grid(m), dim=-1) for k, (m, _) in found.items()})
            back = [a for _, a in found.values() if a is not None]
            return (1 - len(back) * MIX) * x + MIX * sum(back) if back else None

        with watching(self.image.get_submodule("trunk"), adapt):
            self.image(image)
        return seen

    def logits(self, patches: Tensor) -> Tensor:
        """Return the logit of "abnormal" of unit patches ``(…, D)``: a softmax over two texts."""
        return self.scale * patches @ (self.texts[1] - self.texts[0])

    def forward(self, image: Tensor) -> Outputs:
        """Return logits: ``label`` ``(B, L)`` of images by level, ``level_0`` … ``(B, h, w)``."""
        seen = self.levels(image)
        labels = [self.logits(level["det"]).mean(dim=(1, 2)) for level in seen]
        out = {f"level_{i}": self.logits(level["seg"]) for i, level in enumerate(seen)}
        return {"label": torch.stack(labels, dim=1), **out}


def _grown(maps: Tensor, side: int) -> Tensor:
    """Enlarge ``(B, h, w)`` to ``(B, side, side)`` as the paper does, corners on corners."""
    return F.interpolate(maps[:, None], (side, side), mode="bilinear", align_corners=True)[:, 0]


def objective() -> Objective:
    """Return the loss of labels and of outlines, summed over levels.

    Cross-entropy of the label, focal loss (Lin et al. 2017, arXiv:1708.02002, gamma 2) and Dice of
    the enlarged map. A batch has ``label`` ``(B,)`` (1 abnormal), ``mask`` ``(B, S, S)`` and
    ``outlined`` ``(B,)``: whether the mask says all. An abnormal image without an outline teaches
    its label alone.
    """
    from torchvision.ops import sigmoid_focal_loss

    def forward(model: nn.Module, batch: Batch) -> Outputs:
        turned = torch.rand(len(batch["image"]), device=batch["image"].device) < 0.5

        def mirrored(x: Tensor) -> Tensor:
            return torch.where(turned.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)

        out = model(mirrored(batch["image"]))  # maps are turned back, to lie on masks as they are
        return {name: x if name == "label" else mirrored(x) for name, x in out.items()}

    def loss(out: Outputs, batch: Batch) -> Tensor:
        logits, known = out["label"], batch["outlined"]
        truth = batch["label"].to(logits)[:, None].expand_as(logits)
        total = F.binary_cross_entropy_with_logits(logits, truth) * logits.shape[1]
        mask = batch["mask"][known].to(logits)
        for i in range(logits.shape[1] if known.any() else 0):
            heat = _grown(out[f"level_{i}"][known], mask.shape[-1])
            p = heat.sigmoid()
            common, both = (p * mask).sum(dim=(1, 2)), (p + mask).sum(dim=(1, 2))
            total = total + (1 - (2 * common + 1) / (both + 1)).mean()
            total = total + sigmoid_focal_loss(heat, mask, alpha=-1, gamma=2, reduction="mean")
        return total

    return Objective(forward, loss)


def train(
    model: MVFA,
    loader: Any,
    validation: Any,
    labels: np.ndarray,
    masks: np.ndarray,
    *,
    epochs: int,
    lr: float = 1e-3,
) -> Iterator[dict[str, Any]]:
    """Train the adapters and yield a row an epoch; those of the best epoch are kept at the end.

    The best has the highest mean of two AUROCs on validation images: of their labels, and of pixels
    within outlined images (the former alone where none has an outline).

    Args:
        loader: Of training images, see `objective`.
        validation: Loader of validation images, in order.
        labels: ``(V,)`` of these, 1 where abnormal.
        masks: ``(V, S, S)`` bool of these, empty where normal or not outlined.

    Raises:
        ValueError: Training or validation images are of one class.
    """
    for name, known in (("training", loader.extras["label"].numpy()), ("validation", labels)):
        if len(np.unique(known)) < 2:
            raise ValueError(
                f"The {len(known)} {name} images are all {'ab' * bool(known[0])}normal: adapters "
                "need both. Draw others, or score by normal images alone."
            )

    def validate(_: nn.Module) -> dict[str, float]:
        seen = look(model, validation, masks.shape[-1])
        found = {"auroc": evaluation.auroc(labels, seen["label"])}
        pairs = [(m, heat) for m, heat in zip(masks, seen["words"], strict=True) if m.any()]
        if within := [evaluation.auroc(m.ravel(), heat.ravel()) for m, heat in pairs]:
            found["pixel_auroc"] = float(np.mean(within))
        return found | {"score": float(np.mean([*found.values()]))}

    options = training.Options(epochs=epochs, lr=lr, weight_decay=0.01)
    yield from training.fit(model, objective(), loader, options, validate=validate, keep="score")


def look(
    model: MVFA, loader: Iterable[Batch], side: int, *, bank: Bank | None = None
) -> dict[str, np.ndarray]:
    """Return scores ``(N,)`` and maps ``(N, side, side)`` of the images of a loader, in order.

    ``label`` is the logit of "abnormal", ``words`` its probability pixel by pixel; with a bank
    ``unlike`` and ``patches`` are 1 - cosine to the nearest in it. All are means over levels, and
    scores means over patches.
    """
    parts: list[dict[str, Tensor]] = []

    def mean(terms: Iterable[Tensor]) -> Tensor:
        return torch.stack([*terms]).mean(dim=0).float().cpu()

    model.eval()
    for batch in loader:
        with torch.no_grad():
            seen = model.levels(batch["image"].to(model.texts.device))
            row = {
                "label": mean(model.logits(one["det"]).mean(dim=(1, 2)) for one in seen),
                "words": mean(_grown(model.logits(one["seg"]), side).sigmoid() for one in seen),
            }
            if bank:
                pairs = [*zip(seen, bank, strict=True)]
                seg, det = ([1 - (x[k] @ b[k].T).amax(-1) for x, b in pairs] for k in KINDS)
                row["unlike"] = mean(x.mean(dim=(1, 2)) for x in det)
                row["patches"] = mean(_grown(x, side) for x in seg)
        parts.append(row)
    return {name: torch.cat([row[name] for row in parts]).numpy() for name in parts[0]}


def normal_bank(model: MVFA, loader: Any, *, size: int, seed: int = 0) -> Bank:
    """Choose ``size`` patches for each level and kind; the loader is of normal training images."""
    each = max(1, POOL // len(loader.image_ids))  # patches of an image that may be chosen
    draw = torch.Generator().manual_seed(seed)
    pools = [{kind: [] for kind in KINDS} for _ in model.adapters]
    model.eval()
    for batch in loader:
        with torch.no_grad():
            seen = model.levels(batch["image"].to(model.texts.device))
        for pool, level in zip(pools, seen, strict=True):
            for kind, unit in level.items():
                flat = unit.flatten(1, 2)
                some = torch.randperm(flat.shape[1], generator=draw)[:each]
                pool[kind].append(flat[:, some.to(flat.device)].flatten(0, 1))

    def chosen(parts: list[Tensor]) -> Tensor:
        kept = coreset(torch.cat(parts).cpu().numpy(), size=size, pool=POOL, seed=seed)
        return torch.from_numpy(kept).to(model.texts)

    return [{kind: chosen(parts) for kind, parts in pool.items()} for pool in pools]
