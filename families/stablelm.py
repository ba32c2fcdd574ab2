"""StableLM 2, Bellagente et al. 2024, arXiv:2402.17834: a gated MLP, LayerNorm, a quarter of each head rotated."""

from families.family import About, Family
from families.fields import QKV_BIASES, Field, activation, llama_sizes, switch, tied, unusual_head_dim
from families.layers import Rope
from families.weights import PRE, Numbered, llama_weights

FAMILY = Family(
    model_type="stablelm", architecture="StableLmForCausalLM",
    fixed={"mlp": "glu", "norm_bias": True, "attention.qk_norm_bias": False},
    fields=(*llama_sizes(vocab=50304, dim=2560, hidden_dim=6912, kv=32, context=4096), unusual_head_dim(),
            activation("hidden_act", "silu"), Field("layer_norm_eps", "norm_eps", 1e-5), tied(False),
            Rope(fraction=0.25), Field("use_qkv_bias", QKV_BIASES, False),
            switch("use_parallel_residual", "residual", False, on="parallel", off="pre"),
            switch("qk_layernorm", "qk_norm", False, on="each_head", off="none"),
            Field("hidden_dropout", "residual_dropout", 0.0)),
    weights=llama_weights(PRE | {"norm": "input_layernorm"}, Numbered(
        "mixer.branch.q_norm", "self_attn.q_layernorm.norms.{}"), Numbered(
        "mixer.branch.k_norm", "self_attn.k_layernorm.norms.{}")),
    about={
        "stablelm": About("a gated MLP, LayerNorm, a quarter of each head rotated, QKV biases", 2024,
                          "arXiv:2402.17834"),
    },
    presets={
        # the 1.6B model
        "stablelm": {"dim": 2048, "num_layers": 24, "attention.num_heads": 32, "hidden_dim": 5632,
                     "vocab_size": 100352, "max_seq_len": 4096, "activation": "silu", "rope.fraction": 0.25,
                     "attention.q_bias": True, "attention.k_bias": True, "attention.v_bias": True},
    },
)
