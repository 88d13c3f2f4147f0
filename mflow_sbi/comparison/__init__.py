"""Methods compared over many observed sets and seeds, the exact posterior beside them."""

from mflow_sbi.comparison.page import study_page
from mflow_sbi.comparison.study import (
    BANDWIDTH,
    Contender,
    ObservedSets,
    Scores,
    Study,
    compare_over_sets,
    cut_into_sets,
    smeared_log_prob,
)
from mflow_sbi.comparison.table import HEADER, POINT, Facts, StudyRow, StudyTable, study_table

__all__ = [
    "BANDWIDTH",
    "HEADER",
    "POINT",
    "Contender",
    "Facts",
    "ObservedSets",
    "Scores",
    "Study",
    "StudyRow",
    "StudyTable",
    "compare_over_sets",
    "cut_into_sets",
    "smeared_log_prob",
    "study_page",
    "study_table",
]
