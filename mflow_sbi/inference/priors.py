"""All priors by one door, and the prior that a plain record describes."""

from collections.abc import Callable, Mapping
from typing import Any

from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference.constraint_terms import GaussianConstraint, LogNormalConstraint
from mflow_sbi.inference.positive_priors import LogNormalPrior, LogUniformPrior
from mflow_sbi.inference.prior_fields import HasSupport, RecordedPrior, support_of
from mflow_sbi.inference.product_prior import ProductPrior
from mflow_sbi.inference.simple_priors import BoxPrior, NormalPrior
from mflow_sbi.inference.truncated_prior import TruncatedNormalPrior
from mflow_sbi.inference.user_prior import UserPrior

__all__ = [
    "BoxPrior",
    "GaussianConstraint",
    "HasSupport",
    "LogNormalConstraint",
    "LogNormalPrior",
    "LogUniformPrior",
    "NormalPrior",
    "ProductPrior",
    "RecordedPrior",
    "TruncatedNormalPrior",
    "UserPrior",
    "prior_from_dict",
    "support_of",
]


def prior_from_dict(record: Mapping[str, Any]) -> RecordedPrior:
    """Return the prior described by a plain record.

    Args:
        record: {"kind": "normal" | "box" | ..., "parameter_names": [...], ...}, as `to_dict`
            writes it.

    Raises:
        ConfigurationError: unknown kind, missing or unknown fields, impossible values, or a
            user-defined prior, whose functions no record holds.

    Example:
        >>> prior_from_dict({"kind": "box", "parameter_names": ["c"], "low": [0], "high": [2]})
        BoxPrior(parameter_names=('c',), low=(0.0,), high=(2.0,))
    """
    kind = record.get("kind")
    if kind == "user":
        message = (
            f"prior of {record.get('parameter_names')}: a user-defined prior cannot be made from "
            "its record; expected another kind, or the UserPrior itself from Python"
        )
        raise ConfigurationError(message)
    if not isinstance(kind, str) or kind not in _KINDS:
        message = f"prior kind: expected one of {sorted(_KINDS)}, got {kind!r}"
        raise ConfigurationError(message)
    return _KINDS[kind](record)


def _product(record: Mapping[str, Any]) -> ProductPrior:
    return ProductPrior.from_dict(record, prior_from_dict)


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], RecordedPrior]] = {
    "normal": NormalPrior.from_dict,
    "box": BoxPrior.from_dict,
    "log_uniform": LogUniformPrior.from_dict,
    "log_normal": LogNormalPrior.from_dict,
    "truncated_normal": TruncatedNormalPrior.from_dict,
    "gaussian_constraint": GaussianConstraint.from_dict,
    "log_normal_constraint": LogNormalConstraint.from_dict,
    "product": _product,
}
