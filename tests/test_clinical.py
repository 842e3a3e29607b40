"""Protects clinical data: coded on training rows, without leaks, fused beside its parts."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize, nnls
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from bonelib import adaptation, captions, cohort, evaluation, reporting
from bonelib.adaptation import clinical, fusion, library, points, search
from bonelib.adaptation.sentence_fusion import sentence_fusion

Method = evaluation.Method


def patients(rows=200, seed=0, **columns):
    """A cohort of two classes that differ in nothing, age and sex missing here and there."""
    rng = np.random.default_rng(seed)
    table = cohort.empty(rows)
    table["image_id"] = [f"i{i}" for i in range(rows)]
    table["age"] = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(5, 80, rows))
    table["sex"] = rng.choice(["F", "M", None], rows, p=[0.5, 0.4, 0.1])
    table["side"] = rng.choice(["left", "right"], rows)
    table["site"] = [(str(site),) for site in rng.choice(["femur", "hand", "tibia"], rows)]
    table["view"] = [
        [("frontal",), ("lateral",), ("frontal", "lateral")][i] for i in rng.integers(0, 3, rows)
    ]
    return table.assign(**columns), rng.integers(0, 2, rows)


# ---------------------------------------------------------------------- the coding
def test_each_term_is_a_column_and_what_is_missing_has_its_own():
    table, labels = patients()
    coding = clinical.learn(table, labels)
    frame = pd.DataFrame(coding.code(table), columns=coding.names)
    assert coding.fields == ("age", "sex", "site", "view", "side") and not coding.notes
    assert frame.dtypes.eq("float32").all() and np.isfinite(frame).all(axis=None)
    known = table["age"].notna()
    age = table["age"].astype(float) / 100
    np.testing.assert_allclose(frame["age"], age.fillna(age.median()), rtol=1e-6)
    np.testing.assert_allclose(frame["age^2"], frame["age"] ** 2, rtol=1e-5)
    assert (frame["age missing"] == ~known).all()
    for sex in "FM":
        assert (frame[f"sex {sex}"] == (table["sex"] == sex)).all()
    assert (frame["sex missing"] == table["sex"].isna()).all()
    assert (frame["view frontal"] == ["frontal" in v for v in table["view"]]).all()
    assert "side missing" not in frame, "no training row lacks its side"


def test_a_coding_is_of_the_training_rows_and_each_row_is_coded_by_itself():
    table, labels = patients()
    train = np.arange(200) < 120
    coding = clinical.learn(table[train], labels[train])
    changed = table.assign(age=table["age"].where(train, 99.0), sex=table["sex"].where(train, "M"))
    assert clinical.learn(changed[train], labels[train]) == coding
    whole = coding.code(table)
    np.testing.assert_array_equal(coding.code(table[~train]), whole[~train])
    np.testing.assert_array_equal(coding.code(table.iloc[[150]]), whole[[150]])


def test_a_term_or_gap_that_training_never_had_moves_a_linear_head_nowhere():
    table, labels = patients()
    coding = clinical.learn(table, labels)
    x = coding.code(table).astype(float)
    odd = table.iloc[:1].assign(side=None, sex="O", age=np.nan)
    odd["site"] = [("spine",)]
    row = pd.Series(coding.code(odd)[0].astype(float), coding.names)
    mean = pd.Series(x.mean(axis=0), coding.names)
    for name in ("side left", "side right", "site femur", "site hand", "site tibia"):
        assert row[name] == pytest.approx(mean[name], abs=1e-6), "the mean: 0 after standardising"
    assert row["sex missing"] == 1 and row[["sex F", "sex M"]].eq(0).all()
    assert row["age missing"] == 1


def test_a_coding_survives_json():
    table, labels = patients()
    coding = clinical.learn(table, labels)
    kept = json.loads(json.dumps(dataclasses.asdict(coding)))
    np.testing.assert_array_equal(clinical.Coding(**kept).code(table), coding.code(table))


def test_fields_that_say_nothing_have_no_column():
    table, labels = patients(side=None)
    table["view"] = [("frontal",)] * len(table)
    coding = clinical.learn(table, labels)
    assert coding.fields == ("age", "sex", "site") and not coding.notes
    bare = cohort.empty(4).assign(image_id=list("abcd"))
    empty = clinical.learn(bare, np.array([0, 1, 0, 1]))
    assert empty.fields == () and empty.code(bare).shape == (4, 0)


# ---------------------------------------------------------------------- the leak
@pytest.mark.parametrize("field", ["age", "sex", "side"])
def test_a_field_whose_presence_gives_the_class_away_is_left_out_with_a_note(field):
    table, labels = patients()
    assert clinical.leaks(table, labels)["note"].eq("").all(), "nothing leaks by chance"
    table[field] = table[field].where(labels == 1)
    found = clinical.leaks(table, labels).set_index("field")
    known = table[field].notna()
    assert found.loc[field, "auroc"] == pytest.approx(roc_auc_score(labels, known))
    assert found.loc[field, "coding"] == "" and "is left out" in found.loc[field, "note"]
    coding = clinical.learn(table, labels)
    assert field not in coding.fields and len(coding.notes) == 1
    assert not any(name.startswith(field) for name in coding.names)
    assert field in clinical.learn(table, labels, limit=1.0).fields


def test_a_site_that_is_fine_in_one_class_is_coded_by_the_limb():
    table, labels = patients()
    limb = {"femur": "lower limb", "tibia": "lower limb", "hand": "upper limb"}
    fine = table["site"]
    table["site"] = [s if y else (limb[s[0]],) for s, y in zip(fine, labels, strict=True)]
    row = clinical.leaks(table, labels).set_index("field").loc["site"]
    assert row["finer"] == 1 and row["coding"] == "region" and row["auroc"] == 0.5
    coding = clinical.learn(table, labels)
    assert "region" in coding.fields and "site" not in coding.fields
    assert [n for n in coding.names if "limb" in n] == ["region lower limb", "region upper limb"]
    same = clinical.learn(table.assign(site=fine), labels, fields=("site",))
    assert same.fields == ("site",)
    coded = coding.code(table)[:, coding.names.index("region lower limb")]
    np.testing.assert_array_equal(coded, [limb[s[0]] == "lower limb" for s in fine])


def test_classes_that_name_one_place_in_words_of_their_own_are_coded_by_the_limb():
    table, labels = patients()  # a reader of normals names joints, a reader of tumours bones
    joint = {"femur": "knee", "tibia": "ankle", "hand": "hand"}
    table["site"] = [s if y else (joint[s[0]],) for s, y in zip(table["site"], labels, strict=True)]
    row = clinical.leaks(table, labels).set_index("field").loc["site"]
    assert row["finer"] == 0.5 and row["own"] > 0.8 and row["coding"] == "region"
    assert "words of their own" in row["note"]


def test_a_limb_that_is_known_for_one_class_alone_leaves_the_site_out():
    table, labels = patients()
    table["site"] = [s if y else () for s, y in zip(table["site"], labels, strict=True)]
    assert "site" not in clinical.learn(table, labels).fields
    assert "region" not in clinical.learn(table, labels).fields


def test_few_rows_leak_nothing_that_could_be_told_and_values_are_parted_at_their_median():
    table, _ = patients(6)
    table["age"] = [50, np.nan, 30, 20, 40, 60]
    assert clinical.leaks(table, np.array([0, 0, 0, 1, 1, 1]))["note"].eq("").all()
    table, _ = patients()
    months = np.where(table["age"].isna(), 10.0, 100.0) + np.arange(200) / 300
    months[:3] = np.nan
    assert "age" not in clinical.learn(table, months).fields
    rare = np.where(table["age"].isna(), 2, np.arange(200) % 2)
    assert "age" not in clinical.learn(table, rare).fields, "one class of three lacks it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(fields=("age", "tumor")), "Unknown clinical fields"),
        (dict(labels=np.zeros(3, int)), "200 rows and 3 labels"),
    ],
)
def test_what_can_not_be_coded_is_refused(change, message):
    table, labels = patients()
    options = dict(labels=labels) | change
    with pytest.raises(ValueError, match=message):
        clinical.learn(table, **options)


# ---------------------------------------------------------------------- sentences
def test_a_sentence_says_what_is_known_in_one_wording():
    row = dict(age=15.0, sex="F", site=("femur",), view=("frontal",), side="left", tumor="tumor")
    table = cohort.empty(3).assign(image_id=list("abc"), **{k: [v] * 3 for k, v in row.items()})
    table.loc[1, ["age", "sex"]] = [None, None]
    table.at[1, "view"] = ()
    table.loc[2, "age"] = 0.5
    said = captions.clinical_sentences(table, language="en")
    assert said[0] == ("Patient, female, 15 years old. Frontal radiograph of the left lower limb.")
    assert said[1] == "Radiograph of the left lower limb." and "6 months old" in said[2]
    french = captions.clinical_sentences(table, language="fr")
    assert french[0] == (
        "Patient(e), sexe féminin, 15 ans. Radiographie de face : membre inférieur, côté gauche."
    )
    german = captions.clinical_sentences(table, language="de")
    assert german[0] == (
        "Patient(in), weiblich, 15-jährig. Frontale Röntgenaufnahme der linken unteren Extremität."
    )
    assert german[2].startswith("Patient(in), weiblich, 6-monatig.")
    fine = captions.clinical_sentences(table, fields=("site",), language="en")
    assert fine == ["Radiograph of the femur."] * 3
    other = table.assign(tumor="normal", malignancy="benign", entity="osteosarcoma", cortex="x",
                         hardware=1, image_id=list("xyz"))  # fmt: skip
    assert captions.clinical_sentences(other, language="en") == said
    assert captions.clinical_sentences(cohort.empty(1), language="en") == ["Radiograph."]


@pytest.mark.parametrize("field", ["tumor", "entity", "signs", "hardware", "bone_age", "colour"])
def test_a_clinical_sentence_names_no_label_or_sign(field):
    table, _ = patients(2)
    with pytest.raises(ValueError, match=f"can't say {field}"):
        captions.clinical_sentences(table, fields=("age", field), language="en")
    with pytest.raises(ValueError, match="No captions in 'nl'"):
        captions.clinical_sentences(table, language="nl")


def test_sentences_of_a_coding_say_no_more_than_its_columns():
    table, labels = patients()
    table["site"] = [
        s if y else ("lower limb",) for s, y in zip(table["site"], labels, strict=True)
    ]
    coding = clinical.learn(table, labels)
    said = captions.clinical_sentences(table, fields=coding.fields, language="en")
    assert not any("femur" in s or "tibia" in s for s in said)
    assert any("lower limb" in s for s in said)


# ---------------------------------------------------------------------- fusions
def fused(rows=240, image=30, columns=3, classes=2, seed=0):
    """Both parts know something of the label that the other doesn't; two rows a group."""
    rng = np.random.default_rng(seed)
    y = np.repeat(rng.integers(0, max(classes, 3), rows // 2), 2)
    y = y % classes if classes else y + rng.normal(size=rows)
    x = rng.normal(size=(rows, image + columns))
    x[:, 0] += 0.7 * y
    x[:, image] += 0.7 * y
    groups = np.repeat(np.arange(rows // 2), 2)
    return adaptation.Support(x.astype(np.float32), y, groups, classes)


KINDS = [0, 2, 3]
NETWORK = {"hidden": 32.0, "alpha": 1.0}


@pytest.mark.parametrize("classes", KINDS)
@pytest.mark.parametrize("image", [30, 400])  # more columns than rows
def test_early_fusion_is_scikit_learns_on_stretched_columns(classes, image):
    support, columns = fused(image=image, classes=classes), 3
    rows = np.ones((2, 240), bool)
    rows[0, :80] = False
    points = [{"strength": 0.03, "balance": b} for b in (0.0, 1.0, 0.5)]
    new = fused(20, image, classes=classes, seed=1).features
    out = adaptation.early_fusion(columns)(support, rows, points).logits(new)
    assert out.shape == (2, 3, 20, max(classes, 1))
    for k, mask in enumerate(rows):
        scaler = StandardScaler().fit(support.features[mask].astype(float))
        reach = 3 * abs(scaler.transform(support.features[mask].astype(float))).max(axis=0)
        for p, point in enumerate(points):
            stretch = np.r_[np.ones(image), np.full(3, (image / columns) ** (point["balance"] / 2))]
            z, test = (
                np.clip(scaler.transform(x.astype(float)), -reach, reach) * stretch
                for x in (support.features[mask], new)
            )
            if classes:
                model = LogisticRegression(C=0.03, tol=1e-9, max_iter=9999)
                expected = model.fit(z, support.labels[mask]).decision_function(test)
                found = out[k, p]
                found = found[:, 1] - found[:, 0] if classes == 2 else found
            else:
                expected = Ridge(alpha=1 / 0.03).fit(z, support.labels[mask]).predict(test)
                found = out[k, p][:, 0]
            np.testing.assert_allclose(found, expected, atol=2e-3)


def stacked(support, columns, strength):
    """Late fusion by scikit-learn and scipy alone: logits out of fold, then two weights."""
    image = support.features.shape[1] - columns

    def head(part, c, train, test):
        x = support.features[:, part].astype(float)
        scaler = StandardScaler().fit(x[train])
        z, y = scaler.transform(x), support.labels
        if support.regression:
            return Ridge(alpha=1 / c).fit(z[train], y[train]).predict(z[test])[:, None]
        model = LogisticRegression(C=c, tol=1e-9, max_iter=9999).fit(z[train], y[train])
        out = model.decision_function(z[test])
        return out if out.ndim == 2 else np.column_stack([-out / 2, out / 2])

    def both(train, test):
        parts = ((slice(None, image), strength), (slice(image, None), 1.0))
        return np.stack([head(part, c, train, test) for part, c in parts])

    held = support.folds
    apart = np.concatenate([both(~out, out) for out in held], axis=1)
    y = np.concatenate([support.labels[out] for out in held])
    if support.regression:
        design = np.column_stack([*apart[..., 0], np.ones(len(y)), -np.ones(len(y))])
        a, b, up, down = nnls(design, y)[0]
        bias = up - down
    else:

        def loss(v):
            out = v[0] * apart[0] + v[1] * apart[1] + np.r_[0, v[2:]]
            shown = out[np.arange(len(y)), y] - np.log(np.exp(out).sum(axis=1))
            return -shown.mean()

        a, b, *bias = minimize(loss, [0.5, 0.5] + [0] * (support.classes - 1), tol=1e-10).x
        bias = np.r_[0, bias] - np.mean(np.r_[0, bias])
    every = np.arange(len(support.labels))
    own = both(every, every)
    return a, b, a * own[0] + b * own[1] + bias


@pytest.mark.parametrize("classes", KINDS)
def test_late_fusion_weighs_its_heads_by_logits_out_of_fold(classes):
    support = fused(classes=classes)
    rows = np.ones((1, 240), bool)
    heads = adaptation.late_fusion(3)(support, rows, [{"strength": 0.1}])
    a, b, expected = stacked(support, 3, 0.1)
    (weights,) = heads.masks[0][2]
    np.testing.assert_allclose(weights, [a, b], atol=0.01)
    np.testing.assert_allclose(heads.logits(support.features)[0, 0], expected, atol=0.02)


def test_late_fusion_does_not_trust_a_head_that_knows_its_rows_by_heart():
    support = fused(rows=120, image=600)
    noise = support.features.copy()
    noise[:, :600] = np.random.default_rng(3).normal(size=(120, 600))
    support = dataclasses.replace(support, features=noise)
    heads = adaptation.late_fusion(3)(support, np.ones((1, 120), bool), [{"strength": 100.0}])
    image = adaptation.part(fusion.linear, 3, "image")
    own = image(support, np.ones((1, 120), bool), [{"strength": 100.0}]).logits(noise)[0, 0]
    assert (own.argmax(1) == support.labels).all(), "on its own rows it is never wrong"
    (weights,) = heads.masks[0][2]
    spread = own[:, 1].std()
    other = heads.masks[0][1].logits(noise)[-1, 0][:, 1].std()
    assert weights[0] * spread < weights[1] * other


def test_several_masks_and_points_at_once_are_those_of_each_alone():
    support, rows = fused(120, classes=3), np.ones((2, 120), bool)
    rows[1, 80:] = False
    network = dict(clinical=library.mlp, at=NETWORK)
    for strategy, grid in (
        (adaptation.late_fusion(3), points("late_fusion")[1:4]),
        (adaptation.late_fusion(3, **network), points("late_fusion")[3:5]),
        (adaptation.early_fusion(3), points("early_fusion")[2:5]),
    ):
        whole = strategy(support, rows, grid).logits(support.features)
        for k in range(2):
            for p, point in enumerate(grid):
                one = strategy(support, rows[k : k + 1], [point]).logits(support.features)
                np.testing.assert_allclose(one[0, 0], whole[k, p], atol=2e-2)


@pytest.mark.parametrize("classes", KINDS)
def test_each_fusion_beats_both_of_its_parts_in_new_rows(classes):
    support, new = fused(rows=600, classes=classes), fused(rows=2000, classes=classes, seed=5)
    score = {}
    for name, strategy, grid in (
        ("image", adaptation.part(fusion.linear, 3, "image"), points("probe")),
        ("metadata", adaptation.part(fusion.linear, 3, "metadata"), points("probe")),
        ("early", adaptation.early_fusion(3), points("early_fusion")),
        ("late", adaptation.late_fusion(3), points("late_fusion")),
    ):
        assert len(grid) == search.POINTS
        out = adaptation.fit(strategy, support, grid).logits(new.features)
        if classes:
            score[name] = np.mean(out.argmax(axis=1) == new.labels)
        else:
            score[name] = -abs(out - new.labels).mean()
    assert min(score["early"], score["late"]) > max(score["image"], score["metadata"])


def test_each_part_sees_its_own_columns():
    support, rows = fused(), np.ones((1, 240), bool)
    for which, columns in (("image", slice(None, -3)), ("metadata", slice(-3, None))):
        alone = dataclasses.replace(support, features=support.features[:, columns])
        expected = fusion.linear(alone, rows, [{"strength": 1.0}]).logits(alone.features)
        part = adaptation.part(fusion.linear, 3, which)(support, rows, [{"strength": 1.0}])
        np.testing.assert_array_equal(part.logits(support.features), expected)


def test_the_network_learns_what_a_line_can_not_and_gives_values_in_their_unit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    support = adaptation.Support(x, y, np.arange(2000), 2)
    fitted = adaptation.fit(library.mlp, support, points("mlp")[4:6])
    test = rng.normal(size=(400, 2)).astype(np.float32)
    assert np.mean(fitted.logits(test).argmax(1) == (test[:, 0] * test[:, 1] > 0)) > 0.9
    line = adaptation.fit(fusion.linear, support, points("probe")).logits(test)
    assert np.mean(line.argmax(1) == (test[:, 0] * test[:, 1] > 0)) < 0.65
    months = adaptation.Support(x, 100 + 30 * abs(x[:, 0]), np.arange(2000), 0)
    out = adaptation.fit(library.mlp, months, points("mlp")[4:5]).logits(test)
    assert abs(out - (100 + 30 * abs(test[:, 0]))).mean() < 5


@pytest.mark.parametrize("clinical_head", [fusion.linear, library.mlp])
def test_a_class_without_rows_never_wins_and_one_without_folds_takes_the_mean(clinical_head):
    support = dataclasses.replace(fused(classes=3), classes=4)
    rows = np.ones((1, 240), bool)
    grid = [{"strength": 0.1}]
    strategy = adaptation.late_fusion(3, clinical=clinical_head, at=NETWORK | {"strength": 1.0})
    for out in (
        strategy(support, rows, grid).logits(support.features)[0, 0],
        adaptation.early_fusion(3)(support, rows, grid).logits(support.features)[0, 0],
    ):
        assert out.shape == (240, 4)
        assert (out[:, 3] < out[:, :3].min(axis=1) - 10).all()
    few = np.zeros((1, 240), bool)
    few[0, [int(np.flatnonzero(support.labels == c)[0]) for c in range(3)]] = True
    heads = strategy(support, few, grid)
    assert heads.masks[0][2].tolist() == [[0.5, 0.5]], "a single group a class: no fold to weigh on"


@pytest.mark.parametrize("strategy", [adaptation.early_fusion, adaptation.late_fusion])
def test_what_can_not_be_fused_is_refused(strategy):
    support, rows, points = fused(), np.ones((1, 240), bool), [{"strength": 1.0}]
    for columns in (0, 33, 99):
        with pytest.raises(ValueError, match="a fusion needs both parts"):
            strategy(columns)(support, rows, points)
    holes = support.features.copy()
    holes[:5, -1] = np.nan
    with pytest.raises(ValueError, match="5 of 240 rows have features that are missing"):
        strategy(3)(dataclasses.replace(support, features=holes), rows, points)
    with pytest.raises(ValueError, match="5 of 240 rows"):
        strategy(3)(support, rows, points).logits(holes)
    with pytest.raises(ValueError, match="needs two classes"):
        strategy(3)(support, rows & (support.labels == 1), points)
    with pytest.raises(ValueError, match="Unknown part 'text'"):
        adaptation.part(fusion.linear, 3, "text")


# ---------------------------------------------------------------------- the network of Vo et al.
def crossed(rows=400, classes=2, seed=0):
    """Neither part knows the label; both together do."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    x = rng.normal(scale=0.2, size=(rows, 12)).astype(np.float32)
    x[:, 0] += 2 * a - 1
    x[:, 8] += 2 * b - 1
    return adaptation.Support(x, a ^ b, np.arange(rows), classes)


def test_the_network_finds_what_image_and_sentence_say_together():
    support, new = crossed(), crossed(seed=1)
    assert points("sentence_fusion", "binary") == [{}], "settings are those published"
    fitted = search.fit(sentence_fusion(4), support, [{}])
    out = fitted.logits(new.features)
    assert roc_auc_score(new.labels, out[:, 1] - out[:, 0]) > 0.95
    stacks = search.fit(adaptation.late_fusion(4), support, [{"strength": 1.0}])
    shown = stacks.logits(new.features)
    assert abs(roc_auc_score(new.labels, shown[:, 1] - shown[:, 0]) - 0.5) < 0.1


def test_the_network_is_the_published_one_with_its_rates(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def spy(optimizer, *given):
        assert optimizer.defaults["weight_decay"] == 0
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    support = crossed(rows=150)
    heads = sentence_fusion(4)(support, np.ones((1, 150), bool), [{}]).heads
    batches = 3  # of 64 rows in 150
    assert len(rates) == 20 * batches and max(rates) == pytest.approx(0.01)
    top = int(np.argmax(rates))
    assert top in (2 * batches - 1, 2 * batches), "two epochs of warm-up"
    assert (np.diff(rates[:top]) > 0).all() and (np.diff(rates[top + 1 :]) < 0).all()
    assert rates[top + 1 + (60 - top) // 2] == pytest.approx(0.005, abs=5e-4), "half a cosine"
    layers = heads.fitted[0][0]
    w = [layer.weight.detach().numpy() for layer in layers if hasattr(layer, "weight")]
    b = [layer.bias.detach().numpy() for layer in layers if hasattr(layer, "bias")]
    assert [m.shape for m in w] == [(200, 12), (200, 200), (2, 200)] and layers[
        4
    ].p == pytest.approx(0.7)
    hidden = np.maximum(np.maximum(support.features @ w[0].T + b[0], 0) @ w[1].T + b[1], 0)
    out = heads.logits(support.features)[0, 0]
    np.testing.assert_allclose(out, hidden @ w[2].T + b[2], rtol=1e-4, atol=1e-4)


def test_networks_are_each_that_of_its_rows_and_of_the_seed():
    support = crossed(rows=120)
    rows = np.random.default_rng(0).random((2, 120)) < 0.7
    grid, before = [{}, {"rate": 1e-3, "dropout": 0.0}], torch.random.get_rng_state()
    strategy, x = sentence_fusion(4), support.features
    both = strategy(support, rows, grid).logits(x)
    assert both.shape == (2, 2, 120, 2) and torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)  # what others draw has no part in it
    for k, mask in enumerate(rows):
        alone = strategy(support.rows(mask), np.ones((1, mask.sum()), bool), grid[1:])
        np.testing.assert_array_equal(alone.logits(x)[0, 0], both[k, 1])
    other = strategy(dataclasses.replace(support, seed=1), rows, grid).logits(x)
    assert not np.allclose(other, both)


def test_what_the_network_can_not_learn_is_refused():
    support, rows = fused(classes=3), np.ones((1, 240), bool)
    some = rows & (support.labels != 2)
    out = sentence_fusion(3)(support, some, [{}]).logits(support.features)[0, 0]
    assert (out[:, 2] < out[:, :2].min(axis=1) - 10).all(), "a class without rows never wins"
    with pytest.raises(ValueError, match="sentence_fusion tells classes apart"):
        sentence_fusion(3)(fused(classes=0), rows, [{}])
    with pytest.raises(ValueError, match="not regression. Use"):
        points("sentence_fusion", "regression")
    with pytest.raises(ValueError, match="needs two classes"):
        sentence_fusion(3)(support, rows & (support.labels == 1), [{}])
    for columns in (0, 33):
        with pytest.raises(ValueError, match="a fusion needs both parts"):
            sentence_fusion(columns)(support, rows, [{}])
    with pytest.raises(ValueError, match="Unknown hyper-parameters strength"):
        sentence_fusion(3)(support, rows, [{"strength": 1.0}])
    holes = support.features.copy()
    holes[:5, -1] = np.nan
    with pytest.raises(ValueError, match="5 of 240 rows"):
        sentence_fusion(3)(support, rows, [{}]).logits(holes)


# ---------------------------------------------------------------------- several images of a study
def studies(patient=None, study=None, rows=6):
    table = cohort.empty(rows).assign(image_id=list("abcdef")[:rows], source="s", split="test")
    table["tumor"] = ["tumor", "tumor", "normal", "normal", "tumor", "normal"][:rows]
    if patient:
        table["patient"] = patient
    if study:
        table["study"] = study
    logits = np.array([2.0, -1.0, 0.5, -3.0, 1.0, 0.0])[:rows]
    method = Method(strategy="probe", sees="metadata")
    return table, evaluation.predictions(table, logits, task="tumor", seed=0, method=method)


def test_images_are_pooled_by_study_else_by_patient_else_not():
    table, predictions = studies(["p", "p", "q", "q", "r", None], ["1", "2", "1", "1", None, None])
    units, said = evaluation.units(table)
    names = units.groupby(units).groups
    assert sorted(list(ids) for ids in names.values()) == [["a"], ["b"], ["c", "d"], ["e"], ["f"]]
    assert "1 of 5 units" in said and "pooled by study, where none is known by patient" in said
    assert "1 images of nobody known" in said
    same = evaluation.units(*studies(["p", "p", "q", "q", "r", "s"]))[0]
    assert same["a"] == same["b"] != same["c"] == same["d"]
    for table, why in (
        (studies()[0], "image-level groups"),
        (studies(list("pqrstu"))[0], "to pool"),
    ):
        units, said = evaluation.units(table)
        assert units.empty and why in said


def test_the_study_1_of_two_patients_is_two_and_torn_labels_stay_alone():
    table, predictions = studies(list("ppqqrr"), list("111111"))
    assert evaluation.units(table)[0].nunique() == 3
    units, said = evaluation.units(table, predictions)
    assert units["e"] != units["f"] and units["a"] == units["b"], "r has a tumor and a normal image"
    assert "2 images stay alone" in said
    assert len(evaluation.pool(predictions, units)) == 4
    closed = predictions.assign(label=pd.NA)
    assert len(evaluation.pool(closed, evaluation.units(table, closed)[0])) == 3


def test_the_mean_logit_is_a_linear_head_on_the_mean_embedding():
    rng = np.random.default_rng(0)
    table, _ = studies(["p", "p", "q", "q", "r", "r"])
    table["malignancy"] = ["benign"] * 2 + ["normal"] * 2 + ["malignant"] * 2
    x, w = rng.normal(size=(6, 5)), rng.normal(size=(5, 3))
    one = evaluation.predictions(table, x @ w, task="malignancy", seed=0)
    units = evaluation.units(table)[0]
    pooled = evaluation.pool(one, units, how="logits")
    mean = x.reshape(3, 2, 5).mean(axis=1) @ w
    columns = [c for c in pooled if c.startswith("p_")]
    expected = evaluation.probabilities(mean, task="malignancy")
    np.testing.assert_allclose(pooled[columns], expected, atol=1e-12)
    plain = evaluation.pool(one, units)[columns].to_numpy()
    np.testing.assert_allclose(plain, one[columns].to_numpy().reshape(3, 2, 3).mean(axis=1))
    sure = one.assign(p_normal=[0.0, 1] * 3, p_benign=[1.0, 0] * 3, p_malignant=0.0)
    assert np.isfinite(evaluation.pool(sure, units, how="logits")[columns]).all(axis=None)
    with pytest.raises(ValueError, match="Unknown way to pool 'median'"):
        evaluation.pool(one, units, how="median")
    values = evaluation.predictions(table.assign(bone_age=1.0), x[:, 0], task="bone_age", seed=0)
    for how in ("logits", "probabilities"):
        means = evaluation.pool(values, units, how=how)["value"]
        np.testing.assert_allclose(means, x[:, 0].reshape(3, 2).mean(axis=1))


def test_pooled_scores_stand_beside_those_of_single_images():
    rng = np.random.default_rng(0)
    table = cohort.empty(240).assign(image_id=[f"i{i}" for i in range(240)], source="s")
    table["patient"] = [f"p{i // 3}" for i in range(240)]
    truth = np.repeat(rng.integers(0, 2, 80), 3)
    table = table.assign(tumor=np.array(["normal", "tumor"])[truth], split="test")
    method = Method(strategy="probe", sees="metadata")
    logits = truth + 2 * rng.normal(size=240)
    one = evaluation.predictions(table, logits, task="tumor", seed=0, method=method)
    one = one.assign(threshold=0.9)
    single = reporting.scores(one, task="tumor", draws=20).iloc[0]
    pooled, said = reporting.pooled_scores(one, table, task="tumor", draws=20)
    assert pooled.loc[0, "n"] == 80 and single["n"] == 240 and "80 of 80 units" in said
    mean = one["p_tumor"].to_numpy().reshape(80, 3).mean(axis=1)
    assert pooled.loc[0, "AUROC"] == pytest.approx(roc_auc_score(truth[::3], mean))
    assert pooled.loc[0, "AUROC"] > single["AUROC"]
    assert "n = 80 patients of 80 patients." in reporting.to_markdown(pooled)
    assert "sensitivity" in single and "sensitivity" not in pooled, "a cut for images is none here"
    val = one.assign(split="val")
    cut, _ = reporting.pooled_scores(one, table, task="tumor", validation=val, draws=20)
    means = evaluation.pool(val, evaluation.units(table)[0])
    own = evaluation.choose_threshold(means, task="tumor") - 1e-9  # its own row is above it
    assert cut.loc[0, "sensitivity"] == pytest.approx(np.mean(mean[truth[::3] == 1] >= own))
    nobody, said = reporting.pooled_scores(one, table.assign(patient=None), task="tumor")
    assert nobody.empty and "image-level groups" in said


def test_gains_of_a_fusion_name_both_of_its_parts():
    rng = np.random.default_rng(0)
    table = cohort.empty(100).assign(image_id=[f"i{i}" for i in range(100)], split="test")
    truth = np.arange(100) % 2
    table["tumor"] = np.array(["normal", "tumor"])[truth]
    methods = {
        Method(strategy="probe", sees="metadata"): 0.3,
        Method(start="efficientnet_lite0", strategy="probe"): 1.0,
        Method(start="imagenet", strategy="probe"): 1.0,
        Method(start="efficientnet_lite0", strategy="late_fusion", sees="image+metadata"): 3.0,
    }
    frames = [
        evaluation.predictions(
            table, s * truth + rng.normal(size=100), task="tumor", seed=0, method=m
        )
        for m, s in methods.items()
    ]
    gains = reporting.fusion_gains(pd.concat(frames), task="tumor", draws=50)
    assert gains["fusion"].tolist() == ["Lite0, ImageNet + metadata, late fusion"] * 2
    assert gains["part"].tolist() == ["Lite0, ImageNet, frozen", "metadata only"]
    for (_, row), k in zip(gains.iterrows(), (1, 0), strict=True):
        assert row["alone"] == pytest.approx(roc_auc_score(truth, frames[k]["p_tumor"]))
        full = roc_auc_score(truth, frames[3]["p_tumor"])
        assert row["value"] == pytest.approx(full - row["alone"]) and row["low"] > 0
    assert reporting.fusion_gains(pd.concat(frames[:3]), task="tumor").empty
