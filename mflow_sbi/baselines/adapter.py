"""A surrogate of ours as an estimator of sbi.  Imports sbi: see `door`, and `as_sbi_estimator`."""

from dataclasses import dataclass

import numpy as np
import torch
from sbi.neural_nets.estimators import ConditionalDensityEstimator
from torch import Tensor, nn

from mflow_sbi.errors import LikelihoodError
from mflow_sbi.inference.cached import EncodedEvents
from mflow_sbi.interfaces import Array
from mflow_sbi.surrogates import TrainedSurrogate

__all__ = ["SurrogateEstimator"]


@dataclass(frozen=True, eq=False)
class _KnownEvents:
    """Events with all that does not depend on theta: their latents and log volumes.

    Args:
        encoded: events and latents, N of each.
        constant: log p(x|theta) - log p(u|theta), (N,) float64.
    """

    encoded: EncodedEvents
    constant: Tensor


class SurrogateEstimator(ConditionalDensityEstimator):
    """log p(x|theta) of a trained surrogate, by sbi's contract; see `as_sbi_estimator`.

    Args:
        trained: the surrogate.
        x_observed: events in double precision, (N, n), which sbi will show in single precision.
        chunk_rows: pairs of a theta and an event at a time.
    """

    def __init__(
        self, trained: TrainedSurrogate, x_observed: Array | None, chunk_rows: int
    ) -> None:
        surrogate = trained.surrogate
        assert isinstance(surrogate, nn.Module)
        n, p = surrogate.ambient_dim, surrogate.parameter_dim
        super().__init__(surrogate, torch.Size((n,)), torch.Size((p,)))
        self._trained = trained
        self._chunk_rows = chunk_rows
        self._last: tuple[bytes, _KnownEvents] | None = None
        self._originals: dict[bytes, Array] = {}
        if x_observed is not None:
            self._originals = {row.astype(np.float32).tobytes(): row for row in x_observed}

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002, ARG002
        """Return log p(x|theta), float64.

        The sum over many events is a large number with a small part that depends on theta: in
        single precision that part would be lost.

        Args:
            input: events, (S, B or 1, n) or (B or 1, n), physical units.
            condition: parameters, (B, p) or (S, B, p), physical units.
            kwargs: none are known.

        Raises:
            ValueError: other shapes (of sbi).
            LikelihoodError: events that have no density under any theta.
        """
        self._check_input_shape(input)
        self._check_condition_shape(condition)
        if input.dim() == 2:
            input = input[None]  # noqa: A001
        asked = condition.requires_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(asked):
            if condition.dim() == 2 and (input.shape[1] == 1 or input.stride(1) == 0):
                return self._of_all_pairs(input[:, 0], condition).T
            return self._of_rows(input, condition)

    def _of_all_pairs(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return log p(x_i|theta_m), (N, n), (M, p) -> (M, N)."""
        known = self._known(x)
        rows = theta.to(known.encoded.latents)[:, None]
        columns: dict[int, list[Tensor]] = {}
        for some, events in known.encoded.blocks(len(theta)):
            part = known.encoded.log_densities(events, rows[some]).double()
            columns.setdefault(events.start, []).append(part)
        values = torch.cat([torch.cat(parts) for parts in columns.values()], dim=1)
        return values + known.constant

    def _of_rows(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return log p(x_sb|theta_sb), (S, B or 1, n), (S or none, B or 1, p) -> (S, B)."""
        shape = torch.broadcast_shapes(x.shape[:-1], theta.shape[:-1])
        known = self._known(x.expand(*shape, -1).flatten(0, 1))
        rows = theta.expand(*shape, -1).flatten(0, 1).to(known.encoded.latents)
        values = [
            self._trained.latent_log_likelihood(u, at).double()
            for u, at in zip(
                known.encoded.latents.split(self._chunk_rows),
                rows.split(self._chunk_rows),
                strict=True,
            )
        ]
        return (torch.cat(values) + known.constant).reshape(shape)

    def loss(self, input: Tensor, condition: Tensor, **kwargs: object) -> Tensor:  # noqa: A002
        """Return -log p(x|theta) of rows, (B, n), (B, p) -> (B,)."""
        return -self.log_prob(input[None], condition, **kwargs)[0]

    @torch.no_grad()
    def sample(
        self,
        sample_shape: torch.Size,
        condition: Tensor,
        **kwargs: object,  # noqa: ARG002
    ) -> Tensor:
        """Return events at theta, drawn by torch's generator, (*S, B, n) float32.

        Args:
            sample_shape: S.
            condition: parameters, (B, p), physical units.
            kwargs: none are known.

        Raises:
            ConfigurationError: the surrogate has no density to draw from.
        """
        self._check_condition_shape(condition)
        shape = torch.Size((*sample_shape, len(condition)))
        theta = condition.expand(*shape, -1).reshape(-1, *self.condition_shape)
        seed = int(torch.randint(2**31, ()))
        events = self._trained.sample(theta.double().cpu().numpy(), seed)
        return torch.from_numpy(events).float().to(condition.device).reshape(*shape, -1)

    @torch.no_grad()
    def _known(self, x: Tensor) -> _KnownEvents:
        """Return events (N, n) with what does not depend on theta: the last ones are kept."""
        shown = np.ascontiguousarray(x.detach().cpu().numpy().astype(np.float32))
        key = shown.tobytes()
        if self._last is None or self._last[0] != key:
            self._last = (key, self._encoded(shown))
        return self._last[1]

    def _encoded(self, shown: np.ndarray) -> _KnownEvents:
        rows = np.array([self._originals.get(row.tobytes(), row) for row in shown], np.float64)
        encoded = EncodedEvents.encode(self._trained, rows, self._chunk_rows)
        _require_finite(encoded.latents.sum(dim=1))
        constant = torch.zeros(len(rows), dtype=torch.float64, device=encoded.latents.device)
        if self._trained.surrogate.measure != "none":
            anywhere = np.array(self._trained.record.parameters.mean)[None]
            density = torch.from_numpy(self._trained.log_prob(rows, anywhere)).to(constant)
            theta = torch.from_numpy(anywhere).to(constant)
            constant = density - self._trained.latent_log_likelihood(encoded.latents, theta)
        _require_finite(constant)
        return _KnownEvents(encoded, constant)


def _require_finite(values: Tensor) -> None:
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        message = (
            f"log_prob: expected events near the surface that was learned, got {int(bad.sum())} "
            f"of {len(values)} without a density; look at them with `mflow-sbi infer`, which "
            "tells which are outside"
        )
        raise LikelihoodError(message)
