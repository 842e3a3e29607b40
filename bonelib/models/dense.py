"""A head with one hidden layer, for classifiers whose tower stays frozen."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseHead(nn.Linear):
    """A hidden layer below the linear one that gives the outputs: dense, ReLU, dropout, dense.

    ``weight`` and ``bias`` are those of the outputs; both start at 0, as in a linear head.

    Args:
        width: Of the features.
        seed: Draws the hidden layer.
    """

    def __init__(
        self, width: int, *, outputs: int, hidden: int = 256, dropout: float = 0.5, seed: int = 0
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(hidden, outputs)
            self.hidden = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits, or values: ``(B, width)`` to ``(B, outputs)``."""
        return super().forward(self.dropout(F.relu(self.hidden(features))))
