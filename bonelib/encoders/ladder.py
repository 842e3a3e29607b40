"""The encoder ladder: image towers that baselines compare, each with all that belongs to it.

``ladder.csv`` comes in, a row a rung; towers go out. Pooling and input size belong to a rung: other
features of the same weights are another rung. Its columns:

- ``weights``: ``pretrained`` or ``random``. ``size``: side of the input in pixels.
- ``pooling``: ``own …`` is what the weights were trained with; anything else is one of
  ``pooling.POOLINGS``. ``grey``: mean and std of the pixels, where not those of the weights.
- ``source``: a repository of the Hugging Face hub, a page, or ``pip`` and a package. ``files``:
  what is fetched of it; ``name=address`` where it comes from elsewhere.
- ``megabytes``: of the download; of timm's, four bytes a parameter. ``recalled``: which of these
  facts were not looked up. Licences of timm's rows are those that timm 1.0.31 states.
"""

import csv
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bonelib.encoders import fetched, images, pooling
from bonelib.encoders.tower import ImageEncoder


@dataclass(frozen=True)
class Rung:
    """One row of the ladder; the module says what each column is."""

    rung: str
    title: str
    tower: str
    weights: str = "pretrained"
    size: int = 0
    pooling: str = ""
    grey: str = ""
    licence: str = ""
    source: str = ""
    files: tuple[str, ...] = ()
    megabytes: int = 0
    recalled: str = ""

    @property
    def folder(self) -> Path:
        """Where its files are looked for."""
        return fetched.folder(self.tower)

    @property
    def detail(self) -> str:
        """What parts it from the rung that takes the same weights as they were trained."""
        grey = f", grey {self.grey} ± {self.grey}" if self.grey else ""
        return f"{self.pooling}, {self.size} px{grey}" if self._asked else ""

    @property
    def _asked(self) -> str:
        return self.pooling if self.pooling in pooling.POOLINGS else ""

    def build(self, *, largest: int = 0, seed: int = 0) -> ImageEncoder:
        """Return the tower.

        Args:
            largest: No larger side than this, in pixels; 0 takes the rung's own.
            seed: Fixes random weights.

        Raises:
            WeightsNotAvailable: The weights are not here and can't be downloaded.
            ValueError: The files that lie there don't fit.
        """
        size = min(self.size, largest) if largest and self.size else self.size or largest
        options = dict(weights=self.weights, size=size, seed=seed, pooling=self._asked)
        tower = images.image(self.tower, **options)
        if self.grey:
            value = (float(self.grey),) * tower.preprocessing.channels
            tower.preprocessing = replace(tower.preprocessing, mean=value, std=value)
        return tower


@functools.cache
def rungs() -> Mapping[str, Rung]:
    """Return the ladder by the rungs' names, in the order of the table."""
    with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as file:
        rows: list[dict] = [*csv.DictReader(file)]
    for row in rows:
        row |= {"size": int(row["size"]), "megabytes": int(row["megabytes"] or 0)}
        row["files"] = tuple(row["files"].split())
    return {row["rung"]: Rung(**row) for row in rows}


def rung(name: str) -> Rung:
    """Return a rung of the ladder, or one of a tower that people bring: ``onnx:/path/to/file``.

    Raises:
        ValueError: Unknown name; the message names the nearest.
    """
    if name in rungs():
        return rungs()[name]
    if ":" in name:
        return Rung(name, name, name)
    near = difflib.get_close_matches(name.lower(), rungs(), 3, 0.4)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"Unknown encoder {name!r}.{meant} Choose {', '.join(rungs())}, or a tower as timm:…"
    )
