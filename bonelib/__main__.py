"""The command line: ``bonelib run | study | results | train | predict | weights | … | runs``.

Arguments come in, one call goes out per command (``commands``). Mistakes of the user end in one
message and exit code 2, a failed notebook in 1.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bonelib.commands import (
    data,
    doctor,
    fetch,
    identities,
    lab,
    notebooks,
    predict,
    printing,
    results,
    submit,
    weights,
)
from bonelib.headless.plan import PROFILES

OLD_NAME = "deidentify-dicom"  # of the command deidentify


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 refused, 130 interrupted."""
    if argv is None:
        _speak_utf8()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that can't show a letter shows "?"
            stream.reconfigure(errors="replace")
    arguments = vars(_parser().parse_args(argv))
    command, typed = arguments.pop("command"), arguments.pop("typed")
    if typed == OLD_NAME:
        print(f"{typed} is now called deidentify; the old name goes with the next version.")
    # Read when torch is loaded, which commands do later; see headless.kernel for the reason.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        return command(**arguments)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(printing.told(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _speak_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale is another one's.

    On a cluster whose locale is ISO-8859-1, libraries would write texts, and Python the names of
    files, in Latin-1, and fail at the first letter it lacks. The terminal keeps its encoding.
    """
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding or encoding)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _count(typed: str) -> int:
    if (count := int(typed)) < 1:
        raise argparse.ArgumentTypeError(f"{typed}: at least 1")
    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bonelib",
        description="Run the notebooks of the thesis, draw the synthetic cohort, check data sets.",
        epilog="bonelib COMMAND --help shows the options and an example.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="typed")

    def add(
        command: Callable[..., int],
        name: str,
        text: str,
        example: str,
        *,
        aliases: Sequence[str] = (),
        parents: Sequence[argparse.ArgumentParser] = (),
    ) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        names = dict(aliases=aliases, parents=parents, formatter_class=form)
        made = commands.add_parser(name, help=text, description=text, **names)
        made.epilog = f"example: {example}"
        made.set_defaults(command=command)
        return made

    shared = argparse.ArgumentParser(add_help=False)
    argument = shared.add_argument
    pair = dict(dest="parameters", nargs=2, metavar=("NAME", "VALUE"))
    text = "a parameter of the notebooks; repeat for more"
    argument("-p", action="append", default=[], help=text, **pair)
    text = "reuse results of earlier code; `bonelib runs` marks them"
    argument("--keep-other-code", action="store_true", help=text)
    text = "notebooks that run beside each other, where their order allows (1)"
    jobs = argparse.ArgumentParser(add_help=False)
    jobs.add_argument("--jobs", type=_count, default=1, metavar="N", help=text)

    text = "execute the numbered notebooks in order"
    example = "bonelib run 01 04 --profile demo -p DATA fracatlas -p SEED 1"
    argument = add(notebooks.run, "run", text, example, parents=[shared, jobs]).add_argument
    argument("numbers", nargs="*", metavar="NN", help="notebooks, e.g. 01 04; default all")
    argument("--profile", default="tiny", help="tiny (default), demo or full")
    text = "run all combinations, SEED=0,1,2 VARIANT=a,b; brackets hold commas: X=[a,b],c"
    argument("--sweep", nargs="+", default=[], metavar="NAME=VALUES", help=text)
    text = "list what there is: fresh, stale and why, missing; start nothing"
    argument("--list", action="store_true", dest="list_only", help=text)

    _add_submit(add, shared)

    text = "train what notebook 04 or 05 planned (RUN_ON elsewhere), alone or under torchrun"
    folder = "runs/full/phantom/any/pretraining/default-s0"
    example = f"torchrun --nproc-per-node 4 -m bonelib train {folder}"
    argument = add(notebooks.train, "train", text, example).add_argument
    argument("folder", type=Path, metavar="RUN", help="the run folder with its plan.json")
    argument("--accelerator", default="auto", help="cpu or cuda; default: what is there")

    _add_predict(add)

    text = "open JupyterLab on notebook 01"
    argument = add(lab.lab, "lab", text, "bonelib lab -- --no-browser --port 9000").add_argument
    argument("options", nargs="*", metavar="-- OPTION", help="of JupyterLab, after --")

    text = "run the notebooks of a study, reusing what is finished"
    example = "bonelib study language"
    argument = add(notebooks.study, "study", text, example, parents=[shared, jobs]).add_argument
    argument("name", metavar="NAME", help="one of bonelib's or of notebooks/studies.toml")
    argument("--list", action="store_true", help="print the runs instead of starting them")
    argument("--part", default="1/1", help="1/2 and 2/2: two processes share the runs")
    argument("--profile", default="", help="replaces the profile of the study")

    text = "write the results tables of README.md and docs, after keeping those of a study"
    example = "bonelib results language --seed 1"
    argument = add(results.results, "results", text, example).add_argument
    text = "a finished study whose gains to keep"
    argument("study", nargs="?", default="", metavar="STUDY", help=text)
    argument("--seed", type=int, help="the study's runs with this seed; default its own")
    text = "write the executed notebooks of this profile as HTML into their run folders instead"
    argument("--html", choices=PROFILES, default="", metavar="PROFILE", help=text)

    text = "draw a synthetic set into a folder"
    example = "bonelib phantom data/phantom --images 600 --archive 2000 --seed 0"
    argument = add(data.phantom, "phantom", text, example).add_argument
    argument("folder", type=Path, metavar="OUT")
    argument("--kind", default=data.KINDS[0], choices=data.KINDS, help="what is drawn (tumors)")
    argument("--images", type=int, default=600, help="labelled images (600)")
    argument("--archive", type=int, default=0, help="images without labels (0)")
    argument("--seed", type=int, default=0)
    argument("--size", type=int, default=512, help="longer side in pixels (512)")
    argument("--workers", type=int, default=1, help="processes; they draw the same images")
    argument("--dicom", type=Path, help="also write a DICOM export into this folder")

    text = "read a data set, check its files and list what it contains"
    example = "bonelib data fracatlas /path/to/FracAtlas --decode 224 --out table.parquet"
    argument = add(data.data, "data", text, example).add_argument
    argument("name", metavar="NAME", help="btxrd, fracatlas, …; a wrong one lists them")
    argument("root", type=Path, metavar="ROOT", help="its unpacked folder")
    argument("--task", default="", help="folder, roboflow: the task of its classes")
    text = "folder, roboflow: the class of each name that is not recognised"
    argument("--classes", default="", metavar="'NAME=CLASS; …'", help=text)
    text = "keep the decoded images of this size; default: check every file, keep nothing"
    argument("--decode", type=int, default=0, metavar="SIZE", help=text)
    argument("--out", type=Path, help="write the table, .parquet or .csv")

    text = "fetch a published data set into BONELIB_DATA, or say what to download where"
    example = "bonelib fetch btxrd --accept-licence"
    argument = add(fetch.fetch, "fetch", text, example).add_argument
    argument("name", nargs="?", default="", metavar="NAME", help="none lists the sets; or weights")
    argument("encoder", nargs="?", default="", metavar="ENCODER", help="whose weights")
    text = "archives that were downloaded by hand: check and unpack these"
    argument("--from", dest="files", type=Path, nargs="+", default=[], metavar="FILE", help=text)
    argument(
        "--accept-licence", action="store_true", help="you accept its licence, which is printed"
    )

    text = "look at this machine: what is missing for bonelib, and what to do about it"
    add(doctor.doctor, "doctor", text, "bonelib doctor")

    text = "list the encoders of notebook 02, or fetch the weights of one"
    argument = add(weights.weights, "weights", text, "bonelib weights dinov2_base").add_argument
    argument("name", nargs="?", default="", metavar="NAME", help="one of the list, or a tower")

    text = "copy reports or DICOM files without identities"
    example = (
        "bonelib deidentify reports safe --language fr --mode surrogates --index index.csv\n"
        "         bonelib deidentify /export /copies --ledger /safe/ledger --report /safe/seen"
    )
    copies = add(identities.deidentify, "deidentify", text, example, aliases=[OLD_NAME])
    argument = copies.add_argument
    text = "reports (folder, .csv, .parquet) or DICOM (folder, DICOMDIR); content decides"
    argument("source", type=Path, metavar="IN", help=text)
    argument("out", type=Path, metavar="OUT", help="folder, or table for a table")
    text = "folder for the key and who is who: keep it apart; default OUT-ledger"
    argument("--ledger", type=Path, help=text)
    argument = copies.add_argument_group("reports").add_argument
    argument("--language", help="fr or en, where no column language tells")
    argument("--mode", help="tags (default) or surrogates")
    argument("--column", help="of a table: the column of the reports (text)")
    argument("--keep", nargs="*", metavar="COLUMN", help="of a table: columns to copy")
    argument("--index", type=Path, help="CSV: report,patient,name,birth_date,accession,language")
    text = "range by which dates are shifted (-1000 1000)"
    argument("--days", nargs=2, type=int, metavar=("LOW", "HIGH"), help=text)
    argument = copies.add_argument_group("DICOM").add_argument
    argument("--report", type=Path, help="folder for files, elements, contact sheet")

    example = "bonelib runs --profile demo"
    argument = add(notebooks.listing, "runs", "list the finished runs", example).add_argument
    argument("--profile", choices=PROFILES, default="", help="default all")
    return parser


def _add_submit(
    add: Callable[..., argparse.ArgumentParser], shared: argparse.ArgumentParser
) -> None:
    text = "submit notebooks to a Slurm cluster, one job each, in order"
    example = "bonelib submit 01 04 05 --profile full --partition gpu --gpus 1 --time 8h"
    made = add(submit.submit, "submit", text, example, parents=[shared])
    argument = made.add_argument
    argument("numbers", nargs="*", metavar="NN", help="notebooks, e.g. 01 04; default all")
    argument("--profile", default="tiny", help="tiny (default), demo or full")
    text = "SEED=0,1,2 VARIANT=a,b: a job for each combination"
    argument("--sweep", nargs="+", default=[], metavar="NAME=VALUES", help=text)
    text = "print the jobs instead of submitting them"
    argument("--dry-run", action="store_true", help=text)
    text = "run the jobs on this machine, one after the other"
    argument("--local", action="store_true", help=text)
    text = "print what became of the jobs submitted so far"
    argument("--status", action="store_true", help=text)
    argument = made.add_argument_group("what each job asks for").add_argument
    argument("--partition", default="", help="default: the cluster's own")
    argument("--account", default="", help="who pays, where the cluster asks for it")
    text = "90m, 8h or 2d (default 4h); a job that needs longer is queued again and goes on"
    argument("--time", default="4h", help=text)
    text = "of each node (0); 04 and 05 train in a process on each, other notebooks take one"
    argument("--gpus", type=int, default=0, help=text)
    argument("--nodes", type=int, default=1, help="on which 04 and 05 train (1)")
    argument("--cpus", type=int, default=0, help="of each process, and its threads")
    argument("--memory", type=int, default=0, metavar="GB", help="of each node")


def _add_predict(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "apply a trained model to radiographs: probabilities, calls, heat maps"
    run = "runs/demo/phantom/tumor/finetuning/default-s0"
    example = (
        f"bonelib predict {run} radiographs/ --start captions --out table.csv\n\n"
        "exit code: 0 every file was predicted, 1 some files were not (they are named),\n"
        "           2 nothing was done (the message says why)"
    )
    made = add(predict.predict, "predict", text, example)
    argument = made.add_argument
    text = "folder of a bundle, or of a run of notebook 04 or 05 that holds some"
    argument("bundle", type=Path, metavar="BUNDLE", help=text)
    text = "images, folders, a DICOM export, or a CSV with a column path (and study)"
    argument("inputs", type=Path, nargs="+", metavar="PATH", help=text)
    text = "the table: .csv or .parquet; studies go into a second one beside it"
    argument("--out", type=Path, required=True, help=text)
    argument("--heatmaps", type=Path, metavar="FOLDER", help="also write a heat map an image (PNG)")
    text = "say which file a row is of: of all files, or of none; default: not of DICOM files"
    argument("--paths", action=argparse.BooleanOptionalAction, help=text)
    argument("--start", default="", help="which bundle of a run, e.g. captions, captions-probe")
    argument = made.add_argument_group("what a bundle may not say").add_argument
    argument("--task", default="", help="what is asked, of a bundle that reads words")
    argument("--language", default="", help="of the prompts, en or fr")
    argument("--prompts", default="", help="by the classes' names: label (default), or by signs")
    argument("--resize", default="", help="how images became squares: pad or squash")
    text = "probability from which the positive class is called, not the bundle's own"
    argument("--threshold", type=float, help=text)


if __name__ == "__main__":
    sys.exit(main())
