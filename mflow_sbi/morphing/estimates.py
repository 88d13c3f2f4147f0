r"""Cross sections, joint likelihood ratios and joint scores of weighted events, with their errors.

Events are drawn from any density q; with y_ik = c_k(x_i) / q(x_i) their averages are

    C_k = mean_i y_ik,    sigma(theta) = w(theta) . C,    weight_i(theta) = w(theta) . y_i,

for all theta at once.  Their second moments G = sum_i y_i y_i^T / n^2 hold the errors and the
worth of the sample at every theta (n of N_gen generated events passed a selection; the others
count as zeros):

    Cov C = N_gen / (N_gen - 1) (G - C C^T / N_gen),
    var sigma = w . Cov C . w,    n_eff = (sum_i weight_i)^2 / sum_i weight_i^2 = sigma^2 / w.G.w.

These are estimates themselves: where weights have long tails that the sample has not met, both
look better than they are.

Joint quantities (arXiv:1805.00013), defined for weights of either sign:

    r(x, z|theta_0, theta_1) = [w(theta_0).c / sigma(theta_0)] / [w(theta_1).c / sigma(theta_1)],
    t(x, z|theta) = grad w . c / w . c - grad sigma / sigma.

Their components are exact, so that their errors are those of sigma, common to all events:

    var ln r = (w_0/sigma_0 - w_1/sigma_1) . Cov C . (w_0/sigma_0 - w_1/sigma_1),
    cov t = J Cov C J^T,    J = grad w / sigma - (grad sigma / sigma) w / sigma.

Shapes: M parameter points, N events, K monomials, p parameters.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from mflow_sbi.errors import EventDataError, ShapeError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing.basis import MorphingBasis
from mflow_sbi.morphing.likelihood import total_cross_section

__all__ = ["CrossSectionEstimate", "joint_ratio", "joint_score"]


@dataclass(frozen=True, eq=False)
class CrossSectionEstimate:
    """What a sample says of sigma(theta), at all theta.

    Args:
        basis: the monomials.
        value: C_k, pb, (K,).
        second_moment: G, pb^2, (K, K).
        n_generated: N_gen; those that were selected and those that were not.
    """

    basis: MorphingBasis
    value: Array
    second_moment: Array
    n_generated: float

    @classmethod
    def of(
        cls, basis: MorphingBasis, carried: ArrayLike, n_generated: float | None = None
    ) -> "CrossSectionEstimate":
        """Return the estimate of events.

        Args:
            basis: the monomials.
            carried: y_ik, pb, of the n events selected, (n, K); their mean is C.
            n_generated: N_gen >= n; default: n.

        Raises:
            ShapeError: arrays that do not fit the basis, or fewer generated than selected.
            EventDataError: numbers that are not finite, or fewer than two events.
        """
        y = basis.columns("carried", carried, 2)
        n = len(y)
        generated = float(n if n_generated is None else n_generated)
        if n < 2:
            msg = f"expected at least two events to estimate a cross section from; got {n}."
            raise EventDataError(msg)
        if generated < n * (1.0 - 1e-12):
            msg = f"expected at least as many generated events as selected ones, {n}; got " + (
                f"{generated:g}."
            )
            raise ShapeError(msg)
        return cls(basis, y.mean(axis=0), y.T @ y / n**2, generated)

    @cached_property
    def covariance(self) -> Array:
        """Cov C, pb^2, (K, K)."""
        n = self.n_generated
        return n / (n - 1.0) * (self.second_moment - np.outer(self.value, self.value) / n)

    @property
    def error(self) -> Array:
        """Standard deviations of C_k, pb, (K,)."""
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0))

    def cross_section(self, theta: ArrayLike) -> tuple[Array, Array]:
        """Return sigma(theta) and its standard deviation, pb, (M, p) -> (M,), (M,).

        Raises:
            ParameterRangeError: the cross section is not positive at some theta.
        """
        sigma = total_cross_section(self.basis, self.value, theta)
        return sigma, np.sqrt(self._variance(self.basis.weights(theta)))

    def effective_events(self, theta: ArrayLike) -> Array:
        """Return n_eff of the sample at theta, (M, p) -> (M,).

        Raises:
            ParameterRangeError: the cross section is not positive at some theta.
        """
        sigma, w = total_cross_section(self.basis, self.value, theta), self.basis.weights(theta)
        squares = np.einsum("mk,kl,ml->m", w, self.second_moment, w)
        return np.square(sigma) / np.maximum(squares, np.square(sigma) / self.n_generated)

    def ratio_error(self, theta_0: ArrayLike, theta_1: ArrayLike) -> Array:
        """Return the standard deviation of ln r, the same for all events, (M,).

        Args:
            theta_0: of the numerator, (M, p) or (1, p).
            theta_1: of the denominator, (M, p) or (1, p).
        """
        return np.sqrt(self._variance(self._relative(theta_0) - self._relative(theta_1)))

    def score_covariance(self, theta: ArrayLike) -> Array:
        """Return the covariance of t(x, z|theta), the same for all events, (M, p, p)."""
        sigma = total_cross_section(self.basis, self.value, theta)[:, None, None]
        slope = self.basis.gradient(theta) / sigma
        of_sigma = np.einsum("mkp,k->mp", slope, self.value)
        pull = slope - self._relative(theta)[:, :, None] * of_sigma[:, None]
        return np.einsum("mkp,kl,mlq->mpq", pull, self.covariance, pull)

    def _relative(self, theta: ArrayLike) -> Array:
        sigma = total_cross_section(self.basis, self.value, theta)
        return self.basis.weights(theta) / sigma[:, None]

    def _variance(self, w: Array) -> Array:
        return np.maximum(np.einsum("mk,kl,ml->m", w, self.covariance, w), 0.0)


def joint_ratio(
    basis: MorphingBasis,
    components: ArrayLike,
    cross_section: ArrayLike,
    theta_0: ArrayLike,
    theta_1: ArrayLike,
) -> Array:
    """Return r(x_i, z_i|theta_0, theta_1), (N,); weights may have either sign.

    Args:
        basis: the monomials.
        components: c_k(x_i) up to a factor of each event, (N, K).
        cross_section: C_k, pb, (K,).
        theta_0: of the numerator, one point per event, (N, p), or one for all, (1, p).
        theta_1: of the denominator, alike.

    Raises:
        ShapeError: arrays that do not fit the basis or each other.
        EventDataError: an event without density at theta_1.
        ParameterRangeError: the cross section is not positive at some theta.
    """
    c = basis.columns("components", components, 2)
    above, below = (
        _densities(basis, c, theta) / total_cross_section(basis, cross_section, theta)
        for theta in (theta_0, theta_1)
    )
    _require_density(below, "joint_ratio", "theta_1")
    return above / below


def joint_score(
    basis: MorphingBasis, components: ArrayLike, cross_section: ArrayLike, theta: ArrayLike
) -> Array:
    """Return t(x_i, z_i|theta_i), (N, p); weights may have either sign.

    Args:
        basis: the monomials.
        components: c_k(x_i) up to a factor of each event, (N, K).
        cross_section: C_k, pb, (K,).
        theta: one point per event, (N, p), or one for all, (1, p).

    Raises:
        ShapeError: arrays that do not fit the basis or each other.
        EventDataError: an event of weight zero at its theta.
        ParameterRangeError: the cross section is not positive at some theta.
    """
    c = basis.columns("components", components, 2)
    density = _densities(basis, c, theta)
    _require_density(density, "joint_score", "theta")
    sigma = total_cross_section(basis, cross_section, theta)
    slope = basis.gradient(theta)
    of_total = np.einsum("mkp,k->mp", slope, np.asarray(cross_section)) / sigma[:, None]
    return (slope * c[:, :, None]).sum(axis=1) / density[:, None] - of_total


def _densities(basis: MorphingBasis, c: Array, theta: ArrayLike) -> Array:
    """Return w(theta_i) . c_i, (N,)."""
    w = basis.weights(theta)
    if len(w) not in (1, len(c)):
        msg = f"expected theta ({len(c)}, p) or (1, p) for {len(c)} events; got {len(w)} points."
        raise ShapeError(msg)
    return (w * c).sum(axis=1)


def _require_density(density: Array, what: str, where: str) -> None:
    n_without = int((density == 0).sum())
    if n_without:
        msg = (
            f"{what}: {n_without} of {len(density)} events have weight zero at {where}, where it "
            "is not defined. Leave them out."
        )
        raise EventDataError(msg)
