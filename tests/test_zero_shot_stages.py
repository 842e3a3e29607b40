"""Protects what stands on prompts: sites, signs, gates, calibration, crops: known truths."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bonelib import evaluation, zero_shot
from bonelib.adaptation import hierarchy


class Orthonormal:
    """A text tower in which each distinct word of ``known`` has an axis of its own."""

    def __init__(self, *known):
        self.axes, self.passes = {word: i for i, word in enumerate(known)}, []

    def tokenize(self, sentences):
        self.passes.append(list(sentences))
        return torch.tensor([[word in s for word in self.axes] for s in sentences]).float()

    def encode_text(self, tokens):
        return torch.nn.functional.normalize(tokens, dim=-1)


def drawn(rows=400, classes=3, sharp=2.0, seed=0):
    """Logits that are ``sharp`` times those that their labels were drawn from."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(rows, classes)) * 1.5
    labels = np.array([rng.choice(classes, p=p) for p in softmax(true, axis=1)])
    return sharp * true, labels


# ---------------------------------------------------------------------- prompts
def test_each_sentence_goes_through_the_tower_once():
    model = Orthonormal("bone", "tumor")
    prompts = {"normal": ["bone", "a bone"], "tumor": ["tumor", "a bone"]}
    zero_shot.class_features(model, prompts)
    assert model.passes == [["bone", "a bone", "tumor"]]
    zero_shot.wording_logits(model, np.eye(2), prompts)
    assert model.passes[1:] == [["bone", "a bone", "tumor"]]


@pytest.mark.parametrize(
    "prompts, said",
    [
        ({"a": ["x"], "b": []}, "'b' has no prompt"),
        ({"a": ["x", "y"], "b": ["y", "x", "x"]}, "'a' and 'b' have the same prompts"),
    ],
)
def test_classes_that_prompts_cannot_ask_for_are_refused_in_a_sentence(prompts, said):
    with pytest.raises(ValueError, match=said):
        zero_shot.class_features(Orthonormal("x", "y"), prompts)


def test_an_image_is_asked_at_its_own_site_and_without_one_as_before():
    images = np.eye(4, dtype=np.float32)
    classes = {
        "": np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32),
        "knee": np.array([[0, 0, 1, 0], [0, 0, 0, 1]], np.float32),
        "hand": np.array([[0, 1, 0, 0], [1, 0, 0, 0]], np.float32),
    }
    sites = [("knee",), (), ("moon",), ("hand", "knee")]
    found = zero_shot.site_logits(images, classes, sites, scale=10.0)
    both = (classes["knee"] + classes["hand"]) / np.sqrt(2)
    for row, used in enumerate([classes["knee"], classes[""], classes[""], both]):
        np.testing.assert_allclose(found[row], 10 * used @ images[row], atol=1e-6)


def test_the_bias_of_a_pair_moves_the_sigmoid_and_not_the_softmax():
    images, classes = np.eye(2), np.eye(2)
    plain, biased = (zero_shot.logits(images, classes, scale=5.0, bias=b) for b in (0.0, -7.0))
    np.testing.assert_allclose(biased, plain - 7)
    np.testing.assert_allclose(softmax(biased, axis=1), softmax(plain, axis=1))
    p = evaluation.probabilities(biased[:, 1], task="tumor")[:, 1]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(7 - plain[:, 1])))


# ---------------------------------------------------------------------- signs
SIGNS = {
    "margin": {"sharp": np.array([1.0, 0, 0, 0]), "blurred": np.array([0, 1.0, 0, 0])},
    "matrix": {"none": np.array([0, 0, 1.0, 0]), "osteoid": np.array([0, 0, 0, 1.0])},
}
WEIGHTS = pd.DataFrame(
    [
        ("benign", "margin", "sharp", 2.0),
        ("malignant", "margin", "blurred", 1.0),
        ("malignant", "matrix", "osteoid", 3.0),
        ("another", "matrix", "osteoid", 9.0),
    ],
    columns=["class", "sign", "term", "weight"],
)


def test_signs_give_a_class_the_points_that_the_equation_says():
    images = np.random.default_rng(0).normal(size=(20, 4))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    found = zero_shot.attribute_logits(images, SIGNS, WEIGHTS, ("benign", "malignant"), scale=4.0)
    margin, matrix = softmax(4 * images[:, :2], axis=1), softmax(4 * images[:, 2:], axis=1)
    expected = np.column_stack([2 * margin[:, 0], margin[:, 1] + 3 * matrix[:, 1]])
    np.testing.assert_allclose(found, expected)
    sure = zero_shot.attribute_logits(np.eye(4), SIGNS, WEIGHTS, ("benign", "malignant"), scale=1e3)
    np.testing.assert_allclose(sure[0], [2, 1.5]) and np.testing.assert_allclose(sure[3], [1, 3.5])


def test_a_class_or_a_term_that_the_table_of_signs_lacks_is_named():
    with pytest.raises(ValueError, match="no weight to normal"):
        zero_shot.attribute_logits(np.eye(4), SIGNS, WEIGHTS, ("normal", "benign"), scale=1.0)
    odd = pd.concat([WEIGHTS, WEIGHTS.head(1).assign(term="jagged")])
    with pytest.raises(ValueError, match="No prompts for margin = jagged"):
        zero_shot.attribute_logits(np.eye(4), SIGNS, odd, ("benign", "malignant"), scale=1.0)


# ---------------------------------------------------------------------- entities to classes
def test_a_class_is_the_sum_of_the_probabilities_of_its_entities():
    logits = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    members = hierarchy.entity_classes(np.array([0, 1, 2]), np.array([1, 1, 2]), 3)
    assert members.shape == (3, 4)  # normal bone is an entity of its own
    found = hierarchy.marginal(torch.from_numpy(logits), members).exp().numpy()
    p = softmax(logits, axis=1)
    np.testing.assert_allclose(
        found, np.column_stack([p[:, 3], p[:, :2].sum(1), p[:, 2]]), atol=1e-6
    )


# ---------------------------------------------------------------------- the gate
def test_entropy_is_scipys_as_a_share_of_the_largest():
    logits = np.random.default_rng(0).normal(size=(30, 5))
    expected = scipy_entropy(softmax(logits, axis=1), axis=1, base=5)
    np.testing.assert_allclose(evaluation.entropy(logits), expected)
    np.testing.assert_allclose(evaluation.entropy(np.array([[3.0, 3.0], [0.0, -np.inf]])), [1, 0])


def test_risk_over_coverage_in_closed_form():
    errors, doubt, every = np.array([0, 1, 0, 1.0]), np.array([0.1, 0.4, 0.2, 0.3]), np.ones(4)
    coverages = (0.25, 0.5, 0.75, 1)
    risk = [zero_shot.selective_risk(errors, doubt, share)(every) for share in coverages]
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    assert zero_shot.selective_risk(errors, doubt)(every) == pytest.approx(5 / 24)
    # A doubt that parts right from wrong: with m errors of n, the sum of 1 - (n - m) / k.
    n, m = 50, 20
    errors = (np.arange(n) >= n - m).astype(float)
    best = sum(1 - (n - m) / k for k in range(n - m, n + 1)) / n
    assert zero_shot.selective_risk(errors, errors + 0.0)(np.ones(n)) == pytest.approx(best)


def test_doubts_that_tie_cost_what_random_orders_cost_on_average():
    rng = np.random.default_rng(0)
    errors, doubt = rng.integers(0, 2, 12).astype(float), rng.integers(0, 3, 12)
    found = zero_shot.selective_risk(errors, doubt)(np.ones(12))
    orders = [np.lexsort((rng.random(12), doubt)) for _ in range(4000)]
    area = np.mean([np.mean(np.cumsum(errors[o]) / np.arange(1, 13)) for o in orders])
    assert found == pytest.approx(area, abs=0.01)
    flat = zero_shot.selective_risk(errors, np.zeros(12))(np.ones(12))
    assert flat == pytest.approx(errors.mean())


def test_a_weight_of_two_is_an_image_drawn_twice():
    rng = np.random.default_rng(1)
    errors, doubt, weights = rng.random(20), rng.random(20), rng.integers(0, 3, 20)
    again = np.repeat(np.arange(20), weights)
    for coverage in (0.0, 0.3, 1.0):
        found = zero_shot.selective_risk(errors, doubt, coverage)(weights.astype(float))
        same = zero_shot.selective_risk(errors[again], doubt[again], coverage)(np.ones(len(again)))
        assert found == pytest.approx(same)


def test_the_gate_asks_the_second_stage_in_doubt_alone():
    first = np.array([[9.0, 0.0], [0.1, 0.0]])
    second = np.array([[0.0, 5.0], [0.0, 5.0]])
    out = zero_shot.gated(first, second, 0.5)
    np.testing.assert_allclose(out, log_softmax([first[0], second[1]], axis=1))
    np.testing.assert_allclose(zero_shot.gated(first, second, 0.0), log_softmax(second, axis=1))
    np.testing.assert_allclose(zero_shot.gated(first, second, 2.0), log_softmax(first, axis=1))


def test_the_gate_is_the_best_on_validation_and_asks_no_more_than_it_must():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    hit = np.eye(2)[labels]
    sure = rng.random(200) < 0.7
    first = np.where(sure[:, None], 6 * hit, 0.1 * rng.normal(size=(200, 2)))
    second = 2 * hit - 4 * hit * sure[:, None]  # right in doubt, wrong where the first is sure

    def accuracy(logits):
        return (logits.argmax(1) == labels).mean()

    cut = zero_shot.choose_gate(first, second, accuracy)
    assert accuracy(zero_shot.gated(first, second, cut)) > 0.97
    assert (evaluation.entropy(first) < cut).mean() == pytest.approx(sure.mean(), abs=0.1)
    assert zero_shot.choose_gate(first, first, accuracy) == 2.0  # nothing to gain: never asked


# ---------------------------------------------------------------------- calibration
def test_the_temperature_is_that_of_the_least_loss_and_undoes_what_sharpened():
    logits, labels = drawn(rows=3000, sharp=4.0)
    temperature, offset = zero_shot.calibrate(logits, labels)
    best = minimize_scalar(
        lambda t: log_loss(labels, softmax(logits / t, axis=1)), bounds=(0.1, 30), method="bounded"
    ).x
    assert temperature == pytest.approx(best, rel=1e-3) and not offset.any()
    assert temperature == pytest.approx(4, rel=0.1)
    assert zero_shot.nll(logits, labels).mean() == pytest.approx(
        log_loss(labels, softmax(logits, axis=1))
    )


def test_temperature_and_offset_of_two_classes_are_a_logistic_regressions():
    logits, labels = drawn(classes=2, sharp=3.0)
    z = logits[:, 1] - logits[:, 0] - 5.0
    shifted = np.column_stack([np.zeros(len(z)), z])  # a pair with a bias that fits no task
    temperature, offset = zero_shot.calibrate(shifted, labels, offset=True)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(z[:, None], labels)
    assert 1 / temperature == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert offset == pytest.approx([0, model.intercept_[0]], rel=1e-3)
    alone = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z[:, None], labels)
    assert 1 / zero_shot.calibrate(shifted, labels)[0] == pytest.approx(alone.coef_[0, 0], rel=1e-3)


def test_classes_that_never_err_end_at_the_bound_and_not_at_infinity():
    logits = np.array([[1.0, -1.0], [-1.0, 1.0]] * 5)
    temperature, offset = zero_shot.calibrate(logits, np.array([0, 1] * 5), offset=True)
    assert 0 < temperature < 0.1 and np.isfinite(offset).all()


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 1, -1]])
def test_validation_images_that_can_calibrate_nothing_are_refused(labels):
    with pytest.raises(ValueError, match="two classes; these 3 hold"):
        zero_shot.calibrate(np.zeros((3, 2)), np.array(labels))


def test_the_calibration_error_is_the_binned_gap():
    logits, labels = drawn(rows=300)
    p = softmax(logits, axis=1)
    sure, right = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for low in np.arange(10) / 10:
        rows = (sure >= low) & ((sure < low + 0.1) | (low == 0.9))
        if rows.any():
            expected += rows.mean() * abs(right[rows].mean() - sure[rows].mean())
    assert zero_shot.ece(p, labels)(np.ones(300)) == pytest.approx(expected)
    twice = np.random.default_rng(0).integers(0, 3, 300)
    again = np.repeat(np.arange(300), twice)
    whole = zero_shot.ece(p[again], labels[again])(np.ones(len(again)))
    assert zero_shot.ece(p, labels)(twice.astype(float)) == pytest.approx(whole)
    perfect = np.eye(3)[labels]
    assert zero_shot.ece(perfect, labels)(np.ones(300)) == 0


# ---------------------------------------------------------------------- intervals of any statistic
def test_an_estimate_is_the_statistic_with_an_interval_over_patients():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=40), 4)  # four equal images a patient
    table = pd.DataFrame({"image_id": range(160), "patient": np.repeat(np.arange(40), 4)})
    mean = evaluation.estimate(table, {"m": lambda w: w @ x / w.sum()}, draws=1000).iloc[0]
    assert mean["value"] == pytest.approx(x.mean()) and (mean["n"], mean["groups"]) == (160, 40)
    half = (mean["high"] - mean["low"]) / 2
    assert half == pytest.approx(1.96 * x.std() / np.sqrt(40), rel=0.15)
    same = evaluation.means(table.assign(m=x, k="a"), ["m"], by="k", draws=1000).iloc[0]
    columns = ["value", "low", "high", "n"]
    assert same[columns].tolist() == pytest.approx(mean[columns].tolist(), rel=1e-12)


# ---------------------------------------------------------------------- crops
def test_the_grid_covers_the_image_at_two_scales_and_stays_inside():
    boxes = zero_shot.crops.grid(64)
    assert len(boxes) == 9 + 16 and set(boxes[:, 2]) == {32, 21}
    covered = np.zeros((64, 64), int)
    for top, left, side in boxes:
        covered[top : top + side, left : left + side] += 1
    assert boxes.min() == 0 and (boxes[:, :2] + boxes[:, 2:]).max() == 64 and covered.min() == 2


def test_windows_are_cut_where_they_lie_image_by_image():
    image = torch.rand(3, 1, 16, 16)
    boxes = np.array([[0, 0, 16], [8, 4, 8]])
    found = [
        b["image"] for b in zero_shot.crops.cut([{"image": image[:2]}, {"image": image[2:]}], boxes)
    ]
    assert [f.shape for f in found] == [(2, 1, 16, 16)] * 3
    for whole, parts in zip(image, found, strict=True):
        torch.testing.assert_close(parts[0], whole)
        assert parts[1].mean() == pytest.approx(whole[:, 8:16, 4:12].mean().item(), abs=0.03)


def test_a_window_hits_what_it_holds_or_lies_in_by_half():
    boxes = zero_shot.crops.grid(60)
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 60, 60), bool)
    for mask in masks:
        top, left = rng.integers(0, 40, 2)
        high, wide = rng.integers(3, 55, 2)
        mask[top : top + high, left : left + wide] = True
    found = zero_shot.crops.hits(boxes, masks)
    for i, mask in enumerate(masks):
        for j, (top, left, side) in enumerate(boxes):
            inside = mask[top : top + side, left : left + side].sum()
            assert found[i, j] == (inside >= 0.5 * min(mask.sum(), side**2))


def test_scores_that_know_the_lesion_beat_windows_of_the_same_size_that_see_nothing():
    boxes, rng = zero_shot.crops.grid(60), np.random.default_rng(0)
    masks = np.zeros((40, 60, 60), bool)
    for mask, (top, left) in zip(masks, rng.integers(0, 50, (40, 2)), strict=True):
        mask[top : top + 8, left : left + 8] = True
    hit = zero_shot.crops.hits(boxes, masks)
    chosen = zero_shot.crops.best(hit + 0.1 * rng.random(hit.shape), 3)
    beside = zero_shot.crops.baselines(boxes, masks, chosen)
    assert np.take_along_axis(hit, chosen, axis=1)[:, 0].all()
    # Blind scores hit as often as the random windows of the sizes that they chose.
    blind = zero_shot.crops.best(rng.random((40, len(boxes))), len(boxes))
    assert zero_shot.crops.baselines(boxes, masks, blind)["random"].mean() == pytest.approx(
        np.take_along_axis(hit, blind, axis=1).mean()
    )
    middle = np.zeros((1, 60, 60), bool)
    middle[0, 27:33, 27:33] = True
    every = np.arange(len(boxes))[None]
    assert zero_shot.crops.baselines(boxes, middle, every)["central"].all()
    assert beside["central"].mean() < 1


def test_the_map_of_scores_is_their_mean_over_the_windows_of_a_pixel():
    boxes = np.array([[0, 0, 4], [0, 0, 2]])
    (found,) = zero_shot.crops.heat(np.array([[0.2, 0.6]]), boxes, 4)
    assert found[0, 0] == pytest.approx(0.4) and found[3, 3] == pytest.approx(0.2)
