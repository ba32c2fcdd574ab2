"""What layers take from earlier ones through the stream, and from which.

A layer here is what `ModelConfig.at` gives, which knows its `index` and its `model`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from configuration.acting import attends, mixers_of
from configuration.checks import asks
from configuration.tree import get


def values_from(layer: Any) -> int | None:
    """The first layer that attends, if this one mixes its values into its own; None = it does not."""
    if not attends(layer) or layer.attention.value_residual == "none" or keys_from(layer) is not None:
        return None
    return next((i for i, other in _before(layer) if attends(other)), None)


def keys_from(layer: Any) -> int | None:
    """The last layer before with keys of its own that sees the same tokens, if this one uses them; None = none."""
    if not attends(layer) or not layer.attention.share_kv:
        return None
    source = None
    for i, other in _before(layer):
        alike = attends(other) and other.attention.pattern == layer.attention.pattern
        if alike and (source is None or not other.attention.share_kv):
            source = i
    return source


def bias_from(layer: Any) -> int | None:
    """The first layer with a table of T5, if this one uses it; None = it has a table of its own, or none."""
    return next((i for i, other in _before(layer) if _shares_bias(other)), None) if _shares_bias(layer) else None


def first_values_from(layer: Any) -> int | None:
    """The first layer with a mixer rwkv7, if this one is a later one, which mixes its values into its own."""
    if "rwkv7" not in mixers_of(layer):
        return None
    return next((i for i, other in _before(layer) if "rwkv7" in mixers_of(other)), None)


# what the stream carries -> the number of the layer that a layer takes it from, or None
SOURCES: dict[str, Callable[[Any], int | None]] = {"values": values_from, "keys": keys_from, "bias": bias_from,
                                                    "first values": first_values_from}


def takes(layer: Any, what: str) -> bool:
    return SOURCES[what](layer) is not None


def gives(layer: Any, what: str) -> bool:
    """Whether a later layer takes something from this one."""
    later = range(layer.index + 1, layer.model.num_layers)
    return any(SOURCES[what](layer.model.at(i)) == layer.index for i in later)


def shares(layer: Any) -> bool:
    """Whether a layer takes anything from others, or gives it to them."""
    return _may_share(layer.model) and any(takes(layer, what) or gives(layer, what) for what in SOURCES)


WIDTHS = {"attention.num_kv_heads": lambda x: x.attention.kv_heads, "attention.head_dim": lambda x: x.head_width}
# what must be equal in a layer and the one that it takes from
EQUAL: dict[str, dict[str, Callable[[Any], Any]]] = {
    "values": WIDTHS,
    "keys": WIDTHS | {"position": lambda x: x.position, "rope": lambda x: x.rope, "attention.k_bias":
                      lambda x: x.attention.k_bias, "attention.v_bias": lambda x: x.attention.v_bias},
    "bias": {"attention.num_heads": lambda x: x.attention.num_heads, "t5": lambda x: x.t5},
    "first values": {"rwkv7.num_heads": lambda x: x.rwkv7.num_heads, "rwkv7.head_dim": lambda x: x.rwkv7.width(x.dim)},
}
FLAGS = {"values": "attention.value_residual", "keys": "attention.share_kv", "bias": "t5.shared",
         "first values": "mixer"}  # which asks for what


def check_sharing(model: Any) -> None:
    """Raise ValueError if a layer cannot use what it takes, or if a flag asks to take and no layer does."""
    if not _may_share(model):
        return
    layers = [model.at(i) for i in range(model.num_layers)]
    embedding = [layer for layer in layers if attends(layer) and layer.attention.value_embedding]
    if embedding and all(keys_from(layer) is not None for layer in embedding):
        raise ValueError("attention.value_embedding=True would change nothing: it acts only when a layer that has it "
                         "has values of its own (attention.share_kv=False); otherwise leave it out")
    for what, flag in FLAGS.items():
        asking = [layer for layer in layers if attends(layer) and asks(layer, flag, {})]
        if asking and not any(takes(layer, what) for layer in asking):
            raise ValueError(f"{flag}={get(asking[0], flag)} would change nothing: it acts only when a layer that has "
                             f"it follows one with {what} that it can use; otherwise leave it out")
        for layer in layers:
            _require_equal(layer, layers, what)


def _require_equal(layer: Any, layers: list[Any], what: str) -> None:
    """Raise ValueError if a layer and the one that it takes from differ in what must be equal."""
    source, flag = SOURCES[what](layer), FLAGS[what]
    for name, value in EQUAL[what].items():
        if source is not None and value(layer) != value(layers[source]):
            raise ValueError(f"{flag}={get(layer, flag)} in layer {layer.index} takes the {what} of layer {source}, "
                             f"which differs in {name}: give both the same")


def _may_share(model: Any) -> bool:
    """Whether a kind of layer asks to share, without a look at each layer."""
    return any(kind.attention.value_residual != "none" or kind.attention.share_kv or _shares_bias(kind)
               or "rwkv7" in mixers_of(kind) for kind in model.by_kind.values())


def _shares_bias(layer: Any) -> bool:
    return attends(layer) and layer.position == "t5" and layer.t5.shared


def _before(layer: Any) -> Iterator[tuple[int, Any]]:
    """The layers before one, with their numbers; they do not know their place, which would take longer."""
    return ((i, layer.model.by_kind[layer.model.kind_at(i)]) for i in range(layer.index))
