"""Two small runs that differ in their seed, and the files they look at."""

from pathlib import Path

import pytest
import torch
import yaml

from mflow_sbi.config import parse_config
from mflow_sbi.runs import train_run

from .files import TRAIN


def _train(folder: Path, seed: int) -> Path:
    values = {
        "name": f"member{seed}",
        "events": str(TRAIN),
        "max_events": 3000,
        "recipe": "fom",
        "options": {
            "reference": {"layers": 1, "hidden": 8},
            "density": {"kind": "morphing", "inputs": "components", "hidden": 16, "layers": 1},
        },
        "phases": {"reference": {"epochs": 1}, "ratio": {"epochs": 2, "batch_size": 200}},
        "mcmc": {"ensembles": 2, "walkers": 8, "burn_in": 10, "steps": 20},
        "seed": seed,
    }
    run = folder / str(values["name"])
    train_run(parse_config(yaml.safe_load(yaml.safe_dump(values))), run)
    return run


@pytest.fixture(scope="package")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("members")
    return _train(folder, 1), _train(folder, 2)


@pytest.fixture
def run(members: tuple[Path, Path]) -> Path:
    return members[0]
