"""Ranks and the report on wordings beside what one would write instead, in one process.

    python benchmarks/zero_shot.py [--images 40000] [--captions 2000] [--wordings 20]

CPU seconds of one thread. Features are random, the text tower is a stub of MiniLM's size whose
passes are counted. Beside the ranks stands the whole matrix of similarities, sorted by numpy, which
is asked on a tenth of the images, since all of them need 13 GB, and whose time grows with the
square. Beside the report stands the loop of open_clip's ``build_zero_shot_classifier``, which
encodes every class anew for each template, and scikit-learn's AUROC on each draw, for a fiftieth of
the draws. The exit status is 1 unless both targets are met.
"""

import argparse
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

RANKS, REPORT = 20, 40  # CPU seconds
DIM = 384


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    x = rng.standard_normal((rows, DIM), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def seconds(call: Callable[[], object]) -> tuple[float, object]:
    started = time.process_time()
    found = call()
    return time.process_time() - started, found


def told(name: str, ours: float, other: float, target: float) -> bool:
    met = ours <= target
    print(f"{name:<44} {ours:7.2f} s, beside {other:8.1f} s (x{other / ours:.0f}), ", end="")
    print(f"target <= {target} s: {'met' if met else 'MISSED'}", flush=True)
    return met


def ranks(images: int, captions: int) -> bool:
    """Both directions and zero-shot logits, beside the whole matrix and argsort."""
    from bonelib import zero_shot

    rng = np.random.default_rng(0)
    image, text = unit(rng, images), unit(rng, captions)
    which = rng.integers(0, captions, images)
    keys, classes = which[:, None] // 4, unit(rng, 10)

    def ours() -> list[float]:
        zero_shot.logits(image, classes, scale=100.0).argmax(axis=1)
        both = (image, text[which]), (text[which], image)
        return [zero_shot.ranked(*pair, keys=keys)["recall_10"].mean() for pair in both]

    def other(rows: int) -> None:
        near = image[:rows] @ text[which[:rows]].T
        for similarity in (near, near.T):
            order = np.argsort(-similarity, axis=1)
            right = keys[:rows, 0][order] == keys[:rows]
            right.argmax(axis=1)

    some = images // 10
    return told(
        f"ranks: {images:,} images x {captions:,} captions",
        seconds(ours)[0], seconds(lambda: other(some))[0] * (images / some) ** 2, RANKS,
    )  # fmt: skip


class Tower:
    """A text tower of MiniLM's width and depth with random weights; counts its sentences."""

    def __init__(self) -> None:
        layer = torch.nn.TransformerEncoderLayer(DIM, 12, 1536, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
        self.words, self.sentences = torch.nn.Embedding(256, DIM), 0

    def tokenize(self, sentences: list[str]) -> torch.Tensor:
        return torch.tensor([list(f"{s:<32}"[:32].encode("ascii", "replace")) for s in sentences])

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        self.sentences += len(tokens)
        return torch.nn.functional.normalize(self.layers(self.words(tokens)).mean(dim=1), dim=-1)


def report(images: int, wordings: int) -> bool:
    """Three languages of templates, from the sentences to the intervals."""
    from sklearn.metrics import roc_auc_score

    from bonelib import cohort, evaluation, zero_shot

    rng, task, tower = np.random.default_rng(0), cohort.task("tumor"), Tower()
    seen, labels = unit(rng, images), rng.integers(0, 2, images)
    view = pd.DataFrame({"image_id": np.arange(images).astype(str), "split": "test"})
    view["patient"] = rng.integers(0, images * 3 // 4, images).astype(str)
    view[task.column] = np.array(task.classes)[labels]
    every = [
        SimpleNamespace(
            kind="template", name=str(n), language=language,
            prompts={c: [f"{language} frame {n}: {c}"] for c in task.classes},
        )
        for language in ("en", "fr", "de")
        for n in range(wordings)
    ]  # fmt: skip

    def ours() -> pd.DataFrame:
        classes, ensembles = zero_shot.variant_features(tower, every)
        rows = [(v.language, v.kind, v.name, own) for v, own in zip(every, classes, strict=True)]
        rows += [(name, "ensemble", "", own) for name, own in ensembles.items()]
        tables = []
        for language, kind, name, own in rows:
            logits = zero_shot.logits(seen, own, scale=100.0)
            table = evaluation.predictions(view, logits, task=task, seed=0)
            named = dict(language=language, kind=kind, wording=name, opposite=0.0)
            tables.append(table.assign(**named))
        return zero_shot.report(pd.concat(tables), task=task, draws=evaluation.DRAWS)[0]

    def other(some: int) -> None:
        members = [rows for _, rows in sorted(view.groupby("patient").indices.items())]
        for v in every:
            with torch.no_grad():
                said = v.prompts.values()
                both = [tower.encode_text(tower.tokenize(s)).mean(dim=0) for s in said]
            score = seen @ (both[1] - both[0]).numpy()
            for _ in range(some):
                drawn = rng.integers(0, len(members), len(members))
                kept = np.concatenate([members[i] for i in drawn])
                roc_auc_score(labels[kept], score[kept])

    spent, _ = seconds(ours)
    assert tower.sentences == 2 * len(every), "a sentence was encoded more than once"
    some = evaluation.DRAWS // 50
    name = f"report: {len(every)} wordings, {images:,} images, {evaluation.DRAWS:,} draws"
    return told(name, spent, seconds(lambda: other(some))[0] * 50, REPORT)


def main() -> int:
    """Measure both and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = (("images", 40_000), ("captions", 2_000), ("wordings", 20), ("asked", 4_000))
    for name, value in sizes:
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(1)
    met = [ranks(given.images, given.captions), report(given.asked, given.wordings)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
