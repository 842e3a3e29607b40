"""Weight files that were fetched or brought: where they lie, and that they are still the same.

    cache/weights/<tower>/model.safetensors    what its source calls its files
    cache/weights/<tower>/sha256.json          what each file was when it was fetched

``cache`` is ``BONELIB_CACHE``. A tower whose files lie there is found without a network.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from bonelib.encoders.weights import WeightsNotAvailable
from bonelib.runs.files import cache_folder, hashes, replacing

RECORD = "sha256.json"


def folder(tower: str) -> Path:
    """Return where the files of a tower are looked for, whether there are any or not."""
    return cache_folder("weights") / re.sub(r"[:/\\]+", "-", tower)


def brought(tower: str, *files: str) -> Path | None:
    """Return the first of these files that lies in the tower's folder; None where none does.

    Raises:
        WeightsNotAvailable: A file is no more what it was when it was fetched.
    """
    here = folder(tower)
    found = next((here / file for file in files if (here / file).is_file()), None)
    if found is not None:
        check(here)
    return found


def record(here: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Keep the sha256 of each file of a folder, and return those that are kept.

    Args:
        files: The files, each with the sha256 that its source states, empty where it states none:
            it is then that of the file as it is now.

    Raises:
        ValueError: A file is not what its source states.
    """
    found = _sha256(here, [*files])
    wrong = [name for name, stated in files.items() if stated and stated != found[name]]
    if wrong:
        raise ValueError(
            f"{here / wrong[0]} has sha256 {found[wrong[0]][:12]}…, its source states "
            f"{files[wrong[0]][:12]}…. Delete it and fetch it again."
        )
    with replacing(here / RECORD) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def recorded(here: Path) -> dict[str, str]:
    """Return the sha256 of each file as it was fetched; empty where that was not recorded."""
    file = here / RECORD
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def check(here: Path) -> None:
    """Compare the files of a folder with what was recorded; unchanged ones are not read again.

    Raises:
        WeightsNotAvailable: A file is missing, or is another one.
    """
    known = recorded(here)
    found = _sha256(here, [*known])
    wrong = [name for name in known if known[name] != found[name]]
    if wrong:
        is_now = f"has sha256 {found[wrong[0]][:12]}…" if found[wrong[0]] else "is missing"
        raise WeightsNotAvailable(
            f"{here / wrong[0]} {is_now}; it was {known[wrong[0]][:12]}… when it was fetched. "
            f"Fetch it again (bonelib weights), or delete {here / RECORD} if you replaced the file."
        )


def _sha256(here: Path, files: list[str]) -> dict[str, str]:
    index = cache_folder("weights") / "hashes.json"
    return dict(zip(files, hashes([here / file for file in files], index=index), strict=True))
