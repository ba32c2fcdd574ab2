"""GPT, Radford et al. 2018: the stream is normalised after every branch; learned positions."""

from families.family import EVERY_BIAS, Family
from families.fields import Field, activation, vocabulary
from families.gpt2 import IN_A_LAYER, NUMBERS, SIZES
from families.weights import HEAD, WeightMap, renamed

FAMILY = Family(
    model_type="openai-gpt", architecture="OpenAIGPTLMHeadModel",
    fixed=EVERY_BIAS | {"position": "learned", "residual": "post", "final_norm": False},
    fields=(
        vocabulary(40478), Field("n_positions", "max_seq_len", 512), *SIZES,
        activation("afn", "gelu", tanh="gelu", words={
            "gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}), *NUMBERS,
    ),
    harmless=("n_ctx", "predict_special_tokens"),
    weights=WeightMap(
        "transformer.h.", IN_A_LAYER,
        renamed({"embed.tokens": "transformer.tokens_embed", "embed.position.table": "transformer.positions_embed",
                 HEAD: "lm_head"}),
        prefix="transformer.", buffers=(".attn.bias", "position_ids")),
)
