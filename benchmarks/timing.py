"""CPU seconds of pieces of work measured in turn, and where they go.

Pieces that are compared run one after another within each round (A B C, A B C, ...), and a ratio
is the median of the rounds' ratios, so that drifts of the machine cancel.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from mflow_sbi.interfaces import Array

__all__ = [
    "KINDS",
    "KeptSections",
    "Timings",
    "Work",
    "cpu_seconds",
    "measure_in_turn",
    "profile_shares",
    "seconds_per_gflop",
]

Work = Callable[[], float]
"""Does a piece of work and returns its cost: CPU seconds per event, step or evaluation."""


@dataclass(frozen=True)
class Timings:
    """Costs of several pieces of work, one per round, name -> (rounds,)."""

    costs: Mapping[str, Array]

    def cost(self, name: str) -> float:
        """Return the median cost."""
        return float(np.median(self.costs[name]))

    def rate(self, name: str) -> float:
        """Return how often per CPU second, 1 / median cost."""
        return 1.0 / self.cost(name)

    def ratio(self, name: str, reference: str) -> float:
        """Return the median over rounds of cost / cost of the reference."""
        return float(np.median(self.costs[name] / self.costs[reference]))

    def spread(self, name: str) -> float:
        """Return (largest - smallest) / median cost over the rounds."""
        return float(np.ptp(self.costs[name])) / self.cost(name)


def cpu_seconds(work: Callable[[], object], seconds: float, units: int) -> Work:
    """Return a Work: CPU seconds of one of the `units` that one call of `work` does.

    One call warms up; then calls are repeated until `seconds` have passed.
    """

    def cost() -> float:
        work()
        calls, began = 0, time.process_time()
        while True:
            work()
            calls += 1
            spent = time.process_time() - began
            if spent >= seconds:
                return spent / calls / units

    return cost


def measure_in_turn(works: Mapping[str, Work], rounds: int) -> Timings:
    """Run all of the works in turn, `rounds` times."""
    costs = [[work() for work in works.values()] for _ in range(rounds)]
    table = np.array(costs)
    return Timings({name: table[:, column] for column, name in enumerate(works)})


MATRIX_SHAPES = (
    (100, 100, 100),
    (100, 100, 1000),
    (100, 100, 3500),
    (100, 100, 14000),
    (640, 100, 1000),
    (512, 512, 512),
)
"""(m, k, n) of A (m, k) @ B (k, n): the conditioners' layers over events and tangents."""


def seconds_per_gflop(seconds: float) -> Work:
    """Return a Work: CPU seconds of 10^9 FLOP in float32 matrix products, of the best shape.

    A product of (m, k) and (k, n) counts 2 m k n.
    """
    works = []
    for m, k, n in MATRIX_SHAPES:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        gflop = 2e-9 * m * k * n
        calls = max(1, round(0.2 / gflop))

        def multiply(
            a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out, calls: int = calls
        ) -> None:
            for _ in range(calls):
                torch.mm(a, b, out=out)

        works.append((cpu_seconds(multiply, seconds / len(MATRIX_SHAPES), 1), calls * gflop))
    return lambda: min(work() / gflop for work, gflop in works)


KINDS = (
    "matrix products",
    "elementwise: tangents",
    "elementwise: activations and the rest",
    "splines",
    "linear solves and Cholesky",
    "copies and allocation",
    "optimiser",
    "Python and dispatch",
)
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "einsum", "mv", "dot", "addmv")
_SOLVES = ("linalg_", "triangular_solve", "cholesky", "tril", "triu", "inverse", "logdet")
_COPIES = (
    *("copy_", "_to_copy", "to", "cat", "stack", "clone", "contiguous", "index_select", "index"),
    *("empty", "zeros", "ones", "full", "new_", "fill_", "zero_", "repeat", "resize", "eye"),
    *("constant_pad_nd", "pad", "select_backward", "slice_backward", "set_", "detach"),
)


def _kind(name: str, stack: Sequence[str]) -> str:
    """Return the kind of one profiled operation by its name and the calls around it.

    Backward operations carry the stack of the forward operation they belong to.
    """
    if not name.startswith("aten::"):
        in_optimiser = any("torch/optim/" in frame for frame in (name, *stack))
        return KINDS[6] if in_optimiser else KINDS[7]
    if any("torch/optim/" in frame or "clip_grad" in frame for frame in stack):
        return KINDS[6]
    operation = name.removeprefix("aten::").removeprefix("_")
    if operation in _PRODUCTS:
        return KINDS[0]
    if operation.startswith(_SOLVES):
        return KINDS[4]
    if operation in _COPIES or operation.startswith(("empty", "zeros", "ones", "new_", "full")):
        return KINDS[5]
    if any("spline" in frame for frame in stack):
        return KINDS[3]
    return KINDS[1] if any("tangent" in frame for frame in stack) else KINDS[2]


def profile_shares(work: Callable[[], object]) -> dict[str, float]:
    """Return the share of CPU time in each of `KINDS`, after one call to warm up."""
    work()
    config = _ExperimentalConfig(verbose=True)  # without it operations know no stack
    activities = [ProfilerActivity.CPU]
    with profile(activities=activities, with_stack=True, experimental_config=config) as profiled:
        work()
    spent: Counter[str] = Counter()
    for event in profiled.events() or ():
        spent[_kind(event.name, event.stack)] += event.self_cpu_time_total
    return {kind: spent[kind] / spent.total() for kind in KINDS}


class KeptSections:
    """Metrics of the sections finished so far, in a JSON file, valid for one state of the code.

    Args:
        path: the file.
        sources: files whose contents, with torch's version, the metrics depend on.
    """

    def __init__(self, path: Path, sources: Sequence[Path]) -> None:
        digest = sha256(torch.__version__.encode())
        for source in sorted(sources):
            digest.update(source.read_bytes())
        self._path = path
        self._digest = digest.hexdigest()
        self.sections: dict[str, dict[str, float]] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["digest"] == self._digest:
                self.sections = kept["sections"]

    def keep(self, name: str, metrics: dict[str, float]) -> None:
        """Add a section and write the file, whole or not at all."""
        self.sections[name] = metrics
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".part")
        record = {"digest": self._digest, "sections": self.sections}
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(self._path)
