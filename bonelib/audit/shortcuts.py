"""Shortcuts that are scored: fields, files, frames, thumbnails and features as the only evidence.

The labelled rows of a table come in; findings go out. The scorer is ridge regression on one-hot
classes (Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, 4.2): its ranking
is near that of logistic regression, and it is solved at once.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bonelib import cohort, evaluation, splits
from bonelib.audit.leaks import COLUMNS, counted
from bonelib.cohort import CENTER, FOLD, GROUP, SOURCE, Task

# A shortcut is judged by the lower end of its interval, so that small sets don't cry wolf.
AMBER = 0.6  # surely better than guessing: print it beside the model's score
RED = 0.8  # published tumour classifiers reach 0.85 to 0.95: most of that without seeing the lesion
ORIGIN_AMBER = 0.8  # a centre can be read from features; harmless unless centres differ in class
PURE_CHANCE = 1e-4  # a value found in one class only: how seldom by chance before it is red
PURE_GROUPS = 10  # and in how many groups at least, so that a handful of rows is no finding
STRAY = 0.05  # share of outlined images up to which they are slips in a class without lesions
RARE = 10  # classes with fewer images are not scored: their interval says nothing
THUMBNAIL = 32  # pixels


def crossfit(x: np.ndarray, labels: np.ndarray, fold: np.ndarray, *, best: bool = False):
    """Score each row by a ridge fit on the other folds.

    Args:
        x: ``(N, P)``; columns are standardised by the training folds.
        labels: ``(N,)`` integers.
        fold: ``(N,)``; no group may lie in two.
        best: Use only the column that tells each class best in the training folds: a lone bright
            pixel among a thousand is lost in a ridge.

    Returns:
        ``(N, C)`` scores in the order of the sorted classes, centred in each fold: with an
        intercept, folds poor in a class would score higher in it, and chance would fall below 0.5.
    """
    x, classes = np.asarray(x, np.float64), np.unique(labels)
    y = (labels[:, None] == classes).astype(float)
    out = np.zeros(y.shape)
    for held in (fold == k for k in np.unique(fold)):
        center, spread = x[~held].mean(0), x[~held].std(0)
        z = np.where(spread > 1e-9, (x - center) / np.where(spread > 1e-9, spread, 1), 0)
        # A column that hardly varied in training must not explode where it does.
        z = np.clip(z, -5, 5)
        a, b = z[~held], y[~held] - y[~held].mean(0)
        if best:
            told = a.T @ b
            column = np.abs(told).argmax(0)
            out[held] = z[held][:, column] * np.sign(told[column, np.arange(len(classes))])
            continue
        # The penalty grows with the columns: a priori they share one unit of signal.
        size, penalty = a.shape, float(x.shape[1])
        if size[1] <= size[0]:
            weights = np.linalg.solve(a.T @ a + penalty * np.eye(size[1]), a.T @ b)
        else:
            weights = a.T @ np.linalg.solve(a @ a.T + penalty * np.eye(size[0]), b)
        out[held] = z[held] @ weights
    return out


def _spread_out(values: pd.Series) -> np.ndarray:
    """Turn one field into columns: one per value, or tenths of a number (no order is assumed)."""
    if values.map(lambda v: isinstance(v, tuple)).all():
        terms = sorted({term for cell in values for term in cell})
        return np.array([[t in cell for t in terms] for cell in values]).reshape(len(values), -1)
    number = pd.to_numeric(values, errors="coerce").astype(float)
    if number.notna().any() and number.nunique() > 10:
        tenth = pd.qcut(number, 10, labels=False, duplicates="drop")
        ranks = number.rank(pct=True).fillna(0.5).to_numpy()[:, None]
        return np.hstack([ranks, pd.get_dummies(tenth, dummy_na=True).to_numpy(float)])
    return pd.get_dummies(values.astype("object").where(values.notna(), "missing").astype(str))


class Scored:
    """The labelled rows of one audit, their folds, and how a shortcut is scored on them.

    Attributes:
        table: The labelled rows; all arrays given to the methods are in their order.
        labels: ``(N,)`` integers; ``names`` are their classes in words.
        fold: ``(N,)``, that of the table where no group is parted by it, else made here.
    """

    def __init__(self, table: pd.DataFrame, task: Task, *, folds: int, draws: int, seed: int):
        self.table, self.names = table.reset_index(drop=True), list(task.words["en"])
        self.draws, self.seed = draws, seed
        self.labels = task.encode(self.table[task.column])
        self.positive = task.classes.index(task.positive) if task.positive else -1
        if task.kind == "regression":
            self.labels = (self.labels > np.median(self.labels)).astype(int)
            self.names = ["values up to the median", "values above the median"]
        self.groups = self.table[GROUP].to_numpy()
        fold = self.table.get(FOLD)
        if fold is None or fold.nunique() < 2 or self._straddle(fold):
            # Classes with fewer groups than folds can't be in every fold; they are spread freely.
            by = pd.Series([self.names[label] for label in self.labels])
            few = by.map(self.table[GROUP].groupby(by).nunique()) < folds
            named = self.table.assign(_class=by.mask(few, splits.UNLABELLED))
            fold = splits.add_folds(named, by="_class", folds=folds, seed=seed, tries=3)[FOLD]
        self.fold = fold.to_numpy()

    def _straddle(self, fold: pd.Series) -> bool:
        return bool((fold.groupby(self.groups).nunique() > 1).any())

    def _area(
        self, scores: np.ndarray, labels: np.ndarray, keep: np.ndarray
    ) -> tuple[str | int, float, float, float] | None:
        """Return the class most easily told with its AUROC and interval; None without two."""
        classes = np.unique(labels)
        big = [i for i, c in enumerate(classes) if (labels[keep] == c).sum() >= RARE]
        if len(big) < 2:
            return None
        areas = {i: evaluation.auroc(labels[keep] == classes[i], scores[keep, i]) for i in big}
        # Of a binary task both classes are told equally well: the one that is looked for is named.
        top = max(areas, key=lambda i: (round(areas[i], 6), classes[i] == self.positive))
        truth, score = labels[keep] == classes[top], scores[keep, top]
        drawn = evaluation.bootstrap_auroc(
            truth, score, self.groups[keep], draws=self.draws, seed=self.seed
        )
        low, high = np.nanpercentile(drawn, (2.5, 97.5))
        return classes[top], areas[top], float(low), float(high)

    def shortcut(
        self, check: str, what: str, x, *, best: bool = False, cap: str = "red", keep=None
    ) -> dict | None:
        """Score ``x (N, P)`` as the only thing a reader sees; None where nothing varies."""
        x = np.asarray(x, float)
        keep = np.ones(len(x), bool) if keep is None else keep
        if not x.shape[1] or (x[keep] == x[keep][:1]).all():
            return None
        scores = np.zeros((len(x), len(np.unique(self.labels))))
        columns = np.searchsorted(np.unique(self.labels), np.unique(self.labels[keep]))
        fitted = crossfit(x[keep], self.labels[keep], self.fold[keep], best=best)
        scores[np.ix_(np.flatnonzero(keep), columns)] = fitted
        found = self._area(scores, self.labels, keep)
        if found is None:
            return None
        label, value, low, high = found
        level = cap if low > RED else "amber" if low > AMBER else "green"
        ending = {
            "green": "better than guessing, but little."
            if low > 0.5
            else "no sign that it tells the classes apart.",
            "amber": "print it beside every score of a model.",
            "red": "most of a good score can be had from it alone.",
        }[level]
        told = self.names[label]
        text = f"{told[0].upper()}{told[1:]} told by {what} alone, AUROC {value:.2f}: {ending}"
        size = int(keep.sum())
        return dict(zip(COLUMNS, (check, what, value, low, high, size, level, text), strict=True))

    # ------------------------------------------------------------------ from the table
    def fields(self, further: Sequence[str] = ()) -> list[dict | None]:
        """Score metadata, site, centre, and each single field; name values of one class only."""
        table = self.table
        fields = (cohort.SITE, cohort.VIEW, cohort.SIDE, cohort.AGE, cohort.SEX, cohort.HARDWARE)
        fields = (*fields, CENTER, SOURCE, *further)
        known = [n for n in fields if n in table and table[n].notna().any()]
        columns = {name: np.asarray(_spread_out(table[name]), float) for name in known}
        # Without fine sites, centre and source: what the metadata-only baseline may use.
        own = [columns[n] for n in known if n not in (cohort.SITE, CENTER, SOURCE, *further)]
        whole = np.hstack([cohort.metadata(table).to_numpy(), *own])
        rows = [self.shortcut("metadata", "metadata", whole)]
        for name, x in columns.items():
            rows += [self.shortcut("field", name, x), self._pure(name)]
        return rows

    def _pure(self, name: str) -> dict | None:
        """Find the value of a field that lies in one class only, and more than chance allows."""
        cells = self.table[name]
        terms = [c if isinstance(c, tuple) else () if pd.isna(c) else (c,) for c in cells]
        if len({t for cell in terms for t in cell}) > 60 or name == cohort.AGE:
            return None
        long = pd.DataFrame(
            [(t, label, g) for cell, label, g in zip(terms, self.labels, self.groups, strict=True)
             for t in cell],
            columns=["value", "label", "group"],
        )  # fmt: skip
        pure = []
        for value, part in long.groupby("value"):
            groups = part["group"].nunique()
            if part["label"].nunique() == 1 and groups >= PURE_GROUPS:
                label = part["label"].iloc[0]
                if (self.labels == label).mean() ** groups < PURE_CHANCE:
                    pure.append((len(part), value, self.names[label]))
        if not pure:
            return None
        most = ", ".join(f"{v} ({n} of {n} {c})" for n, v, c in sorted(pure, reverse=True)[:3])
        text = f"Values of {name} occur in one class only: {most}. Leave {name} out of the model."
        return counted("value", name, len(pure), sum(p[0] for p in pure), "red", text)

    # ------------------------------------------------------------------ from files and pixels
    def files(self, files: pd.DataFrame | None, images: np.ndarray | None) -> list[dict | None]:
        """Compare what preprocessing could differ in between classes, one by one and together."""
        facts = {}
        if files is not None:
            facts = {
                c: files[c] for c in ("width", "height", "bytes", "mode", "format") if c in files
            }
            if {"width", "height"} <= set(facts):
                facts["aspect"] = facts["width"] / facts["height"]
            if "mean_grey" in files:
                facts["mean grey"] = files["mean_grey"]
        if images is not None:
            frame = _frame(images)
            facts["border grey"] = pd.Series(frame.mean(1))
            # Rows and columns of one grey: bars that were added around the picture. One picture at
            # a time, or their squares would take sixteen times the memory of all of them.
            flat = [(one.std(0) < 1).mean() + (one.std(1) < 1).mean() for one in images]
            facts["padding"] = pd.Series(flat) / 2
            if "mean grey" not in facts:
                facts["mean grey"] = pd.Series(images.mean((1, 2)))
        columns = {n: np.asarray(_spread_out(pd.Series(list(v))), float) for n, v in facts.items()}
        if not columns:
            return []
        rows = [self.shortcut("preprocessing", name, x) for name, x in columns.items()]
        return [self.shortcut("file", "file properties", np.hstack(list(columns.values()))), *rows]

    def pictures(self, images: np.ndarray, masks: np.ndarray | None) -> list[dict | None]:
        """Score the frame, a thumbnail, its best single pixel, and the image without its lesion."""
        small, frame = _small(images), _frame(images)
        rows = [
            self.shortcut("border", "border", frame),
            self.shortcut("border", "one pixel of the border", frame, best=True),
            # A thumbnail may show the disease itself: never red, a floor for what a model adds.
            self.shortcut("thumbnail", f"thumbnail of {THUMBNAIL} px", small, cap="amber"),
        ]
        if masks is None or not masks.any():
            return rows
        filled, keep = self.without_lesion(images, masks)
        return [*rows, self.shortcut("lesion", "image without its lesion", filled, keep=keep)]

    def without_lesion(
        self, images: np.ndarray, masks: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fill each lesion by the mean around it, and normals at the place of another's lesion.

        Rows without an outline in a class that has outlines are left out: there the lesion would
        stay. A class with a few stray ones (FracAtlas: one of 366 intact) counts as without. The
        others take the outline of a row drawn from the same region and view, so that the patch
        itself, its size and its place are no giveaway.
        """
        import cv2

        rng = np.random.default_rng(self.seed)
        outlined = masks.any((1, 2))
        rows = zip(self.table[cohort.SITE], self.table[cohort.VIEW], strict=True)
        place = np.array([f"{cohort.region(site)} {view}" for site, view in rows])
        share = pd.Series(outlined).groupby(self.labels).transform("mean").to_numpy()
        keep, donor = np.zeros(len(images), bool), np.arange(len(images))
        lenders = np.flatnonzero(outlined)
        for row, has in enumerate(share):
            keep[row] = outlined[row] or has < STRAY
            if keep[row] and not outlined[row]:
                alike = lenders[place[lenders] == place[row]]
                donor[row] = rng.choice(alike if len(alike) else lenders)
        margin = np.ones((3, 3), np.uint8)
        step = max(1, images.shape[1] // 32)
        out = np.empty((len(images), THUMBNAIL * THUMBNAIL), np.float32)
        for row, image in enumerate(images):
            image = np.array(image)
            if keep[row]:
                hole = cv2.dilate(masks[donor[row]].astype(np.uint8), margin, iterations=step)
                ring = (cv2.dilate(hole, margin, iterations=2 * step) > 0) & (hole == 0)
                image[hole > 0] = image[ring].mean() if ring.any() else image.mean()
            out[row] = _small(image[None])[0]
        return out, keep

    # ------------------------------------------------------------------ from features
    def origin(self, features: np.ndarray) -> list[dict | None]:
        """Ask whether frozen features name the source and the centre of an image."""
        rows = []
        for column in (SOURCE, CENTER):
            known = self.table[column].notna().to_numpy()
            codes, names = pd.factorize(self.table[column].astype("object"), sort=True)
            if len(names) < 2 or known.sum() < 2 * RARE:
                continue
            scores = np.zeros((len(codes), len(names)))
            present = np.unique(codes[known])
            fitted = crossfit(np.asarray(features)[known], codes[known], self.fold[known])
            scores[np.ix_(np.flatnonzero(known), present)] = fitted
            found = self._area(scores, np.where(known, codes, 0), known)
            if found is None:
                continue
            code, value, low, high = found
            told = self.shortcut("field", column, codes[:, None] == np.arange(len(names)))
            confounded = told is not None and told["level"] != "green"
            seen = low > ORIGIN_AMBER
            level = ("red" if confounded else "amber") if seen else "green"
            text = f"Frozen features rank {column} {names[code]} at {value:.2f}" + (
                f", and the {column} tells the classes: hold out by {column}."
                if seen and confounded
                else f"; classes don't differ by {column}."
                if seen
                else f", not surely above {ORIGIN_AMBER}."
            )
            cells = ("origin", f"{column} from features", value, low, high, int(known.sum()))
            rows.append(dict(zip(COLUMNS, (*cells, level, text), strict=True)))
        return rows


def _small(images: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    import cv2

    size = (side, side)
    small = [cv2.resize(np.array(i), size, interpolation=cv2.INTER_AREA) for i in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float32)


def _frame(images: np.ndarray) -> np.ndarray:
    """Return the pixels of a frame of one sixteenth of the side, at most at 64 px, ``(N, P)``."""
    side = min(64, images.shape[1])
    width = max(1, side // 16)
    inside = np.zeros((side, side), bool)
    inside[width:-width, width:-width] = True
    return _small(images, side)[:, ~inside.reshape(-1)]
