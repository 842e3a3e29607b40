"""Intervals and tests by simulation: do 95 % intervals hold the truth in 95 of 100 cohorts?

    python benchmarks/intervals.py                   coverage and null rejections, about 10 minutes
    python benchmarks/intervals.py --trials 100      a first look
    python benchmarks/run.py intervals               speed alone

A patient has one to three images and one label; scores are binormal, so that the true AUROC is
Phi(d / sqrt 2), and those of a patient correlate by RHO. Every cohort has its own seed, 0 to
TRIALS - 1. Beside each share stands its own 95 % Monte-Carlo interval (Wilson). The number of
patients of a class is fixed here, which draws vary: so intervals of the average precision cover too
often. ``logit`` takes Student's t of the rarest class, as ``evaluation.metrics`` does.
"""

import argparse
import time

import numpy as np
import pandas as pd
from measure import cpu, row
from scipy.stats import norm

from bonelib import evaluation
from bonelib.evaluation import ranking
from bonelib.evaluation.ranking import Blocks

TRIALS, DRAWS, RHO = 1000, 500, 0.5
NEGATIVES, POSITIVES, AREAS = 150, (150, 50, 20), (0.7, 0.8, 0.9)
SENSITIVITY = 0.8  # the true one at the cut that is scored


def cohort(
    rng: np.random.Generator, positives: int, negatives: int, area: float, models: int = 1
) -> tuple[np.ndarray, ...]:
    """Draw labels ``(N,)``, patients ``(N,)`` and scores ``(models, N)`` of one true AUROC.

    Scores of two models on an image correlate by one half.
    """
    images = rng.integers(1, 4, size=positives + negatives)
    patient = np.repeat(np.arange(len(images)), images)
    labels = (patient < positives).astype(int)

    def noise() -> np.ndarray:
        of_patient = rng.normal(size=(2, len(images)))[:, patient]
        return np.sqrt(RHO) * of_patient + np.sqrt(1 - RHO) * rng.normal(size=(2, len(labels)))

    parts = [noise() for _ in range((models + 2) // 2)]
    rows = np.concatenate(parts)
    shared = rows[-1]
    scores = np.sqrt(0.5) * (rows[:models] + shared) if models > 1 else rows[:1]
    return labels, patient, scores + np.sqrt(2) * norm.ppf(area) * labels


def with_error(labels: np.ndarray, scores: np.ndarray, patient: np.ndarray) -> Blocks:
    """Make AUROC and its clustered standard error a function of weights, for studentised draws.

    The infinitesimal jackknife over patients (Obuchowski 1997, Biometrics 53:567, recalled, differs
    by factors n / (n - 1)). Scores must not tie; rows must stand by patient.
    """
    rows, q, below, _, _ = ranking._ranks(labels, scores)
    above = np.searchsorted(scores[rows[q:]], scores[rows[:q]])
    back, first = np.argsort(rows), np.flatnonzero(np.diff(patient, prepend=-1))

    def statistic(weights: np.ndarray) -> np.ndarray:
        neg, pos = weights[:, :q].astype(float), weights[:, q:].astype(float)
        n, p = neg.sum(1, keepdims=True), pos.sum(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            won = ranking.cumulated(neg).take(below, axis=1) / n
            area = (pos * won).sum(1, keepdims=True) / p
            kept = 1 - ranking.cumulated(pos).take(above, axis=1) / p
            share = np.concatenate([(kept - area) / n, (won - area) / p], axis=1)
        by_patient = np.add.reduceat(share[:, back], first, axis=1)
        error = np.sqrt((weights[:, back[first]] * by_patient**2).sum(1))
        return np.stack([area[:, 0], error], axis=1)

    return Blocks(rows, statistic)


def studentised(value: float, error: float, drawn: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap-t interval on the logit (Davison & Hinkley 1997, 5.2.1, recalled)."""
    area, errors = drawn.T
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (logit(area) - logit(value)) * area * (1 - area) / errors
    t = t[np.isfinite(t)]
    own = error / (value * (1 - value))
    ends = logit(value) - own * np.percentile(t, (97.5, 2.5))
    return tuple(1 / (1 + np.exp(-ends)))


def logit(p: np.ndarray) -> np.ndarray:
    """Return the log odds."""
    return np.log(p / (1 - p))


def coverage(positives: int, area: float, trials: int, draws: int) -> pd.DataFrame:
    """Count how often each interval holds the true AUROC, average precision and sensitivity."""
    d = np.sqrt(2) * norm.ppf(area)
    cut = d - norm.ppf(SENSITIVITY)
    truth = {"AUROC": area, "AUPRC": precision(positives, area), "sensitivity": SENSITIVITY}
    hits, widths = {}, {}
    for trial in range(trials):
        labels, patient, scores = cohort(np.random.default_rng(trial), positives, NEGATIVES, area)
        score = scores[0]
        measured = {
            "AUROC": ranking.auroc_statistic(labels, score),
            "AUPRC": ranking.precision_statistic(labels, score),
            "sensitivity": ranking.share_statistic(score >= cut, labels == 1),
        }
        both = with_error(labels, score, patient)
        drawn = ranking.bootstrap([*measured.values()], patient, draws=draws, seed=trial)
        pairs = ranking.bootstrap([both], patient, draws=draws, seed=trial)[0]
        every = np.ones((1, len(labels)))
        for (name, statistic), values in zip(measured.items(), drawn, strict=True):
            value, ends = float(statistic(every)[0]), {}
            for scale in ("percentile", "logit"):
                named = dict(value=value, scale=scale, patients=positives)
                found = ranking.interval(values, **named)
                ends[scale] = found["low"], found["high"]
            if name == "AUROC":
                ends["studentised"] = studentised(value, both(every)[0, 1], pairs)
            for scale, (low, high) in ends.items():
                hits.setdefault((name, scale), []).append(low <= truth[name] <= high)
                widths.setdefault((name, scale), []).append(high - low)
    return pd.DataFrame(
        {"metric": name, "interval": scale, "positives": positives, "true AUROC": area}
        | share(np.array(found))
        | {"width": np.nanmean(widths[name, scale])}
        for (name, scale), found in hits.items()
    )


def precision(positives: int, area: float) -> float:
    """Return the average precision of all such images there are, by integration over cuts."""
    cuts = np.linspace(-9, 12, 200_001)
    true, false = norm.sf(cuts - np.sqrt(2) * norm.ppf(area)), norm.sf(cuts)
    rate = true * positives / (true * positives + false * NEGATIVES)
    return float(np.sum((rate[1:] + rate[:-1]) / 2 * -np.diff(true)))


def share(found: np.ndarray) -> dict[str, float]:
    """Return a share with its Wilson interval, in per cent."""
    n, p, z = len(found), found.mean(), 1.96
    middle, half = p + z**2 / 2 / n, z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    low, high = ((middle + sign * half) / (1 + z**2 / n) * 100 for sign in (-1, 1))
    return {"share": p * 100, "low": low, "high": high, "trials": n}


def table(labels: np.ndarray, patient: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Make the predictions table that a notebook would store."""
    view = pd.DataFrame({"image_id": np.arange(len(labels)).astype(str), "split": "test"})
    view["patient"], view["tumor"] = patient.astype(str), np.array(["normal", "tumor"])[labels]
    return evaluation.predictions(view, scores, task="tumor", seed=0)


def rejections(trials: int, draws: int) -> pd.DataFrame:
    """Count how often `compare` and `gap` reject at 5 % where nothing differs."""
    rows = []
    for positives in POSITIVES:
        for area in (0.8, 0.9):
            p = []
            for trial in range(trials):
                rng = np.random.default_rng(trial)
                labels, patient, scores = cohort(rng, positives, NEGATIVES, area, models=2)
                pair = [table(labels, patient, s) for s in scores]
                p.append(evaluation.compare(*pair, task="tumor", draws=draws, seed=trial)["p"])
            told = {"test": "compare", "positives": positives, "negatives": NEGATIVES}
            rows.append(told | {"true AUROC": area} | share(np.array(p) < 0.05))
            print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=False), flush=True)
    for groups, each in ((2, 10), (2, 30), (5, 10), (5, 30)):
        p = []
        for trial in range(trials):
            labels, patient, scores = cohort(
                np.random.default_rng(trial), groups * each, groups * each, 0.8
            )
            made = table(labels, patient, scores[0]).assign(site=(patient % groups).astype(str))
            p.append(evaluation.gap(made, "site", task="tumor", draws=draws, seed=trial)["p"])
        told = {"test": f"gap of {groups}", "positives": each, "negatives": each}
        rows.append(told | {"true AUROC": 0.8} | share(np.array(p) < 0.05))
        print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def run() -> None:
    """Draws of AUROC beside scikit-learn on the same draws, and all metrics of a run."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 2764, 3746))
    labels = (rng.random(3746) < 0.5).astype(int)
    scores = labels + rng.normal(size=3746)
    draws = evaluation.DRAWS

    def ours() -> np.ndarray:
        return evaluation.bootstrap_auroc(labels, scores, groups, draws=draws, seed=0)

    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    theirs = np.empty(draws)
    draw, started = np.random.default_rng(0), time.process_time()
    for i in range(draws):
        drawn = np.concatenate([members[g] for g in draw.integers(len(members), size=len(members))])
        theirs[i] = roc_auc_score(labels[drawn], scores[drawn])
    other, own = time.process_time() - started, cpu(ours)
    same = np.abs(ours() - theirs).max() <= 1e-12
    row(
        "bootstrap: 2,000 clustered draws, n = 3,746 / scikit-learn loop", own, other, unit="s",
        target=">= x100, equal", met=bool(same and other >= 100 * own),
    )  # fmt: skip
    known = evaluation.as_task("malignancy")
    truth = rng.integers(3, size=2764)[groups]
    logits = rng.normal(size=(3746, 3)) + 1.5 * np.eye(3)[truth]
    view = pd.DataFrame({"image_id": np.arange(3746).astype(str), "split": "test"})
    view["patient"], view["malignancy"] = groups.astype(str), np.array(known.classes)[truth]
    made = evaluation.predictions(view, logits, task=known, seed=0)
    made["site"], made["sex"] = rng.integers(8, size=3746).astype(str), rng.choice(["f", "m"], 3746)

    def everything() -> None:
        evaluation.metrics(made, task=known, threshold=0.4)
        for by in ("site", "sex"):
            evaluation.subgroups(made, by, task=known)
            evaluation.gap(made, by, task=known)

    own = cpu(everything, repeats=3)
    row(
        "metrics: all, 3 classes, n = 3,746, 2,000 draws, site and sex", own, None, unit="s",
        target="<= 5 s", met=own <= 5,
    )  # fmt: skip


def main() -> None:
    """Print the tables of coverage and of rejections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    args = parser.parse_args()
    print(f"{args.trials} cohorts a row, {args.draws} draws, {NEGATIVES} negative patients")
    for positives in POSITIVES:
        for area in AREAS:
            found = coverage(positives, area, args.trials, args.draws).round(3)
            print(found.to_string(index=False, header=positives == 150 and area == 0.7), flush=True)
    rejections(args.trials, args.draws)


if __name__ == "__main__":
    main()
