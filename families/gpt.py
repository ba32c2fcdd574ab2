"""GPT, Radford et al. 2018: the stream is normalised after every branch; learned positions."""

from families.family import EVERY_BIAS, Family
from families.fields import Field, activation, tied, vocabulary
from families.weights import HEAD, QKV, Fused, Transposed, WeightMap, renamed

FAMILY = Family(
    model_type="openai-gpt", architecture="OpenAIGPTLMHeadModel",
    fixed=EVERY_BIAS | {"position": "learned", "residual": "post", "final_norm": False},
    fields=(
        vocabulary(40478), Field("n_positions", "max_seq_len", 512), Field("n_embd", "dim", 768),
        Field("n_layer", "num_layers", 12), Field("n_head", "attention.num_heads", 12),
        activation("afn", "gelu", tanh="gelu", words={
            "gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}),
        Field("layer_norm_epsilon", "norm_eps", 1e-5), Field("resid_pdrop", "residual_dropout", 0.1),
        Field("embd_pdrop", "embed_dropout", 0.1), Field("attn_pdrop", "attention.dropout", 0.1), tied(True),
    ),
    harmless=("n_ctx", "predict_special_tokens"),
    weights=WeightMap(
        "transformer.h.",
        (Fused(QKV, "attn.c_attn", transposed=True), Transposed("mixer.branch.out", "attn.c_proj"),
         Transposed("mlp.branch.up", "mlp.c_fc"), Transposed("mlp.branch.out", "mlp.c_proj"),
         *renamed({"mixer.norm": "ln_1", "mlp.norm": "ln_2"})),
        renamed({"embed.tokens": "transformer.tokens_embed", "embed.position.table": "transformer.positions_embed",
                 HEAD: "lm_head"}),
        prefix="transformer.", buffers=(".attn.bias", "position_ids")),
)
