"""How much faster two worker processes make the same shards than one.

    python benchmarks/campaign_scaling.py --size small

The same campaign is run on a cluster of one worker and on one of two, in turn; both clusters are
up and have made shards before the clock runs.  The speed-up is the median over the
rounds of wall time / wall time, manifests and verification included.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulators.campaign import Campaign, DaskWorkers, run_campaign
from simulators.campaign.workers import local_client

__all__ = ["measure"]

COMMAND = ("wbf", "--theta-prior", "normal")
BAR = 1.8


@dataclass(frozen=True)
class Size:
    """Shards, events in each, and how often both clusters make them."""

    shards: int
    events: int
    rounds: int


SIZES = {"small": Size(8, 1_000, 1), "medium": Size(16, 3_000, 3), "large": Size(32, 6_000, 3)}


def measure(size: str, folder: Path) -> dict[str, float]:
    """Return the speed-up of two workers, and events per second of one.

    Args:
        size: "small", "medium" or "large".
        folder: For the shards.

    Raises:
        RuntimeError: Shards failed, or those of two workers are not those of one.
    """
    asked = SIZES[size]
    campaign = Campaign(COMMAND, asked.shards * asked.events, 1, asked.shards)
    with ExitStack() as stack:
        workers = {n: _warm(stack.enter_context(local_client(n)), n, folder) for n in (1, 2)}
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for k in range(asked.rounds):
            digests = {}
            for n, who in workers.items():
                spent, digests[n] = _run(campaign, folder / f"round_{k}_workers_{n}", who)
                seconds[n].append(spent)
            if digests[1] != digests[2]:
                message = "the shards of two workers are not those of one"
                raise RuntimeError(message)
    ratios = np.array(seconds[1]) / np.array(seconds[2])
    return {
        "campaign_speedup_2_workers": float(np.median(ratios)),
        "campaign_events_per_s_worker": campaign.events / float(np.median(seconds[1])),
    }


def _warm(client: Any, n_workers: int, folder: Path) -> DaskWorkers:  # noqa: ANN401
    """Return workers each of which has imported everything and made events."""
    client.wait_for_workers(n_workers)
    workers = DaskWorkers(client, at_once=n_workers)
    warming = Campaign(COMMAND, 400 * n_workers, 2, 4 * n_workers)
    _run(warming, folder / f"warming_{n_workers}", workers)
    return workers


def _run(campaign: Campaign, folder: Path, workers: DaskWorkers) -> tuple[float, list[str]]:
    """Return the wall time of a campaign and the digests of its shards."""
    began = time.perf_counter()
    result = run_campaign(campaign, folder, workers)
    spent = time.perf_counter() - began
    if result.manifest.failures:
        message = f"shards failed: {dict(result.manifest.failures)}"
        raise RuntimeError(message)
    return spent, [record.digest for _, record in sorted(result.manifest.records.items())]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How two workers scale.")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        metrics = measure(options.size, Path(name))
    for metric, value in metrics.items():
        print(f"{metric:32} {value:10.3f}")
    print(f"bar: campaign_speedup_2_workers >= {BAR}")


if __name__ == "__main__":
    main()
