"""Protects the loss: what it asks for, how low it can go, and which rows it ignores."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from bonelib import losses


def unit(rows, dim=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=-1)


def scale(value=14.0):
    return torch.tensor(value, dtype=torch.float64)


def loss(image, text, keys=None, s=14.0):
    return losses.contrastive_loss(image, text, logit_scale=scale(s), keys=keys)


KEYS = torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1], [0, 1], [-1, 1], [-1, 1], [1, 1]])
SIZES = [3, 3, 1, 2, 3, 2, 2, 2]  # rows that mean the same as row i


# ---------------------------------------------------------------------- positives and floor
def test_rows_match_when_all_their_keys_are_equal_and_known():
    found = losses.positives(KEYS)
    assert found.sum(dim=1).tolist() == SIZES
    assert found[0].nonzero().flatten().tolist() == [0, 1, 4]
    assert (found == found.T).all() and found.diagonal().all()


def test_rows_that_say_nothing_match_themselves_alone_and_silence_equals_silence():
    assert (losses.positives(torch.full((5, 1), -1)) == torch.eye(5, dtype=torch.bool)).all()
    found = losses.positives(torch.tensor([[3, -1], [3, -1], [3, 0], [3, 0]]))
    pairs = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    assert torch.equal(found, pairs)


def test_a_partial_match_is_the_share_of_what_either_says():
    keys = torch.tensor([[3, -1, -1], [3, -1, -1], [3, 0, -1], [4, 0, 1], [-1, -1, -1]])
    share = torch.tensor([1, 1, 1 / 2, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(losses.targets(keys, temperature=0.5)[0], (share / 0.5).softmax(0))
    share = torch.tensor([1 / 2, 1 / 2, 1, 1 / 3, 0], dtype=torch.float64)
    torch.testing.assert_close(losses.targets(keys, temperature=0.5)[2], (share / 0.5).softmax(0))


def test_the_floor_is_the_entropy_of_the_targets():
    assert losses.floor(KEYS) == pytest.approx(np.mean(np.log(SIZES)))
    assert losses.floor(torch.arange(9)[:, None]) == 0
    assert losses.floor(torch.zeros(16, 2)) == pytest.approx(math.log(16))


@pytest.mark.parametrize("seed", range(4))
def test_no_features_get_below_the_floor(seed):
    keys = torch.randint(-1, 3, (24, 2), generator=torch.Generator().manual_seed(seed))
    for s in (1.0, 14.0, 100.0):
        assert loss(unit(24, seed=seed), unit(24, seed=seed + 50), keys, s) > losses.floor(keys)


def test_free_features_descend_to_the_floor_but_not_below():
    image = unit(8, 12, 1).requires_grad_()
    text = unit(8, 12, 2).requires_grad_()
    optimizer = torch.optim.Adam([image, text], lr=0.05)
    for _ in range(300):
        value = loss(F.normalize(image, dim=-1), F.normalize(text, dim=-1), KEYS, 30.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert losses.floor(KEYS) < value.item() < losses.floor(KEYS) + 0.005


def test_a_model_that_knows_every_attribute_sits_on_the_floor_and_plain_clip_pays_it_too():
    meanings = losses.positives(KEYS).int().argmax(dim=1)  # the first row that means the same
    known = F.one_hot(meanings, 8).double()
    assert loss(known, known, KEYS, 100.0).item() == pytest.approx(losses.floor(KEYS), abs=1e-9)
    assert loss(known, known, None, 100.0).item() == pytest.approx(losses.floor(KEYS), abs=1e-9)


# ---------------------------------------------------------------------- the contrastive loss
def test_with_distinct_keys_it_is_plain_infonce():
    image, text = unit(10, seed=1), unit(10, seed=2)
    keys = torch.arange(20).view(10, 2)
    assert loss(image, text, keys).item() == pytest.approx(loss(image, text).item(), abs=1e-12)
    logits = (14.0 * image @ text.T).numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    q = np.exp(logits) / np.exp(logits).sum(axis=0, keepdims=True)
    by_hand = -(np.log(np.diag(p)).mean() + np.log(np.diag(q)).mean()) / 2
    assert loss(image, text).item() == pytest.approx(by_hand, abs=1e-12)


def test_with_several_positives_it_is_the_equation_of_the_docstring():
    image, text = unit(8, seed=3), unit(8, seed=4)
    logits, same = (14.0 * image @ text.T).numpy(), losses.positives(KEYS).numpy()
    total = 0.0
    for table in (logits, logits.T):
        for i in range(8):
            log_p = table[i] - np.log(np.exp(table[i]).sum())
            total -= log_p[same[i]].sum() / same[i].sum() / 8 / 2
    assert loss(image, text, KEYS).item() == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("keys", [None, KEYS])
def test_constant_features_pay_ln_batch(keys):
    constant = unit(1).expand(8, -1)
    assert loss(constant, constant, keys).item() == pytest.approx(math.log(8))


def test_perfect_pairs_pay_nothing_and_swapped_pairs_pay_much():
    features = torch.eye(8, dtype=torch.float64)
    assert loss(features, features, s=100.0).item() < 1e-9
    assert loss(features, features.roll(1, 0), s=100.0).item() == pytest.approx(100.0)


@pytest.mark.parametrize("keys", [None, KEYS])
def test_order_of_rows_and_swapping_the_towers_change_nothing(keys):
    image, text = unit(8, seed=5), unit(8, seed=6)
    value = loss(image, text, keys).item()
    assert loss(text, image, keys).item() == pytest.approx(value, abs=1e-12)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = None if keys is None else keys[order]
    assert loss(image[order], text[order], moved).item() == pytest.approx(value, abs=1e-12)
    assert loss(image[order], text, keys).item() != pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("keys", [None, KEYS])
def test_its_gradient_is_right(keys):
    image, text = unit(8, 4, 7).requires_grad_(), unit(8, 4, 8).requires_grad_()
    factor = scale(3.0).requires_grad_()

    def of(a, b, s):
        return losses.contrastive_loss(a, b, logit_scale=s, keys=keys)

    assert torch.autograd.gradcheck(of, (image, text, factor))


def outputs(**more):
    """What a dual encoder says of eight pairs."""
    out = {"image_features": unit(8, seed=5), "text_features": unit(8, seed=6)}
    return out | {"logit_scale": scale(7.0)} | more


def of(out, batch=(), **options):
    """The loss of ready outputs, the model left out."""
    return losses.contrastive_objective(**options).loss(out, dict(batch))


def test_the_objective_reads_features_scale_and_keys_of_a_batch():
    out = outputs()
    image, text = out["image_features"], out["text_features"]

    def model(pixels, tokens):
        assert (pixels, tokens) == ("pixels", "tokens")
        return out

    batch = {"image": "pixels", "tokens": "tokens"}
    objective = losses.contrastive_objective()
    assert objective(model, batch) == loss(image, text, s=7.0)
    assert objective(model, batch | {"keys": KEYS}) == loss(image, text, KEYS, 7.0)
    assert of(out, {"keys": KEYS}, use_keys=False) == loss(image, text, s=7.0)


def test_images_without_a_caption_are_left_out_of_the_text_term():
    out, captioned = outputs(), torch.arange(8) < 5
    few = {k: v[:5] if v.ndim else v for k, v in out.items()}
    assert of(out, {"captioned": captioned}) == pytest.approx(of(few).item())
    nobody = of(out, {"captioned": torch.zeros(8, dtype=torch.bool)})
    assert nobody == 0 and torch.isfinite(nobody)


def test_terms_add_up_by_their_weights():
    views = {"view_features": unit(8, seed=7), "second_features": unit(8, seed=8)}
    out = outputs(neighbour_features=unit(8, seed=9), **views)
    text = loss(out["image_features"], out["text_features"], s=7.0)
    other = loss(out["image_features"], out["neighbour_features"], s=7.0)
    pairs = losses.simclr_loss(views["view_features"], views["second_features"])
    total = of(out, text=0.5, views=2.0, neighbours=0.25)
    assert total.item() == pytest.approx((0.5 * text + 2 * pairs + 0.25 * other).item())
    assert of(out, text=0, views=1.0) == pytest.approx(pairs.item())
    with pytest.raises(ValueError, match="All weights are 0"):
        losses.contrastive_objective(text=0)
    with pytest.raises(ValueError, match="Choose softmax or sigmoid"):
        losses.contrastive_objective(loss="hinge")
    for asked in ({"loss": "sigmoid"}, {"use_keys": False}):
        with pytest.raises(ValueError, match="knows no partial matches"):
            losses.contrastive_objective(key_temperature=0.1, **asked)


def test_facts_learnt_as_classes_stand_beside_the_captions_with_their_weight():
    keys = torch.tensor([[0, 1], [1, -1], [2, -1], [0, -1], [1, -1], [2, -1], [0, -1], [1, -1]])
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))
    other = torch.randn(8, 2, generator=torch.Generator().manual_seed(4))
    by_hand = (
        F.cross_entropy(logits, keys[:, 0]) + F.cross_entropy(other[:1], keys[:1, 1])
    ) / 2  # of the second key one row is known
    assert losses.attributes_loss([logits, other], keys).item() == pytest.approx(by_hand.item())
    out = outputs(attribute_0=logits, attribute_1=other)
    text = of(out, {"keys": keys})
    both = of(out, {"keys": keys}, attributes=0.5)
    assert both.item() == pytest.approx((text + 0.5 * by_hand).item())
    alone = of(out, {"keys": keys}, text=0, attributes=1.0)
    assert alone.item() == pytest.approx(by_hand.item())
    assert losses.contrastive_objective(attributes=1.0).chance is None
    assert losses.attributes_loss([logits], torch.full((8, 1), -1)) == 0


@pytest.mark.parametrize("options", [{}, {"views": 2.0}, {"text": 0, "views": 1.0}])
def test_chance_is_what_constant_features_pay(options):
    constant = unit(1).expand(8, -1)
    names = ("image_features", "text_features", "view_features", "second_features")
    out = dict.fromkeys(names, constant) | {"logit_scale": scale()}
    objective = losses.contrastive_objective(**options)
    assert objective.loss(out, {}).item() == pytest.approx(objective.chance(8, 8))
    told = torch.arange(8) < 5
    few = objective.loss(out, {"captioned": told}).item()
    assert few == pytest.approx(objective.chance(8, 5))


# ---------------------------------------------------------------------- SigLIP, SimCLR, neighbours
def test_siglip_is_the_equation_of_its_docstring():
    image, text, bias = unit(8, seed=3), unit(8, seed=4), scale(-2.0)
    logits, same = (10 * image @ text.T - 2).numpy(), losses.positives(KEYS).numpy()
    z = np.where(same, 1, -1)
    by_hand = np.log1p(np.exp(-z * logits)).sum() / 8
    given = dict(logit_scale=scale(10.0), logit_bias=bias, keys=KEYS)
    assert losses.siglip_loss(image, text, **given).item() == pytest.approx(by_hand)
    out = outputs(logit_bias=bias, logit_scale=scale(10.0))
    out |= {"image_features": image, "text_features": text}
    assert of(out, {"keys": KEYS}, loss="sigmoid").item() == pytest.approx(by_hand)


def test_siglip_has_no_floor_where_captions_repeat():
    meanings = losses.positives(KEYS).int().argmax(dim=1)
    known = F.one_hot(meanings, 8).double()
    given = dict(logit_scale=scale(80.0), logit_bias=scale(-40.0))
    assert losses.siglip_loss(known, known, **given, keys=KEYS).item() < 1e-9
    assert losses.siglip_loss(known, known, **given).item() > 10, "equal meanings pushed apart"


def test_simclr_is_the_equation_of_its_docstring():
    first, second = unit(5, seed=1), unit(5, seed=2)
    views = torch.cat([first, second]).numpy()
    e = np.exp(views @ views.T / 0.2)
    np.fill_diagonal(e, 0)
    other = np.roll(np.arange(10), 5)
    by_hand = -np.log(e[np.arange(10), other] / e.sum(axis=1)).mean()
    assert losses.simclr_loss(first, second, temperature=0.2).item() == pytest.approx(by_hand)


def test_simclr_falls_as_views_of_one_image_come_together():
    first, noise = unit(16, seed=1), unit(16, seed=2)
    values = [
        losses.simclr_loss(first, F.normalize(first + share * noise, dim=-1)).item()
        for share in (0.0, 0.5, 1.0, 4.0)
    ]
    assert values == sorted(values)


def test_the_nearest_other_caption_is_scikit_learns():
    from sklearn.neighbors import NearestNeighbors

    rows = unit(40, seed=11)
    found = NearestNeighbors(n_neighbors=2).fit(rows.numpy()).kneighbors(rows.numpy())[1][:, 1]
    assert losses.nearest(rows).tolist() == found.tolist()


def test_the_nearest_caption_is_another_meaning_where_keys_are_known():
    rows = F.normalize(unit(8, seed=12) * 0.01 + unit(1).expand(8, -1), dim=-1)
    found = losses.nearest(rows, keys=KEYS)
    assert not losses.positives(KEYS)[torch.arange(8), found].any()
    with pytest.raises(ValueError, match="All captions mean the same"):
        losses.nearest(rows, keys=torch.zeros(8, 1))


def test_spread_tells_a_point_from_a_balanced_set():
    assert losses.spread(unit(1).expand(9, -1)).item() == pytest.approx(0, abs=1e-6)
    balanced = torch.cat([torch.eye(6), -torch.eye(6)])
    assert losses.spread(balanced).item() == pytest.approx(1)


def test_a_partial_match_counts_by_its_share_of_equal_keys():
    keys = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 2]])
    found = losses.targets(keys, temperature=0.5)
    share = torch.tensor([1, 0.5, 0.5, 0], dtype=torch.float64)
    torch.testing.assert_close(found[0], (share / 0.5).softmax(0))


# ---------------------------------------------------------------------- controls and pulls
def test_attributes_are_learnt_as_classes_and_unknown_ones_left_out():
    logits = [torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)]
    objective = losses.attributes_objective()
    keys = KEYS.clone()
    value = objective(lambda image: logits, {"image": None, "keys": keys})
    expected = []
    for k in (0, 1):
        rows = keys[:, k] >= 0
        p = logits[k][rows].float().softmax(1).double().numpy()
        expected.append(
            log_loss(keys[rows, k], p / p.sum(1, keepdims=True), labels=range(p.shape[1]))
        )
    assert value.item() == pytest.approx(np.mean(expected), rel=1e-5)
    nothing = objective(lambda image: logits, {"image": None, "keys": torch.full((8, 2), -1)})
    assert nothing == 0


def test_distillation_adds_the_distance_from_the_teacher():
    out = outputs(pooled=torch.randn(8, 5, dtype=torch.float64).requires_grad_())
    plain = losses.contrastive_objective()
    fixed = losses.Objective(lambda model, batch: out, plain.loss, plain.chance)
    teacher = torch.nn.Linear(5, 5, bias=False).double()
    objective = losses.distilled(fixed, teacher, weight=0.5)
    image = torch.randn(8, 5, dtype=torch.float64)
    value = objective(None, {"image": image})
    away = 1 - F.cosine_similarity(out["pooled"], teacher(image))
    assert value.item() == pytest.approx((plain.loss(out, {}) + 0.5 * away.mean()).item())
    value.backward()
    assert out["pooled"].grad.abs().sum() > 0 and teacher.weight.grad is None
    same = torch.nn.Identity()
    still = losses.distilled(fixed, same, weight=9.0)(None, {"image": out["pooled"].detach()})
    assert still.item() == pytest.approx(plain.loss(out, {}).item())


# ---------------------------------------------------------------------- classification
def classified(columns, labels, weights=None, seed=0):
    logits = torch.randn(len(labels), columns, generator=torch.Generator().manual_seed(seed))
    objective = losses.classification_objective(class_weights=weights)
    batch = {"image": logits, "label": torch.tensor(labels)}
    return objective(lambda x: x, batch), logits.double().numpy()


def probabilities(logits):
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("columns", "labels"),
    [(1, [0, 1, 1, 0, 1, 1]), (2, [0, 1, 1, 0, 1, 1]), (3, [2, 0, 1, 0, 2, 2])],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_classification_is_scikit_learns_log_loss(columns, labels, weighted):
    weights = torch.tensor([0.5, 2.0, 3.0])[: max(2, columns)] if weighted else None
    value, logits = classified(columns, labels, weights)
    sample = None if weights is None else weights.numpy()[labels]
    expected = log_loss(labels, probabilities(logits), sample_weight=sample)
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("columns", [1, 3])
def test_rows_labelled_minus_one_are_left_out(columns):
    labels = [0, -1, 1, -1, 1, 0]
    value, logits = classified(columns, labels)
    known = [i for i, label in enumerate(labels) if label >= 0]
    p = probabilities(logits[known])
    expected = log_loss([labels[i] for i in known], p, labels=range(p.shape[1]))
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_batch_without_labels_teaches_nothing_instead_of_nan(columns):
    logits = torch.randn(4, columns, requires_grad=True)
    batch = {"image": logits, "label": torch.full((4,), -1)}
    value = losses.classification_objective()(lambda x: x, batch)
    value.backward()
    assert value.item() == 0 and (logits.grad == 0).all()


def test_grades_are_asked_threshold_by_threshold_and_a_near_miss_costs_less():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2, 3, 4, 2])
    p = probabilities(logits.double().numpy())
    above = 1 - p.cumsum(axis=1)[:, :-1]
    truth = label.numpy()[:, None] > np.arange(4)
    expected = -np.where(truth, np.log(above), np.log(1 - above)).mean(axis=1)
    np.testing.assert_allclose(losses.ordinal_loss(logits, label), expected, atol=1e-5)
    sure = 20.0 * torch.eye(5)[[0, 0, 0]]
    near, far, farther = losses.ordinal_loss(sure, torch.tensor([1, 2, 4]))
    assert near < far < farther
    assert losses.ordinal_loss(sure, torch.zeros(3, dtype=torch.long)).max() < 1e-6
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    objective = losses.classification_objective(class_weights=weights, ordinal=True)
    label = torch.tensor([0, 1, 2, 3, 4, -1])  # the last one is not known
    value = objective(lambda x: x, {"image": logits, "label": label})
    each = losses.ordinal_loss(logits[:5], label[:5])
    assert value.item() == pytest.approx((each * weights).sum().item() / 15, rel=1e-6)


def test_values_are_off_by_their_distance_in_the_given_scale_and_unknown_ones_teach_nothing():
    objective = losses.regression_objective(scale=40.0)
    out = torch.tensor([[100.0], [180.0], [7.0]], requires_grad=True)
    batch = {"image": out, "label": torch.tensor([140.0, 100.0, torch.nan])}
    value = objective(lambda x: x, batch)
    assert value.item() == pytest.approx((1 + 2) / 2 - 0.05, rel=1e-6)
    value.backward()
    assert out.grad[2].item() == 0 and out.grad[0] < 0 < out.grad[1]
    batch["label"] = torch.full((3,), torch.nan)
    assert objective(lambda x: x, batch).item() == 0


def test_partial_matches_get_the_softmax_of_their_share_of_equal_keys():
    keys = torch.tensor([[0, 0], [0, 1], [2, 3], [-1, 0]])
    target = losses.targets(keys, temperature=0.5)
    share = torch.tensor(
        [[1, 0.5, 0, 0.5], [0.5, 1, 0, 0], [0, 0, 1, 0], [0.5, 0, 0, 1]], dtype=torch.float64
    )
    torch.testing.assert_close(target, (share / 0.5).softmax(dim=1))
    assert target[0, 1] > target[0, 2]


def test_soft_targets_become_the_multi_positive_ones_as_the_temperature_falls():
    hard, soft = losses.targets(KEYS), losses.targets(KEYS, temperature=1e-3)
    torch.testing.assert_close(soft, hard, atol=1e-9, rtol=0)
    assert losses.floor(KEYS, temperature=1e-3) == pytest.approx(losses.floor(KEYS), abs=1e-9)


def test_soft_targets_have_a_floor_that_no_features_undercut():
    keys = torch.randint(0, 3, (24, 3), generator=torch.Generator().manual_seed(0))
    low = losses.floor(keys, temperature=0.1)
    for seed in range(5):
        value = losses.contrastive_loss(
            unit(24, seed=seed),
            unit(24, seed=seed + 50),
            logit_scale=torch.tensor(10.0, dtype=torch.float64),
            keys=keys,
            key_temperature=0.1,
        )
        assert value > low


def test_objectives_in_turn_count_one_and_then_the_other_with_a_gradient_for_all():
    weights = torch.nn.ParameterDict({"a": torch.tensor([2.0]), "b": torch.tensor([3.0])})
    turn = {"early": True}

    def objective(name):
        return losses.Objective(
            lambda model, batch: {key: value.sum() for key, value in model.items()},
            lambda out, batch: out[name] ** 2,
        )

    both = losses.in_turn(objective("a"), objective("b"), lambda: turn["early"])
    for early, value, gradients in ((True, 4.0, [4.0, 0.0]), (False, 9.0, [0.0, 6.0])):
        turn["early"] = early
        weights.zero_grad()
        loss = both(weights, {})
        loss.backward()
        assert loss.item() == value and [p.grad.item() for p in weights.values()] == gradients
