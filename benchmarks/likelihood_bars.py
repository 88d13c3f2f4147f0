"""What the likelihood benchmark wants to reach, and the table that says whether it does."""

from collections.abc import Mapping

__all__ = ["BARS", "table_rows"]

BARS: Mapping[str, tuple[str, float]] = {
    "exact_log_prob_events_per_cpu_s_b1000": (">=", 1200),
    "roofline_fraction": (">=", 0.8),
    "exact_over_decode_cost": ("<=", 4),
    "speedup_over_vmap_jacfwd": (">=", 4),
    "manifold_step_over_original": (">=", 2.5),
    "density_step_over_original": (">=", 8),
    "joint_step_over_decode_step": ("<=", 5),
    "mcmc_evals_per_cpu_s_w64": (">=", 900),
    "mcmc_chain_cpu_s": ("<=", 4),
    "peak_rss_mb_b1000": ("<=", 1000),
    "peak_rss_b10000_over_b1000": ("<=", 1.1),
    "gpu_1m_exact_log_prob_s": ("<=", 10),
    "gpu_1m_manifold_epoch_s": ("<=", 30),
}


def table_rows(metrics: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """Return metric, measured, bar and whether it is reached."""
    rows = []
    for name, value in metrics.items():
        bar = reached = ""
        if name in BARS:
            sign, limit = BARS[name]
            bar = f"{sign} {limit:g}"
            reached = "yes" if (value >= limit if sign == ">=" else value <= limit) else "NO"
        rows.append((name, f"{value:.4g}", bar, reached))
    return rows
