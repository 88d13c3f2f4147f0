"""What worker processes compute is what one process computes, bit for bit."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mflow_sbi.calibration import ExactSource, draw_sets, posteriors_in_blocks, posteriors_of_sets
from mflow_sbi.cluster import ClusterMap, local_client
from mflow_sbi.config import parse_config
from mflow_sbi.errors import (
    ClusterError,
    ConfigurationError,
    RunFolderError,
    SamplingError,
    TrainingError,
)
from mflow_sbi.events import read_events
from mflow_sbi.inference import (
    EmceeSampler,
    FlatLikelihood,
    NormalPrior,
    diagnostics_of,
    draws_of,
    load_posterior,
)
from mflow_sbi.run_calibration import CalibrationSettings, calibrate_run, recalibrate_run
from mflow_sbi.run_inference import infer_run
from mflow_sbi.run_seeds import train_seeds
from mflow_sbi.run_sets import RunSource
from mflow_sbi.run_study import StudySettings, study_runs
from mflow_sbi.trained_runs import load_runs

from .files import FURTHER, OBSERVED, TRAIN, invoke


@pytest.fixture(scope="module")
def client():
    pytest.importorskip("distributed")
    with local_client(2) as client:
        yield client


@pytest.fixture
def tasks(client) -> ClusterMap:
    return ClusterMap(client)


def test_results_come_in_order_from_several_processes(tasks):
    def square(x):
        return x * x, os.getpid(), torch.get_num_threads()

    told = []
    results = tasks.map(square, range(20), lambda *n: told.append(n))
    assert [value for value, _, _ in results] == [x * x for x in range(20)]
    pids = {pid for _, pid, _ in results}
    assert os.getpid() not in pids
    assert {threads for _, _, threads in results} == {1}
    assert told == [(k, 20) for k in range(1, 21)]


def test_the_package_s_errors_come_back_and_others_are_named(tasks):
    def refuse(x):
        message = f"number {x}"
        raise ConfigurationError(message)

    def stumble(x):
        return 1 / x

    with pytest.raises(ConfigurationError, match="number 1"):
        tasks.map(refuse, [1])
    with pytest.raises(ClusterError, match="stumble failed on a worker .ZeroDivisionError"):
        tasks.map(stumble, [0])


def test_a_killed_worker_is_no_harm_unless_every_worker_is(tasks, tmp_path):
    def work(x):
        struck = tmp_path / "struck"
        if x == 3 and not struck.exists():
            struck.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    assert tasks.map(work, range(8)) == list(range(8))
    assert (tmp_path / "struck").exists()


def _calibration(folder: Path) -> bytes:
    return (folder / "calibration.json").read_bytes()


def test_a_calibration_is_the_same_bit_for_bit(run, tasks, tmp_path):
    settings = CalibrationSettings(sets=26, events=2)
    for name, who in (("serial", None), ("cluster", tasks)):
        calibrate_run(run, str(TRAIN), settings=settings, output=tmp_path / name, tasks=who)
    assert _calibration(tmp_path / "cluster") == _calibration(tmp_path / "serial")


def test_a_recalibration_of_an_ensemble_is_the_same_bit_for_bit(members, tasks, tmp_path):
    settings = CalibrationSettings(sets=52, events=2)
    for name, who in (("serial", None), ("cluster", tasks)):
        recalibrate_run(members, str(TRAIN), settings=settings, output=tmp_path / name, tasks=who)
    one, two = (tmp_path / name / "recalibration.json" for name in ("cluster", "serial"))
    assert one.read_bytes() == two.read_bytes()


def test_blocks_are_the_posteriors_of_all_sets_together(run, tasks):
    (trained,) = load_runs(run)
    pool = read_events(TRAIN, max_events=3000)
    drawn = draw_sets(pool, trained.prior, 30, 3, np.random.default_rng(1))
    for source in (ExactSource(), RunSource.of(trained)):
        together = posteriors_of_sets(source(drawn), trained.prior)
        blocks = posteriors_in_blocks(source, drawn, trained.prior, tasks)
        for one, two in zip(together, blocks, strict=True):
            assert two.log_evidence == pytest.approx(one.log_evidence, abs=2e-3)
            np.testing.assert_allclose(two.mean, one.mean, atol=0.02)


def _scores(folder: Path) -> Any:
    """Return what a comparison wrote, without the times it took."""
    record = json.loads((folder / "study.json").read_text())

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if "seconds" not in k}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    return timeless(record)


@pytest.mark.parametrize("exact", [True, False])
def test_a_comparison_over_sets_is_the_same_bit_for_bit(members, tasks, tmp_path, exact):
    settings = StudySettings(events=5, sets=2, exact=exact, calibration_sets=8, cells=8)
    observed = [str(OBSERVED), str(FURTHER)]
    for name, who in (("serial", None), ("cluster", tasks)):
        study_runs(
            members,
            observed,
            tmp_path / name,
            settings=settings,
            calibration_paths=[str(TRAIN)],
            tasks=who,
        )
    found = _scores(tmp_path / "cluster")
    assert found == _scores(tmp_path / "serial")
    assert ("total_variation" in json.dumps(found)) == exact


def _posterior(folder: Path) -> Any:
    """Return draws, their log posterior, and the attributes."""
    posterior = load_posterior(folder / "posterior.nc")
    return draws_of(posterior), posterior["sample_stats"]["lp"].values, diagnostics_of(posterior)


def test_ensembles_of_walkers_are_the_same_bit_for_bit(run, tasks, tmp_path):
    for name, who in (("serial", None), ("cluster", tasks)):
        infer_run(run, str(OBSERVED), output=tmp_path / name, tasks=who)
    one, two = (_posterior(tmp_path / name) for name in ("cluster", "serial"))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert one[2] == two[2]
    assert one[2].evaluated_points > 500


def test_ensembles_elsewhere_refuse_another_model_and_another_sampler(run, tasks, tmp_path):
    names = ("a", "b")
    prior = NormalPrior(names, (0, 0), (1, 1))

    def another():
        return FlatLikelihood(names), NormalPrior(names, (0, 0), (1, 2))

    with pytest.raises(SamplingError, match="see another likelihood, prior or other"):
        EmceeSampler(walkers=8, steps=5).sample_elsewhere(
            FlatLikelihood(names), prior, 1, another, tasks
        )
    with pytest.raises(ConfigurationError, match="expected the sampler emcee without --resume"):
        infer_run(run, str(OBSERVED), output=tmp_path, tasks=tasks, resume=True)


def _toy(**others: object):
    values = {
        "name": "toy",
        "events": str(TRAIN),
        "recipe": "nre",
        "options": {"hidden": 8},
        "phases": {"ratio": {"epochs": 1}},
        "max_events": 500,
        "threads": 1,
    }
    return parse_config(values | others)


def test_seeds_are_trained_at_once_to_the_same_weights(tasks, tmp_path):
    here = train_seeds(_toy(), (4, 7), tmp_path / "here")
    there = train_seeds(_toy(), (4, 7), tmp_path / "there", tasks=tasks)
    assert [path.name for path in there] == ["there_seed4", "there_seed7"]
    digests = [[run.weights_digest for (run,) in map(load_runs, paths)] for paths in (here, there)]
    assert digests[0] == digests[1]
    assert digests[0][0] != digests[0][1]
    (run,) = load_runs(there[1])
    assert (run.config.seed, run.config.name) == (7, "toy_seed7")


def test_a_failed_training_stops_no_other(tmp_path):
    wild = _toy(phases={"ratio": {"epochs": 1, "learning_rate": 1e30}})
    with pytest.raises(TrainingError, match="2 of 2 trainings failed: wild_seed1, wild_seed2"):
        train_seeds(wild, (1, 2), tmp_path / "wild")
    assert (tmp_path / "wild_seed2" / "failure.json").is_file()
    for seeds in ((), (1, 1), (-1,)):
        with pytest.raises(ConfigurationError, match="seeds"):
            train_seeds(wild, seeds, tmp_path / "wild")


def test_a_run_with_other_weights_is_refused_where_it_is_loaded(run):
    source = RunSource(run.absolute(), "0" * 64)
    with pytest.raises(RunFolderError, match="expected the weights 0000"):
        _ = source.run


def test_the_command_line_takes_the_address_of_a_scheduler(run, client, tmp_path):
    address = client.scheduler_info()["address"]
    words = ["calibrate", run, "--test", TRAIN, "--sets", "26", "--events", "2"]
    invoke(*words, "--output", tmp_path / "serial")
    invoke(*words, "--output", tmp_path / "cluster", "--cluster", address)
    assert _calibration(tmp_path / "cluster") == _calibration(tmp_path / "serial")


@pytest.mark.parametrize("verb", ["train", "compare"])
def test_verbs_of_one_piece_refuse_a_cluster(run, tmp_path, verb):
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(json.loads(_toy().to_json())))
    words = {"train": ["train", config], "compare": ["compare", run, "--observed", OBSERVED]}
    with pytest.raises(ConfigurationError, match="--cluster"):
        invoke(*words[verb], "--cluster", "local:2")
