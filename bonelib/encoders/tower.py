"""What an image tower is: a trunk, what its pixels must look like, and what makes it again."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from bonelib.encoders import huggingface, pooling


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
        trunk: The network without its classifier.
        weights: Where the weights came from: ``pretrained``, ``random`` or a file name.
        multiple: Images are enlarged to a multiple of this many pixels, where the trunk's patches
            would cut off the last rows and columns; 0: they are taken as they are.
        pooling: How tokens become one vector, one of ``POOLINGS``; empty: the trunk's own way.
        notes: What was assumed of the weights and the pixels, in sentences.
    """

    def __init__(
        self,
        name: str,
        trunk: nn.Module,
        preprocessing: Preprocessing,
        weights: str,
        *,
        width: int = 0,
        config: dict[str, Any] | None = None,
        multiple: int = 0,
        pooling: str = "",
    ):
        super().__init__()
        self.multiple, self.pooling = multiple, pooling
        self.notes: list[str] = []
        self.name, self.weights, self.preprocessing = name, weights, preprocessing
        self.trunk, self.config = trunk, config
        # Not num_features: MobileNets widen once more between their last map and the classifier.
        self.width: int = width or trunk.head_hidden_size  # pyrefly: ignore[bad-assignment] timm's
        if not hasattr(trunk, "group_matcher"):
            trunk.__dict__["group_matcher"] = _layers  # as timm's own have it

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features, not normalised."""
        if self.multiple:
            sides = [-(-side // self.multiple) * self.multiple for side in image.shape[-2:]]
            image = functional.interpolate(image, sides, mode="bilinear", antialias=True)
        if self.pooling:
            return pooling.pooled(self.trunk, image, self.config, self.pooling)
        if self.config and "transformers" in self.config:
            return huggingface.see(self.trunk, image)
        out = self.trunk(image)
        return out[0] if isinstance(out, tuple) else out  # CoCa also returns its tokens

    @property
    def side(self) -> int:
        """Side in pixels of what reaches the trunk."""
        size = self.preprocessing.size
        return -(-size // self.multiple) * self.multiple if self.multiple else size

    def architecture(self) -> dict[str, Any]:
        """Return what rebuilds this tower, without its weights."""
        known = {"name": self.name, "preprocessing": asdict(self.preprocessing)}
        known |= {"multiple": self.multiple} if self.multiple else {}
        known |= {"pooling": self.pooling} if self.pooling else {}
        return known | ({"config": self.config} if self.config else {})


def _layers(coarse: bool = False) -> dict[str, Any]:
    """Return how timm orders the layers of a trunk that is not its own, for layer-wise rates."""
    stem = r"(?:.*\.)?(?:embeddings|embedder|conv1|class_embedding|positional_embedding|ln_pre)\b"
    return {"stem": stem, "blocks": [(r".*?\b(?:layers?|stages|resblocks|blocks)\.(\d+)", None)]}
