"""Fields of YaRN, and of factors on the queries that come with it, in some families."""

from dataclasses import dataclass
from math import log
from typing import Any

from config import ModelConfig
from families.fields import Theirs
from families.layers import ORIGINAL, Rope

BETA = "llama_4_scaling_beta"


def magnified(factor: float, share: float) -> float:
    return 0.1 * share * log(factor) + 1


@dataclass(frozen=True)
class ShareRope(Rope):
    """RoPE whose YaRN has mscale and mscale_all_dim: shares of ln(factor) in two numbers, whose ratio is its factor."""

    types: tuple[str, ...] = ("yarn",)

    def flags(self, given: Theirs) -> dict[str, Any]:
        rest = dict(given)
        mscale, all_dim = rest.pop("mscale", None), rest.pop("mscale_all_dim", None)
        found = super().flags(rest)
        if mscale and all_dim and found.get("rope.attention_factor") is None and "rope.factor" in found:
            factor = found["rope.factor"]
            found["rope.attention_factor"] = magnified(factor, mscale) / magnified(factor, all_dim)
        return found


@dataclass(frozen=True)
class TemperedRope(ShareRope):
    """RoPE with llama_4_scaling_beta, by which the queries grow too each original length of a text."""

    def flags(self, given: Theirs) -> dict[str, Any]:
        rest = {name: value for name, value in given.items() if name != "max_position_embeddings"}
        if missing := [name for name in (BETA, ORIGINAL) if rest.get(name) is None]:
            raise ValueError(f"rope_parameters has no {missing[0]}")
        beta, length = rest.pop(BETA), rest[ORIGINAL]
        if rest.get("rope_type", rest.get("type", "default")) == "default":
            del rest[ORIGINAL]
        return super().flags(rest) | {"attention.temperature_scale": beta or None} | (
            {"attention.temperature_len": length} if beta else {})

    def parameters(self, cfg: ModelConfig) -> dict[str, Any]:
        beta = cfg.attention.temperature_scale or 0.0
        return super().parameters(cfg) | {
            BETA: beta, ORIGINAL: cfg.attention.temperature_len if beta else cfg.rope.original_len}
