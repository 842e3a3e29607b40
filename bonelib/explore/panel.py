"""A widget and the still picture that stands for it where a notebook runs without a reader."""

import contextlib
import html
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipywidgets import DOMWidget
    from matplotlib.figure import Figure

# JupyterLab has shortcuts on plain keys: where a dropdown has the focus, an arrow would move to the
# next cell and "x" would cut this one. The keys of a panel stay in it; Escape and Enter pass.
# Texts of ipywidgets have the line height of a button, and a box stretches its pictures.
_ONCE = """
if (!document.body.dataset.bonePanel) {
  document.body.dataset.bonePanel = "styled, keeps its keys";
  document.head.insertAdjacentHTML("beforeend", `<style>
    .bone-panel .widget-html-content {line-height: 1.4}
    .bone-panel :is(th, td) {padding: 1px 1em 1px 0; text-align: left}
    .bone-panel .bone-picture {align-self: flex-start; max-width: 100%}
  </style>`);
  document.body.addEventListener("keydown", (event) => {
    const passes = event.ctrlKey || event.metaKey || ["Escape", "Enter"].includes(event.key);
    if (!passes && event.target.closest(".bone-panel")) event.stopPropagation();
  });
}
"""


@dataclass
class Panel:
    """What a notebook cell shows: the widget for a reader, the still picture for papermill.

    Attributes:
        widget: The controls with what they change.
        still: Draws the figure that the widget shows at first.
    """

    widget: "DOMWidget"
    still: Callable[[], "Figure"]

    def _ipython_display_(self) -> None:
        import matplotlib.pyplot as plt
        from IPython.display import Javascript, display

        if attended():
            self.widget.add_class("bone-panel")
            display(self.widget, Javascript(_ONCE))
        else:
            figure = self.still()
            display(figure)
            plt.close(figure)  # or Jupyter shows it again at the end of the cell


def attended() -> bool:
    """Tell whether a reader can answer: nbclient, below papermill, executes without input."""
    from IPython import get_ipython

    kernel: Any = getattr(get_ipython(), "kernel", None)
    return bool(kernel is not None and kernel._allow_stdin)


@contextlib.contextmanager
def spoken(fault: Any, *emptied: Any) -> Iterator[None]:
    """Show what fails in a callback, about which ipywidgets is silent, in place of old answers."""
    fault.value = ""
    try:
        yield
    except Exception as error:
        known = isinstance(error, ValueError)  # says what can't be answered, and why
        fault.value = html.escape(f"{'' if known else f'{type(error).__name__}: '}{error}")
        for widget in emptied:
            widget.value = "" if isinstance(widget.value, str) else b""
        if known:
            return
        raise


def png(figure: "Figure") -> bytes:
    """Write a figure as PNG and close it, or Jupyter shows it at the end of the cell."""
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    return file.getvalue()
