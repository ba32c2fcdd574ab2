"""The flag `scaling`: what goes with it, the same model at another width, and the same function without it."""

from collections.abc import Callable, Mapping
from typing import Any

from configuration.acting import has_heads, mixers_of, projects
from configuration.recurrent import RECURRENT
from configuration.tree import flat, override

SUMS = ("pre", "sandwich", "branch_post", "parallel", "parallel_each", "two_hop", "hyper", "mhc")  # of branches
ADAM_LIKE = ("adamw", "adam", "lion", "schedule_free")  # their steps have one size, whatever that of the gradient
SCALED_OPTIMIZERS = (*ADAM_LIKE, "muon", "sgd")  # whose rates are known to transfer, by the rules in optimizing/
# flag -> values that follow the width or the depth by a rule of their own, for mup, and besides for completep
OTHER_RULES = {"unit_weights": (True,), "init": ("xavier",), "embed_scale": ("sqrt_dim", "sqrt_dim_bfloat16"),
               "logit_scale": ("rsqrt_dim",)}
OWN_FACTORS = {"cema", "scaled_glu", "engram"}  # words of parts with a factor besides those of in_standard_form
OTHER_DEPTH_RULES = {"out_init": ("depth",), "depth_scaled_norms": (True,)}


def check_scaling(cfg: Any) -> None:
    """Raise ValueError if a flag of the model has a rule for the width or the depth besides that of `scaling`."""
    if cfg.scaling == "standard":
        return
    layers, others = cfg.by_kind.values(), OTHER_RULES
    if cfg.scaling == "completep":
        others = OTHER_RULES | OTHER_DEPTH_RULES
        if unknown := next((layer.residual for layer in layers if layer.residual not in SUMS), None):
            raise ValueError(f"scaling=completep makes what a branch adds to a sum smaller, and residual={unknown} is "
                             f"not one: use scaling=mup, or one of {', '.join(SUMS)}")
    if any(layer.residual == "ngpt" for layer in layers):
        raise ValueError(f"scaling={cfg.scaling} does not go with residual=ngpt, which has a rule for the width of its "
                         "own: use scaling=standard")
    for flag, values in others.items():
        if any(getattr(layer, flag) in values for layer in layers):
            raise ValueError(f"scaling={cfg.scaling} does not go with {flag}={getattr(cfg, flag)}, a rule of its own "
                             "for the same: choose another value, or scaling=standard")


def check_scaled_training(model: Any, train: Any) -> None:
    """Raise ValueError if the rates of an optimizer are not known to transfer, by the scaling of the model."""
    scaling = model.scaling
    if scaling == "standard":
        return
    if train.optimizer not in SCALED_OPTIMIZERS:
        raise ValueError(f"train.optimizer={train.optimizer} does not go with model.scaling={scaling}, for no rule of "
                         f"its rates is known: use one of {', '.join(SCALED_OPTIMIZERS)}")
    if train.optimizer == "sgd" and scaling == "completep":
        raise ValueError("train.optimizer=sgd does not go with model.scaling=completep, whose rule for the depth is "
                         "that of Adam: use model.scaling=mup")
    if train.optimizer == "adam" and train.decay:
        raise ValueError(f"train.weight_decay={train.weight_decay} of train.optimizer=adam is part of the gradient, "
                         f"and has no rule for model.scaling={scaling}: use adamw")


def widened(cfg: Any, factor: int) -> Any:
    """The same architecture, `factor` times as wide: dim, and with it what follows from it.

    Widths that a flag gives grow too: hidden_dim, moe.shared_dim. Attention has more heads of the same width, and
    recurrent mixers as many wider ones, unless a flag gives their width: see `resized` of their groups. Ranks and
    states of a head stay.
    """
    rules: dict[str, Callable[[Any], Any]] = dict.fromkeys(("hidden_dim", "moe.shared_dim"), lambda x: factor * x)
    if any(has_heads(layer) or projects(layer) for layer in cfg.by_kind.values()):
        rules |= dict.fromkeys(("attention.num_heads", "attention.num_kv_heads"), lambda x: factor * x)
    return override(cfg, {"dim": factor * cfg.dim} | changed(cfg, rules | recurrent_rules(cfg, factor)))


def at_dim(cfg: Any, dim: int) -> Any:
    """The same architecture at another width, a whole multiple of its own. Raises ValueError for another one."""
    if dim % cfg.dim:
        raise ValueError(f"a width of {dim} is not a multiple of model.dim={cfg.dim}: use multiples of the narrowest")
    return cfg if dim == cfg.dim else widened(cfg, dim // cfg.dim)


def recurrent_rules(cfg: Any, factor: float) -> dict[str, Callable[[Any], Any]]:
    """The numbers of recurrent mixers in a model `factor` times as wide."""
    groups = {word: getattr(layer, word) for layer in cfg.by_kind.values() for word in mixers_of(layer)
              if word in RECURRENT}
    return {f"{word}.{name}": lambda _, value=value: value for word, group in groups.items()
            if hasattr(group, "resized") for name, value in group.resized(factor).items()}


def changed(cfg: Any, rules: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The flags with new values, by a rule for each: those of the model and of its kinds, unless they are None."""
    found = {}
    for name, value in flat(cfg).items():
        flag = name.split(".", 2)[-1] if name.startswith("kinds.") else name
        if flag in rules and value is not None:
            found[name] = rules[flag](value)
    return found


def in_standard_form(cfg: Any) -> Any:
    """A model with scaling=standard that computes the same with the same weights, but for a bias of the head.

    Its factors are those of attention.scale, residual_scale and logit_scale. Raises ValueError if a part has another
    one, which is no flag.
    """
    if cfg.scaling == "standard":
        return cfg
    for layer in cfg.by_kind.values():
        if found := {*mixers_of(layer), layer.mlp, layer.memory} & OWN_FACTORS:
            raise ValueError(f"scaling={cfg.scaling} gives {found.pop()} a factor that is no flag, so the model has no "
                             "form with scaling=standard")
    flags = {"scaling": "standard", "base_dim": 128, "base_layers": 3, "logit_scale": cfg.logit_scale / cfg.width_ratio}
    return override(cfg, flags | _score_scales(cfg) | changed(cfg, {
        "residual_scale": lambda scale: scale / cfg.depth_ratio}))


def _score_scales(cfg: Any) -> dict[str, float]:
    """attention.scale of the model or, if its kinds of layers differ, of each kind, as scaling=standard has it."""
    scales = {kind: _score_scale(layer) for kind, layer in cfg.by_kind.items()
              if kind in cfg.layers and (has_heads(layer) or projects(layer)) and layer.attention.scale is None}
    prefixes = {kind: "" if kind == "base" or len(set(scales.values())) == 1 else f"kinds.{kind}." for kind in scales}
    return {f"{prefixes[kind]}attention.scale": scale for kind, scale in scales.items()}


def _score_scale(layer: Any) -> float:
    if "latent" in mixers_of(layer):
        return layer.score_scale(layer.latent.head_dim, normalised=False)
    return layer.score_scale(layer.head_width, normalised=layer.has_qk_norm)
