"""The rules of ModelConfig: impossible values, and flags that no layer uses, by configuration/acting.py."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import cache, partial
from typing import Any

from configuration.acting import (
    CONDITIONS,
    IN_EMBEDDING,
    LAYER_ACTS,
    MODEL_ACTS,
    OTHER_STREAMS,
    ROTATED,
    has_part,
    mixers_of,
    projects,
)
from configuration.checks import (
    Acts,
    asks,
    check_ignored,
    default_of,
    ignored_sentence,
    is_folder_name,
    require_between,
    require_factors,
    require_not_negative,
    require_positive,
    rotated_channels,
    words_of,
)
from configuration.mistakes import nearest
from configuration.recurrent import PLAIN_RECURRENT, RECURRENT
from configuration.sharing import check_sharing
from configuration.stacks import check_encoder, check_stack
from configuration.tree import FrozenDict, flag_names, flat, get, nested, override

# The plain choices, on which presets are based, so that editing a default in config.py never changes a published
# architecture. Setting a flag to its plain value is never an error.
PLAIN_MODEL: dict[str, Any] = {
    "hidden_dim": None, "hidden_mult": 4.0, "hidden_multiple_of": 32, "vocab_multiple_of": 1,
    "mixer": "attention", "beside": "none", "layers": ("base",), "kinds": {}, "cross": "none", "encoder_layers": None,
    "mlp": "mlp", "activation": "gelu_tanh",
    "mlp_bias": False, "head_bias": False,
    "norm": "layer", "norm_eps": 1e-5, "norm_affine": True, "norm_bias": False, "norm_unit_offset": False,
    "depth_scaled_norms": False, "residual": "pre", "inner_norm": False, "final_norm": True,
    "final_norm_groups": None, "embed_norm": False,
    "skip_first_norm": False, "head_dense": "none",
    "qk_norm": "none", "position": "rope",
    "attention.num_kv_heads": None, "attention.head_dim": None, "attention.window": None,
    "attention.dilation": 1, "attention.chunk": None, "attention.stride": None, "attention.global_tokens": 0,
    "attention.softcap": None, "attention.scale": None, "attention.dropout": 0.0, "attention.q_bias": False,
    "attention.k_bias": False, "attention.v_bias": False, "attention.out_bias": False,
    "attention.qk_norm_kind": None, "attention.qk_norm_affine": None, "attention.qk_norm_bias": None,
    "attention.qk_norm_after_rope": False, "attention.clip": None, "attention.gate": "none", "attention.sinks": False,
    "attention.differential": False, "attention.value_residual": "none", "attention.share_kv": False,
    "attention.exclusive": False, "attention.value_embedding": False, "attention.key_offset": False,
    "attention.value_gate_max": 2.0, "attention.value_gate_dim": 32,
    "attention.temperature_scale": None, "attention.temperature_len": 8192, "attention.temperature_first": 0,
    "alibi.scale": 1.0, "t5.num_buckets": 32, "t5.max_distance": 128, "t5.shared": True, "sinusoidal.theta": 10_000.0,
    "sinusoidal.layout": "interleaved", "sinusoidal.first": 0,
    "clamped_glu.limit": 7.0, "clamped_glu.offset": 1.0, "ngpt.alpha": 0.05,
    "hyper.num_streams": 4, "hyper.sinkhorn_steps": 20, "hyper.eps": 1e-6, "attnres.block_len": 1,
    "stack": "plain", "loop.num_loops": 2, "loop.inject": False,
    "hrm.high_cycles": 2, "hrm.low_cycles": 3, "hrm.grad_cycles": 2,
    "latent.kv_rank": 64, "latent.q_rank": None, "latent.nope_dim": 32, "latent.rope_dim": 16, "latent.v_dim": 32,
    "latent.bias": False, "latent.norm_eps": 1e-6,
    "indexer.top_k": None, "indexer.num_heads": 4, "indexer.head_dim": 32, "indexer.loss": 1.0,
    "moe.expert": "glu", "moe.num_experts": 8, "moe.top_k": 2, "moe.scores": "softmax", "moe.renormalise": True,
    "moe.margin": 0.02, "moe.scale": 1.0, "moe.weigh_inputs": False, "moe.num_groups": 1, "moe.top_groups": 1,
    "moe.router_bias": False, "moe.shared_dim": None, "moe.shared_gate": False, "moe.balance_loss": 0.0,
    "moe.router_z_loss": 0.0, "moe.balance_bias": False, "moe.balance_logits": False, "moe.bias_rate": 0.001,
    "rope.theta": 10_000.0, "rope.fraction": 1.0, "rope.layout": "half", "rope.scaling": "none", "rope.factor": 1.0,
    "rope.original_len": 8192, "rope.low_freq_factor": 1.0, "rope.high_freq_factor": 4.0, "rope.beta_fast": 32.0,
    "rope.beta_slow": 1.0, "rope.truncate": True, "rope.attention_factor": None,
    "pointer": False, "pointer_dim": 64, "ahead": "none", "ahead_depth": 1, "noised": False, "noised_dim": 64,
    "noised_steps": 2000,
    "tie_embeddings": False, "embed_scale": 1.0, "logit_softcap": None, "logit_scale": 1.0, "token_scale": False,
    "mixer_scales": (1.0, 1.0), "beside_scales": (1.0, 1.0), "mlp_scales": (1.0, 1.0),
    "residual_scale": 1.0, "skip_scale": 1.0, "layer_scale": None, "drop_branch": 0.0, "canon": (), "canon_len": 4,
    "skip_to_embedding": False, "token_shift": (), "token_shift_power": 1.0, "smear": False, "smear_dim": 12,
    "backout": None, "backout_depth": 0.5,
    "memory": "none", "bigram.factor": 5, "bigram.start": 0.1, "engram.max_n": 3, "engram.num_heads": 4,
    "engram.head_dim": 16, "engram.rows": 4096, "engram.conv_len": 4, "engram.seed": 0, "engram.eos_id": None,
    "engram.norm_eps": 1e-6,
    "embed_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0,
    "init": "normal", "init_std": 0.02, "out_init": "same", "head_zero_init": False, "unit_weights": False,
    "z_loss": 0.0,
} | PLAIN_RECURRENT
# further values that a flag may always have
NEUTRAL_MODEL = PLAIN_MODEL | {"attention.backend": "sdpa", "attention.num_heads": 4}

# flags of the whole model: layers cannot differ in them
WHOLE_MODEL = {"dim", "num_layers", "encoder_layers", "vocab_size", "vocab_multiple_of", "max_seq_len", "layers",
               "kinds", "head_bias", "head_dense", "final_norm", "final_norm_groups",
               "embed_norm", "skip_first_norm", "pointer", "noised", "noised_dim", "noised_steps",
               "pointer_dim", "tie_embeddings", "embed_scale", "logit_softcap", "logit_scale", "token_scale",
               "embed_dropout", "init", "init_std", "out_init", "head_zero_init", "unit_weights", "z_loss",
               "skip_to_embedding", "smear", "smear_dim", "backout", "backout_depth", "stack", "loop", "hrm",
               "bigram", "ahead", "ahead_depth"}
ALSO_WHOLE_MODEL = {"norm", "norm_eps", "norm_affine", "norm_bias", "norm_unit_offset", "residual"}  # the final norm's


def check_model(cfg: Any, layer_kind: type) -> None:
    """Raise ValueError if a flag of the model, or of one of its kinds of layers, is impossible or ignored.

    Sets `by_kind`, the flags of each kind of layer as a `layer_kind`.
    """
    require_positive(cfg, "num_layers", "encoder_layers", "vocab_size", "vocab_multiple_of", "max_seq_len",
                     "pointer_dim", "ahead_depth", "logit_softcap", "init_std", "embed_scale", "smear_dim",
                     "final_norm_groups", "noised_dim", "noised_steps")
    require_between(cfg, "embed_dropout", "backout_depth")
    require_not_negative(cfg, "backout")
    if not cfg.layers:
        raise ValueError("layers=() is empty: name at least one kind, e.g. base")
    if missing := [kind for kind in dict.fromkeys(cfg.layers) if kind not in cfg.layers[:cfg.num_layers]]:
        raise ValueError(f"num_layers={cfg.num_layers} leaves no layer for {', '.join(missing)} of "
                         f"layers={words_of(cfg.layers)}: use more layers or fewer kinds")
    if cfg.position == "sinusoidal" and cfg.dim % 2:
        raise ValueError(f"position='sinusoidal' needs an even dim, not dim={cfg.dim}")
    if cfg.dim % (cfg.final_norm_groups or 1):
        raise ValueError(f"final_norm_groups={cfg.final_norm_groups} does not divide dim={cfg.dim}: choose a divisor")
    if cfg.unit_weights and (cfg.out_init == "zero" or cfg.head_zero_init):
        raise ValueError("unit_weights=True with out_init='zero' or head_zero_init=True would divide by zero: use "
                         "out_init='same' or 'depth', and head_zero_init=False")
    if cfg.ahead == "heads" and cfg.final_norm_groups is not None:
        raise ValueError(f"final_norm_groups={cfg.final_norm_groups} is a norm with a state, which the heads of "
                         "ahead=heads would share: use ahead=modules, or leave it out")
    check_stack(cfg)
    object.__setattr__(cfg, "by_kind", resolve_kinds(cfg, layer_kind))
    check_ignored(cfg, MODEL_ACTS, NEUTRAL_MODEL)
    check_acting(cfg)
    check_sharing(cfg)
    if cfg.noised:
        check_noised(cfg)
    if cfg.encoder_layers is not None:
        check_encoder(cfg)


# flags that read tokens, or change vectors or logits in a way that a model of vectors with noise does not know
NOT_NOISED = ("pointer", "smear", "memory", "cross", "attention.value_embedding", "head_dense", "embed_scale",
              "logit_scale", "logit_softcap", "token_scale", "unit_weights")


def check_noised(cfg: Any) -> None:
    """Raise ValueError if the model cannot read vectors with noise."""
    if not cfg.tie_embeddings:
        raise ValueError("noised=True rounds vectors to tokens by the vectors that it reads: use tie_embeddings=True")
    if cfg.noised_dim % 2:
        raise ValueError(f"noised_dim={cfg.noised_dim} must be even: the noise is told by as many sines and cosines")
    for flag in NOT_NOISED:
        for layer in cfg.by_kind.values():
            if (value := get(layer, flag)) != PLAIN_MODEL[flag]:
                raise ValueError(f"{flag}={value} does not go with noised=True, which reads vectors with noise and "
                                 "gives those of tokens: leave it out")


def check_layer(cfg: Any) -> None:
    """Raise ValueError if a flag of a layer is impossible."""
    require_positive(cfg, "dim", "hidden_dim", "hidden_mult", "hidden_multiple_of", "norm_eps")
    require_between(cfg, "residual_dropout", "mlp_dropout", "drop_branch")
    require_positive(cfg, "layer_scale")
    require_factors(cfg, "mixer_scales", "beside_scales", "mlp_scales", number=2)
    if cfg.beside != "none" and cfg.mixer in ("none", cfg.beside):
        raise ValueError(f"beside={cfg.beside} with mixer={cfg.mixer}: two different mixers stand side by side; "
                         f"{'use mixer alone' if cfg.mixer == 'none' else 'name another one, or none'}")
    if cfg.drop_branch == 1:
        raise ValueError("drop_branch=1.0 leaves out every branch of the last layer: use less than 1")
    if cfg.canon_len < 2:
        raise ValueError(f"canon_len={cfg.canon_len} has no earlier token: use 2 or more")
    for name in ("canon", "token_shift"):
        named = getattr(cfg, name)
        if len(set(named)) < len(named):
            raise ValueError(f"{name}={words_of(named)} names a branch twice: name each once")
    if cfg.residual in ("none", "ngpt") and cfg.out_init == "zero":
        raise ValueError(f"residual={cfg.residual!r} with out_init='zero' keeps only zeros of a branch and never "
                         "learns: use out_init='same' or 'depth'")
    check_shapes(cfg)


def check_shapes(cfg: Any) -> None:
    """Raise ValueError if sizes do not fit together."""
    heads, kv_heads = cfg.attention.num_heads, cfg.attention.kv_heads
    if projects(cfg) and cfg.attention.head_dim is None and cfg.dim % heads:
        raise ValueError(f"attention.num_heads={heads} does not divide dim={cfg.dim}: "
                         "choose a divisor, or give attention.head_dim")
    if projects(cfg) and heads % kv_heads:
        raise ValueError(f"attention.num_kv_heads={kv_heads} does not divide attention.num_heads={heads}")
    if projects(cfg) and cfg.attention.differential and (heads % 2 or kv_heads % 2):
        raise ValueError(f"attention.differential=True makes pairs of heads: attention.num_heads={heads} and "
                         f"attention.num_kv_heads={kv_heads} must be even")
    if cfg.attention.differential and cfg.attention.dropout:
        raise ValueError(f"attention.differential=True and attention.dropout={cfg.attention.dropout}: both halves of "
                         "the values would lose other weights; leave one of them off")
    if cfg.attention.differential and cfg.attention.exclusive:
        raise ValueError("attention.differential=True and attention.exclusive=True: a pair of heads has no value of "
                         "its own; leave one of them off")
    if cfg.vocab_size is not None and cfg.vocab_size <= (cfg.engram.eos_id or 0):
        raise ValueError(f"engram.eos_id={cfg.engram.eos_id} is not an id of a vocabulary of vocab_size="
                         f"{cfg.vocab_size}")
    for word in mixers_of(cfg):
        if hasattr(own := RECURRENT.get(word) and getattr(cfg, word), "check_widths"):
            own.check_widths(cfg)
    if has_part(cfg, "rope"):
        widths = {"latent": cfg.latent.rope_dim, "cema": cfg.cema.qk_width(cfg.dim) // cfg.cema.num_heads,
                  "retnet": cfg.retnet.key_dim(cfg.dim)}
        for width in {widths.get(word, cfg.head_width) for word in mixers_of(cfg) if word in ROTATED}:
            rotated_channels(width, cfg.rope.fraction)
    check_indexer(cfg)


def check_indexer(cfg: Any) -> None:
    """Raise ValueError if attention cannot have an indexer, or none of this width."""
    own, given = cfg.indexer, f"indexer.top_k={cfg.indexer.top_k}"
    if own.top_k is None:
        return
    if cfg.attention.share_kv:
        raise ValueError(f"{given} with attention.share_kv=True: an indexer chooses among a layer's own keys; leave "
                         "one of them off")
    if cfg.attention.differential:
        raise ValueError(f"{given} with attention.differential=True: an indexer learns weights of attention, and "
                         "one less another is none; leave one of them off")
    if not has_part(cfg, "rope"):
        return
    if "attention" in mixers_of(cfg):
        rotated_channels(own.head_dim, cfg.rope.fraction)
    if "latent" in mixers_of(cfg) and own.head_dim < cfg.latent.rope_dim:
        raise ValueError(f"indexer.head_dim={own.head_dim} is less than latent.rope_dim={cfg.latent.rope_dim}, the "
                         "channels that have a position: use as many or more")


def resolve_kinds(cfg: Any, layer_kind: type) -> dict[str, Any]:
    """The flags of each kind of layer that `layers` names: the model's, overridden by those of the kind.

    Raises ValueError for a kind that is not described, is in no layer, or changes a flag of the whole model.
    """
    mixers = cfg.__dataclass_fields__["mixer"].type.__args__
    require_flags_of_layers(cfg.kinds)
    base = object.__new__(layer_kind)  # of values that are checked already
    base.__dict__.update(cfg.__dict__, layers=("base",), kinds=FrozenDict())
    base.__post_init__()
    resolved = {"base": base}
    for kind in dict.fromkeys(cfg.layers):
        if kind not in cfg.kinds and kind != "base" and kind not in mixers:
            remedy = "put spaces between kinds" if "," in kind else \
                f"describe it in kinds, or use base or a mixer{nearest(kind, mixers)}"
            raise ValueError(f"layers={words_of(cfg.layers)} names {kind}, which is not a kind: {remedy}")
        try:
            changes = cfg.kinds.get(kind, {} if kind == "base" else {"mixer": kind})
            resolved[kind] = override(base, changes) if changes else base
        except ValueError as error:
            raise ValueError(f"kinds.{kind}.{error}") from None
    _check_kinds(cfg, resolved)
    return resolved


def placed(layer: Any, model: Any, index: int) -> Any:
    """A copy of the flags of a kind, which knows the place of its layer: its `index` in the layers of `model`."""
    found = copy(layer)
    found.__dict__.update(index=index, model=model)  # what is no flag is neither compared nor saved
    return found


def require_flags_of_layers(kinds: Mapping[str, Any]) -> None:
    """Raise ValueError if a kind changes a flag that its layers cannot differ in."""
    for kind, changes in kinds.items():
        if whole := next((name for name in flat(nested(changes)) if name.partition(".")[0] in WHOLE_MODEL), None):
            raise ValueError(f"kinds.{kind}.{whole} would change nothing: it is the same for all layers; set it for "
                             "the model")


def _check_kinds(cfg: Any, resolved: Mapping[str, Any]) -> None:
    """Check the names and flags of `kinds`, and replace its values by the checked ones."""
    understood = {}
    for kind, changes in cfg.kinds.items():
        if kind == "base" or not is_folder_name(kind) or "." in kind:
            raise ValueError(f"kinds.{kind} is not a name for a kind of layer: use letters, digits, '_', '-'; base is "
                             "the model's own flags")
        if kind not in cfg.layers:
            raise ValueError(f"kinds.{kind} is in no layer: name it in layers, or leave it out")
        names = [name for name, value in flat(nested(changes)).items() if value != {}]
        position = resolved[kind].position
        if position != cfg.position and {position, cfg.position} & set(IN_EMBEDDING):
            raise ValueError(f"kinds.{kind}.position={position} does not go with position={cfg.position}: what is "
                             "added to the embedding is the same for all layers")
        residual = resolved[kind].residual
        if residual != cfg.residual and {residual, cfg.residual} & set(OTHER_STREAMS):
            raise ValueError(f"kinds.{kind}.residual={residual} does not go with residual={cfg.residual}: all layers "
                             "read and write the same streams")
        understood[kind] = frozen(nested({name: get(resolved[kind], name) for name in names}))
    object.__setattr__(cfg, "kinds", FrozenDict(understood))


def frozen(tree: Mapping[str, Any]) -> FrozenDict:
    return FrozenDict({name: frozen(value) if isinstance(value, Mapping) else value for name, value in tree.items()})


def check_acting(cfg: Any) -> None:
    """Raise ValueError if a flag of a layer requests something, but no layer with that value uses it."""
    layers = [cfg.by_kind[kind] for kind in dict.fromkeys(cfg.layers)]
    silent = _silent_groups(cfg, layers)
    for group, name, (condition, test) in _acts(type(cfg)):
        if group not in silent:
            _require_acting(cfg, layers, name, condition, test)
    if cfg.by_kind["base"] in layers:  # which has the model's own values
        return
    alike = WHOLE_MODEL | ALSO_WHOLE_MODEL | silent
    for name in flag_names(type(cfg)):
        if name.partition(".")[0] in alike or not asks(cfg, name, NEUTRAL_MODEL):
            continue
        if all(get(layer, name) != get(cfg, name) for layer in layers):
            raise ValueError(f"{name}={get(cfg, name)} would change nothing: every kind of layer has its own")


def _silent_groups(cfg: Any, layers: list[Any]) -> set[str]:
    """Groups that are as they stand in config.py everywhere: most, and none of their flags requests anything."""
    groups = ((name, getattr(cfg, name)) for name in _groups(type(cfg)))
    return {name for name, group in groups if group == _default_group(type(group)) and all(
        getattr(one, name) is group or getattr(one, name) == group for one in layers)}


@cache
def _default_group(kind: type) -> Any:
    return kind()


@cache
def _groups(kind: type) -> dict[str, type]:
    """The groups of flags by their names."""
    return {field.name: field.type for field in fields(kind) if is_dataclass(field.type)}


@cache
def _acts(kind: type) -> list[tuple[str, str, Acts]]:
    """(its group, a flag, when it acts), for each flag that only acts sometimes."""
    of_groups = {tuple(f"{group}.{flag.name}" for flag in fields(own)): (
        CONDITIONS.get(group, f"a layer has {group}"), partial(has_part, group=group))
        for group, own in _groups(kind).items()}
    return [(name.partition(".")[0], name, acts) for names, acts in (of_groups | LAYER_ACTS).items() for name in names]


def _require_acting(cfg: Any, layers: list[Any], name: str, condition: str, test: Callable[[Any], bool]) -> None:
    for layer in layers:
        value = get(layer, name)
        if not asks(layer, name, NEUTRAL_MODEL) or any(test(x) for x in layers if get(x, name) == value):
            continue
        kind = next(kind for kind, other in cfg.by_kind.items() if other is layer)
        named = name if get(cfg, name) == value else f"kinds.{kind}.{name}"
        raise ValueError(ignored_sentence(named, value, condition, default_of(layer, name)))
