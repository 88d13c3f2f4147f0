"""An observation without events: its number tells something, its shape nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from mflow_sbi.analysis import parse_analysis
from mflow_sbi.errors import EventDataError, EventFileError
from mflow_sbi.inference import CrossSection, RateModel, draws_of, load_posterior
from mflow_sbi.interfaces import Quiet
from mflow_sbi.run_observation import observe

from .files import OBSERVED, invoke, written

POINTS = np.random.default_rng(1).normal(size=(9, 2))


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """The observed file, all its events taken out."""
    path = tmp_path / "nothing.root"
    source: Any = uproot.open(OBSERVED)
    with source, uproot.recreate(path) as target:
        tree = source["Delphes"]
        arrays = tree.arrays(tree.keys(), entry_stop=0)
        target.mktree("Delphes", {name: arrays[name].type.content for name in arrays.fields})
        record = json.loads(str(source["mflow_sbi"]))
        for count in ("n_events", "sum_of_weights", "sum_of_weights_before_selection"):
            del record[count]
        target["mflow_sbi"] = json.dumps(record)
    return path


def _likelihood(run, path, values):
    return observe(run, str(path), Quiet(), parse_analysis(values)).model.likelihood


def test_no_events_are_minus_the_expected_number(run, nothing):
    values = {"luminosity": 0.01, "efficiency": 0.5}
    likelihood = _likelihood(run, nothing, values)
    assert likelihood.n_events == 0
    metadata = observe(run, str(OBSERVED), Quiet()).main.surrogate.record.metadata
    mu = RateModel(CrossSection.from_metadata(metadata), 0.01, 0.5)(POINTS)
    np.testing.assert_allclose(likelihood(POINTS), -mu)
    background = {"yield": 4.0, "theta": [0, 0]}
    both = _likelihood(run, nothing, {**values, "background": background})
    np.testing.assert_allclose(both(POINTS), -mu - 4.0)


def test_no_events_are_a_posterior_where_their_number_counts(members, nothing, tmp_path):
    rate = written(tmp_path, "{luminosity: 0.02, sampler: {kind: grid, cells: 30}}")
    words = ("--observed", nothing, "--analysis", rate, "--output", tmp_path)
    for runs in (members[:1], members):
        invoke("infer", *runs, *words)
        draws = draws_of(load_posterior(tmp_path / "posterior.nc"))
        # CPWL2 enters the rate as a square: fewer events, smaller squares than in the prior
        assert np.square(draws[:, 1]).mean() < 0.7
    invoke("intervals", members[0], *words)


def test_the_shape_of_no_events_is_refused(run, nothing):
    for values in ({}, {"background": {"fraction": 0.1, "theta": [0, 0]}}):
        with pytest.raises((EventFileError, EventDataError), match="0 events"):
            _likelihood(run, nothing, values)
