"""Commands of the full chain: `wbf-chain` (our partons) and `detect` (a user's own file)."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from simulators.command_line import (
    canonical,
    check_folder,
    finite,
    natural,
    positive,
    progress_bar,
)
from simulators.errors import ChainError
from simulators.wbf.constants import SCALE_PER_TEV2
from simulators.wbf.parton_level import PROCESSES

__all__ = ["add_chain_commands"]


def add_chain_commands(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type to itself
    """Add `wbf-chain` and `detect`."""
    chain = commands.add_parser(
        "wbf-chain",
        help="weak-boson fusion through shower, hadronisation, detector and jets",
        description="Partons of the weak-boson-fusion simulator through Pythia, a Delphes-like "
        "detector and anti-kT jets; keeps events with two photons and two jets.  Example: "
        "python -m simulators wbf-chain --theta-prior normal --events 10000 --seed 1 "
        "--out train.root",
    )
    chain.add_argument("--setting", choices=tuple(SCALE_PER_TEV2), default="tuned")
    chain.add_argument("--channel", choices=PROCESSES, default="ud")
    points = chain.add_mutually_exclusive_group(required=True)
    points.add_argument("--theta", nargs=2, type=finite, metavar=("T0", "T1"))
    points.add_argument("--theta-prior", choices=("normal",), help="theta_i ~ N(0, 1)")
    chain.add_argument(
        "--events", type=positive, required=True, metavar="N", help="parton-level events"
    )
    chain.add_argument("--seed", type=natural, required=True, metavar="S")
    chain.add_argument("--out", type=Path, required=True, metavar="FILE.root")
    _add_detector_options(chain)
    chain.add_argument(
        "--keep-lhe", type=Path, metavar="FILE.lhe[.gz]", help="leave the parton-level events here"
    )
    chain.set_defaults(run=_run_chain)

    detect = commands.add_parser(
        "detect",
        help="a user's own LHE or HepMC3 file through detector and jets (LHE: Pythia first)",
        description="Example: python -m simulators detect --lhe events.lhe.gz --out seen.root",
    )
    source = detect.add_mutually_exclusive_group(required=True)
    source.add_argument("--lhe", type=Path, metavar="FILE", help="partons, plain or .gz")
    source.add_argument("--hepmc", type=Path, metavar="FILE", help="hadrons (status 1)")
    detect.add_argument("--out", type=Path, required=True, metavar="FILE.root")
    detect.add_argument("--seed", type=natural, default=1, metavar="S")
    _add_detector_options(detect)
    detect.add_argument("--photons", type=natural, default=0, metavar="N", help="at least")
    detect.add_argument("--jets", type=natural, default=0, metavar="N", help="at least")
    detect.add_argument(
        "--pythia",
        action="append",
        default=[],
        metavar="SETTING",
        help="one more setting of Pythia, e.g. '25:onMode = off'; may be repeated",
    )
    detect.set_defaults(run=_run_detect)


def _add_detector_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jet-radius", type=finite, default=0.5, metavar="R")
    parser.add_argument("--mpi", action="store_true", help="multiparton interactions")


def _run_chain(options: argparse.Namespace, words: list[str]) -> None:
    _require_libraries()
    from simulators.chain.reconstruction import Reconstruction
    from simulators.file_format import write_event_file
    from simulators.wbf.full_chain import (
        ChainSettings,
        chain_table,
        metadata,
        selected_cross_section,
        simulate_chain,
    )

    for path in filter(None, (options.out, options.keep_lhe)):
        check_folder(path)
    reconstruction = Reconstruction(options.jet_radius, n_photons=2, n_jets=2)
    settings = ChainSettings(options.mpi, reconstruction)
    seeds = np.random.SeedSequence(options.seed)
    theta = _parameter_points(options, seeds)
    with progress_bar("events") as progress:
        events = simulate_chain(
            theta,
            seeds,
            options.channel,
            options.setting,
            settings,
            options.keep_lhe,
            progress,
        )
    cross_section = selected_cross_section(events, options.channel, options.setting)
    record = metadata(
        events,
        options.channel,
        options.setting,
        settings,
        cross_section,
        seed=options.seed,
        command=canonical(words),
        fixed_theta=options.theta,
    )
    write_event_file(options.out, chain_table(events, cross_section[0]), record)
    _tell(options.out, len(events.detected), len(events.partons), events.n_given_up)


def _parameter_points(options: argparse.Namespace, seeds: np.random.SeedSequence) -> np.ndarray:
    if options.theta is not None:
        return np.tile(np.array(options.theta), (options.events, 1))
    rng = np.random.default_rng(seeds.spawn(1)[0])
    return rng.standard_normal((options.events, 2))


def _run_detect(options: argparse.Namespace, words: list[str]) -> None:
    _require_libraries()
    from simulators.chain.reconstruction import Reconstruction
    from simulators.chain.shower import Shower, pythia_seed
    from simulators.chain.user_files import detect_hepmc, detect_lhe
    from simulators.file_format import write_event_file

    check_folder(options.out)
    if options.hepmc and (options.mpi or options.pythia):
        msg = "--mpi and --pythia belong to --lhe: a HepMC file has been showered already"
        raise ChainError(msg)
    settings = Reconstruction(options.jet_radius, n_photons=options.photons, n_jets=options.jets)
    shower_seeds, detector_seeds = np.random.SeedSequence(options.seed).spawn(2)
    rng = np.random.default_rng(detector_seeds)
    with progress_bar("events") as progress:
        if options.lhe:
            shower = Shower(pythia_seed(shower_seeds), options.mpi, tuple(options.pythia))
            found = detect_lhe(options.lhe, shower, settings, rng, progress)
        else:
            shower = None
            found = detect_hepmc(options.hepmc, settings, rng, progress)
    record = found.metadata(
        options.lhe or options.hepmc, settings, shower, options.seed, canonical(words)
    )
    write_event_file(options.out, found.table, record)
    _tell(options.out, len(found.table), found.n_read, found.n_given_up)


def _tell(path: Path, n_selected: int, n_events: int, n_given_up: int) -> None:
    """One line about what was written."""
    lost = f"; Pythia gave up {n_given_up}" if n_given_up else ""
    share = n_selected / n_events
    sys.stderr.write(f"{path}: {n_selected} of {n_events} events selected ({share:.1%}){lost}\n")


def _require_libraries() -> None:
    """Refuse where the libraries of the chain are not installed.

    Raises:
        ChainError: One of them is missing.
    """
    try:
        import fastjet  # noqa: F401
        import pyhepmc  # noqa: F401
        import pylhe  # noqa: F401
        import pythia8mc  # noqa: F401
    except ImportError as error:
        msg = f"the chain needs {error.name}; run: pip install 'mflow_sbi[simulators]'"
        raise ChainError(msg) from error
