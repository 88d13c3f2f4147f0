"""sbi's trainers, run by a phase of ours.  Imports sbi: see `door`.

sbi trains by Adam at a constant rate, keeps its own share of events for validation, stops when
`patience` epochs bring nothing, and returns the best weights.  It draws from torch's global
generator, which is seeded here and restored afterwards.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TypeAlias

import torch
from sbi.inference import NLE_A, NPE_C, NRE_A, NRE_B, NRE_C
from torch import Tensor, nn

from mflow_sbi.errors import TrainingError
from mflow_sbi.interfaces import Parameters
from mflow_sbi.training import FitSettings, HistoryRecord, Phase

__all__ = ["TRAINERS", "Tell", "run_trainer"]

Tell: TypeAlias = Callable[[HistoryRecord], None] | None

TRAINERS: dict[str, tuple[type, str]] = {
    "nle": (NLE_A, "density_estimator"),
    "npe": (NPE_C, "density_estimator"),
    "nre_a": (NRE_A, "classifier"),
    "nre_b": (NRE_B, "classifier"),
    "nre_c": (NRE_C, "classifier"),
}
"""sbi's trainers, and what they call their network."""


class _Silent:
    """A tracker that writes nothing; sbi's own one leaves a folder of logs where one stands."""

    log_dir: str | None = None

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Log nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log nothing."""

    def log_params(self, params: dict[str, Any]) -> None:
        """Log nothing."""

    def add_figure(self, name: str, figure: object, step: int | None = None) -> None:
        """Log nothing."""

    def flush(self) -> None:
        """Log nothing."""


def run_trainer(
    kind: str,
    network: nn.Module,
    theta: Parameters,
    inputs: Tensor,
    phase: Phase,
    settings: FitSettings,
    tell: Tell,
    **more: float,
) -> list[HistoryRecord]:
    """Train a network in place by sbi's trainer; return the history, one record an epoch.

    Args:
        kind: of the trainer, see `TRAINERS`.
        network: built by sbi.
        theta: standardised parameters, (N, p).
        inputs: what the network reads, (N, ...).
        phase: epochs, batch size, learning rate, clipping, patience.
        settings: seed and held-out share.
        tell: called with each record.
        more: arguments of this trainer's `train`.

    Raises:
        TrainingError: the loss is not finite.
    """
    trainer_class, place = TRAINERS[kind]
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
    ):
        warnings.filterwarnings("ignore", category=UserWarning)  # outliers; epochs spent
        torch.manual_seed(settings.seed)
        trainer = trainer_class(
            **{place: lambda theta, x: network},  # noqa: ARG005
            tracker=_Silent(),
            show_progress_bars=False,
        )
        records = _Records(trainer, phase, tell)
        trainer.append_simulations(theta.float(), inputs.float(), exclude_invalid_x=False)
        try:
            trainer.train(
                training_batch_size=phase.batch_size,
                learning_rate=phase.learning_rate,
                validation_fraction=settings.validation_fraction,
                stop_after_epochs=phase.patience,
                max_num_epochs=phase.epochs - 1,  # sbi runs one more
                clip_max_norm=phase.clip_norm,
                **more,
            )
        except ValueError as error:
            if "NaN/Inf" not in str(error):
                raise
            message = (
                f"phase {phase.name!r} diverged after {len(records.history)} epochs ({error}); "
                f"lower learning_rate (now {phase.learning_rate:g}) or look for outliers in the "
                "events"
            )
            raise TrainingError(message) from error
    return records.history


class _Records:
    """The epochs of a trainer, each told when it ends."""

    def __init__(self, trainer: Any, phase: Phase, tell: Tell) -> None:  # noqa: ANN401
        self.history: list[HistoryRecord] = []
        self._phase, self._tell = phase, tell
        summarise = trainer._summarize_epoch

        def heard(*args: Any, **named: Any) -> None:  # noqa: ANN401
            summarise(*args, **named)
            self._note(trainer.summary)

        trainer._summarize_epoch = heard

    def _note(self, summary: dict[str, list[float]]) -> None:
        epoch = len(self.history)
        record = HistoryRecord(
            self._phase.name,
            0,
            epoch,
            float(summary["training_loss"][epoch]),
            float(summary["validation_loss"][epoch]),
            self._phase.learning_rate,
            float(summary["epoch_durations_sec"][epoch]),
        )
        self.history.append(record)
        if self._tell is not None:
            self._tell(record)
