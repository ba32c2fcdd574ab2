"""Falcon-H1, TII 2025, arXiv:2507.22448: attention and Mamba-2 side by side in each layer, with constant factors."""

from typing import Any

from config import ModelConfig
from families.bamba import DEFAULTS, NAMES
from families.family import About, Family
from families.fields import (
    ATTENTION_BIASES,
    Field,
    Implied,
    OneField,
    Theirs,
    llama_sizes,
    scale_of,
    tied,
    unusual_head_dim,
)
from families.jamba import FEED_FORWARD, NORMS, WHOLE
from families.layers import Rope
from families.ssm import COMPUTING, INIT, StepLimits, group_fields, mamba2_rules, mamba2_width
from families.weights import WeightMap, renamed

FIXED = {"mixer": "attention", "beside": "mamba2", "mlp": "glu", "norm": "rms", "activation": "silu"}
SCALES = {"mixer_scales": ("attention_in_multiplier", "attention_out_multiplier"),
          "beside_scales": ("ssm_in_multiplier", "ssm_out_multiplier")}
LISTS = {"mlp_scales": ("mlp_multipliers", 2), "mamba2.scales": ("ssm_multipliers", 5)}


class Factors:
    """The constant factors of the mixers and of the MLP: pairs of fields, and lists of which None is all ones."""

    names = tuple(name for pair in SCALES.values() for name in pair) + tuple(name for name, _ in LISTS.values())
    defaults = {name: 1.0 for pair in SCALES.values() for name in pair}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        found = {flag: tuple(theirs[name] for name in pair) for flag, pair in SCALES.items()}
        return found | {flag: tuple(theirs.get(name) or (1.0,) * number) for flag, (name, number) in LISTS.items()}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        scales = {"mixer_scales": cfg.mixer_scales, "beside_scales": cfg.beside_scales}
        found = {name: factor for flag, pair in SCALES.items() for name, factor in zip(pair, scales[flag], strict=True)}
        return found | {"mlp_multipliers": [*cfg.mlp_scales], "ssm_multipliers": [*cfg.mamba2.scales]}


class KeyMultiplier(OneField):
    """A factor on the keys, which we have as a factor on their scores."""

    def read(self, theirs: Theirs) -> dict[str, Any]:
        width = theirs.get("head_dim") or theirs["hidden_size"] // theirs["num_attention_heads"]
        return {"attention.scale": theirs.get(self.name, 1.0) * width**-0.5}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {self.name: scale_of(cfg) / cfg.head_width**-0.5}


class InnerWidth:
    """The width of Mamba-2: mamba_d_ssm, or else mamba_expand times that of the model; and that of a head."""

    names, defaults = ("mamba_d_ssm", "mamba_d_head", "mamba_expand"), {"mamba_d_ssm": 1024, "mamba_expand": 2}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        heads, inner = theirs["mamba_n_heads"], theirs["mamba_d_ssm"]
        inner = theirs["mamba_expand"] * theirs["hidden_size"] if inner is None else inner
        head = theirs.get("mamba_d_head", "auto")
        if inner % heads or head not in ("auto", inner // heads):
            raise ValueError(f"mamba_n_heads={heads} of mamba_d_head={head} are not mamba_d_ssm={inner} wide")
        return {"mamba2.head_dim": inner // heads}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"mamba_d_ssm": mamba2_width(cfg), "mamba_d_head": cfg.mamba2.head_width(cfg.dim)}


class OutputNorm:
    """mamba_rms_norm: whether Mamba-2 has a norm of its output, and mamba_norm_before_gate its place."""

    names = ("mamba_rms_norm", "mamba_norm_before_gate")
    defaults = {"mamba_rms_norm": False, "mamba_norm_before_gate": True}

    def read(self, theirs: Theirs) -> dict[str, Any]:
        if not theirs["mamba_rms_norm"]:
            return {"mamba2.norm": "none"}
        place = "before_gate" if theirs["mamba_norm_before_gate"] else "after_gate"
        return {"mamba2.norm": place, "mamba2.norm_eps": theirs["rms_norm_eps"]}

    def write(self, cfg: ModelConfig) -> dict[str, Any]:
        return {"mamba_rms_norm": cfg.mamba2.norm != "none",
                "mamba_norm_before_gate": cfg.mamba2.norm == "before_gate"}


FAMILY = Family(
    model_type="falcon_h1", architecture="FalconH1ForCausalLM",
    fixed=FIXED,
    fields=(*llama_sizes(vocab=128000, hidden_dim=14336, kv=8, context=8192), unusual_head_dim(), Rope(), tied(False),
            *group_fields("mamba2", NAMES, DEFAULTS), InnerWidth(), StepLimits(),
            Field("rms_norm_eps", "norm_eps", 1e-5), OutputNorm(),
            Implied("projectors_bias", lambda theirs: theirs["mamba_proj_bias"], lambda cfg: cfg.mamba2.bias),
            Field("attention_bias", ATTENTION_BIASES, False), Field("mlp_bias", "mlp_bias", False),
            Field("embedding_multiplier", "embed_scale", 1.0), Field("lm_head_multiplier", "logit_scale", 1.0),
            KeyMultiplier("key_multiplier"), Factors()),
    only={"hidden_act": "silu"},
    harmless=(*INIT, *COMPUTING, "num_logits_to_keep", "mamba_use_mlp", "mlp_expansion_factor"),
    weights=WeightMap(
        "model.layers.",
        (*renamed({f"mixer.branch.attention.{ours}": f"self_attn.{theirs}_proj"
                   for ours, theirs in {"q": "q", "k": "k", "v": "v", "out": "o"}.items()}),
         *mamba2_rules("mamba", "mixer.branch.mamba2"), *FEED_FORWARD, *renamed(NORMS)),
        WHOLE),
    about={"falcon-h1": About("attention and Mamba-2 side by side in each layer, their outputs added", 2025,
                              "arXiv:2507.22448")},
    presets={
        # the 0.5B model
        "falcon-h1": FIXED | {
            "dim": 1024, "num_layers": 36, "attention.num_heads": 8, "attention.num_kv_heads": 2,
            "attention.head_dim": 64, "hidden_dim": 2048, "vocab_size": 32784, "max_seq_len": 16384,
            "rope.theta": 1e11, "norm_eps": 1e-5, "attention.scale": 0.39062499999999994 / 8,
            "embed_scale": 5.656854249492381, "logit_scale": 0.0390625, "mixer_scales": (1.0, 0.9375),
            "beside_scales": (1.25, 0.23570226039551587), "mlp_scales": (0.8838834764831844, 0.5859375),
            "mamba2.num_heads": 24, "mamba2.head_dim": 64, "mamba2.state_dim": 128, "mamba2.num_groups": 1,
            "mamba2.conv_len": 4, "mamba2.conv_bias": True, "mamba2.bias": False, "mamba2.norm": "none",
            "mamba2.min_step": 0.0, "mamba2.max_step": None,
            "mamba2.scales": (0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738)},
    },
)
