r"""log L(theta) = sum_c log L_c(theta): channels and data sets that share parameters by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.checks import checked_gradients, checked_values
from mflow_sbi.inference.composite import Composite
from mflow_sbi.inference.likelihood import ObservedData
from mflow_sbi.inference.naming import Columns, as_names, union_of_names
from mflow_sbi.interfaces import Array, DifferentiableLikelihood

__all__ = ["JointLikelihood"]


class JointLikelihood(Composite):
    """log L(theta) = sum_c log L_c(theta_c): independent channels, data sets and constraints.

    A parameter of one name is one parameter, wherever it stands; `rename_parameters` separates
    those that only happen to share a name.  The names are all names in the order of their first
    appearance, channel by channel, unless an order is given.

    Args:
        channels: likelihoods by the name of the channel; a constraint of nuisances is one too.
        parameter_names: all names in the order wanted.

    Raises:
        ConfigurationError: no channels, something that is no differentiable likelihood, one
            parameter in two units, one constraint in two channels, or an order of other names.
        LikelihoodError: when called: NaN or +inf.

    Example:
        >>> from mflow_sbi.inference.constraint_terms import GaussianConstraint
        >>> from mflow_sbi.inference.observation import CountingLikelihood
        >>> from mflow_sbi.inference.rates import FixedYield, LogNormalFactor, ProductRate
        >>> rate = ProductRate((FixedYield(10.0), LogNormalFactor("luminosity", 1.02)))
        >>> joint = JointLikelihood(
        ...     {
        ...         "count": CountingLikelihood((rate,), n=12),
        ...         "luminosity": GaussianConstraint.unit(("luminosity",)),
        ...     }
        ... )
        >>> joint.parameter_names, joint(np.zeros((1, 1))).round(4)
        (('luminosity',), array([-3.2751]))
    """

    def __init__(
        self,
        channels: Mapping[str, DifferentiableLikelihood],
        parameter_names: Sequence[str] | None = None,
    ) -> None:
        _require_likelihoods(channels)
        self._channels = dict(channels)
        names = union_of_names(channel.parameter_names for channel in channels.values())
        if parameter_names is not None:
            names = _reordered(names, parameter_names)
        super().__init__(names, tuple(channels.values()))
        self._parts = [
            (channel, Columns(channel.parameter_names, names)) for channel in channels.values()
        ]

    @property
    def channels(self) -> Mapping[str, DifferentiableLikelihood]:
        """The terms by name."""
        return self._channels

    @property
    def n_events(self) -> int:
        """Number of observed events in all channels."""
        return sum(channel.n_events for channel in self._channels.values())

    @property
    def observed(self) -> Mapping[str, Array]:
        """The observed events of all channels that show them, as CHANNEL_NAME."""
        return {
            f"{name}_{what}": rows
            for name, channel in self._channels.items()
            if isinstance(channel, ObservedData)
            for what, rows in channel.observed.items()
        }

    def by_channel(self, theta: Array) -> Mapping[str, Array]:
        """Return log L_c of every channel, (M, p) -> (M,) each."""
        points = self._counted(theta)
        return {
            name: channel(columns.of(points))
            for name, (channel, columns) in zip(self._channels, self._parts, strict=True)
        }

    def __call__(self, theta: Array) -> Array:
        """Return log L, (M, p) -> (M,)."""
        points = self._counted(theta)
        total = np.zeros(len(points))
        for channel, columns in self._parts:
            total += channel(columns.of(points))
        return checked_values(total, points, self._names)

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return log L and its gradient, (M, p) -> (M,), (M, p); zero where log L is -inf."""
        points = self._counted(theta)
        total, gradients = np.zeros(len(points)), np.zeros_like(points)
        for channel, columns in self._parts:
            values, slopes = channel.value_and_gradient(columns.of(points))
            total += values
            columns.add(slopes, gradients)
        checked_values(total, points, self._names)
        return total, checked_gradients(gradients, total, points, self._names)


def _require_likelihoods(channels: Mapping[str, DifferentiableLikelihood]) -> None:
    if not channels:
        message = "channels: expected at least one likelihood, got none"
        raise ConfigurationError(message)
    for name, channel in channels.items():
        if not isinstance(channel, DifferentiableLikelihood):
            message = (
                f"channel {name}: expected a likelihood with parameter_names, n_events, values "
                f"and value_and_gradient, got {type(channel).__name__}"
            )
            raise ConfigurationError(message)


def _reordered(names: tuple[str, ...], wanted: Sequence[str]) -> tuple[str, ...]:
    order = as_names(wanted, "order of parameters")
    if set(order) != set(names):
        message = f"order of parameters: expected {list(names)} in some order, got {list(order)}"
        raise ConfigurationError(message)
    return order
