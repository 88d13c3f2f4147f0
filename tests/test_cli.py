"""The command line end to end at toy size, its exit codes and its one-line errors."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from typer.testing import CliRunner

from mflow_sbi import cli
from mflow_sbi.cli import NOT_CONVERGED, app, main
from mflow_sbi.errors import MflowSbiError
from mflow_sbi.events import WBF_OBSERVABLES, read_events
from mflow_sbi.inference import draws_of, load_posterior

DATA = Path(__file__).parents[1] / "data"
OBSERVED = DATA / "wbf_tuned_observed_theta_0.5_0.root"
TRAIN = DATA / "wbf_tuned_train_small.root"
RUN = """
name: {name}
events: {events}
max_events: 2500
recipe: {recipe}
options: {options}
phases: {phases}
mcmc: {{ensembles: 2, walkers: 8, burn_in: 10, steps: 20}}
seed: 3
"""
FLOW = "{layers: 2, hidden: 16}"
CHART = "{kind: invertible, layers: 2, hidden: 16}"
OPTIONS = {
    "mflow": f"{{chart: {CHART}, reference: {FLOW}, density: {FLOW}}}",
    "af": f"{{reference: {FLOW}, density: {FLOW}}}",
}
ONE_EPOCH = "{epochs: 1, batch_size: 250}"
PHASES = {
    "mflow": f"{{manifold: {ONE_EPOCH}, reference: {ONE_EPOCH}, density: {ONE_EPOCH}}}",
    "af": f"{{reference: {ONE_EPOCH}, density: {ONE_EPOCH}}}",
}


def _invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for recipe in OPTIONS:
        text = RUN.format(
            name=recipe,
            events=TRAIN,
            recipe=recipe,
            options=OPTIONS[recipe],
            phases=PHASES[recipe],
        )
        config = folder / f"{recipe}.yaml"
        config.write_text(text)
        made[recipe] = folder / recipe
        _invoke("train", config, "--folder", made[recipe])
    return made


@pytest.mark.parametrize("recipe", OPTIONS)
def test_train_infer_evaluate_leave_what_they_promise(runs, recipe):
    run = runs[recipe]
    output = _invoke("infer", run, "--observed", OBSERVED, code=NOT_CONVERGED)
    assert "NOT CONVERGED" in output
    assert "CWL2" in output
    assert "68% interval" in output
    posterior = load_posterior(run / "posterior.nc")
    assert posterior.attrs["recipe"] == recipe
    _invoke("evaluate", run, "--test", TRAIN)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["closure_simulated"] < 1e-12
    assert (metrics["reconstruction_error"] is None) == (recipe == "af")
    assert metrics["closure_generated"] > 0
    for figure in ("history", "posterior", "observables", "closure"):
        assert (run / "figures" / f"{figure}.png").stat().st_size > 10_000
    assert not list(run.rglob("*.part*"))
    assert not (run / "checkpoint").exists()


def test_compare_prints_every_row_and_writes_the_table(runs, tmp_path: Path):
    output = _invoke(
        "compare", *runs.values(), "--observed", OBSERVED, "--exact", "--output", tmp_path
    )
    for label in ("exact posterior", "M-flow", "ambient flow", "prior"):
        assert label in output
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert [row["posterior"] for row in rows] == [
        "exact posterior",
        "M-flow",
        "ambient flow",
        "prior",
    ]
    assert rows[0]["total_variation"] == 0
    assert rows[-1]["log_prob_at_truth"] == pytest.approx(-1.8379 - 0.125, abs=2e-3)
    assert (tmp_path / "comparison.png").is_file()


def test_training_again_uses_what_is_there_and_refuses_another_configuration(runs):
    run = runs["af"]
    config = run.parent / "af.yaml"
    before = (run / "surrogate" / "weights.safetensors").stat().st_mtime_ns
    assert "already trained" in _invoke("train", config, "--folder", run)
    assert (run / "surrogate" / "weights.safetensors").stat().st_mtime_ns == before
    other = run.parent / "other.yaml"
    other.write_text(config.read_text().replace("seed: 3", "seed: 4"))
    with pytest.raises(MflowSbiError, match="another configuration"):
        _invoke("train", other, "--folder", run)


def test_a_finished_run_notices_that_its_event_file_changed(tmp_path: Path):
    events = tmp_path / "events.root"
    shutil.copy(TRAIN, events)
    text = RUN.format(
        name="af", events=events, recipe="af", options=OPTIONS["af"], phases=PHASES["af"]
    )
    config = tmp_path / "af.yaml"
    config.write_text(text.replace("max_events: 2500", "max_events: 300"))
    _invoke("train", config, "--folder", tmp_path / "run")
    simulate = [sys.executable, "-m", "simulators", "wbf", "--theta-prior", "normal"]
    simulate += ["--events", "300", "--seed", "9", "--out", str(events)]
    subprocess.run(simulate, check=True, capture_output=True)
    with pytest.raises(MflowSbiError, match="on other events than the files hold now"):
        _invoke("train", config, "--folder", tmp_path / "run")


def test_inspect_tells_what_would_be_read():
    output = _invoke("inspect", OBSERVED)
    assert "delphes" in output
    assert "events kept" in output


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["mflow-sbi", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    code = stopped.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "absent.root"], "absent.root"),
        (["train", "absent.yaml"], "absent.yaml: cannot be read"),
        (["infer", "absent", "--observed", OBSERVED], "expected a run folder"),
        (["infer", "a", "b", "--observed", OBSERVED], "--output FOLDER"),
        (["predict", "absent", "--observed", OBSERVED], "expected posterior.nc"),
        (["expected", "absent", "--theta", "0,0", "--luminosity", "1"], "expected a run folder"),
        (["calibrate", "absent", "--test", OBSERVED], "expected a run folder"),
        (["evaluate", "absent", "--test", OBSERVED], "expected a run folder"),
        (["compare", "absent", "--observed", OBSERVED], "expected a run folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_ends_in_one_line_and_exit_code_2(monkeypatch, capsys, arguments, message):
    assert _main(monkeypatch, *arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "mflow-sbi:" in line]
    assert len(error) == 1
    assert message in error[0]


def test_unknown_option_ends_in_exit_code_2(monkeypatch, capsys):
    assert _main(monkeypatch, "train", "--folde", "x") == 2
    error = capsys.readouterr().err
    assert "--folde" in error
    assert error.count("\n") == 1


def test_a_bug_is_not_dressed_up_as_bad_input(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        message = "a bug"
        raise RuntimeError(message)

    monkeypatch.setattr(cli, "infer_run", broken)
    monkeypatch.setattr("sys.argv", ["mflow-sbi", "infer", "x", "--observed", "y"])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_runs_repeat_bit_for_bit(runs, tmp_path: Path):
    _invoke("train", runs["mflow"].parent / "mflow.yaml", "--folder", tmp_path / "again")
    names = ("surrogate/weights.safetensors", "config.json")
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (runs["mflow"] / name).read_bytes()
    first, second = (run / "posterior.nc" for run in (runs["mflow"], tmp_path / "again"))
    if not first.exists():
        _invoke("infer", runs["mflow"], "--observed", OBSERVED, code=NOT_CONVERGED)
    _invoke("infer", tmp_path / "again", "--observed", OBSERVED, code=NOT_CONVERGED)
    assert np.array_equal(draws_of(load_posterior(first)), draws_of(load_posterior(second)))


def _observed_but(path: Path, *, weight: bool = False, parameters: bool = False) -> Path:
    """Write the observed events again, with other weights or parameters of another meaning."""
    file: Any = uproot.open(OBSERVED)
    tree = file["Delphes"]
    columns: dict[str, Any] = {}
    for name, parts in (
        ("Photon", ("PT", "Eta", "Phi", "E")),
        ("Jet", ("PT", "Eta", "Phi", "Mass")),
        ("Event", ("Weight",)),
        ("Weight", ("Weight",)),
    ):
        columns[name] = ak.zip({part: tree[f"{name}.{part}"].array() for part in parts})
    if weight:
        values = np.arange(1, tree.num_entries + 1, dtype=np.float32)
        columns["Event"] = ak.zip(
            {"Weight": ak.unflatten(values, np.ones(len(values), dtype=int))}
        )
    flat = [b for b in tree.keys() if b.startswith(("theta.", "score."))]
    columns |= {branch: tree[branch].array(library="np") for branch in flat}
    record = str(file["mflow_sbi"])
    with uproot.recreate(path) as out:
        made = out.mktree(
            "Delphes",
            {k: v.dtype if k in flat else v.type.content for k, v in columns.items()},
            counter_name=lambda counted: counted + "_size",
            field_name=lambda outer, inner: outer + "." + inner,
        )
        made.extend(columns)
        out["mflow_sbi"] = record.replace("33.04 TeV^-2", "1 TeV^-2") if parameters else record
    return path


def _altered(run: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize("verb", ["infer", "compare"])
def test_weighted_observed_events_are_refused(runs, tmp_path, monkeypatch, capsys, verb):
    path = _observed_but(tmp_path / "weighted.root", weight=True)
    assert _main(monkeypatch, verb, runs["af"], "--observed", path) == 2
    assert "expected unweighted events" in capsys.readouterr().err


def test_parameters_of_another_meaning_are_refused(runs, tmp_path, monkeypatch, capsys):
    path = _observed_but(tmp_path / "paper.root", parameters=True)
    assert _main(monkeypatch, "infer", runs["af"], "--observed", path) == 2
    assert "use events of the same parameters" in capsys.readouterr().err


def test_observed_events_are_read_in_the_order_of_the_training(runs, tmp_path):
    names = [observable.name for observable in WBF_OBSERVABLES]
    run = _altered(runs["af"], tmp_path / "run", observables=names[::-1])
    _invoke("infer", run, "--observed", OBSERVED, code=NOT_CONVERGED)
    x = load_posterior(run / "posterior.nc")["observed_data"]["x"].to_numpy()
    np.testing.assert_array_equal(x, read_events(OBSERVED).x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "different runs"),
        ({"name": "other", "prior": {"kind": "normal", "mean": [1, 0]}}, "another prior"),
        ({"name": "other", "selection": "a[0].pt > 60"}, "another prior or selection"),
    ],
    ids=["same name", "prior", "selection"],
)
def test_runs_that_cannot_be_compared_are_refused(
    runs, tmp_path, monkeypatch, capsys, changes, message
):
    other = _altered(runs["af"], tmp_path / "other", **changes)
    arguments = (runs["af"], other, "--observed", OBSERVED, "--output", tmp_path / "out")
    assert _main(monkeypatch, "compare", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b'{"name": "a', b"[1]", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_cut_files_of_a_run_end_in_one_line(runs, tmp_path, monkeypatch, capsys, name, content):
    run = _altered(runs["af"], tmp_path / "run")
    (run / name).write_bytes(content)
    assert _main(monkeypatch, "compare", run, "--observed", OBSERVED, "--output", tmp_path) == 2
    assert f"{name}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train_small", "absent"),
        ("seed: 3", "seed: 3\nprior: {kind: normal, mean: [0], std: [1]}"),
        ("seed: 3", "seed: 3\nselection: a[0].pt > 1e9"),
        ("max_events: 2500", "max_events: 10"),
    ],
    ids=["no events", "prior of the wrong length", "nothing selected", "too few"],
)
def test_a_refused_training_leaves_nothing(runs, tmp_path, monkeypatch, old, new):
    config = tmp_path / "run.yaml"
    config.write_text((runs["af"].parent / "af.yaml").read_text().replace(old, new))
    assert _main(monkeypatch, "train", config, "--folder", tmp_path / "run") == 2
    assert not (tmp_path / "run").exists()


def test_a_half_written_surrogate_is_trained_again(runs, tmp_path):
    run = _altered(runs["af"], tmp_path / "run")
    (run / "surrogate" / "surrogate.json").unlink()
    _invoke("train", runs["af"].parent / "af.yaml", "--folder", run)
    assert (run / "surrogate" / "surrogate.json").is_file()


def test_a_place_that_cannot_be_written_ends_in_one_line(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    config = runs["af"].parent / "af.yaml"
    assert _main(monkeypatch, "train", config, "--folder", tmp_path / "file" / "run") == 2
    assert "Not a directory; choose another place" in capsys.readouterr().err
