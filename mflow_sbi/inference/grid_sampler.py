r"""Independent draws from p(theta|x) on a grid, for one or two parameters: exact, no chain at all.

The grid resolves the bulk of the posterior and covers the prior (`common_grid`); a draw is a cell
by its mass and a place inside it (`GridPosterior.sample`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mflow_sbi.errors import SamplingError
from mflow_sbi.inference.convergence import MIN_EFFECTIVE_DRAWS
from mflow_sbi.inference.grid import GridPosterior, common_grid, grid_posterior
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData
from mflow_sbi.inference.sampling import EXPLORED, Draws, Problem, require_at_least
from mflow_sbi.interfaces import Likelihood, Progress

__all__ = ["GridSampler"]

_MOST_PARAMETERS = 2


@dataclass(frozen=True)
class GridSampler:
    """Independent draws from the posterior on a grid, for at most two parameters.

    Args:
        cells: cells per parameter across the bulk of the posterior.
        draws: how many.

    Raises:
        ConfigurationError: a number below its smallest sensible value.

    Example:
        >>> from mflow_sbi.inference import FlatLikelihood, NormalPrior, draws_of
        >>> prior = NormalPrior(("c",), mean=(3,), std=(0.1,))
        >>> posterior = GridSampler(draws=1000).sample(FlatLikelihood(("c",)), prior, seed=1)
        >>> draws_of(posterior).mean().round(2)
        np.float64(3.0)
    """

    cells: int = 60
    draws: int = 4000

    def __post_init__(self) -> None:
        require_at_least("grid", self, {"cells": 10, "draws": 4})

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "grid", ...}."""
        return {"kind": "grid", **asdict(self)}

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
            SamplingError: more than two parameters, or the posterior vanishes on the grid.
            ShapeError: likelihood and prior are not of the same parameters.
            LikelihoodError: the likelihood is NaN or +inf somewhere.
        """
        problem = Problem(likelihood, prior)
        if len(problem.names) > _MOST_PARAMETERS:
            message = (
                f"grid: expected at most {_MOST_PARAMETERS} parameters, got "
                f"{list(problem.names)}; fix some, or take the sampler emcee or nested"
            )
            raise SamplingError(message)
        drawing, exploring = np.random.SeedSequence(seed).spawn(2)
        exploration = problem.explore(EXPLORED, 1, exploring)
        grid = common_grid([likelihood], prior, self.cells)
        posterior = grid_posterior(likelihood, prior, grid, progress)
        points = posterior.sample(self.draws, np.random.default_rng(drawing))
        draws = Draws(
            points[None, :, None],
            problem.log_joint(points)[None, :, None],
            Diagnostics(
                r_hat=(),
                effective_draws=(float(self.draws),) * len(problem.names),
                complaints=tuple(_complaints(posterior, self.draws)),
                log_evidence=posterior.log_evidence,
            ),
        )
        return problem.posterior(draws, exploration, self, seed, attributes)


def _complaints(posterior: GridPosterior, draws: int) -> Iterator[str]:
    if not posterior.is_resolved:
        yield (
            f"the grid does not resolve the posterior: mass in {posterior.effective_cells:.0f} "
            f"cells, {posterior.border_mass:.1%} on an open border; take more cells, or another "
            "sampler"
        )
    if draws < MIN_EFFECTIVE_DRAWS:
        yield f"only {draws} draws: take more"
