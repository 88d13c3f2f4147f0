"""Charts: maps between latents u in R^d and surfaces in R^n, with their exact volume."""

from mflow_sbi.charts.adapted import AdaptedChart, build_adapted_chart
from mflow_sbi.charts.autoencoder import (
    AutoencoderChart,
    NetworkOptions,
    build_autoencoder_chart,
)
from mflow_sbi.charts.base import Chart
from mflow_sbi.charts.collider import ColliderChart
from mflow_sbi.charts.constrained import project_onto_constraints
from mflow_sbi.charts.encoded import EncodedChart, build_encoded_chart
from mflow_sbi.charts.implicit import ImplicitChart, ImplicitShape
from mflow_sbi.charts.invertible import InvertibleChart, build_invertible_chart
from mflow_sbi.charts.linear_head import LinearHead
from mflow_sbi.charts.pivots import build_implicit_chart, choose_pivots
from mflow_sbi.charts.volume import (
    CHUNK_ROWS,
    decoder_jacobian,
    exact_log_volume,
    gram_matrix,
)

__all__ = [
    "CHUNK_ROWS",
    "AdaptedChart",
    "AutoencoderChart",
    "Chart",
    "ColliderChart",
    "EncodedChart",
    "ImplicitChart",
    "ImplicitShape",
    "InvertibleChart",
    "LinearHead",
    "NetworkOptions",
    "build_autoencoder_chart",
    "build_encoded_chart",
    "build_adapted_chart",
    "build_implicit_chart",
    "build_invertible_chart",
    "choose_pivots",
    "decoder_jacobian",
    "exact_log_volume",
    "gram_matrix",
    "project_onto_constraints",
]
