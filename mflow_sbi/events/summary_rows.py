"""Parts of a file's summary as (name, value) rows of a table."""

from mflow_sbi.events.metadata import Benchmarks, EventMetadata, Parameter
from mflow_sbi.events.sample import EventSample, SelectionReport
from mflow_sbi.events.weights import WeightSummary
from mflow_sbi.events.wording import counted, listed

__all__ = ["benchmark_rows", "metadata_rows", "range_of", "report_rows", "weight_rows"]


def report_rows(report: SelectionReport) -> list[tuple[str, str]]:
    """Return events read, kept, dropped, and repeated."""
    rows = [("events read", f"{report.n_read:,}"), ("events kept", f"{report.n_kept:,}")]
    rows += [(f"dropped: {why}", f"{n:,}") for why, n in report.dropped.items()]
    rows += [
        (f"objects not counted: not {why}", f"{n:,}") for why, n in report.dropped_objects.items()
    ]
    if report.duplicates:
        text = f"{counted(report.duplicates, 'event')} that repeat another in every number"
        rows.append(("duplicates", text))
    return rows


def weight_rows(sample: EventSample) -> list[tuple[str, str]]:
    """Return sum, negative share and effective size of the weights of the events kept."""
    if sample.weight is None or not len(sample):
        return []
    summary = WeightSummary.of(sample.weight)
    rows = [("sum of weights", f"{sample.weight.sum():.6g} (events kept)")]
    before = sample.metadata.sum_of_weights_before_selection
    rows += [] if before is None else [("sum of weights before selection", f"{before:.6g}")]
    n_negative = int((sample.weight < 0).sum())
    if n_negative:
        rows.append(("negative weights", f"{n_negative:,} ({summary.negative_share:.2%})"))
    share = summary.n_effective / summary.n_events
    return [*rows, ("effective events", f"{summary.n_effective:,.1f} ({share:.2%})")]


def benchmark_rows(benchmarks: Benchmarks | None, sample: EventSample) -> list[tuple[str, str]]:
    """Return the benchmarks, and the sum of the weights of each."""
    if benchmarks is None or sample.benchmark_weight is None:
        return []
    n = sample.benchmark_weight.shape[1]
    names = benchmarks.names or tuple(map(str, range(n)))
    known = "" if benchmarks.theta else ", at parameters that the file does not tell"
    sums = [
        f"{name}: {total:.4g}"
        for name, total in zip(names, sample.benchmark_weight.sum(axis=0), strict=True)
    ]
    return [("benchmark weights", f"{n} ({benchmarks.branch}){known}; sums {listed(sums)}")]


def range_of(parameter: Parameter) -> str:
    """Return the range of a parameter with its unit and meaning."""
    unit = "" if parameter.unit == "1" else f" {parameter.unit}"
    about = f"  ({parameter.description})" if parameter.description else ""
    if parameter.low is None or parameter.high is None:
        return f"range unknown{about}"
    return f"{parameter.low:.4g} .. {parameter.high:.4g}{unit}{about}"


def metadata_rows(record: EventMetadata | None) -> list[tuple[str, str]]:
    """Return what the record tells of the events."""
    if record is None:
        return [("metadata", "no readable record (a file of another program?)")]
    rows = [("process", record.process)]
    if record.simulator is not None:
        settings = ", ".join(f"{key}={value}" for key, value in record.simulator.settings.items())
        name = f"{record.simulator.name} {record.simulator.version}".strip()
        rows.append(("simulator", f"{name} ({settings})" if settings else name))
    rows += [("command", record.command)] if record.command else []
    rows += [("seed", str(record.seed))] if record.seed is not None else []
    if record.theta_sampling is not None:
        parts = [
            f"{key} {value}"
            for key, value in vars(record.theta_sampling).items()
            if value is not None and key != "kind"
        ]
        rows.append(("theta sampling", f"{record.theta_sampling.kind}: {', '.join(parts)}"))
    if record.morphing is not None:
        rows.append(
            ("likelihood", f"{record.morphing.likelihood}, {len(record.morphing.exponents)} terms")
        )
    return rows
