"""Two processes train what one process trains: same losses, same weights, one writer."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mflow_sbi.errors import ConfigurationError, TrainingError
from mflow_sbi.recipes import find_recipe
from mflow_sbi.training import (
    FitSettings,
    LatentNegativeLogProb,
    Reconstruction,
    SampleTransport,
    fit,
)
from mflow_sbi.training.processes import ALONE, Processes, is_first_process, torchrun_processes
from mflow_sbi.training.steps import is_shared_out

from .curves import curve_sample, curve_schedule, small_mflow, told
from .trained_together import CASES, train_all

PROGRAM = Path(__file__).with_name("trained_together.py")
TOLERANCE = dict.fromkeys(CASES, 1e-9) | {"ratio_estimator": 1e-5, "morphing_density": 1e-5}
"""In float64, but for recipes, whose networks have float32."""


def _started(rank: int, port: int, *arguments: str) -> subprocess.Popen[bytes]:
    """Return a process started as torchrun does."""
    told_by_torchrun = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, *arguments], env=os.environ | told_by_torchrun)  # noqa: S603


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _run_two(*arguments: str) -> list[int]:
    port = _free_port()
    both = [_started(rank, port, *arguments) for rank in range(2)]
    try:
        return [process.wait(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return what one process and what two processes wrote."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    train_all(alone, ALONE)
    assert _run_two(str(PROGRAM), str(together)) == [0, 0]
    return alone, together


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(folders: tuple[Path, Path], case: str):
    alone, together = folders
    expected = np.load(alone / f"{case}.0.npz")
    first, second = (np.load(together / f"{case}.{rank}.npz") for rank in range(2))
    for name in ("history", "numbers"):
        assert np.array_equal(first[name], second[name])  # the same bits in both
    assert np.allclose(first["history"], expected["history"], rtol=TOLERANCE[case], atol=0)
    scale = np.abs(expected["numbers"]).max()
    assert np.abs(first["numbers"] - expected["numbers"]).max() < 1e3 * TOLERANCE[case] * scale


def test_the_shares_of_rows_make_up_all():
    for n in (1, 2, 7, 100):
        shares = [Processes(rank, 3).rows(n) for rank in range(3)]
        assert [row for share in shares for row in range(n)[share]] == list(range(n))
    assert [Processes(rank, 2).rows(101, 8) for rank in range(2)] == [slice(0, 48), slice(48, 101)]


def test_objectives_that_compare_events_are_not_shared_out():
    assert is_shared_out(Reconstruction())
    assert is_shared_out(LatentNegativeLogProb())
    assert not is_shared_out(SampleTransport())
    assert not is_shared_out(lambda surrogate, batch: batch.x.mean())


def test_refuses_batches_smaller_than_the_processes():
    settings = FitSettings(processes=_Pretended(0, 200))
    with pytest.raises(TrainingError, match="batches of 100 cannot be shared out to 200"):
        fit(small_mflow(), told(curve_sample(500)), curve_schedule(1), settings)


class _Pretended(Processes):
    """Processes that are not there: sums are those of this one."""

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def take_from_first(self, tensors) -> None:
        pass


def test_refuses_a_recipe_that_another_library_trains():
    recipe = find_recipe("histogram")
    settings = FitSettings(processes=Processes(0, 2))
    with pytest.raises(ConfigurationError, match="without torchrun"):
        recipe.start(curve_sample(10), recipe.parse_options({}), None, settings)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with torchrun_processes() as processes:
        assert processes == ALONE
    monkeypatch.setenv("RANK", "1")  # of another program's making
    assert is_first_process()
