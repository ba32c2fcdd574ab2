"""Older formats of config.json, and their migration to the newest.

1: one flat section `model`; layers differ by `mixers` and `window_pattern`. Has no `format`.
2: groups (`model.attention.*`, `model.rope.*`), `mixer`, `layers` and `kinds`.
3: `train.fim.cut`; before, all cuts were between tokens.
"""

from collections.abc import Mapping
from math import lcm
from typing import Any

FORMAT = 3
GROUPED = {"num_heads": "attention.num_heads", "num_kv_heads": "attention.num_kv_heads",
           "head_dim": "attention.head_dim", "q_bias": "attention.q_bias", "k_bias": "attention.k_bias",
           "v_bias": "attention.v_bias", "out_bias": "attention.out_bias", "window": "attention.window",
           "attn_softcap": "attention.softcap", "attn_scale": "attention.scale", "attn_dropout": "attention.dropout",
           "attn_kernel": "attention.backend", "rope_theta": "rope.theta", "rope_fraction": "rope.fraction",
           "rope_layout": "rope.layout"}
BACKENDS = {"fused": "sdpa", "explicit": "eager"}
OWN_OF_1 = {*GROUPED, "mixers", "window_pattern"}


def migrated(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a tree to the newest format. Raises ValueError for an unknown format."""
    tree = dict(tree)
    written_in = tree.pop("format", None)
    model = tree.get("model")
    if written_in is None:
        written_in = 1 if isinstance(model, Mapping) and OWN_OF_1 & set(model) else FORMAT
    if written_in not in range(1, FORMAT + 1):
        raise ValueError(f"format={written_in} is not known: this version reads formats 1 to {FORMAT}")
    if written_in == 1 and isinstance(model, Mapping):
        tree["model"] = _from_1(model)
    train = tree.get("train")
    if written_in < 3 and isinstance(train, Mapping) and train.get("objective") == "fill_in_the_middle":
        tree["train"] = {**train, "fim": {"cut": "token", **train.get("fim", {})}}
    return tree


def _from_1(old: Mapping[str, Any]) -> dict[str, Any]:
    """Move flags into their groups, and turn a pattern of mixers and windows into kinds of layers."""
    model: dict[str, Any] = {name: value for name, value in old.items() if name not in OWN_OF_1}
    for name, dotted in GROUPED.items():
        if name in old:
            group, _, flag = dotted.partition(".")
            value = BACKENDS.get(old[name], old[name]) if name == "attn_kernel" else old[name]
            model.setdefault(group, {})[flag] = value
    mixers, pattern = tuple(old.get("mixers") or ("attention",)), old.get("window_pattern") or "S"
    window = old.get("window")
    if window is None:
        pattern = "F"
    pairs = [(mixers[i % len(mixers)], pattern[i % len(pattern)]) for i in range(lcm(len(mixers), len(pattern)))]
    if len(set(pairs)) == 1:
        model["mixer"] = pairs[0][0]
        if pairs[0][1] == "F" and window is not None:
            model["attention"]["window"] = None
        return model
    if window is not None:
        model["attention"]["window"] = None
    changes = {pair: {"mixer": pair[0]} | ({"attention": {"window": window}} if pair == ("attention", "S") else {})
               for pair in pairs}
    names = {("attention", "S"): "local", ("attention", "F"): "global"}
    model["layers"] = [names.get(pair, pair[0]) for pair in pairs]
    model["kinds"] = {names.get(pair, pair[0]): change for pair, change in changes.items()}
    return model
