"""What the gallery shows of a preset: its parameters, its cache, and its layers as a picture of text."""

import re
from collections.abc import Iterator, Sequence
from inspect import getdoc
from itertools import groupby

import torch
from torch import nn

from config import Config, LayerConfig, ModelConfig, flat, override
from configuration.acting import HEADS, IN_EMBEDDING, WHOLE_TEXT, has_heads, mixers_of
from configuration.command_line import spell_value
from configuration.plain import PLAIN_MODEL
from model import Model
from modules.block import Block, ParallelBlock, TwoHopBlock
from modules.masks import Pattern
from modules.mixers.beside import SideBySide
from modules.mixers.recurrent import Recurrent
from modules.residuals.wiring import way_to_call
from modules.short_conv import Convolved
from modules.sizes import idle_parameters
from modules.stream import Context, Stream
from tools import unfilled

VOCAB_SIZE = 4096  # if the tokenizer decides
BYTES = 2  # of a number in bfloat16
WITHIN_TEXT = ("window", "dilation", "chunk", "stride", "global_tokens", "value_residual", "share_kv", "exclusive",
               "qk_norm_after_rope")  # flags that are not of cross-attention
UNITS = {"B": 1e9, "M": 1e6, "k": 1e3}
SIZES = ("attention.num_heads", "attention.num_kv_heads", "attention.head_dim", "norm_eps", "moe.num_experts",
         "moe.top_k")  # not among marks


def whole(cfg: Config) -> ModelConfig:
    """The model, with a size of the vocabulary."""
    return cfg.model if cfg.model.vocab_size else override(cfg.model, {
        "vocab_size": cfg.tokenizer.vocab_size or VOCAB_SIZE})


def one_pattern(cfg: ModelConfig, *, times: int = 1) -> Model:
    """The model with its pattern of layers so often, without memory."""
    with unfilled():
        return Model(override(cfg, {"num_layers": times * len(cfg.layers)}))


def num_parameters(cfg: Config) -> tuple[int, int]:
    """All parameters, shared ones once; and those that one token uses."""
    period = len(cfg.model.layers)
    model = one_pattern(whole(cfg), times=2 if cfg.model.num_layers >= 2 * period else 1)
    blocks = [(sum(parameter.numel() for parameter in block.parameters()), idle_parameters(block))
              for block in model.blocks]
    more = [blocks[-period:][i % period] for i in range(len(blocks), cfg.model.num_layers)]
    total = model.num_parameters() + sum(number for number, _ in more)
    encoder = 0 if model.encoder is None else idle_parameters(model.encoder)
    return total, total - sum(idle for _, idle in blocks + more) - encoder


def spell_parameters(cfg: Config) -> str:
    """e.g. "46.7B, 12.9B active"."""
    total, active = map(spell_count, num_parameters(cfg))
    return total if total == active else f"{total}, {active} active"


def cache_bytes(cfg: ModelConfig) -> tuple[int, int]:
    """What each further token adds to the cache in bfloat16, and what does not grow with the text.

    Keys and values, what convolutions over the whole text read, and the keys of the pointer; those of layers with
    windows once these are full, and the states of recurrent mixers, which are in float32.
    """
    layers = [cfg.at(i) for i in range(cfg.num_layers) if has_heads(cfg.at(i))]
    sizes = [(BYTES * cached_numbers(layer), Pattern.of(layer.attention).num_kept) for layer in layers]
    pointer = BYTES * cfg.pointer_dim if cfg.pointer else 0
    read = BYTES * cfg.dim * sum(word in WHOLE_TEXT for i in range(cfg.num_layers) for word in mixers_of(cfg.at(i)))
    return (pointer + read + sum(size for size, kept in sizes if kept is None),
            sum(size * min(kept, cfg.max_seq_len) for size, kept in sizes if kept is not None) + state_bytes(cfg))


def state_bytes(cfg: ModelConfig) -> int:
    """What recurrent mixers keep of a text of any length, and the short convolutions within them."""
    if all(word in HEADS for layer in cfg.by_kind.values() for word in mixers_of(layer)):
        return 0
    blocks = one_pattern(override(cfg, {"vocab_size": 1})).blocks
    sizes: dict[str, int] = {}  # of a layer of each kind
    with torch.device("meta"):
        stream = Stream(torch.empty(1, 1, cfg.dim, dtype=torch.bfloat16))
        for kind, block in zip(cfg.layers, blocks, strict=True):
            if kind in sizes or "mixer" not in block.branches:
                continue
            sizes[kind] = 0
            for mixer in recurrences(block["mixer"].branch):
                more, stream = bytes_of_state(mixer, stream, cfg.max_seq_len)
                sizes[kind] += more
    return sum(sizes.get(cfg.layers[i % len(cfg.layers)], 0) for i in range(cfg.num_layers))


def recurrences(branch: nn.Module) -> Iterator[Recurrent]:
    """The recurrent mixers of a branch: one, two side by side, or none."""
    if isinstance(branch, Convolved):
        yield from recurrences(branch.part)
    elif isinstance(branch, SideBySide):
        yield from (mixer for part in branch.values() for mixer in recurrences(part))
    elif isinstance(branch, Recurrent):
        yield branch


def bytes_of_state(mixer: Recurrent, stream: Stream, max_len: int) -> tuple[int, Stream]:
    """Of a mixer without memory, after one token; and what it gives to later layers."""
    cache, mixer = mixer.make_cache(max_len), mixer.bfloat16()
    _, stream = way_to_call(mixer)(mixer, stream.x, stream, Context(torch.zeros(1, dtype=torch.int64)), cache)
    return sum(part.nbytes for part in cache.tensors()), stream


def source_bytes(cfg: ModelConfig) -> int:
    """What the cache keeps of each token of a source in bfloat16: the keys and values of cross-attention."""
    layers = [cfg.at(i) for i in range(cfg.num_layers) if cfg.at(i).cross != "none"]
    return sum(2 * BYTES * layer.attention.kv_heads * layer.head_width for layer in layers)


def cached_numbers(layer: LayerConfig) -> int:
    """What a layer keeps of each token: keys and values, or a latent vector and a rotated key; and an indexer's key."""
    numbers = {"attention": 2 * layer.attention.kv_heads * layer.head_width,
               "latent": layer.latent.kv_rank + layer.latent.rope_dim}
    indexed = layer.indexer.head_dim if layer.indexer.top_k else 0
    return sum(numbers[word] + indexed for word in mixers_of(layer) if word in numbers)


def spell_cache(cfg: ModelConfig) -> str:
    """e.g. "4.1 kB + 11.5 MB"; "0 + 37 kB" if all layers have windows or states."""
    growth, windows = cache_bytes(cfg)
    sizes = [f"{growth / 1e3:,.1f} kB" if growth else "0"]
    sizes += [f"{windows / 1e6:,.1f} MB" if windows >= 1e6 else f"{windows / 1e3:,.0f} kB"] if windows else []
    return " + ".join(sizes)


def spell_count(number: int) -> str:
    """A number of parameters, to three digits: 524k, 1.64M, 8.03B."""
    size, unit = next(((number / one, unit) for unit, one in UNITS.items() if number >= 0.9995 * one), (number, ""))
    return f"{size:#.3g}".rstrip(".") + unit


# ---- the picture ----


def picture(cfg: Config) -> str:
    """The sizes, and the way from the tokens to the logits."""
    model = whole(cfg)
    made, matrix = one_pattern(model), f"{model.padded_vocab_size:,} x {model.dim:,}"
    learned = [f"{model.position} positions"] if model.position in IN_EMBEDDING else []
    embed = ", ".join([matrix, *learned, *marks(model, "embed_"), *["smear"] * model.smear])
    backout = [] if made.backout is None else [f"  {formula(made.backout)}"]
    norm = [f"  norm   {', '.join([model.norm, *marks(model, 'norm_')])}"] * (model.final_norm and model.norm != "none")
    lines = [sizes_line(cfg, model), ""]
    if made.encoder is not None:
        lines += ["tokens of the source", f"  embed  {embed}", *stack_lines(model.encoder, made.encoder.blocks), *norm,
                  "source", ""]
        embed = "the same"
    lines += ["tokens", f"  embed  {embed}", *stack_lines(model, made.blocks), *backout, *norm]
    own = "the matrix of embed" if model.tie_embeddings else f"{model.dim:,} x {model.padded_vocab_size:,}"
    head = [own, *marks(model, "logit_"), *marks(model, "head_"), *["pointer"] * model.pointer]
    ahead = [f"  ahead  {model.ahead_depth} {formula(made.ahead)}"] if made.ahead else []
    return "\n".join([*lines, f"  head   {', '.join(head)}", *ahead, "logits"])


def sizes_line(cfg: Config, model: ModelConfig) -> str:
    """Parameters, context and cache in a line; `model` has a size of the vocabulary."""
    (growth, windows), source = cache_bytes(model), source_bytes(model)
    total, active = num_parameters(cfg)
    cache = [f"a cache of {growth:,} bytes a token in bfloat16"
             f"{f' and {windows:,} for windows and states' if windows else ''}"]
    cache += [f"{source:,} for each token of the source"] if source else []
    return ", ".join([f"{total:,} parameters", *([f"{active:,} active for a token"] if active < total else []),
                      f"a context of {model.max_seq_len:,} tokens", *cache])


def stack_lines(cfg: ModelConfig, blocks: Sequence[Block]) -> Iterator[str]:
    """The layers of a model or of its encoder, below one another; `blocks` are at least those of a pattern."""
    return (f"  │ {line}".rstrip() for line in pattern_lines(cfg, cfg.layers[:cfg.num_layers], blocks))


def pattern_lines(cfg: ModelConfig, pattern: tuple[str, ...], blocks: Sequence[Block]) -> Iterator[str]:
    """The kinds of layers in a pattern, in their order, and how often the pattern is there."""
    first = 0
    for kind, number in counted(pattern):
        yield ""
        yield "every layer" if len(set(pattern)) == 1 else f"{kind}, {times(number)}"
        yield from (f"  {line}" for line in layer_lines(cfg.by_kind[kind], blocks[first]))
        first += number
    repeats, rest = divmod(cfg.num_layers, len(pattern))
    more = [f"{kind} {times(number)}" for kind, number in counted(pattern[:rest])]
    yield ""
    yield f"{', then '.join([times(repeats), *more])}: {cfg.num_layers} layer{'s' * (cfg.num_layers > 1)}"
    yield ""


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def counted(layers: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each kind, and how many layers of it follow each other."""
    return [(kind, len(list(same))) for kind, same in groupby(layers)]


def layer_lines(cfg: LayerConfig, block: Block) -> list[str]:
    """What a layer computes: the formula of its wiring, and the numbers of each branch."""
    first = [formula(block[name]) for name in ("enter", "memory") if name in block]
    words = {name: word_of(cfg, name) for name in block.branches}
    numbers = {name: numbers_of(cfg, name, word) for name, word in words.items()}
    if isinstance(block, ParallelBlock | TwoHopBlock):
        text = formula(block)
        for name, word in words.items():
            text = text.replace(f"{name}(", f"{word}(")
        return [*first, text, *(f"  {line}" for line in numbers.values())]
    formulas = {name: formula(block[name]).replace("f(", f"{word}(") for name, word in words.items()}
    if cfg.norm == "none":
        formulas = {name: text.replace("norm(x)", "x") for name, text in formulas.items()}
    width = max(map(len, formulas.values()), default=0)
    return [*first, *(f"{formulas[name]:{width}}  {numbers[name]}" for name in words)] or ["nothing"]


def word_of(cfg: LayerConfig, branch: str) -> str:
    """What a branch is called in formulas."""
    pair = cfg.mixer if cfg.beside == "none" else f"({cfg.mixer} + {cfg.beside})"
    return {"mixer": pair, "cross": f"cross-{cfg.cross}", "mlp": cfg.mlp}[branch]


def numbers_of(cfg: LayerConfig, branch: str, word: str) -> str:
    """A branch and its numbers, of two mixers those of each."""
    if branch != "mixer" or cfg.beside == "none":
        return f"{word}: {', '.join(details(cfg, branch, word))}"
    pair = {"mixer": cfg.mixer, "beside": cfg.beside}
    scales = {word: [f"{flag}_{mark}" for mark in marks(cfg, f"{flag}_")] for flag, word in pair.items()}
    return "; ".join(f"{one}: {', '.join([*details(cfg, branch, one), *own])}" for one, own in scales.items())


def formula(part: object) -> str:
    """What a wiring computes: the beginning of its docstring."""
    return re.split("[:,] ", getdoc(part))[0]


def details(cfg: LayerConfig, branch: str, word: str) -> list[str]:
    """The numbers of a branch, and its flags that are not plain."""
    if branch == "mlp":
        own = cfg.moe
        experts = [f"{own.top_k} of {own.num_experts} experts"] if word == "moe" else []
        return [*experts, f"{cfg.hidden_width:,} wide", cfg.activation, *marks(cfg, "mlp_"), *marks(cfg, f"{word}."),
                *branch_marks(cfg)]
    if branch == "mixer" and word not in HEADS:
        return marks(cfg, f"{word}.")
    own, latent = cfg.attention, word == "latent"
    heads = [f"{own.num_heads} head{'s' * (own.num_heads > 1)} of {cfg.latent.head_dim if latent else cfg.head_width}"]
    heads += [f"{own.kv_heads} for keys and values"] if own.kv_heads != own.num_heads and not latent else []
    heads += marks(cfg, "latent.") if latent else []
    heads += [f"indexer.{mark}" for mark in marks(cfg, "indexer.")] if branch == "mixer" else []
    word = "no positions" if cfg.position == "none" else cfg.position
    positions = [" ".join([word, *marks(cfg, f"{cfg.position}.")])]
    positions = [] if cfg.position in IN_EMBEDDING or branch == "cross" else positions
    qk_norm = [f"qk_norm={cfg.qk_norm}"] if cfg.qk_norm != "none" and not latent else []
    more = [mark for mark in marks(cfg, "attention.") if branch == "mixer" or not mark.startswith(WITHIN_TEXT)]
    return [*heads, *positions, *qk_norm, *more, *branch_marks(cfg)]


def branch_marks(cfg: LayerConfig) -> list[str]:
    return [f"branch {mark}" for mark in marks(cfg, "residual_")] + ["inner_norm"] * cfg.inner_norm


def marks(cfg: ModelConfig, prefix: str) -> list[str]:
    """The flags that begin with this and are not plain, without it; sizes are not among them."""
    found = {flag.removeprefix(prefix): value for flag, value in flat(cfg).items()
             if flag.startswith(prefix) and flag not in SIZES and value != PLAIN_MODEL.get(flag, value)}
    return [name if value is True else f"{name}={spell_value(value)}" for name, value in found.items()]
