"""Command line of the simulators: `python -m simulators <simulator> ...`.

Exit codes: 0 ok, 2 bad input (one line: what was expected, what came, what to do), 1 a bug.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulators.chain_commands import add_chain_commands
from simulators.command_line import (
    Parser,
    canonical,
    check_folder,
    finite,
    natural,
    not_negative,
    positive,
    progress_bar,
    replace,
)
from simulators.errors import SimulatorError
from simulators.wbf.constants import SCALE_PER_TEV2
from simulators.wbf.parton_level import PROCESSES

if TYPE_CHECKING:
    from simulators.manifolds.surfaces import Surface

CHANNELS = ("ud", "full")
PACKAGE_DATA = Path(__file__).parent / "wbf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(words)
        options.run(options, words)
    except SimulatorError as error:
        sys.stderr.write(f"simulators: {error}\n")
        return 2
    except MemoryError as error:
        sys.stderr.write(f"simulators: {error}; ask for fewer events, in several files\n")
        return 2
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m simulators", description="Simulators that write event files.")
    commands = parser.add_subparsers(title="simulators", required=True, metavar="COMMAND")

    wbf = commands.add_parser(
        "wbf",
        help="weak-boson fusion, h -> gamma gamma: events with an exact likelihood",
        description="Example: python -m simulators wbf --theta-prior normal --events 1000 "
        "--seed 1 --out train.root",
    )
    wbf.add_argument("--setting", choices=tuple(SCALE_PER_TEV2), default="tuned")
    wbf.add_argument("--channel", choices=CHANNELS, default="ud")
    points = wbf.add_mutually_exclusive_group(required=True)
    points.add_argument("--theta", nargs=2, type=finite, metavar=("T0", "T1"))
    points.add_argument("--theta-prior", choices=("normal",), help="theta_i ~ N(0, 1)")
    wbf.add_argument("--events", type=positive, required=True, metavar="N")
    wbf.add_argument("--seed", type=natural, required=True, metavar="S")
    wbf.add_argument("--out", type=Path, required=True, metavar="FILE.root")
    wbf.set_defaults(run=_run_wbf)

    add_chain_commands(commands)
    _add_surfaces(commands)

    table = commands.add_parser(
        "wbf-cross-section", help="remake the committed table of fiducial cross sections"
    )
    table.add_argument("--channels", nargs="+", choices=PROCESSES, default=list(PROCESSES))
    table.add_argument("--proposals", type=positive, default=40_000_000, metavar="N")
    table.add_argument("--seed", type=natural, default=1, metavar="S")
    table.add_argument("--level", choices=("fiducial", "parton"), default="fiducial")
    table.add_argument("--out", type=Path, default=None, metavar="FILE")
    table.set_defaults(run=_run_cross_section)

    adapt = commands.add_parser("wbf-adapt", help="remake the committed proposals")
    adapt.add_argument("--seed", type=natural, default=1, metavar="S")
    adapt.add_argument("--level", choices=("fiducial", "parton"), default="fiducial")
    adapt.add_argument("--out", type=Path, default=None, metavar="FILE.npz")
    adapt.set_defaults(run=_run_adapt)
    return parser


SURFACES = {
    "circle": ("a von Mises density on the circle", ("concentration",)),
    "sphere": ("a von Mises-Fisher density on the d-sphere", ("dim", "concentration")),
    "torus": ("a chain of d von Mises angles, flat in R^{2d}", ("dim", "concentration")),
    "ring-torus": ("two von Mises angles on the ring in R^3", ("concentration",)),
    "polynomial": ("the polynomial surface of the M-flow study, constants of our own", ()),
}
"""Surfaces with a known density: what each is, and its own options."""

LORENZ = "points on trajectories of the Lorenz attractor"


def _add_surfaces(commands: Any) -> None:  # noqa: ANN401 - argparse keeps the type to itself
    described = {name: f"{title}, with its exact density" for name, (title, _) in SURFACES.items()}
    for name, title in {**described, "lorenz": LORENZ}.items():
        own_options = SURFACES.get(name, ("", ("trajectories",)))[1]
        surface = commands.add_parser(
            name,
            help=title,
            description=f"Example: python -m simulators {name} --theta-prior uniform "
            "--events 1000 --seed 1 --out train.root",
        )
        if "dim" in own_options:
            surface.add_argument("--dim", type=positive, default=2, metavar="D")
        if "concentration" in own_options:
            surface.add_argument("--concentration", type=finite, default=1.0, metavar="KAPPA")
        if "trajectories" in own_options:
            surface.add_argument("--trajectories", type=positive, default=20, metavar="K")
        points = surface.add_mutually_exclusive_group(required=True)
        points.add_argument("--theta", type=finite, metavar="T")
        points.add_argument("--theta-prior", choices=("uniform",), help="theta ~ U(-1, 1)")
        surface.add_argument(
            "--noise",
            type=not_negative,
            default=0.0,
            metavar="SIGMA",
            help="normal noise on every observable, off the surface",
        )
        surface.add_argument("--events", type=positive, required=True, metavar="N")
        surface.add_argument("--seed", type=natural, required=True, metavar="S")
        surface.add_argument("--out", type=Path, required=True, metavar="FILE.root")
        run = _run_lorenz if name == "lorenz" else _run_surface
        surface.set_defaults(run=run, surface=name)


def _run_wbf(options: argparse.Namespace, words: list[str]) -> None:
    from simulators.file_format import write_event_file
    from simulators.wbf.event_file import event_table, metadata
    from simulators.wbf.generator import generate_events

    check_folder(options.out)
    theta_seed, event_seed = np.random.SeedSequence(options.seed).spawn(2)
    sampling: dict[str, Any]
    if options.theta is None:
        theta = np.random.default_rng(theta_seed).standard_normal((options.events, 2))
        sampling = {"kind": "normal", "mean": [0, 0], "std": [1, 1]}
    else:
        theta = np.tile(options.theta, (options.events, 1))
        sampling = {"kind": "fixed", "value": options.theta}
    rng = np.random.default_rng(event_seed)
    with progress_bar("events") as progress:
        events = generate_events(theta, rng, options.channel, options.setting, progress=progress)
    record = metadata(
        events,
        options.channel,
        options.setting,
        seed=options.seed,
        command=canonical(words),
        theta_sampling=sampling,
    )
    write_event_file(options.out, event_table(events), record)


def _surface(options: argparse.Namespace) -> "Surface":
    from simulators.manifolds import surfaces

    match options.surface:
        case "circle":
            return surfaces.Sphere(1, options.concentration)
        case "sphere":
            return surfaces.Sphere(options.dim, options.concentration)
        case "torus":
            return surfaces.Torus(options.dim, options.concentration)
        case "ring-torus":
            return surfaces.RingTorus(options.concentration)
        case _:
            return surfaces.PolynomialSurface()


def _run_surface(options: argparse.Namespace, words: list[str]) -> None:
    from simulators.manifolds.event_file import draw_points, metadata, write_points

    check_folder(options.out)
    surface = _surface(options)
    theta, sampling, rng = _one_parameter(options)
    points = draw_points(surface, theta, options.noise, rng)
    record = metadata(
        surface,
        points,
        options.noise,
        seed=options.seed,
        command=canonical(words),
        theta_sampling=sampling,
    )
    replace(options.out, lambda path: write_points(path, points, record))


def _run_lorenz(options: argparse.Namespace, words: list[str]) -> None:
    from simulators.manifolds.event_file import metadata, write_points
    from simulators.manifolds.lorenz import LorenzAttractor

    check_folder(options.out)
    attractor = LorenzAttractor(options.trajectories)
    theta, sampling, rng = _one_parameter(options)
    points = attractor.draw(theta, options.noise, rng)
    record = metadata(
        attractor,
        points,
        options.noise,
        seed=options.seed,
        command=canonical(words),
        theta_sampling=sampling,
    )
    replace(options.out, lambda path: write_points(path, points, record))


def _one_parameter(
    options: argparse.Namespace,
) -> tuple[np.ndarray, dict[str, Any], np.random.Generator]:
    """Return theta of every point, how it was drawn, and the generator of the points."""
    theta_seed, event_seed = np.random.SeedSequence(options.seed).spawn(2)
    rng = np.random.default_rng(event_seed)
    if options.theta is not None:
        sampling = {"kind": "fixed", "value": [options.theta]}
        return np.full(options.events, options.theta), sampling, rng
    theta = np.random.default_rng(theta_seed).uniform(-1, 1, options.events)
    return theta, {"kind": "uniform", "low": [-1], "high": [1]}, rng


def _run_cross_section(options: argparse.Namespace, words: list[str]) -> None:
    from simulators.wbf.integration import estimate_cross_section

    out = options.out or PACKAGE_DATA / f"{options.level}_cross_section.json"
    check_folder(out)
    channels = {}
    for channel in options.channels:
        rng = np.random.default_rng([options.seed, PROCESSES.index(channel)])
        with progress_bar(f"{channel}: proposals") as progress:
            estimate = estimate_cross_section(
                channel, options.proposals, rng, progress, options.level
            )
        channels[channel] = {
            "value": estimate.value.tolist(),
            "error": estimate.error.tolist(),
            "odd_pull": estimate.odd_pull.tolist(),
            "n_proposed": estimate.n_proposed,
        }
    record = {
        "unit": "pb per powers of c/Lambda^2 in TeV^-2: 1, f, ft, f^2, f ft, ft^2",
        "command": canonical(words),
        "seed": options.seed,
        "channels": channels,
    }
    replace(out, lambda path: path.write_text(json.dumps(record, indent=1) + "\n"))


def _run_adapt(options: argparse.Namespace, words: list[str]) -> None:
    from simulators.wbf.adaptation import LEVELS, adapt

    del words
    out = options.out or PACKAGE_DATA / LEVELS[options.level].data_file
    check_folder(out)
    arrays = {}
    for number, channel in enumerate(PROCESSES):
        with progress_bar(f"{channel}: targets") as progress:
            arrays |= adapt(
                channel, seed=options.seed + number, progress=progress, level=options.level
            )

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    replace(out, write)


if __name__ == "__main__":
    sys.exit(main())
