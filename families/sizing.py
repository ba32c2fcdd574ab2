"""An architecture at another size: every choice is kept; widths, depth, windows and the context change.

`tiny` is for tests, `scaled` for training on a small machine. Needs no torch.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from config import Config, ModelConfig, override
from configuration.acting import mixers_of
from configuration.scaling import changed, recurrent_rules
from configuration.units import parse_count

MOST_OFF = 0.15  # how far the parameters may be from the target
GOOD = 0.08  # shapes that are no further from it are ranked by their proportions alone
ASPECT = 64  # dim / num_layers, as in GPT-2
CONTEXT = 256  # tokens, at a million parameters
LR, LR_TARGET = 6e-4, 85e6  # GPT-2's learning rate, and the parameters of its blocks


LATENT_HEAD = 32  # the width of a head without position, whose proportions in published models are those of 128

Widths = tuple[int, int, int]  # dim, num_heads, head_dim


class Shape(NamedTuple):
    """The sizes between which the parameters leave a choice."""

    num_layers: int
    dim: int
    num_heads: int
    head_dim: int

    @property
    def widths(self) -> Widths:
        return self[1:]


def tiny(cfg: Config, *, vocab_size: int = 61, max_seq_len: int = 32) -> Config:
    """The same architecture at toy size, for tests and traces: every choice is kept, widths and depth are reduced."""
    attention, layers = cfg.model.attention, cfg.model.layers
    kv_heads = 1 if attention.kv_heads == 1 else 2
    if is_whole(cfg.model):
        layers = shortened(layers, 5)
    small = {"dim": 48, "layers": layers, "num_layers": max(2, len(layers)), "vocab_size": vocab_size,
             "max_seq_len": max_seq_len}
    widest = max(layer.hidden_width for layer in cfg.model.by_kind.values())
    expert = max((layer.hidden_width for layer in cfg.model.by_kind.values() if layer.mlp == "moe"), default=widest)
    small |= changed(cfg.model, {
        "hidden_dim": lambda width: 80 if width == widest else 40, "attention.head_dim": lambda _: 16,
        **dict.fromkeys(windows(cfg.model), lambda _: 5),
        "final_norm_groups": lambda groups: min(groups, 8),
        "attention.num_kv_heads": lambda _: kv_heads, "moe.num_experts": lambda number: min(number, 8),
        "moe.top_k": lambda number: min(number, 3), "moe.num_groups": lambda number: min(number, 4),
        "moe.top_groups": lambda number: min(number, 2),
        "moe.shared_dim": lambda width: (80 if expert == widest else 40) * (1 if width == expert else 2),
        "encoder_layers": lambda _: 2} | recurrent_rules(cfg.model, 48 / cfg.model.dim))
    if attends(cfg.model):
        small["attention.num_heads"] = kv_heads * min(attention.num_heads // attention.kv_heads, 2)
    elif is_latent(cfg.model):
        sizes = {"kv_rank": 20, "q_rank": 28, "nope_dim": 16, "rope_dim": 8, "v_dim": 12}
        small |= {"attention.num_heads": 3} | changed(cfg.model, {
            f"latent.{name}": lambda _, size=size: size for name, size in sizes.items()})
    if is_indexed(cfg.model):
        small |= changed(cfg.model, {"indexer.num_heads": lambda number: min(number, 16),
                                     "indexer.head_dim": lambda _: 12})
    return override(cfg, {"model": small})


def is_whole(model: ModelConfig) -> bool:
    """Whether the kinds of layers have no pattern that repeats, but are said one by one."""
    return len(set(model.layers)) > 1 and len(model.layers) == model.num_layers


def shortened(layers: Sequence[str], number: int) -> tuple[str, ...]:
    """About so many layers, the runs of each kind as long relative to each other, of 1 at least.

    If there are too many runs for that, the first stretch of layers that has all kinds.
    """
    runs = [(kind, len(list(same))) for kind, same in groupby(layers)]
    if len(runs) > 2 * number:
        stretches = (tuple(layers[start:start + length]) for length in range(number, len(layers) + 1)
                     for start in range(len(layers) - length + 1))
        return next(some for some in stretches if set(some) == set(layers))
    return tuple(kind for kind, length in runs for _ in range(max(1, round(length * number / len(layers)))))


def read_scale(size: str) -> float:
    """The number of parameters in e.g. "1M". Raises ValueError if it is not one."""
    if not parse_count(size):
        raise ValueError(f"--scale {size} is not a number of parameters: use e.g. 1M, 2.5M or 100M")
    return parse_count(size)


def scaled(cfg: Config, target: float, count: Callable[[ModelConfig], int], *, context: int | None = None) -> Config:
    """The same architecture with about `target` parameters in its blocks, to train on a small machine.

    `count` gives the parameters of a model's blocks; of experts those that a token uses. The embedding and the head
    are not counted: the vocabulary is the tokenizer's. Kept are all choices, whole patterns of layers, the query heads
    for each key/value head, and the widths of the MLP and of all heads relative to the model's. The context and its
    windows are shorter, or as `context` says, and AdamW's learning rate is GPT-2's, higher for narrower models.
    Raises ValueError if no size is within 15 % of the target.
    """
    if is_whole(cfg.model):
        layers = shortened(cfg.model.layers, max(4, round(4 * (target / 1e6) ** (1 / 3))))
        cfg = override(cfg, {"model.layers": layers, "model.num_layers": len(layers)})
    model, period = cfg.model, len(cfg.model.layers)
    context = context or min(model.max_seq_len, 2 ** round(math.log2(CONTEXT * (target / 1e6) ** (1 / 3))))

    def parameters(shape: Shape) -> int:
        pattern = override(model, shaped(model, shape._replace(num_layers=period), context))
        return count(pattern) * shape.num_layers // period

    if is_whole(model) and not attends(model):
        best = nearest_width(model, target, parameters)
    else:
        dim = 16 * ASPECT
        for _ in range(2):  # what grows with the width, and not with its square, counts for more in a narrow model
            density = fit_density(model, dim, lambda widths: parameters(Shape(period, *widths)) / period)
            best = nearest_shape(model, target, density)
            if abs(parameters(best) / target - 1) <= MOST_OFF:
                break
            dim = best.dim
    if abs(parameters(best) / target - 1) > MOST_OFF:
        raise ValueError(f"no such model has {target:,.0f} parameters: the nearest has {parameters(best):,}")
    rate = {"train.lr": float(f"{LR * (LR_TARGET / target) ** (1 / 3):.0e}")} if cfg.train.optimizer == "adamw" else {}
    return override(cfg, {"model": shaped(model, best, context)} | rate)


def nearest_shape(model: ModelConfig, target: float, density: Callable[[float], float]) -> Shape:
    """Of the shapes near the target the most usual one with the model's proportions. `density` is from `fit_density`.

    Raises ValueError if the blocks have no parameters.
    """
    own_share = head_share(*own_widths(model))
    if not density(own_share):
        raise ValueError("the blocks have no parameters that could be scaled")
    depth = (target / (density(own_share) * ASPECT**2)) ** (1 / 3)

    def rank(shape: Shape) -> tuple[float, float]:
        share = head_share(*shape.widths)
        off = abs(density(share) * shape.num_layers * shape.dim**2 / target - 1)
        ratios = (shape.num_layers / depth, shape.head_dim / usual_head_dim(model, shape.dim), (share / own_share)**2)
        return max(off, GOOD), sum(abs(math.log(ratio)) for ratio in ratios) + 0.1 * (shape.head_dim % 8 > 0)

    return min(shapes(model, target, density(own_share), depth), key=rank)


def nearest_width(model: ModelConfig, target: float, parameters: Callable[[Shape], int]) -> Shape:
    """The shape with all layers of the model whose parameters are nearest to the target."""
    def of_width(eights: int) -> Shape:
        return Shape(model.num_layers, 8 * eights, *own_widths(model)[1:])

    above = bisect_left(range(2000), target, lo=2, key=lambda eights: parameters(of_width(eights)))
    return min(map(of_width, (above - 1, above)), key=lambda shape: abs(parameters(shape) - target))


def fit_density(model: ModelConfig, dim: int, count: Callable[[Widths], float]) -> Callable[[float], float]:
    """The parameters of a layer for each square of the width: linear in the width of all heads, see head_share.

    Of widths near `dim`. `count` gives the parameters of a layer of these widths.
    """
    some = sorted(widths(model, dim), key=lambda three: head_share(*three))
    (low, at_low), (high, at_high) = ((head_share(*three), count(three) / three[0]**2) for three in (some[0], some[-1]))
    slope = (at_high - at_low) / (high - low) if high > low else 0.0
    return lambda share: at_low + slope * (share - low)


def shapes(model: ModelConfig, target: float, density: float, depth: float) -> Iterator[Shape]:
    """Shapes of about `target` parameters and about `depth` layers, in whole patterns."""
    period = len(model.layers)
    for number in [1] if is_whole(model) else range(1 if period > 1 else 2, 4 + int(depth / period)):
        for three in widths(model, (target / (density * number * period)) ** 0.5):
            yield Shape(number * period, *three)


def widths(model: ModelConfig, dim: float) -> Iterator[Widths]:
    """Widths near `dim`, with heads that go with them."""
    near = [max(8, 8 * (round(dim / 8) + more)) for more in (-2, -1, 0, 1, 2)]
    if not attends(model):
        heads = own_widths(model)[1:] if is_latent(model) else None
        yield from ((width, *(heads or (1, width))) for width in near)
        return
    usual, group = usual_head_dim(model, dim), heads_of_a_group(model, dim)
    step = 4 if all(layer.rope.fraction == 1 for layer in model.by_kind.values()) else 8  # rope turns pairs
    for head_dim in range(8, 2 * usual + 1, step):
        groups = head_share(*own_widths(model)) * dim / (head_dim * group)
        for num_heads in (group * max(1, math.floor(groups)), group * math.ceil(groups)):
            for width in near if model.attention.head_dim else [num_heads * head_dim]:
                yield width, num_heads, head_dim


def own_widths(model: ModelConfig) -> Widths:
    """Those of the model itself; without heads that attend, one head of the width of the model."""
    if not attends(model) and not is_latent(model):
        return model.dim, 1, model.dim
    return model.dim, model.attention.num_heads, model.head_width


def head_share(dim: int, num_heads: int, head_dim: int) -> float:
    """The width of all heads, in widths of the model."""
    return num_heads * head_dim / dim


def usual_head_dim(model: ModelConfig, dim: float) -> int:
    """The width of a head in models of this width, or the model's own if it is narrower."""
    if not attends(model) and not is_latent(model):
        return round(dim)
    return min(model.head_width, 32 if dim < 384 else 64 if dim < 1536 else 128)


def heads_of_a_group(model: ModelConfig, dim: float) -> int:
    """The query heads for each key/value head, or for two of them if heads are in pairs.

    1 if there is one key/value head for all, and too many for this width.
    """
    group = model.attention.num_heads // model.attention.kv_heads
    if model.attention.kv_heads == 1 and group * usual_head_dim(model, dim) / 2 > 2 * dim:
        return 1
    return 2 * group if any(layer.attention.differential for layer in model.by_kind.values()) else group


def shaped(model: ModelConfig, shape: Shape, context: int) -> dict[str, Any]:
    """The flags of a model in this shape, with a context of so many tokens."""
    longer = context / model.max_seq_len
    narrower = shape.head_dim / model.head_width
    rules: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("hidden_dim", "moe.shared_dim"), lambda width: max(8, 8 * round(
            width * shape.dim / model.dim / 8))),
        "final_norm_groups": lambda groups: min(groups, 8),  # which divides any width
        **dict.fromkeys(windows(model), lambda near: round(
            context * min(max(near / model.max_seq_len, 1 / 8), 1 / 2))),
        "encoder_layers": lambda number: max(1, round(number * shape.num_layers / model.num_layers)),
    }
    if attends(model):
        fewer = shape.num_heads / model.attention.num_heads
        rules |= {"attention.num_heads": lambda _: shape.num_heads,
                  "attention.num_kv_heads": lambda number: max(1, round(number * fewer)),
                  "attention.head_dim": lambda width: round(width * narrower),
                  "attention.scale": lambda scale: power_of(scale, model.head_width, shape.head_dim)}
    if is_latent(model):
        smaller, narrow = shape.dim / model.dim, LATENT_HEAD / 128
        rules |= {f"latent.{name}": lambda rank: max(8, 8 * round(rank * smaller / 8))
                  for name in ("kv_rank", "q_rank")}
        rules |= {f"latent.{name}": lambda width: max(2, 2 * round(width * narrow / 2))
                  for name in ("nope_dim", "rope_dim", "v_dim")}
        rules |= {"attention.num_heads": lambda number: max(1, round(number * smaller / narrow)),
                  "attention.scale": lambda scale: scale * narrow**-0.5}
    if any(layer.rope.scaling in ("llama3", "yarn") for layer in model.by_kind.values()):
        rules["rope.original_len"] = lambda tokens: max(1, round(tokens * longer))
    if any(layer.attention.temperature_scale for layer in model.by_kind.values()):
        rules["attention.temperature_len"] = lambda tokens: max(1, round(tokens * longer))
    rules |= recurrent_rules(model, shape.dim / model.dim)
    sizes = {"dim": shape.dim, "num_layers": shape.num_layers, "vocab_size": None, "max_seq_len": context}
    return sizes | changed(model, rules)


def windows(model: ModelConfig) -> tuple[str, ...]:
    """The flags that say how many tokens attention sees."""
    chunked = any("cema" in mixers_of(layer) for layer in model.by_kind.values())
    return ("attention.window", "attention.chunk", "indexer.top_k", *["cema.chunk"] * chunked)


def power_of(scale: float, old: int, new: int) -> float:
    """The same multiple of a half power of the head's width: 1/8 of 64 channels is 1/4 of 16, 1/64 is 1/16, 8 is 4."""
    power = 0.0 if old == 1 else round(2 * math.log(scale, old)) / 2
    return scale * (new / old) ** power


def is_indexed(model: ModelConfig) -> bool:
    """Whether an indexer chooses the keys of a layer."""
    return any(layer.indexer.top_k for layer in model.by_kind.values())


def is_latent(model: ModelConfig) -> bool:
    """Whether a mixer of a layer is latent attention."""
    return any("latent" in mixers_of(layer) for layer in model.by_kind.values())


def attends(model: ModelConfig) -> bool:
    """Whether a mixer of a layer is attention, which has heads."""
    return any("attention" in mixers_of(layer) for layer in model.by_kind.values())
