"""Keep what a study found, and write what is kept into the pages of the documentation."""

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bonelib.commands.printing import say, short

if TYPE_CHECKING:
    import pandas as pd

KEPT = Path("notebooks") / "studies_results.csv"
BESIDE = ("published", "attributes")  # recipes that every other is compared with
DIGITS = 4
ON_A_GPU = Path("benchmarks") / "gpu.json"  # what benchmarks/gpu.sh leaves
DEMO = Path("figures") / "phantom" / "results_tumor.md"  # what `make demo` publishes
SHOWN = {  # rows of the demo in the README: the floors, the bar, what language and outlines add
    "baselines": ("metadata only", "file only", "Lite0, ImageNet, frozen"),
    "finetuning": (
        *("ImageNet, linear probe", "captions, linear probe"),
        *("ImageNet, fine-tuned", "captions, fine-tuned", "captions, taught with outlines"),
    ),
    "zero-shot": ("prompts by label", "prompts by signs"),
}
COLUMNS = ("stage", "method", "AUROC", "AUPRC", "n")
WARNING = "Contains radiographs: do not publish."  # stands above each page


def results(study: str, seed: int | None, html: str) -> int:
    """Keep the gains that a finished study shows, if one is named, and write all tables.

    With a profile in ``html``, write its executed notebooks as HTML instead.
    """
    if html:
        return _as_html(html)
    import pandas as pd

    from bonelib import runs

    kept = runs.ROOT / KEPT
    if not kept.exists():
        raise FileNotFoundError(
            f"There is no {kept}: the tables are written in a checkout of bonelib, not from an "
            "installed package."
        )
    rows = pd.read_csv(kept)
    if study:
        rows = _replaced(rows, _found(study, seed))
        with runs.replacing(kept) as temporary:
            rows.to_csv(temporary, index=False)
        say(f"{len(rows)} rows in {short(kept)}")
    for name, text in (pages(rows) | measured_page()).items():
        path = runs.ROOT / name
        if path.read_text(encoding="utf-8") == text:
            say(f"{short(path)} is as it was")
            continue
        with runs.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        say(f"{short(path)} is written")
    return 0


def _as_html(profile: str) -> int:
    """Write each executed notebook beside itself as HTML; it stays in the run folder.

    The pages load nothing from the web: no server learns that someone reads them.
    """
    from nbconvert import HTMLExporter

    from bonelib import runs

    notebooks = sorted((runs.folder() / profile).glob("*/*/*/*/notebook.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"No notebook of the profile {profile!r} was executed in {runs.folder()}. Run some "
            f"first: bonelib run --profile {profile}"
        )
    here = {name: "" for name in HTMLExporter.class_trait_names() if name.endswith("_url")}
    exporter = HTMLExporter(**here)
    for notebook in notebooks:
        text, _ = exporter.from_filename(str(notebook))
        text = re.sub(r"<body[^>]*>", rf"\g<0><h1>{WARNING}</h1>", text, count=1)
        with runs.replacing(notebook.with_suffix(".html")) as temporary:
            temporary.write_text(text.replace('<script src=""></script>', ""), encoding="utf-8")
        say(short(notebook.with_suffix(".html")))
    say(f"{len(notebooks)} pages. {WARNING}")
    return 0


def pages(rows: "pd.DataFrame") -> dict[str, str]:
    """Return the pages that print results, by their path in the repository, as they should be.

    The README shows each recipe on the last folds and with the last training seed: what was tried
    first may have helped to choose it.
    """
    from bonelib import reporting, runs

    start = rows[rows["compared_to"] == reporting.START]
    latest = start.sort_values(["split_seed", "seed"]).groupby("recipe", sort=False).tail(1)
    ends = latest[["recipe", "split_seed", "seed"]]
    last = start.merge(ends)  # in the order of the rows
    between = rows[rows["compared_to"] != reporting.START]
    gains = reporting.study_table
    tables = {
        "README.md": {"demo": _demo(), "last seeds": gains(last)},
        "docs/studies.md": {"gains": gains(start), "comparisons": gains(between)},
    }
    made = {}
    for page, parts in tables.items():
        text = (runs.ROOT / page).read_text(encoding="utf-8")
        for name, part in parts.items():
            text = reporting.with_table(text, name, part)
        made[page] = text
    return made


def measured_page() -> dict[str, str]:
    """Return the page that prints what a GPU does, by its path, as it should be."""
    from bonelib import reporting, runs

    page, path = "docs/pretraining.md", runs.ROOT / ON_A_GPU
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text, table = (runs.ROOT / page).read_text(encoding="utf-8"), found.get("table")
    return {page: reporting.with_table(text, "on a GPU", table or "It has not been run here.")}


def _demo() -> str:
    """Return the rows of the demo's table by ranking that the README shows.

    Raises:
        ValueError: The demo published no such row; ``SHOWN`` names others.
    """
    from bonelib import runs

    lines = (runs.ROOT / DEMO).read_text(encoding="utf-8").splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("| stage |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[begin:])
    head, _, *rows = map(_cells, table)
    kept, missing = [], [(stage, one) for stage, shown in SHOWN.items() for one in shown]
    stage = ""
    for cells in rows:
        stage = cells[0] or stage
        if (stage, cells[1]) in missing:
            missing.remove((stage, cells[1]))
            kept.append([stage, *(cells[head.index(name)] for name in COLUMNS[1:])])
    if missing:
        raise ValueError(f"{DEMO} has no row {missing[0][1]!r} of {missing[0][0]}.")
    lines = [COLUMNS, [":--", ":--", "--:", "--:", "--:"], *kept]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _found(study: str, seed: int | None) -> "pd.DataFrame":
    """Return the gains of a study's finished runs."""
    import pandas as pd

    from bonelib import headless, reporting, runs

    own = {} if seed is None else {"SEED": seed}
    planned = headless.study(study, parameters=own)
    judged = [(of, values) for _, of, values in planned if values.get("EVALUATE_ON") == "test"]
    if not judged:
        raise ValueError(f"The study {study!r} opens no test labels, so it has no result to keep.")
    (profile, values), names = judged[0], {one["RECIPE"] for _, one in judged}
    usual = headless.study(study)[0][2].get("SEED", 0)
    seed, split_seed = values.get("SEED", 0), _split_seed(planned)
    command = f"bonelib study {study}" + (f" -p SEED {seed}" if seed != usual else "")
    parts = []
    for beside in BESIDE:
        table = reporting.recipes(profile=profile, beside=beside)
        if len(table):
            data = runs.paths.data_name(values["DATA"], profile=profile)
            asked = pd.Series([data, split_seed, seed], index=reporting.SAME)
            table = table[(table[reporting.SAME] == asked).all(axis=1)]
            table = table[table["recipe"].isin(names)]
        folds = len({one["TEST"] for _, one in judged})
        done = set(table.loc[table["folds"] == folds, "recipe"]) if len(table) else set()
        if missing := sorted(names - done):
            raise ValueError(
                f"Runs of {', '.join(missing)} are missing, stale or of several settings. Finish "
                f"the study first: {command}"
            )
        said = BESIDE[: BESIDE.index(beside)]  # those were compared with this one: told once
        table = table[~table["recipe"].isin(said)]
        compared = [beside, reporting.START][: 1 + (beside == BESIDE[0])]
        parts.append(reporting.study_rows(table, command=command, compared_to=compared))
    return pd.concat(parts, ignore_index=True)


def _split_seed(planned: list) -> int:
    """Return the seed of the folds: that of the study's notebook 01."""
    return next((one["SPLIT_SEED"] for _, _, one in planned if "SPLIT_SEED" in one), 0)


def _replaced(rows: "pd.DataFrame", found: "pd.DataFrame") -> "pd.DataFrame":
    """Put the rows of one command in the place of those it made before, in a steady order."""
    import pandas as pd

    from bonelib import reporting
    from bonelib.experiments import settings

    command = found["command"].iloc[0]
    whole = pd.concat([rows[rows["command"] != command], found.round(DIGITS)])
    places = {name: k for k, name in enumerate([reporting.START, *settings.recipe_names()])}
    tasks = {name: k for k, name in enumerate(dict.fromkeys(whole["task"]))}

    def place(column: "pd.Series") -> "pd.Series":
        known = {"recipe": places, "compared_to": places, "task": tasks}.get(column.name)
        return column if known is None else column.map(known)

    order = ["recipe", "compared_to", "split_seed", "seed", "task"]
    return whole.sort_values(order, key=place)
