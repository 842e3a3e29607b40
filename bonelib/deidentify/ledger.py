"""The ledger: the secret and who is who, kept apart from what was made safe with it.

One ledger serves the reports and the radiographs of a house: a folder, readable by its owner alone,
with ``ledger.json`` (the secret, and the pseudonyms of patients, accessions and files) and, of
reports, ``reports.csv`` and ``removals.csv``. Whoever has it can undo all pseudonyms. A patient or
an accession number has one pseudonym in both, so that safe reports find their safe radiographs.
"""

import base64
import contextlib
import csv
import hmac
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OWNER = 0o600  # of every file of a ledger, also while it is written


@dataclass
class Ledger:
    """Who is who; ``copies`` maps the SHA-256 of each copy to its place.

    Attributes:
        path: Of the JSON file. secret: 64 hex digits, from which every pseudonym follows.
    """

    path: Path
    secret: str
    patients: dict[str, str] = field(default_factory=dict)
    accessions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write the JSON file, by rename."""
        from bonelib import runs

        what = "Ledger of bonelib: whoever has it can undo the pseudonyms. Keep it apart."
        with runs.replacing(self.path, mode=OWNER) as temporary:
            book = {"what": what} | {k: v for k, v in asdict(self).items() if k != "path"}
            temporary.write_text(json.dumps(book, indent=1), encoding="utf-8")

    def patient(self, number: str, issuer: str | None = None) -> str:
        """Return the pseudonym of a patient number: 12 capitals and figures.

        Args:
            number: As the header or an index has it. issuer: Of the number, "" for none; an index
                (None) does not tell it, and means the one issuer of whom the ledger knows it.
        """
        who = f"{issuer or ''}/{number}"
        if issuer is None and who not in self.patients:
            same = [known for known in self.patients if known.endswith(who)]
            who = same[0] if len(same) == 1 else who
        return self.patients.get(who) or self._drawn("patient", who)

    def accession(self, number: str) -> str:
        """Return the pseudonym of an accession number; none has none."""
        return self.accessions.get(number) or self._drawn("accession", number) if number else ""

    def _drawn(self, kind: str, number: str) -> str:
        """Draw a pseudonym from the secret: the same in any order, without a table in memory."""
        message = f"{kind}\0{number}".encode()
        drawn = hmac.digest(bytes.fromhex(self.secret), message, "sha256")
        return base64.b32encode(drawn)[:12].decode()

    @contextlib.contextmanager
    def table(self, name: str, columns: Sequence[str]) -> Iterator[Any]:
        """Give a CSV writer for a table of the ledger, which appears when the block succeeds."""
        from bonelib import runs

        with runs.replacing(self.path.with_name(name), mode=OWNER) as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                yield writer


def open_ledger(path: Path) -> Ledger:
    """Read a ledger, or draw a new secret and save it before anything is written with it.

    Args:
        path: Its folder, or a JSON file by itself.

    Raises:
        ValueError: The file is there and is no ledger.
    """
    alone = path.is_file() or path.suffix == ".json"
    file, key = (path if alone else path / "ledger.json"), path / "key"
    if not alone:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)  # also one that was there, and what versions before left readable
        for name in ("ledger.json", "key", "reports.csv", "removals.csv"):
            if (path / name).is_file():
                (path / name).chmod(OWNER)
    if not file.exists():
        # Ledgers of reports once were a folder with the secret in a file of its own.
        ledger = Ledger(file, key.read_text().strip() if key.is_file() else secrets.token_hex(32))
        ledger.save()
        return ledger
    try:
        book = json.loads(file.read_bytes())
        assert len(bytes.fromhex(book["secret"])) == 32
        return Ledger(file, **{k: v for k, v in book.items() if k != "what"})
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{file} is no ledger. Name the one of these copies, or a new place."
        ) from error


def check_places(source: Path, out: Path, ledger: Path, report: Path | None = None) -> None:
    """Refuse places where originals, copies, and what undoes or names them would lie together.

    Nothing is ever written among the originals, and neither the ledger nor the report of what was
    done among the copies.

    Args:
        source: A folder, a DICOMDIR (its folder counts), or a table.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: One lies in another; all such pairs are named.
    """
    if not source.exists():
        raise FileNotFoundError(f"No folder and no file {source}.")
    table = source.suffix.lower() in (".csv", ".parquet")
    originals = source if source.is_dir() or table else source.parent
    places = {"IN": originals, "OUT": out, "the ledger": ledger}
    places |= {"the report": report} if report else {}
    places = {name: path.resolve() for name, path in places.items()}
    inside = [
        f"{one} ({places[one]}) lies in {other} ({places[other]})"
        for one in places
        for other in places
        if one != other and {one, other} != {"the ledger", "the report"}
        if places[one].is_relative_to(places[other])
    ]
    if inside:
        raise ValueError(f"{'; '.join(inside)}. Choose folders apart.")
