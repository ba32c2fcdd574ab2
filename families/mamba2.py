"""Mamba-2, Dao & Gu 2024, arXiv:2405.21060: state space mixers alone, whose heads decay as a whole, and no MLP."""

from families.family import About, Family
from families.fields import Field, tied, vocabulary
from families.ssm import (
    COMPUTING,
    CONTEXT,
    INIT,
    MAMBA2,
    StepLimits,
    backbone,
    group_fields,
    mamba2_rules,
    mamba2_width,
    times_wide,
)

ALONE = {"mixer": "mamba2", "mlp": "none", "norm": "rms", "position": "none"}
DEFAULTS = {"num_heads": 128, "head_dim": 64, "state_dim": 128, "num_groups": 8, "conv_len": 4, "bias": False,
            "conv_bias": True}


FAMILY = Family(
    model_type="mamba2", architecture="Mamba2ForCausalLM",
    fixed=ALONE,
    fields=(vocabulary(32768), Field("hidden_size", "dim", 4096), Field("num_hidden_layers", "num_layers", 64),
            Field(CONTEXT, "max_seq_len", 2048), *group_fields("mamba2", MAMBA2, DEFAULTS),
            Field("layer_norm_epsilon", ("norm_eps", "mamba2.norm_eps"), 1e-5), StepLimits(), tied(False),
            times_wide("expand", lambda theirs: theirs["num_heads"] * theirs["head_dim"], mamba2_width)),
    only={"hidden_act": "silu"},
    harmless=(*INIT, *COMPUTING, "time_step_rank"),
    weights=backbone(*mamba2_rules("mixer")),
    about={"mamba2": About("a state for each head in place of keys and values; no MLP", 2024, "arXiv:2405.21060")},
    presets={
        # the 2.7B model
        "mamba2": ALONE | {
            "dim": 2560, "num_layers": 64, "vocab_size": 50288, "max_seq_len": 2048, "tie_embeddings": True,
            "mamba2.num_heads": 80, "mamba2.head_dim": 64, "mamba2.state_dim": 128, "mamba2.num_groups": 1,
            "mamba2.conv_len": 4, "mamba2.conv_bias": True, "mamba2.bias": False, "mamba2.norm": "after_gate",
            "mamba2.norm_eps": 1e-5, "mamba2.min_step": 0.0, "mamba2.max_step": None},
    },
)
