"""Features: parities as declared, no azimuth, float64 where differences are taken."""

import numpy as np
import pytest
import torch

from mflow_sbi.densities import KinematicFeatures, ObservableFeatures
from mflow_sbi.densities.kinematics import find_objects
from mflow_sbi.errors import ConfigurationError

OBJECTS = ("a", "b", "c")
NAMES = tuple(f"{k}_{o}" for o in (*OBJECTS, "ab") for k in ("e", "px", "py", "pz"))


def _events(n: int = 400) -> np.ndarray:
    """Return e, px, py, pz of a (massless), b, c and the sum of a and b, GeV."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=(n, 3, 3)) * [80, 80, 300]
    mass = np.array([0.0, 10, 60]) * rng.uniform(0.5, 1.5, size=(n, 3))
    e = np.sqrt((p**2).sum(axis=-1) + mass**2)
    momenta = np.concatenate([e[..., None], p], axis=-1)
    return np.concatenate([momenta, momenta[:, :1] + momenta[:, 1:2]], axis=1).reshape(n, -1)


MEAN, STD = _events().mean(axis=0), _events().std(axis=0)


def _standardised(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((x - MEAN) / STD)


def _features() -> KinematicFeatures:
    x = _standardised(_events())
    features = KinematicFeatures.for_objects(OBJECTS, NAMES, MEAN, STD, x)
    signs = np.array([features.reflection_signs(), features.exchange_signs()])
    return features.fit(x, torch.from_numpy((signs < 0).any(axis=0)))


def _flipped(x: np.ndarray, *components: str) -> np.ndarray:
    signs = [-1.0 if name.split("_")[0] in components else 1.0 for name in NAMES]
    return x * signs


def _moved(transformed: np.ndarray) -> torch.Tensor:
    return _features()(_standardised(transformed)).double()


def test_rotations_about_the_beam_change_nothing():
    x = _events()
    turned = x.reshape(len(x), 4, 4).copy()
    angle = np.linspace(-3, 3, len(x))[:, None]
    c, s = np.cos(angle), np.sin(angle)
    turned[..., 1], turned[..., 2] = (
        c * turned[..., 1] - s * turned[..., 2],
        s * turned[..., 1] + c * turned[..., 2],
    )
    here = _moved(x)
    torch.testing.assert_close(_moved(turned.reshape(len(x), -1)), here, atol=1e-5, rtol=1e-5)
    assert here.std(dim=0).count_nonzero() >= here.shape[1] - 1  # all but the photon's mass


@pytest.mark.parametrize(
    ("signs_of", "components"),
    [("reflection_signs", ("py",)), ("exchange_signs", ("py", "pz"))],
)
def test_symmetries_are_signs(signs_of, components):
    x = _events()
    signs = torch.tensor(getattr(_features(), signs_of)())
    assert (signs < 0).any()
    torch.testing.assert_close(
        _moved(_flipped(x, *components)), _moved(x) * signs, atol=1e-5, rtol=1e-5
    )


def test_boosts_along_the_beam_shift_rapidities_alike():
    x = _events()
    boosted = x.reshape(len(x), 4, 4).copy()
    e, pz = boosted[..., 0].copy(), boosted[..., 3].copy()
    boosted[..., 0] = np.cosh(0.7) * e + np.sinh(0.7) * pz
    boosted[..., 3] = np.cosh(0.7) * pz + np.sinh(0.7) * e
    features = _features()
    difference = features.raw(_standardised(boosted.reshape(len(x), -1))) - features.raw(
        _standardised(x)
    )
    moved = difference.abs().amax(dim=0) > 1e-6
    assert int(moved.sum()) == 4  # three objects and the system
    torch.testing.assert_close(difference[:, moved], torch.full_like(difference[:, moved], 0.7))


def test_sums_are_not_objects_and_massless_ones_have_no_mass():
    assert find_objects(NAMES, _events()) == OBJECTS
    assert _features().massive.tolist() == [False, True, True]


def test_missing_momenta_are_refused():
    x = _standardised(_events())
    with pytest.raises(ConfigurationError, match="e_jet"):
        KinematicFeatures.for_objects(("a", "jet"), NAMES, MEAN, STD, x)


def test_observable_features_are_odd_where_observables_are():
    rng = np.random.default_rng(1)
    x = np.stack([rng.exponential(size=300) + 1e-3, rng.normal(size=300)], axis=1)
    mean, std = x.mean(axis=0), x.std(axis=0)

    def standardised(events: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((events - mean) / std)

    features = ObservableFeatures.for_observables(standardised(x), mean, std)
    signs = torch.tensor(features.signs([1]))
    features.fit(standardised(x), signs < 0)
    here, there = features(standardised(x)), features(standardised(x * [1, -1]))
    torch.testing.assert_close(there, here * signs, atol=1e-5, rtol=1e-5)
    assert features.positive.tolist() == [True, False]
    assert 0.9 < float(here.square().mean()) < 1.1


def test_saved_numbers_rebuild_the_features():
    x = _standardised(_events())
    again = KinematicFeatures(3)
    again.load_state_dict(_features().state_dict())
    assert torch.equal(again(x), _features()(x))
