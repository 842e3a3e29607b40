"""What every strategy that trains the image tower gets, and what it gives back.

A strategy is a context manager ``strategy(tuning) -> Training``: inside it, ``training.fit`` trains
``Training.model`` by its objective and options; on leaving it, the strategy does what follows the
training (merges low-rank changes, averages weights). ``Training.classifier`` then gives a plain
``models.Classifier``, which a bundle keeps and everything else loads.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import nn

from bonelib import losses, models, training
from bonelib.adaptation.probes import Probe


@dataclass(frozen=True)
class Tuning:
    """A tower before its training, with the labels of one task.

    Attributes:
        model: The tower with an undecided head; trained in place.
        labels: Of the training images ``(N,)``: integers, or floats of a regression.
        options: Of the training, as it is where a strategy changes nothing.
        steps: How many steps the training has.
        ordinal: The classes are grades in order.
        imbalance: One of ``objectives.IMBALANCE``.
        seed: Fixes what is drawn before the training.
        probe: A linear probe on the frozen features of the training images, for strategies that
            start from its head.
        dual: A dual encoder that reads the ``prompts``, for strategies with class texts. Where the
            tower is its own (``dual.image is model.image``), images and texts share a space.
        prompts: Sentences of each class, in class order.
        judge: Scores a classifier on validation images, higher is better.
    """

    model: models.Classifier
    labels: np.ndarray
    options: training.Options
    steps: int
    ordinal: bool = False
    imbalance: str = "weights"
    seed: int = 0
    probe: Probe | None = None
    dual: models.DualEncoder | None = None
    prompts: Mapping[str, Sequence[str]] | None = None
    judge: Callable[[models.Classifier], float] | None = None

    @property
    def regression(self) -> bool:
        """Whether the labels are values."""
        return np.issubdtype(np.asarray(self.labels).dtype, np.floating)


@dataclass
class Training:
    """What ``training.fit`` takes, and the classifier that comes of it.

    Attributes:
        model: What trains.
        chosen: What validation images decided after the training, for the bundle to record.
        made: Makes the classifier of a model that is none, at any moment of its training.
        augment: How training images are varied, where not as in the plan: for ``images.augment``.
    """

    model: nn.Module
    objective: losses.Objective
    options: training.Options
    chosen: dict[str, float] = field(default_factory=dict)
    made: Callable[[], models.Classifier] | None = None
    augment: dict[str, float] = field(default_factory=dict)

    def classifier(self) -> models.Classifier:
        """Return the classifier of the weights as they are; it shares them with the model."""
        # pyrefly: ignore[bad-return] a model that is no classifier says what is made of it
        return self.model if self.made is None else self.made()


class TowerStrategy(Protocol):
    """A strategy that trains the tower; the table ``strategies.csv`` says what each one is."""

    def __call__(self, tuning: Tuning) -> AbstractContextManager[Training]:
        """Prepare a training.

        Raises:
            ValueError: The strategy does not fit the task's kind, or lacks what it needs.
        """
