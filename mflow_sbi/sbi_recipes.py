"""The baselines of sbi as recipes: its networks, its trainers, our verbs.

| recipe | estimates | of a set of events |
|---|---|---|
| `sbi_npe` | q(theta given a set), through a deep set | the estimate over pi(theta) |
| `sbi_npe_single` | q(theta given x) | product of estimates over pi(theta) |
| `sbi_nle_maf` | p(x given theta), autoregressive flow | product |
| `sbi_nle_nsf` | p(x given theta), spline flow | product |
| `sbi_nre_a` | ratio to p(x), one pair against one | product |
| `sbi_nre_b` | the same up to a factor of x, one in ten pairs | product |
| `sbi_nre_c` | ratio to p(x), one in five pairs or none | product |

pi is the density of the training thetas.  `sbi_npe` needs sets of events of one theta: drawn by
morphing components, which the others are not told, or simulated so.

References:
    | sbi reloaded: a toolkit for simulation-based inference workflows (Boelts et al., 2024),
      arXiv:2411.17337
"""

from collections.abc import Mapping
from types import MappingProxyType

from mflow_sbi import sbi_beginnings as begin
from mflow_sbi.baselines import learning, options
from mflow_sbi.baselines.estimators import SbiPosterior, SbiRatio, SbiSetPosterior
from mflow_sbi.baselines.set_likelihood import SetLikelihood, likelihoods_of_sets
from mflow_sbi.estimating import told_nothing
from mflow_sbi.recipe import LikelihoodMakers, Recipe
from mflow_sbi.surrogates import AmbientFlow
from mflow_sbi.training import Phase, Schedule

__all__ = ["SBI_RECIPES"]

SETWISE = LikelihoodMakers(SetLikelihood, likelihoods_of_sets)
"""The likelihood of a set is no product over its events."""


def _schedule(part: str, epochs: int, batch_size: int, learning_rate: float) -> Schedule:
    phase = Phase(
        "inference",
        objectives=((learning.LossOfSbi(), 1.0),),
        trains=(part,),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=0.0,
        clip_norm=5.0,
    )
    return Schedule((phase,))


def _likelihood(kind: str, title: str, paper: str, of: type, schedule: Schedule) -> Recipe:
    return Recipe(
        name=f"sbi_nle_{kind}",
        title=title,
        paper=paper,
        surrogate=AmbientFlow,
        options=of,
        begin=begin.begin_likelihood(kind),
        rebuild=begin.rebuild_likelihood(kind),
        told=told_nothing,
        schedule=schedule,
        learn=learning.learn_density,
    )


def _ratio(letter: str, paper: str, of: type, epochs: int) -> Recipe:
    return Recipe(
        name=f"sbi_nre_{letter}",
        title=f"NRE-{letter.upper()} (sbi)",
        paper=paper,
        surrogate=SbiRatio,
        options=of,
        begin=begin.begin_ratio,
        rebuild=begin.rebuild_ratio,
        told=told_nothing,
        schedule=_schedule("network", epochs, 500, 1e-3),
        learn=learning.learn_ratio,
    )


_ALL = (
    Recipe(
        name="sbi_npe",
        title="NPE of sets (sbi)",
        paper="arXiv:1905.07488",
        surrogate=SbiSetPosterior,
        options=options.SetPosteriorOptions,
        begin=begin.begin_set_posterior,
        rebuild=begin.rebuild_set_posterior,
        told=told_nothing,
        needs=("morphing components, or several events at every theta",),
        schedule=_schedule("network", 20, 200, 5e-4),
        learn=learning.learn_set_posterior,
        likelihoods=SETWISE,
    ),
    Recipe(
        name="sbi_npe_single",
        title="NPE of events (sbi)",
        paper="arXiv:1905.07488",
        surrogate=SbiPosterior,
        options=options.PosteriorOptions,
        begin=begin.begin_posterior,
        rebuild=begin.rebuild_posterior,
        told=told_nothing,
        schedule=_schedule("network", 8, 500, 1e-3),
        learn=learning.learn_posterior,
    ),
    _likelihood(
        "maf",
        "NLE, MAF (sbi)",
        "arXiv:1805.07226",
        options.FlowNetworkOptions,
        _schedule("density", 15, 500, 1e-3),
    ),
    _likelihood(
        "nsf",
        "NLE, NSF (sbi)",
        "arXiv:1805.07226",
        options.SplineNetworkOptions,
        _schedule("density", 5, 500, 1e-3),
    ),
    _ratio("a", "arXiv:1903.04057", options.RatioOptions, 15),
    _ratio("b", "arXiv:2002.03712", options.ContrastiveOptions, 10),
    _ratio("c", "arXiv:2210.06170", options.MulticlassOptions, 10),
)

SBI_RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""By name."""
