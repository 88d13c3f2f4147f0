"""Several observations analysed together: log likelihoods add, parameters are shared by name."""

import json

import numpy as np
import pytest

from mflow_sbi.analysis import parse_analysis
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import GaussianConstraint, load_posterior
from mflow_sbi.interfaces import Quiet
from mflow_sbi.run_observation import observe

from .files import FURTHER, OBSERVED, invoke, written

FIRST = {
    "luminosity": 0.02,
    "luminosity_error": 0.1,
    "background": {"yield": 3.0, "error": 0.3, "theta": [0.8, 0.8]},
}
SECOND = {"luminosity": 0.03, "luminosity_error": 0.05}


def _observe(folder, observed, values):
    return observe(folder, str(observed), Quiet(), parse_analysis(values))


def _joint(members, shared=()):
    further = {"name": "late", "run": str(members[1]), "observed": str(FURTHER), **SECOND}
    values = {**FIRST, "combine": [further], "shared": list(shared)}
    return _observe(members[0], OBSERVED, values)


@pytest.mark.parametrize("shared", [(), ("luminosity",)])
def test_the_joint_log_likelihood_is_the_sum(members, shared):
    joint = _joint(members, shared)
    names = list(joint.model.likelihood.parameter_names)
    late = "luminosity" if shared else "luminosity_late"
    assert names == ["CWL2", "CPWL2", "luminosity", "background_yield", *({late} - {*names[:4]})]
    assert set(joint.model.nuisances) == {"luminosity", "background_yield", late}
    points = np.random.default_rng(1).normal(scale=0.5, size=(25, len(names)))
    total = np.zeros(len(points))
    for folder, observed, values, called in (
        (members[0], OBSERVED, FIRST, {}),
        (members[1], FURTHER, SECOND, {"luminosity": late}),
    ):
        alone = _observe(folder, observed, values).model.likelihood
        columns = [names.index(called.get(name, name)) for name in alone.parameter_names]
        total += alone(points[:, columns])
    np.testing.assert_allclose(joint.model.likelihood(points), total, rtol=0, atol=1e-8)
    constrained = joint.model.constrained_likelihood(points)
    nuisances = [names.index(name) for name in joint.model.nuisances]
    terms = GaussianConstraint.unit(joint.model.nuisances)(points[:, nuisances])
    np.testing.assert_allclose(constrained, total + terms, atol=1e-8)


def test_two_observations_of_one_kind_narrow_the_posterior(members, tmp_path):
    text = "{{sampler: {{kind: grid, cells: 30}}, combine: [{}]}}"
    item = f"{{name: again, run: {members[0]}, observed: {FURTHER}}}"
    analysis = written(tmp_path, text.format(item))
    words = ("--observed", OBSERVED, "--analysis", analysis, "--output", tmp_path)
    invoke("infer", members[0], *words)
    posterior = load_posterior(tmp_path / "posterior.nc")
    assert posterior.attrs["n_events"] == 40
    assert set(json.loads(posterior.attrs["combined"])) == {"again"}
    assert posterior["observed_data"]["again_x"].shape == (20, 40)
    output = invoke("intervals", members[0], *words)
    assert "CPWL2" in output
    both = json.loads((tmp_path / "intervals.json").read_text())["intervals"]
    invoke("intervals", members[0], "--observed", OBSERVED, "--output", tmp_path)
    one = json.loads((tmp_path / "intervals.json").read_text())["intervals"]
    for name in ("CWL2", "CPWL2"):
        assert _length(both[name][1]) < _length(one[name][1])


def _length(record):
    return sum(part["high"] - part["low"] for part in record["parts"])


def test_an_observation_may_be_that_of_an_ensemble(members):
    further = {"name": "both", "run": [str(m) for m in members], "observed": str(FURTHER)}
    joint = _observe(members[0], OBSERVED, {"combine": [further]})
    assert joint.observations["both"].spread is not None
    assert joint.truth is None  # the files are of different points
    assert joint.ranges["CWL2"][0] < 0 < joint.ranges["CWL2"][1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"combine": [{"name": "b", "run": "b"}]}, "missing key 'combine.0.observed'"),
        (
            {"combine": [{"name": "b", "run": "b", "observed": "b", "efficency": 1}]},
            "did you mean 'efficiency'",
        ),
        (
            {"combine": [{"name": "main", "run": "b", "observed": "b.root"}]},
            "'main' is taken",
        ),
        ({"shared": ["luminosity"]}, "of 1 observation"),
        (
            {
                "combine": [{"name": "b", "run": "b", "observed": "b.root"}],
                "shared": ["lumi"],
            },
            "expected nuisances",
        ),
        (
            {"combine": [{"name": "b", "run": "b", "observed": "b", "luminosity_error": 0.1}]},
            "need a luminosity",
        ),
    ],
)
def test_refuses(values, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_analysis(values)
