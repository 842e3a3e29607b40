"""A model that is ready to be applied: decode, predict, call, a batch at a time.

Files come in; rows of probabilities go out. Only as many pixels are in memory as one batch and what
is decoded ahead of it.
"""

import hashlib
import itertools
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from bonelib import (
    adaptation,
    cohort,
    dicom,
    encoders,
    evaluation,
    explain,
    features,
    figures,
    images,
    models,
    runs,
    zero_shot,
)
from bonelib.experiments.context import in_order
from bonelib.experiments.predict.sources import gather

DECODERS = 2  # threads; the decoders release Python's lock
AHEAD = 4 * DECODERS  # files that are decoded before they are needed
TOGETHER = 16  # images whose heat maps are made at a time
HIDDEN = "this file can't be predicted; the reason, which may name a person, was printed"
FIRST, LAST = ["image_id", "file", "study", "task"], ["heatmap", "note", "problem"]


@dataclass(frozen=True)
class Predictor:
    """A trained model with all that applying it needs; ``bonelib.load`` makes it.

    Attributes:
        folder: Of its bundle.
        module: Pixels to logits (or values), with the tower as ``image``.
        fit: How images become squares, ``pad`` or ``squash``.
        threshold: Probability from which the positive class is called; None without one.
        notes: What was assumed of the bundle.
        values: What each column stands for, where a value is asked for in words.
    """

    folder: Path
    module: Any
    task: cohort.Task
    fit: str
    threshold: float | None
    notes: tuple[str, ...]
    values: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Side in pixels of what the model sees."""
        return self.module.image.preprocessing.size

    @property
    def scores(self) -> list[str]:
        """Columns of what is predicted: a probability a class, or a value."""
        return [f"p_{name}" for name in self.task.classes] or ["value"]

    def predict(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        heatmaps: str | Path | None = None,
        named: bool | None = None,
    ) -> pd.DataFrame:
        """Predict files, folders, DICOM exports or tables of paths: a row a file, in order.

        Args:
            paths: See `sources.gather`.
            heatmaps: See `batches`.
            named: See `batches`.

        Returns:
            The rows of `batches`. A warning says what was passed over or assumed, and which files
            have no prediction.

        Raises:
            ValueError: Paths can't be used, or there is no heat map of such a model.
        """
        files, problems = gather(paths), []
        rows = self.batches(files, heatmaps=heatmaps, named=named, problems=problems)
        table = pd.concat(rows, ignore_index=True)
        said = [*self.notes, *files.attrs["notes"]]
        if problems:
            said.append(f"{len(problems)} of {len(table)} files have no prediction:")
        if said:
            warnings.warn("\n  ".join([*said, *problems]), stacklevel=2)
        return without_empty(table)

    def check_heatmaps(self) -> None:
        """Refuse heat maps of a model that has none.

        Raises:
            ValueError: No layer of it has rows and columns, or its head has no gradient.
        """
        if isinstance(self.module, models.FeatureHead):
            raise ValueError(
                f"There are no heat maps of {self.module.kind}: its head has no gradient. Leave "
                "--heatmaps out, or take a probe or a fine-tuned model."
            )
        side, channels = self.size, self.module.image.preprocessing.channels
        try:
            explain.target_layer(self.module, torch.zeros(1, channels, side, side))
        except ValueError as error:
            raise ValueError(
                f"There are no heat maps of {self.module.image.name}: its features have no rows "
                "and columns. Leave --heatmaps out, or take a model with a convolutional tower."
            ) from error

    def batches(
        self,
        files: pd.DataFrame,
        *,
        heatmaps: str | Path | None = None,
        named: bool | None = None,
        problems: list[str] | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Yield the rows of a batch at a time; memory does not grow with the number of files.

        Args:
            files: Of `sources.gather`.
            heatmaps: A folder for a PNG an image.
            named: Whether rows say where they come from (``file``; ``image_id`` and ``study`` of a
                cohort table). Default: of pictures yes; of DICOM files, and of what lies among
                them, no: their names are often those of a person. Otherwise ``image_id`` is a hash
                of the content, studies are numbered, and heat maps lie on black.
            problems: Gains "file: reason" for each file without a prediction, to be shown.

        Yields:
            ``image_id, file, study, task``; ``p_<class>`` with ``threshold`` and ``call``, or
            ``value``; ``heatmap`` (name of the PNG), ``note`` and ``problem`` ("" or why there is
            no prediction).
        """
        if heatmaps is not None:
            self.check_heatmaps()
            Path(heatmaps).mkdir(parents=True, exist_ok=True)
        most = max(1, min(64, 2**20 // self.size**2))  # of ``context.in_order``
        rows, squares = [], []
        how = dict(size=self.size, fit=self.fit, named=named)
        for row, square, problem in decoded(files, **how):
            rows.append(row)
            squares += [] if square is None else [square]
            if square is None and problems is not None:
                problems.append(problem)
            if len(squares) == most:
                yield self._scored(rows, squares, heatmaps)
                rows, squares = [], []
        if rows:
            yield self._scored(rows, squares, heatmaps)

    def _scored(
        self, rows: list[dict[str, Any]], squares: list[np.ndarray], heatmaps: str | Path | None
    ) -> pd.DataFrame:
        """Predict the squares of some rows; those with a problem have none."""
        table = pd.DataFrame(rows).assign(task=self.task.name, heatmap="")
        found = pd.DataFrame(np.nan, index=table.index, columns=self.scores)
        if squares:
            good = table.index[table["problem"] == ""]
            # Squares in memory in the place of a cache on disk; the ids of images are their rows.
            batch = SimpleNamespace(images=np.stack(squares), size=self.size, rows=_numbers)
            with encoders.folded(self._pairs):
                found.loc[good] = self._outputs(batch)
            if heatmaps is not None:
                names = self._draw(batch, table.loc[good], Path(heatmaps))
                table.loc[good, "heatmap"] = names
        return pd.concat([table[FIRST], self.called(found), table[LAST]], axis=1)

    def _outputs(self, batch: Any) -> np.ndarray:
        """Return probabilities ``(N, C)``, or values ``(N, 1)``, as the notebooks compute them."""
        loader = in_order(batch, pd.RangeIndex(len(batch.images)), self.module.image)
        if hasattr(self.module, "classes"):  # asked by words
            seen = features.encode(self.module.model.encode_image, loader)
            classes = self.module.classes.numpy()
            logits = zero_shot.logits(seen, classes, scale=self.module.scale)
            logits = zero_shot.expected(logits, self.values) if self.values else logits
        elif isinstance(self.module, models.LinearProbe):  # its head in double precision
            seen = features.encode(self.module.image, loader)
            logits = self.module.head(torch.from_numpy(seen)).numpy()
        elif isinstance(self.module, models.FeatureHead):
            logits = self._unpacked.logits(features.encode(self.module.image, loader))
        else:
            logits = features.encode(self.module, loader)
        view = pd.DataFrame({cohort.IMAGE_ID: range(len(logits))})
        return evaluation.predictions(view, logits, task=self.task, seed=0)[self.scores].to_numpy()

    @cached_property
    def _unpacked(self) -> adaptation.Fitted:
        return adaptation.unpack(self.module)

    @cached_property
    def _pairs(self) -> encoders.Pairs:
        """The norms of the tower that are folded, found once for all batches."""
        side, channels = self.size, self.module.image.preprocessing.channels
        noise = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
        return encoders.foldable(self.module.image, self.module.image, noise)

    def called(self, table: pd.DataFrame) -> pd.DataFrame:
        """Add ``threshold`` and ``call``, the class that is named, to rows of probabilities.

        The positive class from the threshold on, else the most probable of the others; without a
        threshold the most probable of all.
        """
        if not self.task.classes:
            return table
        p = table[self.scores].set_axis(list(self.task.classes), axis=1)
        best = p.fillna(0).idxmax(axis=1)
        if self.threshold is not None:
            others = p.fillna(0).drop(columns=self.task.positive).idxmax(axis=1)
            best = others.mask(p[self.task.positive] >= self.threshold, self.task.positive)
        cut = np.nan if self.threshold is None else self.threshold
        return table.assign(threshold=cut, call=best.where(p.notna().all(axis=1), ""))

    def per_study(self, table: pd.DataFrame) -> pd.DataFrame:
        """Average the predictions of each study's images, as ``evaluation.pool``, and call them.

        Returns:
            ``study``, ``images`` (how many were predicted), ``task`` and the columns of a
            prediction; images without a study or a prediction are left out.
        """
        known = table[(table["problem"] == "") & table["study"].notna()]
        means = {name: (name, "mean") for name in self.scores}
        pooled = known.groupby("study", sort=False).agg(
            images=("task", "size"), task=("task", "first"), **means
        )
        return self.called(pooled.reset_index())

    def _draw(self, batch: Any, table: pd.DataFrame, folder: Path) -> list[str]:
        """Write a heat map an image, of the class with the most evidence; return their names."""
        from PIL import Image

        pixels = self.module.image.preprocessing.pixels()
        loader = images.loader(batch, pd.RangeIndex(len(table)), batch_size=TOGETHER, **pixels)
        target = 0 if self.task.outputs == 1 and not self.values else -1
        heat = explain.grad_cam(self.module, loader, target=target)
        names = [f"{digest}.png" for digest in table["digest"]]
        rows = zip(names, batch.images, heat, table["secret"], strict=True)
        for name, square, one, secret in rows:
            drawn = figures.heat_over(np.zeros_like(square) if secret else square, one)
            with runs.replacing(folder / name) as temporary:
                Image.fromarray(drawn).save(temporary, format="PNG")
        return names


def without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the columns ``study`` and ``heatmap`` where no row has any."""
    blank = table[["study", "heatmap"]].isin([""]) | table[["study", "heatmap"]].isna()
    return table.drop(columns=blank.columns[blank.all()])


def _numbers(ids: Iterable[str]) -> np.ndarray:
    return np.array(ids, dtype=np.int64)


def decoded(files: pd.DataFrame, **how: Any) -> Iterator[tuple[Any, ...]]:
    """Yield what `decode` returns of each row; threads decode some rows ahead."""
    with ThreadPoolExecutor(DECODERS) as pool:
        jobs = (pool.submit(decode, row, **how) for row in files.itertuples())
        ahead = deque(itertools.islice(jobs, AHEAD))
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(itertools.islice(jobs, 1))
        finally:  # an interrupt must not wait for what is queued
            pool.shutdown(cancel_futures=True)


def decode(
    row: Any, *, size: int, fit: str, named: bool | None
) -> tuple[dict[str, Any], np.ndarray | None, str]:
    """Decode one file as the image cache does; ``named`` is that of `Predictor.batches`.

    Returns:
        What the table says of it beside its prediction; its square or None; why there is none.
    """
    try:  # asked first: opening a pipe or a device could wait for ever
        content = Path(row.path).read_bytes() if os.path.isfile(row.path) else b""
    except OSError:
        content = b""  # why it can't be read, the decoder says
    digest = hashlib.sha256(content).hexdigest()[:16] if content else ""
    by_header = dicom.is_dicom(content[:256])
    square, facts = None, {"reason": row.problem}
    if not row.problem:
        square, facts = images.pixels.decode(row.path, size=size, fit=fit)
    notes = [*facts.get("notes", ())]
    # Of a DICOM file the header says the polarity.
    if square is not None and not by_header and images.greys.negative(square):
        notes.append(images.greys.NEGATIVE)
    secret = (by_header or row.secret) if named is None else not named
    numbered = secret or named is None and row.secret_study
    problem = facts["reason"] or ""
    told = {
        "image_id": digest if secret or pd.isna(row.image_id) else row.image_id,
        "file": "" if secret else row.file,
        "study": row.number if numbered else row.study,
        "note": "; ".join(notes),
        "problem": HIDDEN if problem and secret else problem,
        "digest": digest,
        "secret": secret,
    }
    return told, square, f"{row.file}: {problem}"
