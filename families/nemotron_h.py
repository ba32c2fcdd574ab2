"""Nemotron-H, NVIDIA 2025, arXiv:2504.03624: layers of one branch: Mamba-2, attention without positions or an MLP.

Nemotron 3, which has experts in place of MLPs, is of the same class.
"""

from typing import Any

from config import LayerConfig, ModelConfig
from families.experts import expert_layer
from families.family import About, Family
from families.fields import Field, PerLayer, Theirs, activation, head_dim, kv_heads, vocabulary
from families.ssm import COMPUTING, INIT, group_fields, mamba2_rules
from families.weights import HEAD, Numbered, Same, WeightMap, renamed

NAMES = {"num_heads": "mamba_num_heads", "head_dim": "mamba_head_dim", "state_dim": "ssm_state_size",
         "num_groups": "n_groups", "conv_len": "conv_kernel", "bias": "use_bias", "conv_bias": "use_conv_bias",
         "min_step": "time_step_min"}
DEFAULTS = {"num_heads": 128, "head_dim": 64, "state_dim": 128, "num_groups": 8, "conv_len": 4, "bias": False,
            "conv_bias": True, "min_step": 0.001}
FIXED = {"norm": "rms", "position": "none"}
MOE = {"moe.expert": "mlp", "moe.scores": "sigmoid", "moe.balance_bias": True}
# letter of a pattern -> their words for a layer, the first being today's; its mixer and its MLP
KINDS = {"M": (("linear_attention", "mamba"), "mamba2", "none"),
         "*": (("full_attention", "attention"), "attention", "none"),
         "-": (("mlp",), "none", "mlp"), "E": (("moe",), "none", "moe")}
# their name -> our flag, and their default, if there are experts
EXPERTS = {"n_routed_experts": ("num_experts", 8), "num_experts_per_tok": ("top_k", 2), "n_group": ("num_groups", 1),
           "topk_group": ("top_groups", 1), "routed_scaling_factor": ("scale", 1.0),
           "norm_topk_prob": ("renormalise", True), "moe_shared_expert_intermediate_size": ("shared_dim", 7688)}


class Layers:
    """The one branch of each layer, the widths of the MLPs, and the numbers of the experts if there are any."""

    names = ("layers_block_type", "layer_types", "hybrid_override_pattern", "num_hidden_layers", "intermediate_size",
             "moe_intermediate_size", "mlp_bias", *EXPERTS)
    defaults = {"intermediate_size": 21504, "moe_intermediate_size": 7688, "mlp_bias": False} | {
        name: default for name, (_, default) in EXPERTS.items()}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        letters = pattern_of(theirs)
        widths = {"-": theirs["intermediate_size"], "E": theirs["moe_intermediate_size"]}
        found = {"num_layers": len(letters), "mixer": PerLayer(KINDS[letter][1] for letter in letters),
                 "mlp": PerLayer(KINDS[letter][2] for letter in letters)}
        if used := [letter for letter in widths if letter in letters]:
            found["hidden_dim"] = PerLayer(widths.get(letter, widths[used[0]]) for letter in letters)
        if "E" in letters and theirs["mlp_bias"]:
            raise ValueError("mlp_bias=True with experts, which would have none themselves, is not known here")
        if "-" in letters:
            found["mlp_bias"] = theirs["mlp_bias"]
        if "E" in letters:
            found |= MOE | {f"moe.{ours}": theirs[name] for name, (ours, _) in EXPERTS.items()}
        return found

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        layers = [cfg.at(i) for i in range(cfg.num_layers)]
        letters, written = [letter_of(layer) for layer in layers], {}
        for letter, name in (("-", "intermediate_size"), ("E", "moe_intermediate_size")):
            if letter in letters:
                written[name] = layers[letters.index(letter)].hidden_width
        if "E" in letters:
            own = expert_layer(cfg).moe
            written |= {name: getattr(own, ours) for name, (ours, _) in EXPERTS.items()}
        return written | {"mlp_bias": cfg.mlp_bias, "layers_block_type": [KINDS[letter][0][0] for letter in letters]}


def pattern_of(theirs: Theirs) -> str:
    """A letter for each layer. Raises ValueError for a word that is not known."""
    words = theirs.get("layers_block_type") or theirs.get("layer_types")
    if words is None:
        return theirs.get("hybrid_override_pattern") or "ME*-"
    letters = {word: letter for letter, (known, _, _) in KINDS.items() for word in known}
    if unknown := [word for word in words if word not in letters]:
        raise ValueError(f"layers_block_type has {unknown[0]!r}, which is not known here")
    return "".join(letters[word] for word in words)


def letter_of(layer: LayerConfig) -> str:
    """Raises ValueError for a layer of two branches."""
    for letter, (_, mixer, mlp) in KINDS.items():
        if (layer.mixer, layer.mlp) == (mixer, mlp):
            return letter
    raise ValueError(f"a layer with mixer={layer.mixer} and mlp={layer.mlp} is none of a NemotronHForCausalLM")


PATTERN = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
NAMED = {"M": "mamba2", "*": "attention", "-": "mlp"}

FAMILY = Family(
    model_type="nemotron_h", architecture="NemotronHForCausalLM",
    fixed=FIXED,
    fields=(vocabulary(131072), Field("hidden_size", "dim", 4096), Layers(),
            Field("num_attention_heads", "attention.num_heads", 32), kv_heads(8), head_dim(128),
            Field("max_position_embeddings", "max_seq_len", 4096),
            Field("attention_dropout", "attention.dropout", 0.0), *group_fields("mamba2", NAMES, DEFAULTS),
            activation("mlp_hidden_act", "relu2"),
            Field("layer_norm_epsilon", ("norm_eps", "mamba2.norm_eps"), 1e-5)),  # their class ties no head
    only={"mamba_hidden_act": "silu"},
    harmless=(*[name for name in INIT if name != "time_step_min"], *COMPUTING, "time_step_limit", "expand",
              "hidden_dropout", "use_mamba_kernels", "num_logits_to_keep", "mamba_ssm_cache_dtype",
              "moe_shared_expert_overlap", "n_shared_experts", "num_nextn_predict_layers", "mtp_layers_block_type",
              "mtp_hybrid_override_pattern", "output_router_logits"),
    aliases={"num_local_experts": "n_routed_experts"},
    weights=WeightMap(
        "backbone.layers.",
        (*renamed({f"mixer.branch.{name}": f"mixer.{name}_proj" for name in "qkv"}),
         Same("mixer.branch.out", "mixer.o_proj", beside="mixer.branch.q"), *mamba2_rules("mixer"),
         Same("mlp.branch.router.logits", "mixer.gate"), Same("mlp.branch.router", "mixer.gate"),
         *(Numbered(f"mlp.branch.experts.{ours}", f"mixer.experts.{{}}.{theirs}_proj")
           for ours, theirs in (("up", "up"), ("out", "down"))),
         *renamed({f"mlp.branch.{room}{ours}": f"mixer.{their_room}{theirs}_proj"
                   for room, their_room in (("shared.mlp.", "shared_experts."), ("", ""))
                   for ours, theirs in (("up", "up"), ("out", "down"))}),
         Same("mixer.norm", "norm"), Same("mlp.norm", "norm")),
        renamed({"embed.tokens": "backbone.embeddings", "norm": "backbone.norm_f", HEAD: "lm_head"}),
        prefix="backbone."),
    about={"nemotron-h": About("Mamba-2 or attention or an MLP in each layer, four of 52 attend", 2025,
                               "arXiv:2504.03624")},
    presets={
        # the 8B model
        "nemotron-h": FIXED | {
            "dim": 4096, "num_layers": 52, "attention.num_heads": 32, "attention.num_kv_heads": 8,
            "attention.head_dim": 128, "hidden_dim": 21504, "activation": "relu2", "vocab_size": 131072,
            "max_seq_len": 8192, "norm_eps": 1e-5, "mamba2.num_heads": 128, "mamba2.head_dim": 64,
            "mamba2.state_dim": 128, "mamba2.num_groups": 8, "mamba2.conv_len": 4, "mamba2.conv_bias": True,
            "mamba2.bias": False, "mamba2.norm": "after_gate", "mamba2.norm_eps": 1e-5, "mamba2.min_step": 0.001,
            "mamba2.max_step": None, "layers": tuple(NAMED[letter] for letter in PATTERN),
            "kinds": {"mamba2": {"mixer": "mamba2", "mlp": "none"}, "attention": {"mixer": "attention", "mlp": "none"},
                      "mlp": {"mixer": "none"}}},
    },
)
