"""What `calibrate --recalibrate` learned, kept in a file, and applied on request only.

recalibration.json  a temperature, the conformal levels of the tempered posteriors, and for which
surrogates, numbers of events and rates both were fitted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mflow_sbi.analysis import AnalysisConfig, StatisticalModel
from mflow_sbi.calibration import ConformalLevels, Temperature, TemperedLikelihood
from mflow_sbi.errors import ConfigurationError, RunFolderError
from mflow_sbi.run_files import RECALIBRATION, read_json, write_text
from mflow_sbi.run_observation import Observed

__all__ = ["Recalibration", "read_recalibration", "recalibrated", "write_recalibration"]

_FORMAT = "mflow_sbi.recalibration"
_OTHER_SIZE = 2.0  # times as many or few events as fitted on that call for a word


@dataclass(frozen=True)
class Recalibration:
    """A temperature and the conformal levels of the posteriors that it makes.

    Args:
        temperature: by which log likelihoods are divided.
        levels: credibilities that cover as often as nominal levels, of tempered posteriors.
        weights_digests: sha256 of the surrogates' weights.
        mean_events: mean number of events of the sets both were fitted on.
        luminosity: fb^-1, if numbers of events counted; None for the shape alone.
    """

    temperature: Temperature
    levels: ConformalLevels
    weights_digests: tuple[str, ...]
    mean_events: float
    luminosity: float | None

    @property
    def statements(self) -> tuple[str, str]:
        """What was done, and what to read credibilities as, in words."""
        return (
            f"recalibrated: {self.temperature.statement}",
            f"recalibrated: {self.levels.statement}: highest-density regions of the latter "
            "credibilities cover as often as the former",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "format": _FORMAT,
            "temperature": self.temperature.to_dict(),
            "levels": self.levels.to_dict(),
            "weights_digests": list(self.weights_digests),
            "mean_events": self.mean_events,
            "luminosity": self.luminosity,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Recalibration":
        """Return the recalibration written by `to_dict`; further entries are for readers.

        Raises:
            ConfigurationError: not such a record.
        """
        try:
            if record["format"] != _FORMAT:
                message = f"recalibration: expected {_FORMAT}, got {record['format']!r}"
                raise ConfigurationError(message)
            return cls(
                Temperature.from_dict(record["temperature"]),
                ConformalLevels.from_dict(record["levels"]),
                tuple(record["weights_digests"]),
                float(record["mean_events"]),
                None if record["luminosity"] is None else float(record["luminosity"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"recalibration: not a readable record ({error!r}); fit it again"
            raise ConfigurationError(message) from error

    def cautions(self, n_events: int, analysis: AnalysisConfig) -> list[str]:
        """Return how an observation differs from what this was fitted on, in words."""
        words = []
        if not self.mean_events / _OTHER_SIZE <= n_events <= self.mean_events * _OTHER_SIZE:
            words.append(f"{n_events} events instead of {self.mean_events:.3g}")
        if not analysis.is_signal_only:
            words.append("backgrounds, nuisances or fixed parameters, which were not simulated")
        if analysis.prior is not None:
            words.append("another prior")
        return words


def write_recalibration(
    recalibration: Recalibration, folder: Path, further: Mapping[str, Any]
) -> None:
    """Write `recalibration.json`, with further entries for readers."""
    record = {**recalibration.to_dict(), **further}
    write_text(folder / RECALIBRATION, json.dumps(record, indent=1) + "\n")


def read_recalibration(folder: Path) -> Recalibration:
    """Return the recalibration kept in a folder.

    Raises:
        RunFolderError: there is none.
        ConfigurationError: it is not readable.
    """
    path = folder / RECALIBRATION
    if not path.is_file():
        message = (
            f"{folder}: expected {RECALIBRATION}; fit it first: mflow-sbi calibrate RUN --test "
            "POOL --recalibrate, for results in another folder with the same --output"
        )
        raise RunFolderError(message)
    return Recalibration.from_dict(read_json(path))


def recalibrated(
    run: Observed, analysis: AnalysisConfig, recalibration: Recalibration
) -> tuple[StatisticalModel, list[str]]:
    """Return the model with its log likelihood divided by the temperature, and cautions.

    Raises:
        ConfigurationError: fitted for other surrogates, for the shape alone where numbers count
            (or the other way round), or several observations, for which none is fitted.
    """
    if len(run.observations) > 1:
        message = (
            "recalibration: expected one observation, got several; temperatures are fitted on "
            "sets of one kind"
        )
        raise ConfigurationError(message)
    digests = sorted(one.weights_digest for one in run.main.runs)
    if digests != sorted(recalibration.weights_digests):
        message = (
            "recalibration: expected one fitted for these very surrogates, got one of others; "
            "fit it again: mflow-sbi calibrate ... --recalibrate"
        )
        raise ConfigurationError(message)
    if (recalibration.luminosity is None) != (analysis.luminosity is None):
        fitted = "the shape alone" if recalibration.luminosity is None else "shape and rate"
        message = (
            f"recalibration: fitted for {fitted}, and this analysis is not; fit it with the "
            "--analysis that is used here"
        )
        raise ConfigurationError(message)
    model = run.model
    tempered = TemperedLikelihood(model.likelihood, recalibration.temperature.value)
    return replace(model, likelihood=tempered), recalibration.cautions(
        len(run.main.observed), analysis
    )
