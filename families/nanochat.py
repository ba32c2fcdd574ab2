"""nanochat, Karpathy 2025: norms without weights, also after the embedding and of queries and keys.

They are normalised after they are rotated, which is the same: a rotation keeps the length.
"""

from families.family import About, Family
from families.fields import ATTENTION_BIASES, Field, activation, llama_sizes, tied
from families.layers import Rope
from families.weights import HEAD, SwappedHalves, WeightMap, renamed

FAMILY = Family(
    model_type="nanochat", architecture="NanoChatForCausalLM",
    fixed={"norm": "rms", "norm_affine": False, "embed_norm": True, "qk_norm": "head"},
    fields=(*llama_sizes(vocab=50304, dim=768, hidden_dim=8192, layers=12, heads=6),
            activation("hidden_act", "relu2"), Field("rms_norm_eps", "norm_eps", 1e-6), tied(False), Rope(),
            Field("attention_bias", ATTENTION_BIASES, False),
            Field("final_logit_softcapping", "logit_softcap", 15.0)),
    weights=WeightMap(
        "model.layers.",
        (SwappedHalves("mixer.branch.q", "self_attn.q_proj"), SwappedHalves("mixer.branch.k", "self_attn.k_proj"),
         *renamed({"mixer.branch.v": "self_attn.v_proj", "mixer.branch.out": "self_attn.o_proj",
                   "mlp.branch.up": "mlp.fc1", "mlp.branch.out": "mlp.fc2"})),
        renamed({"embed.tokens": "model.embed_tokens", HEAD: "lm_head"})),
    about={
        "nanochat": About("norms without weights, also after the embedding; relu^2, capped logits", 2025,
                          "karpathy/nanochat"),
    },
    presets={
        # depth 20, with the published class's form: what the repository has since added is in speedruns.py
        "nanochat": {"dim": 1280, "num_layers": 20, "attention.num_heads": 10, "hidden_dim": 5120,
                     "vocab_size": 65536, "max_seq_len": 2048, "activation": "relu2", "norm_eps": 1e-6,
                     "logit_softcap": 15.0, "out_init": "zero"},
    },
)
