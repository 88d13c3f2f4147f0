"""Architecture options of the sbi baselines; defaults are those of sbi where nothing is said."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mflow_sbi.errors import ConfigurationError

__all__ = [
    "INPUTS",
    "ContrastiveOptions",
    "FlowNetworkOptions",
    "InputOptions",
    "MulticlassOptions",
    "PosteriorOptions",
    "RatioLesson",
    "RatioOptions",
    "SetPosteriorOptions",
    "SplineNetworkOptions",
]

INPUTS = ("observables", "prescribed", "discovered")
POSTERIOR_FLOWS = ("maf", "nsf")


@dataclass(frozen=True)
class InputOptions:
    """What a network reads of an event.

    Args:
        inputs: "observables" (all, standardised), or latents: of the "prescribed" chart of WBF
            events, or of the implicit chart "discovered" in the data.
    """

    inputs: str = "observables"

    def __post_init__(self) -> None:
        if self.inputs not in INPUTS:
            message = f"inputs: expected one of {list(INPUTS)}, got {self.inputs!r}"
            raise ConfigurationError(message)
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int) and value < 1:
                message = f"{entry.name}: expected at least 1, got {value}"
                raise ConfigurationError(message)


@dataclass(frozen=True)
class FlowNetworkOptions(InputOptions):
    """A masked autoregressive flow of sbi.

    Args:
        hidden: width of the conditioner networks.
        transforms: number of flow layers.
        blocks: hidden blocks of each conditioner network.
    """

    hidden: int = 50
    transforms: int = 5
    blocks: int = 2


@dataclass(frozen=True)
class SplineNetworkOptions(FlowNetworkOptions):
    """A neural spline flow of sbi.

    Args:
        bins: bins of each spline.
    """

    bins: int = 10


@dataclass(frozen=True)
class RatioLesson:
    """Which trainer of sbi trains a classifier, and with which arguments of its own."""

    trainer: str
    arguments: Mapping[str, float]


@dataclass(frozen=True)
class RatioOptions(InputOptions):
    """A residual network that tells pairs apart (NRE-A).

    Args:
        hidden: its width.
        blocks: its residual blocks.
    """

    hidden: int = 50
    blocks: int = 2

    @property
    def lesson(self) -> "RatioLesson":
        """What trains it."""
        return RatioLesson("nre_a", {})


@dataclass(frozen=True)
class ContrastiveOptions(RatioOptions):
    """The same, told one pair in `atoms` (NRE-B).

    Args:
        atoms: thetas per event, the simulated one among them.
    """

    atoms: int = 10

    @property
    def lesson(self) -> "RatioLesson":
        """What trains it."""
        return RatioLesson("nre_b", {"num_atoms": self.atoms})


@dataclass(frozen=True)
class MulticlassOptions(RatioOptions):
    """The same, told one pair in `classes` or none (NRE-C).

    Args:
        classes: K of the paper.
        gamma: odds of one of the K classes against none.
    """

    classes: int = 5
    gamma: float = 1.0

    @property
    def lesson(self) -> "RatioLesson":
        """What trains it."""
        return RatioLesson("nre_c", {"num_classes": self.classes, "gamma": self.gamma})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0:
            message = f"gamma: expected a positive number, got {self.gamma}"
            raise ConfigurationError(message)


@dataclass(frozen=True)
class PosteriorOptions(SplineNetworkOptions):
    """A flow of theta given an event.

    Args:
        flow: "maf" (autoregressive; normal where there is one parameter) or "nsf" (splines).
    """

    flow: str = "nsf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow not in POSTERIOR_FLOWS:
            message = f"flow: expected one of {list(POSTERIOR_FLOWS)}, got {self.flow!r}"
            raise ConfigurationError(message)


@dataclass(frozen=True)
class SetPosteriorOptions(PosteriorOptions):
    """A flow of theta given a set of events, summarised by a sum over them (a deep set).

    Args:
        sets: training sets.
        most_events: of one set; sizes are drawn from 1 to this number, all alike.
        event_hidden: width of the network of one event.
        event_layers: its hidden layers, at least 2.
        summaries: numbers that it returns, summed over the set.
        embedding: numbers that a further network makes of the sums and the size of the set.
    """

    sets: int = 50_000
    most_events: int = 50
    event_hidden: int = 100
    event_layers: int = 3
    summaries: int = 50
    embedding: int = 20
