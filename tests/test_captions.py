"""Protects what captions say: the named fields, in words of each language, and nothing else."""

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bonelib import captions, cohort, reports
from bonelib.captions import grammar
from bonelib.phantom.signs import SIGNS

LANGUAGES = captions.languages()
BANKS = Path(captions.__file__).parent


def cases(rows=24):
    """Rows in which every field is known and takes many of its values."""
    table = cohort.empty(rows)
    table["image_id"] = [f"case {n}" for n in range(rows)]
    for column, values in {
        "view": [(view,) for view in cohort.VIEWS],
        "site": [("femur",), ("hand",), ("knee", "tibia"), ("hip bone",)],
        "side": list(cohort.SIDES),
        "sex": ["F", "M"],
        "age": [4, 15, 30, 50, 80],
        **SIGNS,
        **{t.name: t.classes for t in cohort.TASKS.values() if t.classes},
        "hardware": [0, 1],
        "bone_age": [10.0, 50.0, 96.0, 130.0, 200.0],
    }.items():
        repeated = itertools.islice(itertools.cycle(values), rows)
        table[column] = pd.Series(list(repeated), dtype="object")
    return table


def forms(language, field, value):
    """How a value is said: as it stands alone, or as a sentence inflects it."""
    both = (form(language, field, value) for form in (grammar.word, grammar.inflected))
    return "|".join(dict.fromkeys(both))


def vocabulary(language):
    """For each field, the phrases that name its values."""
    found = {field: set() for field in captions.FIELDS}
    for (field, value), phrase in captions.words(language).items():
        if phrase:
            home = "signs" if field in SIGNS else field
            found[home].add(forms(language, field, value).lower())
    for task in cohort.TASKS.values():
        found[task.name] |= {word.lower() for word in task.words[language] if word}
    return found


def says(sentence, phrase):
    either = "|".join(map(re.escape, phrase.lower().split("|")))
    return re.search(rf"(?<!\w)({either})(?!\w)", sentence.lower()) is not None


# ---------------------------------------------------------------------- wording
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_depends_on_its_image_and_the_seed_alone(language):
    table = cases()
    first = captions.write(table, fields=captions.FIELDS, language=language, seed=3)
    again = captions.write(table, fields=captions.FIELDS, language=language, seed=3)
    assert first == again
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = captions.write(table.iloc[order], fields=captions.FIELDS, language=language, seed=3)
    assert shuffled == [first[i] for i in order], "neither on other rows nor on the order"
    assert captions.write(table, fields=captions.FIELDS, language=language, seed=4) != first


def test_equal_rows_are_worded_in_several_ways():
    table = pd.concat([cases(1)] * 30, ignore_index=True)
    table["image_id"] = [f"i{n}" for n in range(30)]
    assert len(set(captions.write(table, fields=("view", "site", "signs")))) > 5


def test_captions_read_as_written():
    row = cases(1).assign(destruction="moth-eaten", cortex="breached", site=[("femur",)], age=15.0)
    row = row.drop(columns=[s for s in SIGNS if s not in ("destruction", "cortex")])
    fields = ("view", "side", "site", "age", "sex", "signs")
    english = {captions.write(row, fields=fields, seed=s)[0] for s in range(40)}
    assert (
        "Frontal radiograph of the left femur, female, adolescent. "
        "Moth-eaten bone destruction, cortex breached." in english
    )
    french = {captions.write(row, fields=fields, language="fr", seed=s)[0] for s in range(40)}
    assert (
        "Radiographie de face : fémur, côté gauche, sexe féminin, sujet adolescent. "
        "Ostéolyse mitée, rupture corticale." in french
    )
    german = {captions.write(row, fields=fields, language="de", seed=s)[0] for s in range(40)}
    assert (
        "Frontale Röntgenaufnahme des linken Femurs, weiblich, im Jugendalter. "
        "Mottenfraßartige Knochendestruktion, Kortikalis durchbrochen." in german
    )
    assert len(english) == len(french) == len(german) == 6  # three openings, two orders of signs
    sides = captions.write(row.assign(site=[()]), fields=("side", "site"), seed=1)
    assert sides[0].endswith(" of the left side."), "a side is said where no site is known"


# The gender of a site is seen in the article of its genitive.
GENDERS = {
    "der": ["upper limb", "lower limb", "hand", "ulna", "shoulder", "hip", "tibia", "fibula"]
    + ["spine"],
    "des": ["pelvis", "wrist", "radius", "elbow", "humerus", "hip bone", "femur", "knee", "leg"]
    + ["ankle", "foot"],
}


def test_german_inflects_by_gender_case_and_number():
    assert sorted(sum(GENDERS.values(), [])) == sorted(cohort.SITES)
    for article, sites in GENDERS.items():
        table = cohort.empty(len(sites)).assign(side="right", image_id=sites)
        table["site"] = [(site,) for site in sites]
        for text in captions.write(table, fields=("side", "site"), language="de"):
            assert re.match(rf"\w+ {article} rechten (unteren |oberen )?[A-ZÄÖÜ]\w+\.$", text), text
    table = cases(1).assign(side="left")
    table["view"], table["site"] = [("frontal", "lateral")], [("knee", "tibia")]
    said = captions.write(table, fields=("view", "side", "site", "region"), language="de")[0]
    assert said.startswith("Frontale und seitliche ")
    assert said.endswith("ahme des linken Knies und der linken Tibia, untere Extremität.")
    table["site"] = [("hand",)]
    (said,) = captions.write(table, fields=("side", "region"), language="de")
    assert said.endswith(" der linken oberen Extremität.")
    table["site"] = [()]
    assert captions.write(table, fields=("side",), language="de")[0].endswith(" der linken Seite.")
    said = captions.write(table, fields=("side", "view"), language="de", register="phrase")
    assert said == ["links, frontal und seitlich"]


def test_every_known_value_of_a_named_field_is_said():
    table = cases()
    for language in LANGUAGES:
        for field, column in (("side", "side"), ("sex", "sex"), ("view", "view"), ("site", "site")):
            sentences = captions.write(table, fields=(field,), language=language)
            for sentence, value in zip(sentences, table[column], strict=True):
                for term in value if isinstance(value, tuple) else (value,):
                    assert says(sentence, forms(language, field, term))
        for task in cohort.TASKS.values():
            sentences = captions.write(table, fields=(task.name,), language=language)
            for sentence, label in zip(sentences, table[task.name], strict=True):
                word = (
                    task.words[language][task.classes.index(label)]
                    if task.classes
                    else captions.words(language)[task.name, captions.bone_age_group(label)]
                )
                assert says(sentence, word)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("field", captions.FIELDS)
def test_no_word_of_a_field_that_was_not_named_appears(field, language):
    said = captions.write(cases(), fields=(field,), language=language)
    words = vocabulary(language)
    for other in set(captions.FIELDS) - {field}:
        foreign = words[other] - words[field]
        hits = [(s, w) for s in said for w in foreign if says(s, w)]
        # "os normal" is a class of two tasks; a phrase that also names the field itself is its own
        hits = [
            (s, w) for s, w in hits if not any(w in own and says(s, own) for own in words[field])
        ]
        assert not hits, f"{other}: {hits[:2]}"


def test_unknown_values_are_not_said():
    table = cohort.empty(2).assign(image_id=["a", "b"])
    fields = ("view", "side", "site", "age", "sex", "signs", "malignancy")
    assert set(captions.write(table, fields=fields)) <= {"Radiograph.", "X-ray."}
    assert set(captions.write(table, fields=fields, language="fr")) <= {"Radiographie.", "Cliché."}
    blanks = table.assign(**dict.fromkeys(SIGNS, np.nan), sex=None, malignancy=pd.NA)
    assert captions.write(blanks, fields=fields) == captions.write(table, fields=fields)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_value_of_the_contract_has_words(language):
    bank = captions.words(language)
    known = {"view": cohort.VIEWS, "site": cohort.SITES, "side": cohort.SIDES, "sex": cohort.SEXES}
    known["region"] = cohort.REGIONS
    known["age"] = [name for _, name in captions.AGE_GROUPS]
    known["bone_age"] = [name for _, name in captions.BONE_AGES]
    known["hardware"] = ("0", "1")
    for field, values in {**known, **SIGNS}.items():
        missing = [value for value in values if (field, value) not in bank]
        assert not missing, f"{field}: {missing} in {language}"
    assert tuple(SIGNS) == captions.SIGNS
    silent = {("sex", "O"), ("margin", "none"), ("location", "none")}
    assert {key for key, phrase in bank.items() if not phrase} == silent


def test_languages_differ_but_for_latin_and_shared_words():
    latin = {("site", bone) for bone in ("radius", "ulna", "humerus", "femur", "tibia", "fibula")}
    shared = {("view", "oblique"), ("view", "frontal"), ("site", "hand")}
    for one, other in itertools.combinations(map(captions.words, LANGUAGES), 2):
        same = {key for key in one if one[key] and one[key].lower() == other[key].lower()}
        assert same <= latin | shared


@pytest.mark.parametrize(
    "call",
    [
        lambda: captions.write(cases(), fields=("view",), language="nl"),
        lambda: captions.prompts(cohort.task("tumor"), language="nl"),
        lambda: captions.prompts(cohort.task("tumor"), style="label", language="nl"),
        lambda: captions.attribute_prompts("nl"),
        lambda: captions.site_prompts("nl"),
        lambda: captions.variants(cohort.task("tumor"), "nl"),
    ],
)
def test_an_unknown_language_lists_the_known(call):
    with pytest.raises(ValueError, match="'nl'.*en, fr, de"):
        call()


def test_unknown_fields_list_the_known():
    for call in (captions.write, captions.keys):
        with pytest.raises(ValueError, match=r"\['report'\].*view, side, site"):
            call(cases(), fields=("view", "report"))
        with pytest.raises(ValueError, match="No caption fields.*view, side"):
            call(cases(), fields=())


def test_age_groups_meet_at_their_limits():
    ages = [0, 9.9, 10, 19.9, 20, 39.9, 40, 59.9, 60, 120]
    names = ["child"] * 2 + ["adolescent"] * 2 + ["young adult"] * 2 + ["adult"] * 2 + ["older"] * 2
    assert [captions.age_group(age) for age in ages] == names
    months = [0, 23.9, 24, 71, 72, 119, 120, 167, 168, 240, 260]
    stages = [name for _, name in captions.BONE_AGES]
    assert [captions.bone_age_group(m) for m in months] == [
        stages[i] for i in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_without_tumours_are_captioned_with_what_they_know(language):
    """FracAtlas, RSNA bone age, graded knees and GRAZPEDWRI-DX, as their readers give them."""
    said = {
        "fracatlas": {"site": [("hand",)], "view": [("frontal",)], "hardware": [1]},
        "rsna_bone_age": {"site": [("hand",)], "sex": ["F"], "bone_age": [96.0]},
        "knee_kl": {"site": [("knee",)], "kl_grade": ["3"]},
        "grazpedwri": {"side": ["left"], "sex": ["M"], "age": [9.3], "fracture": ["fractured"]},
    }
    for columns in said.values():
        table = cohort.empty(1).assign(image_id="a", **columns)
        fields = captions.known(table, fields=captions.FIELDS)
        assert set(fields) == set(columns) | ({"region"} if "site" in columns else set())
        assert captions.keys(table, fields=fields).shape == (1, len(fields))
        (sentence,) = captions.write(table, fields=fields, language=language)
        for field, (value,) in columns.items():
            if field in ("fracture", "kl_grade"):
                task = cohort.task(field)
                assert says(sentence, task.words[language][task.classes.index(value)].lower())
                continue
            term = value[0] if isinstance(value, tuple) else value
            term = {"age": captions.age_group, "bone_age": captions.bone_age_group}.get(field, str)(
                term
            )
            assert says(sentence, forms(language, field, term)), field


# ---------------------------------------------------------------------- contract 9
@pytest.mark.parametrize("name", cohort.TASKS)
def test_captions_that_name_a_label_make_prompts_label_supervised(name):
    free = ("view", "side", "site", "age", "sex", "signs")
    assert captions.label_free(free) and captions.supervision(free) == "zero-shot"
    assert not captions.label_free((*free, name))
    assert captions.supervision((*free, name)) == "label-supervised text"
    assert captions.supervision([name]) == "label-supervised text", "a list from a record too"


def test_captions_give_a_label_away_by_its_name_or_by_one_that_implies_it():
    free = ("view", "side", "site", "age", "sex", "signs", "hardware")
    implied = {
        "tumor": {"tumor", "malignancy", "entity"},
        "malignancy": {"malignancy", "entity"},
        "fracture": {"fracture"},
        "bone_age": {"bone_age"},
    }
    for task, telling in implied.items():
        assert not captions.gives_away(task, fields=free)
        found = {f for f in captions.FIELDS if captions.gives_away(task, fields=(*free, f))}
        assert found == telling, task


# ---------------------------------------------------------------------- registers and phases
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("field", captions.FIELDS)
def test_registers_say_the_same_facts(field, language):
    table = cases()
    fields = ("view", field)
    found = {
        register: captions.write(table, fields=fields, language=language, register=register)
        for register in captions.REGISTERS
    }
    mine = {w for w in vocabulary(language)[field] if w}
    for row in zip(*found.values(), strict=True):
        said = [{w for w in mine if says(sentence, w)} for sentence in row]
        assert said[0] == said[1] == said[2] and (said[0] or field in ("sex", "signs"))


def test_registers_read_as_written():
    row = cases(1).assign(destruction="moth-eaten", cortex="breached", site=[("femur",)], age=15.0)
    row = row.drop(columns=[s for s in SIGNS if s not in ("destruction", "cortex")])
    fields = ("view", "side", "site", "age", "sex", "signs", "malignancy")

    def said(register, language):
        return {
            captions.write(row, fields=fields, register=register, language=language, seed=s)[0]
            for s in range(40)
        }

    assert (
        "left femur, frontal, female, adolescent, moth-eaten bone destruction, cortex breached, "
        "normal bone"
    ) in said("phrase", "en")
    assert (
        "Frontal x-ray of the left femur, female, adolescent, showing moth-eaten bone destruction, "
        "cortex breached and normal bone."
    ) in said("sentence", "en")
    assert (
        "Cliché de face : fémur, côté gauche, sexe féminin, sujet adolescent ; on note : "
        "rupture corticale, ostéolyse mitée et os normal."
    ) in said("sentence", "fr")
    assert (
        "Femur links, frontal, weiblich, im Jugendalter, mottenfraßartige Knochendestruktion, "
        "Kortikalis durchbrochen, normaler Knochen"
    ) in said("phrase", "de")
    assert (
        "Frontale Aufnahme des linken Femurs, weiblich, im Jugendalter; Befund: "
        "mottenfraßartige Knochendestruktion, Kortikalis durchbrochen und normaler Knochen."
    ) in said("sentence", "de")
    for sentence in said("sentence", "en") | said("sentence", "fr") | said("sentence", "de"):
        assert sentence.count(".") == 1
    nothing = cohort.empty(1).assign(image_id="a")
    assert captions.write(nothing, fields=fields, register="phrase") == ["radiograph"]
    german = captions.write(nothing, fields=fields, register="phrase", language="de")
    assert german == ["Röntgenaufnahme"], "nouns keep their capital"
    with pytest.raises(ValueError, match="'poem'.*phrase, sentence, report"):
        captions.write(row, fields=fields, register="poem")


@pytest.mark.parametrize("name", cohort.TASKS)
def test_in_pretraining_no_caption_may_name_a_label(name):
    with pytest.raises(ValueError, match=f"'pretraining' may not name {name}"):
        captions.write(cases(), fields=("view", name), phase="pretraining")
    with pytest.raises(ValueError, match="Unknown phase 'later'"):
        captions.write(cases(), fields=("view",), phase="later")


def test_the_region_tells_no_tumour_where_the_site_would():
    """As in BTXRD: the bone is named for tumours only."""
    table = cohort.empty(3).assign(image_id=["a", "b", "c"], side="left")
    table["site"] = [("lower limb",), ("femur", "knee"), ("hand",)]

    def said(*fields):
        return captions.write(table, fields=fields, register="phrase")

    assert said("site", "side") == ["left lower limb", "left femur and knee", "left hand"]
    assert said("region", "side") == ["left lower limb", "left lower limb", "left upper limb"]
    assert said("site", "region") == [
        "lower limb",
        "femur and knee, lower limb",
        "hand, upper limb",
    ]
    keys = captions.keys(table, fields=("region",))[:, 0]
    assert keys[0] == keys[1] != keys[2]
    table["site"] = [(), ("spine",), ("hand",)]
    assert said("region") == ["radiograph", "radiograph", "upper limb"]
    assert captions.keys(table, fields=("region",))[:, 0].tolist() == [-1, -1, 0]


@pytest.mark.parametrize("register", captions.REGISTERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_of_pretraining_tell_no_label(language, register):
    fields = captions.PHASES["pretraining"]
    said = captions.write(
        cases(), fields=fields, language=language, register=register, phase="pretraining"
    )
    assert not [s for s in said if captions.tells(s, language)]
    for task in cohort.TASKS.values():  # every class can be told from the words that tell
        told = captions.write(cases(), fields=(task.name,), language=language)
        assert any(captions.tells(s, language) for s in told), task.name


# ---------------------------------------------------------------------- the bank
@pytest.fixture
def bank_file(tmp_path):
    rows = [
        ("case 0", "en", "view;site", "The thigh bone from the front."),
        ("case 0", "en", "view;site", "A view of the femur."),
        ("case 1", "en", "site;signs", "The cortex of the hand bones is breached."),
        ("case 1", "fr", "site", "Une main."),
        ("case 2", "en", "site;entity", "The knee."),
        ("case 3", "en", "site", "An osteosarcoma of the femur."),
        ("case 4", "en", "site", "  "),
    ]
    file = tmp_path / "bank.csv"
    columns = ["image_id", "language", "fields", "caption"]
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False)
    return file


def test_a_bank_gives_what_its_fields_allow_and_says_what_it_left_out(bank_file):
    fields = ("view", "site", "signs")
    bank, notes = captions.read_bank(bank_file, fields=fields)
    assert {k: len(v) for k, v in bank.items()} == {"case 0": 2, "case 1": 1}
    told = " ".join(notes)
    for why in ("1 captions of the bank name other fields", "1 captions of the bank tell a label"):
        assert why in told
    assert "1 captions of the bank are empty" in told
    fewer, _ = captions.read_bank(bank_file, fields=("view", "site"))
    assert set(fewer) == {"case 0"}
    later, _ = captions.read_bank(bank_file, fields=("site", "entity"), phase="supervised")
    assert set(later) == {"case 2", "case 3"}
    french, _ = captions.read_bank(bank_file, fields=fields, language="fr")
    assert french == {"case 1": ["Une main."]}
    with pytest.raises(ValueError, match="may not name entity"):
        captions.read_bank(bank_file, fields=("site", "entity"))
    bank_file.write_text("image_id,caption\na,b\n")
    with pytest.raises(ValueError, match="lacks the columns language, fields"):
        captions.read_bank(bank_file, fields=fields)


def test_an_image_takes_a_caption_of_the_bank_or_of_the_grammar(bank_file):
    bank, _ = captions.read_bank(bank_file, fields=("view", "site", "signs"))
    table, fields = cases(), ("view", "site")
    own = captions.write(table, fields=fields)
    assert captions.write(table, fields=fields, bank={}) == own
    taken = {row: set() for row in ("case 0", "case 1", "case 2")}
    for seed in range(60):
        said = captions.write(table, fields=fields, seed=seed, bank=bank)
        plain = captions.write(table, fields=fields, seed=seed)
        assert said[2:] == plain[2:], "images that the bank doesn't know"
        for image_id in taken:
            row = int(image_id[-1])
            taken[image_id].add("grammar" if said[row] == plain[row] else said[row])
    assert taken["case 0"] == {"grammar", *bank["case 0"]}
    assert taken["case 1"] == {"grammar", *bank["case 1"]} and taken["case 2"] == {"grammar"}


def test_the_tail_of_a_bank_is_dropped_by_similarity_and_counted():
    bank = {"a": ["a0", "a1", "a2"], "b": ["b0"], "c": ["c0"]}
    assert captions.pairs(bank) == [("a", "a0"), ("a", "a1"), ("a", "a2"), ("b", "b0"), ("c", "c0")]
    similarity = np.array([0.9, -0.5, 0.4, 0.1, 0.3])
    left, dropped = captions.drop_tail(bank, similarity, share=0.4)
    assert dropped == 2 and left == {"a": ["a0", "a2"], "c": ["c0"]}
    assert captions.drop_tail(bank, similarity, share=0.0) == (bank, 0)
    with pytest.raises(ValueError, match="5 captions.*shape \\(4,\\)"):
        captions.drop_tail(bank, similarity[:4])
    with pytest.raises(ValueError, match="share is 1.5"):
        captions.drop_tail(bank, similarity, share=1.5)


# ---------------------------------------------------------------------- facts
def test_captions_of_facts_say_what_was_said_and_nothing_else():
    facts = pd.DataFrame(
        [
            ("r1", "site", "tibia", "present"),
            ("r1", "site", "fibula", "present"),
            ("r1", "side", "left", "present"),
            ("r1", "attribute", "cortex=breached", "present"),
            ("r1", "attribute", "periosteum=codman", "absent"),
            ("r1", "attribute", "margin=sharp", "uncertain"),
            ("r1", "entity", "osteosarcoma", "uncertain"),
            ("r2", "view", "lateral", "present"),
            ("r2", "finding", "fracture", "absent"),
            ("r2", "finding", "implant", "present"),
            ("r2", "finding", "cast", "present"),
            ("r2", "entity", "simple bone cyst", "present"),
            ("r3", "side", "left", "present"),
            ("r3", "side", "right", "present"),
            ("r3", "finding", "fracture", "uncertain"),
        ],
        columns=["report", "kind", "value", "polarity"],
    )
    table = captions.facts_table(facts)
    said = captions.write(table, fields=captions.FIELDS, register="phrase")
    assert said == [
        "left fibula and tibia, lower limb, cortex breached",
        "lateral, orthopaedic hardware in place, simple bone cyst, no fracture",
        "radiograph",
    ]
    assert captions.known(table, fields=("side", "age", "fracture")) == ("side", "fracture")
    with pytest.raises(ValueError, match="lack the columns polarity"):
        captions.facts_table(facts.drop(columns="polarity"))
    assert captions.facts_table(facts[:0]).empty


def test_captions_of_reports_say_what_the_reports_state_and_no_more():
    table = cohort.empty(3).assign(image_id=["a", "b", "c"], sex=["F", "M", pd.NA], side="right")
    table["site"] = [("femur",), ("femur",), ("hand",)]
    table["fracture"] = "fractured"
    stated = [("r1", "site", "tibia"), ("r1", "side", "left"), ("r2", "finding", "fracture")]
    facts = pd.DataFrame(stated, columns=["report", "kind", "value"])
    facts["polarity"] = ["present", "present", "absent"]
    images = pd.DataFrame({"image_id": ["c", "a"], "report": ["r1", "r2"]})
    shuffled = table.iloc[[2, 0, 1]]
    told = captions.from_reports(shuffled, facts, images)
    assert told.index.equals(shuffled.index) and told["image_id"].tolist() == ["c", "a", "b"]
    fields = ("side", "site", "sex", "fracture")
    assert captions.write(told, fields=fields, register="phrase") == [
        "left tibia",
        "female, no fracture",
        "male",
    ]
    assert (captions.keys(told, fields=fields) >= 0).any(axis=1).all()
    silent = captions.keys(captions.from_reports(table, facts[:0], images[:0]), fields=("site",))
    assert (silent == -1).all()


def test_own_words_are_taken_as_they_stand_and_count_as_supervised():
    table = pd.DataFrame({"caption": ["Face du fémur.", " Profil. ", "", pd.NA, "Profil."]})
    said, keys = captions.own_words(table)
    assert said == ["Face du fémur.", "Profil.", "", "", "Profil."]
    assert keys[1] == keys[4] != keys[0] and keys[2] == keys[3] == -1
    assert captions.supervision((captions.OWN,)) == "label-supervised text"
    assert all(captions.gives_away(task, fields=(captions.OWN,)) for task in cohort.TASKS)
    for wrong in (table.rename(columns={"caption": "text"}), table[2:4]):
        with pytest.raises(ValueError, match="No row has text in a column 'caption'"):
            captions.own_words(wrong)


# ---------------------------------------------------------------------- keys
def test_keys_are_equal_exactly_where_the_named_fields_are():
    table = cases(60).sample(frac=1, random_state=0).reset_index(drop=True)
    fields = ("view", "site", "age", "malignancy")
    keys = captions.keys(table, fields=fields)
    assert keys.shape == (60, 4) and keys.dtype == np.int64 and (keys >= 0).all()
    facts = [
        (v, s, captions.age_group(a), m)
        for v, s, a, m in table[["view", "site", "age", "malignancy"]].itertuples(index=False)
    ]
    for i, j in itertools.combinations(range(60), 2):
        same = [a == b for a, b in zip(facts[i], facts[j], strict=True)]
        assert (keys[i] == keys[j]).tolist() == same
    changed = table.assign(sex="F", side="left", entity="osteosarcoma", cortex="intact")
    assert (captions.keys(changed, fields=fields) == keys).all(), "other fields change nothing"


def test_keys_of_signs_are_one_column_a_sign():
    assert captions.keys(cases(), fields=("signs",)).shape[1] == len(SIGNS)
    assert captions.keys(cases(), fields=("view", "signs", "sex")).shape[1] == len(SIGNS) + 2


def test_an_unknown_value_is_minus_one():
    table = cases(6)
    table["view"] = [(), ("frontal",), (), ("lateral",), ("frontal",), ("frontal",)]
    table["age"] = [1.0, np.nan, 3.0, None, 5.0, pd.NA]
    table["cortex"] = ["intact", pd.NA, None, np.nan, "breached", "intact"]
    keys = captions.keys(table, fields=("view", "age", "signs"))
    assert (keys[:, 0] == -1).tolist() == [True, False, True, False, False, False]
    assert (keys[:, 1] == -1).tolist() == [False, True, False, True, False, True]
    cortex = keys[:, 2 + captions.SIGNS.index("cortex")]
    assert (cortex == -1).tolist() == [False, True, True, True, False, False]
    assert cortex[0] == cortex[5] != cortex[4]


def test_a_field_that_no_row_knows_does_not_keep_rows_from_matching():
    table = cases().drop(columns=list(SIGNS)).assign(side=pd.NA)  # as in BTXRD: no signs, no sides
    keys = captions.keys(table, fields=("view", "side", "signs"))
    assert (keys == captions.keys(table, fields=("view",))).all() and (keys >= 0).all()
    nothing = captions.keys(table, fields=("signs",))
    assert nothing.tolist() == [[-1]] * len(table)


# ---------------------------------------------------------------------- prompts
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", ["label", "signs"])
@pytest.mark.parametrize("name", cohort.TASKS)
def test_prompts_cover_each_class_in_order_and_none_serves_two(name, style, language):
    task = cohort.task(name)
    found = captions.prompts(task, style=style, language=language)
    assert tuple(found) == captions.prompt_classes(task)
    sentences = [s for by_class in found.values() for s in by_class]
    assert all(len(s) > 1 for s in found.values()), "paraphrases"
    assert len(sentences) == len(set(sentences))
    if style == "label":
        for label, word in zip(task.classes, task.words[language], strict=True):
            assert word in found[label], "the task's own words, among others"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["malignancy", "tumor", "fracture"])
def test_prompts_by_signs_contain_no_word_of_a_label(name, language):
    # words of classes that name no class
    plain = {"bone", "no", "os", "osseuse", "pas", "de", "knochen", "keine"}
    labels = {
        word.lower()
        for task in (
            cohort.task(n) for n in ("malignancy", "tumor", "fracture", "anomaly", "entity")
        )
        for phrase in task.words[language]
        for word in re.findall(r"\w+", phrase)
    } - plain
    allowed = {"simple", "multiple", "multiples", "other", "autre", "cell", "cellules", "à"}
    for sentences in captions.prompts(cohort.task(name), language=language).values():
        for sentence in sentences:
            words = set(re.findall(r"\w+", sentence.lower()))
            hits = words & labels - allowed - {"radiograph", "radiographie"}
            assert not hits, sentence


@pytest.mark.parametrize("name", ["malignancy", "tumor", "fracture"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_by_signs_speak_the_words_of_the_captions(name, language):
    phrases = {p.lower() for (f, _), p in captions.words(language).items() if f in SIGNS}
    for sentences in captions.prompts(cohort.task(name), language=language).values():
        for sentence in sentences:
            said = sentence.split(". ", 1)[1].rstrip(".").lower().split(", ")
            assert set(said) <= phrases, sentence


def test_an_unknown_style_lists_the_known():
    with pytest.raises(ValueError, match="Choose label or signs"):
        captions.prompts(cohort.task("tumor"), style="poem")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", cohort.TASKS)
def test_prompts_by_signs_name_no_class_and_prompts_by_label_do(name, language):
    task = cohort.task(name)
    signs = captions.prompts(task, language=language)
    assert not [s for sentences in signs.values() for s in sentences if captions.tells(s, language)]
    labels = captions.prompts(task, style="label", language=language)
    told = [captions.tells(s, language) for sentences in labels.values() for s in sentences]
    assert np.mean(told) >= 0.5


def test_each_task_says_in_which_styles_it_has_prompts():
    for task in cohort.TASKS.values():
        assert captions.styles(task) == ("label", "signs")
    tumor = cohort.task("tumor")
    unseen = dataclasses.replace(tumor, name="implant")  # words, but no description of signs
    assert captions.styles(unseen) == ("label",)
    assert "a radiograph of bone tumor" in captions.prompts(unseen, style="label")["tumor"]
    with pytest.raises(ValueError, match=r"'implant' has no prompts by signs \(styles: label\)"):
        captions.prompts(unseen, style="signs")
    value = dataclasses.replace(cohort.task("bone_age"), name="bone_density")
    assert captions.styles(value) == () and captions.prompt_values(value) == ()
    with pytest.raises(ValueError, match=r"no prompts by label \(styles: none\)"):
        captions.prompts(value, style="label")


def test_stages_of_bone_age_have_prompts_and_a_middle_in_months():
    task = cohort.task("bone_age")
    stages, middles = captions.prompt_classes(task), captions.prompt_values(task)
    assert stages == tuple(name for _, name in captions.BONE_AGES)
    assert middles == tuple(sorted(middles))
    assert tuple(map(captions.bone_age_group, middles)) == stages


def test_captions_without_signs_are_a_negative_control():
    assert captions.supervision(("view", "site")) == "zero-shot, negative control"
    assert captions.supervision(("view", "site", "signs")) == "zero-shot"


def test_fields_that_no_row_knows_are_left_out_and_nothing_at_all_is_refused():
    table = cohort.empty(2).assign(image_id=["a", "b"], view=[("frontal",), ()])
    assert captions.known(table, fields=("signs", "view", "side")) == ("view",)
    with pytest.raises(ValueError, match="nothing to caption"):
        captions.known(table, fields=("side", "signs"))


# ---------------------------------------------------------------------- English and French stay
def test_english_and_french_are_worded_as_models_of_earlier_versions_learnt_them():
    """A model is asked in the words that it was trained with: old bundles need them."""
    said = hashlib.sha256()
    for language in ("en", "fr"):
        for register in captions.REGISTERS:
            for seed in range(8):
                shape = dict(fields=captions.FIELDS, language=language, seed=seed)
                said.update("".join(captions.write(cases(), register=register, **shape)).encode())
        for task in cohort.TASKS.values():
            for style in captions.STYLES:
                found = captions.prompts(task, style=style, language=language)
                said.update(json.dumps(found).encode())
    assert said.hexdigest()[:16] == "15a3c36204b32e21"


# ---------------------------------------------------------------------- prompts by site
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("style", captions.STYLES)
@pytest.mark.parametrize("site", ["femur", "lower limb", "spine"])
def test_prompts_of_a_site_name_it_and_no_other(site, style, language):
    phrases = {other: forms(language, "site", other) for other in cohort.SITES}
    inside = {"hip": {"hip bone"}}  # words within words
    for name in ("malignancy", "tumor", "fracture", "anomaly", "entity"):
        task = cohort.task(name)
        found = captions.prompts(task, style=style, language=language, site=site)
        plain = captions.prompts(task, style=style, language=language)
        assert tuple(found) == tuple(plain)
        sentences = sum(found.values(), [])
        assert len(set(sentences)) == len(sentences), "none serves two classes"
        for sentence in sentences:
            assert says(sentence, phrases[site])
            head = sentence.split(". ")[0] if style == "signs" else sentence
            others = {o for o in phrases if o != site and says(head, phrases[o])}
            assert not others - inside.get(site, set()), sentence


@pytest.mark.parametrize(
    "name, own, other", [("kl_grade", "knee", "hand"), ("bone_age", "hand", "knee")]
)
@pytest.mark.parametrize("style", captions.STYLES)
def test_tasks_of_one_site_refuse_another(name, own, other, style):
    task = cohort.task(name)
    found = captions.prompts(task, style=style, site=own)
    assert all(says(s, own) for s in sum(found.values(), []))
    with pytest.raises(
        ValueError, match=f"{name!r} is asked of the {own} alone, not of the {other}"
    ):
        captions.prompts(task, style=style, site=other)


def test_an_unknown_site_lists_the_known():
    with pytest.raises(ValueError, match="Unknown site 'skull'. Choose from upper limb, .*spine"):
        captions.prompts(cohort.task("tumor"), site="skull")


def test_a_task_without_words_in_a_language_names_those_it_has():
    task = dataclasses.replace(cohort.task("tumor"), words={"en": ("bone", "bone tumor")})
    assert captions.prompts(task, style="label")["tumor"][0] == "bone tumor"
    for call in (captions.variants, captions.class_words):
        with pytest.raises(ValueError, match=r"'tumor' has no words in 'de' \(it has: en\)"):
            call(task, "de")
    value = dataclasses.replace(cohort.task("bone_age"), name="bone_density")
    with pytest.raises(ValueError, match=r"'bone_density' has no words in 'en' \(it has: none\)"):
        captions.variants(value)


# ---------------------------------------------------------------------- signs and sites
@pytest.mark.parametrize("language", LANGUAGES)
def test_each_term_of_each_sign_has_prompts_of_its_own_that_name_no_class(language):
    found = captions.attribute_prompts(language)
    assert {sign: tuple(terms) for sign, terms in found.items()} == cohort.SIGNS
    sentences = [s for terms in found.values() for said in terms.values() for s in said]
    assert len(sentences) == len(set(sentences))
    assert not [s for s in sentences if captions.tells(s, language)]
    assert all(len(said) >= 3 for terms in found.values() for said in terms.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_of_sites_name_each_site_in_every_view(language):
    found = captions.site_prompts(language)
    assert tuple(found) == cohort.SITES
    for site, said in found.items():
        assert all(says(s, forms(language, "site", site)) for s in said)
        assert all(any(says(s, forms(language, "view", v)) for s in said) for v in cohort.VIEWS)


@pytest.mark.parametrize("name", ["malignancy", "tumor", "entity"])
def test_the_table_of_weights_is_whole_and_agrees_with_the_descriptions(name):
    """A sum over certain signs, computed here, finds the class that each description is of."""
    task = cohort.task(name)
    weights = captions.attribute_weights(task)
    assert tuple(weights["class"].unique()) == task.classes
    assert not weights.duplicated(["class", "sign", "term"]).any()
    assert all(term in cohort.SIGNS[sign] for sign, term in weights[["sign", "term"]].to_numpy())
    assert weights["weight"].ne(0).all() and weights["weight"].abs().le(4).all()
    sources = {"Lodwick 1980", "Madewell 1981", "Ragsdale 1981", "Sweet 1981"}
    assert set(weights["source"]) <= sources | {"prompts.csv", "cohort.SIGNS", "judgement"}
    rows = pd.read_csv(BANKS / "prompts.csv", keep_default_na=False)
    rows = rows[rows["task"] == ("malignancy" if name == "tumor" else name)]
    for row in rows.to_dict("records"):
        seen = weights[weights["term"] == weights["sign"].map(row)]
        points = seen.groupby("class")["weight"].sum().reindex(task.classes, fill_value=0)
        true = row["class"] if name != "tumor" or row["class"] == "normal" else "tumor"
        # one picture can't tell that there are several
        true = "osteochondroma" if true == "multiple osteochondromas" else true
        assert points.drop(true).max() < points[true], row


def test_a_task_that_no_table_combines_names_those_that_one_does():
    with pytest.raises(ValueError, match="'fracture'; there is: malignancy, tumor, entity"):
        captions.attribute_weights(cohort.task("fracture"))


# ---------------------------------------------------------------------- variants of wording
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", cohort.TASKS)
def test_variants_name_each_class_once_and_differ_in_their_wording(name, language):
    task = cohort.task(name)
    found, named = captions.variants(task, language), captions.class_words(task, language)
    kinds = [variant.kind for variant in found]
    assert kinds.count("template") == 20 and set(kinds) == {
        *("template", "word order", "negation", "paraphrase")
    }
    assert len({(v.kind, v.name) for v in found}) == len(found)
    for variant in found:
        assert variant.language == language and tuple(variant.prompts) == tuple(named)
        said = captions.check_prompts(variant.prompts, task)  # each names its own class
        assert said == variant.prompts, "neither empty nor the same for two classes"
        for one, (sentence,) in said.items():
            kept = named[one][1:] if variant.kind == "paraphrase" else ()
            assert any(says(sentence, word) for word in kept or named[one][:1])


@pytest.mark.parametrize("language", LANGUAGES)
def test_word_order_changes_no_word_and_negation_says_what_is_not(language):
    task = cohort.task("fracture")
    found = captions.variants(task, language)
    bags = {kind: [] for kind in ("template", "word order")}
    for v in found:
        if v.kind in bags:
            bags[v.kind].append(sorted(re.findall(r"\w+", v.name.lower())))
    assert all(bag in bags["template"] for bag in bags["word order"])
    denied = [v for v in found if v.kind == "negation" and "{other}" in v.name]
    other = captions.class_words(task, language)["intact"][1]  # "intact bone", not "no fracture"
    assert len(denied) == 2 and all(says(v.prompts["fractured"][0], other) for v in denied)
    for v in denied:
        assert v.prompts["intact"][0].lower().count(task.words[language][1].lower()) == 2
    words = ("no", "not", "nothing", "rien", "sans", "non", "aucun", "kein", "nicht", "nichts")
    assert all(any(says(v.name, w) for w in words) for v in found if v.kind == "negation")


def test_the_class_that_a_negation_denies_is_never_the_class_itself():
    for name, task in cohort.TASKS.items():
        (variant,) = (v for v in captions.variants(task) if v.name == "{}, not {other}")
        for said in sum(variant.prompts.values(), []):
            own, other = said.split(", not ")
            assert own != other, name


# ---------------------------------------------------------------------- prompts of one's own
def test_own_prompts_come_back_trimmed_and_in_class_order():
    mine = {"Tumor ": [" a  bone tumor", "Knochentumor links"], "normal": ("os normal",)}
    found = captions.check_prompts(mine, cohort.task("tumor"))
    assert list(found.items()) == [
        ("normal", ["os normal"]),
        ("tumor", ["a bone tumor", "Knochentumor links"]),
    ]


def test_all_that_is_wrong_with_own_prompts_is_said_at_once():
    task = cohort.task("malignancy")
    mine = {
        "normal": ["normal bone", "regular bone"],
        "Normal": ["normal bone"],
        "harmless": ["a benign bone tumor"],
        "benign": ["benign bone tumor, not normal bone", "normal bone"],
        "malignant": "bone cancer",
    }
    with pytest.raises(ValueError, match=r"malignancy have 6 problem\(s\)") as raised:
        captions.check_prompts(mine, task)
    said = str(raised.value)
    for part in (
        "'Normal' is given twice",
        "'harmless' is no class of malignancy: normal, benign, malignant",
        "'regular bone' doesn't name its class 'normal'",
        "'normal bone' is a prompt of 'normal' and 'benign'",
        "'normal bone' doesn't name its class 'benign'",
        "'malignant' has no prompts: give a list of sentences",
    ):
        assert part in said
    seen = {"normal": ["cortex intact"], "benign": ["sclerotic rim"], "malignant": ["sunburst"]}
    assert captions.check_prompts(seen, task, style="signs") == seen


@pytest.mark.parametrize("empty", [[], ["  "], [None], "bone tumor", [""]])
def test_a_class_without_prompts_is_refused(empty):
    for mine in ({"normal": ["normal bone"]}, {"normal": ["normal bone"], "tumor": empty}):
        with pytest.raises(ValueError, match="'tumor' has no prompts"):
            captions.check_prompts(mine, cohort.task("tumor"))


def test_the_name_of_another_class_around_it_does_not_name_a_class():
    fracture, entity = cohort.task("fracture"), cohort.task("entity")
    with pytest.raises(ValueError, match="'no fracture seen' doesn't name its class 'fractured'"):
        captions.check_prompts(
            {"intact": ["intact bone"], "fractured": ["no fracture seen"]}, fracture
        )
    mine = captions.prompts(entity, style="label")
    with pytest.raises(ValueError, match="1 problem.*\n.*'multiple osteochondromas, left'"):
        captions.check_prompts(
            {**mine, "osteochondroma": ["multiple osteochondromas, left"]}, entity
        )


# ---------------------------------------------------------------------- who speaks German
def test_reports_and_their_de_identification_know_no_german():
    assert set(reports.names()) == {"en", "fr"} < set(LANGUAGES)
