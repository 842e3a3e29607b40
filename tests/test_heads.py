"""Protects heads on frozen features: equal to libraries and equations, fair, refusing misuse."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

from bonelib import adaptation, evaluation
from bonelib.adaptation import closed, library, linear, lp_plus_plus, search, shots, strategies
from bonelib.adaptation import support as room
from bonelib.adaptation.support import Support

OWN = ("probe", "linear_svm", "rbf_svm", "knn", "class_mean", "xgboost", "mlp", "lp_plus_plus")
OWN += ("ss_text", "tip_adapter", "gda")


def make(rows=90, columns=12, classes=2, seed=0, imbalance=1.0, texts=True):
    """Two rows a group; class 0 is ``imbalance`` times as frequent as each other class."""
    rng = np.random.default_rng(seed)
    share = np.r_[imbalance, np.ones(classes - 1)]
    labels = np.repeat(rng.choice(classes, rows // 2, p=share / share.sum()), 2)
    labels[: 2 * classes] = np.repeat(np.arange(classes), 2)
    means = rng.normal(size=(classes, columns))
    x = means[labels] + 2 * rng.normal(size=(rows, columns)) + 3
    words = means + rng.normal(size=means.shape)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    return Support(
        features=x.astype(np.float32), labels=labels, groups=np.repeat(np.arange(rows // 2), 2),
        classes=classes, texts=words.astype(np.float32) if texts else None, scale=30.0,
    )  # fmt: skip


def values(rows=90, columns=12, seed=0):
    support = make(rows, columns, seed=seed, texts=False)
    noise = np.random.default_rng(seed).normal(size=rows)
    labels = (100 + 8 * support.features[:, 0] + 4 * noise).astype(np.float32)
    return dataclasses.replace(support, labels=labels, classes=0)


def every(support):
    return np.ones((1, len(support.features)), dtype=bool)


def single(name, support, **point):
    """Logits of one point fitted to all rows, ``(N, C)``."""
    return strategies.strategy(name)(support, every(support), [point]).logits(support.features)[
        0, 0
    ]


def standard(support):
    return StandardScaler().fit_transform(support.features.astype(np.float64))


# ---------------------------------------------------------------------- equal to libraries
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("rows", "columns"), [(150, 12), (40, 90)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("balanced", [0, 1])
def test_the_probe_is_scikit_learns_logistic_regression(classes, rows, columns, strength, balanced):
    s = make(rows, columns, classes, imbalance=3)
    z = standard(s)
    model = LogisticRegression(
        C=strength, tol=1e-7, max_iter=20_000, class_weight="balanced" if balanced else None
    ).fit(z, s.labels)
    own = single("probe", s, strength=strength, balanced=balanced)
    own = own[:, 1] - own[:, 0] if classes == 2 else own
    np.testing.assert_allclose(own, model.decision_function(z), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("rows", "columns"), [(150, 12), (40, 90)])
def test_the_linear_svm_is_scikit_learns_with_an_intercept_that_is_free(classes, rows, columns):
    s = make(rows, columns, classes, imbalance=2)
    z = standard(s)
    n = np.bincount(s.labels)
    model = LinearSVC(C=0.01, dual=False, tol=1e-10, max_iter=20_000, intercept_scaling=1e4)
    # by rows: with class_weight and three classes LIBLINEAR weighs the positive rows alone
    model.fit(z, s.labels, sample_weight=(len(z) / (classes * n))[s.labels])
    own = single("linear_svm", s, strength=0.01, balanced=1)
    own = own[:, 1] - own[:, 0] if classes == 2 else own
    np.testing.assert_allclose(own, model.decision_function(z), atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(150, 12), (40, 90)])
def test_values_are_learnt_by_scikit_learns_ridge(rows, columns):
    s = values(rows, columns)
    z = standard(s)
    for strength in (1e-3, 0.1, 10):
        model = Ridge(alpha=1 / strength).fit(z, s.labels)
        own = single("probe", s, strength=strength)[:, 0]
        np.testing.assert_allclose(own, model.predict(z), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_radial_svm_is_scikit_learns(classes):
    s = make(120, 20, classes, imbalance=2)
    z = standard(s)
    model = SVC(C=3.0, class_weight="balanced", gamma="scale").fit(z, s.labels)
    own = single("rbf_svm", s, strength=3.0)
    own = own[:, 1] - own[:, 0] if classes == 2 else own
    np.testing.assert_allclose(own, model.decision_function(z), atol=5e-3)
    v = values()
    y = v.labels.astype(float)
    tube = SVR(C=3.0, gamma="scale").fit(standard(v), (y - y.mean()) / y.std())
    expected = tube.predict(standard(v)) * y.std() + y.mean()
    np.testing.assert_allclose(single("rbf_svm", v, strength=3.0)[:, 0], expected, atol=0.05)


@pytest.mark.parametrize("neighbors", [1, 5, 15])
def test_nearest_neighbours_are_scikit_learns(neighbors):
    s = make(120, 20, 3)
    new = make(30, 20, 3, seed=1).features
    model = KNeighborsClassifier(neighbors, metric="cosine").fit(s.features, s.labels)
    heads = closed.knn(s, every(s), [{"neighbors": 3}, {"neighbors": neighbors}])
    votes = np.exp(heads.logits(new)[0, 1]) * (neighbors + 1) - 1 / 3
    np.testing.assert_allclose(votes / neighbors, model.predict_proba(new), atol=1e-4)


# ---------------------------------------------------------------------- equal to the equations
@pytest.mark.parametrize("balanced", [0, 1])
def test_tip_adapter_is_its_equation(balanced):
    s = make(60, 8, 3, imbalance=4)
    new = make(20, 8, 3, seed=2).features.astype(np.float64)
    heads = closed.tip_adapter(s, every(s), [dict(alpha=2.0, beta=3.0, balanced=balanced)])
    norm = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    f, keys = norm(new), norm(s.features.astype(np.float64))
    expected = np.zeros((len(new), 3))
    for i, row in enumerate(f):
        for c in range(3):
            expected[i, c] = s.scale * row @ s.texts[c]
            own = keys[s.labels == c]
            weight = len(keys) / (3 * len(own)) if balanced else 1.0
            expected[i, c] += 2.0 * weight * np.exp(-3.0 * (1 - own @ row)).sum()
    np.testing.assert_allclose(heads.logits(new)[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(60, 8), (24, 40)])
@pytest.mark.parametrize("classes", [2, 3])
def test_lp_plus_plus_is_its_equations_solved_by_autograd(rows, columns, classes):
    """By torch's SGD with momentum, on equal and on imbalanced shots."""
    for imbalance in (1, 4):
        s = make(rows, columns, classes, imbalance=imbalance)
        f = torch.tensor(s.unit, dtype=torch.float64)
        y, t = torch.tensor(s.labels), torch.tensor(s.texts, dtype=torch.float64)
        n = len(f)
        start = torch.stack([f[y == c].mean(0) for c in range(classes)]) * n / classes
        w, b = start.clone().requires_grad_(), torch.zeros(classes, dtype=torch.float64)
        b.requires_grad_()
        shown = f @ t.T
        level = 250 * np.mean([shown[y == c, c].mean() for c in range(classes)])
        alpha = torch.full((classes,), level, dtype=torch.float64, requires_grad=True)
        step = 4 * n / torch.linalg.matrix_norm(f, 2).item() ** 2
        slow = n / (4 * (shown**2).sum(0).max().item())
        optimiser = torch.optim.SGD([w, b], step, momentum=0.9)
        expected = {}
        for taken in range(1, 301):
            optimiser.zero_grad()
            alpha.grad = None
            loss = torch.nn.functional.cross_entropy(f @ w.T + b + alpha * shown, y)
            loss.backward()
            optimiser.step()
            if taken % 10 == 0:
                alpha.data -= slow * alpha.grad
            if taken in (10, 300):
                expected[taken] = (f @ w.T + b + alpha * shown).detach().numpy()
        for taken, logits in expected.items():
            own = single("lp_plus_plus", s, steps=taken)
            np.testing.assert_allclose(own, logits, atol=1e-4)


def test_lp_plus_plus_takes_as_many_steps_as_each_point_says():
    s = make(60, 8)
    points = [{"steps": 0}, {"steps": 30}, {"steps": 300}]
    together = lp_plus_plus.lp_plus_plus(s, every(s), points).logits(s.features)[0]
    for got, point in zip(together, points, strict=True):
        alone = single("lp_plus_plus", s, **point)
        np.testing.assert_allclose(got, alone, atol=2e-2)  # single precision where points compete
    with pytest.raises(ValueError, match="0 to 300 steps"):
        single("lp_plus_plus", s, steps=301)


def test_ss_text_is_its_equation():
    s = make(40, 8, 3, imbalance=3)
    f = s.features / np.linalg.norm(s.features, axis=1, keepdims=True)
    mu = np.stack([
        s.texts[c] + s.scale / len(f) * (s.labels == c).sum() * f[s.labels == c].sum(0)
        for c in range(3)
    ])  # fmt: skip
    away = 2 * mu - mu.mean(0)
    mu = mu - away / np.linalg.norm(away, axis=1, keepdims=True)
    expected = s.scale * f @ (mu / np.linalg.norm(mu, axis=1, keepdims=True)).T
    np.testing.assert_allclose(single("ss_text", s), expected, atol=1e-4)


def test_class_means_are_their_equation():
    s = make(40, 8, 3)
    for centered in (0, 1):
        f = s.features / np.linalg.norm(s.features, axis=1, keepdims=True)
        if centered:
            f = f - f.mean(0)
            f /= np.linalg.norm(f, axis=1, keepdims=True)
        means = np.stack([f[s.labels == c].mean(0) for c in range(3)])
        far = ((f[:, None] - means) ** 2).sum(2)
        own = single("class_mean", s, centered=centered)
        expected = 5 * (1 - far)  # the constant falls out
        np.testing.assert_allclose(own, expected, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(80, 8), (24, 40)])
def test_the_discriminant_is_its_equation(rows, columns):
    s = make(rows, columns, 3)
    z, n = standard(s), rows
    means = np.stack([z[s.labels == c].mean(0) for c in range(3)])
    within = z - means[s.labels]
    spread = within.T @ within / n
    shrunk = 0.7 * spread + 0.3 * np.trace(spread) / columns * np.eye(columns)
    inverse = np.linalg.inv(shrunk)
    expected = z @ inverse @ means.T - np.einsum("cd,de,ce->c", means, inverse, means) / 2
    np.testing.assert_allclose(single("gda", s, shrinkage=0.3), expected, atol=1e-4)


# ---------------------------------------------------------------------- what all of them promise
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("classes", [2, 3])
def test_heads_of_a_mask_are_those_of_its_rows_alone(name, classes):
    s = make(72, 10, classes)
    points = adaptation.points(name, s.kind)[:2]
    masks = np.random.default_rng(0).random((2, 72)) < 0.7
    masks[:, : 2 * classes] = True
    heads = adaptation.strategy(name)(s, masks, points)
    new = make(10, 10, classes, seed=1).features
    out = heads.logits(new)
    assert out.shape == (2, len(points), len(new), classes)
    for k, mask in enumerate(masks):
        part = s.rows(mask)
        alone = adaptation.strategy(name)(part, every(part), points).logits(new)
        np.testing.assert_allclose(out[k], alone[0], atol=2e-3)
        np.testing.assert_allclose(heads.of(k).logits(new)[0], out[k], atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_a_class_without_rows_never_wins_and_hurts_no_other(name):
    s = make(60, 10, 4)
    mask = every(s) & (s.labels != 2)
    points = adaptation.points(name, "multiclass")[-1:]
    out = adaptation.strategy(name)(s, mask, points).logits(s.features)[0, 0]
    assert np.isfinite(out).all()
    assert (out[:, 2] <= out[:, [0, 1, 3]].min(axis=1) - 29).all()
    one = every(s) & (s.labels == 1)
    out = adaptation.strategy(name)(s, one, points).logits(s.features)[0, 0]
    assert (out.argmax(axis=1) == 1).all(), "one class alone"


@pytest.mark.parametrize("name", OWN)
def test_each_strategy_finds_what_there_is_to_find(name):
    """On easy features held-out rows are told apart, from imbalanced shots too."""
    s = make(400, 10, 2, imbalance=4)
    fitted = strategies.fit(name, s.rows(np.arange(400) < 200))
    out = fitted.logits(s.features[200:])
    assert out.shape == (200, 2)
    assert roc_auc_score(s.labels[200:], out[:, 1] - out[:, 0]) > 0.75


@pytest.mark.parametrize("name", ["probe", "rbf_svm", "knn", "xgboost", "mlp"])
def test_strategies_that_fit_values_predict_them_in_their_unit(name):
    s = values(160)
    fitted = strategies.fit(name, s.rows(np.arange(160) < 120))
    out = fitted.logits(s.features[120:])
    assert out.shape == (40,)
    y = s.labels[120:]
    assert np.abs(out - y).mean() < 0.8 * np.abs(y - np.median(y)).mean()
    assert len(fitted.inner) == len(adaptation.points(name, "regression"))


def test_the_inner_choice_is_that_of_a_loop_over_folds():
    s = make(120, 300, 2)  # wide: inner folds in single precision
    points = adaptation.points("probe")
    fitted = search.fit(linear.probe, s, points)
    expected = []
    for point in points:
        scores = []
        for held in s.folds:
            z = StandardScaler().fit(s.features[~held].astype(float))
            model = LogisticRegression(C=point["strength"], tol=1e-8, max_iter=5000)
            model.fit(z.transform(s.features[~held].astype(float)), s.labels[~held])
            shown = model.decision_function(z.transform(s.features[held].astype(float)))
            scores.append(roc_auc_score(s.labels[held], shown))
        expected.append(np.mean(scores))
    np.testing.assert_allclose(fitted.inner, expected, atol=0.005)


def test_inner_folds_are_made_once_and_part_no_group():
    s = make(90)
    held = s.folds
    assert held is s.folds and len(held) == adaptation.FOLDS
    for mask in held:
        assert not set(s.groups[mask]) & set(s.groups[~mask])


def test_one_class_in_training_is_refused():
    s = make(20)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        strategies.fit("probe", s.rows(s.labels == 1))


# ---------------------------------------------------------------------- class imbalance
def test_balancing_and_logit_adjustment_lift_the_rare_class_where_the_truth_is_known():
    """Two Gaussians, 1 in 20 of them the rare one: the best balanced error is known."""
    rng = np.random.default_rng(0)
    n, d, far = 4000, 5, 2.0
    y = (rng.random(n) < 0.05).astype(int)
    x = rng.normal(size=(n, d))
    x[:, 0] += far * y
    s = Support(x.astype(np.float32), y, np.arange(n), 2)
    test_y = rng.integers(0, 2, n)
    test = rng.normal(size=(n, d))
    test[:, 0] += far * test_y
    best = balanced_accuracy_score(test_y, test[:, 0] > far / 2)

    def score(**point):
        out = linear.probe(s, every(s), [dict(strength=1.0) | point]).logits(test)[0, 0]
        return balanced_accuracy_score(test_y, out.argmax(axis=1)), out

    plain, logits = score()
    adjusted, moved = score(tau=1.0)
    assert plain < best - 0.15
    assert adjusted > best - 0.02 and score(balanced=1)[0] > best - 0.02
    np.testing.assert_allclose(room.adjust(logits, np.bincount(y), 1.0), moved, atol=1e-6)
    drawn = np.concatenate(
        [np.flatnonzero(y == 1), rng.permutation(np.flatnonzero(y == 0))[: y.sum()]]
    )
    part = s.rows(drawn)  # balanced sampling, the third way
    out = linear.probe(part, every(part), [{"strength": 1.0}]).logits(test)[0, 0]
    assert balanced_accuracy_score(test_y, out.argmax(axis=1)) > best - 0.03


# ---------------------------------------------------------------------- the table
def test_the_table_names_functions_kinds_and_searches():
    table = strategies.table()
    known = (*evaluation.methods.HEADS, *evaluation.methods.TOWERS)
    assert set(table.index) <= set(known)
    order = [known.index(name) for name in table.index]
    assert order == sorted(order), "rows in the order of evaluation.methods"
    for name in OWN:
        row = table.loc[name]
        assert callable(adaptation.strategy(name)) and row["title"] and row["paper"]
        kinds = row["kinds"].split()
        assert set(kinds) <= {"binary", "multiclass", "ordinal", "regression"}
        found = adaptation.points(name, kinds[0])
        assert len(found) == {"class_mean": 2, "ss_text": 1}.get(name, adaptation.POINTS)


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(ValueError, match=r"called 'tip_adaptor'. Did you mean tip_adapter"):
        adaptation.strategy("tip_adaptor")
    with pytest.raises(ValueError, match=r"called 'zzz'. Known: probe"):
        adaptation.points("zzz")


def test_strategies_that_do_not_fit_the_task_are_refused_with_the_cure():
    for name in set(OWN) - {"probe", "rbf_svm", "knn", "xgboost", "mlp"}:
        with pytest.raises(ValueError, match=f"{name} fits tasks .* not regression. Use .*probe"):
            strategies.fit(name, values())
        with pytest.raises(ValueError, match="values"):
            adaptation.strategy(name)(values(), every(values()), [{}])
    for name in ("lp_plus_plus", "ss_text", "tip_adapter"):
        bare = make(texts=False)
        with pytest.raises(
            ValueError, match=f"{name} needs a text for each class. Pass Support.* such as probe"
        ):
            strategies.fit(name, bare)
        with pytest.raises(ValueError, match="texts"):
            adaptation.strategy(name)(bare, every(bare), [{}])
    grades = dataclasses.replace(make(classes=3), ordinal=True)
    assert strategies.fit("rbf_svm", grades).logits(grades.features).shape == (90, 3)


# ---------------------------------------------------------------------- few labels
def patients(classes=3, count=60, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, count)
    groups = np.repeat(np.arange(count) * 7, sizes)
    return np.repeat(rng.integers(0, classes, count), sizes), groups


def test_draws_are_nested_whole_and_stratified():
    labels, groups = patients()
    draws = shots.draw(labels, groups, classes=3)
    assert draws.rows.shape == (3 * 10, len(labels)) and len(draws.table) == 30
    for seed, part in draws.table.groupby("seed"):
        masks = draws.rows[part.index]
        order = masks.sum(axis=1).argsort(kind="stable")
        for small, large in zip(order, order[1:], strict=False):
            assert not (masks[small] & ~masks[large]).any(), f"seed {seed}: not nested"
        for (_, row), mask in zip(part.iterrows(), masks, strict=True):
            assert not set(groups[mask]) & set(groups[~mask]), "a patient is parted"
            n = np.bincount(labels[mask], minlength=3)
            wanted = (
                np.full(3, row["shots"]) if row["shots"] else row["share"] * np.bincount(labels)
            )
            assert (n >= wanted - 1e-9).all() and (n <= np.maximum(wanted, 1) + 3).all()
            assert row["images"] == mask.sum() and row["groups"] == len(np.unique(groups[mask]))
        assert masks[part["share"].eq(1)].all(), "all labels are all rows"
    assert not np.array_equal(draws.rows[0], draws.rows[10]), "seeds differ"
    again = shots.draw(labels, groups, classes=3)
    assert np.array_equal(draws.rows, again.rows)


def test_patients_with_several_classes_keep_draws_nested():
    labels, groups = patients()
    labels = labels.copy()
    labels[::5] = (labels[::5] + 1) % 3
    draws = shots.draw(labels, groups, classes=3, seeds=(0,))
    few = draws.rows[draws.table["shots"] > 0]
    for small, large in zip(few, few[1:], strict=False):
        assert not (small & ~large).any()
    for k, mask in zip(shots.SHOTS, few, strict=True):
        assert (np.bincount(labels[mask], minlength=3) >= k).all()


def test_fewer_images_than_shots_are_capped_with_a_note_and_none_refused():
    labels = np.array([0] * 30 + [1] * 5)
    draws = shots.draw(labels, np.arange(35), classes=2, shots=(4, 8), shares=(), seeds=(0,))
    assert draws.table["images"].tolist() == [8, 13]
    assert draws.table["note"].tolist() == [
        "",
        "class 1 has 5 images, fewer than 8 shots: all are taken",
    ]
    with pytest.raises(ValueError, match=r"No training image has class \[2\]"):
        shots.draw(labels, np.arange(35), classes=3)
    with pytest.raises(ValueError, match=r"shares lie in \(0, 1\]; got \[0, 25\]"):
        shots.draw(labels, np.arange(35), classes=2, shots=(0,), shares=(25,))


def test_values_are_drawn_by_share_alone_over_their_range():
    rng = np.random.default_rng(0)
    y = rng.normal(100, 30, 200)
    with pytest.raises(ValueError, match="Shots are counted by class"):
        shots.draw(y, np.arange(200), classes=0)
    draws = shots.draw(y, np.arange(200), classes=0, shots=())
    tenth = draws.rows[draws.table["share"].eq(0.1) & draws.table["seed"].eq(0)][0]
    edges = np.quantile(y, [0.2, 0.4, 0.6, 0.8])
    assert np.bincount(np.searchsorted(edges, y[tenth])).tolist() == [4] * 5


def test_every_draw_can_be_fitted_in_one_call():
    s = make(80, 10, 3)
    draws = shots.draw(s.labels, s.groups, classes=3, seeds=(0,))
    out = linear.probe(s, draws.rows, [{"strength": 0.01}]).logits(s.features)
    for mask, logits in zip(draws.rows, out[:, 0], strict=True):
        part = s.rows(mask)
        alone = single("probe", part, strength=0.01)
        np.testing.assert_allclose(logits[mask], alone, atol=1e-4)


def test_the_library_heads_share_trees_between_rounds():
    s = make(60, 10, 2)
    points = [dict(depth=2, rounds=5), dict(depth=2, rounds=20), dict(depth=4, rounds=5)]
    heads = library.xgboost(s, every(s), points)
    trees = heads.models[0]
    assert trees[0][0] is trees[1][0] and trees[0][0] is not trees[2][0]
    for point, got in zip(points, heads.logits(s.features)[0], strict=True):
        np.testing.assert_allclose(got, single("xgboost", s, **point), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_heads_of_different_scales_agree_after_calibration(classes):
    support = make(rows=240, classes=classes)

    def scaled_by(factor):
        def strategy(support, rows, points):
            heads = strategies.strategy("probe")(support, rows, points)
            told = lambda features: factor * heads.logits(features) + factor  # noqa: E731
            return SimpleNamespace(logits=told)

        fitted = adaptation.fit(strategy, support, [{"strength": 0.01}])
        return adaptation.calibrated(strategy, support, fitted)(fitted.logits(support.features))

    small, usual, large = (scaled_by(factor) for factor in (0.01, 1.0, 300.0))
    assert np.allclose(small, usual, atol=1e-3) and np.allclose(large, usual, atol=1e-3)
    if classes == 2:
        usual = np.stack([-usual / 2, usual / 2], axis=1)
    share = np.exp(usual) / np.exp(usual).sum(axis=1, keepdims=True)
    counted = np.bincount(support.labels, minlength=classes) / len(support.labels)
    assert np.allclose(share.mean(axis=0), counted, atol=0.08), "on the scale of probabilities"
    few = dataclasses.replace(support, classes=classes + 1, texts=None)
    same = adaptation.calibrated(None, few, None)(usual)
    assert same is usual, "a class without rows can't be calibrated"
