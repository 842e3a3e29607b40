"""The data, step by step as notebook 01 reads them: table, files, groups, folds, shortcuts.

The parameters of the notebook come in; the run that every later one builds on goes out, its labels
sealed apart. Any kind of task will do, a set with captions alone, or a table without any image.
What only drawn radiographs are asked is in `drawn`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bonelib import audit, cohort, datasets, encoders, figures, images, phantom, runs, splits
from bonelib.experiments.context import AnyRun, Context, decoded, finish, keep
from bonelib.experiments.progress import bar

# Neither the synthetic cohort nor the folds follow SEED: runs that differ in it are scored on the
# same images. SPLIT_SEED draws other folds of them.
SETTINGS = pd.DataFrame(
    {
        "tiny": dict(radiographs=96, phantom_size=128, size=64, folds=3, compared=48),
        "demo": dict(radiographs=1600, phantom_size=256, size=128, folds=5, compared=730),
        "full": dict(radiographs=3746, phantom_size=512, size=256, folds=5, compared=730),
    },
    dtype=object,
)
TOWER = "packaged:efficientnet_lite0"  # whose frozen features the audit looks at
# Columns of single sets that tell what a picture may show: a cast, the device, a published split.
FURTHER = ("cast", "device", datasets.PUBLISHED_SPLIT)
COUNTED = (cohort.SITE, cohort.VIEW, cohort.CENTER, cohort.SEX, cohort.SIDE, cohort.HARDWARE)


@dataclass(frozen=True)
class Radiographs:
    """The table of a data set with what is known of its files, as far as the notebook has come.

    Attributes:
        table: A row a radiograph; from `group` on with ``group, group_kind, fold``.
        root: The folder of the data set.
        notes: What its reader found odd, in sentences.
        cache: The decoded pictures; None where no row has a file.
        seen: Every row of the table has its picture, so that pictures can be looked at.
        sha256: Content of the files by ``image_id``, as found or as the set lists them.
        changed: Images whose content is not the one that the set lists.
        near: Pairs of near duplicates; None where there are no pictures.
        contradictions: Copies that carry opposite labels.
    """

    table: pd.DataFrame
    root: Path
    notes: list[str]
    cache: images.Cache | None = None
    seen: bool = False
    sha256: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    near: pd.DataFrame | None = None
    contradictions: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def shown(self) -> pd.DataFrame:
        """The table without the paths of this machine."""
        return self.table.drop(columns=[cohort.PATH, cohort.MASK, cohort.REPORT])

    @property
    def pictured(self) -> int:
        """How many files could be decoded."""
        return 0 if self.cache is None else len(self.cache)

    @property
    def excluded(self) -> pd.DataFrame:
        """``image_id, path, reason`` of the rows without a picture."""
        if self.cache is not None:
            return self.cache.excluded
        return self.table[[cohort.IMAGE_ID, cohort.PATH]].assign(reason="there is no file")

    @property
    def groups(self) -> pd.DataFrame:
        """Groups and images by what a group stands for."""
        counts = self.table.groupby("group_kind")["group"].agg(["nunique", "size"])
        return counts.rename(columns={"nunique": "groups", "size": "images"})

    @property
    def folds(self) -> pd.DataFrame:
        """Images of each class in each fold."""
        return pd.crosstab(self.table["fold"], splits.strata(self.table))


def plan(context: Context, *, resize: str, split_seed: int = 0, folds: int = 0) -> dict[str, Any]:
    """Return the settings of this profile as the record keeps them.

    Args:
        resize: ``pad`` keeps the aspect ratio; ``squash`` gives the whole square to the picture.
        split_seed: Draws the folds; 0 or more.
        folds: How many; 0 takes the profile's.

    Raises:
        ValueError: The seed is negative, or the folds are too few to train on one.
    """
    if folds and folds < splits.LEAST:
        raise ValueError(f"FOLDS is {splits.LEAST} or more, or 0 for the profile's; not {folds}.")
    if split_seed < 0:
        raise ValueError(f"SPLIT_SEED draws the folds: a whole number from 0, not {split_seed}.")
    common = dict(fit=resize, cohort_seed=0, split_seed=split_seed, near_duplicates=True)
    common |= dict(strengths=(1e-4, 1e-3, 1e-2)) | (dict(folds=folds) if folds else {})
    return SETTINGS[context.profile].to_dict() | common


# ---------------------------------------------------------------------- what is in the table?
def draw(data: str, plan: Mapping[str, Any]) -> Path:
    """Draw the synthetic sets of a name, once for each state of the code that draws them.

    Several share the radiographs of the profile.

    Returns:
        Their folders, joined as in PATH.
    """
    names, folders = data.split("+"), []
    count, workers = plan["radiographs"] // len(names), os.cpu_count() or 1
    size, seed = plan["phantom_size"], plan["cohort_seed"]
    for name in names:
        _, _, kind = name.partition("_")
        stem = "-".join(filter(None, (runs.code_hash("phantom"), kind, str(count))))
        folder = runs.cache_folder("phantom") / stem
        write = partial(phantom.write_task, kind=kind) if kind else phantom.write
        with bar("drawing") as show:
            at = write(folder, images=count, size=size, seed=seed, workers=workers, progress=show)
        folders.append(str(at))
    return Path(os.pathsep.join(folders))


def read(context: Context, plan: Mapping[str, Any], *, classes: str = "") -> Radiographs:
    """Read the data set into one checked table; the synthetic one is drawn first.

    Args:
        classes: See ``datasets.class_names``.

    Raises:
        ValueError: The table breaks the contract of ``cohort``, or has labels but none of the task.
    """
    root = (
        draw(context.data, plan)
        if context.synthetic
        else runs.data_root(context.data, context.root)
    )
    names = dict(task=context.task, classes=datasets.class_names(classes))
    table = datasets.read(context.data, root, missing=datasets.KEEP, **names)
    cohort.check(table, task=_asked(context, table))
    return Radiographs(table, Path(root), table.attrs.get("notes", []))


def _asked(context: Context, table: pd.DataFrame) -> cohort.Task | None:
    """Return the task; None for a set without any label, which captions alone describe."""
    return context.asked if cohort.labelled(table) else None


def read_table(context: Context, radiographs: Radiographs) -> str:
    """Say how many radiographs there are, which labels they carry, and what is odd."""
    table, tasks = radiographs.table, cohort.labelled(radiographs.table)
    labels = ", ".join(f"{t.name} {table[t.column].notna().sum():,}" for t in tasks)
    said = f"{len(table):,} radiographs were read from {context.data}; labels: {labels or 'none'}."
    if not tasks:
        said += " Folds are balanced by nothing, and no shortcut can be scored."
    return _listed(said, radiographs.notes or ["The reader found nothing odd."])


def _listed(said: str, notes: list[str]) -> str:
    return "\n".join([f"**Reading.** {said}", "", *(f"- {note}" for note in notes)])


# ---------------------------------------------------------------------- which files can be read?
def decode(context: Context, radiographs: Radiographs, plan: Mapping[str, Any]) -> Radiographs:
    """Decode every file once and leave out what can't be read.

    Where too few pictures are left for the folds, all rows stay: the table alone answers what it
    can, and notebooks that look at pictures ask for the files.
    """
    table = radiographs.table
    if table[cohort.PATH].isna().all():
        return radiographs
    cache = decoded(table, size=plan["size"], fit=plan["fit"])
    pictured = table[table[cohort.IMAGE_ID].isin(cache.ids)].reset_index(drop=True)
    seen = _enough(pictured, _asked(context, table), folds=plan["folds"])
    return replace(radiographs, table=pictured if seen else table, cache=cache, seen=seen)


def _enough(pictured: pd.DataFrame, task: cohort.Task | None, *, folds: int) -> bool:
    """Tell whether two classes (or the images) are enough for the folds."""
    if cohort.problems(pictured, task=task):
        return False
    if task is None:
        return len(pictured) >= folds
    known = splits.strata(pictured, by=task.column)
    counts = known[known != splits.UNLABELLED].value_counts()
    return bool((counts >= folds).sum() > 1)


def read_files(radiographs: Radiographs, plan: Mapping[str, Any]) -> str:
    """Say how many files could be decoded, why the others could not, and what is odd about them."""
    read, failed = radiographs.pictured, radiographs.excluded
    said = f"{read:,} of {read + len(failed):,} files were decoded."
    if len(failed):
        reasons = failed["reason"].value_counts()
        said += f" Left out: {'; '.join(f'{n} × {why}' for why, n in reasons.head(5).items())}."
    if not radiographs.seen:
        said += f" Too few pictures for {plan['folds']} folds: all rows are kept."
    return _listed(said, radiographs.cache.notes if radiographs.cache is not None else [])


# ---------------------------------------------------------------------- what belongs together?
def group(radiographs: Radiographs, plan: Mapping[str, Any]) -> Radiographs:
    """Tie patients, copies and neighbours together, and cut folds that part none of them."""
    table, cache = radiographs.table, radiographs.cache
    listed = table.set_index(cohort.IMAGE_ID).get("sha256", pd.Series(dtype="object")).dropna()
    own = {} if cache is None else dict(zip(cache.ids, cache.sha256, strict=True))
    sha256 = listed.to_dict() | own
    near = None if cache is None else splits.near_duplicates(cache.images, cache.ids)
    table = splits.add_groups(table, sha256=sha256, near=near)
    return replace(
        radiographs,
        table=splits.add_folds(table, folds=plan["folds"], seed=plan["split_seed"]),
        sha256=sha256,
        changed=tuple(n for n, content in listed.items() if own.get(n, content) != content),
        near=near,
        contradictions=splits.contradictions(table, sha256=sha256, near=near),
    )


def read_groups(radiographs: Radiographs) -> str:
    """Say how many groups the images form, and how far that can be trusted."""
    table, kinds = radiographs.table, radiographs.groups
    near, torn = radiographs.near, radiographs.contradictions
    pairs = "not looked for" if near is None else f"{len(near)} pairs"
    notes = [f"Near duplicates: {pairs}; copies with opposite labels: {torn['group'].nunique()}."]
    notes += [f"{r.groups:,} groups of {r.images:,} images: {r.Index}." for r in kinds.itertuples()]
    if changed := radiographs.changed:
        notes.append(f"{len(changed)} files differ from the published ones, e.g. {changed[0]}.")
    said = f"{len(table):,} images form {table['group'].nunique():,} groups in "
    return _listed(f"{said}{table['fold'].nunique()} folds; no group is parted.", notes)


# ---------------------------------------------------------------------- what does it look like?
def draw_counts(context: Context, radiographs: Radiographs) -> plt.Figure:
    """Draw how the classes of the task lie over sites, views, centres and what else varies."""
    table, order = radiographs.table, context.asked.classes
    by = context.asked.column if context.asked.column in table else None
    asked = splits.strata(table, by=by).replace(splits.UNLABELLED, "unknown")
    columns = [c for c in (*COUNTED, datasets.PUBLISHED_SPLIT, cohort.SOURCE) if c in table]
    varied = [c for c in columns if table[c].map(str).nunique() > 1][:3] or [cohort.SOURCE]
    most = max(table[c].map(str).nunique() for c in varied)
    size = (figures.WIDTH, min(3.6, 1.3 + 0.3 * most))
    figure, axes = plt.subplots(1, len(varied), figsize=size, layout="constrained", squeeze=False)
    for axis, column in zip(axes[0], varied, strict=True):
        rows = table.assign(asked=asked)
        figures.plot_counts(rows, column, "asked", ax=axis, order=order or sorted(set(asked)))
    return figure


def draw_radiographs(radiographs: Radiographs) -> plt.Figure | None:
    """Lay out six images of each class, one a patient; None where there are no pictures."""
    table, cache = radiographs.table, radiographs.cache
    if cache is None:
        return None
    shown = table[table[cohort.IMAGE_ID].isin(cache.ids)].drop_duplicates("group")
    shown = shown.assign(title=splits.strata(table)[shown.index]).groupby("title").head(6)
    shown = shown.sort_values("title", kind="stable")
    rows = cache.rows(shown[cohort.IMAGE_ID])
    return figures.contact_sheet([*cache.images[rows]], shown["title"].tolist(), columns=6)


def read_counts(context: Context, radiographs: Radiographs) -> str:
    """Say how far the most telling single column parts the classes."""
    if context.asked.column not in radiographs.table:
        return "**Reading.** Without labels nothing can be confounded with them."
    classes = splits.strata(radiographs.table, by=context.asked.column)
    classes = classes[classes != splits.UNLABELLED]
    plain = classes.value_counts(normalize=True).iloc[0]
    table = radiographs.table.loc[classes.index]
    told = {
        column: pd.crosstab(table[column].map(str), classes).max(axis=1).sum() / len(table)
        for column in COUNTED
        if column in table
    }
    best = max(told, key=told.__getitem__)
    return (
        f"**Reading.** Guessing the commonest class is right for {plain:.0%} of images; guessing "
        f"the commonest class of each {best.replace('_', ' ')} for {told[best]:.0%}. Below stand "
        "up to six images of each class, one a patient."
    )


# ---------------------------------------------------------------------- what could fool a model?
def shortcuts(context: Context, run: AnyRun, radiographs: Radiographs) -> pd.DataFrame:
    """Score everything that should not tell the classes apart, for every task with labels.

    Returns:
        The findings of ``audit`` on this task; where no label is known, those that need none.
    """
    if not run.finished:
        table, evidence = radiographs.table, _evidence(context, radiographs)
        tasks = [one for one in cohort.labelled(table) if not cohort.problems(table, task=one)]
        found = [
            audit.findings(table, task=one, **evidence).assign(task=one.name if one else "")
            for one in tasks or [None]
        ]
        run.save_table("audit", pd.concat(found))
    found = run.table("audit")
    return found[found["task"].isin([context.task, ""])].drop(columns="task")


def _evidence(context: Context, radiographs: Radiographs) -> dict[str, Any]:
    """Collect what an audit may look at: fields, copies and, where all are there, pictures."""
    table, cache = radiographs.table, radiographs.cache
    evidence = dict(
        sha256=radiographs.sha256 or None,
        near=radiographs.near,
        fields=[name for name in FURTHER if name in table],
    )
    if not radiographs.seen or cache is None:
        return evidence
    rows = cache.rows(table[cohort.IMAGE_ID])
    masks = np.zeros((len(rows), cache.size, cache.size), bool)
    for row in np.flatnonzero(table[cohort.MASK].notna()):
        place = cache.geometry.iloc[rows[row]]
        masks[row] = images.mask(table[cohort.MASK].iloc[row], place, size=cache.size)
    tower = encoders.image(TOWER, size=cache.size)
    return evidence | dict(
        images=cache.images[rows],
        masks=masks,
        files=cache.files.iloc[rows].reset_index(drop=True),
        features=context.features(tower, cache, table[cohort.IMAGE_ID]),
    )


def draw_shortcuts(found: pd.DataFrame) -> plt.Figure | None:
    """Draw how well each shortcut alone would do; None where none could be scored."""
    if found["low"].isna().all():
        return None
    return figures.plot_findings(found, limits=(audit.AMBER, audit.RED)).get_figure(root=True)


def read_shortcuts(found: pd.DataFrame, task: str) -> str:
    """Name what is red and amber, the strongest shortcut, and what could not be asked."""
    named = {k: ", ".join(part["what"].unique()) for k, part in found.groupby("level")}
    best = found[found["low"].notna() & (found["check"] != "origin")].nlargest(1, "value")
    unasked = [check for check in audit.CHECKS if check not in set(found["check"])]
    said = f"**Reading.** Of {len(found)} checks red: {named.get('red', 'none')}; "
    said += f"amber: {named.get('amber', 'none')}."
    for row in best.itertuples():
        score = figures.with_interval(row.value, row.low, row.high)
        said += f" The strongest shortcut for {task} is *{row.what}*: {score}, {row.n} images."
    return said + (f" Nothing to look at for: {', '.join(unasked)}." if unasked else "")


# ---------------------------------------------------------------------- the sealed table
def seal(run: AnyRun, radiographs: Radiographs) -> runs.Record:
    """Store what may be seen of any image, and apart from it the sealed rest; finish the run."""
    public, sealed = splits.seal(radiographs.table)
    keep(run, "cohort", public)
    keep(run, "labels", sealed)
    excluded = keep(run, "excluded", radiographs.excluded.astype(str))
    notes = dict(
        table_hash=splits.fingerprint(public),
        images_key=radiographs.cache.key if radiographs.cache is not None else "",
        notes=radiographs.notes,
        pictured=radiographs.pictured,
        root=str(radiographs.root),
        group_kinds=radiographs.groups["images"].to_dict(),
    )
    groups = int(public["group"].nunique())
    return finish(run, notes=notes, images=len(public), excluded=len(excluded), groups=groups)


def read_seal(radiographs: Radiographs) -> str:
    """Name the columns that are sealed."""
    sealed = splits.seal(radiographs.table)[1].columns[1:]
    return f"**Reading.** {len(sealed)} columns are sealed: {', '.join(sealed)}."
