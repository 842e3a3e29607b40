"""Fusion of an image with clinical data as a sentence: a small network on both frozen towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bonelib import training
from bonelib.adaptation import descent, fusion
from bonelib.adaptation.support import Heads, Point, Strategy, Support, never_winning, refuse_values

EPOCHS, WARM, BATCH, WIDE = 20, 2, 64, 200  # WARM of the epochs; WIDE units in each hidden layer


def sentence_fusion(columns: int) -> Strategy:
    """Make the strategy that fits the network of Vo et al. to image and text features.

    ``W3 drop(relu(W2 relu(W1 [image; text])))``, 200 units twice, dropout .7; cross-entropy without
    class weights, Adam at .01 with two epochs of warm-up and a cosine, 20 epochs of batches of 64.
    Vo et al., IEEE JBHI 29(5):3234, read from its code. Features come as they are: unit vectors of
    both towers. Departures: the last epoch is kept, where the code keeps the best of its validation
    images; single precision; the warm-up does not begin at a rate of 0.

    Args:
        columns: How many columns at the end of the features are those of the sentence.

    Raises:
        ValueError: Of the strategy: values for labels; else as ``fusion.early_fusion``.
    """

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Heads:
        refuse_values(support, "sentence_fusion")
        fusion.check(support, rows, columns)
        given = descent.by_name(points, rate=1e-2, dropout=0.7)
        each = [*zip(given["rate"].tolist(), given["dropout"].tolist(), strict=True)]
        fitted = [[_network(support.rows(mask), *point) for point in each] for mask in rows]
        return fusion.Known(Networks(fitted, support.present(rows)), slice(None))

    return strategy


@dataclass(frozen=True)
class Networks:
    """Networks by mask and point, and the classes that each mask has rows of, ``(K, C)`` bool."""

    fitted: Sequence[Sequence[nn.Module]]
    present: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)``; absent classes never win."""
        with descent.one_thread():
            x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
            out = torch.stack([torch.stack([net(x) for net in nets]) for nets in self.fitted])
        return never_winning(out.numpy(), self.present)


def _network(support: Support, rate: float, dropout: float) -> nn.Module:
    x = torch.from_numpy(np.ascontiguousarray(support.features, dtype=np.float32))
    y = torch.from_numpy(np.asarray(support.labels, dtype=np.int64))
    with torch.random.fork_rng(devices=[]), descent.one_thread(), torch.enable_grad():
        torch.manual_seed(support.seed)
        hidden = nn.Linear(x.shape[1], WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE), nn.ReLU()
        net = nn.Sequential(*hidden, nn.Dropout(dropout), nn.Linear(WIDE, support.classes))
        optimizer = torch.optim.Adam(net.parameters())
        batches = [part for _ in range(EPOCHS) for part in torch.randperm(len(x)).split(BATCH)]
        for step, part in enumerate(batches):
            slow = training.schedule(step, steps=len(batches), warmup=WARM / EPOCHS)
            optimizer.param_groups[0]["lr"] = rate * slow
            optimizer.zero_grad()
            F.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
    return net.eval()
