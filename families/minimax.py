"""MiniMax-01, MiniMax 2025, arXiv:2501.08313: lightning attention, full attention in every eighth layer, experts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config import ModelConfig
from families.experts import TRAINING, BalanceLoss, expert_weights, experts
from families.family import About, Family
from families.fields import Field, Implied, PerLayer, Theirs, head_dim, llama_sizes, tied
from families.layers import FULL, Rope
from families.weights import Pair, Same, Tensors, WeightMap, renamed

LINEAR = "linear_attention"
MIXERS = {LINEAR: "lightning", FULL: "attention"}
# their layers put the norm of the stream in its place, so that each norm stands after the branch before it
FIXED = {"mlp": "moe", "norm": "rms", "residual": "post", "embed_norm": True, "final_norm": False,
         "activation": "silu"}
LIGHTNING = {"lightning.norm_eps": 1e-6, "lightning.by_depth": True}
AFTER_MIXER, BEFORE_LAYER = "post_attention_layernorm", "input_layernorm"


@dataclass(frozen=True)
class Layers:
    """layer_types: which layers have lightning attention, as many and as wide heads as full attention; in turns."""

    names: tuple[str, ...] = ("layer_types",)

    @property
    def defaults(self) -> dict[str, Any]:
        return {}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        number, heads = theirs["num_hidden_layers"], theirs["num_attention_heads"]
        types = theirs.get("layer_types") or [LINEAR if i % 2 else FULL for i in range(number)]
        if len(types) != number or set(types) - MIXERS.keys():
            raise ValueError(f"layer_types needs one of {', '.join(MIXERS)} for each of the {number} layers")
        found = {"mixer": PerLayer(MIXERS[kind] for kind in types)}
        if LINEAR in types:
            width = theirs.get("head_dim") or theirs["hidden_size"] // heads
            found |= LIGHTNING | {"lightning.num_heads": heads, "lightning.head_dim": width}
        return found

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        words = {ours: theirs for theirs, ours in MIXERS.items()}
        return {"layer_types": [words[cfg.at(i).mixer] for i in range(cfg.num_layers)]}


def scales(part: str, flag: str) -> tuple[Field | Implied, ...]:
    """The factors on the stream (alpha) or on a branch (beta), which must be the same for all branches."""
    own = f"mlp_{part}_factor"
    return (Field(own, flag, 1), *(Implied(f"{kind}_attn_{part}_factor", lambda theirs: theirs[own],
                                           lambda cfg: getattr(cfg, flag)) for kind in ("full", "linear")))


@dataclass(frozen=True)
class NextNorm(Same):
    """The norm after a layer's last branch is theirs before the next layer, whose number stands in `prefix`."""

    def names(self, prefix: str, end: str, shape: Any) -> list[str]:
        layer, number = prefix.rstrip(".").rsplit(".", 1)
        return super().names(f"{layer}.{int(number) + 1}.", end, shape)


@dataclass(frozen=True)
class ShiftedNorms(WeightMap):
    """The norm after the last layer is their final one."""

    def pairs(self, cfg: ModelConfig, own: Tensors) -> Iterator[Pair]:
        beyond = f"{self.layer}{cfg.num_layers}.{BEFORE_LAYER}."
        for pair in super().pairs(cfg, own):
            yield pair._replace(theirs=[name.replace(beyond, "model.norm.") for name in pair.theirs])


LLAMA = expert_weights(
    *renamed({"mixer.branch.qkv": "self_attn.qkv_proj", "mixer.branch.gate": "self_attn.output_gate",
              "mixer.branch.norm": "self_attn.norm"}),
    norms={"mixer.norm": AFTER_MIXER}, room="block_sparse_moe", names={"gate": "w1", "up": "w3", "out": "w2"})
WEIGHTS = ShiftedNorms(
    LLAMA.layer,
    (Same("mixer.branch.out", "self_attn.out_proj", beside="mixer.branch.qkv"),
     NextNorm("mlp.norm", BEFORE_LAYER), *LLAMA.rules),
    (*LLAMA.whole, Same("embed.norm", f"{LLAMA.layer}0.{BEFORE_LAYER}")),
    buffers=(*LLAMA.buffers, ".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay"))

FAMILY = Family(
    model_type="minimax", architecture="MiniMaxForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(hidden_dim=14336, kv=8, context=131072), head_dim(), Field("rms_norm_eps", "norm_eps", 1e-5),
            tied(False), Rope(theta=1_000_000.0), Field("sliding_window", "attention.window", None), Layers(),
            *scales("alpha", "skip_scale"), *scales("beta", "residual_scale"),
            *experts("num_local_experts", 8, 2), BalanceLoss(0.001)),
    only={"hidden_act": "silu"},
    harmless=(*TRAINING, "router_jitter_noise", "block_size"),
    aliases={"num_experts": "num_local_experts"},
    weights=WEIGHTS,
    about={"minimax": About("lightning attention, full attention in every eighth layer, a scaled stream, experts", 2025,
                            "arXiv:2501.08313")},
    presets={
        # the 456B model (Text-01). Its own code rotates 64 of 128 channels, theirs all: rotary_dim is refused
        "minimax": FIXED | LIGHTNING | {
            "dim": 6144, "num_layers": 80, "attention.num_heads": 64, "attention.num_kv_heads": 8,
            "attention.head_dim": 128, "lightning.num_heads": 64, "lightning.head_dim": 128, "hidden_dim": 9216,
            "vocab_size": 200064, "max_seq_len": 10_240_000, "rope.theta": 10_000_000.0, "moe.num_experts": 32,
            "moe.top_k": 2, "moe.balance_loss": 0.002, "skip_scale": 3.5565588200778455,
            "layers": ("lightning",) * 7 + ("attention",)},
    },
)
