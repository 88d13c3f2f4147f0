"""The page of `wbf_comparison.py`: tables, figures, who is closest, and the published effects.

Every sentence with a number is made of the pieces of that benchmark and of the record of
`polynomial_surface.py`; which of two sentences is written depends on the numbers.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polynomial_cases import PUBLISHED
from record import RESULTS
from wbf_methods import COMPONENTS, METHODS, POLY, SCORE, SURFACE, SYM, Method, Size, X

from mflow_sbi import plots
from mflow_sbi.comparison import POINT, StudyRow, StudyTable
from mflow_sbi.evaluation import EXACT, PRIOR

__all__ = ["SET_EVENTS", "Flat", "Pieces", "table_of", "write_docs"]

SET_EVENTS = 20
Flat = dict[str, Any]
Pieces = Mapping[str, Mapping[str, Flat]]

INTRODUCTION = """# Benchmark: every method against the exact posterior

All methods learn from the same {events:,} WBF events at theta ~ N(0, 1)^2 and are asked for the
posteriors of the same sets of events, on the same grids, by the same code. They are told
different things: the second table of each setting says what. A method that is told the
polynomial form of an effective theory should be better than one that is not; the table says by
how much. Failed trainings are counted. One thread; CPU minutes are those of a whole training;
trainings of different methods are of about the same length. "Until it stops" are longer ones of
sbi, by its rule of 20 epochs without gain and 150 epochs at most: both NLE came to 150. A morphing
ratio reads the objects of an event and not its latents, so that on the known and on the discovered
surface its posteriors are the same.

    {command}
"""

TOLD = (
    ("events and theta only", {X}),
    ("+ symmetries of the process", {X, SYM}),
    ("+ that the theory is a polynomial in theta, and its cross section", {X, SYM, POLY}),
    ("+ joint scores or components of every event", {X, SYM, POLY, SCORE, COMPONENTS}),
    ("events, theta and the true surface", {X, SURFACE}),
)
"""What methods may be told, to see which is closest at equal knowledge."""


def as_row(flat: Flat) -> StudyRow:
    """Return the row of JSON values."""
    numbers = {name: (value[0], value[1]) for name, value in flat["numbers"].items()}
    return StudyRow(**{**flat, "numbers": numbers})


def table_of(pieces: Pieces, setting: str, size: Size) -> StudyTable:
    """Return the table of a setting, best method first."""
    mine = {k.split("/")[1]: rows for k, rows in pieces.items() if k.startswith(f"{setting}/")}
    first = next(rows for rows in mine.values() if EXACT in rows)
    methods = [as_row(rows[METHODS[name].title]) for name, rows in mine.items()]
    rows = (as_row(first[EXACT]), *methods, as_row(first[PRIOR]), as_row(first[POINT]))
    truths = tuple(rows[0].by_truth["total_variation"])
    table = StudyTable(rows, truths, SET_EVENTS, size.sets)
    return table.in_order("total_variation")


def write_docs(
    path: Path, pieces: Pieces, size: Size, command: str, wanted: Iterable[tuple[str, str, Method]]
) -> None:
    """Write the page: for every setting a table, a figure, and what the methods were told.

    Args:
        path: of the page; figures beside it.
        pieces: rows by "<setting>/<method>".
        size: of the benchmark.
        command: that measured them.
        wanted: all that the benchmark would measure; what is missing is named.
    """
    parts = [INTRODUCTION.format(events=size.events, command=command)]
    wanted = list(wanted)
    for setting in size.seeds:
        if not any(key.startswith(f"{setting}/") for key in pieces):
            continue
        table = table_of(pieces, setting, size)
        picture = path.with_name(f"{path.stem}_{setting}.png")
        plots.save_figure(plots.study_plot(table), picture, dpi=110)
        parts.append(f"\n## Setting `{setting}`\n\n![{setting}]({picture.name})\n\n")
        parts.append(table.to_markdown())
        told = {method.title: ", ".join(method.told) for method in METHODS.values()}
        parts.append("\n" + markdown(("method", "told"), [(r, told[r]) for r in labels(table)]))
        missing = [m.title for s, n, m in wanted if s == setting and f"{s}/{n}" not in pieces]
        parts += [f"\nNot measured yet: {'; '.join(missing)}.\n"] if missing else []
        parts += ["\nClosest to the exact posterior, by what a method is told:\n\n"]
        parts.append(closest_table(table))
    parts += published_effects(pieces)
    path.write_text("".join(parts), encoding="utf-8")


def labels(table: StudyTable) -> list[str]:
    """Return the methods of a table, best first."""
    return [row.label for row in table.ranked()]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def closest_table(table: StudyTable) -> str:
    """Return the closest and the second of the methods that are told no more than this."""
    told = {method.title: set(method.told) for method in METHODS.values()}
    rows, found = [], set()
    for words, known in TOLD:
        able = [row for row in table.ranked() if told[row.label] <= known]
        if found >= {row.label for row in able}:
            continue
        found |= {row.label for row in able}
        cells = [f"{r.label} ({r.mean('total_variation'):.3f})" for r in able[:2]]
        rows.append((words, *cells, *["-"] * (2 - len(cells))))
    return markdown(("told no more than", "closest (TV)", "second"), rows)


def published_effects(pieces: Pieces) -> list[str]:
    """Return the section on what was published of these methods, reproduced here or not."""
    path = RESULTS / "polynomial_surface.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    parts = ["\n## Published effects\n\n", "Of arXiv:2003.13913, reproduced here or not.\n"]
    parts += [f"\n- {sentence}" for sentence in on_wbf_events(pieces)]
    if record is None:
        return [*parts, "\n"]
    parts += [f"\n- {sentence}" for sentence in on_toys(record["metrics"])]
    command = f"python benchmarks/polynomial_surface.py --size {record['size']}"
    seeds = len(record["seeds"])
    parts.append(f"\n\n### The polynomial surface\n\n    {command}\n\n")
    parts.append(polynomial_table(record["metrics"], seeds))
    return parts


def number(pieces: Pieces, method: str, name: str) -> float:
    """Return a number of a method in setting tuned, NaN where it is not measured."""
    if (key := f"tuned/{method}") not in pieces:
        return float("nan")
    mean, _ = pieces[key][METHODS[method].title]["numbers"][name]
    return float(mean)


def reproduced(it_is: object) -> str:
    """Return the verdict."""
    return "**reproduced**" if it_is else "**not reproduced**"


def on_wbf_events(pieces: Pieces) -> Iterable[str]:
    """Yield sentences on PIE's surface, SCANDAL's cost and simultaneous training."""
    error = {m: number(pieces, m, "reconstruction_error") for m in ("pie_original", "mflow_flow")}
    own, ratio = error["pie_original"], error["pie_original"] / error["mflow_flow"]
    yield (
        "PIE learns one density and draws from another: on WBF events its reconstruction error is "
        f"{own:.2f}, published 1.25 to 2.05: {reproduced(own > 1)}. That is {ratio:.0f} times the "
        f"error of the M-flow on a learned surface ({error['mflow_flow']:.2f}); on the discovered "
        "surface events lie to rounding."
    )
    plain, scandal = (number(pieces, m, "closure") for m in ("mflow_flow", "mflow_scandal"))
    gain = [number(pieces, m, "log_prob") for m in ("mflow_flow", "mflow_scandal")]
    yield (
        f"Matching joint scores (SCANDAL) costs closure, published 8 times: {plain:.3f} without, "
        f"{scandal:.3f} with, {reproduced(scandal > 2 * plain)}. Here scores teach the density "
        "alone, on a surface that is finished, and cannot bend it. log p(truth) rises from "
        f"{gain[0]:+.2f} to {gain[1]:+.2f}."
    )
    tv = [number(pieces, m, "total_variation") for m in ("mflow_simultaneous", "mflow_flow")]
    minutes = [
        number(pieces, m, "training_cpu_minutes") for m in ("mflow_simultaneous", "mflow_flow")
    ]
    yield (
        f"Simultaneous training of surface and density reaches TV {tv[0]:.3f} in {minutes[0]:.1f} "
        f"CPU minutes, one after the other {tv[1]:.3f} in {minutes[1]:.1f}: at the weight 0.01 of "
        "the likelihood it is as good, not better, and slower."
    )
    names = ("sbi_nle_maf", "sbi_nle_maf_long", "sbi_nle_maf_latents", "sbi_nle_maf_latents_long")
    short, long, on, on_long = (number(pieces, name, "total_variation") for name in names)
    yield (
        "A likelihood in all dimensions of events on a surface grows without bound and the "
        f"posterior gets worse as it is learned: NLE of sbi on the observables goes from TV "
        f"{short:.3f} to {long:.3f} with ten times the training, on the latents of the surface "
        f"from {on:.3f} to {on_long:.3f}: {reproduced(long > short and on_long < on)}."
    )


def on_toys(metrics: Mapping[str, float]) -> Iterable[str]:
    """Yield sentences on the line in the plane and on PIE on the polynomial surface."""
    count = {way: metrics[f"line_{way}_diverged_seeds"] for way in ("naive", "sequential")}
    weak, strong = (metrics[f"line_simultaneous_{k}_diverged_seeds"] for k in ("weak", "strong"))
    unstable = count["naive"] > 0 and strong > 0
    yield (
        "Likelihood alone turns the surface away from the data: a line in the plane is lost in "
        f"{count['naive']:.0f} of 20 seeds, with simultaneous training in {strong:.0f} where the "
        f"likelihood weighs much and in {weak:.0f} where it weighs little, with surface and "
        f"density in turn in {count['sequential']:.0f}: the instability is {reproduced(unstable)}."
    )
    ratio = metrics["re_pie_over_mflow"]
    yield (
        f"On the polynomial surface PIE's reconstruction error is {ratio:.0f} times the M-flow's; "
        f"published more than 30 times (1.278 against 0.013): {reproduced(ratio > 30)}. Here it "
        "is small for both: PIE's own is "
        f"{metrics['pie_likelihood_re']:.3f}, the M-flow's {metrics['mflow_sequential_re']:.4f}."
    )
    failed = metrics["mflow_sequential_failed_seeds"]
    yield (
        "Of the M-flow with surface and density in turn 2 of 5 published runs failed; here "
        f"{failed:.0f}."
    )


def polynomial_table(metrics: Mapping[str, float], seeds: int) -> str:
    """Return medians over seeds beside the published ones, and failed seeds."""
    names = ("distance", "re", "mmd2", "auc")
    rows = []
    for variant, published in PUBLISHED.items():
        if variant.startswith("circle"):
            continue
        cells = []
        for name, value in zip(names, published, strict=True):
            measured = metrics.get(f"{variant}_{name}")
            here = "-" if measured is None else f"{measured:.3g}"
            cells.append(here if value is None else f"{here} ({value:.3g})")
        failed = f"{metrics[f'{variant}_failed_seeds']:.0f} of {seeds}"
        minutes = f"{metrics[f'{variant}_cpu_minutes']:.1f}"
        rows.append((f"`{variant}`", *cells, failed, minutes))
    header = (
        "variant",
        "distance",
        "reco. error",
        "MMD² of posteriors",
        "AUC",
        "failed",
        "CPU min",
    )
    caption = (
        f"\nMedians over {seeds} seeds; in brackets published medians of 5, after 50 passes over "
        "100,000 events of another surface of the same family, where ours made some 25 over "
        "50,000. distance: of generated events to the true surface; AUC: events against the same "
        "with noise of 0.1. Optimal transport takes too few steps in the CPU time of the others.\n"
    )
    return markdown(header, rows) + caption
