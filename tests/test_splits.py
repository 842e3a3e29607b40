"""Protects the split: no patient on two sides, no test label outside the one door."""

import functools
import itertools

import numpy as np
import pandas as pd
import pytest

from bonelib import captions, cohort, runs, splits

CLASSES = np.array(["normal", "benign", "malignant"])
SIGNS = {
    "destruction": "moth-eaten",
    "margin": "ill-defined",
    "matrix": "osteoid",
    "cortex": "breached",
    "periosteum": "codman",
    "soft_tissue": "mass",
    "location": "metaphysis",
}


def patients(count=60, seed=0):
    """A cohort of patients with one to four images each, one class a patient, three centres."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(count), rng.integers(1, 5, count))
    table = cohort.empty(len(of))
    table["image_id"] = [f"i{n:03d}" for n in range(len(of))]
    table["path"], table["source"] = "x.png", "own"
    table["patient"] = [f"p{n}" for n in of]
    table["center"] = rng.choice(["1", "2", "3"], count, p=[0.6, 0.2, 0.2])[of]
    table["malignancy"] = CLASSES[rng.choice(3, count, p=[0.5, 0.3, 0.2])[of]]
    table["tumor"] = np.where(table["malignancy"] == "normal", "normal", "tumor")
    return table


def likeness():
    """Rows as in BTXRD: no patients, views of one patient side by side."""
    rows = [
        # age, sex, site, center
        (30, "F", ("femur",), "1"),
        (30, "F", ("femur",), "1"),
        (30, "F", ("femur",), "1"),
        (30, "F", ("tibia",), "1"),  # another site
        (30, "F", ("tibia",), "2"),  # another centre
        (31, "F", ("tibia",), "2"),  # another age
        (31, "M", ("tibia",), "2"),  # another sex
        (30, "F", ("femur",), "1"),  # alike to the first, but no neighbour
        (pd.NA, "F", ("femur",), "1"),
        (pd.NA, "F", ("femur",), "1"),
        (30, pd.NA, ("femur",), "1"),
        (30, pd.NA, ("femur",), "1"),
        (30, "F", (), "1"),
        (30, "F", (), "1"),
    ]
    table = cohort.empty(len(rows))
    table["image_id"] = [f"i{n}" for n in range(len(rows))]
    table["path"], table["source"] = "x.png", "btxrd"
    for n, column in enumerate(("age", "sex", "site", "center")):
        table[column] = pd.Series([row[n] for row in rows], dtype="object")
    return table


def parts(groups):
    """The partition that group names stand for."""
    return {
        frozenset(rows)
        for rows in pd.Series(range(len(groups))).groupby(list(groups)).groups.values()
    }


# ---------------------------------------------------------------------- groups
def test_images_of_a_patient_share_a_group_and_others_do_not():
    table = patients()
    grouped = splits.add_groups(table)
    assert parts(grouped["group"]) == parts(table["patient"])
    assert set(grouped["group_kind"]) == {"patient"} and "group" not in table


def test_a_study_groups_where_the_patient_is_unknown_and_joins_both_where_known():
    table = (
        patients(4).iloc[:4].assign(patient=["a", pd.NA, pd.NA, "b"], study=[pd.NA, "s", "s", "t"])
    )
    grouped = splits.add_groups(table)
    assert parts(grouped["group"]) == {frozenset({0}), frozenset({1, 2}), frozenset({3})}
    assert grouped["group_kind"].tolist() == ["patient", "study", "study", "patient"]
    joined = splits.add_groups(
        table.assign(patient=["a", "a", "b", "b"], study=["s", "t", "t", "u"])
    )
    assert joined["group"].nunique() == 1, "a study of two patients joins them"


def test_one_number_in_two_sources_is_two_patients():
    table = patients(4).iloc[:4].assign(patient="12", source=["a", "a", "b", "b"])
    assert parts(splits.add_groups(table)["group"]) == {frozenset({0, 1}), frozenset({2, 3})}


def test_neighbours_alike_in_age_sex_site_and_centre_share_a_group_and_no_others():
    alone = {frozenset({n}) for n in range(3, 14)}
    grouped = splits.add_groups(likeness())
    assert parts(grouped["group"]) == {frozenset({0, 1, 2})} | alone
    assert set(grouped["group_kind"]) == {"image-level groups"}


def test_neighbours_are_found_where_no_centre_is_known():
    table = likeness().assign(center=pd.NA)
    assert frozenset({0, 1, 2}) in parts(splits.add_groups(table)["group"])


def test_a_nameless_row_does_not_join_a_named_neighbour():
    table = likeness().iloc[:3].assign(patient=["p", pd.NA, pd.NA])
    assert parts(splits.add_groups(table)["group"]) == {frozenset({0}), frozenset({1, 2})}


def test_identical_files_share_a_group_whatever_their_labels_and_patients():
    table = patients()
    first, other = 0, int(np.flatnonzero(table["malignancy"] != table["malignancy"][0])[0])
    sha256 = {i: f"hash of {i}" for i in table["image_id"]}
    sha256[table["image_id"][other]] = sha256[table["image_id"][first]]
    grouped = splits.add_groups(table, sha256=sha256)
    chain = table["patient"].isin(table["patient"].iloc[[first, other]])
    assert grouped.loc[chain, "group"].nunique() == 1
    assert grouped["group"].nunique() == table["patient"].nunique() - 1
    nameless = likeness()
    copies = dict.fromkeys(["i3", "i9"], "same")
    assert frozenset({3, 9}) in parts(splits.add_groups(nameless, sha256=copies)["group"])


# ---------------------------------------------------------------------- folds
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_in_two_folds_and_every_class_is_in_every_fold(seed):
    table = splits.add_folds(splits.add_groups(patients(seed=seed)), folds=5, seed=seed)
    assert (table.groupby("group")["fold"].nunique() == 1).all()
    assert set(table["fold"]) == set(range(5))
    assert (pd.crosstab(table["fold"], table["malignancy"]) > 0).all(axis=None)


def test_folds_depend_on_the_seed_and_on_nothing_else():
    table = splits.add_groups(patients())
    one, same, other = (splits.add_folds(table, seed=seed, tries=4)["fold"] for seed in (0, 0, 100))
    assert (one == same).all() and not (one == other).all()
    np.random.seed(7)
    assert (splits.add_folds(table, seed=0, tries=4)["fold"] == one).all()


def test_a_class_with_fewer_groups_than_folds_is_refused_with_counts():
    table = splits.add_groups(patients())
    keep = table["malignancy"] != "malignant"
    rare = table.index[~keep][table.loc[~keep, "group"].duplicated().to_numpy() == 0][:3]
    table = table[keep | table["group"].isin(table.loc[rare, "group"])]
    with pytest.raises(ValueError, match="5 folds in malignant.*malignant: 3"):
        splits.add_folds(table, folds=5)
    assert set(splits.add_folds(table, folds=3)["fold"]) == {0, 1, 2}
    with pytest.raises(ValueError, match="add_groups"):
        splits.add_folds(patients())


def test_a_class_that_no_seed_can_spread_is_refused_with_counts(monkeypatch):
    from sklearn import model_selection

    class Stuck(model_selection.GroupKFold):
        """Puts the first groups in order into the first fold."""

        def __init__(self, folds, **_):
            super().__init__(folds)

        def split(self, x, y, groups):
            order = np.argsort(y, kind="stable")
            for part in np.array_split(order, self.n_splits):
                yield np.setdiff1d(order, part), part

    monkeypatch.setattr(model_selection, "StratifiedGroupKFold", Stuck)
    with pytest.raises(ValueError, match="No seed.*5 folds.*malignant: .* groups"):
        splits.add_folds(splits.add_groups(patients()))


def test_a_few_unlabelled_rows_do_not_stop_the_folds(recwarn):
    table = patients()
    table["malignancy"] = table["malignancy"].astype("object")
    table.loc[table["patient"] == "p3", "malignancy"] = pd.NA
    folded = splits.add_folds(splits.add_groups(table), folds=5)
    assert (pd.crosstab(folded["fold"], folded["malignancy"]) > 0).all(axis=None)
    assert not recwarn.list


def test_folds_follow_the_column_asked_for():
    table = splits.add_groups(patients().assign(bone_age=np.arange(len(patients()), dtype=float)))
    assert splits.strata(table).tolist() == table["malignancy"].tolist()
    assert splits.strata(table, by="center").tolist() == table["center"].tolist()
    ages = splits.strata(table.drop(columns=["malignancy", "tumor"]))
    assert ages.nunique() == 5 and ages.value_counts().between(20, 50).all()
    assert (ages.str.partition("–")[0].astype(int) <= table["bone_age"]).all()
    assert (ages.str.partition("–")[2].astype(int) >= table["bone_age"]).all()
    assert sorted(set(ages)) == list(dict.fromkeys(ages)), "names sort as values do"
    some = table.assign(bone_age=table["bone_age"].where(table["bone_age"] > 9))
    assert (splits.strata(some, by="bone_age") == splits.UNLABELLED).sum() == 10
    with pytest.raises(ValueError, match="No column 'centre'"):
        splits.strata(table, by="centre")
    assert splits.strata(cohort.empty(3)).tolist() == [splits.UNLABELLED] * 3


def test_folds_without_any_label_hold_about_as_many_images_each():
    table = splits.add_groups(patients().drop(columns=["malignancy", "tumor"]))
    folded = splits.add_folds(table, folds=4)
    sizes = folded["fold"].value_counts()
    assert set(sizes.index) == {0, 1, 2, 3} and sizes.max() < 1.2 * sizes.min()
    assert (folded.groupby("group")["fold"].nunique() == 1).all()
    with pytest.raises(ValueError, match="Too few groups"):
        splits.add_folds(splits.add_groups(patients().head(2)[list(cohort.COLUMNS)]), folds=4)


# ---------------------------------------------------------------------- the door
@pytest.fixture
def data_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BONELIB_RUNS", str(tmp_path))
    return save(whole())


@functools.cache
def folded():
    return splits.add_folds(splits.add_groups(patients()), folds=4)


def whole(**columns):
    """The folded cohort with every kind of sealed column filled by values found nowhere else."""
    table = folded().copy()
    table["mask"] = [f"SECRET outline {i}" for i in table["image_id"]]
    table["report"] = [f"SECRET report {i}" for i in table["image_id"]]
    table["subtype"] = [f"SECRET subtype {i}" for i in table["image_id"]]
    return table.assign(**SIGNS, **columns)


def save(table):
    run = runs.start("data", profile="tiny", data="phantom", reuse=False)
    public, sealed = splits.seal(table)
    run.save_table("cohort", public)
    run.save_table("labels", sealed)
    run.note(table_hash=splits.fingerprint(public))
    return run.finish()


def consumer(data_run, test="fold0", **settings):
    return runs.start(
        "finetuning",
        profile="tiny",
        data="phantom",
        task="tumor",
        inputs=[data_run],
        reuse=False,
        test=test,
        **settings,
    )


TESTS = ["fold0", "fold1", "fold3", "center:2", "center:2+3"]


def test_the_public_table_holds_no_sealed_column():
    public, sealed = splits.seal(whole())
    assert set(public.columns) <= set(cohort.PUBLIC)
    assert set(sealed.columns) == {"image_id", *cohort.sealed_columns(whole())}


@pytest.mark.parametrize("test", TESTS)
def test_no_value_of_a_sealed_column_survives_in_a_test_row(data_run, test):
    truth = whole().set_index("image_id")
    view = splits.apply(data_run, test=test)
    shown = view[view["split"] == "test"]
    sealed = cohort.sealed_columns(truth)
    assert len(shown) and set(sealed) >= {
        "tumor",
        "malignancy",
        "mask",
        "report",
        "subtype",
        *SIGNS,
    }
    secrets = {str(v) for column in sealed for v in truth[column]}
    for column in shown.columns:
        cells = {str(v) for v in shown[column]}
        assert not any("SECRET" in cell for cell in cells)
        assert not cells & secrets, column
    assert shown[sealed].isna().all(axis=None)
    rest = view[view["split"] != "test"]
    assert rest[sealed].notna().all(axis=None), "training rows keep theirs"
    assert rest["tumor"].tolist() == truth.loc[rest["image_id"], "tumor"].tolist()


def test_captions_and_keys_cannot_recover_a_sealed_field(data_run):
    view = splits.apply(data_run, test="fold0")
    fields = ("signs", "tumor", "malignancy")
    shown = (view["split"] == "test").to_numpy()
    assert (captions.keys(view, fields=fields)[shown] == -1).all()
    bare = captions.write(
        view[shown].drop(columns=[*SIGNS, "tumor", "malignancy"]), fields=("view",)
    )
    assert captions.write(view[shown], fields=("view", *fields)) == bare
    assert captions.write(view[~shown], fields=fields) != bare


@pytest.mark.parametrize("test", TESTS)
def test_train_val_and_test_share_no_group(data_run, test):
    view = splits.apply(data_run, test=test)
    groups = {part: set(rows["group"]) for part, rows in view.groupby("split")}
    assert set(groups) == {"train", "val", "test"}
    for one, other in itertools.combinations(groups.values(), 2):
        assert not one & other
    assert view["image_id"].is_unique


def test_fold_k_is_the_test_set_and_the_next_validates(data_run):
    for k in range(4):
        view = splits.apply(data_run, test=f"fold{k}")
        assert set(view.loc[view["split"] == "test", "fold"]) == {k}
        assert set(view.loc[view["split"] == "val", "fold"]) == {(k + 1) % 4}
        assert len(view) == len(whole())


@pytest.mark.parametrize("test, held", [("center:2", {"2"}), ("center:3+1", {"1", "3"})])
def test_named_centers_are_the_test_set_and_no_other(data_run, test, held):
    view = splits.apply(data_run, test=test)
    assert set(view.loc[view["split"] == "test", "center"]) == held
    assert set(view.loc[view["split"] != "test", "center"]) == {"1", "2", "3"} - held


def test_a_center_whose_name_holds_a_plus_is_one_center():
    center = whole()["center"].replace({"2": "North+South"})
    view = splits.apply(save(whole(center=center)), test="center:North+South")
    assert set(view.loc[view["split"] == "test", "center"]) == {"North+South"}


def test_which_center_is_external_is_not_guessed(data_run):
    counts = whole()["center"].value_counts()
    told = ", ".join(f"{name} {n}" for name, n in counts.items())
    for test in ("center", "center:", "center:9", "center:1+9", "center:1+2+3"):
        with pytest.raises(ValueError, match=rf"center:1, center:2, center:3; .*: {told}\.$"):
            splits.apply(data_run, test=test)


def test_a_training_image_whose_group_reaches_into_the_test_set_is_dropped(data_run):
    table = whole()
    first, second = (table.index[table["center"] == c][0] for c in ("1", "2"))
    table["group"] = table["group"].where(
        table["group"] != table["group"][first], table["group"][second]
    )
    view = splits.apply(save(table), test="center:2")
    moved = table["group"] == table["group"][second]
    gone = table.loc[moved & (table["center"] != "2"), "image_id"]
    assert len(gone) and not set(gone) & set(view["image_id"])
    assert set(table.loc[~moved, "image_id"]) <= set(view["image_id"])


def test_an_image_of_unknown_center_takes_no_side_of_a_hold_out_by_center(data_run):
    center = patients()["center"].astype("object")
    unknown = patients()["patient"].isin(["p0", "p1"])
    run = save(whole(center=center.mask(unknown, pd.NA)))
    lost = set(patients().loc[unknown, "image_id"])
    for test in ("center:2+3", "center:2"):
        assert not lost & set(splits.apply(run, test=test)["image_id"])
        assert not lost & set(splits.open_test(consumer(run, test))["image_id"])
    assert lost < set(splits.apply(run, test="fold0")["image_id"])


@pytest.mark.parametrize("test", ["fold4", "fold", "train", "center:9", "centre", ""])
def test_an_unknown_test_set_lists_the_choices(data_run, test):
    with pytest.raises(ValueError, match="fold0, fold1, fold2, fold3, center:1, center:2"):
        splits.apply(data_run, test=test)


def test_a_hold_out_by_center_needs_two_and_every_part_needs_images(data_run):
    with pytest.raises(ValueError, match="Choose one of fold0, fold1, fold2, fold3; .*: 1 "):
        splits.apply(save(whole(center="1")), test="center:1")
    one = whole()
    one["fold"] = np.where(one["center"] == "1", 1, 0)
    with pytest.raises(ValueError, match="leaves no images for: val"):
        splits.apply(save(one), test="center:2+3")


@pytest.mark.parametrize("column", ["fold", "group", "center", "image_id"])
def test_a_changed_split_table_is_refused(data_run, column):
    public = data_run.table("cohort")
    swapped = public[column].to_numpy().copy()
    differs = (
        public[["fold", "group", "center"]] != public.loc[0, ["fold", "group", "center"]]
    ).all(axis=1)
    other = int(np.flatnonzero(differs)[0])
    swapped[[0, other]] = swapped[[other, 0]]
    runs_path = data_run.path / "cohort.parquet"
    public.assign(**{column: swapped}).to_parquet(runs_path, index=False)
    for door in (lambda: splits.apply(data_run), lambda: splits.open_test(consumer(data_run))):
        with pytest.raises(ValueError, match="was changed since"):
            door()


def test_the_order_of_rows_is_no_change(data_run):
    public = data_run.table("cohort").sample(frac=1, random_state=0)
    public.to_parquet(data_run.path / "cohort.parquet", index=False)
    view = splits.apply(data_run)
    truth = whole().set_index("image_id")
    rest = view[view["split"] == "train"]
    assert rest["tumor"].tolist() == truth.loc[rest["image_id"], "tumor"].tolist()


@pytest.mark.parametrize("test", [*TESTS, "folds"])
def test_open_test_returns_what_was_sealed_of_the_test_images_and_no_more(data_run, test):
    truth = whole().set_index("image_id")
    opened = splits.open_test(consumer(data_run, test))
    if test == "folds":
        assert set(opened["image_id"]) == set(truth.index)
    else:
        view = splits.apply(data_run, test=test)
        assert set(opened["image_id"]) == set(view.loc[view["split"] == "test", "image_id"])
    assert opened["image_id"].is_unique
    for column in cohort.sealed_columns(truth):
        assert opened[column].tolist() == truth.loc[opened["image_id"], column].tolist()


def test_each_opening_is_recorded_with_its_settings(data_run):
    run = consumer(data_run, "fold1", lr=0.5)
    splits.open_test(run)
    opened = splits.open_test(run)
    first, second = run.finish().openings
    assert first["test"] == second["test"] == "fold1" and first["images"] == len(opened)
    assert first["settings"] == {"test": "fold1", "lr": 0.5} and first["task"] == "tumor"


def test_the_door_needs_a_run_that_names_its_test_set_and_its_data(data_run):
    blind = runs.start("zero_shot", profile="tiny", data="phantom", inputs=[data_run])
    with pytest.raises(ValueError, match="names no test set"):
        splits.open_test(blind)
    with pytest.raises(ValueError, match="no input 'data'"):
        splits.open_test(data_run)
    assert not (blind.path / "openings.json").exists()


def test_the_fingerprint_outlives_the_file(data_run):
    table = whole(center=patients()["center"].astype("object").mask(patients().index < 5, pd.NA))
    public, _ = splits.seal(table)
    assert splits.fingerprint(save(table).table("cohort")) == splits.fingerprint(public)


def test_a_class_whose_patients_all_stand_for_a_rarer_one_comes_along_with_them():
    view = pd.DataFrame(
        {
            "split": "train",
            "group": ["a", "a", "b", "b", "c"],
            "tumor": ["normal", "tumor", "normal", "tumor", "tumor"],
            "source": "",
        }
    )
    whole = splits.subset(view, share=1.0, seed=0, by="tumor")
    assert len(whole) == 5
    turned = view.assign(tumor=["x", "y", "x", "y", "y"]).iloc[:4]
    kept = splits.subset(turned, share=1.0, seed=0, by="tumor")
    assert kept["tumor"].value_counts().to_dict() == {"x": 2, "y": 2}
