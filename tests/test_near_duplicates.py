"""Protects what ties pictures together and cuts training rows: copies, opposite labels, shots."""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_splits import patients

from bonelib import cohort, datasets, images, splits


def pictures(count=60, seed=0, size=96):
    """Smooth pictures of one outline with detail of their own, as aligned radiographs are."""
    rng = np.random.default_rng(seed)
    outline = cv2.resize(rng.normal(0, 50, (6, 6)), (size, size), interpolation=cv2.INTER_CUBIC)
    own = [cv2.resize(rng.normal(0, 30, (24, 24)), (size, size)) for _ in range(count)]
    return np.clip(128 + outline + np.array(own), 0, 255).astype(np.uint8)


def names(count):
    return [f"i{n:03d}" for n in range(count)]


def pairs(found):
    return {frozenset(p) for p in zip(found["image_id_1"], found["image_id_2"], strict=True)}


ALTERED = {
    "equal": lambda x: x,
    "jpeg": lambda x: cv2.imdecode(cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 0),
    "brighter": lambda x: np.clip(x * 1.2 + 10, 0, 255).astype(np.uint8),
    "half": lambda x: cv2.resize(cv2.resize(x, (48, 48), interpolation=cv2.INTER_AREA), (96, 96)),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_a_copy_saved_otherwise_is_found_and_nothing_else(kind):
    x = pictures()
    x[40:45] = [ALTERED[kind](image) for image in x[:5]]
    found = splits.near_duplicates(x, names(60))
    assert pairs(found) == {frozenset((f"i{n:03d}", f"i{40 + n:03d}")) for n in range(5)}
    assert found["correlation"].between(0.85, 1).all() and (found["distance"] <= 10).all()


def test_the_hash_alone_would_join_what_the_pixels_part():
    x = pictures()
    alone = splits.near_duplicates(x, names(60), limit=1e-6, distance=20)
    assert len(alone) > 20, "the pictures are alike to the hash"
    assert splits.near_duplicates(x, names(60), distance=20).empty


def test_the_correlation_is_that_of_the_detail():
    x = pictures(2)
    found = splits.near_duplicates(x, names(2), limit=1e-6, distance=63)
    detail = []
    for image in x:
        small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
        small -= cv2.blur(small, (9, 9), borderType=cv2.BORDER_REFLECT)
        detail.append(np.clip(small / small.std(), -1.5, 1.5))
    inside = [one[8:-8, 8:-8].reshape(-1) for one in detail]
    truth = min(np.corrcoef([one.reshape(-1) for one in detail])[0, 1], np.corrcoef(inside)[0, 1])
    if truth > 0:
        assert len(found) == 1 and abs(found["correlation"][0] - truth) < 0.01
    else:
        assert found.empty


def test_the_hash_is_that_of_imagehash():
    imagehash = pytest.importorskip("imagehash")
    from PIL import Image

    x = pictures(30, size=64)
    found = splits.near_duplicates(x, names(30), limit=1e-6, distance=63)
    hashes = {n: imagehash.phash(Image.fromarray(i)) for n, i in zip(names(30), x, strict=True)}
    both = zip(found["image_id_1"], found["image_id_2"], strict=True)
    theirs = np.array([hashes[a] - hashes[b] for a, b in both])
    # imagehash shrinks by Lanczos and not by area, so a bit or two may differ.
    assert len(found) > 50 and abs(found["distance"] - theirs).mean() < 2


def test_every_pair_is_found_once_whatever_the_size_of_the_blocks(monkeypatch):
    from bonelib.splits import copies

    x = pictures(50)
    x[10], x[49], x[30] = x[0], x[0], x[29]
    whole = splits.near_duplicates(x, names(50))
    assert len(whole) == 4 and len(pairs(whole)) == 4
    monkeypatch.setattr(copies, "CHUNK", 3)
    monkeypatch.setattr(copies, "BLOCK", 170)
    assert pairs(splits.near_duplicates(x, names(50))) == pairs(whole)


def test_a_common_frame_makes_no_copies():
    rng = np.random.default_rng(0)
    films = np.full((2, 64, 64), 240, np.uint8)
    films[:, 3:-3, 3:-3] = 0
    for film in films:
        film[20:44, 20:44] = cv2.resize(rng.integers(0, 60, (6, 6)).astype(np.uint8), (24, 24))
    assert splits.near_duplicates(films, names(2), distance=63).empty
    films[1] = films[0]
    assert len(splits.near_duplicates(films, names(2))) == 1


def test_even_pictures_and_empty_sets_are_no_copies():
    black = np.zeros((3, 64, 64), np.uint8)
    assert splits.near_duplicates(black, names(3)).empty
    assert splits.near_duplicates(black[:0], []).empty


def test_what_cannot_be_compared_is_refused_together():
    with pytest.raises(ValueError) as error:
        splits.near_duplicates(np.zeros((2, 32, 32)), names(2), distance=99)
    for part in ("64 px or more", "float64, not uint8", "distance=99"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="3 ids for an array"):
        splits.near_duplicates(np.zeros((2, 64, 64), np.uint8), names(3))


def test_confirmed_pairs_join_groups_across_sources():
    table = patients()
    table["source"] = np.where(np.arange(len(table)) < 70, "own", "other")
    a, b = table["image_id"].iloc[[0, len(table) - 1]]
    near = pd.DataFrame({"image_id_1": [a, a], "image_id_2": [b, "elsewhere"]})
    plain, joined = splits.add_groups(table), splits.add_groups(table, near=near)
    assert joined["group"].nunique() == plain["group"].nunique() - 1
    assert joined["group"].iloc[0] == joined["group"].iloc[-1]
    assert (joined["group_kind"] == plain["group_kind"]).all()


# ---------------------------------------------------------------------- contradictions
def test_contradictions_are_those_of_copies_or_of_groups_as_asked():
    table = cohort.empty(6).assign(image_id=names(6), path="x.png", source="own", patient="p")
    table["tumor"] = ["tumor", "normal", "tumor", "tumor", pd.NA, "normal"]
    sha256 = dict(zip(names(6), ["a", "a", "b", "b", "c", "c"], strict=True))
    found = splits.contradictions(table, sha256=sha256)
    assert found["images"].tolist() == ["i000, i001"] and found["labels"].tolist() == [
        "normal, tumor"
    ]
    near = pd.DataFrame({"image_id_1": ["i002"], "image_id_2": ["i005"]})
    assert set(splits.contradictions(table, sha256=sha256, near=near)["images"]) == {
        "i000, i001",
        "i002, i003, i005",
    }
    assert len(splits.contradictions(splits.add_groups(table))) == 1
    with pytest.raises(ValueError, match="add_groups"):
        splits.contradictions(table)


def test_the_copies_of_btxrd_are_found_from_its_manifest_alone():
    root = Path(os.environ.get("BONELIB_DATA", "")) / "btxrd"
    if "BONELIB_DATA" not in os.environ or not (root / "images_manifest_sha256.csv").is_file():
        pytest.skip("needs btxrd/images_manifest_sha256.csv in the folder BONELIB_DATA")
    manifest = pd.read_csv(root / "images_manifest_sha256.csv")
    table = cohort.empty(len(manifest))
    table["image_id"], table["path"], table["source"] = manifest["image_id"], "absent", "btxrd"
    number = manifest["image_id"].str.extract(r"IMG(\d+)")[0].astype(int)
    # The release lists the 1,867 tumours first; every later row is a normal.
    table["tumor"] = np.where(number > 1867, "normal", "tumor")
    sha256 = dict(zip(manifest["image_id"], manifest["sha256"], strict=True))
    sizes = splits.add_groups(table, sha256=sha256)["group"].value_counts()
    assert (sizes == 2).sum() == 21 and sizes.max() == 2
    found = splits.contradictions(table, sha256=sha256)
    assert len(found) == 2 and set(found["labels"]) == {"normal, tumor"}


@pytest.mark.parametrize(
    ("name", "folder", "count"),
    [("knee_kl", "digital-knee-xray", 11), ("rsna_bone_age", "rsna-bone-age", 0)],
)
def test_real_radiographs_are_joined_as_the_calibration_says(tmp_path, name, folder, count):
    root = Path(os.environ.get("BONELIB_DATA", "")) / folder
    if "BONELIB_DATA" not in os.environ or not root.is_dir():
        pytest.skip(f"needs {folder} in the folder BONELIB_DATA")
    table = datasets.read(name, root)
    cache = images.cache(table, size=96, folder=tmp_path)
    assert len(splits.near_duplicates(cache.images, cache.ids)) == count


# ---------------------------------------------------------------------- subsets
@pytest.fixture(scope="module")
def view():
    table = splits.add_folds(splits.add_groups(patients(200)), folds=4, tries=1)
    table["split"] = table["fold"].map({0: "test", 1: "val", 2: "train", 3: "train"})
    table.loc[table["split"] == "test", ["malignancy", "tumor"]] = pd.NA
    return table


def training(table):
    return table[table["split"] == "train"]


def test_a_smaller_subset_lies_inside_a_larger_one_and_the_rest_stays(view):
    for key, steps in (("share", (0.05, 0.1, 0.3, 0.7, 1)), ("shots", (1, 2, 5, 8))):
        parts = [splits.subset(view, **{key: step}, seed=3) for step in steps]
        chosen = [set(training(p)["image_id"]) for p in parts]
        assert all(a < b for a, b in zip(chosen, chosen[1:], strict=False))
        for part in parts:
            rest = part[part["split"] != "train"]
            assert set(rest["image_id"]) == set(view.loc[view["split"] != "train", "image_id"])
    assert set(training(splits.subset(view, share=1, seed=3))["image_id"]) == set(
        training(view)["image_id"]
    )


def test_a_share_keeps_whole_groups_and_the_mix_of_classes(view):
    part = training(splits.subset(view, share=0.3, seed=0))
    whole = training(view)
    counts = whole["malignancy"].value_counts()
    assert (abs(part["malignancy"].value_counts() - 0.3 * counts) <= 2).all()
    kept = whole[whole["group"].isin(part["group"])]
    assert len(kept) == len(part), "no group is parted"


def test_k_shots_are_k_images_of_k_groups_in_each_class(view):
    part = training(splits.subset(view, shots=5, seed=0))
    assert set(part["malignancy"].value_counts()) == {5} and part["group"].is_unique
    other = training(splits.subset(view, shots=5, seed=1))
    assert set(other["image_id"]) != set(part["image_id"])
    again = training(splits.subset(view.sample(frac=1, random_state=0), shots=5, seed=0))
    assert set(again["group"]) == set(part["group"]), "the order of rows changes no group"


def test_a_group_of_two_classes_stands_for_the_rarer(view):
    table = view.copy()
    whole = training(table)
    one = whole.index[whole["malignancy"] == "malignant"][0]
    other = whole.index[whole["malignancy"] == "normal"][0]
    table.loc[table["group"] == table.loc[other, "group"], "group"] = table.loc[one, "group"]
    shots = int((whole["malignancy"] == "malignant").groupby(whole["group"]).any().sum())
    part = training(splits.subset(table, shots=shots, seed=0))
    assert (part["malignancy"] == "malignant").sum() == shots and part["group"].is_unique


def test_unlabelled_training_rows_are_left_out(view):
    table = view.copy()
    table.loc[training(table).index[:6], ["malignancy", "tumor"]] = pd.NA
    part = training(splits.subset(table, share=1, seed=0))
    assert len(part) == len(training(table)) - 6 and part["malignancy"].notna().all()


def test_subsets_that_cannot_be_are_refused_with_counts(view):
    with pytest.raises(ValueError, match=r"999 shots.*malignant: \d+ images, \d+ groups"):
        splits.subset(view, shots=999, seed=0)
    with pytest.raises(ValueError, match=r"0.10% is no image in .*malignant: \d+ images"):
        splits.subset(view, share=0.001, seed=0)
    for wrong in ({}, {"share": 0.1, "shots": 3}):
        with pytest.raises(ValueError, match="one of the two"):
            splits.subset(view, seed=0, **wrong)
    for wrong, text in (({"share": 10}, "fraction"), ({"shots": 0}, "whole images")):
        with pytest.raises(ValueError, match=text):
            splits.subset(view, seed=0, **wrong)
    with pytest.raises(ValueError, match="splits.apply"):
        splits.subset(patients(), share=0.1, seed=0)
    with pytest.raises(ValueError, match="None of the"):
        splits.subset(view[view["split"] == "val"], share=0.1, seed=0)
