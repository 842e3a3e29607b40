"""One head at a time by PyTorch's autograd and optimisers, as their authors' codes fit them.

What the batched heads of bonelib/adaptation are compared with: for equality in the tests, for speed
in strategies.py. Kept from the codes: features are in memory, cosines normalise them in each
step, batches of 256, one optimiser and scheduler a fit. Left out, in the loops' favour: the check
on the test set after each batch, copies between devices, prints, augmented views.
"""

import numpy as np
import torch
import torch.nn.functional as F

BATCH = 256
NAMES = ("taskres", "clap", "class_text", "tip_adapter_f", "clip_adapter", "prolip", "clip_it")
NAMES += ("hierarchy", "cascade")


def bank(columns):
    """Some features of texts, as ``clip_it`` needs them."""
    return np.random.default_rng(1).normal(size=(200, columns)).astype(np.float32)


def entities(labels):
    """Three entities of each of two classes, as ``hierarchy`` needs them."""
    return labels + 2 * (np.arange(len(labels)) % 3)


def fit(name, support, point):
    """One fit of a strategy to all rows of a support, in its published size."""
    x, y = torch.from_numpy(support.features), torch.from_numpy(support.labels)
    texts, columns, classes = torch.from_numpy(support.texts), x.shape[1], support.classes
    draw = torch.Generator().manual_seed(0)
    if name == "clip_it":
        sizes = [(columns, columns), (columns, classes), (columns, classes), (2 * classes, classes)]
        start = [torch.randn(size, generator=draw) / size[0] ** 0.5 for size in sizes]
        start += [torch.zeros(classes)] * 3
        clip_it(x, y, torch.randn(x.shape, generator=draw), start, point)
    elif name == "hierarchy":
        allowed = F.one_hot(torch.from_numpy(entities(support.labels)), 3 * classes).float()
        hierarchy(x, y, allowed, point)
    elif name == "class_text":
        start = torch.randn(columns, columns, generator=draw) / columns**0.5
        class_text(x, y, texts, point, start)
    elif name == "cascade":  # its gate costs nothing beside CLAP behind it, as published
        clap(x, y, texts, support.scale, {"rate": 1e-3, "constraint": 100.0})
    else:
        globals()[name](x, y, texts, support.scale, point)


def train(parameters, logits, x, y, *, optimiser, steps, seed, penalty=None):
    """Minimise the cross-entropy (and a penalty of a batch's rows) with a cosine schedule."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    x, y = x[order], y[order]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    starts = range(0, len(x), BATCH)
    for step in range(steps):
        start = starts[step % len(starts)]
        rows, labels = x[start : start + BATCH], y[start : start + BATCH]
        loss = F.cross_entropy(logits(rows), labels)
        if penalty is not None:
            loss = loss + penalty(rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
    return parameters


def _cosines(x, vectors, scale):
    return scale * (x / x.norm(dim=-1, keepdim=True)) @ F.normalize(vectors, dim=-1).T


def taskres(x, y, texts, scale, point, *, steps=100, seed=0):
    """Return class vectors."""
    residual = torch.zeros_like(texts, requires_grad=True)
    c = len(texts)

    def vectors():
        return texts + point["alpha"] * residual

    def separation(_):
        w = F.normalize(vectors(), dim=-1)
        pairs = 1 + (w @ w.T)[~torch.eye(c, dtype=torch.bool)]
        return point["separation"] * pairs.mean()

    train(
        [residual],
        lambda rows: _cosines(rows, vectors(), scale),
        x,
        y,
        optimiser=torch.optim.Adam([residual], lr=0.002, weight_decay=5e-4),
        steps=steps,
        seed=seed,
        penalty=separation if point["separation"] else None,
    )
    return vectors().detach()


def clap(x, y, texts, scale, point, *, steps=300, seed=0):
    """Return class vectors."""
    share = _cosines(x, texts, scale).softmax(dim=1)
    trust = torch.stack([share[y == c, c].mean() for c in range(len(texts))])
    w = texts.clone().requires_grad_()

    def constraint(_):
        return point["constraint"] * (trust * (w - texts).pow(2).sum(dim=-1)).mean()

    train(
        [w],
        lambda rows: _cosines(rows, w, scale),
        x,
        y,
        optimiser=torch.optim.SGD([w], lr=point["rate"], momentum=0.9),
        steps=steps,
        seed=seed,
        penalty=constraint,
    )
    return w.detach()


def tip_adapter_f(x, y, texts, scale, point, *, steps=20, seed=0, keys=None, values=None):
    """Return the keys; by default every row is one."""
    keys = (F.normalize(x, dim=1) if keys is None else keys).clone().requires_grad_()
    values = F.one_hot(y, len(texts)).float() if values is None else values

    def logits(rows):
        rows = rows / rows.norm(dim=-1, keepdim=True)
        near = rows @ keys.T
        cache = ((-1) * (point["beta"] - point["beta"] * near)).exp() @ values
        return scale * rows @ texts.T + cache * point["alpha"]

    optimiser = torch.optim.AdamW([keys], lr=point["rate"], eps=1e-4)
    train([keys], logits, x, y, optimiser=optimiser, steps=steps, seed=seed)
    return keys.detach()


def clip_adapter(x, y, texts, scale, point, *, steps=300, seed=0, start=None, plane=None):
    """Return the two layers; without ``start`` and ``plane`` they have the published sizes."""
    d = x.shape[1]
    if start is None:
        torch.manual_seed(seed)
        layers = torch.nn.Linear(d, d // 4, bias=False), torch.nn.Linear(d // 4, d, bias=False)
        start = [layer.weight.detach().T for layer in layers]
    first, second = (w.clone().requires_grad_() for w in start)

    def logits(rows):
        rows = rows / rows.norm(dim=-1, keepdim=True)
        z = rows if plane is None else rows @ plane
        a = torch.relu(torch.relu(z @ first) @ second)
        a = a if plane is None else a @ plane.T
        return _cosines(point["ratio"] * a + (1 - point["ratio"]) * rows, texts, scale)

    optimiser = torch.optim.Adam([first, second], lr=point["rate"], eps=1e-4)
    train([first, second], logits, x, y, optimiser=optimiser, steps=steps, seed=seed)
    return [first.detach(), second.detach()]


def prolip(x, y, texts, scale, point, *, steps=300, seed=0, plane=None):
    """Return the matrix minus identity; without ``plane`` it has the published size."""
    size = x.shape[1] if plane is None else plane.shape[1]
    moved = torch.zeros(size, size, requires_grad=True)

    def logits(rows):
        rows = rows / rows.norm(dim=-1, keepdim=True)
        change = rows @ moved if plane is None else rows @ plane @ moved @ plane.T
        return _cosines(rows + change, texts, scale)

    train(
        [moved],
        logits,
        x,
        y,
        optimiser=torch.optim.Adam([moved], lr=point["rate"], eps=1e-4),
        steps=steps,
        seed=seed,
        penalty=lambda _: point["strength"] * moved.pow(2).sum(),
    )
    return moved.detach()


def class_text(x, y, texts, point, start, *, steps=100, seed=0, plane=None):
    """Return the layer's weights, bias and logarithmic scale."""
    weights = start.clone().requires_grad_()
    bias = torch.zeros(start.shape[1], requires_grad=True)
    scale = torch.tensor(float(np.log(1 / 0.07)), requires_grad=True)

    def logits(rows):
        rows = rows / rows.norm(dim=-1, keepdim=True)
        z = (rows if plane is None else rows @ plane) @ weights + bias
        return _cosines(z, texts, scale.clamp(max=float(np.log(100))).exp())

    parameters = [weights, bias, scale]
    optimiser = torch.optim.AdamW(parameters, lr=point["rate"], weight_decay=point["decay"])
    train(parameters, logits, x, y, optimiser=optimiser, steps=steps, seed=seed)
    return [p.detach() for p in parameters]


def hierarchy(x, y, allowed, point, *, steps=100, seed=0):
    """Return a linear layer of entities; ``allowed`` (N, E) is 1 where a row may be of one."""
    mean, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    layer = torch.nn.Linear(x.shape[1], allowed.shape[1])
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.01, weight_decay=point["decay"])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)))
    x, allowed = ((x - mean) / spread)[order], allowed[order]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    starts = range(0, len(x), BATCH)
    for step in range(steps):
        start = starts[step % len(starts)]
        part = slice(start, start + BATCH)
        share = (layer(x[part]).softmax(dim=1) * allowed[part]).sum(dim=1)
        optimiser.zero_grad()
        (-share.log().mean()).backward()
        optimiser.step()
        scheduler.step()
    return layer, mean, spread


def clip_it(z, y, paired, start, point, *, steps=100, seed=0):
    """Return the weights: text, image's head, text's head, layer over both, and three biases."""
    weights = [w.clone().requires_grad_() for w in start]
    to_text, image, text, both, image_bias, text_bias, bias = weights
    size = z.shape[1]

    def logits(rows):
        v = rows[:, :size]
        heads = [v @ image + image_bias, v @ to_text @ text + text_bias]
        return torch.cat(heads, dim=1) @ both + bias

    def disagreement(rows):
        cosine = F.cosine_similarity(rows[:, :size] @ to_text, rows[:, size:], dim=1)
        return point["agreement"] * (1 - cosine).mean()

    train(
        weights,
        logits,
        torch.cat([z, paired], dim=1),
        y,
        optimiser=torch.optim.AdamW(weights, lr=point["rate"], weight_decay=1e-4),
        steps=steps,
        seed=seed,
        penalty=disagreement,
    )
    return [w.detach() for w in weights]
