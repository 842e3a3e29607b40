"""Protects the drawn sets of other bone tasks: what a table says is what the picture shows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

from bonelib import cohort, datasets, phantom, runs
from bonelib.commands import data as commands
from bonelib.experiments import data
from bonelib.experiments.context import Context
from bonelib.phantom import fractures, hands, knees, tasks
from bonelib.phantom.rays import Grid
from bonelib.phantom.render import attenuation

LABELS = {"hands": "bone_age", "knees": "kl_grade", "fractures": "fracture"}
IMAGES, SMALL = 100, dict(images=20, size=64)
TOLD = 0.35  # rank correlation that no cheap fact may reach; by chance 1 of 2,000 does at n = 100


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    above = tmp_path_factory.mktemp("tasks")
    return {k: phantom.write_task(above / k, kind=k, images=IMAGES, size=64) for k in LABELS}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rays(scene, grid: Grid, growths=(), *, flesh: bool = False) -> np.ndarray:
    seen = scene if flesh else replace(scene, flesh=[])
    return attenuation(seen, list(growths), grid, np.random.default_rng(0))


# layout and bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_its_reader_finds_every_class_and_nothing_odd(folders: dict[str, Path], kind: str) -> None:
    named = datasets.read(f"phantom_{kind}", folders[kind])
    table = datasets.read(datasets.LAYOUTS[f"phantom_{kind}"], folders[kind])
    assert set(table["source"]) == {f"phantom_{kind}"} == set(named["source"])
    pd.testing.assert_frame_equal(table, named)
    usual = ("No patients are named", "The published split (train", f"{2 * IMAGES} files of two")
    assert [n for n in table.attrs["notes"] if not n.startswith(usual)] == []
    assert len(table) == IMAGES
    task = cohort.task(LABELS[kind])
    if task.classes:
        assert set(table[task.column]) == set(task.classes)
        assert table[task.column].value_counts().min() >= IMAGES / len(task.classes) - 1
    else:
        ages = table[task.column]
        assert ages.min() <= 24 and ages.max() >= 204 and set(table["sex"]) == {"F", "M"}
    told = json.loads((folders[kind] / "phantom.json").read_text())
    assert told["synthetic"] is True and told["kind"] == kind
    for path in table["path"]:
        assert cv2.imread(path, cv2.IMREAD_UNCHANGED).dtype == np.uint8


def test_a_real_folder_is_not_called_synthetic(folders: dict[str, Path], tmp_path: Path) -> None:
    for path in folders["hands"].rglob("*"):
        if path.is_file() and path.name != "phantom.json":
            copy = tmp_path / path.relative_to(folders["hands"])
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert set(datasets.read("phantom_hands", tmp_path)["source"]) == {"rsna_bone_age"}


@pytest.mark.parametrize("kind", LABELS)
def test_two_workers_and_an_interruption_leave_the_same_bytes(tmp_path: Path, kind: str) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise Stop

    once = digest(phantom.write_task(tmp_path / "a", kind=kind, **SMALL))
    with pytest.raises(Stop):
        phantom.write_task(tmp_path / "b", kind=kind, **SMALL, progress=stop)
    assert not (tmp_path / "b" / "phantom.json").exists()
    assert digest(phantom.write_task(tmp_path / "b", kind=kind, **SMALL, workers=2)) == once
    assert digest(phantom.write_task(tmp_path / "b", kind=kind, **SMALL)) == once
    other = phantom.write_task(tmp_path / "c", kind=kind, **SMALL, seed=1)
    assert not set(digest(other).values()) & {v for k, v in once.items() if k.endswith("g")}


def test_impossible_requests_list_every_problem(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hips.*hands, knees, fractures"):
        phantom.write_task(tmp_path / "a", kind="hips", images=30)
    with pytest.raises(ValueError, match="size is 9.*images is 3.*seed is -1.*workers is 0"):
        phantom.write_task(tmp_path / "a", kind="hands", images=3, size=9, seed=-1, workers=0)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b" / "images" / "Fractured").mkdir(parents=True)
    with pytest.raises(ValueError, match="did not write"):
        phantom.write_task(tmp_path / "b", kind="fractures", **SMALL)
    with pytest.raises(ValueError, match="--archive and --dicom are for tumors"):
        commands.phantom(tmp_path / "c", "knees", 5, None, **SMALL)


def test_a_finished_folder_is_not_drawn_over_by_another_kind(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="kind 'knees' instead of 'hands'"):
        phantom.write_task(folders["knees"], kind="hands", images=IMAGES, size=64)


# hands ------------------------------------------------------------------------------------------

WRIST = ("scaphoid", "lunate", "triquetrum", "trapezium", "trapezoid", "capitate", "hamate")


def hand(months: int, sex: str, number: int = 0) -> hands.Hand:
    return hands.Hand(months, sex, 1, (3, 5, number))


def carpal_area(case: hands.Hand) -> float:
    """Area in the picture where rays meet a carpal bone, mm² of an adult man."""
    scene = hands.cast(case)
    scene.bones = [bone for bone in scene.bones if bone.name in WRIST]
    scale = scene.field / 240
    middle = np.mean([scene.view @ np.asarray(b.solids[0].centre) for b in scene.bones], axis=0)
    grid = Grid(100, 100, 0.9 * scale, *(float(v) for v in middle[:2]))
    return float((rays(scene, grid) > 0.05).sum() * 0.9**2)


def test_carpal_bone_in_the_picture_grows_with_bone_age_and_earlier_in_girls() -> None:
    ages = range(18, 180, 18)
    area = {
        s: [np.mean([carpal_area(hand(m, s, i)) for i in range(3)]) for m in ages] for s in "FM"
    }
    assert all(np.diff(area["F"][:8]) > 0) and all(np.diff(area["M"]) > 0)
    assert all(girl > boy for girl, boy in zip(area["F"], area["M"], strict=True))
    assert area["M"][-1] > 8 * area["M"][0]


@pytest.mark.parametrize(
    ("bone", "months", "sex", "there"),
    [("radius", 9, "M", 0), ("radius", 24, "M", 1), ("ulna", 60, "M", 0), ("ulna", 75, "F", 1),
     ("metacarpal 3", 12, "M", 0), ("metacarpal 3", 36, "M", 1), ("pisiform", 96, "M", 0),
     ("pisiform", 132, "F", 1), ("sesamoid", 132, "M", 0), ("sesamoid", 150, "F", 1)],
)  # fmt: skip
def test_centres_appear_at_their_age(bone: str, months: int, sex: str, there: int) -> None:
    found = [b for b in hands.cast(hand(months, sex)).bones if b.name == bone]
    shaft = bone[0] not in "ps"  # the others have one from birth
    assert (len(found[0].solids) - 1 if shaft else len(found)) == there


@pytest.mark.parametrize(("months", "sex", "open_"), [(150, "M", 1), (150, "F", 1), (212, "F", 0)])
def test_plates_are_open_until_they_close(months: int, sex: str, open_: int) -> None:
    scene = hands.cast(hand(months, sex))
    bone = scene.bone("finger 3 phalanx 1")
    scene.bones = [bone]
    tube = bone.solids[0]
    ends = [(scene.view @ p)[:2] for p in (tube.points[0], tube.points[-1])]
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    grid = Grid(300, 300, 0.2, *(float(v) for v in ends[0]))
    line = ends[0] + np.outer(np.arange(-7, 9, 0.1), along)
    where = [grid.rows(line[:, 1]), grid.columns(line[:, 0])]
    profile = ndimage.map_coordinates(rays(scene, grid), where, order=1)
    first, last = np.flatnonzero(profile > 0.1)[[0, -1]]
    assert (profile[first:last].min() < 0.35 * np.median(profile[first:last])) == open_


# knees ------------------------------------------------------------------------------------------


def measured(grade: int, number: int) -> tuple[float, float, float]:
    """Narrower joint space (mm), breadth of the bones at the joint, and mineral beside it."""
    scene, growths = knees.cast(knees.Knee(grade, grade, 1, (3, 6, number)))
    scene.bones = [b for b in scene.bones if b.name.startswith("frontal")]
    scale, grid = scene.field / 82, Grid(160, 260, 0.5, 0.0, 0.0)
    seen = rays(scene, grid, growths)
    spaces = []
    for x in (-23 * scale, 23 * scale):
        column = int(round(float(grid.columns(x))))
        profile = ndimage.gaussian_filter1d(seen[:, column - 3 : column + 4].mean(1), 0.5)
        middle = 55 + int(np.argmin(profile[55:105]))
        bone = np.median(profile[20:140])
        low = np.flatnonzero(profile[:middle] > 0.5 * bone)[-1] if profile[middle] < bone else 0
        high = middle + np.flatnonzero(profile[middle:] > 0.5 * bone)[0]
        spaces.append((high - low - 1) * 0.5 if profile[middle] < 0.5 * bone else 0.0)
    wide = (seen[50:100] > 0.08).any(0).sum() * 0.5
    return min(spaces) / scale, wide / scale, float(seen[50:110].max(0).mean())


def test_joint_space_narrows_and_spurs_grow_with_the_grade() -> None:
    found = np.array([[measured(g, i) for i in range(6)] for g in range(5)]).mean(1)
    space, breadth, mineral = found.T
    assert all(np.diff(space) < -0.3), space
    assert all(np.diff(breadth)[1:] > 0.8) and breadth[1] >= breadth[0], breadth
    assert mineral[4] > 1.03 * mineral[0], mineral


def test_second_reader_differs_by_one_grade_in_the_stated_share() -> None:
    plan = knees.plan(400, 7)
    apart = np.array([abs(case.grade - case.second) for case in plan])
    assert apart.max() == 1 and abs(apart.mean() - knees.DIFFERS) < 0.01
    assert {case.second for case in plan} == set(range(5))


# fractures --------------------------------------------------------------------------------------


def test_outline_lies_on_bone_and_holds_what_the_fracture_changes() -> None:
    cases = [case for case in fractures.plan(48, 5) if case.fractured and not case.hardware]
    inside, outside = [], []
    for case in cases:
        broken, whole = (fractures.frame(case, 200, whole=w) for w in (False, True))
        mask = broken.outline
        assert not whole.outline.any() and mask.any(), case
        before = rays(whole.scene, whole.grid)
        changed = np.abs(rays(broken.scene, broken.grid) - before)
        near = ndimage.binary_dilation(before > 0.02, iterations=12)
        assert near[mask].mean() > 0.95, case
        inside.append(changed[mask].mean())
        outside.append(changed[~mask].mean())
        assert inside[-1] > 3 * outside[-1], case
        assert mask.mean() < 0.12, case
    assert np.median(np.array(inside) / np.array(outside)) > 20
    assert {case.part for case in cases} == set(fractures.PARTS)


def test_fractures_are_displaced_or_lines_and_intact_bones_have_none() -> None:
    cases = fractures.plan(60, 5)
    pieces = [len(fractures.cast(case)[1]) for case in cases]
    assert set(pieces) == {0, 1, 2}
    assert all((n > 0) == case.fractured for n, case in zip(pieces, cases, strict=True))


def test_label_depends_on_no_field() -> None:
    plan = pd.DataFrame([vars(case) for case in fractures.plan(400, 2)])
    for field in ("part", "view", "hardware", "center"):
        shares = plan.groupby(field)["fractured"].mean()
        assert (shares - 0.5).abs().max() < 0.02, shares


# shortcuts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_cheap_facts_tell_no_label(folders: dict[str, Path], kind: str) -> None:
    table = datasets.read(f"phantom_{kind}", folders[kind])
    known = table[LABELS[kind]]
    label = known.eq("fractured") if kind == "fractures" else known
    facts = []
    for path in table["path"]:
        picture = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        size = Path(path).stat().st_size / picture.size
        facts.append([size, *picture.shape, picture.mean(), np.median(edge)])
    found = [stats.spearmanr(fact, label.astype(float))[0] for fact in np.array(facts).T]
    plan = tasks.KINDS[kind].plan(400, 3)
    centers = stats.spearmanr(
        [case.center for case in plan],
        [
            getattr(case, {"hands": "months", "knees": "grade"}.get(kind, "fractured"))
            for case in plan
        ],
    )[0]
    assert np.abs(found).max() < TOLD and abs(centers) < 0.15, (found, centers)


# as DATA ----------------------------------------------------------------------------------------


def test_one_rule_says_what_is_drawn() -> None:
    assert set(runs.DRAWN) == set(datasets.LAYOUTS)
    assert [name.partition("_")[2] for name in runs.DRAWN[1:]] == list(phantom.KINDS)
    assert commands.KINDS[1:] == tuple(phantom.KINDS)
    for name in (*runs.DRAWN, "phantom_hands+phantom_knees"):
        context = Context(data=name)
        assert context.synthetic and context.like_btxrd == (name == "phantom")
        assert runs.paths.data_name(name, profile="tiny") == name
    for name in ("fracatlas", "phantom_hands+rsna_bone_age", "phantom_hands.csv", ""):
        assert not runs.is_drawn(name)


def test_joined_names_are_drawn_once_and_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONELIB_CACHE", str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    context = Context(data="phantom_knees+phantom_fractures", task="kl_grade")
    plan = dict(radiographs=40, phantom_size=64, cohort_seed=0)
    first = data.read(context, plan)
    assert first.table["source"].value_counts().to_dict() == dict.fromkeys(
        ("phantom_knees", "phantom_fractures"), 20
    )
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*g")}
    assert len(stamps) == 60 and data.read(context, plan).root == first.root
    assert stamps == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*g")}
