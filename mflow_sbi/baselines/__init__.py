"""The baselines of sbi, and our surrogates as estimators of sbi.

sbi is an optional library, pip install "mflow_sbi[baselines]", and imported at its first use.
"""

from mflow_sbi.baselines.plugging import as_sbi_estimator

__all__ = ["as_sbi_estimator"]
