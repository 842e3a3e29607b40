"""The parameters of a notebook: which there are, of which type, and what a typed text means.

The text of a notebook comes in, or a value as it was typed; values of the declared types go out.
"""

import ast
import contextlib
import json
from typing import Any

# Parameters that name the run or its data, whose content the record compares, or that change none.
PLACE = ("PROFILE", "DATA", "DATA_ROOT", "SEED", "VARIANT", "REUSE")
COMMON = (*PLACE, "TASK")  # every notebook declares them


def declared(notebook: str) -> dict[str, Any]:
    """Read the parameters of a notebook with their defaults, whose types are those of the values.

    The cell is read as Python. papermill 2.7 reads it line by line and loses a parameter whose
    default or type holds ``=``, ``#`` or ``|``.

    Args:
        notebook: The text of its file.

    Raises:
        ValueError: The notebook lacks one that every notebook has, or computes one.
    """
    cells = json.loads(notebook)["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    found = {}
    for node in _statements("".join(tagged[0]["source"]) if tagged else ""):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name, default = ast.unparse(target), ast.unparse(node.value)
            try:
                found[name] = _listed(ast.literal_eval(node.value))
                json.dumps(found[name])  # a record can hold it
            except (ValueError, TypeError):
                raise ValueError(
                    f"{name} = {default} is not a plain value; compute it in a later cell, since "
                    "values from outside come in after the parameters."
                ) from None
    if missing := [name for name in COMMON if name not in found]:
        raise ValueError(
            f"no parameters {', '.join(missing)}. The first code cell needs the tag "
            '"parameters" and lines such as SEED: int = 0'
        )
    return found


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(
            f"line {error.lineno} of the parameters is not plain Python ({error.msg}): keep magics "
            "in a later cell."
        ) from None


def convert(name: str, value: Any, wanted: type) -> Any:
    """Turn what was typed on the command line into the type of the default, strictly.

    Of a default None nothing is known: a number, a list or None is read as such, the rest is text.

    Raises:
        ValueError: ``value`` is no such thing: ``1.0`` is no int, ``yes`` is no bool.
    """
    read = value
    if isinstance(value, str) and wanted is not str:
        with contextlib.suppress(ValueError, SyntaxError):
            read = ast.literal_eval(value.capitalize() if wanted is bool else value)
            if wanted is bool and read in (0, 1):
                read = bool(read)
    if wanted is float and type(read) is int:
        return float(read)
    if type(read) is wanted or wanted is type(None):  # not isinstance: True is an int
        return _listed(read)
    shown = {bool: "true or false", list: 'a list such as "[1, 2]"', dict: "a dict"}
    kind = shown.get(wanted, f"of type {wanted.__name__}")
    raise ValueError(f"{name} must be {kind}, found {value!r}.")


def _listed(value: Any) -> Any:
    """Return tuples as lists: papermill writes any other value into a notebook as text."""
    if isinstance(value, list | tuple):
        return [_listed(one) for one in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value
