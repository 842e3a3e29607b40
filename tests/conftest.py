"""What several test files use: shared cases, and towers made once; who changes one takes a copy."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def device():
    """The device of tests that can use one: BONELIB_TEST_DEVICE, cpu or cuda; else the CPU."""
    name = os.environ.get("BONELIB_TEST_DEVICE", "cpu")
    if name != "cpu":
        import torch

        assert torch.cuda.is_available(), f"BONELIB_TEST_DEVICE={name}, and torch sees no GPU"
    return name


@pytest.fixture
def case():
    """Give a folder of the shared cases by its name, or skip."""

    def folder(name=""):
        path = Path(os.environ.get("BONELIB_DATA", "")).parent / "cases" / name
        if "BONELIB_DATA" not in os.environ or not path.is_dir():
            pytest.skip(f"needs cases/{name} beside BONELIB_DATA")
        return path

    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a small random BERT of Hugging Face and MiniLM's tokenizer."""
    import torch
    import transformers

    from bonelib import encoders

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = encoders.text("packaged:minilm", cached=False)._tokenizer
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = transformers.BertConfig(
            **sizes,
            intermediate_size=64,
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=64,
            pad_token_id=0,
        )
        transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """Runs, caches and figures in a folder of the module's own, and what makes the run of 01 there.

    Gives a function of ``resize`` that seals 48 small synthetic radiographs and returns a context.
    """
    from bonelib.experiments import data
    from bonelib.experiments.context import Context

    folder = tmp_path_factory.mktemp("experiments")
    patch = pytest.MonkeyPatch()
    for name in ("RUNS", "CACHE", "FIGURES"):
        patch.setenv(f"BONELIB_{name}", str(folder / name.lower()))

    def seal(resize="pad"):
        context = Context()
        plan = data.plan(context, resize=resize)
        plan |= dict(radiographs=48, phantom_size=64, size=64, folds=3)
        radiographs = data.decode(context, data.read(context, plan), plan)
        run = context.start("data", settings=plan, drawn=radiographs.root)
        data.seal(run, data.group(radiographs, plan))
        return Context()

    yield seal
    patch.undo()


@pytest.fixture
def clean_canvas():
    """The style of the figures for a test, and no figure left open behind it."""
    import matplotlib
    import matplotlib.pyplot as plt

    from bonelib import figures

    with matplotlib.rc_context():
        figures.use_thesis_style()
        yield
    plt.close("all")
