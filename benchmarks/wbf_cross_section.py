"""Standard-model cross sections of our matrix element against Pythia's own WBF processes.

    python benchmarks/wbf_cross_section.py --size small|medium|large

Inclusive p p -> h j j at 13 TeV by W W and by Z Z fusion, quark-quark (and antiquark-antiquark)
initial states of u, d, s, c.  Pythia uses the quark-quark matrix element for quark-antiquark too,
so only quark-quark is compared.  Pythia's coupling is frozen at alpha(0); its cross section is
rescaled by (alpha/alpha(0))^3.  Agreement within 0.5% is asked for at size medium and large.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pythia8mc
from numpy.typing import NDArray
from record import write_record
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from simulators.wbf import constants
from simulators.wbf.kinematics import momentum_from_rapidity
from simulators.wbf.matrix_element import channel_sum
from simulators.wbf.parton_level import FLUX, luminosities
from simulators.wbf.phase_space import MixtureProposal, SamplingMap, refine_separable

Array = NDArray[np.float64]

SIZES = {
    "small": (20_000, 2_000_000),
    "medium": (400_000, 12_000_000),
    "large": (1_500_000, 60_000_000),
}
TOLERANCE = 0.005
SEED = 1
CHUNK = 8192
INCLUSIVE = SamplingMap(-9.0, 14.0)
ALPHA_0 = 0.00729735
PROCESSES = {"WW": "HiggsSM:ff2Hff(t:WW)", "ZZ": "HiggsSM:ff2Hff(t:ZZ)"}


def integrand(boson: str) -> Callable[[Array], Array]:
    """D sigma/du at theta = 0, quark-quark channels of one kind of boson, no cuts, pb."""
    prefix = {"WW": "WW_qq", "ZZ": "NC"}[boson]

    def weight(u: Array) -> Array:
        point = INCLUSIVE(u)
        k1 = momentum_from_rapidity(point.pt1, point.exp_rapidity[0], 0.0)
        k2 = momentum_from_rapidity(point.pt2, point.exp_rapidity[1], 0.0)
        pair = -(point.pt1 + point.pt2)
        higgs = momentum_from_rapidity(pair, point.exp_rapidity[2], constants.HIGGS_MASS**2)
        total = k1 + k2 + higgs
        energy, zero = constants.BEAM_ENERGY_SUM, np.zeros_like(total[0])
        half1, half2 = (total[0] + total[3]) / 2, (total[0] - total[3]) / 2
        physical = (point.jacobian > 0) & (np.maximum(half1, half2) < energy / 2)
        x1, x2 = (np.where(physical, 2 * half / energy, 0.5) for half in (half1, half2))
        weights = {
            name: values
            for name, values in luminosities(x1, x2, "full").items()
            if name.startswith(prefix) and name.endswith("_qq")
        }
        p1 = np.stack([half1, zero, zero, half1])
        p2 = np.stack([half2, zero, zero, -half2])
        squared = channel_sum(p1, p2, k1, k2, weights)[0]
        shat = 4 * half1 * half2
        return np.where(physical, FLUX * squared / shat**2 * point.jacobian, 0.0)

    return weight


def ours(boson: str, n_points: int, progress: Callable[[int, int], None]) -> tuple[float, float]:
    """Cross section and error in pb by adaptive Monte Carlo."""
    rng = np.random.default_rng([SEED, len(boson)])
    weight = integrand(boson)
    proposal = MixtureProposal(refine_separable(weight, rng, 8, n_points // 20))
    n_chunks = -(-n_points // CHUNK)
    first = second = 0.0
    for done in range(n_chunks):
        u, g = proposal.sample(rng, CHUNK)
        values = weight(u) / g
        first += float(values.sum())
        second += float((values * values).sum())
        progress(done + 1, n_chunks)
    n = n_chunks * CHUNK
    return first / n, float(np.sqrt((second / n - (first / n) ** 2) / n))


def pythia(boson: str, n_events: int, progress: Callable[[int, int], None]) -> tuple[float, float]:
    """Cross section and error in pb of Pythia's own process, quark-quark part, rescaled."""
    generator = pythia8mc.Pythia("", printBanner=False)
    settings = [
        "Print:quiet = on",
        "Beams:eCM = 13000",
        f"{PROCESSES[boson]} = on",
        "PartonLevel:all = off",
        "HadronLevel:all = off",
        "PDF:pSet = LHAGrid1:NNPDF23_lo_as_0130_qed_0000.dat",
        "PDFinProcess:nQuarkIn = 4",
        "SigmaProcess:factorScale3VV = 6",
        f"SigmaProcess:factorFixScale = {constants.FACTORISATION_SCALE**2}",
        "SigmaProcess:alphaEMorder = 0",
        f"StandardModel:sin2thetaW = {constants.SIN2_WEAK}",
        f"StandardModel:sin2thetaWbar = {constants.SIN2_WEAK}",
        f"24:m0 = {constants.W_MASS}",
        f"23:m0 = {constants.Z_MASS}",
        f"25:m0 = {constants.HIGGS_MASS}",
        "Random:setSeed = on",
        f"Random:seed = {SEED}",
    ]
    if not all(generator.readString(line) for line in settings) or not generator.init():
        msg = "Pythia refused the settings of this benchmark; pythia8mc >= 8.311 is expected"
        raise RuntimeError(msg)
    same = accepted = 0
    for done in range(n_events):
        if not generator.next():
            continue
        process = generator.process
        accepted += 1
        same += process[3].id() * process[4].id() > 0
        if done % 1000 == 999:
            progress(done + 1, n_events)
    info = generator.infoPython()
    fraction = same / accepted
    scale = 1e9 * (constants.ALPHA / ALPHA_0) ** 3  # mb -> pb
    sigma, error = info.sigmaGen() * scale, info.sigmaErr() * scale
    binomial = np.sqrt(fraction * (1 - fraction) / accepted)
    return sigma * fraction, float(np.hypot(error * fraction, sigma * binomial))


def main() -> int:
    """Integrate, generate, compare; 1 if they differ by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    options = parser.parse_args()
    n_events, n_points = SIZES[options.size]
    console = Console()
    metrics: dict[str, float] = {}
    table = Table("process", "ours [pb]", "Pythia [pb]", "ratio")
    with Progress(console=console, transient=True) as bars:
        for boson in PROCESSES:
            results = []
            for label, compute, n in (("ours", ours, n_points), ("Pythia", pythia, n_events)):
                task = bars.add_task(f"{boson}: {label}", total=None)
                update = _updater(bars, task)
                results.append(compute(boson, n, update))
            (a, da), (b, db) = results
            ratio, error = a / b, a / b * float(np.hypot(da / a, db / b))
            metrics |= {
                f"{boson}_qq.ours_pb": a,
                f"{boson}_qq.ours_error_pb": da,
                f"{boson}_qq.pythia_pb": b,
                f"{boson}_qq.pythia_error_pb": db,
                f"{boson}_qq.ratio": ratio,
                f"{boson}_qq.ratio_error": error,
            }
            cells = (f"{a:.4f} ± {da:.4f}", f"{b:.4f} ± {db:.4f}", f"{ratio:.4f} ± {error:.4f}")
            table.add_row(f"{boson} quark-quark", *cells)
    console.print(table)
    path = write_record("wbf_cross_section", options.size, metrics, [SEED], options.out)
    console.print(f"written: {path}")
    worst = max(abs(metrics[f"{boson}_qq.ratio"] - 1) for boson in PROCESSES)
    agreed = worst < TOLERANCE or options.size == "small"
    if not agreed:
        console.print(f"cross sections differ by {worst:.2%}: more than {TOLERANCE:.1%}")
    return 0 if agreed else 1


def _updater(bars: Progress, task: object) -> Callable[[int, int], None]:
    return lambda done, total: bars.update(task, completed=done, total=total)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    sys.exit(main())
