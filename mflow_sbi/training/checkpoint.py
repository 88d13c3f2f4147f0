"""The state of an unfinished training run: tensors as safetensors, the rest as JSON, no pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mflow_sbi.errors import RunFolderError

__all__ = ["Checkpoint", "PhaseCheckpoint", "load_checkpoint", "save_checkpoint"]

TENSORS = "checkpoint.safetensors"


@dataclass(frozen=True)
class PhaseCheckpoint:
    """Optimiser moments by parameter index, the best tensors so far and the counters."""

    optimizer_state: dict[int, dict[str, Tensor]]
    best_tensors: dict[str, Tensor]
    steps_done: int
    best_validation: float
    epochs_since_best: int
    best_blocks: Sequence[float] = ()


@dataclass(frozen=True)
class Checkpoint:
    """Everything `fit` needs to go on."""

    fingerprint: str
    surrogate: dict[str, Tensor]
    phases: dict[str, PhaseCheckpoint]
    history: list[dict[str, Any]]


def _flatten(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = {f"surrogate/{name}": value for name, value in checkpoint.surrogate.items()}
    for phase, saved in checkpoint.phases.items():
        for name, value in saved.best_tensors.items():
            tensors[f"best/{phase}/{name}"] = value
        for index, moments in saved.optimizer_state.items():
            for name, value in moments.items():
                tensors[f"optimizer/{phase}/{index}/{name}"] = value
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    return state


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write one file, beside and then renamed, so that a cut leaves the last whole state."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "fingerprint": checkpoint.fingerprint,
        "history": checkpoint.history,
        "phases": {
            name: {
                "steps_done": saved.steps_done,
                "best_validation": saved.best_validation,
                "epochs_since_best": saved.epochs_since_best,
                "best_blocks": saved.best_blocks,
            }
            for name, saved in checkpoint.phases.items()
        },
    }
    target = folder / TENSORS
    beside = target.with_suffix(".part")
    save_file(_flatten(checkpoint), beside, metadata={"record": json.dumps(record)})
    beside.replace(target)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in the folder, or None where there is none.

    Raises:
        RunFolderError: the file is there but cannot be read.
    """
    path = folder / TENSORS
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        header_size = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + header_size])
        record = json.loads(header["__metadata__"]["record"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        message = f"{path}: not a readable checkpoint ({error}); remove it to start afresh"
        raise RunFolderError(message) from error
    phases = {
        name: PhaseCheckpoint(
            _optimizer_state(_under(tensors, f"optimizer/{name}/")),
            _under(tensors, f"best/{name}/"),
            **counters,
        )
        for name, counters in record["phases"].items()
    }
    surrogate = _under(tensors, "surrogate/")
    return Checkpoint(record["fingerprint"], surrogate, phases, record["history"])
