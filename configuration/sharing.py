"""What layers take from earlier ones through the stream, and from which.

A layer here is what `ModelConfig.at` gives, which knows its `index` and its `model`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from configuration.acting import attends


def values_from(layer: Any) -> int | None:
    """The first layer that attends, if this one mixes its values into its own; None = it does not."""
    if not attends(layer) or layer.attention.value_residual == "none":
        return None
    return next((other.index for other in _before(layer) if attends(other)), None)


# what the stream carries -> the number of the layer that a layer takes it from, or None
SOURCES: dict[str, Callable[[Any], int | None]] = {"values": values_from}


def takes(layer: Any, what: str) -> bool:
    return SOURCES[what](layer) is not None


def gives(layer: Any, what: str) -> bool:
    """Whether a later layer takes something from this one."""
    later = range(layer.index + 1, layer.model.num_layers)
    return any(SOURCES[what](layer.model.at(i)) == layer.index for i in later)


def shares(layer: Any) -> bool:
    """Whether a layer takes anything from others, or gives it to them."""
    return any(takes(layer, what) or gives(layer, what) for what in SOURCES)


def check_sharing(model: Any) -> None:
    """Raise ValueError if a layer cannot use what it takes, or if a flag asks to take and no layer does."""
    layers = [model.at(i) for i in range(model.num_layers)]
    mixing = [layer for layer in layers if attends(layer) and layer.attention.value_residual != "none"]
    if mixing and not any(takes(layer, "values") for layer in mixing):
        raise ValueError(f"attention.value_residual={mixing[0].attention.value_residual} would change nothing: it acts "
                         "only when a layer that has it follows one that attends; otherwise leave it out")
    for layer in mixing:
        _require_equal(layer, layers, "values", f"attention.value_residual={layer.attention.value_residual}", {
            "attention.num_kv_heads": lambda x: x.attention.kv_heads, "attention.head_dim": lambda x: x.head_width})


def _require_equal(layer: Any, layers: list[Any], what: str, flag: str, needs: dict[str, Callable]) -> None:
    """Raise ValueError if a layer and the one that it takes from differ in what must be equal."""
    source = SOURCES[what](layer)
    for name, value in needs.items():
        if source is not None and value(layer) != value(layers[source]):
            raise ValueError(f"{flag} in layer {layer.index} takes the {what} of layer {source}, which has another "
                             f"{name}={value(layers[source])}: give both the same")


def _before(layer: Any) -> Iterator[Any]:
    return (layer.model.at(i) for i in range(layer.index))
