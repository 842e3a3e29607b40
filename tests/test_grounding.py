"""Protects the grounding audit: a model that sees the lesion is told from one that does not."""

import numpy as np
import pytest
import torch
from torch import nn

from bonelib import explain

SIZE = 32
PLACES = [(4, 20), (20, 6), (12, 12), (22, 22)]


class Mean(nn.Module):
    """The logit is a multiple of a number of the image; what was shown to it is kept."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.weight = seen, nn.Parameter(torch.tensor([[5.0]]))
        self.shown = []

    def forward(self, image):
        self.shown.append(image.numpy().copy())
        return self.seen(image)[:, None] @ self.weight


def brightest(image):
    return image[:, 0].amax(dim=(1, 2)) - 0.6


def corner(image):
    return image[:, 0, :3, :3].mean(dim=(1, 2))


def masks():
    drawn = np.zeros((len(PLACES), SIZE, SIZE), bool)
    for number, (row, column) in enumerate(PLACES):
        drawn[number, row : row + 5, column : column + 4] = True
    return drawn


def batches(size=3):
    """A slope of greys, and a bright lesion; normalised, so that values may be below zero."""
    slope = torch.linspace(-0.5, 0.2, SIZE).expand(SIZE, SIZE)
    image = slope[None, None].repeat(len(PLACES), 3, 1, 1)
    image[torch.from_numpy(masks())[:, None].expand_as(image)] = 1
    return [{"image": part} for part in image.split(size)]


IDS = dict(patients=["a", "a", "b", "c"], labels=["benign", "benign", "benign", "malignant"])


def test_a_model_that_sees_the_lesion_loses_its_score_with_the_lesion_alone():
    found = explain.grounding(Mean(brightest), batches(), masks(), **IDS)
    assert found["whole"].gt(0.85).all() and found["hidden"].lt(0.2).all()
    np.testing.assert_allclose(found["elsewhere"], found["whole"])
    assert found["lesion_drop"].gt(0.6).all()
    np.testing.assert_allclose(found["hidden_drop"], found["whole"] - found["hidden"])
    np.testing.assert_allclose(
        found["lesion_drop"], found["hidden_drop"] - found["elsewhere_drop"], atol=1e-9
    )


def test_a_model_that_reads_a_corner_does_not_care():
    found = explain.grounding(Mean(corner), batches(), masks(), **IDS)
    np.testing.assert_allclose(found["hidden_drop"], 0, atol=1e-6)


def test_another_patient_of_the_same_label_stands_in():
    model = Mean(lambda image: image[:, 0].mean(dim=(1, 2)))
    loader = batches()
    for number, batch in enumerate(loader):
        batch["image"] = batch["image"] + number  # the last image differs: it is malignant
    loader[0]["image"][2] += 0.3
    found = explain.grounding(model, loader, masks(), **IDS)
    whole = found["whole"].to_numpy()
    assert found["swapped"][0] == whole[2] and found["swapped"][1] == whole[2]
    assert found["swapped"][2] in whole[:2] and np.isnan(found["swapped"][3])
    assert found["swap_change"][0] == abs(whole[0] - whole[2]) > 0
    expected = ["", "", "", "no other patient with the label"]
    assert found[explain.LEFT_OUT].tolist() == expected
    none = explain.grounding(model, loader, masks(), patients=list("abcd"), labels=[None] * 4)
    assert none["swapped"].isna().all(), "a missing label is like no other"


def test_what_is_hidden_elsewhere_is_as_much_clear_of_the_lesion_and_as_grey():
    grey = np.full((SIZE, SIZE), -2.0, np.float32)  # air
    grey[:, 12:] = 0.3
    grey += np.random.default_rng(0).normal(0, 0.05, (SIZE, SIZE)).astype(np.float32)
    loader, mask = [{"image": torch.from_numpy(np.stack([grey] * 3)[None])}], masks()[:1]
    places = set()
    for seed in range(10):
        model = Mean(corner)
        explain.grounding(model, loader, mask, patients=["a"], labels=[1], seed=seed)
        image, hidden, elsewhere = (shown[0, 0] for shown in model.shown)
        gone, moved = hidden != image, elsewhere != image
        assert gone.sum() == moved.sum() > mask.sum() and not (gone & moved).any()
        assert gone[mask[0]].all() and not moved[:, :12].any()
        shapes = [one[np.ix_(one.any(1), one.any(0))] for one in (gone, moved)]
        assert np.array_equal(*shapes)
        places.add(tuple(np.argwhere(moved)[0]))
    assert len(places) > 3


def test_what_is_hidden_elsewhere_is_no_padding():
    image = np.random.default_rng(0).normal(0.3, 0.2, (SIZE, SIZE)).astype(np.float32)
    image[:, :14] = 0.3  # as grey as the lesion on average, and no radiograph
    loader, mask = [{"image": torch.from_numpy(np.stack([image] * 3)[None])}], masks()[:1]
    for seed in range(10):
        model = Mean(corner)
        explain.grounding(model, loader, mask, patients=["a"], labels=[1], seed=seed)
        moved = model.shown[2][0, 0] != model.shown[0][0, 0]
        assert moved.any() and not moved[:, :13].any()


@pytest.mark.parametrize("value", [0.3, -1.2])
def test_hiding_in_an_even_image_changes_nothing(value):
    # INPAINT_TELEA of OpenCV 5.0 fills it with values from 1.4 below to 1.4 above.
    model = Mean(corner)
    loader = [{"image": torch.full((1, 3, SIZE, SIZE), value)}]
    explain.grounding(model, loader, masks()[:1], patients=["a"], labels=[1])
    assert len(model.shown) == 3 and np.allclose(model.shown, value, atol=1e-4)


def test_the_same_seed_hides_the_same_whatever_the_size_of_the_batch():
    model = Mean(lambda image: image[:, 0].mean(dim=(1, 2)))
    plain = explain.grounding(model, batches(), masks(), **IDS, seed=3)
    for size in (1, 4):
        other = explain.grounding(model, batches(size), masks(), **IDS, seed=3)
        np.testing.assert_allclose(other.iloc[:, :8], plain.iloc[:, :8], atol=1e-6)
    assert not explain.grounding(model, batches(), masks(), **IDS, seed=4).equals(plain)


def test_what_cannot_be_hidden_is_left_out_and_said():
    drawn = list(masks())
    drawn[0], drawn[1] = None, np.zeros((SIZE, SIZE), bool)
    drawn[2], drawn[3] = np.ones((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
    drawn[3][:, 2:-2] = True
    ids = dict(patients=list("abcd"), labels=[1] * 4)
    found = explain.grounding(Mean(brightest), batches(), drawn, **ids)
    expected = ["no mask", "empty mask", "mask fills the image", "no room elsewhere"]
    assert found[explain.LEFT_OUT].tolist() == expected
    assert found["hidden"].isna().tolist() == [True] * 3 + [False]
    assert found["elsewhere"].isna().all() and found["lesion_drop"].isna().all()
    assert found[["whole", "swapped"]].notna().all(axis=None)


def test_one_image_has_its_row_and_what_does_not_fit_is_refused():
    one = dict(patients=["a"], labels=[1])
    found = explain.grounding(Mean(brightest), batches(1)[:1], masks()[:1], **one)
    assert len(found) == 1 and found["lesion_drop"].gt(0.6).all()
    with pytest.raises(ValueError, match="4 masks, 1 patients"):
        explain.grounding(Mean(brightest), batches(), masks(), **one)
    with pytest.raises(ValueError, match="4 maps or masks for 3 images"):
        explain.grounding(Mean(brightest), batches()[:1], masks(), **IDS)
    three = dict(patients=list("abc"), labels=[1] * 3)
    with pytest.raises(ValueError, match="3 maps or masks for 4 images"):
        explain.grounding(Mean(brightest), batches(), masks()[:3], **three)
    with pytest.raises(ValueError, match="A mask is .31, 32."):
        explain.grounding(Mean(brightest), batches(), masks()[:, :-1], **IDS)
