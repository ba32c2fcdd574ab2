"""The parts that act on each position separately, and their menu: the `mlp` flag."""

from modules.mlps.dense import GLU, MLP, ClampedGLU, ScaledGLU
from modules.mlps.moe import MoE

MLPS = {"mlp": MLP, "glu": GLU, "clamped_glu": ClampedGLU, "scaled_glu": ScaledGLU, "moe": MoE, "none": None}
