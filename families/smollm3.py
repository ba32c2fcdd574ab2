"""SmolLM3, Hugging Face 2025: Llama without positions in every fourth layer, arXiv:2501.18795."""

from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import (
    ATTENTION_BIASES,
    Field,
    PerLayer,
    Theirs,
    activation,
    llama_sizes,
    tied,
    unusual_head_dim,
)
from families.layers import Rope, Windows
from families.llama import EPS, SWIGLU
from families.weights import llama_weights


@dataclass(frozen=True)
class Rotated:
    """no_rope_layers: 1 for a layer with rotary positions, 0 for one without; else every interval-th has none."""

    names = ("no_rope_layers", "no_rope_layer_interval")
    defaults = {"no_rope_layer_interval": 4}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        every, number = theirs["no_rope_layer_interval"], theirs["num_hidden_layers"]
        marks = theirs.get("no_rope_layers") or [int((i + 1) % every != 0) for i in range(number)]
        if len(marks) != number:
            raise ValueError(f"no_rope_layers has {len(marks)} layers, and num_hidden_layers={number}")
        return {"position": PerLayer("rope" if mark else "none" for mark in marks)}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"no_rope_layers": [int(cfg.at(i).position == "rope") for i in range(cfg.num_layers)]}


FAMILY = Family(
    model_type="smollm3", architecture="SmolLM3ForCausalLM",
    fixed={"mlp": "glu", "norm": "rms"},
    fields=(*llama_sizes(vocab=128256, dim=2048, layers=36, heads=16, kv=4, context=32768), unusual_head_dim(),
            activation("hidden_act", "silu"), EPS, tied(True), Rope(theta=2_000_000.0), Rotated(),
            Windows(None, switched=True), Field("attention_bias", ATTENTION_BIASES, False),
            Field("mlp_bias", "mlp_bias", False)),
    weights=llama_weights(),
    about={"smollm3": About("Llama without positions in every fourth layer", 2025, "Hugging Face's blog")},
    presets={
        # the 3B model
        "smollm3": SWIGLU | {"dim": 2048, "num_layers": 36, "attention.num_heads": 16, "attention.num_kv_heads": 4,
                             "hidden_dim": 11008, "vocab_size": 128256, "max_seq_len": 65536, "norm_eps": 1e-6,
                             "rope.theta": 5_000_000.0, "layers": ("rope",) * 3 + ("nope",),
                             "kinds": {"rope": {}, "nope": {"position": "none"}}, "tie_embeddings": True},
    },
)
