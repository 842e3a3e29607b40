"""Protects a training against kills: wherever it dies, and again, it ends at the same weights."""

import functools
import os
import signal
from pathlib import Path

import processes
import pytest
import torch

from bonelib import encoders, losses, models, runs, training

EPOCHS, BATCHES = 4, 6
# Where a life ends, and at which passing of that place. Of ten lives each gets a step further, and
# the last two end between any two instructions, so many seconds after their first checkpoint.
DEATHS = [
    ("a batch is read", 3),
    ("the optimiser is about to step", 2),
    ("the optimiser has stepped", 2),
    ("half a checkpoint is written", 2),
    ("a checkpoint has no name yet", 2),
    ("a checkpoint is in place", 3),
    ("an epoch is judged", 1),
    ("an epoch is over", 1),
    ("any moment", 0.003),
    ("any moment", 0.008),
]


class Pairs:
    """Pairs of pictures and words; the noise is of the global generator, as dropout is."""

    def __init__(self, passed):
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(4 * BATCHES, 3, 32, 32, generator=generator)
        self.passed, self.epoch = passed, 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        order = torch.randperm(len(self.image), generator=torch.Generator().manual_seed(self.epoch))
        for rows in order.chunk(BATCHES):
            self.passed("a batch is read")
            noise = torch.randn(len(rows), 3, 32, 32) * 0.1
            yield {"image": self.image[rows] + noise, "tokens": rows[:, None] % 16}


def tower():
    """A small image tower with statistics that move and units that drop out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        trunk = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 4, stride=4),
            torch.nn.BatchNorm2d(8),
            torch.nn.Dropout(0.2),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
        )
    seen = encoders.Preprocessing(32, (0.5,) * 3, (0.5,) * 3)
    return encoders.ImageEncoder("small", trunk, seen, "random", width=8)


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.width, self.weights = 8, "random"
        self.table = torch.nn.Embedding(16, 8)
        torch.nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, tokens):
        return self.table(tokens[:, 0])


class Fate:
    """Kills its own process where it is told to; it watches what torch and the system do."""

    def __init__(self, place, passing):
        self.place, self.left = place, passing
        self.step, self.save, self.replace = torch.optim.AdamW.step, torch.save, os.replace
        fate = self

        def step(optimizer, *given, **named):
            fate.passed("the optimiser is about to step")
            fate.step(optimizer, *given, **named)
            fate.passed("the optimiser has stepped")

        def save(state, path):
            fate.save(state, path)
            if fate.comes("half a checkpoint is written"):
                os.truncate(path, os.path.getsize(path) // 2)
                fate.die()

        def replace(source, target):
            named = Path(target).name == "checkpoint.pt"
            if named:
                fate.passed("a checkpoint has no name yet")
            fate.replace(source, target)
            if named and fate.place == "any moment":  # SIGALRM ends a process that has no handler
                signal.setitimer(signal.ITIMER_REAL, fate.left)
                fate.place = "on its way"
            elif named:
                fate.passed("a checkpoint is in place")

        torch.optim.AdamW.step, torch.save, os.replace = step, save, replace

    def comes(self, place):
        self.left -= self.place == place
        return self.place == place and self.left == 0

    def passed(self, place):
        if self.comes(place):
            self.die()

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


def train(folder, place="never", passing=0):
    """Train in the run of ``folder``, going on where the last process stopped."""
    torch.set_num_threads(1)
    os.environ["BONELIB_RUNS"] = str(folder)
    fate = Fate(place, passing)
    run = runs.start("pretraining", profile="tiny", data="phantom")
    model = models.DualEncoder(tower(), Words(), dim=8)

    def validate(model):
        fate.passed("an epoch is judged")
        return {"score": model.logit_scale.item()}

    steps = training.fit(
        model,
        losses.contrastive_objective(),
        Pairs(fate.passed),
        training.Options(epochs=EPOCHS, lr=1e-2, backbone_lr=1e-3, frozen_norm=False, ema=0.9),
        validate=validate,
        keep="score",
        resume=runs.checkpoint(run),
        checkpoint=functools.partial(runs.save_checkpoint, run),
        checkpoint_seconds=0,
        accelerator=os.environ.get("BONELIB_TEST_DEVICE", "cpu"),
    )
    losses_seen = []
    for row in steps:
        losses_seen.append(row["loss"])
        fate.passed("an epoch is over")
    (folder / "result.txt").write_text(f"{encoders.weights_hash(model)} {losses_seen}")


def lived(folder, *fate):
    """Train in a process of its own, and return how it ended."""
    process = processes.started(train, folder, *fate)
    process.join()
    return process.exitcode


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is for POSIX systems")
def test_killed_at_ten_places_it_ends_at_the_same_bits(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert lived(whole) == 0
    for place, passing in DEATHS:
        ended = lived(broken, place, passing)
        assert ended in (-signal.SIGKILL, -signal.SIGALRM), f"{place}: it ended with {ended}"
    assert not (broken / "result.txt").exists()
    assert lived(broken) == 0
    assert (broken / "result.txt").read_text() == (whole / "result.txt").read_text()
