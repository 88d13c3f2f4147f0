r"""Where the truth stands in each posterior: ranks, credibility, log density.

For theta_s ~ p(theta) and a set of events at theta_s, calibrated posteriors make every one of

    F_k(theta_s,k | s)                     the posterior probability of theta_k below the truth,
    P(log L_s(theta) < log L_s(theta_s))   that of a smaller likelihood,
    P(p(theta|s) > p(theta_s|s))           that of a higher density, the credibility of the truth,

uniform on [0, 1] over the sets.  The last is the level of the smallest highest-density region
that holds the truth: a region of level q covers it if and only if it is at most q.

References:
    | Validating Bayesian inference algorithms with simulation-based calibration (Talts et al.,
      2018), arXiv:1804.06788, section 4
    | Simulation-based calibration checking for Bayesian computation: the choice of test quantities
      shapes sensitivity (Modrak et al., 2022), arXiv:2211.02383, section 3
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from mflow_sbi.calibration.posteriors import SetPosteriors, require_truth
from mflow_sbi.errors import ParameterRangeError, ShapeError
from mflow_sbi.inference import GridPosterior
from mflow_sbi.interfaces import Array

__all__ = ["Ranks", "ranks_of", "ranks_of_draws"]


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the truth stands in the posteriors of S sets.

    Args:
        parameter_names: the p names.
        parameters: posterior probability of each parameter below the truth, (S, p).
        log_likelihood: posterior probability of a smaller likelihood than at the truth, (S,).
        credibility: level of the smallest highest-density region with the truth, (S,).
        log_prob_at_truth: log p(theta_s|s), (S,); NaN where only draws were known.
        resolved: whether each posterior's grid is fine and wide enough, (S,).
    """

    parameter_names: tuple[str, ...]
    parameters: Array
    log_likelihood: Array
    credibility: Array
    log_prob_at_truth: Array
    resolved: NDArray[np.bool_]

    @property
    def n_sets(self) -> int:
        """Number of sets, S."""
        return len(self.credibility)

    def quantities(self) -> dict[str, Array]:
        """Return name -> ranks (S,): every parameter, the likelihood, the credibility."""
        named = {name: self.parameters[:, k] for k, name in enumerate(self.parameter_names)}
        return {
            **named,
            "log likelihood": self.log_likelihood,
            "credibility": self.credibility,
        }


def ranks_of(posteriors: SetPosteriors, theta: Array) -> Ranks:
    """Return where the truth stands in posteriors on grids.

    Args:
        posteriors: of S sets.
        theta: parameters behind each set, (S, p).

    Raises:
        ShapeError: theta is not (S, p).
        ParameterRangeError: a truth where the prior vanishes.
        SamplingError: a posterior vanishes on its grid.
    """
    truth = require_truth(theta, posteriors)
    log_prior = posteriors.prior.log_prob(truth)
    if np.isneginf(log_prior).any():
        s = int(np.argmin(log_prior))
        message = (
            f"set {s}: expected a truth where the prior is positive, got {truth[s].tolist()}; "
            "calibration wants sets at draws of the prior"
        )
        raise ParameterRangeError(message)
    log_likelihood = posteriors.log_likelihood_at(truth)
    columns = []
    for s, posterior in enumerate(posteriors):
        log_prob = float(log_likelihood[s] + log_prior[s]) - posterior.log_evidence
        on_cells = _log_likelihood_on_cells(posterior, posteriors)
        columns.append(
            (
                *(_below(posterior, k, truth[s, k]) for k in range(truth.shape[1])),
                float(posterior.mass[on_cells < log_likelihood[s]].sum()),
                float(posterior.mass[posterior.log_density > log_prob].sum()),
                log_prob,
                posterior.is_resolved,
            )
        )
    table = np.array(columns, dtype=np.float64)
    return Ranks(
        tuple(posteriors.prior.parameter_names),
        np.clip(table[:, :-4], 0.0, 1.0),
        np.clip(table[:, -4], 0.0, 1.0),
        np.clip(table[:, -3], 0.0, 1.0),
        table[:, -2],
        table[:, -1].astype(np.bool_),
    )


def ranks_of_draws(
    parameter_names: tuple[str, ...],
    draws: Array,
    log_likelihood: Array,
    log_posterior: Array,
    theta: Array,
    truth_values: tuple[Array, Array],
    rng: np.random.Generator,
) -> Ranks:
    """Return where the truth stands among L posterior draws of each set.

    Ranks r of L + 1 are spread over their step: (r + U(0, 1)) / (L + 1), uniform if calibrated.

    Args:
        parameter_names: the p names.
        draws: independent (thinned) draws, (S, L, p).
        log_likelihood: log L at the draws, (S, L).
        log_posterior: log L + log prior at the draws, (S, L).
        theta: parameters behind each set, (S, p).
        truth_values: log L and log L + log prior at the truth, (S,) each.
        rng: spreads the ranks.

    Raises:
        ShapeError: the arrays do not fit each other.
    """
    shape = (len(theta), draws.shape[1] if draws.ndim == 3 else -1, len(parameter_names))
    fits = draws.shape == shape and theta.shape == shape[::2]
    if not fits or {log_likelihood.shape, log_posterior.shape} != {shape[:2]}:
        message = (
            f"expected draws (S, L, p), their log values (S, L) and truths (S, p), got "
            f"{draws.shape}, {log_likelihood.shape}, {log_posterior.shape} and {theta.shape}"
        )
        raise ShapeError(message)

    def share(below: NDArray[np.bool_]) -> Array:
        counts = below.sum(axis=1)
        return (counts + rng.random(counts.shape)) / (shape[1] + 1)

    return Ranks(
        parameter_names,
        share(draws < theta[:, None]),
        share(log_likelihood < truth_values[0][:, None]),
        share(log_posterior > truth_values[1][:, None]),
        np.full(len(theta), np.nan),
        np.ones(len(theta), dtype=np.bool_),
    )


def _log_likelihood_on_cells(posterior: GridPosterior, posteriors: SetPosteriors) -> Array:
    """Return log L at the cell centres, (M,); +inf where the prior vanishes."""
    log_prior = posteriors.prior.log_prob(posterior.grid.points)
    joint = posterior.log_density + posterior.log_evidence
    return np.where(
        log_prior > -np.inf, joint - np.where(log_prior > -np.inf, log_prior, 0), np.inf
    )


def _below(posterior: GridPosterior, parameter: int, value: float) -> float:
    """Return the posterior probability of one parameter below a value."""
    edges = posterior.grid.edges[parameter]
    cumulative = np.concatenate([[0.0], np.cumsum(posterior.marginal(parameter))])
    within = np.clip(value, edges[0], edges[-1])
    return float(PchipInterpolator(edges, cumulative)(within) / cumulative[-1])
