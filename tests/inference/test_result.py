"""InferenceData of a run: groups, attributes, NetCDF round trip, summary."""

import json
from pathlib import Path

import numpy as np
import pytest

from mflow_sbi.errors import EventFileError, ShapeError
from mflow_sbi.inference.cached import CachedLikelihood
from mflow_sbi.inference.mcmc import EmceeSampler
from mflow_sbi.inference.priors import NormalPrior, prior_from_dict
from mflow_sbi.inference.result import (
    InferenceData,
    diagnostics_of,
    draws_of,
    load_posterior,
    rank_r_hat,
    save_posterior,
    summarise,
)
from mflow_sbi.inference.sampling import sample_posterior
from mflow_sbi.interfaces import Array

from .toys import NAMES, LinearSurrogate

PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
SETTINGS = EmceeSampler(ensembles=2, walkers=8, burn_in=20, steps=50)


@pytest.fixture
def posterior(observed: Array) -> InferenceData:
    return sample_posterior(
        CachedLikelihood(LinearSurrogate(), observed),
        PRIOR,
        SETTINGS,
        seed=9,
        attributes={"recipe": "mflow", "digests": {"train.root": "ab12"}, "exact": False},
    )


def test_groups_and_attributes(posterior: InferenceData, observed: Array) -> None:
    assert set(posterior.groups()) == {
        "posterior",
        "sample_stats",
        "observed_data",
        "constant_data",
    }
    assert posterior["posterior"]["CWL2"].dims == ("chain", "draw")
    assert posterior["posterior"]["CWL2"].shape == (16, 50)
    np.testing.assert_array_equal(posterior["observed_data"]["x"], observed)
    np.testing.assert_array_equal(posterior["constant_data"]["prior_std"], [1, 1])
    np.testing.assert_array_equal(posterior["posterior"]["ensemble"], np.repeat([0, 1], 8))
    attributes = posterior.attrs
    assert attributes["recipe"] == "mflow"
    assert attributes["seed"] == 9
    assert attributes["version"]
    assert json.loads(attributes["digests"]) == {"train.root": "ab12"}
    assert prior_from_dict(json.loads(attributes["prior"])) == PRIOR


def test_log_posterior_belongs_to_its_draw(posterior: InferenceData, observed: Array) -> None:
    draws = draws_of(posterior, NAMES)
    lp = posterior["sample_stats"]["lp"].to_numpy().ravel()
    likelihood = CachedLikelihood(LinearSurrogate(), observed)
    np.testing.assert_allclose(lp, likelihood(draws) + PRIOR.log_prob(draws), rtol=1e-12)


def test_netcdf_round_trip(posterior: InferenceData, tmp_path: Path) -> None:
    path = save_posterior(posterior, tmp_path / "posterior.nc")
    assert [file.name for file in tmp_path.iterdir()] == ["posterior.nc"]
    loaded = load_posterior(path)
    path.unlink()  # wholly in memory
    assert loaded.attrs == posterior.attrs
    for group in posterior.groups():
        assert loaded[group].identical(posterior[group]), group
    assert diagnostics_of(loaded) == diagnostics_of(posterior)


def test_failed_writing_leaves_the_old_file(posterior: InferenceData, tmp_path: Path) -> None:
    path = save_posterior(posterior, tmp_path / "posterior.nc")
    before = path.read_bytes()
    posterior.attrs["unwritable"] = object()
    with pytest.raises(TypeError):
        save_posterior(posterior, path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_summary_is_of_the_draws(posterior: InferenceData) -> None:
    draws, summary = draws_of(posterior), summarise(posterior)
    np.testing.assert_allclose(summary.mean, draws.mean(axis=0))
    np.testing.assert_allclose(summary.correlation, np.corrcoef(draws.T))
    lp = posterior["sample_stats"]["lp"].to_numpy()
    for level, box in summary.intervals.items():
        inside = (draws >= box[:, 0]) & (draws <= box[:, 1])
        np.testing.assert_allclose(inside.mean(axis=0), level, atol=4e-3)
        assert (lp >= summary.density_levels[level]).mean() == pytest.approx(level, abs=4e-3)
    assert json.loads(json.dumps(summary.to_dict()))["parameter_names"] == list(NAMES)


def test_draws_in_the_order_asked(posterior: InferenceData) -> None:
    np.testing.assert_array_equal(draws_of(posterior, NAMES[::-1]), draws_of(posterior)[:, ::-1])


def test_r_hat_compares_chains() -> None:
    rng = np.random.default_rng(0)
    same = rng.normal(size=(4, 1000))
    assert rank_r_hat(same) < 1.01
    assert rank_r_hat(same + np.array([[0], [0], [0], [1]])) > 1.1


def test_errors(posterior: InferenceData, tmp_path: Path) -> None:
    with pytest.raises(EventFileError, match="no such file"):
        load_posterior(tmp_path / "absent.nc")
    broken = tmp_path / "broken.nc"
    broken.write_bytes(b"not a NetCDF file")
    with pytest.raises(EventFileError, match="cannot read"):
        load_posterior(broken)
    with pytest.raises(ShapeError, match=r"got \['CHW'\]"):
        draws_of(posterior, ["CHW"])
