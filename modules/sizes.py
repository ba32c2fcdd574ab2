"""The sizes of axes, for traces, and of models."""

from torch import nn

from config import ModelConfig
from configuration.acting import has_heads, mixers_of, projects


def idle_parameters(module: nn.Module) -> int:
    """The parameters that a token does not use: those of the experts that it is not sent to."""
    return sum(part.num_idle() for part in module.modules() if hasattr(part, "num_idle"))


def axis_sizes(cfg: ModelConfig) -> dict[str, int | tuple[int, ...]]:
    """The size of each axis that the flags fix, by its letter; see modules/__init__.py.

    A letter that no layer uses is left out; one whose size differs between kinds of layers has all of them.
    """
    layers = [cfg.at(i) for i in range(len(cfg.layers))]
    routed = [layer for layer in layers if layer.mlp == "moe"]
    latent = [layer for layer in layers if "latent" in mixers_of(layer)]
    attending = [layer for layer in layers if projects(layer)]
    hashed = [layer.engram for layer in layers if layer.memory == "engram"]
    indexed = [layer for layer in layers if has_heads(layer) and layer.indexer.top_k]
    sizes = {
        "d": {cfg.dim}, "v": {cfg.padded_vocab_size}, "c": {cfg.pointer_dim} if cfg.pointer else set(),
        "u": {cfg.noised_dim} if cfg.noised else set(),
        "f": {layer.hidden_width for layer in layers if layer.mlp != "none"} | {
            layer.moe.shared_dim for layer in routed if layer.moe.shared_dim},
        "e": {layer.moe.num_experts for layer in routed}, "k": {layer.moe.top_k for layer in routed},
        "n": {cfg.hyper.num_streams} if cfg.residual in ("hyper", "mhc") else set(),
        "h": {layer.attention.num_heads for layer in attending + latent},
        "j": {layer.indexer.num_heads for layer in indexed},
        "r": {layer.latent.kv_rank for layer in latent},
        "g": {layer.attention.kv_heads for layer in attending},
        "p": {layer.head_width for layer in attending} | {layer.indexer.head_dim for layer in indexed if attending},
        "m": {own.num_heads * (own.max_n - 1) * own.head_dim for own in hashed},
    }
    for own in (getattr(layer, word, None) for layer in layers for word in mixers_of(layer)):
        if hasattr(own, "axes"):
            for letter, size in own.axes(cfg.dim).items():
                sizes[letter] = sizes.get(letter, set()) | ({size} if isinstance(size, int) else set(size))
    several = {letter: tuple(sorted(found)) for letter, found in sizes.items() if found}
    return {letter: found[0] if len(found) == 1 else found for letter, found in several.items()}
