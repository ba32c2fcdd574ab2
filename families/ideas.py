"""Ideas that are no model of their own: a few flags on any base, and the paper that they come from."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

FOUND = Path(__file__).resolve().parent.parent / "docs" / "ideas.csv"  # what `experiments/benchmark.py ideas` measured


class Idea(NamedTuple):
    """What an idea changes on a base, in a word or two, and where it comes from."""

    flags: dict[str, Any]
    what: str
    paper: str


IDEAS: dict[str, Idea] = {
    "value-residual": Idea({"model.attention.value_residual": "learned"},
                           "values are mixed with those of the first layer", "arXiv:2410.17897"),
    "gated-heads": Idea({"model.attention.gate": "head"}, "a sigmoid gate on each head's output", "arXiv:2505.06708"),
    "gated-channels": Idea({"model.attention.gate": "channel"}, "the same on each channel", "arXiv:2505.06708"),
    "canon": Idea({"model.canon": ("mixer", "mlp")}, "short convolutions before both branches (Canon A and C)",
                  "Allen-Zhu 2025"),
    "canon-everywhere": Idea({"model.canon": ("mixer", "qkv", "mlp", "hidden")}, "and within them (Canon A to D)",
                             "Allen-Zhu 2025"),
    "key-offset": Idea({"model.attention.key_offset": True}, "half of each key comes from the token before",
                       "modded-nanogpt"),
    "token-shift": Idea({"model.token_shift": ("mixer", "mlp")}, "inputs are mixed with the token before",
                        "arXiv:2305.13048"),
    "smear": Idea({"model.smear": True}, "embeddings are mixed with the token before, gated", "nanochat"),
    "x0": Idea({"model.skip_to_embedding": True}, "each layer reads a x + b x_0", "nanochat"),
    "backout": Idea({"model.backout": 0.2}, "the last stream less a share of a middle layer's", "nanochat"),
    "hyper": Idea({"model.residual": "hyper"}, "four streams, read, written and mixed", "arXiv:2409.19606"),
    "mhc": Idea({"model.residual": "mhc"}, "the same with doubly stochastic mixing", "arXiv:2512.24880"),
    "attnres": Idea({"model.residual": "attnres"}, "each branch attends over earlier ones", "arXiv:2603.15031"),
    "unet": Idea({"model.stack": "unet"}, "skips from the first half to the second", "modded-nanogpt"),
    "loop": Idea({"model.stack": "loop"}, "all layers twice", "arXiv:1807.03819"),
    "bigram": Idea({"model.memory": "bigram"}, "a table of pairs of tokens", "nanochat"),
    "value-embedding": Idea({"model.attention.value_embedding": True}, "a table of the vocabulary for values",
                            "nanochat"),
    "differential": Idea({"model.attention.differential": True}, "the attention of one head less another's",
                         "arXiv:2410.05258"),
    "sinks": Idea({"model.attention.sinks": True}, "a score that takes attention and gives nothing",
                  "arXiv:2309.17453"),
    "exclusive": Idea({"model.attention.exclusive": True}, "less of a token's own value (XSA)", "arXiv:2603.09078"),
    "indexer": Idea({"model.indexer.top_k": 32}, "attention to 32 keys that a small indexer chooses (sparse attention)",
                    "arXiv:2512.02556"),
    "layer-scale": Idea({"model.layer_scale": 0.1}, "a learned factor on each channel of a branch",
                        "arXiv:2103.17239"),
    "drop-branch": Idea({"model.drop_branch": 0.1}, "branches are left out in training (stochastic depth)",
                        "arXiv:1603.09382"),
    "depth-scaled-norms": Idea({"model.depth_scaled_norms": True}, "norms are divided by the root of the depth",
                               "arXiv:2502.05795"),
}


def found() -> dict[str, list[dict[str, str]]]:
    """The rows of the table of measurements by the idea; empty if there is none."""
    rows: dict[str, list[dict[str, str]]] = {}
    if FOUND.exists():
        with FOUND.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["idea"], []).append(row)
    return rows
