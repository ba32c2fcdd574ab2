"""GPT-2, Radford et al. 2019: learned positions, LayerNorm, biases everywhere."""

from families.family import ADAMW, EVERY_BIAS, About, Family
from families.fields import Field, activation, hidden, tied, vocabulary
from families.weights import HEAD, QKV, Fused, Transposed, WeightMap, renamed


def _size(dim: int, num_layers: int, num_heads: int) -> dict:
    """The widths and depths of table 2."""
    return {"dim": dim, "num_layers": num_layers, "attention.num_heads": num_heads, "vocab_size": 50257,
            "max_seq_len": 1024, "tie_embeddings": True, "out_init": "depth", "embed_dropout": 0.1,
            "attention.dropout": 0.1, "residual_dropout": 0.1}


SIZES = (Field("n_embd", "dim", 768), Field("n_layer", "num_layers", 12), Field("n_head", "attention.num_heads", 12))
FIELDS = (vocabulary(50257), Field("n_positions", "max_seq_len", 1024), *SIZES, hidden("n_inner", None))
# LayerNorm's epsilon, and what is dropped
NUMBERS = (Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("resid_pdrop", "residual_dropout", 0.1),
           Field("embd_pdrop", "embed_dropout", 0.1), Field("attn_pdrop", "attention.dropout", 0.1), tied(True))
NORMS = renamed({"mixer.norm": "ln_1", "mlp.norm": "ln_2"})
IN_A_LAYER = (Fused(QKV, "attn.c_attn", transposed=True), Transposed("mixer.branch.out", "attn.c_proj"),
              Transposed("mlp.branch.up", "mlp.c_fc"), Transposed("mlp.branch.out", "mlp.c_proj"), *NORMS)
OUTSIDE = renamed({"embed.tokens": "transformer.wte", "embed.position.table": "transformer.wpe",
                   "norm": "transformer.ln_f", HEAD: "lm_head"})

FAMILY = Family(
    model_type="gpt2", architecture="GPT2LMHeadModel",
    fixed=EVERY_BIAS | {"position": "learned"},
    fields=(*FIELDS, activation("activation_function", "gelu_new", tanh="gelu_new"), *NUMBERS),
    only={"scale_attn_weights": True},
    harmless=("n_ctx", "reorder_and_upcast_attn"),
    weights=WeightMap("transformer.h.", IN_A_LAYER, OUTSIDE, prefix="transformer.",
                      buffers=(".attn.bias", ".attn.masked_bias")),
    about={
        "gpt2": About("learned positions, LayerNorm, biases everywhere", 2019, "Radford et al."),
        "gpt2-medium": About("gpt2 at 24 layers", 2019, "Radford et al."),
        "gpt2-large": About("gpt2 at 36 layers", 2019, "Radford et al."),
        "gpt2-xl": About("gpt2 at 48 layers", 2019, "Radford et al."),
    },
    presets={"gpt2": _size(768, 12, 12), "gpt2-medium": _size(1024, 24, 16), "gpt2-large": _size(1280, 36, 20),
             "gpt2-xl": _size(1600, 48, 25)},
    training=ADAMW | {"lr": 6e-4},
)
