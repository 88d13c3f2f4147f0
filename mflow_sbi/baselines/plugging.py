"""Our trained surrogates in sbi's potentials, samplers and diagnostics."""

from typing import TYPE_CHECKING

from mflow_sbi.baselines.door import needing_sbi
from mflow_sbi.errors import ConfigurationError, ShapeError
from mflow_sbi.inference.cached import CHUNK_ROWS
from mflow_sbi.inference.checks import as_events
from mflow_sbi.interfaces import Array, CondensingSurrogate
from mflow_sbi.surrogates import TrainedSurrogate

if TYPE_CHECKING:
    from sbi.neural_nets.estimators import ConditionalDensityEstimator

__all__ = ["as_sbi_estimator"]


def as_sbi_estimator(
    trained: TrainedSurrogate,
    x_observed: Array | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
) -> "ConditionalDensityEstimator":
    """Return log p(x|theta) of a trained surrogate as a density estimator of sbi.

    For `sbi.inference.likelihood_estimator_based_potential`, `MCMCPosterior` and sbi's
    diagnostics.  Events and parameters are in physical units; the density is with respect to the
    surrogate's measure of standardised observables.  Surrogates without a density give
    log p(x|theta) up to a constant of each event, which posteriors do not notice.

    sbi asks for thousands of thetas at all events at once: events are encoded once, pairs are
    evaluated in chunks, in double precision where numbers are large.  But sbi rounds observed
    events to single precision, a change that coordinates of thin gaps between large numbers
    (masses of light jets) feel: give the events here, too, and the originals are taken.

    Args:
        trained: an M-flow, or any surrogate that knows events one by one.
        x_observed: the events that sbi will be asked about, (N, n), physical units.
        chunk_rows: pairs of a theta and an event at a time; bounds the memory.

    Raises:
        ConfigurationError: sbi is not installed, or the surrogate knows sets of events only.
        ShapeError: other observables, or chunk_rows < 1.
        EventDataError: no events, or non-finite observables.

    References:
        | sbi reloaded (Boelts et al., 2024), arXiv:2411.17337
    """
    with needing_sbi():
        from mflow_sbi.baselines.adapter import SurrogateEstimator
    if chunk_rows < 1:
        message = f"chunk_rows: expected at least 1, got {chunk_rows}"
        raise ShapeError(message)
    if not (trained.generates or isinstance(trained.surrogate, CondensingSurrogate)):
        message = (
            f"as_sbi_estimator: expected a surrogate that knows events one by one, got recipe "
            f"{trained.record.recipe!r}: {trained.lacks}"
        )
        raise ConfigurationError(message)
    known = None if x_observed is None else as_events("x_observed", x_observed)
    return SurrogateEstimator(trained, known, chunk_rows)
