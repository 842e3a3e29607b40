"""Protects the heads fitted by gradient steps: all fits at once are each fit alone."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import one_fit

from bonelib import encoders, models
from bonelib.adaptation import (
    adapters,
    cache_heads,
    cascade,
    clip_it,
    hierarchy,
    points,
    prompts,
    search,
    text_heads,
)
from bonelib.adaptation.support import Support

D = 40
FUNCTIONS = (text_heads.taskres, text_heads.clap, text_heads.class_text, cascade.cascade)
FUNCTIONS += (cache_heads.tip_adapter_f, adapters.clip_adapter, adapters.prolip)
NAMES = [function.__name__ for function in FUNCTIONS] + ["clip_it", "hierarchy"]


def world(n=60, classes=3, d=D, seed=0, **options):
    """Features that lean to their class's text, with a common direction as real ones have."""
    texts = np.random.default_rng(0).normal(size=(classes, d))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    draw = np.random.default_rng(seed + 1)
    labels = draw.permutation(np.arange(n) % classes)
    x = draw.normal(size=(n, d)) / d**0.5 + 0.6 * texts[labels] + 1 / d**0.5
    known = dict(texts=texts.astype(np.float32), scale=20.0) | options
    return Support((7 * x).astype(np.float32), labels, np.arange(n), classes, **known)


def named(name, n):
    """A strategy and its grid, those that are bound bound to something of n rows."""
    if name == "clip_it":
        bank = np.random.default_rng(5).normal(size=(30, D)).astype(np.float32)
        return clip_it.clip_it(bank), points(name)
    if name == "hierarchy":
        labels = world(n).labels
        entities = labels + 3 * (np.arange(n) % 2)
        entities[::7] = -1
        return hierarchy.hierarchy(entities), points(name)
    return next(f for f in FUNCTIONS if f.__name__ == name), points(name)


def folds(n, k=3):
    return np.arange(n)[None] % k != np.arange(k)[:, None]


def tensors(support, mask=None):
    mask = np.ones(len(support.features), bool) if mask is None else mask
    x, y = torch.from_numpy(support.features[mask]), torch.from_numpy(support.labels[mask])
    return x, y, torch.from_numpy(support.texts)


def steps_of(monkeypatch, steps=40):
    """Let every strategy but CoOp take that many steps."""
    for module in (adapters, clip_it, hierarchy):
        monkeypatch.setattr(module, "STEPS", steps)
    monkeypatch.setattr(text_heads, "STEPS", dict.fromkeys(text_heads.STEPS, steps))


def cosine_logits(x, vectors, scale):
    x = F.normalize(torch.from_numpy(x), dim=1)
    return (scale * x @ F.normalize(vectors, dim=1).T).numpy()


# ---------------------------------------------------------------------- all of them
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [60, 420])  # with 420 the folds take batches, not all alike
def test_all_fits_at_once_are_each_fit_alone(name, n, monkeypatch):
    steps_of(monkeypatch, 30)
    support, new = world(n), world(50, seed=3).features
    strategy, grid = named(name, n)
    assert len(grid) == search.POINTS == len({tuple(p.items()) for p in grid})
    rows = folds(n)
    rows[2, : n // 3] = False  # fewer rows, and with 420 fewer batches than the others
    together = strategy(support, rows, grid).logits(new)
    assert together.shape == (3, 8, 50, 3) and np.isfinite(together).all()
    for k, p in ((0, 0), (1, 5), (2, 7)):
        alone = strategy(support, rows[k : k + 1], grid[p : p + 1]).logits(new)
        np.testing.assert_allclose(together[k, p], alone[0, 0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_learns_and_the_search_takes_it(name, monkeypatch):
    steps_of(monkeypatch, 100)
    support, test = world(45), world(300, seed=4)
    strategy, grid = named(name, 45)
    fitted = search.fit(strategy, support, grid)
    logits = fitted.logits(test.features)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    assert roc_auc_score(test.labels, shares, multi_class="ovr") > 0.85
    again = search.fit(strategy, support, grid).logits(test.features)
    assert (again == logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_held_out_rows_have_no_part_in_a_fit(name, monkeypatch):
    steps_of(monkeypatch, 30)
    support = world(30)
    strategy, grid = named(name, 30)
    rows = folds(30)[:1]
    before = strategy(support, rows, grid[:1]).logits(support.features)
    changed = support.features.copy()
    changed[~rows[0]] = np.random.default_rng(9).normal(size=(10, D))
    other = Support(changed, support.labels, support.groups, 3, texts=support.texts, scale=20.0)
    after = strategy(other, rows, grid[:1]).logits(support.features)
    np.testing.assert_allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shots", [1, 4])
def test_a_class_that_a_mask_lacks_never_wins(name, shots, monkeypatch):
    steps_of(monkeypatch, 30)
    support = world(30)
    strategy, grid = named(name, 30)
    rows = np.zeros((2, 30), bool)
    for k, classes in enumerate([(0, 2), (0, 1, 2)]):
        for c in classes:
            rows[k, np.flatnonzero(support.labels == c)[:shots]] = True
    logits = strategy(support, rows, grid).logits(support.features)
    assert np.isfinite(logits).all()
    assert (logits[0, ..., 1] <= logits[0][..., [0, 2]].min(axis=-1) - 29).all()
    assert (logits[0].argmax(-1) != 1).all()
    assert (logits[1, ..., 1] > logits[1][..., [0, 2]].min(axis=-1) - 29).any()
    alone = strategy(support, rows[1:], grid).logits(support.features)
    np.testing.assert_allclose(logits[1], alone[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_absent_texts_are_refused_with_the_cure(name):
    support = world(30)
    strategy, grid = named(name, 30)
    values = Support(support.features, np.linspace(0, 1, 30), support.groups, 0)
    with pytest.raises(ValueError, match="values. Choose a strategy for a regression"):
        strategy(values, folds(30), grid)
    with pytest.raises(ValueError, match="Unknown hyper-parameters speed"):
        strategy(support, folds(30), [{"speed": 1.0}])
    bare = world(30, texts=None)
    if name in ("clip_it", "hierarchy"):
        assert strategy(bare, folds(30), grid[:1]).logits(bare.features).shape == (3, 1, 30, 3)
        return
    with pytest.raises(ValueError, match=f"{name} needs a text for each class. Pass Support"):
        strategy(bare, folds(30), grid)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_without_rows_is_refused(name):
    strategy, grid = named(name, 30)
    rows = folds(30)
    rows[1] = False
    with pytest.raises(ValueError, match=r"Masks \[1\] have no row"):
        strategy(world(30), rows, grid)


def test_adapters_say_when_there_are_more_texts_than_directions():
    support = world(140, classes=70)
    with pytest.raises(ValueError, match="70 class texts, but adapters work in 64"):
        adapters.prolip(support, folds(140), points("prolip"))


def test_grades_are_learnt_as_classes():
    grades = world(30, ordinal=True)
    plain = text_heads.clap(world(30), folds(30), points("clap")).logits(grades.features)
    found = text_heads.clap(grades, folds(30), points("clap")).logits(grades.features)
    assert (found == plain).all()


# ---------------------------------------------------------------------- each one's equation
@pytest.mark.parametrize("n", [60, 300])
@pytest.mark.parametrize("point", [points("taskres")[2], points("taskres")[-1]])
def test_taskres_is_autograds(n, point):
    support, new = world(n), world(20, seed=3).features
    vectors = one_fit.taskres(*tensors(support), 20.0, point)
    heads = text_heads.taskres(support, np.ones((1, n), bool), [point])
    np.testing.assert_allclose(heads.logits(new)[0, 0], cosine_logits(new, vectors, 20), atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(60, D), (12, 300)])  # the second in the span of the images
@pytest.mark.parametrize("constraint", [0.0, 10.0])
def test_clap_is_autograds(n, d, constraint):
    support, new = world(n, d=d), world(20, d=d, seed=3).features
    point = {"rate": 1e-3, "constraint": constraint}
    vectors = one_fit.clap(*tensors(support), 20.0, point)
    heads = text_heads.clap(support, np.ones((1, n), bool), [point])
    np.testing.assert_allclose(heads.logits(new)[0, 0], cosine_logits(new, vectors, 20), atol=1e-4)


def test_claps_constraint_trusts_a_class_as_zero_shot_finds_it():
    support, rows = world(60), folds(60)
    x, _, texts = tensors(support)
    targets = F.one_hot(torch.from_numpy(support.labels)).float()
    found = text_heads.multipliers(F.normalize(x, dim=1), texts, targets, rows, support)
    z = support.features / np.linalg.norm(support.features, axis=1, keepdims=True)
    e = np.exp(20 * z @ support.texts.T)
    share = e / e.sum(1, keepdims=True)
    for k in range(3):
        for c in range(3):
            own = rows[k] & (support.labels == c)
            assert float(found[k, 0, c, 0]) == pytest.approx(share[own, c].mean(), abs=1e-5)
    tight = text_heads.clap(support, rows, [{"rate": 1e-4, "constraint": 3000.0}])
    zero_shot = 20 * z @ support.texts.T
    assert abs(tight.logits(support.features) - zero_shot).max() < 0.2


def test_tip_adapter_f_without_steps_is_tip_adapter():
    support, new = world(36), world(20, seed=3).features
    heads = cache_heads.tip_adapter_f(support, folds(36), points("tip_adapter_f"), steps=0).logits(
        new
    )
    f = new / np.linalg.norm(new, axis=1, keepdims=True)
    keys = support.features / np.linalg.norm(support.features, axis=1, keepdims=True)
    for k, mask in enumerate(folds(36)):
        for p, point in enumerate(points("tip_adapter_f")):
            near = np.exp(-point["beta"] * (1 - f @ keys[mask].T))
            votes = near @ np.eye(3)[support.labels[mask]]
            expected = 20 * f @ support.texts.T + point["alpha"] * votes
            np.testing.assert_allclose(heads[k, p], expected, atol=1e-4)


@pytest.mark.parametrize("n", [36, 300])
def test_tip_adapter_f_is_autograds(n):
    support, point = world(n), {"alpha": 3.0, "beta": 5.5, "rate": 1e-2}
    every = np.ones((1, n), bool)
    at_first = cache_heads.tip_adapter_f(support, every, [point], steps=0)
    assert at_first.keys.shape[2] == min(n, 3 * cache_heads.KEYS)
    heads = cache_heads.tip_adapter_f(support, every, [point])
    start = at_first.keys[0, 0], at_first.values[0]
    keys = one_fit.tip_adapter_f(*tensors(support), 20.0, point, keys=start[0], values=start[1])
    np.testing.assert_allclose(heads.keys[0, 0], keys, atol=1e-4)
    assert abs(heads.keys - at_first.keys).max() > 0.01


@pytest.mark.parametrize("n", [60, 300])
def test_clip_adapter_is_autograds_of_the_whole_feature(n, monkeypatch):
    steps_of(monkeypatch, 0)
    support, every, point = world(n), np.ones((1, n), bool), {"ratio": 0.4, "rate": 1e-2}
    first = adapters.clip_adapter(support, every, [point])
    start, plane = [w[0, 0] for w in first.weights], first.plane[0]
    steps_of(monkeypatch)
    heads = adapters.clip_adapter(support, every, [point])
    options = dict(steps=40, start=start, plane=plane)
    fitted = one_fit.clip_adapter(*tensors(support), 20.0, point, **options)
    for found, expected in zip(heads.weights, fitted, strict=True):
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)
    new = F.normalize(torch.from_numpy(world(20, seed=3).features), dim=1)
    change = torch.relu(torch.relu(new @ plane @ fitted[0]) @ fitted[1]) @ plane.T
    mixed = F.normalize(0.4 * change + 0.6 * new, dim=1)
    expected = 20 * mixed @ torch.from_numpy(support.texts).T
    np.testing.assert_allclose(heads.logits(new.numpy())[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_prolip_is_autograds_and_starts_at_zero_shot(strength, monkeypatch):
    support, every = world(60), np.ones((1, 60), bool)
    point = {"strength": strength, "rate": 1e-2}
    steps_of(monkeypatch, 0)
    first = adapters.prolip(support, every, [point])
    x, _, texts = tensors(support)
    zero_shot = cosine_logits(support.features, texts, 20)
    np.testing.assert_allclose(first.logits(support.features)[0, 0], zero_shot, atol=1e-4)
    steps_of(monkeypatch)
    heads = adapters.prolip(support, every, [point])
    options = dict(steps=40, plane=first.plane[0])
    moved = one_fit.prolip(*tensors(support), 20.0, point, **options)
    np.testing.assert_allclose(heads.weights[0][0, 0], moved, atol=1e-4)


def test_directions_are_orthonormal_and_hold_texts_and_few_rows_whole():
    support, rows = world(12, d=200), folds(12)
    x, _, texts = tensors(support)
    x = F.normalize(x, dim=1)
    planes = adapters.leading(rows, x, texts, seed=0)
    for plane, mask in zip(planes, rows, strict=True):
        gram = plane.T @ plane
        used = gram.diagonal() > 0.5
        assert int(used.sum()) == 3 + mask.sum()
        np.testing.assert_allclose(gram[used][:, used], np.eye(int(used.sum())), atol=1e-4)
        for inside in (texts, x[torch.from_numpy(mask)]):
            np.testing.assert_allclose(inside @ plane @ plane.T, inside, atol=1e-4)


def test_class_text_is_autograds_and_knows_only_the_angles_of_the_texts(monkeypatch):
    support, every, point = world(60), np.ones((1, 60), bool), {"rate": 1e-2, "decay": 0.1}
    steps_of(monkeypatch, 0)
    first = text_heads.class_text(support, every, [point])
    texts = support.texts
    np.testing.assert_allclose(first.vectors @ first.vectors.T, texts @ texts.T, atol=1e-5)
    assert first.scale.exp().numpy() == pytest.approx(1 / 0.07)
    steps_of(monkeypatch)
    heads = text_heads.class_text(support, every, [point])
    x, y, _ = tensors(support)
    options = dict(steps=40, plane=first.plane[0])
    fitted = one_fit.class_text(x, y, first.vectors, point, first.weights[0, 0], **options)
    for found, expected in zip((heads.weights, heads.bias, heads.scale), fitted, strict=True):
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)


def test_class_text_has_its_control_without_texts(monkeypatch):
    steps_of(monkeypatch)
    control = functools.partial(text_heads.class_text, random=True)
    support = world(60)
    heads = control(world(60, texts=None), folds(60), points("class_text"))
    np.testing.assert_allclose(heads.vectors.norm(dim=1), 1, atol=1e-5)
    assert (
        abs((heads.vectors @ heads.vectors.T).numpy() - support.texts @ support.texts.T).max()
        > 0.05
    )
    with_texts = control(support, folds(60), points("class_text"))
    assert (with_texts.logits(support.features) == heads.logits(support.features)).all()


# ---------------------------------------------------------------------- entities
def test_hierarchy_is_autograds_and_sums_entities():
    support, every = world(60), np.ones((1, 60), bool)
    entities = support.labels + 3 * (np.arange(60) % 2)
    entities[::5] = -1  # for these the class alone is known
    point = {"decay": 0.1}
    heads = hierarchy.hierarchy(entities)(support, every, [point])
    allowed = np.eye(6)[entities.clip(0)]
    allowed[::5] = np.tile(np.eye(3)[support.labels[::5]], 2)
    x, y, _ = tensors(support)
    layer, mean, spread = one_fit.hierarchy(x, y, torch.from_numpy(allowed).float(), point)
    np.testing.assert_allclose(heads.weights[0, 0], layer.weight.detach(), atol=1e-4)
    new = torch.from_numpy(world(20, seed=3).features)
    with torch.no_grad():
        fine = layer((new - mean) / spread).softmax(dim=1)
    expected = fine[:, :3] + fine[:, 3:]
    found = np.exp(heads.logits(new.numpy())[0, 0])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_class_without_entities_is_one_itself_and_a_split_entity_is_refused():
    labels = np.array([0, 0, 1, 1, 2, 2])
    members = hierarchy.entity_classes(np.array([0, 1, 2, -1, -1, -1]), labels, 3)
    assert members.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(ValueError, match=r"Entities \[0, 2\] have rows of several classes"):
        hierarchy.entity_classes(np.array([0, 1, 0, 2, 2, 2]), labels, 3)
    with pytest.raises(ValueError, match="5 entities for 6 rows"):
        hierarchy.entity_classes(np.zeros(5, int), labels, 3)


# ---------------------------------------------------------------------- gate and pairing
def test_the_gate_asks_the_head_where_zero_shot_is_unsure():
    support, rows, new = world(30), folds(30), world(40, seed=3).features
    logits = cascade.cascade(support, rows, points("cascade")).logits(new)
    second = text_heads.clap(support, rows, [cascade.SECOND]).logits(new)
    share = functools.partial(F.softmax, dim=-1)
    zero_shot = share(torch.from_numpy(cosine_logits(new, torch.from_numpy(support.texts), 20)))
    zero_shot, second = zero_shot.numpy(), share(torch.from_numpy(second[:, 0])).numpy()
    entropy = -(zero_shot * np.log(zero_shot)).sum(1) / np.log(3)
    for p, point in enumerate(points("cascade")):
        sure = entropy < point["threshold"]
        expected = np.where(sure[:, None], zero_shot, second)
        np.testing.assert_allclose(np.exp(logits[:, p]), expected, atol=1e-5)
    assert 0 < (entropy < 0.6).mean() < 1


def test_clip_it_pairs_without_labels_and_is_autograds(monkeypatch):
    support, every = world(60), np.ones((1, 60), bool)
    bank = F.normalize(torch.randn(30, D, generator=torch.Generator().manual_seed(0)), dim=1)
    point = {"agreement": 1.0, "rate": 1e-2}
    steps_of(monkeypatch, 0)
    first = clip_it.clip_it(bank.numpy())(support, every, [point])
    x, y, _ = tensors(support)
    x = F.normalize(x, dim=1)
    z = first.coordinates(x)[0]
    assert float(z.mean(dim=0).abs().max()) < 1e-4
    chosen = clip_it.nearest(x, bank)
    assert chosen.tolist() == np.argmax(x.numpy() @ bank.numpy().T, axis=1).tolist()
    whole = np.ones((1, 30), bool)
    plane = adapters.leading(whole, bank, bank[:0], seed=0)[0]
    steps_of(monkeypatch)
    heads = clip_it.clip_it(bank.numpy())(support, every, [point])
    start = [w[0, 0] for w in first.weights]
    fitted = one_fit.clip_it(z, y, bank[chosen] @ plane, start, point, steps=40)
    for found, expected in zip(heads.weights, fitted, strict=True):
        np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"bank of texts is \(30, 8\); expected \(M, 40\)"):
        clip_it.clip_it(bank.numpy()[:, :8])(support, every, [point])


# ---------------------------------------------------------------------- CoOp
@pytest.fixture(scope="module")
def model():
    image = encoders.image("timm:test_resnet", weights="random", size=32)
    return models.DualEncoder(image, encoders.text("small", seed=1), dim=D).eval()


def coop_support(n=12):
    support = world(n, classes=2)
    return Support(support.features, support.labels, support.groups, 2, scale=20.0)


def test_coop_reads_context_and_name_and_is_autograds(model, monkeypatch):
    monkeypatch.setattr(prompts, "STEPS", 6)
    support, every, names = coop_support(), np.ones((1, 12), bool), ["normal", "bone tumor"]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    point = {"rate": 0.02}
    heads = prompts.coop(model, names, context=4)(support, every, [point])
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # the same by hand: the placeholders' rows of the embedding replaced, SGD, one fit
    tower = model.text
    tokens = tower.tokenize([f"x x x x {name}" for name in names])
    draw = torch.Generator().manual_seed(0)
    context = (0.02 * torch.randn(4, 192, generator=draw)).requires_grad_()
    optimiser = torch.optim.SGD([context], lr=0.02, momentum=0.9)

    def texts():
        table = tower.trunk.token_embedding(tokens)
        rows = torch.cat([table[:, :1], context.expand(2, -1, -1), table[:, 5:]], dim=1)
        handle = tower.trunk.token_embedding.register_forward_hook(lambda *_: rows)
        out = model.encode_text(tokens)
        handle.remove()
        return out

    def logits(rows):
        return 20 * (rows / rows.norm(dim=1, keepdim=True)) @ texts().T

    x, y = torch.from_numpy(support.features), torch.from_numpy(support.labels)
    one_fit.train([context], logits, x, y, optimiser=optimiser, steps=6, seed=0)
    with torch.no_grad():
        expected = texts()
        plain = model.encode_text(tokens)
    np.testing.assert_allclose(heads.vectors[0, 0], expected, atol=1e-4)
    assert abs(expected - plain).max() > 1e-3


def test_coops_fits_at_once_are_each_fit_alone(model, monkeypatch):
    monkeypatch.setattr(prompts, "STEPS", 5)
    support, rows = coop_support(), folds(12, 2)
    strategy = prompts.coop(model, ["normal", "tumor"], context=3)
    together = strategy(support, rows, points("coop")).logits(support.features)
    alone = strategy(support, rows[1:], points("coop")[6:7]).logits(support.features)
    np.testing.assert_allclose(together[1, 6], alone[0, 0], atol=2e-4)


def test_coop_refuses_what_it_cannot_read(model):
    support, every = coop_support(), np.ones((1, 12), bool)
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        prompts.coop(model, ["tumor"])(support, every, points("coop"))
    with pytest.raises(ValueError, match="Pass a smaller context"):
        prompts.coop(model, ["normal", "tumor"], context=200)
    other = models.DualEncoder(model.image, model.text, dim=8)
    with pytest.raises(ValueError, match="40 columns, the model's shared space 8"):
        prompts.coop(other, ["normal", "tumor"])(support, every, points("coop"))
    words = models.DualEncoder(model.image, encoders.text("random"), dim=D)
    with pytest.raises(ValueError, match="no embeddings of words"):
        prompts.coop(words, ["normal", "tumor"])
