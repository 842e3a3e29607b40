"""Run by ``test_training`` in each process: one epoch on a global batch, its loss and gradients."""

import atexit
import os

import torch
from test_training import dual, fit, tower
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bonelib import losses, models


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
                # the second fact is known of the first of two processes' images alone
                "keys": torch.stack([rows % 3, torch.where(rows % 2 == 0, rows % 4, -1)], dim=1),
                "label": torch.where(rows % 5 == 0, -1, rows % 2),
                "image_id": [str(int(r)) for r in rows],
            }
            yield batch | ({"captioned": rows % 2 == 0} if self.told else {})


def multi_head() -> models.MultiHead:
    return models.MultiHead(tower(), classes=[3, 4])


def classifier() -> models.Classifier:
    return models.Classifier(tower(), outputs=1)


def main(out: str, rank: int, world: int, port: int) -> None:
    """Train as one of ``world`` processes that torchrun would start."""
    torch.set_num_threads(1)
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {name: str(value) for name, value in own.items()}
    kept = {"world": world, "losses": {}, "gradients": {}}
    weights = torch.tensor([0.5, 1.5])
    cases = {
        "several positives": (dual, losses.contrastive_objective(key_temperature=0.2), 0),
        "cached gradients": (dual, losses.contrastive_objective(), 2),
        "captions on one process alone": (dual, losses.contrastive_objective(), 0),
        "facts as classes": (multi_head, losses.attributes_objective(), 0),
        "a classifier": (classifier, losses.classification_objective(class_weights=weights), 0),
    }
    for kind, (build, objective, micro) in cases.items():
        model = build()
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
    assert torch.distributed.is_initialized() == (world > 1)
    atexit._run_exitfuncs()  # as at the end of any program
    assert not torch.distributed.is_initialized(), "gloo's threads would abort one exit in twelve"
