"""Protects classification and retrieval by words: planted answers, ties, and chance."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bonelib import zero_shot

PROMPTS = {
    "normal": ["cortex intact", "regular trabecular pattern", "no mass"],
    "tumor": ["cortex breached", "moth-eaten destruction"],
}


def unit(rows, dim=16, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


class Planted:
    """A text tower that knows which class each prompt belongs to, with a wording's own noise."""

    def __init__(self, noise=0.2):
        self.noise = noise
        self.of = {s: i for i, sentences in enumerate(PROMPTS.values()) for s in sentences}

    def tokenize(self, sentences):
        return torch.tensor([[list(self.of).index(s)] for s in sentences])

    def encode_text(self, tokens):
        generator = torch.Generator().manual_seed(0)
        noise = self.noise * torch.randn(len(self.of), 8, generator=generator)
        rows = F.one_hot(torch.tensor(list(self.of.values())), 8) + noise
        return F.normalize(rows[tokens[:, 0]], dim=-1)


# ---------------------------------------------------------------------- classification
def test_planted_features_give_perfect_logits():
    classes = zero_shot.class_features(Planted(noise=0), PROMPTS)
    labels = np.array([0, 1, 1, 0, 1])
    images = np.eye(8, dtype=np.float32)[labels]
    logits = zero_shot.logits(images, classes, scale=50.0)
    assert np.allclose(logits, 50.0 * np.eye(2)[labels])


def test_a_class_is_the_unit_mean_of_its_prompts():
    model = Planted()
    classes = zero_shot.class_features(model, PROMPTS)
    assert classes.shape == (2, 8) and np.allclose(np.linalg.norm(classes, axis=1), 1)
    for row, sentences in zip(classes, PROMPTS.values(), strict=True):
        mean = model.encode_text(model.tokenize(sentences)).numpy().mean(axis=0)
        assert np.allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_order_of_prompts_does_not_matter_and_that_of_classes_does():
    classes = zero_shot.class_features(Planted(), PROMPTS)
    turned = {name: sentences[::-1] for name, sentences in PROMPTS.items()}
    assert np.allclose(zero_shot.class_features(Planted(), turned), classes, atol=1e-6)
    swapped = dict(reversed(PROMPTS.items()))
    assert np.allclose(zero_shot.class_features(Planted(), swapped), classes[::-1], atol=1e-6)


def test_each_wording_is_scored_alone_and_short_lists_repeat():
    images = unit(5, 8)
    found = zero_shot.wording_logits(Planted(), images, PROMPTS)
    assert list(found) == [
        "cortex intact / cortex breached",
        "regular trabecular pattern / moth-eaten destruction",
        "no mass / cortex breached",
    ]
    single = {"normal": ["no mass"], "tumor": ["cortex breached"]}
    alone = images @ zero_shot.class_features(Planted(), single).T
    assert np.allclose(found["no mass / cortex breached"], alone)


def test_a_value_is_what_the_classes_expect():
    logits = np.array([[0.0, 0.0, 0.0], [900.0, 0.0, 0.0], [np.log(3), 0.0, -np.inf]])
    found = zero_shot.expected(logits, (12.0, 24.0, 48.0))
    np.testing.assert_allclose(found, [28, 12, 15])
    with pytest.raises(ValueError, match="need 3 values, not 2"):
        zero_shot.expected(logits, (12.0, 24.0))


# ---------------------------------------------------------------------- retrieval
def brute_force(image, text, keys):
    """Walk down each image's list of captions; no ties in random features."""
    ranks = []
    for i in range(len(image)):
        order = sorted(range(len(text)), key=lambda j: -float(image[i] @ text[j]))
        for place, j in enumerate(order, 1):
            known = keys is not None and (keys[i] == keys[j]).all() and (keys[i] >= 0).any()
            if i == j or known:
                ranks.append(place)
                break
    ranks = np.array(ranks)
    return {f"recall_{k}": (ranks <= k).mean() for k in (1, 5, 10)} | {
        "median_rank": np.median(ranks)
    }


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_retrieval_is_what_walking_down_the_list_finds(seed, with_keys):
    image, text = unit(40, seed=seed), unit(40, seed=seed + 10)
    text += 0.3 * image
    keys = np.random.default_rng(seed).integers(-1, 4, (40, 2)) if with_keys else None
    found = zero_shot.retrieval(image, text, keys=keys)
    for name, value in brute_force(image, text, keys).items():
        assert found[name] == pytest.approx(value), name


def test_ranks_are_the_rows_behind_recall_and_a_tie_counts_by_its_chance():
    image, text = unit(40, seed=4), unit(40, seed=14) + 0.3 * unit(40, seed=4)
    keys = np.random.default_rng(4).integers(0, 6, (40, 1))
    found = zero_shot.retrieval(image, text, keys=keys)
    for k in (1, 5, 10):
        rows = zero_shot.ranked(image, text, keys=keys, once=False)[f"recall_{k}"]
        assert rows.shape == (40,) and rows.mean() == pytest.approx(found[f"recall_{k}"])
    same = np.repeat(unit(1), 8, axis=0)
    ranks = zero_shot.ranked(same, same, once=False)
    assert ranks["recall_1"].tolist() == pytest.approx([1 / 8] * 8)


def test_a_perfect_model_finds_every_caption_first():
    features = unit(30)
    found = zero_shot.retrieval(features, features)
    assert found["recall_1"] == found["recall_10"] == found["median_rank"] == 1


def test_a_caption_that_means_the_same_counts_as_found():
    image = unit(8)
    text = image[[4, 5, 6, 7, 0, 1, 2, 3]]  # each image lies beside the caption of another
    assert zero_shot.retrieval(image, text)["recall_1"] == 0
    keys = np.array([[0], [1], [2], [3], [0], [1], [2], [3]])
    assert zero_shot.retrieval(image, text, keys=keys)["recall_1"] == 1


def test_captions_that_say_nothing_mean_the_same_as_no_other():
    image, text = unit(20), unit(20, seed=1)
    unknown = np.full((20, 2), -1)
    assert zero_shot.retrieval(image, text, keys=unknown) == zero_shot.retrieval(image, text)


@pytest.mark.parametrize("with_keys", [False, True])
def test_features_that_all_agree_score_by_chance(with_keys):
    same = np.repeat(unit(1), 30, axis=0)
    keys = np.random.default_rng(0).integers(0, 5, (30, 1)) if with_keys else None
    found = zero_shot.retrieval(same, same, keys=keys)
    for k in (1, 5, 10):
        assert found[f"recall_{k}"] == pytest.approx(found[f"chance_{k}"])
    if not with_keys:
        assert found["median_rank"] == pytest.approx(15.5)


def test_ties_score_what_random_orders_score_on_average():
    rng = np.random.default_rng(0)
    image = unit(24, seed=2)
    text = unit(6, seed=3)[rng.integers(0, 6, 24)]  # six wordings, so most captions tie
    keys = rng.integers(0, 8, (24, 1))
    found = zero_shot.retrieval(image, text, keys=keys)
    draws = [
        brute_force(image, text + 1e-4 * rng.normal(size=text.shape), keys) for _ in range(300)
    ]
    for k in (1, 5, 10):
        mean = np.mean([draw[f"recall_{k}"] for draw in draws])
        assert found[f"recall_{k}"] == pytest.approx(mean, abs=0.02)


def test_chance_is_what_random_features_reach():
    keys = np.random.default_rng(0).integers(-1, 5, (20, 1))
    draws = [
        zero_shot.retrieval(unit(20, seed=n), unit(20, seed=n + 1000), keys=keys)
        for n in range(300)
    ]
    for k in (1, 5, 10):
        mean = np.mean([draw[f"recall_{k}"] for draw in draws])
        error = np.std([draw[f"recall_{k}"] for draw in draws]) / np.sqrt(len(draws))
        assert abs(mean - draws[0][f"chance_{k}"]) < 4 * error
    assert "chance_10" not in zero_shot.retrieval(unit(6), unit(6)), "six can't be asked for ten"
    assert zero_shot.retrieval(unit(6), unit(6, seed=1))["recall_10"] == 1
