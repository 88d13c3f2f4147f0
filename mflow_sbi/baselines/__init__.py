"""The baselines of sbi, and our surrogates as estimators of sbi."""
