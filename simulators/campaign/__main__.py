"""Command line of campaigns: `python -m simulators.campaign <simulator> ... --shards N --out F`.

Exit codes: 0 complete, 2 bad input (one line), 3 some shards failed (they are named; the same
command tries them again), 130 interrupted (the same command goes on), 1 a bug.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulators.campaign.manifest import MANIFEST, Manifest
from simulators.campaign.plan import Campaign
from simulators.campaign.running import CampaignResult, run_campaign
from simulators.campaign.shards import check_command
from simulators.campaign.workers import Outcome, open_workers
from simulators.errors import InvalidRequest, SimulatorError

INCOMPLETE = 3
INTERRUPTED = 130
_SHOWN_FAILURES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options, command = _parser().parse_known_args(words)
        campaign = Campaign(tuple(command), options.events, options.seed, options.shards)
        check_command(campaign, options.out)  # before any worker is started
        with _Bar(campaign) as bar, open_workers(options.workers) as workers:
            bar.n_workers = workers.n_workers
            result = run_campaign(
                campaign,
                options.out,
                workers,
                retries=options.retries,
                on_begin=bar.begin,
                on_shard=bar.advance,
            )
    except SimulatorError as error:
        sys.stderr.write(f"simulators: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("simulators: interrupted; the same command goes on with the rest\n")
        return INTERRUPTED
    return _tell(result, options.out, bar)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        msg = f"{message}; see '{self.prog} --help'"
        raise InvalidRequest(msg)


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m simulators.campaign",
        usage="%(prog)s SIMULATOR [its options] --events N --seed S --shards K --out FOLDER",
        description="One command of 'python -m simulators' as many files.  Example: "
        "python -m simulators.campaign wbf --theta-prior normal --events 1000000 --seed 1 "
        "--shards 64 --workers local --out campaign",
        allow_abbrev=False,
    )
    parser.add_argument("--events", type=_count, required=True, metavar="N", help="in all")
    parser.add_argument("--seed", type=_natural, required=True, metavar="S")
    parser.add_argument("--shards", type=_count, required=True, metavar="K", help="files")
    parser.add_argument(
        "--workers",
        default="local",
        metavar="WHO",
        help="local, local:N (processes here), tcp://host:port (a Dask scheduler), or serial",
    )
    parser.add_argument(
        "--retries", type=_natural, default=3, metavar="R", help="attempts after a failed one"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    return parser


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"expected an integer >= 0, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _count(text: str) -> int:
    if not _natural(text):
        msg = "expected an integer >= 1, got 0"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


class _Bar:
    """Shards done and events per second, on stderr."""

    def __init__(self, campaign: Campaign) -> None:
        self.n_workers = 1
        self.events = 0
        self._campaign = campaign
        self._progress = Progress(
            TextColumn("shards"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", total=campaign.n_shards, rate="")

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *details: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def begin(self, manifest: Manifest) -> None:
        """Show what is there already, and start the clock."""
        self._progress.start()
        self._progress.reset(self._task, completed=len(manifest.records))

    def advance(self, outcome: Outcome) -> None:
        """Count a shard."""
        self.events += 0 if outcome.result is None else outcome.task.shard.events
        self._progress.update(self._task, advance=1, rate=self.rate)

    @property
    def rate(self) -> str:
        """Events per second of this run in words, of all workers and of one."""
        seconds = self._progress.tasks[0].elapsed or 0.0
        if not self.events or not seconds:
            return ""
        rate = self.events / seconds
        return f"{rate:,.0f} events/s, {rate / self.n_workers:,.0f} per worker"


def _tell(result: CampaignResult, folder: Path, bar: _Bar) -> int:
    """Say what came out; the exit code."""
    manifest, campaign = result.manifest, result.manifest.campaign
    parts = [f"{len(manifest.records)} of {campaign.n_shards} shards"]
    parts += [f"{len(result.kept)} were there"] if result.kept else []
    parts += [f"changed and made again: {', '.join(result.redone)}"] if result.redone else []
    parts += [f"{result.retried} attempts failed and were repeated"] if result.retried else []
    parts += [bar.rate] if bar.rate else []
    sys.stdout.write(f"{folder / MANIFEST}: {'; '.join(parts)}\n")
    if not manifest.failures:
        return 0
    failures = list(manifest.failures.items())
    for file, why in failures[:_SHOWN_FAILURES]:
        sys.stderr.write(f"simulators: {file} failed: {why}\n")
    more = len(failures) - _SHOWN_FAILURES
    rest = f" ({more} more in the manifest)" if more > 0 else ""
    sys.stderr.write(
        f"simulators: {len(failures)} shards failed{rest}; the same command tries them again\n"
    )
    return INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
