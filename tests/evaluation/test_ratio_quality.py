"""Normalisation, cover and reliability of ratios whose answers are known."""

import numpy as np
import pytest

from mflow_sbi.errors import ShapeError
from mflow_sbi.evaluation import reference_cover, reliability

N = 40_000


def _shifted(shift: float) -> np.ndarray:
    """Return log N(x; shift, 1) - log N(x; 0, 1) at x ~ N(0, 1), (N,)."""
    x = np.random.default_rng(1).normal(size=N)
    return shift * x - 0.5 * shift**2


def test_cover_of_a_shifted_normal_is_known():
    theta = np.array([[0.0], [0.5], [1.0]])
    covers = reference_cover(np.stack([_shifted(t) for (t,) in theta]), theta)
    for cover, (shift,) in zip(covers, theta, strict=True):
        assert abs(cover.normalisation - 1) < 5 * cover.normalisation_error + 1e-9
        assert cover.effective_share == pytest.approx(np.exp(-(shift**2)), rel=0.1)
    biased = reference_cover(_shifted(0.5)[None] + np.log(1.2), theta[:1])[0]
    assert abs(biased.normalisation - 1.2) < 5 * biased.normalisation_error


def _pairs(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return scale x log ratio of x ~ N(theta, 1), theta ~ N(0, 1): paired and shuffled."""
    rng = np.random.default_rng(2)
    theta = rng.normal(size=N)
    x = theta + rng.normal(size=N)

    def log_ratio(at: np.ndarray) -> np.ndarray:
        return scale * (-0.5 * (x - at) ** 2 + 0.25 * x**2 + 0.5 * np.log(2))

    return log_ratio(theta), log_ratio(rng.permutation(theta))


def test_an_exact_ratio_is_reliable_and_a_bold_one_is_not():
    exact, bold = reliability(*_pairs(1.0)), reliability(*_pairs(2.0))
    off = np.abs(np.subtract(exact.predicted, exact.observed))
    assert (off < 4 * np.array(exact.error) + 1e-3).all()
    assert exact.calibration_error < 0.01 < 0.05 < bold.calibration_error
    assert sum(exact.pairs) == 2 * N


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="expected log ratios"):
        reference_cover(np.zeros((2, 10)), np.zeros((3, 1)))
    with pytest.raises(ShapeError, match="two vectors"):
        reliability(np.zeros(3), np.zeros(4))
