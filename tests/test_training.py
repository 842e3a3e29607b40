"""Protects the training loop: it learns, repeats itself, and keeps the best without a fuss."""

import copy
import math

import pytest
import torch
from torch import nn

from bonelib import encoders, losses, models, training


class Words(nn.Module):
    """A text tower of one embedding."""

    def __init__(self, weights="random"):
        super().__init__()
        self.width, self.weights = 8, weights
        self.table = nn.Embedding(16, 8)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, tokens):
        return self.table(tokens[:, 0])


class Loader:
    """Eight pairs in two batches; each iteration is the next epoch, in an order of its own."""

    def __init__(self, count=8, label=True):
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(count, 3, 32, 32, generator=generator)
        self.label = torch.arange(count) % 2
        self.with_label, self.epoch = label, 0

    def __len__(self):
        return 2

    def __iter__(self):
        self.epoch += 1
        order = torch.randperm(len(self.image), generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.chunk(2):
            yield {
                "image": self.image[rows],
                "label": self.label[rows],
                "tokens": rows[:, None],
                "image_id": [str(int(r)) for r in rows],
            }


def tower(name="timm:test_resnet", seed=1):
    return encoders.image(name, weights="random", size=32, seed=seed)


def dual():
    return models.DualEncoder(tower(), Words(), dim=8)


def fit(model, objective=losses.contrastive_objective, *, loader=None, **options):
    options = {"epochs": 2, "lr": 1e-2, "backbone_lr": 1e-3, "accelerator": "cpu"} | options
    return training.fit(model, objective, loader or Loader(), **options)


def classify(**options):
    return fit(models.Classifier(tower(), outputs=1), losses.classification_objective(), **options)


# ---------------------------------------------------------------------- it learns
class EightPairs(Loader):
    """The same eight pairs in one batch each epoch: a step an epoch."""

    def __len__(self):
        return 1

    def __iter__(self):
        rows = torch.arange(8)
        yield {"image": self.image, "label": self.label, "tokens": rows[:, None]}


@pytest.mark.parametrize("kind", ["dual encoder", "classifier"])
def test_five_steps_on_eight_pairs_lower_the_loss(kind):
    if kind == "classifier":
        model, objective = models.Classifier(tower(), outputs=1), losses.classification_objective()
    else:
        model, objective = dual(), losses.contrastive_objective
    before = copy.deepcopy(model.state_dict())
    rates = {"lr": 0.1, "backbone_lr": 1e-3} if kind == "classifier" else {"lr": 3e-3}
    rows = list(fit(model, objective, loader=EightPairs(), epochs=5, warmup=0.0, **rates))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.01
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert not still, "every part of the model itself is trained, not a copy"


def test_a_row_tells_what_happened():
    rows = list(fit(dual(), epochs=3, validate=lambda model: {"recall_5": 0.5}))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row) == {
            "epoch",
            "loss",
            "lr",
            "seconds",
            "images_per_s",
            "precision",
            "recall_5",
        }
        assert row["precision"] in ("32-true", "bf16-mixed") and math.isfinite(row["loss"])
        assert row["images_per_s"] == pytest.approx(8 / row["seconds"])
    assert rows[0]["lr"] > rows[-1]["lr"] > 0


def test_the_same_seed_gives_the_same_bits():
    def weights(seed):
        model = models.DualEncoder(tower(seed=seed), Words(), dim=8, seed=seed)
        list(fit(model))
        return encoders.weights_hash(model)

    assert weights(1) == weights(1) != weights(2)


# ---------------------------------------------------------------------- what is kept
def test_keep_puts_the_best_epoch_back():
    seen, scores = [], iter([0.3, 0.9, 0.9, 0.1])

    def validate(model):
        assert not model.training, "validation is in evaluation mode"
        seen.append(encoders.weights_hash(model))
        return {"auroc": next(scores)}

    model = dual()
    rows = list(fit(model, epochs=4, validate=validate, keep="auroc"))
    assert [row["kept"] for row in rows] == [True, True, False, False], "the first of equals"
    assert len(set(seen)) == 4 and encoders.weights_hash(model) == seen[1]
    assert not model.training


def test_without_keep_the_last_epoch_stays():
    seen = []
    model = dual()
    list(fit(model, validate=lambda m: seen.append(encoders.weights_hash(m)) or {}))
    assert encoders.weights_hash(model) == seen[-1] != seen[0]


def test_stopping_early_leaves_a_usable_model_and_closing_the_best_one():
    scores = iter([0.9, 0.1, 0.2])
    seen = []
    model = dual()
    steps = fit(
        model,
        epochs=50,
        validate=lambda m: seen.append(encoders.weights_hash(m)) or {"auroc": next(scores)},
        keep="auroc",
    )
    next(steps)
    next(steps)
    assert not any(m.training for m in model.modules()), "usable between two epochs"
    assert torch.isfinite(model.encode_image(Loader().image)).all()
    assert encoders.weights_hash(model) == seen[1]
    steps.close()
    assert encoders.weights_hash(model) == seen[0]


def test_keep_asks_for_a_number_that_validate_returns():
    with pytest.raises(ValueError, match="needs a validate function"):
        next(fit(dual(), keep="auroc"))
    with pytest.raises(ValueError, match="recall_5, but no 'auroc' to keep"):
        next(fit(dual(), keep="auroc", validate=lambda model: {"recall_5": 0.1}))


# ---------------------------------------------------------------------- what stays as it is
@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_statistics_stay_only_where_frozen(frozen):
    model = dual()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    means = [m.running_mean.clone() for m in norms]
    list(fit(model, frozen_norm=frozen))
    same = [torch.equal(m.running_mean, old) for m, old in zip(norms, means, strict=True)]
    assert norms and (all(same) if frozen else not any(same))


def test_a_frozen_text_tower_stays_and_its_sentences_survive_the_best_epoch_coming_back():
    text = encoders.text("small", cached=True)
    model = models.DualEncoder(tower(), text, dim=8)
    sentences = [f"sentence {n}" for n in range(8)]
    tokens = model.tokenize(sentences)
    before = encoders.weights_hash(text.encoder)
    scores = iter([1.0, 0.0])

    class Captioned(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch | {"tokens": tokens[batch["tokens"][:, 0]]}

    def validate(model):
        model.tokenize([f"validation of epoch {len(text.table)}"])  # the table grows meanwhile
        return {"score": next(scores)}

    list(fit(model, loader=Captioned(), validate=validate, keep="score"))
    assert encoders.weights_hash(text.encoder) == before
    assert len(text.table) == 10 and model.encode_text(tokens).shape == (8, 8)


def test_a_nan_loss_stops_the_training_and_says_where():
    def broken(model, batch):
        return losses.contrastive_objective(model, batch) * float("nan")

    model = dual()
    before = encoders.weights_hash(model)
    with pytest.raises(FloatingPointError, match="nan .*epoch 1, step 0. Lower lr .0.01"):
        list(fit(model, broken))
    assert encoders.weights_hash(model) == before


def test_a_gradient_that_overflows_stops_the_training_too():
    def steep(model, batch):
        return torch.sqrt(losses.contrastive_objective(model, batch) * 0)

    model = dual()
    before = encoders.weights_hash(model)
    with pytest.raises(FloatingPointError, match="loss is 0 and its gradient nan"):
        list(fit(model, steep))
    assert encoders.weights_hash(model) == before


# ---------------------------------------------------------------------- rates
def test_lower_layers_learn_more_slowly_and_heads_fastest():
    model = dual()
    groups = training.parameter_groups(
        model, lr=1.0, backbone_lr=0.1, layer_decay=0.5, weight_decay=0.05
    )
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert set(rate) == {id(p) for p in names.values()}, "each parameter once"
    assert sum(len(g["params"]) for g in groups) == len(names)
    trunk = model.image.trunk
    layers = [trunk.conv1[0], trunk.layer1[0].conv1, trunk.layer2[0].conv1, trunk.layer4[0].conv1]
    rates = [rate[id(layer.weight)] for layer in layers]
    assert rates == sorted(rates) and len(set(rates)) == 4 and max(rates) == pytest.approx(0.1)
    for name, parameter in names.items():
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0.0), name
        if not name.startswith("image.trunk"):
            assert rate[id(parameter)] == 1.0, name


def test_a_pretrained_text_tower_learns_as_slowly_as_the_trunk_and_a_frozen_one_not_at_all():
    def rates(weights, frozen=False):
        model = models.DualEncoder(tower(), Words(weights), dim=8)
        model.text.requires_grad_(not frozen)
        groups = training.parameter_groups(
            model, lr=1.0, backbone_lr=0.1, layer_decay=1.0, weight_decay=0.0
        )
        return {g["lr"] for g in groups for p in g["params"] if p is model.text.table.weight}

    assert rates("pretrained") == {0.1} and rates("random") == {1.0}
    assert rates("pretrained", frozen=True) == set()


def test_position_embeddings_are_not_decayed():
    model = models.Classifier(tower("timm:test_vit"), outputs=1)
    groups = training.parameter_groups(
        model, lr=1.0, backbone_lr=0.1, layer_decay=0.9, weight_decay=0.05
    )
    free = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert id(model.image.trunk.pos_embed) in free and id(model.image.trunk.cls_token) in free


@pytest.mark.parametrize("steps", [1, 2, 10, 97])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_the_rate_warms_up_in_a_line_and_falls_as_a_cosine(steps, warmup):
    factors = [training.schedule(step, steps=steps, warmup=warmup) for step in range(steps)]
    start = max(1, int(warmup * steps))
    assert factors[:start] == pytest.approx([(n + 1) / start for n in range(start)])
    assert max(factors) == 1.0 and min(factors) > 0, "no step is wasted"
    falling = factors[start:]
    assert falling == sorted(falling, reverse=True)
    if steps == 97 and warmup == 0.5:
        assert training.schedule(start + 24, steps=start + 48, warmup=start / 97) < 1
        middle = start + (steps - start) / 2
        assert training.schedule(middle, steps=steps, warmup=warmup) == pytest.approx(0.5)
        assert training.schedule(steps, steps=steps, warmup=warmup) == pytest.approx(0)


def test_the_rate_reaches_the_optimiser():
    seen = []
    original = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        seen.append(max(group["lr"] for group in self.param_groups))
        return original(self, *args, **kwargs)

    torch.optim.AdamW.step = spy
    try:
        list(classify(epochs=3, lr=0.5, warmup=0.5))
    finally:
        torch.optim.AdamW.step = original
    expected = [0.5 * training.schedule(n, steps=6, warmup=0.5) for n in range(6)]
    assert seen == pytest.approx(expected)


# ---------------------------------------------------------------------- precision and batches
def test_bf16_only_where_it_is_known_to_be_faster(monkeypatch):
    plain, depthwise = tower(), tower("packaged:efficientnet_lite0")
    transformer = encoders.image("timm:test_vit", weights="random")
    grouped = nn.Sequential(*[nn.Conv2d(8, 8, 3, groups=2) for _ in range(4)])
    for supported, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(
            torch.cpu, "_is_avx512_bf16_supported", lambda s=supported: s, raising=False
        )
        assert training.precision(plain, accelerator="cpu") == expected
        for other in (depthwise, transformer, grouped):
            assert training.precision(other, accelerator="cpu") == "32-true"


def test_a_batch_moves_with_its_pixels_in_channels_last():
    batch = next(iter(Loader()))
    moved = training.to_device(batch, torch.device("cpu"))
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved["image"], batch["image"]) and moved["image_id"] == batch["image_id"]
