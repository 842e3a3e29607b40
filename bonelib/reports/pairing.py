"""Reports joined to studies by patient and date, before the identities that join them go.

One report belongs to one study and so to all its images. Several on one day go by accession number,
else in the order of their times where there are as many of both; whatever stays ambiguous is
dropped and counted, as in Englebert et al. 2024 (arXiv:2405.08932).
"""

import pandas as pd

PATIENT, DATE, ACCESSION, TIME = "patient", "date", "accession", "time"


def pair(reports: pd.DataFrame, studies: pd.DataFrame) -> pd.DataFrame:
    """Pair reports with studies.

    Args:
        reports: ``report, patient, date`` and, where known, ``accession, time``.
        studies: ``study, patient, date`` and, where known, ``accession, time``; rows of one study
            (its images) may repeat it.

    Returns:
        ``report, study, by`` (``accession``, ``day`` or ``order``), one row a pair.
        ``attrs["counts"]`` says how many reports and studies there were, how many were paired by
        what, and how many were dropped as ambiguous or found no partner.

    Raises:
        ValueError: A column is missing, or a report is listed twice.
    """
    missing = [
        f"{name} lacks {', '.join(sorted(wanted - set(table)))}"
        for name, table, wanted in (
            ("the table of reports", reports, {"report", PATIENT, DATE}),
            ("the table of studies", studies, {"study", PATIENT, DATE}),
        )
        if wanted - set(table)
    ]
    twice = reports["report"][reports["report"].duplicated()] if "report" in reports else ()
    if missing or len(twice):
        if len(twice):
            missing.append(f"{len(twice)} reports are listed twice, e.g. {twice.iloc[0]}")
        raise ValueError(f"Can't pair: {'; '.join(missing)}.")
    left, right = _keyed(reports, "report"), _keyed(studies, "study").drop_duplicates("study")
    pairs: list[tuple[str, str, str]] = []
    if ACCESSION in left and ACCESSION in right:
        known = left.dropna(subset=ACCESSION).merge(
            right.dropna(subset=ACCESSION), on=[PATIENT, ACCESSION], suffixes=("", "_study")
        )
        once = ~(known["report"].duplicated(keep=False) | known["study"].duplicated(keep=False))
        pairs += [(r, s, ACCESSION) for r, s in known.loc[once, ["report", "study"]].to_numpy()]
    left = left[~left["report"].isin([r for r, _, _ in pairs])]
    right = right[~right["study"].isin([s for _, s, _ in pairs])]
    days = dict(list(right.groupby([PATIENT, DATE])))
    ambiguous = alone = 0
    for day, some in left.groupby([PATIENT, DATE]):
        others = days.get(day)
        if others is None:
            alone += len(some)
        elif len(some) == len(others) == 1:
            pairs.append((some["report"].iloc[0], others["study"].iloc[0], "day"))
        elif len(some) == len(others) and _ordered(some) and _ordered(others):
            both = zip(
                some.sort_values(TIME)["report"], others.sort_values(TIME)["study"], strict=True
            )
            pairs += [(report, study, "order") for report, study in both]
        else:
            ambiguous += len(some)
    found = pd.DataFrame(pairs, columns=["report", "study", "by"])
    undated = int(left[[PATIENT, DATE]].isna().any(axis=1).sum())
    found.attrs["counts"] = {
        "reports": len(reports),
        "studies": int(studies["study"].nunique()),
        **{f"by {how}": int((found["by"] == how).sum()) for how in (ACCESSION, "day", "order")},
        "ambiguous": ambiguous,
        "without a study": alone,
        "without patient or date": undated,
    }
    return found


def _keyed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the columns that join, dates as days and all else as text; empty cells are NA."""
    columns = [c for c in (name, PATIENT, ACCESSION, TIME) if c in table]
    keyed = table[columns].astype("string").replace("", pd.NA)
    return keyed.assign(**{DATE: pd.to_datetime(table[DATE], errors="coerce").dt.date})


def _ordered(table: pd.DataFrame) -> bool:
    return TIME in table and bool(table[TIME].notna().all()) and table[TIME].is_unique
