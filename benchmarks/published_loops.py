"""Closed-form and library heads as they are published: one fit at a time, for strategies.py.

Features are in memory, standardised or of unit length once a fold; each loop takes the same folds,
points and numbers of steps as ``adaptation.strategies`` and ends with the fit on all rows. What
they are after:

- probe: scikit-learn's LogisticRegression for each C, tol 1e-4, 1,000 iterations (CoOp's lpclip).
- linear_svm: LinearSVC by Liblinear's coordinate descent on the dual, 1,000 passes, its default.
- rbf_svm: SVC(kernel="rbf", class_weight="balanced") for each C, as GridSearchCV would call it.
- knn: KNeighborsClassifier for each k. class_mean: NearestCentroid's distances, in PyTorch.
- gda: LinearDiscriminantAnalysis(solver="eigen", shrinkage=...) for each shrinkage.
- xgboost: XGBClassifier for each point. mlp: MLPClassifier, whose loop ours is as well.
- lp_plus_plus: FewShot-CLIP-Strong-Baseline's methods/linear_probe_p2.py: autograd and SGD, the
  full eigendecomposition, validation accuracy after each of 300 steps, one path a fold.
- tip_adapter: Tip-Adapter's search_hp: affinities and zero-shot logits for each alpha and beta.
- ss_text: SS-Text's solvers/sstext.py.

Departures, in favour of the loops but for the last: no copies between devices, no printing, no half
precision; no look at test rows in the loop; validation rows are inner folds' (the codes have a
validation set of their own, so they fit once where three folds are fitted here).
"""

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC


def _estimator(make, least=0):
    """A search over scikit-learn's estimators on standardised features; not of ``least`` rows."""

    def loop(support, held, points):
        labels, scores = support.labels, np.zeros(len(points))

        def fit(rows, point):
            scaler = StandardScaler().fit(support.features[rows])
            return scaler, make(point).fit(scaler.transform(support.features[rows]), labels[rows])

        for mask in held:
            if (~mask).sum() <= least:
                continue
            scaler = StandardScaler().fit(support.features[~mask])
            z, new = (
                scaler.transform(support.features[~mask]),
                scaler.transform(support.features[mask]),
            )
            for p, point in enumerate(points):
                model = make(point).fit(z, labels[~mask])
                decide = getattr(model, "decision_function", None)
                shown = decide(new) if decide else model.predict_proba(new)[:, 1]
                scores[p] += roc_auc_score(labels[mask], shown)
        return fit(slice(None), points[_best(scores, held)]) if len(labels) > least else None

    return loop


def _best(scores, held):
    return int(np.argmax(scores)) if len(held) else len(scores) // 2


def _unit(support):
    x = torch.from_numpy(np.asarray(support.features, np.float32))
    return x / x.norm(dim=-1, keepdim=True), torch.from_numpy(np.asarray(support.labels))


def _class_mean(support, held, points):
    x, y = _unit(support)
    scores = np.zeros(len(points))

    def fit(keys, labels, point):
        center = keys.mean(0) if point["centered"] else torch.zeros(keys.shape[1])
        z = torch.nn.functional.normalize(keys - center, dim=1)
        return center, torch.stack([z[labels == c].mean(0) for c in range(support.classes)])

    for mask in map(torch.from_numpy, held):
        for p, point in enumerate(points):
            center, means = fit(x[~mask], y[~mask], point)
            new = torch.nn.functional.normalize(x[mask] - center, dim=1)
            far = torch.cdist(new, means)
            scores[p] += roc_auc_score(y[mask], far[:, 0] - far[:, 1])
    return fit(x, y, points[_best(scores, held)])


def _knn(support, held, points):
    labels, scores = support.labels, np.zeros(len(points))
    x = _unit(support)[0].numpy()
    for mask in held:
        for p, point in enumerate(points):
            k = min(int(point["neighbors"]), int((~mask).sum()))
            model = KNeighborsClassifier(k, algorithm="brute").fit(x[~mask], labels[~mask])
            scores[p] += roc_auc_score(labels[mask], model.predict_proba(x[mask])[:, 1])
    k = min(int(points[_best(scores, held)]["neighbors"]), len(x))
    return KNeighborsClassifier(k, algorithm="brute").fit(x, labels)


def _tip_adapter(support, held, points):
    x, y = _unit(support)
    texts = torch.from_numpy(support.texts).T
    scores = np.zeros(len(points))
    for mask in map(torch.from_numpy, held):
        keys, new = x[~mask].T.contiguous(), x[mask]
        hot = torch.nn.functional.one_hot(y[~mask], support.classes).float()
        for p, point in enumerate(points):
            affinity = new @ keys
            votes = (-point["beta"] * (1 - affinity)).exp() @ hot
            logits = support.scale * new @ texts + votes * point["alpha"]
            scores[p] += roc_auc_score(y[mask], logits[:, 1] - logits[:, 0])
    return x.T, torch.nn.functional.one_hot(y, support.classes), points[_best(scores, held)]


def _ss_text(support, held, points):
    x, y = _unit(support)
    hot = torch.nn.functional.one_hot(y, support.classes).float()
    sums = torch.einsum("ij,ik->jk", hot, x) * support.scale
    weight = torch.tensor([1 / (y == c).sum() for c in range(support.classes)]).clamp(min=1e-3)
    mu = (1 / len(y)) * (1 / weight)[:, None] * sums + torch.from_numpy(support.texts)
    away = 2 * mu - mu.mean(0)
    return mu - away / away.norm(dim=-1, keepdim=True)


def _lp_plus_plus(support, held, points):
    """One path a fold; the step with the best validation score is kept, as the code does."""
    x, y = _unit(support)
    every = torch.zeros(len(x), dtype=torch.bool)
    for mask in [*map(torch.from_numpy, held), every]:
        found = _lp_path(x[~mask], y[~mask], x[mask], y[mask], support)
    return found


def _lp_path(x, y, new, known, support):
    from scipy.linalg import eigh

    texts = torch.from_numpy(support.texts).T
    hot = torch.nn.functional.one_hot(y, support.classes).float()
    shots = len(x) / support.classes
    linear = torch.nn.Linear(x.shape[1], support.classes)
    linear.weight.data = (hot / hot.sum(0)).T @ x * shots
    step = 4 * len(x) / max(eigh((x.T @ x).numpy())[0])
    shown = x @ texts
    level = 250 * ((hot * shown).sum(0) / hot.sum(0)).mean()
    alpha = (level * torch.ones(1, support.classes)).requires_grad_()
    slow = len(x) / (4 * (shown**2).sum(0).max())
    optimiser = torch.optim.SGD(linear.parameters(), float(step), momentum=0.9)
    best = -1.0
    for taken in range(300):
        logits = linear(x) + torch.ones(len(x), 1) @ alpha * (x @ texts)
        loss = torch.nn.functional.cross_entropy(logits, y)
        optimiser.zero_grad()
        alpha.grad = None
        loss.backward()
        optimiser.step()
        if (taken + 1) % 10 == 0:
            alpha.data -= slow * alpha.grad
        if len(new):
            with torch.no_grad():
                shown_new = linear(new) + torch.ones(len(new), 1) @ alpha * (new @ texts)
            best = max(best, float((shown_new.argmax(1) == known).float().mean()))
    return linear, alpha, best


def _xgboost(point):
    from xgboost import XGBClassifier

    return XGBClassifier(
        max_depth=int(point["depth"]), n_estimators=int(point["rounds"]), learning_rate=0.1,
        colsample_bytree=0.5, max_bin=64, n_jobs=1, tree_method="hist",
    )  # fmt: skip


LOOPS = {
    "probe": _estimator(lambda p: LogisticRegression(C=p["strength"], max_iter=1000)),
    "linear_svm": _estimator(lambda p: LinearSVC(C=p["strength"], class_weight="balanced")),
    "rbf_svm": _estimator(lambda p: SVC(C=p["strength"], class_weight="balanced")),
    "knn": _knn,
    "class_mean": _class_mean,
    "xgboost": _estimator(_xgboost),
    "mlp": _estimator(lambda p: MLPClassifier((int(p["hidden"]),), alpha=p["alpha"], max_iter=60)),
    "lp_plus_plus": _lp_plus_plus,
    "ss_text": _ss_text,
    "tip_adapter": _tip_adapter,
    "gda": _estimator(
        lambda p: LinearDiscriminantAnalysis(solver="eigen", shrinkage=p["shrinkage"]), least=2
    ),
}
