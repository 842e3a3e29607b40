"""Protects how heat maps are made: each method by an equation, an own computation or grad-cam."""

import numpy as np
import pytest
import torch
from test_explain import SQUARES, Planted, batches, inside
from torch import nn
from torch.nn import functional

from bonelib import encoders, explain, models
from bonelib.explain import layers as looking

BY_GRADIENT = {
    "grad_cam": "GradCAM",
    "hires_cam": "HiResCAM",
    "grad_cam_plus": "GradCAMPlusPlus",
    "layer_cam": "LayerCAM",
}


def classifier(name, size=64, outputs=3):
    """A tower with a head, both random, that gives every class some evidence."""
    tower = encoders.image(name, weights="random", size=size)
    model = models.Classifier(tower, outputs=outputs)
    torch.manual_seed(3)
    nn.init.normal_(model.head.weight, mean=0.05, std=0.3)
    for module in model.modules():  # random norms, so that maps differ from place to place
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def noise(count=3, size=64, seed=0):
    image = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    image[:, :, : size // 2, : size // 3] += 2
    return image


def correlation(one, other):
    return np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]


# ---------------------------------------------------------------------- beside grad-cam
@pytest.mark.parametrize("method", BY_GRADIENT)
@pytest.mark.parametrize(
    "name", ["timm:resnet18", "timm:test_vit", "timm:test_convnext", "timm:test_mambaout"]
)
def test_a_graph_from_the_layer_on_gives_grad_cams_maps(name, method):
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, image, columns = classifier(name), noise(), [0, 1, 2]
    ours = explain.heat_maps(model, [{"image": image}], method=method, target=columns)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    seen = looking.look(model, image)
    tokens = looking.speaks_in_tokens(seen, image)
    layer = (
        looking.last_tokens(model, seen, image) if tokens else explain.target_layer(model, image)
    )
    shape = looking.as_map(layer, seen, image)
    with getattr(pytorch_grad_cam, BY_GRADIENT[method])(model, [layer], shape) as cam:
        theirs = cam(image, [ClassifierOutputTarget(c) for c in columns])
    shown = [row for row in range(3) if ours[row].any()]
    assert len(shown) >= 2
    for row in shown:
        assert correlation(ours[row], theirs[row]) >= 0.999
    assert not [m for m in model.modules() if m._forward_hooks]


@pytest.mark.parametrize("method", explain.METHODS)
def test_no_method_leaves_a_trace(method):
    class WithEvidence(Planted):
        def evidence(self, image):
            places = self.active(self.norm(self.convolution(image)))
            return torch.einsum("bchw,oc->bohw", places, self.head.weight)

    model = WithEvidence().train()
    model.norm.eval()
    model.convolution.requires_grad_(False)
    if method == "rollout":
        with pytest.raises(ValueError, match="depends on no tokens of patches"):
            explain.heat_maps(model, batches(), method=method)
    else:
        maps = explain.heat_maps(model, batches(), method=method)
        assert maps.shape == (3, 32, 32) and maps.dtype == np.float32 and (maps >= 0).all()
        for number in range(len(SQUARES)):
            row, column = np.unravel_index(maps[number].argmax(), (32, 32))
            assert np.hypot(row - SQUARES[number][0] - 3, column - SQUARES[number][1] - 3) < 7
    assert model.training and model.active.training and not model.norm.training
    assert [p.requires_grad for p in model.parameters()] == [False, False] + [True] * 4
    assert all(p.grad is None for p in model.parameters())
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_what_a_model_changes_in_place_above_the_layer_does_not_reach_the_map():
    class Dense(Planted):
        def forward(self, image):
            found = self.norm(self.convolution(image))
            return self.head(functional.relu(found, inplace=True).mean(dim=(2, 3)))

    model = Dense().eval()
    maps = explain.heat_maps(model, batches(3), method="hires_cam", layers=model.norm)
    with torch.no_grad():
        before = model.norm(model.convolution(batches(3)[0]["image"]))
        low = (3 * before[:, :1]).clamp(min=0) / before[
            0, 0
        ].numel()  # evidence: where ReLU is open
    expected = functional.interpolate(low, size=(32, 32), mode="bilinear")[:, 0]
    np.testing.assert_allclose(maps, expected, atol=1e-7)


# ---------------------------------------------------------------------- known equations
def test_eigen_cam_is_the_first_component_with_its_heavy_side_up():
    model, image = classifier("timm:resnet18"), noise()
    maps = explain.heat_maps(model, [{"image": image}], method="eigen_cam")
    with torch.no_grad():
        places = model.image.trunk.forward_features(image).flatten(2).transpose(1, 2).numpy()
    for heat, x in zip(maps, places, strict=True):
        x = x - x.mean(axis=0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        low = u[:, 0] * s[0]
        low = torch.tensor(low if low.max() >= -low.min() else -low).clamp(min=0).view(1, 1, 2, 2)
        expected = functional.interpolate(low, size=(64, 64), mode="bilinear")[0, 0]
        np.testing.assert_allclose(heat, expected, rtol=1e-3, atol=1e-5)


def test_ablation_of_a_mean_and_a_linear_head_is_its_equation_also_for_negative_logits():
    model = Planted(((3.0, -2.0), (0.0, 1.0))).eval()
    with torch.no_grad():
        model.head.bias.fill_(-5)  # the package divides by the logit: its maps turn over
        at = model.active(model.norm(model.convolution(batches(3)[0]["image"])))
    maps = explain.heat_maps(model, batches(2), method="ablation", layers=model.active)
    fall = model.head.weight[0] * at.mean(dim=(2, 3))
    low = (fall[:, :, None, None] * at).sum(dim=1, keepdim=True).clamp(min=0).detach()
    expected = functional.interpolate(low, size=(32, 32), mode="bilinear")[:, 0]
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_ablation_reaches_tokens_and_maps_with_channels_last():
    for name in ("timm:test_vit", "timm:test_mambaout"):
        model, loader = classifier(name), [{"image": noise(2)}]
        maps = explain.heat_maps(model, loader, method="ablation", target=-1)
        alone = explain.heat_maps(model, [{"image": noise(2)[1:]}], method="ablation", target=-1)
        assert maps.any(axis=(1, 2)).all()
        np.testing.assert_allclose(maps[1:], alone, rtol=1e-3, atol=1e-5)


def test_occlusion_of_a_linear_model_is_its_equation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    image = torch.rand(2, 3, 8, 8)
    maps = explain.heat_maps(model, [{"image": image}], method="occlusion", target=1, window=0.5)
    weight = model[1].weight[1].detach().view(3, 8, 8)
    gain = (weight * (image - image.mean(dim=(2, 3), keepdim=True))).sum(dim=1)
    falls, times = torch.zeros(2, 8, 8), torch.zeros(8, 8)
    for row in (0, 2, 4):
        for left in (0, 2, 4):
            square = (slice(row, row + 4), slice(left, left + 4))
            falls[:, *square] += gain[:, *square].sum(dim=(1, 2))[:, None, None]
            times[square] += 1
    np.testing.assert_allclose(maps, (falls / times).clamp(min=0), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reads"), [("timm:test_vit", "class"), ("timm:test_vit3", "pool")]
)
def test_rollout_is_the_product_of_attentions_and_identities(name, reads):
    model, image = classifier(name), noise(2)
    trunk, weights = model.image.trunk, []

    def keep(module, given, _):  # its own softmax of its own queries and keys
        x = given[0]
        q, k, _ = module.qkv(x).view(*x.shape[:2], 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = module.q_norm(q), module.k_norm(k)
        logits = (q @ k.transpose(-1, -2)).detach().numpy() * q.shape[-1] ** -0.5
        logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
        weights.append((logits / logits.sum(axis=-1, keepdims=True)).mean(axis=1))

    handles = [block.attn.register_forward_hook(keep) for block in trunk.blocks]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    rolled = np.eye(weights[0].shape[-1])
    for weight in weights:
        rolled = (0.5 * weight + 0.5 * np.eye(weight.shape[-1])) @ rolled
    if reads == "class":
        low = rolled[:, 0]
    else:  # attention pooling: what its query asks for, of all tokens
        pool = trunk.attn_pool
        x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(image)))
        x = trunk.norm(trunk.blocks(x)).detach()
        q = pool.q_norm(pool.q(pool.latent).view(1, 1, pool.num_heads, -1).transpose(1, 2))
        k = pool.kv(x).view(2, x.shape[1], 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)[0]
        asks = (q @ pool.k_norm(k).transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        low = np.einsum("bqt,btp->bp", asks.mean(dim=1).detach().numpy(), rolled)
    low = torch.tensor(low[:, -16:]).view(2, 1, 4, 4)  # the patches
    expected = functional.interpolate(low, size=(64, 64), mode="bilinear")[:, 0]
    maps = explain.heat_maps(model, [{"image": image}], method="rollout")
    np.testing.assert_allclose(maps, expected, rtol=1e-3)


def test_rollout_hears_torchs_own_attention_and_the_mean_of_patches():
    class Small(nn.Module):
        """One block as those of open_clip; its head reads the mean of the patches."""

        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 8, stride=8)
            self.norm = nn.LayerNorm(8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.after = nn.LayerNorm(8)
            self.head = nn.Linear(8, 2)

        def forward(self, image):
            x = self.patch(image).flatten(2).transpose(1, 2)
            y = self.norm(x)
            return self.head(
                self.after(x + self.attention(y, y, y, need_weights=False)[0]).mean(dim=1)
            )

    torch.manual_seed(0)
    model, image = Small().eval(), noise(2, 32)
    y = model.norm(model.patch(image).flatten(2).transpose(1, 2))
    weight = model.attention(y, y, y)[1].detach().numpy()
    low = (0.5 * weight + 0.5 * np.eye(16)).mean(axis=1)
    low = torch.tensor(low).view(2, 1, 4, 4)
    expected = functional.interpolate(low, size=(32, 32), mode="bilinear")[:, 0]
    maps = explain.heat_maps(model, [{"image": image}], method="rollout")
    np.testing.assert_allclose(maps, expected, rtol=1e-4)


# ---------------------------------------------------------------------- a model's own map
def test_an_own_map_follows_the_target():
    class Own(nn.Module):
        def forward(self, image):
            return self.evidence(image).mean(dim=(2, 3))

        def evidence(self, image):
            return functional.avg_pool2d(image, 4)[:, :2]

    image = torch.rand(2, 3, 16, 16)
    image[1, 1] += 1
    loader, low = [{"image": image}], functional.avg_pool2d(image, 4)

    def grown(part):
        return functional.interpolate(part[:, None], size=(16, 16), mode="bilinear")[:, 0]

    make = explain.heat_maps
    np.testing.assert_allclose(make(Own(), loader, method="own", target=1), grown(low[:, 1]))
    highest = make(Own(), loader, method="own", target=-1)
    np.testing.assert_allclose(highest[1], grown(low[:, 1])[1])
    against = make(Own(), loader, method="own", target=lambda row: row[1] - row[0])
    with pytest.raises(ValueError, match="a number of the model's own map"):
        make(Own(), loader, method="own", target=lambda row: row.abs().max())
    expected = grown((low[:, 1] - low[:, 0]).clamp(min=0))
    np.testing.assert_allclose(against, expected, atol=1e-6)
    with pytest.raises(ValueError, match="has no map of its own"):
        make(Planted(), batches(), method="own")


# ---------------------------------------------------------------------- layers
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("timm:resnet18", ["layer4", "layer3", "layer2", "layer1", "act1"]),
        ("packaged:efficientnet_lite0", ["bn2", "blocks.4", "blocks.2", "blocks.1", "blocks.0"]),
        ("timm:test_convnext", ["norm_pre", "stages.2", "stages.1", "stages.0"]),
        ("timm:densenet121", ["features", "features.denseblock3", "features.denseblock2"]),
        ("timm:pvt_v2_b0", ["stages", "stages.2.downsample", "stages.1", "stages.0"]),
        ("timm:resnet50_clip", ["final_conv", "stages.2", "stages.1"]),  # attention above it
    ],
)
def test_a_number_of_layers_names_the_ends_of_stages(name, stages):
    trunk = encoders.image(name, weights="random", size=96).trunk
    image = torch.rand(1, 3, 96, 96)
    found = looking.last_maps(looking.look(trunk, image), image, len(stages))
    names = {module: name for name, module in trunk.named_modules()}
    assert [names[module] for module in found] == stages


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("timm:test_vit", "blocks.5.norm1"),  # the head reads a class token
        ("timm:test_vit3", "norm"),  # pooling by attention, no class token
        ("timm:vit_pwee_patch16_reg1_gap_256", "blocks"),  # the mean of patches, a register
        ("timm:deit_tiny_distilled_patch16_224", "blocks.11.norm1"),  # two tokens in front
    ],
)
def test_a_transformer_is_seen_where_its_head_still_depends_on_patches(name, layer):
    model, image = classifier(name), noise(1)
    found = looking.last_tokens(model, looking.look(model, image), image)
    assert found is model.image.trunk.get_submodule(layer)
    assert explain.heat_maps(model, [{"image": image}], target=-1, method="hires_cam").any()


def test_swin_and_its_stages_are_maps_with_channels_last():
    model, loader = classifier("timm:swin_tiny_patch4_window7_224", 224), [{"image": noise(1, 224)}]
    assert explain.target_layer(model, loader[0]["image"]) is model.image.trunk.norm
    assert explain.heat_maps(model, loader, method="layer_cam", layers=3).shape == (1, 224, 224)
    with pytest.raises(ValueError, match="Rollout needs blocks in which each of 49 tokens looks"):
        explain.heat_maps(model, loader, method="rollout")


def test_stages_are_fused_by_their_scale_in_the_set_or_by_their_product():
    model, loader = classifier("timm:resnet18"), [{"image": noise(2)}, {"image": noise(2, seed=1)}]
    make = explain.heat_maps
    stages = [model.image.trunk.layer4, model.image.trunk.layer3, model.image.trunk.layer2]
    how = dict(method="layer_cam", target=-1)
    single = [make(model, loader, layers=stage, **how) for stage in stages]
    mean = make(model, loader, layers=3, **how)
    np.testing.assert_allclose(mean, sum(m / m.max() for m in single) / 3, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mean, make(model, loader, layers=stages, **how), rtol=1e-5)
    product = make(model, loader, layers=3, fuse="product", **how)
    expected = np.prod(np.array(single, np.float64), axis=0) ** (1 / 3)
    np.testing.assert_allclose(product, expected, rtol=1e-4, atol=1e-6)
    alone = make(model, loader[1:], layers=3, fuse="product", **how)
    np.testing.assert_allclose(alone, product[2:], rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------- what is explained
def test_low_rank_changes_and_probes_are_explained_like_any_model():
    model, loader = classifier("timm:test_resnet", outputs=1), [{"image": noise()}]
    maps = explain.heat_maps(model, loader)
    probe = models.LinearProbe(
        model.image,
        outputs=1,
        fitted={
            "weights": model.head.weight.detach().T,
            "limit": torch.full((model.image.width,), 1e6),
        },
    )
    probe.requires_grad_(False)
    np.testing.assert_allclose(explain.heat_maps(probe, loader), maps, rtol=1e-3, atol=1e-6)
    models.add_lora(model, rank=2)  # zero at first
    wanted = [p.requires_grad for p in model.parameters()]
    np.testing.assert_allclose(explain.heat_maps(model, loader), maps, rtol=1e-3, atol=1e-6)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())


def test_low_rank_changes_do_not_hide_where_a_transformer_is_seen():
    model, loader = classifier("timm:test_vit"), [{"image": noise()}]
    maps = explain.heat_maps(model, loader, target=-1)
    models.add_lora(model, rank=2)
    np.testing.assert_allclose(explain.heat_maps(model, loader, target=-1), maps, atol=1e-6)


def test_a_head_that_is_no_layer_is_refused_with_its_reason():
    tower = encoders.image("timm:test_resnet", weights="random", size=64)
    head = models.FeatureHead(tower, outputs=2, kind="knn", arrays={"rows": np.ones((2, 3))})
    for make in (explain.heat_maps, explain.grad_cam):
        with pytest.raises(ValueError, match="no heat maps of knn: its head has no gradient"):
            make(head, [{"image": noise()}])


def test_a_text_map_shows_the_words_that_are_asked_for():
    class Dual(nn.Module):
        """Image features: how bright, how dark a place is; 'bright' and 'dark' are its words."""

        def __init__(self):
            super().__init__()
            self.see = nn.Conv2d(3, 2, 5, stride=2, padding=2)
            pool = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.image, self.image_projection = nn.Sequential(self.see, *pool), nn.Identity()
            self.words = nn.Parameter(torch.eye(2))
            with torch.no_grad():
                self.see.weight.fill_(1 / 75)
                self.see.weight[1] *= -1
                self.see.bias.copy_(torch.tensor([0.0, 1.0]))

        def encode_image(self, image):
            return functional.normalize(self.image(image), dim=-1)

        def tokenize(self, sentences):
            return torch.tensor([[float("bright" in s), float("dark" in s)] for s in sentences])

        def encode_text(self, tokens):
            return functional.normalize(tokens @ self.words, dim=-1)

    dual = Dual().train()
    prompts = {"normal": ["dark", "it is dark"], "tumor": ["a bright square", "bright and dark"]}
    asked = explain.contrast(dual, prompts)
    assert dual.training and dual.words.requires_grad
    bright = np.array([1.0, 0]) + np.array([1, 1]) / np.sqrt(2)
    expected = np.array([[0, 1], bright / np.linalg.norm(bright)])
    np.testing.assert_allclose(asked.classes, expected, rtol=1e-6)
    image = batches(3)[0]["image"]
    with torch.no_grad():
        np.testing.assert_allclose(asked(image), dual.encode_image(image) @ asked.classes.T)
    maps = explain.heat_maps(asked, batches(), target=lambda row: row[1] - row[0], layers=dual.see)
    other = explain.heat_maps(asked, batches(), target=lambda row: row[0] - row[1], layers=dual.see)
    for number in range(3):
        square = inside(number)
        assert square[np.unravel_index(maps[number].argmax(), (32, 32))]
        assert other[number][square].mean() < 0.2 * other[number][~square].mean()
    with pytest.raises(ValueError, match=r"list of prompts; there is none of \['tumor'\]"):
        explain.contrast(dual, {"normal": ["dark"], "tumor": []})
    with pytest.raises(ValueError, match="none of any"):
        explain.contrast(dual, {})
    with pytest.raises(ValueError, match=r"none of \['tumor'\]"):
        explain.contrast(dual, {"tumor": "bright"})


def test_a_dual_encoder_of_the_project_is_asked_by_words(bert):
    tower = encoders.image("timm:test_vit", weights="random", size=64)
    dual = models.DualEncoder(tower, encoders.text(f"hf:{bert}", cached=False), dim=16).train()
    asked = explain.contrast(dual, {"normal": ["normal bone"], "tumor": ["a tumor", "lesion"]})
    assert dual.training and not asked.classes.requires_grad
    with torch.no_grad():
        dual.eval()
        words = dual.encode_text(dual.tokenize(["a tumor", "lesion"])).mean(dim=0)
        torch.testing.assert_close(asked.classes[1], words / words.norm())
        first = next(iter(explain.randomised(asked)))[1](noise())  # of what it sees by, not reads
        assert (asked(noise()) - first).abs().max() > 1e-3
        torch.testing.assert_close(asked(noise()), dual.encode_image(noise()) @ asked.classes.T)
    against = dict(target=lambda row: row[1] - row[0], method="hires_cam", blank=True)
    maps = explain.heat_maps(asked, [{"image": noise()}], **against)
    turned = explain.contrast(dual, {"tumor": ["a tumor", "lesion"], "normal": ["normal bone"]})
    other = explain.heat_maps(turned, [{"image": noise()}], **against)
    assert (maps.any() or other.any()) and not ((maps > 0) & (other > 0)).all()
    assert all(p.grad is None for p in dual.parameters())


# ---------------------------------------------------------------------- sizes
def test_larger_images_give_finer_maps_of_convolutions_and_transformers_say_how():
    model = classifier("timm:resnet18")
    maps = explain.heat_maps(model, [{"image": noise(2, 128)}], target=-1)
    assert maps.shape == (2, 128, 128)
    small = explain.heat_maps(model, [{"image": noise(2, 128)}], target=-1, out=32)
    assert small.shape == (2, 32, 32)
    assert correlation(small, maps.reshape(2, 32, 4, 32, 4).mean(axis=(2, 4))) > 0.99
    wide = [{"image": torch.rand(1, 3, 24, 40)}]
    assert explain.heat_maps(Planted(), wide, target=0, out=12, blank=True).shape == (1, 12, 20)
    transformer = classifier("timm:vit_pwee_patch16_reg1_gap_256")
    with pytest.raises(ValueError, match="refuses images of 96 × 96: .*set_input_size"):
        explain.heat_maps(transformer, [{"image": noise(1, 96)}])
    transformer.image.trunk.set_input_size(img_size=96)
    maps = explain.heat_maps(transformer, [{"image": noise(1, 96)}], target=-1)
    assert maps.shape == (1, 96, 96)


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(method="guided"), "Unknown 'guided'. Choose grad_cam, hires_cam"),
        (dict(fuse="max"), "Unknown 'max'. Choose mean, product"),
        (dict(method="occlusion", layers=1), "occlusion weighs no layer"),
        (dict(layers=2), "layers=2: the model has maps of 1 resolutions of 32 × 32"),
        (dict(layers=0), "Pass 1 to 1"),
        (dict(target=2), "are no columns: the model puts out 2"),
        (dict(target=[0]), "1 targets for 2 or more images"),
    ],
)
def test_what_is_no_choice_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        explain.heat_maps(Planted(), batches(), **how)


def test_blank_sets_are_refused_by_every_method_and_single_blank_maps_are_not():
    against = Planted(((-3.0, 0.0),))
    for method in ("grad_cam", "hires_cam", "ablation"):
        with pytest.raises(ValueError, match=f"All 3 maps by {method} are zero everywhere"):
            explain.heat_maps(against, batches(), method=method)
    assert not explain.heat_maps(against, batches(), blank=True).any()
    image = batches(3)[0]["image"]
    image[1] = 0
    maps = explain.heat_maps(Planted(), [{"image": image}])
    assert maps.any(axis=(1, 2)).tolist() == [True, False, True]


@pytest.mark.parametrize("method", ["grad_cam", "eigen_cam", "ablation", "occlusion"])
def test_logits_that_are_no_numbers_are_named(method):
    image = batches(3)[0]["image"]
    image[1, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="images of a batch are not finite|1 images"):
        explain.heat_maps(Planted(), [{"image": image}], method=method)


def test_a_model_without_logits_or_without_a_layer_says_so():
    class Lists(Planted):
        def forward(self, image):
            return [super().forward(image)]

    with pytest.raises(ValueError, match=r"puts out a list, no tensor for an image; logits"):
        explain.heat_maps(Lists(), batches())
    with pytest.raises(ValueError, match="No layer of this model puts out a feature map"):
        explain.heat_maps(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), batches())
    with pytest.raises(ValueError, match="The loader holds no image"):
        explain.heat_maps(Planted(), [])
