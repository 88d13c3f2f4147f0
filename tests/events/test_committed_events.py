"""The committed simulated events lie on the surface of physical events."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from mflow_sbi.events import CLOSURE_TERMS, WBF_OBSERVABLES, closure_violations, read_events

TRAIN = Path(__file__).parents[2] / "data" / "wbf_tuned_train_small.root"
INDEX = {observable.name: k for k, observable in enumerate(WBF_OBSERVABLES)}


@pytest.fixture(scope="module")
def x():
    return read_events(TRAIN).x


def relative_violations(x):
    """|v_i| / |left-hand side of constraint i|, (N, 26); pseudorapidities at least 1."""
    left = [INDEX[term.name.split()[0].strip("|")] for term in CLOSURE_TERMS]
    size = np.abs(x[:, left])
    pseudo = ["eta" in term.name.split()[0] for term in CLOSURE_TERMS]
    size[:, pseudo] = np.maximum(size[:, pseudo], 1.0)
    sums = [k for k, term in enumerate(CLOSURE_TERMS) if term.name.count(" - ") == 2]
    for k in sums:  # of large numbers that may cancel
        parts = [INDEX[name.strip("|")] for name in CLOSURE_TERMS[k].name.split(" - ")[1:]]
        size[:, k] = np.maximum(size[:, k], np.abs(x[:, parts]).max(axis=1))
    return closure_violations(x) / size


def test_all_26_constraints_hold_to_1e_6_relative(x):
    worst = relative_violations(x).max(axis=0)
    assert len(worst) == 26
    assert worst.max() < 1e-6


@pytest.mark.parametrize("name", ["pt_a1", "e_jj", "pz_aa", "eta_j2", "m_jj"])
def test_one_part_in_a_thousand_is_seen(x, name):
    moved = x[:500].copy()
    moved[:, INDEX[name]] *= 1.001
    assert relative_violations(moved).max() > 1e-5


def test_the_energies_in_the_file_are_those_of_massless_photons(x):
    tree: Any = uproot.open(f"{TRAIN}:Delphes")
    energy = np.array(tree["Photon.E"].array().tolist())
    np.testing.assert_allclose(x[:, [INDEX["e_a1"], INDEX["e_a2"]]], energy, rtol=1e-6)
