# Protects a hospital's export: each file is a row or has a reason, and reports find their study.
import json
import os
import shutil
import subprocess
import warnings

import dicom_files as made
import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from bonelib import __main__ as command_line
from bonelib import cohort, datasets, dicom, images, phantom
from bonelib.datasets import texts


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def film(number, seed=0, **elements):
    rng = np.random.default_rng(seed)
    array = np.clip(made.ramp(30, 24) + rng.integers(0, 200, (30, 24)), 0, 4095).astype(np.uint16)
    given = {"SOPInstanceUID": f"1.2.3.{number}", "WindowCenter": 2048, "WindowWidth": 4096}
    return made.film(array, **given | elements)


def reasons(files):
    return files.set_index("file")["reason"].dropna().to_dict()


# -------------------------------------------------------------------------------------- bad input
def test_every_file_of_a_bad_export_is_counted_and_named_and_the_rest_goes_on(tmp_path):
    root = tmp_path / "export"
    save(root / "A" / "good", film(1, ViewPosition="AP", PatientID="P1"))
    save(root / "A" / "bare", film(2)[132:])
    save(root / "A" / "first", film(1, ViewPosition="AP", PatientID="P1"))
    save(root / "A" / "twin", film(1, seed=1))
    save(root / "B" / "frames.dcm", film(3, NumberOfFrames=7))
    save(root / "B" / "empty.dcm", b"")
    save(root / "B" / "hollow.dcm", film(4, PixelData=b""))
    save(root / "B" / "cut.dcm", film(5)[:-300])
    save(
        root / "B" / "lie.dcm", film(6).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    )
    save(root / "B" / "text.dcm", b"no DICOM at all" * 20)
    save(root / "notes.txt", b"read me")
    save(tmp_path / "outside", film(9))
    (root / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    files, notes = dicom.walk(root)
    told = reasons(files)
    assert told["A/good"] == "a copy of A/first, with the same SOP Instance UID"
    assert "another content than" in told["A/twin"] and "7 frames" in told["B/frames.dcm"]
    assert "0 bytes" in told["B/empty.dcm"] and "not a DICOM file" in told["B/text.dcm"]
    assert told["pipe"] == "not a file"
    text = "\n".join(notes)
    assert "1 files are of other kinds (.txt)" in text and "1 links are not followed" in text

    table = datasets.read("dicom", root)
    assert "7 frames" in "\n".join(table.attrs["notes"])
    table.to_parquet(tmp_path / "table.parquet")  # attrs and all, as a run keeps it
    cache = images.cache(table, size=16, folder=tmp_path / "cache")
    unread = dict(zip(cache.excluded["image_id"], cache.excluded["reason"], strict=True))
    assert set(unread) == {"B/hollow.dcm", "B/cut.dcm", "B/lie.dcm"}
    assert "0 bytes" in unread["B/hollow.dcm"] and "not compressed so" in unread["B/lie.dcm"]
    assert "cut off" in unread["B/cut.dcm"]
    assert len(cache) == 2 and "no preamble" in "\n".join(cache.notes)
    pd.testing.assert_frame_equal(images.verify(table), cache.excluded)


def test_one_folder_of_very_many_files_is_read_in_order(tmp_path):
    content = film(1)
    for number in range(300):
        save(tmp_path / f"{number:04d}", content.replace(b"1.2.3.1", b"1.2.3.%d" % (number % 10)))
    done = []
    files, _ = dicom.walk(tmp_path, progress=lambda n, total: done.append((n, total)))
    assert len(files) == 300 and files["file"].is_monotonic_increasing
    assert files["reason"].isna().sum() == 10 and done[-1] == (300, 300)


def dicomdir(*references):
    listing = Dataset()
    listing.file_meta = FileMetaDataset()
    listing.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    listing.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    records = []
    for parts in references:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        records.append(record)
    listing.DirectoryRecordSequence = records
    listing.SOPClassUID, listing.SOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    return made.file_bytes(listing)


def test_a_dicomdir_leads_nowhere_but_into_its_folder(tmp_path):
    root = tmp_path / "disc"
    save(root / "IMG" / "A", film(1))
    save(root / "IMG" / "B", film(2))
    save(tmp_path / "secret", film(3))
    save(
        root / "DICOMDIR",
        dicomdir(["IMG", "A"], ["..", "secret"], [str(tmp_path / "secret")], ["IMG", "none"]),
    )
    files, notes = dicom.walk(root / "DICOMDIR")
    assert files["file"].tolist() == ["IMG/A"]
    text = "\n".join(notes)
    assert "1 files outside its folder" in text and "2 files that are not there" in text
    files, notes = dicom.walk(root)
    assert files["file"].tolist() == ["IMG/A", "IMG/B"]
    assert "1 files are not named in the DICOMDIR" in "\n".join(notes)
    assert datasets.read("dicom", root / "DICOMDIR")["image_id"].tolist() == ["IMG/A"]
    save(root / "DICOMDIR", b"rubbish" * 40)
    assert len(dicom.walk(root)[0]) == 2
    with pytest.raises(ValueError, match="can't be read"):
        dicom.walk(root / "DICOMDIR")
    with pytest.raises(FileNotFoundError):
        dicom.walk(tmp_path / "none")


# ---------------------------------------------------------------------------------------- the table
def test_headers_become_the_words_of_the_cohort(tmp_path):
    save(
        tmp_path / "a",
        film(
            1, PatientID="P1", StudyDate="20200102", AccessionNumber="A1", Laterality="L",
            BodyPartExamined="LOWER LEG", ViewPosition="AP", PatientSex="F", PatientAge="041Y",
            InstitutionName="H", ImagerPixelSpacing=[0.1, 0.1],
        ),
    )  # fmt: skip
    save(tmp_path / "b", film(2, PatientID=None, BodyPartExamined="EXTREMITY"))
    save(tmp_path / "c", film(3, PatientID="P1", BodyPartExamined="TIBFIB", ViewPosition="LL"))
    table = datasets.read("dicom", tmp_path)
    first = table.iloc[0]
    assert first["patient"] == "P1" and first["date"] == "2020-01-02" and first["center"] == "H"
    assert first["site"] == ("leg",) and first["view"] == ("frontal",) and first["side"] == "left"
    assert first["age"] == 41 and first["sex"] == "F" and first["spacing_mm"] == 0.1
    assert table["site"].tolist()[1:] == [(), ("fibula", "tibia")]
    assert pd.isna(table["patient"][1])
    text = "\n".join(table.attrs["notes"])
    assert "1 rows name no patient" in text and "EXTREMITY" in text and "no reports.csv" in text


def test_patients_of_two_issuers_are_two_patients(tmp_path):
    save(tmp_path / "a", film(1, PatientID="7", IssuerOfPatientID="X"))
    save(tmp_path / "b", film(2, PatientID="7", IssuerOfPatientID="Y"))
    assert datasets.read("dicom", tmp_path)["patient"].tolist() == ["7@X", "7@Y"]


def test_reports_are_joined_by_accession_else_by_patient_and_date_and_never_by_a_guess(tmp_path):
    visits = (
        ("A1", "P1", "20200101"), ("", "P2", "20200202"), ("A3", "P3", "20200303"),
        ("", "P4", "20200404"), ("", "P5", "20200505"), ("A6", "P6", "20200606"),
    )  # fmt: skip
    for number, (accession, patient, date) in enumerate(visits):
        elements = {"AccessionNumber": accession, "PatientID": patient, "StudyDate": date}
        save(tmp_path / str(number), film(number, **elements))
    save(tmp_path / "texts" / "six.txt", "Fracture réduite.".encode())
    save(tmp_path.parent / "outside.txt", b"secret")
    (tmp_path / "reports.csv").write_text(
        "accession,patient,date,path,text\n"
        "A1,P9,2021-01-01,,by accession\n"
        ",P2,2020-02-02,,by visit\n"
        "A3,P3,2020-03-03,../outside.txt,\n"
        ",P4,20200404,,first\n,P4,2020-04-04,,second\n"
        ",P5,2019-05-05,,another day\n"
        "A6,P6,06/06/2020,texts/six.txt,\n"
    )
    table = datasets.read("dicom", tmp_path)
    reports = dict(zip(table["patient"], table["report"], strict=True))
    assert reports["P1"] == "by accession" and reports["P2"] == "by visit"
    assert reports["P6"] == "Fracture réduite."
    assert all(pd.isna(reports[p]) for p in ("P3", "P4", "P5"))
    text = "\n".join(table.attrs["notes"])
    for part in (
        "3 of 6 radiographs have a report",
        "outside.txt: it lies outside the folder",
        "1 radiographs fit several reports",
        "reports.csv, date: 1 dates were read with the day first",
        "3 reports belong to no radiograph",
    ):
        assert part in text, (part, text)
    assert "report" in cohort.sealed_columns(table)


def test_labels_that_contradict_each_other_are_missing(tmp_path):
    for number, patient in enumerate(("P1", "P2", "P3")):
        save(tmp_path / str(number), film(number, PatientID=patient))
    (tmp_path / "labels.csv").write_text(
        "patient,tumor\nP1,tumor\nP2,normal\nP2,tumor\nP3,normal\nP8,normal\n"
    )
    table = datasets.read("dicom", tmp_path)
    assert table["tumor"].tolist()[0] == "tumor" and pd.isna(table["tumor"][1])
    text = "\n".join(table.attrs["notes"])
    assert "1 values of patient have contradicting labels" in text and "1 rows of labels" in text
    (tmp_path / "labels.csv").write_text("who,tumor\nP1,tumor\n")
    with pytest.raises(ValueError, match="image_id, accession or patient"):
        datasets.read("dicom", tmp_path)


# ----------------------------------------------------------------------------- the phantom's export
@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return phantom.write(tmp_path_factory.mktemp("drawn"), images=12, size=96, seed=3)


def test_the_phantoms_export_gives_back_greys_patients_and_labels(drawn, tmp_path):
    from PIL import Image

    plain = datasets.read("phantom", drawn)
    words = {name: f"Synthetic report on {name}." for name in plain["image_id"][:4]}
    out = phantom.write_dicom(drawn, tmp_path / "out", reports=words)
    table = datasets.read("dicom", out)
    assert len(table) == len(plain) == 12
    assert set(table["source"]) == {"phantom"}
    assert "12 of 12 radiographs say that they are synthetic" in "\n".join(table.attrs["notes"])
    labels = pd.read_csv(out / "labels.csv")
    order = labels["image_id"].map(table.set_index("image_id")["path"])
    inverted = 0
    for path, name in zip(order, plain["image_id"], strict=True):
        pixels, facts = dicom.read(path, bits=8)
        inverted += facts["inverted"]
        with Image.open(drawn / "images" / name) as image:
            assert np.array_equal(pixels, np.asarray(image.convert("L")))
    assert 0 < inverted < 12
    table = table.set_index("image_id").loc[labels["image_id"]].reset_index()
    for column in ("patient", "tumor", "malignancy", "view", "side", "sex"):
        assert table[column].tolist() == plain[column].tolist(), column
    assert table["report"].notna().sum() >= 4
    assert np.abs(table["age"].astype(float) - plain["age"].astype(float)).max() < 1
    again = phantom.write_dicom(drawn, tmp_path / "again", reports=words)
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()


def test_an_export_carries_the_reports_of_its_folder_and_one_row_is_made_of_each(drawn, tmp_path):
    out = phantom.write_dicom(drawn, tmp_path / "out")
    table = datasets.read("dicom", out)
    index = pd.read_csv(drawn / "reports.csv", dtype=str).set_index("accession")
    told = texts.report_texts(table, out)
    assert table["report"].notna().all() and set(told["accession"]) == set(index.index)
    assert sorted(i for some in told["images"] for i in some) == sorted(table["image_id"])
    for row in told.itertuples():
        own = index.loc[row.accession]
        assert row.text == (drawn / own["path"]).read_text().strip()
        assert row.names == (own["name"],) and row.birth_date == own["birth_date"]
        assert row.language == own["language"] and row.patient == own["patient"]
    files = texts.report_texts(datasets.read("phantom", drawn), drawn)
    assert len(files) == len(told) and files["annotation"].str.startswith("T1\t").all()
    assert {row.text.decode().strip() for row in files.itertuples()} == set(told["text"])


def test_equal_reports_of_two_patients_are_two_and_an_index_may_be_missing(tmp_path):
    table = pd.DataFrame(
        {
            "image_id": list("abcd"),
            "patient": ["P1", "P2", "P2", "P3"],
            "study": ["S1", "S2", "S2", "S3"],
            "report": ["Normal.", "Normal.", "Normal.", pd.NA],
        }
    )
    told = texts.report_texts(table, tmp_path)
    assert told["images"].tolist() == [("a",), ("b", "c")] and told["names"].tolist() == [(), ()]
    assert told["language"].isna().all() and told["annotation"].isna().all()
    (tmp_path / "reports.csv").write_text(
        "accession,patient,date,text,name,language\n1,P2,2020-01-01,x,Doe^Jane,en\n"
        "2,P2,2021-01-01,y,Roe^Jane,en\n"
    )
    told = texts.report_texts(table, tmp_path)
    assert told["names"].tolist() == [(), ("Doe^Jane", "Roe^Jane")]  # a name of before a marriage
    assert texts.report_texts(table.head(0), tmp_path).empty


def test_the_cache_of_an_export_is_the_cache_of_its_pictures(drawn, tmp_path):
    """Squashed, both are read whole; padded, a JPEG may be drafted, so that is not compared."""
    out = phantom.write_dicom(drawn, tmp_path / "out")
    labels = pd.read_csv(out / "labels.csv")
    table = datasets.read("dicom", out).set_index("image_id").loc[labels["image_id"]].reset_index()
    options = {"size": 48, "fit": "squash"}
    ours = images.cache(table, folder=tmp_path / "a", **options)
    plain = images.cache(datasets.read("phantom", drawn), folder=tmp_path / "b", **options)
    assert np.array_equal(ours.images, plain.images)
    assert ours.files["format"].eq("DICOM").all() and ours.excluded.empty
    assert ours.files["mode"].str.startswith("MONOCHROME").all()


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy of dicom3tools")
def test_dciodvfy_finds_no_error_in_the_phantoms_export(drawn, tmp_path):
    """Debian's dicom3tools 1.00~20220618."""
    out = phantom.write_dicom(drawn, tmp_path / "out")
    for path in out.glob("DICOM/*/*/*/*"):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
        assert "Error" not in done.stdout + done.stderr, done.stderr


def test_safe_reports_find_their_safe_radiographs(drawn, tmp_path):
    """One ledger, two commands: what 03 and 04 read is joined as in the original export."""
    pytest.importorskip("dicognito")
    export, out = phantom.write_dicom(drawn, tmp_path / "export"), tmp_path / "copies"
    for source, target in ((export, out), (export / "reports.csv", out / "reports.csv")):
        command = ["deidentify", str(source), str(target), "--ledger", str(tmp_path / "ledger")]
        assert command_line.main(command) == 0
    before, after = datasets.read("dicom", export), datasets.read("dicom", out)
    book = json.loads((tmp_path / "ledger" / "ledger.json").read_text())
    after = after.set_index("image_id").loc[before["image_id"].map(book["files"])]
    languages = {}
    for table, root in ((before, export), (after.reset_index(), out)):
        told = texts.report_texts(table, root)
        languages[root] = told.set_index("accession")["language"].to_dict()
    pseudonyms = before["accession"].map(book["accessions"])
    assert after["accession"].tolist() == pseudonyms.tolist() and after["report"].notna().all()
    assert {book["accessions"][k]: v for k, v in languages[export].items()} == languages[out]
    for (_, old), (_, new) in zip(before.iterrows(), after.iterrows(), strict=True):
        kept = [word for word in new["report"].split() if "<" not in word]
        assert len(kept) > 20 and sum(word in old["report"] for word in kept) > 0.95 * len(kept)
        assert old["accession"] not in new["report"] and new["tumor"] == old["tumor"]


def test_a_phantom_export_is_refused_into_a_folder_of_something_else(drawn, tmp_path):
    save(tmp_path / "thesis.txt", b"mine")
    with pytest.raises(ValueError, match="other files"):
        phantom.write_dicom(drawn, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"phantom\.json"):
        phantom.write_dicom(tmp_path, tmp_path / "out")


def test_the_sixteen_real_files_are_a_table(tmp_path):
    folder = os.path.join(os.environ.get("BONELIB_DATA", ""), "dicom-radiographs")
    if "BONELIB_DATA" not in os.environ or not os.path.isdir(folder):
        pytest.skip("needs dicom-radiographs in the folder BONELIB_DATA")
    table = datasets.read("dicom", folder)
    refused = {row["file"]: row["reason"] for row in table.attrs["refused"]}
    assert "colour" in refused["vpop-pro/jpeg-baseline.dcm"]
    cache = images.cache(table, size=64, folder=tmp_path)
    assert len(cache) + len(cache.excluded) + len(refused) == 16
    assert len(cache) == 15 and not len(cache.excluded)


def test_the_command_line_reads_and_copies_an_export(drawn, tmp_path, capsys):
    pytest.importorskip("dicognito")
    export = phantom.write_dicom(drawn, tmp_path / "export")
    save(export / "DICOM" / "report", film(1, Modality="SR"))
    assert command_line.main(["data", "dicom", str(export), "--out", str(tmp_path / "t.csv")]) == 0
    told = capsys.readouterr().out
    assert (
        "12 radiographs" in told
        and "left out: DICOM/report: not a radiograph" in told
        and "0 of 12 files" in told
    )
    assert len(datasets.read(str(tmp_path / "t.csv"), tmp_path)) == 12
    command = ["deidentify-dicom", str(export), str(tmp_path / "out")]
    command += ["--ledger", str(tmp_path / "ledger.json")]
    assert command_line.main([*command, "--report", str(tmp_path / "report")]) == 0
    told = capsys.readouterr().out
    assert "deidentify-dicom is now called deidentify" in told
    assert "12 written, 1 refused" in told and "PatientAge, PatientSex" in told
    elements = pd.read_csv(tmp_path / "report" / "elements.csv").set_index("keyword")
    assert elements["done"]["StudyDate"] == "shifted"
    assert (tmp_path / "report").stat().st_mode & 0o077 == 0  # it says which copy is whose
    assert command_line.main([*command, "--report", str(tmp_path / "out" / "report")]) == 2
    copies = datasets.read("dicom", tmp_path / "out")
    assert set(copies["source"]) == {"phantom"}  # a copy says so as well
    assert copies["tumor"].notna().all() and not copies["report"].notna().any()
    assert len(copies) == 12 and copies["patient"].str.fullmatch("[A-Z0-9]{12}").all()
