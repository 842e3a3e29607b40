"""Protects deletion and insertion: they have known values for a model that is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bonelib import explain

SIZE, STEPS = 16, 8
MASK = np.zeros((SIZE, SIZE), bool)
MASK[2:6, 9:13] = True


class Sees(nn.Module):
    """Its logits are multiples of the mean of the pixels in the mask, or its probability is."""

    def __init__(self, weights=(0.0, 4.0)):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.dropout = nn.Dropout(0.9)

    def forward(self, image):
        seen = image[:, 0, torch.from_numpy(MASK)].mean(dim=1, keepdim=True)
        return self.dropout(seen) * self.weights


def batches(size=2, count=3):
    image = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    image[:, :, torch.from_numpy(MASK)] += 1
    return [{"image": part} for part in image.split(size)]


def curve_by_hand(image, heat, way, column, steps=STEPS):
    """By the order of the pixels, for a map without ties."""
    from torchvision.transforms.functional import gaussian_blur

    blurred = gaussian_blur(image, 2 * int(np.ceil(3 * SIZE / 16)) + 1, SIZE / 16)
    start, end = (image, blurred) if way == "deletion" else (blurred, image)
    order, points = np.argsort(-heat.ravel()), []
    for step in range(steps + 1):
        now, chosen = start.clone(), order[: round(step / steps * heat.size)]
        now.flatten(2)[:, :, chosen] = end.flatten(2)[:, :, chosen]
        with torch.no_grad():
            points.append(Sees().eval()(now).softmax(dim=1)[0, column].item())
    return np.mean([(a + b) / 2 for a, b in zip(points, points[1:], strict=False)])


def test_the_areas_are_those_of_curves_made_by_hand():
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    found = explain.deletion_insertion(Sees(), batches(), maps, target=[1, 0, 1], steps=STEPS)
    images = torch.cat([batch["image"] for batch in batches()])
    for row, column in enumerate([1, 0, 1]):
        for way in ("deletion", "insertion"):
            expected = curve_by_hand(images[row : row + 1], maps[row], way, column)
            assert found[way][row] == pytest.approx(expected, abs=1e-5)


def test_a_map_of_what_the_model_sees_beats_random_maps_and_its_opposite_loses():
    maps = {
        "seen": np.stack([MASK.astype(float)] * 3),
        "random": explain.random_maps(3, SIZE, seed=0),
        "opposite": np.stack([(~MASK).astype(float)] * 3),
    }
    found = pd.DataFrame(
        {
            name: explain.deletion_insertion(Sees(), batches(), heat, target=1).mean(
                numeric_only=True
            )
            for name, heat in maps.items()
        }
    )
    assert found.loc["deletion"].is_monotonic_increasing
    assert found.loc["insertion"].is_monotonic_decreasing


def test_the_size_of_the_batch_and_the_scale_of_a_map_change_nothing():
    maps = np.random.default_rng(0).integers(0, 4, (3, SIZE, SIZE)).astype(np.float32)  # many ties
    plain = explain.deletion_insertion(Sees(), batches(), maps, target=1)
    for size in (1, 3):
        other = explain.deletion_insertion(Sees(), batches(size), maps * 100, target=1)
        np.testing.assert_allclose(other.iloc[:, :2], plain.iloc[:, :2], atol=1e-6)


def test_pixels_that_tie_go_in_one_smooth_random_order():
    blank, noise = np.zeros((3, SIZE, SIZE)), explain.random_maps(1, SIZE, seed=0)
    found = explain.deletion_insertion(Sees(), batches(), blank, target=1)
    same = explain.deletion_insertion(Sees(), batches(), np.repeat(1 - noise, 3, 0), target=1)
    np.testing.assert_allclose(found.iloc[:, :2], same.iloc[:, :2], atol=1e-6)
    # Ties in a map with two levels: the pixels of the upper level come first, in the same order.
    half = np.repeat((np.arange(SIZE) < 8)[None, None] * np.ones((3, SIZE, 1)), 1, 0)
    found = explain.deletion_insertion(Sees(), batches(), half, target=1)
    same = explain.deletion_insertion(Sees(), batches(), half * 5 + 1 - noise, target=1)
    np.testing.assert_allclose(found.iloc[:, :2], same.iloc[:, :2], atol=1e-6)


def test_one_output_is_a_probability_by_the_sigmoid_and_a_function_is_taken_as_it_is():
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    two = explain.deletion_insertion(Sees(), batches(), maps, target=1)
    one = explain.deletion_insertion(Sees((4.0,)), batches(), maps)
    np.testing.assert_allclose(one.iloc[:, :2], two.iloc[:, :2], atol=1e-6)
    values = explain.deletion_insertion(Sees(), batches(), maps, target=lambda row: row[1])
    ten = explain.deletion_insertion(Sees((0.0, 40.0)), batches(), maps, target=lambda r: r[1])
    np.testing.assert_allclose(ten.iloc[:, :2], 10 * values.iloc[:, :2], rtol=1e-5)


def test_the_predicted_class_is_that_of_the_untouched_image_throughout():
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    model = Sees((0.0, 4.0, -4.0))  # the middle one is highest for all
    found = explain.deletion_insertion(model, batches(), maps, target=-1)
    assert found.equals(explain.deletion_insertion(model, batches(), maps, target=1))


def test_the_model_is_left_as_it_was_and_holds_no_gradients():
    model = Sees().train()
    model.dropout.eval()
    maps = np.ones((3, SIZE, SIZE))
    first = explain.deletion_insertion(model, batches(), maps)
    assert model.training and not model.dropout.training and model.weights.grad is None
    assert first.equals(explain.deletion_insertion(model.train(), batches(), maps)), "no dropout"


def test_what_cannot_be_scored_is_left_out_or_refused():
    maps = np.random.default_rng(0).random((3, SIZE, SIZE))
    plain = explain.deletion_insertion(Sees(), batches(), maps)
    maps[1, 0, 0] = np.nan
    found = explain.deletion_insertion(Sees(), batches(), maps)
    assert found[explain.LEFT_OUT].tolist() == ["", "map is not finite", ""]
    assert found.iloc[1, :2].isna().all() and found.drop(index=1).equals(plain.drop(index=1))
    one = explain.deletion_insertion(Sees(), batches(1, count=1), maps[:1])
    assert len(one) == 1
    for wrong, message in ((maps[:2], "2 maps or masks for 3 images"),
                           (np.ones((4, SIZE, SIZE)), "4 maps or masks for 3 images"),
                           (np.ones((3, 8, 8)), "do not fit images")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            explain.deletion_insertion(Sees(), batches(), wrong)
    dirty = batches()
    dirty[1]["image"][0, 0, 3, 10] = np.nan
    with pytest.raises(ValueError, match="look for NaN in .* images"):
        explain.deletion_insertion(Sees(), dirty, maps)
    for target in (2, [0, 1, -2]):
        with pytest.raises(ValueError, match="are no columns"):
            explain.deletion_insertion(Sees(), batches(), maps, target=target)
    with pytest.raises(ValueError, match="2 targets for 3"):
        explain.deletion_insertion(Sees(), batches(), maps, target=[0, 1])
