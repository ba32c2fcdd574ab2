"""Models of training speedruns in the form of their repositories: presets alone, transformers has no class of them.

nanochat-2026 computes what karpathy/nanochat does, at the depth of its speedrun. Its weights start otherwise: there the
numbers of skips to the embedding fall from layer to layer, those of the embedding from 0.2, and gates are above 0.

modded is KellerJordan/modded-nanogpt as far as flags go, with the windows of the end of its training. It leaves out
paired heads, composed heads (DC), the coefficients of skips, gates and exclusive attention that an MLP computes for
each token (here a learned number, or a gate of the layer), the skip from layer 3 to 6, factors on branches, the one
input of the last three attention layers, signs of bigrams, the shift of the logits before their cap, and what is of
training alone: several predicted tokens, prefixes as targets, an embedding that is tied at first, growing windows,
float8. In other places stand the norm of the embedding (there after the smear), that of keys (there before their
offset), and x_0 and bigrams (there added after attention); gates of value embeddings read 6 channels of the stream
and 6 of the embedding there, and 12 of the stream here.
"""

from typing import Any

from configuration.plain import PLAIN_MODEL
from families.family import ADAMW, About

TRAINING: dict[str, Any] = ADAMW | {
    "optimizer": "muon", "lr": 6e-3, "momentum": 0.95, "grad_clip": None, "schedule": "wsd", "decay_fraction": 0.65,
    "min_lr_ratio": 0.05}
FORM: dict[str, Any] = PLAIN_MODEL | {  # what both have
    "activation": "relu2", "norm": "rms", "norm_affine": False, "norm_eps": 2**-23, "qk_norm": "head",
    "embed_norm": True, "smear": True, "skip_to_embedding": True, "init": "fan_in", "out_init": "zero"}
VALUES: dict[str, Any] = {"attention.value_embedding": True, "attention.value_gate_dim": 12}
XSA: dict[str, Any] = {"attention.exclusive": True}
LONG: dict[str, Any] = {"attention.window": None, "attention.key_offset": True, "attention.gate": "head"}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "nanochat-2026": {
        "model": FORM | {
            "dim": 1536, "num_layers": 24, "attention.num_heads": 12, "hidden_dim": 6144, "vocab_size": 32768,
            "max_seq_len": 2048, "rope.theta": 1e5, "logit_softcap": 15.0, "smear_dim": 24, "backout": 0.2,
            "attention.scale": 1.2**2 * 128**-0.5,  # normalised queries and keys are multiplied by 1.2 each
            "head_zero_init": True,
            "layers": ("short", "short-values", "short", "long-values"),
            "kinds": {"short": {"attention.window": 513},  # 512 tokens and its own
                      "short-values": VALUES | {"attention.window": 513, "attention.value_gate_max": 3.0},
                      "long-values": VALUES | {"attention.value_gate_max": 3.0}},
        },
        "train": TRAINING,
    },
    "modded": {
        "model": FORM | {
            "dim": 768, "num_layers": 11, "attention.num_heads": 6, "hidden_dim": 3072, "vocab_size": 50257,
            "vocab_multiple_of": 128, "max_seq_len": 2048, "attention.scale": 0.1, "attention.window": 769,
            # half of each head turns, by 1024^(-i/31) for pair i of 32
            "rope.fraction": 0.5, "rope.layout": "interleaved", "rope.theta": 1024 ** (32 / 31),
            "logit_softcap": 11.5, "logit_scale": 11.5 / 15,  # 23 sigmoid(x / 7.5), but for a constant
            "memory": "bigram", "bigram.factor": 7, "bigram.start": 0.05,  # there 7.5
            "backout": 0.5, "backout_depth": 0.65,  # layer 7
            "layers": ("base", "exclusive-values", "values", "long-exclusive", "exclusive", "base", "mlp", "exclusive",
                       "values", "values", "long-values"),
            "kinds": {
                "values": VALUES, "exclusive": XSA, "exclusive-values": VALUES | XSA, "long-exclusive": LONG | XSA,
                "long-values": LONG | VALUES,
                "mlp": {"mixer": "none", "memory": "none"},
            },
        },
        "train": TRAINING,
    },
}
ABOUT: dict[str, About] = {
    "nanochat-2026": About("nanochat of today: value embeddings, smear, skips to the embedding, backout, windows", 2026,
                           "karpathy/nanochat"),
    "modded": About("the GPT-2 speedrun as far as flags go: bigrams, half rotated heads, offset keys, XSA", 2026,
                    "modded-nanogpt"),
}
