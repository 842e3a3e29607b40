"""Protects the metrics of decisions and of calibration, curves with bands, subgroups and gaps."""

import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import bootstrap, norm
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from test_evaluation import CLASSES, scored

from bonelib import cohort, evaluation
from bonelib.evaluation import counting, ranking, reliability

SIZES = {"sensitivity at 90 % specificity", "ECE", "calibration slope", "calibration intercept"}
NEW = {"balanced accuracy", "F1", "MCC", *SIZES}


@pytest.fixture
def binary():
    return scored()


@pytest.fixture
def three():
    return scored(task="malignancy", n=300, patients=200)


def arrays(table, task):
    known = cohort.task(task)
    labels = known.encode(table["label"])
    return labels, table[[f"p_{c}" for c in known.classes]].to_numpy()


def patients(positives, negatives, area, *, seed, images=3):
    """Binormal scores of a true AUROC; one to several images a patient that correlate."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(
        np.arange(positives + negatives), rng.integers(1, images + 1, positives + negatives)
    )
    labels = (patient < positives).astype(int)
    own = rng.normal(size=positives + negatives)[patient]
    noise = np.sqrt(0.5) * (own + rng.normal(size=len(labels)))
    return labels, patient, np.sqrt(2) * norm.ppf(area) * labels + noise


def as_table(labels, patient, scores):
    view = pd.DataFrame({"image_id": [f"i{k}" for k in range(len(labels))], "split": "val"})
    view = view.assign(patient=patient.astype(str), tumor=np.array(["normal", "tumor"])[labels])
    return evaluation.predictions(view, scores, task="tumor", seed=0)


# ---------------------------------------------------------------------------- metrics
@pytest.mark.parametrize("ties", [False, True])
def test_every_new_metric_is_resampled_as_scikit_learn_would(ties):
    """With the images of a draw written out, each weighted statistic equals scikit-learn's."""
    labels, p = arrays(scored(task="malignancy", ties=ties), "malignancy")
    times = np.random.default_rng(5).integers(0, 4, size=len(labels))
    rows = np.repeat(np.arange(len(labels)), times)
    made = counting.statistics(cohort.task("malignancy"), labels, p)
    found = {metric: make()(times) for (metric, name), make in made.items() if not name}
    y, q = labels[rows], p[rows]
    guesses = q.argmax(1)
    assert found["F1"] == pytest.approx(sk.f1_score(y, guesses, average="macro"))
    assert found["MCC"] == pytest.approx(sk.matthews_corrcoef(y, guesses))
    assert found["balanced accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guesses))
    false, true, _ = sk.roc_curve(y == 2, q[:, 2], drop_intermediate=False)
    assert found[counting.AT_90] == pytest.approx(true[false <= 0.1 + 1e-12].max())
    odds = np.log(q[:, 2] / (1 - q[:, 2]))
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], y == 2)
    assert found["calibration slope"] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    shift = found["calibration intercept"]  # the mean of the shifted scores is the share of events
    assert expit(odds + shift).mean() == pytest.approx((y == 2).mean(), abs=1e-9)


def test_binary_f1_and_mcc_are_those_of_the_positive_class_at_the_threshold(binary):
    found = evaluation.metrics(binary, task="tumor", threshold=0.3, draws=20).set_index("metric")
    y, flagged = binary["label"] == "tumor", binary["p_tumor"] >= 0.3
    assert found.loc["F1", "value"] == pytest.approx(sk.f1_score(y, flagged))
    assert found.loc["MCC", "value"] == pytest.approx(sk.matthews_corrcoef(y, flagged))
    assert NEW <= set(found.index)
    grades = evaluation.metrics(scored(task="kl_grade"), task="kl_grade", draws=5)
    assert NEW - {counting.AT_90} <= set(grades["metric"])


def test_a_model_that_calls_one_class_has_no_correlation():
    counts = np.array([[0, 7], [0, 5]])
    assert counting.mcc(counts) == 0 == sk.matthews_corrcoef([0] * 7 + [1] * 5, [1] * 12)
    assert np.isnan(counting.mcc(np.array([[3, 4], [0, 0]])))  # one true class: no correlation
    assert np.isnan(counting.recall(np.array([[3, 4], [0, 0]]))).tolist() == [False, True]


@pytest.mark.parametrize("task", ["tumor", "malignancy", "kl_grade"])
def test_a_block_of_draws_has_the_values_of_its_draws_one_by_one(task):
    table = scored(task=task, n=120, patients=80, ties=True)
    labels, p = arrays(table, task)
    weights = np.random.default_rng(0).integers(0, 3, size=(12, len(labels)))
    weights[0] *= labels == 0  # one class alone
    for (metric, _), make in counting.statistics(cohort.task(task), labels, p).items():
        statistic = make()
        one_by_one = [statistic(row) for row in weights]
        np.testing.assert_allclose(statistic(weights), one_by_one, atol=1e-9, err_msg=metric)
        assert np.ndim(one_by_one[0]) == 0
        if metric not in ("accuracy", "Brier", "ECE", "quadratic kappa"):
            assert np.isnan(one_by_one[0]), f"{metric} of one class"


def test_statistics_of_callers_are_drawn_as_those_of_the_room():
    x, groups = np.random.default_rng(0).normal(size=60), np.arange(60) // 2
    ours = ranking.share_statistic(x, np.ones(60, bool))
    both = ranking.bootstrap([ours, lambda w: w @ x / w.sum()], groups, draws=300, seed=1)
    np.testing.assert_allclose(both[0], both[1], atol=1e-14)
    assert ranking.bootstrap([ours], groups, draws=0, seed=1).shape == (1, 0)


def test_the_bootstrap_agrees_with_scipy_where_each_image_is_a_patient():
    labels, _, scores = patients(60, 60, 0.8, seed=3, images=1)
    drawn = evaluation.bootstrap_auroc(labels, scores, np.arange(120), draws=2000)
    named = dict(paired=True, vectorized=False, method="percentile", n_resamples=1000, rng=1)
    theirs = bootstrap((labels, scores), ranking.auroc, **named)
    ends = np.percentile(drawn, (2.5, 97.5))
    assert ends == pytest.approx([*theirs.confidence_interval], abs=0.012)
    assert drawn.std() == pytest.approx(theirs.standard_error, rel=0.1)


def test_draws_in_blocks_are_far_faster_than_a_loop():
    """A generous bound; ``benchmarks/run.py intervals`` holds the target of a hundred times."""
    labels, patient, scores = patients(800, 800, 0.8, seed=0, images=2)
    members = np.split(np.arange(len(labels)), np.flatnonzero(np.diff(patient)) + 1)
    rng, start = np.random.default_rng(0), time.process_time()
    theirs = []
    for _ in range(60):
        drawn = rng.integers(len(members), size=len(members))
        rows = np.concatenate([members[g] for g in drawn])
        theirs.append(sk.roc_auc_score(labels[rows], scores[rows]))
    loop, start = time.process_time() - start, time.process_time()
    ours = evaluation.bootstrap_auroc(labels, scores, patient, draws=600)
    assert time.process_time() - start < loop / 2, "ten times the draws, twice as fast"
    np.testing.assert_allclose(ours[:60], theirs, atol=1e-12)


# ---------------------------------------------------------------------------- calibration
def test_bins_never_part_equal_scores_and_are_equal_without_ties():
    rng = np.random.default_rng(0)
    for digits in (1, 2, 9):
        scores = np.round(rng.uniform(size=211), digits)
        bins = reliability.equal_bins(scores, 15)
        assert pd.Series(bins).groupby(scores).nunique().eq(1).all()
        order = np.argsort(scores)
        assert (np.diff(bins[order]) >= 0).all()
        if digits == 9:
            assert sorted(np.bincount(bins)) == sorted(map(len, np.array_split(order, 15)))
    assert (reliability.equal_bins(np.full(9, 0.5), 15) == 4).all()


def test_ece_is_the_sum_over_bins_written_out(binary):
    found = evaluation.metrics(binary, task="tumor", draws=50, only=("ECE",)).iloc[0]
    p = np.sort(binary["p_tumor"].to_numpy())
    y = (binary["label"] == "tumor").to_numpy()[np.argsort(binary["p_tumor"])]
    gaps = [
        abs(a.mean() - b.mean()) for a, b in zip(p.reshape(15, 16), y.reshape(15, 16), strict=True)
    ]
    assert found["value"] == pytest.approx(np.mean(gaps))
    assert found["interval"] == "basic" and 0 <= found["low"] < found["high"]


def test_slope_and_intercept_find_the_temperature_and_the_shift():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, size=20000)
    y = (rng.uniform(size=20000) < expit(odds)).astype(int)
    for factor, shift in ((1, 0), (2, 0), (1, 1.5)):
        p = expit(factor * odds + shift)
        slope = reliability.cox_statistic(y, p, slope=True)(np.ones(20000))
        level = reliability.cox_statistic(y, p, slope=False)(np.ones(20000))
        assert slope == pytest.approx(1 / factor, abs=0.04)
        if factor == 1:
            assert level == pytest.approx(-shift, abs=0.06)


@pytest.mark.parametrize(
    ("y", "p"),
    [([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8]), ([0, 1, 0, 1], [0.5] * 4), ([0, 1, 1], [0, 1, 1])],
)
def test_a_slope_that_no_data_can_tell_is_missing(y, p):
    statistic = reliability.cox_statistic(np.array(y), np.array(p, float), slope=True)
    assert np.isnan(statistic(np.ones(len(y))))


@pytest.mark.parametrize(
    ("spread", "shift", "n", "seed"), [(0.01, -8, 543, 0), (1, -3, 269, 1), (5, 8, 189, 2)]
)
def test_scores_far_from_right_still_have_a_slope_and_an_intercept(spread, shift, n, seed):
    """Newton's steps from the diagonal swing for ever here; the truth is that of scikit-learn."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, spread, size=n)
    y = (rng.uniform(size=n) < expit(odds / spread - 1)).astype(int)
    p = expit(odds + shift)
    weights = np.bincount(rng.integers(n, size=n), minlength=n)
    x = np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6)))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000)
    for w in (np.ones(n), weights):
        slope = reliability.cox_statistic(y, p, slope=True)(w)
        fit.fit(((x - x.mean()) / x.std())[:, None], y, sample_weight=w)
        assert slope == pytest.approx(fit.coef_[0, 0] / x.std(), rel=1e-3)
        level = reliability.cox_statistic(y, p, slope=False)(w)
        assert w @ expit(x + level) == pytest.approx(w @ y, rel=1e-6)


def test_an_interval_of_the_ece_holds_its_value():
    """Where chance made the ECE small, draws lie so far above that the mirror would miss it."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        p = rng.uniform(size=200)
        statistic = reliability.ece_statistic((rng.uniform(size=200) < p).astype(int), p)
        value = statistic(np.ones(200))
        drawn = ranking.bootstrap([statistic], np.arange(200), draws=200, seed=seed)[0]
        ends = ranking.interval(drawn, value=value, scale="basic")
        assert 0 <= ends["low"] <= value <= ends["high"]


def test_a_class_of_one_patient_has_no_interval_anywhere(three):
    alone = three[(three["label"] != "benign")]
    one = three[three["label"] == "benign"].groupby("patient").head(2).head(1)
    table = pd.concat([alone, one, one.assign(image_id="again")])
    found = evaluation.metrics(table, task="malignancy", draws=200, threshold=0.4)
    found = found.set_index("metric")
    with_ends = found.index[found["low"].notna()]
    assert set(found.index[found["interval"] == "none"]) == set(found.index) - set(with_ends)
    assert {"accuracy", "Brier", "AUROC malignant", "AUROC normal"} <= set(with_ends)
    assert {"sensitivity", "specificity", *SIZES} <= set(with_ends)  # malignant against the rest
    assert not {"AUROC", "AUROC benign", "balanced accuracy", "F1", "MCC"} & set(with_ends)
    assert found["value"].notna().all()
    other = table.assign(p_normal=table["p_benign"], p_benign=table["p_normal"])
    paired = evaluation.compare(table, other, task="malignancy", draws=50)
    assert np.isnan(paired[["low", "high", "p"]].astype(float)).all()
    assert np.isnan(evaluation.repeated([table], task="malignancy", draws=50)["low"])
    sick = table[table["label"] == "malignant"]
    one = table[(table["label"] != "malignant") | (table["patient"] == sick["patient"].iloc[0])]
    for curve in (evaluation.roc, evaluation.precision_recall):
        found = curve(one, task="malignancy", draws=20)
        assert found["value"].notna().all() and found[["low", "high"]].isna().all(axis=None)


# ---------------------------------------------------------------------------- intervals
def test_shares_of_few_patients_have_intervals_on_the_logit():
    small, large = scored(n=90, patients=60), scored(n=900, patients=600)
    for table, expected in ((small, "logit"), (large, "percentile")):
        found = evaluation.metrics(table, task="tumor", draws=300).set_index("metric")
        assert found.loc["AUROC", "interval"] == expected
        assert found.loc["MCC", "interval"] == found.loc["calibration slope", "interval"]
        assert found.loc["MCC", "interval"] == "percentile"
    drawn = np.array([0.9, 0.92, 0.95, 0.97, np.nan])
    ends = ranking.interval(drawn, value=0.94, scale="logit")
    half = 1.959964 * drawn[:4].std(ddof=1) / (0.94 * 0.06)
    assert ends["low"] == pytest.approx(expit(np.log(0.94 / 0.06) - half))
    assert ends["high"] == pytest.approx(expit(np.log(0.94 / 0.06) + half)) and ends["high"] < 1
    assert ends["dropped"] == pytest.approx(0.2)
    assert ranking.interval(drawn, value=1.0, scale="logit") == ranking.interval(drawn)
    few = ranking.interval(drawn, value=0.94, scale="logit", patients=20)
    wide = 2.093024 * np.sqrt(20 / 19) / 1.959964  # Student's t of 19
    assert few["low"] == pytest.approx(expit(np.log(0.94 / 0.06) - half * wide))


def test_a_share_counts_the_patients_that_it_is_about():
    """Few sick patients tell little of the sensitivity, and nothing about the healthy ones."""
    labels, patient, scores = patients(5, 180, 0.8, seed=0)
    table = as_table(labels, patient, scores)
    found = evaluation.metrics(table, task="tumor", threshold=0.5, draws=300)
    found = found.set_index("metric")
    drawn = ranking.bootstrap(
        [ranking.share_statistic(table["p_tumor"] < 0.5, labels == 0)],
        evaluation.rows.group_keys(table)[0],
        draws=300,
        seed=0,
    )[0]
    named = dict(value=found.loc["specificity", "value"], scale="logit", patients=180)
    assert found.loc["specificity", "low"] == pytest.approx(ranking.interval(drawn, **named)["low"])
    wide = found["high"] - found["low"]
    assert wide["sensitivity"] > 4 * wide["specificity"]
    cut = np.quantile(scores[labels == 0], 0.905)  # just reached: not so in every draw
    best = as_table(labels, patient, np.where(labels == 1, cut, scores))
    found = evaluation.metrics(best, task="tumor", draws=300, only=(counting.AT_90,)).iloc[0]
    assert found["value"] == 1 and found["interval"] == "percentile" and found["high"] == 1


@pytest.mark.parametrize(("positives", "area"), [(20, 0.9), (60, 0.8), (150, 0.9)])
def test_default_intervals_hold_the_truth_as_often_as_they_say(positives, area):
    """A small version of ``benchmarks/intervals.py``: 150 cohorts, so 90 to 99 % is in order."""
    hits = []
    for seed in range(150):
        labels, patient, scores = patients(positives, 150, area, seed=seed)
        statistic = ranking.auroc_statistic(labels, scores)
        drawn = ranking.bootstrap([statistic], patient, draws=200, seed=seed)[0]
        scale = "logit" if positives < evaluation.SMALL else "percentile"
        value = statistic(np.ones(len(labels)))
        ends = ranking.interval(drawn, value=value, scale=scale, patients=positives)
        hits.append(ends["low"] <= area <= ends["high"])
    assert 0.90 <= np.mean(hits) <= 0.99


def test_the_paired_test_rejects_as_often_as_it_says_where_nothing_differs():
    rejected = []
    for seed in range(200):
        labels, patient, shared = patients(60, 60, 0.8, seed=seed)
        rng = np.random.default_rng(1000 + seed)
        pair = [shared + rng.normal(size=len(labels)) for _ in range(2)]
        statistics = [ranking.auroc_statistic(labels, s) for s in pair]
        a, b = ranking.bootstrap(statistics, patient, draws=300, seed=seed)
        rejected.append(ranking.two_sided(a - b) < 0.05)
    assert 0.01 <= np.mean(rejected) <= 0.10


# ---------------------------------------------------------------------------- curves
@pytest.mark.parametrize("ties", [False, True])
def test_roc_and_its_area_are_those_of_scikit_learn(ties):
    table = scored(n=600, patients=400, ties=ties)
    found = evaluation.roc(table, task="tumor", draws=100)
    y, p = table["label"] == "tumor", table["p_tumor"]
    false, true, _ = sk.roc_curve(y, p, drop_intermediate=False)
    np.testing.assert_allclose(found["value"], np.interp(found["x"], false, true), atol=1e-12)
    area = np.trapezoid(found["value"], found["x"])
    assert area == pytest.approx(sk.roc_auc_score(y, p), abs=0.01)
    assert (found["low"] <= found["value"]).mean() > 0.9 and (found["high"] <= 1).all()
    assert list(found) == ["x", "value", "low", "high"] and found["low"].notna().all()


def test_precision_at_a_recall_is_that_of_the_highest_cut_that_reaches_it():
    table = scored(n=600, patients=400, ties=True)
    found = evaluation.precision_recall(table, task="tumor", draws=100)
    y, p = (table["label"] == "tumor").to_numpy(), table["p_tumor"].to_numpy()
    for x, value in found[["x", "value"]].iloc[1::20].to_numpy():
        cut = max(c for c in np.unique(p) if (p[y] >= c).mean() >= x - 1e-12)
        assert value == pytest.approx(y[p >= cut].mean())
    assert found["value"][1:].mean() == pytest.approx(sk.average_precision_score(y, p), abs=0.01)
    assert found["value"].iloc[-1] >= y.mean() and (found["low"] <= found["high"]).all()


def test_net_benefit_is_the_formula_of_its_paper(binary):
    found = evaluation.decision_curve(binary, task="tumor", thresholds=(0.1, 0.4), draws=50)
    y, p = binary["label"] == "tumor", binary["p_tumor"]
    for row in found.itertuples():
        odds = row.x / (1 - row.x)
        called = p >= row.x
        assert row.value == pytest.approx((called & y).mean() - (called & ~y).mean() * odds)
        assert row.treat_all == pytest.approx(y.mean() - (1 - y.mean()) * odds)
        assert row.low < row.value < row.high
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluation.decision_curve(binary, task="tumor", thresholds=(0.0, 0.5))


def test_risk_over_coverage_is_the_error_of_the_surest(three):
    found = evaluation.risk_coverage(three, task="malignancy", draws=50)
    labels, p = arrays(three, "malignancy")
    order = np.argsort(-(p * np.log(p)).sum(1))
    wrong = (p.argmax(1) != labels)[order]
    for x, value in found[["x", "value"]].iloc[9::30].to_numpy():
        assert value == pytest.approx(wrong[: round(x * 300)].mean())
    assert found["value"].iloc[-1] == pytest.approx(wrong.mean())
    values = pd.DataFrame({"image_id": ["a", "b"], "label": [3.0, 4], "value": [3.0, 5]})
    with pytest.raises(ValueError, match="no classes"):
        evaluation.risk_coverage(values, task="bone_age")


def test_confusion_counts_true_by_predicted(three, binary):
    labels, p = arrays(three, "malignancy")
    found = evaluation.confusion(three, task="malignancy")
    np.testing.assert_array_equal(found, sk.confusion_matrix(labels, p.argmax(1)))
    assert list(found.index) == list(found.columns) == list(CLASSES)
    assert (found.index.name, found.columns.name) == ("true", "predicted")
    cut = evaluation.confusion(binary, task="tumor", threshold=0.8)
    assert cut["tumor"].sum() == (binary["p_tumor"] >= 0.8).sum()


def test_a_threshold_of_a_specificity_is_the_lowest_that_reaches_it(binary):
    cut = evaluation.choose_threshold(binary, task="tumor", specificity=0.9)
    negative = binary.loc[binary["label"] == "normal", "p_tumor"]
    lower = binary.loc[binary["p_tumor"] < cut, "p_tumor"].max()
    assert (negative < cut).mean() >= 0.9 > (negative < lower).mean()
    found = evaluation.metrics(binary, task="tumor", threshold=cut, draws=5).set_index("metric")
    same = found.loc[["sensitivity", counting.AT_90], "value"]
    assert same.iloc[0] == pytest.approx(same.iloc[1])  # here both are of the same images
    ranks = np.arange(105), np.arange(105) >= 5
    assert ranking.best_cut(ranks[1], ranks[0], sensitivity=0.93) == 12  # 93 of 100, not 94
    flat = binary.assign(p_tumor=0.5, p_normal=0.5)
    assert evaluation.choose_threshold(flat, task="tumor", specificity=0.9) > 0.5
    with pytest.raises(ValueError, match="ask for one"):
        evaluation.choose_threshold(binary, task="tumor", specificity=0.9, sensitivity=0.9)


# ---------------------------------------------------------------------------- subgroups
def test_subgroups_count_patients_and_name_what_is_too_small(binary):
    many = pd.concat([binary.assign(image_id=binary["image_id"] + f"-{k}") for k in range(8)])
    few = set(binary["patient"].unique()[:3])
    site = np.where(many["patient"].isin(few), "wrist", "knee")
    found = evaluation.subgroups(many.assign(site=site), "site", task="tumor", draws=50)
    found = found.set_index("site")
    assert found.loc["wrist", "n"] >= 24 and found.loc["wrist", "fewest"] <= 1
    assert found.loc["wrist", "note"] in ("too few", "one class only")
    assert np.isnan(found.loc["wrist", "value"]) and found.loc["knee", "note"] == ""
    assert found["groups"].sum() == 160


def test_values_of_positives_alone_share_the_negatives(three):
    entity = three["label"].where(three["label"] == "malignant").astype("object")
    entity = entity.where(entity.isna(), np.where(np.arange(300) % 2, "osteosarcoma", "ewing"))
    table = three.assign(entity=entity)
    alone = evaluation.subgroups(table, "entity", task="malignancy", draws=20)
    assert set(alone["note"]) == {"one class only"}
    found = evaluation.subgroups(table, "entity", task="malignancy", draws=20, shared=True)
    assert list(found["entity"]) == ["ewing", "osteosarcoma"] and set(found["note"]) == {""}
    labels, p = arrays(table, "malignancy")
    rows = (table["entity"] == "ewing").to_numpy() | (labels != 2)
    expected = sk.roc_auc_score(labels[rows] == 2, p[rows, 2])
    assert found["value"].iloc[0] == pytest.approx(expected)
    assert found["n"].iloc[0] == rows.sum()
    gap = evaluation.gap(table, "entity", task="malignancy", draws=200, shared=True)
    assert gap["compared"] == 2 and 0 < gap["p"] <= 1


def test_a_gap_is_found_and_no_gap_is_not():
    null, real = [], []
    for seed in range(120):
        labels, patient, scores = patients(60, 60, 0.8, seed=seed)
        table = as_table(labels, patient, scores).assign(site=patient % 3)
        null.append(evaluation.gap(table, "site", task="tumor", draws=200, seed=seed)["p"])
        if seed < 20:
            worse = as_table(labels, patient, np.where(patient % 3 == 0, -scores, scores))
            found = evaluation.gap(worse.assign(site=patient % 3), "site", task="tumor", draws=200)
            assert found["lowest"] == "0" and found["df"] == 2
            real.append(found["p"])
    assert np.mean(np.array(null) < 0.05) <= 0.12 and np.mean(null) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.array(real) < 0.05) > 0.9


def test_a_gap_of_several_classes_without_a_positive_one_is_that_of_their_mean(three):
    task = dataclasses.replace(cohort.task("malignancy"), positive="")
    table = three.assign(site=np.where(np.arange(300) % 2, "knee", "hip"))
    found = evaluation.gap(table, "site", task=task, draws=200)
    parts = evaluation.subgroups(table, "site", task=task, draws=20).set_index("site")["value"]
    assert found["metric"] == "AUROC" and 0 < found["p"] <= 1
    assert found["range"] == pytest.approx(parts.max() - parts.min())
    assert found["lowest"] == parts.idxmin()


def test_a_gap_leaves_out_what_is_missing_or_too_small_and_says_so(binary):
    site = pd.Series(np.where(np.arange(240) < 236, "knee", "hip"), dtype="object")
    site[100:110] = pd.NA
    found = evaluation.gap(binary.assign(site=site), "site", task="tumor", draws=20)
    assert (found["compared"], found["left_out"]) == (1, 1) and np.isnan(found["p"])
    assert found["n"] == 226


def test_wald_is_the_test_of_equal_means():
    from scipy.stats import chi2

    values, variance = np.array([0.8, 0.7, 0.75]), np.array([0.01, 0.02, 0.03]) ** 2
    mean = (values / variance).sum() / (1 / variance).sum()  # independent: Cochran's Q
    expected = ((values - mean) ** 2 / variance).sum()
    found = evaluation.strata.wald(values, np.diag(variance), logit=False)
    assert found == pytest.approx(expected) and chi2.sf(found, 2) < 0.01
    assert np.isnan(evaluation.strata.wald(np.array([1.0, 0.8]), np.diag([0, 0.01]), logit=True))


def test_ages_fall_into_bands_and_impossible_ones_are_named():
    age = pd.Series([0, 19, 19.5, 20, 39, 59.9, 60, 88, pd.NA], name="age", dtype="object")
    bands = evaluation.age_band(age)
    expected = ["0–19"] * 3 + ["20–39"] * 2 + ["40–59"] + ["60+"] * 2
    assert bands[:8].tolist() == expected and pd.isna(bands[8]) and bands.name == "age"
    with pytest.raises(ValueError, match="2 ages lie outside 0 to 120 years, e.g. -1"):
        evaluation.age_band(pd.Series([-1, 5, 400]))


# ---------------------------------------------------------------------------- bad rows
def test_predictions_that_are_missing_or_no_probabilities_are_named_and_refused(binary):
    holes = binary.copy()
    holes.loc[[3, 5], "p_tumor"] = np.nan
    double = binary.assign(p_tumor=expit(binary["p_tumor"]), p_normal=expit(binary["p_normal"]))
    calls = (evaluation.metrics, evaluation.roc, evaluation.calibration, evaluation.confusion)
    for call in calls:
        with pytest.raises(ValueError, match=r"2 of 240 .* NaN or infinite, e.g. i0003"):
            call(holes, task="tumor")
        with pytest.raises(ValueError, match="240 of 240 .* sum to one"):
            call(double, task="tumor")
    unlabelled = holes.assign(label=holes["label"].where(holes["p_tumor"].notna()))
    found = evaluation.metrics(unlabelled, task="tumor", draws=5, only=("AUROC",))
    assert found["n"].iloc[0] == 238  # rows without a label never counted


def test_ties_everywhere_are_chance_and_no_error(binary):
    flat = binary.assign(p_tumor=0.5, p_normal=0.5)
    found = evaluation.metrics(flat, task="tumor", draws=50).set_index("metric")
    assert found.loc["AUROC", "value"] == 0.5 and np.isnan(found.loc["AUROC", "low"])
    assert np.isnan(found.loc["calibration slope", "value"])
    assert found.loc["ECE", "value"] == pytest.approx(abs((flat["label"] == "tumor").mean() - 0.5))
    assert len(evaluation.calibration(flat, task="tumor", draws=20)) == 1
    np.testing.assert_allclose(evaluation.roc(flat, task="tumor", draws=5)["value"], GRID)


GRID = np.linspace(0, 1, 101)
