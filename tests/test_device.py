"""Protects what runs on a GPU: it says the same there as on the CPU, and goes on after a stop.

Without BONELIB_TEST_DEVICE=cuda these run on the CPU; ``benchmarks/gpu.sh`` runs them on a GPU.
"""

import copy

import numpy as np
import pytest
import torch

from bonelib import encoders, features, losses, models, training
from bonelib.training import machine

CLOSE = dict(rtol=1e-3, atol=1e-4)  # of two passes on one device
APART = 1e-2  # of the largest value, on two devices: a GPU rounds products of convolutions to TF32


class Batches:
    """Sixteen labelled images in four batches, in an order of each epoch."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.image, self.epoch = torch.randn(16, 3, 32, 32, generator=generator), 0

    def __len__(self):
        return 4

    def __iter__(self):
        order = torch.randperm(16, generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.chunk(4):
            yield {"image": self.image[rows], "label": rows % 2}


def classifier():
    tower = encoders.image("timm:test_resnet", weights="random", size=32, seed=1)
    return models.Classifier(tower, outputs=1)


def fitted(model, device, **given):
    options = training.Options(epochs=3, precision=given.pop("precision", "32-true"))
    torch.manual_seed(0)
    return training.fit(
        model,
        losses.classification_objective(),
        Batches(),
        options,
        accelerator=device,
        **given,
    )


def weights(model):
    return {name: value.detach().cpu() for name, value in model.state_dict().items()}


def test_features_of_a_tower_on_the_device_are_those_of_the_cpu(device):
    tower = classifier().image.eval()
    expected = features.encode(tower, Batches(), rows=16)
    found = features.encode(copy.deepcopy(tower).to(device), Batches(), rows=16)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= APART * np.abs(expected).max()


def test_a_training_on_the_device_follows_that_of_the_cpu(device):
    curves = []
    for where in ("cpu", device):
        model = classifier()
        curves.append([row["loss"] for row in fitted(model, where)])
        assert next(model.parameters()).device.type == where
    np.testing.assert_allclose(*curves, rtol=0.02)


def test_the_precision_of_a_device_is_stated_and_learns(device):
    rows = list(fitted(classifier(), device, precision="bf16-mixed"))
    assert {row["precision"] for row in rows} == {"bf16-mixed"}
    assert np.isfinite([row["loss"] for row in rows]).all()
    chosen = training.precision(classifier(), accelerator=device)
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    assert chosen == "bf16-mixed" or not bf16


def test_a_training_on_the_device_goes_on_where_it_was_stopped(device):
    saved, whole = [], classifier()
    rows = list(fitted(whole, device, checkpoint=lambda s: saved.append(copy.deepcopy(s))))
    again = classifier()
    more = list(fitted(again, device, resume=saved[1]))
    assert [row["loss"] for row in more] == pytest.approx([row["loss"] for row in rows], rel=1e-3)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(again)[name], value, **CLOSE)


def test_random_numbers_of_the_device_are_taken_up(device):
    where = torch.device(device)
    state = machine.random_state(where)
    first = torch.rand(4, device=where), torch.rand(4)
    machine.set_random_state(state, where)
    again = torch.rand(4, device=where), torch.rand(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_contrastive_losses_are_those_of_the_cpu(device):
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(8, 6, generator=generator) for _ in range(2))
    unit = [torch.nn.functional.normalize(x, dim=1) for x in (image, text)]
    keys, found = torch.arange(8)[:, None] % 3, []
    for where in ("cpu", device):
        out = {"image_features": unit[0].to(where), "text_features": unit[1].to(where)}
        out["logit_scale"] = torch.tensor(10.0, device=where)
        batch = {"keys": keys.to(where), "image": torch.zeros(8, 1, device=where)}
        found.append(losses.contrastive_objective().loss(out, batch).item())
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_model_that_was_trained_on_the_device_is_saved_and_predicts_without_it(device, tmp_path):
    model = classifier()
    list(fitted(model, device))
    models.save_bundle(tmp_path / "bundle", model)
    loaded = models.load_bundle(tmp_path / "bundle").eval()
    expected, found = (features.encode(one, Batches()) for one in (model, loaded))
    assert np.abs(found - expected).max() <= APART * np.abs(expected).max()
    assert encoders.weights_hash(loaded) == encoders.weights_hash(model)
