"""GLM-4 of 2024, GLM Team, arXiv:2406.12793: biases of queries, keys and values, half of each head rotated in pairs."""

from families.family import Family
from families.glm4 import FAMILY as GLM4
from families.phi3 import GATE_UP
from families.weights import PRE, llama_weights

FAMILY = Family(
    model_type="glm", architecture="GlmForCausalLM",
    fixed={"mlp": "glu", "norm": "rms", "rope.layout": "interleaved"},
    fields=GLM4.fields, weights=llama_weights(PRE, GATE_UP),
)
