"""Run configurations: what is accepted, and what every mistake is told."""

import json
from pathlib import Path

import pytest

from mflow_sbi.config import PriorConfig, parse_config, read_config
from mflow_sbi.errors import ConfigurationError
from mflow_sbi.inference import BoxPrior, NormalPrior

GOOD = {"name": "toy", "events": "a.root"}


def test_defaults_are_those_of_the_recipe():
    config = parse_config(GOOD)
    assert [phase.name for phase in config.training_schedule().phases] == [
        "manifold",
        "reference",
        "density",
    ]
    assert config.prior.build(("a", "b")) == NormalPrior(("a", "b"), (0, 0), (1, 1))
    assert config.event_paths() == ["a.root"]


def test_changes_reach_the_schedule_and_survive_json():
    config = parse_config({**GOOD, "phases": {"density": {"epochs": 4}}, "cycles": 2})
    assert config.training_schedule().phases[2].epochs == 4
    assert config.training_schedule().cycles == 2
    assert parse_config(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipi": "mflow"}, "unknown key 'recipi'; did you mean 'recipe'"),
        ({"recipe": "mfow"}, "did you mean 'mflow'"),
        ({"options": {"latentdim": 3}}, "did you mean 'latent_dim'"),
        ({"options": {"density": {"hiden": 3}}}, "did you mean 'hidden'"),
        ({"options": {"density": {"layers": -1}}}, "layers: expected at least 0, got -1"),
        (
            {"options": {"density": {"coupling": "quadratic"}}},
            "expected one of .'spline', 'affine'",
        ),
        ({"phases": {"manifold": {"epoch": 3}}}, "did you mean 'epochs'"),
        ({"phases": {"manyfold": {"epochs": 3}}}, "unknown phases"),
        ({"phases": {"manifold": {"epochs": 0}}}, "phases.manifold.epochs: .* got 0"),
        ({"prior": {"kind": "cauchy"}}, "prior.kind"),
        ({"mcmc": {"walkers": 2}}, "mcmc.walkers: .* got 2"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
        ({"name": "a/b"}, "name: "),
        ({"seed": -1}, "seed: .* got -1"),
        ({"seed": 2**63}, "seed: Input should be less than"),
        ({"name": ".."}, "name: "),
        ({"options": {"density": {"bins": 2000}}}, "at most 500 bins"),
        ({"options": {"density": {"bound": -1.0}}}, "a positive bound"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_config({**GOOD, **change})


def test_a_missing_key_is_named():
    with pytest.raises(ConfigurationError, match="missing key 'events'"):
        parse_config({"name": "toy"})


def test_box_prior_needs_its_own_numbers():
    box = PriorConfig(kind="box", low=(-1,), high=(1,))
    assert box.build(("a",)) == BoxPrior(("a",), (-1,), (1,))
    with pytest.raises(ConfigurationError, match="expected low and high"):
        PriorConfig(kind="box").build(("a",))
    with pytest.raises(ConfigurationError, match="takes .'mean', 'std'."):
        PriorConfig(low=(-1,), high=(1,)).build(("a",))


def test_reads_yaml_and_refuses_what_is_not(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("name: toy\nevents: [a.root, b.root]\nmcmc: {steps: 100}\n")
    config = read_config(path)
    assert config.event_paths() == ["a.root", "b.root"]
    assert config.mcmc.build().steps == 100
    path.write_text("- 1\n")
    with pytest.raises(ConfigurationError, match="expected a mapping"):
        read_config(path)
    path.write_text("a: [1\n")
    with pytest.raises(ConfigurationError, match="not YAML"):
        read_config(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml")


def test_a_key_given_twice_is_refused(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("name: toy\nevents: a.root\nmcmc: {steps: 100, steps: 200}\n")
    with pytest.raises(ConfigurationError, match="key 'steps' is given twice"):
        read_config(path)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"root\x00\xf3\xff")
    with pytest.raises(ConfigurationError, match="not YAML"):
        read_config(path)


def test_an_empty_list_is_not_the_default_prior():
    with pytest.raises(ConfigurationError, match="one number per parameter \\(2\\), got 0"):
        PriorConfig(kind="normal", mean=()).build(("a", "b"))
