r"""Draws from p(theta|x) along its gradient: the No-U-Turn sampler, by nutpie.

Trajectories run in z, parameters without walls (`UnboundedPosterior`), with a metric that follows
correlations (low-rank, from draws and gradients).  Chains begin at weighted prior draws, each in
the mode where it happens to begin, and rarely leave it: several modes show as R-hat, or as missed
mass, and are a matter for nested sampling.

nutpie is an optional library: pip install "mflow_sbi[samplers]".

References:
    The No-U-Turn Sampler (Hoffman and Gelman, 2014), arXiv:1111.4246.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np

from mflow_sbi.errors import ConfigurationError, MflowSbiError, SamplingError
from mflow_sbi.inference.convergence import autocorrelation_time, chain_complaints
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData, effective_draws, rank_r_hat
from mflow_sbi.inference.sampling import (
    EXPLORED,
    Draws,
    Problem,
    require_at_least,
    require_library,
    unheard,
)
from mflow_sbi.inference.unbounded import UnboundedPosterior
from mflow_sbi.interfaces import Array, DifferentiableLikelihood, Likelihood, Progress

__all__ = ["NutsSampler"]

_MAX_DIVERGENT_SHARE = 0.01
_ASIDE = 1e-6  # from the last point: nutpie refuses to begin where there is no slope at all


@dataclass(frozen=True)
class NutsSampler:
    """Chains along the gradient of the log posterior (No-U-Turn, nutpie).

    Needs a likelihood with `value_and_gradient`.  Points are evaluated one by one: with two or
    three parameters emcee, which evaluates whole ensembles at once, is faster.

    Args:
        chains: independent chains; R-hat compares them.
        warm_up: steps discarded at the start of every chain, in which step and metric are tuned.
        draws: steps kept.
        target_acceptance: mean acceptance to tune the step for, in (0, 1).

    Raises:
        ConfigurationError: a number outside its sensible range.
    """

    chains: int = 4
    warm_up: int = 300
    draws: int = 1000
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        require_at_least("nuts", self, {"chains": 2, "warm_up": 50, "draws": 4})
        if not 0 < self.target_acceptance < 1:
            message = (
                f"nuts target_acceptance: expected a number in (0, 1), got "
                f"{self.target_acceptance}"
            )
            raise ConfigurationError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "nuts", ...}."""
        return {"kind": "nuts", **asdict(self)}

    def sample(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return draws with diagnostics; see `Sampler.sample`.

        Raises:
            SamplingError: nutpie is not installed, the likelihood has no gradient, or too few
                prior draws have a finite posterior.
            ShapeError: likelihood and prior are not of the same parameters.
            LikelihoodError: the likelihood is NaN or +inf somewhere.
        """
        nutpie = require_library("nutpie", "nuts")
        if not isinstance(likelihood, DifferentiableLikelihood):
            message = (
                f"nuts: expected a likelihood with value_and_gradient, got "
                f"{type(likelihood).__name__}; take the sampler emcee"
            )
            raise SamplingError(message)
        problem, target = Problem(likelihood, prior), UnboundedPosterior(likelihood, prior)
        *seeds, exploring = np.random.SeedSequence(seed).spawn(self.chains + 1)
        exploration = problem.explore(EXPLORED, self.chains, exploring)
        starts, _ = exploration.starts(self.chains, np.random.default_rng(exploring))
        tell, each = unheard(progress), self.warm_up + self.draws
        chains = []
        for k, (chain_seeds, start) in enumerate(
            zip(seeds, target.transform.to_unbounded(starts), strict=True)
        ):

            def advance(step: int, done_before: int = k * each) -> None:
                tell(done_before + step, self.chains * each)

            density = _OnePoint(target, start)
            chains.append(self._run_chain(nutpie, density, start, chain_seeds, advance))
        z, log_density, acceptance, diverging = (
            np.stack(parts) for parts in zip(*chains, strict=True)
        )
        flat = z.reshape(-1, z.shape[-1])
        log_joint = log_density - target.transform.log_jacobian(flat).reshape(log_density.shape)
        points = target.transform.to_parameters(flat).reshape(z.shape)
        draws = Draws(
            points[:, :, None],
            log_joint[..., None],
            _diagnose(points, acceptance, diverging),
            {"diverging": diverging[..., None]},
        )
        return problem.posterior(draws, exploration, self, seed, attributes)

    def _run_chain(
        self,
        nutpie: ModuleType,
        density: "_OnePoint",
        start: Array,
        seeds: np.random.SeedSequence,
        advance: Callable[[int], None],
    ) -> tuple[Array, Array, Array, Array]:
        """Return z (draws, p), log density, acceptance and divergence (draws,) of one chain."""
        counted = _CountedDraws(advance)
        model = nutpie.compiled_pyfunc.from_pyfunc(
            len(start),
            lambda: density,
            lambda *_: counted,
            [np.dtype(np.float64)],
            [(len(start),)],
            ["z"],
            make_initial_point_fn=lambda _: start,
        )
        try:
            trace = nutpie.sample(
                model,
                tune=self.warm_up,
                draws=self.draws,
                chains=1,
                cores=1,
                seed=int(seeds.generate_state(1)[0]),
                progress_bar=False,
                save_warmup=False,
                low_rank_modified_mass_matrix=True,
                target_accept=self.target_acceptance,
            )
        except RuntimeError as error:
            density.raise_if_failed()
            message = f"nuts: the chain that begins at z = {start.tolist()} cannot go on: {error}"
            raise SamplingError(message) from error
        density.raise_if_failed()
        z = trace.posterior["z"].to_numpy()[0]
        if len(z) < self.draws:  # nutpie answers an interruption with what it has
            raise KeyboardInterrupt
        stats = trace.sample_stats
        names = ("logp", "mean_tree_accept", "diverging")
        log_density, accepted, diverging = (stats[name].to_numpy()[0] for name in names)
        return z, log_density, accepted, diverging.astype(np.int8)


class _OnePoint:
    """The log density and its gradient at one point; an error is kept, not thrown at nutpie.

    nutpie panics where Python raises.  After an error the density is a normal one about the last
    point, so that the chain comes to its end without further evaluations.
    """

    def __init__(self, target: UnboundedPosterior, start: Array) -> None:
        self._target = target
        self._failure: MflowSbiError | None = None
        self._last = (0.0, start + _ASIDE)

    def __call__(self, z: Array) -> tuple[float, Array]:
        if self._failure is None:
            try:
                values, gradients = self._target.value_and_gradient(z[None])
            except MflowSbiError as error:
                self._failure = error
            else:
                if values[0] > -np.inf:
                    self._last = (float(values[0]), z + _ASIDE)
                return float(values[0]), gradients[0]
        value, centre = self._last
        away = z - centre
        return value - 0.5 * float(away @ away), -away

    def raise_if_failed(self) -> None:
        """Raise what the likelihood raised on the way."""
        if self._failure is not None:
            raise self._failure


class _CountedDraws:
    """What nutpie calls with every draw."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._done = 0

    def __call__(self, z: Array) -> dict[str, Array]:
        self._done += 1
        self._advance(self._done)
        return {"z": z}


def _diagnose(points: Array, acceptance: Array, diverging: Array) -> Diagnostics:
    """Measure convergence and say in words what fails, points (chains, draws, p)."""
    columns = np.moveaxis(points, -1, 0)
    r_hat = tuple(rank_r_hat(chains) for chains in columns)
    total = np.array([effective_draws(chains) for chains in columns])
    by_chain = np.array([[effective_draws(chain[None]) for chain in c] for c in columns]).T
    taus = [np.mean([autocorrelation_time(chain[:, None]) for chain in c]) for c in columns]
    complaints = list(chain_complaints(r_hat, total, by_chain))
    if diverging.mean() > _MAX_DIVERGENT_SHARE:
        complaints.append(
            f"{diverging.mean():.1%} of the trajectories diverge: the posterior has a wall or a "
            "neck that they cannot follow; raise target_acceptance, or take another sampler"
        )
    return Diagnostics(
        r_hat=r_hat,
        effective_draws=tuple(total.tolist()),
        autocorrelation_steps=tuple(float(tau) for tau in taus),
        acceptance=tuple(acceptance.mean(axis=1).tolist()),
        divergences=int(diverging.sum()),
        complaints=tuple(complaints),
    )
