"""What the parameters of notebooks may be, checked before a kernel starts.

Typed values of one notebook come in; sentences on all that is wrong with them go out.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from bonelib import captions, reports
from bonelib.experiments.settings.checking import Shaped, Within, faults
from bonelib.experiments.settings.plans import Resize, Said, TestSet

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
    "LANGUAGES": tuple[
        Annotated[str, Shaped("|".join(reports.names()), ", ".join(reports.names()))], ...
    ],
}
LISTS = ("CAPTION_FIELDS", "LANGUAGES")  # by commas
WRITTEN = ("table", "reports")  # captions that are made of the words of a language


def problems(values: Mapping[str, Any]) -> list[str]:
    """List what is wrong with the parameters of a notebook, each with what is allowed.

    Args:
        values: All of them by name, in the types of their defaults; what is not known here passes.
    """
    listed = {name: listing(values[name]) for name in LISTS if name in values}
    hints = {name: hint for name, hint in PARAMETERS.items() if name in values}
    found = faults(hints, {**values, **listed})
    language, known = values.get("LANGUAGE"), captions.languages()
    if values.get("CAPTIONS") in WRITTEN and language not in known:
        found.append(f"LANGUAGE={language!r}. Choose {', '.join(known)}, or captions from a CSV.")
    return found


def listing(text: str) -> tuple[str, ...]:
    """Part what a parameter lists by commas."""
    return tuple(part.strip() for part in text.split(","))
