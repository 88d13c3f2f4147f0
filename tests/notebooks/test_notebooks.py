"""Every notebook is stored without outputs and runs from top to bottom without a warning."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode

from mflow_sbi.config import parse_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FENCED_YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _python(cell: NotebookNode) -> str:
    """Return the cell without its magic lines."""
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))


def _functions(source: str) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}


def _files() -> set[Path]:
    """Return the files that a notebook might leave behind or touch."""
    folders = (FOLDER, ROOT / "data")
    return {p for folder in folders for p in folder.rglob("*")}


def _execute(notebook: NotebookNode, folder: Path) -> None:
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@pytest.fixture
def _kernel_of_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread; no kernel, profile or history of the user's; nothing written at home."""
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_the_notebook_is_valid_and_has_no_outputs(path):
    notebook = _read(path)
    nbformat.validate(notebook)
    for cell in _code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


@every_notebook
def test_the_notebook_defines_nothing_that_the_library_has(path):
    rooms = (ROOT / "mflow_sbi").rglob("*.py")
    library = set().union(*(_functions(room.read_text("utf-8")) for room in rooms))
    own = set().union(*(_functions(_python(cell)) for cell in _code_cells(_read(path))))
    assert not own & library


@every_notebook
def test_configurations_in_the_text_are_valid(path):
    for cell in _read(path).cells:
        for text in FENCED_YAML.findall(cell.source if cell.cell_type == "markdown" else ""):
            parse_config(yaml.safe_load(text), path.name)


@every_notebook
@pytest.mark.usefixtures("_kernel_of_this_environment")
def test_the_notebook_runs_shows_figures_and_leaves_nothing_behind(path):
    notebook, before = _read(path), _files()
    _execute(notebook, FOLDER)
    outputs = [output for cell in _code_cells(notebook) for output in cell.outputs]
    complaints = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not complaints
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert _files() == before


@every_notebook
@pytest.mark.usefixtures("_kernel_of_this_environment")
def test_the_notebook_finds_its_files_from_the_repository_root(path):
    notebook = _read(path)
    notebook.cells = _code_cells(notebook)[:1]
    _execute(notebook, ROOT)
