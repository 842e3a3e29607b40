"""Protects what is said of the phantom's likeness: formulas on known truth, and marginals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bonelib import phantom
from bonelib.phantom import acquisition, agreement, marginals, realism, sampling, writer


def noise(exponent: float, *, count: int = 6, size: int = 64, seed: int = 0) -> np.ndarray:
    """Images whose power spectrum is f^exponent by construction, as uint8."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :])
    f[0, 0] = 1
    white = np.fft.fft2(rng.normal(size=(count, size, size)))
    field = np.real(np.fft.ifft2(white * f ** (exponent / 2)))
    field /= np.abs(field).max(axis=(1, 2), keepdims=True)
    return np.rint(127 + 127 * field).astype(np.uint8)


# formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, -1.0, -2.0, -3.0])
def test_slope_of_noise_is_the_one_it_was_made_with(exponent: float) -> None:
    found = realism.slope(*realism.spectrum(noise(exponent)))
    assert found.shape == (6,)
    assert found.mean() == pytest.approx(exponent, abs=0.15)


def test_a_wave_has_its_power_at_its_frequency() -> None:
    x = np.arange(64)
    wave = np.rint(127 + 100 * np.sin(2 * np.pi * 8 * x / 64)).astype(np.uint8)
    frequencies, power = realism.spectrum(np.tile(wave, (1, 64, 1)))
    assert frequencies[np.argmax(power[0])] == pytest.approx(8 / 64)
    assert frequencies[0] == 1 / 64 and frequencies[-1] == 0.5
    assert power[0, 7:9].sum() > 0.7 * power[0].sum()


def test_a_step_is_an_edge_two_pixels_wide() -> None:
    images = np.zeros((3, 32, 32), np.uint8)
    images[0, :, 16:] = 100  # 50 levels a pixel by central differences, in two columns
    images[1, :, 16:] = 22  # 11 levels a pixel: below the threshold
    images[2] = np.arange(32, dtype=np.uint8) * 8  # a ramp of 8 levels a pixel
    assert realism.edge_density(images).tolist() == [2 / 30, 0, 0]
    assert realism.edge_density(images, threshold=8).tolist() == [2 / 30, 2 / 30, 1]
    turned = images.transpose(0, 2, 1).copy()
    assert (realism.edge_density(turned) == realism.edge_density(images)).all()


def test_histogram_counts_every_grey_level_once() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.allclose(realism.histogram(images), 1 / 32)
    assert realism.histogram(images, bins=256).tolist() == [1 / 256] * 256
    half = np.zeros((1, 16, 16), np.uint8)
    half[0, :8] = 255
    found = realism.histogram(half)
    assert found[0] == found[-1] == 0.5 and found.sum() == 1


def test_table_tells_equal_stacks_from_different_ones() -> None:
    images = noise(-2.0)
    same = pd.DataFrame(realism.compare(images, images)).set_index("measure")
    assert np.allclose(same["ratio"].dropna(), 1)
    assert same.loc["distance of the histograms", "synthetic"] == 0
    other = pd.DataFrame(realism.compare(images, noise(-1.0))).set_index("measure")
    assert other.loc["slope of the power spectrum", "ratio"] == pytest.approx(2, abs=0.3)
    dark, light = np.zeros((2, 16, 16), np.uint8), np.full((2, 16, 16), 255, np.uint8)
    apart = pd.DataFrame(realism.compare(dark, light)).set_index("measure")
    assert apart.loc["distance of the histograms", "synthetic"] == 1


def test_patches_are_cut_from_their_image_and_keep_their_energy() -> None:
    images = np.repeat(np.arange(0, 200, 50, dtype=np.uint8), 16 * 16).reshape(4, 16, 16)
    features, owner = realism.patch_features(images, each=3)
    assert features.shape == (12, 128) and owner.tolist() == np.repeat(range(4), 3).tolist()
    assert (features[:, :64] == 50 * owner[:, None]).all()
    assert np.allclose(features[:, 65:], 0), "a flat patch has no grain"
    assert np.allclose(np.expm1(features[:, 64]), 8 * 50 * owner), "orthonormal: mean times side"
    rough, _ = realism.patch_features(noise(-1.0), seed=1)
    grain = np.expm1(rough[:, 64:])
    assert np.allclose((grain**2).sum(1), (rough[:, :64] ** 2).sum(1)), "Parseval"
    again, _ = realism.patch_features(noise(-1.0), seed=1)
    assert (again == rough).all()


def test_a_thumbnail_is_the_mean_of_its_blocks() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    small = realism.thumbnails(images, size=2)
    assert small.tolist() == [
        [images[0, y : y + 8, x : x + 8].mean() for y in (0, 8) for x in (0, 8)]
    ]
    with pytest.raises(ValueError, match="16 pixels"):
        realism.thumbnails(images, size=5)


def test_source_is_a_coin_toss_for_one_source_and_plain_for_two() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 300, 5))
    assert abs(realism.source_auroc(one, two) - 0.5) < 0.08
    assert realism.source_auroc(one, two + [2, 0, 0, 0, 0]) > 0.9


def test_source_is_not_read_from_rows_of_the_same_image() -> None:
    """Ten near copies a group: only who parts groups can 'tell' two equal sources apart."""
    rng = np.random.default_rng(1)
    one, two = (np.repeat(rng.normal(size=(25, 40)), 10, axis=0) for _ in range(2))
    owner = np.repeat(np.arange(25), 10)
    loose = realism.source_auroc(one, two, strength=1)
    held = realism.source_auroc(one, two, groups=(owner, owner), strength=1)
    assert loose > 0.95 and held < 0.75


def test_wrong_stacks_are_refused_with_what_is_expected() -> None:
    good = np.zeros((2, 16, 16), np.uint8)
    for wrong in (good.astype(float), good[0], good[:, :8], good[:0]):
        with pytest.raises(ValueError, match="Expected uint8"):
            realism.compare(wrong, wrong)
    with pytest.raises(ValueError, match="one size"):
        realism.compare(good, np.zeros((2, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="5 groups"):
        realism.source_auroc(np.zeros((9, 3)), np.zeros((4, 3)))


# likeness ---------------------------------------------------------------------------------------


@pytest.mark.skipif("BONELIB_DATA" not in os.environ, reason="needs FracAtlas under BONELIB_DATA")
def test_spectrum_falls_as_that_of_fracatlas_does(tmp_path: Path) -> None:
    """Slopes of the radial power spectrum within 15 %, both decoded to 128 pixels alike."""
    from bonelib import cohort, datasets, images

    root = Path(os.environ["BONELIB_DATA"]) / "fracatlas"
    if not root.is_dir():
        pytest.skip("no fracatlas/ under BONELIB_DATA")
    table = datasets.read("fracatlas", root).iloc[::24]
    drawn = phantom.write(tmp_path / "drawn", images=40, seed=41, size=256, reports=False)
    slopes = {}
    for name, rows in (("real", table), ("drawn", datasets.read("phantom", drawn))):
        rows = rows.assign(**{cohort.IMAGE_ID: rows[cohort.IMAGE_ID].astype(str)})
        stack = images.cache(rows, size=128, fit="squash", folder=tmp_path / "cache").images
        slopes[name] = realism.slope(*realism.spectrum(stack)).mean()
    assert slopes["drawn"] == pytest.approx(slopes["real"], rel=0.15), slopes


# marginals --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 900 rows whose pictures are left out: boxes at their nominal share."""
    path = tmp_path_factory.mktemp("agreement")
    named = list(writer._names(sampling.plan(900, 77)))
    writer.dataset(900, 77).to_csv(path / "dataset.csv", index=False)
    facts = [
        {"image_id": n, "patient": c.patient, "site": ";".join(c.sites), "entity": c.entity}
        for n, c in named
    ]
    pd.DataFrame(facts).to_csv(path / "cohort_extra.csv", index=False)
    (path / "Annotations").mkdir()
    for name, case in named:
        if case.entity:
            side = 1000 * marginals.area_share(case.entity, case.area) ** 0.5
            shape = acquisition.Shape(case.entity, np.zeros((5, 2)), (0, 0, side, side))
            blank = np.zeros((1000, 1000), np.uint8)
            shot = acquisition.Radiograph(blank, blank > 0, [shape], case, {}, "", 90)
            note = writer.json.dumps(writer._labelme(name, shot))
            (path / "Annotations" / f"{name.split('.')[0]}.json").write_text(note)
    (path / "phantom.json").write_text("{}")
    return path


def test_a_planned_cohort_agrees_with_the_real_table_in_every_marginal(folder: Path) -> None:
    found = agreement.compare(folder)
    tests = found["tests"].set_index("marginal")
    assert {"site", "entity", "centre and class", "box area"} <= set(tests.index)
    assert {f"age, {name}" for name in marginals.ENTITY_NAMES} <= set(tests.index)
    assert (tests["p"] > 0.001).all(), tests
    assert found["areas"]["quantile"].between(0, 1).all()
    for _, part in found["counts"].groupby("marginal"):
        assert part["real"].sum() == pytest.approx(part["synthetic"].sum())


@pytest.mark.parametrize("fault", ["age", "site", "center", "box"])
def test_a_shifted_marginal_is_found(folder: Path, tmp_path: Path, fault: str) -> None:
    import shutil

    wrong = tmp_path / fault
    shutil.copytree(folder, wrong)
    table = pd.read_csv(wrong / "dataset.csv")
    if fault == "age":
        table["age"] = (table["age"] + 12).clip(upper=88)
    if fault == "center":
        table["center"] = 1
    table.to_csv(wrong / "dataset.csv", index=False)
    if fault == "site":
        extra = pd.read_csv(wrong / "cohort_extra.csv")
        extra["site"] = extra["site"].replace({"femur": "tibia"})
        extra.to_csv(wrong / "cohort_extra.csv", index=False)
    if fault == "box":
        for path in (wrong / "Annotations").iterdir():
            path.write_text(path.read_text().replace('"imageHeight": 1000', '"imageHeight": 2000'))
    name = {"age": "age, osteochondroma", "center": "centre and class", "box": "box area"}
    tests = agreement.compare(wrong)["tests"].set_index("marginal")
    assert tests.loc[name.get(fault, fault), "p"] < 0.001


def test_a_folder_that_is_no_finished_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"phantom\.write"):
        phantom.agreement.compare(tmp_path)
