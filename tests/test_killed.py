"""Protects a training against kills: at any moment, and again, it ends at the same weights."""

import functools
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from bonelib import encoders, losses, models, runs, training

EPOCHS, BATCHES = 5, 12


class Slow:
    """Pairs of pictures and words, each batch after a pause: kills fall between steps too."""

    def __init__(self, pause):
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(8 * BATCHES, 3, 32, 32, generator=generator)
        self.pause, self.epoch = pause, 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        order = torch.randperm(len(self.image), generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.chunk(BATCHES):
            time.sleep(self.pause)
            noise = (
                torch.randn(len(rows), 3, 32, 32) * 0.1
            )  # of the global generator, as dropout is
            yield {"image": self.image[rows] + noise, "tokens": rows[:, None] % 16}


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.width, self.weights = 8, "random"
        self.table = torch.nn.Embedding(16, 8)
        torch.nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, tokens):
        return self.table(tokens[:, 0])


def train(folder, pause):
    """Train in the run of ``folder``, going on where the last process stopped."""
    torch.set_num_threads(1)
    os.environ["BONELIB_RUNS"] = str(folder)
    run = runs.start("pretraining", profile="tiny", data="phantom")
    tower = encoders.image("timm:test_resnet", weights="random", size=32, seed=1)
    model = models.DualEncoder(tower, Words(), dim=8)
    steps = training.fit(
        model,
        losses.contrastive_objective(),
        Slow(pause),
        epochs=EPOCHS,
        lr=1e-2,
        backbone_lr=1e-3,
        ema=0.9,
        validate=lambda m: {"score": m.logit_scale.item()},
        keep="score",
        resume=runs.checkpoint(run),
        checkpoint=functools.partial(runs.save_checkpoint, run),
        checkpoint_seconds=0,
        accelerator="cpu",
    )
    losses_seen = [row["loss"] for row in steps]
    (folder / "result.txt").write_text(f"{encoders.weights_hash(model)} {losses_seen}")


def started(folder, pause):
    # Forked from a server that has imported torch once: a process each takes as long as the run.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bonelib.training", "lightning.fabric", "timm", "tests"])
    process = context.Process(target=train, args=(folder, pause))
    process.start()
    return process


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is for POSIX systems")
def test_killed_at_ten_random_moments_it_ends_at_the_same_bits(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    process = started(whole, 0)
    process.join()
    assert process.exitcode == 0
    rng, kills, attempts = random.Random(0), 0, 0
    while kills < 10 and attempts < 40:
        attempts += 1
        process = started(broken, 0.05)
        had = stamp(broken)
        while process.is_alive() and stamp(broken) == had:  # it has got somewhere
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.25))
        if process.is_alive():
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        if (broken / "result.txt").exists():
            break
    assert kills == 10, f"{kills} kills before it finished"
    if not (broken / "result.txt").exists():
        process = started(broken, 0)
        process.join()
        assert process.exitcode == 0
    assert (broken / "result.txt").read_text() == (whole / "result.txt").read_text()


def stamp(folder):
    file = next(folder.rglob("checkpoint.pt"), None)
    return file.stat().st_mtime_ns if file else 0
