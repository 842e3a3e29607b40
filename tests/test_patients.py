# Protects who is one patient: stand-ins are nobody, spellings are one, an export is not one person.
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import cohort, datasets, splits
from bonelib.datasets import patients, texts
from bonelib.experiments import data
from bonelib.experiments.context import Context

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_data.ipynb"


def told(table):
    return "\n".join(table.attrs["notes"])


def settled(ids, **columns):
    table = cohort.empty(len(ids))
    table["patient"] = pd.Series(ids, dtype="object")
    notes = []
    return patients.settle(table.assign(**columns), notes)["patient"], "\n".join(notes)


@pytest.mark.parametrize(
    "name",
    [
        "ANONYMOUS",
        "anonymised",
        "Anonymisé",
        "unknown",
        "Unknown ",
        "0",
        "000",
        "0.0",
        "-",
        "--",
        "?",
    ]
    + ["none", "n/a", "N.A.", "xxx", "XX", "Inconnu", "inconnue", "unbekannt", "(missing)", "n.d."]
    + ["sans nom", "No Name", "DE-IDENTIFIED", "ANONYMOUS@Hospital", "patient id", "test", "…"],
)
def test_a_stand_in_is_nobody(name):
    found, notes = settled([name, "p1", name])
    assert found.isna().tolist() == [True, False, True]
    assert f"2 rows name a stand-in ({name})" in notes


@pytest.mark.parametrize(
    "name", ["1", "10", "100", "p0", "ANON001", "unknown7", "x1", "Nadal", "X", "90", "test12"]
)
def test_a_pseudonym_is_somebody(name):
    found, notes = settled([name, "p1"])
    assert found.tolist() == [name, "p1"] and not notes


def test_zero_is_somebody_where_patients_are_counted_from_it():
    assert settled(["0", "1", "2", "0"])[0].notna().all()
    assert settled(["0", "17", "23"])[0].isna().tolist() == [True, False, False]


def test_spellings_of_one_id_are_one_patient_under_the_commonest():
    ids = ["P3", "p3", "p3 ", "12", "12.0", "012", "12", "p 4", "P4", "１２", "13.5", "135", "P03"]
    found, notes = settled(ids)
    assert found.tolist() == ["P3"] * 3 + ["12"] * 4 + ["p 4"] * 2 + ["12", "13.5", "135", "P03"]
    assert "3 patients are spelled in several ways" in notes
    assert "12 (also 12.0, 012, １２)" in notes


def test_one_patient_of_two_sexes_or_birth_years_is_told():
    ids = ["a", "a", "b", "b", "c", "c"]
    sexes = dict(sex=["F", "M", "F", "F", "F", pd.NA])
    assert "1 patients have two sexes, e.g. a." in settled(ids, **sexes)[1]
    years = dict(birth_year=["1951", "1951", "1951", "1952", "1951", None])
    assert "1 patients have two birth years, e.g. b." in settled(ids, **years)[1]
    dates = dict(birth_date=["01/02/1951", "1951-02-01", "1951", None, "3.4.1951", "3.4.1960"])
    assert "1 patients have two birth years, e.g. c." in settled(ids, **dates)[1]
    ages = dict(age=[6, 65, 30, 31, 5, 19])
    assert "1 patients have ages more than 15 years apart, e.g. a." in settled(ids, **ages)[1]
    later = dict(age=[6, 66, 30, 31, 5, 19], date=["1960-01-01", "2020-01-01", *["2020-01-01"] * 4])
    assert "1 patients have ages and dates of two birth years, e.g. c." in settled(ids, **later)[1]
    assert not settled(["a"] * 3, age=[30, 31, 33], sex=["F"] * 3)[1]


def test_the_shared_cohort_has_the_patients_that_it_means(case):
    table = datasets.read(str(case("patient-ids") / "cohort.csv"), case("patient-ids"))
    assert table["patient"].isna().sum() == 4 and table["patient"].nunique() == 16
    groups = splits.add_groups(table).groupby("group")["image_id"].agg(list).tolist()
    assert ["04", "05", "06"] in groups and ["07", "08", "09"] in groups
    assert "4 rows name a stand-in (-, 0, ANONYMOUS, unknown)" in told(table)
    assert "2 patients are spelled in several ways" in told(table)
    assert "2 patients have two sexes, e.g. 12, p3" in told(table)
    for name, named in (("half_unknown", 12), ("all_anonymous", 0)):
        table = datasets.read(str(case("patient-ids") / f"{name}.csv"), case("patient-ids"))
        assert table["patient"].notna().sum() == named and len(table) == 24
        folded = splits.add_folds(splits.add_groups(table), folds=5)
        assert folded["fold"].nunique() == 5


def test_an_export_under_one_stand_in_has_folds(case):
    table = datasets.read("dicom", case("one-patient-id"))
    assert table["patient"].isna().all() and "9 rows name a stand-in (ANONYMOUS)" in told(table)
    assert splits.add_folds(splits.add_groups(table), folds=3)["fold"].nunique() == 3


def test_labels_beside_an_export_may_name_its_patients(case, tmp_path):
    for file in case("one-patient-id").glob("*.dcm"):
        shutil.copyfile(file, tmp_path / file.name)
    labels = pd.read_csv(case("one-patient-id") / "labels.csv")
    labels = labels.assign(patient=[*"abcabcab", None])
    labels.to_csv(tmp_path / "labels.csv", index=False, sep=";")
    table = datasets.read("dicom", tmp_path).set_index("image_id")
    assert table.loc[labels["image_id"], "patient"].tolist()[:8] == [*"abcabcab"]
    assert pd.isna(table["patient"]["img8.dcm"])
    assert "8 radiographs have their patient from labels.csv" in told(table)
    assert table["tumor"].notna().all()


def test_reports_and_labels_are_joined_in_every_spelling(tmp_path):
    table = pd.DataFrame(
        {"image_id": ["a"], "report": ["one"], "patient": ["12"], "study": [pd.NA]}
    )
    (tmp_path / "reports.csv").write_text("patient,name,birth_date\n012.0,Doe,4.3.1975\n")
    found = texts.report_texts(table, tmp_path)
    assert found["names"][0] == ("Doe",) and found["birth_date"][0] == "1975-03-04"


# ---------------------------------------------------------------------------- too few for folds
def labelled(people, labels, **columns):
    table = cohort.empty(len(people))
    table["image_id"] = [f"i{n}" for n in range(len(people))]
    table["source"] = "mine"
    table["patient"] = pd.Series(people, dtype="object")
    return table.assign(tumor=labels, **columns)


def refusal(table, folds=3, **copies):
    with pytest.raises(ValueError) as error:
        splits.add_folds(splits.add_groups(table, **copies), folds=folds)
    return str(error.value)


def test_one_patient_of_a_whole_export_is_named_with_the_cure():
    classes = ["normal", "tumor"] * 5
    message = refusal(labelled(["EXPORT1"] * 9 + ["b"], classes))
    assert (
        "The largest group there holds 9 of 10 images: all of them name the patient 'EXPORT1'"
        in message
    )
    assert "write unknown there. Otherwise leave the labels" in message
    # The cure works: an unknown patient is none.
    cured = patients.settle(labelled(["unknown"] * 9 + ["b"], classes), [])
    assert splits.add_folds(splits.add_groups(cured), folds=3)["fold"].nunique() == 3
    studies = labelled([pd.NA] * 10, classes, study="S1")
    assert "all of them name the study 'S1'" in refusal(studies)


def test_copies_and_neighbours_that_tie_all_images_are_named():
    classes = ["normal", "tumor"] * 5
    same = {f"i{n}": "x" for n in range(10)}
    message = refusal(labelled([f"p{n}" for n in range(10)], classes), sha256=same)
    assert "copies and near duplicates tie 10 patients or studies together" in message
    assert "Look at them, e.g. i0, i1, i2: leave copies out" in message
    alike = labelled([pd.NA] * 10, classes, age=30.0, sex="F", site=[("knee",)] * 10)
    assert "no patient is named, and they are copies, near duplicates or neighbours" in refusal(
        alike
    )


def test_a_rare_class_is_told_how_many_folds_it_allows_by_a_parameter_that_exists():
    table = labelled([f"p{n}" for n in range(40)], ["tumor"] * 4 + ["normal"] * 36)
    message = refusal(table, folds=5)
    name, folds = re.search(r"Set (\w+) to (\d+)", message).groups()
    assert splits.add_folds(splits.add_groups(table), folds=int(folds))["fold"].nunique() == 4
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (parameters,) = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    assert f"{name}: int = 0" in "".join(parameters["source"])
    context = Context(profile="full", data="phantom")
    assert data.plan(context, resize="pad", folds=int(folds))["folds"] == 4
    assert data.plan(context, resize="pad")["folds"] == 5
    with pytest.raises(ValueError, match="FOLDS is 3 or more"):
        data.plan(context, resize="pad", folds=2)
    twice = labelled([f"p{n // 2}" for n in range(40)], ["tumor"] * 8 + ["normal"] * 32)
    assert re.search(
        "If that stands for several people.*Otherwise set FOLDS to 4", refusal(twice, 5)
    )
    rarer = labelled([f"p{n}" for n in range(40)], ["tumor"] * 2 + ["normal"] * 38)
    message = refusal(rarer, folds=5)
    assert "FOLDS" not in message and "Leave the labels of the rare class empty" in message


# ---------------------------------------------------------------------------- FracAtlas
def test_a_label_that_folder_and_outline_contradict_is_missing(tmp_path):
    parts = ("hand", "leg", "hip", "shoulder", "frontal", "lateral", "oblique", "hardware")
    # Folder, outlined, row → label: of three the row is alone, or has company.
    rows = {
        "a": ("Fractured", True, 1, "fractured"),
        "b": ("Fractured", True, 0, None),  # IMG0003298
        "c": ("Fractured", False, 0, "intact"),
        "d": ("Non_fractured", False, 1, None),
        "e": ("Non_fractured", True, 1, "fractured"),
        "f": ("Non_fractured", True, 0, "intact"),
    }
    lines = [",".join(("image_id", *parts, "fractured"))]
    coco = {"images": [], "annotations": [], "categories": []}
    for number, (name, (folder, outlined, row, _)) in enumerate(rows.items()):
        (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(
            tmp_path / "images" / folder / f"{name}.jpg"
        )
        lines.append(",".join((f"{name}.jpg", *["0"] * len(parts), str(row))))
        coco["images"].append({"id": number, "file_name": f"{name}.jpg"})
        shape = {"image_id": number, "segmentation": [[1, 1, 5, 1, 3, 4]]}
        coco["annotations"] += [shape] if outlined else []
    (tmp_path / "dataset.csv").write_text("\n".join(lines))
    (tmp_path / "Annotations" / "COCO JSON").mkdir(parents=True)
    file = tmp_path / "Annotations" / "COCO JSON" / "COCO_fracture_masks.json"
    file.write_text(json.dumps(coco))
    table = datasets.read("fracatlas", tmp_path).set_index("image_id")
    labels = {n: None if pd.isna(table["fracture"][f"{n}.jpg"]) else table["fracture"][f"{n}.jpg"]
              for n in rows}  # fmt: skip
    assert labels == {name: row[3] for name, row in rows.items()}
    assert "b.jpg lies in Fractured/ but dataset.csv calls it intact and it has an outline" in told(
        table
    )
    assert "1 intact images have an outline, e.g. f.jpg" in told(table)
    # The user decides by the row, or by the place of the file.
    (tmp_path / "dataset.csv").write_text(
        "\n".join(lines).replace("b.jpg" + ",0" * 9, "b.jpg" + ",0" * 8 + ",1")
    )
    (tmp_path / "images" / "Non_fractured" / "d.jpg").rename(
        tmp_path / "images" / "Fractured" / "d.jpg"
    )
    again = datasets.read("fracatlas", tmp_path).set_index("image_id")["fracture"]
    assert again["b.jpg"] == again["d.jpg"] == "fractured"
