# Protects tables that people bring: any separator, encoding, decimal sign and way to write a date.
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bonelib import captions, datasets, runs, tables
from bonelib.datasets import texts
from bonelib.reports import sources

ROWS = (("report", "name", "born"), ("r1", "Lefèvre Hélène", "14/03/1975"), ("r2", "Ça, où", ""))


def written(file, rows=ROWS, *, separator=",", encoding="utf-8", end="\n", head=""):
    lines = (separator.join(f'"{c}"' if separator in c else c for c in row) for row in rows)
    file.write_bytes((head + end.join(lines) + end).encode(encoding))
    return file


# ---------------------------------------------------------------------------- letters, separators
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "mac_roman"]
)
def test_a_table_reads_alike_however_a_program_saved_it(tmp_path, separator, encoding):
    notes = []
    for end in ("\n", "\r\n", "\r"):
        file = written(tmp_path / "a.csv", separator=separator, encoding=encoding, end=end)
        frame = tables.read(file, notes)
        assert frame.columns.tolist() == ["report", "name", "born"]
        assert frame["name"].tolist() == ["Lefèvre Hélène", "Ça, où"]
        assert frame.index.tolist() == [2, 3] and frame["born"].isna().tolist() == [False, True]
        assert [(n, dict(zip(ROWS[0], r, strict=True))) for n, r in enumerate(ROWS[1:], 2)] == list(
            tables.rows(file, [])
        )
    told = "\n".join(notes)
    assert ("parted by" in told) == (separator != ",")
    guesses = {"cp1252": "Windows-1252", "mac_roman": "Mac Roman"}
    assert ("is not UTF-8" in told) == (encoding in guesses) and guesses.get(encoding, "") in told


def test_a_file_of_two_encodings_keeps_the_accents_of_both(tmp_path):
    lines = ["id,name", "1,Hélène", "2,Élodie", "3,Zoë"]
    data = [line.encode("cp1252" if line.startswith("2") else "utf-8") for line in lines]
    (tmp_path / "a.csv").write_bytes(b"\n".join(data))
    notes = []
    assert tables.read(tmp_path / "a.csv", notes)["name"].tolist() == ["Hélène", "Élodie", "Zoë"]
    assert notes == [
        "a.csv is UTF-8, but 1 lines are not, the first is line 3: they were read as Windows-1252; "
        "check names with accents."
    ]


def test_the_separator_is_the_one_that_rows_agree_on(tmp_path):
    for text, columns in (
        ("id;value, in mm\n1;2,5\n2;3,5\n", ["id", "value, in mm"]),
        ('id,text\n1,"a; b; c"\n2,"d; e; f"\n', ["id", "text"]),
        ("id;text\n1;un, deux, trois\n2;quatre\n", ["id", "text"]),
        ("sep=;\nid;text\n1;a\n", ["id", "text"]),
        ("image_id\n1\n2\n", ["image_id"]),
        ('id\ttext\n1\t"5"" wide, high"\n', ["id", "text"]),
        ("id;text;;\n1;a;;\n2;b;;\n", ["id", "text"]),
        ("id,text\n1,a,\n2,b,\n", ["id", "text"]),
    ):
        (tmp_path / "a.csv").write_text(text, encoding="utf-8")
        frame = tables.read(tmp_path / "a.csv", [])
        assert frame.columns.tolist() == columns and frame.iloc[0, 0] == "1", text


def test_an_excel_sheet_is_read_whatever_its_name_says(tmp_path):
    pytest.importorskip("openpyxl")
    born = [pd.Timestamp("1975-03-14"), pd.NaT]
    frame = pd.DataFrame({"image_id": ["007", "8"], "age": [12.5, 3.0], "born": born})
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        frame.to_excel(book, sheet_name="one", index=False)
        frame.to_excel(book, sheet_name="two", index=False)
    (tmp_path / "a.xlsx").rename(tmp_path / "labels.csv")
    notes = []
    found = tables.read(tmp_path / "labels.csv", notes)
    assert found.iloc[0].tolist() == ["007", "12.5", "1975-03-14"]
    assert found.iloc[1, :2].tolist() == ["8", "3"]
    assert notes == ["labels.csv: the first sheet was read, 1 others were not."]
    (tmp_path / "old.csv").write_bytes(b"\xd0\xcf\x11\xe0 an .xls of 1997")
    with pytest.raises(
        ValueError, match="old.csv is no .xlsx workbook .*save the sheet as old.csv"
    ):
        tables.read(tmp_path / "old.csv", [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a,b\n1,2\n3,4,5\n", "line 3: it is no row of this table; expected 2 cells, found 3"),
        (b'a,b\n1,2\n\n3,"open\n4,5\n', "line 4: a quotation mark is opened and never closed"),
        (b"a,b, a\n1,2,3\n", "columns a occur more than once"),
        (b"", "it is empty"),
        (b"\xff\xfea\0,", "it is no table"),
    ],
)
def test_what_is_no_table_is_refused_with_file_and_line(tmp_path, text, told):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ValueError, match=f"a.csv.*{told}"):
        tables.read(tmp_path / "a.csv", [])


# ---------------------------------------------------------------------------- numbers
def test_decimal_commas_become_points_in_columns_of_numbers_alone(tmp_path):
    rows = ("image_id;age;note;dose;grams", "1,5;12,5;un, deux;1.5;1,500", "2;13;;2,5;2,750")
    (tmp_path / "a.csv").write_text("\n".join(rows))
    notes = []
    frame = tables.read(tmp_path / "a.csv", notes)
    assert frame["age"].tolist() == ["12.5", "13"] and frame["image_id"][2] == "1,5"
    assert frame["note"][2] == "un, deux" and frame["dose"].tolist() == ["1.5", "2,5"]
    assert frame["grams"].tolist() == ["1,500", "2,750"]
    assert "a.csv: 1 decimal commas were read as points (age)." in notes
    assert sum("may part thousands" in note for note in notes) == 2


def test_a_french_cohort_is_a_cohort(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    rows = "image_id;path;age;bone_age;sex", "é1;a.png;12,5;150,5;F", "é2;b.png;9,25;110;M"
    (tmp_path / "mine.csv").write_text("\r\n".join(rows), encoding="cp1252")
    table = datasets.read("table", tmp_path)
    assert table["age"].tolist() == [12.5, 9.25] and table["bone_age"].tolist() == [150.5, 110]
    told = "\n".join(table.attrs["notes"])
    assert "Windows-1252" in told and "3 decimal commas were read as points" in told
    ids = [row["image_id"] for row in runs.paths.csv_rows(tmp_path / "mine.csv")]
    assert ids == table["image_id"].tolist() == ["é1", "é2"]


# ---------------------------------------------------------------------------- dates
@pytest.mark.parametrize(
    ("cell", "date"),
    [
        *((cell, "1975-03-04") for cell in ("1975-03-04", "19750304", "1975/3/4", "04/03/1975")),
        *((cell, "1975-03-04") for cell in ("4.3.1975", "4. 3. 1975", "04-03-75", "4 mars 1975")),
        *((cell, "1975-03-04") for cell in ("04/03/1975 00:00:00", "1975-03-04T10:11", "4-Mar-75")),
        *((cell, "2001-08-01") for cell in ("1er août 2001", "1 August 2001", "1. Aug. 2001")),
        *((cell, None) for cell in ("31/02/1990", "27467", "unknown", "13.13.1990", "4 foo 1990")),
    ],
)
def test_a_date_is_read_in_every_way_it_is_written(cell, date):
    assert tables.parse_date(cell) == date


def test_the_column_decides_whether_the_day_comes_first():
    def read(*cells):
        notes = []
        dates = tables.dates(pd.Series(cells, range(2, 2 + len(cells))), notes, where="a.csv, date")
        return [None if pd.isna(d) else d for d in dates], "\n".join(notes)

    assert read("25/12/2024", "03/04/2025")[0] == ["2024-12-25", "2025-04-03"]
    dates, told = read("12/25/2024", "03/04/2025", "")
    assert (
        dates == ["2024-12-25", "2025-03-04", None] and "2 dates were read with the month" in told
    )
    assert "1 dates were not understood, line 4" in told
    dates, told = read("25/12/2024", "12/25/2024", "03/04/2025", "05/05/2025", None)
    assert dates == ["2024-12-25", "2024-12-25", None, "2025-05-05", None]
    assert "1 dates were not understood, line 4" in told
    dates, told = read("03/04/2025")
    assert dates == ["2025-04-03"] and "none of them shows whether that is right" in told
    dates, told = read("born in 1951", "LEFEVRE")
    assert dates == [None, None] and "2 dates were not understood, line 2, 3" in told
    assert "LEFEVRE" not in told, "a cell may be a name"


# ---------------------------------------------------------------------------- who reads by it
@pytest.mark.parametrize(
    "name", ["cp1252_comma", "cp1252_semicolon", "utf16_tab", "utf8_comma", "utf8_semicolon"]
)
@pytest.mark.parametrize("index", ["cp1252", "french_dates", "iso", "semicolon"])
def test_reports_of_a_french_excel_are_read_with_any_index(case, name, index):
    folder, notes = case("french-csv"), []
    index = folder / f"index_{index}.csv"
    one, two = sources.read(folder / f"{name}.csv", index=index, notes=notes)
    right = list(sources.read(folder / "utf8_comma.csv", index=folder / "index_iso.csv"))
    assert [one.text.replace("\r\n", "\n"), two.text.replace("\r\n", "\n")] == [
        r.text for r in right
    ]
    assert one.index.names == ("LEFÈVRE Hélène",) and str(one.index.birth) == "1975-03-14"
    assert str(two.index.birth) == "1961-07-02" and (one.patient, two.patient) == ("P1", "P2")
    assert "not understood" not in "\n".join(notes)


def test_an_index_that_does_not_fit_the_reports_is_told(tmp_path):
    (tmp_path / "r1.txt").write_text("a")
    index = tmp_path / "index.csv"
    index.write_text("report;name;birth_date\nr1.txt;Doe;someday\n7;Roe;1.2.51\n")
    notes = []
    (one,) = sources.read(tmp_path, index=index, notes=notes)
    assert one.index.names == ("Doe",) and one.index.birth is None
    told = "\n".join(notes)
    assert "index.csv, birth_date: 1 dates were not understood, line 2" in told
    assert "index.csv: 1 of 2 rows belong to no report here" in told
    table = tmp_path / "reports.csv"
    table.write_text("text,birth_date\na,14/03/1975\nb,never\n")
    one, two = sources.read(table, notes=notes)
    assert str(one.index.birth) == "1975-03-14" and two.index.birth is None
    assert "reports.csv, birth_date: 1 dates were not understood." in notes


def test_birth_dates_beside_a_cohort_are_read_day_first(tmp_path):
    (tmp_path / "reports.csv").write_text(
        "study;patient;name;birth_date\nS1;P1;Hélène;03/04/1975\nS2;P2;Zoë;?\n", encoding="cp1252"
    )
    table = pd.DataFrame(
        {"image_id": ["a", "b"], "report": ["one", "two"]}
        | {"patient": ["P1", "P2"], "study": ["S1", "S2"]}
    )
    found = texts.report_texts(table, tmp_path)
    assert found["birth_date"][0] == "1975-04-03" and found["names"][0] == ("Hélène",)
    told = "\n".join(found.attrs["notes"])
    assert "Windows-1252" in told and "birth_date: 1 dates were not understood, line 3" in told


def test_a_bank_of_captions_reads_as_excel_saves_it(tmp_path):
    file = tmp_path / "bank.csv"
    rows = "image_id;language;fields;caption", 'i1;FR;"view;site";Un genou, de face.', "i2;en;;x"
    file.write_text("\r\n".join(rows) + "\r\n", encoding="cp1252")
    bank, notes = captions.read_bank(file, fields=("view", "site"), language="fr")
    assert bank == {"i1": ["Un genou, de face."]}
    assert "1 captions of the bank are not in 'fr' and are left out." in notes


def export(folder, number):
    """Copy radiographs of the shared case, one a patient, as a hospital would send them."""
    source = Path(os.environ.get("BONELIB_DATA", "")).parent / "cases" / "one-patient-id"
    if "BONELIB_DATA" not in os.environ or not source.is_dir():
        pytest.skip("needs the case one-patient-id beside BONELIB_DATA")
    for n in range(number):
        shutil.copyfile(source / f"img{n}.dcm", folder / f"img{n}.dcm")


def test_labels_of_an_export_are_checked_with_their_lines(tmp_path):
    export(tmp_path, 3)
    rows = "image_id;tumor;bone_age", "img0.dcm;1;150,5", "img1.dcm;0;", "img2.dcm; Tumor ;12"
    (tmp_path / "labels.csv").write_text("\r\n".join(rows), encoding="utf-16")
    table = datasets.read("dicom", tmp_path).set_index("image_id").sort_index()
    assert table["tumor"].tolist() == ["tumor", "normal", "tumor"]
    assert table["bone_age"].dropna().tolist() == [150.5, 12]
    told = "\n".join(table.attrs["notes"])
    assert "1 decimal commas" in told and "0 and 1 were read as normal and tumor" in told
    (tmp_path / "labels.csv").write_text("image_id,tumor,bone_age\nimg0.dcm,tumour,x\n")
    with pytest.raises(ValueError, match="labels.csv has 2 problem") as error:
        datasets.read("dicom", tmp_path)
    assert "tumor, line 2: found 'tumour'; expected normal, tumor" in str(error.value)


def test_what_is_odd_about_many_reports_is_said_once_with_a_count(tmp_path):
    export(tmp_path, 5)
    accessions = datasets.read("dicom", tmp_path)["accession"].fillna("").tolist()
    texts = [f"Résultat {n} : lésion.".encode("cp1252") for n in range(3)]
    for n, text in enumerate([*texts, b"\xff\xfea\0b"]):
        (tmp_path / f"r{n}.txt").write_bytes(text)
    rows = [f"{a};r{n}.txt" for n, a in enumerate(accessions)]
    (tmp_path / "reports.csv").write_text("\n".join(["accession;path", *rows]))
    notes = datasets.read("dicom", tmp_path).attrs["notes"]
    told = "\n".join(notes)
    assert "3 reports, e.g. r0.txt: is not UTF-8: it was read as Windows-1252" in told
    assert "1 reports, e.g. r3.txt: is cut off or no text: it begins as UTF-16." in told
    assert "1 reports, e.g. r4.txt: there is no such file." in told
    assert sum("Windows-1252" in note for note in notes) == 1


def test_labels_of_an_export_may_be_an_excel_sheet(tmp_path):
    pytest.importorskip("openpyxl")
    export(tmp_path, 2)
    labels = pd.DataFrame({"image_id": ["img0.dcm", "img1.dcm"], "kl_grade": [2.0, None]})
    labels.to_excel(tmp_path / "labels.xlsx", index=False)
    table = datasets.read("dicom", tmp_path)
    assert table["kl_grade"][0] == "2" and pd.isna(table["kl_grade"][1])
