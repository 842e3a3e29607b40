"""Protects the synthetic cohort: layout, truth, physics, proportions and bytes."""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
import runpy
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bonelib import phantom
from bonelib.cohort import SIGNS, VIEWS
from bonelib.phantom import acquisition, film, marginals, realism, sampling, writer
from bonelib.phantom.blocks import Ellipsoid, Slab
from bonelib.phantom.files import read_table
from bonelib.phantom.lesions import ENTITIES
from bonelib.phantom.marginals import SITES
from bonelib.phantom.place import place
from bonelib.phantom.positioning import Target, build, pose, targets
from bonelib.phantom.rays import Grid
from bonelib.phantom.rays import Path as RayPath
from bonelib.phantom.render import attenuation
from bonelib.phantom.scene import Bone, Scene, projection
from bonelib.phantom.signs import outline_of
from bonelib.phantom.solids import Tube, bone_rows

IMAGES = 24
SMALL = dict(images=8, archive=2, size=64)
FRACATLAS_SLOPE = -3.09  # mean of 182 of its radiographs, squashed to 128 pixels
# BTXRD's header as published (Yao et al. 2025)
HEADER = (
    "image_id,center,age,gender,hand,ulna,radius,humerus,foot,tibia,fibula,femur,hip bone,"
    "ankle-joint,knee-joint,hip-joint,wrist-joint,elbow-joint,shoulder-joint,"
    "tumor,benign,malignant,"
    "osteochondroma,multiple osteochondromas,simple bone cyst,giant cell tumor,osteofibroma,"
    "synovial osteochondroma,other bt,osteosarcoma,other mt,upper limb,lower limb,pelvis,"
    "frontal,lateral,oblique"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom.write(
        tmp_path_factory.mktemp("phantom") / "a", images=IMAGES, archive=4, size=128
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytes of the smallest cohort that holds every class, drawn in one go."""
    return digest(phantom.write(tmp_path_factory.mktemp("small") / "a", **SMALL))


@pytest.fixture
def no_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take radiographs of nothing: for tests on what is framed, outlined and marked."""
    monkeypatch.setattr(
        acquisition, "attenuation",
        lambda scene, growths, grid, rng: np.zeros((grid.height, grid.width), np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "dataset.csv")


@pytest.fixture(scope="module")
def extra(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "cohort_extra.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def cohort() -> tuple[list[sampling.Case], pd.DataFrame]:
    """A cohort of BTXRD's size, planned but not drawn, on a seed that was not used for tuning."""
    return sampling.plan(3746, 20260), writer.dataset(3746, 20260)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# layout ----------------------------------------------------------------------------------------


def test_table_has_the_37_columns_of_btxrd(folder: Path, table: pd.DataFrame) -> None:
    assert (folder / "dataset.csv").read_text().splitlines()[0] == HEADER
    assert len(table) == IMAGES
    assert table["age"].between(1, 88).all() and set(table["gender"]) <= {"F", "M"}
    assert set(table["center"]) <= {1, 2, 3}
    flags = table.drop(columns=["image_id", "center", "age", "gender"])
    assert set(np.unique(flags)) == {0, 1}


def test_tumors_come_first_and_normals_tell_no_site(table: pd.DataFrame) -> None:
    tumors = int(table["tumor"].sum())
    assert (table["tumor"] == [1] * tumors + [0] * (IMAGES - tumors)).all()
    assert (table.loc[table["tumor"] == 0, list(SITES)].to_numpy() == 0).all()
    assert (table.loc[table["tumor"] == 1, list(SITES)].sum(axis=1) >= 1).all()
    assert (table["benign"] + table["malignant"] == table["tumor"]).all()
    entities = table[list(marginals.ENTITY_NAMES)].sum(axis=1)
    assert (entities == table["tumor"]).all()
    for columns in (["frontal", "lateral", "oblique"], ["upper limb", "lower limb", "pelvis"]):
        assert (table[columns].sum(axis=1) == 1).all()


def test_files_are_named_and_placed_as_in_btxrd(folder: Path, table: pd.DataFrame) -> None:
    images = sorted(p.name for p in (folder / "images").iterdir())
    assert images == sorted(table["image_id"])
    assert {n.split(".")[1] for n in images} <= {"jpeg", "jpg"}
    jpg = table["image_id"].str.endswith(".jpg")
    assert (jpg == ((table["tumor"] == 0) & (table["center"] == 3))).all()
    notes = sorted(p.stem for p in (folder / "Annotations").iterdir())
    assert notes == [n.split(".")[0] for n in table.loc[table["tumor"] == 1, "image_id"]]
    for name in table["image_id"]:
        picture = cv2.imread(str(folder / "images" / name), cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint8 and picture.ndim == 2 and max(picture.shape) <= 128


def test_annotations_are_labelme_and_cover_the_truth(
    folder: Path, table: pd.DataFrame, extra: pd.DataFrame
) -> None:
    rows = table.merge(extra[["image_id", "mask"]], on="image_id").query("tumor == 1")
    for row in rows.to_dict("records"):
        note = json.loads((folder / "Annotations" / f"{row['image_id'][:9]}.json").read_text())
        assert list(note) == [
            "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth",
        ]  # fmt: skip
        assert note["version"] == "5.4.1" and note["imageData"] is None
        assert note["imagePath"] == row["image_id"]
        mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (note["imageHeight"], note["imageWidth"])
        assert set(np.unique(mask)) == {0, 255}
        drawn = np.zeros_like(mask)
        kinds = [s["shape_type"] for s in note["shapes"]]
        assert kinds and kinds == ["rectangle", "polygon"] * (len(kinds) // 2)
        for shape in note["shapes"]:
            assert list(shape) == [
                "label", "points", "group_id", "description", "shape_type", "flags", "mask",
            ]  # fmt: skip
            assert row[shape["label"]] == 1
            points = np.array(shape["points"])
            assert (points >= 0).all() and (points <= [mask.shape[1], mask.shape[0]]).all()
            if shape["shape_type"] == "polygon":
                assert len(points) >= 5
                cv2.fillPoly(drawn, [np.round(points).astype(np.int32)], 255)
            else:
                assert len(points) == 2
        shared = ((drawn > 0) & (mask > 0)).sum() / (mask > 0).sum()
        assert shared > 0.8, f"{row['image_id']}: polygons cover {shared:.0%} of the mask"


def test_extra_table_tells_the_truth_for_every_image(
    folder: Path, table: pd.DataFrame, extra: pd.DataFrame
) -> None:
    assert tuple(extra.columns) == writer.EXTRA_COLUMNS
    assert (extra["image_id"] == table["image_id"]).all()
    for name, allowed in SIGNS.items():
        assert set(extra[name]) <= set(allowed)
    normal = table["tumor"] == 0
    assert (extra.loc[normal, "cortex"] == "intact").all()
    assert (extra.loc[normal, "entity"] == "none").all() and (extra.loc[normal, "mask"] == "").all()
    assert all((folder / m).is_file() for m in extra.loc[~normal, "mask"])
    for row, sites in zip(
        table[~normal].to_dict("records"), extra.loc[~normal, "site"], strict=True
    ):
        assert [s for s in SITES if row[s]] == sites.split(";")
    assert all(row[row["view"]] for row in table.assign(view=extra["view"]).to_dict("records"))


def test_archive_has_images_and_facts(folder: Path) -> None:
    facts = pd.read_csv(folder / "archive" / "facts.csv")
    assert len(facts) == 4
    assert all((folder / "archive" / "images" / n).is_file() for n in facts["image_id"])
    assert {"site", "view", "age", "gender", "distractor"} <= set(facts.columns)


def test_a_patient_has_one_center_one_age_and_neighbouring_rows(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    cases, _ = cohort
    seen: dict[str, tuple] = {}
    last = ""
    for case in cases:
        person = (case.center, case.age, case.sex, case.sites, case.entity, case.side)
        assert seen.setdefault(case.patient, person) == person
        assert case.patient == last or list(seen)[-1] == case.patient, "views are apart"
        last = case.patient
    assert 0.5 < len(seen) / len(cases) < 0.75  # 1.66 views of one lesion in BTXRD


def test_memory_does_not_grow_with_the_number_of_images(folder: Path, tmp_path: Path) -> None:
    """What is kept of an image is its facts, a hundredth of its pixels and working arrays.

    ``folder`` was drawn before, so that all tables are read. What a library keeps once falls into
    one stretch of images; what is kept of each image is in all of them.
    """
    held: list[int] = []

    def weigh(done: int, total: int) -> None:
        if done == 2:
            tracemalloc.start()
        if done >= 8 and done % 4 == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    try:
        phantom.write(tmp_path / "m", images=20, size=160, progress=weigh)
    finally:
        tracemalloc.stop()
    grown = min(after - before for before, after in itertools.pairwise(held))
    assert grown / 4 < 6_000, "bytes an image; one picture alone has 18,000"


# same request, same bytes ----------------------------------------------------------------------


def test_two_workers_write_the_same_bytes_as_one(small: dict[str, str], tmp_path: Path) -> None:
    assert digest(phantom.write(tmp_path / "b", **SMALL, workers=2)) == small


def test_an_interrupted_call_is_continued_to_the_same_bytes(
    small: dict[str, str], tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Stop

    again = tmp_path / "c"
    with pytest.raises(Stop):
        phantom.write(again, **SMALL, progress=stop)
    assert not (again / "phantom.json").exists() and not (again / "dataset.csv").exists()
    finished = {p: p.stat().st_mtime_ns for p in (again / "images").iterdir()}
    assert 0 < len(finished) < SMALL["images"]
    (again / "images" / "IMG000007.jpeg.99.part").write_bytes(b"half a file")
    calls: list[tuple[int, int]] = []
    phantom.write(again, **SMALL, progress=lambda *c: calls.append(c))
    assert digest(again) == small
    assert all(p.stat().st_mtime_ns == t for p, t in finished.items()), "images were drawn twice"
    assert calls[-1] == (10, 10)
    os.utime(again / "dataset.csv", (1, 1))
    phantom.write(again, **SMALL)  # complete: nothing is touched
    assert (again / "dataset.csv").stat().st_mtime == 1


def test_one_image_depends_on_seed_and_index_alone() -> None:
    one, same = phantom.draw(3, 5, size=96), phantom.draw(3, 5, size=96)
    assert (one.image == same.image).all() and (one.mask == same.mask).all()
    phantom.draw(3, 6, size=96)
    assert (phantom.draw(3, 5, size=96).image == one.image).all()
    for other in (phantom.draw(4, 5, size=96), phantom.draw(3, 6, size=96)):
        assert other.image.shape != one.image.shape or (other.image != one.image).any()


# bad requests ----------------------------------------------------------------------------------


def test_an_impossible_request_lists_every_problem(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        phantom.write(tmp_path / "x", images=3, archive=-1, seed=-2, size=32, workers=0)
    for word in ("images is 3", "archive is -1", "seed is -2", "size is 32", "workers is 0"):
        assert word in str(error.value)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ValueError) as error:
        phantom.draw(0, 0, site="spine", view="axial", size=20, age=200)
    for word in ("'spine'", "'knee-joint'", "'axial'", "'oblique'", "size is 20", "age is 200"):
        assert word in str(error.value)


def test_a_folder_with_other_contents_is_left_alone(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed 0 instead of 1"):
        phantom.write(folder, images=IMAGES, archive=4, size=128, seed=1)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="did not write"):
        phantom.write(tmp_path, images=IMAGES)


# physics ---------------------------------------------------------------------------------------


def straight_tube(a: float, b: float, wall: float) -> Tube:
    s = np.linspace(0, 1, 5)
    points = np.outer(s - 0.5, [0.0, 400.0, 0.0])
    return Tube(bone_rows(s, points, a, b, wall, 0.0), caps=(0, 0))


@pytest.mark.parametrize("turned", [0, 30, 90])
def test_a_tube_in_the_beam_follows_beer_and_lambert(turned: float) -> None:
    a, b, wall = 14.0, 10.0, 4.0
    bone = Bone("rod", "femur", [straight_tube(a, b, wall)], density=1.0)
    view = projection("frontal", "right", jitter=(turned, 0.0))
    scene = Scene("leg", [bone], [], view, 100.0)
    grid = Grid(41, 201, 0.25)
    # textures off: the known truth is a homogeneous wall around homogeneous marrow
    flat = pytest.MonkeyPatch()
    with flat.context() as patch:
        patch.setattr("bonelib.phantom.render.sample", lambda name, u, v, **k: 0 * (u + v))
        found = attenuation(scene, [], grid, np.random.default_rng(0))[20]
    t = np.radians(turned)

    def chord(a: float, b: float) -> np.ndarray:
        width = np.hypot(a * np.cos(t), b * np.sin(t))
        x = (np.arange(201) - 100) * 0.25 / width
        return 2 * a * b / width * np.sqrt(np.clip(1 - x * x, 0, None))

    mu = film.ATTENUATION
    outer, inner = chord(a, b), chord(a - wall, b - wall)
    truth = (mu["bone"] - mu["muscle"]) * (outer - inner) + (mu["marrow"] - mu["muscle"]) * inner
    assert np.abs(found - truth).max() < 0.02 * truth.max()
    assert np.allclose(film.intensity(found), np.exp(-truth), atol=0.02)
    edge, middle = np.argmax(found), 100
    assert found[edge] > 1.2 * found[middle], "the cortex is brighter at its edges"


def test_tilting_a_tube_lengthens_the_path() -> None:
    tube = straight_tube(10.0, 10.0, 2.0)
    grid = Grid(5, 101, 0.5)
    c, s = np.cos(np.pi / 3), np.sin(np.pi / 3)
    tilted = tube.shadow(np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), grid)
    upright = tube.shadow(np.eye(3), grid)
    assert tilted.half.max() == pytest.approx(upright.half.max() / c, rel=0.02)


def test_an_ellipsoid_keeps_its_volume_in_every_view() -> None:
    axes = np.diag([20.0, 12.0, 7.0])
    grid = Grid(200, 200, 0.3)
    for angles in ((0, 0), (50, 20), (90, 70)):
        view = projection("frontal", "left", jitter=angles)
        shadow = Ellipsoid(np.zeros(3), axes).shadow(view, grid)
        volume = 2 * shadow.half.sum() * 0.3**2
        assert volume == pytest.approx(4 / 3 * np.pi * 20 * 12 * 7, rel=0.01)


def test_a_union_counts_a_shared_stretch_once() -> None:
    path, place_ = RayPath((1, 3)), (slice(0, 1), slice(0, 3))
    half = np.array([[5.0, 5.0, 0.0]], np.float32)
    path.add(place_, half, np.zeros((1, 3), np.float32))
    path.add(place_, half, np.array([[4.0, 20.0, 0.0]], np.float32))
    assert path.chord.tolist() == [[14.0, 20.0, 0.0]]


def test_a_slab_is_as_thick_as_it_says() -> None:
    outline = np.array([(-30, -20), (30, -20), (30, 20), (-30, 20)], float)
    shadow = Slab(outline, 8.0, 3.0).shadow(np.eye(3), Grid(161, 161, 0.5))
    assert 2 * shadow.half.max() == pytest.approx(8.0, rel=0.01)


def test_more_dose_means_less_noise_and_scatter_less_contrast() -> None:
    rng = np.random.default_rng(0)
    plate = np.full((128, 128), 2.0, np.float32)
    plate[:, 64:] = 2.5

    def contrast(**settings: float) -> tuple[float, float]:
        exposure = film.Exposure(**settings)
        signal = film.detect(plate, pitch=0.5, exposure=exposure, rng=rng)
        left, right = signal[20:100, 10:50], signal[20:100, 80:120]
        return float(left.std() / left.mean()), float(left.mean() / right.mean())

    assert contrast(photons=200)[0] > 3 * contrast(photons=8000)[0]
    assert contrast(scatter=0.0)[1] == pytest.approx(np.exp(0.5), rel=0.02)
    assert contrast(scatter=0.4)[1] < contrast(scatter=0.0)[1] - 0.05


@pytest.mark.parametrize("curve", ["digital", "film"])
@pytest.mark.parametrize("tone", [0.3, 0.42])
def test_the_middle_of_the_body_gets_its_tone(curve: str, tone: float) -> None:
    exposure = film.Exposure(curve=curve, tone=tone, photons=1e5, scatter=0.0)
    # as in a limb, thin and middling paths are many and thick ones few
    plate = np.tile(0.3 + 3.2 * np.linspace(0, 1, 256, dtype=np.float32) ** 2, (256, 1))
    value = developed(plate, exposure)
    assert np.median(value) == pytest.approx(tone, abs=0.07)
    assert (np.diff(value[64:192].mean(0)[16:-16]) > 0).all(), "more matter is never darker"


def developed(plate: np.ndarray, exposure: film.Exposure) -> np.ndarray:
    rng = np.random.default_rng(0)
    signal = film.detect(plate, pitch=0.5, exposure=exposure, rng=rng)
    return film.develop(signal, pitch=0.5, exposure=exposure)


@pytest.mark.parametrize("local", [0.0, 1.0])
def test_the_open_beam_is_shown_at_its_grey_and_cut_off_below_none(local: float) -> None:
    plate = np.zeros((256, 256), np.float32)
    plate[:, 100:] = np.linspace(1, 3, 156)

    def air(level: float) -> np.ndarray:
        return developed(plate, film.Exposure(air=level, local=local))[:, :96]

    for level in (0.05, 0.15):
        assert air(level)[:, :40].mean() == pytest.approx(level, abs=0.02)
        assert air(level).min() > level - 0.02, "no black halo along the limb"
    assert air(-0.05)[:, :40].max() * 255 < 8


def test_the_heel_darkens_the_open_beam_from_top_to_bottom() -> None:
    rng = np.random.default_rng(0)
    exposure = film.Exposure(heel=0.3, scatter=0.0, photons=1e7)
    beam = film.detect(np.zeros((101, 64), np.float32), pitch=0.5, exposure=exposure, rng=rng)
    rows = np.log(beam.mean(1))[5:-5]
    assert np.allclose(np.diff(rows), -0.3 / 100, atol=5e-4)


def test_trabeculae_of_a_thick_bone_cast_a_smoother_shadow() -> None:
    """Layers add up: eight times the path, relative contrast smaller by the root of eight."""
    grain = {}
    for radius in (7.0, 56.0):
        bone = Bone("rod", "femur", [straight_tube(4 * radius, radius, 0.5)])
        for knots in bone.solids[0].table:
            knots[-1] = 0.2  # share of bone among the marrow
        scene = Scene("leg", [bone], [], np.eye(3), 100.0)
        found = attenuation(scene, [], Grid(201, 41, 0.5), np.random.default_rng(3))
        mu = film.ATTENUATION
        spongy = found - 2 * radius * (mu["marrow"] - mu["muscle"])
        grain[radius] = spongy.std() / spongy.mean()
    assert grain[7.0] / grain[56.0] == pytest.approx(8**0.5, rel=0.3)


# the scene that was drawn ----------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_left_is_the_mirror_image_of_right(view: str) -> None:
    jitter = (4.0, 0.0)
    left, right = (projection(view, side, jitter=jitter) for side in ("left", "right"))
    assert np.allclose(left, np.diag([-1.0, 1, 1]) @ right)


def test_lateral_side_of_the_limb_is_on_its_side_of_the_picture() -> None:
    for side, sign in (("right", -1), ("left", 1)):
        scene = build(KNEE, 30, "M", pose("frontal", side, _still()), (0, 1))
        fibula = scene.view @ scene.bone("fibula").spot(0.1)[0]
        tibia = scene.view @ scene.bone("tibia").spot(0.1)[0]
        assert np.sign(fibula[0] - tibia[0]) == sign


def test_in_a_lateral_view_the_kneecap_lies_in_front() -> None:
    scene = build(KNEE, 30, "M", pose("lateral", "right", _still()), (0, 1))
    cap = scene.view @ scene.bone("patella").spot(0.5)[0]
    shaft = scene.view @ scene.bone("tibia").spot(0.05)[0]
    fibula = scene.view @ scene.bone("fibula").spot(0.05)[0]
    assert cap[0] > shaft[0] > fibula[0]


KNEE = Target("tibia", "proximal", "leg")


class _still:
    """Positioning without error."""

    def normal(self, mean: float, spread: object) -> np.ndarray:
        return np.zeros(np.shape(spread))


@pytest.mark.parametrize("site", SITES)
def test_every_site_shows_its_bone_in_every_view(site: str) -> None:
    for number, view in enumerate(VIEWS):
        shot = phantom.draw(1, number, size=64, site=site, view=view, entity="")
        assert shot.case.sites == (site,) and shot.case.view == view
        assert not shot.mask.any()
        assert shot.image.std() > 12 and shot.image.max() > 120


def test_every_lesion_sits_on_a_bone_of_its_site() -> None:
    rng = np.random.default_rng(5)
    single = {sites[0]: spots for sites, spots in targets().items() if len(sites) == 1}
    assert tuple(sorted(single)) == tuple(sorted(SITES))
    for spots in single.values():
        for target in spots[:4]:
            scene = build(target, 25, "F", pose("frontal", "right", _still()), (0, 2))
            spot = place(scene.bone(target.bone), target.zone, rng)
            assert spot.depth > 1 and np.isclose(np.linalg.norm(spot.out), 1)
    owners = {t.bone: site for site, spots in single.items() if "joint" not in site for t in spots}
    owners["scapula"] = "shoulder-joint"
    for sites, spots in targets().items():
        if len(sites) > 1:
            assert {owners[target.bone] for target in spots} == set(sites)


def bones_of(case: sampling.Case, site: str) -> set[str]:
    """The bones that may show a site of a case."""
    return {target.bone for sites in ((site,), case.sites) for target in targets()[sites]}


def test_side_site_and_view_in_the_table_are_those_of_the_scene(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    for case in cohort[0][::41]:
        placed = pose(case.view, case.side, np.random.default_rng(case.image_key))
        scene, growths, target = acquisition.cast(case, placed)
        shown = {g.bone for g in growths if g.entity} or {target.bone}
        for site in case.sites:
            assert shown & bones_of(case, site), f"{case.sites} shows {shown}"
        assert {g.entity for g in growths if g.entity} == {case.entity} - {""}
        # a left limb is seen through a mirror
        assert np.sign(np.linalg.det(scene.view)) == (1 if case.side == "right" else -1)
        if scene.region == "leg":  # the direction of the toes tells the view
            forward = (scene.view @ np.array([0.0, 0, 1]))[[0, 2]]
            angle = np.degrees(np.arctan2(abs(forward[0]), abs(forward[1])))
            usual = {"frontal": 0, "oblique": 45, "lateral": 90}[case.view]
            assert abs(angle - usual) < 22


def test_what_the_table_names_is_what_the_picture_frames(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    """A bone of the site lies in the frame, and the whole of each lesion does."""
    for case in cohort[0][5::53]:
        placed = pose(case.view, case.side, np.random.default_rng(case.image_key))
        scene, growths, target = acquisition.cast(case, placed)
        lesions = [g for g in growths if g.entity]
        framed = lesions or [target]
        grid = acquisition._frame(case, scene, framed, (96, 80), np.random.default_rng(1))
        bones = bones_of(case, case.sites[0])
        shadows = [s.shadow(scene.view, grid) for b in bones & {x.name for x in scene.bones}
                   for s in scene.bone(b).solids]  # fmt: skip
        assert any(s is not None and (s.half > 0).sum() > 40 for s in shadows), case.sites
        for growth in lesions:
            inside = outline_of(growth, scene.view, grid).sum()
            around = Grid(3 * 96, 3 * 80, grid.pitch, grid.x, grid.y)
            whole = outline_of(growth, scene.view, around).sum()
            assert inside > 0 and inside == pytest.approx(whole, rel=0.02), "cut off by the frame"


def test_the_burnt_in_letter_is_the_side_of_the_table(
    no_rays: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters: list[str] = []
    write = cv2.putText
    monkeypatch.setattr(film.cv2, "putText", lambda p, t, *a: (letters.append(t), write(p, t, *a)))
    marked = 0
    for case in sampling.plan(40, 3)[::2]:
        letters.clear()
        acquisition.take(case, size=64)
        assert letters in ([], [{"left": "L", "right": "R"}[case.side]])
        marked += len(letters)
    assert marked >= 5


@pytest.mark.parametrize("entity", list(ENTITIES))
def test_a_lesion_changes_the_picture_where_its_mask_is(entity: str) -> None:
    for kind in ENTITIES[entity]:
        case = sampling.single(8, 3, entity=entity, kind=kind, center=1, distractor="none")
        placed = pose(case.view, case.side, np.random.default_rng(0))
        scene, growths, _ = acquisition.cast(case, placed)
        grid = acquisition._frame(case, scene, growths, (320, 320), np.random.default_rng(1))
        sick = attenuation(scene, growths, grid, np.random.default_rng(2))
        well = attenuation(scene, [], grid, np.random.default_rng(2))
        mask = np.zeros(sick.shape, bool)
        for growth in growths:
            mask |= outline_of(growth, scene.view, grid)
        change = np.abs(sick - well)
        assert mask.sum() > 20
        assert change[mask].mean() > 0.01, f"{kind} can't be seen"
        assert change[mask].mean() > 5 * change[~mask].mean(), f"{kind} lies outside its mask"


def test_growth_plates_are_open_in_the_young_only() -> None:
    placed = pose("frontal", "right", _still())
    gaps = {}
    for age in (9, 40):
        scene = build(KNEE, age, "M", placed, (0, 3))
        gaps[age] = [c.gap for c in scene.bone("tibia").cuts]
    assert len(gaps[9]) == 2 and min(gaps[9]) > 0.8 and gaps[40] == []


# proportions -----------------------------------------------------------------------------------


def one_view(cases: list[sampling.Case]) -> list[sampling.Case]:
    """The first row of each tumour patient: rows of one patient are not independent."""
    first = {case.patient: case for case in reversed(cases) if case.entity}
    return list(first.values())


def test_classes_and_centers_are_mixed_as_in_btxrd(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    _, table = cohort
    assert table["malignant"].sum() == 342 and table["benign"].sum() == 1525
    for center, wanted in marginals.centers().items():
        rows = table[table["center"] == center]
        assert abs((rows["tumor"] == 0).sum() - wanted["normal"]) < 0.05 * 1879
        assert abs(rows["benign"].sum() - wanted["benign"]) < 0.05 * 1525
        assert abs(rows["malignant"].sum() - wanted["malignant"]) < 0.05 * 342
    for small in (8, 12, 96):
        labels = {case.label for case in sampling.plan(small, 0)}
        assert labels == {"normal", "benign", "malignant"}


def test_entities_sites_and_views_follow_the_real_counts(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    """Chi-square at a level of 0.1 % each, on one row a patient against the published counts."""
    patients = one_view(cohort[0])
    lesions = marginals.cells("lesion")
    for column, keys in (
        ("entity", [c.entity for c in patients]),
        ("site", [";".join(c.sites) for c in patients]),
    ):
        real = pd.Series([c[column] for c in lesions]).repeat([c["count"] for c in lesions])
        real = real.value_counts().drop("other", errors="ignore")
        common = real.index[real >= 20]
        found = pd.Series(keys).value_counts().reindex(common).fillna(0)
        wanted = real[common] / real[common].sum() * found.sum()
        assert stats.chisquare(found, wanted).pvalue > 0.001, column
    views = pd.Series([c.view for c in cohort[0] if c.entity]).value_counts()
    # all tumour rows of BTXRD; views of a patient are nearly independent
    real = np.array([1179, 581, 107])
    assert stats.chisquare(views[list(VIEWS)], real / real.sum() * views.sum()).pvalue > 0.001


def test_ages_by_entity_follow_the_real_bands(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    """Kolmogorov-Smirnov at 0.1 % on one row a patient, against ages spread over the real bands."""
    patients = one_view(cohort[0])
    rng = np.random.default_rng(0)
    for entity in marginals.ENTITY_NAMES:
        real = []
        for name in ("lesion", "age"):
            for cell in marginals.cells(name, entity=entity):
                if cell["value"] != "other":
                    real += list(rng.choice(marginals.years(cell["value"]), cell["count"]))
        ages = [c.age for c in patients if c.entity == entity]
        assert stats.ks_2samp(ages, real).pvalue > 0.001, entity


def test_lesion_boxes_take_their_share_of_the_picture(no_rays: None) -> None:
    """Kolmogorov-Smirnov at 0.1 % against the quantiles of BTXRD's boxes, one lesion a patient."""
    cases = [c for c in one_view(sampling.plan(420, 77)) if len(c.sites) == 1][:70]
    quantiles = []
    for case in cases:
        shot = acquisition.take(case, size=128)
        left, top, right, bottom = np.array([s.box for s in shot.shapes])[0]
        area = (right - left) * (bottom - top) / shot.image.size
        at = np.linspace(0.001, 0.999, 400)
        known = [marginals.area_share(case.entity, q) for q in at]
        quantiles.append(float(np.interp(area, known, at)))
    assert stats.kstest(quantiles, "uniform").pvalue > 0.001


def area_shift() -> dict[int, float]:
    return {center: known["area_shift"] for center, known in marginals.centers().items()}


def test_teaching_collections_are_cut_closer_to_the_lesion(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    """Areas differ by centre as BTXRD's do, and still follow the entity's when pooled."""
    patients = [c for c in one_view(cohort[0]) if c.entity]
    scores = pd.DataFrame(
        {"center": c.center, "entity": c.entity, "score": stats.norm.ppf(c.area)} for c in patients
    )
    means = scores.groupby("center")["score"].mean()
    assert means[1] < means[3] < means[2]
    assert means.to_dict() == pytest.approx(area_shift(), abs=0.25)
    for entity, part in scores.groupby("entity"):
        assert stats.kstest(part["score"], "norm").pvalue > 0.001, entity


@pytest.mark.skipif("BONELIB_DATA" not in os.environ, reason="needs BTXRD under BONELIB_DATA")
def test_shift_of_the_areas_is_that_of_btxrd() -> None:
    root = Path(os.environ["BONELIB_DATA"]) / "btxrd"
    if not (root / "Annotations").is_dir():
        pytest.skip("no btxrd/Annotations under BONELIB_DATA")
    table = pd.read_csv(root / "dataset.csv")
    table.index = table["image_id"].str.split(".").str[0]
    rows = []
    for path in sorted((root / "Annotations").iterdir()):
        note, row = json.loads(path.read_text(encoding="utf-8")), table.loc[path.stem]
        boxes = [s["points"] for s in note["shapes"] if s["shape_type"] == "rectangle"]
        if boxes:
            (left, top), (right, bottom) = boxes[0]
            area = abs((right - left) * (bottom - top)) / note["imageHeight"] / note["imageWidth"]
            entity = next(name for name in marginals.ENTITY_NAMES if row[name])
            rows.append((row["center"], entity, area))
    found = pd.DataFrame(rows, columns=["center", "entity", "area"])
    rank = found.groupby("entity")["area"].rank()
    size = found.groupby("entity")["area"].transform("size")
    found["score"] = stats.norm.ppf((rank - 0.5) / size)
    means = found.groupby("center")["score"].mean()
    assert means.to_dict() == pytest.approx(area_shift(), abs=0.01)
    rest = found["score"] - found["center"].map(means)
    assert rest.std() == pytest.approx(marginals.AREA_SPREAD, abs=0.01)


def test_centers_differ_in_size_and_only_films_are_copied() -> None:
    rng = np.random.default_rng(0)
    for center, share in ((1, 1.0), (2, 1640 / 2301), (3, 1024 / 2301)):
        habits = [film.habit(center, rng) for _ in range(300)]
        assert np.median([h.share for h in habits]) == pytest.approx(share, abs=0.04)
        assert all((h.grain > 0) == (h.exposure.curve == "film") for h in habits)
    films = [h for h in habits if h.grain]
    assert 0.25 < len(films) / 300 < 0.45, "centre 3 copies a third of its pictures from film"


def test_a_copied_film_has_grain_blur_and_a_light_box() -> None:
    habit = film.Habit(
        film.Exposure(), share=1.0, marker=False, collimated=False, border=0.0, quality=90,
        blur=0.8, grain=0.02, glow=0.15,
    )  # fmt: skip
    even = np.full((200, 160), 0.6, np.float32)
    rng = np.random.default_rng(0)
    copy = film.finish(even, side="left", habit=habit, keep=even > 1, rng=rng) / 255
    assert copy[95:105, 75:85].mean() == pytest.approx(0.6, abs=0.01)
    assert copy[:6, :6].mean() == pytest.approx(0.6 * 0.85, abs=0.015)
    assert copy[80:120, 60:100].std() == pytest.approx(0.02, rel=0.15)
    assert np.corrcoef(copy[80:120, 60:99].ravel(), copy[80:120, 61:100].ravel())[0, 1] > 0.3


def test_age_and_sex_tell_little_of_tumor(
    cohort: tuple[list[sampling.Case], pd.DataFrame],
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    cases, table = cohort
    known = table[["age", "upper limb", "lower limb", "pelvis", *VIEWS]].astype(float)
    known["female"] = (table["gender"] == "F").astype(float)
    for center in (1, 2, 3):
        known[f"center {center}"] = (table["center"] == center).astype(float)
    known["age"] /= 40
    groups = [c.patient for c in cases]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=500)
    score = cross_val_predict(
        model, known, table["tumor"], groups=groups, cv=folds, method="predict_proba"
    )[:, 1]
    assert 0.5 < roc_auc_score(table["tumor"], score) <= 0.75


def test_no_cell_of_the_shipped_counts_names_one_row() -> None:
    counts = read_table("tumor_counts.csv")
    assert counts["count"].min() >= marginals.SMALLEST
    assert counts.loc[counts["table"] == "lesion", "count"].sum() == 1867


@pytest.mark.skipif("BONELIB_DATA" not in os.environ, reason="needs BTXRD under BONELIB_DATA")
def test_shipped_counts_are_those_of_btxrd() -> None:
    path = Path(os.environ["BONELIB_DATA"]) / "btxrd" / "dataset.csv"
    if not path.is_file():
        pytest.skip("no btxrd/dataset.csv under BONELIB_DATA")
    script = Path(__file__).parents[1] / "benchmarks" / "phantom_counts.py"
    fresh = runpy.run_path(str(script))["count"](pd.read_csv(path))
    pd.testing.assert_frame_equal(
        fresh.reset_index(drop=True), read_table("tumor_counts.csv"), check_dtype=False
    )


# looks -----------------------------------------------------------------------------------------


def test_spectrum_falls_as_steeply_as_in_real_radiographs() -> None:
    """Within 20 % of the slope of FracAtlas, which test_realism measures where it is at hand."""
    images = []
    for case in sampling.plan(96, 31)[::6]:
        image = acquisition.take(case, size=256).image
        images.append(cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA))
    slopes = realism.slope(*realism.spectrum(np.stack(images)))
    assert slopes.mean() == pytest.approx(FRACATLAS_SLOPE, rel=0.2)


def test_contact_sheets_are_pictures_with_allowed_names() -> None:
    sheet = phantom.contact_sheet("ages", size=64)
    assert sheet.dtype == np.uint8 and sheet.ndim == 2 and sheet.shape[1] == 7 * 64
    with pytest.raises(ValueError, match="Choose one of sites"):
        phantom.contact_sheet("everything")
