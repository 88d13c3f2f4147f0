"""The main job at toy size: every file it promises, every row, and a second call that reuses."""

import json
from pathlib import Path

import pytest
import torch

from mflow_sbi.errors import MflowSbiError
from mflow_sbi.inference import diagnostics_of, load_posterior, summarise
from mflow_sbi.interfaces import Quiet
from mflow_sbi.quickstart import QuickstartSettings, quickstart, simulate

EPOCHS: dict[str, int] = dict.fromkeys(("manifold", "reference", "density", "ratio"), 1)
TOY = QuickstartSettings(
    training_events=2000, test_events=500, epochs=EPOCHS, mcmc=(5, 10), threads=1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("quickstart")
    quickstart(folder, TOY, Quiet())
    return folder


def test_writes_table_figures_and_posteriors(folder):
    for name in ("corner", "observables", "closure", "history"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert [row["posterior"] for row in rows] == [
        "exact posterior",
        "morphing M-flow",
        "M-flow",
        "ambient flow",
        "prior",
    ]
    assert all(0 <= row["total_variation"] <= 1 for row in rows)
    exact = load_posterior(folder / "posterior_exact.nc")
    assert diagnostics_of(exact).converged
    assert exact.attrs["recipe"] == "exact"


def test_the_exact_chain_and_the_grid_agree(folder):
    exact = summarise(load_posterior(folder / "posterior_exact.nc"))
    row = json.loads((folder / "comparison.json").read_text())["rows"][0]
    for k, name in enumerate(exact.parameter_names):
        assert exact.mean[k] == pytest.approx(row[f"mean_{name}"], abs=0.02)
        assert exact.std[k] == pytest.approx(row[f"width_{name}"], rel=0.05)


def test_a_second_call_uses_what_is_there(folder):
    files = [*folder.glob("data/*.root"), *folder.glob("runs/*/surrogate/*")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == 3 + 3 * 3
    quickstart(folder, TOY, Quiet())
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_simulator_that_fails_is_named(tmp_path: Path):
    with pytest.raises(MflowSbiError, match="ended with exit code 2"):
        simulate(tmp_path / "x.root", 0, 1, ("--theta-prior", "normal"))
    assert not list(tmp_path.iterdir())


def test_sizes_scale_but_never_vanish():
    small = QuickstartSettings().scaled(1e-3)
    assert (small.training_events, small.test_events) == (2000, 500)
