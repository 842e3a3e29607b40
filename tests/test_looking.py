"""Protects classifiers that look at places: what they point at, and what outlines teach them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bonelib import adaptation, encoders, evaluation, figures, images, models, training
from bonelib.adaptation import looking
from bonelib.evaluation import Method

SIDE, SPOT = 64, 8


def planted(count=48, seed=0):
    """Noise, and in every other image one bright spot somewhere: images, labels and masks."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    corner = torch.randint(0, SIDE - SPOT, (count, 2), generator=generator)
    for row in range(0, count, 2):
        down, across = corner[row]
        mask[row, down : down + SPOT, across : across + SPOT] = True
    image[mask[:, None]] += 2
    return image.expand(-1, 3, -1, -1), (torch.arange(count) % 2 == 0).long(), mask


class Batches:
    """The planted images eight at a time, in another order each epoch."""

    def __init__(self, outlined=True):
        self.image, self.label, self.mask = planted()
        self.mask = self.mask & outlined
        self.epoch = 0

    def __len__(self):
        return 6

    def __iter__(self):
        order = torch.randperm(48, generator=torch.Generator().manual_seed(self.epoch))
        self.epoch += 1
        for rows in order.chunk(6):
            parts = {"label": self.label[rows], "mask": self.mask[rows]}
            yield {"image": self.image[rows], **parts}


def trained(strategy, epochs=12):
    """Train a small tower from random weights; return the classifier."""
    torch.manual_seed(0)
    tower = encoders.image("timm:test_resnet", weights="random", size=SIDE, seed=1)
    options = training.Options(
        epochs=epochs,
        lr=1e-2,
        backbone_lr=3e-3,
        layer_decay=1.0,
        frozen_norm=False,
        precision="32-true",  # where processors differ least
    )
    model = models.Classifier(tower, outputs=1)
    given = adaptation.Tuning(model, planted()[1].numpy(), options, steps=6 * epochs)
    with adaptation.strategy(strategy)(given) as found:
        for _ in training.fit(
            found.model, found.objective, Batches(), found.options, accelerator="cpu"
        ):
            pass
    return found.classifier().eval()


@pytest.mark.parametrize("strategy", adaptation.ON_PLACES)
def test_a_spot_that_decides_the_class_is_what_the_map_points_at(strategy):
    model = trained(strategy)
    image, label, mask = planted(seed=1)
    with torch.no_grad():
        logits, evidence = model(image)[:, 0], model.evidence(image)
    assert ((logits > 0) == (label == 1)).float().mean() > 0.9
    assert evidence.shape[:2] == (48, 1) and (evidence >= 0).all()
    heat = F.interpolate(evidence, (SIDE, SIDE), mode="bilinear")[:, 0]
    of_spots = heat[label == 1]
    energy = (of_spots * mask[label == 1]).sum(dim=(1, 2)) / of_spots.sum(dim=(1, 2))
    uniform = (SPOT / SIDE) ** 2  # the energy of a map without knowledge
    if strategy == "attention_pool":  # a place sees more than itself: the weight may lie beside it
        assert energy.mean() > 1.5 * uniform
        return
    assert energy.mean() > 4 * uniform
    near = F.max_pool2d(mask[label == 1, None].float(), 17, 1, 8)[:, 0].bool()  # within a place
    peak = of_spots.flatten(1).argmax(dim=1)
    share = near.flatten(1)[torch.arange(24), peak].float().mean()
    # Six towers had .67 to .79 by top_k and .83 to .96 by outlines; a peak anywhere has .13.
    assert share > (0.75 if strategy == "outlined" else 0.55) > 4 * near.float().mean()


# ---------------------------------------------------------------------- pooling
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("pool", models.POOLS)
def test_logits_are_the_pooled_judgements_of_places(pool, outputs):
    torch.manual_seed(0)
    maps = [torch.randn(2, 5, 16, 16), torch.randn(2, 7, 8, 8)]
    head = models.PlaceHead([5, 7], outputs=outputs, pool=pool)
    torch.nn.init.normal_(head.weight)
    with torch.no_grad():
        logits, places, weights = head.judge(maps)
    assert places.shape == (2, outputs, 16, 16) and weights.shape == (2, 1, 16, 16)
    torch.testing.assert_close(weights.sum(dim=(1, 2, 3)), torch.ones(2))
    flat = places.flatten(2)
    expected = flat.sort(dim=2).values[..., -4:].mean(dim=2)  # 256 / 64
    if pool == "attention_pool":
        assert weights.std() > 0
        expected = (flat * weights.flatten(2)).sum(dim=2)
    torch.testing.assert_close(logits, expected)


def test_a_map_of_several_classes_is_the_odds_of_each_against_the_others():
    places = torch.randn(1, 3, 2, 2)
    weights = torch.full((1, 1, 2, 2), 0.25)
    p = places.softmax(dim=1)
    torch.testing.assert_close(models.places.evidence(places, weights), p / (1 - p) / 4)


@pytest.mark.parametrize("pool", models.POOLS)
def test_a_bundle_keeps_the_map(pool, tmp_path):
    tower = encoders.image("timm:test_resnet", weights="random", size=SIDE, seed=1)
    model = models.Classifier(tower, outputs=2).eval()
    looking.look_at_places(adaptation.Tuning(model, np.array([0, 1]), None, steps=1), pool)
    torch.nn.init.normal_(model.head.weight)
    again = models.load_bundle(models.save_bundle(tmp_path / "b", model))
    image = planted()[0][:2]
    with torch.no_grad():
        assert torch.equal(again(image), model(image))
        assert torch.equal(again.evidence(image), model.evidence(image))
        wide = again.evidence(F.interpolate(image, (128, 128)))
    assert wide.shape[-1] == 2 * model.evidence(image).shape[-1], "larger images, finer maps"


def test_a_model_without_a_map_and_a_tower_without_maps_say_so():
    tower = encoders.image("timm:test_resnet", weights="random", size=32, seed=1)
    with pytest.raises(ValueError, match="A Linear on pooled features has no map of its own"):
        models.Classifier(tower, outputs=1).evidence(torch.zeros(1, 3, 32, 32))
    model = models.Classifier(encoders.image("timm:test_vit", weights="random"), outputs=1)
    given = adaptation.Tuning(model, np.array([0, 1]), None, steps=1)
    with pytest.raises(ValueError, match="no feature maps of 3 resolutions.*convolutional tower"):
        looking.look_at_places(given, "top_k")
    with pytest.raises(ValueError, match="Unknown pool 'mean'"):
        models.PlaceHead([4], outputs=1, pool="mean")


@pytest.mark.parametrize("name", ["timm:test_convnext", "timm:test_resnet"])
def test_every_weight_that_moves_gets_a_gradient_so_that_processes_can_train_together(name):
    tower = encoders.image(name, weights="random", size=SIDE)
    given = adaptation.Tuning(
        models.Classifier(tower, outputs=2), np.array([0, 1]), training.Options(epochs=1), steps=1
    )
    with adaptation.strategy("top_k")(given) as found:
        found.model(planted()[0][:2]).sum().backward()
        weights = dict(found.model.named_parameters())
        assert all((w.grad is not None) == w.requires_grad for w in weights.values())
        still = {name for name, weight in weights.items() if not weight.requires_grad}
    assert bool(still) == ("convnext" in name) and all("head.norm" in name for name in still)
    assert all(weight.requires_grad for weight in weights.values())


def test_stages_with_channels_last_are_turned_and_what_is_no_list_of_maps_is_refused():
    class Trunk(torch.nn.Module):
        def forward_intermediates(self, image):
            stages = [image.new_zeros(1, wide, 32 // wide, 32 // wide) for wide in (4, 8, 16)]
            return (image.new_ones(1, 2, 2, 16), stages) if self.tuple else {"image": stages}

    tower = torch.nn.Module()
    tower.trunk, tower.name = Trunk(), "a tower"
    tower.trunk.tuple = True
    shapes = [tuple(found.shape) for found in models.stage_maps(tower, torch.zeros(1, 3, 2, 2))]
    assert shapes == [(1, 4, 8, 8), (1, 8, 4, 4), (1, 16, 2, 2)]
    tower.trunk.tuple = False  # as in open_clip
    with pytest.raises(ValueError, match="a tower has no feature maps of 3 resolutions"):
        models.stage_maps(tower, torch.zeros(1, 3, 2, 2))


def test_a_map_of_extreme_logits_is_finite():
    weights = torch.ones(1, 1, 1, 2)
    for channels in (1, 3):
        places = torch.tensor([1e4, -1e4]).expand(1, channels, 1, 2).clone()
        places[:, 1:] *= -1
        assert models.places.evidence(places, weights).isfinite().all()


# ---------------------------------------------------------------------- outlines
def test_outlines_ask_for_the_share_of_the_evidence_inside_them():
    places = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(3, 16, 16, dtype=torch.bool)
    mask[0, :4, :8] = True  # the first two places of the first row
    mask[1, 4:8, 4:8] = True  # on an image labelled normal: not asked
    found = looking.outline_loss(places, mask, torch.tensor([1, 0, 1]))
    z = places[0, 0].detach().numpy()
    expected = -math.log(np.exp(z[0, :2]).sum() / np.exp(z).sum())
    assert found.item() == pytest.approx(expected, abs=1e-5)
    found.backward()
    assert places.grad[0].abs().sum() > 0
    assert not places.grad[1:].any(), "nothing is asked where there is no outline"


def test_a_batch_without_outlines_teaches_nothing():
    places = torch.randn(2, 3, 4, 4, requires_grad=True)
    none = torch.zeros(2, 16, 16, dtype=torch.bool)
    found = looking.outline_loss(places, none, torch.tensor([2, -1]))
    found.backward()
    assert found.item() == 0 and not places.grad.any()


def test_of_several_classes_the_images_own_is_taught():
    places = torch.zeros(1, 3, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, :4, :4] = True
    found = looking.outline_loss(places, mask, torch.tensor([2]))
    found.backward()
    assert found.item() == pytest.approx(math.log(16), abs=1e-5)
    assert places.grad[0, 2].any() and not places.grad[0, :2].any()


@pytest.mark.parametrize("focus", [0, 1])
def test_outlines_move_with_their_images(focus):
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(16, SIDE, SIDE, dtype=torch.bool)
    mask[::2, 20:40, 30:44] = True
    image = mask[:, None].float()
    before = image.clone()
    grey = dict(brightness=0, contrast=0, noise=0)
    out = images.augment(image, generator=generator, mask=mask, flip=True, focus=focus, **grey)
    assert torch.equal(out[:, 0] > 0.5, mask), "what was drawn is where it was drawn"
    assert torch.equal(image, before) and not torch.equal(out, before)
    size = mask.flatten(1).sum(dim=1).float()
    assert not size[1::2].any(), "an image without an outline gets none"
    assert size[::2].mean() / (20 * 14) == pytest.approx(4 if focus else 1, rel=0.2)


def test_images_without_an_outline_are_seen_as_near_as_those_with_one():
    mask = torch.zeros(400, 32, 32, dtype=torch.bool)
    mask[::2, 22:26, 6:10] = True  # all outlines at one place
    picture = torch.zeros(400, 1, 32, 32)
    picture[..., 23:25, 7:9] = 1
    still = dict(rotate=0, translate=0, scale=0, brightness=0, contrast=0, noise=0)
    generator = torch.Generator().manual_seed(0)
    out = images.augment(picture, generator=generator, mask=mask, focus=0.5, **still)
    near = out.flatten(1).sum(dim=1) > 8  # four pixels become sixteen
    shares = near[::2].float().mean(), near[1::2].float().mean()
    assert all(0.35 < share < 0.65 for share in shares)
    assert torch.equal(out[near].amax(dim=0), out[near].amin(dim=0)), "around the same place"


def test_without_outlines_in_the_training_images_they_are_refused_with_the_cure():
    given = dict(regression=False, imbalance="weights", outlines=False)
    adaptation.check_towers(["full", "top_k"], **given)
    for name in adaptation.WITH_OUTLINES:
        with pytest.raises(ValueError, match=f"{name}: learns from outlines.*has masks.*top_k"):
            adaptation.check_towers(["full", name], **given)
        assert "with outlines" in figures.display_name(Method("captions", name))
        assert name in evaluation.methods.TOWERS
    for name in adaptation.WITH_OUTLINES:
        with pytest.raises(ValueError, match="values have none.*take top_k") as refused:
            adaptation.check_towers([name], regression=True, imbalance="weights", outlines=False)
        assert "lesion_crops." not in str(refused.value), "no cure is refused itself"
    adaptation.check_towers(["top_k"], regression=True, imbalance="weights")


def test_batches_without_outlines_are_named():
    model = models.Classifier(encoders.image("timm:test_resnet", weights="random"), outputs=1)
    given = adaptation.Tuning(model, np.array([0, 1]), training.Options(epochs=1), steps=1)
    with adaptation.strategy("outlined")(given) as found:
        with pytest.raises(ValueError, match="hold no outlines.*more="):
            found.objective.forward(found.model, {"image": planted()[0][:1]})
    with pytest.raises(ValueError, match="focus=0.5: around what"):
        images.augment(planted()[0][:1, :1], generator=torch.Generator(), focus=0.5)
