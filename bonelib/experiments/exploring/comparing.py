"""The run comparer of notebook 09: every method of every finished run of a task, as stored."""

from bonelib import captions, evaluation, explore, figures, runs
from bonelib.evaluation import METHOD, Method
from bonelib.experiments.context import Context

FIRST = Method("captions", "probe")  # what others are set beside at first, as in notebook 05


def compare_runs(context: Context) -> explore.Panel:
    """Let a reader set finished runs side by side; see ``explore.runs``. Opens no label."""
    listed = runs.collect(profile=context.profile, data=context.data, root=context.root)
    stages, own, methods = [*runs.NOTEBOOKS], (context.variant, context.seed), set[Method]()
    order = lambda row: (stages.index(row.stage), (row.variant, row.seed) != own)  # noqa: E731
    tables, trained, refused = {}, {}, {}
    for row in sorted(listed.itertuples(), key=order):
        record = runs.Record(runs.folder() / row.run)
        if row.task not in (context.task, "any"):
            refused[row.run] = f"it asks {row.task}, not {context.task}"
        elif row.stale:
            refused[row.run] = f"it is stale: {row.why[:120]}"
        else:
            tag = runs.NOTEBOOKS[row.stage]
            tag += f" {row.variant}-s{row.seed}" if (row.variant, row.seed) != own else ""
            history = _by_method(record, "history")
            for method, table in _by_method(record, "predictions").items():
                # Curves tell methods apart by their columns alone.
                parts = [method.detail, f"notebook {tag}" if method in methods else ""]
                detail, name = ", ".join(filter(None, parts)), f"{tag} {_told(record, method)}"
                tables[name] = table.dropna(subset=["label"]).assign(detail=detail)
                if method in history:
                    trained[name] = history[method].assign(detail=detail)
                methods.add(method)
    first = [name for name, table in tables.items() if FIRST in evaluation.by_method(table)]
    refused |= {n: "its test labels were not opened" for n, t in tables.items() if t.empty}
    tables = {name: tables[name] for name in [*first, *tables] if len(tables[name])}
    said = "Synthetic radiographs." if context.synthetic else ""
    beside = dict(histories=trained, refused=refused, said=said)
    return explore.runs(tables, task=context.asked, **beside)


def _by_method(record: runs.Record, name: str) -> dict:
    """Part a table of a run by its methods; none where it has no such table."""
    if not (record.path / f"{name}.parquet").exists():
        return {}
    rows = record.table(name)
    return evaluation.by_method(rows) if {*METHOD} <= {*rows} else {}


def _told(record: runs.Record, method: Method) -> str:
    """Name a method, and what a score by prompts may be called after its pretraining."""
    name = figures.display_name(method)
    fields = record.notes.get("caption_fields", (captions.OWN,))
    return f"{name} ({captions.supervision(fields)})" if method.strategy == "prompt" else name
