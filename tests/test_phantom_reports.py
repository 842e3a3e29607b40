"""Protects the synthetic reports: marks on every identity, facts that the pictures bear out."""

import hashlib
import re
from collections import Counter, defaultdict
from datetime import date
from random import Random

import pandas as pd
import pytest

from bonelib import captions, cohort, phantom
from bonelib.cohort import SIGNS
from bonelib.phantom import acquisition, files, identities, layout, reports, sampling, slots
from bonelib.phantom.lesions import ENTITIES

LABELS = set(slots.labels().values())
SEED, IMAGES, ARCHIVE = 70, 420, 160
INDEX_COLUMNS = "report study accession patient date language path name birth_date".split()
EPONYMS = (
    "Ewing", "Paget", "Codman", "Brodie", "Ollier", "Maffucci", "Lodwick", "Jaffe", "Campanacci",
    "Kellgren", "Lawrence", "Salter", "Harris",
)  # fmt: skip


@pytest.fixture(scope="module")
def cases():
    plan = sampling.plan(IMAGES, SEED)
    return [*plan, *(sampling.archive_case(SEED, i) for i in range(ARCHIVE))]


@pytest.fixture(scope="module")
def written(cases):
    """Each study with its report."""
    return [(study, reports.compose(study, seed=SEED)) for study in slots.studies(cases)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "a"
    return phantom.write_reports(folder, images=24, archive=6, seed=SEED)


def outside(report):
    """The text with every annotated stretch taken out."""
    text = list(report.text)
    for _, start, end in report.spans:
        text[start:end] = ["\0"] * (end - start)
    return "".join(text)


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# identities ------------------------------------------------------------------------------------


def test_offsets_are_those_of_the_written_text(folder):
    index = pd.read_csv(folder / "reports.csv")
    labels = Counter()
    for row in index.itertuples():
        text = (folder / row.path).read_bytes().decode()
        lines = (folder / row.path).with_suffix(".ann").read_text().splitlines()
        spans = []
        for number, line in enumerate(lines, start=1):
            name, place, words = line.split("\t")
            label, start, end = place.split()
            assert name == f"T{number}" and label in LABELS
            assert text[int(start) : int(end)] == words and words.strip() == words != ""
            labels[label] += 1
            spans.append((int(start), int(end)))
        assert spans == sorted(spans)
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False)), "no overlaps"
    assert {"PATIENT", "PERSON", "DATE", "INSTITUTION"} <= set(labels)


def test_every_label_occurs_in_each_language(written):
    seen = defaultdict(Counter)
    for _, report in written:
        seen[report.index["language"]].update(label for label, *_ in report.spans)
    assert set(seen) == {"fr", "en"}
    for language, labels in seen.items():
        assert set(labels) == LABELS, language


def test_each_report_names_its_patient(written):
    for _, report in written:
        last, first = report.index["name"].split(", ")
        named = [
            identities.plain(report.text[s:e]).lower()
            for label, s, e in report.spans
            if label == "PATIENT"
        ]
        assert any(identities.plain(last).lower() in n for n in named), report.index["name"]
        assert any(identities.plain(first).lower() in n for n in named), report.index["name"]


def test_nothing_of_the_person_index_stands_outside_an_annotation(written):
    words = {r["name"] for r in files.rows("people.csv", text=True) if r["word"] == "1"}
    checked = 0
    for _, report in written:
        # of Salter and Harris, Kellgren and Lawrence, none is the patient
        rest = re.sub("salter-harris|kellgren-lawrence", "", outside(report), flags=re.I)
        capitals = report.text == report.text.upper()
        last, first = report.index["name"].split(", ")
        assert report.index["accession"] not in rest
        names = [(first, last), (last, first)]
        for one, two in names:
            for gap in (" ", ", ", "  ", "^"):
                assert f"{one}{gap}{two}".lower() not in rest.lower()
        if capitals and last in words:
            continue  # OS LONG is a long bone, whoever the patient
        for form in {last, last.upper(), first, first.upper()} - {"Rose", "May"}:
            checked += 1
            assert not re.search(rf"(?<!\w){re.escape(form)}(?!\w)", rest), (form, rest)
    assert checked > 4 * len(written) * 0.8


def test_no_number_date_or_address_stands_outside_an_annotation(written):
    named = files.rows("calendar.csv", text=True, kind="month")
    months = "|".join(row[language] for row in named for language in ("fr", "en"))
    traces = re.compile(
        rf"\d{{4,}}|\d[/.-]\d|@|www|\.example|(?:\+|00)\d|\d \d\d|\d+ ?(?:{months})\b", re.I
    )
    for _, report in written:
        rest = outside(report)
        assert not traces.search(rest), traces.search(rest)
        assert "\ue000" not in report.text and "\ue002" not in report.text


def test_an_age_is_an_identity_above_89_alone(written):
    ages = [
        int(report.text[s:e]) for _, report in written for label, s, e in report.spans
        if label == "AGE"
    ]  # fmt: skip
    assert ages and min(ages) >= 90
    told = [r for s, r in written if re.search(rf"\b{s.case.age}\b", outside(r))]
    assert len(told) > 0.3 * len(written), "other ages stay in the text"


def test_eponyms_are_no_identities(written):
    seen = Counter()
    for _, report in written:
        rest = outside(report).lower()
        for name in EPONYMS:
            seen[name] += len(re.findall(rf"\b{name.lower()}\b", rest))
        for _, start, end in report.spans:  # Lawrence and Harris are common names as well
            marked = report.text[start:end].lower()
            assert not re.search(rf"\b({'|'.join(EPONYMS[:11])})\b".lower(), marked)
    assert all(seen[name] for name in EPONYMS), seen


def test_names_that_are_words_stand_beside_the_words(written):
    words = {r["name"].lower() for r in files.rows("people.csv", text=True) if r["word"] == "1"}
    both = [
        report
        for _, report in written
        if words & {report.text[s:e].lower() for label, s, e in report.spans if label != "DATE"}
    ]
    assert len(both) > 0.1 * len(written)
    plain = " ".join(outside(report).lower() for _, report in written)
    assert all(re.search(rf"\b{w}\b", plain) for w in ("petite", "long", "short", "white", "hand"))


def test_lexicons_are_large_enough():
    rows = files.rows("people.csv", text=True)
    assert len({r["name"] for r in rows if r["kind"].startswith("first")}) >= 300
    assert len({r["name"] for r in rows if r["kind"] == "surname"}) >= 500
    places = files.rows("places.csv", text=True)
    assert len({(r["kind"], r["name"]) for r in places if r["kind"] in ("town", "street")}) >= 250


# numbers ---------------------------------------------------------------------------------------


def test_national_numbers_have_right_check_digits(written):
    """Worked out anew from the digits as they stand in the text."""
    counted = Counter()
    for _, report in written:
        for label, start, end in report.spans:
            if label != "NATIONAL_ID":
                continue
            digits = re.sub(r"[^0-9AB]", "", report.text[start:end].upper())
            birth = report.index["birth_date"]
            if len(digits) == 15:
                number = int(digits[:13].replace("2A", "19").replace("2B", "18"))
                assert (number + int(digits[13:])) % 97 == 0
                assert digits[1:5] == birth[2:4] + birth[5:7]
            elif len(digits) == 11:
                lead = "2" if birth >= "2000" else ""
                assert (int(lead + digits[:9]) + int(digits[9:])) % 97 == 0
                assert digits[:6] == birth[2:4] + birth[5:7] + birth[8:]
            else:
                weighted = sum(int(d) * w for d, w in zip(digits, range(10, 0, -1), strict=True))
                assert len(digits) == 10 and weighted % 11 == 0
            counted[len(digits)] += 1
    assert min(counted[n] for n in (10, 11, 15)) > 3


def test_keys_of_published_numbers():
    assert identities.french_key("2550814168025") == 38  # INSEE's form, Code de la sécurité sociale
    assert identities.french_key("184022A004025") == 97 - 1840219004025 % 97
    assert identities.belgian_key("930518223", born=1993) == 61
    assert identities.belgian_key("170730033", born=2017) == 84
    assert identities.british_key("943476591") == 9  # the NHS data dictionary's example


def test_birth_date_and_age_agree(written):
    for study, report in written:
        born, day = (date.fromisoformat(report.index[c]) for c in ("birth_date", "date"))
        years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
        assert years == study.case.age


@pytest.mark.parametrize(
    ("number", "french", "english"),
    [
        (21, "vingt et un", "twenty-one"),
        (70, "soixante-dix", "seventy"),
        (71, "soixante et onze", "seventy-one"),
        (80, "quatre-vingts", "eighty"),
        (81, "quatre-vingt-un", "eighty-one"),
        (99, "quatre-vingt-dix-neuf", "ninety-nine"),
    ],
)
def test_numbers_in_words(number, french, english):
    assert identities.in_words("number", number, "be") == french
    assert identities.in_words("number", number, "uk") == english


def test_dates_take_many_forms_and_the_month_is_first_in_the_usa_alone():
    day = date(2021, 3, 12)
    for country, first in (("fr", "12/03/2021"), ("uk", "12/03/2021"), ("us", "03/12/2021")):
        forms = {identities.written_date(day, country, Random(n)) for n in range(400)}
        assert len(forms) >= 12 and first in forms
        assert ("03/12/2021" in forms) == (country == "us")
    assert "douze mars deux mille vingt et un" in {
        identities.written_date(day, "be", Random(n)) for n in range(400)
    }


# facts -----------------------------------------------------------------------------------------


def test_facts_agree_with_the_scene_without_exception(written):
    kinds = Counter()
    for study, report in written:
        seen = [acquisition.describe(case) for case in study.cases]  # one report speaks for all
        views = {case.view for case in study.cases}
        there = {study.case.distractor} | ({"lesion"} if study.case.entity else set())
        entities = {p: set() for p in ("present", "absent", "uncertain")}
        for kind, value, polarity in report.facts:
            kinds[kind, polarity] += 1
            assert polarity in ("present", "absent", "uncertain")
            if kind == "entity":
                entities[polarity].add(value)
                continue
            if kind == "attribute":
                sign, term = value.split("=")
                assert term in SIGNS[sign]
                true = {told[sign] == term for told in seen}
                assert len(true) == 1, "images that differ in a sign"
                true = true.pop()
            else:
                true = (
                    value
                    in {
                        "site": {s.removesuffix("-joint") for s in study.case.sites},
                        "side": {study.case.side},
                        "view": views,
                        "finding": there,
                    }[kind]
                )
            assert true or polarity != "present", (kind, value, polarity)
            assert not true or polarity != "absent", (kind, value, polarity)
        own = {study.case.entity} - {""}
        assert entities["present"] <= own and not entities["absent"] & own
        assert not entities["uncertain"] or own <= entities["uncertain"]
    for kind in ("finding", "entity", "attribute"):
        assert all(kinds[kind, p] for p in ("present", "absent", "uncertain")), kinds


def test_captions_of_the_facts_are_those_of_the_table(written):
    rows = [(r.study, *fact) for _, r in written for fact in r.facts]
    facts = captions.facts_table(pd.DataFrame(rows, columns=list(reports.FACT_COLUMNS)))
    truth = {study.case.study: study for study, _ in written}
    known = Counter()
    for row in facts.to_dict("records"):
        study = truth[row["image_id"]]
        wanted = study.signs | {
            "side": study.case.side,
            "entity": study.case.entity,
            "fracture": "fractured" if study.case.distractor == "fracture" else "intact",
            "hardware": int(study.case.distractor == "implant"),
        }
        for column, value in wanted.items():
            if not pd.isna(row[column]):
                known[column] += 1
                assert row[column] == value, (column, row["image_id"])
        assert row["site"] in ((), study.sites)
        assert set(row["view"]) <= set(study.views)
    assert set(known) == {*SIGNS, "side", "entity", "fracture", "hardware"}
    assert len(captions.write(facts, fields=captions.FIELDS)) == len(facts)


def test_facts_use_the_terms_of_the_tables(written):
    terms = {
        "site": set(cohort.SITES),
        "side": set(cohort.SIDES),
        "view": set(cohort.VIEWS),
        "entity": set(cohort.task("entity").classes),
        "finding": {"lesion", *reports.FINDINGS},
        "attribute": {
            f"{sign}={value}" for sign, value in captions.words("en") if sign in captions.SIGNS
        },
    }
    for _, report in written:
        for kind, value, _ in report.facts:
            assert value in terms[kind], (kind, value)


def test_a_report_never_speaks_of_one_thing_in_two_ways(written):
    for _, report in written:
        stances = defaultdict(set)
        for kind, value, polarity in report.facts:
            stances[kind, value].add(polarity)
        assert all(len(found) == 1 for found in stances.values()), stances


def test_what_the_facts_say_stands_in_the_text(written):
    """A fact's words are searched in reports whose words are not mistyped."""
    words = {"fr": {}, "en": {}}
    for row in files.rows("words.csv", text=True):
        if row["language"] and row["kind"] in ("site", "side", "view"):
            words[row["language"]].setdefault((row["kind"], row["value"]), []).append(row["word"])
    found = total = 0
    for _, report in written:
        text = identities.plain(re.sub(r"\s+", " ", outside(report))).lower()
        for kind, value, _ in report.facts:
            if kind in ("site", "side", "view"):
                total += 1
                options = words[report.index["language"]][kind, value]
                found += any(
                    re.search(rf"\b{re.escape(identities.plain(w).lower())}(?!\w)", text)
                    for w in options
                )
    assert found / total > 0.97


# language --------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", reports.LANGUAGES)
def test_sixty_frames_or_more_are_used_in_each_language(written, language):
    used = {f for _, r in written if r.index["language"] == language for f in r.frames}
    assert len(used) >= 60, len(used)
    texts = [r.text for _, r in written if r.index["language"] == language]
    assert len(set(texts)) == len(texts)


def test_a_third_of_the_reports_deny_or_doubt(written):
    share = sum(any(p != "present" for *_, p in r.facts) for _, r in written) / len(written)
    doubt = sum(any(p == "uncertain" for *_, p in r.facts) for _, r in written) / len(written)
    assert share >= 0.3 and doubt >= 0.15


@pytest.mark.parametrize("language", reports.LANGUAGES)
def test_every_frame_can_be_filled_and_nobody_stands_unmarked(language, cases):
    study = next(s for s in slots.studies(cases) if s.case.entity)
    marked = Counter()
    for number, ((section, _, polarity), frames) in enumerate(reports._frames(language).items()):
        filled = slots.Slots(study, language, SEED, Random(number))
        filled.polarity = polarity
        secrets = {filled.secret(slot) for _ in range(20) for slot in slots.labels()}
        secrets |= {filled.patient.last, filled.patient.first, filled.patient.maiden}
        for frame in frames:
            text, spans = layout.parted(frame.format_map(filled))
            assert text and "{" not in text, (section, frame)
            rest = "".join(
                "\0" if any(s <= i < e for _, s, e in spans) else c for i, c in enumerate(text)
            )
            left = [s for s in secrets if len(s) > 2 and re.search(rf"\b{re.escape(s)}\b", rest)]
            assert not left, (frame, left)
            marked.update(label for label, *_ in spans)
    assert set(marked) == LABELS


def test_frames_name_nobody_themselves():
    rows = files.rows("frames.csv", text=True)
    assert all(None not in row and None not in row.values() for row in rows), "cells by comma"
    title = re.compile(r"\b(Drs?|Pr|Docteur|Mme|Mlle|M\.|Mr|Mrs|Ms) (?!\{)")
    assert not [row["text"] for row in rows if title.search(row["text"])]
    assert not [row["text"] for row in rows if re.search(r"\d{3,}|\d[/.-]\d|@", row["text"])]


def test_topics_and_polarities_are_the_same_in_both_languages():
    french, english = (set(reports._frames(language)) for language in ("fr", "en"))
    assert {k for k in french ^ english} == {("header", "national_be", "")}
    spoken = {row["value"] for row in files.rows("words.csv", text=True, kind="entity")}
    assert spoken == {kind for kinds in ENTITIES.values() for kind in kinds}


def test_the_forms_of_real_reports_occur(written):
    texts = [r.text for _, r in written]
    capitals = [t for t in texts if t == t.upper()]
    assert 0.04 < len(capitals) / len(texts) < 0.2
    assert all(t == identities.plain(t) for t in capitals), "capitals have no accents"
    assert any(re.search(r"\S  \S", t) for t in texts)
    assert any(len(max(t.splitlines(), key=len)) <= 95 for t in texts)
    names = " ".join(t[s:e] for (_, r), t in zip(written, texts, strict=True)
                     for label, s, e in r.spans if label in ("PATIENT", "PERSON"))  # fmt: skip
    assert all(form in names for form in ("-", "^", ". ", "Van ", "De ", "'"))
    assert any(re.search(r"\bnée?\b", outside(r)) for _, r in written)


# layout ----------------------------------------------------------------------------------------


def test_marks_survive_everything_done_to_the_text():
    name, day = layout.mark("PATIENT", "Noël Œuvrard"), layout.mark("DATE", "1er mai")
    marked = f"Vu chez {name} une fracture, {day}."
    for change in (
        lambda t: t,
        layout.capitals,
        lambda t: layout.mistyped(t, Random(1), faults=9),
        lambda t: layout.unevenly_spaced(t, Random(1)),
        lambda t: layout.wrapped(t, 12),
        lambda t: layout.wrapped(layout.capitals(layout.mistyped(t, Random(2), faults=3)), 10),
    ):
        text, spans = layout.parted(change(marked))
        words = [text[s:e] for _, s, e in spans]
        assert [w.lower().replace("œ", "oe") for w in words] in (
            ["noël oeuvrard", "1er mai"],
            ["noel oeuvrard", "1er mai"],
        )


def test_slips_change_words_outside_of_marks_alone():
    marked = f"{layout.mark('PERSON', 'lambert')} fracture visible du poignet gauche"
    text, spans = layout.parted(layout.mistyped(marked, Random(3), faults=3))
    assert text[: spans[0][2]] == "lambert" and text != layout.parted(marked)[0]
    assert len(text.split()) == 6


# files -----------------------------------------------------------------------------------------


def test_the_same_settings_give_the_same_bytes_and_a_call_is_continued(folder, tmp_path):
    again = phantom.write_reports(tmp_path / "b", images=24, archive=6, seed=SEED)
    whole = digest(folder)
    assert digest(again) == whole
    (again / "reports.csv").unlink()  # as a killed call leaves it
    (again / "reports" / "facts.csv").unlink()
    victim = sorted((again / "reports").glob("*.txt"))[3]
    victim.unlink()
    (again / "reports" / "x.txt.1.part").write_text("half")
    assert digest(phantom.write_reports(again, images=24, archive=6, seed=SEED)) == whole
    other = phantom.write_reports(tmp_path / "c", images=24, archive=6, seed=SEED + 1)
    assert digest(other) != whole


def test_tables_have_one_row_a_report_and_only_stated_facts(folder, cases):
    index = pd.read_csv(folder / "reports.csv")
    assert list(index) == INDEX_COLUMNS and index["report"].is_unique
    plan = [*sampling.plan(24, SEED), *(sampling.archive_case(SEED, i) for i in range(6))]
    assert index["study"].tolist() == list(dict.fromkeys(case.study for case in plan))
    assert len(list((folder / "reports").glob("*.txt"))) == len(index)
    facts = pd.read_csv(folder / "reports" / "facts.csv")
    assert tuple(facts) == reports.FACT_COLUMNS and set(facts["report"]) <= set(index["report"])
    assert not facts.duplicated().any()


def test_one_language_alone_can_be_asked_for(tmp_path):
    folder = phantom.write_reports(tmp_path, images=24, seed=1, languages=("en",))
    assert set(pd.read_csv(folder / "reports.csv")["language"]) == {"en"}
    with pytest.raises(ValueError, match="languages.*Choose another folder"):
        phantom.write_reports(tmp_path, images=24, seed=1)
    with pytest.raises(ValueError, match="choose of fr, en"):
        phantom.write_reports(tmp_path / "x", images=24, languages=("de",))


def test_a_finished_cohort_without_reports_gets_them_and_its_pictures_stay(tmp_path):
    bare = phantom.write(tmp_path / "a", images=8, archive=2, size=64, reports=False)
    before = digest(bare)
    assert not [name for name in before if name.startswith("reports")]
    told = phantom.write(bare, images=8, archive=2, size=64)
    after = digest(told)
    assert {k: v for k, v in after.items() if not k.startswith("reports")} == before
    studies = set(pd.read_csv(bare / "cohort_extra.csv")["study"])
    studies |= set(pd.read_csv(bare / "archive" / "facts.csv")["study"])
    assert set(pd.read_csv(told / "reports.csv")["study"]) == studies
    assert digest(phantom.write(tmp_path / "b", images=8, archive=2, size=64)) == after
