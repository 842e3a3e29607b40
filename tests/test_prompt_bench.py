"""Protects the prompt bench: numbers of plain numpy, one reading a sentence, faults to be seen."""

import dataclasses
import html
import re
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, roc_auc_score

from bonelib import captions, cohort, encoders, evaluation, explore, figures, models, runs
from bonelib.experiments import exploring, prompting
from bonelib.experiments.context import opened

pytestmark = pytest.mark.usefixtures("clean_canvas")
WIDE, SCALE = 12, 9.0


def vector(sentence):
    """A unit vector that depends on the sentence alone."""
    drawn = np.random.default_rng(list(sentence.encode())).normal(size=WIDE)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


class Tower:
    """A pair of towers whose texts are `vector`; notes each sentence that it encodes."""

    def __init__(self):
        self.logit_scale, self.read = torch.tensor(np.log(SCALE)), []
        self.text = SimpleNamespace(
            truncated=lambda sentences: torch.tensor([len(s) > 90 for s in sentences]),
            unknown=lambda sentences: [w for s in sentences for w in s.split() if w == "zzz"],
        )

    def tokenize(self, sentences):
        return sentences

    def encode_text(self, sentences):
        self.read += sentences
        return torch.from_numpy(np.stack([vector(s) for s in sentences]))


def images(task, n=60, seed=0):
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(n, WIDE)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    labels = [task.classes[i % len(task.classes)] for i in range(n)] if task.classes else None
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient": [f"p{k // 2}" for k in range(n)],
            "split": np.where(np.arange(n) < n // 4, "train", "val"),
            task.column: labels or rng.uniform(10, 220, n),
        }
    )
    return table, unit


def picture(image_id):
    return np.full((8, 8), int(image_id[1:]) % 256, np.uint8)


def made(name="tumor", n=60, **options):
    """A bench with all that a test looks at."""
    task, tower = cohort.task(name), Tower()
    table, unit = images(task, n)
    table = options.pop("change", lambda table: table)(table)
    seen = options.pop("picture", picture)
    styles = {style: captions.prompts(task, style=style) for style in captions.styles(task)}
    told = dict(task=task, styles=styles, values=captions.prompt_values(task), **options)
    panel = explore.prompts(tower, table, unit, seen, **told)
    return SimpleNamespace(
        panel=panel, task=task, tower=tower, table=table, unit=unit, **parts(panel)
    )


def parts(panel):
    """The controls by their description, texts and picture by their class, in reading order."""
    found, waiting = [], [panel.widget]
    while waiting:
        widget = waiting.pop(0)
        found.append(widget)
        waiting = [*getattr(widget, "children", ()), *waiting]
    named = {w.description: w for w in found if getattr(w, "description", "")}
    classes = {c: [w for w in found if c in w._dom_classes] for w in found for c in w._dom_classes}
    return dict(named=named, classes=classes)


def text(bench):
    return html.unescape(bench.classes["bone-facts"][-1].value)


def fault(bench):
    return html.unescape(bench.classes["bone-fault"][0].value)


def shown(bench):
    """The numbers of the case, a column a kind of prompts."""
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", bench.classes["bone-facts"][1].value)
    return np.array([float(cell) for cell in cells]).reshape(-1, 2)


def truth(bench, prompts, split="val"):
    """Logits of a set by plain numpy."""
    rows = (bench.table["split"] == split).to_numpy()
    means = [np.mean([vector(s) for s in said], axis=0) for said in prompts]
    classes = np.stack([mean / np.linalg.norm(mean) for mean in means])
    return SCALE * bench.unit[rows] @ classes.T, bench.table[rows]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def primary(task, p, labels):
    """The primary metric by scikit-learn."""
    if task.kind == "binary":
        return roc_auc_score(labels == task.positive, p[:, task.classes.index(task.positive)])
    if task.kind == "multiclass":
        return np.mean([roc_auc_score(labels == c, p[:, k]) for k, c in enumerate(task.classes)])
    guesses = [task.classes[k] for k in p.argmax(axis=1)]
    return cohen_kappa_score(labels, guesses, weights="quadratic", labels=task.classes)


# ---------------------------------------------------------------------- numbers
@pytest.mark.parametrize("name", ["tumor", "fracture", "malignancy", "entity", "kl_grade"])
def test_probabilities_and_scores_are_those_of_plain_numpy(name):
    bench = made(name, n=120)
    own = [[f"{c} in other words", f"an image of {c}"] for c in bench.task.classes]
    for said, one in zip(own, bench.task.classes, strict=True):
        bench.named[one].value = "\n".join(said)
    logits, rows = truth(bench, own)
    p = softmax(logits)
    bench.named["case"].value = 3
    assert np.allclose(shown(bench)[:, 0], p[2], atol=6e-4)
    default = softmax(truth(bench, captions.prompts(bench.task, style="label").values())[0])
    assert np.allclose(shown(bench)[:, 1], default[2], atol=6e-4)
    labels = rows[bench.task.column].to_numpy()
    reached = figures.number(primary(bench.task, p, labels))
    before = figures.number(primary(bench.task, default, labels))
    metric = evaluation.primary(bench.task).metric
    assert text(bench).startswith(f"{metric} on validation images: {reached} [")
    assert f"default prompts {before}, difference" in text(bench)


def test_an_age_is_asked_by_its_stages():
    bench = made("bone_age", n=80)
    stages = captions.prompt_classes(bench.task)
    bench.named[stages[0]].value = "a very small hand"
    own = [["a very small hand"], *list(captions.prompts(bench.task, style="label").values())[1:]]
    logits, rows = truth(bench, own)
    ages = softmax(logits) @ np.array(captions.prompt_values(bench.task))
    error = figures.number(mean_absolute_error(rows["bone_age"].astype(float), ages))
    assert text(bench).startswith(f"MAE, months on validation images (lower is better): {error} [")
    assert shown(bench)[0, 0] == pytest.approx(ages[0], abs=0.06)


def test_the_difference_is_that_of_the_evaluation():
    bench = made(n=200, draws=50)
    bench.named["tumor"].value = "a mass in the bone"
    default = captions.prompts(bench.task, style="label")
    tables = [
        evaluation.predictions(truth(bench, said)[1], truth(bench, said)[0], task="tumor", seed=0)
        for said in ([default["normal"], ["a mass in the bone"]], default.values())
    ]
    gain = evaluation.compare(*tables, task="tumor", draws=50)
    told = figures.with_interval(*gain[["value", "low", "high"]])
    assert f"difference {told}, {figures.p_value(gain['p'])}." in text(bench)
    assert "50 draws" in text(bench) and "of 75 patients" in text(bench)


def test_the_same_words_differ_by_nothing_and_other_words_do():
    bench = made()
    assert "difference .000" in text(bench)
    before, case = text(bench), shown(bench)
    bench.named["normal"].value = "nothing to be seen"
    assert text(bench) != before and not np.allclose(shown(bench), case)
    bench.named["start from"].value = "signs"
    assert bench.named["tumor"].value.split("\n") == captions.prompts(bench.task)["tumor"]
    bench.named["start from"].value = "label"
    assert text(bench) == before and np.allclose(shown(bench), case)


def test_a_sentence_is_encoded_once():
    bench = made(n=4000)
    default = [s for said in captions.prompts(bench.task, style="label").values() for s in said]
    assert sorted(bench.tower.read) == sorted(default)
    bench.named["tumor"].value = "\n".join([*default[-3:], "one more", "  one   more "])
    assert bench.tower.read[len(default) :] == ["one more"]
    bench.named["case"].value = 17
    bench.named["images"].value = "training"
    assert len(bench.tower.read) == len(default) + 1
    bench.named["start from"].value = "signs"
    assert len(bench.tower.read) == len(set(bench.tower.read))


def test_a_case_is_seen_with_its_name_and_its_label():
    bench = made()
    bench.named["case"].value = 2
    (image,), case = bench.classes["bone-picture"], bench.classes["bone-facts"][1]
    row = bench.table[bench.table["split"] == "val"].iloc[1]
    assert f"{row['image_id']}, {row['tumor']}" in case.value
    film = explore.pictures.painted(picture(row["image_id"]), side=256)
    assert image.value == explore.pictures.encoded(film)
    bench.named["images"].value = "training"
    assert bench.named["case"].max == 15 and "i1, tumor" in case.value


# ---------------------------------------------------------------------- what can't be answered
def test_faults_are_said_and_pass():
    bench = made()
    before = text(bench)
    bench.named["tumor"].value = " \n "
    assert "'tumor' has no prompt" in fault(bench) and not text(bench)
    bench.named["case"].value = 4  # shows nothing old
    assert not bench.classes["bone-facts"][1].value
    assert "no prompt" in bench.panel.still().get_supxlabel()
    bench.named["tumor"].value = bench.named["normal"].value
    assert "no image can tell" in fault(bench)
    bench.named["tumor"].value = "\n".join(captions.prompts(bench.task, style="label")["tumor"])
    assert not fault(bench) and text(bench) == before


def test_a_fault_of_the_code_is_shown_and_raised():
    bench = made()
    bench.tower.encode_text = lambda _: 1 / 0
    with pytest.raises(ZeroDivisionError):
        bench.named["tumor"].value = "new words"
    assert "ZeroDivisionError" in fault(bench) and not text(bench)


def test_a_radiograph_that_can_not_be_read_is_said_and_the_old_one_goes():
    bench = made(picture=lambda name: {}["file"] if name == "i16" else picture(name))
    (image,) = bench.classes["bone-picture"]
    assert image.value
    with pytest.raises(KeyError):
        bench.named["case"].value = 2
    assert "KeyError" in fault(bench)
    assert not image.value and not bench.classes["bone-facts"][1].value
    bench.named["case"].value = 3
    assert not fault(bench) and image.value and text(bench)
    bench.named["tumor"].value = " "
    assert "no prompt" in fault(bench) and not image.value


def test_one_class_among_the_images_has_no_score():
    bench = made(change=lambda table: table.assign(tumor="normal"))
    assert "metrics need two classes" in fault(bench) and not text(bench)


def test_what_is_cut_or_unknown_is_said():
    bench = made()
    bench.named["tumor"].value = f"a zzz tumor\n{'long ' * 30}"
    assert "The text tower has no token for: zzz." in text(bench)
    assert "its end is cut off: “long long" in text(bench)


def test_typed_words_are_no_html():
    bench = made(change=lambda t: t.assign(image_id=[f"<b>{k}" for k in t["image_id"]]),
                 picture=lambda _: picture("i0"))  # fmt: skip
    bench.named["tumor"].value = f"zzz <script>{'x' * 100}"
    for widget in bench.classes["bone-facts"]:
        assert "<script>" not in widget.value and "<b>" not in widget.value


def test_a_model_without_words_is_a_sentence():
    table, unit = images(cohort.task("tumor"))
    panel = explore.prompts(None, table, unit, picture, task=cohort.task("tumor"), styles={},
                            said="<made up> reads no words.")  # fmt: skip
    assert panel.widget.value == "&lt;made up&gt; reads no words."
    assert "reads no words" in panel.still().get_supxlabel()


@pytest.mark.parametrize("name", ["packaged:minilm", "small"])
def test_towers_say_which_words_they_lack(name):
    text = encoders.text(name)
    said = ["a tumor 🦴 of the femur", "ostéosarcome", "ᚠᚢᚦ 🦴"]
    assert text.unknown(said) == (["🦴", "ᚠᚢᚦ"] if name == "packaged:minilm" else [])
    assert text.unknown([]) == []


def test_a_clip_tokenizer_whose_end_is_its_unknown_token_knows_all_words(monkeypatch):
    inner = SimpleNamespace(unk_token_id=9, encode=lambda w, add_special_tokens: [1] + [9] * (
        add_special_tokens))  # fmt: skip
    text = encoders.text("small")
    monkeypatch.setattr(text.encoder if hasattr(text, "encoder") else text, "_tokenizer", inner)
    assert text.unknown(["a tumor"]) == []


# ---------------------------------------------------------------------- whose labels
def test_test_images_are_offered_where_their_labels_were_opened():
    def sealed(table):
        table["split"] = np.where(np.arange(len(table)) % 3 == 0, "test", table["split"])
        return table.assign(tumor=table["tumor"].where(table["split"] != "test", pd.NA))

    bench = made(change=sealed)
    assert bench.named["images"].options == ("validation", "training")
    bench = made(
        change=lambda table: sealed(table).assign(tumor=images(cohort.task("tumor"))[0].tumor)
    )
    assert bench.named["images"].options == ("validation", "training", "test")
    assert bench.named["images"].value == "validation"
    bench.named["images"].value = "test"
    assert "on test images" in text(bench) and "its score is no result" in text(bench)


@pytest.fixture(scope="module")
def context(sealed):
    yield sealed()


def openings(run):
    return runs.record.openings(run.path)


def asked(context, variant, model):
    """What notebook 06 has when it gives its reader the bench."""
    context = dataclasses.replace(context, variant=variant, inputs="default")
    settings = dict(size=64, resize="pad", language="en")
    notes = dict(caption_fields=("view", "site", "malignancy"))
    pretraining = SimpleNamespace(settings=settings, notes=notes, bundle="", name="made up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_bundle", lambda _: model)
        words = prompting.find_words(context, pretraining, prompting.plan(context, pretraining))
    run = context.start("zero_shot", settings=dict(test="fold0"), inputs=[context.cohort_run])
    return context, run, pretraining, words


def test_the_notebook_opens_no_label_for_it(context):
    image = encoders.image("timm:resnet10t", weights="random", size=64)
    model = models.DualEncoder(image, encoders.text("random"), dim=16).eval()
    context, run, pretraining, words = asked(context, "bench", model)
    said = prompting.read_words(words)

    def bench():
        return SimpleNamespace(
            **parts(exploring.prompts(context, run, pretraining, words, said=said))
        )

    first = bench()
    assert first.named["images"].options == ("validation", "training") and not openings(run)
    claim = first.classes["bone-facts"][0].value
    assert "Prompts are therefore label-supervised text." in claim and "Synthetic" in claim
    truth = opened(run).set_index("image_id")["tumor"]
    second = bench()
    second.named["images"].value = "test"
    assert len(openings(run)) == 1 and second.named["case"].max == len(truth)
    view = context.view()
    name = view.loc[view["split"] == "test", "image_id"].iloc[0]
    assert f"{name}, {truth[name]}" in second.classes["bone-facts"][1].value
    assert text(second).startswith("AUROC on test images")


def test_the_notebook_says_why_an_image_tower_reads_no_prompt(context):
    image = encoders.image("timm:resnet10t", weights="random", size=64)
    made = asked(context, "no-text", models.Classifier(image, outputs=1).eval())
    panel = exploring.prompts(*made, said=prompting.read_words(made[-1]))
    assert "made up learnt without a text tower" in panel.widget.value and not openings(made[1])
