r"""Draws from p(theta|x) by affine-invariant ensembles (emcee), kept in a file if wanted.

Several ensembles are run, independent of one another.  Proposals alternate between stretch moves
(Goodman and Weare, 2010), differential evolution along differences of two other walkers (ter
Braak, 2006; Nelson et al., 2014), now and then by the whole difference, which carries walkers from
one mode to another, and jumps to points drawn from a fixed density fitted to weighted prior draws
(`JumpDensity`; Metropolis-Hastings corrects for it).  Without jumps the last walker in a mode of
no weight never leaves it: no two other walkers differ by the way out.  The snooker move of emcee
3.1.6 is not offered: it does not leave the target invariant (a unit normal comes out with variance
0.91).

Walkers of one ensemble help one another and are not independent chains.  So R-hat compares
ensembles, never walkers: all walkers of an ensemble, in order of steps, are one chain.  The
effective number of draws is steps x walkers / tau summed over ensembles, tau the integrated
autocorrelation time in steps of the walker-averaged autocorrelation function.

References:
    emcee: The MCMC Hammer (Foreman-Mackey et al., 2013), arXiv:1202.3665.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import emcee
import numpy as np
from emcee.backends import Backend
from emcee.moves import DEMove, KDEMove, MHMove, Move, StretchMove, WalkMove

from mflow_sbi.cluster import TaskMap
from mflow_sbi.errors import ConfigurationError, SamplingError
from mflow_sbi.inference.chain_file import ChainFile, FileBackend
from mflow_sbi.inference.convergence import autocorrelation_time, chain_complaints
from mflow_sbi.inference.exploration import Exploration, JumpDensity
from mflow_sbi.inference.likelihood import EvaluationCount, ObservedData
from mflow_sbi.inference.prior_fields import RecordedPrior
from mflow_sbi.inference.result import Diagnostics, InferenceData, rank_r_hat
from mflow_sbi.inference.sampling import (
    Draws,
    Problem,
    require_at_least,
    unheard,
)
from mflow_sbi.interfaces import Array, Likelihood, Progress

__all__ = ["MOVES", "EmceeSampler", "ModelSource"]

ModelSource: TypeAlias = Callable[[], tuple[Likelihood, RecordedPrior]]
"""Gives likelihood and prior where it is called; pickled, it stays small."""

_MIN_ACCEPTANCE = 0.05
_PROBES = 4  # points at which likelihoods elsewhere must have their values here
_EXPLORED_PER_WALKER = 64  # points per round; as many as in 16 steps of 4 ensembles


def _jump_move(density: JumpDensity) -> Move:
    """Return the Metropolis-Hastings move that proposes draws from a fixed density."""

    def propose(points: Array, random: np.random.RandomState) -> tuple[Array, Array]:  # noqa: NPY002
        rng = np.random.Generator(random._bit_generator)  # noqa: SLF001 (one stream for both)
        proposed = density.sample(len(points), rng)
        return proposed, density.log_prob(points) - density.log_prob(proposed)

    return MHMove(propose)


MOVES: Mapping[str, Callable[[JumpDensity], Move]] = {
    "stretch": lambda density: StretchMove(),  # noqa: ARG005
    "differential_evolution": lambda density: DEMove(),  # noqa: ARG005
    "whole_difference": lambda density: DEMove(gamma0=1.0),  # noqa: ARG005
    "jump": _jump_move,
    "walk": lambda density: WalkMove(),  # noqa: ARG005
    "kde": lambda density: KDEMove(),  # noqa: ARG005
}
"""Proposals by name; all but `jump` see only where the other walkers are."""

_MIXTURE = (
    ("stretch", 0.25),
    ("differential_evolution", 0.35),
    ("whole_difference", 0.1),
    ("jump", 0.3),
)


@dataclass(frozen=True)
class EmceeSampler:
    """Ensembles of walkers that propose moves from each other's places (emcee).

    Args:
        ensembles: independent ensembles; R-hat compares them.
        walkers: walkers per ensemble, at least 8 and twice the number of parameters.
        burn_in: steps discarded at the start of every ensemble.
        steps: steps kept.
        moves: names of `MOVES` and their shares.

    Raises:
        ConfigurationError: a number below its smallest sensible value, or an unknown move.

    Example:
        >>> from mflow_sbi.inference import FlatLikelihood, NormalPrior, draws_of
        >>> sampler = EmceeSampler(ensembles=2, walkers=16, burn_in=50, steps=100)
        >>> posterior = sampler.sample(FlatLikelihood(("c",)), NormalPrior(("c",), (3,), (1,)), 1)
        >>> draws_of(posterior).shape
        (3200, 1)
    """

    ensembles: int = 4
    walkers: int = 32
    burn_in: int = 300
    steps: int = 700
    moves: tuple[tuple[str, float], ...] = _MIXTURE

    def __post_init__(self) -> None:
        least = {"ensembles": 2, "walkers": 1, "burn_in": 0, "steps": 4}
        require_at_least("emcee", self, least)
        for name, share in self.moves:
            if name not in MOVES or not share > 0:
                message = (
                    f"emcee moves: expected names among {sorted(MOVES)} with positive shares, "
                    f"got {name!r} with {share}"
                )
                raise ConfigurationError(message)
        if not self.moves:
            message = f"emcee moves: expected at least one of {sorted(MOVES)}, got none"
            raise ConfigurationError(message)

    def to_dict(self) -> dict[str, Any]:
        """Return {"kind": "emcee", ...}, moves as {name: share}."""
        return {"kind": "emcee", **asdict(self), "moves": dict(self.moves)}

    def sample(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return draws with diagnostics; see `Sampler.sample`.

        Raises:
            SamplingError: too few walkers, or too few prior draws with a finite posterior.
            ShapeError: likelihood and prior are not of the same parameters.
            LikelihoodError: the likelihood is NaN or +inf somewhere.
        """
        problem = self._problem(likelihood, prior)
        exploration = self._explore(problem, seed)
        backends = [Backend() for _ in range(self.ensembles)]
        return self._run(problem, exploration, backends, seed, progress, attributes)

    def sample_resumably(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        chain_file: Path | str,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return what `sample` does, bit for bit, keeping all steps in an HDF5 file on the way.

        If the file exists, sampling goes on from its last step.  More `steps` than the file was
        begun with make the chain longer; everything else must be the same.

        Args:
            likelihood: as in `sample`.
            prior: as in `sample`.
            seed: as in `sample`.
            chain_file: HDF5 file of all ensembles, made if absent.
            progress: as in `sample`; steps in the file count as done.
            attributes: as in `sample`.

        Raises:
            SamplingError: the file is of another posterior, seed or sampler, or cannot be read.
        """
        problem = self._problem(likelihood, prior)
        file = ChainFile(Path(chain_file))
        exploration = file.exploration(problem, self._identity(problem, seed))
        if exploration is None:
            exploration = self._explore(problem, seed)
            file.begin(exploration, self._identity(problem, seed))
        backends = [file.backend(k) for k in range(self.ensembles)]
        return self._run(problem, exploration, backends, seed, progress, attributes)

    def sample_elsewhere(
        self,
        likelihood: Likelihood,
        prior: RecordedPrior,
        seed: int,
        source: ModelSource,
        tasks: TaskMap,
        progress: Progress | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> InferenceData:
        """Return what `sample` does, bit for bit, each ensemble being a task of its own.

        Args:
            likelihood: as in `sample`.
            prior: as in `sample`.
            seed: as in `sample`.
            source: gives the same likelihood and prior where a task is done.
            tasks: who does them.
            progress: called with (ensembles done, all ensembles).
            attributes: as in `sample`.

        Raises:
            SamplingError: the source gives another likelihood or prior there.
            ClusterError: workers died.
        """
        problem = self._problem(likelihood, prior)
        exploration = self._explore(problem, seed)
        known = (exploration.points, exploration.log_joint, exploration.log_weights)
        identity = json.dumps(self._identity(problem, seed))
        asked = [_Ensemble(self, source, known, seed, k, identity) for k in range(self.ensembles)]
        walked = tasks.map(_walk, asked, progress)
        spent = [count for _, count in walked if count is not None]
        steps = [run for run, _ in walked]
        return self._finish(problem.with_spent(spent), exploration, steps, seed, attributes)

    def _problem(self, likelihood: Likelihood, prior: RecordedPrior) -> Problem:
        problem = Problem(likelihood, prior)
        fewest = max(8, 2 * len(problem.names))
        if self.walkers < fewest:
            message = (
                f"expected at least {fewest} walkers for {len(problem.names)} parameters, got "
                f"{self.walkers}; an ensemble with fewer cannot move in all directions"
            )
            raise SamplingError(message)
        return problem

    def _explore(self, problem: Problem, seed: int) -> Exploration:
        n = _EXPLORED_PER_WALKER * self.walkers
        return problem.explore(n, self.walkers, self._seeds(seed)[-1])

    def _seeds(self, seed: int) -> list[np.random.SeedSequence]:
        """Return seeds of the ensembles and, last, of the exploration."""
        return np.random.SeedSequence(seed).spawn(self.ensembles + 1)

    def _identity(self, problem: Problem, seed: int) -> dict[str, Any]:
        """Return what a chain file and its resumption must have in common."""
        likelihood, digest = problem.likelihood, hashlib.sha256()
        if isinstance(likelihood, ObservedData):
            for name, rows in likelihood.observed.items():
                digest.update(name.encode() + np.ascontiguousarray(rows).tobytes())
        return {
            "sampler": {k: v for k, v in self.to_dict().items() if k != "steps"},
            "prior": problem.prior.to_dict(),
            "seed": seed,
            "parameters": list(problem.names),
            "observed events": [likelihood.n_events, digest.hexdigest()],
        }

    def _run(
        self,
        problem: Problem,
        exploration: Exploration,
        backends: list[Backend],
        seed: int,
        progress: Progress | None,
        attributes: Mapping[str, Any] | None,
    ) -> InferenceData:
        total, tell = self.burn_in + self.steps, unheard(progress)
        runs = []
        for k, (seeds, backend) in enumerate(zip(self._seeds(seed), backends, strict=False)):

            def advance(step: int, done_before: int = k * total) -> None:
                tell(done_before + step, self.ensembles * total)

            self._advance(problem, exploration, seeds, backend, advance)
            runs.append(self._steps_of(backend))
        return self._finish(problem, exploration, runs, seed, attributes)

    def _steps_of(self, backend: Backend) -> tuple[Array, Array]:
        """Return the walkers and their log posterior at every step of an ensemble."""
        total = self.burn_in + self.steps
        return np.asarray(backend.get_chain())[:total], np.asarray(backend.get_log_prob())[:total]

    def _finish(
        self,
        problem: Problem,
        exploration: Exploration,
        runs: Sequence[tuple[Array, Array]],
        seed: int,
        attributes: Mapping[str, Any] | None,
    ) -> InferenceData:
        """Return the posterior that the steps of all ensembles make."""
        points, log_joint = (np.stack(parts) for parts in zip(*runs, strict=True))
        before = max(self.burn_in - 1, 0)
        moved = np.any(np.diff(points[:, before:], axis=1) != 0, axis=-1).mean(axis=(1, 2))
        points = points[:, self.burn_in :]
        draws = Draws(points, log_joint[:, self.burn_in :], _diagnose(points, moved))
        return problem.posterior(draws, exploration, self, seed, attributes)

    def _advance(
        self,
        problem: Problem,
        exploration: Exploration,
        seeds: np.random.SeedSequence,
        backend: Backend,
        advance: Callable[[int], None],
    ) -> None:
        """Bring one ensemble from where its backend stands to its last step."""
        rng = np.random.default_rng(seeds)
        start, log_joint = exploration.starts(self.walkers, rng)
        density = exploration.jumps(rng)
        generator = np.random.RandomState(seeds.generate_state(4))  # noqa: NPY002 (emcee's kind)
        sampler = emcee.EnsembleSampler(
            self.walkers,
            start.shape[1],
            problem.log_joint,
            moves=[(MOVES[name](density), share) for name, share in self.moves],
            vectorize=True,
            backend=backend,
        )
        # Without emcee's wrapper, which prints every exception with its traceback.
        sampler.log_prob_fn = problem.log_joint  # pyright: ignore[reportAttributeAccessIssue]
        done, total = int(backend.iteration), self.burn_in + self.steps
        state = emcee.State(start, log_prob=log_joint, random_state=generator.get_state())
        if done:
            state = backend.get_last_sample()
            advance(min(done, total))
        if done >= total:
            return
        steps = sampler.sample(state, iterations=total - done, skip_initial_state_check=True)
        try:
            for step, _ in enumerate(steps, start=done + 1):
                advance(step)
        finally:
            if isinstance(backend, FileBackend):
                backend.write()


@dataclass(frozen=True, eq=False)
class _Ensemble:
    """One ensemble to be walked elsewhere."""

    sampler: EmceeSampler
    source: ModelSource
    explored: tuple[Array, Array, Array]
    seed: int
    number: int
    identity: str


def _walk(asked: _Ensemble) -> tuple[tuple[Array, Array], EvaluationCount | None]:
    """Return the steps of one ensemble, and how often the likelihood was asked."""
    sampler, (likelihood, prior) = asked.sampler, asked.source()
    problem = sampler._problem(likelihood, prior)  # noqa: SLF001
    points, known = (part[:_PROBES] for part in asked.explored[:2])
    same = json.dumps(sampler._identity(problem, asked.seed)) == asked.identity  # noqa: SLF001
    if not same or not np.allclose(problem.log_joint(points), known, rtol=1e-5, atol=1e-5):
        message = (
            "ensembles elsewhere: the workers see another likelihood, prior or other observed "
            "events; they need the same files in the same folders"
        )
        raise SamplingError(message)
    problem = sampler._problem(likelihood, prior)  # noqa: SLF001 (counts from here)
    exploration, backend = Exploration(problem.prior, *asked.explored), Backend()
    seeds = sampler._seeds(asked.seed)[asked.number]  # noqa: SLF001
    sampler._advance(problem, exploration, seeds, backend, lambda step: None)  # noqa: ARG005, SLF001
    return sampler._steps_of(backend), problem.spent  # noqa: SLF001


def _diagnose(points: Array, moved: Array) -> Diagnostics:
    """Measure convergence and say in words what fails, points (ensembles, steps, walkers, p)."""
    ensembles, steps, walkers, parameters = points.shape
    chains = points.reshape(ensembles, steps * walkers, parameters)
    r_hat = tuple(rank_r_hat(chains[..., k]) for k in range(parameters))
    taus = np.array(
        [[autocorrelation_time(each[..., k]) for k in range(parameters)] for each in points]
    )
    effective = steps * walkers / taus
    complaints = list(chain_complaints(r_hat, effective.sum(axis=0), effective))
    if moved.min() < _MIN_ACCEPTANCE:
        complaints.append(f"an ensemble accepts only {moved.min():.1%} of its moves")
    return Diagnostics(
        r_hat=r_hat,
        effective_draws=tuple(effective.sum(axis=0).tolist()),
        autocorrelation_steps=tuple(taus.mean(axis=0).tolist()),
        acceptance=tuple(moved.tolist()),
        complaints=tuple(complaints),
    )
