"""Ranks of captions for images and of images for captions: unit features in, recalls out.

Similarities are taken in blocks, once for each distinct caption, so that memory stays bounded.
"""

import numpy as np
import pandas as pd

TIE = 1e-6  # cosines closer than this are equal: the resolution of float32 sums
FIRST = (1, 5, 10)  # how far down a list is looked
BLOCK = 2**20  # similarities held at a time


def retrieval(
    image_features: np.ndarray, text_features: np.ndarray, *, keys: np.ndarray | None = None
) -> dict[str, float]:
    """Return recall@1, @5, @10 and the median rank, image to text, and the same by chance.

    The means and the median of `ranked`, where each copy of a caption is an answer of its own.
    """
    rows = ranked(image_features, text_features, keys=keys, once=False)
    found = {f"recall_{k}": float(rows[f"recall_{k}"].mean()) for k in FIRST}
    found["median_rank"] = float(rows["rank"].median())
    asked = [k for k in FIRST if k <= len(rows)]
    return found | {f"chance_{k}": float(rows[f"chance_recall_{k}"].mean()) for k in asked}


def ranked(
    query_features: np.ndarray,
    found_features: np.ndarray,
    *,
    keys: np.ndarray | None = None,
    once: bool = True,
) -> pd.DataFrame:
    """Return how each query fares, a row each, for means with intervals over patients.

    Images as queries find captions, captions find images. A caption that means the same (equal
    keys) counts as found: a set whose captions repeat can't ask for one string among equals. Where
    answers tie in similarity, any order of them is as good as another and the expectation over
    orders counts, so that constant features score by chance.

    Args:
        query_features: ``(N, D)`` unit rows.
        found_features: ``(N, D)`` unit rows, the pair of query i at i.
        keys: ``(N, K)`` attribute keys, -1 where a caption says nothing.
        once: A caption that stands beside many images is one answer. Else it counts as often as it
            occurs, so that the first of twenty copies fills the first ten places.

    Returns:
        ``recall_1``, ``recall_5``, ``recall_10``, ``rank`` and ``reciprocal_rank`` of the first
        right answer (its mean is the MRR), and the same of a random order, ``chance_recall_1`` and
        so on.

    Raises:
        ValueError: Shapes don't fit, or features are not finite.
    """
    *own, right, pool = _places(query_features, found_features, keys, once=once)
    drawn = np.zeros_like(right), np.full_like(right, pool), right
    columns = {}
    for name, (ahead, among, hits) in {"": own, "chance_": drawn}.items():
        for k in FIRST:
            columns[f"{name}recall_{k}"] = _drawn(among, hits, k - ahead)
        # Expected place of the first right one among the tied.
        columns[f"{name}rank"] = ahead + (among + 1) / (hits + 1)
        columns[f"{name}reciprocal_rank"] = _reciprocal(ahead, among, hits)
    return pd.DataFrame(columns)


def _places(
    queries: np.ndarray, found: np.ndarray, keys: np.ndarray | None, *, once: bool
) -> tuple:
    """Return how many stand ahead of the best right answer, tie with it, are right of those.

    Returns:
        Those three and how many answers are right in all, each ``(N,)``; how many there are.
    """
    meaning = _meanings(queries, found, keys)  # what is right has the meaning of the query
    kind, place = _codes(found)  # of each answer, and where each distinct one lies
    times = np.bincount(kind).astype(np.float32)  # exact: there are fewer than 2^24
    # The distinct answers of each meaning, one after another, with how often each occurs.
    pairs, count = np.unique(np.stack([meaning, kind], axis=1), axis=0, return_counts=True)
    if once:
        times[:] = count[:] = 1
    starts = np.searchsorted(pairs[:, 0], np.arange(meaning.max() + 2))
    asked = np.stack([meaning, _codes(queries)[0]], axis=1)
    _, rows, back = np.unique(asked, axis=0, return_index=True, return_inverse=True)
    answers, out = found[place].T, np.empty((3, len(rows)), dtype=np.int64)
    step = max(1, BLOCK // len(place))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        similarity = queries[block] @ answers  # (B, U)
        first, sizes = starts[meaning[block]], np.diff(starts)[meaning[block]]
        ends = np.cumsum(sizes)
        of = np.repeat(np.arange(len(block)), sizes)
        pair = np.arange(ends[-1]) + np.repeat(first - ends + sizes, sizes)
        right = similarity[of, pairs[pair, 1]]
        best = np.maximum.reduceat(right, ends - sizes)[:, None]
        # Equal captions come out of a matrix product equal to the last bits only.
        ahead = (similarity > best + TIE).astype(np.float32) @ times
        tied = (np.abs(similarity - best) <= TIE).astype(np.float32) @ times
        own = count[pair] * (np.abs(right - best[of, 0]) <= TIE)
        out[:, start : start + step] = ahead, tied, np.bincount(of, own)
    right = np.bincount(pairs[:, 0], count).astype(np.int64)[meaning]
    return *out[:, back.ravel()], right, int(times.sum(dtype=np.float64))


def _meanings(queries: np.ndarray, found: np.ndarray, keys: np.ndarray | None) -> np.ndarray:
    """Number what each row means: equal keys are one meaning, a row without a key has its own."""
    if queries.shape != found.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(
            f"Queries have the shape {queries.shape}, what is found {found.shape}; both must be "
            "(N, D), pair beside pair. Gather the features of repeated captions first."
        )
    for name, x in {"queries": queries, "what is found": found}.items():
        if not np.isfinite(x).all():
            rows = int((~np.isfinite(x)).any(axis=1).sum())
            raise ValueError(f"{rows} of {len(x)} features of {name} are NaN or infinite.")
    if keys is None:
        return np.arange(len(queries))
    if keys.ndim != 2 or len(keys) != len(queries):
        raise ValueError(f"{len(queries)} pairs need keys (N, K), not of the shape {keys.shape}.")
    alone = ~(keys >= 0).any(axis=1)
    codes = _codes(keys)[0]
    codes[alone] = codes.max() + 1 + np.arange(alone.sum())
    return pd.factorize(codes)[0]


def _codes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number equal rows alike, ``(N,)``, and name the first row of each number."""
    codes, _ = pd.factorize(np.array([row.tobytes() for row in rows], dtype=object))
    return codes, np.unique(codes, return_index=True)[1]


def _drawn(pool: np.ndarray, right: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the chance that ``draws`` of ``pool`` without replacement hold one of ``right``."""
    steps = np.arange(max(1, int(draws.max(initial=0))))  # (draws,)
    pool, right, draws = (v[:, None] for v in (pool, right, draws))
    missed = (pool - right - steps).clip(0) / (pool - steps).clip(1)
    return 1 - np.where(steps < draws, missed, 1.0).prod(axis=1)


def _reciprocal(ahead: np.ndarray, among: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the expected 1 / rank of the first of ``right`` among those that tie, ``(N,)``."""

    def expected(ahead: int, among: int, right: int) -> float:
        wrong = np.arange(among - right + 1)  # how many of the tied may come before it
        missed = (among - right - wrong[:-1]) / (among - wrong[:-1])
        none_yet = np.cumprod(np.concatenate([[1.0], missed]))
        return float((none_yet * right / (among - wrong) / (ahead + 1 + wrong)).sum())

    places = np.stack([ahead, among, right], axis=1)
    triples, back = np.unique(places, axis=0, return_inverse=True)
    return np.array([expected(*triple) for triple in triples])[back.ravel()]
