"""What leaves Pythia: all of the momentum, two photons of the Higgs boson, the right events."""

import awkward as ak
import numpy as np
import pytest

from simulators.chain.shower import (
    Shower,
    batches_of,
    prepared_pythia,
    pythia_seed,
    stable_particles,
)
from simulators.errors import ChainError
from simulators.wbf.full_chain import PYTHIA


def test_momentum_and_charge_are_conserved(showered, partons):
    rows, particles = showered
    assert rows.tolist() == list(range(len(partons)))
    np.testing.assert_allclose(particles.total("energy"), 13000, rtol=1e-5)
    for name in ("px", "py", "pz"):
        np.testing.assert_allclose(particles.total(name), 0, atol=0.05)


def test_every_event_is_the_one_of_its_partons(showered, partons):
    """Two photons make the Higgs boson, whose rapidity the recoil of the shower hardly moves."""
    _, particles = showered
    higgs = partons.momenta[:, 4]
    expected = np.arctanh(higgs[:, 3] / higgs[:, 0])
    found = np.full(len(partons), np.nan)
    for number in range(len(partons)):
        one = slice(particles.offsets[number], particles.offsets[number + 1])
        photons = particles["pid"][one] == 22
        four = np.stack([particles[k][one][photons] for k in ("energy", "px", "py", "pz")])
        i, j = np.triu_indices(four.shape[1], 1)
        pair = four[:, i] + four[:, j]
        mass2 = pair[0] ** 2 - (pair[1:] ** 2).sum(axis=0)
        best = np.argmin(np.abs(mass2 - 125.0**2)) if mass2.size else None
        if best is not None and abs(mass2[best] - 125.0**2) < 1.0:
            found[number] = np.arctanh(pair[3, best] / pair[0, best])
    clear = np.isfinite(found)
    assert clear.mean() > 0.8  # the others have lost a photon to e+ e-
    assert np.corrcoef(found[clear], expected[clear])[0, 1] > 0.97


def test_batches_do_not_matter_and_seeds_do(lhe_file, showered):
    def energies(shower, batch):
        parts = list(stable_particles(lhe_file, 30, shower, batch))
        return np.concatenate([particles["energy"] for _, particles in parts])

    _, particles = showered
    again = energies(Shower(3, commands=PYTHIA), 7)
    np.testing.assert_array_equal(again, particles["energy"][: particles.offsets[30]])
    other = energies(Shower(4, commands=PYTHIA), 7)
    assert other.shape != again.shape or (other != again).any()


def test_unknown_settings_and_missing_events_are_refused(lhe_file):
    with pytest.raises(ChainError, match="does not know the setting 'Beams:colour"):
        next(stable_particles(lhe_file, 5, Shower(1, commands=("Beams:colour = red",))))
    with pytest.raises(ChainError, match="made none of the events 60 to 69"):
        list(stable_particles(lhe_file, 70, Shower(1), batch=60))


class GivesUpTheLast:
    """A Pythia that gives up the last events, by chance."""

    def __init__(self, pythia, n_made):
        self.pythia, self.n_left = pythia, n_made

    def nextBatch(self, n, mode):  # noqa: N802 - Pythia's own name
        self.n_left -= n
        return ak.Array([None] * n) if self.n_left < 0 else self.pythia.nextBatch(n, mode)


def test_a_short_batch_that_pythia_gives_up_ends_no_run(lhe_file):
    def rows(n_events, n_made):
        pythia = GivesUpTheLast(prepared_pythia(lhe_file, Shower(3)), n_made)
        return np.concatenate([found for found, _ in batches_of(pythia, n_events, 10)])

    np.testing.assert_array_equal(rows(11, 10), np.arange(10))
    with pytest.raises(ChainError, match="made none of the events 10 to 14"):
        rows(15, 10)
    with pytest.raises(ChainError, match="made none of the events 0 to 0"):
        rows(1, 0)


def test_seeds_are_in_the_range_of_pythia():
    seeds = [pythia_seed(np.random.SeedSequence(i)) for i in range(50)]
    assert 1 <= min(seeds) < max(seeds) <= 900_000_000
    assert len(set(seeds)) == 50
