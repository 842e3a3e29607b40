"""What a method is, in columns: where its weights come from, how they were fitted, what it sees.

Rows of one method share the columns below; tables are grouped, filtered and coloured by them. A
name for readers is made of them in ``figures``, and nothing looks at that name.
"""

from dataclasses import dataclass

import pandas as pd

METHOD = ("start", "strategy", "sees", "detail")
WORDING = "wording"
# What is fitted on labels: heads on frozen features, then what trains the tower, then the rest.
# ``adaptation/strategies.csv`` explains them.
HEADS = ("probe", "linear_svm", "rbf_svm", "knn", "class_mean", "xgboost", "mlp", "lp_plus_plus")
HEADS += (
    "cumulative",
    "ss_text",
    "tip_adapter",
    "tip_adapter_f",
    "clip_adapter",
    "clap",
    "taskres",
    "prolip",
)
HEADS += ("gda", "class_text", "coop", "clip_it", "cascade", "hierarchy")
HEADS += ("early_fusion", "late_fusion", "sentence_fusion")
TOWERS = ("full", "last_block", "layer_rates", "lp_ft", "wise_ft", "l2_sp", "flyp", "lora")
TOWERS += ("class_text_ft", "class_text_random", "head_then_all", "dense_head")
TOWERS += ("top_k", "attention_pool", "outlined", "lesion_crops")  # the last two see outlines
# What learns from normal images, or from outlines; see the room ``anomaly``.
ANOMALY = ("normal_knn", "mahalanobis", "patch_knn", "mvfa")
STRATEGIES = ("none", "prompt", "calibrated", "selected", *HEADS, *TOWERS, *ANOMALY)
SEEN = ("none", "image", "metadata", "sex", "file", "thumbnail", "text")


@dataclass(frozen=True)
class Method:
    """One method of a predictions table.

    Attributes:
        start: Weights of the image tower: ``none``, ``scratch``, ``imagenet``, ``captions`` (of
            notebook 04) or the name of a tower that comes with weights (``resnet50.a1_in1k``).
        strategy: What was fitted on labels, one of ``HEADS`` or ``TOWERS``: a linear ``probe``,
            every weight (``full``); ``selected`` where inner folds chose among
            several; ``prompt`` where sentences stand for labels, ``calibrated`` where validation
            labels moved what they say; ``none``.
        sees: One of ``SEEN``, or several: ``image+metadata``.
        detail: What parts methods that are equal so far: the style of prompts (``label``), what of
            the metadata (``regions only``), the tower that started from scratch, the recipe.
        wording: The single prompts, where they are scored one by one.

    Raises:
        ValueError: A strategy, or something seen, that is none of those.
    """

    start: str = "none"
    strategy: str = "none"
    sees: str = "image"
    detail: str = ""
    wording: str = ""

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"Unknown strategy {self.strategy!r}. Choose one of {', '.join(STRATEGIES)}."
            )
        odd = sorted(set(self.sees.split("+")) - set(SEEN))
        if odd:
            raise ValueError(
                f"A method can't see {', '.join(odd)}. Choose among {', '.join(SEEN)}, several "
                "joined by +: image+metadata."
            )

    def columns(self) -> dict[str, str]:
        """Return the columns of a table with a value each; ``wording`` only where there is one."""
        named = {name: getattr(self, name) for name in METHOD}
        return named | ({WORDING: self.wording} if self.wording else {})


def method_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of ``table`` that say what a method is.

    Raises:
        ValueError: They are not there.
    """
    lacking = [name for name in METHOD if name not in table]
    if lacking:
        raise ValueError(
            f"The table lacks {', '.join(lacking)}: it does not say what its methods are. Pass "
            "method=evaluation.Method(start=…, strategy=…, sees=…) to evaluation.predictions; a "
            "table that was stored without it needs the notebook that made it to run again."
        )
    return [name for name in (*METHOD, WORDING) if name in table]


def by_method(table: pd.DataFrame) -> dict[Method, pd.DataFrame]:
    """Part a table by its methods, in the order in which they first occur."""
    columns = method_columns(table)
    keys = [table[name].fillna("") for name in columns]
    return {
        Method(**dict(zip(columns, key, strict=True))): rows
        for key, rows in table.groupby(keys, sort=False)
    }


def refuse_unaccompanied(table: pd.DataFrame) -> None:
    """Refuse the score of a fusion without the score of its metadata alone beside it.

    What age, sex and site reach alone is no merit of the image, and much of what a fusion gains may
    be just that.

    Raises:
        ValueError: A method sees metadata and more, and no method sees metadata alone on the same
            images.
    """
    methods = by_method(table)
    seen = {method: set(method.sees.split("+")) for method in methods}
    alone = [set(methods[m]["image_id"]) for m, parts in seen.items() if parts == {"metadata"}]
    for method, parts in seen.items():
        images = set(methods[method]["image_id"])
        if "metadata" in parts and len(parts) > 1 and not any(images <= own for own in alone):
            raise ValueError(
                f"{method} is a fusion, and nothing says what its metadata reach alone on its "
                f"{len(images)} images. Predict these by the same columns "
                'alone (adaptation.part), as Method(strategy="probe", sees="metadata").'
            )
