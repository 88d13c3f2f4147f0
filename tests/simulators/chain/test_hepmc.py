"""HepMC files: stable particles, units, weights as pyhepmc wrote them; bad files are refused."""

import gzip

import numpy as np
import pyhepmc
import pytest

from simulators.chain.hepmc import read_hepmc
from simulators.errors import InputFileError

NAMES = ["nominal", "up"]


def event(number, unit=pyhepmc.Units.GEV, factor=1.0, *, named=True, stable=True):
    """One unstable particle, a photon pair, and a pi+."""
    found = pyhepmc.GenEvent(unit, pyhepmc.Units.MM)
    if named:
        run = pyhepmc.GenRunInfo()
        run.weight_names = NAMES
        found.run_info = run
    found.event_number = number
    vertex = pyhepmc.GenVertex()
    vertex.add_particle_in(pyhepmc.GenParticle((0, 0, 0, 125 * factor), 25, 2))
    for four, pid in (((30, 40, 0, 50), 22), ((-30, -40, 0, 50), 22), ((1, number, 3, 9), 211)):
        momentum = tuple(factor * component for component in four)
        vertex.add_particle_out(pyhepmc.GenParticle(momentum, pid, 1 if stable else 2))
    found.add_vertex(vertex)
    found.weights = [2.0 + number, -1.0] if named else [2.0 + number]
    return found


def write(path, events):
    with pyhepmc.open(path, "w") as file:
        for one in events:
            file.write(one)
    return path


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.hepmc3", [event(i) for i in range(5)])


def test_stable_particles_and_weights_in_batches(small):
    batches = list(read_hepmc(small, batch=2))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert {batch.names for batch in batches} == {tuple(NAMES)}
    for batch in batches:
        assert batch.particles.counts.tolist() == [3] * len(batch.rows)
        assert batch.particles["pid"].tolist() == [22, 22, 211] * len(batch.rows)
        np.testing.assert_allclose(batch.particles["py"][2::3], batch.rows)
        np.testing.assert_allclose(batch.weights[:, 0], 2.0 + batch.rows)
        np.testing.assert_allclose(batch.weights[:, 1], -1.0)


def test_compressed_files(small, tmp_path):
    packed = tmp_path / "small.hepmc3.gz"
    packed.write_bytes(gzip.compress(small.read_bytes()))
    (batch,) = read_hepmc(packed)
    assert len(batch.particles) == 5


def test_mev_become_gev(tmp_path):
    path = write(tmp_path / "mev.hepmc3", [event(1, pyhepmc.Units.MEV, 1000.0)])
    (batch,) = read_hepmc(path)
    np.testing.assert_allclose(batch.particles["energy"], [50, 50, 9])


def test_weights_without_names_are_numbered(tmp_path):
    (batch,) = read_hepmc(write(tmp_path / "plain.hepmc3", [event(1, named=False)]))
    assert len(batch.names) == 1
    assert batch.weights.tolist() == [[3.0]]


def truncated(path, text):
    path.write_text(text[: len(text) // 2])


def damaged(path, text):
    path.write_text(text.replace("P 2 ", "P x ", 1))


BAD = {
    "truncated": (truncated, "truncated"),
    "empty": (lambda path, _: path.write_text(""), "no HepMC file"),
    "lhe": (lambda path, _: path.write_text("<LesHouchesEvents>\n"), "no HepMC file"),
    "absent": (lambda path, _: None, "does not exist"),
    "a folder": (lambda path, _: path.mkdir(), "is a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(case, small, tmp_path):
    spoil, message = BAD[case]
    path = tmp_path / "bad.hepmc3"
    spoil(path, small.read_text())
    with pytest.raises(InputFileError, match=message):
        list(read_hepmc(path))


def test_events_without_stable_particles_are_refused(tmp_path):
    path = write(tmp_path / "partons.hepmc3", [event(0), event(1, stable=False)])
    with pytest.raises(InputFileError, match="event 1 has no stable particle"):
        list(read_hepmc(path))
