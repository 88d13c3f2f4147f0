"""Parton densities: reference values, sum rules of the columns, the door."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from simulators.errors import PartonDensityError
from simulators.wbf import parton_density
from simulators.wbf.parton_density import FLAVOURS, quark_sums, xf

REFERENCE = json.loads(Path(__file__).with_name("reference_values.json").read_text("utf-8"))


@pytest.mark.parametrize(("x", "expected"), REFERENCE["parton_densities"].items())
def test_the_reference_densities_are_reproduced(x, expected):
    densities = xf(float(x))
    got = [float(densities[name]) for name in expected]
    np.testing.assert_allclose(got, list(expected.values()), rtol=1e-6)


def test_the_shape_of_x_is_kept_and_nothing_is_left_above_one():
    densities = xf(np.array([[0.1, 0.2], [1.0, 1.5]]))
    assert set(densities) == set(FLAVOURS)
    assert all(values.shape == (2, 2) for values in densities.values())
    assert all(values[1, 1] == 0 for values in densities.values())


def test_momentum_sum_rule_and_valence_numbers():
    log_x = np.linspace(np.log(1.001e-7), 0, 20001)
    x = np.exp(log_x)
    densities = xf(x)
    momentum = np.trapezoid(sum(densities.values()) * x, log_x)
    assert momentum == pytest.approx(1, abs=0.01)
    assert np.trapezoid(densities["u"] - densities["ubar"], log_x) == pytest.approx(2, abs=0.05)
    assert np.trapezoid(densities["d"] - densities["dbar"], log_x) == pytest.approx(1, abs=0.05)


def test_sums_of_flavours_are_sums():
    x = np.geomspace(1e-4, 0.9, 50)
    densities = xf(x)
    up, sea = quark_sums(x, (("u", "c"), ("dbar", "sbar")))
    np.testing.assert_allclose(up, densities["u"] + densities["c"], rtol=1e-12)
    np.testing.assert_allclose(sea, densities["dbar"] + densities["sbar"], rtol=1e-12)


@pytest.mark.parametrize("x", [1e-8, -1.0, 0.0, float("nan")])
def test_x_out_of_range_is_refused(x):
    with pytest.raises(PartonDensityError, match="at least 1e-07"):
        xf(x)


def test_without_pythia_the_message_says_what_to_install(monkeypatch):
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    parton_density._table.cache_clear()
    try:
        with pytest.raises(PartonDensityError, match='pip install "pythia8mc'):
            xf(0.1)
    finally:
        parton_density._table.cache_clear()
