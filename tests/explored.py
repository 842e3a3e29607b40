"""Each widget on a made-up table of any length: for the browser's tests and for the benchmark.

Radiographs are gradients with grain. One of 64 stands for many images, as reading a memory map
costs the same whatever it holds.
"""

import time

import numpy as np
import pandas as pd

from bonelib import captions, cohort, evaluation, explore

SIZE, WIDTH = 224, 256  # pixels and features of an image
SITES, CENTERS = ("femur", "tibia", "humerus", "hand"), ("A", "B", "C")
METHODS = (("imagenet", "full"), ("captions", "full"), ("captions", "probe"))
_RNG = np.random.default_rng(0)
_SLOPE = np.linspace(40, 200, SIZE)
FILMS = [
    np.clip(np.roll(_SLOPE, 7 * i)[:, None] + _RNG.normal(0, 9, (SIZE, SIZE)), 0, 255)
    for i in range(64)
]
FILMS = [film.astype(np.uint8) for film in FILMS]


def table(count: int) -> pd.DataFrame:
    """Return a cohort of so many images, two a patient, the last fifth for validation."""
    task, number = cohort.task("tumor"), np.arange(count)
    made = cohort.empty(count).assign(
        image_id=[f"i{i}" for i in number],
        patient=[f"p{i // 2}" for i in number],
        center=[CENTERS[i % 3] for i in number],
        site=[(SITES[i % 4],) for i in number],
        age=_RNG.uniform(5, 80, count).round(),
        split=np.where(number < 0.8 * count, "train", "val"),
    )
    made[task.column] = [task.classes[i] for i in _RNG.integers(len(task.classes), size=count)]
    made["error"] = np.where(number % 5, "right", "wrong")
    return made


def picture(image_id: str) -> np.ndarray:
    """Return the radiograph of an image, another one for each of 64 in a row."""
    return FILMS[int(image_id[1:]) % 64]


def disc(image_id: str, size: int = SIZE) -> np.ndarray:
    """Return a disc that lies elsewhere in each of 64 images in a row: a lesion or its heat."""
    y, x = np.mgrid[:size, :size] / size
    return np.hypot(y - 0.5, x - 0.2 - int(image_id[1:]) % 64 / 100) < 0.15


def cases(count: int) -> explore.Panel:
    """Return a case browser with everything that it can show."""

    def report(image_id: str) -> tuple[str, str]:
        return f"Anna Muster, {image_id}: lytic lesion.", f"[NAME], {image_id}: lytic lesion."

    heat = dict(heat_map=lambda image_id: disc(image_id, 14).astype(np.float32))
    return explore.cases(table(count), picture, mask=disc, report=report, **heat)


def heat_maps(count: int) -> explore.Panel:
    """Return a viewer whose maps are made in no time."""

    def make(image_id: str, method: int, layer: int, target: int) -> np.ndarray:
        return disc(image_id, layer)[::target, ::method].astype(np.float32)

    choices = dict(methods={"Grad-CAM": 1, "occlusion": -1}, layers={"last": 7, "before": 14})
    targets = {"tumour": 1, "normal": -1}
    return explore.heat_maps(table(count), picture, make, targets=targets, mask=disc, **choices)


def similar(count: int) -> explore.Panel:
    """Return similar cases by features of a usual width."""
    features = _RNG.normal(size=(count, 1280)).astype(np.float32)
    return explore.similar(features, table(count), picture)


def prompts(count: int) -> explore.Panel:
    """Return a prompt bench with a text tower of usual size, whose images have random features."""
    from bonelib import encoders, models

    image = encoders.image("packaged:efficientnet_lite0", weights="random", size=64)
    model = models.DualEncoder(image, encoders.text("packaged:minilm"), dim=WIDTH).eval()
    task, unit = cohort.task("tumor"), _RNG.normal(size=(count, WIDTH)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    styles = {style: captions.prompts(task, style=style) for style in captions.styles(task)}
    images = table(count).assign(split="val")
    return explore.prompts(model, images, unit, picture, task=task, styles=styles)


def runs(count: int) -> explore.Panel:
    """Return a comparer of three methods, of which the first is the weakest."""
    view, task = table(count), cohort.task("tumor")
    truth = (view[task.column] == task.positive).to_numpy()
    told, trained = {}, {}
    for strength, names in enumerate(METHODS):
        method = evaluation.Method(*names)
        logits = _RNG.normal(0.5 * strength * (2 * truth - 1), 1)
        logits = np.stack([-logits, logits], axis=1)[
            :, :: -1 if task.positive == task.classes[0] else 1
        ]
        logits = logits[:, 1] if task.outputs == 1 else logits
        name = " ".join(names)
        told[name] = evaluation.predictions(view, logits, task=task, seed=0, fold=0, method=method)
        rows = [{"epoch": e, "loss": 1 / (e + 1 + strength), "auroc": np.nan} for e in range(5)]
        trained[name] = pd.DataFrame(rows).assign(**method.columns(), seed=0, fold="0")
    return explore.runs(told, task=task, histories=trained)


def keep_times(path: str) -> None:
    """Append to a file what the kernel takes for each message of a widget: ms of wall, ms of CPU.

    Call it before the widgets are made.
    """
    from ipywidgets import Widget

    handle = Widget._handle_msg

    def timed(self: Widget, message: dict) -> None:
        began = time.perf_counter(), time.process_time()
        handle(self, message)
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        with open(path, "a", encoding="utf-8") as file:
            print(*(1000 * seconds for seconds in spent), file=file)

    Widget._handle_msg = timed
