"""Posterior draws as ArviZ InferenceData: build, save, load, summarise.  The only arviz door.

Groups: `posterior` (one variable per parameter), `sample_stats` (lp, acceptance), `observed_data`
(what the likelihood was given) and `constant_data` (the prior).  Every walker is one ArviZ chain;
the coordinate `ensemble` says which walkers belong together (each chain its own where there are
none).  Records are JSON in the attributes.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.special import ndtr

from mflow_sbi.errors import EventFileError, ShapeError
from mflow_sbi.inference.points import as_points
from mflow_sbi.interfaces import Array

if TYPE_CHECKING:
    from arviz import InferenceData
else:
    InferenceData = Any  # in annotations only: arviz, and matplotlib with it, is imported late

__all__ = [
    "Diagnostics",
    "InferenceData",
    "PosteriorSummary",
    "build_posterior",
    "diagnostics_of",
    "draws_of",
    "effective_draws",
    "load_posterior",
    "rank_r_hat",
    "save_posterior",
    "summarise",
]

LEVELS = (float(ndtr(1.0) - ndtr(-1.0)), 0.95)


def _arviz() -> ModuleType:
    """Return arviz, imported at its first use: it takes seconds and brings matplotlib."""
    with warnings.catch_warnings():
        # arviz 0.2x announces version 1 with a FutureWarning on import; the dependency is capped.
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
        import arviz
    return arviz


@dataclass(frozen=True)
class Diagnostics:
    """Whether the draws can be trusted.  What a sampler does not have is empty or None.

    Args:
        r_hat: rank-normalised split R-hat per parameter, each ensemble one chain.
        effective_draws: how many independent draws the draws are worth, per parameter.
        autocorrelation_steps: integrated autocorrelation time per parameter, steps.
        acceptance: accepted share of the proposals, per ensemble.
        evaluated_points: parameter points at which the likelihood was evaluated.
        evaluated_outside_training_range: those where the surrogate extrapolates.
        draws_outside_training_range: share of the kept draws there.
        complaints: in words, whatever fails; empty when converged.
        cautions: in words, what to know although the draws have converged.
        missed_share: posterior mass, by prior draws, where no draw came near.
        log_evidence: log of the integral of L p, up to the constant of the likelihood.
        log_evidence_error: its standard error.
        divergences: kept draws whose trajectory failed.
    """

    r_hat: tuple[float, ...]
    effective_draws: tuple[float, ...]
    autocorrelation_steps: tuple[float, ...] = ()
    acceptance: tuple[float, ...] = ()
    evaluated_points: int | None = None
    evaluated_outside_training_range: int | None = None
    draws_outside_training_range: float | None = None
    complaints: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    missed_share: float | None = None
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    divergences: int | None = None

    @property
    def converged(self) -> bool:
        """Whether there is nothing to complain about."""
        return not self.complaints


@dataclass(frozen=True)
class PosteriorSummary:
    """The posterior in numbers; `level` is 0.683 (one standard deviation) or 0.95.

    Args:
        parameter_names: the p names.
        mean: posterior means, (p,), in units of the parameters.
        std: posterior standard deviations, (p,).
        mean_error: Monte Carlo standard error of the means, std / sqrt(effective draws), (p,).
        correlation: (p, p).
        intervals: level -> central credible interval of every parameter, (p, 2).
        density_levels: level -> log posterior (unnormalised, as `lp`) on the border of the
            highest-density region.
    """

    parameter_names: tuple[str, ...]
    mean: Array
    std: Array
    mean_error: Array
    correlation: Array
    intervals: Mapping[float, Array]
    density_levels: Mapping[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-ready values."""
        return {
            "parameter_names": list(self.parameter_names),
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "mean_error": self.mean_error.tolist(),
            "correlation": self.correlation.tolist(),
            "intervals": {f"{level:.3f}": box.tolist() for level, box in self.intervals.items()},
            "density_levels": {f"{level:.3f}": v for level, v in self.density_levels.items()},
        }


def build_posterior(
    parameter_names: Sequence[str],
    draws: Array,
    log_posterior: Array,
    diagnostics: Diagnostics,
    prior: Mapping[str, Any],
    observed: Mapping[str, Array],
    attributes: Mapping[str, Any],
    statistics: Mapping[str, Array] | None = None,
) -> InferenceData:
    """Return InferenceData of independent ensembles.

    Args:
        parameter_names: the p names.
        draws: (ensembles, steps, walkers, p).
        log_posterior: unnormalised log posterior of the draws, (ensembles, steps, walkers).
        diagnostics: stored as the attribute `diagnostics`.
        prior: the prior's plain record; numbers go to `constant_data`, all to an attribute.
        observed: arrays with one row per observed event, (N, ...).
        attributes: recipe, seed, digests, version...; anything but text and numbers as JSON.
        statistics: further numbers of each draw, (ensembles, steps, walkers), by name.
    """
    ensembles, steps, walkers, _ = draws.shape
    coords = {
        "chain": np.arange(ensembles * walkers),
        "draw": np.arange(steps),
        "ensemble": ("chain", np.repeat(np.arange(ensembles), walkers)),
    }
    by_chain = draws.transpose(3, 0, 2, 1).reshape(len(parameter_names), -1, steps)
    posterior = xr.Dataset(
        {name: (("chain", "draw"), by_chain[k]) for k, name in enumerate(parameter_names)}, coords
    )
    per_draw = {"lp": log_posterior, **(statistics or {})}
    sample_stats = xr.Dataset(
        {
            name: (("chain", "draw"), values.transpose(0, 2, 1).reshape(-1, steps))
            for name, values in per_draw.items()
        },
        coords,
    )
    if diagnostics.acceptance:
        sample_stats["acceptance"] = ("chain", np.repeat(diagnostics.acceptance, walkers))
    groups = {
        "posterior": posterior,
        "sample_stats": sample_stats,
        "constant_data": _constants(parameter_names, prior),
    }
    if observed:
        groups["observed_data"] = _observed(observed)
    records = {**attributes, "prior": dict(prior), "diagnostics": asdict(diagnostics)}
    result = _arviz().InferenceData(attrs=_plain(records))
    result.add_groups(groups)
    return result


def _constants(parameter_names: Sequence[str], prior: Mapping[str, Any]) -> xr.Dataset:
    """Return those entries of a prior's record that are one number (or none) per parameter."""
    columns = {}
    for name, values in prior.items():
        if name != "parameter_names" and isinstance(values, list):
            known = [np.nan if value is None else value for value in values]
            if np.shape(known) == (len(parameter_names),) and _are_numbers(known):
                columns[f"prior_{name}"] = ("parameter", np.asarray(known, dtype=np.float64))
    return xr.Dataset(columns, {"parameter": list(parameter_names)})


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _observed(arrays: Mapping[str, Array]) -> xr.Dataset:
    """Return arrays with one row per event; those of other events get dimensions of their own."""
    sizes = {len(rows) for rows in arrays.values()}
    return xr.Dataset(
        {
            name: (
                (
                    "event" if len(sizes) == 1 else f"{name}_event",
                    *(f"{name}_dim_{k}" for k in range(1, np.ndim(rows))),
                ),
                rows,
            )
            for name, rows in arrays.items()
        }
    )


def save_posterior(posterior: InferenceData, path: Path | str) -> Path:
    """Write NetCDF beside, then rename; return the path."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.partial")
    try:
        posterior.to_netcdf(str(beside), engine="h5netcdf")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target


def load_posterior(path: Path | str) -> InferenceData:
    """Read a file written by `save_posterior`, wholly into memory.

    Raises:
        EventFileError: there is no such file, or it is not a NetCDF file with a posterior group.
    """
    source = Path(path)
    if not source.is_file():
        message = f"{source}: expected a posterior (NetCDF), found no such file"
        raise EventFileError(message)
    try:
        with _arviz().rc_context({"data.load": "eager"}):
            posterior = _arviz().from_netcdf(str(source), engine="h5netcdf")
    except (OSError, ValueError) as error:
        message = f"{source}: expected a posterior (NetCDF), cannot read it: {error}"
        raise EventFileError(message) from error
    if "posterior" not in posterior.groups():
        message = f"{source}: expected a group 'posterior', found {posterior.groups()}"
        raise EventFileError(message)
    return posterior


def draws_of(posterior: InferenceData, names: Sequence[str] | None = None) -> Array:
    """Return all draws, (S, p), parameters in the order of `names` or as stored."""
    group = posterior["posterior"]
    wanted = list(group.data_vars) if names is None else list(names)
    missing = [name for name in wanted if name not in group.data_vars]
    if missing:
        message = f"posterior: expected parameters among {list(group.data_vars)}, got {missing}"
        raise ShapeError(message)
    return np.stack([group[name].to_numpy().ravel() for name in wanted], axis=1)


def diagnostics_of(posterior: InferenceData) -> Diagnostics:
    """Return the diagnostics stored with a posterior."""
    record: dict[str, Any] = json.loads(posterior.attrs["diagnostics"])
    tupled: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return Diagnostics(**tupled)


def rank_r_hat(chains: Array) -> float:
    """Return the rank-normalised split R-hat of one parameter, (chain, draw) -> float.

    References:
        Rank-normalization, folding, and localization (Vehtari et al., 2021), arXiv:1903.08008.
    """
    return float(_arviz().rhat(chains, method="rank"))


def effective_draws(chains: Array) -> float:
    """Return the effective number of draws for the mean of one parameter, (chain, draw) -> float.

    References:
        Rank-normalization, folding, and localization (Vehtari et al., 2021), arXiv:1903.08008.
    """
    return float(_arviz().ess(chains, method="mean"))


def summarise(posterior: InferenceData) -> PosteriorSummary:
    """Return means, widths, correlation, credible intervals and highest-density levels."""
    names = tuple(str(name) for name in posterior["posterior"].data_vars)
    draws = as_points(draws_of(posterior), len(names))
    lp = posterior["sample_stats"]["lp"].to_numpy().ravel()
    std = draws.std(axis=0, ddof=1)
    effective = np.asarray(diagnostics_of(posterior).effective_draws)
    return PosteriorSummary(
        parameter_names=names,
        mean=draws.mean(axis=0),
        std=std,
        mean_error=std / np.sqrt(effective),
        correlation=np.atleast_2d(np.corrcoef(draws, rowvar=False)),
        intervals={
            level: np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0).T
            for level in LEVELS
        },
        density_levels={level: float(np.quantile(lp, 1 - level)) for level in LEVELS},
    )


def _plain(records: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return attribute values that NetCDF can hold."""
    return {
        name: value
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        else json.dumps(value)
        for name, value in records.items()
    }
