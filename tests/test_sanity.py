"""Protects the sanity checks: weights are random from the top, resemblance has known values."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from bonelib import encoders, explain, models


def small():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def changed(one, other):
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    return {name.rpartition(".")[0] for (name, a), b in pairs if not torch.equal(a, b)}


def test_weights_are_random_from_the_top_down_and_the_model_is_left_alone():
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copies = list(explain.randomised(model, seed=1, steps=3))
    assert [name for name, _ in copies] == ["6", "1", "0"]
    assert changed(model, copies[0][1]) == {"6"}
    # A norm that was never trained holds ones and zeros, of which nothing can be drawn.
    assert [changed(model, copy) for _, copy in copies[1:]] == [{"6", "3"}, {"6", "3", "0"}]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = [copy for _, copy in explain.randomised(model, seed=1, steps=3)]
    assert not changed(copies[-1][1], again[-1])
    other = [copy for _, copy in explain.randomised(model, seed=2, steps=3)]
    assert changed(copies[-1][1], other[-1]) == {"6", "3", "0"}


def test_random_weights_keep_the_mean_and_the_deviation_of_their_tensor():
    model = nn.Sequential(nn.Linear(200, 200))
    with torch.no_grad():
        model[0].weight.mul_(7).add_(3)
    ((_, copy),) = explain.randomised(model, steps=1)
    assert copy[0].weight.mean().item() == pytest.approx(3, abs=0.02)
    assert copy[0].weight.std().item() == pytest.approx(model[0].weight.std().item(), rel=0.02)


def test_the_head_of_a_fitted_probe_is_random_first():
    tower = encoders.image("timm:test_resnet", weights="random", size=32)
    fitted = dict(weights=torch.randn(tower.width, 2), limit=torch.full((tower.width,), 9.0))
    probe = models.LinearProbe(tower, outputs=2, fitted=fitted)
    (name, first), *_ = explain.randomised(probe, steps=3)
    assert name == "weights" and not changed(probe, first)
    assert not torch.equal(first.weights, probe.weights)
    assert all(torch.equal(getattr(first, n), getattr(probe, n)) for n in ("scale", "limit"))


@pytest.mark.parametrize("name", ["packaged:efficientnet_lite0", "timm:test_vit"])
def test_a_real_tower_is_random_throughout_at_last_and_its_scores_stay_finite(name):
    tower = encoders.image(name, weights="random", size=64)
    model = nn.Sequential(tower, nn.Linear(tower.width, 2)).eval()
    copies = list(explain.randomised(model, steps=4))
    assert len(copies) == 4 and copies[0][0] == "1"
    with torch.no_grad():
        scores = [copy(torch.rand(1, 3, 64, 64)) for _, copy in copies]
    assert all(score.isfinite().all() for score in scores)
    moved = [n for n, p in model.named_parameters() if p.std(correction=0) > 0]
    last = dict(copies[-1][1].named_parameters())
    assert not [n for n in moved if torch.equal(last[n], model.get_parameter(n))]


# ---------------------------------------------------------------------- how alike maps are
def test_rank_correlation_is_scipys_with_ties():
    rng = np.random.default_rng(0)
    maps, others = rng.integers(0, 6, (2, 3, 16, 16)).astype(np.float32)
    found = explain.resemblance(maps, others)["spearman"]
    for value, one, other in zip(found, maps, others, strict=True):
        assert value == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)


def test_structural_similarity_is_that_of_windows_taken_one_by_one():
    rng = np.random.default_rng(0)
    maps, others = rng.random((2, 1, 12, 14))
    a, b = maps[0] / maps.max(), others[0] / others.max()
    a, b = np.pad(a, 3, mode="symmetric"), np.pad(b, 3, mode="symmetric")
    values = []
    for row in range(12):
        for column in range(14):
            x, y = (p[row : row + 7, column : column + 7].ravel() for p in (a, b))
            light = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
            cov = np.mean((x - x.mean()) * (y - y.mean()))
            values.append(light * (2 * cov + 9e-4) / (x.var() + y.var() + 9e-4))
    found = explain.resemblance(maps, others)["ssim"][0]
    assert found == pytest.approx(np.mean(values), abs=1e-9)


def test_a_map_is_like_itself_at_any_scale_and_unlike_its_opposite():
    maps = np.random.default_rng(0).random((2, 16, 16)) + 0.01
    same = explain.resemblance(maps, maps * 40)
    np.testing.assert_allclose(same[["spearman", "ssim"]], 1, atol=1e-9)
    opposite = explain.resemblance(maps, 2 - maps)
    np.testing.assert_allclose(opposite["spearman"], -1)
    assert (opposite["ssim"] < 0).all()


def test_maps_without_ranks_are_left_out_and_other_shapes_refused():
    maps = np.random.default_rng(0).random((3, 16, 16))
    others = maps.copy()
    maps[0], others[1, 2, 2] = 0, np.inf
    found = explain.resemblance(maps, others)
    assert found[explain.LEFT_OUT].tolist() == ["constant map", "map is not finite", ""]
    assert found["spearman"].isna().tolist() == [True, True, False]
    with pytest.raises(ValueError, match="expected both"):
        explain.resemblance(maps, others[:2])


def test_a_map_that_random_weights_leave_blank_is_like_no_other():
    maps = np.random.default_rng(0).random((1, 16, 16))
    found = explain.resemblance(maps, np.zeros((1, 16, 16))).iloc[0]
    assert found["spearman"] == 0 and found["ssim"] < 0.1 and found[explain.LEFT_OUT] == ""


def test_the_verdict_is_of_the_whole_interval():
    means = pd.DataFrame(
        {
            "value": [0.2, 0.4, 0.9, 0.1],
            "low": [0.1, 0.3, 0.8, np.nan],
            "high": [0.3, 0.5, 0.95, np.nan],
        }
    )
    found = explain.verdict(means)
    assert found["verdict"].tolist() == ["pass", "fail", "fail", "open"]
    assert found["threshold"].eq(0.5).all() and "verdict" not in means
    assert explain.verdict(means, threshold=0.96)["verdict"].tolist()[:3] == ["pass"] * 3
