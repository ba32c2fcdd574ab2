"""Mamba, Gu & Dao 2023, arXiv:2312.00752: mixers of several states for each channel, and no MLP."""

from families.family import About, Family
from families.fields import Field, tied, vocabulary
from families.ssm import COMPUTING, CONTEXT, INIT, MAMBA, Inner, StepRank, backbone, group_fields, mamba_rules

ALONE = {"mixer": "mamba", "mlp": "none", "norm": "rms", "position": "none"}
DEFAULTS = {"state_dim": 16, "conv_len": 4, "bias": False, "conv_bias": True}
FIELDS = (vocabulary(50280), Field("hidden_size", "dim", 768), Field("num_hidden_layers", "num_layers", 32),
          Field(CONTEXT, "max_seq_len", 2048), *group_fields("mamba", MAMBA, DEFAULTS), Inner(), StepRank(),
          Field("layer_norm_epsilon", "norm_eps", 1e-5), tied(True))

FAMILY = Family(
    model_type="mamba", architecture="MambaForCausalLM",
    fixed=ALONE,
    fields=FIELDS,
    only={"hidden_act": "silu"},
    harmless=(*INIT, *COMPUTING),
    weights=backbone(*mamba_rules("mixer")),
    about={"mamba": About("several states for each channel in place of keys and values; no MLP", 2023,
                          "arXiv:2312.00752")},
    presets={
        # the 2.8B model
        "mamba": ALONE | {
            "dim": 2560, "num_layers": 64, "vocab_size": 50280, "max_seq_len": 2048, "tie_embeddings": True,
            "mamba.expand": 2.0, "mamba.state_dim": 16, "mamba.step_rank": 160, "mamba.conv_len": 4,
            "mamba.conv_bias": True, "mamba.bias": False, "mamba.norms": "none"},
    },
)
