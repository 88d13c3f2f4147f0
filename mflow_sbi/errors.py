"""Everything that can go wrong at a door of the package, by name.

Each message says what was expected, what came, and what to do.  The command line turns every
`MflowSbiError` into one line and exit code 2; any other exception is a bug (exit code 1).
"""

__all__ = [
    "ChartError",
    "ClusterError",
    "ConfigurationError",
    "EventDataError",
    "EventFileError",
    "ExpressionError",
    "IntervalError",
    "LikelihoodError",
    "MetadataError",
    "MflowSbiError",
    "MissingReference",
    "OffManifoldError",
    "ParameterRangeError",
    "RunFolderError",
    "SamplingError",
    "ShapeError",
    "TrainingError",
]


class MflowSbiError(Exception):
    """Base of every error raised for bad input or an impossible request."""


class EventFileError(MflowSbiError):
    """A file cannot be read as events: absent, truncated, tree or branch missing, no entries."""


class EventDataError(MflowSbiError):
    """A file was read, but its numbers are unusable: non-finite, unequal lengths, wrong units."""


class MetadataError(MflowSbiError):
    """The metadata record of an event file or surrogate is malformed or of an unknown version."""


class MissingReference(MflowSbiError):
    """Truth was asked for (score, morphing components) that the file does not carry."""


class ChartError(MflowSbiError):
    """A chart cannot be built or has no volume: rank-deficient decoder, too few events."""


class ShapeError(MflowSbiError):
    """An array of the wrong shape reached a public call."""


class OffManifoldError(MflowSbiError):
    """Observed events lie outside what the surrogate has learned from."""


class ParameterRangeError(MflowSbiError):
    """Parameters lie outside the range for which the surrogate or the prior is defined."""


class ExpressionError(MflowSbiError):
    """An observable or a selection is not a sentence of the expression language."""


class LikelihoodError(MflowSbiError):
    """A likelihood is NaN or +inf at some parameter point."""


class IntervalError(MflowSbiError):
    """No maximum or interval can be given: unknown parameter, limits missing, no finite start."""


class ConfigurationError(MflowSbiError):
    """A run configuration has an unknown key, an unknown name or an impossible value."""


class RunFolderError(MflowSbiError):
    """A run or surrogate folder is missing, incomplete, or does not match its digests."""


class TrainingError(MflowSbiError):
    """Training diverged or was asked of too few events."""


class SamplingError(MflowSbiError):
    """MCMC cannot start or cannot go on: too few walkers, no finite starting point."""


class ClusterError(MflowSbiError):
    """Workers of a cluster are not there, died, or cannot do the work."""
