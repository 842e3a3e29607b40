# Protects the readers of published folders: the formats as they are spelled, and no fault unsaid.
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import __main__ as command_line
from bonelib import cohort, datasets, images, splits


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


def picture(path, seed=0, bits=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    high, kind = (2**bits, np.uint8 if bits == 8 else np.uint16)
    array = np.random.default_rng(seed).integers(0, high, (12, 10)).astype(kind)
    Image.fromarray(array).save(path)


# ---------------------------------------------------------------------------------- RSNA bone age
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize(
    ("header", "yes"), [("id,boneage,male", "TRUE"), ("Image ID,Bone Age (months),male", "True")]
)
def test_bone_age_is_read_in_every_spelling(tmp_path, header, yes, doubled):
    inner = "boneage-training-dataset/" * (1 + doubled)
    no = yes.replace("TRUE", "FALSE").replace("True", "False")
    (tmp_path / "boneage-training-dataset.csv").write_text(
        f"{header}\n1377,180,{no}\n1378,12,{yes}\n"
    )
    (tmp_path / "boneage-test-dataset.csv").write_text("Case ID,Sex\n4360,M\n")
    for name in (f"{inner}1377.png", f"{inner}1378.png", "boneage-test-dataset/4360.png"):
        picture(tmp_path / name)
    table = datasets.read("rsna_bone_age", tmp_path).set_index("image_id")
    assert table["sex"].to_dict() == {"1377": "F", "1378": "M", "4360": "M"}
    assert table["bone_age"].dropna().to_dict() == {"1377": 180, "1378": 12}
    assert table["published_split"].to_dict() == {"1377": "train", "1378": "train", "4360": "test"}
    assert set(table["site"]) == {("hand",)} and set(table["view"]) == {("frontal",)}
    assert table["path"]["1377"] == str(tmp_path / inner / "1377.png")


def test_bone_age_takes_one_size_and_names_the_other(tmp_path):
    rows = "".join(f"{i},{i},True\n" for i in range(1, 5))
    (tmp_path / "boneage-training-dataset.csv").write_text(f"id,boneage,male\n{rows}")
    for i in (1, 2, 3):
        picture(tmp_path / "boneage-training-dataset-100px" / f"{i}.png")
    for i in (3, 4):
        picture(tmp_path / "boneage-training-dataset" / f"{i}.png")
    table = datasets.read("rsna_bone_age", tmp_path)
    assert table["image_id"].tolist() == ["1", "2", "3"]
    assert {Path(p).parent.name for p in table["path"]} == {"boneage-training-dataset-100px"}
    assert "2 images also lie in boneage-training-dataset/" in notes(table)
    assert "1 of 4 rows have no image file" in notes(table)


def test_wrong_cells_of_bone_age_are_told_together(tmp_path):
    (tmp_path / "train.csv").write_text("id,boneage,male\n1,old,True\n2,999,maybe\n")
    with pytest.raises(ValueError) as error:
        datasets.read("rsna_bone_age", tmp_path)
    for part in (
        "boneage, lines 2, 3: found 'old', '999'; expected a bone age",
        "male, line 3: found 'maybe'",
    ):
        assert part in str(error.value)


def test_an_id_in_two_tables_with_two_ages_has_none(tmp_path):
    (tmp_path / "train.csv").write_text("id,boneage,male\n1,10,True\n2,20,True\n")
    (tmp_path / "validation.csv").write_text("id,boneage,male\n2,30,True\n")
    for i in (1, 2):
        picture(tmp_path / f"{i}.png")
    table = datasets.read("rsna_bone_age", tmp_path)
    assert table["bone_age"].isna().tolist() == [False, True] and "1 ids stand in" in notes(table)


# ------------------------------------------------------------------------------------------ knees
def test_knees_of_the_oai_know_patient_and_side(tmp_path):
    for i, name in enumerate(
        ("train/0/9003175L", "train/3/9003175R", "test/1/9003200L", "auto_test/1/9003200L")
        + ("auto_test/2/9003300R", "val/4/9003175L")
    ):
        picture(tmp_path / "kneeKL224" / f"{name}.png", i)
    table = datasets.read("knee_kl", tmp_path).set_index("image_id")
    table.index = table.index.str.removeprefix("kneeKL224/").str.removesuffix(".png")
    assert table["patient"]["train/0/9003175L"] == table["patient"]["train/3/9003175R"] == "9003175"
    assert table["side"]["train/3/9003175R"] == "right" and table["kl_grade"].dtype == "str"
    assert table["kl_grade"]["val/4/9003175L"] == "4"
    assert "auto_test/1/9003200L" not in table.index and "auto_test/2/9003300R" in table.index
    assert table["published_split"]["test/1/9003200L"] == "test"
    for part in (
        "1 patients lie in more than one published split, e.g. 9003175: that split leaks",
        "1 pictures of auto_test",
        "1 knees have different grades",
        "not trusted",
    ):
        assert part in notes(table), part


def test_only_one_edition_of_the_oai_is_read(tmp_path):
    for edition in ("kneeKL224", "kneeKL299"):
        for name in ("train/0/9003175L.png", "test/1/9003200R.png"):
            picture(tmp_path / edition / name)
    table = datasets.read("knee_kl", tmp_path)
    assert len(table) == 2 and set(table["image_id"].str[:9]) == {"kneeKL224"}
    assert "kneeKL299 (2)" in notes(table)


def test_a_picture_of_two_readers_is_one_row_found_by_content(tmp_path):
    one, two = (tmp_path / "Knee X-ray Images" / f"MedicalExpert-{r}" for r in ("I", "II"))
    picture(one / "0Normal" / "NormalG0 (1).png", 1)
    picture(two / "1Doubtful" / "DoubtfulG1 (7).png", 1)  # the readers differ, and so do the names
    picture(one / "3Moderate" / "ModerateG3 (1).png", 2)
    picture(one / "3Moderate" / "ModerateG3 (2).png", 2)  # a copy
    picture(two / "3Moderate" / "ModerateG3 (1).png", 2)
    picture(one / "0Normal" / "NormalG0 (2).png", 3)  # reader I contradicts himself
    picture(one / "2Mild" / "MildG2 (1).png", 3)
    picture(two / "4Severe" / "SevereG4 (1).png", 4)  # reader II alone
    table = datasets.read("knee_kl", tmp_path).set_index("image_id")
    table.index = [Path(i).stem for i in table.index]
    assert len(table) == 4
    assert table["kl_grade"].dropna().to_dict() == {"NormalG0 (1)": "0", "ModerateG3 (1)": "3"}
    assert table["kl_grade_reader2"].dropna().to_dict() == {
        "NormalG0 (1)": "1",
        "ModerateG3 (1)": "3",
        "SevereG4 (1)": "4",
    }
    assert "MedicalExpert-II" not in "".join(table["path"][:3].tolist())
    assert "the readers differ on 1" in notes(table) and "gave copies different" in notes(table)
    assert "kl_grade_reader2" in cohort.sealed_columns(table)


def test_knees_elsewhere_say_what_was_expected(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="9003175L"):
        datasets.read("knee_kl", tmp_path)


# -------------------------------------------------------------------------------------- GRAZPEDWRI
HEADER = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,"
    "ao_classification,cast,diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,"
    "device_manufacturer\n"
)


def test_grazpedwri_is_read_with_bom_boxes_and_flags(tmp_path):
    (tmp_path / "dataset.csv").write_text(
        HEADER
        + "0001_0000000001_01_WRI-L1_M014,1,1,1,M,14.1,L,1,1,23r-M/2.1,,,,1,,0.1,Siemens\n"
        + "0001_0000000002_02_WRI-L2_M014,1,2,2,M,14.1,L,2,,23r-M/2.1,1,,,,1,0.1,Agfa\n"
        + "0002_0000000003_01_WRI-R3_F009,2,1,3,F,9,L,3,,,,,1,,,0.1,Agfa\n",
        encoding="utf-8-sig",
    )
    for row, stem in enumerate(pd.read_csv(tmp_path / "dataset.csv")["filestem"]):
        picture(tmp_path / "images_part1" / f"{stem}.png", row, bits=16)
    labels = tmp_path / "yolov5" / "labels"
    labels.mkdir(parents=True)
    (labels / "0001_0000000001_01_WRI-L1_M014.txt").write_text("3 0.5 0.5 0.4 0.5\n8 .1 .1 .1 .1\n")
    (labels / "0002_0000000003_01_WRI-R3_F009.txt").write_text("3 0.5 0.5 0.4\n")  # a number short
    table = datasets.read("grazpedwri", tmp_path)
    assert table["fracture"].tolist() == ["fractured", "intact", "intact"]
    assert table["hardware"].tolist() == [0, 1, 0] and table["cast"].tolist() == [0, 1, 0]
    assert table["patient"].tolist() == ["1", "1", "2"] and table["study"].nunique() == 3
    assert table["view"].tolist() == [("frontal",), ("lateral",), ("oblique",)]
    assert table["age"].tolist() == [14.1, 14.1, 9] and table["side"].tolist() == ["left"] * 3
    assert json.loads(table["mask"][0]) == [[[3, 3], [7, 3], [7, 9], [3, 9]]]  # of 10 × 12 pixels
    for part in (
        "In 1 rows the name of the file gives another side",
        "1 images without a visible fracture carry an AO class",
        "1 files of boxes",
    ):
        assert part in notes(table), part
    cache = images.cache(table, size=12, folder=tmp_path / "cache")
    assert cache.images.mean() < 200  # not white
    assert "3 files: more than 8 bits" in "\n".join(cache.notes)


def test_boxes_of_grazpedwri_may_be_those_of_voc_where_yolo_has_none(tmp_path):
    rows = ("a,1,1,1,M,9,L,1,,,,,,1,,0.1,Siemens", "b,2,1,1,M,9,L,1,,,,,,1,,0.1,Siemens")
    (tmp_path / "dataset.csv").write_text(HEADER + "\n".join(rows), encoding="utf-8-sig")
    for name in "ab":
        picture(tmp_path / f"{name}.png", bits=16)
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    named = "".join(f"<object><name>{n}</name>{box}</object>" for n in ("fracture", "metal"))
    for folder in ("pascalvoc", "labels"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        (tmp_path / "pascalvoc" / f"{name}.xml").write_text(f"<annotation>{named}</annotation>")
    (tmp_path / "labels" / "b.txt").write_text("3 0.5 0.5 0.4 0.5\n")
    masks = datasets.read("grazpedwri", tmp_path)["mask"]
    assert json.loads(masks[0]) == [[[1, 2], [5, 2], [5, 6], [1, 6]]]
    assert json.loads(masks[1]) == [[[3, 3], [7, 3], [7, 9], [3, 9]]]


def test_wrong_flags_of_grazpedwri_are_told_together(tmp_path):
    (tmp_path / "dataset.csv").write_text(
        HEADER + "a,1,1,1,X,old,L,1,1,,,,,yes,,0.1,Siemens\n", encoding="utf-8-sig"
    )
    with pytest.raises(ValueError) as error:
        datasets.read("grazpedwri", tmp_path)
    for part in (
        "gender, line 2: found 'X'",
        "fracture_visible, line 2: found 'yes'",
        "age, line 2",
    ):
        assert part in str(error.value)


# ------------------------------------------------------------------------------ folders of classes
def test_a_tree_of_classes_is_recognised_and_its_split_not_trusted(tmp_path):
    names = ("train/Fractured/a", "valid/not_fractured/b", "test/not fractured/c", "train/loose")
    for i, name in enumerate(names):
        picture(tmp_path / f"{name}.png", i)
    (tmp_path / "README.txt").write_text("…")
    table = datasets.read("folder", tmp_path)
    assert dict(zip(table["image_id"], table["fracture"], strict=True)) == {
        "test/not fractured/c.png": "intact",
        "train/Fractured/a.png": "fractured",
        "valid/not_fractured/b.png": "intact",
    }
    assert table["published_split"].tolist() == ["test", "train", "val"]
    for part in ("1 pictures lie in no folder", "not trusted", "README.txt", "Fractured as"):
        assert part in notes(table), part


def test_classes_that_fit_no_task_or_several_are_refused_with_the_cure(tmp_path):
    picture(tmp_path / "normal" / "a.png")
    with pytest.raises(ValueError, match="fit several tasks: malignancy, tumor, anomaly"):
        datasets.read("folder", tmp_path)
    assert datasets.read("folder", tmp_path, task="tumor")["tumor"].tolist() == ["normal"]
    picture(tmp_path / "blurry" / "b.png")
    with pytest.raises(ValueError, match="Found the classes blurry, normal"):
        datasets.read("folder", tmp_path, task="tumor")
    table = datasets.read("folder", tmp_path, task="anomaly", classes={"blurry": "abnormal"})
    assert table["anomaly"].tolist() == ["abnormal", "normal"]


def test_links_in_circles_and_out_of_the_folder_are_named(tmp_path):
    root = tmp_path / "set"
    picture(root / "intact" / "a.png")
    picture(tmp_path / "elsewhere" / "b.png")
    (root / "intact" / "again").symlink_to(root)
    (root / "fractured").symlink_to(tmp_path / "elsewhere")
    (root / "x").symlink_to(root / "y")
    (root / "y").symlink_to(root / "x")
    os.mkfifo(root / "intact" / "pipe.png")
    table = datasets.read("folder", root)
    assert table["image_id"].tolist() == ["fractured/b.png", "intact/a.png"]
    for part in (
        "1 links lead to a folder that was read already",
        "2 links lead nowhere or in a circle",
        "1 links lead out of the folder",
    ):
        assert part in notes(table), part


# ---------------------------------------------------------------------------------------- Roboflow
def roboflow(folder, split, rows, header="filename, cancer, normal"):
    for name, _ in rows:
        if "/" not in name:
            picture(folder / split / name)
    text = "\n".join([header, *(f"{name}, {flags}" for name, flags in rows)])
    (folder / split / "_classes.csv").write_text(text)  # no newline at the end


def test_copies_of_one_source_image_share_a_study_across_splits(tmp_path):
    copy = "IMG 1.a_jpg.rf.{}.jpg".format
    roboflow(tmp_path, "train", [(copy("aa"), "0, 1"), (copy("bb"), "1, 0"), ("c.jpg", "1, 1")])
    roboflow(tmp_path, "test", [(copy("cc"), "0, 1"), ("../train/c.jpg", "1, 0")])
    roboflow(tmp_path, "valid", [("d_png.rf.1.jpg", "1, 0"), ("../../out.jpg", "1, 0")])
    table = datasets.read("roboflow", tmp_path).set_index("image_id")
    assert table["study"].value_counts().to_dict() == {"IMG 1.a": 3, "d": 1}
    assert table["tumor"].notna().sum() == 4 and pd.isna(table["tumor"]["train/c.jpg"])
    assert table["tumor"]["valid/d_png.rf.1.jpg"] == "tumor"
    for part in (
        "3 pictures are copies of 1 source images",
        "1 source images lie in more than one published split",
        "Copies of 1 source images have different classes",
        "2 names lead out of their folder",
        "1 rows mark none or several classes",
        "cancer as tumor",
    ):
        assert part in notes(table), part


def test_tables_of_an_export_that_differ_are_refused(tmp_path):
    roboflow(tmp_path, "train", [("a.jpg", "0, 7")])
    roboflow(tmp_path, "test", [("b.jpg", "0, 1")], header="filename, benign, normal")
    with pytest.raises(ValueError) as error:
        datasets.read("roboflow", tmp_path)
    assert "normal, line 2: found 7; expected 0 or 1" in str(error.value)
    assert "different classes" in str(error.value)


# --------------------------------------------------------------------------------------- encodings
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_csv_reads_alike_in_every_unicode(tmp_path, encoding):
    picture(tmp_path / "fémur.png")
    text = "image_id,path,ward\n1,fémur.png,Orthopädie\n"
    (tmp_path / "mine.csv").write_text(text, encoding=encoding)
    table = datasets.read("table", tmp_path)
    assert table["ward"].tolist() == ["Orthopädie"]
    assert "Windows" not in notes(table)


def test_a_western_code_page_is_read_with_a_warning(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "mine.csv").write_bytes("image_id;path;ward\n1;a.png;Orthopädie\n".encode("cp1252"))
    table = datasets.read("table", tmp_path)
    assert table["ward"].tolist() == ["Orthopädie"]
    assert "mine.csv is not UTF-8: it was read as Windows-1252" in notes(table)


def test_blank_lines_are_passed_over_and_lines_are_numbered_as_in_the_file(tmp_path):
    picture(tmp_path / "a.png")
    text = '\nimage_id,path,sex,report\n\n1,a.png,F,"two\nlines"\n,,,\n2,a.png,M,\n'
    (tmp_path / "mine.csv").write_text(text)
    table = datasets.read("table", tmp_path)
    assert table["image_id"].tolist() == ["1", "2"] and table.index.tolist() == [0, 1]
    assert "2 lines of mine.csv are blank" in notes(table)
    (tmp_path / "mine.csv").write_text(text + "3,a.png,X,\n")
    with pytest.raises(ValueError, match="sex, line 8: found 'X'"):
        datasets.read("table", tmp_path)


def test_a_csv_may_be_parted_by_tabs_and_no_column_may_come_twice(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "mine.csv").write_text("image_id\tpath\tsex\n1\ta.png\tF\n")
    assert datasets.read("table", tmp_path)["sex"].tolist() == ["F"]
    (tmp_path / "mine.csv").write_text("image_id,path,tumor, tumor\n1,a.png,normal,tumor\n")
    with pytest.raises(ValueError, match="columns tumor occur more than once"):
        datasets.read("table", tmp_path)


def test_rows_without_a_file_stay_if_asked_and_the_cache_says_so(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "mine.csv").write_text("image_id,path\n1,a.png\n2,gone.png\n")
    assert datasets.read("table", tmp_path)["image_id"].tolist() == ["1"]
    table = datasets.read("table", tmp_path, missing="keep")
    assert table["path"].isna().tolist() == [False, True]
    cache = images.cache(table, size=8, folder=tmp_path / "cache")
    assert cache.ids == ["1"] and cache.excluded["reason"].tolist() == ["there is no file"]
    assert images.verify(table)["image_id"].tolist() == ["2"]
    with pytest.raises(ValueError, match="expected 'leave out' or 'keep'"):
        datasets.read("table", tmp_path, missing="drop")


def test_classes_of_folders_can_be_given_as_text(tmp_path):
    for name in ("krank", "gesund"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "a.png")
    classes = datasets.class_names("krank=abnormal; gesund=normal;")
    table = datasets.read("folder", tmp_path, task="anomaly", classes=classes)
    assert sorted(table["anomaly"]) == ["abnormal", "normal"]
    assert datasets.class_names("") == {}
    with pytest.raises(ValueError, match="found=class"):
        datasets.class_names("krank")


def test_images_outside_the_folder_of_a_csv_are_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.csv").write_text("image_id,path\n1,../a.png\n")
    table = datasets.read("table", tmp_path / "set")
    assert len(table) == 1 and "1 images lie outside the folder of the table" in notes(table)


# ------------------------------------------------------------------------------- the command line
def test_the_command_names_every_unreadable_file_and_writes_the_table(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("BONELIB_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    picture(root / "fractured" / "a.png")
    picture(root / "intact" / "b.png")
    (root / "intact" / "empty.png").write_bytes(b"")
    (root / "intact" / "cut.png").write_bytes((root / "intact" / "b.png").read_bytes()[:-30])
    out = tmp_path / "table.csv"
    for more in ([], ["--decode", "16"]):
        assert command_line.main(["data", "folder", str(root), "--out", str(out), *more]) == 0
        told = capsys.readouterr().out
        assert "4 radiographs" in told and "2 of 4 files can't be read" in told
        assert "intact/empty.png" in told and "the file is empty (0 bytes)" in told
        assert "intact/cut.png" in told and "cut off" in told
        assert pd.read_csv(out)["unreadable"].notna().sum() == 2
    assert command_line.main(["data", "fracatlas", str(root), "--task", "tumor"]) == 2


# --------------------------------------------------------------------------------------- real data
def test_real_folders_match_what_is_known_of_them(real):
    bones = datasets.read("rsna_bone_age", real("rsna-bone-age"))
    assert len(bones) == 2308 and (bones["sex"] == "M").sum() == 1209
    assert "10 images also lie" in notes(bones)
    knees = datasets.read("knee_kl", real("digital-knee-xray"))
    assert knees["kl_grade"].value_counts().sort_index().tolist() == [59, 47, 48, 48, 42]
    assert knees["kl_grade_reader2"].value_counts().sort_index().tolist() == [48, 58, 48, 48, 42]
    assert "the readers differ on 11" in notes(knees)
    wrists = datasets.read("grazpedwri", real("grazpedwri-dx"))
    assert len(wrists) == 9 and "20318 of 20327 rows have no image file" in notes(wrists)
    exported = datasets.read("roboflow", real("roboflow-classification-format"))
    assert len(exported) == 100 and "8 source images lie in more than one" in notes(exported)


def test_no_sound_file_of_a_real_folder_is_called_broken(real, tmp_path):
    for name, folder in (("knee_kl", "digital-knee-xray"), ("grazpedwri", "grazpedwri-dx")):
        assert images.verify(datasets.read(name, real(folder))).empty
    assert images.verify(datasets.read("roboflow", real("roboflow-classification-format"))).empty


# ---------------------------------------------------------------------- several sets together
def small_set(folder, rows):
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    lines = ["image_id,path,patient,site,fracture"]
    for k, (site, label) in enumerate(rows):
        Image.new("L", (8, 8), k).save(folder / "images" / f"{k}.png")
        lines.append(f"{k},images/{k}.png,p{k},{site},{label}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")


def test_sets_read_together_keep_their_names_and_stratify_each_by_its_own_label(tmp_path):
    small_set(tmp_path / "table", [("hand", "intact"), ("leg", "fractured")] * 6)
    for grade in range(5):
        place = tmp_path / "knees" / "train" / str(grade)
        place.mkdir(parents=True)
        for k in range(3):
            Image.new("L", (8, 8), 20 * grade + k).save(place / f"{9000000 + 10 * grade + k}L.png")
    root = os.pathsep.join([str(tmp_path / "table"), str(tmp_path / "knees")])
    table = datasets.read("table+knee_kl", root)
    assert table["source"].value_counts().to_dict() == {"knee_kl": 15, "table": 12}
    assert table["image_id"].is_unique
    assert table.loc[0, "image_id"] == "table/0" and table.loc[0, "patient"] == "table/p0"
    found = splits.strata(table)
    assert set(found) == {"table intact", "table fractured", *(f"knee_kl {k}" for k in range(5))}
    folded = splits.add_folds(splits.add_groups(table), folds=3)
    assert (folded.groupby(found)["fold"].nunique() == 3).all()


def test_sets_are_found_below_one_folder_under_their_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="knee_kl.*Set DATA_ROOT to the folder that holds"):
        datasets.read("fracatlas+knee_kl", tmp_path)
    with pytest.raises(ValueError, match="must name different data sets"):
        datasets.read("fracatlas+fracatlas", tmp_path)
    (tmp_path / "fracatlas").mkdir()
    (tmp_path / "knee_kl").mkdir()
    with pytest.raises(FileNotFoundError, match="dataset.csv"):
        datasets.read("fracatlas+knee_kl", tmp_path)
