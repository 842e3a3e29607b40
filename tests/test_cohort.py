"""Protects the meaning of a row: columns, tasks, label order, and what stays sealed."""

import numpy as np
import pandas as pd
import pytest

from bonelib import cohort


def sound(rows=4):
    table = cohort.empty(rows)
    table["image_id"] = [f"i{n}" for n in range(rows)]
    table["path"] = "x.png"
    table["source"] = "own"
    table["site"] = [("femur", "knee")] * rows
    table["view"] = [("frontal",)] * rows
    table["age"] = np.arange(rows) + 10.0
    table["tumor"] = ["normal", "tumor"] * (rows // 2)
    return table


# ---------------------------------------------------------------------- the checks
def test_a_sound_table_passes_unchanged_and_an_empty_frame_of_the_right_columns_is_sound_too():
    table = sound()
    assert cohort.check(table, task=cohort.task("tumor")) is table
    bare = cohort.empty(2).assign(image_id=["a", "b"], path="x")
    assert cohort.problems(bare) == []


FAULTS = {
    "lacks the columns sex": lambda t: t.drop(columns="sex"),
    "1 rows have no image_id": lambda t: t.assign(image_id=["i0", "i1", "i2", pd.NA]),
    r"1 image ids occur more than once.*i0": lambda t: t.assign(image_id=["i0", "i0", "i2", "i3"]),
    r"Unknown site terms \['thigh'\]": lambda t: t.assign(site=[("thigh",)] * 4),
    r"Unknown view terms \['ap'\]": lambda t: t.assign(view=[("ap",)] * 4),
    "site must be sorted": lambda t: t.assign(site=[("knee", "femur")] * 4),
    "view must be sorted without repeats": lambda t: t.assign(view=[("frontal", "frontal")] * 4),
    r"site must be a tuple .*i1": lambda t: t.assign(site=[("knee",), "knee", pd.NA, ["knee"]]),
    r"Unknown side values \['L'\]": lambda t: t.assign(side=["L", pd.NA, "left", "right"]),
    r"Unknown sex values \['f'\]": lambda t: t.assign(sex="f"),
    r"3 ages .*i0": lambda t: t.assign(age=[-1, 121, "old", 30]),
    r"'tumor': Unknown classes \['maybe'\]": lambda t: t.assign(tumor=["maybe", "tumor"] * 2),
    r"'bone_age'": lambda t: t.assign(bone_age=["ten", "11", "12", "13"]),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_each_fault_is_told_in_a_sentence(sentence):
    with pytest.raises(ValueError, match=sentence):
        cohort.check(FAULTS[sentence](sound()))


def test_all_problems_are_told_at_once():
    table = sound().drop(columns=["sex", "study"])
    table["image_id"] = ["i0", "i0", "i2", "i3"]
    table["site"] = [("thigh",), pd.NA, (), ("knee", "femur")]
    table["side"] = "L"
    table["age"] = 300.0
    table["tumor"] = "maybe"
    found = cohort.problems(table)
    for part in ("study, sex", "i0", "thigh", "tuple", "sorted", "'L'", "ages", "maybe"):
        assert any(part in line for line in found), part
    with pytest.raises(ValueError, match=f"has {len(found)} problem"):
        cohort.check(table)


def test_a_task_without_labels_or_with_one_class_is_refused():
    with pytest.raises(ValueError, match="No row has a label for the task 'fracture'.*for: tumor"):
        cohort.check(sound(), task=cohort.task("fracture"))
    with pytest.raises(ValueError, match="two classes or more; found only"):
        cohort.check(sound().assign(tumor="tumor"), task=cohort.task("tumor"))


# ---------------------------------------------------------------------- tasks
@pytest.mark.parametrize("name", cohort.TASKS)
def test_a_task_encodes_its_classes_in_order_and_has_words_for_each(name):
    task = cohort.task(name)
    assert task.name == name and task.kind in ("binary", "multiclass", "ordinal", "regression")
    if task.kind == "regression":
        assert np.isnan(task.encode([pd.NA, None, np.nan])).all()
        assert task.encode(["12", 13.5, pd.NA])[:2].tolist() == [12.0, 13.5]
        return
    assert task.encode(task.classes).tolist() == list(range(len(task.classes)))
    assert task.encode(pd.Series([pd.NA, *task.classes[::-1]])).tolist() == [
        -1,
        *range(len(task.classes))[::-1],
    ]
    assert task.encode([pd.NA, None, np.nan]).tolist() == [-1] * 3
    assert not task.positive or task.positive in task.classes
    assert len(task.classes) == len(set(task.classes))
    for language in ("en", "fr"):
        assert len(set(task.words[language])) == len(task.classes)
    with pytest.raises(ValueError, match="nonsense.*Expected one of"):
        task.encode([task.classes[0], "nonsense"])


def test_the_positive_class_of_a_binary_task_is_the_second():
    for task in cohort.TASKS.values():
        if task.kind == "binary":
            assert task.classes.index(task.positive) == 1, "its single logit is the positive's"


def test_findings_are_all_classes_but_the_normal_one_and_every_label_without_it():
    shown = {name: cohort.task(name).findings(np.array([-1, 0, 1])) for name in cohort.TASKS}
    for name in ("tumor", "malignancy", "fracture", "anomaly"):
        assert shown[name].tolist() == [False, False, True], name
    for name in ("entity", "kl_grade"):
        assert shown[name].tolist() == [False, True, True], name
    values = cohort.task("bone_age").findings(np.array([np.nan, 0.0, 120.0]))
    assert values.tolist() == [False, True, True]


def test_an_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match="malignancy, tumor"):
        cohort.task("tumour")


# ---------------------------------------------------------------------- what is sealed
def test_everything_that_is_not_known_before_the_label_is_sealed():
    table = sound().assign(malignancy="benign", cortex="intact", anything="new", hardware=1)
    assert cohort.sealed_columns(table) == ["mask", "report", "tumor"] + [
        "malignancy",
        "cortex",
        "anything",
    ]
    every = pd.DataFrame(columns=[*cohort.PUBLIC, *cohort.TASKS])
    assert set(cohort.sealed_columns(every)) == set(cohort.TASKS), "no task's label is public"


# ---------------------------------------------------------------------- metadata
def described():
    rng = np.random.default_rng(0)
    table = sound(40)
    table["age"] = pd.Series(rng.integers(5, 80, 40)).astype("object").where(rng.random(40) > 0.2)
    table["sex"] = pd.Series(rng.choice(["F", "M"], 40), dtype="object").where(
        rng.random(40) > 0.1, pd.NA
    )
    table["side"] = rng.choice(["left", "right"], 40)
    sites = [("femur",), ("hand",), ("hip",), ("femur", "knee"), ()]
    table["site"] = [sites[n] for n in rng.integers(0, 5, 40)]
    table["hardware"] = rng.integers(0, 2, 40)
    return table


def test_metadata_holds_no_label_mask_or_report():
    table = described()
    before = cohort.metadata(table, sites=True)
    shuffled = table["tumor"].sample(frac=1, random_state=1).to_numpy()
    assert not (shuffled == table["tumor"]).all()
    changed = table.assign(
        tumor=shuffled,
        malignancy="benign",
        mask="[[[0,0],[1,1],[1,0]]]",
        report="tumor",
        cortex="x",
    )
    changed["image_id"] = changed["path"] = changed["source"] = changed["center"] = "y"
    pd.testing.assert_frame_equal(cohort.metadata(changed, sites=True), before)


def test_metadata_of_a_row_depends_on_that_row_alone():
    table = described()
    whole = cohort.metadata(table)
    other = table.assign(age=pd.Series([3.0] * 39 + [90.0]).where(table["age"].notna()))
    assert table["age"].isna().any()
    missing = table["age"].isna().to_numpy()
    changed = cohort.metadata(other)
    assert (whole.loc[missing, "age"] == changed.loc[missing, "age"]).all()


def test_metadata_tells_what_is_known_one_column_a_value():
    table = described()
    frame = cohort.metadata(table, sites=True)
    assert frame.dtypes.eq("float64").all() and not frame.isna().any(axis=None)
    knee = [float("knee" in site) for site in table["site"]]
    assert frame["site knee"].tolist() == knee
    assert frame["age missing"].tolist() == table["age"].isna().astype(float).tolist()
    assert frame["sex missing"].sum() == table["sex"].isna().sum()
    assert frame["sex F"].sum() == (table["sex"] == "F").sum()
    known = table["age"].notna()
    assert np.allclose(frame.loc[known, "age"] * 100, table.loc[known, "age"].astype(float))
    regions = cohort.metadata(table)
    lower = [float(cohort.region(site) == "lower limb") for site in table["site"]]
    assert regions["site lower limb"].tolist() == lower


@pytest.mark.parametrize("dtype", ["object", "str", "string", "category"])
def test_metadata_reads_text_of_any_kind(dtype):
    table = described()
    plain = cohort.metadata(table)
    pd.testing.assert_frame_equal(cohort.metadata(table.astype({"sex": dtype})), plain)


def test_a_table_that_knows_nothing_gives_one_constant_column():
    bare = cohort.empty(3).assign(image_id=list("abc"), path="x")
    assert cohort.metadata(bare).to_numpy().tolist() == [[1.0]] * 3


def test_a_region_is_named_for_each_site_and_for_itself():
    for region, sites in cohort.REGIONS.items():
        assert all(cohort.region((site,)) == region for site in (region, *sites))
    assert cohort.region(()) is None and cohort.region(("spine",)) is None
    assert cohort.region(("femur", "knee")) == "lower limb"
