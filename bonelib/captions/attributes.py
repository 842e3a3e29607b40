"""Prompts of single signs and of sites, and the stated table that combines signs into classes.

A language goes in; sentences for each term of each sign, or for each site, come out. A task goes
in; the weight of each term for each class comes out. The sentences name no class.
"""

import pandas as pd

from bonelib.captions.grammar import caption, words
from bonelib.captions.prompting import sheet
from bonelib.cohort import SIGNS, SITE, SITES, VIEW, VIEWS, Task


def attribute_prompts(language: str = "en") -> dict[str, dict[str, list[str]]]:
    """Return sentences for each term of each sign (``cohort.SIGNS``), for an ensemble a term.

    The captions' own words and those of ``signs.csv``, alone and as a caption says them.

    Raises:
        ValueError: No such language; the message lists those known.
    """
    own, others = words(language), sheet("signs.csv")
    found: dict[str, dict[str, list[str]]] = {sign: {} for sign in SIGNS}
    for sign, term, more in others[["sign", "term", language]].itertuples(index=False):
        found[sign][term] = [
            sentence
            for phrase in (own[sign, term], more)
            if phrase
            for sentence in (phrase, *_said({sign: phrase}, ("signs",), language))
        ]
    return found


def site_prompts(language: str = "en") -> dict[str, list[str]]:
    """Return sentences that name each site of ``cohort.SITES``, in every view, for an ensemble.

    Raises:
        ValueError: No such language; the message lists those known.
    """
    words(language)
    return {site: _said({SITE: (site,)}, (VIEW, SITE), language) for site in SITES}


def _said(row: dict, fields: tuple[str, ...], language: str) -> list[str]:
    """Write a row's captions in each opening: with the view if it is a field, else without."""
    views = [(), *((view,) for view in VIEWS)] if VIEW in fields else [(), ()]
    return [caption({VIEW: view, **row}, fields, language, n) for n, view in enumerate(views)]


def attribute_weights(task: Task) -> pd.DataFrame:
    """Return how much each term of a sign speaks for or against each class (``attributes.csv``).

    A class's score is the sum over its rows of ``weight`` times the probability of ``term`` among
    the terms of ``sign``; a term without a row says nothing. ``source`` says where the direction
    comes from (docs/prompts.md), every size is a judgement: from 4, what an entity is known by,
    over 2, typical, and 1, fitting, to -2, hardly ever seen.

    Returns:
        Columns ``class, sign, term, weight, source``, classes in the task's order.

    Raises:
        ValueError: The table has no rows for the task; the message lists the tasks that it has.
    """
    table = sheet("attributes.csv")
    rows = table[table["task"] == task.name].drop(columns="task")
    if rows.empty:
        have = ", ".join(table["task"].unique())
        raise ValueError(
            f"No table combines signs into classes of {task.name!r}; there is: {have}."
        )
    return rows.assign(weight=rows["weight"].astype(float)).reset_index(drop=True)
