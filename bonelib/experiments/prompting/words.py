"""What a pretrained pair can be asked in words, and the images that it is asked about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bonelib import adaptation, captions, evaluation, images, models, runs, tables, zero_shot
from bonelib.evaluation import Method
from bonelib.experiments import settings
from bonelib.experiments.context import Context

# Regularisations among which the probes choose.
SETTINGS = pd.DataFrame(
    {"tiny": [(0.01,)], "demo": [adaptation.STRENGTHS], "full": [adaptation.STRENGTHS]},
    index=["strengths"],
)
SITES = ("table", "predicted")  # where the site of an image is known from
ENGLISH_ONLY = ("packaged:minilm",)  # towers that read no other language


@dataclass(frozen=True)
class Words:
    """A pretrained model, and what it can be asked in words.

    Attributes:
        prompts: Sentences by style (and language, but for English) and class; empty where there is
            nothing to ask with.
        fields: What the captions of the pretraining named.
        reason: Why there are no prompts; "" where there are.
        languages: Those that are asked in, of which the tower reads each.
        notes: Languages that it does not read, in sentences.
        reads: The one language that it reads; "" of a tower of several.
    """

    model: models.DualEncoder
    prompts: dict[str, dict[str, list[str]]]
    fields: tuple[str, ...]
    reason: str = ""
    languages: tuple[str, ...] = ("en",)
    notes: tuple[str, ...] = ()
    reads: str = ""

    @property
    def first(self) -> dict[str, list[str]]:
        """The prompts that the stages below start from: by label, in the first language."""
        return next(iter(self.prompts.values()))

    @property
    def scale(self) -> float:
        """The factor on the cosines."""
        return self.model.logit_scale.exp().item()

    @property
    def claim(self) -> str:
        """What a score of prompts may be called after such a pretraining (contract 9)."""
        return captions.supervision(self.fields) if self.prompts else ""


def plan(
    context: Context, pretraining: runs.Record, *, languages: str = "en", sites: str = "table"
) -> dict[str, Any]:
    """Return the settings: the profile's, and the images as the pretraining saw them.

    Raises:
        ValueError: A language without prompts, or another source of sites.
    """
    named = tuple(dict.fromkeys(one.strip() for one in languages.split(",") if one.strip()))
    odd = sorted(set(named) - set(captions.languages()))
    if odd or not named:
        have = ", ".join(captions.languages())
        raise ValueError(f"No prompts in {', '.join(odd) or languages!r}. LANGUAGES: {have}.")
    if sites not in SITES:
        raise ValueError(f"SITES={sites!r}. Choose {' or '.join(SITES)}.")
    return dict(
        strengths=SETTINGS.loc["strengths", context.profile],
        test=context.test,
        styles=captions.styles(context.asked),
        languages=named,
        sites=sites,
        size=pretraining.settings["size"],
        resize=pretraining.settings.get("resize") or context.cohort_run.settings["fit"],
    )


# ---------------------------------------------------------------------- what are the prompts?
def find_words(
    context: Context, pretraining: runs.Record, plan: dict[str, Any], *, own: str = ""
) -> Words:
    """Load the pretrained model and write the prompts of the task, in each style and language.

    Args:
        own: A CSV or Excel file of further prompts, columns ``class`` and ``prompt``.

    Raises:
        ValueError: Own prompts of unknown, repeated or forgotten classes, or that name none.
    """
    task, model = context.asked, models.load_bundle(pretraining.bundle)
    fields = tuple(pretraining.notes["caption_fields"])
    if not isinstance(model, models.DualEncoder):
        reason = f"{pretraining.name} learnt without a text tower: it reads no words."
        return Words(model, {}, fields, reason)  # pyrefly: ignore[bad-argument-type] it is not asked
    if not settings.trained_words(pretraining.settings):
        reason = f"{pretraining.name} learnt from images alone: its words were never trained."
        return Words(model, {}, fields, reason)
    if not captions.styles(task):
        return Words(model, {}, fields, f"There are no words for the classes of {task.name}.")
    known = {"small": pretraining.settings.get("language")} | dict.fromkeys(ENGLISH_ONLY, "en")
    only = known.get(model.text.name)
    asked = tuple(one for one in plan["languages"] if only in (None, one))
    notes = tuple(
        f"{model.text.name} reads {only} alone: its prompts in {one} are left out."
        for one in plan["languages"]
        if one not in asked
    )
    prompts = {
        detail(style, language): captions.prompts(task, style=style, language=language)
        for language in asked
        for style in captions.styles(task)
    }
    prompts |= {"own": captions.check_prompts(_own(own), task)} if own else {}
    return Words(model, prompts, fields, "" if asked else " ".join(notes), asked, notes, only or "")


def _own(file: str) -> dict[str, list[str]]:
    """Read prompts by class from a table."""
    read, columns = tables.read(file, []), ["class", "prompt"]
    if lacking := [name for name in columns if name not in read]:
        found = ", ".join(map(str, read)) or "none"
        raise ValueError(f"{file} lacks the column(s) {', '.join(lacking)}. It has: {found}.")
    return read[columns].fillna("").groupby("class", sort=False)["prompt"].agg(list).to_dict()


def detail(style: str, language: str) -> str:
    """Name a set of prompts; English goes without saying."""
    return style if language == "en" else f"{style} ({language})"


def asked_by(detail: str, wording: str = "") -> Method:
    """Return the method of prompts of that kind."""
    return Method("captions", "prompt", "image", detail=detail, wording=wording)


def read_words(words: Words) -> str:
    """Say what a score by these prompts may be called, or why there is none."""
    if words.reason:
        said = "Nothing is asked in words below; similar cases need none."
        return f"**{words.reason}** {said}"
    named = ", ".join(words.fields)
    said = f"Captions of the pretraining named: {named}. Prompts are therefore **{words.claim}**."
    return " ".join([said, *words.notes])


def show_prompts(words: Words) -> pd.DataFrame:
    """Show the first prompt of each class in each style, and how many there are."""
    rows = [
        (style, name, len(sentences), sentences[0])
        for style, by_class in words.prompts.items()
        for name, sentences in by_class.items()
    ]
    return pd.DataFrame(rows, columns=["style", "class", "prompts", "the first one"])


@dataclass(frozen=True)
class Seen:
    """Test and validation images as the pair sees them.

    Attributes:
        cache: All decoded images.
        table: Their rows of the view.
        unit: ``(N, D)`` features in the space of the texts.
        sites: Of each image, by the table or by prompts.
    """

    context: Context
    cache: images.Cache
    table: pd.DataFrame
    unit: np.ndarray
    sites: list[tuple[str, ...]]

    def part(self, name: str) -> np.ndarray:
        """Return which rows are of a split."""
        return (self.table["split"] == name).to_numpy()

    def predicted(self, method: Method, logits: np.ndarray) -> pd.DataFrame:
        """Return predictions of the test images from logits of all rows, or of theirs.

        A value is what its stages expect.
        """
        context, rows = self.context, self.part("test")
        out = logits[rows] if len(logits) == len(rows) else logits
        if values := captions.prompt_values(context.asked):
            out = zero_shot.expected(out, values)
        named = dict(task=context.asked, seed=context.seed, method=method)
        return evaluation.predictions(self.table[rows], out, **named)
