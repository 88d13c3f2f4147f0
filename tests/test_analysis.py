"""Analyses: what a configuration makes of an observation, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.analysis import build_model, parse_analysis, read_analysis
from mflow_sbi.errors import ConfigurationError, MissingReference
from mflow_sbi.events import read_events
from mflow_sbi.inference import (
    CrossSection,
    GridSampler,
    MorphingLikelihood,
    NormalPrior,
    RateModel,
    exact_likelihood,
)

DATA = Path(__file__).parents[1] / "data"
SAMPLE = read_events(str(DATA / "wbf_tuned_observed_theta_0_0.root"))
EVENTS = exact_likelihood(SAMPLE)
NAMES = tuple(EVENTS.parameter_names)
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
POINTS = np.random.default_rng(1).normal(size=(7, 2))


def _model(values: dict):
    return build_model(EVENTS, SAMPLE.metadata, parse_analysis(values), PRIOR, GridSampler())


def test_nothing_said_is_the_shape_alone():
    model = _model({})
    np.testing.assert_array_equal(model.likelihood(POINTS), EVENTS(POINTS))
    assert model.prior is PRIOR
    assert model.constrained_likelihood is model.likelihood
    assert model.parameters_of_interest == NAMES


def test_a_luminosity_adds_the_poisson_term_of_the_number_of_events():
    model = _model({"luminosity": 0.03, "efficiency": 0.5})
    mu = RateModel(CrossSection.from_metadata(SAMPLE.metadata), 0.03, 0.5)(POINTS)
    n = len(SAMPLE)
    gap = model.likelihood(POINTS) - EVENTS(POINTS) - (n * np.log(mu) - mu)
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)


def test_a_background_of_zero_size_is_none_and_all_of_it_is_flat():
    small = _model({"background": {"fraction": 1e-12, "theta": [1, 1]}})
    np.testing.assert_allclose(small.likelihood(POINTS), EVENTS(POINTS), atol=1e-6)
    large = _model({"background": {"fraction": 1 - 1e-12, "theta": [1, 1]}})
    assert np.ptp(large.likelihood(POINTS)) < 1e-6


def test_nuisances_are_parameters_with_one_constraint():
    values = {
        "luminosity": 0.03,
        "luminosity_error": 0.02,
        "cross_section_error": True,
        "background": {"yield": 4.0, "error": 0.2, "theta": [0, 0]},
    }
    model = _model(values)
    assert set(model.nuisances) == {"luminosity", "cross_section", "background_yield"}
    assert model.parameters_of_interest == NAMES
    assert tuple(model.prior.parameter_names) == tuple(model.likelihood.parameter_names)
    p = len(model.likelihood.parameter_names)
    points = np.random.default_rng(2).normal(size=(5, p))
    columns = [list(model.likelihood.parameter_names).index(name) for name in NAMES]
    bayesian = model.likelihood(points) + model.prior.log_prob(points)
    frequentist = model.constrained_likelihood(points) + PRIOR.log_prob(points[:, columns])
    np.testing.assert_allclose(bayesian, frequentist, atol=1e-9)


def test_fixed_parameters_leave_the_likelihood_on_its_slice():
    model = _model(
        {"fixed": {NAMES[1]: 0.5}, "prior": {"kind": "normal", "mean": [0], "std": [1]}}
    )
    whole = np.column_stack([POINTS[:, 0], np.full(len(POINTS), 0.5)])
    np.testing.assert_allclose(model.likelihood(POINTS[:, :1]), EVENTS(whole))
    assert tuple(model.prior.parameter_names) == NAMES[:1]


def test_prior_and_sampler_are_those_of_the_analysis(tmp_path):
    path = tmp_path / "analysis.yaml"
    path.write_text(
        "prior: {kind: box, low: [-1, -1], high: [1, 2]}\nsampler: {kind: grid, cells: 30}\n"
    )
    analysis = read_analysis(path)
    model = build_model(EVENTS, SAMPLE.metadata, analysis, PRIOR, GridSampler())
    assert model.prior.to_dict()["high"] == [1, 2]
    assert model.sampler == GridSampler(cells=30)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"luminosty": 3}, "did you mean 'luminosity'"),
        ({"luminosity": -3}, "greater than 0"),
        ({"luminosity": 3, "efficiency": 1.2}, "less than or equal to 1"),
        ({"luminosity_error": 0.1}, "need a luminosity"),
        ({"background": {"yield": 3, "theta": [0, 0]}}, "told by its fraction"),
        ({"luminosity": 3, "background": {"fraction": 0.1, "theta": [0, 0]}}, "by its yield"),
        ({"background": {"yeild": 3, "theta": [0, 0]}}, "did you mean 'yield'"),
        ({"background": {"fraction": 0.1, "theta": [0]}}, "expected 2 numbers"),
        ({"fixed": {"CWL3": 0.0}}, "CWL3"),
        ({"fixed": {NAMES[0]: 0.0}}, "expected the analysis to say the prior"),
        ({"prior": {"kind": "bx"}}, "prior kind"),
        ({"sampler": {"kind": "nust"}}, "did you mean 'nuts'"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(ConfigurationError, match=message):
        _model(values)


def test_a_rate_needs_a_cross_section():
    assert isinstance(EVENTS, MorphingLikelihood)
    from dataclasses import replace

    metadata = replace(SAMPLE.metadata, morphing=None)
    with pytest.raises(MissingReference, match="cross section"):
        build_model(EVENTS, metadata, parse_analysis({"luminosity": 1}), PRIOR, GridSampler())
