"""A toy effective theory whose densities are known: sigma p(x|theta) = N(x; 0, 1) |a(x) . phi|^2.

Amplitudes a(x) . phi(theta) with phi = (1, theta_0, theta_1): two interfere, one does not.
"""

import numpy as np
import torch

from mflow_sbi.densities import MorphingRatio, MorphingShape, SymmetryGroup
from mflow_sbi.events import EventMetadata, EventSample, Observable, Parameter
from mflow_sbi.events.metadata import Morphing
from mflow_sbi.interfaces import Array

EXPONENTS = np.array([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]])
QUARTIC = np.array([[0], [1], [2], [3], [4]])


def components(x: Array) -> Array:
    """Return c_k / N(x; 0, 1) of Q = a a^T + b b^T, a = (1, x_0, x_1 / 2), b = (0, 1/2, x_1)."""
    one, zero = np.ones(len(x)), np.zeros(len(x))
    a = np.stack([one, x[:, 0], 0.5 * x[:, 1]], axis=1)
    b = np.stack([zero, 0.5 * one, x[:, 1]], axis=1)
    q = a[:, :, None] * a[:, None] + b[:, :, None] * b[:, None]
    return np.stack(
        [
            q[:, 0, 0],
            2 * q[:, 0, 1],
            2 * q[:, 0, 2],
            q[:, 1, 1],
            2 * q[:, 1, 2],
            q[:, 2, 2],
        ],
        axis=1,
    )


CROSS_SECTION = np.array([1.0, 0.0, 0.0, 1.25, 0.0, 1.25])
"""int N c_k dx: x_0 and x_1 have mean 0 and variance 1."""


def monomials(theta: Array) -> Array:
    return np.prod(theta[:, None] ** EXPONENTS, axis=2)


def toy_events(n: int, seed: int, std: float = 1.0) -> EventSample:
    """Return n events at theta ~ N(0, std^2), drawn by rejection, with their components."""
    rng = np.random.default_rng(seed)
    theta = std * rng.normal(size=(n, 2))
    x, waiting = np.empty((n, 2)), np.arange(n)
    while len(waiting):
        # propose from N(0, 2): (N(0,1) / N(0,2)) |a . phi|^2 / sigma is bounded by about 30
        proposal = np.sqrt(2) * rng.normal(size=(len(waiting), 2))
        w = monomials(theta[waiting])
        density = (w * components(proposal)).sum(axis=1) / (w @ CROSS_SECTION)
        ratio = 2 * np.exp(-0.25 * np.square(proposal).sum(axis=1)) * density
        assert ratio.max() < 30
        taken = rng.random(len(waiting)) < ratio / 30
        x[waiting[taken]] = proposal[taken]
        waiting = waiting[~taken]
    c = components(x)
    w, slope = (
        monomials(theta),
        np.stack(
            [
                np.stack(
                    [
                        0 * theta[:, 0],
                        1 + 0 * theta[:, 0],
                        0 * theta[:, 0],
                        2 * theta[:, 0],
                        theta[:, 1],
                        0 * theta[:, 0],
                    ],
                    axis=1,
                ),
                np.stack(
                    [
                        0 * theta[:, 0],
                        0 * theta[:, 0],
                        1 + 0 * theta[:, 0],
                        0 * theta[:, 0],
                        theta[:, 0],
                        2 * theta[:, 1],
                    ],
                    axis=1,
                ),
            ],
            axis=2,
        ),
    )
    score = np.einsum("nkp,nk->np", slope, c) / (w * c).sum(axis=1)[:, None]
    score -= np.einsum("nkp,k->np", slope, CROSS_SECTION) / (w @ CROSS_SECTION)[:, None]
    return EventSample(x=x, metadata=metadata(), theta=theta, score=score, components=c)


def metadata(*, with_morphing: bool = True) -> EventMetadata:
    morphing = Morphing(
        branch="c",
        exponents=tuple(tuple(row) for row in EXPONENTS.tolist()),
        cross_section=tuple(CROSS_SECTION.tolist()),
        cross_section_error=(0.0,) * 6,
        likelihood="exact",
    )
    return EventMetadata(
        process="toy",
        tree="t",
        layout="flat",
        parameters=(Parameter("t0"), Parameter("t1")),
        observables=(Observable("x0"), Observable("x1")),
        morphing=morphing if with_morphing else None,
    )


def exact_log_ratio(x: Array, theta: Array, training_theta: Array) -> Array:
    """Return log p(x_i|theta_i) - log mean_m p(x_i|theta_m)."""

    def densities(points: Array) -> Array:
        w = monomials(points)
        return (components(x) @ w.T) / (w @ CROSS_SECTION)

    return np.log(np.diagonal(densities(theta))) - np.log(densities(training_theta).mean(axis=1))


def quadratic_ratio(seed: int = 0, group: SymmetryGroup | None = None, **sizes: int) -> tuple:
    """Return a random ratio of degree 2 in float64, its training thetas and features (50, 4)."""
    theta = np.random.default_rng(1).normal(size=(400, 2)) * [0.7, 1.5] + [0.2, -0.4]
    group = group or SymmetryGroup.generated_by([], 4, 2)
    shape = MorphingShape(4, 2, 6, 3, group.order, 16, 2, **sizes)
    odd = 0.0 if group.order > 1 else 0.3
    cross_section = np.array([0.6, -0.5, odd / 3, 2.0, odd, 3.0])
    known = None if shape.points else cross_section
    ratio = MorphingRatio(shape, seed).fill(EXPONENTS, theta, known, group)
    return (
        shaken(ratio, seed),
        theta,
        torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)).double(),
    )


def quartic_ratio(seed: int = 0) -> tuple:
    """Return a random ratio of degree 4 in one parameter, its thetas and features (50, 4)."""
    theta = np.random.default_rng(1).normal(size=(400, 1))
    group = SymmetryGroup.generated_by([], 4, 1)
    shape = MorphingShape(4, 1, 5, 3, 1, 16, 2)
    cross_section = np.array([1.0, 0.5, 2.0, -0.3, 1.0])
    ratio = MorphingRatio(shape, seed).fill(QUARTIC, theta, cross_section, group)
    return (
        shaken(ratio, seed),
        theta,
        torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)).double(),
    )


def shaken(module: MorphingRatio, seed: int) -> MorphingRatio:
    """Return the module in float64 with noise on every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).double()
    return module
