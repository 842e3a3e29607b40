"""The stages of the argument as data: which notebook makes each, from what, by which module."""

# The notebook that makes each stage, for messages that tell what to run.
NOTEBOOKS = {
    "data": "01",
    "baselines": "02",
    "reports": "03",
    "pretraining": "04",
    "finetuning": "05",
    "zero_shot": "06",
    "gradcam": "07",
    "bone_tasks": "08",
    "results": "09",
}
# Which notebooks must have run before; the number is the order. Those that are not there are not
# asked for.
NEEDS = {
    "01": (),
    "02": ("01",),
    "03": ("01",),
    "04": ("01",),
    "05": ("01", "04"),
    "06": ("01", "04"),
    "07": ("01", "05"),
    "08": ("01",),  # and 04 where a pretraining is there: the notebook says which one it found
    "09": ("02", "05", "06", "07"),
}
# What a notebook reads if it is there: in the same call, it comes after all of these.
READS = {"08": ("04",), "09": tuple(f"{number:02}" for number in range(1, 9))}
# Further ones where a parameter has a certain value: (number, parameter, value).
NEEDS_WITH = {("04", "CAPTIONS", "reports"): ("03",)}
ANY_TASK = ("data", "reports", "pretraining")  # stages that serve every task
PUBLISHING = ("demo", "full")  # profiles whose figures reach figures/<data>/
# The modules whose imports are the code of a stage, as its notebook imports them.
_NAMED = {
    "data": ("data", "drawn"),
    "baselines": ("baselines", "literature"),
    "reports": ("texts.safety", "texts.reading"),
    "pretraining": ("captioning", "pretraining", "probing"),
    "zero_shot": ("prompting", "wording", "retrieving"),
    "bone_tasks": ("bone_tasks", "anomalies"),
}
MODULES = {
    stage: " ".join(f"bonelib.experiments.{name}" for name in _NAMED.get(stage, (stage,)))
    for stage in NOTEBOOKS
}
# Rooms that draw or judge: a training does not depend on them, so that a changed figure does not
# train for hours. Adaptation and evaluation stay out of pretraining alone: they judge it after its
# end, while finetuning trains by the one and chooses its epoch by the other. `zero_shot` stays in
# everywhere, since its retrieval chooses the epoch of a pretraining.
JUDGING = ("figures", "reporting", "explore", "audit", "explain")
# What papers report stands beside the baselines and changes none.
JUDGING_STAGE = {
    "pretraining": ("adaptation", "evaluation", "experiments/probing"),
    "baselines": ("experiments/literature",),
}


def input_variant(inputs: str, stage: str, *, default: str) -> str:
    """Return the variant under which a run looks for its input of a stage.

    Args:
        inputs: The parameter FROM: empty for ``default``, one name for all stages, or pairs
            ``stage:name`` separated by commas; stages that are not named take ``default``.
        default: The VARIANT of the run itself.

    Raises:
        ValueError: Names and pairs are mixed, or a stage is unknown.
    """
    if ":" not in inputs:
        return inputs or default
    pairs = [part.strip().partition(":") for part in inputs.split(",")]
    wrong = [one for one, _, name in pairs if one not in NOTEBOOKS or not name]
    if wrong:
        raise ValueError(
            f"FROM={inputs!r}: {', '.join(map(repr, wrong))} is no stage with a variant. Write one "
            f"name, or pairs such as data:default,pretraining:ours; stages: {', '.join(NOTEBOOKS)}."
        )
    return {one: name for one, _, name in pairs}.get(stage, default)
