r"""pi(theta), from which the training thetas were drawn: what a posterior estimator is divided by.

An estimator of the posterior, trained on pairs (theta, x) with theta ~ pi, knows

    q(theta|x) = p(x|theta) pi(theta) / p(x),

so that log q - log pi is log p(x|theta) up to a constant in theta.  pi must be known as a formula:
the event file says how theta was drawn, and the thetas in it must agree.
"""

import numpy as np
import torch
from scipy.stats import kstest, norm, uniform
from torch import Tensor

from mflow_sbi.errors import ConfigurationError, EventDataError, MissingReference
from mflow_sbi.events import EventSample
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import LogProbs, Parameters

__all__ = ["ThetaDensity"]

LEAST_PROBABILITY = 1e-6
"""p-value of the training thetas under the declared density below which it is not theirs."""


class ThetaDensity(Float64Buffers):
    """Independent normals, or a box, in standardised parameters.

    Args:
        parameter_dim: p.
    """

    centre: Tensor
    scale: Tensor
    is_box: Tensor

    def __init__(self, parameter_dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(parameter_dim, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(parameter_dim, dtype=torch.float64))
        self.register_buffer("is_box", torch.zeros((), dtype=torch.bool))

    @classmethod
    def declared(cls, events: EventSample, recipe: str) -> "ThetaDensity":
        """Return the density that the file declares, in units of the sample's mean and std.

        Raises:
            MissingReference: the file does not say how theta was drawn, or it was not.
            ConfigurationError: the events were selected, which changes the density of theta.
            EventDataError: the thetas in the file do not follow it.
        """
        sampling, theta = events.metadata.theta_sampling, events.require_theta()
        if sampling is None or sampling.kind == "fixed":
            message = (
                f"the recipe {recipe!r} divides by the density of the training thetas: expected a "
                "file that says how theta was drawn (normal or uniform), got "
                f"{'nothing' if sampling is None else 'a fixed theta'}; simulate at theta ~ "
                "prior, or take a recipe that needs no prior (sbi_nle_nsf, sbi_nre_c, nre)"
            )
            raise MissingReference(message)
        if events.report is not None and events.report.cuts:
            message = (
                f"the recipe {recipe!r} divides by the density of the training thetas, which a "
                f"selection ({'; '.join(events.report.cuts)}) changes; take a recipe that "
                "needs no prior (sbi_nle_nsf, sbi_nre_c, nre)"
            )
            raise ConfigurationError(message)
        is_box = sampling.kind == "uniform"
        if is_box:
            low, high = np.array(sampling.low), np.array(sampling.high)
            centre, scale = (low + high) / 2, (high - low) / 2
        else:
            centre, scale = np.array(sampling.mean), np.array(sampling.std)
        _require_draws(theta, centre, scale, is_box=is_box)
        mean, std = theta.mean(axis=0), theta.std(axis=0)
        density = cls(theta.shape[1])
        density.centre.copy_(torch.from_numpy((centre - mean) / std))
        density.scale.copy_(torch.from_numpy(scale / std))
        density.is_box.fill_(is_box)
        return density

    def log_prob(self, theta: Parameters) -> LogProbs:
        """Return log pi of standardised theta, (..., p) -> (...) float64; -inf outside a box."""
        z = (theta.double() - self.centre) / self.scale
        if bool(self.is_box):
            inside = (z.abs() <= 1).all(dim=-1)
            volume = torch.log(2 * self.scale).sum()
            return torch.where(inside, -volume, -torch.inf)
        normal = torch.distributions.Normal(z.new_zeros(()), z.new_ones(()))
        return (normal.log_prob(z) - torch.log(self.scale)).sum(dim=-1)

    def likelihood(self, log_posterior: LogProbs, theta: Parameters) -> LogProbs:
        """Return log q(theta|x) - log pi(theta), (...), (..., p) -> (...), dtype of the first.

        -inf where pi vanishes: nothing was learned there.
        """
        log_prior = self.log_prob(theta).to(log_posterior.dtype)
        known = log_prior > -torch.inf
        ratio = log_posterior - torch.where(known, log_prior, 0.0)
        return torch.where(known, ratio, -torch.inf)

    def sample(self, n: int, generator: torch.Generator) -> Parameters:
        """Return n draws of standardised theta, (n, p) float64."""
        shape = (n, len(self.centre))
        if bool(self.is_box):
            z = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        else:
            z = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.centre + self.scale * z


def _require_draws(
    theta: np.ndarray, centre: np.ndarray, scale: np.ndarray, *, is_box: bool
) -> None:
    """Refuse thetas that do not follow the declared density."""
    standard = uniform(-1, 2) if is_box else norm()
    _, first = np.unique(theta, axis=0, return_index=True)
    different = (theta[np.sort(first)] - centre) / scale
    for column, place in zip(different.T, range(theta.shape[1]), strict=True):
        p = float(kstest(column, standard.cdf).pvalue)
        if p < LEAST_PROBABILITY:
            kind = "uniform" if is_box else "normal"
            message = (
                f"theta: the file says that its parameter {place} was drawn {kind} (centre "
                f"{centre[place]:g}, scale {scale[place]:g}), but its {len(different)} values do "
                f"not follow that (Kolmogorov-Smirnov p = {p:.1e}); correct theta_sampling in "
                "the file"
            )
            raise EventDataError(message)
