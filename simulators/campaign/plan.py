"""What a campaign is: a command, numbers of events and shards, and the seed of every shard."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from simulators.errors import InvalidRequest

__all__ = ["Campaign", "Shard"]

_DIGITS = 4
_SEED_BITS = 53  # whole numbers that every reader of JSON keeps


@dataclass(frozen=True)
class Shard:
    """One file of a campaign.

    Attributes:
        file: Its name in the campaign's folder.
        events: How many are simulated; fewer may pass the simulator's selection.
        seed: Of the simulator.
    """

    file: str
    events: int
    seed: int


@dataclass(frozen=True)
class Campaign:
    """A simulator command, cut into shards.

    Attributes:
        command: Words of `python -m simulators`, without --events, --seed and --out.
        events: In all shards together.
        seed: From which those of the shards come.
        n_shards: Number of files.

    Raises:
        InvalidRequest: No command, or not 1 <= shards <= events.

    Example:
        >>> campaign = Campaign(("circle", "--theta", "0"), events=10, seed=1, n_shards=4)
        >>> [(shard.file, shard.events) for shard in campaign.shards][1:3]
        [('shard_0001.root', 3), ('shard_0002.root', 2)]
    """

    command: tuple[str, ...]
    events: int
    seed: int
    n_shards: int

    def __post_init__(self) -> None:
        if not self.command:
            msg = "no simulator; expected its name first, e.g. python -m simulators.campaign wbf"
            raise InvalidRequest(msg)
        if not 1 <= self.n_shards <= self.events:
            msg = (
                f"{self.n_shards} shards of {self.events} events: expected at least one event in "
                "every shard; ask for fewer shards"
            )
            raise InvalidRequest(msg)

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The files in order; see the package's docstring for events and seeds."""
        whole, rest = divmod(self.events, self.n_shards)
        digits = max(_DIGITS, len(str(self.n_shards - 1)))
        states = [
            int(child.generate_state(1, np.uint64)[0])
            for child in np.random.SeedSequence(self.seed).spawn(self.n_shards)
        ]
        return tuple(
            Shard(f"shard_{k:0{digits}}.root", whole + (k < rest), state >> (64 - _SEED_BITS))
            for k, state in enumerate(states)
        )

    def words_of(self, shard: Shard, folder: Path) -> list[str]:
        """Return the words of `python -m simulators` that make a shard."""
        numbers = ["--events", str(shard.events), "--seed", str(shard.seed)]
        return [*self.command, *numbers, "--out", str(folder / shard.file)]
