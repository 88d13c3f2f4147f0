"""A run with a morphing density on WBF events: configuration, training, evaluation, posterior."""

import json
from pathlib import Path

import numpy as np
import torch

from mflow_sbi.config import parse_config
from mflow_sbi.events import read_events
from mflow_sbi.inference import MorphingLikelihood, exact_likelihood
from mflow_sbi.recipes import load_surrogate
from mflow_sbi.runs import evaluate_run, infer_run, train_run
from mflow_sbi.surrogates import TiltedFlow

DATA = Path(__file__).parents[2] / "data"
DENSITY = {
    "kind": "morphing",
    "reflection": True,
    "exchange": True,
    "odd_parameters": ["CPWL2"],
    "objects": ["aa", "j1", "j2"],
    "hidden": 32,
}


def test_train_evaluate_infer(tmp_path: Path):
    torch.set_num_threads(1)
    small = {"layers": 2, "hidden": 16, "bins": 5}
    config = parse_config(
        {
            "name": "theory",
            "events": str(DATA / "wbf_tuned_train_small.root"),
            "max_events": 4000,
            "recipe": "fom",
            "options": {"reference": small, "density": DENSITY},
            "phases": {"reference": {"epochs": 2}, "ratio": {"epochs": 10, "batch_size": 200}},
            "mcmc": {"ensembles": 2, "walkers": 8, "burn_in": 5, "steps": 8},
        }
    )
    train_run(config, tmp_path)
    observed = str(DATA / "wbf_tuned_observed_theta_0.5_0.root")
    metrics = evaluate_run(tmp_path, observed)
    assert metrics["closure_generated"] < 1e-6
    assert metrics["ratio"]["normalisation_error_mean"] < 0.6  # tiny flows
    assert json.loads((tmp_path / "metrics.json").read_text())["ratio"]["cover"]
    infer_run(tmp_path, observed)
    surrogate = load_surrogate(tmp_path)
    assert isinstance(surrogate.surrogate, TiltedFlow)
    events = read_events(observed)
    encoded = surrogate.encode(events.x)
    assert encoded.shape == (len(events), 6)
    # the components are those of the file up to a factor: their likelihoods go together
    theta = np.random.default_rng(0).normal(size=(200, 2))
    exact = exact_likelihood(events)
    assert isinstance(exact, MorphingLikelihood)
    learned = surrogate.latent_log_likelihood(encoded, torch.from_numpy(theta)[:, None])
    pair = np.corrcoef(exact(theta), learned.detach().sum(dim=1).numpy())
    assert pair[0, 1] > 0.9
