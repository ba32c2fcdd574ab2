"""Apertus, 2025, arXiv:2509.14233: an ungated MLP with xIELU, and norms of queries and keys.

With relu2 it is the form in which models with the defaults of config.py are exported.
"""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import HEAD, LINEARS, WeightMap, renamed

FAMILY = Family(
    model_type="apertus", architecture="ApertusForCausalLM",
    fixed={"norm": "rms", "qk_norm": "head"},
    fields=(*llama_sizes(vocab=131072, hidden_dim=14336, context=65536), unusual_head_dim(),
            activation("hidden_act", "xielu"), Field("rms_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(theta=12_000_000.0, absent=(
                ("rope_type", "llama3"), ("factor", 8.0), ("original_max_position_embeddings", 8192),
                ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))),
            Field("attention_bias", ATTENTION_BIASES, False)),
    weights=WeightMap(
        "model.layers.",
        renamed(LINEARS | {"mixer.norm": "attention_layernorm", "mlp.norm": "feedforward_layernorm",
                           "mlp.branch.act": "mlp.act_fn"}),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.norm", HEAD: "lm_head"}),
        buffers=(".rotary_emb.inv_freq", ".act_fn.beta", ".act_fn.eps"),
        constants=(("act_fn.alpha_p", "act_fn.beta", 0.5), ("act_fn.alpha_p", "act_fn.eps", -1e-6))),
    about={"apertus": About("an MLP of two matrices with xIELU, QK-norm", 2025, "arXiv:2509.14233")},
    presets={
        # the 8B model
        "apertus": {"dim": 4096, "num_layers": 32, "attention.num_heads": 32, "attention.num_kv_heads": 8,
                    "hidden_dim": 21504, "vocab_size": 131072, "max_seq_len": 65536, "activation": "xielu",
                    "rope.theta": 12_000_000.0, "rope.scaling": "llama3", "rope.factor": 8.0},
    },
)
