"""CoOp: the words around a class name are learnt, as vectors that the text tower reads.

A dual encoder and class names are bound first; unit image features come in, and scaled cosines with
the learnt prompts go out. Images are never encoded again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonelib.adaptation import descent
from bonelib.adaptation.descent import Batch
from bonelib.adaptation.support import Point, Strategy, Support
from bonelib.adaptation.text_heads import CosineHeads

STEPS = 200
PLACE = "x"  # one token in each vocabulary; its embedding is replaced


def coop(model: Any, names: Sequence[str], *, context: int = 16) -> Strategy:
    """Return the strategy that learns ``context`` vectors before each class name.

    Zhou et al. 2022, arXiv:2109.01134: the prompt of class c is ``[v]_1 … [v]_M name_c``, with the
    vectors shared by the classes and drawn from N(0, .02^2); ``s cos(f, T(prompt_c))``,
    cross-entropy; SGD at .002 with momentum .9, 200 epochs, cosine. Only the vectors learn.
    Departures: no warm-up, no augmented views; a step takes all rows up to 256 (32 there), and
    more rows take as many steps as few.

    Args:
        model: A ``models.DualEncoder`` that gave the image features; left as it was.
        names: One a class, in the task's order.
        context: How many vectors; 16 in the paper, 4 in its shorter form.

    Raises:
        ValueError: The text tower has no vocabulary (``random``), or a prompt doesn't fit into it.
    """
    tower = getattr(model.text, "encoder", model.text)  # one whose sentences are cached has it
    vocabularies = [m for m in tower.trunk.modules() if isinstance(m, nn.Embedding)]
    if not vocabularies:
        raise ValueError(
            f"The text tower {tower.name!r} has no embeddings of words to learn prompts for. "
            "Choose a model with a transformer as text tower."
        )
    vocabulary = max(vocabularies, key=lambda m: m.num_embeddings)
    sentences = [" ".join([PLACE] * context + [name]) for name in names]
    cut = tower.truncated(sentences)
    if cut.any():
        raise ValueError(
            f"{int(cut.sum())} of {len(names)} prompts are longer than the {tower.context} tokens "
            f"of the text tower {tower.name!r}. Pass a smaller context or shorter names."
        )
    tokens = tower.tokenize(sentences)  # (C, T)
    place = _place(tokens[0], context)

    def encode(vectors: Tensor) -> Tensor:
        """Return unit text features (K, P, C, D) of context vectors (K, P, M, width)."""
        k, p, m, width = vectors.shape
        rows = vectors.reshape(k * p, 1, m, width).expand(-1, len(names), -1, -1)
        with _replaced(vocabulary, rows.reshape(-1, m, width), place):
            found = model.text_projection(tower(tokens.repeat(k * p, 1)))
        return nn.functional.normalize(found, dim=-1).view(k, p, len(names), -1)

    def strategy(support: Support, rows: np.ndarray, points: Sequence[Point]) -> CosineHeads:
        targets = descent.class_targets(support, rows, "coop", texts=False)
        given = descent.by_name(points, rate=0.002)
        if support.classes != len(names):
            raise ValueError(
                f"{len(names)} class names for {support.classes} classes. Pass one a class."
            )
        if support.features.shape[1] != model.dim:
            raise ValueError(
                f"The features have {support.features.shape[1]} columns, the model's shared space "
                f"{model.dim}. Pass the image features of this dual encoder."
            )
        draw = torch.Generator().manual_seed(support.seed)
        first = 0.02 * torch.randn(context, vocabulary.embedding_dim, generator=draw)
        vectors = first.expand(len(rows), len(points), -1, -1).clone()

        def loss(parameters: list[Tensor], batch: Batch) -> Tensor:
            texts = encode(parameters[0])  # (K, P, C, D)
            out = support.scale * batch.features[:, None] @ texts.transpose(2, 3)
            return descent.cross_entropy(out.transpose(1, 2), batch)

        with descent.one_thread(), _evaluated(model):
            x = descent.unit(support.features)
            parts = descent.batches(rows, x, targets, seed=support.seed)
            gradient = descent.by_autograd(loss)
            options = dict(rates=given["rate"], steps=STEPS, kind="sgd")
            descent.descend([vectors], gradient, parts, **options)
            texts = encode(vectors)
        return CosineHeads(texts, support.scale, support.present(rows))

    return strategy


def _place(tokens: Tensor, context: int) -> int:
    """Return where the placeholders begin: the first run of ``context`` equal tokens."""
    runs = tokens.unfold(0, context, 1)
    return int((runs == runs[:, :1]).all(dim=1).nonzero()[0])


@contextlib.contextmanager
def _replaced(vocabulary: nn.Embedding, vectors: Tensor, place: int) -> Iterator[None]:
    """Let the embeddings of the tokens from ``place`` on be ``vectors`` (B, M, width)."""

    def hook(_: nn.Module, __: object, out: Tensor) -> Tensor:
        after = place + vectors.shape[1]
        return torch.cat([out[:, :place], vectors.to(out), out[:, after:]], dim=1)

    handle = vocabulary.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Keep a model without dropout for a while."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
