"""Protects the orders of an epoch: who comes, how often, and never twice where that is promised."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bonelib import images
from bonelib.images.orders import members_of


def draws(order, count):
    rng = np.random.default_rng(0)
    return [order.draw(rng) for _ in range(count)]


def test_every_meaning_is_equally_likely():
    keys = np.repeat([[0, 0], [0, 1], [1, -1]], [90, 9, 1], axis=0)
    order = images.Balanced(keys)
    assert len(order) == 100
    rows = np.concatenate(draws(order, 60))
    found = np.bincount(order.meaning[rows])
    assert stats.chisquare(found).pvalue > 1e-3
    assert stats.chisquare(np.bincount(rows, minlength=100)[:90]).pvalue > 1e-3


def test_small_sets_come_more_often_but_not_as_often():
    sources = np.repeat(["large", "small"], [900, 100])
    for evenness, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        order = images.Balanced(sources, evenness=evenness)
        rows = np.concatenate(draws(order, 20))
        small = int((sources[rows] == "small").sum())
        assert stats.binomtest(small, len(rows), share).pvalue > 1e-3, evenness


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_batch_is_of_one_set(batch_size):
    sources = np.repeat(["a", "b", "c"], [20, 9, 5])
    order = images.OneSet(sources, batch_size=batch_size)
    found = draws(order, 30)
    for rows in found:
        assert len(set(rows)) == len(rows) == len(order), "no image twice in an epoch"
        assert all(len(set(b)) == 1 for b in sources[rows].reshape(-1, batch_size))
    assert set(np.concatenate(found)) == set(range(34)), "a rest comes in another epoch"
    assert {sources[rows[0]] for rows in found} == set("abc"), "sets in random order"
    with pytest.raises(ValueError, match=r"b \(9 rows\), c \(5 rows\) never fills a batch of 10"):
        images.OneSet(sources, batch_size=10)


@pytest.mark.parametrize("batch_size", [2, 3, 5])
def test_no_caption_stands_twice_in_a_batch(batch_size):
    captions = list("aaaaaaabbbbccdde")
    order = images.UniqueCaptions(captions, batch_size=batch_size)
    assert len(order) % batch_size == 0
    for rows in draws(order, 50):
        assert len(set(rows)) == len(rows) == len(order), "no image twice in an epoch"
        for batch in np.array(captions)[rows].reshape(-1, batch_size):
            assert len(set(batch)) == batch_size


def test_as_many_batches_as_repetitions_allow():
    # n batches of 2 hold "a" at most n times; two "b" and one "c" fill the other places of three.
    assert len(images.UniqueCaptions(list("aaaaaaabbc"), batch_size=2)) == 6
    assert len(images.UniqueCaptions(list("abcdefgh"), batch_size=4)) == 8
    with pytest.raises(ValueError, match="2 distinct captions make no batch of 3"):
        images.UniqueCaptions(list("aaabbb"), batch_size=3)


class Stand:
    """A cache of images that carry their own number."""

    ids = [str(i) for i in range(12)]
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)

    def rows(self, ids):
        return np.array([int(i) for i in ids])


def loaded(**options):
    return images.loader(Stand(), Stand.ids, batch_size=4, **options)


def test_a_loader_follows_its_order_and_draws_it_anew_each_epoch():
    loader = loaded(order=images.OneSet(np.repeat(["a", "b"], 6), batch_size=4), seed=3)
    assert len(loader) == 2 and loader.shuffle
    first, second = ([i for batch in loader for i in batch["image_id"]] for _ in range(2))
    assert len(first) == len(second) == 8 and first != second
    loader.epoch = 0
    assert [i for batch in loader for i in batch["image_id"]] == first
    assert not loaded().shuffle and loaded(shuffle=True).shuffle


def test_two_views_differ_and_belong_to_the_same_images():
    more = {"neighbour_tokens": np.arange(24).reshape(12, 2)}
    loader = loaded(augment={"noise": 0.05}, views=2, more=more, shuffle=True)
    for batch in loader:
        assert batch["second"].shape == batch["image"].shape
        assert not (batch["second"] == batch["image"]).all()
        wanted = [[2 * int(i), 2 * int(i) + 1] for i in batch["image_id"]]
        assert batch["neighbour_tokens"].tolist() == wanted
    with pytest.raises(ValueError, match="views=2: 1, or 2 that differ by augment"):
        loaded(views=2)


STUDIES = ["a", "b", "a", None, "c", "b", None, "a", "d", "e", "f", "f"]


def test_a_batch_of_studies_has_all_their_images_and_one_row_of_each_array():
    keys = np.arange(12)[:, None]
    loader = loaded(studies=STUDIES, keys=keys, shuffle=True, seed=1)
    assert len(loader) == 2, "eight studies, the images without one counting for themselves"
    for _ in range(3):
        seen = []
        for batch in loader:
            rows = np.array([int(i) for i in batch["image_id"]])
            seen += rows.tolist()
            assert len(batch["image"]) == len(batch["study"]) == len(rows)
            assert batch["image"][:, 0, 0, 0].mul(0.5).add(0.5).mul(255).round().tolist() == list(
                rows
            )
            assert len(batch["keys"]) == 4 and set(batch["study"].tolist()) == set(range(4))
            for study in range(4):
                own = rows[batch["study"].numpy() == study]
                name = STUDIES[own[0]]
                whole = [own[0]] if name is None else [r for r in range(12) if STUDIES[r] == name]
                assert sorted(own) == whole and batch["keys"][study].item() == min(whole)
        assert sorted(seen) == list(range(12))
    shared = [list(loaded(studies=STUDIES, rank=r, ranks=2, drop_last=True)) for r in (0, 1)]
    for first, second in zip(*shared, strict=True):
        assert not set(first["image_id"]) & set(second["image_id"])
        assert first["study"].max() == second["study"].max() == 1
    with pytest.raises(ValueError, match="order draws images, studies come whole"):
        loaded(studies=STUDIES, order=images.Balanced(np.arange(12)))
    with pytest.raises(ValueError, match="studies has 3 rows"):
        loaded(studies=STUDIES[:3])


def test_images_without_a_study_are_not_one_study():
    assert len(members_of([None, None, float("nan"), "a", "a"])) == 4
    assert len(members_of(pd.Series(["a", pd.NA, "a", pd.NA], dtype="string"))) == 3


def test_processes_share_each_batch():
    given = dict(shuffle=True, drop_last=True, seed=5)
    whole = [batch["image_id"] for batch in loaded(**given)]
    parts = [[b["image_id"] for b in loaded(**given, rank=r, ranks=2)] for r in range(2)]
    for together, *split in zip(whole, *parts, strict=True):
        assert together[0::2] == split[0] and together[1::2] == split[1]
    with pytest.raises(ValueError, match="3 processes can't share a batch of 4"):
        loaded(**given, rank=0, ranks=3)
