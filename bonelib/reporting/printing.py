r"""Print a frame of texts as Markdown or LaTeX: the one form of all tables of the chapter.

Cells come in as plain text, ``.851 [.822, .877]``; a table goes out, its text escaped. What is bold
is decided by whoever made the frame.
"""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

INTERVAL = re.compile(r"(\S+) (\[.*\])")  # value and interval, or median and quartiles
WIDE = 4  # columns of intervals that stand beside each other on a page of A4


@dataclass(frozen=True)
class Printed:
    """A table as it will be read.

    Attributes:
        shown: Texts, the columns as they are headed.
        words: Columns that are set flush left; numbers stand flush right.
        notes: Lines below.
        bold: (row, column) of the cells whose value is bold; their interval stays plain.
        part: A column whose texts head the rows below them in LaTeX, in a line of their own.
        widths: Shares of the text width of columns that break lines, in a LaTeX table with caption.
    """

    shown: pd.DataFrame
    words: Collection[str] = ()
    notes: Sequence[str] = ()
    bold: Collection[tuple[int, str]] = ()
    part: str = ""
    widths: Mapping[str, float] = field(default_factory=dict)

    def markdown(self) -> str:
        """Write it as a Markdown table with its notes below."""
        shown = self.shown.map(lambda text: str(text).replace("|", "\\|"))
        rows = self._rows(shown, "**{}**")
        rule = [":--" if column in self.words else "--:" for column in shown]
        lines = [list(shown), rule, *(list(row.values()) for row in rows)]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
        return text + ("\n" + "  \n".join(self.notes) + "\n" if self.notes else "")

    def latex(self, *, caption: str = "", label: str = "") -> str:
        r"""Write it as a booktabs ``tabular``; needs ``\usepackage{booktabs}``.

        Args:
            caption: With one, as a ``longtable`` that breaks over pages: needs
                ``\usepackage{longtable}``. More than four intervals a row then take two lines.
        """
        columns = [column for column in self.shown if column != self.part]
        widths = self.widths if caption else {}
        body = self._body(columns, widths, stacked=bool(caption))
        heads = [_lines([escape(x) for x in textwrap.wrap(c, 15)] or [""]) for c in columns]
        head = [r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
        broken = {c: rf"p{{{widths[c]}\linewidth}}" for c in columns if c in widths}
        spec = "".join(broken.get(c, "rl"[c in self.words]) for c in columns)
        if not caption:
            notes = [line for note in self.notes for line in textwrap.wrap(note, 95)]
            span = rf"\multicolumn{{{len(columns)}}}{{l}}"
            foot = [rf"{span}{{\footnotesize {escape(line)}}} \\" for line in notes]
            lines = [rf"\begin{{tabular}}{{{spec}}}", *head, *body, r"\bottomrule", *foot]
            return "\n".join([*lines, r"\end{tabular}"]) + "\n"
        # A table that would start in the last quarter of a page starts on the next one.
        room = r"\par\ifdim\dimexpr\pagegoal-\pagetotal\relax<.25\textheight\newpage\fi"
        small = r"{\footnotesize\setlength{\tabcolsep}{4pt}\setlength{\LTcapwidth}{\linewidth}"
        lines = [small + room, rf"\begin{{longtable}}{{@{{}}{spec}@{{}}}}"]
        lines += [rf"\caption{{{escape(caption)}}}\label{{{label}}} \\"]
        lines += [*head, r"\endfirsthead", *head, r"\endhead", r"\midrule", r"\endfoot"]
        lines += [r"\bottomrule", r"\endlastfoot", *body]
        notes = r"\par\noindent ".join(map(escape, self.notes))
        return "\n".join([*lines, r"\end{longtable}", rf"\noindent {notes}\par}}"]) + "\n"

    def _rows(self, cells: pd.DataFrame, form: str) -> list[dict[str, str]]:
        """Return the rows with what is bold put into ``form``."""
        rows = cells.to_dict("records")
        for row, column in self.bold:
            value, _, rest = rows[row][column].partition(" ")
            rows[row][column] = f"{form.format(value)} {rest}".strip()
        return rows

    def _body(self, columns: list[str], widths: Mapping[str, float], *, stacked: bool) -> list[str]:
        measured = [c for c in columns if self.shown[c].astype(str).str.fullmatch(INTERVAL).any()]
        measured = measured if stacked and len(measured) > WIDE else []
        body: list[str] = []
        for cells in self._rows(self.shown.map(escape), r"\textbf{{{}}}"):
            if self.part and cells[self.part]:
                body += [r"\addlinespace"] * bool(body)
                span = rf"\multicolumn{{{len(columns)}}}{{l}}"
                body.append(rf"{span}{{\itshape {cells[self.part]}}} \\")
            for column in measured:
                if two := INTERVAL.fullmatch(cells[column]):
                    cells[column] = _lines([two[1], rf"\scriptsize {two[2]}"])
            told = [rf"\raggedright {cells[c]}" if c in widths else cells[c] for c in columns]
            line = " & ".join(told) + r" \\"
            body.append("{}" + line if line.startswith("[") else line)  # else an option of \\
        return body


def _lines(texts: Sequence[str]) -> str:
    """Set texts below each other in one cell, the first on the line of the row."""
    below = r" \\ ".join(texts)
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{below}\end{{tabular}}" if texts[1:] else texts[0]


def escape(text: object) -> str:
    """Write a text so that LaTeX prints it: names hold ``<``, ``|``, ``≥``, Greek letters."""
    from pylatexenc.latexencode import unicode_to_latex

    bars = str(text).split("|")  # in the fonts of plain LaTeX, a "|" is a dash
    return r"\textbar{}".join(unicode_to_latex(part, unknown_char_policy="keep") for part in bars)
