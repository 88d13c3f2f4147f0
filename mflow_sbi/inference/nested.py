r"""Draws from p(theta|x) and the evidence Z by nested sampling (dynesty): for several modes.

    Z = integral L p dtheta = V integral_[0,1]^p L p(theta(u)) du,  theta(u) = low + (high - low) u

over the prior's box of volume V, which holds all of the prior but a millionth, so that any prior
with a density will do: no quantiles are needed.  Live points, uniform in the shrinking volume of
higher and higher posterior, find modes wherever the box has them; the dead ones, weighted by the
volume they stood for, are resampled to draws of equal weight.

dynesty is an optional library: pip install "mflow_sbi[samplers]".

References:
    Nested sampling for general Bayesian computation (Skilling, 2006).
    dynesty (Speagle, 2020), arXiv:1904.02180.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError, MflowSbiError, SamplingError
from mflow_sbi.inference.convergence import MIN_EFFECTIVE_DRAWS
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData
from mflow_sbi.inference.sampling import (
    EXPLORED,
    Draws,
    Problem,
    require_at_least,
    require_library,
    unheard,
)
from mflow_sbi.interfaces import Array, Likelihood, Progress

__all__ = ["NestedSampler"]

_MAX_EVIDENCE_ERROR = 0.5  # nats
_TOLD_EVERY = 100  # iterations


@dataclass(frozen=True)
class NestedSampler:
    """Live points that climb the posterior from the whole prior (nested sampling, dynesty).

    Gives the evidence, too.  Points are evaluated one by one.

    Args:
        live_points: more find more modes and make all errors smaller, as 1 / sqrt(live_points).
        remaining_evidence: stop when the live points could add so much to log Z, nats.
        max_evaluations: stop, unconverged, after so many evaluations of the likelihood.
        draws: posterior draws of equal weight.

    Raises:
        ConfigurationError: a number outside its sensible range.
    """

    live_points: int = 500
    remaining_evidence: float = 0.01
    max_evaluations: int = 1_000_000
    draws: int = 4000

    def __post_init__(self) -> None:
        least = {"live_points": 25, "max_evaluations": 1, "draws": 4}
        require_at_least("nested", self, least)
        if not 0 < self.remaining_evidence < np.inf:
            message = (
                f"nested remaining_evidence: expected a positive number, got "
                f"{self.remaining_evidence}"
            )
            raise ConfigurationError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "nested", ...}."""
        return {"kind": "nested", **asdict(self)}

    def sample(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return draws with diagnostics and evidence; see `Sampler.sample`.

        Raises:
            SamplingError: dynesty is not installed, or the posterior vanishes on the prior's box.
            ShapeError: likelihood and prior are not of the same parameters.
            LikelihoodError: the likelihood is NaN or +inf somewhere.
        """
        dynesty = require_library("dynesty", "nested")
        problem = Problem(likelihood, prior)
        running, resampling, exploring = np.random.SeedSequence(seed).spawn(3)
        exploration = problem.explore(EXPLORED, 1, exploring)
        density = _InUnitCube(problem)
        with _remembered_warnings() as remarks:
            try:
                sampler = dynesty.NestedSampler(
                    density,
                    density.to_parameters,
                    len(problem.names),
                    nlive=self.live_points,
                    rstate=np.random.default_rng(running),
                )
                self._climb(sampler, density, unheard(progress))
            except (RuntimeError, ValueError) as error:
                density.raise_if_failed()
                message = f"nested sampling cannot go on: {error}"
                raise SamplingError(message) from error
        results = sampler.results
        weights = results.importance_weights()
        chosen = _resampled(weights, self.draws, np.random.default_rng(resampling))
        draws = Draws(
            results.samples[chosen][None, :, None],
            results.logl[chosen][None, :, None] - density.log_volume,
            self._diagnose(results, weights, len(problem.names), remarks),
        )
        return problem.posterior(draws, exploration, self, seed, attributes)

    def _climb(
        self,
        sampler: Any,  # noqa: ANN401 (of a library that may be absent)
        density: "_InUnitCube",
        tell: Progress,
    ) -> None:
        """Replace the worst live point again and again, and add the last ones."""
        density.raise_if_failed()
        done = 0
        steps = sampler.sample(dlogz=self.remaining_evidence, maxcall=self.max_evaluations)
        for done, step in enumerate(steps, start=1):
            density.raise_if_failed()
            if done % _TOLD_EVERY == 0:
                left = max(step.delta_logz - 1, 0.0)
                left += np.log(max(min(step.delta_logz, 1.0) / self.remaining_evidence, 1.0))
                tell(done, done + int(self.live_points * left) + 1)
        for _ in sampler.add_live_points():
            pass
        tell(done, done)

    def _diagnose(
        self,
        results: Any,  # noqa: ANN401 (of a library that may be absent)
        weights: Array,
        parameters: int,
        remarks: list[str],
    ) -> Diagnostics:
        effective = float(1 / np.square(weights).sum())
        error = float(results.logzerr[-1])
        complaints = []
        if not effective >= MIN_EFFECTIVE_DRAWS:
            complaints.append(f"only {effective:.0f} effective draws: take more live points")
        if not error <= _MAX_EVIDENCE_ERROR:
            complaints.append(f"log evidence known to {error:.2f} only: take more live points")
        if int(np.sum(results.ncall)) >= self.max_evaluations:
            complaints.append(
                f"stopped after {self.max_evaluations} evaluations of the likelihood, before the "
                "top was reached: allow for more"
            )
        return Diagnostics(
            r_hat=(),
            effective_draws=(effective,) * parameters,
            acceptance=(float(results.eff) / 100,),
            complaints=tuple(complaints),
            cautions=tuple(dict.fromkeys(remarks)),
            log_evidence=float(results.logz[-1]),
            log_evidence_error=error,
        )


class _InUnitCube:
    """log of V L p at one point; an error is kept, since dynesty prints what it catches.

    After one, every point is above the highest: the next step is accepted and the error raised.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._low, high = problem.prior.box().T
        self._width = high - self._low
        self.log_volume = float(np.log(self._width).sum())
        self._highest = 0.0
        self._failure: MflowSbiError | None = None

    def to_parameters(self, u: Array) -> Array:
        return self._low + self._width * u

    def __call__(self, theta: Array) -> float:
        if self._failure is None:
            try:
                value = float(self._problem.log_joint(theta[None])[0]) + self.log_volume
            except MflowSbiError as error:
                self._failure = error
            else:
                self._highest = max(self._highest, value)
                return value
        self._highest += 1.0
        return self._highest

    def raise_if_failed(self) -> None:
        if self._failure is not None:
            raise self._failure


@contextmanager
def _remembered_warnings() -> Iterator[list[str]]:
    """Collect warnings as text, to be told with the diagnostics."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield remarks
    remarks += [f"dynesty: {str(entry.message).strip()}" for entry in caught]


def _resampled(weights: Array, n: int, rng: np.random.Generator) -> Array:
    """Return n indices, each as often as its weight says up to one, in random order."""
    steps = (rng.random() + np.arange(n)) / n
    indices = np.searchsorted(np.cumsum(weights) / weights.sum(), steps)
    return rng.permutation(np.minimum(indices, len(weights) - 1))
