"""Protects the numbers a thesis prints: metrics, intervals, thresholds and paired tests."""

import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from bonelib import cohort, evaluation
from bonelib.evaluation import counting, ranking

CLASSES = cohort.task("malignancy").classes


def scored(n=240, patients=160, *, task="tumor", seed=0, strength=1.5, ties=False, **columns):
    """Predictions of a noisy model: patients of one label, one to several images each."""
    rng = np.random.default_rng(seed)
    known = cohort.task(task)
    patient = np.sort(
        np.concatenate([np.arange(patients), rng.integers(patients, size=n - patients)])
    )
    truth = rng.integers(len(known.classes), size=patients)[patient]
    logits = rng.normal(size=(n, len(known.classes)))
    logits[np.arange(n), truth] += strength
    if ties:
        logits = np.round(logits)
    view = pd.DataFrame(
        {
            "image_id": [f"i{k:04d}" for k in range(n)],
            "patient": [f"p{k}" for k in patient],
            "center": np.where(np.arange(n) % 3 == 0, "A", "B"),
            "group_kind": "patient",
            "split": "val",
            "fold": 0,
            known.column: np.array(known.classes)[truth],
        }
    ).assign(**columns)
    return evaluation.predictions(view, logits, task=task, seed=seed)


@pytest.fixture
def binary():
    return scored()


@pytest.fixture
def three():
    return scored(task="malignancy", n=300, patients=200)


# ---------------------------------------------------------------------------- probabilities
def test_probabilities_are_the_sigmoid_and_the_softmax():
    x = np.random.default_rng(0).normal(size=(50, 3)) * 5
    p = evaluation.probabilities(x, task="malignancy")
    np.testing.assert_allclose(p, softmax(x, axis=1), atol=1e-15)
    for column in (x[:, 0], x[:, :1]):
        p = evaluation.probabilities(column, task="tumor")
        np.testing.assert_allclose(p[:, 1], expit(x[:, 0]), atol=1e-15)
    np.testing.assert_allclose(p.sum(1), 1)
    assert p.dtype == np.float64


def test_huge_logits_stay_finite():
    p = evaluation.probabilities(np.array([-1e4, 1e4]), task="tumor")
    np.testing.assert_array_equal(p, [[1, 0], [0, 1]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_second_softmax_is_refused(dtype):
    logits = np.random.default_rng(1).normal(size=(64, 9))
    once = softmax(logits, axis=1).astype(dtype)
    with pytest.raises(ValueError, match="looks like probabilities; pass logits"):
        evaluation.probabilities(once, task="entity")


def test_ordinary_logits_are_never_taken_for_probabilities():
    rng = np.random.default_rng(2)
    for x in (
        rng.normal(size=(5, 2)),
        rng.uniform(0, 1, size=(5, 2)),
        np.abs(rng.normal(size=(1, 2))),
    ):
        evaluation.probabilities(x, task="tumor")
    evaluation.probabilities(np.array([0.2, 0.9]), task="tumor")
    assert evaluation.probabilities(np.zeros((0, 3)), task="malignancy").shape == (0, 3)


def test_tensors_are_taken_as_they_come():
    import torch

    x = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    assert evaluation.probabilities(x, task="malignancy").shape == (4, 3)


def test_wrong_shapes_and_missing_values_are_refused_with_the_classes_named():
    with pytest.raises(ValueError, match="normal, benign, malignant"):
        evaluation.probabilities(np.zeros((4, 2)), task="malignancy")
    with pytest.raises(ValueError, match="1 of 3 rows of logits are NaN"):
        evaluation.probabilities(np.array([0.0, np.nan, 1.0]), task="tumor")


# ---------------------------------------------------------------------------- the table
def test_the_table_keeps_the_contract(three, tmp_path):
    wanted = ["image_id", "patient", "center", "task", "split", "fold", "seed", "label"]
    assert set(wanted) <= set(three.columns)
    assert list(three.columns[-3:]) == [f"p_{name}" for name in CLASSES]
    three.assign(patient=pd.NA).to_parquet(tmp_path / "p.parquet")
    back = pd.read_parquet(tmp_path / "p.parquet")
    assert back["patient"].isna().all() and back["p_benign"].equals(three["p_benign"])


def test_a_regression_keeps_its_values():
    view = pd.DataFrame({"image_id": ["a", "b"], "split": "val", "bone_age": [100.0, 120.0]})
    table = evaluation.predictions(view, np.array([110.0, 117.0]), task="bone_age", seed=0)
    assert evaluation.score(table, "bone_age") == pytest.approx(6.5)


def test_labels_come_through_the_door_alone(binary):
    truth = binary[["image_id", "label"]].rename(columns={"label": "tumor"})
    closed = binary.assign(label=pd.NA, split="test")
    with pytest.raises(ValueError, match="splits.open_test"):
        evaluation.metrics(closed, task="tumor")
    joined = evaluation.with_labels(closed, truth.sample(frac=1, random_state=0))
    assert list(joined["label"]) == list(binary["label"])


def test_a_table_of_several_tasks_gets_the_labels_of_each(binary):
    grade = scored(task="kl_grade", seed=1)
    truth = binary[["image_id"]].assign(tumor=binary["label"], kl_grade=grade["label"].to_numpy())
    truth.loc[:9, "kl_grade"] = pd.NA  # an image that nobody graded
    both = pd.concat([binary, grade], ignore_index=True)
    mixed = both.sample(frac=1, random_state=3)
    joined = evaluation.with_labels(mixed.assign(label=pd.NA), truth)
    assert joined["image_id"].tolist() == mixed["image_id"].tolist(), "rows stay in order"
    for name, expected in (("tumor", truth["tumor"]), ("kl_grade", truth["kl_grade"])):
        found = joined[joined["task"] == name].sort_values("image_id")["label"]
        assert found.fillna("-").tolist() == expected.fillna("-").tolist()
    twice = pd.concat([binary, grade])  # each index stands twice
    assert len(evaluation.with_labels(twice.assign(label=pd.NA), truth)) == len(twice)
    with pytest.raises(ValueError, match="1 opened images have no prediction"):
        evaluation.with_labels(both.drop(index=300), truth)


def test_no_test_image_drops_out_quietly(binary):
    truth = binary[["image_id", "label"]].rename(columns={"label": "tumor"})
    closed = binary.assign(label=pd.NA, split="test")
    with pytest.raises(ValueError, match="3 predictions have no opened label"):
        evaluation.with_labels(closed, truth.iloc[3:])
    with pytest.raises(ValueError, match="2 opened images have no prediction"):
        evaluation.with_labels(closed.iloc[2:], truth)
    unlabelled = pd.DataFrame({"image_id": ["x1"], "tumor": [pd.NA]})
    assert len(evaluation.with_labels(closed, pd.concat([truth, unlabelled]))) == len(closed)
    flipped = truth.assign(tumor=truth["tumor"].map({"normal": "tumor", "tumor": "normal"}))
    with pytest.raises(ValueError, match="240 labels disagree"):
        evaluation.with_labels(binary, flipped)


# ---------------------------------------------------------------------------- exact statistics
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_auroc_and_average_precision_match_scikit_learn_with_ties(digits):
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=500)
    scores = np.round(labels + rng.normal(size=500), digits)
    assert ranking.auroc(labels, scores) == pytest.approx(
        sk.roc_auc_score(labels, scores), abs=1e-12
    )
    expected = sk.average_precision_score(labels, scores)
    assert ranking.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_constant_scores_are_chance_and_reversed_scores_its_mirror():
    labels = np.array([0, 1, 0, 1, 1])
    scores = np.array([0.1, 0.4, 0.3, 0.2, 0.9])
    assert evaluation.auroc(labels, np.zeros(5)) == 0.5
    forward = evaluation.auroc(labels, scores)
    assert forward + evaluation.auroc(labels, -scores) == pytest.approx(1)
    assert evaluation.auroc(labels, np.exp(scores)) == forward  # only the order counts


def test_bootstrap_equals_explicit_resampling_of_whole_patients():
    rng = np.random.default_rng(4)
    groups = rng.integers(60, size=120)
    labels = rng.integers(2, size=120)
    scores = np.round(labels + rng.normal(size=(2, 120)), 1)
    ours = evaluation.bootstrap_auroc(labels, scores, groups, draws=40, seed=9)
    names, rng = np.unique(groups), np.random.default_rng(9)
    for draw in range(40):
        drawn = names[rng.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
        for model in range(2):
            expected = sk.roc_auc_score(labels[rows], scores[model][rows])
            assert ours[model, draw] == pytest.approx(expected, abs=1e-12)


def test_every_metric_is_resampled_as_scikit_learn_would(three):
    """With the images of a draw written out, each weighted statistic equals scikit-learn's."""
    graded = dataclasses.replace(cohort.task("malignancy"), kind="ordinal")
    labels = graded.encode(three["label"])
    p = three[[f"p_{c}" for c in CLASSES]].to_numpy()
    times = np.random.default_rng(5).integers(0, 4, size=len(three))
    rows = np.repeat(np.arange(len(three)), times)
    found = {
        key: make()(times.astype(float))
        for key, make in counting.statistics(graded, labels, p, threshold=0.4).items()
    }
    y, q = labels[rows], p[rows]
    for i, name in enumerate(CLASSES):
        assert found["AUROC", name] == pytest.approx(sk.roc_auc_score(y == i, q[:, i]), abs=1e-12)
        precision = sk.average_precision_score(y == i, q[:, i])
        assert found["AUPRC", name] == pytest.approx(precision, abs=1e-12)
    balanced = sk.balanced_accuracy_score(y, q.argmax(1))
    assert found["balanced accuracy", ""] == pytest.approx(balanced)
    assert found["accuracy", ""] == pytest.approx(sk.accuracy_score(y, q.argmax(1)))
    kappa = sk.cohen_kappa_score(y, q.argmax(1), weights="quadratic")
    assert found["quadratic kappa", ""] == pytest.approx(kappa)
    flagged = q[:, 2] >= 0.4
    assert found["sensitivity", ""] == pytest.approx(sk.recall_score(y == 2, flagged))
    assert found["specificity", ""] == pytest.approx(sk.recall_score(y != 2, ~flagged))
    assert found["Brier", ""] == pytest.approx(((q - np.eye(3)[y]) ** 2).sum(1).mean())


# ---------------------------------------------------------------------------- metrics
def test_metrics_of_three_classes_match_scikit_learn(three):
    table = evaluation.metrics(three, task="malignancy", draws=50).set_index("metric")
    labels = cohort.task("malignancy").encode(three["label"])
    p = three[[f"p_{c}" for c in CLASSES]].to_numpy()
    macro = sk.roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert table.loc["AUROC", "value"] == pytest.approx(macro, abs=1e-12)
    assert evaluation.score(three, "malignancy") == pytest.approx(macro, abs=1e-12)
    assert {f"AUROC {name}" for name in CLASSES} <= set(table.index)
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    assert set(table["n"]) == {300} and set(table["groups"]) == {200}
    assert set(table["group_kind"]) == {"patient"}
    assert "sensitivity" not in table.index


def test_binary_metrics_at_a_threshold(binary):
    table = evaluation.metrics(binary, task="tumor", threshold=0.3, draws=20).set_index("metric")
    y, flagged = binary["label"] == "tumor", binary["p_tumor"] >= 0.3
    assert table.loc["accuracy", "value"] == pytest.approx((y == flagged).mean())
    assert table.loc["sensitivity", "value"] == pytest.approx(flagged[y].mean())
    assert table.loc["specificity", "value"] == pytest.approx((~flagged)[~y].mean())
    brier = sk.brier_score_loss(y, binary["p_tumor"])
    assert table.loc["Brier", "value"] == pytest.approx(brier)


def test_unlabelled_rows_and_row_order_change_nothing(binary):
    extra = binary.iloc[:30].assign(image_id=[f"x{k}" for k in range(30)], label=pd.NA)
    mixed = pd.concat([binary, extra]).sample(frac=1, random_state=1)
    first = evaluation.metrics(binary, task="tumor", draws=60)
    pd.testing.assert_frame_equal(first, evaluation.metrics(mixed, task="tumor", draws=60))


def test_only_computes_what_was_asked_and_refuses_unknown_names(three):
    table = evaluation.metrics(three, task="malignancy", draws=5, only=("AUROC", "AUPRC benign"))
    assert list(table["metric"]) == ["AUROC", "AUPRC benign"]
    with pytest.raises(ValueError, match="Unknown metrics"):
        evaluation.metrics(three, task="malignancy", draws=5, only=("F2",))


def test_clustered_images_widen_the_interval():
    """Ten copies of each patient's image add no knowledge; an image bootstrap would think so."""
    one = scored(n=100, patients=100)
    ten = pd.concat([one.assign(image_id=one["image_id"] + f"-{k}") for k in range(10)])
    ask = {"task": "tumor", "draws": 300, "only": ("AUROC",)}
    alone, copies = evaluation.metrics(one, **ask), evaluation.metrics(ten, **ask)
    blind = evaluation.metrics(ten.assign(patient=pd.NA, group=pd.NA), **ask)
    width = [float((t["high"] - t["low"]).iloc[0]) for t in (alone, copies, blind)]
    assert width[1] == pytest.approx(width[0], abs=1e-12)
    assert width[2] < width[1] / 2


def test_the_kind_of_groups_is_said():
    table = scored(group="g", patient=pd.NA, group_kind="study")
    table["group"] = np.arange(len(table)) // 2
    found = evaluation.metrics(table, task="tumor", draws=5, only=("AUROC",)).iloc[0]
    assert (found["groups"], found["group_kind"]) == (120, "study")
    bare = table.drop(columns=["group", "group_kind", "patient"])
    found = evaluation.metrics(bare, task="tumor", draws=5, only=("AUROC",)).iloc[0]
    assert (found["groups"], found["group_kind"]) == (240, "image-level groups")


def test_draws_without_a_class_are_dropped_and_counted():
    table = scored(n=30, patients=30).assign(label="normal")
    table.loc[[4, 9], "label"] = "tumor"
    found = evaluation.metrics(table, task="tumor", draws=400, only=("AUROC",)).iloc[0]
    assert found["dropped"] == pytest.approx((1 - 2 / 30) ** 30, abs=0.06)
    assert np.isfinite(found["low"])


def test_one_class_double_images_and_foreign_tables_are_refused(binary):
    with pytest.raises(ValueError, match="need two classes"):
        evaluation.metrics(binary[binary["label"] == "tumor"], task="tumor")
    with pytest.raises(ValueError, match="240 images are predicted more than once"):
        evaluation.metrics(pd.concat([binary, binary]), task="tumor")
    with pytest.raises(ValueError, match="of the task 'fracture'"):
        evaluation.metrics(binary, task="fracture")
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluation.auroc([0, 1], [0.1, np.nan])


def test_a_class_nobody_has_is_shown_as_missing(three):
    two = three[three["label"] != "benign"]
    table = evaluation.metrics(two, task="malignancy", draws=5).set_index("metric")
    assert np.isnan(table.loc["AUROC benign", "value"])
    others = table.loc[["AUROC normal", "AUROC malignant"], "value"].mean()
    assert table.loc["AUROC", "value"] == pytest.approx(others)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Binormal scores: AUROC = Phi(d / sqrt 2), here with two images a patient."""
    from scipy.stats import norm

    d, hits, trials = 1.0, 0, 120
    truth = norm.cdf(d / np.sqrt(2))
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        labels = np.repeat(np.arange(80) % 2, 2)
        patient = np.repeat(rng.normal(size=80) * np.sqrt(0.7), 2)
        scores = d * labels + patient + rng.normal(size=160) * np.sqrt(0.3)
        drawn = evaluation.bootstrap_auroc(labels, scores, np.repeat(np.arange(80), 2), draws=200)
        low, high = np.percentile(drawn, (2.5, 97.5))
        hits += low <= truth <= high
    assert 0.88 <= hits / trials <= 0.99


def test_two_thousand_draws_are_not_a_coffee_break():
    """A generous bound against an accidental loop over images; the benchmark holds the target."""
    table = scored(n=3746, patients=2764)
    start = time.process_time()
    evaluation.metrics(table, task="tumor", draws=2000, only=("AUROC",))
    assert time.process_time() - start < 5


# ---------------------------------------------------------------------------- thresholds
def test_youden_threshold_is_the_best_there_is(binary):
    cut = evaluation.choose_threshold(binary, task="tumor")
    false, true, cuts = sk.roc_curve(binary["label"] == "tumor", binary["p_tumor"])
    assert cut == cuts[np.argmax(true - false)]


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
def test_threshold_is_the_highest_that_reaches_the_sensitivity(binary, wanted):
    cut = evaluation.choose_threshold(binary, task="tumor", sensitivity=wanted)
    positive = binary.loc[binary["label"] == "tumor", "p_tumor"]
    assert (positive >= cut).mean() >= wanted
    higher = binary.loc[binary["p_tumor"] > cut, "p_tumor"].min()
    assert (positive >= higher).mean() < wanted


def test_a_threshold_is_never_chosen_on_test_images(binary):
    with pytest.raises(ValueError, match="chosen on validation"):
        evaluation.choose_threshold(binary.assign(split=["test"] + ["val"] * 239), task="tumor")
    with pytest.raises(ValueError, match="chosen on validation"):
        evaluation.choose_threshold(binary.drop(columns="split"), task="tumor")
    with pytest.raises(ValueError, match="fraction between 0 and 1"):
        evaluation.choose_threshold(binary, task="tumor", sensitivity=95)


def test_calibration_shares_are_those_of_the_bins(binary):
    table = evaluation.calibration(binary, task="tumor", bins=6, draws=50)
    truth = (binary["label"] == "tumor").to_numpy()[np.argsort(binary["p_tumor"], kind="stable")]
    np.testing.assert_allclose(table["value"], truth.reshape(6, 40).mean(1))
    inside = table[table["low"].notna()]
    assert len(inside) >= 3 and (inside["low"] <= inside["value"]).all() and table["n"].sum() == 240


# ---------------------------------------------------------------------------- comparisons
def direct_delong(labels, first, second):
    """The definition of DeLong et al. 1988, all pairs written out."""
    areas, v10, v01 = [], [], []
    for scores in (first, second):
        pos, neg = scores[labels == 1], scores[labels == 0]
        wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
        areas.append(wins.mean())
        v10.append(wins.mean(1))
        v01.append(wins.mean(0))
    s = np.cov(v10) / len(v10[0]) + np.cov(v01) / len(v01[0])
    return areas, s


@pytest.mark.parametrize("digits", [0, 6])
def test_delong_equals_the_sum_over_all_pairs(digits):
    from scipy.stats import norm

    rng = np.random.default_rng(6)
    labels = rng.integers(2, size=90)
    first, second = np.round(labels + rng.normal(size=(2, 90)), digits)
    areas, s = direct_delong(labels, first, second)
    found = evaluation.delong(labels, first, second)
    assert found["auroc"] == pytest.approx(areas[0], abs=1e-12)
    assert found["variance"] == pytest.approx(s[0, 0], abs=1e-12)
    z = (areas[0] - areas[1]) / np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert found["p"] == pytest.approx(2 * norm.sf(abs(z)), abs=1e-12)
    assert 0 < found["low"] < found["auroc"] < found["high"] < 1


def test_delong_says_when_there_is_no_variance():
    labels = np.array([0, 0, 0, 1, 1])
    found = evaluation.delong(labels, labels * 1.0, labels * 2.0)
    assert found["auroc"] == 1 and np.isnan(found["low"]) and found["p"] == 1
    assert "variance" in found["note"]


def test_a_better_model_is_found_better_and_a_copy_is_not(binary):
    worse = binary.copy()
    noise = np.random.default_rng(7).normal(size=len(binary)) * 2.5
    worse["p_tumor"] = expit(np.log(binary["p_tumor"] / binary["p_normal"]) + noise)
    worse["p_normal"] = 1 - worse["p_tumor"]
    found = evaluation.compare(
        binary, worse.sample(frac=1, random_state=0), task="tumor", draws=400
    )
    a, b = (evaluation.score(t, "tumor") for t in (binary, worse))
    assert found["value"] == pytest.approx(a - b, abs=1e-12)
    assert found["low"] > 0 and found["p"] < 0.02 and "p_delong" not in found
    back = evaluation.compare(worse, binary, task="tumor", draws=400)
    assert back["low"] == pytest.approx(-found["high"])
    same = evaluation.compare(binary, binary, task="tumor", draws=100)
    assert same["value"] == 0 and same["p"] == 1


def test_delong_stands_beside_where_images_are_all_there_is(binary):
    images = binary.assign(patient=pd.NA, group_kind="image-level groups")
    chance = np.random.default_rng(0).uniform(size=240)
    other = images.assign(p_tumor=chance, p_normal=1 - chance)
    found = evaluation.compare(images, other, task="tumor", draws=400)
    assert found["p_delong"] < 0.01 and found["p"] < 0.01


def test_comparison_on_different_images_is_refused_with_their_number(binary):
    with pytest.raises(ValueError, match="5 images are labelled in one table only"):
        evaluation.compare(binary, binary.iloc[5:], task="tumor")


def test_subgroups_give_a_number_only_where_there_are_enough(binary):
    table = binary.assign(view=[("frontal",)] * 120 + [("lateral",)] * 115 + [()] * 5)
    found = evaluation.subgroups(table, "view", task="tumor", draws=50).set_index("view")
    expected = evaluation.score(binary.iloc[:120], "tumor")
    assert found.loc["frontal", "value"] == pytest.approx(expected)
    assert found.loc["missing", "note"] == "too few" and np.isnan(found.loc["missing", "value"])
    assert found["n"].sum() == 240
    with pytest.raises(ValueError, match="Join it from the cohort"):
        evaluation.subgroups(binary, "sex", task="tumor")


def test_subgroups_of_three_classes_are_about_the_positive_class(three):
    found = evaluation.subgroups(three, "center", task="malignancy", draws=20)
    assert set(found["metric"]) == {"AUROC malignant"} and (found["note"] == "").all()


def test_an_ordinal_task_has_a_kappa_and_a_perfect_one_is_one():
    table = scored(task="kl_grade", strength=50.0)
    found = evaluation.metrics(table, task="kl_grade", draws=10).set_index("metric")
    assert found.loc["quadratic kappa", "value"] == 1


def test_holm_is_the_procedure_of_its_paper():
    # Reject the smallest p at alpha/m, the next at alpha/(m-1), … until the first that is not.
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(0, 0.2, size=rng.integers(1, 8))
        corrected = evaluation.holm(p)
        for alpha in (0.01, 0.05, 0.2):
            rejected, order = set(), np.argsort(p)
            for step, k in enumerate(order):
                if p[k] > alpha / (len(p) - step):
                    break
                rejected.add(int(k))
            assert set(np.flatnonzero(corrected <= alpha).tolist()) == rejected
        assert (corrected >= p).all() and corrected.max() <= 1


# ---------------------------------------------------------------------- repeats
def repeats(count, n=400, *, luck=0.0, seed=0):
    """Predictions of a value by repeats, each off by a number of its own."""
    rng = np.random.default_rng(seed)
    ids = [f"i{k:03d}" for k in range(n)]
    errors = 10 + np.abs(rng.normal(0, 1, n))
    return [
        pd.DataFrame(
            {
                "image_id": ids,
                "patient": ids,
                "group": ids,
                "group_kind": "patient",
                "label": 100.0,
                "value": 100.0 + errors + luck * rng.normal(),
            }
        )
        for _ in range(count)
    ]


def test_repeats_have_their_mean_and_the_interval_of_patients_where_they_agree():
    tables = repeats(3)
    found = evaluation.repeated(tables, task="bone_age", draws=2000)
    mean = np.mean(np.abs(tables[0]["value"] - 100))
    assert found["value"] == pytest.approx(mean) and found["lowest"] == found["highest"]
    alone = evaluation.repeated(tables[:1], task="bone_age", draws=2000)
    assert (found["low"], found["high"]) == pytest.approx((alone["low"], alone["high"]))
    wide = np.std(np.abs(tables[0]["value"] - 100)) / np.sqrt(400) * 1.96
    assert (alone["high"] - alone["low"]) / 2 == pytest.approx(wide, rel=0.1)


def test_the_luck_of_repeats_widens_the_interval_by_its_own_variance():
    """Few repeats too: the mean over many trials of the squared width is that of both sources."""
    halves = []
    for seed in range(60):
        found = evaluation.repeated(repeats(3, luck=1.0, seed=seed), task="bone_age", draws=400)
        halves.append((found["high"] - found["low"]) / 2 / 1.96)
    patients = np.std(np.abs(np.random.default_rng(0).normal(0, 1, 10000))) / np.sqrt(400)
    expected = 1.0 / 3 + patients**2  # of a mean of three, and of four hundred patients
    assert np.mean(np.square(halves)) == pytest.approx(expected, rel=0.25)


def test_repeats_of_other_images_are_refused():
    first, second = repeats(2)
    with pytest.raises(ValueError, match="about the same images"):
        evaluation.repeated([first, second.iloc[1:]], task="bone_age")
