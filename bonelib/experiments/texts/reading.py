"""Safe reports read: sections and facts, captions of them, and what text towers make of both.

A `Safe` comes in; facts and captions by image go out, with what each tower cuts and whether two
languages meet in it.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bonelib import captions, cohort, encoders, evaluation, figures, reports, zero_shot
from bonelib.experiments.context import AnyRun, Context
from bonelib.experiments.texts.safety import LIMITS, Plan, Safe, crossed, root

# Text towers with their weights. Of CLIP only the tokenizer is asked.
TOWERS = {
    "packaged:minilm": "pretrained",
    "packaged:e5": "pretrained",
    "open_clip:ViT-B-32": "random",
}


# ---------------------------------------------------------------------- what do the reports say?
def read(
    context: Context, run: AnyRun, plan: Plan, sources: pd.DataFrame, safe: Safe
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read the reports that were passed on.

    Returns:
        Sections counted (``section`` and a column a language); ``report, kind, value, polarity``;
        and how these facts agree with planted ones by language and kind, no rows without such.
    """
    if not run.finished:
        texts = [(r.report, r.text, reports.language(r.language)) for r in safe.passed.itertuples()]
        parts = [(part.kind, own.name) for _, t, own in texts for part in reports.sections(t, own)]
        run.save_table("sections", crossed(parts, "section", "language"))
        run.save_table(
            "facts", reports.table((name, reports.facts(t, own)) for name, t, own in texts)
        )
        planted = root(context) / "reports" / "facts.csv"
        run.save_table("agreement", _agreement(run.table("facts"), planted, plan, sources, safe))
    return tuple(run.table(name) for name in ("sections", "facts", "agreement"))


def _agreement(
    facts: pd.DataFrame, planted: Path, plan: Plan, sources: pd.DataFrame, safe: Safe
) -> pd.DataFrame:
    if safe.passed.empty or not planted.is_file():
        return reports.agreement(facts[:0], facts[:0])[:0].assign(language="")
    truth, language = pd.read_csv(planted, dtype="str"), safe.passed.set_index("report")["language"]
    truth["report"] = truth["report"].map(sources.set_index("study")["report"])
    rows = []
    for name in (*plan.languages, "ALL"):
        only = plan.languages if name == "ALL" else [name]
        both = (table[table["report"].map(language).isin(only)] for table in (facts, truth))
        rows.append(reports.agreement(*both).assign(language=name))
    return pd.concat(rows)


def read_agreement(agreement: pd.DataFrame) -> str:
    """Say how many of the planted facts were read."""
    for row in agreement.query("kind == 'ALL' and language == 'ALL'").itertuples():
        return f"**Reading.** Facts agree with {row.n:,} planted ones at F1 {row.f1:.3f}."
    return "**Reading.** What these reports state is planted nowhere: agreement is not measured."


# ---------------------------------------------------------------------- captions
def caption(
    context: Context, run: AnyRun, plan: Plan, safe: Safe, facts: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write each image's caption from what its report states, and from the columns of the table.

    Returns:
        ``image_id, caption, origin`` (facts or table), ``language``; and counts of captions, their
        distinct wordings and meanings, a row an origin and language.
    """
    if not run.finished:
        stated, view = _stated(context, safe, facts), context.view()
        origins = {"facts": stated, "table": view[view["image_id"].isin(stated["image_id"])]}
        written, counts = [], []
        for origin, rows in origins.items() if len(stated) else ():
            named = captions.known(rows, fields=plan.caption_fields)
            meanings = len(set(map(tuple, captions.keys(rows, fields=named))))
            for language in plan.languages:
                wording = dict(fields=named, language=language, seed=context.seed)
                said = captions.write(rows, phase="pretraining", **wording)
                own = pd.DataFrame({"image_id": rows["image_id"], "caption": said})
                written.append(own.assign(origin=origin, language=language))
                words = own["caption"].str.split().str.len().mean()
                told = (len(own), own["caption"].nunique(), meanings, words)
                counts.append((origin, language, ",".join(named), *told))
        columns = ["image_id", "caption", "origin", "language"]
        run.save_table("captions", _joined(written, columns))
        columns = [*columns[2:], "fields", "captions", "wordings", "meanings", "words"]
        run.save_table("wordings", pd.DataFrame(counts, columns=columns))
    return run.table("captions"), run.table("wordings")


def _stated(context: Context, safe: Safe, facts: pd.DataFrame) -> pd.DataFrame:
    """Return what reports state in the columns of a cohort table, a row an image that has one."""
    stated = captions.facts_table(facts).rename(columns={cohort.IMAGE_ID: "report"})
    of_image = [cohort.IMAGE_ID, cohort.PATIENT, cohort.GROUP, cohort.GROUP_KIND]
    return safe.images.merge(stated, on="report").merge(context.view()[of_image], on="image_id")


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns, dtype="str")


def read_captions(wordings: pd.DataFrame) -> str:
    """Say how the captions of reports differ from those of the table."""
    said = [
        f"From the {row.origin}: {row.meanings:,} meanings in {row.wordings:,} wordings of "
        f"{row.words:.1f} words ({row.language})."
        for row in wordings.drop_duplicates("origin").itertuples()
    ]
    return " ".join(["**Reading.**", *(said or ["No report states anything to be captioned."])])


# ---------------------------------------------------------------------- text towers
def compare_towers(
    context: Context,
    run: AnyRun,
    plan: Plan,
    safe: Safe,
    facts: pd.DataFrame,
    written: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ask each text tower which texts it cuts, and pretrained ones whether two languages meet.

    Returns:
        ``tower, context, text, language, n, cut`` (a share); the share of studies whose caption in
        the second language is found first, by tower, with its interval over patients and
        ``chance``; ``tower, reason`` of towers that are not here.
    """
    if not run.finished:
        studies = _stated(context, safe, facts).drop_duplicates("report").head(plan.compared)
        cut, met, absent = [], [], []
        for name, weights in TOWERS.items() if len(safe.passed) else ():
            try:
                tower = _tower(name, weights)
            except encoders.WeightsNotAvailable as error:
                absent.append((name, str(error)))
                continue
            cut += _cut(tower, plan, safe, written, seed=context.seed)
            if weights == "pretrained" and len(plan.languages) > 1 and len(studies) > 1:
                met.append(_met(tower, plan, studies, seed=context.seed))
            del tower  # one at a time is in memory
        columns = ["tower", "context", "text", "language", "n", "cut"]
        run.save_table("truncation", pd.DataFrame(cut, columns=columns))
        run.save_table("neighbours", _joined(met, ["tower", "value", "low", "high", "n", "chance"]))
        run.save_table("unavailable", pd.DataFrame(absent, columns=["tower", "reason"]))
    return tuple(run.table(name) for name in ("truncation", "neighbours", "unavailable"))


def _tower(name: str, weights: str) -> encoders.TextEncoder | encoders.CachedText:
    # Of one that is not pretrained only the tokenizer is asked: no memory, no time for its weights.
    with torch.device("cpu" if weights == "pretrained" else "meta"):
        return encoders.text(name, weights=weights)


def _cut(tower: Any, plan: Plan, safe: Safe, written: pd.DataFrame, *, seed: int) -> list[tuple]:
    """Measure what share of captions and of whole reports a tower's context cuts."""
    texts = [*written.groupby(["origin", "language"])["caption"]]
    texts += [(("whole report", n), part) for n, part in safe.passed.groupby("language")["text"]]
    context, rows = getattr(tower, "encoder", tower).context, []
    for (origin, language), part in texts:
        some = part.sample(min(plan.compared, len(part)), random_state=seed).tolist()
        rate = tower.truncated(some).float().mean().item()
        rows.append((tower.name, context, origin, language, len(some), rate))
    return rows


def _met(tower: Any, plan: Plan, studies: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Measure how often a study's caption in the second language is the first one found."""
    named = captions.known(studies, fields=plan.caption_fields)
    wording = dict(fields=named, seed=seed)
    said = [captions.write(studies, language=own, **wording) for own in plan.languages[:2]]
    # Embedded once each; short ones together, since a batch is as long as its longest sentence.
    tower.tokenize(sorted({*said[0], *said[1]}, key=lambda sentence: (len(sentence), sentence)))
    found = [torch.nn.functional.normalize(tower(tower.tokenize(s)), dim=1).numpy() for s in said]
    keys = captions.keys(studies, fields=named)
    ranks = zero_shot.ranked(*found, keys=keys, once=False)
    asked = studies.assign(tower=tower.name, **{"top 1": ranks["recall_1"].to_numpy()})
    chance = ranks["chance_recall_1"].mean()
    return evaluation.means(asked, ["top 1"], by="tower").assign(chance=chance)


def read_towers(cut: pd.DataFrame, met: pd.DataFrame, unavailable: pd.DataFrame) -> str:
    """Say what is cut at worst, in which tower languages meet, and which towers are missing."""
    whole, said = cut["text"] == "whole report", ["**Reading.**"]
    for what, rows in {"captions": cut[~whole], "whole reports": cut[whole]}.items():
        for row in rows.sort_values("cut", ascending=False, kind="stable")[:1].itertuples():
            said.append(f"At worst {row.cut:.1%} of {what} are cut ({row.tower}, {row.language}).")
    for row in met.itertuples():
        share = figures.with_interval(row.value, row.low, row.high)
        said.append(
            f"{row.tower} finds a study's caption in the other language first in {share} of"
        )
        said.append(f"{row.n} studies, by chance {row.chance:.3f}.")
    said += [
        f"{row.tower}: {figures.UNAVAILABLE}. {row.reason}" for row in unavailable.itertuples()
    ]
    return " ".join(said if said[1:] else [*said, "There is no text to ask about."])


def notes(plan: Plan, came: pd.Series, cut: pd.DataFrame) -> dict[str, Any]:
    """Return the facts of the record beside its numbers."""
    asked, towers = captions.supervision(plan.caption_fields), list(cut["tower"].unique())
    return dict(came=came.to_dict(), supervision=asked, towers=towers)


def metrics(safe: Safe, agreement: pd.DataFrame, met: pd.DataFrame) -> dict[str, float]:
    """Return the numbers of the record."""
    recalls = safe.measured.set_index("type")["recall"]
    every, passed = len(safe.reports), len(safe.passed)
    found: dict[str, float] = {"reports": every, "held": every - passed}
    found |= {f"recall_{kind}": recalls[kind] for kind in LIMITS if kind in recalls}
    for row in agreement.query("kind == 'ALL' and language == 'ALL'").itertuples():
        found["facts_f1"] = row.f1
    return found | {f"top_1 {row.tower}": row.value for row in met.itertuples()}
