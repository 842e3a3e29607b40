"""Processes that cost little: forked from a server that has imported all of it once."""

import multiprocessing

PRELOADED = ["bonelib.models", "bonelib.runs", "bonelib.training", "lightning.fabric"]
PRELOADED += ["timm.optim", "pytest"]


def started(target, *args):
    """Start ``target(*args)`` in another process; its ``exitcode`` says how it ended."""
    # Not from the process of the tests itself: a fork takes none of its threads along.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=args)
    process.start()
    return process
