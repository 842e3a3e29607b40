"""Protects heat maps: they show what a planted model sees, and their scores have known values."""

import numpy as np
import pytest
import torch
from torch import nn

from bonelib import encoders, explain

SIZE = 32
SQUARES = [(2, 4), (20, 3), (9, 22)]  # rows, columns of a bright square of 6 × 6


class Planted(nn.Module):
    """Sees bright squares in its first channel, darkness in its second; a head reads both."""

    def __init__(self, head=((3.0, 0.0), (0.0, 0.0))):
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(2)
        self.active = nn.ReLU()
        self.head = nn.Linear(2, len(head))
        with torch.no_grad():
            self.convolution.weight.fill_(1 / 75)
            self.convolution.weight[1] *= -1
            self.convolution.bias.copy_(torch.tensor([-0.5, 0.0]))
            self.head.weight.copy_(torch.tensor(head))
            self.head.bias.zero_()

    def forward(self, image):
        return self.head(self.active(self.norm(self.convolution(image))).mean(dim=(2, 3)))


def batches(size=2):
    image = torch.zeros(len(SQUARES), 3, SIZE, SIZE)
    for number, (row, column) in enumerate(SQUARES):
        image[number, :, row : row + 6, column : column + 6] = 1
    return [{"image": part} for part in image.split(size)]


def inside(number):
    mask = np.zeros((SIZE, SIZE), bool)
    row, column = SQUARES[number]
    mask[row : row + 6, column : column + 6] = True
    return mask


# ---------------------------------------------------------------------- the map
def test_the_map_of_a_model_that_sees_squares_peaks_in_them():
    maps = explain.grad_cam(Planted(), batches())
    assert maps.shape == (3, SIZE, SIZE) and maps.dtype == np.float32 and (maps >= 0).all()
    for number, heat in enumerate(maps):
        assert inside(number)[np.unravel_index(heat.argmax(), heat.shape)]
        assert heat[inside(number)].sum() > 0.7 * heat.sum()


def test_it_is_grad_cams_equation():
    model, (batch, *_) = Planted(((3.0, -2.0), (0.0, 1.0))).eval(), batches(3)
    maps = explain.grad_cam(model, [batch], target=0, layer=model.active)
    with torch.no_grad():
        activation = model.active(model.norm(model.convolution(batch["image"])))
    # The head averages over space, so the gradient is the head's weight over the pixels.
    weight = model.head.weight[0] / activation[0, 0].numel()
    low = (weight[:, None, None] * activation).sum(dim=1, keepdim=True).clamp(min=0)
    expected = nn.functional.interpolate(low, size=(SIZE, SIZE), mode="bilinear")
    assert np.allclose(maps, expected[:, 0].detach().numpy(), atol=1e-6)


def test_maps_are_not_rescaled_per_image():
    once = explain.grad_cam(Planted(((3.0, 0.0),)), batches())
    twice = explain.grad_cam(Planted(((6.0, 0.0),)), batches())
    assert np.allclose(twice, 2 * once, atol=1e-6)
    dim = [{"image": batch["image"] * 0.8} for batch in batches()]
    assert (explain.grad_cam(Planted(), dim).max(axis=(1, 2)) < once.max(axis=(1, 2))).all()


def test_the_size_of_the_batch_changes_nothing():
    maps = [explain.grad_cam(Planted(), batches(size)) for size in (1, 2, 3)]
    assert np.allclose(maps[0], maps[1], atol=1e-6) and np.allclose(maps[0], maps[2], atol=1e-6)


def test_the_target_is_a_column_or_a_function():
    model = Planted(((0.0, 0.0), (3.0, 0.0)))
    by_column = explain.grad_cam(model, batches(), target=1)
    by_function = explain.grad_cam(model, batches(), target=lambda row: row[1] - row[0])
    assert np.allclose(by_column, by_function)
    assert by_column.any()


def test_an_image_need_not_be_square():
    wide = [{"image": torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))}]
    assert explain.grad_cam(Planted(), wide).shape == (2, 24, 40)


def test_evidence_against_gives_a_blank_map_and_no_way_to_the_target_an_error():
    against = explain.grad_cam(Planted(((-3.0, 0.0),)), batches())
    assert not against.any()
    with pytest.raises(ValueError, match="No gradient of the target reaches .*Pass another layer"):
        explain.grad_cam(Planted(((0.0, 0.0),)), batches())

    class Aside(Planted):
        """Has a layer that runs and is not used."""

        def __init__(self):
            super().__init__()
            self.aside = nn.Conv2d(3, 2, 1)

        def forward(self, image):
            self.aside(image)
            return super().forward(image)

    model = Aside()
    with pytest.raises(ValueError, match="No gradient of the target reaches Conv2d"):
        explain.grad_cam(model, batches(), layer=model.aside)


def test_a_module_that_is_used_twice_is_taken_at_its_last_use():
    class Shared(Planted):
        def forward(self, image):
            everywhere = self.active(self.convolution(image) + 1)
            return self.head(self.active(everywhere - 1).mean(dim=(2, 3)))

    model = Shared()
    maps = explain.grad_cam(model, batches(), layer=model.active)
    assert (maps[0][~inside(0)] == 0).mean() > 0.7


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model = Planted().train()
    model.norm.eval()
    model.convolution.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = [m.training for m in model.modules()]
    loader = batches()
    if fails:
        loader.append({"image": torch.zeros(1, 4, SIZE, SIZE)})
        with pytest.raises(RuntimeError):
            explain.grad_cam(model, loader)
    else:
        explain.grad_cam(model, loader)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    assert (model.head.weight.grad == 1).all()
    assert all(p.grad is None for p in model.parameters() if p is not model.head.weight)
    assert not [m for m in model.modules() if m._forward_hooks or m._backward_hooks]
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_a_frozen_model_can_be_explained_too():
    model = Planted().requires_grad_(False)
    assert np.allclose(explain.grad_cam(model, batches()), explain.grad_cam(Planted(), batches()))


# ---------------------------------------------------------------------- where it looks
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("packaged:efficientnet_lite0", "bn2"),
        ("timm:resnet18", "layer4"),
        ("timm:test_convnext", "norm_pre"),
    ],
)
def test_the_last_map_of_a_convolutional_trunk_is_found(name, layer):
    trunk = encoders.image(name, weights="random", size=96).trunk.train()
    before = [buffer.clone() for buffer in trunk.buffers()]
    found = explain.target_layer(trunk, torch.rand(2, 3, 96, 96))
    assert found is trunk.get_submodule(layer)
    assert all(m.training for m in trunk.modules())
    assert all(torch.equal(a, b) for a, b in zip(trunk.buffers(), before, strict=True))


def test_a_transformer_is_refused_and_not_explained_by_its_patches():
    trunk = encoders.image("timm:test_vit", weights="random").trunk
    with pytest.raises(ValueError, match="No layer of this model puts out a feature map"):
        explain.target_layer(trunk, torch.rand(1, 3, 160, 160))


def test_each_image_may_have_a_target_of_its_own():
    torch.manual_seed(0)
    body = torch.nn.Conv2d(3, 4, 3, padding=1)
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)]
    model = torch.nn.Sequential(body, *head)
    batches = [{"image": torch.randn(2, 3, 8, 8)}, {"image": torch.randn(1, 3, 8, 8)}]
    own = explain.grad_cam(model, batches, target=[2, 0, 1], layer=body)
    for row, column in enumerate([2, 0, 1]):
        same = explain.grad_cam(model, batches, target=column, layer=body)[row]
        np.testing.assert_allclose(own[row], same, atol=1e-6)


def test_without_a_label_the_predicted_class_is_explained():
    model = Planted(((3.0, 0.0), (0.0, 1.0)))
    with torch.no_grad():
        predicted = torch.cat([model.eval()(b["image"]) for b in batches()]).argmax(1).tolist()
    targets = explain.targets(np.array([1, -1, 0]), outputs=2)
    assert targets.tolist() == [1, -1, 0]
    maps = explain.grad_cam(model, batches(), target=targets)
    for row, column in enumerate([1, predicted[1], 0]):
        same = explain.grad_cam(model, batches(), target=column)[row]
        np.testing.assert_allclose(maps[row], same, atol=1e-6)
    assert explain.targets(np.array([110.0, np.nan]), outputs=1).tolist() == [0, 0]


# ---------------------------------------------------------------------- nothing is lost
@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_targets_as_images_are_needed(count):
    for size in (1, 2, 3):  # of a batch
        with pytest.raises(ValueError, match=f"There are {count} targets for .* Pass one for each"):
            explain.grad_cam(Planted(), batches(size), target=[0] * count)


@pytest.mark.parametrize("target", [2, [0, 1, 2], [0, -2, 0], 7, np.array([0.5, 0, 0])])
def test_a_target_that_is_no_column_is_refused_before_a_map_is_made(target):
    model, seen = Planted(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match="are no columns: the model puts out 2"):
        explain.grad_cam(model, batches(1), target=target)
    assert len(seen) == 1


def test_an_index_error_in_a_target_is_not_swallowed():
    # grad-cam 1.5.7: leaving its "with", BaseCAM.__exit__ swallows an IndexError
    with pytest.raises(IndexError):
        explain.grad_cam(Planted(), batches(1), target=lambda row: row[5])


# ---------------------------------------------------------------------- tokens as maps
class Tokens(nn.Module):
    """A transformer's way of speaking: patches of 4 pixels behind tokens that stand for all."""

    def __init__(self, prefix=0, *, layout="tokens", convolution=True):
        super().__init__()
        self.prefix, self.layout = prefix, layout
        self.patch = nn.Conv2d(3, 2, 4, stride=4) if convolution else nn.Linear(48, 2)
        self.convolution, self.block, self.head = convolution, nn.Identity(), nn.Linear(2, 2)
        with torch.no_grad():
            self.patch.weight.fill_(1 / 48)
            self.patch.bias.zero_()
            self.head.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))

    def forward(self, image):
        if self.convolution:
            found = self.patch(image).movedim(1, -1)  # (B, H, W, C)
        else:
            found = self.patch(image.unfold(2, 4, 4).unfold(3, 4, 4).movedim(1, 3).flatten(3))
        if self.layout == "channels last":
            return self.head(self.block(found).mean(dim=(1, 2)))
        found = found.flatten(1, 2)
        first = found.new_full((len(image), self.prefix, 2), 9.0)
        found = torch.cat([first, found], dim=1)
        if self.layout == "tuple":
            return self.head(self.block((found, None))[0].mean(dim=1))
        return self.head(self.block(found).mean(dim=1))


@pytest.mark.parametrize("convolution", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_lie_where_their_patches_are_whatever_stands_before_them(prefix, convolution):
    model = Tokens(prefix, convolution=convolution)
    maps = explain.grad_cam(model, batches(), layer=model.block)
    for number, heat in enumerate(maps):
        assert inside(number)[np.unravel_index(heat.argmax(), heat.shape)]
        assert heat[inside(number)].sum() > 0.4 * heat.sum()
    wide = [{"image": torch.zeros(1, 3, 24, 40)}]
    wide[0]["image"][:, :, 4:8, 32:36] = 1
    heat = explain.grad_cam(model, wide, layer=model.block)[0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 4 <= row < 8 and 32 <= column < 36


def test_a_map_with_its_channels_last_is_the_same_map():
    model = Tokens(layout="channels last")
    last = explain.grad_cam(model, batches(), layer=model.block)
    as_tokens = Tokens()
    np.testing.assert_allclose(
        last, explain.grad_cam(as_tokens, batches(), layer=as_tokens.block), atol=1e-6
    )


def test_an_output_without_rows_and_columns_is_refused_with_its_reason():
    model = Tokens(layout="tuple")
    with pytest.raises(ValueError, match="can't look at Identity: it puts out a tuple"):
        explain.grad_cam(model, batches(), layer=model.block)
    with pytest.raises(ValueError, match=r"its output \(1, 2\) has no rows and columns of a 32 ×"):
        explain.grad_cam(model, batches(), layer=model.head)
    with pytest.raises(ValueError, match="can't look at ReLU: the model does not call it"):
        explain.grad_cam(model, batches(), layer=nn.ReLU())


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("timm:test_vit", "blocks.2"),  # a class token
        ("timm:test_vit3", "blocks.2"),  # none
        ("timm:vit_pwee_patch16_reg1_gap_256", "blocks.3"),  # a register
        ("timm:swin_s3_tiny_224", "layers.2"),  # rows and columns, channels last
    ],
)
def test_blocks_of_real_transformers_give_maps(name, block):
    size = 224 if "swin" in name else 64
    tower = encoders.image(name, weights="random", size=size)
    model = nn.Sequential(tower, nn.Linear(tower.width, 2))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    layer = tower.trunk.get_submodule(block)
    maps = explain.grad_cam(model, [{"image": image}], layer=layer)
    assert maps.shape == (1, size, size) and np.isfinite(maps).all()


def test_patches_that_a_class_token_no_longer_reads_are_refused_with_the_cure():
    tower = encoders.image("timm:test_vit", weights="random", size=64)
    blocks = tower.trunk.blocks
    if tower.trunk.global_pool != "token":
        pytest.skip("it pools otherwise")
    batch = [{"image": torch.rand(1, 3, 64, 64)}]
    model = nn.Sequential(tower, nn.Linear(tower.width, 2))
    with pytest.raises(ValueError, match="norm1 of the last block"):
        explain.grad_cam(model, batch, layer=blocks[-1])
    assert explain.grad_cam(model, batch, layer=blocks[-1].norm1).shape == (1, 64, 64)
