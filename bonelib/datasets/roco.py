"""ROCO and ROCOv2: figures of open-access articles with their captions, for pretraining.

Sources: Pelka O. et al., LABELS/MICCAI 2018, doi 10.1007/978-3-030-01364-6_20; Rückert J. et al.,
Scientific Data 11:688 (2024), doi 10.1038/s41597-024-03496-6. Licence: that of each article, in
``licences.txt`` or ``license_information.csv``. The text files of the first release were read as
published; with images, and the second release at all, this is written from the published
description and not run on the set.

First release: ``data/<split>/radiology/{captions,cuis,licences,…}.txt``, tab separated without a
header, images fetched to ``images/ROCO_00001.jpg``. Second: ``<split>_captions.csv`` (ID, Caption),
``<split>_concepts.csv`` (ID, CUIs joined by ";"), ``license_information.csv``, images in folders.

Known faults: all kinds of pictures, so that radiographs are chosen by their concepts or words here;
figures of one article may show one patient, so they share a ``study``; captions describe arrows and
other figures; some licences exclude commercial use; there are no labels.
"""

import re
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

PLAIN = "C1306645"  # "Plain x-ray", the concept both releases give to radiographs
# No word's end behind "ray": captions of the release run into each other there ("X-RayOne").
WORDS = re.compile(r"\bx[- ]?ray(?!s? (?:comput|ct\b))|radiograph|roentgenogra|\bplain film", re.I)
COLUMNS = (cohort.IMAGE_ID, cohort.REPORT, "concepts", "article", "licence")


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the captions of what its concepts or its caption call a radiograph.

    Returns:
        The cohort table with the caption in ``report``, the article in ``study``, ``concepts``
        (CUIs joined by ";"), ``licence`` and ``published_split``.

    Raises:
        FileNotFoundError: No captions are there.
        ValueError: A table is not in the published form.
    """
    files = datasets.tree(root, notes)
    found = _radiographs(captions(files, notes), notes)
    pictures = {path.stem: path for path in datasets.pictures(files).values()}
    table = cohort.empty(len(found))
    table[cohort.IMAGE_ID], table[cohort.REPORT] = found[cohort.IMAGE_ID], found[cohort.REPORT]
    table[cohort.PATH] = datasets.paths(found["image_id"], pictures)
    table[cohort.STUDY] = found["article"]
    for column in ("concepts", "licence", datasets.PUBLISHED_SPLIT):
        table[column] = found[column]
    return table


def _radiographs(found: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    plain = found["concepts"].str.contains(PLAIN, regex=False).fillna(False).astype(bool)
    worded = found[cohort.REPORT].str.contains(WORDS)
    kept = plain | worded
    notes.append(
        f"{int(kept.sum())} of {len(found)} captions are of radiographs, by their concept or words."
    )
    return found[kept].reset_index(drop=True)


def captions(files: dict[str, Path], notes: list[str]) -> pd.DataFrame:
    """Read all captions of a `datasets.tree`, with the columns ``COLUMNS`` and the split."""
    first = {n: p for n, p in files.items() if re.search(r"(^|/)radiology/captions\.txt$", n)}
    second = {n: p for n, p in files.items() if re.search(r"(^|/)[a-z]+_captions\.csv$", n)}
    if not first and not second:
        have = ", ".join(list(files)[:5]) or "nothing"
        raise FileNotFoundError(
            f"No radiology/captions.txt and no train_captions.csv here (found {have}). Set "
            "DATA_ROOT to the unpacked ROCO or ROCOv2."
        )
    parts = [_first(path, notes) for path in first.values()]
    parts += [_second(path, notes) for path in second.values()]
    found = pd.concat(parts, ignore_index=True)
    again = found[cohort.IMAGE_ID].duplicated()
    bare = found[cohort.REPORT].isna()
    ids = found[cohort.IMAGE_ID]
    notes += datasets.counted(ids[again], "{n} ids have several captions; the first is kept.")
    notes += datasets.counted(ids[bare], "{n} captions are empty and are left out, e.g. {names}.")
    found = found[~again & ~bare].reset_index(drop=True)
    ids, licence = found[cohort.IMAGE_ID], found["licence"]
    restricted = licence.str.contains("NC", regex=False).fillna(False)
    text = "{n} figures are licensed for non-commercial use only."
    notes += datasets.counted(ids[restricted], text)
    notes += datasets.counted(ids[licence.isna()], "{n} figures name no licence.")
    return found


def _first(file: Path, notes: list[str]) -> pd.DataFrame:
    """Read one split of the first release."""
    rows = _tabs(file, notes)
    cuis = _tabs(file.with_name("cuis.txt"), notes)
    codes = {
        i: ";".join(c.strip() for c in text.split("\t") if c.strip()) for i, text in cuis.items()
    }
    articles, licences = {}, {}
    terms = file.with_name("licences.txt")
    if terms.is_file():
        cells = datasets.read_table(terms, notes)
        datasets.refuse(datasets.lacking(cells, ("ROCO_ID", "PMC_ID", "CC")), terms)
        for name, article, licence in cells[["ROCO_ID", "PMC_ID", "CC"]].itertuples(index=False):
            articles[name] = str(article).split("_")[0]
            licences[name] = licence
    split = datasets.published_split(file.parts)
    made = pd.DataFrame(
        [(i, t.strip(), codes.get(i), articles.get(i), licences.get(i)) for i, t in rows.items()],
        columns=COLUMNS,
        dtype="object",
    )
    return made.assign(**{datasets.PUBLISHED_SPLIT: split})


def _tabs(file: Path, notes: list[str]) -> dict[str, str]:
    """Read ``id<TAB>rest`` lines; a caption may hold quotes, so this is no CSV."""
    if not file.is_file():
        return {}
    lines = [
        line.split("\t", 1) for line in datasets.text_of(file, notes).split("\n") if line.strip()
    ]
    torn = sum(len(parts) < 2 for parts in lines)
    if torn:
        notes.append(f"{torn} lines of {file.parent.parent.name}/{file.name} hold no tab.")
    return {parts[0].strip(): parts[1] for parts in lines if len(parts) == 2}


def _second(file: Path, notes: list[str]) -> pd.DataFrame:
    """Read one split of the second release; names of columns may carry blanks."""
    cells = datasets.read_table(file, notes)
    datasets.refuse(datasets.lacking(cells, ("ID", "Caption")), file)
    concepts = _column(file.with_name(file.name.replace("captions", "concepts")), "CUIs", notes)
    terms = file.with_name("license_information.csv")
    articles, licences = _column(terms, "PMCID", notes), _column(terms, "Attribution", notes)
    made = pd.DataFrame(dict.fromkeys(COLUMNS, cells["ID"].str.strip()))
    made[cohort.REPORT] = cells["Caption"].str.strip()
    for column, values in (("concepts", concepts), ("article", articles), ("licence", licences)):
        made[column] = made[cohort.IMAGE_ID].map(values)
    made["licence"] = made["licence"].str.extract(
        r"(CC[ -]BY(?:[ -](?:NC|SA|ND))*|CC0)", expand=False
    )
    split = file.name.removesuffix("_captions.csv")
    return made.assign(**{datasets.PUBLISHED_SPLIT: datasets.SPLITS.get(split, split)})


def _column(file: Path, name: str, notes: list[str]) -> dict[str, str]:
    if not file.is_file():
        return {}
    cells = datasets.read_table(file, notes)
    if "ID" not in cells or name not in cells:
        notes.append(f"{file.name} lacks the column ID or {name} and is not used.")
        return {}
    known = cells.dropna(subset=["ID", name])
    return dict(zip(known["ID"].str.strip(), known[name].str.strip(), strict=True))
