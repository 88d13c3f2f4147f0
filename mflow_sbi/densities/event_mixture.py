r"""q(x), the density of all training events, and the cross section that these events have.

Events (x_i, theta_i) with morphing components c_i are draws from the mixture of p(x|theta_m) over
the training thetas, each w(theta_m) . c / w(theta_m) . C, so that

    q = V . c,   V = mean_m w(theta_m) / [w(theta_m) . C],   C = int c dx = E_q[c / (V . c)].

Both equations together fix C by the events alone, up to a common factor: V and C are iterated
until they agree.  This is the maximum-likelihood estimate of the rates of all thetas (MBAR, one
event a state), of the events as they are: after a selection it is the cross section of what is
left, which the metadata do not know.  Then, exactly, mean_m p(x|theta_m) = q of these events.

References:
    | Statistically optimal analysis of samples from multiple equilibrium states (Shirts and
      Chodera, 2008), arXiv:0801.1426, eq. 11
"""

from dataclasses import dataclass

import numpy as np

from mflow_sbi.errors import EventDataError
from mflow_sbi.interfaces import Array
from mflow_sbi.morphing import MorphingBasis, total_cross_section

__all__ = ["EventMixture"]

TOLERANCE = 1e-9
MOST_ITERATIONS = 2000


@dataclass(frozen=True, eq=False)
class EventMixture:
    """Components over q, and the C that agrees with them.

    Args:
        basis: the monomials w_k.
        components: c_i / (V . c_i), (N, K).
        cross_section: C, (K,), up to a factor.
    """

    basis: MorphingBasis
    components: Array
    cross_section: Array

    @classmethod
    def of(
        cls,
        basis: MorphingBasis,
        components: Array,
        theta: Array,
        start: Array,
        weights: tuple[Array | None, Array | None] = (None, None),
    ) -> "EventMixture":
        """Return the mixture of these events.

        Args:
            basis: the monomials w_k.
            components: c_i, each event's up to a factor, (N, K).
            theta: of the events, (N, p).
            start: a cross section to begin with, (K,).
            weights: of events, of either sign, and of theta, >= 0: (N,) each, or None.

        Raises:
            EventDataError: an event without density, or equations without a solution.
            ParameterRangeError: a cross section that is not positive at some theta.
        """
        monomials, total = basis.weights(theta), np.asarray(start, dtype=np.float64)
        sigma = total_cross_section(basis, total, theta)
        for _ in range(MOST_ITERATIONS):
            average = np.average(monomials / sigma[:, None], axis=0, weights=weights[1])
            density = components @ average
            if not (density > 0).all():
                message = (
                    f"{int((~(density > 0)).sum())} of {len(density)} events have no positive "
                    "density under the mixture of the training thetas; expected components of a "
                    "squared amplitude. Leave these events out."
                )
                raise EventDataError(message)
            normalised = components / density[:, None]
            total = np.average(normalised, axis=0, weights=weights[0])
            before, sigma = sigma, total_cross_section(basis, total, theta)
            if np.abs(sigma / before - 1.0).max() < TOLERANCE:
                return cls(basis, normalised, total)
        message = (
            f"the rates of {len(theta)} training thetas do not settle in {MOST_ITERATIONS} "
            "iterations: their events do not overlap. Take thetas nearer to each other, or more"
        )
        raise EventDataError(message)

    def weights_at(self, theta: Array) -> Array:
        """Return w(theta) / sigma(theta), the ratio p(x|theta) / q as a row of numbers, (K,)."""
        point = np.reshape(theta, (1, -1))
        return self.basis.weights(point)[0] / self._sigma(point)

    def slopes_at(self, theta: Array) -> Array:
        """Return its gradient, so that c . slopes = ratio times joint score, (K, p)."""
        point = np.reshape(theta, (1, -1))
        gradient, sigma = self.basis.gradient(point)[0], self._sigma(point)
        of_rate = self.cross_section @ gradient / sigma
        return gradient / sigma - np.outer(self.weights_at(theta), of_rate)

    def _sigma(self, point: Array) -> float:
        return float(total_cross_section(self.basis, self.cross_section, point)[0])
