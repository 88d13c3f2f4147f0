"""A tiny writer of event files, independent of the simulators."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

PARAMETERS = ("CWL2", "CPWL2")
EXPONENTS = [[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]]


def jagged(values, counts):
    return ak.unflatten(np.asarray(values), np.asarray(counts))


def objects(rng, counts, name, last):
    """Kinematics in float32, leading pT first."""
    counts = np.asarray(counts)
    pt = jagged(rng.exponential(60, counts.sum()) + 15, counts)
    pt = ak.flatten(ak.sort(pt, ascending=False)).to_numpy().astype("f4")
    eta = rng.normal(0, 1.3, counts.sum()).clip(-4.5, 4.5).astype("f4")
    phi = rng.uniform(-np.pi, np.pi, counts.sum()).astype("f4")
    wide = pt.astype("f8")
    fourth = {"E": wide * np.cosh(eta.astype("f8")), "Mass": 4.5 + 0.08 * wide}[last]
    columns = {"PT": pt, "Eta": eta, "Phi": phi, last: fourth.astype("f4")}
    return {f"{name}.{key}": jagged(value, counts) for key, value in columns.items()}


def make_branches(n, seed=0, most=4, least=2):
    rng = np.random.default_rng(seed)
    branches = {
        **objects(rng, rng.integers(least, most + 1, n), "Photon", "E"),
        **objects(rng, rng.integers(least, most + 1, n), "Jet", "Mass"),
        "Event.Weight": jagged(np.ones(n, "f4"), np.ones(n, int)),
        "Weight.Weight": jagged(rng.uniform(1, 2, 6 * n), np.full(n, 6)),
    }
    for prefix in ("theta.", "score."):
        for name in PARAMETERS:
            branches[prefix + name] = rng.normal(size=n)
    return branches


def make_record(n, **changes):
    record = {
        "format": "mflow_sbi.events",
        "format_version": 1,
        "process": "wbf_h_aa",
        "tree": "Delphes",
        "layout": "delphes",
        "simulator": {"name": "wbf", "version": "0.1.0", "settings": {"channel": "ud"}},
        "command": "python -m simulators wbf",
        "seed": 1,
        "parameters": [
            {"name": name, "unit": "1", "low": -5, "high": 5, "description": ""}
            for name in PARAMETERS
        ],
        "theta_sampling": {"kind": "normal", "mean": [0, 0], "std": [1, 1]},
        "n_events": n,
        "sum_of_weights": float(n),
        "sum_of_weights_before_selection": 3.0 * n,
        "morphing": {
            "branch": "Weight.Weight",
            "exponents": [list(row) for row in EXPONENTS],
            "cross_section": [1.0, -0.5, 0.0, 2.0, 0.0, 2.0],
            "cross_section_error": [0.01] * 6,
            "likelihood": "exact",
            "measure": "pole chart",
        },
        "observables": [],
    }
    return record | changes


def write_file(path, branches, record=None, tree="Delphes"):
    """Write branches; jagged ones of one prefix share a counter where their lengths agree."""
    columns = {}
    for name, values in branches.items():
        prefix, _, field = name.partition(".")
        is_list = isinstance(values, ak.Array) and values.ndim == 2
        if not (is_list and field):
            columns[name] = values if is_list else np.asarray(values)
            continue
        group = columns.setdefault(prefix, {})
        same = not group or bool(ak.all(ak.num(next(iter(group.values()))) == ak.num(values)))
        if same:
            group[field] = values
        else:
            columns[name] = values
    columns = {k: ak.zip(v) if isinstance(v, dict) else v for k, v in columns.items()}
    types = {k: v.type if isinstance(v, ak.Array) else v.dtype for k, v in columns.items()}
    with uproot.recreate(path) as file:
        written = file.mktree(
            tree,
            types,
            counter_name=lambda counted: counted + "_size",
            field_name=lambda outer, inner: f"{outer}.{inner}",
        )
        if len(next(iter(columns.values()))):
            written.extend(columns)
        if record is not None:
            file["mflow_sbi"] = record if isinstance(record, str) else json.dumps(record)
    return Path(path)


@pytest.fixture(scope="session")
def branches_of():
    return make_branches


@pytest.fixture(scope="session")
def record_of():
    return make_record


@pytest.fixture(scope="session")
def write():
    return write_file


@pytest.fixture(scope="session")
def good_file(tmp_path_factory):
    """500 complete events with the full record."""
    path = tmp_path_factory.mktemp("events") / "good.root"
    return write_file(path, make_branches(500), make_record(500))
