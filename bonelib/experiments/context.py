"""What the steps of one experiment share: data, task, seed, and where its runs lie.

The parameters that every notebook has come in; the view of the cohort, the decoded images, frozen
features and the run itself go out. Nothing here computes a result.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from bonelib import cohort, encoders, evaluation, features, figures, images, runs, splits
from bonelib.datasets import own_tasks
from bonelib.evaluation import Method
from bonelib.experiments.progress import bar

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

AnyRun = runs.Run | runs.Record
# Columns of a cohort table that hold a path of the data folder.
_PATHS = (cohort.PATH, cohort.MASK, cohort.REPORT)
METADATA = Method(sees="metadata", strategy="probe")
REGIONS = Method(sees="metadata", strategy="probe", detail="regions only")


@dataclass(frozen=True)
class Context:
    """The names that travel together through an experiment.

    Attributes:
        profile: ``tiny``, ``demo`` or ``full``.
        data: ``phantom``, one of ``datasets.NAMES``, several as ``a+b``, or the path of a CSV.
        root: Its folder; empty looks in ``BONELIB_DATA``.
        task: The question asked of each radiograph.
        variant: Names the run that is made.
        inputs: Variants of the runs that are read: empty for ``variant``, one name for all, or
            ``stage:name`` for single stages, separated by commas.
        test: The test set, ``fold0`` or ``center:A`` say; which images ``fold0`` holds is up to
            the seed of the folds in the run of notebook 01.
        reuse: Load a finished run instead of computing again.
    """

    profile: str = "tiny"
    data: str = "phantom"
    root: str = ""
    task: str = "tumor"
    seed: int = 0
    variant: str = "default"
    inputs: str = ""
    test: str = "fold0"
    reuse: bool = True

    def __post_init__(self) -> None:
        own_tasks.declare(runs.task_files(self.data, self.root))

    # ------------------------------------------------------------------ runs
    def _names(self, stage: str) -> dict[str, Any]:
        task = "any" if stage in runs.ANY_TASK else self.task
        return dict(profile=self.profile, data=self.data, task=task, seed=self.seed)

    def find(self, stage: str, **expected: Any) -> runs.Record:
        """Return the finished run of an earlier stage; see ``runs.find``."""
        variant = runs.input_variant(self.inputs, stage, default=self.variant)
        return runs.find(stage, **self._names(stage), root=self.root, variant=variant, **expected)

    def start(
        self,
        stage: str,
        *,
        settings: Mapping[str, Any],
        inputs: Sequence[runs.Record] = (),
        files: Mapping[str, Path] | None = None,
        reads: Sequence[str] = (),
        drawn: Path | None = None,
    ) -> AnyRun:
        """Open the run of this experiment, or return its finished record; see ``runs.start``.

        Among its settings is the seed of the folds that it uses, so that a record names them.

        Args:
            drawn: Where the synthetic cohort lies, for the run that reads it.
        """
        if stage != "data":
            settings = {**settings, "split_seed": self.cohort_run.settings["split_seed"]}
        return runs.start(
            stage,
            **self._names(stage),
            root=drawn if drawn and self.synthetic else self.root,
            variant=self.variant,
            reuse=self.reuse,
            inputs=inputs,
            files=files or {},
            reads=reads,
            **settings,
        )

    # ------------------------------------------------------------------ data
    @property
    def synthetic(self) -> bool:
        """Whether the radiographs are drawn: everything shown of them must say so."""
        return runs.is_drawn(self.data)

    @property
    def like_btxrd(self) -> bool:
        """Whether they are those that stand in for BTXRD, whose numbers they are set beside."""
        return self.data == runs.DRAWN[0]

    @cached_property
    def asked(self) -> cohort.Task:
        """The task, as one object."""
        return cohort.task(self.task)

    @cached_property
    def cohort_run(self) -> runs.Record:
        """The finished run of notebook 01."""
        return self.find("data")

    def view(self, test: str = "") -> pd.DataFrame:
        """Return the cohort with the labels of the test set hidden; see ``splits.apply``."""
        return self.here(splits.apply(self.cohort_run, test=test or self.test))

    def here(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the paths of files as they are on this machine.

        Notebook 01 noted where the data lay; a copy of them may lie elsewhere on a GPU node.
        """
        if not self._moves:
            return table
        moved = table.copy()
        for column in (c for c in _PATHS if c in table):
            moved[column] = [_moved(cell, self._moves) for cell in table[column]]
        return moved

    @cached_property
    def _moves(self) -> list[tuple[str, str]]:
        """Folders where notebook 01 found the data, and where they lie now, if elsewhere."""
        head = self.cohort_run.head
        if self.synthetic:  # those lie where they were drawn
            return []
        try:
            root = str(runs.data_root(self.data, self.root))
        except FileNotFoundError:  # not under this name: what was noted is all there is
            return []
        pairs = [*zip(head["root"].split(os.pathsep), root.split(os.pathsep), strict=False)]
        if self.data.endswith(".csv"):  # its paths count from its own folder as well
            both = Path(head["data"]), Path(self.data).absolute()
            pairs.append((str(both[0].parent), str(both[1].parent)))
        return [(there, now) for there, now in pairs if there and there != now]

    def other(self, data: str) -> Self:
        """Return the context of another data set, which notebook 01 read under the same variant.

        Raises:
            ValueError: It is among those of ``DATA``.
        """
        if set(data.split("+")) & set(self.data.split("+")):
            raise ValueError(f"also={data!r} is among DATA={self.data!r} already. Leave it out.")
        return replace(self, data=data, root="", test="fold0")

    def beside(self, data: str) -> pd.DataFrame:
        """Return the images of another data set to learn from; none of them is ever judged.

        Ids carry its name. Fractures and intact bones are said by their sign, the cortex: a label
        that is judged has no name here.
        """
        table = self.other(data).view()
        table = table[table["split"] != "test"].assign(split="train")
        for column in (cohort.IMAGE_ID, cohort.PATIENT, cohort.STUDY):
            table[column] = (data + "/" + table[column].astype("string")).astype(object)
        known = table.reindex(columns=["fracture", "distractor", "cortex"])
        fracture, distractor, cortex = (known[c].astype(object).fillna("") for c in known)
        whole, torn = fracture == "intact", (fracture == "fractured") | (distractor == "fracture")
        cortex = cortex.mask(whole & (cortex == ""), "intact").mask(torn, "broken")
        return table.assign(cortex=cortex).drop(
            columns=[task.column for task in cohort.labelled(table)]
        )

    def ingredients(self, names: Sequence[str], *, of: str) -> list[runs.Record]:
        """Return the finished pretrainings, on the same folds, that the recipe ``of`` averages.

        Args:
            names: As in ``Recipe.soup``.
        """
        found = []
        for name in names:
            variant, _, seed = name.partition("@")
            variant = variant.replace("*", self.variant.removeprefix(of))
            own = replace(self, inputs=variant, seed=int(seed or self.seed))
            folds = self.cohort_run.settings["split_seed"]
            found.append(own.find("pretraining", test=self.test, split_seed=folds))
        return found

    def cache(self, size: int, *, fit: str = "", also: str = "") -> images.Cache:
        """Return the decoded images of the cohort and ``also``, resized as by 01 unless told."""
        table = self.here(self.cohort_run.table("cohort"))
        if also:
            table = pd.concat([table, self.beside(also)], ignore_index=True)
        return decoded(table, size=size, fit=fit or self.cohort_run.settings["fit"])

    def features(
        self, tower: Any, cache: images.Cache, image_ids: Sequence[str] | pd.Series
    ) -> "np.ndarray":
        """Return the frozen features ``(N, D)`` of images, computed once per tower and content."""
        return frozen_features(tower, cache, image_ids)

    # ------------------------------------------------------------------ what is shown
    def figure(
        self,
        run: AnyRun,
        name: str,
        figure: "Figure | None",
        *,
        of: str = "radiographs",
        publish: bool = True,
    ) -> None:
        """Mark a figure that is synthetic; a run that is being made keeps it.

        Radiographs of persons stay in the run: ``figures/`` is made to be passed on. Jupyter shows
        what was drawn in a cell at its end; returned, the figure would stand there twice.

        Args:
            figure: None where there is nothing to draw.
            of: What is synthetic in it.
            publish: See ``runs.Run.save_figure``.
        """
        if figure is None:
            return
        if self.synthetic:
            figures.synthetic_note(figure, of)
        if not run.finished:
            shown = publish and (self.synthetic or not figures.holds_radiographs(figure))
            run.save_figure(name, figure, publish=shown)

    @property
    def metric(self) -> str:
        """The primary metric of the task: a column of a table of scores."""
        return evaluation.primary(self.asked).metric

    def ranked(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that have a score, the best one first."""
        metric, lower, _ = evaluation.primary(self.asked)
        known = scores.dropna(subset=[metric])
        return known.sort_values(metric, ascending=lower, kind="stable")

    def primary(self, row: pd.Series) -> str:
        """Write the primary metric of a row of scores with its interval."""
        ends = ("", "_low", "_high")
        return figures.with_interval(*(row[f"{self.metric}{end}"] for end in ends))

    def metrics(self, scores: pd.DataFrame) -> dict[str, float]:
        """Return the primary metric by method, as a record keeps it; none where none is there."""
        if self.metric not in scores:
            return {}
        return scores.dropna(subset=[self.metric]).set_index("method")[self.metric].to_dict()


def _moved(cell: Any, moves: Sequence[tuple[str, str]]) -> Any:
    """Return a path as it is now; what is no path, or lies where it lay, stays."""
    told = str(cell)
    below = (now + told[len(there) :] for there, now in moves if told.startswith(there + os.sep))
    return next(filter(os.path.exists, below), cell)


# ---------------------------------------------------------------------- trainings elsewhere
@dataclass(frozen=True)
class Process:
    """This process among those that train together, as ``torchrun`` started them.

    Attributes:
        rank: Its number; the first one, 0, writes.
        ranks: How many there are.
        devices: How many of them are on this machine.
    """

    rank: int = 0
    ranks: int = 1
    devices: int = 1

    @classmethod
    def here(cls) -> Self:
        """Read the environment; a process that was started alone is the only one."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        return cls(*(int(os.environ.get(name, i > 0)) for i, name in enumerate(names)))

    @property
    def first(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    @property
    def part(self) -> dict[str, int]:
        """The arguments of ``images.loader`` by which it takes its part of each batch."""
        return {"rank": self.rank, "ranks": self.ranks}

    @property
    def where(self) -> dict[str, int]:
        """The arguments of ``training.fit`` that follow."""
        return {"devices": self.devices, "nodes": self.ranks // self.devices}


def keep_inputs(run: runs.Run, setup: Any) -> None:
    """Note in a run what its training reads, so that another process finds it.

    Args:
        setup: Of `pretraining` or `finetuning`.
    """
    cache = setup.loader.cache
    run.save_table(setup.kept_as, setup.table)
    run.save_table("files", cache.all_files.astype(str))
    run.save_text("store.txt", str(cache.store))


def leave_plan(run: AnyRun, setup: Any) -> None:
    """Write what ``bonelib train`` needs to carry the training out elsewhere, and stop here.

    Raises:
        runs.Planned: Always, with the command to give; unless the training is there already.
    """
    if run.trained:
        return
    keep_inputs(run, setup)
    setup.save_untrained(run.path / "untrained")
    runs.save_plan(run)
    raise runs.Planned(runs.how_to_train(run.path))


def reopen_images(run: runs.Run, *, size: int, fit: str) -> images.Cache:
    """Open the decoded images of a planned run.

    Raises:
        FileNotFoundError: They are neither where the plan says nor in this machine's cache folder.
        ValueError: It was planned from other files.
    """
    store = Path((run.path / "store.txt").read_text(encoding="utf-8").strip())
    if not store.exists():  # copied to another machine, it keeps its name
        store = runs.cache_folder("images") / store.name
    return images.reopen(store, run.table("files"), size=size, fit=fit)


def decoded(table: pd.DataFrame, *, size: int, fit: str) -> images.Cache:
    """Decode the images of a table, once for all notebooks; see ``images.cache``."""
    at, cores = runs.cache_folder("images"), os.cpu_count() or 1
    with bar("decoding") as show:
        return images.cache(table, size=size, fit=fit, folder=at, workers=cores, progress=show)


def metadata(table: pd.DataFrame) -> dict[Method, "np.ndarray"]:
    """Return what metadata alone say of each image: with every site, and with the limb only."""
    return {
        METADATA: cohort.metadata(table, sites=True).to_numpy(),
        REGIONS: cohort.metadata(table).to_numpy(),
    }


def frozen_features(
    tower: Any, cache: images.Cache, image_ids: Sequence[str] | pd.Series
) -> "np.ndarray":
    """Return the frozen features ``(N, D)`` of images, computed once per tower and content."""
    told = dict(weights=encoders.weights_hash(tower), content=cache.key)
    folder, loader = runs.cache_folder("features"), in_order(cache, image_ids, tower)
    with bar("features") as show:
        return features.image_features(tower, loader, folder=folder, progress=show, **told)


def in_order(
    cache: images.Cache, image_ids: Sequence[str] | pd.Series, tower: Any, *, side: int = 0
) -> images.Loader:
    """Return batches of whole images, of ``side`` pixels, for a tower that only looks at them."""
    # At most 64, and as many pixels as those have at 128 px: at 224 px a batch of 64 took 1.4 GB
    # more than one of 16, and no less time.
    size = max(1, min(64, 2**20 // cache.size**2))
    pixels = tower.preprocessing.pixels() | {"sides": (side or cache.size,)}
    return images.loader(cache, image_ids, batch_size=size, **pixels)


# ---------------------------------------------------------------------- what a run keeps
def applied(task: cohort.Task, *, fit: str) -> dict[str, Any]:
    """Return what a bundle must say of its task and its images, for whoever applies the model."""
    names = ("kind", "classes", "positive", "normal", "unit")
    return {"task": task.name, **{n: getattr(task, n) for n in names}} | pictured(fit)


def pictured(fit: str) -> dict[str, Any]:
    """Return how images became squares of grey, as a bundle records it."""
    return {"resize": fit, "decoding": images.pixels.RECIPE}


def keep(run: AnyRun, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Let a run that is being made keep a table, and return it; a finished one gives its own."""
    if not run.finished:
        run.save_table(name, table)
    return run.table(name)


def opened(run: AnyRun) -> pd.DataFrame:
    """Return what is sealed of the test images, but the reports; a run opens them once."""
    try:
        return run.table("opened")
    except FileNotFoundError:
        seen = splits.open_test(run).drop(columns=cohort.REPORT, errors="ignore")
        run.save_table("opened", seen.astype("object"))
        return seen


def finish(run: AnyRun, *, notes: Mapping[str, Any] | None = None, **metrics: Any) -> runs.Record:
    """Write the record of a run that is being made; a finished one stays as it is.

    Args:
        notes: Facts kept beside the metrics.
    """
    if run.finished:
        return run
    run.note(**notes or {})
    return run.finish(**metrics)
