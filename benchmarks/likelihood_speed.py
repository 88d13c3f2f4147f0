"""Speed of exact M-flow likelihoods: evaluation, training, posteriors, memory, accuracy.

    python benchmarks/likelihood_speed.py --size small|medium|large
    python benchmarks/likelihood_speed.py --profile

The published architecture (see `published_architecture`), float32, one thread, CPU seconds of this
process; medians over rounds in which all that is compared runs in turn.  Stock nflows pieces of
the same architecture run beside, and the published code's rates are scaled to this machine by
stock encode + decode here over encode + decode there.

Training steps are epochs of the package's own loop at batch 100, its bookkeeping included:
`manifold` is the reconstruction phase, `density` the maximum likelihood of cached latents.
`joint_step` minimises -mean log p(x|theta) through the exact volume, all parts of chart and
density moving; it is divided by a step through the decoder alone
(`joint_step_over_decode_step`) and by the manifold step, which encodes and decodes.

`roofline_fraction` is the time the FLOPs of `count_arithmetic` take at the best float32
matrix-product rate of one thread, over the time measured.  Finished sections are kept in
`quickstart/benchmark/` and taken up again while the code stays the same.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from likelihood_bars import table_rows
from published_architecture import (
    AMBIENT_DIM,
    ORIGINAL,
    PARAMETER_DIM,
    SEED,
    DecodeOnly,
    NegativeLogProb,
    StockManifoldFlow,
    accelerator,
    build_surrogate,
    count_arithmetic,
    draw_events,
    jacfwd_log_prob,
    training_epochs,
)
from record import ROOT, write_record
from timing import (
    KINDS,
    KeptSections,
    Work,
    cpu_seconds,
    measure_in_turn,
    profile_shares,
    seconds_per_gflop,
)
from torch import Tensor, nn

from mflow_sbi.console import Terminal
from mflow_sbi.events import EventMetadata, Standardizer
from mflow_sbi.events.metadata import Parameter
from mflow_sbi.inference import CachedLikelihood, EmceeSampler, NormalPrior, sample_posterior
from mflow_sbi.surrogates import ManifoldFlow, TrainedSurrogate
from mflow_sbi.surrogates.trained import SurrogateRecord
from mflow_sbi.training import LatentNegativeLogProb, Reconstruction, TrainingBatch
from mflow_sbi.training.objectives import Objective

FOLDER = ROOT / "quickstart" / "benchmark"
ROOMS = ("likelihood_speed", "published_architecture", "timing")
BATCH = 1000
N_OBSERVED = 20
WALKERS = (1, 8, 16, 32, 64, 256)
CHAIN = EmceeSampler(ensembles=2, walkers=64, burn_in=0, steps=23)
"""2 x 64 x (1 + 23) = 3,072 evaluations."""
NAMES = ("a", "b")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))

Metrics = dict[str, float]


@dataclass(frozen=True)
class Size:
    """Rounds, least CPU seconds a piece and round, steps an epoch, sizes of samples, compiling."""

    rounds: int
    seconds: float
    steps: int
    precision_events: int
    memory_events: tuple[int, ...]
    compiles: bool


SIZES = {
    "small": Size(2, 0.1, 1, 200, (1_000,), compiles=False),
    "medium": Size(5, 1.0, 10, 2_000, (1_000, 10_000), compiles=True),
    "large": Size(9, 4.0, 20, 10_000, (1_000, 10_000, 100_000), compiles=True),
}


@torch.no_grad()
def evaluation(size: Size) -> Metrics:
    """Exact log-likelihoods against the roofline, a plain decode and `vmap(jacfwd)`."""
    surrogate = build_surrogate()
    x, theta = draw_events(BATCH)
    u = surrogate.encode(x)

    def naive(batch: int, seconds: float) -> Work:
        return cpu_seconds(
            lambda: jacfwd_log_prob(surrogate, x[:batch], theta[:batch]), seconds, batch
        )

    best = min((25, 100, 250), key=lambda batch: naive(batch, 0.0)())
    works = {
        "gflop": seconds_per_gflop(size.seconds),
        "b1000": cpu_seconds(lambda: surrogate.log_prob(x, theta), size.seconds, BATCH),
        "decode": cpu_seconds(lambda: surrogate.chart.decode(u), size.seconds, BATCH),
        "b100": cpu_seconds(lambda: surrogate.log_prob(x[:100], theta[:100]), size.seconds, 100),
        "jacfwd": naive(best, size.seconds),
    }
    timings = measure_in_turn(works, size.rounds)
    gflop = count_arithmetic().exact_log_prob / 1e9
    return {
        "exact_log_prob_events_per_cpu_s_b100": timings.rate("b100"),
        "exact_log_prob_events_per_cpu_s_b1000": timings.rate("b1000"),
        "exact_log_prob_spread_b1000": timings.spread("b1000"),
        "decode_events_per_cpu_s_b1000": timings.rate("decode"),
        "exact_over_decode_cost": timings.ratio("b1000", "decode"),
        "mflop_per_event": 1000 * gflop,
        "roofline_gflops": timings.rate("gflop"),
        "roofline_fraction": gflop * timings.ratio("gflop", "b1000"),
        "vmap_jacfwd_events_per_cpu_s": timings.rate("jacfwd"),
        "vmap_jacfwd_batch": best,
        "speedup_over_vmap_jacfwd": timings.ratio("jacfwd", "b1000"),
    }


def training(size: Size) -> Metrics:
    """Manifold and density steps beside stock nflows, and the published code's rates scaled."""
    surrogate, stock = build_surrogate(), StockManifoldFlow().eval()
    x, _ = draw_events(BATCH)

    def round_trip(model: ManifoldFlow | StockManifoldFlow) -> Work:
        @torch.no_grad()
        def work() -> Tensor:
            return model.chart.decode(model.chart.coordinates(x)[0])

        return cpu_seconds(work, size.seconds, BATCH)

    manifold, density = (Reconstruction(),), (LatentNegativeLogProb(),)
    ours, theirs = build_surrogate().train(), StockManifoldFlow().train()
    works = {
        "encode_decode": round_trip(surrogate),
        "stock_encode_decode": round_trip(stock),
        "manifold_step": training_epochs(ours, manifold, ("chart",), size.steps),
        "stock_manifold_step": training_epochs(theirs, manifold, ("chart",), size.steps),
        "density_step": training_epochs(ours, density, ("density",), size.steps),
        "stock_density_step": training_epochs(theirs, density, ("density",), size.steps),
    }
    if size.compiles:
        fast = build_surrogate().train()
        works["manifold_step_compiled"] = training_epochs(
            fast, manifold, ("chart",), size.steps, compiled=True
        )
        works["density_step_compiled"] = training_epochs(
            fast, density, ("density",), size.steps, compiled=True
        )
    timings = measure_in_turn(works, size.rounds)
    metrics = {f"{name}_events_per_cpu_s": timings.rate(name) for name in works}
    scale = timings.rate("stock_encode_decode") / ORIGINAL["encode_decode_events_per_cpu_s"]
    metrics |= {f"scaled_original_{name}": rate * scale for name, rate in ORIGINAL.items()}
    for name in works:
        step = name.removesuffix("_compiled")
        if name.startswith("stock") or f"{step}_events_per_cpu_s" not in ORIGINAL:
            continue
        there = ORIGINAL[f"{step}_events_per_cpu_s"] / ORIGINAL["encode_decode_events_per_cpu_s"]
        metrics[f"{name}_over_original"] = 1.0 / timings.ratio(name, "stock_encode_decode") / there
        if step.endswith("_step"):
            metrics[f"{name}_over_stock"] = timings.ratio(f"stock_{step}", name)
    return metrics


def joint(size: Size) -> Metrics:
    """A step through the exact volume over steps without it."""
    surrogate = build_surrogate().train()
    chart, parts, steps = ("chart",), ("chart", "density"), max(1, size.steps // 2)
    sum_of_both = (Reconstruction(), NegativeLogProb())
    works = {
        "joint": training_epochs(surrogate, (NegativeLogProb(),), parts, steps),
        "both": training_epochs(surrogate, sum_of_both, parts, steps),
        "manifold": training_epochs(surrogate, (Reconstruction(),), chart, steps),
        "decode_only": training_epochs(surrogate, (DecodeOnly(),), chart, steps),
    }
    timings = measure_in_turn(works, size.rounds)
    return {
        "joint_step_events_per_cpu_s": timings.rate("joint"),
        "joint_step_over_decode_step": timings.ratio("joint", "decode_only"),
        "joint_step_over_manifold_step": timings.ratio("joint", "manifold"),
        "joint_step_with_reconstruction_over_manifold_step": timings.ratio("both", "manifold"),
    }


def observed_likelihood() -> CachedLikelihood:
    """Return the log-likelihood of 20 events, through the surrogate's public door."""
    parameters = tuple(Parameter(name, low=-5.0, high=5.0) for name in NAMES)
    record = SurrogateRecord(
        recipe="mflow",
        shape={},
        options={},
        seed=SEED,
        observables=Standardizer(np.zeros(AMBIENT_DIM), np.ones(AMBIENT_DIM)),
        parameters=Standardizer(np.zeros(PARAMETER_DIM), np.ones(PARAMETER_DIM)),
        metadata=EventMetadata("published_architecture", "", "flat", parameters),
        digests={},
    )
    x, _ = draw_events(N_OBSERVED)
    return CachedLikelihood(TrainedSurrogate(build_surrogate(), record), x.numpy())


def posterior_work(likelihood: CachedLikelihood, walkers: int) -> Callable[[], object]:
    """Return the evaluation of the log posterior of 20 events at all walkers."""
    points = draw_events(walkers)[1].double().numpy()
    return lambda: PRIOR.log_prob(points) + likelihood(points)


def mcmc(size: Size) -> Metrics:
    """Evaluations of the log posterior by number of walkers, and a whole chain."""
    likelihood = observed_likelihood()

    def chain() -> float:
        began, before = time.process_time(), likelihood.evaluations.points
        sample_posterior(likelihood, PRIOR, CHAIN, seed=SEED)
        assert likelihood.evaluations.points - before >= 3000
        return time.process_time() - began

    works = {
        str(walkers): cpu_seconds(posterior_work(likelihood, walkers), size.seconds, walkers)
        for walkers in WALKERS
    }
    works |= {"gflop": seconds_per_gflop(size.seconds), "chain": chain}
    timings = measure_in_turn(works, size.rounds)
    gflop = N_OBSERVED * count_arithmetic().density / 1e9
    return {
        **{f"mcmc_evals_per_cpu_s_w{n}": timings.rate(str(n)) for n in WALKERS},
        "mcmc_roofline_fraction_w64": gflop * timings.ratio("gflop", "64"),
        "mcmc_chain_cpu_s": timings.cost("chain"),
    }


def memory(size: Size) -> Metrics:
    """Largest resident memory of fresh processes."""
    peaks = {}
    for n in (0, *size.memory_events):
        code = f"import published_architecture as p; print(p.resident_memory_mb({n}))"
        words = [sys.executable, "-W", "ignore", "-c", code]
        folder = Path(__file__).parent
        answer = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
        peaks[n] = float(answer.stdout)
    metrics = {f"peak_rss_mb_b{n}": peaks[n] for n in size.memory_events}
    for n in size.memory_events[1:]:
        metrics[f"peak_rss_b{n}_over_b1000"] = peaks[n] / peaks[1_000]
    return {"import_rss_mb": peaks[0], **metrics}


@torch.no_grad()
def precision(size: Size) -> Metrics:
    """Float32 against float64 of the same weights, and float64 against `vmap(jacfwd)`, nats."""
    x, theta = draw_events(size.precision_events)
    surrogate = build_surrogate()
    exact = build_surrogate().double()
    truth = exact.log_prob(x, theta.double())
    some = slice(0, 50)
    plain = jacfwd_log_prob(exact, x[some], theta[some].double())
    difference = float((truth[some] - plain).abs().max())
    if not difference < 1e-6:
        message = f"log_prob: expected the value of vmap(jacfwd), differs by {difference:.2g} nats"
        raise RuntimeError(message)
    error = (surrogate.log_prob(x, theta).double() - truth).abs()
    return {
        "float32_log_prob_error_max": float(error.max()),
        "float32_log_prob_error_median": float(error.median()),
        "float64_difference_from_vmap_jacfwd_max": difference,
    }


SECTIONS: Mapping[str, Callable[[Size], Metrics]] = {
    "evaluation": evaluation,
    "training": training,
    "joint": joint,
    "mcmc": mcmc,
    "memory": memory,
    "precision": precision,
}


def measure(size: Size, terminal: Terminal, kept: KeptSections) -> Metrics:
    """Measure the sections that are missing; return all metrics."""
    sections = dict(SECTIONS)
    if torch.cuda.is_available():
        sections["gpu"] = lambda _: accelerator(torch.device("cuda"), 1_000_000)
    for name, section in sections.items():
        if name in kept.sections:
            terminal.say(f"{name}: measured before, with the same code")
            continue
        with terminal.task(name):
            kept.keep(name, section(size))
    return {metric: value for name in sections for metric, value in kept.sections[name].items()}


def profile_table() -> str:
    """Return where the CPU time goes at batch 1000, per cent, as a Markdown table."""
    surrogate, trained = build_surrogate(), build_surrogate().train()
    x, theta = draw_events(BATCH)
    with torch.no_grad():
        batch = TrainingBatch(x, theta, surrogate.encode(x))

    def step(objective: Objective, part: nn.Module) -> Callable[[], None]:
        parameters = list(part.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=3e-4)

        def work() -> None:
            optimizer.zero_grad(set_to_none=True)
            objective(trained, batch).backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()

        return work

    works = {
        "exact log p": torch.no_grad()(lambda: surrogate.log_prob(x, theta)),
        "manifold step": step(Reconstruction(), trained.chart),
        "density step": step(LatentNegativeLogProb(), trained.density),
        "MCMC": posterior_work(observed_likelihood(), BATCH // N_OBSERVED),
    }
    shares = {name: profile_shares(work) for name, work in works.items()}
    lines = ["| per cent of CPU time | " + " | ".join(works) + " |", "|---" * 5 + "|"]
    for kind in KINDS:
        cells = (f"{100 * shares[name][kind]:.1f}" for name in works)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table with the bars, write the record; or print the profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=None, help="another file for the record")
    parser.add_argument("--fresh", action="store_true", help="measure finished sections again")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "torch.triangular_solve")  # stock nflows
    terminal = Terminal()
    if options.profile:
        terminal.say(profile_table())
        return
    path = FOLDER / f"likelihood_speed_{options.size}.json"
    if options.fresh:
        path.unlink(missing_ok=True)
    rooms = [Path(__file__).with_name(f"{room}.py") for room in ROOMS]
    sources = [*(ROOT / "mflow_sbi").rglob("*.py"), *rooms]
    kept = KeptSections(path, sources)
    metrics = measure(SIZES[options.size], terminal, kept)
    header = ("metric", "measured", "bar", "reached")
    terminal.table(f"exact M-flow likelihoods, {options.size}", header, table_rows(metrics))
    written = write_record("likelihood_speed", options.size, metrics, [SEED], options.out)
    if torch.cuda.is_available():
        record = json.loads(written.read_text(encoding="utf-8"))
        record["machine"]["gpu"] = torch.cuda.get_device_name()
        written.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    terminal.say(f"written: {written}")


if __name__ == "__main__":
    main()
