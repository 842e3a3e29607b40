# Protects patients: no planted identity survives in a copy, and the picture stays what it was.
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import dicom_files as made
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset

from bonelib import __main__ as command_line
from bonelib import deidentify, dicom, reports
from bonelib.deidentify import allowlist
from bonelib.dicom import burnt_in, frames

pytest.importorskip("dicognito")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


NAMES = ("PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName")
NAMES += ("OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson")
NAMES += ("RequestingPhysician", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy")
NUMBERS = ("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID")
NUMBERS += ("RequestedProcedureID", "PerformedProcedureStepID", "DeviceSerialNumber", "DetectorID")
NUMBERS += (
    "MedicalRecordLocator",
    "PatientTelephoneNumbers",
    "FillerOrderNumberImagingServiceRequest",
)
TEXTS = (
    "StudyDescription",
    "SeriesDescription",
    "ImageComments",
    "PatientComments",
    "ProtocolName",
)
TEXTS += ("AdditionalPatientHistory", "InstitutionName", "InstitutionAddress", "StationName")
TEXTS += ("PatientAddress", "DerivationDescription", "RequestedProcedureDescription", "Occupation")
TEXTS += ("AcquisitionDeviceProcessingDescription", "ManufacturerModelName", "SoftwareVersions")
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
# Elements that stay if they hold what they should: an identity there is removed by its form.
STAYING = ("BodyPartExamined", "ViewPosition", "Manufacturer", "RescaleType")


def planted(number):
    """Make a file of a person who does not exist, with the strings that must not survive."""
    rng = np.random.default_rng(number)
    pick = lambda length: "".join(rng.choice(list("BCDFGHJKLMNPQRSTVWXZ"), length))  # noqa: E731
    digits = lambda length: "".join(rng.choice(list("123456789"), length))  # noqa: E731
    family, given, street, record = pick(8), pick(7), pick(9), digits(9)
    born, seen = f"19{digits(1)}60312", f"20110{rng.integers(1, 9)}1{rng.integers(0, 9)}"
    secrets = {family, given, street, record, born, seen}
    name, text = f"{family}^{given}", f"{given} {family} {street} {record}"
    header = made.header(made.ramp(20, 30 + number % 3), WindowCenter=2048, WindowWidth=4096)
    header.SOPInstanceUID = f"1.2.{record}.{number}"
    header.StudyInstanceUID = f"1.2.{record}.7"
    for keyword in NAMES:
        setattr(header, keyword, name)
    for keyword in NUMBERS:
        setattr(header, keyword, record)
    for keyword in TEXTS:
        setattr(header, keyword, text[:64] if keyword != "StationName" else family)
    for keyword in DATES:
        setattr(header, keyword, born if "Birth" in keyword else seen)
    for keyword in STAYING:
        setattr(header, keyword, family)
    header.KVP, header.SeriesNumber = record, record
    item, inner = Dataset(), Dataset()
    inner.PatientName, inner.TextValue = name, text
    item.CodeMeaning, item.CodeValue, item.ContentSequence = text[:64], "R-10206", [inner]
    header.ViewCodeSequence = [item]
    header.RequestAttributesSequence = [item]
    block = header.private_block(0x0029, family, create=True)
    block.add_new(0x01, "LO", text[:64])
    block.add_new(0x02, "OB", text.encode())
    for group in (0x6000, 0x6002):
        header.add_new(group << 16 | 0x0010, "US", 8)
        header.add_new(group << 16 | 0x3000, "OW", text.encode().ljust(64, b"\0"))
        header.add_new(group << 16 | 0x4000, "LT", text)
        header.add_new(group << 16 | 0x0022, "LO", text[:64])
    header.add_new(0x50000010, "LO", text[:64])
    header.add_new(0xFFFCFFFC, "OB", text.encode())
    header.file_meta.SourceApplicationEntityTitle = family
    header.file_meta.PrivateInformationCreatorUID = "1.2.3"
    header.file_meta.PrivateInformation = text.encode().ljust(80, b"\0")
    content = made.file_bytes(header)
    return text.encode().ljust(128, b"\0")[:128] + content[128:], secrets


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def copies(tmp_path, **options):
    ledger = tmp_path / "apart" / "ledger.json"
    return deidentify.radiographs(tmp_path / "in", tmp_path / "out", ledger=ledger, **options)


def test_no_planted_identity_is_found_in_two_hundred_copies(tmp_path):
    secrets = {}
    for number in range(200):
        content, secrets[f"{number:03d}"] = planted(number)
        save(tmp_path / "in" / f"{number:03d}", content)
    assert len(NAMES + NUMBERS + TEXTS + DATES + STAYING) >= 40
    done = copies(tmp_path)
    assert (done.files["status"] == "written").all(), done.files["reason"].unique()
    for row in done.files.itertuples():
        content = (tmp_path / "out" / row.output).read_bytes().lower()
        path = str(tmp_path / "out" / row.output).lower()
        for secret in secrets[row.file]:
            assert secret.lower().encode() not in content, (row.file, secret)
            assert secret.lower() not in path
        before, _ = dicom.read(tmp_path / "in" / row.file)
        assert np.array_equal(before, dicom.read(tmp_path / "out" / row.output)[0])
    found = done.elements.set_index(["keyword", "done"])["profile"]
    assert found["PatientName", "replaced"] == "Z" and found["ImageComments", "removed"] == "X"
    assert (found["private"] == "X").all()
    assert found["BodyPartExamined", "emptied: value"] == "not listed"
    # Nothing of the sort stands in what comes back either.
    text = done.elements.to_csv() + "".join(done.notes)
    assert not any(s in text for some in secrets.values() for s in some)


def test_pseudonyms_and_date_offsets_belong_to_patients(tmp_path):
    days = {"a": ("P1", "20200101"), "b": ("P1", "20200131"), "c": ("P2", "20200101")}
    for number, (name, (patient, day)) in enumerate(days.items()):
        elements = {"PatientID": patient, "StudyDate": day, "StudyInstanceUID": f"1.2.{patient}"}
        elements |= {"SOPInstanceUID": f"1.2.9.{number}", "PatientBirthDate": "19200101"}
        save(tmp_path / "in" / name, made.film(PatientSex="F", **elements))
    done = copies(tmp_path).files.set_index("file")
    assert done["reason"].isna().all(), done["reason"].tolist()
    done = done["output"]
    facts = {name: dicom.read(tmp_path / "out" / place)[1] for name, place in done.items()}
    a, b, c = (facts[name] for name in "abc")
    assert a["patient"] == b["patient"] != c["patient"] and a["study"] == b["study"] != c["study"]
    assert len({a["instance"], b["instance"], c["instance"]}) == 3

    def day(found):
        return np.datetime64(f"{found['date'][:4]}-{found['date'][4:6]}-{found['date'][6:]}")

    assert (day(b) - day(a)).astype(int) == 30
    assert np.datetime64("2020-01-01") > day(a) != day(c)
    assert a["age"] == 90 and a["sex"] == "F"  # above 89 nobody is told apart
    ledger = json.loads((tmp_path / "apart" / "ledger.json").read_text())
    assert ledger["patients"]["/P1"] == a["patient"]
    assert (tmp_path / "apart" / "ledger.json").stat().st_mode & 0o077 == 0
    header = pydicom.dcmread(tmp_path / "out" / done["a"])
    assert header.PatientIdentityRemoved == "YES" and header.PatientBirthDate == ""
    assert header.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [i.CodeValue for i in header.DeidentificationMethodCodeSequence][0] == "113100"
    assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID


def test_a_second_call_changes_nothing_and_copies_are_not_shifted_again(tmp_path):
    for number in range(3):
        save(tmp_path / "in" / str(number), planted(number)[0])
    before = {p: p.read_bytes() for p in (tmp_path / "in").iterdir()}
    first = copies(tmp_path)
    kept = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files_of(tmp_path / "out")}
    second = copies(tmp_path)
    assert (second.files["status"] == "unchanged").all()
    assert second.files["output"].tolist() == first.files["output"].tolist()
    assert kept == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in kept}
    assert before == {p: p.read_bytes() for p in (tmp_path / "in").iterdir()}
    ledger = tmp_path / "apart" / "ledger.json"
    deidentify.radiographs(tmp_path / "out", tmp_path / "third", ledger=ledger)
    for path, (content, _) in kept.items():
        assert (tmp_path / "third" / path.relative_to(tmp_path / "out")).read_bytes() == content
    fourth, anew = tmp_path / "fourth", tmp_path / "new"
    other = deidentify.radiographs(tmp_path / "in", fourth, ledger=anew)
    assert not set(other.files["output"]) & set(first.files["output"])


def test_folders_in_one_another_and_a_foreign_ledger_are_refused(tmp_path):
    save(tmp_path / "in" / "a", made.film())
    for out, ledger in (
        ("in", "ledger.json"), ("in/out", "ledger.json"), (".", "../x.json"), ("out", "out/l.json"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="Choose folders apart"):
            deidentify.radiographs(tmp_path / "in", tmp_path / out, ledger=tmp_path / ledger)
    (tmp_path / "thesis.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="is no ledger"):
        deidentify.radiographs(tmp_path / "in", tmp_path / "out", ledger=tmp_path / "thesis.json")
    with pytest.raises(FileNotFoundError):
        deidentify.radiographs(tmp_path / "no", tmp_path / "out", ledger=tmp_path / "l.json")
    assert not (tmp_path / "out").exists()


def test_what_can_not_be_copied_safely_is_refused_and_the_rest_goes_on(tmp_path):
    save(tmp_path / "in" / "good", made.film(SOPInstanceUID="1.2.1"))
    save(tmp_path / "in" / "says", made.film(SOPInstanceUID="1.2.2", BurnedInAnnotation="YES"))
    save(tmp_path / "in" / "report", made.film(SOPInstanceUID="1.2.3", Modality="SR"))
    save(tmp_path / "in" / "broken", made.film(SOPInstanceUID="1.2.4")[:-9])
    save(tmp_path / "in" / "odd", made.film(SOPInstanceUID="1.2.5", StudyDate="20209999"))
    bare = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "PatientID": None}
    save(tmp_path / "in" / "bare", made.film(SOPInstanceUID="1.2.6", **bare))
    done = copies(tmp_path).files.set_index("file")
    assert done["status"].to_dict() == {
        "bare": "written", "broken": "refused", "good": "written", "odd": "written",
        "report": "refused", "says": "refused",
    }  # fmt: skip
    assert "burnt in" in done["reason"]["says"] and "cut off" in done["reason"]["broken"]
    assert len(files_of(tmp_path / "out")) == 3


def test_files_without_preamble_or_meta_header_get_both(tmp_path):
    plain = made.header(made.ramp(), PatientName="Musterfrau^Erika")
    del plain.file_meta
    for implicit in (True, False):
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, plain, implicit_vr=implicit, little_endian=True)
        save(tmp_path / "in" / f"{implicit}", stream.getvalue())
        plain.SOPInstanceUID += "1"
    done = copies(tmp_path).files
    assert (done["status"] == "written").all(), done["reason"].tolist()
    for place in done["output"]:
        copy = (tmp_path / "out" / place).read_bytes()
        assert copy[:132] == bytes(128) + b"DICM" and b"Muster" not in copy
        assert np.array_equal(dicom.read(copy)[0], dicom.read(made.film())[0])


def test_a_word_of_the_identity_anywhere_in_the_copy_stops_it(tmp_path):
    """The last check is blind to how a word got there: a name that is also a body part."""
    header = made.header(made.ramp(), PatientName="Monochrome2^Xaver")
    save(tmp_path / "in" / "a", made.file_bytes(header))
    done = copies(tmp_path).files.iloc[0]
    assert done["status"] == "refused"


def test_the_leak_table_counts_the_words_of_a_header_that_a_copy_has():
    header = made.header(made.ramp(), PatientName="Musterfrau^Erika", PatientID="80012345")
    header.ReferringPhysicianName, header.PatientTelephoneNumbers = "Ärztin^Zoë", "0142494949"
    gone = deidentify.count_copy(header, b"nothing of all this")
    some = deidentify.count_copy(header, b"MUSTERFRAU and 980012345 and \xc3\xa4rztin")
    table = deidentify.leak_table(pd.concat([gone, some])).set_index("type")
    assert table.loc[["PATIENT", "PERSON", "ID", "PHONE"], "n"].tolist() == [4, 2, 2, 2]
    assert table.loc[["PATIENT", "PERSON", "ID", "PHONE"], "recall"].tolist() == [0.75, 0.5, 1, 1]
    with pytest.raises(ValueError, match="PERSON 0.500"):
        deidentify.check(table.reset_index(), {"PERSON": 0.98})


# ------------------------------------------------------------------------------ for other software
def errors(path):
    """What dciodvfy (Debian's dicom3tools 1.00~20220618) finds, without the values it quotes."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    lines = (done.stdout + done.stderr).splitlines()
    return {line.partition(" <")[0] for line in lines if line.startswith("Error")}


def whole(**elements):
    """A CR header that dciodvfy finds nothing wrong with, and words that may not stay."""
    told = dict.fromkeys(("ReferringPhysicianName", "StudyID", "Manufacturer"), "Muster^Max")
    told |= {"StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "A1"}
    told |= {"PatientBirthDate": "19600101", "PatientSex": "F", "SeriesNumber": 1}
    told |= {"InstanceNumber": 1, "BodyPartExamined": "KNEE", "ViewPosition": "AP"}
    told |= {"Laterality": "L"}
    told |= {"PatientOrientation": ["L", "F"], "SeriesInstanceUID": "1.2.77"}
    told |= {"StudyID": "Muster", "WindowCenter": 2048, "WindowWidth": 4096}
    return made.header(made.ramp(), **told | elements)


def coded(meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-10206", "SRT", meaning
    return [item]


ODD = {
    "plain": {},
    "words": {"BodyPartExamined": "KNEE OF MAX", "ViewPosition": "MAX", "PatientSex": "X"},
    "view": {"ViewCodeSequence": coded("as Max likes it")},
    "rescale": {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "log E REL"},
    "numbers": {"SeriesNumber": "79560", "InstanceNumber": "123456789"},
    "spacing": {"PixelSpacing": [1, 1], "PixelSpacingCalibrationType": "FIDUCIAL"}
    | {"PixelSpacingCalibrationDescription": "by Max"},
    "kinds": {"ImageType": ["DERIVED", "PRIMARY", "MAX", "RT"]},
    "day": {"StudyDate": "20209999", "ContentDate": "20200101", "ContentTime": "101112"},
}


@pytest.fixture
def odd(tmp_path):
    for number, (name, elements) in enumerate(ODD.items()):
        header = whole(SOPInstanceUID=f"1.2.5.{number}", **elements)
        save(tmp_path / "in" / name, made.file_bytes(header))
    done = copies(tmp_path)
    assert (done.files["status"] == "written").all(), done.files["reason"].tolist()
    places = done.files.set_index("file")["output"]
    return {name: tmp_path / "out" / place for name, place in places.items()}, done


def test_elements_of_type_2_stay_and_are_empty(odd):
    """PS3.15 E.1 empties them (Z); without them PS3.3 A.2 allows no CR image."""
    files, done = odd
    headers = {name: pydicom.dcmread(path) for name, path in files.items()}
    for name, header in headers.items():
        for keyword in ("ReferringPhysicianName", "Manufacturer", "PatientBirthDate"):
            assert keyword in header and not header[keyword].value, (name, keyword)
        assert re.fullmatch("[A-Z2-7]{8}", header.StudyID) and header.SeriesNumber == 1
        assert all(
            len(method) < 64 and "^" not in method for method in header.DeidentificationMethod
        )
        assert b"Max" not in files[name].read_bytes()
    assert headers["kinds"].ImageType == ["DERIVED", "PRIMARY", "", ""]
    assert headers["rescale"].RescaleType == "US" and headers["numbers"].InstanceNumber == 1
    days = [
        np.datetime64(pd.Timestamp(headers["day"][f"{k}Date"].value)) for k in ("Study", "Content")
    ]
    assert abs(days[0] - days[1]) <= np.timedelta64(1, "D")  # hours are shifted too
    assert "ViewCodeSequence" not in headers["view"] and not headers["words"].BodyPartExamined
    fates = done.elements.groupby("keyword")["done"].agg(set)
    assert fates["ReferringPhysicianName"] == {"emptied: value"}
    assert fates["RescaleType"] == {"dummy: value"} and "in part: value" in fates["ImageType"]


@pytest.mark.parametrize(
    "maker", ["Fuji Photo Film Co.,Ltd.", "IDEXX Laboratories, Inc.", "FUJI PHOTO FILM CO. LTD."]
)
def test_the_maker_of_the_machine_is_kept_with_its_comma(tmp_path, maker):
    save(tmp_path / "in" / "a", made.film(Manufacturer=maker))
    copy = tmp_path / "out" / copies(tmp_path).files["output"][0]
    assert pydicom.dcmread(copy).Manufacturer == maker


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy of dicom3tools")
def test_no_copy_has_an_error_that_its_original_had_not(odd, tmp_path):
    for name, copy in odd[0].items():
        assert errors(copy) - errors(tmp_path / "in" / name) == set(), name
    assert errors(odd[0]["plain"]) == set()
    assert any("Missing attribute" in e for e in errors(save(tmp_path / "x", made.film())))


def test_a_dicomdir_of_the_copies_can_be_built(odd, tmp_path):
    from pydicom.fileset import FileSet

    listing = FileSet()
    for path in odd[0].values():
        parts = path.relative_to(tmp_path / "out").parts
        assert all(re.fullmatch("[A-Z0-9_]{1,8}", part) for part in parts)  # PS3.10 8.2
        listing.add(path)
    listing.write(tmp_path / "set")
    assert len(FileSet(tmp_path / "set" / "DICOMDIR")) == len(ODD)
    if shutil.which("dcmmkdir"):
        names = [path.relative_to(tmp_path / "out") for path in odd[0].values()]
        subprocess.run(["dcmmkdir", *names], cwd=tmp_path / "out", check=True)
        listed, _ = dicom.walk(tmp_path / "out" / "DICOMDIR")
        assert len(listed) == len(ODD) and listed["reason"].isna().all()


def test_what_has_no_date_is_named(tmp_path):
    save(tmp_path / "in" / "a", made.film())
    assert "1 copies have no date or time" in "\n".join(copies(tmp_path).notes)


def test_an_empty_accession_number_stays_empty_and_each_patient_without_an_id_is_one(tmp_path):
    """dicognito 0.19 gives a pseudonym to an empty value, and to all empty ids the same one."""
    for number, (patient, accession) in enumerate((("", ""), ("", ""), ("P1", " "), ("P1", "A"))):
        told = {"PatientID": patient, "AccessionNumber": accession, "PatientName": ""}
        told |= {"SOPInstanceUID": f"1.2.8.{number}", "StudyInstanceUID": f"1.2.9.{number}"}
        save(tmp_path / "in" / str(number), made.film(StudyDate=f"201{number}0101", **told))
    done = copies(tmp_path).files
    headers = [pydicom.dcmread(tmp_path / "out" / place) for place in done["output"]]
    assert [bool(h.AccessionNumber) for h in headers] == [False, False, False, True]
    first, second, third, fourth = (h.PatientID for h in headers)
    assert third == fourth and len({first, second, third}) == 3


# A patient's number may be a number of the picture, of the standard, or of ourselves.
@pytest.mark.parametrize(
    "number", ["16384", "10000", "65535", "00042", "12345", "10008", "113100", "3680043", "012345"]
)
def test_a_number_that_is_a_number_is_no_place_for_a_name(tmp_path, number):
    width = int(number) if 3000 < int(number) < 1e5 else 4096
    elements = {"PatientID": number, "WindowCenter": 2048, "WindowWidth": width}
    elements |= {"ExposureTime": int(number), "ImagerPixelSpacing": [f"0.{number}"] * 2}
    save(tmp_path / "in" / "a", made.film(PixelPaddingValue=int(number) % 65536, **elements))
    done = copies(tmp_path)
    assert done.files["status"][0] == "written", done.files["reason"][0]
    copy = tmp_path / "out" / done.files["output"][0]
    header = pydicom.dcmread(copy)
    assert header.WindowWidth == width and "ImagerPixelSpacing" in header
    assert np.array_equal(dicom.read(copy)[0], dicom.read(tmp_path / "in" / "a")[0])
    assert "ExposureTime" not in header and "ExposureTime (1 files)" in "\n".join(done.notes)


@pytest.mark.parametrize(
    "name", ["Modi^Mary", "Long^Gina", "Basic^Anon", "Option^Chris", "Ident^Mono", "Philip^Zoe"]
)
def test_a_name_that_is_a_piece_of_a_word_of_the_standard_stops_nothing(tmp_path, name):
    elements = {
        "PatientName": name,
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "Manufacturer": "Philips",
    }
    save(tmp_path / "in" / "a", made.film(**elements))
    done = copies(tmp_path)
    assert done.files["status"][0] == "written", done.files["reason"][0]
    header = pydicom.dcmread(tmp_path / "out" / done.files["output"][0])
    assert header.ImageType == ["ORIGINAL", "PRIMARY"]


def test_what_the_picture_needs_and_may_not_stay_is_named(tmp_path):
    save(tmp_path / "in" / "a", made.film(WindowCenter=2048, WindowWidth="1e8"))
    assert copies(tmp_path).files["reason"][0].endswith("the same picture, without WindowWidth")


# ------------------------------------------------------------------------------ one command
def run(*arguments):
    return command_line.main(["deidentify", *map(str, arguments)])


def test_the_command_sees_by_the_content_what_it_is_given(tmp_path, capsys):
    save(tmp_path / "films" / "photo.jpg.txt", b"genou gauche, sans particularites")
    save(tmp_path / "films" / "IM0001", made.film())
    save(tmp_path / "texts" / "r1.txt", b"Genou gauche, sans particularites, pas de fracture")
    ledger = tmp_path / "ledger"
    assert run(tmp_path / "films", tmp_path / "copies", "--ledger", ledger) == 0
    assert "1 written" in capsys.readouterr().out
    secret = json.loads((ledger / "ledger.json").read_text())["secret"]
    texts = (tmp_path / "texts", tmp_path / "safe", "--ledger", ledger)
    assert run(*texts, "--language", "fr") == 0  # one ledger serves both
    assert "1 of 1 reports" in capsys.readouterr().out
    book = json.loads((ledger / "ledger.json").read_text())
    assert book["secret"] == secret and list(book["files"]) == ["IM0001"]
    assert not any(p.stat().st_mode & 0o077 for p in (ledger, *ledger.iterdir()))
    assert run(tmp_path / "films" / "IM0001", tmp_path / "single") == 2  # no DICOMDIR
    assert "it names no files" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    assert run(tmp_path / "nothing", tmp_path / "x") == 2
    assert "Neither DICOM files nor reports" in capsys.readouterr().err


def test_the_command_refuses_options_of_the_other_kind_and_reports_without_a_language(
    tmp_path, capsys
):
    save(tmp_path / "films" / "a", made.film())
    save(tmp_path / "texts" / "r1.txt", b"genou gauche")
    assert run(tmp_path / "films", tmp_path / "x", "--language", "fr", "--keep", "center") == 2
    told = capsys.readouterr().err
    assert "holds DICOM files, for which --language, --keep can't be" in told
    seen = ("--report", tmp_path / "seen")
    assert run(tmp_path / "texts", tmp_path / "x", "--language", "fr", *seen) == 2
    assert "holds reports, for which --report can't be" in capsys.readouterr().err
    assert run(tmp_path / "texts", tmp_path / "x") == 2
    assert "--language en or --language fr" in capsys.readouterr().err
    inside = ("--report", tmp_path / "films" / "seen")
    assert run(tmp_path / "films", tmp_path / "x", *inside) == 2  # nothing into the originals
    assert run(tmp_path / "films", tmp_path / "x", "--ledger", tmp_path / "films" / "l") == 2
    assert not (tmp_path / "x").exists() and len(list((tmp_path / "films").iterdir())) == 1


def test_ledgers_of_the_versions_before_are_read(tmp_path):
    save(tmp_path / "in" / "a", made.film())
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "key").write_text("ab" * 32)  # of reports
    book = {"what": "Ledger", "secret": "ab" * 32, "patients": {"/P1": "X"}, "accessions": {}}
    (tmp_path / "films.ledger").write_text(json.dumps(book))  # of DICOM files, a file
    outputs = []
    for number, name in enumerate(("texts", "films.ledger")):
        out = tmp_path / str(number)
        done = deidentify.radiographs(tmp_path / "in", out, ledger=tmp_path / name)
        outputs.append(done.files["output"].tolist())
    headers = pydicom.dcmread(files_of(tmp_path / "0")[0])
    book = json.loads((tmp_path / "films.ledger").read_text())
    old = book["files"]["a"] = f"X/1/{headers.SOPInstanceUID}.dcm"
    (tmp_path / "films.ledger").write_text(json.dumps(book))
    save(tmp_path / "1" / old, b"a copy under the name of before")
    deidentify.radiographs(tmp_path / "in", tmp_path / "1", ledger=tmp_path / "films.ledger")
    assert len(files_of(tmp_path / "1")) == 1
    (first,), (second,) = outputs
    assert second == "X/" + first.partition("/")[2]  # one secret, and a pseudonym once given stays


def test_all_of_a_ledger_is_its_owners_also_while_it_is_written_and_in_a_folder_that_was_there(
    tmp_path, monkeypatch
):
    ledger = tmp_path / "ledger"
    ledger.mkdir(mode=0o755)
    for name in ("reports.csv", "removals.csv", "key", "mine.txt"):  # of a version before
        save(ledger / name, b"ab" * 32).chmod(0o644)
    save(tmp_path / "texts" / "r1.txt", b"Mme DUPONT, genou gauche, sans particularites")
    seen, replace = [], Path.replace

    def noted(self, target):
        if ledger in self.parents:
            seen.append(self.stat().st_mode & 0o777)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    french = reports.language("fr")
    deidentify.reports(tmp_path / "texts", tmp_path / "safe", french, ledger=ledger)
    assert seen and set(seen) == {0o600} and ledger.stat().st_mode & 0o777 == 0o700
    modes = {p.name: p.stat().st_mode & 0o777 for p in ledger.iterdir()}
    assert modes.pop("mine.txt") == 0o644 and set(modes.values()) == {0o600}  # not ours
    assert "DUPONT" in (ledger / "removals.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("reports_first", "issuer"), [(True, ""), (False, ""), (False, "HOSP")]
)  # an index does not tell the issuer: radiographs first
def test_one_ledger_gives_reports_and_radiographs_the_same_pseudonyms(
    tmp_path, capsys, reports_first, issuer
):
    for number, accession in enumerate(("A7.1-B", "A8.1-B", "")):
        told = {"AccessionNumber": accession, "PatientID": f"P{number // 2}"}
        told |= {"IssuerOfPatientID": issuer, "SOPInstanceUID": f"1.2.8.{number}"}
        save(tmp_path / "in" / str(number), made.film(**told))
    table = pd.DataFrame(
        {
            "accession": ["A8.1-B", "A7.1-B", ""],
            "patient": ["P0", "P0", "P1"],
            "date": "20200101",
            "language": ["fr", "en-GB", "de"],
            "text": ["Mme DUPONT, genou gauche.", "Mrs SMITH, left knee.", "Frau Meier, Knie."],
        }
    )
    table.to_csv(tmp_path / "in" / "reports.csv", index=False)
    ledger = ("--ledger", tmp_path / "ledger")
    calls = [(tmp_path / "in", tmp_path / "out", *ledger)]
    safe = tmp_path / "safe.csv"
    calls.append((tmp_path / "in" / "reports.csv", safe, *ledger))
    for call in reversed(calls) if reports_first else calls:
        assert run(*call) == 0
    said = capsys.readouterr().out
    assert "reports.csv is not copied" in said and "held back, language: 1" in said
    read = pd.read_csv(safe, keep_default_na=False)
    assert list(read) == ["report", "accession", "patient", "language", "text"]
    assert read["language"].tolist() == ["fr", "en"]
    headers = [pydicom.dcmread(path) for path in files_of(tmp_path / "out")]
    pairs = {(h.AccessionNumber, h.PatientID) for h in headers}
    assert len(pairs) == 3 and set(zip(read["accession"], read["patient"], strict=True)) < pairs
    assert "DUPONT" not in safe.read_text() and "A7.1" not in safe.read_text()


def test_a_table_without_rows_gives_one(tmp_path):
    save(tmp_path / "in.csv", b"report,accession,text\n")
    done = deidentify.reports(tmp_path / "in.csv", tmp_path / "out.csv", ledger=tmp_path / "l")
    assert done.number == 0 and pd.read_csv(tmp_path / "out.csv").empty


def test_columns_that_identify_are_not_kept_and_others_are_named(tmp_path, capsys):
    table = tmp_path / "in.csv"
    pd.DataFrame({"patient": ["P1"], "center": ["x"], "date": ["2020"], "text": ["genou"]}).to_csv(
        table, index=False
    )
    command = (table, tmp_path / "out.csv", "--language", "fr", "--keep")
    assert run(*command, "center", "date") == 2
    assert "date can't be kept" in capsys.readouterr().err
    assert run(*command, "center", "patient") == 0
    assert "Passed on as they are: center." in capsys.readouterr().out
    read = pd.read_csv(tmp_path / "out.csv")
    assert list(read) == ["report", "patient", "center", "text"] and read["patient"][0] != "P1"


# ------------------------------------------------------------------------------ beside the picture
def test_what_hides_beside_the_pixels_is_taken_away():
    plain = (
        b"\xff\xd8\xff\xc3\x00\x0b\x0c\x00\x10\x00\x10\x01\x01\x11\x00\xff\xda\x00\x02body\xff\xd9"
    )
    comment = b"\xff\xfe\x00\x09SECRET!"
    said = plain[:2] + b"\xff\xe1\x00\x08HIDDEN" + comment + plain[2:] + b"TAIL"
    assert frames.without_comments(said).rstrip(b"\0") == plain
    codestream = b"\xff\x4f\xff\x51\x00\x04ab\xff\x90\x00\x02tile\xff\xd9"
    said = codestream[:8] + b"\xff\x64\x00\x08SECRET" + codestream[8:]
    assert frames.without_comments(said).rstrip(b"\0") == codestream


def test_compressed_copies_lose_their_comments_and_keep_their_greys(tmp_path):
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEG2000Lossless

    pytest.importorskip("openjpeg")
    header = made.header(made.ramp())
    header.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    place = 4 + int.from_bytes(frame[4:6], "big")  # behind SIZ
    frame = frame[:place] + b"\xff\x64\x00\x0cVERYSECRET" + frame[place:]
    content = made.compressed(header, JPEG2000Lossless, frame)
    assert b"VERYSECRET" in content
    save(tmp_path / "in" / "a", content)
    done = copies(tmp_path).files.iloc[0]
    assert done["status"] == "written", done["reason"]
    copy = (tmp_path / "out" / done["output"]).read_bytes()
    assert b"VERYSECRET" not in copy
    assert np.array_equal(dicom.read(copy)[0], dicom.read(content)[0])


def test_an_overlay_in_the_spare_bits_is_cleared(tmp_path):
    array = made.ramp() | np.where(np.arange(60) % 7 == 0, 0x8000, 0).astype(np.uint16)
    save(tmp_path / "in" / "a", made.film(array))
    done = copies(tmp_path).files.iloc[0]
    header = pydicom.dcmread(tmp_path / "out" / done["output"])
    assert header.pixel_array.max() < 4096 <= array.max()
    assert np.array_equal(np.frombuffer(header.PixelData, "<u2").reshape(40, 60), made.ramp())


# ------------------------------------------------------------------------------ text in the picture
def film(rng, rows=900, columns=700):
    import cv2

    coarse = cv2.resize(rng.normal(0, 1, (7, 6)), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(110 + 45 * coarse + rng.normal(0, 5, (rows, columns)), 0, 255).astype(np.uint8)


def strip(pixels, lines, scale=0.7, grey=255, top=40):
    import cv2

    for number, line in enumerate(lines):
        place = (20, top + int(number * 42 * scale))
        cv2.putText(pixels, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, grey, 2)
    return pixels


LINES = ("MUSTERMANN ERIKA 12.08.1964", "ID 00471193  F  KNIE LINKS", "KLINIKUM NORD 03.02.2021")


@pytest.mark.parametrize("grey", [255, 0])
@pytest.mark.parametrize("scale", [0.5, 0.8, 1.2])
def test_a_strip_with_a_name_is_counted_and_a_side_mark_is_not(scale, grey):
    rng = np.random.default_rng(1)
    plain = film(rng)
    text = strip(plain.copy(), LINES, scale, grey)
    count, boxes = burnt_in.characters(text)
    letters = sum(c.isalnum() for line in LINES for c in line)
    assert burnt_in.LIMIT <= count <= 1.3 * letters
    assert boxes.shape == (count, 4) and (boxes[:, 3] < 40 + 3 * 42 * scale).all()
    assert burnt_in.characters(plain)[0] < 6
    assert burnt_in.characters(strip(plain.copy(), ["R"], 2, grey))[0] < 6
    twice = np.repeat(np.repeat(text, 2, 0), 2, 1).astype(np.uint16) * 257
    assert burnt_in.characters(twice)[0] >= 35


def test_pictures_with_text_are_refused_and_shown(tmp_path):
    rng = np.random.default_rng(2)
    array = film(rng)
    save(tmp_path / "in" / "plain", made.film(array, bits=8, allocated=8, SOPInstanceUID="1.2.1"))
    told = strip(array.copy(), LINES)
    save(tmp_path / "in" / "text", made.film(told, bits=8, allocated=8, SOPInstanceUID="1.2.2"))
    done = copies(tmp_path)
    files = done.files.set_index("file")
    assert files["status"].to_dict() == {"plain": "written", "text": "refused"}
    assert "characters are burnt in" in files["reason"]["text"]
    assert done.suspects.shape[1:] == (256, 256) and done.suspects.dtype == np.uint8
    assert done.titles[0].startswith("text: ")
    read = copies(tmp_path, ocr=lambda pixels: "R 12")  # an OCR model has the last word
    assert (read.files["status"] == ["unchanged", "written"]).all()


@pytest.mark.parametrize(
    "line",
    [
        "MÜLLER, Jürgen",
        "Zoé Lefèvre",
        "Kim Ho",
        "12.08.1964",
        "1964-08-12",
        "3 mars 51",
        "ID 00471193",
    ]
    + [
        "57Y  12/08/64",
        "03 Dec 1959",
        "3.okt.51",
        "29 0ct 1917",
        "Mai 5, 1951",
        "12 août 64",
        "王小明",
        "KLINIKUM NORD",
        "NEVES",
    ],
)
def test_lines_that_read_as_a_person_are_flagged(line):
    assert burnt_in.personal(["R", line]) == [line]


def test_marks_of_side_views_rulers_and_initials_on_the_mark_are_not():
    marks = ["R", "L", "RT", "Left", "AP", "R AP", "L SRM", "STANDING", "Décubitus", "5 cm", "LLAT"]
    assert (
        burnt_in.personal([*marks, "14:32", "70 kV", "2.5 mAs", "weight bearing", "1 2 3 4"]) == []
    )


def test_one_line_of_a_person_refuses_a_picture_and_is_not_quoted(tmp_path):
    save(tmp_path / "in" / "a", made.film())
    done = copies(tmp_path, ocr=lambda pixels: "R\nMUSTERMANN")
    (row,) = done.files.to_dict("records")
    assert row["status"] == "refused" and row["lines"] == 1 and row["characters"] == 11
    assert "reads as a name" in row["reason"] and "MUSTER" not in done.files.to_csv()
    done = copies(tmp_path, ocr=lambda pixels: "standing\nweight bearing\nportable left lateral")
    (row,) = done.files.to_dict("records")  # the published rule beside it
    assert row["status"] == "refused" and row["lines"] == 0 and row["characters"] >= 35


def test_the_reader_reads_a_strip_with_a_name_and_a_mark(tmp_path):
    """With rapidocr 3.10.0 and onnxruntime 1.32.0."""
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    pytest.importorskip("onnxruntime", reason="needs the extra ocr")
    plain = film(np.random.default_rng(2))
    read = burnt_in.reader(threads=1)
    text = read(strip(plain.copy(), LINES))
    assert len(burnt_in.personal(text.splitlines())) == 3 and "00471193" in text
    assert burnt_in.personal(read(strip(plain.copy(), ["R"], 2)).splitlines()) == []
    assert read(plain) == ""


def test_a_line_that_stands_alone_on_a_large_picture_is_read():
    """With rapidocr 3.10.0; of the whole picture alone 1 of 24 such lines was found, now 24."""
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    pytest.importorskip("onnxruntime", reason="needs the extra ocr")
    large = np.zeros((2000, 1600), np.uint8)
    cv2.putText(large, "MUSTERMANN, ERIKA", (60, 1900), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 230, 2)
    assert burnt_in.personal(burnt_in.reader(threads=1)(large).splitlines())


@pytest.mark.parametrize("shape", [(1001, 400), (2100, 1700), (4000, 1000)])
def test_whatever_is_a_third_as_wide_as_a_tile_lies_whole_in_one(shape):
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    corners = [(tile[0, 0], tile[-1, -1]) for tile in burnt_in._tiles(number)]
    boxes = [(*divmod(a, shape[1]), *divmod(b, shape[1])) for a, b in corners]
    size = burnt_in.TILE // 3
    for top in range(0, max(shape[0] - size, 1), 97):
        for left in range(0, max(shape[1] - size, 1), 97):
            bottom, right = (min(n, m + size) - 1 for n, m in zip(shape, (top, left), strict=True))
            assert any(
                t <= top and x <= left and bottom <= b and right <= r for t, x, b, r in boxes
            )


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ImportError, match=r"-e '\.\[ocr\]"):
        burnt_in.reader()


# ------------------------------------------------------------------------------------- real files
def test_real_copies_keep_their_pixels_and_lose_their_header(tmp_path):
    folder = os.path.join(os.environ.get("BONELIB_DATA", ""), "dicom-radiographs")
    if "BONELIB_DATA" not in os.environ or not os.path.isdir(folder):
        pytest.skip("needs dicom-radiographs in the folder BONELIB_DATA")
    done = deidentify.radiographs(folder, tmp_path / "out", ledger=tmp_path / "ledger.json")
    assert done.files["status"].value_counts().to_dict() == {"written": 15, "refused": 1}
    assert done.files["characters"].max() < 6
    for row in done.files.dropna(subset=["output"]).itertuples():
        before, was = dicom.read(os.path.join(folder, row.file))
        after, found = dicom.read(tmp_path / "out" / row.output)
        assert np.array_equal(before, after)
        assert found["inverted"] == was["inverted"] and found["sex"] == was["sex"]
        assert found["view"] == was["view"] and found["side"] == was["side"]
        header = pydicom.dcmread(os.path.join(folder, row.file), stop_before_pixels=True)
        content = (tmp_path / "out" / row.output).read_bytes()
        assert allowlist.left(content[:2000], allowlist.identity(header)) == []
        for keyword in ("InstitutionName", "StudyDescription", "PatientName", "StudyInstanceUID"):
            value = str(header.get(keyword, ""))
            assert len(value) < 4 or value.encode() not in content, (row.file, keyword)


def test_the_profile_is_that_of_the_standard():
    action = allowlist.action
    assert action(0x00100010) == "Z" and action(0x00100020) == "Z/D"
    assert action(0x00204000) == "X" and action(0x00080018) == "U"
    assert action(0x60023000) == action(0x50010010) == action(0x00291001) == "X"
    assert action(0x00280010) == ""
    known = {pydicom.datadict.keyword_for_tag(tag): a for tag, a in allowlist.profile().items()}
    kept = {
        word
        for word, form in allowlist.patterns().items()
        if word in known and form != allowlist.NOTHING
    }
    treated = {*allowlist.REPLACED, *allowlist.REMAPPED, *allowlist.SHIFTED}
    assert kept - treated == {"PatientSex", "PatientAge"}
