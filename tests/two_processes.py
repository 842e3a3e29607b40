"""Run by ``test_training`` under torchrun: one epoch on a global batch, its loss and gradients."""

import atexit
import os
import sys
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

sys.path.insert(0, str(Path(__file__).parent))
from test_training import dual, fit  # noqa: E402

from bonelib import losses  # noqa: E402


class Shared:
    """Two batches of eight pairs, of which each process gets every so-many-th row.

    With ``told``, only every second image has a caption: all of the first of two processes, none of
    the other.
    """

    def __init__(self, rank: int, world: int, told: bool):
        generator = torch.Generator().manual_seed(0)
        self.image = torch.randn(16, 3, 32, 32, generator=generator)
        self.rank, self.world, self.told, self.epoch = rank, world, told, 0

    def __len__(self):
        return 2

    def __iter__(self):
        for rows in torch.arange(16).chunk(2):
            rows = rows[self.rank :: self.world]
            batch = {
                "image": self.image[rows],
                "tokens": rows[:, None],
                "keys": rows[:, None] % 3,
                "image_id": [str(int(r)) for r in rows],
            }
            yield batch | ({"captioned": rows % 2 == 0} if self.told else {})


def group_was_left() -> None:
    if torch.distributed.is_initialized():
        os._exit(3)  # gloo's threads would abort one exit in twelve


def main(out: str) -> None:
    atexit.register(group_was_left)  # first in, last to run
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    kept = {"world": world, "losses": {}, "gradients": {}}
    cases = {
        "several positives": (losses.contrastive_objective(key_temperature=0.2), 0),
        "cached gradients": (losses.contrastive_objective(), 2),
        "captions on one process alone": (losses.contrastive_objective(), 0),
    }
    for kind, (objective, micro) in cases.items():
        model = dual()
        seen = []

        def look(optimizer, *_, model=model, seen=seen):
            seen.append({n: p.grad.clone() for n, p in model.named_parameters()})

        handle = register_optimizer_step_pre_hook(look)
        options = {"epochs": 1, "clip": 1e6, "devices": world, "micro_batch": micro}
        options |= {"lr": 1e-4, "backbone_lr": 1e-5, "precision": "32-true"}
        loader = Shared(rank, world, told="alone" in kind)
        rows = list(fit(model, objective, loader=loader, **options))
        handle.remove()
        kept["losses"][kind] = torch.tensor(rows[0]["loss"])
        kept["gradients"][kind] = seen[0]
    if rank == 0:
        torch.save(kept, out)


if __name__ == "__main__":
    main(sys.argv[1])
