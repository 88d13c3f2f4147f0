"""The door to sbi, an optional library: imported at its first use, with one line where missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from mflow_sbi.errors import ConfigurationError

__all__ = ["needing_sbi"]


@contextmanager
def needing_sbi() -> Iterator[None]:
    """Run a block that imports rooms which import sbi.

    Raises:
        ConfigurationError: sbi is not installed; the message has the command.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "sbi":
            raise
        message = 'baselines and adapter need the library sbi: pip install "mflow_sbi[baselines]"'
        raise ConfigurationError(message) from error
