"""Protects scores of heat maps: they have known values, and so have maps that see no image."""

import numpy as np
import pytest

from bonelib import explain

SIZE = 32
MEASURES = ["pointing", "energy", "average_precision", "iou", "area"]


# ---------------------------------------------------------------------- scores
def discs():
    """Two lesions of different size, off the centre."""
    axis = np.arange(SIZE)
    away = [np.hypot(axis[:, None] - r, axis - c) for r, c in ((9, 8), (20, 24))]
    return np.stack([away[0] < 4, away[1] < 7])


def test_a_perfect_map_scores_one_and_an_empty_map_what_a_blind_one_scores():
    masks = discs()
    perfect = explain.localisation(masks.astype(np.float32), masks)
    for measure in ("pointing", "energy", "average_precision", "iou"):
        assert perfect[measure].tolist() == [1.0, 1.0]
    assert np.allclose(perfect["area"], masks.mean(axis=(1, 2)))
    blank = explain.localisation(np.zeros(masks.shape), masks)
    assert blank["energy"].tolist() == [0.0, 0.0]
    uniform = explain.localisation(np.ones(masks.shape), masks)
    assert blank.drop(columns="energy").equals(uniform.drop(columns="energy"))


def test_a_uniform_map_scores_by_area_wherever_the_lesion_lies():
    masks = discs()
    for moved in (masks, masks[:, ::-1], masks[:, :, ::-1], np.roll(masks, 5, axis=1)):
        found = explain.localisation(np.full(masks.shape, 0.3), moved, tolerance=0)
        area = moved.mean(axis=(1, 2))
        assert np.allclose(found["energy"], area)
        assert np.allclose(found["average_precision"], area)
        assert np.allclose(found["pointing"], area), "a flat map hits as often as a random pixel"
        assert np.allclose(found["iou"], area / (2 - area))


def test_the_map_of_everything_else_scores_nothing():
    masks = discs()
    found = explain.localisation((~masks).astype(float), masks, tolerance=0)
    assert found[["pointing", "energy", "iou"]].eq(0).all(axis=None)


def test_ties_count_as_random_choices_among_them():
    rng = np.random.default_rng(0)
    masks = discs()[:1]
    heat = rng.integers(0, 4, (1, SIZE, SIZE)).astype(float)
    found = explain.localisation(heat, masks, tolerance=0).iloc[0]
    hits, overlaps, count = [], [], masks.sum()
    for _ in range(2000):
        order = np.argsort(-(heat + 1e-6 * rng.random(heat.shape)), axis=None)
        hits.append(masks.ravel()[order[0]])
        overlaps.append(masks.ravel()[order[:count]].sum())
    common = np.mean(overlaps)
    assert found["pointing"] == pytest.approx(np.mean(hits), abs=0.03)
    assert found["iou"] == pytest.approx(common / (2 * count - common), abs=0.005)


def test_the_peak_may_lie_a_tolerance_away_and_no_farther():
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 30, 20:30] = True
    for distance, hit in ((0, 1.0), (4, 1.0), (5, 0.0)):
        heat = np.zeros(masks.shape)
        heat[0, 30 + distance, 25] = 1
        found = explain.localisation(heat, masks, tolerance=4.5 / 64)
        assert found["pointing"].tolist() == [hit]
        if distance:
            assert found["energy"].tolist() == [0.0], "the tolerance is for the peak alone"


def test_scores_do_not_depend_on_the_scale_of_a_map_or_the_type_of_a_mask():
    masks = discs()
    heat = np.random.default_rng(1).random(masks.shape).astype(np.float32)
    plain = explain.localisation(heat, masks)
    larger = explain.localisation(heat * 1000, masks)
    np.testing.assert_allclose(larger[MEASURES], plain[MEASURES], rtol=1e-5)
    assert explain.localisation(heat, masks.astype(np.uint8)).equals(plain)
    assert explain.localisation(heat, masks.astype(np.uint8) * 255).equals(plain)
    half = explain.localisation((heat * 60_000).astype(np.float16), masks)
    np.testing.assert_allclose(half[MEASURES], plain[MEASURES], atol=0.01)


@pytest.mark.parametrize("levels", [2, 5, 0])
def test_average_precision_is_scikit_learns(levels):
    from sklearn.metrics import average_precision_score

    masks = discs()
    heat = np.random.default_rng(1).random(masks.shape)
    heat = np.floor(heat * levels) if levels else heat  # many ties, or none
    found = explain.localisation(heat, masks)["average_precision"]
    for value, mask, one in zip(found, masks, heat, strict=True):
        expected = average_precision_score(mask.ravel(), one.ravel())
        assert value == pytest.approx(expected, rel=1e-12)


def test_the_threshold_is_the_best_of_all_and_its_iou_is_counted_by_hand():
    masks = discs()
    heat = np.random.default_rng(1).random(masks.shape) + masks * [[[0.5]], [[0.2]]]
    heat *= np.array([1, 30])[:, None, None]

    def by_hand(share):
        marked = heat >= share * heat.max(axis=(1, 2), keepdims=True)
        return (marked & masks).sum(axis=(1, 2)) / (marked | masks).sum(axis=(1, 2))

    chosen = explain.choose_threshold(heat, masks)
    grid = np.arange(1, 100) / 100
    assert chosen == max(grid, key=lambda share: (by_hand(share).mean(), -share))
    found = explain.localisation(heat, masks, threshold=chosen)["iou_at_threshold"]
    np.testing.assert_allclose(found, by_hand(chosen), rtol=1e-12)


def test_a_blank_map_marks_nothing_at_any_threshold():
    found = explain.localisation(np.zeros((2, SIZE, SIZE)), discs(), threshold=0.01)
    assert found["iou_at_threshold"].eq(0).all()
    assert "iou_at_threshold" not in explain.localisation(np.zeros((2, SIZE, SIZE)), discs())


def test_a_threshold_that_was_not_chosen_gives_no_score_and_one_that_is_no_share_is_refused():
    masks = discs()
    found = explain.localisation(masks.astype(float), masks, threshold=np.nan)
    assert found["iou_at_threshold"].isna().all() and found["iou"].eq(1).all()
    for wrong in (0, 1.2, -0.5):
        with pytest.raises(ValueError, match="expected a share of the maximum"):
            explain.localisation(masks.astype(float), masks, threshold=wrong)


def test_what_has_no_mask_or_no_map_is_left_out_and_the_others_keep_their_scores():
    heat = np.random.default_rng(1).random((5, SIZE, SIZE))
    masks = [*discs(), None, np.zeros((SIZE, SIZE), bool), discs()[0]]
    alone = explain.localisation(heat[:2], np.stack(masks[:2]), threshold=0.4)
    heat[4, 3, 3] = np.nan
    found = explain.localisation(heat, masks, threshold=0.4)
    expected = ["", "", "no mask", "empty mask", "map is not finite"]
    assert found[explain.LEFT_OUT].tolist() == expected
    assert found.iloc[:2].equals(alone)
    assert found.iloc[2:].drop(columns=explain.LEFT_OUT).isna().all(axis=None)
    assert explain.choose_threshold(heat, masks) == explain.choose_threshold(heat[:2], discs())
    with pytest.raises(ValueError, match="No map has a mask"):
        explain.choose_threshold(heat[2:], masks[2:])


def test_one_image_and_none_have_a_table_of_the_same_columns():
    one = explain.localisation(np.ones((1, SIZE, SIZE)), discs()[:1])
    none = explain.localisation(np.ones((0, SIZE, SIZE)), discs()[:0])
    assert len(one) == 1 and len(none) == 0 and one.dtypes.iloc[:-1].equals(none.dtypes.iloc[:-1])


def test_a_map_of_another_size_is_resampled_to_its_mask_and_no_small_lesion_vanishes():
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 41, 17] = True  # smaller than a pixel of the map
    heat = np.zeros((1, 16, 16), np.float32)
    heat[0, 10, 4] = 1
    grown = explain.localisation(heat, masks, tolerance=3 / 64).iloc[0]
    assert grown["pointing"] == 1 and grown["area"] == 1 / 64**2 and grown["energy"] > 0
    fine = np.kron(discs(), np.ones((4, 4)))
    shrunk = explain.localisation(fine, discs())
    assert shrunk["iou"].tolist() == [1, 1] and shrunk["energy"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones((2, 8, 8)), np.ones((2, 8, 9), bool), "expected both to be"),
        (np.ones((1, 8, 8)), np.ones((2, 8, 8), bool), "expected both to be"),
        (np.ones((8, 8)), np.ones((8, 8), bool), "expected both to be"),
        (np.array([[[1.0, -1.0]]]), np.ones((1, 1, 2), bool), "negative values"),
        (np.ones((1, 8, 8)), [np.ones((4, 2), bool)], "row 0 the map is .*expected both to be"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        explain.localisation(maps, masks)


# ---------------------------------------------------------------------- the blind map
@pytest.mark.parametrize("size", [31, 32])
def test_the_centre_prior_is_symmetric_and_falls_from_the_centre(size):
    prior = explain.center_prior(size)
    assert prior.shape == (size, size) and prior.dtype == np.float32
    for turned in (prior[::-1], prior[:, ::-1], prior.T):
        assert np.allclose(prior, turned)
    middle = prior[size // 2, size // 2 :]
    assert (np.diff(middle) < 0).all() and prior.max() == prior[size // 2, size // 2]
    axis = (np.arange(size) - (size - 1) / 2) / (size / 4)
    assert prior[0, size // 2] / prior[size // 2, size // 2] == pytest.approx(
        np.exp(-(axis[0] ** 2) / 2), rel=0.02
    )


def test_the_centre_prior_beats_chance_only_on_centred_lesions():
    prior = explain.center_prior(SIZE)[None]
    corner, centre = np.zeros((2, 1, SIZE, SIZE), bool)
    corner[0, :6, :6] = centre[0, 13:19, 13:19] = True
    areas = {"corner": corner.mean(), "centre": centre.mean()}
    assert explain.localisation(prior, corner)["energy"][0] < areas["corner"]
    found = explain.localisation(prior, centre).iloc[0]
    assert found["energy"] > 1.5 * areas["centre"] and found["pointing"] == 1


def test_the_bone_prior_is_the_smoothed_mean_of_the_site_and_else_of_all():
    from scipy.ndimage import gaussian_filter

    masks = np.zeros((9, SIZE, SIZE), bool)
    masks[:5, 4:9, 4:9] = masks[5:, 22:28, 20:30] = True
    masks[2] = np.roll(masks[2], 3, axis=0)
    sites = [("femur",)] * 4 + [("femur", "tibia")] + [("tibia",)] * 3 + [None]
    asked = [("femur", "hand"), ("tibia",), None, ("femur",)]
    found = explain.bone_prior(masks, sites, asked)
    lists = [site and [*site] for site in sites]  # as tables read them
    assert np.array_equal(found, explain.bone_prior(masks, lists, asked))
    assert found.shape == (4, SIZE, SIZE) and found.dtype == np.float32
    femur = gaussian_filter(masks[:5].mean(axis=0), SIZE / 16, mode="constant")
    every = gaussian_filter(masks.mean(axis=0), SIZE / 16, mode="constant")
    # Four masks are too few for the tibia; a missing site is like no other, nor like itself.
    for row, expected in enumerate([femur, every, every, femur]):
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    tibia = explain.bone_prior(masks, sites, [("tibia",)], least=4)[0]
    expected = gaussian_filter(masks[4:8].mean(axis=0), SIZE / 16, mode="constant")
    np.testing.assert_allclose(tibia, expected, atol=1e-6)
    for wrong in (masks[:0], masks[0], masks[:3]):
        with pytest.raises(ValueError, match="expected .M, S, S. and M."):
            explain.bone_prior(wrong, sites, asked)


def test_random_maps_score_as_chance_and_are_those_of_their_seed():
    found = explain.random_maps(300, SIZE, seed=3)
    assert found.shape == (300, SIZE, SIZE) and found.dtype == np.float32 and (found >= 0).all()
    assert np.array_equal(found[:7], explain.random_maps(7, SIZE, seed=3))
    assert not np.array_equal(found[:7], explain.random_maps(7, SIZE, seed=4))
    masks = np.broadcast_to(discs()[0], found.shape)
    scores = explain.localisation(found, masks, tolerance=0)
    assert scores["energy"].mean() == pytest.approx(masks[0].mean(), rel=0.1)


# ---------------------------------------------------------------------- the border
def test_the_border_is_as_wide_as_asked_and_a_uniform_map_has_its_share():
    maps = np.zeros((4, 20, 20))
    maps[0] = 1
    maps[1, 5:15, 5:15] = 1
    maps[2, 0, 3], maps[2, 10, 10] = 3, 1
    found = explain.border_mass(maps, width=0.1)  # two pixels: 20² - 16²
    assert found["border_uniform"].tolist() == [144 / 400] * 4
    np.testing.assert_allclose(found["border"], [144 / 400, 0, 0.75, np.nan])
    maps[1, 0, 0] = np.nan
    reasons = explain.border_mass(maps)[explain.LEFT_OUT].tolist()
    assert reasons == ["", "map is not finite", "", "blank map"]


def test_the_border_of_a_padded_image_is_that_of_its_content():
    content = np.zeros((1, 20, 20), bool)
    content[:, :, 6:14] = True
    maps = np.zeros((1, 20, 20))
    maps[0, 10, 6] = 1  # the edge of the radiograph, far from that of the square
    assert explain.border_mass(maps, width=0.1)["border"].tolist() == [0]
    found = explain.border_mass(maps, width=0.1, content=content).iloc[0]
    assert found["border"] == 1 and found["border_uniform"] == 1 - 4 * 16 / 400
