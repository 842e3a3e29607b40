# Protects the readers of sets that can't be had here, on faithful miniatures of their layout.
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bonelib import cohort, datasets, evaluation, images


def notes(table):
    return "\n".join(table.attrs["notes"])


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10), np.uint8)).save(path)


# ------------------------------------------------------------------------------------------- MURA
STUDIES = {
    "train/XR_SHOULDER/patient00001/study1_positive": (1, 3),
    "train/XR_FOREARM/patient00002/study1_negative": (0, 1),
    "train/XR_HAND/patient00002/study1_negative": (0, 2),
    "valid/XR_WRIST/patient11185/study2_positive": (1, 1),
}


def mura(root, studies=STUDIES, labels=None):
    """Write MURA v1.1: four tables without headers, whose paths begin with the folder's name."""
    folder = root / "MURA-v1.1"
    for part in ("train", "valid"):
        own = {name: facts for name, facts in studies.items() if name.startswith(part)}
        paths = []
        for seed, (name, (_, count)) in enumerate(own.items()):
            for number in range(1, count + 1):
                picture(folder / name / f"image{number}.png", 10 * seed + number)
                paths.append(f"MURA-v1.1/{name}/image{number}.png")
        rows = [f"MURA-v1.1/{n}/,{(labels or {}).get(n, label)}" for n, (label, _) in own.items()]
        (folder / f"{part}_image_paths.csv").write_text("\n".join(paths) + "\n")
        (folder / f"{part}_labeled_studies.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_mura_gives_every_image_the_label_of_its_study(tmp_path):
    folder = mura(tmp_path)
    table = datasets.read("mura", tmp_path)
    pd.testing.assert_frame_equal(table, datasets.read("mura", folder))
    assert len(table) == 7 and table["image_id"].is_unique
    assert table["anomaly"].tolist() == ["abnormal"] * 3 + ["normal"] * 3 + ["abnormal"]
    assert table["site"].tolist()[3:] == [("radius", "ulna"), ("hand",), ("hand",), ("wrist",)]
    assert table["patient"].nunique() == 3 and table["study"].nunique() == 4
    assert table["published_split"].tolist() == ["train"] * 6 + ["val"]
    assert not table["image_id"].str.contains("positive|negative").any()
    assert "label is the study's" in notes(table)
    assert len(images.cache(table, size=12, folder=tmp_path / "cache")) == 7


def test_mura_says_what_its_tables_and_folders_disagree_about(tmp_path):
    folder = mura(tmp_path, labels={"train/XR_HAND/patient00002/study1_negative": 1})
    (folder / "train/XR_SHOULDER/patient00001/study1_positive/image3.png").unlink()
    with (folder / "valid_image_paths.csv").open("a") as stream:
        stream.write("MURA-v1.1/valid/XR_ELBOW/patient9/study1_negative/image1.png\n")
    table = datasets.read("mura", tmp_path)
    assert "In 2 images the folder's name contradicts the table" in notes(table)
    assert "1 images lie in studies without a label" in notes(table)
    assert "2 of 8 rows have no image file" in notes(table)
    (folder / "valid_image_paths.csv").unlink()
    assert "those that lie there" in notes(datasets.read("mura", tmp_path))
    (folder / "train_labeled_studies.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match="no study with 0 or 1"):
        datasets.read("mura", tmp_path)


# ------------------------------------------------------------------------------------------- LERA
def lera(root, rows="1001,XR HIP,1\n1002,XR KNEE,0\n1003,XR FOOT,0\n"):
    """Write LERA: one table without a header, a folder a case."""
    folder = root / "LERA Dataset"
    folder.mkdir()
    (folder / "labels.csv").write_text(rows)
    for seed, name in enumerate(("1001/ST-1/a", "1001/ST-1/b", "1002/ST-1/a", "1999/ST-1/a")):
        picture(folder / f"{name}.png", seed)
    return folder


def test_lera_is_read_without_a_header(tmp_path):
    lera(tmp_path)
    table = datasets.read("lera", tmp_path)
    assert table["anomaly"].tolist() == ["abnormal", "abnormal", "normal"]
    assert table["site"].tolist() == [("hip",), ("hip",), ("knee",)]
    assert table["study"].tolist() == table["patient"].tolist() == ["1001", "1001", "1002"]
    assert "1 folders with pictures have no row" in notes(table)
    assert "1 of 4 rows have no image file, e.g. 1003" in notes(table)


def test_wrong_rows_of_lera_are_told_together(tmp_path):
    lera(tmp_path, "case,exam,label\n1001,XR HIP,1\n1001,XR HIP,0\n")
    with pytest.raises(ValueError) as error:
        datasets.read("lera", tmp_path)
    assert "1 rows are no case" in str(error.value) and "1 cases occur more" in str(error.value)


# ----------------------------------------------------------------------------------------- pooling
def test_a_study_is_judged_by_the_mean_of_its_images(tmp_path):
    mura(tmp_path)
    table = datasets.read("mura", tmp_path).assign(split="val", fold="0")
    logits = np.array([3.0, -1, 0, -2, 1, -3, 0.5])
    single = evaluation.predictions(table, logits, task="anomaly", seed=0)
    pooled = evaluation.pool(single, table.set_index("image_id")["study"])
    assert pooled["image_id"].tolist() == list(dict.fromkeys(table["study"]))
    chance = 1 / (1 + np.exp(-logits))
    expected = [chance[:3].mean(), chance[3], chance[4:6].mean(), chance[6]]
    np.testing.assert_allclose(pooled["p_abnormal"], expected)
    np.testing.assert_allclose(pooled["p_normal"] + pooled["p_abnormal"], 1)
    assert list(pooled) == list(single)
    twice = pd.concat([single, single.assign(seed=1)])
    assert len(evaluation.pool(twice, table.set_index("image_id")["study"])) == 8
    torn = single.assign(label=["normal", *single["label"][1:]])
    with pytest.raises(ValueError, match="1 studies have several labels"):
        evaluation.pool(torn, table.set_index("image_id")["study"])
    with pytest.raises(ValueError, match="7 images have no study"):
        evaluation.pool(single, pd.Series(dtype=object))


# ------------------------------------------------------------------------------------------- ROCO
CAPTIONS = {
    "ROCO_00001": ' Plain radiograph with a "lytic" lesion.',
    "ROCO_00002": " Axial CT of the pelvis.",
    "ROCO_00003": " Lateral view of the femur.",
}


def roco_one(root):
    """Write the first release: text files with tabs, a table of licences, images apart."""
    folder = root / "data" / "test" / "radiology"
    folder.mkdir(parents=True)
    (folder / "captions.txt").write_text("".join(f"{i}\t{t}\n" for i, t in CAPTIONS.items()))
    (folder / "cuis.txt").write_text("ROCO_00001\t\tC1306645\tC0221198\nROCO_00003\t\tC1306645\n")
    (folder / "licences.txt").write_text(
        "ROCO_ID,PMC_ID,CC\nROCO_00001,PMC11_a.jpg,CC BY\nROCO_00003,PMC11_b.jpg,CC BY-NC\n"
    )
    for number in (1, 3):
        picture(folder / "images" / f"ROCO_0000{number}.jpg", number)


def roco_two(root):
    """Write the second release: tables with blanks in their headers, images in folders."""
    (root / "train_captions.csv").write_text(
        "ID, Caption\nROCOv2_2023_train_000001,X-ray of the knee\n"
        'ROCOv2_2023_train_000002,"X-ray computed tomography, axial"\n'
    )
    (root / "train_concepts.csv").write_text(
        "ID,CUIs\nROCOv2_2023_train_000001,C1306645;C0022742\n"
    )
    (root / "license_information.csv").write_text(
        "ID,PMCID,Attribution,Link\n"
        "ROCOv2_2023_train_000001,PMC7,CC BY-NC [Doe et al. (2020)],https://example.org\n"
    )
    for number in (1, 2):
        picture(root / "train" / f"ROCOv2_2023_train_00000{number}.jpg", number)


def test_roco_keeps_radiographs_and_ties_figures_of_one_article(tmp_path):
    roco_one(tmp_path)
    table = datasets.read("roco", tmp_path)
    assert table["image_id"].tolist() == ["ROCO_00001", "ROCO_00003"]
    assert table["report"][0] == 'Plain radiograph with a "lytic" lesion.'
    assert table["study"].tolist() == ["PMC11", "PMC11"]
    assert table["concepts"][0] == "C1306645;C0221198"
    assert set(table["published_split"]) == {"test"}
    assert "1 figures are licensed for non-commercial use only" in notes(table)
    assert "report" in cohort.sealed_columns(table)
    assert "2 of 3 captions are of radiographs" in notes(table)


def test_the_second_release_is_read_with_blanks_in_its_headers(tmp_path):
    roco_two(tmp_path)
    table = datasets.read("roco", tmp_path)
    assert table["image_id"].tolist() == ["ROCOv2_2023_train_000001"]
    assert table["licence"].tolist() == ["CC BY-NC"] and table["study"].tolist() == ["PMC7"]
    assert table["published_split"].tolist() == ["train"]
    (tmp_path / "train_captions.csv").write_text("name,text\n")
    with pytest.raises(ValueError, match="lacks the columns 'ID'"):
        datasets.read("roco", tmp_path)


def test_the_real_captions_are_read(tmp_path):
    folder = Path(os.environ.get("BONELIB_DATA", "")) / "roco-captions-msk"
    if "BONELIB_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs roco-captions-msk in the folder BONELIB_DATA")
    found = datasets.read("roco", folder, missing="keep")
    assert found["published_split"].value_counts().to_dict() == {"test": 182, "val": 162}
    assert found["licence"].notna().all() and found["study"].str.fullmatch(r"PMC\d+").all()
    assert found[cohort.REPORT].str.contains("lesion").sum() > 20
    with pytest.raises(FileNotFoundError, match="344 of 344 rows have no image file"):
        datasets.read("roco", folder)
    with pytest.raises(FileNotFoundError, match="train_captions.csv"):
        datasets.read("roco", tmp_path)
