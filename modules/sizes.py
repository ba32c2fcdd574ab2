"""The sizes of axes, for traces."""

from config import ModelConfig


def axis_sizes(cfg: ModelConfig) -> dict[str, int]:
    """The size of each axis that the flags fix, by its letter; see modules/__init__.py."""
    layers = [cfg.at(i) for i in range(len(cfg.layers))]
    sizes = {"d": cfg.dim, "v": cfg.padded_vocab_size}
    if any(layer.mlp != "none" for layer in layers):
        sizes["f"] = cfg.hidden_width
    if any(layer.mixer == "attention" for layer in layers):
        sizes |= {"h": cfg.attention.num_heads, "g": cfg.attention.kv_heads, "p": cfg.head_width}
    return sizes
