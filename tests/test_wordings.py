"""Protects what labels are made of: doubt and negation, names without capitals, other wordings."""

import csv
import os
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import wordings

from bonelib import deidentify, phantom, reports
from bonelib.phantom import reports as drawn
from bonelib.phantom import sampling, slots
from bonelib.reports import intake, structure

CASES = Path(os.environ.get("BONELIB_DATA", "/nowhere")).parent / "cases"

# The statements of polarity.csv, then siblings: language, kind, meaning, statement.
STATEMENTS = [
    line.split("|")
    for line in """\
fr|fracture|uncertain|L'examen ne permet pas d'exclure une fracture du scaphoïde.
fr|fracture|uncertain|Fracture suspectée du cinquième métacarpien.
fr|fracture|absent|Élimination d'une fracture.
fr|osteosarcoma|absent|Ostéosarcome éliminé.
fr|osteosarcoma|absent|Pas d'élément en faveur d'un ostéosarcome.
fr|osteosarcoma|absent|Aspect non évocateur d'ostéosarcome.
fr|fracture|absent|Le trait de fracture n'est plus visible.
fr|fracture|uncertain|Douleurs sur chute, fracture ?
fr|fracture|uncertain|Fracture ? à confronter à la clinique.
en|osteosarcoma|absent|Findings are not suspicious for osteosarcoma.
en|fracture|absent|Fracture of the distal radius is no longer visible.
en|fracture|uncertain|? fracture
en|fracture|uncertain|Cannot rule out fracture.
fr|fracture|uncertain|Fracture possible.
fr|fracture|uncertain|Fracture probable.
fr|osteosarcoma|uncertain|Ostéosarcome ?
fr|fracture|absent|Fracture éliminée.
fr|fracture|absent|L'examen élimine une fracture.
fr|fracture|present|Fracture non déplacée.
fr|fracture|present|Fracture du radius avec probable arthrose.
fr|fracture|present|Fracture du radius, possible lésion associée.
fr|fracture|present|Fracture du radius. Luxation ?
fr|fracture|present|La fracture n'est pas consolidée.
fr|fracture|present|Trait de fracture toujours visible.
fr|lesion|present|Lésion probablement bénigne du fémur.
fr|lesion|present|Lésion suspecte du fémur.
fr|osteosarcoma|uncertain|Lésion lytique sans liseré de sclérose évoquant un ostéosarcome.
fr|fracture|uncertain|Fracture non déplacée probable.
fr|fracture|uncertain|Fracture (?) du radius.
fr|fracture|uncertain|L'absence d'anomalie n'élimine pas une fracture.
fr|fracture|uncertain|Ces clichés ne permettent pas d'éliminer une fracture.
fr|fracture|absent|Ces clichés permettent d'éliminer une fracture.
fr|fracture|absent|L'hypothèse d'une fracture est écartée.
fr|fracture|absent|Pas de suspicion radiologique de fracture.
fr|fracture|uncertain|Pas de luxation et probable fracture.
fr|fracture|uncertain|Pas de luxation, suspicion de fracture.
fr|fracture|uncertain|Chute, ? fracture.
en|fracture|uncertain|Fracture likely.
en|fracture|absent|Fracture absent.
en|fracture|uncertain|A fracture is not ruled out.
en|fracture|uncertain|The study does not exclude a fracture.
en|fracture|uncertain|Fall ? fracture.
en|fracture|uncertain|Fracture or dislocation?
en|fracture|uncertain|Unable to exclude a fracture.
en|fracture|uncertain|No dislocation but possible fracture.
en|osteosarcoma|uncertain|Lytic lesion without sclerotic rim suggestive of osteosarcoma.
en|osteosarcoma|uncertain|Osteosarcoma versus Ewing sarcoma.
en|fracture|absent|CT has excluded a fracture.
en|fracture|absent|No lesion suspicious for fracture.
en|lesion|present|Lesion likely benign.
en|fracture|present|The fracture is not displaced.
en|fracture|present|Fracture not seen previously.
en|fracture|present|Healing fracture, callus is not yet seen.
en|fracture|uncertain|Fracture not fully excluded.
en|fracture|uncertain|A hairline fracture is hard to exclude.
en|fracture|uncertain|It is not clear whether this is a fracture.
en|fracture|present|There is no question that this is a fracture.
en|fracture|absent|Fracture suspected clinically is not seen.
en|fracture|uncertain|Fracture possible and dislocation absent.
fr|fracture|absent|La fracture suspectée du scaphoïde n'est pas retrouvée.
fr|fracture|uncertain|Fracture possible et luxation absente.
fr|fracture|present|Il ne fait aucun doute qu'il y a une fracture.
fr|fracture|uncertain|Une fracture est difficile à éliminer.
fr|fracture|uncertain|On ne peut affirmer une fracture.
""".splitlines()
]

# The lines of names.csv, then siblings: language, text, what must go ("" where all stays).
NAMES = [
    line.split("|")
    for line in """\
en|pt john smith, 45 yo m.|john smith
en|patient john smith seen.|john smith
en|pt is john smith.|john smith
en|referred by smith.|smith
en|ordering: smith j.|smith j
en|rad: j. smith|j. smith
en|r/v with smith.|smith
en|Results called to smith at 1400.|smith
fr|patient dupont jean.|dupont jean
fr|pat. : dupont jean|dupont jean
fr|M dupont|dupont
fr|m. dupont|dupont
fr|pt dupont lucette, 45 ans.|dupont lucette
fr|demandé par lebrun|lebrun
fr|avis lebrun.|lebrun
fr|interne : c. petit|c. petit
fr|manip : julie|julie
fr|Hôpital Sud.|Hôpital Sud
fr|né(e) en 51|51
en|Smith's fracture of the wrist.|
fr|suivi à l'hôpital nord.|hôpital nord
fr|suivi à la clinique de l'est.|clinique de l'est
fr|né en 51, suivi.|51
fr|née en juin 68.|juin 68
fr|née en 1963.|1963
en|born in 48.|48
en|transferred from north hospital for advice.|north hospital
en|seen at oakwood orthopedic clinic.|oakwood orthopedic clinic
en|patient name: turner, george|turner, george
en|d/w smith today.|smith
fr|nom : marchand|marchand
fr|le jeune hugo boite.|hugo
fr|5 m de chute.|
fr|m. droit fémoral, calcification.|
fr|la clinique est rassurante.|
fr|le centre au nord du trait est lytique.|
fr|né à 36 semaines.|
fr|avis chirurgical souhaité.|
fr|patient âgé, os porotique.|
en|born at 36 weeks.|
en|mr imaging of the thigh is advised.|
en|the patient reports night pain.|
en|dr to review.|
en|referred by primary care.|
en|hospital course unremarkable.|
fr|vit à tourcoing avec sa fille.|tourcoing
fr|vit à l'étage, habite au rez-de-chaussée.|
fr|45 chemin des vignes|45 chemin des vignes
fr|vit à 3 km, après 2 cours de chimiothérapie.|
fr|m. blanc se plaint.|blanc
fr|vue par mme petit ce jour.|petit
fr|m. petit rond, atrophie.|
fr|patient marchal, jacques sexe m|marchal, jacques
fr|RX-240517-088|RX-240517-088
en|mrs bone attends.|bone
en|letter to dr white, white cell count 11.|white
en|mr hip shows an effusion.|
en|living in halifax with his wife.|halifax
en|lives in sheltered housing, lives in a bungalow.|
en|fell on 3 uneven road surfaces.|
en|seen by dr a hope|a hope
fr|Réponse de Huvos grade 2, groupe 3 de Catterall.|
fr|Voie de Hardinge puis corset de Cheneau.|
fr|Prothèse massive Phenix en place.|
fr|Angle de Nötzli à 68 degrés, Cauchoix 3.|
fr|Stade 3 de Lagrange et Rigault.|
fr|Confraternellement, Martin Vif|Martin Vif
fr|Recommandations de la Société Française de Radiologie.|
en|Sign of Gage, Gibson approach, Terry Thomas sign.|
en|The Midas Rex burr, Trident cup and Palacos cement were used.|
en|With Williams flexion exercises, on Adcal D3.|
en|Guidance of the Royal College of Radiologists.|
en|Clay-shoveler fracture of C7. May be chronic.|
en|Ossification centres of the elbow.|
en|Reviewed with Anna Gibson.|Anna Gibson
""".splitlines()
]


@pytest.mark.parametrize(("language", "kind", "meant", "statement"), STATEMENTS)
def test_a_statement_is_read_as_it_is_meant(language, kind, meant, statement):
    facts = reports.facts(statement, reports.language(language))
    assert {f.polarity for f in facts if f.value == kind} == {meant}


@pytest.mark.parametrize(("language", "text", "identity"), NAMES)
def test_a_name_without_capitals_is_found_and_words_stay(language, text, identity):
    spans = deidentify.find(text, reports.language(language))
    at = text.index(identity) if identity else 0
    gone = {i for s in spans for i in range(s.start, s.end)}
    named = {i for i in range(at, at + len(identity)) if text[i].isalnum()}
    assert named <= gone and {i for i in gone if text[i].isalnum()} <= named


@pytest.mark.parametrize(
    ("language", "text", "identities"),
    [
        ("fr", "habite 12 rue des acacias à bourges.", ("12 rue des acacias", "bourges")),
        (
            "fr",
            "domicilié au 4 bis, avenue jean jaurès, 69007 lyon.",
            ("4 bis, avenue jean jaurès", "69007 lyon"),
        ),
        ("fr", "habite au 3 place de la gare à sedan, seul", ("3 place de la gare", "sedan")),
        ("en", "lives at 12 acacia road, bradford.", ("12 acacia road", "bradford")),
        ("en", "at 14 elm grove, leeds ls2 9jt", ("14 elm grove", "leeds", "ls2 9jt")),
        ("en", "lives at 5 the green, kendal.", ("5 the green", "kendal")),
    ],
)
def test_an_address_without_capitals_is_found_and_no_more(language, text, identities):
    spans = deidentify.find(text, reports.language(language))
    assert {text[s.start : s.end] for s in spans} == {*identities}


def test_clinical_words_stay_and_identities_go_in_whole_reports():
    """The part ``look`` of the lines: half of a per cent may be lost of what could be a name."""
    path = Path(__file__).parents[1] / "benchmarks" / "wordings" / "reports.csv"
    lost = words = 0
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["part"] == "look" and "{" not in row["marked"] and "<" not in row["marked"]:
                text, said = row["marked"], reports.language(row["language"])
                words += len(text.split())
                lost += sum(len(text[s.start : s.end].split()) for s in deidentify.find(text, said))
    assert words > 2000 and lost <= 0.005 * words


@pytest.mark.skipif(not CASES.is_dir(), reason="no folder of cases beside the data")
def test_the_shared_statements_are_those_of_this_file():
    with (CASES / "polarity.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (r["language"], r["kind"], r["expected"], r["statement"]) for r in csv.DictReader(file)
        ]
    assert {*rows} <= {*map(tuple, STATEMENTS)}
    with (CASES / "names.csv").open(encoding="utf-8", newline="") as file:
        rows = [(r["language"], r["text"], r["identity"]) for r in csv.DictReader(file)]
    assert {*rows} <= {*map(tuple, NAMES)}


def test_a_text_without_capitals_and_index_is_held_back():
    english = reports.language("en")
    text = "pt john smith, 45 yo m. no fracture."
    assert deidentify.report(text, english).held.startswith("no capitals")
    known = reports.PatientIndex(names=("SMITH^John",))
    out = deidentify.report(text, english, index=known)
    assert not out.held and "smith" not in out.text and "no fracture" in out.text
    assert not deidentify.report("No fracture is seen. MRI advised.", english).held
    assert not intake.uncapitalised("PAS DE FRACTURE VISIBLE SUR CES CLICHES.")
    assert not intake.uncapitalised("Pas de fracture visible.") and intake.uncapitalised(
        "irm du genou : pas de lésion, IRM normale, pas de fracture."
    )


def test_a_question_mark_before_a_word_ends_no_sentence():
    text = "Fall, ? fracture. Pain? No lesion."
    ends = [text[a:b] for a, b in structure.sentences(text)]
    assert ends == ["Fall, ? fracture.", "Pain?", "No lesion."]


@pytest.mark.parametrize("language", drawn.LANGUAGES)
def test_the_drawn_reports_hold_such_wordings_and_they_are_read(language):
    """Each wording of the synthetic reports states what its row says, read by the rules."""
    study = next(s for s in slots.studies(sampling.plan(200, 3)) if s.case.entity)
    own, count = reports.language(language), 0
    for (section, topic, polarity), frames in drawn._frames(language).items():
        for frame in frames if section == "reworded" else ():
            filled = slots.Slots(study, language, 3, Random(count))
            filled.polarity = polarity
            text = phantom.layout.sentence(frame.format_map(filled))
            wanted = {(v, p) for k, v, p in filled.facts if k == "entity"} or {(topic, polarity)}
            found = {(f.value, f.polarity) for f in reports.facts(text, own)}
            assert wanted <= found, (text, found)
            count += 1
    assert count >= 15


def test_other_wordings_state_what_the_first_did(monkeypatch):
    cases = sampling.plan(80, 5)
    studies = list(slots.studies(cases))
    after = [drawn.compose(s, seed=5) for s in studies]
    plain = {
        name: {key: v for key, v in drawn._frames(name).items() if key[0] != "reworded"}
        for name in drawn.LANGUAGES
    }
    monkeypatch.setattr(drawn, "_frames", plain.__getitem__)
    before = [drawn.compose(s, seed=5) for s in studies]
    assert [r.facts for r in after] == [r.facts for r in before]
    assert [r.index for r in after] == [r.index for r in before]
    changed = sum(a.text != b.text for a, b in zip(after, before, strict=True))
    assert 0.1 * len(studies) < changed < 0.8 * len(studies)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fr", "Loge de Henry libre, gouttière de Guérin respectée."),
        ("fr", "Traitement par Avastin, puis relais par Augmentin."),
        ("fr", "Prothèse Corail, tige Aesculap en place."),
        ("fr", "Prélèvement positif à Bartonella."),
        ("en", "Acumed plate, no loosening."),
        ("en", "Culture grew Citrobacter."),
        ("en", "Albee graft, Bigelow manoeuvre."),
    ],
)
def test_eponyms_drugs_implants_makers_and_germs_stay(name, text):
    assert deidentify.find(text, reports.language(name)) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("fr", "Dr Corail, chirurgien.", "Corail"),
        ("fr", "Madame Broca est revue ce jour.", "Broca"),
        ("fr", "Cher confrère, je vous adresse M. Adson.", "Adson"),
        ("en", "Dr Bigelow reviewed the films.", "Bigelow"),
        ("en", "Mrs Abernethy attended the clinic.", "Abernethy"),
    ],
)
def test_a_person_who_is_called_like_a_term_goes(name, text, found):
    spans = deidentify.find(text, reports.language(name))
    assert found in [text[s.start : s.end] for s in spans]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("en", "Transferred to Nkosinathi Tertiary by road.", ["Nkosinathi Tertiary"]),
        ("en", "Ewing primary of the femur; lung base clear.", []),
        ("en", "Typed on Monday 13th, seen at Monday 9 am.", ["Monday 13th"]),
        ("en", "Folder MVH 61204, dose 300 mg.", ["MVH 61204"]),
        ("en", "Scan of 12.VIII.1947, cyst 18 x 11 mm.", ["12.VIII.1947"]),
        ("en", "LM to ring him before the weekend.", ["LM"]),
        ("en", "1. Oyelaran, Temitope (new) is stable.", ["Oyelaran, Temitope"]),
        ("en", "Walks with a Zimmer. No Wormian bones. On a Philips Achieva.", []),
        ("en", "Her mother, Mrs Peel (Winifred), agreed.", ["Peel", "Winifred"]),
        ("en", "Farms at Plot 88, Kwaggafontein.", ["Plot 88, Kwaggafontein"]),
        ("fr", "Le protocole Euroloc et la variance de Gelberman.", []),
        ("fr", "Le dossier de Marchetti est complet.", ["Marchetti"]),
        ("fr", "DIOUF Serigne, 27 ans, docker.", ["DIOUF Serigne"]),
        ("fr", "Transmissions de la nuit du 8 au 9 mai.", ["8 au 9 mai"]),
        ("fr", "Le sergent Vaitoare est revu.", ["Vaitoare"]),
        # what first tries at these rules took, or let through
        (
            "en",
            "Mr Walker fell. Walker and Dr Page, Ms Head, Mr French.",
            ["Walker", "Walker", "Page", "Head", "French"],
        ),
        (
            "en",
            "Mr Robinson, 45. Today Robinson walks with the Okonkwo sisters.",
            ["Robinson", "Robinson", "Okonkwo"],
        ),
        ("en", "BP 120/80. A 10-15mm lesion. 875-125mg. Power 14/5. Skull Base. INR to check.", []),
        ("en", "Brother: Osteosarcoma. Frank pus. Amber fluid. Zone 2, Flexor tendon.", []),
        ("en", "Flat 5, 12 Abbey Road, Cork T12 W8KP", ["Flat 5, 12 Abbey Road, Cork", "T12 W8KP"]),
        ("en", "Name: Abbott\nSioux Falls, 10/06/2023", ["Abbott", "Sioux Falls", "10/06/2023"]),
        ("en", "Taken by the radiograapher DM.", ["DM"]),
        ("fr", "TA 14/8. Plaquettes 120 000. ECG fait. Chirurgie : Arthroplastie.", []),
        (
            "fr",
            "M. Salle. Mme Porte. CH-1211 Genève. Le traitement de Kermarrec.",
            ["Salle", "Porte", "CH-1211 Genève", "Kermarrec"],
        ),
        # words that simplemma 2.0.0 does not know (findings/unchanging_words_are_unknown.sh)
        ("fr", "Velours.\nAu Parcours et au Recours.\nRabais.", []),
    ],
)
def test_what_whole_reports_taught_is_found_and_no_more(name, text, found):
    """Kinds that the part ``look`` of ``letters.csv`` and ``varied.csv`` showed."""
    spans = deidentify.find(text, reports.language(name))
    assert [text[s.start : s.end].rstrip(".,") for s in spans] == found


def test_whole_reports_keep_their_words_and_lose_their_identities():
    """The part ``look`` of reports whose authors had not seen the rules, as the benchmark does."""
    rows = [row for row in wordings.rows("letters.csv") if row["part"] == "look"]
    scores = [wordings.judged(row["marked"], reports.language(row["language"])) for row in rows]
    found, right, lost = ([x for score in scores for x in score[k]] for k in range(3))
    words = sum(score[3] for score in scores)
    assert len(found) > 250 and sum(found) >= 0.94 * len(found)
    assert sum(right) >= 0.98 * len(right) and len(lost) <= 0.002 * words
