"""The table of features says what the recipes do."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mflow_sbi.cli import app
from mflow_sbi.errors import ConfigurationError, MissingReference
from mflow_sbi.events import read_events
from mflow_sbi.feature_table import feature_markdown, feature_rows
from mflow_sbi.recipes import RECIPES, train
from mflow_sbi.surrogates.without_density import WithoutDensity

ROOT = Path(__file__).parents[1]


def test_the_page_is_the_table_of_the_code():
    assert feature_markdown() in (ROOT / "docs" / "recipes.md").read_text()


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.needs])
def test_what_a_recipe_needs_it_asks_for(name: str):
    events = read_events(str(ROOT / "data" / "wbf_tuned_train_small.root"))
    bare = replace(events, components=None)
    with pytest.raises((MissingReference, ConfigurationError), match="components|several events"):
        train(bare, name)


@pytest.mark.parametrize("name", RECIPES)
def test_without_density_or_surface_nothing_is_drawn(name: str):
    recipe = RECIPES[name]
    assert recipe.generates != issubclass(recipe.surrogate, WithoutDensity)
    assert recipe.measure in ("ambient", "manifold", "none")


def test_the_command_line_tells_it():
    result = CliRunner().invoke(app, ["recipes"], catch_exceptions=False)
    assert result.exit_code == 0
    assert len(feature_rows()) == len(RECIPES)
