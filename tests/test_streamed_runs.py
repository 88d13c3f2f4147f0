"""Streaming from files through the run configuration, and torchrun on the command line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.config import parse_config
from mflow_sbi.errors import ChartError, ConfigurationError, RunFolderError
from mflow_sbi.events import open_chunks, read_events
from mflow_sbi.geometry import load_reference
from mflow_sbi.recipes import RECIPES, load_surrogate, train
from mflow_sbi.run_training import train_run
from mflow_sbi.streamed_training import train_streamed
from mflow_sbi.training import FitSettings, StreamingSettings

from .training.curves import SomeChunks

TRAIN = Path(__file__).parents[1] / "data" / "wbf_tuned_train_small.root"
FLOW = {"layers": 1, "hidden": 8, "bins": 4}
NETWORK = {"hidden": 8, "layers": 1}
FLOWS = {"reference": FLOW, "density": FLOW}
CASES = {
    "af": ("af", FLOWS),
    "af, morphing": ("af", {"reference": FLOW, "density": {"kind": "morphing", **NETWORK}}),
    "af, residual": ("af", {"reference": FLOW, "density": {"kind": "residual", **NETWORK}}),
    "fom": ("fom", FLOWS),
    "mflow": ("mflow", {**FLOWS, "chart": {"kind": "invertible", **FLOW}}),
    "emflow": (
        "emflow",
        {**FLOWS, "chart": {"encoder": {"hidden": 8, "blocks": 1}, "decoder": FLOW}},
    ),
    "pie": ("pie", {"latent_dim": 14, "split": FLOW, "density": FLOW}),
    "pae": ("pae", {**FLOWS, "chart": {"kind": "autoencoder", "hidden": 8, "blocks": 1}}),
    "nre": ("nre", NETWORK),
}


def _values(name: str, **values: object) -> dict:
    return {
        "name": name,
        "events": str(TRAIN),
        "max_events": 3000,
        "recipe": "nre",
        "options": NETWORK,
        "phases": {"ratio": {"epochs": 2, "batch_size": 300}},
        "streaming": {"chunk_events": 1000, "buffer_chunks": 1},
        **values,
    }


def _tensors(surrogate) -> torch.Tensor:
    return torch.cat([v.flatten().double() for v in surrogate.surrogate.state_dict().values()])


def test_the_table_covers_the_recipes_that_stream():
    streaming = {name for name, recipe in RECIPES.items() if recipe.streams}
    assert {recipe for recipe, _ in CASES.values()} == streaming


@pytest.mark.parametrize("case", CASES)
def test_every_recipe_that_streams_trains_on_chunks_as_in_memory(case: str):
    name, options = CASES[case]
    recipe = RECIPES[name]
    schedule = recipe.schedule_for(recipe.parse_options(options))
    short: dict[str, object] = {"epochs": 1, "batch_size": 250}
    schedule = schedule.with_phases(**dict.fromkeys(schedule.phase_names, short))
    settings = FitSettings(seed=2)
    known = {"options": options, "schedule": schedule, "settings": settings}
    sample = read_events(TRAIN, max_events=1000)
    chunks = open_chunks(TRAIN, chunk_events=1000)
    expected = train(sample, name, **known)
    streaming = StreamingSettings(1000, 1)
    got = train_streamed(chunks, name, streaming=streaming, max_events=1000, **known)
    assert torch.equal(_tensors(got.surrogate), _tensors(expected.surrogate))
    assert [r.validation for r in got.history] == [r.validation for r in expected.history]
    assert got.surrogate.record.metadata.parameters == sample.metadata.parameters


@pytest.mark.parametrize("case", ["af, morphing", "af, residual", "nre"])
def test_signed_weights_stream_as_in_memory(case: str):
    name, options = CASES[case]
    recipe = RECIPES[name]
    short: dict[str, object] = {"epochs": 1, "batch_size": 250}
    schedule = recipe.schedule_for(recipe.parse_options(options))
    schedule = schedule.with_phases(**dict.fromkeys(schedule.phase_names, short))
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 1.5, 1000) * np.where(rng.random(1000) < 0.1, -1.0, 1.0)
    sample = replace(read_events(TRAIN, max_events=1000), weight=weight)
    known = {"options": options, "schedule": schedule, "settings": FitSettings(seed=2)}
    expected = train(sample, name, **known)
    streaming = StreamingSettings(1000, 1)
    got = train_streamed(SomeChunks(sample, 1000), name, streaming=streaming, **known)
    assert torch.allclose(_tensors(got.surrogate), _tensors(expected.surrogate), atol=1e-4)
    assert got.surrogate.record.notes == expected.surrogate.record.notes
    several = train_streamed(SomeChunks(sample, 250), name, streaming=streaming, **known)
    assert got.history[-1].validation != several.history[-1].validation
    assert abs(got.history[-1].validation - several.history[-1].validation) < 1.0


@pytest.mark.parametrize("recipe", sorted(name for name, r in RECIPES.items() if not r.streams))
def test_a_recipe_that_needs_all_events_refuses_at_once(recipe: str):
    with pytest.raises(ConfigurationError, match="needs all its events in memory"):
        parse_config(_values("run", recipe=recipe, options={}, phases={}))


@pytest.mark.parametrize(
    "streaming", [{"chunk_events": 10}, {"buffer_chunks": 0}, {"chunk_event": 1000}]
)
def test_the_configuration_is_strict(streaming: dict):
    with pytest.raises(ConfigurationError, match="streaming"):
        parse_config(_values("run", streaming=streaming))


def test_a_streamed_run_is_written_told_and_found_again(tmp_path: Path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(_values("run")))
    arguments = ["train", str(tmp_path / "run.yaml"), "--folder", str(tmp_path / "run")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "streaming 3,000 events from disk, 2,700 to train on, 300 held out" in said
    assert not (tmp_path / "run" / "checkpoint").exists()
    taken = json.loads((tmp_path / "run" / "training.json").read_text())
    assert taken["events"] == 3000
    surrogate = load_surrogate(tmp_path / "run")
    assert load_reference(tmp_path / "run" / "surrogate").n_events == 1000
    load_reference(tmp_path / "run" / "surrogate").require_of(surrogate)
    again = CliRunner().invoke(app, arguments)
    assert "already trained" in again.output
    config = parse_config(_values("run", max_events=2999))
    (tmp_path / "run" / "config.json").write_text(config.to_json())
    with pytest.raises(RunFolderError, match="on other events"):
        train_run(config, tmp_path / "run")


def test_a_streamed_run_that_was_cut_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = parse_config(_values("run"))
    whole = train_run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("mflow_sbi.run_training.history_csv", _cut)
        with pytest.raises(KeyboardInterrupt):
            train_run(config, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint" / "events" / "x.npy").exists()
    assert torch.equal(_tensors(train_run(config, tmp_path / "cut")), _tensors(whole))


def _cut(rows: object) -> str:
    raise KeyboardInterrupt


def test_what_cannot_begin_leaves_no_trace(tmp_path: Path):
    few = ["a[0].pt", "a[1].pt", "j[0].pt"]  # the surface of fom is that of the 40 observables
    config = parse_config(_values("run", recipe="fom", options=FLOWS, phases={}, observables=few))
    with pytest.raises(ChartError):
        train_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_torchrun_makes_one_run_that_one_process_makes(tmp_path: Path):
    config = _values("run", phases={"ratio": {"epochs": 1, "batch_size": 300}})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node", "2", "-m", "mflow_sbi", "train"]
    done = subprocess.run(  # noqa: S603
        [*command, str(tmp_path / "run.yaml"), "--folder", str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained:") == 1
    assert "2 processes share every batch" in done.stdout
    one = train_run(parse_config(config), tmp_path / "one")
    two = load_surrogate(tmp_path / "two")
    assert np.allclose(_tensors(one), _tensors(two), atol=1e-4)
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
