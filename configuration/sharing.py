"""What layers take from earlier ones through the stream, and from which.

A layer here is what `ModelConfig.at` gives, which knows its `index` and its `model`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from configuration.acting import attends, has_part
from configuration.checks import asks
from configuration.tree import get


def values_from(layer: Any) -> int | None:
    """The first layer that attends, if this one mixes its values into its own; None = it does not."""
    if not attends(layer) or layer.attention.value_residual == "none" or keys_from(layer) is not None:
        return None
    return next((other.index for other in _before(layer) if attends(other)), None)


def keys_from(layer: Any) -> int | None:
    """The last layer before with keys of its own and the same window, if this one uses them; None = it has its own."""
    if not attends(layer) or not layer.attention.share_kv:
        return None
    alike = [other for other in _before(layer) if attends(other) and other.attention.window == layer.attention.window]
    if not alike:
        return None
    source = keys_from(alike[-1])
    return alike[-1].index if source is None else source


def bias_from(layer: Any) -> int | None:
    """The first layer with a table of T5, if this one uses it; None = it has a table of its own, or none."""
    if not (has_part(layer, "t5") and layer.t5.shared):
        return None
    return next((other.index for other in _before(layer) if has_part(other, "t5") and other.t5.shared), None)


# what the stream carries -> the number of the layer that a layer takes it from, or None
SOURCES: dict[str, Callable[[Any], int | None]] = {"values": values_from, "keys": keys_from, "bias": bias_from}


def takes(layer: Any, what: str) -> bool:
    return SOURCES[what](layer) is not None


def gives(layer: Any, what: str) -> bool:
    """Whether a later layer takes something from this one."""
    later = range(layer.index + 1, layer.model.num_layers)
    return any(SOURCES[what](layer.model.at(i)) == layer.index for i in later)


def shares(layer: Any) -> bool:
    """Whether a layer takes anything from others, or gives it to them."""
    return any(takes(layer, what) or gives(layer, what) for what in SOURCES)


WIDTHS = {"attention.num_kv_heads": lambda x: x.attention.kv_heads, "attention.head_dim": lambda x: x.head_width}
# what must be equal in a layer and the one that it takes from
EQUAL: dict[str, dict[str, Callable[[Any], Any]]] = {
    "values": WIDTHS,
    "keys": WIDTHS | {"position": lambda x: x.position, "rope": lambda x: x.rope, "attention.k_bias":
                      lambda x: x.attention.k_bias, "attention.v_bias": lambda x: x.attention.v_bias},
    "bias": {"attention.num_heads": lambda x: x.attention.num_heads, "t5": lambda x: x.t5},
}
FLAGS = {"values": "attention.value_residual", "keys": "attention.share_kv", "bias": "t5.shared"}  # which asks for what


def check_sharing(model: Any) -> None:
    """Raise ValueError if a layer cannot use what it takes, or if a flag asks to take and no layer does."""
    layers = [model.at(i) for i in range(model.num_layers)]
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


def _before(layer: Any) -> Iterator[Any]:
    return (layer.model.at(i) for i in range(layer.index))
