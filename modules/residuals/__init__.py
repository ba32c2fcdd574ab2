"""How branches join the residual stream: the `residual` flag.

A wiring is built by `from_config(cfg: LayerConfig, branch, number)`, with the number of the branch in the model, from
0. Its `forward(stream, context, cache=None)` calls the branch and gives the stream after it. `begin` and `make_exit`
say what the stream is before the first layer and how the head reads it.
"""

from modules.residuals.attnres import AttentionResidual
from modules.residuals.hyper import HyperConnections, ManifoldHyperConnections
from modules.residuals.wiring import BranchPostNorm, NoSkip, PostNorm, PreNorm, SandwichNorm, SphereStep, Wiring

__all__ = ["RESIDUALS", "NoSkip", "PreNorm", "Wiring"]

# parallel, parallel_each, two_hop: a layer with one branch is a PreNorm; with several it is a block of its own kind
RESIDUALS = {
    "pre": PreNorm,
    "post": PostNorm,
    "sandwich": SandwichNorm,
    "branch_post": BranchPostNorm,
    "parallel": PreNorm,
    "parallel_each": PreNorm,
    "two_hop": PreNorm,
    "ngpt": SphereStep,
    "hyper": HyperConnections,
    "mhc": ManifoldHyperConnections,
    "attnres": AttentionResidual,
    "none": NoSkip,
}
