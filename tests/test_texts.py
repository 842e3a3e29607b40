"""Protects the reports: nothing is kept before the gate, and a set without them passes."""

import pandas as pd
import pytest

from bonelib import cohort, deidentify, reports
from bonelib.datasets.texts import report_texts
from bonelib.experiments.texts import reading, safety


class Open:
    """A run that is being made, which remembers what it was asked to keep."""

    finished = False

    def __init__(self):
        self.tables = {}

    def save_table(self, name, table):
        self.tables[name] = table

    def table(self, name):
        return self.tables[name]


def sources(tmp_path, *, annotated="Martin Dupont"):
    text = "Patient : M. Martin Dupont\nRésultat : pas de fracture du fémur gauche.\n"
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    start = text.index(annotated)
    note = f"T1\tPATIENT {start} {start + len(annotated)}\t{annotated}\n"
    (tmp_path / "one.ann").write_text(note, encoding="utf-8")
    table = cohort.empty(2)
    table["image_id"] = ["a", "b"]
    table["study"], table["patient"] = "s", "p"
    table["report"] = str(tmp_path / "one.txt")
    index = "study,patient,language,name,birth_date\ns,p,fr,Dupont^Martin,1980-01-02\n"
    (tmp_path / "reports.csv").write_text(index, encoding="utf-8")
    return report_texts(table, tmp_path)


def plan(**changed):
    given = dict(languages=("fr", "en"), mode="tags", caption_fields=("site",), test="fold0")
    return safety.Plan(**given | dict(compared=9, limits={"PATIENT": 0.995}) | changed)


def test_a_report_becomes_safe_once_for_all_its_images_and_is_kept_behind_the_gate(tmp_path):
    run = Open()
    found = sources(tmp_path)
    assert found["images"].tolist() == [("a", "b")] and found["names"][0] == ("Dupont^Martin",)
    safe = safety.make_safe(run, found, plan(), key=b"")
    assert run.tables == {}, "nothing is saved before the gate"
    safety.pass_on(run, safe, plan())
    kept = "\n".join(table.to_csv() for table in run.tables.values())
    assert set(run.tables) == {"reports", "images", "removed", "leaks"}
    assert "Dupont" not in kept and "Martin" not in kept and "1980" not in kept
    assert run.tables["images"]["image_id"].tolist() == ["a", "b"]
    assert safe.measured["recall"].eq(1).all()


def test_a_recall_below_its_limit_keeps_nothing(tmp_path):
    run, found = Open(), sources(tmp_path, annotated="fémur gauche")  # which no rule removes
    safe = safety.make_safe(run, found, plan(), key=b"")
    with pytest.raises(ValueError, match="Identities leak"):
        safety.pass_on(run, safe, plan())
    assert run.tables == {}


def test_no_reports_are_no_error(tmp_path):
    none = sources(tmp_path).head(0)
    run, safe = Open(), safety.make_safe(Open(), none, plan(), key=b"")
    safety.pass_on(run, safe, plan())
    assert safe.measured.empty and all(len(table) == 0 for table in (safe.reports, safe.images))
    assert "0 of 0 reports" in safety.read_leaks(safe)
    assert reading.metrics(
        safe,
        reports.agreement(*2 * [pd.DataFrame(columns=["report", "kind", "value", "polarity"])])[
            :0
        ].assign(language=""),
        pd.DataFrame(columns=["tower", "value"]),
    ) == {"reports": 0, "held": 0}


def test_choices_that_there_are_not_are_refused_at_once():
    with pytest.raises(ValueError) as caught:
        safety.plan(None, languages="fr,xx", mode="paint", caption_fields="site,tumor")
    said = str(caught.value)
    assert all(name in said for name in ("'xx'", "'paint'", "'tumor'")), said
    assert set(deidentify.MODES) < set(said.replace(",", " ").replace(".", " ").split())
    assert safety.LIMITS["PATIENT"] > 0.99
