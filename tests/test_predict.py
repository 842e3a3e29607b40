"""Protects the use of trained models: the numbers of the notebooks, nobody named, no silence."""

import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import dicom_files
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import bonelib
from bonelib import (
    adaptation,
    cohort,
    encoders,
    evaluation,
    features,
    figures,
    images,
    models,
)
from bonelib.__main__ import main
from bonelib.experiments import context, finetuning, settings
from bonelib.experiments.predict import gather

SIZE = 32
TUMOR = cohort.task("tumor")


def tower(name="timm:test_resnet", seed=1):
    image = encoders.image(name, weights="random", size=SIZE, seed=seed)
    image.train()
    with torch.no_grad():  # its batch norms have seen something
        image(torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    return image.eval()


def stirred(module, seed=0):
    """Give heads of zeros something to say."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.startswith("head"):
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


def classifier(folder, task=TUMOR, *, fit="pad", **facts):
    model = stirred(models.Classifier(tower(), outputs=task.outputs))
    return models.save_bundle(folder, model, **context.applied(task, fit=fit) | facts)


@pytest.fixture
def bundle(tmp_path):
    return classifier(tmp_path / "bundle", threshold=0.5)


def film(seed, shape=(60, 48)):
    """A smooth picture, dark at its edges."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 255, (6, 5), np.uint8))
    picture = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC)).astype(float)
    falls = np.minimum.outer(*(np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape))
    return np.rint(picture * (falls / falls.max())).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five pictures in two folders."""
    root = tmp_path / "films"
    for i in range(5):
        path = root / ("left" if i % 2 else "right") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film(i)).save(path)
    return root


def paths(folder):
    return sorted(folder.rglob("*.png"))


def quiet(call, *given, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*given, **options)


def cached(table, tmp_path, fit="pad"):
    return images.cache(table, size=SIZE, fit=fit, folder=tmp_path / "cache")


def as_table(files):
    table = cohort.empty(len(files))
    table["image_id"], table["path"] = [f.stem for f in files], [str(f) for f in files]
    return table


# ---------------------------------------------------------------------- the same numbers
def test_probabilities_are_those_of_the_notebooks_to_the_bit(bundle, folder, tmp_path):
    files = paths(folder)
    cache = cached(as_table(files), tmp_path)
    loader = context.in_order(cache, cache.ids, tower())
    logits = features.encode(models.load_bundle(bundle), loader)
    expected = evaluation.probabilities(logits, task=TUMOR)
    table = quiet(bonelib.load(bundle).predict, files)
    assert (table[["p_normal", "p_tumor"]].to_numpy() == expected).all()
    assert len(np.unique(expected)) == 10, "the pictures differ"
    assert table["file"].tolist() == [str(f) for f in files]


def test_the_resize_mode_of_the_bundle_decides(folder, tmp_path):
    padded = classifier(tmp_path / "a", threshold=0.5)
    squashed = classifier(tmp_path / "b", fit="squash", threshold=0.5)
    one, other = (quiet(bonelib.load(b).predict, folder)["p_tumor"] for b in (padded, squashed))
    assert (one != other).all()


def test_a_batch_is_not_moved_by_a_file_that_can_not_be_read(bundle, folder):
    """Batches hold readable images, as those of the notebooks do."""
    model = bonelib.load(bundle)
    table = quiet(model.predict, folder)
    (folder / "left" / "0.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 of 6 files have no prediction"):
        more = model.predict(folder)
    assert (
        more["problem"].ne("").sum() == 1 and more.loc[more["problem"] != "", "call"].eq("").all()
    )
    good = more[more["problem"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(good, table)


def test_files_are_decoded_no_further_ahead_than_a_batch_needs(bundle, folder, monkeypatch):
    """Memory does not grow with the number of files."""
    for i in range(200):
        Image.fromarray(film(i)).save(folder / f"more{i:03d}.png")
    decoded, decode = [], images.pixels.decode
    monkeypatch.setattr(
        images.pixels, "decode", lambda *a, **k: decoded.append(a) or decode(*a, **k)
    )
    rows = 0
    for part in bonelib.load(bundle).batches(gather(folder)):
        rows += len(part)
        assert len(part) <= 64 and len(decoded) <= rows + 10
    assert rows == len(decoded) == 205


@pytest.mark.parametrize("name", ["malignancy", "kl_grade", "bone_age"])
def test_a_probe_in_a_bundle_says_what_the_probe_says(name, folder, tmp_path):
    task, rng = cohort.task(name), np.random.default_rng(0)
    cache = cached(as_table(paths(folder)), tmp_path)
    image = tower()
    seen = features.encode(image, context.in_order(cache, cache.ids, image))
    known = np.vstack([seen + 0.3 * rng.normal(size=seen.shape) for _ in range(12)])
    count = len(task.classes)
    labels = np.arange(len(known)) % count if count else rng.normal(100, 20, len(known))
    fitted = adaptation.probe(known, labels, np.arange(len(known)), classes=count)
    whole = models.LinearProbe(image, outputs=fitted.weights.shape[1], fitted=vars(fitted))
    models.save_bundle(tmp_path / "b", whole, **context.applied(task, fit="pad"))
    model = bonelib.load(tmp_path / "b")
    table = model.predict(paths(folder))
    logits = fitted.logits(seen)
    if not count:
        assert np.abs(table["value"] - logits).max() < 1e-9 and "call" not in table
        return
    expected = evaluation.probabilities(logits, task=task)
    assert np.abs(table.filter(like="p_").to_numpy() - expected).max() < 1e-12
    assert list(table.filter(like="p_")) == [f"p_{c}" for c in task.classes]
    assert table["call"].tolist() == [task.classes[i] for i in expected.argmax(1)]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        *((head, "tumor") for head in adaptation.PACKED),
        *((head, "malignancy") for head in adaptation.PACKED),
        *((head, "kl_grade") for head in ("rbf_svm", "linear_svm")),
        *((head, "bone_age") for head in ("rbf_svm", "xgboost", "mlp", "knn")),
    ],
)
def test_a_head_in_a_bundle_says_what_it_said_when_it_was_fitted(head, name, folder, tmp_path):
    task, rng = cohort.task(name), np.random.default_rng(0)
    cache = cached(as_table(paths(folder)), tmp_path)
    image = tower()
    seen = features.encode(image, context.in_order(cache, cache.ids, image))
    spread = 0.5 * seen.std(axis=0)
    known = np.vstack([seen + spread * rng.normal(size=seen.shape) for _ in range(12)])
    known, count = known.astype(np.float32), len(task.classes)
    which = np.arange(len(known)) % len(seen)
    labels = which % count if count else 20.0 * which
    if name == "kl_grade":  # a grade that no training row has
        labels = np.where(labels == 2, 1, labels)
    options = dict(classes=count, ordinal=task.kind == "ordinal")
    support = adaptation.Support(known, labels, np.arange(len(known)), **options)
    points = adaptation.points(head, task.kind)[::-7]
    fitted = adaptation.fit(adaptation.strategy(head), support, points)
    whole = adaptation.pack(head, image, fitted)
    cut = {"threshold": 0.5} if task.positive else {}
    models.save_bundle(tmp_path / "b", whole, **context.applied(task, fit="pad"), **cut)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "bundle.json",
        "weights.safetensors",
    }
    table = quiet(bonelib.load(tmp_path / "b").predict, paths(folder))
    logits = fitted.logits(seen)
    if not count:
        assert np.abs(table["value"] / logits - 1).max() < 1e-6
    else:
        expected = evaluation.probabilities(logits, task=task)
        assert np.ptp(expected[:, 0]) > 1e-3
        assert np.abs(table.filter(like="p_").to_numpy() - expected).max() < 1e-6
    again = models.load_bundle(tmp_path / "b")
    if isinstance(again, models.FeatureHead):
        apart = adaptation.unpack(again).logits(known) - fitted.logits(known)
        assert np.abs(apart).max() < 1e-5 * np.abs(fitted.logits(known)).max()
        with pytest.raises(ValueError, match=f"heat maps of {head}"):
            bonelib.load(tmp_path / "b").check_heatmaps()


def test_a_head_without_arrays_of_its_own_is_refused(folder):
    with pytest.raises(ValueError, match="coop can't be saved.*rbf_svm"):
        adaptation.pack("coop", tower(), None)


@pytest.fixture(scope="module")
def tuned(sealed):
    """A fine-tuning of one start on 48 squashed synthetic radiographs, and its predictions."""
    own, sizes = sealed("squash"), dict(size=64, batch_size=8, epochs=1, strengths=(0.01,))
    tuning = settings.Finetuning(
        image="packaged:efficientnet_lite0",
        resize="squash",
        test="fold0",
        starts=("scratch",),
        heads=("knn", "xgboost"),
        **sizes,
    )
    run = own.start("finetuning", inputs=[own.cohort_run], settings=tuning.as_dict())
    setup = finetuning.prepare(
        own, SimpleNamespace(bundle=None, settings={"recipe": {"name": ""}}), tuning
    )
    assert list(finetuning.train(run, setup, accelerator="cpu"))
    return own, run, finetuning.predict(own, run, setup)


@pytest.mark.parametrize("start", ["scratch", "scratch-probe", "scratch-knn", "scratch-xgboost"])
def test_a_fine_tuning_leaves_bundles_that_say_what_its_predictions_say(tuned, start):
    own, run, predictions = tuned
    view = own.view()
    model = bonelib.load(run.path, start=start)
    table = quiet(model.predict, view["path"]).set_index(view["image_id"])
    strategy = start.partition("-")[2] or "full"
    kept = predictions[(predictions["start"] == "scratch") & (predictions["strategy"] == strategy)]
    apart = table.loc[kept["image_id"], "p_tumor"].to_numpy() - kept["p_tumor"].to_numpy()
    assert np.abs(apart).max() <= {"full": 0, "probe": 1e-12}.get(strategy, 1e-6)
    assert {model.threshold} == set(kept["threshold"]) and model.fit == "squash"
    assert model.task == TUMOR, "classes, their order and words"


# ---------------------------------------------------------------------- the call
def test_the_call_follows_the_threshold():
    task = cohort.task("malignancy")
    table = pd.DataFrame(
        [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [np.nan] * 3],
        columns=[f"p_{c}" for c in task.classes],
    )
    from bonelib.experiments.predict import Predictor

    def calls(cut):
        made = Predictor(None, None, task, "pad", cut, ())
        return made.called(table)["call"].tolist()

    assert calls(None) == ["normal", "benign", "malignant", ""]
    assert calls(0.3) == ["normal", "malignant", "malignant", ""]
    assert calls(0.8) == ["normal", "benign", "benign", ""], "below it, the best of the others"


def test_a_frozen_threshold_is_kept_in_the_bundle_and_a_given_one_is_said_to_be_no_such(tmp_path):
    bundle = classifier(tmp_path / "b")
    before = json.loads((bundle / "bundle.json").read_text())
    assert bonelib.load(bundle).threshold is None
    assert "no threshold" in " ".join(bonelib.load(bundle).notes)
    models.note_bundle(str(bundle), threshold=0.123456789012345678)
    after = json.loads((bundle / "bundle.json").read_text())
    assert after["facts"].pop("threshold") == 0.123456789012345678 and after == before
    assert bonelib.load(bundle).threshold == 0.123456789012345678
    assert not bonelib.load(bundle).notes
    given = bonelib.load(bundle, threshold=0.9)
    assert given.threshold == 0.9 and "yours" in " ".join(given.notes)


# ---------------------------------------------------------------------- kinds of bundles
class Words(torch.nn.Module):
    """A text tower of one embedding."""

    width, weights, name = 8, "random", "words"

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(64, 8)

    def tokenize(self, sentences):
        return torch.tensor([[len(sentence) % 64] for sentence in sentences])

    def forward(self, tokens):
        return self.table(tokens[:, 0])


@pytest.fixture
def dual(tmp_path):
    model = models.DualEncoder(tower(), encoders.text("small"), dim=16)
    facts = context.pictured("pad") | dict(caption_fields=("view", "signs"), language="en")
    return models.save_bundle(tmp_path / "dual", model, **facts)


@pytest.mark.parametrize("task", ["tumor", "malignancy", "bone_age"])
def test_a_dual_encoder_is_asked_by_prompts_as_in_notebook_06(dual, folder, task, tmp_path):
    from bonelib import captions, zero_shot

    with pytest.warns(UserWarning, match="zero-shot"):
        table = bonelib.load(dual, task=task).predict(paths(folder))
    model, asked = models.load_bundle(dual), cohort.task(task)
    cache = cached(as_table(paths(folder)), tmp_path)
    seen = features.encode(model.encode_image, context.in_order(cache, cache.ids, model.image))
    classes = zero_shot.class_features(model, captions.prompts(asked, style="label"))
    logits = zero_shot.logits(seen, classes, scale=model.logit_scale.exp().item())
    if values := captions.prompt_values(asked):
        assert (table["value"] == zero_shot.expected(logits, values)).all()
    else:
        expected = evaluation.probabilities(logits, task=asked)
        assert (table.filter(like="p_").to_numpy() == expected).all()


def test_one_head_of_several_answers_in_the_order_of_the_classes(folder, tmp_path):
    model = models.MultiHead(tower(), classes=(2, 3))
    torch.nn.init.normal_(model.heads[1].weight, std=0.3)
    heads = [["view", ["frontal", "lateral"]], ["malignancy", ["benign", "malignant", "normal"]]]
    facts = context.pictured("pad") | {"attributes": heads}
    bundle = models.save_bundle(tmp_path / "b", model, **facts)
    table = bonelib.load(bundle, task="malignancy", threshold=0.5).predict
    with pytest.warns(UserWarning, match="yours"):
        table = table(paths(folder))
    cache = cached(as_table(paths(folder)), tmp_path)
    loader = context.in_order(cache, cache.ids, model.image)
    with torch.no_grad():
        logits = torch.cat([model.eval()(batch["image"])[1] for batch in loader])
    p = logits.double().softmax(1)[:, [2, 0, 1]].numpy()
    found = table[["p_normal", "p_benign", "p_malignant"]].to_numpy()
    assert np.abs(found - p).max() < 1e-7
    with pytest.raises(ValueError, match="no head for tumor.*view, malignancy.*bonelib run 05"):
        bonelib.load(bundle, task="tumor")


def test_the_names_of_heads_come_with_the_captions(tmp_path):
    from bonelib import captions

    table = cohort.empty(3).assign(tumor=["tumor", "normal", pd.NA], side=["left", pd.NA, "right"])
    fields = ("side", "view", "tumor")
    keys, values = captions.keys(table, fields=fields), captions.key_values(table, fields=fields)
    assert values == {"side": ["left", "right"], "tumor": ["normal", "tumor"]}, "no view is known"
    told = [[list(values.values())[k][i] for k, i in enumerate(row) if i >= 0] for row in keys]
    assert told == [["left", "tumor"], ["normal"], ["right"]]
    table.attrs["attributes"] = [[k, v] for k, v in values.items()]
    table[["tumor"]].to_parquet(tmp_path / "t.parquet")  # a planned run keeps them
    assert pd.read_parquet(tmp_path / "t.parquet").attrs == table.attrs


# ---------------------------------------------------------------------- what a bundle does not say
def old(folder, **facts):
    """A bundle as the version before wrote it."""
    models.save_bundle(folder, stirred(models.Classifier(tower(), outputs=1)), **facts)
    record = json.loads((folder / "bundle.json").read_text())
    del record["format"]
    (folder / "bundle.json").write_text(json.dumps(record))
    return folder


def test_an_old_bundle_loads_and_what_it_lacks_is_asked_for_at_once(tmp_path, folder):
    bundle = old(tmp_path / "old", test="fold0")
    assert isinstance(models.load_bundle(str(bundle)), models.Classifier)
    with pytest.raises(ValueError) as refused:
        bonelib.load(bundle)
    told = str(refused.value)
    assert "--resize pad or squash" in told and "--task tumor" not in told and "--task" in told
    model = bonelib.load(bundle, resize="squash", task="tumor")
    assert model.fit == "squash" and "does not name its classes" in model.notes[0]
    with pytest.raises(ValueError, match="1 outputs, malignancy needs 3"):
        bonelib.load(bundle, resize="pad", task="malignancy")


def test_what_contradicts_a_bundle_is_refused(bundle, dual):
    with pytest.raises(ValueError) as refused:
        bonelib.load(bundle, resize="squash", task="fracture", language="fr", threshold=None)
    for told in (
        "resize is 'pad' in the bundle",
        "answers tumor, it has no head for fracture",
        "bonelib run 05 -p TASK fracture",
        "reads no words",
    ):
        assert told in str(refused.value)
    with pytest.raises(ValueError, match="threshold 2 is no probability"):
        bonelib.load(bundle, threshold=2)
    with pytest.raises(ValueError, match="does not say its task"):
        bonelib.load(dual)
    with pytest.raises(ValueError, match="no prompts by 'poems'"):
        bonelib.load(dual, task="tumor", prompts="poems")
    with pytest.raises(ValueError, match="no class to detect"):
        bonelib.load(dual, task="kl_grade", threshold=0.5)


def test_a_bundle_of_a_later_format_or_a_damaged_one_is_refused(bundle):
    record = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(ValueError, match="format 99.*up to"):
        bonelib.load(bundle)
    (bundle / "bundle.json").write_text('{"architecture": ')
    with pytest.raises(ValueError, match="damaged"):
        bonelib.load(bundle)


def test_classes_are_those_that_the_model_learnt(tmp_path, folder):
    """A task whose classes change later does not change what an older model says."""
    facts = dict(task="tumor", kind="multiclass", classes=("a", "b", "c"), positive="c", unit="")
    model = stirred(models.Classifier(tower(), outputs=3))
    bundle = models.save_bundle(tmp_path / "b", model, **facts, **context.pictured("pad"))
    models.note_bundle(bundle, threshold=0.2)
    assert list(bonelib.load(bundle).predict(folder).filter(like="p_")) == ["p_a", "p_b", "p_c"]


def test_a_run_folder_gives_its_bundle_or_names_several(tmp_path):
    run = tmp_path / "run"
    classifier(run / "bundle" / "captions", threshold=0.4)
    assert bonelib.load(run).threshold == 0.4
    classifier(run / "bundle" / "captions-probe", threshold=0.6)
    with pytest.raises(ValueError, match="captions, captions-probe. Choose one: --start"):
        bonelib.load(run)
    assert bonelib.load(run, start="captions-probe").threshold == 0.6
    with pytest.raises(ValueError, match="none called 'x'"):
        bonelib.load(run, start="x")
    with pytest.raises(FileNotFoundError, match="no bundle and no run"):
        bonelib.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        bonelib.load(tmp_path / "nowhere")


# ---------------------------------------------------------------------- which files
def test_a_path_is_predicted_once_however_it_is_given(bundle, folder):
    files = paths(folder)
    sources = gather([folder, files[0], folder / "left" / ".." / "left" / "1.png"])
    assert len(sources) == 5
    assert "2 files were given more than once" in " ".join(sources.attrs["notes"])


def test_a_table_of_paths_gives_ids_and_studies(bundle, folder, tmp_path):
    files = [f.relative_to(folder).as_posix() for f in paths(folder)]
    rows = pd.DataFrame({"path": files, "image_id": list("abcde"), "study": [*"ssttt"]})
    rows.loc[4, "study"] = None
    rows.loc[5] = [None, "f", "s"]
    rows.to_csv(folder / "own.csv", index=False)
    model = bonelib.load(bundle)
    with pytest.warns(UserWarning, match="f: the table names no file"):
        table = model.predict(folder / "own.csv")
    assert table["image_id"].tolist() == list("abcdef")
    studies = model.per_study(table).set_index("study")
    assert studies["images"].to_dict() == {"s": 2, "t": 2}
    means = table.dropna(subset=["p_tumor", "study"]).groupby("study")["p_tumor"].mean()
    assert np.allclose(studies["p_tumor"], means) and set(studies["call"]) <= {*TUMOR.classes}
    rows.rename(columns={"path": "where"}).to_csv(folder / "own.csv", index=False)
    with pytest.raises(ValueError, match="where, image_id, study.*'path'"):
        gather(folder / "own.csv")


def test_paths_that_lead_nowhere_are_told_together(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture")
    given = [folder, tmp_path / "empty", tmp_path / "notes", tmp_path / "none.png"]
    with pytest.raises(ValueError) as refused:
        gather(given)
    told = str(refused.value)
    assert told.startswith("3 paths") and told.count("holds no images") == 2
    assert "none.png" in told and "a.txt" in told
    with pytest.raises(ValueError, match="No path"):
        gather([])


def test_a_table_that_names_dicom_files_gives_nobody_away(bundle, export):
    """Not their paths, ids and studies, and not the names of files that are not there."""
    names = [f"{NAMED}/{NAMED}1.dcm", f"{NAMED}/lost.dcm", "photo.png"]
    rows = pd.DataFrame({"path": names, "image_id": [f"{NAMED}1", NAMED, "own"], "study": NUMBER})
    rows.to_csv(export / "own.csv", index=False)
    with pytest.warns(UserWarning, match="lost.dcm: No such file"):
        table = bonelib.load(bundle).predict(export / "own.csv")
    told = table.astype(str).to_csv()
    assert (
        NAMED not in told and NUMBER not in told and table["image_id"].tolist()[1:] == ["", "own"]
    )
    assert table["study"].tolist() == ["study 0001"] * 3, "one study has one name"


def test_other_files_of_a_folder_are_counted(folder):
    (folder / "left" / "notes.txt").write_text("nothing")
    assert "1 files are no images by their names" in " ".join(gather(folder).attrs["notes"])


# ---------------------------------------------------------------------- DICOM and persons
NAMED = "DOE_JANE"
NUMBER = "P1"


@pytest.fixture
def export(tmp_path):
    """An export whose file names, headers and an unreadable file name a person."""
    root = tmp_path / "export"
    (root / NAMED).mkdir(parents=True)
    bright = film(1).astype(np.uint16) * 16
    (root / NAMED / f"{NAMED}1.dcm").write_bytes(dicom_files.film(bright, InstanceNumber=1))
    (root / NAMED / "IM2").write_bytes(
        dicom_files.film(4095 - bright, PhotometricInterpretation="MONOCHROME1", InstanceNumber=2)
    )
    told = dict(SOPClassUID=dicom_files.SECONDARY, SeriesDescription=f"dose report {NAMED}")
    (root / NAMED / "IM3").write_bytes(dicom_files.film(bright, InstanceNumber=3, **told))
    (root / NAMED / "letter.doc").write_bytes(b"no picture")
    Image.fromarray(film(3)).save(root / "photo.png")
    return root


def test_nothing_made_from_dicom_names_a_person(bundle, export, tmp_path, capsys):
    out = tmp_path / "table.parquet"
    given = ["predict", str(bundle), str(export), "--out", str(out)]
    assert main([*given, "--heatmaps", str(tmp_path / "maps")]) == 1, "some were not predicted"
    said = capsys.readouterr().out
    assert "2 of 5 files have no prediction" in said and "letter.doc" in said and "IM3" in said
    table = pd.read_parquet(out)
    assert len(table) == 5 and (table["problem"] == "").sum() == 3
    made = [out, *tmp_path.glob("*.parquet"), *(tmp_path / "maps").iterdir()]
    for file in made:
        content = file.read_bytes() + file.name.encode()
        for word in (NAMED, "Doe", "Jane", str(tmp_path)):
            assert word.encode() not in content, (file, word)
    frame = table.astype(str)
    for secret in (NAMED, NUMBER, "1.2.826", "IM2"):
        assert not frame.apply(lambda c, s=secret: c.str.contains(s, regex=False)).any(axis=None)
    assert table["file"].eq("").all(), "a picture among DICOM files lies in a person's folder"
    assert set(table["study"].dropna()) == {"study 0001"}


def test_the_polarity_of_a_header_is_undone(bundle, export):
    with pytest.warns(UserWarning, match="have no prediction"):
        table = bonelib.load(bundle).predict(export, named=True).set_index("file")
    one, other = (table.loc[f"{NAMED}/{n}", "p_tumor"] for n in (f"{NAMED}1.dcm", "IM2"))
    assert one == pytest.approx(other, abs=5e-3)
    assert table.loc[f"{NAMED}/IM3", "problem"] != ""


def test_heat_maps_of_dicom_lie_on_black_unless_paths_are_wanted(bundle, export, tmp_path):
    model = bonelib.load(bundle)
    with pytest.warns(UserWarning):
        table = model.predict(export, heatmaps=tmp_path / "a")
        model.predict(export, heatmaps=tmp_path / "b", named=True)
    row = table[table["problem"] == ""].iloc[0]
    hidden, shown = (np.asarray(Image.open(tmp_path / f / row["heatmap"])) for f in "ab")
    assert row["heatmap"] == f"{row['image_id']}.png" and hidden.shape == shown.shape
    assert (shown >= hidden).all() and shown.sum() > 1.2 * hidden.sum(), "the film lies below"
    quiet(model.predict, export / "photo.png", heatmaps=tmp_path / "c")
    (alone,) = (tmp_path / "c").iterdir()
    assert alone.read_bytes() == (tmp_path / "b" / alone.name).read_bytes(), "a picture: its film"


def test_no_heat_leaves_the_film_as_it_is():
    square = film(0, (32, 32))
    drawn = figures.heat_over(square, np.zeros((8, 8)), side=32)
    assert (drawn == square[..., None]).all()
    hot = figures.heat_over(square, np.eye(8), side=64)
    assert hot.shape == (64, 64, 3) and (hot[..., 0] != hot[..., 2]).any()


def test_no_paths_leaves_hashes_alone(bundle, folder):
    table = quiet(bonelib.load(bundle).predict, folder, named=False)
    assert table["file"].eq("").all() and table["image_id"].str.fullmatch("[0-9a-f]{16}").all()


def test_a_suspected_negative_is_noted(bundle, tmp_path):
    Image.fromarray(255 - film(0)).save(tmp_path / "negative.png")
    Image.fromarray(film(0)).save(tmp_path / "positive.png")
    table = quiet(
        bonelib.load(bundle).predict, [tmp_path / f"{n}.png" for n in ("negative", "positive")]
    )
    assert table["note"].str.contains("negative").tolist() == [True, False]


# ---------------------------------------------------------------------- the command
def test_the_command_writes_a_row_a_file_and_studies_beside(bundle, folder, tmp_path, capsys):
    files = [str(f) for f in paths(folder)]
    pd.DataFrame({"path": files, "study": [*"aabbb"]}).to_csv(tmp_path / "own.csv", index=False)
    out = tmp_path / "deep" / "table.csv"
    given = ["predict", str(bundle), str(tmp_path / "own.csv"), "--out", str(out)]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "For research only" in said and "5 files, 5 predicted" in said and "2 studies" in said
    table = pd.read_csv(out)
    assert table["file"].tolist() == files and {"p_tumor", "threshold", "call"} <= {*table}
    assert len(pd.read_csv(tmp_path / "deep" / "table_studies.csv")) == 2


def test_everything_that_is_wrong_is_told_before_a_file_is_read(folder, tmp_path, capsys):
    image = encoders.image("timm:vit_tiny_patch16_224", weights="random", size=SIZE)
    model = models.Classifier(image, outputs=1)
    bundle = models.save_bundle(tmp_path / "vit", model, **context.applied(TUMOR, fit="pad"))
    (tmp_path / "file").write_text("")
    given = ["predict", str(bundle), str(tmp_path / "none"), "--out", str(tmp_path / "file" / "t")]
    assert main([*given, "--heatmaps", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    for told in (
        "--out must end in .csv or .parquet",
        "Nothing can be written into",
        "There is no file and no folder",
        "There are no heat maps of timm:vit_tiny",
    ):
        assert told in said


def test_a_killed_command_leaves_the_old_table(bundle, folder, tmp_path, monkeypatch):
    out = tmp_path / "table.csv"
    out.write_text("old")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(images.pixels, "decode", stop)
    assert main(["predict", str(bundle), str(folder), "--out", str(out)]) == 130
    assert out.read_text() == "old" and [*tmp_path.glob(".table*")] == []


def test_loading_is_lazy():
    code = "import sys, bonelib; assert 'torch' not in sys.modules; bonelib.load; bonelib.cohort"
    code += "\nassert 'torch' in sys.modules"
    code = code.replace("bonelib.cohort", "from bonelib import cohort")
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'save'"):
        bonelib.save  # noqa: B018
