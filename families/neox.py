"""GPT-NeoX and Pythia, Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373.

Both branches read the stream, each through a norm of its own; a quarter of each head is rotated.
"""

from families.family import EVERY_BIAS, About, Family
from families.fields import ATTENTION_BIASES, Field, Theirs, activation, hidden, switch, tied, vocabulary
from families.layers import Rope
from families.weights import HEAD, QKV, Fused, WeightMap, renamed


class NeoXRope(Rope):
    """The older names are rotary_emb_base and rotary_pct."""

    names = (*Rope(fraction=0.25).names, "rotary_emb_base", "rotary_pct")

    def read(self, theirs: Theirs) -> dict:
        older = {"rope_theta": theirs.get("rotary_emb_base"), "partial_rotary_factor": theirs.get("rotary_pct")}
        return super().read({name: value for name, value in older.items() if value is not None} | dict(theirs))


def _size(dim: int, num_layers: int, num_heads: int) -> dict:
    """The widths and depths of arXiv:2304.01373, table 1."""
    return {"dim": dim, "num_layers": num_layers, "attention.num_heads": num_heads, "hidden_dim": 4 * dim,
            "vocab_size": 50304, "max_seq_len": 2048, "activation": "gelu", "rope.fraction": 0.25}


FAMILY = Family(
    model_type="gpt_neox", architecture="GPTNeoXForCausalLM",
    fixed=EVERY_BIAS,
    fields=(
        vocabulary(50432), Field("hidden_size", "dim", 6144), Field("num_hidden_layers", "num_layers", 44),
        Field("num_attention_heads", "attention.num_heads", 64), hidden("intermediate_size", 24576),
        Field("max_position_embeddings", "max_seq_len", 2048), activation("hidden_act", "gelu"),
        Field("layer_norm_eps", "norm_eps", 1e-5), Field("hidden_dropout", "residual_dropout", 0.0),
        Field("attention_dropout", "attention.dropout", 0.0), tied(False),
        Field("attention_bias", ATTENTION_BIASES, True), NeoXRope(fraction=0.25),
        switch("use_parallel_residual", "residual", True, on="parallel_each", off="pre"),
    ),
    harmless=("classifier_dropout", "is_decoder"),
    weights=WeightMap(
        "gpt_neox.layers.",
        (Fused(QKV, "attention.query_key_value", parts="kv_heads"), *renamed({
            "mixer.branch.out": "attention.dense", "mlp.branch.up": "mlp.dense_h_to_4h",
            "mlp.branch.out": "mlp.dense_4h_to_h", "mixer.norm": "input_layernorm",
            "mlp.norm": "post_attention_layernorm"})),
        renamed({"embed.tokens": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", HEAD: "lm_head"}),
        prefix="gpt_neox.", saved_head="embed_out",
        buffers=(".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")),
    about={
        "pythia": About("both branches read the stream, each by a norm of its own", 2023, "arXiv:2304.01373"),
        "pythia-160m": About("pythia at 12 layers", 2023, "arXiv:2304.01373"),
    },
    presets={"pythia": _size(2560, 32, 32), "pythia-160m": _size(768, 12, 12)},
)
