"""Heads that libraries fit best: an SVM with a radial kernel, gradient boosting, a small network.

Points share what they can: one kernel of a mask serves every strength of its SVM, one sequence of
boosted trees every number of rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bonelib.adaptation.support import (
    Point,
    Standard,
    Support,
    balanced,
    never_winning,
    of_both,
    standardised,
)


@dataclass(frozen=True)
class Models:
    """Fitted models of a library, one a mask and point.

    Attributes:
        models: By mask and point.
        predict: ``(models of a mask, standardised features (M, D)) -> (P, M, outputs)``.
        standards: How each mask standardises features.
        units: Mean and standard deviation of each mask's values, where models learn them
            standardised; else 0 and 1.
        present: ``(K, C)`` bool; models know the classes that are present, in order.
        classes: Of the task; 0 for a regression.
    """

    models: list[list[Any]]
    predict: Any
    standards: list[Standard]
    units: list[tuple[float, float]]
    present: np.ndarray
    classes: int

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return ``(K, P, M, C)`` logits of raw features; values, C = 1, of a regression."""
        out = np.zeros((len(self.models), len(self.models[0]), len(features), max(self.classes, 1)))
        for k, (models, standard) in enumerate(zip(self.models, self.standards, strict=True)):
            if models[0] is None:  # one class alone
                continue
            shown = self.predict(models, standard.of(features))
            middle, spread = self.units[k]
            shown = of_both(shown) if shown.shape[2] == 1 and self.classes else shown
            out[k][..., self.present[k]] = shown * spread + middle
        return never_winning(out, self.present)

    def of(self, mask: int) -> "Models":
        """Return the heads of one mask, K = 1."""
        one = slice(mask, mask + 1)
        kept = (self.standards[one], self.units[one], self.present[one], self.classes)
        return Models(self.models[one], self.predict, *kept)


def _fit(
    support: Support,
    rows: np.ndarray,
    points: Sequence[Point],
    fit: Any,
    predict: Any,
    *,
    standard_values: bool = True,
) -> Models:
    """Fit ``fit(standardised rows, labels from 0, points) -> a model a point`` to each mask."""
    models, standards, units, present = [], [], [], support.present(rows)
    for mask, there in zip(rows, present, strict=True):
        z, standard = standardised(support.features[mask], np.float32)
        y, unit = support.labels[mask], (0.0, 1.0)
        if not support.regression:
            y = np.searchsorted(np.flatnonzero(there), y)
        elif standard_values:
            unit = float(y.mean()), float(y.std()) or 1.0
            y = (y - unit[0]) / unit[1]
        alone = not support.regression and there.sum() < 2
        models.append([None] * len(points) if alone else fit(z, y, points))
        standards.append(standard)
        units.append(unit)
    return Models(models, predict, standards, units, present, support.classes)


def rbf_svm(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Models:
    """Fit support vector machines with a radial kernel, one class against another; SVR to values.

    scikit-learn's, on standardised features, gamma = 1 / D ("scale"), balanced class weights, one
    precomputed kernel a mask. For values C counts in standard deviations of the training values,
    and the tube is a tenth of one. Cortes and Vapnik 1995; Drucker et al. 1997.

    Args:
        points: ``strength``, the C.
    """

    def fit(z: np.ndarray, y: np.ndarray, points: Sequence[Point]) -> list[Any]:
        from sklearn.svm import SVC, SVR

        gamma = 1 / max(z.shape[1] * z.var(), 1e-12)
        kernel = _radial(z, z, gamma).astype(np.float64)
        given = dict(kernel="precomputed", cache_size=50)
        machines = []
        for point in points:
            if support.regression:
                model = SVR(C=point["strength"], epsilon=0.1, **given).fit(kernel, y)
            else:
                given |= dict(class_weight="balanced", decision_function_shape="ovr")
                model = SVC(C=point["strength"], **given).fit(kernel, y)
            machines.append((model, z, gamma))
        return machines

    return _fit(support, rows, points, fit, _of_machines)


def _radial(x: np.ndarray, z: np.ndarray, gamma: float) -> np.ndarray:
    """Return ``exp(-gamma |x - z|²)`` of all pairs, float32."""
    from sklearn.metrics.pairwise import rbf_kernel

    return rbf_kernel(x, z, gamma=gamma)


def _decide(model: Any, kernel: np.ndarray) -> np.ndarray:
    """Return ``(M, outputs)`` of an SVM whose kernel with all training rows is given.

    A product with the dual coefficients; with three or more classes the library's own rule makes
    one output a class of the votes of its pairs.
    """
    if len(model.n_support_) > 2:
        return model.decision_function(kernel)
    out = kernel[:, model.support_] @ model.dual_coef_[0] + model.intercept_
    return out[:, None]


def _of_machines(machines: list[Any], new: np.ndarray) -> np.ndarray:
    _, z, gamma = machines[0]
    out = []
    for start in range(0, len(new), 2048):
        kernel = _radial(new[start : start + 2048], z, gamma)
        out.append(np.stack([_decide(model, kernel) for model, *_ in machines]))
    return np.concatenate(out, axis=1)


def xgboost(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Models:
    """Fit gradient-boosted trees by XGBoost. Chen and Guestrin 2016, arXiv:1603.02754.

    Histograms of 64 bins, half of the columns for each tree, step .1; rows of a class weigh the
    inverse of its frequency. Points that differ in ``rounds`` alone share their trees.

    Args:
        points: ``depth`` of the trees, ``rounds`` of boosting.

    Raises:
        ImportError: xgboost is not installed.
    """

    def fit(z: np.ndarray, y: np.ndarray, points: Sequence[Point]) -> list[Any]:
        library = _library()
        classes = 0 if support.regression else int(y.max()) + 1
        weight = balanced(np.bincount(y))[y] if classes else None
        data = library.QuantileDMatrix(z, label=y, weight=weight, max_bin=64)
        goal = {0: "reg:squarederror", 2: "binary:logistic"}.get(classes, "multi:softmax")
        given = dict(objective=goal, eta=0.1, colsample_bytree=0.5, max_bin=64, nthread=1)
        given |= dict(seed=support.seed, tree_method="hist")
        if classes > 2:
            given["num_class"] = classes
        depths = {int(point["depth"]) for point in points}
        trees = {}
        for depth in depths:
            rounds = max(int(p["rounds"]) for p in points if int(p["depth"]) == depth)
            trees[depth] = library.train(given | dict(max_depth=depth), data, rounds)
        return [(trees[int(p["depth"])], int(p["rounds"])) for p in points]

    return _fit(support, rows, points, fit, _of_trees, standard_values=False)


def _library() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise ImportError(
            "The strategy xgboost needs XGBoost, which is not installed. Install it with "
            "pip install -c requirements.lock -e '.[trees]' (the wheel xgboost-cpu)."
        ) from error
    return xgboost


def booster(content: bytes) -> Any:
    """Return the trees that XGBoost's own JSON describes.

    Raises:
        ImportError: xgboost is not installed.
    """
    trees = _library().Booster({"nthread": 1})
    trees.load_model(bytearray(content))
    return trees


def _of_trees(models: list[Any], new: np.ndarray) -> np.ndarray:
    out = [
        trees.inplace_predict(new, iteration_range=(0, rounds), predict_type="margin")
        for trees, rounds in models
    ]
    return np.stack(out).reshape(len(models), len(new), -1)


def mlp(support: Support, rows: np.ndarray, points: Sequence[Point]) -> Models:
    """Fit a network with one hidden layer of ReLU units by Adam: scikit-learn's, 60 epochs.

    It has no class weights: the classes' frequencies are taken out of its logits afterwards
    (``support.adjust``). Values are learnt standardised.

    Args:
        points: ``hidden`` units, ``alpha``, the weight decay.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    def fit(z: np.ndarray, y: np.ndarray, points: Sequence[Point]) -> list[Any]:
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        kind = MLPRegressor if support.regression else MLPClassifier
        networks = []
        for point in points:
            given = dict(alpha=point["alpha"], max_iter=60, random_state=support.seed)
            model = kind(hidden_layer_sizes=(int(point["hidden"]),), **given)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # epochs are fixed on purpose
                model.fit(z, y)
            networks.append((model, None if support.regression else np.bincount(y)))
        return networks

    return _fit(support, rows, points, fit, _of_networks)


def _of_networks(networks: list[tuple[Any, np.ndarray | None]], new: np.ndarray) -> np.ndarray:
    return np.stack([_network_logits(model, n, new) for model, n in networks])


def _network_logits(model: Any, n: np.ndarray | None, new: np.ndarray) -> np.ndarray:
    """Return ``(M, outputs)`` before the last activation of a network with one hidden layer."""
    hidden = np.maximum(new @ model.coefs_[0] + model.intercepts_[0], 0)
    out = hidden @ model.coefs_[1] + model.intercepts_[1]
    if n is None:
        return out
    prior = np.log(n / n.sum())
    return out - (prior[1] - prior[0] if out.shape[1] == 1 else prior)


PREDICT = {"rbf_svm": _of_machines, "xgboost": _of_trees, "mlp": _of_networks}
