r"""What a trained run can be expected to measure, before there are data: intervals, information.

    Asimov data: events x_i with weights w_i, sum_i w_i f(x_i) = mu_s E_theta[f] + mu_b E_b[f],

stand for the data expected at theta (1007.1727).  Events are the surrogate's own, with weights
that make its likelihood stationary at theta: what it would find if it were right.  Or they are
simulated ones with morphing weights: then its maximum shows where it is wrong, and the exact
likelihood of the same data stands beside.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mflow_sbi import plots
from mflow_sbi.analysis import (
    AnalysisConfig,
    StatisticalModel,
    build_observation,
    parse_analysis,
    statistical_model,
)
from mflow_sbi.analysis_config import MAIN
from mflow_sbi.asimov_data import AsimovEvents, asimov_events, asimov_weights
from mflow_sbi.errors import ConfigurationError, IntervalError
from mflow_sbi.inference import CrossSection, RateModel
from mflow_sbi.interfaces import (
    Array,
    Quiet,
    Reporter,
)
from mflow_sbi.intervals import (
    Contour,
    EventPool,
    FisherInformation,
    Limits,
    ProfileScan,
    hessian_information,
    profile,
    rate_information,
    score_information,
)
from mflow_sbi.run_files import write_text
from mflow_sbi.run_intervals import LEVELS, ModelIntervals, intervals_of_model, limits_of
from mflow_sbi.trained_runs import TrainedRun, load_runs, output_folder

__all__ = [
    "EXPECTED_HEADER",
    "INFORMATION_HEADER",
    "ExpectedSettings",
    "RunExpected",
    "expected_run",
]

EXPECTED_HEADER = ("luminosity", "likelihood", "parameter", "maximum", "68%", "95%")
INFORMATION_HEADER = ("luminosity", "information", "direction", "error along it")
LEARNED, EXACT = "learned", "exact"
BOTH, EXACT_BOTH, ANALYSED = "shape and rate", "exact shape and rate", "as analysed"
_CONTOURED = 3  # parameters of which all pairs are drawn
_WINDOW = 12.0  # 2 Delta log L of a profile up to which contours are looked for
_VALUES, _FEWER = 41, 17  # of each parameter in that window; where others are profiled
_MEASURED = 1e-6  # eigenvalue in proportion to the largest, for an ellipse to be drawn


@dataclass(frozen=True)
class ExpectedSettings:
    """What is expected where.

    Args:
        theta: parameters at which data are expected, (p,).
        luminosities: fb^-1.
        events: simulated events or draws that stand for the data.

    Raises:
        ConfigurationError: no luminosities, one that is not positive, or too few events.
    """

    theta: tuple[float, ...]
    luminosities: tuple[float, ...]
    events: int = 5_000

    def __post_init__(self) -> None:
        if not self.luminosities or min(self.luminosities) <= 0 or self.events < 100:
            message = (
                f"expected limits: expected positive luminosities and 100 events or more, got "
                f"{list(self.luminosities)} and {self.events}"
            )
            raise ConfigurationError(message)


@dataclass(frozen=True, eq=False)
class Expectation:
    """What is expected at one luminosity.

    Args:
        luminosity: fb^-1.
        intervals: of the learned likelihood, and where it is known of the exact one.
        contours: the same -> pair of parameters -> regions at 68 % and 95 %.
        information: of the signal's shape, rate and both, the exact one of both where it is
            known, and that with background and nuisances, if there are any.
    """

    luminosity: float
    intervals: Mapping[str, ModelIntervals]
    contours: Mapping[str, Mapping[tuple[str, str], tuple[Contour, ...]]]
    information: Mapping[str, FisherInformation]

    @property
    def whole_information(self) -> dict[str, FisherInformation]:
        """That of everything in the analysis, learned and exact, under names for a figure."""
        learned = self.information.get(ANALYSED, self.information[BOTH])
        exact = self.information.get(EXACT_BOTH)
        named = {"Fisher": learned}
        return named if exact is None else {**named, "exact Fisher": exact}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "luminosity": self.luminosity,
            "maximum": {k: one.maximum.to_dict() for k, one in self.intervals.items()},
            "intervals": {
                label: {
                    name: [interval.to_dict() for interval in some]
                    for name, some in one.intervals.items()
                }
                for label, one in self.intervals.items()
            },
            "areas": {
                label: {" ".join(pair): [c.area for c in some] for pair, some in pairs.items()}
                for label, pairs in self.contours.items()
            },
            "information": {k: one.to_dict() for k, one in self.information.items()},
        }


@dataclass(frozen=True, eq=False)
class RunExpected:
    """Expected intervals and information at several luminosities."""

    expectations: tuple[Expectation, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """Return lines of text under `EXPECTED_HEADER`."""
        rows = []
        for one in self.expectations:
            for label, found in one.intervals.items():
                values = dict(
                    zip(found.maximum.parameter_names, found.maximum.values, strict=True)
                )
                for name, some in found.intervals.items():
                    parts = [" or ".join(map(str, interval.parts)) for interval in some]
                    maximum = f"{values[name]:+.4f}"
                    rows.append((f"{one.luminosity:g} fb^-1", label, name, maximum, *parts))
        return rows

    def information_rows(self) -> list[tuple[str, ...]]:
        """Return lines of text under `INFORMATION_HEADER`, best measured direction first."""
        return [
            (f"{one.luminosity:g} fb^-1", label, direction, _error(value))
            for one in self.expectations
            for label, information in one.information.items()
            for direction, value in zip(
                information.directions(), information.eigenvalues.tolist(), strict=True
            )
        ]


def _error(eigenvalue: float) -> str:
    return f"{eigenvalue**-0.5:.3g}" if eigenvalue > 0 else "not measured"


def expected_run(
    folder: Path,
    settings: ExpectedSettings,
    reporter: Reporter | None = None,
    *,
    analysis: AnalysisConfig | None = None,
    simulated_paths: str | Sequence[str] | None = None,
    output: Path | None = None,
) -> RunExpected:
    """Return expected intervals and Fisher information; writes `expected.json` and figures.

    Args:
        folder: of the trained run.
        settings: where, at which luminosities, from how many events.
        reporter: told about progress.
        analysis: efficiency, background, nuisances; its luminosity is not used.
        simulated_paths: simulated events with exact morphing components; by default events are
            drawn from the surrogate.
        output: folder of the results; the run's own by default.

    Raises:
        ConfigurationError: a theta of another length or outside the training range, a surrogate
            that draws no events, several observations.
        MissingReference: no cross section, or simulated events without exact components.
    """
    reporter, analysis = reporter or Quiet(), analysis or AnalysisConfig()
    target = output_folder(folder, output, analysis)
    (run,) = load_runs(folder)
    theta = _theta(run, settings)
    events = asimov_events(run, theta, settings.events, analysis, simulated_paths, reporter)
    found = []
    with reporter.task(f"expected intervals ({run.config.shown_title})") as progress:
        for done, luminosity in enumerate(settings.luminosities):
            progress(done, len(settings.luminosities))
            here = _at(analysis, luminosity)
            found.append(_expectation(run, theta, events, here, reporter))
    for one in found:
        for words in (w for x in one.intervals.values() for w in x.warnings):
            reporter.warn(f"{one.luminosity:g} fb^-1: {words}")
    record = {
        **run.records,
        "theta": list(settings.theta),
        "events": len(events.signal),
        "source": "the surrogate" if events.pool is None else "simulated events",
        "analysis": analysis.model_dump(mode="json", by_alias=True),
        "expectations": [one.to_dict() for one in found],
    }
    write_text(target / "expected.json", json.dumps(record, indent=1) + "\n")
    _draw(run, theta, found, target / "figures")
    return RunExpected(tuple(found))


def _theta(run: TrainedRun, settings: ExpectedSettings) -> Array:
    """Return the parameters as numbers inside the training range, (p,)."""
    names, theta = run.surrogate.parameter_names, np.array(settings.theta, dtype=np.float64)
    low, high = run.surrogate.parameter_ranges.T
    if theta.shape != low.shape or not ((theta >= low) & (theta <= high)).all():
        message = (
            f"theta: expected {len(names)} numbers, {list(names)}, in the training range "
            f"{run.surrogate.parameter_ranges.round(3).tolist()}, got {list(settings.theta)}"
        )
        raise ConfigurationError(message)
    return theta


def _at(analysis: AnalysisConfig, luminosity: float) -> AnalysisConfig:
    """Return the analysis at another luminosity; the background's yield grows with it."""
    values = analysis.model_dump(by_alias=True, exclude_unset=True)
    if analysis.luminosity is not None and analysis.background is not None:
        assert analysis.background.yield_ is not None
        grown = analysis.background.yield_ * luminosity / analysis.luminosity
        values["background"] = {**values["background"], "yield": grown}
    return parse_analysis({**values, "luminosity": luminosity}, "analysis at this luminosity")


def _expectation(
    run: TrainedRun,
    theta: Array,
    events: AsimovEvents,
    analysis: AnalysisConfig,
    reporter: Reporter,
) -> Expectation:
    """Return what is expected at the luminosity of the analysis."""
    metadata = run.surrogate.record.metadata
    unweighted = build_observation(events.likelihood, metadata, analysis)
    try:
        weights = asimov_weights(events, unweighted, theta)
    except IntervalError:
        reporter.warn(
            f"{len(events.signal):,} events have not all that is rare and matters at this theta: "
            "widths are noisy; take more --events"
        )
        weights = asimov_weights(replace(events, curvatures=None), unweighted, theta)
    observation = build_observation(
        events.likelihood, metadata, analysis, weights=weights.all_events
    )
    model = statistical_model({MAIN: observation}, analysis, run.prior, run.config.mcmc.build())
    ranges = zip(
        run.surrogate.parameter_names, run.surrogate.parameter_ranges.tolist(), strict=True
    )
    limits = limits_of(model, {name: (low, high) for name, (low, high) in ranges})
    models = {LEARNED: model}
    assert analysis.luminosity is not None
    if events.pool is not None and analysis.is_signal_only:
        pool = EventPool(events.pool.sample, analysis.efficiency)
        exact = pool.asimov(theta, luminosity=analysis.luminosity)
        models[EXACT] = replace(model, likelihood=exact)
    near = dict(zip(run.surrogate.parameter_names, theta.tolist(), strict=True))
    found = {label: intervals_of_model(one, limits, near=near) for label, one in models.items()}
    contours = {label: _contours(models[label], one, limits) for label, one in found.items()}
    information = _information(run, theta, events, weights.signal, model, analysis)
    return Expectation(analysis.luminosity, found, contours, information)


def _contours(
    model: StatisticalModel, found: ModelIntervals, limits: Limits
) -> dict[tuple[str, str], tuple[Contour, ...]]:
    """Return the regions of pairs of parameters, in the windows where their profiles are low."""
    scans = {scan.parameters[0]: scan for scan in found.scans[:_CONTOURED]}
    likelihood = model.constrained_likelihood
    n_values = _VALUES if len(likelihood.parameter_names) == 2 else _FEWER
    contours = {}
    for pair in combinations(scans, 2):
        axes = [_window(scans[name], n_values) for name in pair]
        scan = profile(likelihood, pair, limits, maximum=found.maximum, axes=axes)
        contours[pair] = tuple(scan.contour(level) for level in LEVELS)
    return contours


def _window(scan: ProfileScan, n_values: int) -> Array:
    """Return values around where the profile is low, inside the scan."""
    axis = scan.axes[0]
    low = axis[scan.statistic < _WINDOW]
    margin = 0.05 * np.ptp(low)
    begin, end = max(low[0] - margin, axis[0]), min(low[-1] + margin, axis[-1])
    return np.linspace(begin, end, n_values)


def _information(
    run: TrainedRun,
    theta: Array,
    events: AsimovEvents,
    signal: Array,
    model: StatisticalModel,
    analysis: AnalysisConfig,
) -> dict[str, FisherInformation]:
    """Return the information of the signal's shape, its rate, both, and of the analysis."""
    names = tuple(run.surrogate.parameter_names)
    assert analysis.luminosity is not None
    sigma = CrossSection.from_metadata(run.surrogate.record.metadata)
    rate = RateModel(sigma, analysis.luminosity, analysis.efficiency)
    rng = np.random.default_rng(run.config.seed)
    one = score_information(names, events.scores, rng, weights=signal)
    shape = one.scaled(float(rate(theta[None])[0]))
    number = rate_information(rate, theta)
    found = {"shape": shape, "rate": number, BOTH: shape + number}
    if events.pool is not None:
        exact = score_information(names, events.pool.scores(theta), rng, weights=signal)
        found[EXACT_BOTH] = exact.scaled(float(rate(theta[None])[0])) + number
    if not analysis.is_signal_only:
        known = dict(zip(names, theta.tolist(), strict=True))
        point = [known.get(name, 0.0) for name in model.likelihood.parameter_names]
        whole = hessian_information(model.constrained_likelihood, point)
        found[ANALYSED] = whole.profiled(model.nuisances) if model.nuisances else whole
    return found


def _draw(run: TrainedRun, theta: Array, found: Sequence[Expectation], figures: Path) -> None:
    """Draw the contours of every pair of parameters, or the profile of the only one."""
    parameters = run.surrogate.record.metadata.parameters
    labels = {p.name: plots.parameter_label(p) for p in parameters}
    truth = dict(zip(labels, theta.tolist(), strict=True))
    first = found[0].intervals[LEARNED]
    names = [scan.parameters[0] for scan in first.scans]
    if len(names) == 1:
        scans = {
            f"{label}, {_title(one)}": x.scans
            for one in found
            for label, x in one.intervals.items()
        }
        figure = plots.profile_plot(scans, np.array([truth[names[0]]]), [labels[names[0]]])
        plots.save_figure(figure, figures / "expected.png")
    for pair in found[0].contours[LEARNED]:
        centre = np.array([truth[name] for name in pair])
        panels = {
            _title(one): plots.Regions(
                {label: regions[pair] for label, regions in one.contours.items()},
                {f"{k}, 68 %": (centre, x) for k, x in _of_pair(one, pair).items()},
            )
            for one in found
        }
        figure = plots.contour_plot(panels, centre, [labels[name] for name in pair])
        name = "expected" if len(names) == 2 else f"expected_{pair[0]}_{pair[1]}"
        plots.save_figure(figure, figures / f"{name}.png")


def _of_pair(one: Expectation, pair: tuple[str, str]) -> dict[str, FisherInformation]:
    """Return the information of everything in the analysis on two parameters, as far as known."""
    found = {}
    for label, information in one.whole_information.items():
        others = [name for name in information.parameter_names if name not in pair]
        reduced = information.profiled(others) if others else information
        if reduced.eigenvalues[-1] > _MEASURED * reduced.eigenvalues[0]:
            found[label] = reduced
    return found


def _title(one: Expectation) -> str:
    return f"{one.luminosity:g} fb$^{{-1}}$"
