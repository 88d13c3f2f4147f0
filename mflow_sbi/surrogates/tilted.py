r"""A reference density, known at no theta, tilted by a ratio: p(x|theta) = p_ref(x) r(x, theta).

The reference is a surrogate whose latents are standard normal at every theta: any chart (or the
linear head of an ambient flow) with a flow trained on all events.  The ratio reads features of the
projected event, so that densities on a learned surface are those of its own points:

    log p(x|theta) = log p_ref(x) + log r(P(x), theta)

Posteriors need the ratio only.  What the ratio needs of an event is computed once (`condense`);
for a morphing ratio the likelihood at any theta is then a product with K numbers.

Samples are exact: events of the reference are accepted with probability r / bound.  Without a
bound one of POOL reference events is chosen with probability ~ r, exact as POOL grows.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from mflow_sbi.densities import Features, Ratio
from mflow_sbi.errors import SamplingError
from mflow_sbi.interfaces import Events, Latents, LogProbs, Measure, Parameters
from mflow_sbi.surrogates.ambient import AmbientFlow
from mflow_sbi.surrogates.manifold import ManifoldFlow

__all__ = ["TiltedFlow", "TiltedManifoldFlow", "tilt"]

POOL = 256
MAX_ROWS = 16_384
MAX_PROPOSALS = 100_000


class TiltedFlow(nn.Module):
    """An ambient reference times a ratio, on standardised observables.

    Args:
        reference: surrogate with a `StandardNormal` latent density.
        features: what the ratio reads of an event.
        ratio: of the features and standardised theta.
    """

    measure: Measure = "ambient"

    def __init__(
        self, reference: AmbientFlow | ManifoldFlow, features: Features, ratio: Ratio
    ) -> None:
        super().__init__()
        self.reference = reference
        self.features = features
        self.ratio = ratio
        self.ambient_dim = reference.ambient_dim
        self.latent_dim = reference.latent_dim
        self.parameter_dim = ratio.parameter_dim

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """The parts that a training phase may name."""
        parts = {k: v for k, v in self.reference.trainable_parts.items() if k != "density"}
        return {**parts, "ratio": self.ratio}

    @torch.no_grad()
    def prepare(self, part: str, x: Events) -> None:
        """Fit what the named part takes from data before gradients."""
        self.reference.prepare(part, x)

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Events], Tensor] | None:
        """Return the part of the encoding that rests while the named parts train, if any."""
        if "ratio" in trains and "chart" not in trains:
            return self.read
        return self.reference.resting_encoder(trains)

    def reference_log_prob(self, resting: Latents) -> LogProbs:
        """Return log of the reference density of the chart's coordinates, (N,)."""
        return self.reference.reference_log_prob(resting)

    def read(self, x: Events) -> Tensor:
        """Return the features that the ratio reads, (N, n) -> (N, F)."""
        return self.features(x)

    def encode(self, x: Events) -> Latents:
        """Return the latents, standard normal under the reference, (N, n) -> (N, d)."""
        return self.reference.encode(x)

    def decode(self, u: Latents) -> Events:
        """Return the events with these latents, (N, d) -> (N, n)."""
        return self.reference.decode(u)

    def condense(self, x: Events) -> Tensor:
        """Return what the ratio needs of events, (N, n) -> (N, k) float64."""
        return self.ratio.encode(self.read(x))

    def condensed_log_likelihood(self, condensed: Tensor, theta: Parameters) -> LogProbs:
        """Return log r, leading dimensions broadcast, (..., k), (..., p) -> (...)."""
        return self.ratio.log_ratio(condensed, theta)

    def latent_log_prob(self, u: Latents, theta: Parameters) -> LogProbs:
        """Return log p(u|theta), rows paired, (N,)."""
        log_ratio = self.ratio.log_ratio(self.ratio.encode(self.features(self.decode(u))), theta)
        return self.reference.latent_log_prob(u, theta) + log_ratio

    def log_prob(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log p(x|theta) with respect to `measure`, (N,)."""
        return self.reference.log_prob(x, theta) + self.log_likelihood(x, theta)

    def log_likelihood(self, x: Events, theta: Parameters) -> LogProbs:
        """Return log r(x, theta): log p(x|theta) up to a constant in theta, (N,)."""
        return self.condensed_log_likelihood(self.condense(x), theta)

    @torch.no_grad()
    def sample(self, theta: Parameters, seed: int) -> Events:
        """Return one event per row of theta, (N, n)."""
        return self._sample(theta, seed)[0]

    def _propose(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        """Return one reference event per row, and how many had to be drawn again."""
        return self.reference.sample(theta, seed), 0

    def _sample(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        """Return one event per row of theta, and the reference's latents without a point.

        Raises:
            SamplingError: rows without an accepted event after very many proposals.
        """
        generator = torch.Generator().manual_seed(seed)
        log_bound = self.ratio.log_bound(theta)
        if not bool(log_bound.isfinite().all()):
            return self._resample(theta, generator)
        x = torch.empty(len(theta), self.ambient_dim, dtype=torch.float64, device=theta.device)
        waiting, proposed, again = torch.arange(len(theta), device=theta.device), 0, 0
        while len(waiting):
            copies = log_bound[waiting].exp().ceil().clamp(1, MAX_ROWS).long()
            some = waiting[: max(1, int((copies.cumsum(0) <= MAX_ROWS).sum()))]
            rows = some.repeat_interleave(copies[: len(some)])
            events, lost = self._propose(theta[rows], _seed_from(generator))
            chance = self.log_likelihood(events, theta[rows]) - log_bound[rows]
            drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64)
            taken = (drawn.to(chance.device) < chance.exp()).nonzero()[:, 0]
            first = torch.full_like(log_bound, len(rows), dtype=torch.int64)
            first.scatter_reduce_(0, rows[taken], taken, "amin")
            done = first < len(rows)
            x[done] = events[first[done]].double()
            again, proposed = again + lost, proposed + len(rows)
            waiting = waiting[~done[waiting]]
            if proposed > MAX_PROPOSALS * len(theta):
                message = (
                    f"{len(waiting)} of {len(theta)} events not accepted after {proposed:,} "
                    "proposals of the reference; ask for theta nearer to those of the training"
                )
                raise SamplingError(message)
        return x, again

    def _resample(self, theta: Parameters, generator: torch.Generator) -> tuple[Events, int]:
        """Return for each row one of POOL reference events, chosen with probability ~ r."""
        parts, again = [], 0
        for some in theta.split(max(1, MAX_ROWS // POOL)):
            rows = some.repeat_interleave(POOL, dim=0)
            events, lost = self._propose(rows, _seed_from(generator))
            log_ratio = self.log_likelihood(events, rows).double().reshape(len(some), POOL)
            noise = -torch.rand(log_ratio.shape, generator=generator, dtype=torch.float64).log()
            chosen = (log_ratio - noise.log().to(log_ratio)).argmax(dim=1)  # Gumbel's maximum
            index = torch.arange(len(some), device=theta.device) * POOL + chosen
            parts.append(events[index].double())
            again += lost
        return torch.cat(parts), again


class TiltedManifoldFlow(TiltedFlow):
    """A reference on a surface times a ratio, on standardised observables."""

    measure: Measure = "manifold"

    def __init__(self, reference: ManifoldFlow, features: Features, ratio: Ratio) -> None:
        super().__init__(reference, features, ratio)

    @property
    def surface(self) -> ManifoldFlow:
        """The reference, which knows the surface."""
        assert isinstance(self.reference, ManifoldFlow)
        return self.reference

    @property
    def chart(self) -> nn.Module:
        """The chart of the surface."""
        return self.surface.chart

    def read(self, x: Events) -> Tensor:
        """Return the features of projected events, (N, n) -> (N, F)."""
        return self.features(self.surface.project(x))

    def project(self, x: Events) -> Events:
        """Return decode(encode(x)), (N, n) -> (N, n)."""
        return self.surface.project(x)

    def project_with_flags(self, x: Events) -> tuple[Events, Tensor]:
        """Return project(x), NaN where there is no point for x, and whether there is one, (N,)."""
        return self.surface.project_with_flags(x)

    def reconstruction_error(self, x: Events) -> Tensor:
        """Return |x - project(x)|_2 in standardised units, (N,)."""
        return self.surface.reconstruction_error(x)

    def log_volume(self, u: Latents) -> Tensor:
        """Return 1/2 log det J^T J at u, exact, (N,)."""
        return self.surface.log_volume(u)

    @torch.no_grad()
    def sample_counted(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        """Return one event per row of theta, and how many latents had no point on the surface."""
        return self._sample(theta, seed)

    def _propose(self, theta: Parameters, seed: int) -> tuple[Events, int]:
        return self.surface.sample_counted(theta, seed)


def tilt(reference: AmbientFlow | ManifoldFlow, features: Features, ratio: Ratio) -> TiltedFlow:
    """Return the reference, with a `StandardNormal` latent density, tilted by the ratio."""
    if isinstance(reference, ManifoldFlow):
        return TiltedManifoldFlow(reference, features, ratio)
    return TiltedFlow(reference, features, ratio)


def _seed_from(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))
