"""Whether two configurations describe the same function of the tokens, whatever they say of how it is trained."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from math import isclose
from typing import Any, NamedTuple

from config import LayerConfig, ModelConfig, flat
from configuration.acting import LAYER_ACTS, MODEL_ACTS, mixers_of, parts_of
from configuration.checks import OFF
from configuration.recurrent import RECURRENT
from families.fields import scale_of

# flags that change no logit of a trained model, and those that `effective` spells out
NO_MATTER = {"init", "init_std", "out_init", "head_zero_init", "unit_weights", "z_loss", "embed_dropout",
             "residual_dropout", "mlp_dropout", "attention.dropout", "attention.backend", "layers", "kinds",
             "hidden_mult", "hidden_multiple_of", "vocab_multiple_of", "moe.balance_loss", "moe.router_z_loss",
             "moe.bias_rate", "indexer.loss", "gated_delta.step_bias"}


class Difference(NamedTuple):
    """A flag in which two configurations differ, with both values."""

    flag: str
    ours: Any
    theirs: Any


def differences(ours: ModelConfig, theirs: ModelConfig) -> list[Difference]:
    """The flags that matter and differ, each once; none = both compute the same."""
    if ours.num_layers != theirs.num_layers:
        return [Difference("num_layers", ours.num_layers, theirs.num_layers)]
    pairs = [(_outside(ours), _outside(theirs))]
    kinds = dict.fromkeys((ours.kind_at(i), theirs.kind_at(i)) for i in range(ours.num_layers))
    pairs += [(effective(ours, ours.by_kind[a]), effective(theirs, theirs.by_kind[b])) for a, b in kinds]
    found: dict[str, Difference] = {}
    for a, b in pairs:
        for name in dict.fromkeys([*a, *b]):
            idle_and_off = (name in a) != (name in b) and a.get(name, b.get(name)) in OFF
            if not idle_and_off and not _equal(a.get(name), b.get(name)):
                found.setdefault(name, Difference(name, a.get(name), b.get(name)))
    return list(found.values())


def _outside(cfg: ModelConfig) -> dict[str, Any]:
    """The flags of the norms outside the layers."""
    outside = cfg.final_norm or cfg.embed_norm
    return {name: value for name, value in effective(cfg, cfg.by_kind["base"]).items()
            if outside and name.startswith("norm")}


def effective(cfg: ModelConfig, layer: LayerConfig) -> dict[str, Any]:
    """The flags of a layer that act, with what follows from others spelled out."""
    found = flat(layer)
    own = layer.attention
    found |= {f"attention.qk_norm_{name}": value if given is None else given for name, given, value in (
        ("kind", own.qk_norm_kind, layer.norm), ("affine", own.qk_norm_affine, layer.norm_affine),
        ("bias", own.qk_norm_bias, layer.norm_bias))}
    found |= {"vocab_size": cfg.padded_vocab_size, "hidden_dim": layer.hidden_width, "attention.head_dim":
              layer.head_width, "attention.num_kv_heads": layer.attention.kv_heads, "attention.scale": scale_of(layer),
              "embed_scale": cfg.embed_factor,
              "logit_scale": cfg.dim**-0.5 if cfg.logit_scale == "rsqrt_dim" else cfg.logit_scale}
    for word in mixers_of(layer):
        if hasattr(group := RECURRENT.get(word) and getattr(layer, word), "spelled_out"):
            found |= {f"{word}.{name}": value for name, value in group.spelled_out(cfg.dim).items()}
    idle = NO_MATTER | set(_idle(cfg, layer))
    return {name: value for name, value in found.items() if name not in idle and name.partition(".")[0] not in idle}


def _idle(cfg: ModelConfig, layer: LayerConfig) -> Iterator[str]:
    """Flags, and groups of flags, that act in no part of a layer."""
    parts = parts_of(layer)
    for names, (_, acts) in LAYER_ACTS.items():
        yield from names if not acts(layer) else ()
    for names, (_, acts) in MODEL_ACTS.items():
        yield from names if not acts(cfg) else ()
    for field in fields(layer):
        if is_dataclass(getattr(layer, field.name)) and field.name not in parts:
            yield field.name


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float | int):
        return isclose(a, b, rel_tol=1e-9)
    return a == b
