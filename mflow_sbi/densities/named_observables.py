r"""A few numbers of an event by name: observables, and angles between two objects.

| name | number |
|---|---|
| `pt_j1` (any observable) | its value, physical units |
| `delta_phi(j1, j2)` | azimuth of the object of larger rapidity minus that of the other |

The angle, in (-pi, pi], needs px_o, py_o, pz_o of both objects.  It changes sign under azimuthal
reflection, and not under an exchange of the beams: ordered by pT, effects odd under reflection
would cancel between both directions (arXiv:hep-ph/0609075).
"""

import difflib
import re
from collections.abc import Sequence
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.float64_buffers import Float64Buffers
from mflow_sbi.interfaces import Events

__all__ = ["NamedObservables"]

ANGLE = re.compile(r"delta_phi\(\s*(\w+)\s*,\s*(\w+)\s*\)")
COMPONENTS = ("px", "py", "pz")


class NamedObservables(Float64Buffers):
    """The named numbers of standardised events, (N, n) -> (N, d) float64, physical units.

    Rebuild with d and `load_state_dict`.

    Args:
        n_named: d.
    """

    columns: Tensor
    mean: Tensor
    std: Tensor
    is_angle: Tensor

    def __init__(self, n_named: int) -> None:
        super().__init__()
        shape = (n_named, 2 * len(COMPONENTS))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("columns", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("is_angle", torch.zeros(n_named, dtype=torch.bool))

    @classmethod
    def named(
        cls, wanted: Sequence[str], names: Sequence[str], mean: ArrayLike, std: ArrayLike
    ) -> Self:
        """Return the numbers of these names in events standardised by mean and std (n,).

        Raises:
            ConfigurationError: a name that is no observable and no angle of known objects.
        """
        numbers = cls(len(wanted))
        of_names = [_columns(name, names) for name in wanted]
        rows = [[list(names).index(column) for column in columns] for columns in of_names]
        numbers.columns.copy_(torch.tensor(rows))
        numbers.is_angle.copy_(torch.tensor([len(set(columns)) > 1 for columns in of_names]))
        numbers.mean.copy_(torch.as_tensor(mean)[numbers.columns])
        numbers.std.copy_(torch.as_tensor(std)[numbers.columns])
        return numbers

    def forward(self, x: Events) -> Tensor:
        """Return the numbers of standardised events, (N, n) -> (N, d)."""
        physical = x.double()[:, self.columns] * self.std + self.mean
        first, second = physical.unflatten(-1, (2, -1)).unbind(dim=-2)
        return torch.where(self.is_angle, _angle(first, second), physical[..., 0])


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Return phi(forward) - phi(backward) in (-pi, pi] of momenta (..., 3)."""
    forward = [p[..., 2] / torch.hypot(p[..., 0], p[..., 1]) for p in (first, second)]
    sign = torch.where(forward[0] >= forward[1], 1.0, -1.0)
    cosine = (first * second)[..., :2].sum(dim=-1)
    sine = second[..., 0] * first[..., 1] - second[..., 1] * first[..., 0]
    return torch.atan2(sign * sine, cosine)


def _columns(name: str, names: Sequence[str]) -> list[str]:
    """Return the six observables that a name is made of, six times one of itself."""
    if name in names:
        return [name] * 6
    angle = ANGLE.fullmatch(name.strip())
    if angle is None:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = (
            f"observables: unknown {name!r}, expected some of {list(names)}, or "
            f"'delta_phi(one, other)' of two objects{hint}"
        )
        raise ConfigurationError(message)
    parts = [f"{component}_{one}" for one in angle.groups() for component in COMPONENTS]
    missing = [part for part in parts if part not in names]
    if missing or angle[1] == angle[2]:
        message = (
            f"observables: {name!r} needs the momenta of two objects; missing observables: "
            f"{missing or 'none'}"
        )
        raise ConfigurationError(message)
    return parts
