"""The command line: ``bonelib run | study | train | phantom | data | deidentify | … | runs``.

Arguments come in, one call goes out per command (``commands``). Mistakes of the user end in one
message and exit code 2, a failed notebook in 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bonelib.commands import data, identities, notebooks


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        return command(**arguments)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bonelib",
        description="Run the notebooks of the thesis, draw the synthetic cohort, look at data.",
        epilog="bonelib COMMAND --help shows the options and an example.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name, help=text, description=text, epilog=f"example: {example}", formatter_class=form
        )
        made.set_defaults(command=command)
        return made

    run = add(
        notebooks.run,
        "run",
        "execute the numbered notebooks in order",
        "bonelib run 01 04 --profile demo -p DATA fracatlas -p SEED 1",
    )
    run.add_argument("numbers", nargs="*", metavar="NN", help="notebooks, e.g. 01 04; default all")
    run.add_argument("--profile", default="tiny", help="tiny (default), demo or full")
    given = dict(dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.add_argument("-p", help="a notebook parameter; repeat for more", **given)

    train = add(
        notebooks.train,
        "train",
        "carry out the pretraining that notebook 04 planned, on one device or under torchrun",
        "torchrun --nproc-per-node 4 -m bonelib train runs/full/btxrd/any/pretraining/default-s0",
    )
    train.add_argument("folder", type=Path, metavar="RUN", help="the run folder with its plan.json")
    train.add_argument("--accelerator", default="auto", help="cpu, cuda, …; default what is there")

    study = add(
        notebooks.study,
        "study",
        "run the notebooks of a study, reusing what is finished",
        "bonelib study language",
    )
    study.add_argument("name", metavar="NAME", help="a section of notebooks/studies.toml")
    study.add_argument(
        "--list", action="store_true", help="print the runs instead of starting them"
    )
    study.add_argument("--part", default="1/1", help="1/2 or 2/2, to share them among processes")
    study.add_argument("--profile", default="", help="in place of the study's")
    study.add_argument("-p", help="in place of the study's, DATA say; repeat for more", **given)

    phantom = add(
        data.phantom,
        "phantom",
        "draw the synthetic cohort into a folder",
        "bonelib phantom data/phantom --images 600 --archive 2000 --seed 0",
    )
    phantom.add_argument("folder", type=Path, metavar="OUT")
    phantom.add_argument("--images", type=int, default=600, help="labelled images (600)")
    phantom.add_argument("--archive", type=int, default=0, help="images without labels (0)")
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--size", type=int, default=512, help="longer side in pixels (512)")
    phantom.add_argument("--workers", type=int, default=1, help="processes; same images for any")
    phantom.add_argument("--dicom", type=Path, help="write them as a hospital's DICOM tree as well")

    reading = add(
        data.data,
        "data",
        "read a data set and say what is in it",
        "bonelib data fracatlas /path/to/FracAtlas --decode 224 --out table.parquet",
    )
    reading.add_argument("name", metavar="NAME", help="btxrd, fracatlas, …; a wrong one lists them")
    reading.add_argument("root", type=Path, metavar="ROOT", help="its unpacked folder")
    reading.add_argument("--task", default="", help="of a folder or roboflow tree, if not plain")
    reading.add_argument(
        "--classes", default="", metavar="'FOUND=CLASS; …'", help="for names there that are unknown"
    )
    reading.add_argument(
        "--decode",
        type=int,
        default=0,
        metavar="SIZE",
        help="decode into the cache of that size; default: check every file, keep nothing",
    )
    reading.add_argument("--out", type=Path, help="write the table, .parquet or .csv")

    copies = add(
        identities.deidentify_dicom,
        "deidentify-dicom",
        "copy the radiographs of a DICOM export without identities",
        "bonelib deidentify-dicom /export /copies --ledger /safe/ledger.json --report /safe/report",
    )
    copies.add_argument("source", type=Path, metavar="IN", help="the folder, or its DICOMDIR")
    copies.add_argument("out", type=Path, metavar="OUT", help="another folder, for the copies")
    copies.add_argument("--ledger", type=Path, required=True, help="who is who: keep it apart")
    copies.add_argument("--report", type=Path, help="folder for files, elements, contact sheet")

    clean = add(
        identities.deidentify,
        "deidentify",
        "remove the identities of reports, keep the key apart",
        "bonelib deidentify reports safe --language fr --mode surrogates --index index.csv",
    )
    clean.add_argument("source", type=Path, metavar="IN", help="folder, .csv or .parquet")
    clean.add_argument("out", type=Path, metavar="OUT", help="folder, or table for a table")
    clean.add_argument("--language", required=True, help="fr or en")
    clean.add_argument("--mode", default="tags", help="tags (default) or surrogates")
    clean.add_argument("--column", default="text", help="of a table: where the reports stand")
    clean.add_argument(
        "--keep", nargs="*", default=[], metavar="COLUMN", help="of a table: columns passed on"
    )
    clean.add_argument("--index", type=Path, help="CSV: report,patient,name,birth_date,accession")
    clean.add_argument("--ledger", type=Path, help="folder of the key; default OUT-ledger")
    clean.add_argument(
        "--days",
        nargs=2,
        type=int,
        metavar=("LOW", "HIGH"),
        help="range dates move in (-1000 1000)",
    )

    listing = add(
        notebooks.listing, "runs", "list the finished runs", "bonelib runs --profile demo"
    )
    listing.add_argument("--profile", default="", help="tiny, demo or full; default all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
