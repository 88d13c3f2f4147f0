"""What the training loop is told, what it needs of a surrogate, and what it tells."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from mflow_sbi.training.processes import ALONE, Processes

__all__ = ["EpochCallback", "FitSettings", "HistoryRecord", "Trainable"]


class Trainable(Protocol):
    """What the loop needs of a surrogate."""

    @property
    def trainable_parts(self) -> Mapping[str, nn.Module]:
        """Parts by name."""
        ...

    def prepare(self, part: str, x: Tensor) -> None:
        """Fit what the part takes from data before gradients."""
        ...

    def resting_encoder(self, trains: Collection[str]) -> Callable[[Tensor], Tensor] | None:
        """Return the part of the encoding that rests while the named parts train, if any."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all tensors by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Take all tensors by name."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """How the loop runs, whatever it trains.

    Args:
        seed: seed of the shuffles and the split.
        validation_fraction: share of events held out for early stopping.
        compiled: compile the layers while they train: half a minute once, then steps take about
            three quarters of their time.  Needs a C++ compiler; pays for long trainings.
        processes: that train together; they change nothing but the rounding.
    """

    seed: int = 0
    validation_fraction: float = 0.1
    compiled: bool = False
    processes: Processes = field(default=ALONE, repr=False, compare=False)


@dataclass(frozen=True)
class HistoryRecord:
    """One epoch: weighted objective on training and held-out events, and what it took."""

    phase: str
    cycle: int
    epoch: int
    train: float
    validation: float
    learning_rate: float
    seconds: float

    def as_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


EpochCallback = Callable[[HistoryRecord], None]
