"""What every recipe can do, told by the recipes themselves."""

from mflow_sbi.recipes import RECIPES

__all__ = ["FEATURES_HEADER", "feature_markdown", "feature_rows"]

FEATURES_HEADER = (
    "recipe",
    "method",
    "density",
    "draws events",
    "reconstructs events",
    "of a set of events",
    "needs beside x, theta",
    "reference",
)


def feature_rows() -> list[tuple[str, ...]]:
    """Return one line of text per recipe, under `FEATURES_HEADER`.

    >>> {row[0]: row[2] for row in feature_rows()}["pie"]
    'exact, ambient'
    """
    rows = []
    for name, recipe in RECIPES.items():
        density = "none" if recipe.measure == "none" else f"exact, {recipe.measure}"
        kind = "product over events" if recipe.is_eventwise else "one estimate"
        needs = ", ".join(recipe.needs) or "-"
        answers = (_answer(recipe.generates), _answer(recipe.has_surface))
        rows.append((name, recipe.title, density, *answers, kind, needs, recipe.paper))
    return rows


def _answer(it_does: bool) -> str:  # noqa: FBT001
    return "yes" if it_does else "no"


def feature_markdown() -> str:
    """Return the table in Markdown."""
    lines = [FEATURES_HEADER, ("---",) * len(FEATURES_HEADER), *feature_rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
