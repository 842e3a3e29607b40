"""Protects the probes and fine-tuning: scikit-learn's answers, chosen on training groups alone."""

import numpy as np
import pytest
import torch
from sklearn import model_selection
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bonelib import adaptation, encoders, models, training
from bonelib.adaptation import support

FEW = (0.001, 0.1, 10.0)


def cohort(rows=120, columns=10, classes=2, seed=0, strength=1.0):
    """Features that know something of the label, two rows a group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(rows // 2), 2)
    labels = np.repeat(rng.integers(0, classes, rows // 2), 2)
    x = rng.normal(size=(rows, columns)) * rng.uniform(0.1, 30, columns) + rng.normal(size=columns)
    x[:, 0] += strength * x[:, 0].std() * labels
    x[:, 1] -= strength * x[:, 1].std() * (labels == classes - 1)
    return x.astype(np.float32), labels, groups


def pipeline(x, y, strength):
    """The reference: scikit-learn's scaler and logistic regression, solved to the end."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, max_iter=20_000, tol=1e-9)
    )
    return model.fit(x.astype(np.float64), y)


# ---------------------------------------------------------------------- the linear probe
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("rows", "columns"), [(120, 10), (40, 90)])  # more columns than rows
@pytest.mark.parametrize("strength", FEW)
def test_a_probe_is_scikit_learns_pipeline(classes, rows, columns, strength):
    x, y, groups = cohort(rows, columns, classes)
    new = np.clip(cohort(30, columns, classes, seed=1)[0], x.min(0), x.max(0))  # of their range
    probe = adaptation.probe(x, y, groups, strengths=(strength,))
    reference = pipeline(x, y, strength)
    assert probe.weights.shape == (columns, 1 if classes == 2 else classes)
    for rows_ in (x, new):
        expected = reference.decision_function(rows_.astype(np.float64))
        assert probe.logits(rows_).shape == expected.shape
        np.testing.assert_allclose(probe.logits(rows_), expected, atol=1e-3, rtol=2e-3)
    assert probe.strength == strength and probe.inner == {}


def brute_force(x, y, groups, strengths, folds, seed):
    splitter = model_selection.StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(x, y, groups))
    out = {}
    for strength in strengths:
        scores = []
        for inner, held in parts:
            model = pipeline(x[inner], y[inner], strength)
            p = model.predict_proba(x[held].astype(np.float64))
            p = p[:, 1] if p.shape[1] == 2 else p
            scores.append(roc_auc_score(y[held], p, multi_class="ovr"))
        out[strength] = np.mean(scores)
    return out


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_strength_is_the_one_a_grouped_inner_validation_finds(classes, seed):
    x, y, groups = cohort(160, 60, classes, seed=seed, strength=0.6)
    probe = adaptation.probe(x, y, groups, strengths=FEW, seed=seed)
    expected = brute_force(x, y, groups, FEW, 4, seed)
    assert list(probe.inner) == list(FEW)
    for strength in FEW:
        assert probe.inner[strength] == pytest.approx(expected[strength], abs=0.005)
    assert probe.strength == max(expected, key=expected.get)


def test_the_chosen_strength_is_refitted_on_all_rows():
    x, y, groups = cohort()
    probe = adaptation.probe(x, y, groups, strengths=FEW)
    again = adaptation.probe(x, y, groups, strengths=(probe.strength,))
    np.testing.assert_allclose(probe.logits(x), again.logits(x), atol=1e-9)


def test_no_group_is_parted_by_the_inner_folds(monkeypatch):
    x, y, groups = cohort()
    seen = []
    original = adaptation.probes._path

    def spy(rows, labels, strengths, **options):
        seen.append(rows)
        return original(rows, labels, strengths, **options)

    monkeypatch.setattr(adaptation.probes, "_path", spy)
    adaptation.probe(x, y, groups, strengths=FEW)
    *inner, final = seen
    assert len(inner) == 4 and len(final) == len(x)
    index = {row.tobytes(): i for i, row in enumerate(x)}
    held = np.zeros(len(x), int)
    for rows in inner:
        chosen = np.zeros(len(x), bool)
        chosen[[index[row.tobytes()] for row in rows]] = True
        assert not set(groups[chosen]) & set(groups[~chosen])
        held += ~chosen
    assert (held == 1).all()


@pytest.mark.parametrize("regression", [False, True])
def test_inner_folds_are_those_of_scikit_learn_and_are_drawn_once(regression, monkeypatch):
    rng = np.random.default_rng(3)
    groups = np.array([f"p{k}" for k in rng.integers(40, size=90)], dtype=object)
    labels = rng.integers(3, size=90)
    kind = model_selection.GroupKFold if regression else model_selection.StratifiedGroupKFold
    drawn = kind(3, shuffle=True, random_state=7).split(labels, labels, groups)
    expected = [np.flatnonzero(np.isin(np.arange(90), held)) for _, held in drawn]
    asked = dict(labels=None if regression else labels, groups=groups, folds=3, seed=7)
    found = support.inner_folds(**asked)
    assert all((np.flatnonzero(a) == b).all() for a, b in zip(found, expected, strict=True))
    monkeypatch.setattr(kind, "split", None)  # a second drawing would fail
    assert (support.inner_folds(**asked) == found).all()
    with pytest.raises(TypeError):
        support.inner_folds(**asked | {"seed": 8})


def test_rows_without_a_label_are_left_out():
    x, y, groups = cohort()
    hidden = np.where(np.arange(len(y)) % 3 == 0, -1, y)
    known = hidden >= 0
    probe = adaptation.probe(x, hidden, groups, strengths=FEW)
    same = adaptation.probe(x[known], y[known], groups[known], strengths=FEW)
    np.testing.assert_allclose(probe.logits(x), same.logits(x), atol=1e-9)


def test_a_class_that_no_row_has_keeps_its_column_and_never_wins():
    x, y, groups = cohort(classes=3)
    for own in ([0, 2, 3], [1, 3]):  # of four classes, one and then two are absent
        labels = np.array(own)[y % len(own)]
        wide = adaptation.probe(x, labels, groups, classes=4, strengths=(0.1,))
        codes = np.searchsorted(own, labels)
        close = adaptation.probe(x, codes, groups, strengths=(0.1,)).logits(x)
        logits = wide.logits(x)
        assert logits.shape == (len(x), 4) and set(logits.argmax(1)) <= set(own)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert p[:, [c for c in range(4) if c not in own]].max() < 1e-9
        if close.ndim == 1:
            np.testing.assert_allclose(logits[:, 3] - logits[:, 1], close, atol=1e-9)
        else:
            np.testing.assert_allclose(logits[:, own], close, atol=1e-9)
    full = adaptation.probe(x, y, groups, classes=3, strengths=FEW)
    same = adaptation.probe(x, y, groups, strengths=FEW)
    assert np.array_equal(full.weights, same.weights), "nothing changes where all are there"


def test_constant_columns_do_not_break_it():
    x, y, groups = cohort()
    plain = adaptation.probe(x, y, groups, strengths=(0.1,))
    wide = np.column_stack([x, np.full(len(x), 0.1), np.zeros(len(x))])
    probe = adaptation.probe(wide, y, groups, strengths=(0.1,))
    assert np.allclose(probe.logits(wide), plain.logits(x), atol=1e-4)
    nearly = wide.copy()
    nearly[:, -2] += 1e-9  # as another machine rounds
    assert np.allclose(probe.logits(nearly), plain.logits(x), atol=1e-4)
    nothing = adaptation.probe(np.ones((len(y), 1)), y, groups, strengths=FEW)
    assert len(set(nothing.logits(np.ones((5, 1))))) == 1


def test_what_cannot_be_fitted_is_refused():
    x, y, groups = cohort()
    with pytest.raises(ValueError, match="needs two classes"):
        adaptation.probe(x, np.zeros_like(y), groups)
    with pytest.raises(ValueError, match=r"No training row has class \[1\]"):
        adaptation.probe(x, 2 * y, groups)
    with pytest.raises(ValueError, match="A label is 1, but the task has 1 classes"):
        adaptation.probe(x, y, groups, classes=1)


def test_the_standard_strengths_are_seven_from_strong_to_weak():
    assert np.allclose(adaptation.STRENGTHS, [10.0**e for e in range(-5, 2)])


# ---------------------------------------------------------------------- ridge
def test_ridge_is_scikit_learns_and_leaves_out_what_is_unknown():
    x, y, groups = cohort(classes=5)
    values = y + 0.3 * np.random.default_rng(0).normal(size=len(y))
    values[::7] = np.nan
    known = np.isfinite(values)
    probe = adaptation.probe(x, values, groups, strengths=FEW)
    scaler = StandardScaler().fit(x[known].astype(np.float64))
    z = scaler.transform(x.astype(np.float64))
    chosen = RidgeCV(alphas=[1 / s for s in FEW]).fit(z[known], values[known])
    assert probe.strength == pytest.approx(1 / chosen.alpha_)
    reference = Ridge(alpha=chosen.alpha_).fit(z[known], values[known])
    np.testing.assert_allclose(probe.logits(x), reference.predict(z), atol=1e-6)
    assert probe.logits(x).shape == (len(x),)


# ---------------------------------------------------------------------- one probe a fold
def folded(classes=2, folds=4):
    x, y, groups = cohort(classes=classes)
    held = np.stack([groups % folds == k for k in range(folds)])
    return x, np.where(held, -1, y), held, groups, y


@pytest.mark.parametrize("classes", [2, 3])
def test_each_image_gets_the_logits_of_the_probe_that_did_not_see_it(classes):
    x, labels, held, groups, _ = folded(classes)
    out = adaptation.cross_fit(x, labels, held, groups, strengths=FEW)
    assert out.shape == ((len(x),) if classes == 2 else (len(x), classes))
    for k, test in enumerate(held):
        probe = adaptation.probe(x[~test], labels[k][~test], groups[~test], strengths=FEW)
        np.testing.assert_allclose(out[test], probe.logits(x[test]), atol=1e-9)


def test_logits_of_held_out_images_do_not_depend_on_their_labels():
    x, _, held, groups, y = folded()
    noise = np.random.default_rng(1).permutation(y)
    for truth in (y, noise):
        shuffled = np.where(held, -1, y)
        shuffled[0, held[1]] = truth[held[1]]  # fold 0 trains on the images of fold 1
        out = adaptation.cross_fit(x, shuffled, held, groups, strengths=(0.1,))
        if truth is y:
            before = out
    assert np.allclose(out[held[1]], before[held[1]]), "fold 1 never saw its own labels"
    assert not np.allclose(out[held[0]], before[held[0]])


def test_a_held_out_image_that_shows_its_label_is_refused():
    x, labels, held, groups, y = folded()
    labels[2, np.flatnonzero(held[2])[:3]] = y[np.flatnonzero(held[2])[:3]]
    with pytest.raises(ValueError, match="3 held-out images show their label"):
        adaptation.cross_fit(x, labels, held, groups)


def test_folds_that_miss_or_repeat_an_image_or_part_a_group_are_refused():
    x, labels, held, groups, _ = folded()
    with pytest.raises(ValueError, match="30 images are not held out exactly once"):
        adaptation.cross_fit(x, labels[:3], held[:3], groups)
    with pytest.raises(ValueError, match="not held out exactly once"):
        adaptation.cross_fit(x, labels[[0, 1, 2, 3, 3]], held[[0, 1, 2, 3, 3]], groups)
    with pytest.raises(ValueError, match="groups are both held out and trained on"):
        adaptation.cross_fit(x, labels, held, np.arange(len(x)) // 8)


# ---------------------------------------------------------------------- fine-tuning
class Loader:
    def __init__(self, labels):
        self.label = torch.tensor(labels)
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(len(labels), 3, 32, 32, generator=generator)

    def __len__(self):
        return 1

    def __iter__(self):
        yield {"image": self.image, "label": self.label}


def classifier(outputs=1):
    tower = encoders.image("timm:test_resnet", weights="random", size=32)
    return models.Classifier(tower, outputs=outputs)


def tune(labels, outputs=1, model=None, epochs=1, lr=1e-3, **given):
    model = model or classifier(outputs)
    options = training.Options(epochs=epochs, lr=lr, backbone_lr=3e-4, layer_decay=1.0)
    given |= {"accelerator": "cpu"}
    with adaptation.objective(model, np.array(labels)) as objective:
        return list(training.fit(model, objective, Loader(labels), options, **given))


def test_fine_tuning_moves_every_weight_and_lowers_the_loss():
    model = classifier()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = tune([0, 1, 1, 0, 1, 0, -1, 1], model=model, epochs=5, lr=0.1)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


def test_balanced_classes_weigh_the_same_and_rows_without_a_label_nothing(monkeypatch):
    seen = []
    original = adaptation.objectives.losses.classification_objective

    def spy(*, class_weights=None, ordinal=False):
        seen.append(class_weights)
        return original(class_weights=class_weights, ordinal=ordinal)

    monkeypatch.setattr(adaptation.objectives.losses, "classification_objective", spy)
    labels = [0, 0, 0, 1, 2, 2, -1, -1]
    tune(labels, outputs=3, epochs=1)
    counts = torch.tensor([3.0, 1.0, 2.0])
    assert torch.allclose(seen[0] * counts, torch.full((3,), 2.0)), "each class 6 / 3 rows' worth"
    assert (seen[0] * counts).sum() / counts.sum() == pytest.approx(1), "mean one over the rows"


def test_a_class_without_training_rows_has_no_weight_and_one_class_is_refused():
    weights = adaptation.objectives._class_weights(np.array([0, 0, 2, -1]), 3)
    assert weights.tolist() == [0.75, 0.0, 1.5]
    assert len(tune([0, 0, 2, 2], outputs=3, epochs=1)) == 1
    with pytest.raises(ValueError, match=r"by class: \[4, 0\]"):
        tune([0, 0, 0, 0], epochs=1)
    with pytest.raises(ValueError, match="3 training values, none differing"):
        tune([7.0, 7.0, 7.0, np.nan], epochs=1)


def test_the_kept_epoch_comes_back_through_the_strategy():
    scores, seen = iter([0.9, 0.1]), []
    model = classifier()

    def validate(model):
        seen.append(encoders.weights_hash(model))
        return {"auroc": next(scores)}

    tune([0, 1, 1, 0], model=model, epochs=2, validate=validate, keep="auroc")
    assert encoders.weights_hash(model) == seen[0]


# ---------------------------------------------------------------------- one probe for all tasks
def test_the_probe_follows_the_kind_of_labels_and_the_number_of_groups():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    y, groups = (x[:, 0] > 0).astype(int), np.arange(60)
    strengths = (1e-3, 1e-1, 10.0)
    given = dict(strengths=strengths)
    values = (3 * x[:, 1]).astype(np.float32)
    assert not adaptation.probe(x, values, groups, **given).inner, "chosen by leaving one out"
    assert set(adaptation.probe(x, y, groups, **given).inner) == set(strengths)
    three = np.flatnonzero(y == 1)[:3]
    rows = np.concatenate([three, np.flatnonzero(y == 0)])
    few = adaptation.probe(x[rows], y[rows], groups[rows], **given)
    assert set(few.inner) == set(strengths), "three groups still make three folds"
    rows = rows[2:]
    single = adaptation.probe(x[rows], y[rows], groups[rows], **given)
    assert single.strength == 1e-1 and not single.inner


def test_a_feature_that_hardly_varies_in_training_does_not_explode_in_a_test_row():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    x[:, 3] = 0
    x[0, 3] = 1e-3  # seen once, and barely
    y = x[:, 0].astype(np.float32)
    test = rng.normal(size=(40, 8))
    test[:, 3] = 0.5
    for probe in (
        adaptation.probe(x, y, np.arange(60)),
        adaptation.probe(x, (y > 0).astype(int), np.arange(60), strengths=(1.0,)),
    ):
        moved = test.copy()
        moved[:, 3] = 0
        spread = np.std(probe.logits(moved))
        assert np.abs(probe.logits(test) - probe.logits(moved)).max() < 3 * spread
