"""Protects the training loop: it learns, repeats itself, and keeps the best without a fuss."""

import contextlib
import copy
import dataclasses
import math
import socket

import numpy as np
import processes
import pytest
import torch
from torch import nn

from bonelib import encoders, losses, models, training
from bonelib.training import kernels


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


CONTRASTIVE = losses.contrastive_objective()


def fit(model, objective=CONTRASTIVE, *, loader=None, **given):
    given = {"epochs": 2, "lr": 1e-2, "backbone_lr": 1e-3, "accelerator": "cpu"} | given
    named = {one.name for one in dataclasses.fields(training.Options)}
    options = training.Options(**{name: given.pop(name) for name in named & set(given)})
    return training.fit(model, objective, loader or Loader(), options, **given)


def groups_of(model, **rates):
    rates = {"lr": 1.0, "backbone_lr": 0.1, "weight_decay": 0.05} | rates
    return training.parameter_groups(model, training.Options(epochs=1, **rates))


def changed(how):
    """The contrastive objective with another loss."""
    return losses.Objective(CONTRASTIVE.forward, lambda *given: how(CONTRASTIVE.loss(*given)))


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
        model, objective = dual(), CONTRASTIVE
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
            "cpu_seconds",
            "images_per_s",
            "waited",
            "alarm",
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
@pytest.mark.parametrize(("keep", "sign"), [("auroc", 1), ("-auroc", -1)])
def test_keep_puts_the_best_epoch_back_the_lowest_after_a_minus(keep, sign):
    seen, scores = [], iter([sign * value for value in (0.3, 0.9, 0.9, 0.1)])

    def validate(model):
        assert not model.training, "validation is in evaluation mode"
        seen.append(encoders.weights_hash(model))
        return {"auroc": next(scores)}

    model = dual()
    rows = list(fit(model, epochs=4, validate=validate, keep=keep))
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


@pytest.mark.parametrize(
    ("frozen", "precision"), [(True, "32-true"), (False, "32-true"), (True, "bf16-mixed")]
)
def test_steps_fold_batch_norms_that_are_frozen_and_have_the_same_gradients(
    frozen, precision, monkeypatch
):
    found, look, trained = [], encoders.foldable, []
    for fold in (True, False):

        def pairs(*given, fold=fold):
            found.append(look(*given))
            return found[-1] if fold else {}

        monkeypatch.setattr(encoders, "foldable", pairs)
        trained.append(dual())
        # Rates too small to move a weight: of the last step the gradients are left.
        rates = dict(lr=1e-12, backbone_lr=1e-12, precision=precision)
        list(fit(trained[-1], frozen_norm=frozen, epochs=1, **rates))
    expected = [True] * 2 if frozen and precision == "32-true" else []
    assert [bool(each) for each in found] == expected, "looked for once a training"
    for (name, own), other in zip(
        trained[0].named_parameters(), trained[1].parameters(), strict=True
    ):
        assert own.grad is not None and other.grad is not None, name
        assert (own.grad - other.grad).norm() <= 1e-4 * other.grad.norm(), name


@pytest.mark.parametrize("side, stride, padding", [(5, 1, 2), (5, 2, (2, 1)), (7, (2, 1), 0)])
def test_large_depthwise_convolutions_have_the_gradients_of_autograd(side, stride, padding):
    convolution = nn.Conv2d(6, 6, side, stride, padding, groups=6, dtype=torch.float64)
    image = torch.randn(3, 6, 12, 10, dtype=torch.float64, requires_grad=True)
    values = [image, *convolution.parameters()]

    def gradients():
        out = convolution(image)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
        return out, torch.autograd.grad((out.sin() * weights).sum(), values)

    theirs, expected = gradients()
    with kernels.Kernels():
        ours, found = gradients()
    assert "Depthwise" in type(ours.grad_fn).__name__ and torch.equal(ours, theirs)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


def test_a_clamp_in_place_has_the_gradients_of_autograd_at_its_ends_too():
    values = torch.tensor([-1.0, 0.0, 1e-7, 3.0, 6.0, 7.0, math.nan]).requires_grad_()
    with kernels.Kernels():
        out = nn.ReLU6(inplace=True)(values * 1)
    assert "Clamped" in type(out.grad_fn).__name__
    theirs = nn.ReLU6()(values)
    assert torch.equal(out[:-1], theirs[:-1]) and out[-1].isnan()
    found, expected = (torch.autograd.grad(o.sum(), values)[0] for o in (out, theirs))
    assert torch.equal(found[:-1], expected[:-1])


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 2, 3, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("form", [torch.channels_last, torch.contiguous_format])
def test_padding_with_zeros_has_the_pixels_and_gradients_of_torch(sides, form):
    image = torch.randn(2, 3, 5, 4).contiguous(memory_format=form).requires_grad_()

    def padded():
        out = nn.functional.pad(image, sides)
        weights = torch.arange(out.numel()).view_as(out)
        return out, torch.autograd.grad((out.sin() * weights).sum(), image)[0]

    theirs, expected = padded()
    with kernels.Kernels():
        ours, found = padded()
        left = [dict(value=1.0), dict(mode="replicate")]
        others = [nn.functional.pad(image, (1,) * 4, **how) for how in left]
    names = [type(out.grad_fn).__name__ for out in (ours, *others)]
    assert ["Padded" in name for name in names] == [True, False, False]
    assert torch.equal(ours, theirs) and ours.is_contiguous(memory_format=form)
    assert torch.equal(found, expected)


def test_other_ways_back_are_taken_only_where_they_are_the_same():
    image = torch.randn(2, 6, 40, 40)
    ways = {
        "small": nn.Conv2d(6, 6, 3, groups=6),
        "not depthwise": nn.Conv2d(6, 6, 5, groups=3),
        "dilated": nn.Conv2d(6, 6, 5, groups=6, dilation=2),
        "words for padding": nn.Conv2d(6, 6, 5, groups=6, padding="same"),
        "large and strided": nn.Conv2d(6, 6, 5, groups=6, stride=2),
        "frozen": nn.Conv2d(6, 6, 5, groups=6).requires_grad_(False),
    }
    taken = nn.Conv2d(6, 6, 5, groups=6)
    with kernels.Kernels():
        for why, convolution in ways.items():
            assert "Depthwise" not in type(convolution(image).grad_fn).__name__, why
        assert "Depthwise" in type(taken(image).grad_fn).__name__
        with torch.no_grad():
            assert taken(image).grad_fn is None
        with torch.autocast("cpu", torch.bfloat16):
            assert "Depthwise" not in type(taken(image).grad_fn).__name__
        assert nn.ReLU6(inplace=True)(image).grad_fn is None
        learns = image.clone().requires_grad_()
        ends = torch.tensor(0.0), torch.tensor(6.0)
        out = nn.functional.hardtanh(learns * 1, *ends, inplace=True)
        assert "Clamped" not in type(out.grad_fn).__name__
        side = np.int64(2)
        out = nn.functional.conv2d(learns, taken.weight, None, 1, side, groups=6)
        assert out.shape == image.shape
        empty = nn.functional.conv2d(learns[:0], taken.weight, groups=6)
        assert "Depthwise" not in type(empty.grad_fn).__name__


def test_steps_take_the_other_ways_and_have_the_same_gradients(monkeypatch):
    taken, trained, way = [], [], kernels._correlated
    monkeypatch.setattr(kernels, "_correlated", lambda *of: taken.append(1) or way(*of))
    for ways in (kernels.Kernels, contextlib.nullcontext):
        monkeypatch.setattr(kernels, "Kernels", ways)
        torch.manual_seed(0)
        model = models.Classifier(tower("timm:test_convnext"), outputs=1)  # depthwise 7 × 7
        list(fit(model, losses.classification_objective(), lr=1e-12, backbone_lr=1e-12, epochs=1))
        trained.append(model)
    large = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7)]
    assert len(taken) == 2 * len(large) > 0, "both steps of the first training, none of the second"
    for (name, own), other in zip(
        trained[0].named_parameters(), trained[1].parameters(), strict=True
    ):
        assert (own.grad - other.grad).norm() <= 1e-5 * other.grad.norm() + 1e-9, name


def test_a_tower_that_changes_what_a_faster_way_keeps_learns_by_the_plain_one(monkeypatch):
    trained = []
    for ways in (kernels.Kernels, contextlib.nullcontext):
        monkeypatch.setattr(kernels, "Kernels", ways)
        model = models.Classifier(tower(), outputs=1)
        model.image.trunk.act1 = nn.Sequential(nn.ReLU6(inplace=True), nn.Dropout(0.5, True))
        torch.manual_seed(0)
        list(fit(model, losses.classification_objective()))
        trained.append(model)
    for own, other in zip(*(model.parameters() for model in trained), strict=True):
        assert torch.equal(own, other), "the same draws of dropout, too"


def test_a_batch_of_one_image_moves_no_statistics_of_batch_norms_that_learn():
    class Odd(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                yield {name: value[:1] for name, value in batch.items()}

    model = models.Classifier(tower(), outputs=1)
    before = copy.deepcopy(model.state_dict())
    list(fit(model, losses.classification_objective(), loader=Odd(), frozen_norm=False))
    moved = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
    assert "head.weight" in moved and not {name for name in moved if "running" in name}


def test_weights_with_gaps_in_memory_move_as_others_do():
    moved = []
    for gaps in (True, False):
        torch.manual_seed(0)
        model = models.Classifier(tower(), outputs=1)
        wide = torch.zeros(1, 2 * model.head.in_features)
        model.head.weight = nn.Parameter(wide[:, ::2] if gaps else wide[:, ::2].contiguous())
        list(fit(model, losses.classification_objective()))
        moved.append(model.head.weight)
    assert moved[1].abs().max() > 0.01
    torch.testing.assert_close(*moved, rtol=1e-3, atol=1e-5)


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
    broken = changed(lambda loss: loss * float("nan"))

    model = dual()
    before = encoders.weights_hash(model)
    with pytest.raises(
        FloatingPointError, match="nan .*epoch 1, step 0, on images .*Lower lr .0.01"
    ):
        list(fit(model, broken))
    assert encoders.weights_hash(model) == before


def test_a_gradient_that_overflows_stops_the_training_too():
    steep = changed(lambda loss: torch.sqrt(loss * 0))

    model = dual()
    before = encoders.weights_hash(model)
    with pytest.raises(FloatingPointError, match="loss is 0 and its gradient nan"):
        list(fit(model, steep))
    assert encoders.weights_hash(model) == before


# ---------------------------------------------------------------------- rates
def test_lower_layers_learn_more_slowly_and_heads_fastest():
    model = dual()
    groups = groups_of(model, layer_decay=0.5)
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
        groups = groups_of(model, layer_decay=1.0, weight_decay=0.0)
        return {g["lr"] for g in groups for p in g["params"] if p is model.text.table.weight}

    assert rates("pretrained") == rates("checkpoint.pt") == {0.1} and rates("random") == {1.0}
    assert rates("pretrained", frozen=True) == set()


def test_position_embeddings_are_not_decayed():
    model = models.Classifier(tower("timm:test_vit"), outputs=1)
    groups = groups_of(model, layer_decay=0.9)
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


# ---------------------------------------------------------------------- gentle ways
def trunk_state(model):
    return {k: v.clone() for k, v in model.image.trunk.state_dict().items()}


def same_state(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_a_locked_trunk_stays_still_for_its_share_of_the_run_and_then_moves():
    model = dual()
    start, seen = trunk_state(model), []
    projection = model.image_projection.weight.detach().clone()

    def validate(model):
        seen.append(same_state(start, trunk_state(model)))
        return {}

    list(fit(model, epochs=4, locked=0.5, validate=validate))
    assert seen == [True, True, False, False]
    assert not torch.equal(projection, model.image_projection.weight)
    locked = dual()
    list(fit(locked, epochs=2, locked=1.0))
    assert same_state(trunk_state(dual()), trunk_state(locked))


def test_the_pull_to_the_start_shortens_the_way_of_the_trunk_alone():
    def distance(pull):
        model = dual()
        start = trunk_state(model)
        list(fit(model, epochs=6, to_start=pull))
        return sum((v - start[k]).norm() for k, v in trunk_state(model).items() if v.ndim > 1)

    far, near, still = distance(0.0), distance(300.0), distance(1e9)
    assert near < 0.8 * far
    assert still == 0, "a pull of all the way leaves the trunk at its start"


def test_half_way_back_lies_in_the_middle():
    model, start = dual(), {k: v.clone() for k, v in dual().state_dict().items() if "image." in k}
    list(fit(model, epochs=2))
    end = {k: v.clone() for k, v in model.state_dict().items()}
    for share, expected in ((0.0, end), (1.0, end | start)):
        moved = training.toward(model, start, share)
        assert all(torch.allclose(moved[k], expected[k], atol=1e-7) for k in end)
    half = training.toward(model, start, 0.5)
    for name, value in start.items():
        if value.is_floating_point():
            torch.testing.assert_close(half[name], (end[name] + value) / 2)
    assert torch.equal(half["text.table.weight"], end["text.table.weight"])


def test_the_average_is_what_validation_sees_and_what_stays():
    class Recorded(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                yield batch
                weights.append(model.image_projection.weight.detach().clone())

    seen, weights, model = [], [], dual()

    def validate(model):
        seen.append(model.image_projection.weight.detach().clone())
        return {}

    average = model.image_projection.weight.detach().clone()
    list(fit(model, loader=Recorded(), epochs=3, ema=0.5, validate=validate))
    for step, value in enumerate(weights, start=1):
        average.lerp_(value, 1 - min(0.5, (1 + step) / (10 + step)))
    torch.testing.assert_close(model.image_projection.weight, average)
    assert torch.equal(seen[-1], model.image_projection.weight)
    assert not torch.equal(weights[-1], seen[-1]), "training itself goes on from the raw weights"


# ---------------------------------------------------------------------- alarms
class Equal(Loader):
    """Eight copies of one picture, which nothing can tell apart."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch | {"image": torch.ones_like(batch["image"])}


class Scattered(models.DualEncoder):
    """Features that lie apart and have nothing to do with the words."""

    def forward(self, image, tokens):
        features = image.flatten(1)[:, :8] + 0 * self.image(image).sum()
        out = super().forward(image, tokens)
        return out | {"image_features": nn.functional.normalize(features, dim=1)}


class HalfTold(Loader):
    """Pairs of which every second has no caption."""

    def __iter__(self):
        for batch in super().__iter__():
            told = torch.arange(len(batch["image"])) % 2 == 0
            yield batch | {"captioned": told}


def test_the_alarm_tells_collapse_and_guessing_and_is_silent_otherwise():
    collapsed = list(fit(dual(), loader=Equal()))
    assert "collapsed to one point" in collapsed[-1]["alarm"]
    scattered = Scattered(tower(), Words(), dim=8)
    still = list(fit(scattered, loader=Loader(count=16), lr=0.0, backbone_lr=0.0))
    assert "is that of guessing (2.08)" in still[-1]["alarm"]
    half = list(fit(scattered, loader=HalfTold(count=16), lr=0.0, backbone_lr=0.0))
    assert "is that of guessing (1.39)" in half[-1]["alarm"], "four of eight images have captions"
    better = losses.Objective(
        CONTRASTIVE.forward, lambda *given: CONTRASTIVE.loss(*given) / 2, CONTRASTIVE.chance
    )
    learning = list(fit(scattered, better, loader=Loader(count=16)))
    assert learning[-1]["alarm"] == ""
    assert {row["alarm"] for row in classify()} == {""}, "a classifier has no such chance"


# ---------------------------------------------------------------------- batches beyond memory
class Dropping(models.DualEncoder):
    """A dual encoder with dropout, so that a second forward pass is not the first by itself."""

    seen = []

    def forward(self, image, tokens):
        out = super().forward(image, tokens)
        features = self.image_projection(nn.functional.dropout(out["pooled"], 0.5, self.training))
        self.seen.append(features.detach())
        return out | {"image_features": nn.functional.normalize(features, dim=-1)}


def gradients(kind, objective, micro_batch):
    from lightning.fabric import Fabric

    from bonelib.training.step import backward

    torch.manual_seed(7)
    model = kind(tower(), Words(), dim=8).double()
    model.eval()
    if kind is Dropping:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped = fabric.setup(model)
    rows = torch.arange(8)
    keys = torch.tensor([[0], [1], [0], [2], [-1], [1], [3], [4]])
    batch = {"image": Loader().image.double(), "tokens": rows[:, None], "keys": keys}
    loss, out = backward(fabric, wrapped, objective, batch, micro_batch)
    assert len(out["image_features"]) == 8
    return loss, {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8, 99])
def test_cached_gradients_are_those_of_the_large_batch(micro_batch):
    objective = losses.contrastive_objective(key_temperature=0.2)
    loss, expected = gradients(models.DualEncoder, objective, 0)
    found_loss, found = gradients(models.DualEncoder, objective, micro_batch)
    assert found_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-8, rtol=1e-6)
    # The mean over parts, which plain accumulation would give, is another gradient.
    if micro_batch == 4:
        parts = losses.Objective(
            objective.forward,
            lambda out, batch: torch.stack(
                [
                    objective.loss(
                        {k: v[p] if v.ndim else v for k, v in out.items()},
                        {"keys": batch["keys"][p]},
                    )
                    for p in (slice(0, 4), slice(4, 8))
                ]
            ).mean(),
        )
        _, plain = gradients(models.DualEncoder, parts, 0)
        name = "image_projection.weight"
        assert not torch.allclose(plain[name], expected[name], rtol=1e-2)


def test_dropout_drops_the_same_units_in_both_passes():
    Dropping.seen.clear()
    gradients(Dropping, losses.contrastive_objective(), 4)
    first, second, again, once_more = Dropping.seen  # two parts without a graph, then with one
    assert torch.equal(first, again) and torch.equal(second, once_more)


def test_micro_batches_train_like_the_large_batch():
    plain, cached = dual(), dual()
    list(fit(plain, precision="32-true"))
    list(fit(cached, precision="32-true", micro_batch=3))
    for (name, a), b in zip(plain.state_dict().items(), cached.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def test_parts_of_a_batch_are_refused_where_batch_norms_would_see_them():
    with pytest.raises(ValueError, match="see parts of the batch"):
        list(fit(dual(), micro_batch=2, frozen_norm=False))
    assert list(fit(dual(), epochs=1, frozen_norm=False))


def test_no_clipping_is_a_clip_out_of_reach():
    def end(clip):
        model = dual()
        list(fit(model, clip=clip))
        return model.state_dict()

    free, wide, narrow = end(0), end(1e9), end(1e-3)
    assert same_state(free, wide) and not same_state(free, narrow)


# ---------------------------------------------------------------------- going on after a kill
RESUMED = {"epochs": 3, "ema": 0.5, "to_start": 1.0, "locked": 0.3, "checkpoint_seconds": 0}


def trained_through(resume=None, states=None, **options):
    scores = iter([0.1, 0.5, 0.3][len(resume["rows"]) if resume else 0 :])
    model = dual()
    save = None
    if states is not None:

        def save(state):
            states.append(copy.deepcopy(state))

    rows = list(
        fit(
            model,
            validate=lambda m: {"r": next(scores)},
            keep="r",
            resume=resume,
            checkpoint=save,
            **RESUMED | options,
        )
    )
    return rows, model.state_dict()


def test_from_every_checkpoint_the_run_ends_at_the_same_bits():
    states = []
    rows, end = trained_through(states=states)
    assert [(s["epoch"], s["number"]) for s in states] == [
        (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0),
    ]  # fmt: skip
    for state in states:
        again, ended = trained_through(resume=copy.deepcopy(state))
        assert all(torch.equal(end[k], ended[k]) for k in end), (state["epoch"], state["number"])
        for row, other in zip(rows, again, strict=True):
            same = {"epoch", "loss", "r", "kept", "alarm"}
            assert {k: row[k] for k in same} == {k: other[k] for k in same}


def test_an_epoch_that_was_killed_keeps_the_time_it_had_spent():
    states = []
    trained_through(states=states)
    early = copy.deepcopy(states[0])
    assert early["number"] == 1 and early["spent"]["cpu_seconds"] > 0
    early["spent"] |= {"seconds": 1e3, "cpu_seconds": 1e3, "images": 1e3}
    first, second, _ = trained_through(resume=early)[0]
    assert 1e3 < first["cpu_seconds"] and second["cpu_seconds"] < 1e3
    assert 1e3 < first["seconds"] and 0.9 < first["images_per_s"] < 1.1


def test_a_checkpoint_of_another_model_or_recipe_is_refused():
    states = []
    trained_through(states=states)
    with pytest.raises(ValueError, match="another recipe:\n  - lr: 0.01 there, 0.5 asked"):
        trained_through(resume=states[0], lr=0.5)
    other = models.DualEncoder(tower(), Words(), dim=12)
    with pytest.raises(ValueError, match="another architecture: 2 tensors of another shape"):
        list(fit(other, resume=states[0], **RESUMED))
    smaller = models.Classifier(tower(), outputs=1)
    with pytest.raises(ValueError, match="another architecture: 2 tensors missing.*4 .*unknown"):
        list(fit(smaller, losses.classification_objective(), resume=states[0], **RESUMED))


# ---------------------------------------------------------------------- two processes
def test_two_processes_have_the_loss_and_the_gradients_of_one(tmp_path):
    import two_processes  # which takes models of this file

    for count in (1, 2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = [
            processes.started(two_processes.main, str(tmp_path / f"{count}.pt"), rank, count, port)
            for rank in range(count)
        ]
        for process in own:
            process.join(timeout=240)
        assert [process.exitcode for process in own] == [0] * count
    one, two = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert one["world"] == 1 and two["world"] == 2
    for kind in one["losses"]:
        torch.testing.assert_close(two["losses"][kind], one["losses"][kind], atol=1e-5, rtol=0)
        for name, gradient in one["gradients"][kind].items():
            found = two["gradients"][kind][name]
            torch.testing.assert_close(found, gradient, atol=1e-5, rtol=0, msg=f"{kind}: {name}")
        assert sum(g.norm() for g in one["gradients"][kind].values()) > 0.1, kind


# ---------------------------------------------------------------------- studies
class Studies(Loader):
    """Four studies: two of one image, two of three."""

    def __iter__(self):
        self.epoch += 1
        study, first = torch.tensor([0, 1, 1, 1, 2, 3, 3, 3]), torch.tensor([0, 1, 4, 5])
        for _ in range(2):
            yield {"image": self.image, "study": study, "tokens": first[:, None]}


def test_the_images_of_a_study_meet_its_caption_together():
    torch.manual_seed(0)
    model = dual()
    rows = list(fit(model, loader=Studies(), epochs=15, frozen_norm=False, lr=3e-2))
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"] and not rows[-1]["alarm"]
    guess = losses.Objective(  # one of four studies, not of eight images
        CONTRASTIVE.forward,
        lambda *given: CONTRASTIVE.loss(*given) * 0 + math.log(4),
        CONTRASTIVE.chance,
    )
    held = next(fit(model, guess, loader=Studies(), lr=0.0, backbone_lr=0.0))
    assert held["alarm"] == "the loss, 1.39 nats, is that of guessing (1.39)"
    with pytest.raises(ValueError, match="micro_batch=2 would part the images of a study"):
        list(fit(dual(), loader=Studies(), micro_batch=2))


# ---------------------------------------------------------------------- pairs that teach nothing
class OneByOne(Loader):
    def __iter__(self):
        for row in range(2):
            one = slice(row, row + 1)
            yield {"image": self.image[one], "tokens": torch.tensor([[row]])}


def test_pairs_that_come_one_at_a_time_are_refused_before_anything_moves():
    model = dual()
    before = encoders.weights_hash(model)
    with pytest.raises(ValueError, match="one pair.*Take a larger batch"):
        list(fit(model, loader=OneByOne()))
    assert encoders.weights_hash(model) == before
    classified = losses.classification_objective()
    single = [{"image": Loader().image[:1], "label": torch.tensor([1])}]
    assert list(fit(models.Classifier(tower(), outputs=1), classified, loader=single, epochs=1))


class Keyed(Loader):
    """Pairs with attribute keys that the test sets."""

    def __iter__(self):
        for batch in super().__iter__():
            yield batch | {"keys": self.keys[batch["tokens"][:, 0]]}


@pytest.mark.parametrize("alike", [True, False])
def test_captions_that_all_mean_the_same_set_off_the_alarm(alike):
    loader = Keyed()
    loader.keys = torch.zeros(8, 1, dtype=torch.long) if alike else torch.arange(8)[:, None]
    learning = dict(epochs=15, lr=3e-2, frozen_norm=False)  # enough to tell eight pairs apart
    last = list(fit(dual(), loader=loader, **learning))[-1]
    assert ("is that of guessing (1.39)" in last["alarm"]) is alike, last["alarm"]
    assert bool(last["alarm"]) is alike
    assert losses.floor(loader.keys[:4]) == pytest.approx(math.log(4) if alike else 0)


def test_one_image_a_key_is_plain_clip():
    loader = Keyed()
    loader.keys = torch.arange(8)[:, None]
    model, plain = dual(), dual()
    keyed = [row["loss"] for row in fit(model, loader=loader)]
    assert keyed == [row["loss"] for row in fit(plain)]
    assert losses.floor(loader.keys) == 0
