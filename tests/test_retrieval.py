"""Protects ranks in blocks and the search for similar cases: ties, copies, patients, chance."""

import itertools
import sys

import numpy as np
import pytest
from scipy.stats import hypergeom

from bonelib import zero_shot


def unit(rows, dim=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# ---------------------------------------------------------------------- ranks
def test_ranks_are_those_of_sklearn_where_nothing_ties():
    from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

    image, text = unit(40, seed=1), unit(40, seed=2) + 0.3 * unit(40, seed=1)
    found, similarity = zero_shot.ranked(image, text), image @ text.T
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(np.arange(40), similarity, k=k)
        assert found[f"recall_{k}"].mean() == pytest.approx(expected)
    mrr = label_ranking_average_precision_score(np.eye(40), similarity)
    assert found["reciprocal_rank"].mean() == pytest.approx(mrr)
    assert np.allclose(found["reciprocal_rank"], 1 / found["rank"])


def test_a_reciprocal_rank_is_the_mean_over_all_orders_of_what_ties():
    same = np.repeat(unit(1), 5, axis=0)
    keys = np.array([[0], [0], [1], [2], [2]])
    # Images that all agree find captions that differ for each: no caption is another's copy.
    text = same + 1e-9 * np.arange(5)[:, None]
    found = zero_shot.ranked(same.astype(np.float64), text, keys=keys)
    for i in range(5):
        right = set(np.flatnonzero(keys[:, 0] == keys[i, 0]))
        orders = list(itertools.permutations(range(5)))
        first = [min(order.index(j) for j in right) + 1 for order in orders]
        assert found.loc[i, "rank"] == pytest.approx(np.mean(first))
        assert found.loc[i, "reciprocal_rank"] == pytest.approx(np.mean(1 / np.array(first)))
        assert found.loc[i, "recall_1"] == pytest.approx(np.mean(np.array(first) == 1))
    chance = found.filter(like="chance_").rename(columns=lambda c: c.removeprefix("chance_"))
    assert np.allclose(found[chance.columns], chance), "what agrees in everything is by chance"


@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_a_repeated_caption_is_one_answer_and_blocks_change_nothing(monkeypatch, block):
    from bonelib.zero_shot import ranks

    monkeypatch.setattr(ranks, "BLOCK", block)
    rng = np.random.default_rng(0)
    which, image = rng.integers(0, 9, 60), unit(60, seed=5)
    text, meaning = unit(9, seed=6), np.arange(9) // 2  # two wordings of each meaning but the last
    keys = np.where(which == 8, -1, meaning[which])[:, None]
    found = zero_shot.ranked(image, text[which], keys=keys)
    order = np.argsort(-image @ text.T, axis=1)
    for i in range(60):
        right = [which[i]] if which[i] == 8 else np.flatnonzero(meaning == meaning[which[i]])
        place = np.isin(order[i], right).argmax() + 1
        assert found.loc[i, "rank"] == pytest.approx(place)
        assert found.loc[i, "chance_recall_1"] == pytest.approx(len(right) / 9)
    again = zero_shot.retrieval(image, text[which], keys=keys)
    assert again == pytest.approx(in_one_piece(image, text[which], keys))
    back = zero_shot.retrieval(text[which], image, keys=keys)
    assert back == pytest.approx(in_one_piece(text[which], image, keys))


def in_one_piece(queries, found, keys):
    """Retrieval by the whole matrix, every caption as often as it occurs; exact ties only."""
    right = np.eye(len(queries), dtype=bool)
    right |= (keys[:, None] == keys[None]).all(-1) & (keys >= 0).any(1)
    near = (queries @ found.T).round(5)
    best = np.where(right, near, -2).max(axis=1, keepdims=True)
    ahead, tied = (near > best).sum(1), near == best
    among, hits, total = tied.sum(1), (tied & right).sum(1), right.sum(1)
    out = {"median_rank": np.median(ahead + (among + 1) / (hits + 1))}

    def share(pool, good, draws):
        return np.mean([1 - hypergeom.pmf(0, *row) for row in zip(pool, good, draws, strict=True)])

    for k in (1, 5, 10):
        out[f"recall_{k}"] = share(among, hits, (k - ahead).clip(0, among))
        out[f"chance_{k}"] = share([len(queries)] * len(queries), total, [k] * len(queries))
    return out


def test_features_that_cannot_be_ranked_are_refused():
    odd = unit(4)
    odd[2, 0] = np.nan
    for queries, found, keys, told in (
        (unit(4), unit(3), None, r"both must be \(N, D\), pair beside pair"),
        (unit(0), unit(0), None, "pair beside pair"),
        (unit(4), odd, None, "1 of 4 features of what is found are NaN"),
        (unit(4), unit(4), np.zeros((3, 1)), r"4 pairs need keys \(N, K\)"),
    ):
        with pytest.raises(ValueError, match=told):
            zero_shot.retrieval(queries, found, keys=keys)


# ---------------------------------------------------------------------- similar cases
def search(queries, library, groups, k=5, **options):
    return zero_shot.neighbours(
        queries, library, query_groups=groups[0], library_groups=groups[1], k=k, **options
    )


def test_neighbours_are_those_of_scipy_without_the_patients_own():
    from scipy.spatial.distance import cdist

    queries, library = 3 * unit(30, seed=1), unit(50, seed=2)  # any length will do
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 30), rng.integers(0, 12, 50)
    apart = cdist(queries, library, "cosine")
    apart[groups[0][:, None] == groups[1]] = np.inf
    assert np.array_equal(search(queries, library, groups), np.argsort(apart, axis=1)[:, :5])


def test_a_library_of_one_patient_more_has_few_neighbours():
    groups = np.array([0, 0]), np.array([0, 0, 1])
    assert search(unit(2), unit(3, seed=1), groups).tolist() == [[2, -1, -1, -1, -1]] * 2
    alone = np.array([0, 0]), np.array([0, 0, 0])
    assert (search(unit(2), unit(3, seed=1), alone) == -1).all()


def test_an_index_finds_what_the_exact_search_finds():
    pytest.importorskip("faiss")
    queries, library = unit(40, seed=1), unit(300, seed=2)
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 40), rng.integers(0, 60, 300)
    by_index = search(queries, library, groups, large=100)
    assert np.array_equal(by_index, search(queries, library, groups))


def test_a_large_library_without_faiss_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    groups = np.zeros(2), np.ones(9)
    with pytest.raises(ModuleNotFoundError, match=r"-e '\.\[search\]'"):
        search(unit(2), unit(9), groups, large=8)
    assert search(unit(2), unit(9), groups, large=9).shape == (2, 5), "a small one needs none"


def test_precision_counts_equal_labels_and_random_neighbours_reach_chance():
    rng = np.random.default_rng(0)
    names = np.array(["osteosarcoma", "osteochondroma", "cyst"])
    labels = names[rng.integers(0, 3, 40)], names[rng.choice(3, 200, p=[0.6, 0.3, 0.1])]
    groups = rng.integers(0, 20, 40), rng.integers(0, 20, 200)
    of = dict(query_labels=labels[0], library_labels=labels[1])
    of |= dict(query_groups=groups[0], library_groups=groups[1])
    reached = []
    for seed in range(60):
        found = search(unit(40, seed=seed), unit(200, seed=seed + 100), groups)
        table = zero_shot.precision(found, **of)
        expected = [
            (labels[1][row] == label).mean() for row, label in zip(found, labels[0], strict=True)
        ]
        assert table["precision"].tolist() == pytest.approx(expected)
        reached.append(table["precision"].mean())
    others = groups[0][:, None] != groups[1]
    same = (labels[0][:, None] == labels[1]) & others
    assert table["chance"].tolist() == pytest.approx(list(same.sum(1) / others.sum(1)))
    error = np.std(reached) / np.sqrt(len(reached))
    assert abs(np.mean(reached) - table["chance"].mean()) < 4 * error


def test_neighbours_that_are_missing_count_neither_way():
    found = np.array([[1, -1], [-1, -1]])
    groups = dict(query_groups=["a", "b"], library_groups=["a", "c"])
    labels = dict(query_labels=["cyst", "cyst"], library_labels=["other", "cyst"])
    table = zero_shot.precision(found, **labels, **groups)
    assert table["precision"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert table["chance"].tolist() == [1, 0.5]
    labels["library_labels"] = ["other", None]
    with pytest.raises(ValueError, match="1 images have no label"):
        zero_shot.precision(found, **labels, **groups)


def test_a_search_that_makes_no_sense_is_refused():
    zero = np.vstack([unit(3), np.zeros((1, 16), np.float32)])
    for queries, library, told in (
        (unit(3, 8), unit(4), "has 8 features"),
        (unit(3), zero, "1 of 4 library features are zero, NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=told):
            search(queries, library, (np.zeros(3), np.ones(len(library))))
