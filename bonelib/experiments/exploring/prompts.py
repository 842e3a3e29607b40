"""The prompt bench of notebook 06: the pair that the run asks, about images of the cohort."""

from typing import Any

from bonelib import captions, explore, features, runs
from bonelib.cohort import IMAGE_ID
from bonelib.experiments.context import AnyRun, Context
from bonelib.experiments.exploring.cases import picture


def prompts(
    context: Context, run: AnyRun, pretraining: runs.Record, words: Any, *, said: str
) -> explore.Panel:
    """Let a reader ask the pretrained pair in other words; see ``explore.prompts``.

    Opens no label: test images are offered where the run has opened theirs before.

    Args:
        words: Of ``prompting.find_words``.
        said: Of ``prompting.read_words``: what a score by prompts may be called.
    """
    said = f"{'Synthetic radiographs. ' if context.synthetic else ''}{said.replace('**', '')}"
    task, view = context.asked, context.view()
    if not words.prompts:
        return explore.prompts(words.model, view, view, view, task=task, styles={}, said=said)
    try:
        truth = run.table("opened").set_index(IMAGE_ID)[task.column]
        view[task.column] = view[task.column].fillna(view[IMAGE_ID].map(truth))
    except FileNotFoundError:
        pass  # nothing is opened
    settings = pretraining.settings
    cache = context.cache(settings["size"], fit=settings.get("resize", ""))
    pooled = context.features(words.model.image, cache, view[IMAGE_ID])
    return explore.prompts(
        words.model,
        view,
        features.projected(words.model, pooled),
        picture(cache),
        task=task,
        styles=words.prompts,
        values=captions.prompt_values(task),
        said=said,
    )
