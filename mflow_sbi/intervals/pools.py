r"""Toy experiments and Asimov data from one large set of simulated events.

Events of a pool were generated at theta_1 ... theta_N; together they are draws from the mixture
p_pool(x) = mean_j p(x|theta_j).  At any theta they carry the weights

    u_i = p(x_i|theta) / p_pool(x_i),    sum_i u_i = 1,

by which toys are drawn, and which make of the whole pool one Asimov data set (1007.1727).  The
weights are tilted a little, u_i -> u_i exp(lambda . g_i) with g = c / p_pool, so that the pool's
mean of every c_k(x) / [w(theta) . c(x)] is C_k / sigma(theta), as it would be with infinitely many
events: the Asimov likelihood then has its maximum at theta exactly, and its Hessian is minus the
mean outer product of the scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mflow_sbi.errors import IntervalError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.interfaces import Array
from mflow_sbi.intervals.morphing_sets import MorphingSets, WeightedLikelihood
from mflow_sbi.morphing import MorphingBasis, score, total_cross_section

__all__ = ["EventPool"]

_INVERSE_PICOBARN = 1000.0  # 1/fb
_REPETITIONS = 10.0  # effective events in the pool for each of a toy
_TILTING_STEPS = 30


@dataclass(frozen=True, eq=False)
class EventPool:
    """Simulated events, at any thetas, to draw toys from at any other theta.

    Args:
        sample: unweighted events with theta and exact morphing components.
        efficiency: share of the cross section that is selected, for rates.

    Raises:
        MissingReference: the events carry no exact components, no theta, or were selected.
        EventDataError: weighted events.
    """

    sample: EventSample
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        self.sample.require_unweighted()
        self.sample.require_theta()
        self.sample.require_components()
        morphing, report = self.sample.metadata.morphing, self.sample.report
        if morphing is None or morphing.likelihood != "exact" or (report and report.cuts):
            message = (
                "expected events with the exact morphing components of all that were generated; "
                "got joint ones or a selection; toys need p(x|theta) and its normalisation"
            )
            raise MissingReference(message)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the p parameters."""
        return self.sample.parameter_names

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.sample)

    @cached_property
    def basis(self) -> MorphingBasis:
        """The monomials."""
        morphing = self.sample.metadata.morphing
        assert morphing is not None
        return MorphingBasis(np.array(morphing.exponents))

    @cached_property
    def cross_section(self) -> Array:
        """C_k times the efficiency, pb, (K,)."""
        morphing = self.sample.metadata.morphing
        assert morphing is not None
        return self.efficiency * np.array(morphing.cross_section)

    @cached_property
    def _components(self) -> Array:
        """c_k / p_pool, (N, K)."""
        theta = self.sample.require_theta()
        distinct = theta[:1] if (theta == theta[0]).all() else theta
        sigma = total_cross_section(self.basis, self.cross_section, distinct)
        average = (self.basis.weights(distinct) / sigma[:, None]).mean(axis=0)
        components = self.sample.require_components()
        return components / (components @ average)[:, None]

    def expected_events(self, theta: ArrayLike, luminosity: float) -> float:
        """Return mu(theta) = luminosity efficiency sigma(theta), luminosity in 1/fb."""
        sigma = total_cross_section(self.basis, self.cross_section, np.atleast_2d(theta))
        return float(_INVERSE_PICOBARN * luminosity * sigma[0])

    def weights(self, theta: ArrayLike) -> Array:
        """Return u_i at theta, positive, summing to one, (N,).

        Raises:
            IntervalError: the pool holds no mixture of events that has theta's moments.
        """
        w = self.basis.weights(np.atleast_2d(theta))[0]
        density = np.maximum(self._components @ w, 0.0)
        mean = self.cross_section / float(w @ self.cross_section)
        # u f with f_k = c_k / (w.c) - C_k / sigma, finite where the density vanishes
        moments = self._components * (density > 0)[:, None] - density[:, None] * mean
        return _tilted(density / density.sum(), moments, self._components)

    def effective_events(self, theta: ArrayLike) -> float:
        """Return (sum u)^2 / sum u^2: how many unweighted events the pool is worth at theta."""
        return float(1.0 / np.square(self.weights(theta)).sum())

    def scores(self, theta: ArrayLike) -> Array:
        """Return grad_theta log p(x_i|theta) of every event, (N, p)."""
        at = np.atleast_2d(np.asarray(theta, dtype=np.float64))
        return score(self.basis, self.sample.require_components(), self.cross_section, at)

    def draw(
        self,
        theta: ArrayLike,
        n_toys: int,
        rng: np.random.Generator,
        *,
        n_events: int | None = None,
        luminosity: float | None = None,
    ) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return events of toy experiments at theta, with replacement, and how many each has.

        Args:
            theta: (p,).
            n_toys: toy experiments, T.
            rng: draws.
            n_events: events of each toy, for likelihoods of the shape alone, or
            luminosity: 1/fb, for a Poisson number of events.

        Returns:
            Places in the pool, toy after toy, (E,), and sizes, (T,).

        Raises:
            IntervalError: neither or both of n_events and luminosity, or a pool worth fewer than
                10 times the events of one toy at this theta.
        """
        if (n_events is None) == (luminosity is None):
            message = "toys: expected n_events (shape) or luminosity (shape and rate), one of them"
            raise IntervalError(message)
        mean = self.expected_events(theta, luminosity) if luminosity else float(n_events or 0)
        u = self.weights(theta)
        effective = 1.0 / np.square(u).sum()
        if effective < _REPETITIONS * mean:
            message = (
                f"toys of {mean:.4g} events at {np.asarray(theta).tolist()}: expected a pool "
                f"worth {_REPETITIONS * mean:.4g} events there, got {effective:.4g} of "
                f"{len(self)}; simulate more, or nearer to this theta"
            )
            raise IntervalError(message)
        sizes = rng.poisson(mean, n_toys) if luminosity else np.full(n_toys, n_events)
        return rng.choice(len(self), int(sizes.sum()), p=u), sizes.astype(np.int64)

    def simulator(
        self, *, n_events: int | None = None, luminosity: float | None = None
    ) -> Callable[[Array, int, np.random.Generator], MorphingSets]:
        """Return a source of toys' exact likelihoods, for `toy_coverage` and `neyman_belt`.

        Args:
            n_events: events of each toy (shape alone), or
            luminosity: 1/fb (shape and rate).
        """
        exposure = None if luminosity is None else _INVERSE_PICOBARN * luminosity

        def simulate(theta: Array, n_toys: int, rng: np.random.Generator) -> MorphingSets:
            events, sizes = self.draw(theta, n_toys, rng, n_events=n_events, luminosity=luminosity)
            return MorphingSets(
                self.parameter_names,
                self.basis,
                self._components[events],
                sizes,
                self.cross_section,
                exposure,
            )

        return simulate

    def asimov_weights(
        self,
        theta: ArrayLike,
        *,
        n_events: float | None = None,
        luminosity: float | None = None,
    ) -> Array:
        """Return n u_i: the pool as the data expected at theta, (N,).

        They make Asimov data for any likelihood that takes weights, learned ones with backgrounds
        and nuisances too (`ExtendedLikelihood`, `ShapeLikelihood`).

        Args:
            theta: (p,).
            n_events: expected events, or
            luminosity: 1/fb.

        Raises:
            IntervalError: neither or both of n_events and luminosity.
        """
        if (n_events is None) == (luminosity is None):
            message = "Asimov data: expected n_events (shape) or luminosity (shape and rate)"
            raise IntervalError(message)
        mean = self.expected_events(theta, luminosity) if luminosity else float(n_events or 0)
        return mean * self.weights(theta)

    def asimov(
        self,
        theta: ArrayLike,
        *,
        n_events: float | None = None,
        luminosity: float | None = None,
    ) -> WeightedLikelihood:
        """Return the likelihood of the data expected at theta: all events, weights n u_i.

        Args:
            theta: (p,), where the likelihood then has its maximum.
            n_events: expected events (shape alone), or
            luminosity: 1/fb (shape and rate).

        Raises:
            IntervalError: neither or both of n_events and luminosity.
        """
        weights = self.asimov_weights(theta, n_events=n_events, luminosity=luminosity)
        sets = MorphingSets(
            self.parameter_names,
            self.basis,
            self._components,
            [len(self)],
            self.cross_section,
            _INVERSE_PICOBARN * luminosity if luminosity else None,
            weights,
        )
        return WeightedLikelihood(sets)


def _tilted(u: Array, moments: Array, features: Array) -> Array:
    """Return u exp(lambda . g) / norm such that sum_i exp(lambda . g_i) moments_i = 0.

    Args:
        u: weights, (N,).
        moments: density times the functions whose mean is to vanish, (N, K).
        features: g, (N, K).
    """
    size = np.maximum(np.abs(features).mean(axis=0), 1e-300)
    unit, g = moments / (len(u) * size), features / size
    multipliers, factor = np.zeros(g.shape[1]), np.ones(len(u))
    for _ in range(_TILTING_STEPS):
        mean = factor @ unit
        if np.abs(mean).max() < 1e-13:
            tilted = u * factor
            return tilted / tilted.sum()
        slope = unit.T @ (factor[:, None] * g)
        multipliers = multipliers - np.linalg.lstsq(slope, mean, rcond=1e-10)[0]
        factor = np.exp(np.clip(g @ multipliers, -50, 50))
    message = (
        f"a pool of {len(u)} events has no weights with the moments of this theta (largest "
        f"deviation {np.abs(factor @ unit).max():.2g}); simulate more, or nearer to it"
    )
    raise IntervalError(message)
