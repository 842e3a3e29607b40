# Protects the table: every reader says what the published files say, and what is odd about them.
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import cohort, datasets, images
from bonelib.datasets import btxrd


@pytest.fixture
def real():
    """Give the folder of a real data set, or skip."""

    def folder(name):
        path = Path(os.environ.get("BONELIB_DATA", "")) / name
        if "BONELIB_DATA" not in os.environ or not path.is_dir():
            pytest.skip(f"needs {name} in the folder BONELIB_DATA")
        return path

    return folder


def notes(table):
    return "\n".join(table.attrs["notes"])


# ------------------------------------------------------------------------------------- FracAtlas
def fracatlas_folder(root, rows, polygons, category=0):
    """Write a FracAtlas folder; rows map a file name to (folder, site, fractured)."""
    lines, listed, annotations = [], [], []
    for number, (name, (folder, site, fractured)) in enumerate(rows.items(), 1):
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
        (root / "images" / folder / name).touch()
        parts = {part: int(part in site) for part in ("hand", "leg", "hip", "shoulder")}
        flags = {"mixed": int(len(site) > 1), "hardware": 0, "multiscan": 0}
        views = {"frontal": 1, "lateral": 0, "oblique": 0}
        label = {"fractured": fractured, "fracture_count": fractured}
        lines.append({"image_id": name} | parts | flags | label | views)
        if name in polygons:
            listed.append({"id": number, "width": 9, "height": 9, "file_name": name})
            annotations += [
                {"id": len(annotations), "image_id": number, "category_id": category}
                | {"segmentation": [list(np.ravel(points).tolist())]}
                for points in polygons[name]
            ]
    pd.DataFrame(lines).to_csv(root / "dataset.csv", index=False)
    coco = root / "Annotations" / "COCO JSON"
    coco.mkdir(parents=True)
    (coco / "COCO_fracture_masks.json").write_text(
        json.dumps({"images": listed, "annotations": annotations, "categories": []})
    )


TRIANGLE = [[1.0, 1.0], [5.0, 1.0], [3.0, 4.5]]


@pytest.mark.parametrize("category", [0, 1])
def test_fracatlas_takes_the_label_from_the_csv_whatever_the_category_id(tmp_path, category):
    rows = {
        "a.jpg": ("Fractured", ["hand", "leg"], 1),
        "b.jpg": ("Non_fractured", ["hip"], 0),
        "c.jpg": ("Fractured", ["leg"], 0),
    }
    fracatlas_folder(tmp_path, rows, {"a.jpg": [TRIANGLE, TRIANGLE]}, category)
    (tmp_path / "images" / "Fractured" / "stranger.jpg").touch()
    table = datasets.read("fracatlas", tmp_path)
    assert table["fracture"].tolist() == ["fractured", "intact", "intact"]
    assert table["site"].tolist() == [("hand", "leg"), ("hip",), ("leg",)]
    assert json.loads(table["mask"][0]) == [TRIANGLE, TRIANGLE]
    assert table["mask"].isna().tolist() == [False, True, True]
    assert "c.jpg lies in Fractured/ but dataset.csv calls it intact" in notes(table)
    assert "1 image files have no row" in notes(table) and "stranger.jpg" in notes(table)


def test_rows_without_a_file_are_left_out_with_a_note(tmp_path):
    rows = {name: ("Fractured", ["hand"], 1) for name in ("a.jpg", "b.jpg")}
    fracatlas_folder(tmp_path, rows, {})
    (tmp_path / "images" / "Fractured" / "b.jpg").unlink()
    table = datasets.read("fracatlas", tmp_path)
    assert table["image_id"].tolist() == ["a.jpg"]
    assert "1 of 2 rows have no image file, e.g. b.jpg" in notes(table)
    (tmp_path / "images" / "Fractured" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="2 of 2 rows have no image file, e.g. a.jpg"):
        datasets.read("fracatlas", tmp_path)


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    fracatlas_folder(tmp_path, {"a.jpg": ("Fractured", ["hand"], 1)}, {})
    csv = pd.read_csv(tmp_path / "dataset.csv").drop(columns=["hip", "image_id"])
    csv.assign(fractured=7).to_csv(tmp_path / "dataset.csv", index=False)
    with pytest.raises(ValueError) as error:
        datasets.read("fracatlas", tmp_path)
    for part in ("'hip'", "'image_id'", "fractured, line 2: found 7; expected 0 or 1"):
        assert part in str(error.value)


def test_an_unknown_name_or_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="Choose one of btxrd, fracatlas"):
        datasets.read("mura2", tmp_path)
    for name in ("btxrd", "fracatlas"):
        with pytest.raises(FileNotFoundError, match="Set DATA_ROOT"):
            datasets.read(name, tmp_path)


def test_real_fracatlas_matches_its_published_counts(real, tmp_path):
    root = real("fracatlas")
    table = datasets.read("fracatlas", root)
    fractured = table["fracture"] == "fractured"
    assert len(table) == 730 and fractured.sum() == 364
    assert (table["hardware"] == 1).sum() == 61 and fractured[table["hardware"] == 1].all()
    assert table.loc[fractured, "mask"].notna().all()
    assert "IMG0003298" in notes(table)
    assert sum("hand" in site for site in table["site"]) == 315
    cache = images.cache(table, size=64, folder=tmp_path)
    assert cache.excluded["image_id"].tolist() == [f"IMG000{n}.jpg" for n in (4028, 4029, 4036)]
    assert len(cache) == 727
    # Outlines were drawn on the image as shown: they lie inside it, EXIF turn or not.
    geometry = cache.geometry.set_index("image_id")
    for row in table[table["mask"].notna()].itertuples():
        points = np.concatenate([np.array(p) for p in json.loads(row.mask)])
        assert (points.max(axis=0) <= geometry.loc[row.image_id, ["width", "height"]] + 1).all()


# ----------------------------------------------------------------------------------------- BTXRD
def btxrd_row(name, **values):
    row = dict.fromkeys(btxrd.FLAGS, 0) | {"center": 1, "age": 20, "gender": "F"}
    return {"image_id": name} | row | {"lower limb": 1, "frontal": 1} | values


def labelme(label, *shapes):
    listed = [{"label": label, "shape_type": kind, "points": points} for kind, points in shapes]
    return json.dumps({"version": "5.4.1", "shapes": listed})


@pytest.fixture
def folder(tmp_path):
    """Lay out a small BTXRD folder: two tumours, a normal, nested annotations."""
    benign = {"tumor": 1, "benign": 1, "osteochondroma": 1}
    rows = [
        btxrd_row("IMG000001.jpeg", **benign, tibia=1, **{"knee-joint": 1}),
        btxrd_row("IMG000002.jpeg", tumor=1, malignant=1, osteosarcoma=1, femur=1, gender="M"),
        btxrd_row("IMG000003.jpg"),
    ]
    (tmp_path / "images").mkdir()
    for row in rows:
        (tmp_path / "images" / row["image_id"]).touch()
    inner = tmp_path / "Annotations" / "Annotations"
    inner.mkdir(parents=True)
    box = [[8.0, 6.0], [2.0, 1.0]]  # the first corner is not the upper left
    (inner / "IMG000001.json").write_text(
        labelme("osteochondroma", ("rectangle", box), ("polygon", TRIANGLE))
    )
    (inner / "IMG000002.json").write_text(labelme("osteosarcoma", ("rectangle", box)))
    pd.DataFrame(rows).to_csv(tmp_path / "dataset.csv", index=False)
    return tmp_path


def rewrite(folder, **changes):
    csv = pd.read_csv(folder / "dataset.csv")
    for column, values in changes.items():
        csv[column.replace("_", " ") if column != "image_id" else column] = values
    csv.to_csv(folder / "dataset.csv", index=False)


def test_btxrd_speaks_the_words_of_the_cohort(folder):
    table = datasets.read("btxrd", folder)
    assert table["site"].tolist() == [("knee", "tibia"), ("femur",), ("lower limb",)]
    assert table["malignancy"].tolist() == ["benign", "malignant", "normal"]
    assert table["tumor"].tolist() == ["tumor", "tumor", "normal"]
    assert table["entity"].tolist()[:2] == ["osteochondroma", "osteosarcoma"]
    assert pd.isna(table["entity"][2]) and set(table["source"]) == {"btxrd"}
    assert table["center"].tolist() == ["1", "1", "1"] and table["sex"].tolist() == ["F", "M", "F"]


def test_btxrd_takes_published_hashes_from_a_list_beside_it(folder):
    assert "sha256" not in datasets.read("btxrd", folder)
    text = "image_id,bytes,sha256\nIMG000001.jpeg,9,aa\nIMG000003.jpg,9,bb\nIMG000009.jpeg,9,cc\n"
    (folder / "images_manifest_sha256.csv").write_text(text)
    (folder / "images" / "IMG000003.jpg").unlink()
    table = datasets.read("btxrd", folder, missing="keep")
    assert table["sha256"].fillna("").tolist() == ["aa", "", "bb"]
    assert table["path"].isna().tolist() == [False, False, True]
    assert "2 of the 3 rows among them" in notes(table)
    assert "sha256" not in cohort.sealed_columns(table)


def test_btxrd_prefers_polygons_and_falls_back_on_boxes(folder):
    table = datasets.read("btxrd", folder)
    assert json.loads(table["mask"][0]) == [TRIANGLE]
    assert json.loads(table["mask"][1]) == [[[2, 1], [8, 1], [8, 6], [2, 6]]]
    assert pd.isna(table["mask"][2])
    assert "1 annotations have boxes but no polygon" in notes(table)


def test_two_entities_are_settled_by_the_annotation(folder):
    rewrite(folder, other_bt=[1, 0, 0])
    table = datasets.read("btxrd", folder)
    assert table["entity"][0] == "osteochondroma"
    assert "IMG000001.jpeg is marked osteochondroma and other bt" in notes(table)


def test_contradictory_labels_become_missing_not_guessed(folder):
    rewrite(folder, malignant=[1, 1, 0], femur=[0, 1, 0], upper_limb=[0, 1, 0], lower_limb=0)
    table = datasets.read("btxrd", folder)
    assert pd.isna(table["malignancy"][0]) and table["tumor"][0] == "tumor"
    assert "In 1 rows tumor, benign and malignant contradict" in notes(table)
    assert "the site does not lie in the limb" in notes(table)


def test_the_excel_table_reads_like_the_csv(folder):
    pytest.importorskip("openpyxl")
    first = datasets.read("btxrd", folder)
    pd.read_csv(folder / "dataset.csv").to_excel(folder / "dataset.xlsx", index=False)
    (folder / "dataset.csv").unlink()
    pd.testing.assert_frame_equal(first, datasets.read("btxrd", folder))


def test_an_image_saved_with_another_extension_is_found(folder):
    (folder / "images" / "IMG000001.jpeg").rename(folder / "images" / "IMG000001.png")
    table = datasets.read("btxrd", folder)
    assert table["path"][0].endswith("IMG000001.png")
    assert "another extension" in notes(table)


def test_the_phantom_reads_as_btxrd_and_gains_its_extras_on_request(folder):
    (folder / "phantom.json").write_text("{}")
    pd.DataFrame(
        {
            "image_id": ["IMG000001.jpeg", "IMG000002.jpeg", "IMG000003.jpg"],
            "patient": ["P001", "P001", "P002"],
            "side": ["left", "left", "right"],
            "site": ["tibia", "femur;knee-joint", "femur"],
            "margin": ["sclerotic", "", ""],
            "entity": ["none", "none", "none"],
            "mask": ["truth/IMG000001.png", "", ""],
        }
    ).to_csv(folder / "cohort_extra.csv", index=False)
    plain = datasets.read("btxrd", folder)
    assert plain["patient"].isna().all() and plain["site"][2] == ("lower limb",)
    table = datasets.read("phantom", folder)
    assert set(table["source"]) == {"phantom"}
    assert table["patient"].tolist() == ["P001", "P001", "P002"]
    assert table["site"].tolist() == [("tibia",), ("femur", "knee"), ("femur",)]
    assert table["mask"][0] == str(folder / "truth/IMG000001.png")
    assert table["mask"][1] == plain["mask"][1] and pd.isna(table["mask"][2])
    assert table["margin"].isna().tolist() == [False, True, True]
    assert table["entity"].equals(plain["entity"])  # labels come from dataset.csv alone


def test_the_reports_of_the_phantom_are_found_by_study(folder):
    names = ["IMG000001.jpeg", "IMG000002.jpeg", "IMG000003.jpg"]
    extra = pd.DataFrame({"image_id": names, "study": ["S1", "S1", "S2"]})
    extra.to_csv(folder / "cohort_extra.csv", index=False)
    assert datasets.read("phantom", folder)["report"].isna().all()
    index = pd.DataFrame({"study": ["S1", "S1", "S9"], "path": ["reports/a.txt", "b.txt", "c.txt"]})
    index.to_csv(folder / "reports.csv", index=False)
    assert datasets.read("btxrd", folder)["report"].isna().all(), "on request alone"
    table = datasets.read("phantom", folder)
    assert table["report"].tolist()[:2] == [str(folder / "reports/a.txt")] * 2
    assert pd.isna(table["report"][2]) and "more than one report: 1" in notes(table)
    assert "report" in cohort.sealed_columns(table)
    index.drop(columns="path").to_csv(folder / "reports.csv", index=False)
    with pytest.raises(ValueError, match="lacks the columns 'path'"):
        datasets.read("phantom", folder)


def test_real_btxrd_matches_its_published_counts(real, tmp_path):
    root = real("btxrd")
    table = datasets.read("btxrd", root)
    assert len(table) == 2 and "2000 of 2002 rows have no image file" in notes(table)
    # Readers never open pixels, so empty files stand in for the images that are not there.
    (tmp_path / "images").mkdir()
    for name in pd.read_csv(root / "dataset.csv")["image_id"]:
        (tmp_path / "images" / name).touch()
    for name in ("Annotations", "dataset.csv"):
        (tmp_path / name).symlink_to(root / name)
    table = datasets.read("btxrd", tmp_path)
    assert len(table) == 2002 and table["mask"].notna().sum() == 1867
    counts = table["malignancy"].value_counts().to_dict()
    assert counts == {"benign": 1525, "malignant": 342, "normal": 135}
    assert table["entity"].value_counts()["osteochondroma"] == 753  # 754 less IMG001276
    assert table.set_index("image_id")["entity"]["IMG001276.jpeg"] == "synovial osteochondroma"
    sites = pd.Series([len(s) for s in table.loc[table["tumor"] == "tumor", "site"]])
    assert sites.value_counts().to_dict() == {1: 1679, 2: 75, 3: 110, 4: 3}


# ----------------------------------------------------------------------------------- your own CSV
def own_csv(folder, text, *names):
    for name in names:
        Image.new("L", (4, 4)).save(folder / name)
    (folder / "mine.csv").write_text(text, encoding="utf-8-sig")
    return folder / "mine.csv"


def test_a_csv_of_ones_own_needs_only_ids_and_paths(tmp_path):
    text = "image_id,path,site,age,tumor,ward\n1,a.png,tibia;knee,12,tumor,007\n2,b.png,,,,012\n"
    file = own_csv(tmp_path, text, "a.png", "b.png")
    table = datasets.read(str(file), tmp_path)
    assert table["site"].tolist() == [("knee", "tibia"), ()]
    assert table["path"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert table["tumor"].tolist()[0] == "tumor" and pd.isna(table["tumor"][1])
    assert table["ward"].tolist() == ["007", "012"] and set(table["source"]) == {"mine"}
    assert list(cohort.COLUMNS) == [c for c in table.columns if c in cohort.COLUMNS]
    pd.testing.assert_frame_equal(table, datasets.read("table", tmp_path))
    pd.testing.assert_frame_equal(table, datasets.read("table", file))


def test_zero_and_one_count_as_the_classes_of_a_binary_task(tmp_path):
    text = "image_id;path;fracture;kl_grade\n1;a.png;1;2.0\n2;b.png;0;\n"
    table = datasets.read("table", own_csv(tmp_path, text, "a.png", "b.png"))
    assert table["fracture"].tolist() == ["fractured", "intact"]
    assert cohort.task("kl_grade").encode(table["kl_grade"]).tolist() == [2, -1]
    assert "fracture: 0 and 1 were read as intact and fractured" in notes(table)


def test_all_problems_of_a_csv_are_told_with_their_lines(tmp_path):
    text = (
        "image_id,path,site,view,side,age,sex,malignancy,mask\n"
        "1,a.png,elbow;nose,frontal,left,12,F,benign,\n"
        "1,a.png,femur,sideways,up,old,x,2,[[1]]\n"
        ",a.png,femur,frontal,left,130,M,malignant,nowhere.png\n"
    )
    with pytest.raises(ValueError) as error:
        datasets.read("table", own_csv(tmp_path, text, "a.png"))
    told = str(error.value)
    for part in (
        "site, line 2: found 'elbow;nose'",
        "view, line 3: found 'sideways'",
        "side, line 3: found 'up'",
        "age, lines 3, 4: found 'old', '130'",
        "sex, line 3: found 'x'",
        "malignancy, line 3: found '2'; expected normal, benign, malignant",
        "mask, lines 3, 4",
        "image_id, line 4: found an empty cell",
        "image_id '1' occurs more than once, lines 2, 3",
    ):
        assert part in told, part


def test_a_csv_without_the_two_columns_says_which(tmp_path):
    with pytest.raises(ValueError, match="lacks the columns 'path'"):
        datasets.read("table", own_csv(tmp_path, "image_id,file\n1,a.png\n"))
    with pytest.raises(FileNotFoundError, match="1 of 1 rows have no image file"):
        datasets.read("table", own_csv(tmp_path, "image_id,path\n1,absent.png\n"))


def test_tables_survive_parquet_and_the_metadata_baseline(folder, tmp_path):
    table = datasets.read("btxrd", folder)
    table.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert again["image_id"].tolist() == table["image_id"].tolist()
    assert again["mask"].isna().tolist() == table["mask"].isna().tolist()
    assert not cohort.metadata(table).isna().any().any()
