"""Protects anomaly scores and maps: known distances, planted blobs, measures of other packages."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial import distance
from sklearn import metrics
from sklearn.covariance import LedoitWolf

from bonelib import anomaly, encoders, evaluation, splits, training
from bonelib.anomaly import levels, mvfa
from bonelib.evaluation import METHOD, Method
from bonelib.experiments import anomalies
from bonelib.experiments.context import Context

SIDE = 32
METHOD_COLUMNS = Method("imagenet", "mvfa").columns()


@pytest.fixture
def draw():
    return np.random.default_rng(0)


# ---------------------------------------------------------------------- distances from normal
def test_distances_from_normal_images_are_those_of_their_equations(draw):
    normal, new = draw.normal(size=(40, 6)), draw.normal(size=(7, 6)) + 1
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (new, normal)]
    near = np.sort(distance.cdist(*unit), axis=1)[:, :3].mean(axis=1)
    assert np.allclose(anomaly.knn_distances(normal, new, neighbours=3), near)
    fitted = LedoitWolf().fit(normal)
    inverse = np.linalg.inv(fitted.covariance_)
    far = [distance.mahalanobis(row, normal.mean(axis=0), inverse) for row in new]
    assert np.allclose(anomaly.mahalanobis_distances(normal, new), far)


def test_what_is_far_from_normal_scores_higher(draw):
    normal = draw.normal(size=(60, 8)) + 5
    new = np.concatenate([draw.normal(size=(30, 8)) + 5, draw.normal(size=(30, 8)) * [6] + 5])
    labels = np.repeat([0, 1], 30)
    for score in (anomaly.knn_distances, anomaly.mahalanobis_distances):
        assert evaluation.auroc(labels, score(normal, new)) > 0.9


def test_few_normal_images_and_impossible_sizes_are_refused(draw):
    some = draw.normal(size=(3, 4))
    assert len(anomaly.knn_distances(some, some)) == 3  # fewer than there are neighbours
    for score in (anomaly.knn_distances, anomaly.mahalanobis_distances):
        with pytest.raises(ValueError, match="0 normal training images; . or more are needed"):
            score(some[:0], some)
    with pytest.raises(ValueError, match="from 1, not -2"):
        anomaly.knn_distances(some, some, neighbours=-2)
    with pytest.raises(ValueError, match="1 patch or more, not 0"):
        anomaly.coreset(some, size=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        anomaly.knn_distances(some * np.nan, some)


def test_a_coreset_keeps_the_rare_patch_and_distances_are_to_the_nearest(draw):
    patches = np.concatenate([draw.normal(size=(500, 3)) * 0.1, [[9.0, 9, 9]]])
    kept = anomaly.coreset(patches, size=5)
    assert len(kept) == 5 and (kept == 9).all(axis=1).any()
    far = anomaly.distances(kept, patches[:500].reshape(5, 10, 10, 3))
    assert far.shape == (5, 10, 10)
    assert np.allclose(far.ravel(), distance.cdist(patches[:500], kept).min(axis=1))


def test_calibration_averages_kinds_on_one_scale_and_never_turns_a_ranking(draw):
    labels = np.repeat([0, 1], 50)
    good, odd = labels + draw.normal(size=100) * 0.5, -labels + draw.normal(size=100) * 0.5
    alone = anomaly.calibrated([1000 * good], labels, [1000 * good])
    assert np.allclose(alone, anomaly.calibrated([good], labels, [good]), atol=1e-6)
    p = evaluation.probabilities(alone, task="anomaly")[:, 1]
    assert abs(p.mean() - 0.5) < 0.02
    turned = anomaly.calibrated([odd], labels, [odd])
    assert (np.argsort(turned) == np.argsort(odd)).all()
    both = anomaly.calibrated([good, odd], labels, [good, odd])
    assert np.allclose(both, (alone + turned) / 2)
    with pytest.raises(ValueError, match="of one class"):
        anomaly.calibrated([good], np.ones(100), [good])
    maps = draw.normal(size=(4, 3, 3)) * 7 + 2
    assert np.allclose(anomaly.standardised(maps, maps).std(), 1)
    assert np.allclose(anomaly.standardised(maps, maps + 7).mean() * maps.std(), 7)


def test_the_mix_of_maps_is_chosen_on_validation_pixels_and_no_other(draw):
    masks, good = blobs(draw, count=8)
    blind = 50 * draw.normal(size=good.shape)
    new = draw.normal(size=(2, 3, SIDE, SIDE))
    own = [anomaly.standardised(old, x) for old, x in zip((good, blind), new, strict=True)]
    assert np.allclose(anomaly.mixed([good, blind], masks, new), own[0])
    assert np.allclose(anomaly.mixed([blind, good], masks, new[::-1]), own[0])
    # Two kinds that err apart serve best together; without an outline they count alike.
    other = (masks + draw.normal(size=masks.shape)).astype(np.float32)
    both = [anomaly.standardised(old, x) for old, x in zip((good, other), new, strict=True)]
    assert np.allclose(anomaly.mixed([good, other], masks, new), np.mean(both, axis=0))
    assert np.allclose(anomaly.mixed([good, blind], masks & False, new), np.mean(own, axis=0))


# ---------------------------------------------------------------------- measures of maps
def blobs(draw, count=6):
    masks = np.zeros((count, SIDE, SIDE), bool)
    for i in range(1, count):  # the first has none
        row, column = draw.integers(2, SIDE - 8, 2)
        masks[i, row : row + 6, column : column + 5] = True
    masks[1, 0, 0] = True  # a second, tiny region
    return masks, (masks + draw.normal(size=masks.shape)).astype(np.float32)


def values(maps, masks):
    weights = np.ones(len(maps))
    return {k: s(weights) for k, s in anomaly.pixel_statistics(maps, masks).items()}


def test_pixel_measures_are_those_of_scikit_learn(draw):
    masks, maps = blobs(draw)
    for heat, close in ((maps, 2e-3), (np.round(maps), 1e-12)):  # many values, few values
        found = values(heat, masks)
        own = (masks.ravel(), heat.ravel())
        assert abs(found["pixel AUROC"] - metrics.roc_auc_score(*own)) < close
        assert abs(found["pixel AP"] - metrics.average_precision_score(*own)) < close
        pairs = list(zip(masks, heat, strict=True))[1:]
        within = np.mean([metrics.roc_auc_score(m.ravel(), h.ravel()) for m, h in pairs])
        assert abs(found["AUROC within images"] - within) < close


def test_pro_counts_regions_and_not_pixels():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, 0, :4] = masks[0, 9, 9] = True  # four pixels, and one
    heat = np.zeros(masks.shape)
    heat[0, 0, :4] = 1  # finds the large region alone, without a false alarm
    # Half of the regions at once; from there a line to all of both at a rate of 1.
    assert values(heat, masks)["PRO"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)
    assert values(masks.astype(float), masks)["PRO"] == pytest.approx(1)
    assert values(np.zeros(masks.shape), masks)["PRO"] == pytest.approx(0.15)
    touching = np.eye(10, dtype=bool)[None]  # corners touch: one region
    part = np.zeros(touching.shape)
    part[0, :5, :5] = np.eye(5)
    assert values(part, touching)["PRO"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_pro_is_the_area_under_its_curve_threshold_by_threshold(draw):
    from scipy.ndimage import label

    masks, maps = blobs(draw)
    maps = np.round(maps, 1)
    rates, shares = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        each = []
        for mask, hit in zip(masks, above, strict=True):
            regions, count = label(mask, np.ones((3, 3)))
            each += [hit[regions == i + 1].mean() for i in range(count)]
        rates.append(above[~masks].mean())
        shares.append(np.mean(each))
    grid = np.unique(np.concatenate([[r for r in rates if r < 0.3], [0.3]]))
    curve = np.interp(grid, rates, shares)
    # Where several thresholds have one rate, the highest share stands there.
    area = np.trapezoid(curve, grid) / 0.3
    assert values(maps, masks)["PRO"] == pytest.approx(area, abs=5e-3)


def test_weights_are_copies_of_images(draw):
    masks, maps = blobs(draw)
    times = np.array([2, 0, 1, 3, 1, 0])
    repeated = values(np.repeat(np.round(maps), times, 0), np.repeat(masks, times, 0))
    known = anomaly.pixel_statistics(np.round(maps), masks)
    for name, statistic in known.items():
        assert statistic(times.astype(float)) == pytest.approx(repeated[name]), name
    assert np.isnan(known["PRO"](np.eye(6)[0]))  # normal images alone


def test_methods_are_compared_on_the_same_draws_of_patients(draw):
    masks, maps = blobs(draw, count=12)
    table = pd.DataFrame({"image_id": range(12), "patient": np.repeat(range(6), 2)})
    good, blind = Method("imagenet", "mvfa"), Method(sees="none", detail="centre prior")
    kinds = {good: maps, blind: draw.normal(size=maps.shape)}
    found = anomaly.measured(kinds, masks, table, beside=good, draws=200)
    row = found[(found["sees"] == "none") & (found["measure"] == "pixel AUROC")].iloc[0]
    assert row["gain_low"] < row["gain"] < row["gain_high"] < 0 and row["p"] < 0.05
    own = found[(found["strategy"] == "mvfa") & (found["measure"] == "pixel AUROC")].iloc[0]
    assert row["gain"] == pytest.approx(row["value"] - own["value"])
    assert own["low"] < own["value"] < own["high"] and np.isnan(own["gain"])
    assert own["groups"] == 6 and own["group_kind"] == "patient"


def test_intervals_of_a_mean_are_those_of_means(draw):
    table = pd.DataFrame({"image_id": range(20), "patient": np.repeat(range(10), 2)})
    table = table.assign(**METHOD_COLUMNS, hit=draw.random(20))
    share = evaluation.ranking.share_statistic(table["hit"].to_numpy(), np.ones(20, bool))
    found = evaluation.estimate(table, {"hit": share}, draws=50).drop(columns="p").iloc[0]
    expected = evaluation.means(table, ["hit"], draws=50).iloc[0]
    assert all(found[name] == expected[name] for name in found.index)


def test_maps_that_cannot_be_measured_are_refused(draw):
    masks, maps = blobs(draw)
    with pytest.raises(ValueError, match="no pixel is outlined"):
        anomaly.pixel_statistics(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="expected both"):
        anomaly.pixel_statistics(maps[:2], masks)
    maps[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        anomaly.pixel_statistics(maps, masks)


# ---------------------------------------------------------------------- adapters
class Batches:
    """Images with a bright blob where they are abnormal, in contract form."""

    def __init__(self, labels, seed=0, size=4):
        draw = np.random.default_rng(seed)
        self.labels = np.asarray(labels)
        self.masks = np.zeros((len(labels), SIDE, SIDE), bool)
        image = 0.3 * draw.normal(size=(len(labels), 1, SIDE, SIDE)).astype(np.float32)
        for i in np.flatnonzero(self.labels):
            row, column = draw.integers(0, SIDE - 8, 2)
            self.masks[i, row : row + 8, column : column + 8] = True
        image[:, 0] += 2 * self.masks
        self.image = torch.from_numpy(image).expand(-1, 3, -1, -1)
        self.image_ids, self.size = list(range(len(labels))), size
        self.extras = {"label": torch.from_numpy(self.labels)}
        self.outlined = torch.ones(len(labels), dtype=torch.bool)

    def __len__(self):
        return -(-len(self.labels) // self.size)

    def __iter__(self):
        for start in range(0, len(self.labels), self.size):
            part = slice(start, start + self.size)
            yield {
                "image": self.image[part],
                "label": self.extras["label"][part],
                "mask": torch.from_numpy(self.masks[part]),
                "outlined": self.outlined[part],
            }


def model(name="timm:test_resnet", width=16):
    texts = torch.nn.functional.normalize(torch.randn(2, width, generator=torch.manual_seed(1)))
    tower = encoders.image(name, weights="random", size=SIDE)
    return anomaly.MVFA(tower, texts.numpy(), scale=20)


TOWERS = ("timm:test_resnet", "timm:test_vit", "timm:test_efficientnet")


@pytest.mark.parametrize("name", TOWERS)
def test_gradients_reach_every_adapter_and_no_weight_of_the_tower(name):
    net = model(name)
    batch = next(iter(Batches([0, 1, 0, 1])))
    mvfa.objective()(net.train(), batch).backward()
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert trained and all(n.startswith("adapters.") for n in trained)
    for name, parameter in net.named_parameters():
        if name in trained:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_levels_see_what_the_levels_before_them_changed():
    net, batch = model(), next(iter(Batches([0, 1])))
    net.eval()
    with torch.no_grad():
        before = net.levels(batch["image"])
        net.adapters[0]["seg"].up.weight.add_(1)
        after = net.levels(batch["image"])
    assert torch.equal(before[0]["seg"], after[0]["seg"])
    assert not torch.allclose(before[1]["det"], after[1]["det"])
    assert not [m for m in net.modules() if m._forward_hooks]


def test_the_residual_is_that_of_the_paper():
    net, batch = model(), next(iter(Batches([0, 1])))
    net.eval()
    first, (name, wide) = net.adapters[0], levels.names(net.image.trunk)[0]
    seen = []
    module = net.image.trunk.get_submodule(name)
    handle = module.register_forward_hook(lambda _, __, out: seen.append(out.movedim(1, -1)))
    with torch.no_grad():
        net.image(batch["image"])
        handle.remove()
        x = seen[0]
        assert x.shape[-1] == wide
        m = {k: torch.nn.functional.leaky_relu(first[k].down(x)) for k in ("seg", "det")}
        a = [torch.nn.functional.leaky_relu(first[k].up(m[k])) for k in m]
        expected = 0.8 * x + 0.1 * a[0] + 0.1 * a[1]
        kept = []
        with levels.watching(net.image.trunk, lambda i, y: expected if i == 0 else kept.append(y)):
            net.image(batch["image"])
        own = []
        again = net.image.trunk.get_submodule(levels.names(net.image.trunk)[1][0])
        handle = again.register_forward_hook(lambda _, __, out: own.append(out.movedim(1, -1)))
        found = net.levels(batch["image"])
        handle.remove()
    unit = torch.nn.functional.normalize(m["seg"], dim=-1)
    assert torch.allclose(found[0]["seg"], unit, atol=1e-6)
    assert torch.allclose(own[0], kept[0], atol=1e-5)


def test_the_logit_is_that_of_a_softmax_over_both_texts_and_one_sigmoid_gives_the_loss():
    net, batch = model(), next(iter(Batches([0, 1, 1, 0])))
    net.eval()
    with torch.no_grad():
        level = net.levels(batch["image"])[0]
        both = (net.scale * level["seg"] @ net.texts.T).softmax(dim=-1)[..., 1]
        out = net(batch["image"])
    assert torch.allclose(out["level_0"].sigmoid(), both, atol=1e-5)
    batch["outlined"][:] = False
    p = out["label"].sigmoid()
    truth = batch["label"][:, None]
    expected = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean(dim=0).sum()
    assert torch.allclose(mvfa.objective().loss(out, batch), expected, rtol=1e-4)


def test_focal_and_dice_losses_are_those_of_their_equations():
    net, batch = model(), next(iter(Batches([0, 1, 1, 0])))
    net.eval()
    with torch.no_grad():
        out = net(batch["image"])
    loss = mvfa.objective().loss
    outlined = loss(out, batch)
    bare = loss(out, batch | {"outlined": torch.zeros(4, dtype=torch.bool)})
    added, mask = 0, batch["mask"].float()
    for i in range(out["label"].shape[1]):
        p = mvfa._grown(out[f"level_{i}"], SIDE).sigmoid().double()
        right = torch.where(mask > 0, p, 1 - p)
        added += (-((1 - right) ** 2) * right.log()).mean()
        common, total = (p * mask).sum((1, 2)), (p + mask).sum((1, 2))
        added += (1 - (2 * common + 1) / (total + 1)).mean()
    assert float(outlined - bare) == pytest.approx(float(added), rel=1e-3)


def trained(epochs=8):
    net, known = model(), Batches([0, 1] * 16)
    held = Batches([0, 1] * 6, seed=1)
    rows = list(anomaly.train(net, known, held, held.labels, held.masks, epochs=epochs, lr=3e-3))
    return net, rows


def test_maps_of_trained_adapters_find_a_planted_blob_in_new_images():
    net, rows = trained()
    assert rows[-1]["score"] == pytest.approx((rows[-1]["auroc"] + rows[-1]["pixel_auroc"]) / 2)
    assert any(row["kept"] for row in rows)
    new = Batches([0, 1] * 8, seed=2)
    normal = Batches([0] * 8, seed=3)
    bank = anomaly.normal_bank(net, normal, size=40)
    sizes = [unit.shape for level in bank for unit in level.values()]
    # The last level has one patch an image.
    assert sizes[0] == (40, 16) and sizes[-1] == (8, 16)
    seen = anomaly.look(net, new, SIDE, bank=bank)
    for heat in (seen["words"], seen["patches"]):
        assert heat.shape == new.masks.shape
        assert values(heat, new.masks)["AUROC within images"] > 0.85
    for score in (seen["label"], seen["unlike"]):
        assert evaluation.auroc(new.labels, score) > 0.85
    plain = anomaly.look(net, new, SIDE)
    assert set(plain) == {"label", "words"} and np.array_equal(plain["words"], seen["words"])


def test_patches_unlike_those_of_normal_images_are_found_without_training():
    tower = encoders.image("timm:test_resnet", weights="random", size=SIDE)
    normal, new = Batches([0] * 12, seed=1), Batches([1] * 6, seed=2)
    known, seen = (np.concatenate([*anomaly.patch_features(tower, b)]) for b in (normal, new))
    assert known.shape[0] == 12 and known.ndim == 4
    far = anomaly.distances(anomaly.coreset(known, size=50), seen)
    side = far.shape[-1]
    masks = new.masks.reshape(6, side, SIDE // side, side, SIDE // side).mean(axis=(2, 4)) > 0.5
    assert values(far, masks)["AUROC within images"] > 0.8


def test_one_class_and_towers_without_levels_are_refused():
    net, one = model(), Batches([0] * 4)
    both = Batches([0, 1])
    with pytest.raises(ValueError, match="4 training images are all normal"):
        next(anomaly.train(net, one, both, both.labels, both.masks, epochs=1))
    ill = Batches([1] * 4)
    with pytest.raises(ValueError, match="4 validation images are all abnormal"):
        next(anomaly.train(net, both, ill, ill.labels, ill.masks, epochs=1))
    with pytest.raises(ValueError, match="Sequential names no stages or blocks"):
        levels.names(torch.nn.Sequential())
    with pytest.raises(ValueError, match=r"expected \(2, D\): normal, then abnormal"):
        anomaly.MVFA(net.image, np.ones((3, 4)))


def test_without_outlines_labels_alone_teach_and_choose_the_epoch():
    net, known = model(), Batches([0, 1] * 8)
    known.outlined[:] = False
    held = Batches([0, 1] * 4, seed=1)
    rows = list(anomaly.train(net, known, held, held.labels, held.masks & False, epochs=2))
    assert "pixel_auroc" not in rows[0] and rows[0]["score"] == rows[0]["auroc"]


def test_training_leaves_the_tower_as_it_was():
    net = model()
    before = {k: v.clone() for k, v in net.image.state_dict().items()}
    known = Batches([0, 1] * 4)
    options = training.Options(epochs=2)
    list(training.fit(net, mvfa.objective(), known, options))
    assert all(torch.equal(v, before[k]) for k, v in net.image.state_dict().items())


# ---------------------------------------------------------------------- the section of notebook 08
@pytest.fixture(scope="module")
def asked(sealed):
    """A context with the setup of its section."""
    context = sealed()
    return context, anomalies.prepare(context)


def started(context, variant):
    own = replace(context, variant=variant, inputs="default")
    return own.start("bone_tasks", inputs=[own.cohort_run], settings=dict(test=own.test))


def test_the_section_sees_no_test_label_and_draws_shots_from_training(asked, monkeypatch):
    context, setup = asked
    view = setup.view
    held = (view["split"] == "test").to_numpy()
    assert setup.task.name == "tumor" and held.any()
    assert (setup.labels[held] == -1).all() and not setup.masks[held].any()
    assert setup.masks[~held].any() and np.allclose(np.linalg.norm(setup.texts, axis=1), 1)
    seen = {}

    def train(model, loader, validation, labels, masks, *, epochs):
        seen.update(train=loader, val=validation, labels=labels, masks=masks)
        return iter(())

    monkeypatch.setattr(anomaly, "train", train)
    made = list(anomalies._judged(setup))
    split, label = (view.set_index("image_id")[name] for name in ("split", "tumor"))
    drawn = split[seen["train"].image_ids]
    assert set(drawn) == {"train"} and set(split[seen["val"].image_ids]) == {"val"}
    assert dict(label[drawn.index].value_counts()) == {"normal": 4, "tumor": 4}
    outlined = seen["train"].extras["mask"].any(dim=2).any(dim=1)
    assert torch.equal(outlined, seen["train"].extras["label"] == 1)
    assert [method.strategy for method, _, _ in made] == [
        *("normal_knn", "mahalanobis", "patch_knn", "probe", "mvfa")
    ]
    assert all(logits.shape == (held.sum(),) for _, logits, _ in made)
    shapes = {heat.shape for _, _, heat in made if heat is not None}
    assert shapes == {(held.sum(), 64, 64)}


def few(count):
    """Two methods, one of which draws maps, without a tower."""
    draw = np.random.default_rng(0)
    return [
        (Method("imagenet", "probe"), draw.normal(size=count), draw.random((count, 64, 64))),
        (Method("imagenet", "mvfa", detail="4 shots"), np.zeros(count), np.ones((count, 64, 64))),
    ]


def test_the_section_measures_maps_and_keeps_its_tables(asked, monkeypatch, clean_canvas):
    context, setup = asked
    monkeypatch.setattr(anomalies, "_judged", lambda s: few(len(s.rows("test"))))
    run = started(context, "measured")
    predictions, maps = anomalies.judge(run, setup)
    assert predictions["label"].notna().all() and len(predictions) == 2 * len(setup.rows("test"))
    lead = maps[maps["strategy"] == "mvfa"].set_index("measure")
    assert lead.index[0] == maps["measure"].iloc[0] == "pixel AUROC"
    assert lead.loc["pixel AUROC", "value"] == pytest.approx(0.5)  # constant maps know nothing
    assert (maps["sees"] == "none").sum() == 4 and maps["gain"].notna().sum() == 8
    scores = anomalies.score(setup, predictions)
    assert list(scores["metric"]) == ["AUROC"] * 2 and list(scores.columns[:4]) == [*METHOD]
    drawn = anomalies.draw(run, setup, scores, maps)
    assert "lesion outlined" in drawn["08_anomaly_maps"]._supxlabel.get_text()
    assert len(drawn["08_anomaly_measures"].axes) == 4
    text = anomalies.read(setup, scores, maps)
    assert "Image AUROC: best *" in text
    assert "MVFA (4 shots) reaches AUROC .500" in text and "centre prior" in text
    done = run.finish()
    monkeypatch.setattr(splits, "open_test", None)  # a finished run opens nothing
    again = anomalies.judge(done, setup)
    for one, other in zip(again, (predictions, maps), strict=True):
        pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_without_outlines_or_a_normal_class_the_section_says_so(asked, monkeypatch, clean_canvas):
    context, setup = asked
    monkeypatch.setattr(anomalies, "_judged", lambda s: few(len(s.rows("test"))))
    nothing = lambda self, table: np.zeros((len(table), 64, 64), bool)  # noqa: E731
    monkeypatch.setattr(anomalies.Setup, "outlines", nothing)
    run = started(context, "bare")
    predictions, maps = anomalies.judge(run, setup)
    scores = anomalies.score(setup, predictions)
    drawn = anomalies.draw(run, setup, scores, maps)
    assert maps.empty and [figure is None for figure in drawn.values()] == [False, True, True]
    assert "No test image has an outline" in anomalies.read(setup, scores, maps)
    view = context.view()
    view["tumor"] = view["tumor"].where(view["tumor"] != "normal")
    monkeypatch.setattr(Context, "view", lambda self: view)
    setup = anomalies.prepare(context)
    assert "there is no normal to be unlike" in anomalies.read(
        setup, pd.DataFrame(), pd.DataFrame()
    )
    predictions, maps = anomalies.judge(None, setup)
    drawn = anomalies.draw(None, setup, anomalies.score(setup, predictions), maps)
    assert predictions.empty and maps.empty and not any(drawn.values())
