"""Figures from results only.  The matplotlib and corner door.

Every function returns a `matplotlib.figure.Figure` of its own, without pyplot's global state;
`save_figure` writes it.
"""

from mflow_sbi.plots.calibration import calibration_plot
from mflow_sbi.plots.events import DEFAULT_SELECTION, closure_plot, observables_plot
from mflow_sbi.plots.intervals import Regions, contour_plot, profile_plot
from mflow_sbi.plots.posteriors import corner_plot, posterior_comparison_plot
from mflow_sbi.plots.predictive import predictive_plot
from mflow_sbi.plots.study import study_plot
from mflow_sbi.plots.style import parameter_label, save_figure
from mflow_sbi.plots.training import history_plot

__all__ = [
    "DEFAULT_SELECTION",
    "Regions",
    "calibration_plot",
    "closure_plot",
    "contour_plot",
    "corner_plot",
    "history_plot",
    "observables_plot",
    "parameter_label",
    "posterior_comparison_plot",
    "predictive_plot",
    "profile_plot",
    "save_figure",
    "study_plot",
]
