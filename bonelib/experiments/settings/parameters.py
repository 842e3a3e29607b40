"""What the parameters of notebooks may be, checked before a kernel starts.

Typed values of one notebook come in; sentences on all that is wrong with them go out.
"""

import difflib
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from bonelib import captions, cohort, reports
from bonelib.evaluation.methods import HEADS, TOWERS
from bonelib.experiments.settings.checking import Shaped, Within, faults
from bonelib.experiments.settings.plans import STARTS, Resize, Said, TestSet
from bonelib.experiments.settings.protocols import protocol

Seed = Annotated[int, Within(0, 2**32 - 1)]  # what numpy takes
Epochs = Annotated[int, Within(0)]  # 0 is that of the profile
PARAMETERS: dict[str, Any] = {
    "SEED": Seed,
    "SPLIT_SEED": Seed,
    "EPOCHS": Epochs,
    "RESIZE": Resize,
    "TEST": TestSet,
    "CAPTION_FIELDS": tuple[Said, ...],
    "EVALUATE_ON": Literal["val", "test"],
    "RUN_ON": Literal["here", "elsewhere"],
    "MODE": Literal["tags", "surrogates"],
    "SITES": Literal["table", "predicted"],
}
LISTS = ("CAPTION_FIELDS", "LANGUAGES")  # by commas
# Heads that notebook 02 fits to the features of every encoder.
LADDER_HEADS = ("probe", "linear_svm", "rbf_svm", "knn", "gda", "xgboost", "mlp")
KINDS = ("packaged", "timm", "open_clip", "hf", "torchxrayvision", "onnx", "bundle")
WRITTEN = ("table", "reports")  # captions that are made of the words of a language


def problems(values: Mapping[str, Any]) -> list[str]:
    """List what is wrong with the parameters of a notebook, each with what is allowed.

    Args:
        values: All of them by name, in the types of their defaults; what is not known here passes.
    """
    listed = {name: listing(values[name]) for name in LISTS if name in values}
    hints = {name: hint for name, hint in PARAMETERS.items() if name in values}
    if "LANGUAGES" in values:  # of reports, or of the prompts of notebook 06
        spoken = captions.languages() if "SITES" in values else reports.names()
        hints["LANGUAGES"] = tuple[Annotated[str, Shaped("|".join(spoken), ", ".join(spoken))], ...]
    found = faults(hints, {**values, **listed})
    own = values.get("PROMPTS")
    if own and not (Path(own).is_absolute() and Path(own).is_file()):
        found.append(f"PROMPTS={own!r}: give the absolute path of a table that exists.")
    language, known = values.get("LANGUAGE"), captions.languages()
    if values.get("CAPTIONS") in WRITTEN and language not in known:
        found.append(f"LANGUAGE={language!r}. Choose {', '.join(known)}, or captions from a CSV.")
    named: dict[str, Callable[[str], Any]] = {"ENCODERS": encoder_names, "PROTOCOL": protocol}
    named |= {"STRATEGIES": tower_names}
    ladder = LADDER_HEADS if "ENCODERS" in values else HEADS
    named |= {"FINETUNE": functools.partial(_names, known=(*TOWERS, "none"), what="strategy")}
    named |= {"TASKS": functools.partial(_names, known=tuple(cohort.TASKS), what="task")}
    named |= {"HEADS": functools.partial(head_names, known=ladder)}
    for name in (one for one in named if values.get(one)):
        try:
            named[name](values[name])
        except ValueError as error:
            found.append(f"{name}: {error}")
    beside = [name for name in ("STRATEGIES", "HEADS") if values.get(name)]
    if values.get("PROTOCOL") and beside:
        found.append(f"PROTOCOL has rows of its own: leave {' and '.join(beside)} out.")
    return found


def encoder_names(text: str) -> tuple[str, ...]:
    """Part the encoders that are listed by commas: rungs of the ladder, or towers as ``onnx:FILE``.

    Raises:
        ValueError: An unknown name, with the nearest; a file that is not there.
    """
    from bonelib import encoders  # loads torch, so only where encoders are named

    for name in listing(text):
        kind, colon, place = name.partition(":")
        if not colon:
            encoders.rung(name)
        elif kind not in KINDS or not place:
            raise ValueError(f"Unknown encoder {name!r}. {_nearest(kind, KINDS)} before the colon.")
        elif kind in ("onnx", "bundle") and not (
            Path(place).is_absolute() and Path(place).exists()
        ):
            raise ValueError(f"There is no {place}: give an absolute path that exists.")
        elif kind == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            raise ValueError(
                f"{name} is read by onnxruntime, which is not installed. Run: "
                "pip install -c requirements.lock onnxruntime"
            )
    return listing(text)


def head_names(text: str, *, known: Sequence[str] = LADDER_HEADS) -> tuple[str, ...]:
    """Part the heads that are listed by commas.

    Raises:
        ValueError: An unknown name, with the nearest; a head whose package is not installed.
    """
    _names(text, known=known, what="head")
    if "xgboost" in listing(text) and importlib.util.find_spec("xgboost") is None:
        others = ",".join(head for head in LADDER_HEADS if head != "xgboost")
        raise ValueError(
            "xgboost is not installed. Run: pip install -c requirements.lock xgboost-cpu, or leave "
            f"it out: -p HEADS {others}"
        )
    return listing(text)


def tower_names(text: str) -> tuple[str, ...]:
    """Part the strategies that are listed by commas, some for one start alone: ``captions:lora``.

    Raises:
        ValueError: An unknown strategy or start, with the nearest.
    """
    for own, _, name in (part.rpartition(":") for part in listing(text)):
        _names(own or STARTS[0], known=STARTS, what="start")
        _names(name, known=TOWERS, what="strategy")
    return listing(text)


def _names(text: str, *, known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in listing(text):
        if name not in known:
            raise ValueError(f"Unknown {what} {name!r}. {_nearest(name, known)}.")
    return listing(text)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 2, 0.4)
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{meant}Choose {', '.join(known)}"


def listing(text: str) -> tuple[str, ...]:
    """Part what a parameter lists by commas."""
    return tuple(part.strip() for part in text.split(","))
