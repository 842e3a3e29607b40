"""The checker of settings: frozen dataclasses whose annotations say what each may be.

Plain values, from a TOML file or a record, come in; typed settings go out, or one error that lists
all that is wrong with them. A class that is checked has a method ``conflicts``, which lists what
can't go together.
"""

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

# Names of settings before they were renamed, for files written then.
RENAMED = {
    "back": "wise_ft",
    "distil": "feature_distillation",
    "only": "data_sets",
    "without": "exclude_fields",
    "like": "inherits",
    "apart": "text_init_floor",
}


@dataclass(frozen=True)
class Within:
    """The numbers that a setting may be; of a list, how many entries it may have.

    Attributes:
        above: ``low`` itself is not one of them.
        zero: 0 is one of them, whatever ``low``: it stands for "none" or "that of the profile".
    """

    low: float = 0
    high: float = math.inf
    above: bool = False
    zero: bool = False

    def allows(self, value: float) -> bool:
        """Whether ``value`` is one of them; what is not finite never is."""
        over = value > self.low if self.above else value >= self.low
        inside = over and value <= self.high and math.isfinite(value)
        return inside or self.zero and value == 0

    def __str__(self) -> str:
        low = f"above {self.low:,.15g}" if self.above else f"at least {self.low:,.15g}"
        both = low if math.isinf(self.high) else f"{low} and at most {self.high:,.15g}"
        return f"that is 0 or {both}" if self.zero else both


@dataclass(frozen=True)
class Shaped:
    """The texts that a setting may be: a pattern, and the same for readers."""

    pattern: str
    told: str

    def allows(self, value: str) -> bool:
        """Whether ``value`` has this form."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return self.told


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _parts(hint: Any) -> tuple[Any, Any, list[Any]]:
    """Take an annotation apart: the type, its origin (``tuple``, ``Literal``), and its rules."""
    if type(None) in get_args(hint):  # ``X | None``
        hint = get_args(hint)[0]
    base, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    return base, get_origin(base), rules


def _listed(hint: Any) -> type | None:
    """Return the settings of which a setting is a list; None where it is another thing."""
    base, origin, _ = _parts(hint)
    inner = get_args(base)[0] if origin is tuple else None
    return inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None


def _allowed(hint: Any) -> str:
    """Say what a setting of this type may be."""
    base, origin, rules = _parts(hint)
    if origin is Literal:
        return ", ".join(get_args(base))
    if inner := _listed(hint):
        return f"a list of one or more tables of {', '.join(f.name for f in fields(inner))}"
    if origin is tuple:
        return ", ".join([f"a list of ({_allowed(get_args(base)[0])})", *map(str, rules)])
    if dataclasses.is_dataclass(base):
        return "a table of " + ", ".join(f.name for f in fields(base))
    if base is str and rules:
        return str(rules[0])
    return " ".join([_KINDS[base], *map(str, rules)])


def _typed(hint: Any, value: Any) -> Any:
    """Return ``value`` in the type of a setting, strictly: ``True`` is no 1, but 1 is 1.0.

    Raises:
        ValueError: It is none, without a message: ``_read`` knows the setting's name.
    """
    base, origin, rules = _parts(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if base is float and type(value) is int:
        value = float(value)
    if origin is Literal:
        fits = isinstance(value, str) and value in get_args(base)
    elif origin is tuple:
        fits = isinstance(value, list | tuple)
        value = tuple(_typed(get_args(base)[0], v) for v in value) if fits else value
    else:
        fits = type(value) is base
    if not fits or not all(rule.allows(len(value) if origin else value) for rule in rules):
        raise ValueError
    return value


def faults(hints: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """List the values that are not what their type and its rules allow."""
    found = []
    for name, hint in hints.items():
        try:
            _typed(hint, values[name])
        except ValueError:
            found.append(f"{name}={values[name]!r}. Choose {_allowed(hint)}.")
    return found


def _read(kind: type, values: Mapping[str, Any], *, prefix: str = "") -> tuple[Any, list[str]]:
    """Make settings of plain values, and list all that is wrong with them.

    What is wrong is left at its default, so that combinations are looked at beside it.
    """
    hints, names = get_type_hints(kind, include_extras=True), [f.name for f in fields(kind)]
    faults = []
    for key in (key for key in values if key not in names):
        new = f" It is now called {RENAMED[key]}." if key in RENAMED else meant(key, names)
        faults.append(f"{prefix}{key} is no setting.{new} Choose {', '.join(names)}.")
    made, found = object.__new__(kind), {}
    for one in fields(kind):
        name, hint = one.name, hints[one.name]
        make = one.default_factory
        default = one.default if make is dataclasses.MISSING else make()
        if default is not dataclasses.MISSING:
            found[name] = default
        if name not in values:
            if name not in found:
                faults.append(f"{prefix}{name} is missing. Choose {_allowed(hint)}.")
            continue
        value = values[name]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping | hint):
            found[name], more = _read(hint, _values(value), prefix=f"{prefix}{name}.")
            faults += more
            continue
        if (inner := _listed(hint)) and isinstance(value, list | tuple) and value:
            found[name], more = _rows(inner, value)
            faults += [f"{prefix}{name}{fault}" for fault in more]
            continue
        try:
            found[name] = _typed(hint, value)
        except ValueError:
            faults.append(f"{prefix}{name}={value!r}. Choose {_allowed(hint)}.")
    vars(made).update(found)  # past the frozen door: this is its construction
    if len(found) == len(names):
        faults += made.conflicts()
    return made, faults


def _values(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else vars(given)


def _rows(kind: type, values: Sequence[Any]) -> tuple[tuple[Any, ...], list[str]]:
    """Make a list of settings, and list what is wrong with each, by its number from 1."""
    read = [_read(kind, _values(one)) for one in values]
    faults = [f"[{n}]: {fault}" for n, (_, more) in enumerate(read, start=1) for fault in more]
    return tuple(made for made, _ in read), faults


def meant(name: str, known: Sequence[str]) -> str:
    """Say what a mistyped name may have meant; empty where nothing is close."""
    close = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def make(kind: type, values: Mapping[str, Any], *, title: str) -> Any:
    """Make settings of plain values, or refuse all that is wrong with them at once."""
    made, faults = _read(kind, values)
    if faults:
        lines = "\n".join(f"  - {line}" for line in dict.fromkeys(faults))
        raise ValueError(f"{title}, {len(set(faults))} problem(s):\n{lines}")
    return made


def hold(made: Any) -> None:
    """Check settings that are being made in code; lists become tuples, 1 becomes 1.0."""
    vars(made).update(vars(make(type(made), vars(made), title=f"{type(made).__name__} refused")))


def plain(made: Any) -> dict[str, Any]:
    """Return settings as JSON knows them."""
    return json.loads(json.dumps(asdict(made)))
