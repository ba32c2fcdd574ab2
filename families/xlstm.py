"""xLSTM, Beck et al. 2025, arXiv:2503.13427 (xLSTM 7B): mLSTM with capped gates in place of attention, and SwiGLU."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.family import About, Family
from families.fields import Field, Implied, OneField, Theirs, vocabulary
from families.weights import HEAD, WeightMap, renamed

FIXED = {"mixer": "mlstm", "mlp": "glu", "activation": "silu", "norm": "rms", "position": "none",
         "mlstm.input_start": -10.0}
COMPUTING = ("norm_reduction_force_float32", "add_out_norm", "chunkwise_kernel", "sequence_kernel", "step_kernel",
             "mode", "chunk_size", "return_last_states", "autocast_kernel_dtype", "inference_state_dtype",
             "max_inference_chunksize")
STEP = 64
FACTOR, MULTIPLE = "ffn_proj_factor", "ffn_round_up_to_multiple_of"


@dataclass(frozen=True)
class HeadWidth(OneField):
    """The width of all heads, as a share of the model's: that of a head stands in `flag`."""

    flag: str
    default: float
    width: Callable[[ModelConfig], int]

    @property
    def defaults(self) -> dict[str, Any]:
        return {self.name: self.default}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        whole, heads = int(theirs["hidden_size"] * theirs[self.name]), theirs["num_heads"]
        if whole % heads:
            raise ValueError(f"{self.name}={theirs[self.name]} makes a width of {whole}, which {heads} heads do not "
                             "share evenly")
        return {self.flag: whole // heads}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        whole = self.width(cfg) * cfg.mlstm.num_heads
        if whole % STEP:
            raise ValueError(f"{self.flag}={self.width(cfg)} makes a width of {whole}, and a xLSTMForCausalLM can keep "
                             f"the state of multiples of {STEP} alone")
        exact = int(cfg.dim * (whole / cfg.dim)) == whole  # they cut off what a float may lack
        return {self.name: (whole if exact else whole + 0.5) / cfg.dim}


class Hidden:
    """The width of the MLP: a share of the model's, rounded up to a multiple."""

    names = (FACTOR, MULTIPLE)
    defaults = {FACTOR: 2.667, MULTIPLE: 64}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        return {"hidden_dim": _rounded_up(theirs["hidden_size"] * theirs[FACTOR], theirs[MULTIPLE])}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        factor, width, multiple = self.defaults[FACTOR], cfg.hidden_width, math.gcd(cfg.hidden_width, 64)
        if _rounded_up(cfg.dim * factor, 64) == width:
            return {FACTOR: factor, MULTIPLE: 64}
        return {FACTOR: (width - (multiple - 1) / 2) / cfg.dim, MULTIPLE: multiple}


def _rounded_up(width: float, multiple: int) -> int:
    return int((width + multiple - 1) // multiple * multiple)


FAMILY = Family(
    model_type="xlstm", architecture="xLSTMForCausalLM",
    fixed=FIXED,
    fields=(vocabulary(50304), Field("hidden_size", "dim", 4096), Field("num_hidden_layers", "num_layers", 32),
            Field("max_position_embeddings", "max_seq_len", 8192),  # which their class does not know, and keeps
            Implied("embedding_dim", lambda theirs: theirs["hidden_size"], lambda cfg: cfg.dim),
            Implied("num_blocks", lambda theirs: theirs["num_hidden_layers"], lambda cfg: cfg.num_layers),
            Field("num_heads", "mlstm.num_heads", 8),
            HeadWidth("qk_dim_factor", "mlstm.key_dim", 0.5, lambda cfg: cfg.mlstm.key_width(cfg.dim)),
            HeadWidth("v_dim_factor", "mlstm.head_dim", 1.0, lambda cfg: cfg.mlstm.width(cfg.dim)), Hidden(),
            Field("norm_eps", ("norm_eps", "mlstm.norm_eps"), 1e-6), Field("eps", "mlstm.eps", 1e-6),
            Field("gate_soft_cap", "mlstm.gate_cap", 15.0), Field("output_logit_soft_cap", "logit_softcap", 30.0)),
    only={"weight_mode": "single"},
    harmless=COMPUTING,
    weights=WeightMap("backbone.blocks.", renamed({
        "mixer.norm": "norm_mlstm", "mlp.norm": "norm_ffn", "mlp.branch.gate": "ffn.proj_up_gate",
        "mlp.branch.up": "ffn.proj_up", "mlp.branch.out": "ffn.proj_down"} | {
            f"mixer.branch.{ours}": f"mlstm_layer.{theirs}" for ours, theirs in {
                "q": "q", "k": "k", "v": "v", "gate": "ogate_preact", "input_gate": "igate_preact",
                "forget_gate": "fgate_preact", "norm": "multihead_norm", "out": "out_proj"}.items()}),
        renamed({"embed.tokens": "backbone.embeddings", "norm": "backbone.out_norm", HEAD: "lm_head"}),
        prefix="backbone."),
    about={"xlstm": About("a matrix for each head in place of keys and values, with exponential gates (mLSTM)", 2025,
                          "arXiv:2503.13427")},
    presets={
        # the 7B model
        "xlstm": FIXED | {
            "dim": 4096, "num_layers": 32, "hidden_dim": 10944, "vocab_size": 50304, "max_seq_len": 8192,
            "norm_eps": 1e-6, "logit_softcap": 30.0, "mlstm.num_heads": 8, "mlstm.key_dim": 256,
            "mlstm.head_dim": 512, "mlstm.gate_cap": 15.0, "mlstm.eps": 1e-6, "mlstm.norm_eps": 1e-6},
    },
)
