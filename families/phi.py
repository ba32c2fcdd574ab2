"""Phi 1.5, Li et al. 2023, arXiv:2309.05463: both branches read one norm, biases everywhere, partly rotated heads."""

from families.family import EVERY_BIAS, About, Family
from families.fields import Field, activation, llama_sizes, switch, tied, unusual_head_dim
from families.layers import Rope
from families.weights import HEAD, LINEARS, WeightMap, renamed

FAMILY = Family(
    model_type="phi", architecture="PhiForCausalLM",
    fixed=EVERY_BIAS | {"head_bias": True, "residual": "parallel"},
    fields=(*llama_sizes(vocab=51200, dim=2048, hidden_dim=8192, layers=24), unusual_head_dim(),
            activation("hidden_act", "gelu_new", tanh="gelu_new"), Field("layer_norm_eps", "norm_eps", 1e-5),
            Field("resid_pdrop", "residual_dropout", 0.0), Field("embd_pdrop", "embed_dropout", 0.0), tied(False),
            Rope(fraction=0.5), switch("qk_layernorm", "qk_norm", False, on="head", off="none")),
    weights=WeightMap(
        "model.layers.",
        renamed(LINEARS | {"mixer.branch.out": "self_attn.dense", "mlp.branch.up": "mlp.fc1",
                           "mlp.branch.out": "mlp.fc2", "norm": "input_layernorm",
                           "mixer.branch.q_norm": "self_attn.q_layernorm",
                           "mixer.branch.k_norm": "self_attn.k_layernorm"}),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.final_layernorm", HEAD: "lm_head"})),
    about={"phi": About("both branches read one norm, half of each head rotated, biases", 2023, "arXiv:2309.05463")},
    presets={
        # the 1.3B model
        "phi": {"dim": 2048, "num_layers": 24, "attention.num_heads": 32, "hidden_dim": 8192, "vocab_size": 51200,
                "max_seq_len": 2048, "rope.fraction": 0.5},
    },
)
