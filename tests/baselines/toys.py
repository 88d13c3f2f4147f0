"""A linear Gaussian toy whose posteriors are known: x = A theta + noise, theta ~ N(0, 1)."""

import numpy as np

from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.events.metadata import ThetaSampling
from mflow_sbi.inference import NormalPrior
from mflow_sbi.interfaces import Array

NAMES = ("t0", "t1")
PRIOR = NormalPrior(NAMES, (0, 0), (1, 1))
MATRIX = np.array([[8.0, 4.0], [-3.0, 9.0]])
NOISE = np.array([12.0, 15.0])
CENTRE = np.array([50.0, -20.0])
SAMPLING = ThetaSampling("normal", mean=(0.0, 0.0), std=(1.0, 1.0))


def linear_events(
    thetas: int, seed: int, each: int = 1, sampling: ThetaSampling | None = SAMPLING
) -> EventSample:
    """Return `each` events at each of so many thetas ~ N(0, 1), GeV-like numbers."""
    rng = np.random.default_rng(seed)
    theta = np.repeat(rng.normal(size=(thetas, 2)), each, axis=0)
    return EventSample(x=events_at(theta, rng), theta=theta, metadata=metadata(sampling))


def metadata(sampling: ThetaSampling | None = SAMPLING) -> EventMetadata:
    return EventMetadata(
        process="toy",
        tree="events",
        layout="flat",
        parameters=tuple(Parameter(name) for name in NAMES),
        observables=tuple(Observable(name, name, "GeV") for name in "ab"),
        theta_sampling=sampling,
    )


def events_at(theta: Array, rng: np.random.Generator) -> Array:
    """Return one event per row of theta, (N, 2)."""
    return CENTRE + theta @ MATRIX.T + NOISE * rng.normal(size=theta.shape)


def log_density(x: Array, theta: Array) -> Array:
    """Return log p(x|theta) of rows, in the units of x, (N,)."""
    z = (x - CENTRE - theta @ MATRIX.T) / NOISE
    return -0.5 * np.square(z).sum(axis=1) - np.log(2 * np.pi * NOISE.prod())


def log_evidence(x: Array) -> Array:
    """Return log p(x) over theta ~ N(0, 1), (N,)."""
    covariance = MATRIX @ MATRIX.T + np.diag(NOISE**2)
    d = x - CENTRE
    square = np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)
    return -0.5 * square - 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))


def posterior_of(x: Array) -> tuple[Array, Array]:
    """Return mean and covariance of theta given a set of events."""
    precision = np.eye(2) + len(x) * MATRIX.T @ np.diag(NOISE**-2) @ MATRIX
    covariance = np.linalg.inv(precision)
    pull = MATRIX.T @ ((x - CENTRE).sum(axis=0) / NOISE**2)
    return np.asarray(covariance @ pull), np.asarray(covariance, dtype=np.float64)


class LinearLikelihood:
    """log L(theta) of a set of events of the toy."""

    parameter_names = NAMES

    def __init__(self, x: Array) -> None:
        self._x = x
        self.n_events = len(x)

    def __call__(self, theta: Array) -> Array:
        tiled = np.tile(self._x, (len(theta), 1))
        terms = log_density(tiled, np.repeat(theta, len(self._x), axis=0))
        return terms.reshape(len(theta), -1).sum(axis=1)
