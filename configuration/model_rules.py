"""The rules of ModelConfig: impossible values, alone and together, and what each kind of layer has."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from configuration.acting import IN_EMBEDDING, MODEL_ACTS, OTHER_STREAMS, ROTATED, has_part, mixers_of, projects
from configuration.acting_rules import check_acting
from configuration.checks import (
    check_ignored,
    is_folder_name,
    require_between,
    require_factors,
    require_not_negative,
    require_positive,
    rotated_channels,
    words_of,
)
from configuration.mistakes import nearest
from configuration.plain import NEUTRAL_MODEL, PLAIN_MODEL, WHOLE_MODEL
from configuration.recurrent import RECURRENT
from configuration.scaling import check_scaling
from configuration.sharing import check_sharing
from configuration.stacks import check_encoder, check_stack
from configuration.tree import FrozenDict, flat, get, nested, override


def check_model(cfg: Any, layer_kind: type) -> None:
    """Raise ValueError if a flag of the model, or of one of its kinds of layers, is impossible or ignored.

    Sets `by_kind`, the flags of each kind of layer as a `layer_kind`.
    """
    require_positive(cfg, "num_layers", "encoder_layers", "vocab_size", "vocab_multiple_of", "max_seq_len",
                     "pointer_dim", "ahead_depth", "logit_softcap", "init_std", "embed_scale", "smear_dim",
                     "final_norm_groups", "noised_dim", "noised_steps", "base_dim", "base_layers")
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
    check_scaling(cfg)
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
