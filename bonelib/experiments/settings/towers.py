"""Encoders by name: what a rung of the ladder, or a tower that people bring, is called, and itself.

It stands apart from the other settings, since it loads torch.
"""

import json
from pathlib import Path
from typing import Any

from bonelib import encoders, models
from bonelib.evaluation import Method
from bonelib.experiments.context import Context


def rung_method(rung: encoders.Rung) -> Method:
    """Return what a linear probe on the features of a rung, or of a tower by name, is called."""
    tower = rung.tower.partition(":")[2]
    if rung.tower.startswith("onnx:"):
        tower = Path(tower).stem
    if rung.tower.startswith("bundle:"):
        made, folder = _record(Path(tower)), Path(tower).parent.name
        tower = " ".join(filter(None, (made.get("data_name"), made.get("stage"), folder)))
    if rung.tower.startswith("torchxrayvision:"):  # apart from timm's of the same name
        tower = rung.tower.replace(":", "-")
    if rung.weights == "random":
        return Method("scratch", "probe", "image", detail=tower)
    return Method(tower, "probe", "image", detail=rung.detail)


def rung_tower(context: Context, rung: encoders.Rung, *, largest: int, test: str = "folds") -> Any:
    """Return the tower of a rung, or of a bundle.

    Args:
        largest: Of the input's side in pixels; 0 for its own.
        test: The images that are tested: ``folds`` for all in turn, else as in ``Context``.

    Raises:
        WeightsNotAvailable: The weights are not here.
        ValueError: A bundle was trained on images that are tested.
    """
    if not rung.tower.startswith("bundle:"):
        return rung.build(largest=largest, seed=context.seed)
    folder, here = Path(rung.tower.partition(":")[2]), context.cohort_run
    there = _record(folder)
    names = [set(head.get("data_name", "").split("+")) for head in (there, here.head)]
    settings = [there.get("settings", {}), here.settings | {"test": test}]
    spared = names[0] == names[1] and all(
        settings[0].get(key) == settings[1][key] for key in ("test", "split_seed")
    )
    if names[0] & names[1] and not spared:
        raise ValueError(
            f"{folder} was trained on images of {there['data_name']}, some of which are tested "
            f"here ({test}): its scores would not be out of fold. Notebook 05 scores it on its own "
            "test set; here use a bundle of another data set."
        )
    return models.load_image_tower(folder)


def _record(bundle: Path) -> dict[str, Any]:
    """Return the record of the run that left a bundle; empty where it lies by itself."""
    made = bundle.parent / "record.json"
    return json.loads(made.read_text(encoding="utf-8")) if made.is_file() else {}
