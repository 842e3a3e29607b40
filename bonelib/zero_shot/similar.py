"""Similar cases: the nearest images of a library, without those of the same patient.

Features come in, raw or of unit length; rows of the library and how many of them show the same
entity go out. The search is exact at every size, so that no number hangs on an index.
"""

import numpy as np
import pandas as pd

LARGE = 50_000  # images of a library from which on faiss searches it, in a third of the CPU time


def neighbours(
    queries: np.ndarray,
    library: np.ndarray,
    *,
    query_groups: np.ndarray,
    library_groups: np.ndarray,
    k: int = 5,
    large: int = LARGE,
) -> np.ndarray:
    """Return the rows of the k most similar images of other patients, by cosine, nearest first.

    Args:
        queries: ``(Q, D)``.
        library: ``(N, D)`` features of the same tower; may hold the queries themselves.
        query_groups: ``(Q,)`` patient (or group of copies) of each image; like ``library_groups``.
        large: Size from which on faiss takes over.

    Returns:
        ``(Q, k)``, -1 where the library holds fewer images of others.

    Raises:
        ValueError: Shapes don't fit, features are not finite, or a row is zero.
        ModuleNotFoundError: The library is large and faiss is not installed.
    """
    shared = library_groups[np.isin(library_groups, query_groups)]
    most = int(np.unique(shared, return_counts=True)[1].max(initial=0))
    count = min(k + most, len(library))  # enough where the whole own group stands ahead
    search = _indexed if len(library) > large else _exact
    top = search(_unit(queries, "query"), _unit(library, "library"), count)
    own = library_groups[top] == query_groups[:, None]
    order = np.argsort(own, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(np.where(own, -1, top), order, axis=1)
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)


def _unit(features: np.ndarray, what: str) -> np.ndarray:
    features = np.ascontiguousarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    bad = int((~(np.isfinite(length) & (length > 0))).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} {what} features are zero, NaN or infinite: no cosine."
        )
    return features / length


def _exact(queries: np.ndarray, library: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the ``count`` nearest; of unit rows the order is that of cosines."""
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(library)
    return nearest.kneighbors(queries, return_distance=False)


def _indexed(queries: np.ndarray, library: np.ndarray, count: int) -> np.ndarray:
    """As `_exact`, by a flat index of faiss: all inner products, no approximation."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"A library of {len(library):,} images is searched with faiss, which is not installed: "
            f"pip install -c requirements.lock -e '.[search]'. Up to {LARGE:,} images need none.",
            name="faiss",
        ) from error
    index = faiss.IndexFlatIP(library.shape[1])
    index.add(library)
    return index.search(queries, count)[1]


def precision(
    found: np.ndarray,
    *,
    query_labels: np.ndarray,
    library_labels: np.ndarray,
    query_groups: np.ndarray,
    library_groups: np.ndarray,
) -> pd.DataFrame:
    """Return what share of each query's neighbours has its label, and what chance reaches.

    Args:
        found: ``(Q, k)`` of `neighbours`.
        query_labels: ``(Q,)`` entity, or class of a task, without gaps; like ``library_labels``.

    Returns:
        ``precision`` and ``chance``, the share of the label among the library's images of other
        patients; NaN where there is no neighbour.

    Raises:
        ValueError: A label is missing.
    """
    labels = np.asarray(query_labels), np.asarray(library_labels)
    gaps = int(sum(pd.isna(side).sum() for side in labels))
    if gaps:
        raise ValueError(f"{gaps} images have no label: search among labelled ones alone.")
    known = found >= 0
    same = (labels[1][found] == labels[0][:, None]) & known
    counts = pd.crosstab(np.asarray(library_groups), labels[1])
    others = counts.sum() - counts.reindex(query_groups, fill_value=0)  # images of each label
    column = others.columns.get_indexer(labels[0])
    right = np.where(column < 0, 0, others.to_numpy()[np.arange(len(column)), column])
    with np.errstate(invalid="ignore"):
        chance = right / others.sum(axis=1).to_numpy()
        return pd.DataFrame({"precision": same.sum(axis=1) / known.sum(axis=1), "chance": chance})
