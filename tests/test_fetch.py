"""Protects the fetching of data sets, from a local server that speaks as doi.org and figshare."""

import csv
import dataclasses
import errno
import hashlib
import http.server
import importlib
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import urllib.parse
import zipfile

import pytest
import requests

from bonelib import datasets, phantom, runs
from bonelib.__main__ import main
from bonelib.datasets import fetching

SOURCES = fetching.sources()
BTXRD = SOURCES["btxrd"]
IMAGES = 8
RUN = ("fetch", "btxrd", "--accept-licence")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small set in BTXRD's layout, without what BTXRD lacks."""
    folder = phantom.write(tmp_path_factory.mktemp("drawn"), images=IMAGES, size=64, reports=False)
    keep = ("images", "Annotations", "dataset.csv")
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture(scope="module")
def packed(drawn, tmp_path_factory):
    """The bytes of its zip, in which the folder BTXRD lies, as in the release."""
    file = tmp_path_factory.mktemp("packed") / "BTXRD.zip"
    with zipfile.ZipFile(file, "w") as zipped:
        for path in sorted(drawn.rglob("*")):
            zipped.write(path, f"BTXRD/{path.relative_to(drawn)}")
    return file.read_bytes()


def changed(packed, tmp_path, **files):
    """The zip with further files by name."""
    file = tmp_path / "changed.zip"
    file.write_bytes(packed)
    with zipfile.ZipFile(file, "a") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return file.read_bytes()


class Repository(http.server.BaseHTTPRequestHandler):
    """Answers for doi.org, figshare.com and its API by the path /host/…"""

    def do_GET(self):
        _, host, *parts = urllib.parse.urlsplit(self.path).path.split("/")
        state, name = self.server.state, parts[-1]
        state["asked"].append(f"{host}/{name}")
        if host == "doi.org":
            page = "zenodo.org/records/1" if "zenodo" in name else "figshare.com/articles/x/1"
            self.send_response(302)
            self.send_header("Location", f"https://{page}")
            self.end_headers()
        elif host == "zenodo.org" and parts[0] == "api":
            files = [self.record(*one) for one in state["files"].items()]
            self.answer(json.dumps({"files": files}))
        elif host == "api.figshare.com" and name == "articles":
            self.answer(json.dumps([{"id": 1}]).encode())
        elif host == "api.figshare.com":
            self.answer(
                json.dumps({"files": [self.record(*one) for one in state["files"].items()]})
            )
        elif host == "ndownloader.figshare.com":
            content = state["sent"].get(name, state["files"].get(name))
            self.answer(content, cut=state["cuts"].pop(name, [])[:1])
        else:
            self.answer("<html>")

    def record(self, name, content):
        stated = self.server.state["stated"].get(name, hashlib.md5(content).hexdigest())
        url = f"https://ndownloader.figshare.com/files/{urllib.parse.quote(name, safe='')}"
        zenodo = {"key": name, "checksum": f"md5:{stated}", "links": {"self": url}}
        return zenodo | {"name": name, "computed_md5": stated, "download_url": url}

    def answer(self, content, cut=()):
        content = content.encode() if isinstance(content, str) else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def repository(packed, monkeypatch):
    """A running repository, asked in place of the real hosts; gives what it holds."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    server.state = dict(files={"BTXRD.zip": packed}, sent={}, cuts={}, stated={}, asked=[])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    send = requests.adapters.HTTPAdapter.send

    def local(adapter, request, **options):
        asked = request.url
        request.url = re.sub("^https?:/", f"http://127.0.0.1:{server.server_port}", asked)
        answer = send(adapter, request, **options | {"proxies": {}})
        request.url = answer.url = asked
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", local)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # pooch waits before it tries again
    yield server.state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Folders of the test's own, and a row of BTXRD that states the number of the drawn images."""
    monkeypatch.setenv("BONELIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BONELIB_CACHE", str(tmp_path / "cache"))
    small = dataclasses.replace(BTXRD, images=IMAGES, checksum="")
    monkeypatch.setattr(fetching, "sources", lambda: SOURCES | {"btxrd": small})
    return tmp_path / "data"


@pytest.fixture
def offline(monkeypatch):
    def fail(*_, **__):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", fail)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def refused(capsys, *words, code=2):
    """Give a command that is refused, and return what it says."""
    assert main(words) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err


def nothing(place):
    """Whether no part of a set lies there, hidden or not; locks aside."""
    return not [path for path in place.glob("*") if path.suffix != ".lock"]


# ---------------------------------------------------------------------- all goes well
def test_a_set_is_fetched_checked_unpacked_and_can_be_read(repository, place, capsys, packed):
    assert main(RUN) == 0
    said = capsys.readouterr().out
    assert BTXRD.licence in said and BTXRD.cite in said and BTXRD.doi in said
    assert said.rstrip().endswith("Next: bonelib run 01 -p DATA btxrd")
    assert runs.data_root("btxrd") == place / "btxrd"
    table = datasets.read("btxrd", place / "btxrd")
    assert len(table) == IMAGES and table["path"].notna().all()
    kept = json.loads((place / "btxrd.fetched.json").read_text())
    facts = {"bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
    assert kept["files"] == {"BTXRD.zip": facts} and kept["images"] == IMAGES
    assert not (place.parent / "cache" / "downloads" / "btxrd").exists()
    names = {path.name for path in place.iterdir()}
    assert names == {"btxrd", "btxrd.fetched.json", ".btxrd.lock"}


def test_a_record_of_zenodo_is_read_alike(repository, place, monkeypatch):
    own = dataclasses.replace(BTXRD, images=IMAGES, checksum="", doi=SOURCES["roco"].doi)
    monkeypatch.setattr(fetching, "sources", lambda: {"btxrd": own})
    assert main(RUN) == 0
    assert "zenodo.org/1" in repository["asked"] and (place / "btxrd").is_dir()


def test_the_next_command_asks_what_the_set_has_labels_for(place, tmp_path, monkeypatch, capsys):
    drawn = phantom.write_task(tmp_path / "drawn", kind="fractures", images=20, size=64)
    shutil.make_archive(tmp_path / "FracAtlas", "zip", drawn)
    own = dataclasses.replace(SOURCES["fracatlas"], images=20)
    monkeypatch.setattr(fetching, "sources", lambda: {"fracatlas": own})
    words = ("fetch", "fracatlas", "--accept-licence", "--from", str(tmp_path / "FracAtlas.zip"))
    assert main(words) == 0
    assert "20 radiographs in " in (said := capsys.readouterr().out)
    assert said.rstrip().endswith("Next: bonelib run 01 -p DATA fracatlas -p TASK fracture")


def test_a_second_fetch_does_nothing(repository, place, capsys):
    assert main(RUN) == 0
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    repository["asked"].clear()
    assert main(("fetch", "btxrd")) == 0  # not even the licence is asked for
    assert not repository["asked"] and "is whole" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_several_files_and_archives_in_archives_are_one_set(repository, place, drawn, tmp_path):
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        for path in sorted((drawn / "images").iterdir()):
            inner.write(path, f"images/{path.name}")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(tmp_path / "inner.zip", "inner.zip")
    repository["files"] = {
        "dataset.csv": (drawn / "dataset.csv").read_bytes(),
        "all.zip": (tmp_path / "outer.zip").read_bytes(),
    }
    assert main(RUN) == 0
    assert len(datasets.read("btxrd", place / "btxrd")) == IMAGES
    assert not list(place.rglob("*.zip"))


def test_an_archive_brought_by_hand_is_checked_and_unpacked_alike(place, packed, tmp_path, offline):
    file = tmp_path / "BTXRD (1).zip"
    file.write_bytes(packed)
    assert main((*RUN, "--from", str(file))) == 0
    assert len(datasets.read("btxrd", place / "btxrd")) == IMAGES
    assert file.exists(), "what a user brought is the user's"


# ---------------------------------------------------------------------- downloads that fail
def test_a_download_that_is_cut_off_is_tried_again(repository, place):
    repository["cuts"] = {"BTXRD.zip": [1]}
    assert main(RUN) == 0
    assert repository["asked"].count("ndownloader.figshare.com/BTXRD.zip") == 2


def test_a_download_that_stays_cut_off_counts_for_nothing_and_whole_files_are_kept(
    repository, place, capsys, packed
):
    repository["files"] = {"notes.txt": b"notes", "BTXRD.zip": packed}
    repository["sent"] = {"BTXRD.zip": packed[: len(packed) // 2]}
    said = refused(capsys, *RUN)
    assert "BTXRD can't be fetched here" in said and "files that came whole are kept" in said
    assert nothing(place)
    kept = place.parent / "cache" / "downloads" / "btxrd"
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]
    repository["sent"] = {}
    repository["asked"].clear()
    assert main(RUN) == 0
    assert "ndownloader.figshare.com/notes.txt" not in repository["asked"]


def test_what_a_killed_fetch_had_unpacked_goes_with_the_next(repository, place):
    (place / ".btxrd-0123abcd" / "images").mkdir(parents=True)
    (place / ".btxrd-of-mine").mkdir()
    assert main(RUN) == 0
    assert not (place / ".btxrd-0123abcd").exists() and (place / ".btxrd-of-mine").exists()


def test_what_is_not_what_the_repository_states_is_refused(repository, place, capsys):
    repository["stated"] = {"BTXRD.zip": "0" * 32}
    assert "does not match" in refused(capsys, *RUN)
    assert nothing(place)


def test_another_content_at_the_second_time_is_refused(repository, place, capsys, packed, tmp_path):
    assert main(RUN) == 0
    shutil.rmtree(place / "btxrd")
    repository["files"] = {"BTXRD.zip": changed(packed, tmp_path, **{"BTXRD/new.txt": "new"})}
    said = refused(capsys, *RUN)
    assert "is not the file that was fetched first" in said and "btxrd.fetched.json" in said
    assert not (place / "btxrd").exists()
    (place / "btxrd.fetched.json").unlink()
    assert main(RUN) == 0


def test_a_checksum_that_a_source_states_holds_for_what_is_brought(
    place, capsys, packed, tmp_path, monkeypatch
):
    file = tmp_path / "BTXRD.zip"
    file.write_bytes(packed)
    own = dataclasses.replace(BTXRD, images=IMAGES)
    monkeypatch.setattr(fetching, "sources", lambda: {"btxrd": own})
    said = refused(capsys, *RUN, "--from", str(file))
    assert f"its source states {BTXRD.checksum.removeprefix('md5:')}" in said
    assert nothing(place)


@pytest.mark.parametrize("name", ["../aside.txt", "/aside.txt", "a\\..\\..\\aside.txt"])
def test_an_archive_that_would_write_outside_is_refused(
    repository, place, capsys, packed, tmp_path, name
):
    repository["files"] = {"BTXRD.zip": changed(packed, tmp_path, **{name: "x"})}
    said = refused(capsys, *RUN)
    assert "would lie outside of its folder" in said
    assert nothing(place) and not list(tmp_path.rglob("aside.txt"))


def test_a_record_whose_file_would_lie_elsewhere_is_refused(repository, place, capsys, packed):
    repository["files"] = {"../../aside.zip": packed}
    assert "would lie outside" in refused(capsys, *RUN)
    assert not any("ndownloader" in one for one in repository["asked"])


def test_a_page_in_place_of_a_zip_is_told(place, capsys, tmp_path):
    file = tmp_path / "set.zip"
    file.write_text("<html>log in</html>")
    assert "a page that asks for a login" in refused(capsys, *RUN, "--from", str(file))
    assert nothing(place)


def test_damage_inside_of_a_zip_is_told(place, capsys, packed, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr("dataset.csv", "a,b\n1,2\n" * 50)
    content = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(content.replace(b"1,2", b"1,3", 1))
    assert "can't be unpacked (Bad CRC-32" in refused(
        capsys, *RUN, "--from", str(tmp_path / "set.zip")
    )
    assert nothing(place)


@pytest.mark.parametrize("more", [1, -1])
def test_a_wrong_number_of_images_is_refused(repository, place, capsys, monkeypatch, more):
    own = dataclasses.replace(BTXRD, images=IMAGES + more, checksum="")
    monkeypatch.setattr(fetching, "sources", lambda: {"btxrd": own})
    assert f"{IMAGES} images, but BTXRD has {IMAGES + more}" in refused(capsys, *RUN)
    assert nothing(place)


def test_what_its_reader_can_not_read_is_refused(place, capsys, packed, tmp_path, drawn):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as zipped:
        for path in sorted((drawn / "images").iterdir()):
            zipped.write(path, f"images/{path.name}")
    assert "dataset.csv" in refused(capsys, *RUN, "--from", str(tmp_path / "set.zip"))
    assert nothing(place)


# ---------------------------------------------------------------------- what lies there already
def test_a_part_of_a_set_is_left_alone(repository, place, capsys, drawn):
    shutil.copytree(drawn, place / "btxrd")
    first = next((place / "btxrd" / "images").iterdir())
    first.unlink()
    said = refused(capsys, *RUN)
    assert f"{IMAGES - 1} images, expected {IMAGES}" in said and "move it away" in said
    assert not repository["asked"]


def test_images_lost_after_the_fetch_are_noticed(repository, place, capsys):
    assert main(RUN) == 0
    next((place / "btxrd" / "BTXRD" / "images").iterdir()).unlink()
    assert f"{IMAGES - 1} images, expected {IMAGES}" in refused(capsys, *RUN)


def test_a_set_that_somebody_unpacked_is_whole(place, drawn, capsys, offline):
    shutil.copytree(drawn, place / "btxrd")
    assert main(RUN) == 0
    assert "is whole" in capsys.readouterr().out


def test_a_set_whose_number_nobody_states_is_not_written_over(place, drawn, capsys, tmp_path):
    shutil.copytree(drawn, place / "mura")
    (tmp_path / "mura.zip").write_bytes(b"")
    said = refused(
        capsys, "fetch", "mura", "--accept-licence", "--from", str(tmp_path / "mura.zip")
    )
    assert "a number that no source states" in said


# ---------------------------------------------------------------------- licence
def test_without_the_licence_nothing_is_asked_of_the_network(repository, place, capsys):
    assert "--accept-licence" in refused(capsys, "fetch", "btxrd")
    assert not repository["asked"] and nothing(place)


@pytest.mark.parametrize(("typed", "code"), [("yes", 0), ("Yes ", 0), ("y", 2), ("", 2), (None, 2)])
def test_on_a_terminal_yes_can_be_typed(repository, place, monkeypatch, typed, code):
    def answer(_):
        if typed is None:
            raise EOFError
        return typed

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert main(("fetch", "btxrd")) == code
    assert (place / "btxrd").exists() == (code == 0)


# ---------------------------------------------------------------------- no network, no room
def test_without_a_network_one_message_says_what_to_download_and_where_to_put_it(
    place, capsys, offline
):
    said = refused(capsys, *RUN)
    for part in ("BTXRD.zip", f"https://doi.org/{BTXRD.doi}", str(place / "btxrd"), "--from"):
        assert part in said
    assert "no route to host" in said and nothing(place)


def test_a_proxy_that_does_not_answer_is_told(place, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # not listening
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        said = refused(capsys, *RUN)
    assert "ProxyError" in said and "--from" in said and nothing(place)


@pytest.mark.parametrize("name", [name for name, one in SOURCES.items() if not one.doi])
def test_a_set_with_terms_is_explained_and_not_downloaded(repository, place, capsys, name):
    assert main(("fetch", name)) == 2
    said = capsys.readouterr().out
    assert SOURCES[name].licence in said and SOURCES[name].page in said and "--from" in said
    assert str(place / name) in said and not repository["asked"]


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "make room"), (errno.EROFS, "BONELIB_DATA")]
)
@pytest.mark.parametrize("where", ["download", "unpack"])
def test_what_the_system_refuses_is_a_sentence(
    repository, place, capsys, monkeypatch, where, number, said
):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if where == "download":
        monkeypatch.setattr("pooch.HTTPDownloader.__call__", fail)
        monkeypatch.setattr("pooch.downloaders.HTTPDownloader.__call__", fail)
    else:
        monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
    told = refused(capsys, *RUN)
    assert said in told and os.strerror(number) in told and nothing(place)


def test_an_archive_larger_than_the_disk_is_not_begun(repository, place, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert "make room" in refused(capsys, *RUN)
    assert nothing(place)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch", "walnuts"), "No set walnuts. Give btxrd, fracatlas"),
        (("fetch", "btxrd", "lite0"), "No set btxrd lite0"),
        ((*RUN, "--from", "not-there.zip"), "There is no file not-there.zip"),
    ],
)
def test_mistakes_are_sentences(capsys, words, said):
    assert said in refused(capsys, *words)


def test_without_a_name_the_sets_are_listed_with_their_licences(capsys, offline):
    assert main(["fetch"]) == 0
    listed = capsys.readouterr().out.splitlines()
    for line, (name, source) in zip(listed, fetching.sources().items(), strict=True):
        assert line.startswith(name) and line.endswith(source.licence)
        assert ("downloaded" in line) == bool(source.doi)


def test_without_a_folder_for_data_it_says_so(capsys, monkeypatch):
    monkeypatch.delenv("BONELIB_DATA")
    assert "export BONELIB_DATA" in refused(capsys, *RUN)


def test_weights_are_those_of_bonelib_weights(monkeypatch):
    asked = []
    monkeypatch.setattr("bonelib.commands.weights.weights", lambda name: asked.append(name) or 0)
    assert main(("fetch", "weights", "dinov2_base")) == 0
    assert asked == ["dinov2_base"]


# ---------------------------------------------------------------------- the facts
def test_the_facts_are_those_of_the_readers_and_of_the_page():
    page = (runs.ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = {
        re.match(r"\| `(\w+)` ", line)[1]: line for line in page.splitlines() if line[:3] == "| `"
    }
    for name, source in SOURCES.items():
        assert name in datasets.NAMES
        told = importlib.import_module(f"bonelib.datasets.{name}").__doc__
        doi = re.search(r"doi (10\.\S+)$", source.cite)
        assert not doi or doi[1] in " ".join(told.split())
        assert f"{source.images:,}" in rows[name] or not source.images
        assert source.doi.rpartition(".")[2] in rows[name]
        assert f"- `{name}`: {source.cite}." in page
        if source.licence == "CC BY 4.0":
            assert source.licence in rows[name]


def test_the_table_of_facts_is_sorted_into_columns_that_hold_what_they_say():
    with open(runs.ROOT / "bonelib/datasets/sources.csv", encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    for row in rows:
        assert None not in row and all(row[key] for key in ("title", "files", "licence", "cite"))
        assert bool(row["doi"]) != bool(row["page"]), "a DOI, or a page with terms"
        assert re.fullmatch(r"(md5:[0-9a-f]{32})?", row["checksum"])
        assert re.fullmatch(r"(10\.\d+/\S+)?", row["doi"])
