r"""The example chapter of a thesis: sentences, tables and figures of a run, as files that compile.

The template beside this module (``thesis/results.tex``) holds the order: ``$key`` is a sentence of
``checklists.sentences``, ``%table`` and ``%figure`` name what stands there if the run has it.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Template

from bonelib.reporting.printing import escape

TEMPLATES = Path(__file__).with_name("thesis")
DRAWN = "Synthetic radiographs. "  # in front of each caption


def thesis(
    facts: Mapping[str, str],
    tables: Mapping[str, str],
    figures: Collection[str],
    *,
    synthetic: bool,
) -> dict[str, str]:
    """Write the files of the bundle but the figures.

    Args:
        facts: Sentences by key.
        tables: LaTeX by the names of the template.
        figures: Names of the PDF files that will lie in ``figures/``.
        synthetic: Whether each caption must say so.

    Returns:
        Content by path: ``main.tex``, ``results.tex``, ``tables/….tex`` and ``references.bib`` with
        the works that the chapter cites.
    """
    told = {key: escape(text) for key, text in facts.items()}
    template = (TEMPLATES / "results.tex").read_text(encoding="utf-8")
    text = Template(template).substitute(dict.fromkeys(_keys(template), "") | told)

    def placed(line: re.Match) -> str:
        kind, name, caption = line.groups()
        if name not in (tables if kind == "table" else figures):
            return ""
        return rf"\input{{tables/{name}}}" if kind == "table" else _figure(name, caption, synthetic)

    text = re.sub(r"^%(table|figure) (\S+) ?(.*)$\n?", lambda m: placed(m) + "\n", text, flags=re.M)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ ]{2,}|[ ]+$", " ", text, flags=re.M))
    cited = {key for keys in re.findall(r"\\cite\{([^}]+)\}", text) for key in keys.split(",")}
    made = {"main.tex": (TEMPLATES / "main.tex").read_text(encoding="utf-8"), "results.tex": text}
    made |= {"references.bib": references(cited)}
    return made | {f"tables/{name}.tex": table for name, table in tables.items()}


def _keys(template: str) -> set[str]:
    return set(re.findall(r"\$([a-z_]+)", template))


def _figure(name: str, caption: str, synthetic: bool) -> str:
    told = escape(DRAWN * synthetic + caption)
    return (
        "\\begin{figure}[htbp]\n\\centering\n"
        rf"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]{{figures/{name}}}"
        f"\n\\caption{{{told}}}\\label{{fig:{name}}}\n\\end{{figure}}\n"
    )


def references(keys: Collection[str]) -> str:
    """Return the entries of these works.

    Raises:
        ValueError: One has no entry.
    """
    text = (TEMPLATES / "references.bib").read_text(encoding="utf-8")
    entries = {
        re.match(r"@\w+\{([^,]+),", e)[1]: e for e in re.split(r"\n(?=@)", text) if e[0] == "@"
    }
    if missing := sorted(set(keys) - set(entries)):
        raise ValueError(f"references.bib lacks {', '.join(missing)}, which the chapter cites.")
    return "\n".join(entries[key].strip() + "\n" for key in sorted(keys))
