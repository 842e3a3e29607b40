"""Reports made safe: identities removed, what is left of them measured, and the gate behind it.

The reports of training and validation patients come in; a `Safe` goes out, which holds no identity.
Originals, keys and what was removed stay in memory, and nothing is kept before the least recalls
are reached.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bonelib import captions, cohort, deidentify, figures, phantom, reports, runs
from bonelib.datasets.texts import report_texts
from bonelib.deidentify.texts import Outcome
from bonelib.experiments.context import AnyRun, Context
from bonelib.experiments.settings import listing

# How many texts the tokenizers, and the two languages, are compared on.
SETTINGS = pd.DataFrame({"tiny": [60], "demo": [200], "full": [2000]}, index=["compared"])
LIMITS = {"PATIENT": 0.995, "ALL": 0.98}  # least recalls, by type of identity
EXAMPLES = 12  # invented images whose reports are shown before and after


@dataclass(frozen=True)
class Plan:
    """What is decided before a report is read.

    Attributes:
        languages: Of the reports; where no index says which, the first that fits.
        mode: How identities are replaced, one of ``deidentify.MODES``.
        caption_fields: What captions may say.
        test: The test set, whose patients' reports stay sealed.
        compared: See ``SETTINGS``. limits: See ``LIMITS``.
    """

    languages: tuple[str, ...]
    mode: str
    caption_fields: tuple[str, ...]
    test: str
    compared: int
    limits: dict[str, float]
    examples_seed: int = 1


@dataclass(frozen=True)
class Safe:
    """What may be kept of reports: tables without identities, in the run under the same names.

    Attributes:
        reports: ``report, language, text`` and ``held``, why one is held back ("" if it is not).
        images: ``image_id, report``.
        removed: Removals counted: ``type`` and a column a language.
        leaks: Recall by type (``deidentify.leak_table``), with the number of reports annotated.
    """

    reports: pd.DataFrame
    images: pd.DataFrame
    removed: pd.DataFrame
    leaks: pd.DataFrame

    @property
    def passed(self) -> pd.DataFrame:
        """The reports that are not held back."""
        return self.reports[self.reports["held"] == ""]

    @property
    def measured(self) -> pd.DataFrame:
        """The leak table of the types that are annotated."""
        return self.leaks[self.leaks["n"] > 0]


def plan(context: Context, *, languages: str, mode: str, caption_fields: str) -> Plan:
    """Check the choices of the notebook (lists by commas), and join them to the profile's sizes.

    Raises:
        ValueError: Languages, modes or fields that there are not; all of them at once.
    """
    asked, said = listing(languages), listing(caption_fields)
    named = dict(languages=asked, mode=(mode,), caption_fields=said)
    allowed = dict(
        languages=reports.names(),
        mode=deidentify.MODES,
        caption_fields=captions.PHASES["pretraining"],  # those that name no label
    )
    wrong = [
        f"{key.upper()}: {value!r} is none of {', '.join(allowed[key])}."
        for key, values in named.items()
        for value in values
        if value not in allowed[key]
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
    compared = int(SETTINGS.loc["compared", context.profile])
    return Plan(asked, mode, said, context.test, compared, LIMITS)


def secret(file: str) -> bytes:
    """Read the secret of the surrogates (hex digits), or draw one that ends with this process."""
    return bytes.fromhex(Path(file).read_text(encoding="utf-8")) if file else secrets.token_bytes()


# ---------------------------------------------------------------------- what came in?
def collect(context: Context) -> pd.DataFrame:
    """Return the reports of training and validation patients, one row each; for memory alone.

    The columns are those of ``datasets.texts.report_texts``. Without reports there are no rows.
    """
    return report_texts(context.view(), root(context))


def root(context: Context) -> Path:
    """The folder of the data as it is on this machine."""
    noted = pd.DataFrame({cohort.PATH: [context.cohort_run.notes["root"]]})
    return Path(context.here(noted).loc[0, cohort.PATH])


def count(context: Context, sources: pd.DataFrame, plan: Plan) -> pd.Series:
    """Count the reports, and what is known of them."""
    came = {
        "radiographs of training and validation": (context.view()["split"] != "test").sum(),
        "of these with a report": sources["images"].map(len).sum(),
        "reports": len(sources),
        "whose patient the index names": sources["names"].map(len).gt(0).sum(),
        "whose language it names": sources["language"].isin(plan.languages).sum(),
        "with annotated identities": sources["annotation"].notna().sum(),
    }
    counts = pd.Series(came, name="n").astype(int)
    counts.attrs = sources.attrs  # what was assumed of the index
    return counts


def read_count(came: pd.Series) -> str:
    """Say what came in."""
    every, told, n, named, _, annotated = came
    if not n:
        return "**Reading.** This set has no reports: the sections below stay empty."
    said = (
        f"**Reading.** {told:,} of {every:,} radiographs have one of {n:,} reports. The index "
        f"names the patient of {named:,}; leaks are measured on the {annotated:,} annotated ones."
    )
    return " ".join([said, *came.attrs.get("notes", [])])


# ---------------------------------------------------------------------- before and after
def show_examples(plan: Plan, *, key: bytes) -> pd.DataFrame:
    """De-identify an invented report a language in every mode; they belong to no cohort."""
    folder = runs.cache_folder("phantom") / f"{runs.code_hash('phantom')}-examples"
    phantom.write_reports(folder, images=EXAMPLES, seed=plan.examples_seed)
    index, shown = folder / "reports.csv", {}
    written_in = pd.read_csv(index, index_col="report")["language"]
    for one in reports.read(folder / "reports", index=index):
        name = written_in[Path(one.name).stem]
        if name in plan.languages and name not in shown:
            given = dict(index=one.index, key=key, patient=one.patient)
            text = one.text if isinstance(one.text, str) else one.text.decode()
            shown[name] = {"before": text} | {
                mode: deidentify.report(one.text, reports.language(name), mode=mode, **given).text
                for mode in deidentify.MODES
            }
    return pd.DataFrame(shown).T


# ---------------------------------------------------------------------- what goes, what leaks?
def make_safe(run: AnyRun, sources: pd.DataFrame, plan: Plan, *, key: bytes) -> Safe:
    """Remove the identities of every report in memory, and measure what is left where annotated.

    Nothing is saved here, see `pass_on`; a finished run gives what it kept.
    """
    if run.finished:
        return Safe(*(run.table(part.name) for part in fields(Safe)))
    rows, removed, counts = [], [], [deidentify.count("", [], [])]  # so that every type has a row
    for row in sources.itertuples():
        name, outcome = _outcome(row, plan.languages, plan.mode, key)
        rows.append((row.report, name, outcome.text, outcome.held))
        removed += [(cut.type, name) for cut in outcome.removals]
        if pd.notna(row.annotation) and not outcome.held:
            gold = deidentify.read_brat(row.annotation)
            counts.append(deidentify.count(row.text.decode(), gold, outcome.removals))
    return Safe(
        pd.DataFrame(rows, columns=["report", "language", "text", "held"], dtype="str"),
        sources[["images", "report"]].explode("images").rename(columns={"images": "image_id"}),
        crossed(removed, "type", "language"),
        deidentify.leak_table(pd.concat(counts)).assign(reports=len(counts) - 1),
    )


def _outcome(
    row: Any, languages: Sequence[str], mode: str = "tags", key: bytes = b""
) -> tuple[str, Outcome]:
    """De-identify one report in its language, or in the first that does not hold it back."""
    birth = pd.to_datetime(row.birth_date, errors="coerce")
    numbers = [n for n in (row.accession, row.patient) if pd.notna(n)]
    index = reports.PatientIndex(
        names=row.names,
        birth=birth.date() if pd.notna(birth) else None,
        ids=tuple(n for n in numbers if len(n) > 4),  # a shorter number stands in every report
    )
    patient = row.patient if pd.notna(row.patient) else row.report
    given = dict(index=index, mode=mode, key=key, patient=patient)
    for name in [row.language] if row.language in languages else languages:
        outcome = deidentify.report(row.text, reports.language(name), **given)
        if not outcome.held:
            break
    return name, outcome  # pyrefly: ignore[unbound-name] there is one language or more


def before_and_after(context: Context) -> Callable[[str], tuple[str, str] | None] | None:
    """Return what gives a reader the report of an image before and after, or None if it has none.

    Reports are read when the first one is asked for; all of it stays in memory. None where the set
    has no reports; those of test patients are sealed.
    """
    if context.view()[cohort.REPORT].isna().all():
        return None

    @cache
    def sources() -> dict[str, Any]:
        return {name: row for row in collect(context).itertuples() for name in row.images}

    def both(image_id: str) -> tuple[str, str] | None:
        if (row := sources().get(image_id)) is None:
            return None
        before = row.text.decode(errors="replace") if isinstance(row.text, bytes) else row.text
        _, outcome = _outcome(row, reports.names())
        return before, outcome.text or f"held back: {outcome.held}"

    return both


def crossed(pairs: Sequence[tuple[str, str]], first: str, second: str) -> pd.DataFrame:
    """Count pairs: a row for each ``first``, a column for each ``second``."""
    table = pd.DataFrame(pairs, columns=[first, second], dtype="str")
    return pd.crosstab(table[first], table[second]).rename_axis(columns=None).reset_index()


def pass_on(run: AnyRun, safe: Safe, plan: Plan) -> None:
    """Keep the safe reports if the least recalls are reached; nothing is saved before.

    Raises:
        ValueError: A recall is below its limit.
    """
    if not run.finished:
        deidentify.check(safe.leaks, plan.limits)
        for part in fields(safe):
            run.save_table(part.name, getattr(safe, part.name))


def draw_leaks(safe: Safe) -> Figure | None:
    """Draw recall by type beside the published one; nothing where no identity is annotated."""
    if safe.measured.empty:
        return None
    axes = figures.plot_leaks(safe.leaks, published="Englebert et al. 2024, French")
    return axes.get_figure(root=True)


def read_leaks(safe: Safe) -> str:
    """Say how many identities went, at which price."""
    held = f"{len(safe.reports) - len(safe.passed)} of {len(safe.reports)} reports are held back."
    if safe.measured.empty:
        return f"**Reading.** No identity is annotated here, so leaks can't be measured. {held}"
    every, worst = safe.measured.iloc[-1], safe.measured.nsmallest(1, "recall").iloc[0]
    share = figures.with_interval(every["recall"], every["recall_low"], every["recall_high"])
    return (
        f"**Reading.** Of {every['n']:,} identities in {every['reports']} reports {share} went, "
        f"fewest of {worst['type']} ({worst['recall']:.3f}), at the price of {every['lost']:.2%} "
        f"of all other words. The limits are kept. {held}"
    )
