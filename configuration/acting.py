"""When each flag of ModelConfig has an effect.

A group (model.rope, model.attention, ...) acts if a layer has the part of its name: one of the layer's choices (mixer,
mlp, norm, position, ...) is that word. So the group of a new part needs no line here, unless it has no word, such as
model.indexer, which any layer with heads can have. LAYER_ACTS and MODEL_ACTS have the conditions of single flags.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from configuration.checks import Acts

HEADS = ("attention", "latent")  # of mixer, those with heads that attend
WHOLE_TEXT = ("hyena", "long_conv")  # of mixer, those that keep a vector of each token, as they convolve all of them
OTHER_STREAMS = ("hyper", "mhc", "attnres")  # of residual, those whose stream is not one sum
IN_EMBEDDING = ("learned", "sinusoidal")  # positions that are added to the embedding, once for all layers
ROTATED = ("attention", "latent", "cema", "retnet")  # of mixer, those whose queries and keys position=rope rotates


def mixers_of(layer: Any) -> tuple[str, ...]:
    """The words of a layer's mixers: one, two side by side, or none."""
    return tuple(word for word in (layer.mixer, layer.beside) if word != "none")


def attends(layer: Any) -> bool:
    """Whether a mixer of a layer is attention, which the flags of attention and positions concern."""
    return "attention" in mixers_of(layer)


def has_heads(layer: Any) -> bool:
    """Whether a mixer of a layer has heads that attend, which some flags of attention and rope concern."""
    return any(word in HEADS for word in mixers_of(layer))


def projects(layer: Any) -> bool:
    """Whether a layer has attention, to its text or to a source, with queries, keys and values of its own."""
    return attends(layer) or layer.cross == "attention"


def has_part(layer: Any, group: str) -> bool:
    """Whether a layer has the part that a group of flags belongs to: one of its choices is the group's name."""
    return group in parts_of(layer)


def parts_of(layer: Any) -> set[str]:
    """The groups of flags whose parts a layer has."""
    values, position = (getattr(layer, name) for name in _choices(type(layer))), layer.position
    found = {word for word in values if isinstance(word, str)} - {"attention"}
    rotates = any(word in ROTATED for word in mixers_of(layer))
    if rotates if position == "rope" else attends(layer):
        found.add(position)
    if layer.mlp == "moe":
        found.add(layer.moe.expert)
    if layer.residual == "mhc":
        found.add("hyper")
    if has_heads(layer):
        found.add("indexer")
    return found | {"attention"} if has_heads(layer) or projects(layer) else found


@cache
def _choices(kind: type) -> list[str]:
    """The flags of a layer that may be words, but position."""
    return [field.name for field in fields(kind) if not is_dataclass(field.type) and field.name != "position"]


# when a group acts, in words
CONDITIONS = {"attention": "a mixer is attention or latent, or cross is attention", "rope": "position is rope",
              "alibi": "position is alibi", "t5": "position is t5", "ngpt": "residual is ngpt",
              "hyper": "residual is hyper or mhc", "attnres": "residual is attnres",
              "sinusoidal": "position is sinusoidal", "bigram": "memory is bigram",
              "engram": "memory is engram", "clamped_glu": "mlp or moe.expert is clamped_glu",
              "indexer": "a mixer is attention or latent"}


def _qk_norm_has_bias(layer: Any) -> bool:
    return _qk_norm_affine(layer) and (layer.attention.qk_norm_kind or layer.norm) in ("rms", "layer", "dyt")


def _qk_norm_sees_turns(layer: Any) -> bool:
    """Whether the norm of a rotated vector is not the rotated norm: lengths alone stay as they are."""
    kind = layer.attention.qk_norm_kind or layer.norm
    return kind in ("layer", "dyt") or _qk_norm_affine(layer) and kind != "cosine"


def _qk_norm_affine(layer: Any) -> bool:
    own = layer.attention.qk_norm_affine
    return layer.norm_affine if own is None else own


def has_branches(layer: Any) -> bool:
    return any(word != "none" for word in (layer.mixer, layer.cross, layer.mlp))


def _has_first_norm(cfg: Any) -> bool:
    """Whether the wiring of the first branch has a norm before it, and no other."""
    first = cfg.by_kind[cfg.kind_at(0)]
    return has_branches(first) and first.residual == "pre" and first.norm != "none" and mixers_of(first) != ("cema",)


# of canon: whether a layer has a place
PLACES: dict[str, Callable[[Any], bool]] = {
    "mixer": lambda c: c.mixer != "none", "qkv": lambda c: attends(c) and not c.attention.share_kv,
    "mlp": lambda c: c.mlp != "none", "hidden": lambda c: c.mlp not in ("none", "moe"),
}
# single flags of a layer -> when they act
LAYER_ACTS: dict[tuple[str, ...], Acts] = {
    ("norm_affine", "inner_norm"): ("norm is not none", lambda c: c.norm != "none"),
    ("qk_norm",): ("norm or attention.qk_norm_kind is not none, or qk_norm is unit", lambda c: projects(c) and (
        c.qk_norm == "unit" or (c.attention.qk_norm_kind or c.norm) != "none")),
    ("attention.qk_norm_kind", "attention.qk_norm_affine"): (
        "a mixer or cross is attention, and qk_norm is neither none nor unit",
        lambda c: projects(c) and c.qk_norm not in ("none", "unit")),
    ("attention.qk_norm_bias",): ("qk_norm is neither none nor unit, and its kind is rms, layer or dyt with a scale",
                                  lambda c: projects(c) and c.qk_norm not in ("none", "unit") and _qk_norm_has_bias(c)),
    ("attention.qk_norm_after_rope",): (
        "position is rope and qk_norm is unit, or head or each_head with a learned scale or of kind layer or dyt",
        lambda c: attends(c) and has_part(c, "rope") and (c.qk_norm == "unit" or c.qk_norm in ("head", "each_head")
                                           and _qk_norm_sees_turns(c))),
    ("norm_eps",): ("norm is neither dyt nor none, or final_norm_groups is given",
                    lambda c: c.norm not in ("dyt", "none") or c.final_norm_groups is not None),
    ("norm_bias",): ("norm is neither cosine nor none, and norm_affine is on",
                     lambda c: c.norm not in ("cosine", "none") and c.norm_affine),
    ("norm_unit_offset",): ("norm is none of cosine, dyt and none, and norm_affine is on",
                            lambda c: c.norm not in ("cosine", "dyt", "none") and c.norm_affine),
    ("position",): ("a mixer is attention, or latent, cema or retnet with rope, or position is learned or sinusoidal",
                    lambda c: attends(c) or has_part(c, "rope") or c.position in IN_EMBEDDING),
    tuple(f"attention.{name}" for name in (
        "num_kv_heads", "head_dim", "q_bias", "k_bias", "v_bias", "clip", "gate", "differential")): (
            "a mixer or cross is attention", projects),
    tuple(f"attention.{name}" for name in ("value_residual", "exclusive", "value_embedding", "share_kv")): (
        "a mixer is attention", attends),
    ("attention.value_gate_max", "attention.value_gate_dim"): (
        "attention.value_embedding is on", lambda c: attends(c) and c.attention.value_embedding),
    ("attention.window", "attention.chunk"): ("a mixer is attention or latent", has_heads),
    ("attention.dilation",): ("attention.window is above 1", lambda c: (c.attention.window or 0) > 1),
    ("attention.stride", "attention.global_tokens"): (
        "attention.window or attention.chunk is given",
        lambda c: c.attention.window is not None or c.attention.chunk is not None),
    ("indexer.num_heads", "indexer.head_dim", "indexer.loss"): (
        "indexer.top_k is given", lambda c: has_heads(c) and c.indexer.top_k is not None),
    ("attention.temperature_len", "attention.temperature_first"): (
        "attention.temperature_scale is given", lambda c: c.attention.temperature_scale is not None),
    ("rope.original_len",): ("rope.scaling is llama3 or yarn", lambda c: c.rope.scaling in ("llama3", "yarn")),
    ("rope.low_freq_factor", "rope.high_freq_factor"): ("rope.scaling is llama3",
                                                        lambda c: c.rope.scaling == "llama3"),
    ("rope.beta_fast", "rope.beta_slow", "rope.truncate", "rope.attention_factor"): (
        "rope.scaling is yarn", lambda c: c.rope.scaling == "yarn"),
    ("activation", "mlp_bias", "mlp_dropout", "mlp_scales", "hidden_dim"): (
        "mlp is not none", lambda c: c.mlp != "none"),
    ("hidden_mult", "hidden_multiple_of"): ("mlp is not none and hidden_dim is not given",
                                            lambda c: c.mlp != "none" and c.hidden_dim is None),
    ("residual", "residual_scale", "residual_dropout", "layer_scale", "drop_branch"): (
        "a layer has a mixer, cross or an MLP", has_branches),
    ("mixer_scales", "beside_scales"): ("beside is not none", lambda c: c.beside != "none"),
    ("skip_scale",): ("residual is post, and a layer has a branch", lambda c: c.residual == "post" and has_branches(c)),
    ("residual",): ("norm is not none, or residual is none of pre, post, sandwich, branch_post and parallel_each",
                    lambda c: c.norm != "none" or c.residual not in ("pre", "post", "sandwich", "branch_post",
                                                                     "parallel_each")),
    ("hyper.sinkhorn_steps", "hyper.eps"): ("residual is mhc", lambda c: c.residual == "mhc"),
    ("depth_scaled_norms",): ("residual is none of post, sandwich, branch_post, ngpt and none, and a layer after the "
                              "first has a norm before a branch",
                              lambda c: c.residual not in ("post", "sandwich", "branch_post", "ngpt", "none")
                              and c.norm != "none" and c.num_layers > 1 and has_branches(c)),
    ("canon",): ("a layer has what it names: mixer, qkv of attention with keys of its own, mlp, hidden of a dense mlp",
                 lambda c: all(PLACES[name](c) for name in c.canon)),
    ("attention.key_offset",): ("a mixer is attention with keys of its own", lambda c: PLACES["qkv"](c)),
    ("token_shift",): ("a layer has the branches that it names",
                       lambda c: all(getattr(c, name) != "none" for name in c.token_shift)),
    ("token_shift_power",): ("token_shift is given", lambda c: bool(c.token_shift)),
    ("canon_len",): ("canon is given", lambda c: bool(c.canon)),
    ("mamba.norm_eps",): ("mamba.norms is not none", lambda c: c.mamba.norms != "none"),
    ("mamba2.norm_eps",): ("mamba2.norm is not none", lambda c: c.mamba2.norm != "none"),
    ("moe.shared_gate",): ("moe.shared_dim is given", lambda c: c.moe.shared_dim is not None),
    ("moe.margin",): ("moe.scores is sparsemixer", lambda c: c.moe.scores == "sparsemixer"),
    ("moe.balance_logits", "moe.bias_rate"): ("moe.balance_bias is on", lambda c: c.moe.balance_bias),
    ("moe.top_groups",): ("moe.num_groups is above 1", lambda c: c.moe.num_groups > 1),
    ("inner_norm",): ("a mixer is attention or latent, or a layer has cross or an MLP", lambda c: (
        has_heads(c) or c.cross != "none" or c.mlp != "none")),
}
# flags of the whole model -> when they act
MODEL_ACTS: dict[tuple[str, ...], Acts] = {
    ("final_norm_groups",): ("final_norm is on", lambda c: c.final_norm),
    ("embed_norm",): ("norm is not none", lambda c: c.norm != "none"),
    ("skip_first_norm",): ("the first layer has a branch, residual=pre and a norm that is not none, and mixer is not "
                           "cema", _has_first_norm),
    ("encoder_layers",): ("cross is attention in a layer", lambda c: any(
        c.by_kind[kind].cross == "attention" for kind in c.layers)),
    ("pointer_dim",): ("pointer is on", lambda c: c.pointer),
    ("ahead_depth",): ("ahead is not none", lambda c: c.ahead != "none"),
    ("noised_dim", "noised_steps"): ("noised is on", lambda c: c.noised),
    ("smear_dim",): ("smear is on", lambda c: c.smear),
    ("backout_depth",): ("backout is given", lambda c: c.backout is not None),
    ("head_zero_init",): ("tie_embeddings is off", lambda c: not c.tie_embeddings),
    ("base_dim",): ("scaling is not standard", lambda c: c.scaling != "standard"),
    ("base_layers",): ("scaling is completep", lambda c: c.scaling == "completep"),
}
