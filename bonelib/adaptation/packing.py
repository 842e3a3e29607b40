"""Heads on frozen features as plain arrays, so that bundles hold them without a pickle.

A fitted head goes out as a module with its tower, and comes back as the head that it was: a linear
one as a ``LinearProbe``, which has heat maps; the others as a ``FeatureHead``, whose buffers are
support vectors, a network's weights, XGBoost's own JSON as bytes, or the rows that vote.
"""

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from bonelib.adaptation import closed, library
from bonelib.adaptation.linear import Linear
from bonelib.adaptation.search import Fitted
from bonelib.adaptation.support import Heads, Standard, Support
from bonelib.models import FeatureHead, LinearProbe

PACKED = ("linear_svm", "gda", "rbf_svm", "xgboost", "mlp", "knn")
LAYERS = ("w0", "w1", "b0", "b1")  # weights and biases of a network
NEVER = -1e4  # logit of a class that no training row had


def pack(name: str, tower: Any, fitted: Fitted) -> LinearProbe | FeatureHead:
    """Return a tower with a fitted head as one module, for ``models.save_bundle``.

    Args:
        name: Of the strategy, one of ``PACKED``.
        tower: Which made the features.

    Raises:
        ValueError: Heads of this strategy can't be packed.
    """
    if name not in PACKED:
        raise ValueError(f"{name} can't be saved as a bundle; {', '.join(PACKED)} can.")
    if isinstance(fitted.heads, Linear):
        return _linear(tower, fitted.heads)
    kept = _neighbours(fitted) if name == "knn" else _model(name, fitted.heads)
    classes = int(kept["classes"])
    return FeatureHead(tower, outputs=max(classes, 1), kind=name, arrays=kept)


def unpack(model: FeatureHead) -> Fitted:
    """Return the head of a module: ``logits`` of raw features, the same as before it was packed.

    Raises:
        ImportError: It is XGBoost's, which is not installed.
    """
    kept = model.arrays()
    if model.kind == "knn":
        groups, classes = np.arange(len(kept["labels"])), int(kept["classes"])
        given = Support(kept["features"], kept["labels"], groups=groups, classes=classes)
        point = {"neighbors": int(kept["neighbors"])}
        every = np.ones((1, len(given.labels)), dtype=bool)
        return Fitted(closed.knn(given, every, [point]), point, np.empty(0))
    made = {"rbf_svm": _svm, "xgboost": _trees, "mlp": _network}[model.kind](kept)
    standard = Standard(*(kept[name] for name in Standard._fields))
    units, present, classes = [tuple(kept["unit"])], kept["present"][None], int(kept["classes"])
    told = (library.PREDICT[model.kind], [standard], units, present, classes)
    return Fitted(library.Models([[made]], *told), {}, np.empty(0))


def _linear(tower: Any, heads: Linear) -> LinearProbe:
    assert heads.standards is not None, "packed heads see standardised features"
    there, (mean, scale, limit) = heads.present[0], heads.standards[0]
    weights = np.where(there, heads.weights[0, 0], 0)
    bias = np.where(there, heads.bias[0, 0], NEVER)
    if len(bias) == 2:
        weights, bias = np.diff(weights), np.diff(bias)
    fitted = dict(mean=mean, scale=scale, limit=limit, weights=weights, bias=bias)
    return LinearProbe(tower, outputs=len(bias), fitted=fitted)


def _neighbours(fitted: Fitted) -> dict[str, Any]:
    assert isinstance(fitted.heads, closed.Cache)
    support, rows = fitted.heads.support, fitted.heads.rows[0]
    kept = dict(features=support.features[rows], labels=support.labels[rows])
    return kept | dict(neighbors=fitted.point["neighbors"], classes=support.classes)


def _model(name: str, heads: Heads) -> dict[str, Any]:
    assert isinstance(heads, library.Models)
    kept = heads.standards[0]._asdict() | dict(unit=heads.units[0], present=heads.present[0])
    kept["classes"], made = heads.classes, heads.models[0][0]
    if name == "xgboost":
        trees, rounds = made
        return kept | dict(trees=np.frombuffer(trees[:rounds].save_raw("json"), np.uint8))
    if name == "mlp":
        model, n = made
        kept |= dict(zip(LAYERS, [*model.coefs_, *model.intercepts_], strict=True))
        return kept if n is None else kept | {"counts": n}
    model, z, gamma = made
    kept |= dict(vectors=z[model.support_], gamma=gamma, n_support=model.n_support_)
    return kept | dict(dual=model.dual_coef_, intercept=model.intercept_)


def _svm(kept: dict[str, np.ndarray]) -> tuple[Any, np.ndarray, Any]:
    n, dual, intercept = (kept[name] for name in ("n_support", "dual", "intercept"))
    model = SimpleNamespace(n_support_=n, dual_coef_=dual, intercept_=intercept)
    model.support_ = np.arange(len(kept["vectors"]))
    model.decision_function = partial(_votes, dual=dual, intercept=intercept, n=n)
    return model, kept["vectors"], kept["gamma"].item()


def _votes(
    kernel: np.ndarray, *, dual: np.ndarray, intercept: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """Return scikit-learn's ``(M, C)`` of three or more classes: the votes of their pairs.

    Ties are settled by the sum of a class's margins, squeezed to less than a third of a vote.

    Args:
        kernel: ``(M, support vectors)``, the vectors class by class.
        dual: ``(C - 1, support vectors)``; libsvm keeps the coefficients against class j of a
            vector of class i in row j, less one where j > i.
        n: Support vectors of each class.
    """
    own = [slice(end - count, end) for count, end in zip(n, np.cumsum(n), strict=True)]
    votes, margins = np.zeros((2, len(kernel), len(n)))
    for (i, j), offset in zip(itertools.combinations(range(len(n)), 2), intercept, strict=True):
        parts = ((own[i], j - 1), (own[j], i))
        margin = sum(kernel[:, one] @ dual[row, one] for one, row in parts) + offset
        votes[:, i] += margin >= 0
        votes[:, j] += margin < 0
        margins[:, i] += margin
        margins[:, j] -= margin
    return votes + margins / (3 * (abs(margins) + 1))


def _trees(kept: dict[str, np.ndarray]) -> tuple[Any, int]:
    trees = library.booster(kept["trees"].tobytes())
    return trees, trees.num_boosted_rounds()


def _network(kept: dict[str, np.ndarray]) -> tuple[Any, np.ndarray | None]:
    layers = [kept[name] for name in LAYERS]
    return SimpleNamespace(coefs_=layers[:2], intercepts_=layers[2:]), kept.get("counts")
