"""BioGPT, Luo et al. 2022, arXiv:2210.10341: GPT-2 with scaled embeddings; positions begin at row 2 of their table."""

from families.family import EVERY_BIAS, Family
from families.fields import Field, activation, hidden, switch, tied, vocabulary
from families.weights import HEAD, LINEARS, Rows, WeightMap, renamed

FAMILY = Family(
    model_type="biogpt", architecture="BioGptForCausalLM",
    fixed=EVERY_BIAS | {"position": "learned"},
    fields=(
        vocabulary(42384), Field("hidden_size", "dim", 1024), Field("num_hidden_layers", "num_layers", 24),
        Field("num_attention_heads", "attention.num_heads", 16), hidden("intermediate_size", 4096),
        Field("max_position_embeddings", "max_seq_len", 1024), activation("hidden_act", "gelu"), tied(True),
        Field("hidden_dropout_prob", ("residual_dropout", "embed_dropout"), 0.1),
        Field("attention_probs_dropout_prob", "attention.dropout", 0.1),
        Field("activation_dropout", "mlp_dropout", 0.0),
        switch("scale_embedding", "embed_scale", True, on="sqrt_dim", off=1.0),
    ),
    harmless=("layer_norm_eps",),  # the class leaves its norms at 1e-5
    weights=WeightMap(
        "biogpt.layers.",
        renamed(LINEARS | {"mixer.branch.out": "self_attn.out_proj", "mlp.branch.up": "fc1", "mlp.branch.out": "fc2",
                           "mixer.norm": "self_attn_layer_norm", "mlp.norm": "final_layer_norm"}),
        (Rows("embed.position.table", "biogpt.embed_positions", 2), *renamed({
            "embed.tokens": "biogpt.embed_tokens", "norm": "biogpt.layer_norm", HEAD: "output_projection"})),
        prefix="biogpt.", head="output_projection"),
)
