"""The README's Python lines run as printed, and its numbers are those of the committed results."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mflow_sbi.analysis import parse_analysis
from mflow_sbi.config import parse_config
from mflow_sbi.inference import draws_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_lines_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    data = ROOT / "data"
    shutil.copy(data / "wbf_tuned_train_small.root", tmp_path / "train.root")
    shutil.copy(data / "wbf_tuned_observed_theta_0.5_0.root", tmp_path / "observed.root")
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert draws_of(names["posterior"]).shape == (4 * 32 * 200, 2)
    assert (tmp_path / "my_surrogate" / "weights.safetensors").is_file()


def test_the_analysis_is_a_valid_one():
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert parse_analysis(yaml.safe_load(text)).luminosity == 30


@pytest.mark.parametrize("page", ["files.md", "scale.md"])
def test_the_configurations_of_the_pages_are_valid(page):
    texts = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert texts
    for text in texts:
        parse_config({"name": "shown", "events": "events.root"} | yaml.safe_load(text), page)


def test_the_two_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_table_is_that_of_the_committed_quickstart():
    table = (ROOT / "docs" / "quickstart" / "comparison.md").read_text().split("\n\n")[0]
    assert table in README
    record = json.loads((ROOT / "docs" / "quickstart" / "comparison.json").read_text())
    tv = {row["posterior"]: row["total_variation"] for row in record["rows"]}
    assert tv["morphing M-flow"] < min(tv["M-flow"], tv["ambient flow"])
    assert max(tv["M-flow"], tv["ambient flow"]) < tv["prior"]


@pytest.mark.parametrize("name", ["mflow", "af", "prior"])
def test_the_numbers_are_those_of_the_committed_benchmark(name):
    record = json.loads((ROOT / "benchmarks" / "results" / "main_job.json").read_text())
    metrics = record["metrics"]
    tv = f"{metrics[f'tv_{name}']:.3f} ± {metrics[f'tv_{name}_error']:.3f}"
    log_prob = metrics[f"log_prob_truth_{name}"]
    error = metrics[f"log_prob_truth_{name}_error"]
    assert f"{log_prob:+.2f} ± {error:.2f} | {tv} |" in README


@pytest.mark.parametrize(
    "name", ["fom_samples", "fom_score", "fom_components", "mflow_components"]
)
def test_the_numbers_of_morphing_densities_are_those_of_their_benchmark(name):
    record = json.loads((ROOT / "benchmarks" / "results" / "density.json").read_text())
    metrics = record["metrics"]
    row = f"{metrics[f'tv_{name}_tuned']:.4f} | {metrics[f'tv_{name}_tuned_200']:.4f} |"
    assert row in README


def test_the_table_of_data_efficiency_is_that_of_the_record():
    path = ROOT / "benchmarks" / "results" / "data_efficiency.json"
    metrics = json.loads(path.read_text())["metrics"]
    text = (ROOT / "docs" / "performance.md").read_text()
    for thousands in (10, 30, 100, 300, 1000):
        cells = [
            f"{metrics[f'tv_{density}_{thousands}k']:.3f}"
            for density in ("morphing", "residual", "flow")
        ]
        assert f"| {thousands},000 | {' | '.join(cells)} |".replace("1000,", "1,000,") in text


def test_the_benchmark_page_has_the_numbers_of_the_record():
    path = ROOT / "benchmarks" / "results" / "wbf_comparison.json"
    metrics = json.loads(path.read_text())["metrics"]
    page = (ROOT / "docs" / "benchmark.md").read_text()
    measured = [name for name in metrics if "_tv_" in name and f"{name}_error" in metrics]
    assert measured
    for name in measured:
        assert f"| {metrics[name]:.3f} ± {metrics[f'{name}_error']:.3f} |" in page, name


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ("M-flow, residual density", "mflow_residual"),
        ("NRE (CARL)", "nre"),
        ("M-flow, morphing density", "mflow"),
        ("M-flow, components", "mflow_components"),
        ("M-flow, scores", "mflow_score"),
        ("NRE-B of sbi", "sbi_nre_b"),
        ("NRE-C of sbi", "sbi_nre_c_long"),
    ],
)
def test_the_closest_methods_are_those_of_the_record(words, method):
    path = ROOT / "benchmarks" / "results" / "wbf_comparison.json"
    metrics = json.loads(path.read_text())["metrics"]
    assert f"{words}, {metrics[f'tuned_tv_{method}']:.3f}" in README


def test_methods_without_a_measurement_are_named_on_the_benchmark_page():
    path = ROOT / "benchmarks" / "results" / "wbf_comparison.json"
    missing = json.loads(path.read_text())["metrics"]["missing_methods"]
    page = (ROOT / "docs" / "benchmark.md").read_text()
    named = [line for line in page.splitlines() if line.startswith("Not measured yet: ")]
    assert sum(line.count(";") + 1 for line in named) == missing
