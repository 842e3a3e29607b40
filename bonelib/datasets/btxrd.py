"""BTXRD: radiographs with and without a primary bone tumour; also the synthetic cohort.

Source: Yao S. et al., Scientific Data 12:88 (2025), doi 10.1038/s41597-024-04311-y; data
doi 10.6084/m9.figshare.27865398. Licence: the paper carries CC BY-NC-ND 4.0, the data record is
said to carry CC BY 4.0; treat it as the stricter one until you have read the record. 3,746 images
of three centres (1: hospitals, 2 and 3: teaching collections): normal, benign or malignant, nine
entities, age, sex, site, view; lesions as LabelMe polygons and boxes.

Known faults: no patient ids; the site columns are all zero for normals, so that a site finer than
the limb gives the label away; site and limb disagree in some rows; IMG001276 has two entities; the
annotations may lie in ``Annotations/Annotations``; 21 pairs of images are identical, two of them
with opposite labels (``splits`` deals with those).

The phantom writes the same layout, and beside it ``cohort_extra.csv`` with what BTXRD lacks.
"""

from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets
from bonelib.datasets import outlines

BONES = ("hand", "ulna", "radius", "humerus", "foot", "tibia", "fibula", "femur", "hip bone")
JOINTS = ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
# Column of the file → term of the cohort.
SITES = {bone: bone for bone in BONES} | {f"{joint}-joint": joint for joint in JOINTS}
LIMBS = {limb: limb for limb in cohort.REGIONS}
ENTITIES = cohort.task("entity").classes
NEW = (cohort.SITE, cohort.MASK)  # what the extras of the phantom say better than the layout can
MANIFEST = "images_manifest_sha256.csv"
FLAGS = (*SITES, "tumor", "benign", "malignant", *ENTITIES, *LIMBS, *cohort.VIEWS)


def read(root: Path, notes: list[str], *, extras: bool = False) -> pd.DataFrame:
    """Read a folder in BTXRD's layout, the real one or the phantom's.

    Args:
        extras: Join ``cohort_extra.csv`` where it exists: patient, study, side, the true site,
            signs of the lesion, truth masks; and by study the paths of ``reports.csv``.

    Returns:
        The cohort table with ``tumor``, ``malignancy`` and ``entity`` (NA for normals). A normal's
        ``site`` is its limb, e.g. ``("upper limb",)``. ``mask`` holds JSON polygons in pixels, or
        with ``extras`` the path of a truth PNG. ``sha256`` is that of the published file, where
        a list of them, ``images_manifest_sha256.csv``, lies beside the table.

    Raises:
        FileNotFoundError: No ``dataset.csv`` or ``.xlsx`` is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    file = datasets.locate(root, ("dataset.csv", "dataset.xlsx"), inner="BTXRD")
    root = file.parent
    csv = _metadata(file, notes)
    cells, labels = _annotations(root / "Annotations", notes)
    stems = csv["image_id"].map(lambda name: Path(name).stem)
    sites, limbs = datasets.terms(csv, SITES), datasets.terms(csv, LIMBS)

    table = cohort.empty(len(csv))
    table[cohort.IMAGE_ID] = csv["image_id"]
    table[cohort.PATH] = _paths(csv["image_id"], datasets.files_below(root / "images"), notes)
    table[cohort.SOURCE] = datasets.source("btxrd", root)
    table[cohort.CENTER] = csv["center"].astype(str)
    table[cohort.SITE] = [site or limb for site, limb in zip(sites, limbs, strict=True)]
    table[cohort.VIEW] = datasets.terms(csv, {view: view for view in cohort.VIEWS})
    table[cohort.AGE] = csv["age"].astype(float)
    table[cohort.SEX] = csv["gender"]
    table[cohort.MASK] = [cells.get(stem, pd.NA) for stem in stems]
    table["tumor"] = csv["tumor"].map(dict(enumerate(cohort.task("tumor").classes)))
    table["malignancy"] = _malignancy(csv, notes)
    table["entity"] = _entities(csv, stems, labels, notes)

    notes += _contradictions(csv, sites, limbs, table)
    if (root / MANIFEST).is_file():
        table["sha256"] = _manifest(root / MANIFEST, csv["image_id"], notes)
    if extras:
        table = _join_extras(table, root, notes)
        table[cohort.REPORT] = _reports(table[cohort.STUDY], root / "reports.csv", notes)
    healthy = table.loc[table["tumor"] == "normal", cohort.SITE]
    if len(healthy) and all(set(site) <= set(LIMBS) for site in healthy):
        notes.append(
            "Normals name no site, only a limb: a site finer than the limb gives the label away."
        )
    return table


def _metadata(file: Path, notes: list[str]) -> pd.DataFrame:
    csv = datasets.read_table(file, notes, numbers=True)
    problems = datasets.flag_problems(csv, FLAGS)
    problems += datasets.lacking(csv, ("image_id", "center", "age", "gender"))
    if {"image_id", "age"} <= set(csv):
        csv["image_id"] = csv["image_id"].astype(str).str.strip()
        number = pd.to_numeric(csv["age"], errors="coerce").notna()
        problems += datasets.misfits(csv["age"], number | csv["age"].isna(), "a number")
    datasets.refuse(problems, file)
    return csv


def _paths(ids: pd.Series, files: dict[str, Path], notes: list[str]) -> list:
    """Find each image by name, else by its stem: copies are known with other extensions."""
    stems = {path.stem: path for path in files.values()}
    found = [files.get(name, stems.get(Path(name).stem)) for name in ids]
    renamed = [n for n, path in zip(ids, found, strict=True) if path and path.name != n]
    notes += datasets.counted(
        renamed, "{n} images have another extension than their row says, e.g. {names}."
    )
    strangers = {path.name for path in files.values()} - {p.name for p in found if p}
    notes += datasets.counted(sorted(strangers), datasets.NO_ROW)
    return [str(path) if path else pd.NA for path in found]


def _annotations(folder: Path, notes: list[str]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Read the LabelMe files: per image stem, its outlines as JSON text and its labels."""
    if (folder / "Annotations").is_dir():
        folder = folder / "Annotations"
    cells, labels, boxed, uneven, every = {}, {}, [], [], []
    broken: dict[str, str] = {}
    for name, path in datasets.files_below(folder).items():
        if path.suffix != ".json":
            continue
        try:
            shapes = outlines.labelme(path.read_bytes())
        except ValueError as error:
            broken[name] = str(error)
            continue
        every += shapes
        boxes = sum(shape.box for shape in shapes if shape.polygons)
        finer = sum(not shape.box for shape in shapes if shape.polygons)
        boxed += [name] if boxes and not finer else []
        uneven += [name] if boxes and finer and boxes != finer else []
        labels[path.stem] = {shape.label for shape in shapes}
        if cell := outlines.cell(shapes):
            cells[path.stem] = cell
    if not labels:
        notes.append(f"No LabelMe files in {folder.name}/: no lesion has an outline.")
    for names, text in (
        (uneven, "In {n} annotations boxes and polygons differ in number, e.g. {names}; the "
                 "polygons are kept."),
        (boxed, "{n} annotations have boxes but no polygon, e.g. {names}; the boxes stand in as "
                "outlines."),
    ):  # fmt: skip
        notes += datasets.counted(names, text)
    notes += outlines.open_notes(every) + outlines.faults(broken)
    return cells, labels


def _manifest(file: Path, ids: pd.Series, notes: list[str]) -> list:
    """Look up the content hash of each image in a list of the published files, if it lies there."""
    listed = datasets.read_table(file, notes)
    datasets.refuse(datasets.lacking(listed, ("image_id", "sha256")), file)
    known = dict(zip(listed["image_id"].str.strip(), listed["sha256"], strict=True))
    notes.append(
        f"{file.name} lists {len(listed)} published files, {int(ids.isin(list(known)).sum())} of "
        f"the {len(ids)} rows among them: copies are found by it though images are missing."
    )
    return [known.get(name, pd.NA) for name in ids]


def _malignancy(csv: pd.DataFrame, notes: list[str]) -> list:
    classes = {(0, 0, 0): "normal", (1, 1, 0): "benign", (1, 0, 1): "malignant"}
    triples = list(zip(csv["tumor"], csv["benign"], csv["malignant"], strict=True))
    odd = [i for i, triple in zip(csv["image_id"], triples, strict=True) if triple not in classes]
    notes += datasets.counted(
        odd,
        "In {n} rows tumor, benign and malignant contradict each other, e.g. {names}; their "
        "malignancy is missing.",
    )
    return [classes.get(triple, pd.NA) for triple in triples]


def _entities(
    csv: pd.DataFrame, stems: pd.Series, labels: dict[str, set[str]], notes: list[str]
) -> list:
    """Name each row's entity; where the table marks several, the annotation decides."""
    marked = datasets.terms(csv, {name: name for name in ENTITIES})  # in small letters, as labels
    entities, disagree, none = [], [], []
    for image, stem, tumor, names in zip(csv["image_id"], stems, csv["tumor"], marked, strict=True):
        outlined = labels.get(stem, set())
        chosen = names
        if len(names) > 1:
            chosen = tuple(name for name in names if name in outlined)
            taken = chosen[0] if len(chosen) == 1 else "none"
            notes.append(
                f"{image} is marked {' and '.join(names)}; its annotation says "
                f"{', '.join(sorted(outlined)) or 'nothing'}: we take {taken}."
            )
        elif outlined - set(names):
            disagree.append(image)
        if tumor and not names:
            none.append(image)
        entities.append(chosen[0] if len(chosen) == 1 else pd.NA)
    notes += datasets.counted(
        disagree,
        "{n} annotations name another entity than the table, e.g. {names}; the table's is kept.",
    )
    notes += datasets.counted(none, "{n} tumours have no entity, e.g. {names}.")
    return entities


def _contradictions(csv: pd.DataFrame, sites: list, limbs: list, table: pd.DataFrame) -> list[str]:
    ids, tumor, outlined = csv["image_id"], csv["tumor"] == 1, table[cohort.MASK].notna()
    astray = [
        bool(site) and {cohort.region((term,)) for term in site} != set(limb)
        for site, limb in zip(sites, limbs, strict=True)
    ]
    several = "{n} rows mark no or several %s, e.g. {names}."
    notes = []
    for which, text in (
        (astray, "In {n} rows the site does not lie in the limb that is marked, e.g. {names}; the "
                 "site is kept."),
        (pd.Series(limbs).map(len) != 1, several % "limbs"),
        (table[cohort.VIEW].map(len) != 1, several % "views"),
        (~tumor & (csv[list(ENTITIES)] == 1).any(axis=1),
         "{n} rows without a tumour name an entity, e.g. {names}."),
        (~tumor & outlined,
         "{n} rows without a tumour have an outline, e.g. {names}; the table's label is kept."),
        (tumor & ~outlined & outlined.any(), "{n} tumours have no outline, e.g. {names}."),
    ):  # fmt: skip
        notes += datasets.counted(ids[which], text)
    return notes


def _join_extras(table: pd.DataFrame, root: Path, notes: list[str]) -> pd.DataFrame:
    """Join ``cohort_extra.csv``; it replaces site and mask where it has one, no other column."""
    file = root / "cohort_extra.csv"
    if not file.is_file():
        notes.append("There is no cohort_extra.csv: nothing beyond BTXRD's own columns is known.")
        return table
    extra = datasets.read_table(file, notes, numbers=True)
    if "image_id" not in extra or extra["image_id"].duplicated().any():
        datasets.refuse(["It needs a column 'image_id' without repeated values."], file)
    unknown = set(extra["image_id"]) ^ set(table[cohort.IMAGE_ID])
    text = f"{{n}} images are in only one of {file.name} and the table, e.g. {{names}}."
    notes += datasets.counted(sorted(unknown), text)
    extra = extra.set_index("image_id").reindex(table[cohort.IMAGE_ID]).reset_index(drop=True)
    extra = extra[[c for c in extra if c not in table or c in NEW or table[c].isna().all()]].copy()
    if cohort.SITE in extra:
        extra[cohort.SITE] = [
            tuple(sorted(term.strip().removesuffix("-joint") for term in cell.split(";")))
            if isinstance(cell, str)
            else old
            for cell, old in zip(extra[cohort.SITE], table[cohort.SITE], strict=True)
        ]
    if cohort.MASK in extra:
        extra[cohort.MASK] = [
            str(root / cell) if isinstance(cell, str) else old
            for cell, old in zip(extra[cohort.MASK], table[cohort.MASK], strict=True)
        ]
    for column in extra:
        old = table[column] if column in table else pd.NA
        table[column] = extra[column].where(extra[column].notna(), old)
    return table


def _reports(studies: pd.Series, file: Path, notes: list[str]) -> list:
    """Return the path of each study's report, NA where there is none; the first of several."""
    if not file.is_file():
        return [pd.NA] * len(studies)
    index = datasets.read_table(file, notes)
    datasets.refuse(datasets.lacking(index, ("study", "path")), file)
    several = index["study"][index["study"].duplicated()]
    text = "Studies with more than one report: {n}; the first report is taken."
    notes += datasets.counted(several, text)
    paths = index.drop_duplicates("study").set_index("study")["path"].to_dict()
    return [str(file.parent / paths[study]) if study in paths else pd.NA for study in studies]
