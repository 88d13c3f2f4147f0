"""Everything that can go wrong at a door of the simulators, by name.

Each message says what was expected, what came, and what to do.  The command line turns every
`SimulatorError` into one line and exit code 2; any other exception is a bug (exit code 1).
"""

__all__ = [
    "ChainError",
    "InputFileError",
    "InvalidRequest",
    "KinematicsError",
    "OutputError",
    "PartonDensityError",
    "SimulatorError",
    "WorkerError",
]


class SimulatorError(Exception):
    """Base of every error raised for bad input or an impossible request."""


class ChainError(SimulatorError):
    """The simulation chain cannot run with these settings, or on these events."""


class InputFileError(SimulatorError):
    """A file of events is absent, truncated, or not of the format that was expected."""


class InvalidRequest(SimulatorError):
    """An option has an unknown name or an impossible value."""


class KinematicsError(SimulatorError):
    """Momenta of the wrong shape, not finite, or outside the physical region, reached a call."""


class OutputError(SimulatorError):
    """An event file cannot be written where it was asked for."""


class PartonDensityError(SimulatorError):
    """The parton density grid is absent or unreadable, or x lies outside its range."""


class WorkerError(SimulatorError):
    """Workers of a campaign are not there, or are not fit for it."""
