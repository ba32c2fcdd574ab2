"""StarCoder2, Lozhkov et al. 2024, arXiv:2402.19173: LayerNorm, biases everywhere, an MLP of two matrices, a window."""

from families.family import EVERY_BIAS, About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied, unusual_head_dim
from families.layers import Rope
from families.weights import HEAD, LINEARS, PRE, WeightMap, renamed

FAMILY = Family(
    model_type="starcoder2", architecture="Starcoder2ForCausalLM",
    fixed={"norm_bias": True},
    fields=(*llama_sizes(vocab=49152, dim=3072, hidden_dim=12288, layers=30, heads=24, kv=2, context=4096),
            unusual_head_dim(), activation("hidden_act", "gelu_pytorch_tanh"), Field("norm_epsilon", "norm_eps", 1e-5),
            Field("sliding_window", "attention.window", None), Field("residual_dropout", "residual_dropout", 0.0),
            Field("embedding_dropout", "embed_dropout", 0.0), tied(True), Rope(),
            Field("use_bias", (*ATTENTION_BIASES, "mlp_bias"), True)),
    weights=WeightMap(
        "model.layers.",
        renamed(LINEARS | PRE | {"mlp.branch.up": "mlp.c_fc", "mlp.branch.out": "mlp.c_proj"}),
        renamed({"embed.tokens": "model.embed_tokens", "norm": "model.norm", HEAD: "lm_head"})),
    about={
        "starcoder2": About("twelve query heads to a key/value head, LayerNorm, biases, a window", 2024,
                            "arXiv:2402.19173"),
    },
    presets={
        # the 3B model
        "starcoder2": EVERY_BIAS | {"dim": 3072, "num_layers": 30, "attention.num_heads": 24,
                                    "attention.num_kv_heads": 2, "hidden_dim": 12288, "vocab_size": 49152,
                                    "max_seq_len": 16384, "attention.window": 4096, "rope.theta": 999999.4420358813,
                                    "tie_embeddings": True},
    },
)
