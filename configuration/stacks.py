"""All layers together: the way through them, and the layers of an encoder."""

from copy import copy
from typing import Any

from configuration.acting import HEADS, has_part
from configuration.sharing import check_sharing


def check_stack(cfg: Any) -> None:
    """Raise ValueError if the layers cannot be gone through as `stack` says."""
    if cfg.stack == "hrm" and cfg.num_layers % 2:
        raise ValueError(f"stack=hrm has a fast and a slow half, so num_layers={cfg.num_layers} must be even")
    if cfg.stack == "unet" and cfg.num_layers < 2:
        raise ValueError("stack=unet has skips from one half of the layers to the other: num_layers=1 is too few")
    if cfg.backout is not None and cfg.num_layers < 2:
        raise ValueError(f"backout={cfg.backout} subtracts the stream of an earlier layer: num_layers=1 is too few")
    if cfg.stack != "plain" and cfg.residual == "attnres":
        raise ValueError(f"stack={cfg.stack} does not go with residual=attnres, whose layers each act once, in order")


def encoder_of(cfg: Any) -> Any:
    """The configuration of a model's encoder: the same flags and kinds of layers, without cross-attention."""
    found, kinds = copy(cfg), {kind: copy(layer) for kind, layer in cfg.by_kind.items()}
    for layer in kinds.values():
        layer.__dict__.update(cross="none")
    found.__dict__.update(num_layers=cfg.encoder_layers, encoder_layers=None, cross="none", backout=None, by_kind=kinds)
    return found


def last_layer_alone(cfg: Any) -> Any:
    """The configuration of a model whose only layer is like the last of another, and so takes nothing from others.

    It has neither cross-attention nor a memory; what its branches add is as small as in the other.
    """
    found, kind = copy(cfg), cfg.kind_at(cfg.num_layers - 1)
    layer = copy(cfg.by_kind[kind])
    layer.__dict__.update(cross="none", memory="none")
    found.__dict__.update(num_layers=1, encoder_layers=None, layers=(kind,), by_kind={kind: layer}, stack="plain",
                          skip_first_norm=False, ahead="none", base_layers=cfg.base_layers / cfg.num_layers)
    return found


def require_both_ways(cfg: Any, what: str) -> None:
    """Raise ValueError if a layer cannot see later tokens, as in `what`."""
    if cfg.final_norm_groups is not None:
        raise ValueError(f"final_norm_groups={cfg.final_norm_groups} is a norm over all tokens so far, and {what} sees "
                         "all of them at once: leave it out")
    words = ((flag, getattr(layer, flag)) for layer in cfg.by_kind.values() for flag in ("mixer", "beside"))
    for flag, word in words:
        if word not in ("none", *HEADS):
            raise ValueError(f"{flag}={word} reads a text from left to right, and {what} sees all of it at once: use "
                             f"{flag}=attention or latent")


def check_encoder(cfg: Any) -> None:
    """Raise ValueError if the layers cannot be those of an encoder too."""
    require_both_ways(cfg, f"the encoder of encoder_layers={cfg.encoder_layers}")
    encoder = encoder_of(cfg)
    try:
        check_stack(encoder)
        check_sharing(encoder)
    except ValueError as error:
        raise ValueError(f"encoder_layers={cfg.encoder_layers}: in the encoder {error}") from None
    for layer in map(encoder.at, range(encoder.num_layers)):
        if has_part(layer, "t5") and layer.t5.num_buckets < 4:
            raise ValueError(f"encoder_layers={cfg.encoder_layers} with t5.num_buckets={layer.t5.num_buckets}: an "
                             "encoder has half of them for each side; use 4 or more")
