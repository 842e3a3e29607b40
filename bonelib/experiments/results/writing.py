"""What a thesis takes along: Table 1, the card, the checklists, the bundle, and what changed."""

import io
import json
import shutil

import pandas as pd

from bonelib import reporting, runs
from bonelib.experiments.context import AnyRun, Context, keep
from bonelib.experiments.results import facts, scoring

# Figures of the chapter by their stage; sheets of radiographs only where these are synthetic.
FIGURES = {"01_counts": "data", "05_labels": "finetuning", "07_localisation": "gradcam"}
FIGURES |= {"07_where": "gradcam", "07_grounding": "gradcam", "09_results": "results"}
PICTURES = {"07_maps": "gradcam"}
FORMS = {"cohort": reporting.characteristics_form, "localisation": reporting.localisation_form}
CAPTIONS = {
    "ranking": "How well each method ranks: value [95 % interval].",
    "operating point": "By the validation threshold or the likeliest class: value [95 % interval].",
    "calibration": "Calibration of the probabilities: value [95 % interval].",
    "cohort": "The cohort by split.",
    "localisation": "How well each map meets the lesions: mean [95 % interval].",
}


# --------------------------------------------------------------------------- who is in the cohort?
def cohort_table(context: Context, run: AnyRun, model: facts.Model) -> str:
    """Describe images and patients by split: Table 1, without an id of anybody."""
    if not run.finished:
        described = reporting.characteristics(facts.view(context, model), task=context.asked)
        run.save_table("cohort", described)
    return reporting.characteristics_form(run.table("cohort")).markdown()


def localisation(context: Context, run: AnyRun) -> str:
    """Average what notebook 07 measured on single maps, as a table or a sentence."""
    single = context.find("gradcam").table("localisation")
    if single.empty:
        return "No lesion of the test set has an outline."
    means = run.table("localisation") if run.finished else reporting.localisation(single)
    return reporting.localisation_form(keep(run, "localisation", means)).markdown()


# ------------------------------------------------------------------- what do the checklists hold?
def known(
    context: Context, run: AnyRun, model: facts.Model, scores: pd.DataFrame
) -> dict[str, str]:
    """Return what the runs know, as sentences by key; a finished run has them written down."""
    if run.finished:
        return json.loads((run.path / "facts.json").read_text(encoding="utf-8"))
    tables = [run.table(name) if name in _described(run) else None for name in FORMS]
    told = reporting.sentences(facts.values(context, model, scores, *tables))
    run.save_text("facts.json", json.dumps(told, indent=1, ensure_ascii=False))
    run.save_text("model_card.md", reporting.model_card(model.name, told))
    for name in reporting.CHECKLISTS:
        form = reporting.checklist_form(reporting.checklist(name, told))
        run.save_text(f"checklists/{name}.md", form.markdown())
    return told


def _described(run: AnyRun) -> list[str]:
    return [name for name in FORMS if (run.path / f"{name}.parquet").exists()]


def checklists(told: dict[str, str]) -> str:
    """Say how many items of each list the run fills."""
    names = {**reporting.CHECKLISTS, reporting.CARD: "model card"}
    counted = {title: reporting.filled(reporting.checklist(n, told)) for n, title in names.items()}
    return "\n".join(f"- {title}: {text}" for title, text in counted.items())


# ----------------------------------------------------------------------- what goes into the thesis?
def bundle(context: Context, run: AnyRun, scores: pd.DataFrame, told: dict[str, str]) -> None:
    """Write ``thesis/`` into the run folder: tables, figures, references, a chapter to compile."""
    if run.finished:
        return
    wanted = FIGURES | (PICTURES if context.synthetic else {})
    found = {}
    for name, stage in wanted.items():
        folder = run.path if stage == "results" else context.find(stage).path
        if (file := folder / "figures" / f"{name}.pdf").exists():
            found[name] = file
    tables = latex_tables(context, run, scores, told)
    files = reporting.thesis(told, tables, list(found), synthetic=context.synthetic)
    for name, text in files.items():
        run.save_text(f"thesis/{name}", text)
    for name, file in found.items():
        with runs.replacing(run.path / "thesis" / "figures" / f"{name}.pdf") as temporary:
            shutil.copyfile(file, temporary)


def latex_tables(
    context: Context, run: AnyRun, scores: pd.DataFrame, told: dict[str, str]
) -> dict[str, str]:
    """Write each table of the chapter, by its name in the template."""

    def places(name: str, caption: str) -> dict[str, str]:
        drawn = reporting.DRAWN if context.synthetic else ""
        return dict(caption=drawn + caption, label=f"tab:{name.replace(' ', '_')}")

    forms = {name: FORMS[name](run.table(name)) for name in _described(run)}
    made = {n: form.latex(**places(n, CAPTIONS[n])) for n, form in forms.items()}
    for part in scoring.parts_of(scores):
        made[part.split()[0]] = reporting.to_latex(scores, of=part, **places(part, CAPTIONS[part]))
    for name, title in reporting.CHECKLISTS.items():
        form = reporting.checklist_form(reporting.checklist(name, told))
        made[name] = form.latex(**places(name, f"{title}."))
    return made


# ------------------------------------------------------------------------------- what changed?
def changed(
    context: Context, run: AnyRun, scores: pd.DataFrame
) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Compare rows and records with those of the run before.

    Returns:
        A sentence, the rows that moved, the records that differ; see ``reporting.changes``.
    """
    found = runs.folder().glob(f"{scoring.read_of(context)[0]}/record.json")
    found = sorted("/".join(path.parts[-6:-1]) for path in found)
    heads = {name: runs.freshness.look_at(name)[0] for name in found if name != run.name}
    names = ("hash", "inputs", "code")  # those of a record that can't be read are not there
    heads = {n: {k: head[k] for k in names} for n, head in heads.items() if "hash" in head}
    if not run.finished:
        run.save_text(scoring.HEADS, json.dumps(heads))
    files = [run.path / f"before-{name}" for name in (scoring.ROWS, scoring.HEADS)]
    if not all(file.exists() for file in files):
        return "No run before this one is kept: there is nothing to compare.", *[pd.DataFrame()] * 2
    then = pd.read_csv(io.StringIO(files[0].read_text(encoding="utf-8")), keep_default_na=True)
    rows = reporting.changes(then, scores)
    records = reporting.changed_records(json.loads(files[1].read_text(encoding="utf-8")), heads)
    said = f"Since the run before: {len(rows)} changes of rows, {len(records)} of records."
    return said, rows, records
