"""The HDF5 file in which ensembles keep their steps, so that sampling can go on from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import emcee
import numpy as np
from emcee.backends import Backend, HDFBackend

from mflow_sbi.errors import SamplingError
from mflow_sbi.inference.exploration import Exploration
from mflow_sbi.inference.sampling import Problem
from mflow_sbi.interfaces import Array

__all__ = ["ChainFile", "FileBackend"]

_STEPS_PER_WRITING = 25
_EXPLORED = ("points", "log_joint", "log_weights")  # as stored, in the order of `Exploration`
_PROBES = 16  # stored points at which a resumed likelihood must have its stored values
_SAME = 1e-5  # relative; networks in float32 on another number of threads differ by less


class FileBackend(HDFBackend):
    """emcee's file of one ensemble, written every 25 steps: opening it at each one is slow."""

    def __init__(self, path: Path, ensemble: int) -> None:
        super().__init__(str(path), name=f"ensemble_{ensemble}", dtype=np.float64)
        self._waiting: list[tuple[Array, Array, Array]] = []
        self._random: Sequence[Any] = ()

    def save_step(self, state: emcee.State, accepted: Array) -> None:
        """Keep a step, and write when enough have come together."""
        self._waiting.append((np.array(state.coords), np.array(state.log_prob), accepted))
        self._random = state.random_state or ()
        if len(self._waiting) == _STEPS_PER_WRITING:
            self.write()

    def write(self) -> None:
        """Write the steps that wait, the count of steps last."""
        if not self._waiting:
            return
        points, log_joint, accepted = (np.stack(x) for x in zip(*self._waiting, strict=True))
        with _opened(self, "a") as file:
            group = file[self.name]
            first = group.attrs["iteration"]
            last = first + len(points)
            group["chain"][first:last] = points
            group["log_prob"][first:last] = log_joint
            group["accepted"][:] += accepted.sum(axis=0)
            for k, part in enumerate(self._random):
                group.attrs[f"random_state_{k}"] = part
            group.attrs["iteration"] = last
        self._waiting = []


class ChainFile:
    """The HDF5 file of a chain: what it is of, its exploration, and a backend per ensemble."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = HDFBackend(str(path))

    def backend(self, ensemble: int) -> Backend:
        """Return where one ensemble keeps its steps."""
        return FileBackend(self._path, ensemble)

    def begin(self, exploration: Exploration, identity: Mapping[str, Any]) -> None:
        """Make the file, with the points that sampling starts from."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(self._root, "w") as file:
            for name in _EXPLORED:
                file[f"explored_{name}"] = getattr(exploration, name)
            file.attrs["identity"] = json.dumps(identity)

    def exploration(self, problem: Problem, identity: Mapping[str, Any]) -> Exploration | None:
        """Return the exploration the chain began with; None if there is no file.

        Raises:
            SamplingError: the file is of something else.
        """
        if not self._path.exists():
            return None
        try:
            with _opened(self._root, "r") as file:
                stored: dict[str, Any] = json.loads(file.attrs["identity"])
                explored = Exploration(
                    problem.prior, *(file[f"explored_{name}"][:] for name in _EXPLORED)
                )
        except (OSError, KeyError, ValueError) as error:
            message = (
                f"{self._path}: expected a chain written by `sample_resumably`, cannot read it "
                f"({error}); remove it, or choose another file"
            )
            raise SamplingError(message) from error
        wanted = json.loads(json.dumps(identity))
        other = [name for name in wanted if stored.get(name) != wanted[name]]
        if not other:
            now, then = problem.log_joint(explored.points[:_PROBES]), explored.log_joint[:_PROBES]
            other = [] if np.allclose(now, then, rtol=_SAME, atol=_SAME) else ["likelihood"]
        if other:
            message = (
                f"{self._path}: holds a chain of another {', '.join(other)}; remove it, or choose "
                "another file"
            )
            raise SamplingError(message)
        return explored


def _opened(backend: HDFBackend, mode: str) -> Any:  # noqa: ANN401 (h5py's types are too wide)
    return backend.open(mode)
