"""A few events of our own partons, in a file and out of Pythia, shared by tests of rooms."""

import numpy as np
import pytest

from simulators.chain.jagged import Jagged
from simulators.chain.lhe import write_lhe
from simulators.chain.shower import Shower, stable_particles
from simulators.wbf.full_chain import PYTHIA
from simulators.wbf.parton_events import generate_parton_events, lhe_events

N_EVENTS = 60


@pytest.fixture(scope="session")
def partons():
    rng = np.random.default_rng(21)
    return generate_parton_events(rng.standard_normal((N_EVENTS, 2)), rng, "full", "tuned")


@pytest.fixture(scope="session")
def lhe_file(partons, tmp_path_factory):
    path = tmp_path_factory.mktemp("lhe") / "partons.lhe"
    write_lhe(path, lhe_events(partons, "full", "tuned"))
    return path


@pytest.fixture(scope="session")
def showered(lhe_file):
    """Rows and stable particles of all events, in batches of 25."""
    parts = list(stable_particles(lhe_file, N_EVENTS, Shower(3, commands=PYTHIA), batch=25))
    rows, particles = zip(*parts, strict=True)
    return np.concatenate(rows), Jagged.concatenate(list(particles))


@pytest.fixture(scope="session")
def gun():
    """N events of one particle each: pid, pT, eta, mass -> particles."""

    def build(n, pid, pt, eta, mass=0.0):
        phi = np.random.default_rng(4).uniform(-np.pi, np.pi, n)
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), np.full(n, pt * np.sinh(eta))
        energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
        columns = {"px": px, "py": py, "pz": pz, "energy": energy}
        columns["pid"] = np.full(n, pid, dtype=np.int32)
        return Jagged(np.arange(n + 1), columns)

    return build
