"""RSNA bone age: radiographs of children's hands with the bone age in months.

Source: Halabi S. S. et al., Radiology 290(2):498–503 (2019), doi 10.1148/radiol.2018180736. Terms
of the RSNA: research, education and other non-commercial use, with citation and link, no attempt
to identify anybody. 12,611 radiographs to train, 1,425 to validate, 200 to test; the label is the
reading of bone age, the sex is known, the age in years is not.

Two spellings are in use: Kaggle's ``id, boneage, male`` with ``Case ID, Sex`` for the test (whose
ages it keeps back), and the RSNA's ``Image ID, male, Bone Age (months)``; sex is True, TRUE or M.

Known faults: archives double their folders; radiographers' initials and markers of the side are
on some films; no patient ids; copies at other sizes lie beside the originals in many downloads, and
a mix of both would let a model read the source off the blur: one size is taken, the other named.
"""

import re
from pathlib import Path

import pandas as pd

from bonelib import cohort, datasets

SPELLINGS = {
    "id": ("id", "image id", "case id", "imageid", "caseid"),
    "months": ("boneage", "bone age", "bone age (months)", "ground truth bone age (months)"),
    "sex": ("male", "sex", "gender"),
}
SEXES = {"true": "M", "false": "F", "male": "M", "female": "F", "1": "M", "0": "F"}
SEXES |= {"m": "M", "f": "F"}
OLDEST = 240  # months; the atlas ends at 19 years
ORIGINAL = re.compile(r"(boneage-)?(training|validation|test)-dataset(-\d)?(?![\dA-Za-z])", re.I)


def read(root: Path, notes: list[str]) -> pd.DataFrame:
    """Read the folder that holds the tables and, below it, the images.

    Returns:
        The cohort table with ``bone_age`` in months (float, NA where kept back), ``sex``, site
        hand, view frontal, and ``published_split`` from the table a row stands in.

    Raises:
        FileNotFoundError: No table is there.
        ValueError: Columns or values are not those of the release; all problems are listed.
    """
    files = datasets.tree(root, notes)
    rows = _labels(root, files, notes)
    paths = _images(files, set(rows["id"]), notes)

    table = cohort.empty(len(rows))
    table[cohort.IMAGE_ID] = rows["id"]
    table[cohort.PATH] = datasets.paths(rows["id"], paths)
    table[cohort.SITE] = [("hand",)] * len(rows)
    table[cohort.VIEW] = [("frontal",)] * len(rows)
    table[cohort.SEX] = rows["sex"]
    table["bone_age"] = rows["months"]
    table[datasets.PUBLISHED_SPLIT] = rows["split"]

    there = datasets.with_file(table)
    notes += datasets.counted(
        there.loc[there["bone_age"].isna(), cohort.IMAGE_ID],
        "{n} rows have no bone age: Kaggle keeps those of its test set back.",
    )
    return table


def _labels(root: Path, files: dict[str, Path], notes: list[str]) -> pd.DataFrame:
    """Join the tables of training, validation and test to the columns id, months, sex, split."""
    tables = {
        name: path
        for name, path in sorted(files.items(), key=lambda item: item[0].count("/"))
        if path.suffix.lower() in (".csv", ".xlsx")
        and re.search("train|valid|test", path.stem, re.I)
    }
    if not tables:
        have = ", ".join(list(files)[:5]) or "nothing"
        raise FileNotFoundError(
            f"No table of training, validation or test below {root} (it holds {have}). Set "
            "DATA_ROOT to the folder in which boneage-training-dataset.csv lies."
        )
    parts, taken = [], set()
    for path in tables.values():
        if path.name not in taken:  # a copy in a doubled folder
            taken.add(path.name)
            parts.append(_one_table(path, notes))
    rows = pd.concat(parts, ignore_index=True)
    again = rows["id"].duplicated(keep="first")
    spread = rows.groupby("id")["months"].nunique()
    differ = spread.index[spread > 1]
    rows.loc[rows["id"].isin(differ), "months"] = float("nan")
    notes += datasets.counted(
        rows["id"][again],
        "{n} ids stand in more than one row, e.g. {names}; the first is kept, without its bone age "
        f"where the rows differ ({len(differ)}).",
    )
    return rows[~again].reset_index(drop=True)


def _one_table(path: Path, notes: list[str]) -> pd.DataFrame:
    raw = datasets.read_table(path, notes)
    named = {column.lower(): column for column in raw}
    column = {
        meaning: next((named[n] for n in names if n in named), None)
        for meaning, names in SPELLINGS.items()
    }
    problems = [
        f"No column for the {meaning}: expected one of {', '.join(SPELLINGS[meaning])}; "
        f"found {', '.join(raw.columns)}."
        for meaning in ("id", "sex")
        if column[meaning] is None
    ]
    datasets.refuse(problems, path)
    ids = raw[column["id"]].str.strip().str.removesuffix(".0").str.removesuffix(".png")
    sex = raw[column["sex"]].str.strip().str.lower()
    months = raw[column["months"]] if column["months"] else pd.Series(pd.NA, raw.index, dtype=str)
    number = pd.to_numeric(months, errors="coerce").astype(float)
    months = months.rename(column["months"])
    problems = datasets.misfits(ids, ids.notna(), "an id")
    problems += datasets.misfits(
        raw[column["sex"]], sex.isna() | sex.isin(list(SEXES)), "a sex: True, False, M or F"
    )
    problems += datasets.misfits(
        months, months.isna() | number.between(0, OLDEST), "a bone age in months"
    )
    datasets.refuse(problems, path)
    kind = re.search("train|valid|test", path.stem, re.I).group().lower()
    return pd.DataFrame(
        {"id": ids, "months": number, "sex": sex.map(SEXES), "split": datasets.SPLITS[kind]}
    )


def _images(files: dict[str, Path], ids: set[str], notes: list[str]) -> dict[str, Path]:
    """Find the image of each id, all from the same edition (the originals, or copies of a size)."""
    editions: dict[str, dict[str, Path]] = {}
    for name, path in datasets.pictures(files).items():
        if path.stem in ids:
            edition = ORIGINAL.sub("", name.split("/")[0]) if "/" in name else ""
            editions.setdefault(edition, {}).setdefault(path.stem, path)
    if not editions:
        return {}
    chosen = max(editions, key=lambda edition: (len(editions[edition]), -len(edition)))
    for edition, found in editions.items():
        if edition != chosen:
            example = next(iter(found.values()))
            notes.append(
                f"{len(found)} images also lie in {example.parent.name}/; only those in "
                f"{next(iter(editions[chosen].values())).parent.name}/ are taken, as sizes must "
                "not mix."
            )
    return editions[chosen]
