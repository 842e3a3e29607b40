"""MURA v1.1: radiographs of the upper limb, each study called normal or abnormal.

Source: Rajpurkar P. et al., MIDL 2018, arXiv:1712.06957. Licence: research use agreement of the
Stanford ML Group / AIMI. 40,561 images in 14,863 studies of 12,173 patients; its test set is kept
back. Written from the published description; not run on the set.

Four tables without a header: ``{train,valid}_image_paths.csv`` (one column) and
``{train,valid}_labeled_studies.csv`` (folder of a study with a trailing slash, 0 or 1), whose paths
begin with ``MURA-v1.1/``.

Known faults: the label belongs to the study, so that a single image may look normal: average the
predictions of a study (``evaluation.pool``), as the paper does; the folder's name repeats the label
(``study1_positive``), which a model never sees but a path does; some patients have several studies,
hardware is common among the abnormal ones.
"""

import re
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

SITES = {
    "XR_ELBOW": ("elbow",),
    "XR_FINGER": ("hand",),
    "XR_FOREARM": ("radius", "ulna"),
    "XR_HAND": ("hand",),
    "XR_HUMERUS": ("humerus",),
    "XR_SHOULDER": ("shoulder",),
    "XR_WRIST": ("wrist",),
}
PARTS = ("train", "valid")
FOLDER = re.compile(r"(train|valid)/(XR_[A-Z]+)/(patient\d+)/(study\d+)_(positive|negative)")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the tables of studies and images.

    Args:
        root: The folder ``MURA-v1.1`` or the one it lies in.

    Returns:
        The cohort table with ``anomaly`` (of the study), patient, study, site and
        ``published_split``; ``image_id`` is the path below ``MURA-v1.1`` without the word that
        gives the label away.

    Raises:
        FileNotFoundError: The tables are missing.
        ValueError: A table is not in the published form; all problems are listed.
    """
    names = tuple(f"{part}_labeled_studies.csv" for part in PARTS)
    root = datasets.locate(root, names, inner="MURA-v1.1").parent
    labels = _studies(root, notes)
    images = _images(root, notes)
    folders = images.str.rsplit("/", n=1).str[0]
    found = folders.str.extract(FOLDER).set_axis(
        ["part", "exam", "patient", "study", "word"], axis=1
    )
    named = folders.isin(labels.index)
    notes += datasets.counted(
        images[~named], "{n} images lie in studies without a label and have none, e.g. {names}."
    )

    table = cohort.empty(len(images))
    table[cohort.IMAGE_ID] = images.str.replace(r"_(positive|negative)/", "/", regex=True)
    paths = [root / name for name in images]
    table[cohort.PATH] = [str(path) if path.is_file() else pd.NA for path in paths]
    table[cohort.PATIENT] = found["patient"]
    table[cohort.STUDY] = (
        found["part"] + "/" + found["exam"] + "/" + found["patient"] + "/" + found["study"]
    )
    table[cohort.SITE] = [SITES[exam] for exam in found["exam"]]
    classes = dict(enumerate(cohort.task("anomaly").classes))
    table["anomaly"] = folders.map(labels).map(classes)
    table[datasets.PUBLISHED_SPLIT] = found["part"].map(datasets.SPLITS)

    said = found["word"].map({"negative": classes[0], "positive": classes[1]})
    differ = table["anomaly"].notna() & (said != table["anomaly"])
    notes += datasets.counted(
        images[differ],
        "In {n} images the folder's name contradicts the table, e.g. {names}; the table is kept.",
    )
    notes.append("The label is the study's: average the predictions of a study's images.")
    return table


def _studies(root: Path, notes: list[str]) -> pd.Series:
    """Return the label of each study, 0 or 1, by its folder below the root."""
    parts = []
    for part in PARTS:
        file = root / f"{part}_labeled_studies.csv"
        if not file.is_file():
            notes.append(f"There is no {file.name}: the images of {part} have no label.")
            continue
        cells = datasets.read_table(file, notes, header=False)
        problems = [] if cells.shape[1] == 2 else [f"Expected two columns, found {cells.shape[1]}."]
        if not problems:
            cells.columns = ["folder", "label"]
            cells["folder"] = _below(cells["folder"]).str.rstrip("/")
            fit = cells["folder"].str.fullmatch(FOLDER) & cells["label"].isin(["0", "1"])
            odd = cells[~fit].agg(list, axis=1)
            problems += datasets.counted(odd, "{n} rows are no study with 0 or 1, e.g. {names}.")
        datasets.refuse(problems, file)
        parts.append(cells)
    labels = pd.concat(parts, ignore_index=True)
    spread = labels.groupby("folder")["label"].nunique()
    torn = spread.index[spread > 1]
    notes += datasets.counted(
        torn, "{n} studies are both normal and abnormal and have no label, e.g. {names}."
    )
    labels = labels[~labels["folder"].isin(torn)].drop_duplicates("folder")
    return labels.set_index("folder")["label"].astype(int)


def _images(root: Path, notes: list[str]) -> pd.Series:
    """Return the images that the tables name, or that lie there where a table is missing."""
    found: list[str] = []
    for part in PARTS:
        file = root / f"{part}_image_paths.csv"
        if file.is_file():
            cells = datasets.read_table(file, notes, header=False)
            names = _below(cells.iloc[:, 0])
            odd = names[~names.str.rsplit("/", n=1).str[0].str.fullmatch(FOLDER)]
            text = "{n} rows are no path of an image, e.g. {names}."
            datasets.refuse(datasets.counted(odd, text), file)
            found += names.tolist()
        elif (root / part).is_dir():
            notes.append(f"There is no {file.name}: the images of {part} are those that lie there.")
            tree = [f"{part}/{name}" for name in datasets.tree(root / part, notes)]
            found += [name for name in tree if FOLDER.fullmatch(name.rpartition("/")[0])]
    return pd.Series(list(dict.fromkeys(found)), dtype="object").astype(str)


def _below(cells: pd.Series) -> pd.Series:
    """Take away what the paths of the release begin with."""
    return (
        cells.str.strip().str.replace("\\", "/").str.replace(r"^(.*/)?MURA-v1\.\d/", "", regex=True)
    )
