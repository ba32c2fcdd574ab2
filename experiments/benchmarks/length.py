"""The benchmark length: what a training step of one mixer takes in longer and longer texts, as a page of the manual."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

import torch
from einops import rearrange
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import config
from config import ModelConfig, diff, override
from configuration.command_line import spell_value
from experiments.benchmarks.benchmark_options import Length
from experiments.benchmarks.gallery_table import line_of
from experiments.benchmarks.measuring import best_seconds
from memory_prediction.allocations import StorageLog
from memory_prediction.process import choose_allocator
from model import Model
from modules.linear import Linear
from modules.residuals.wiring import way_to_call
from modules.stream import Context, Stream
from run_store.atomic_files import write_text
from run_store.listing import ROOT

BASE = "attention"  # whose time is 1
TORCH = "torch's attention"  # a yardstick for the others
USUAL = 1024  # tokens, with whose time per token those of other lengths are compared
DECODED, ROWS = 8, 4  # tokens in a timed call, and texts
TEXT = """# Mixers and the length of a text

One mixer with its projections, of width {dim}, forward and backward, on texts of t tokens: {tokens:,} tokens in a step
whatever t is. The numbers of the mixers are the defaults. On one thread of a CPU, float32, torch {torch}:

```
python experiments/benchmark.py length{flags}
```

- Times are processor time, the least of {rounds}, in rounds in which all mixers and lengths take turns in one process.
- `attention` is that of this project, whose kernel is faster than torch's on longer texts. torch's attention is the
  fused kernel of torch with projections and nothing else.
- A loop over the tokens has more steps with fewer rows where t is longer, so that its time per token rises.
- What is kept for the backward pass is without the input and the weights; a vector of the stream takes {vector:.1f} kB.
- A decoded token is that of {rows} texts, after so many cached ones; the cache is that of one text, in float32.
"""


class Section(NamedTuple):
    """A table of the page: a row for each mixer."""

    title: str
    headings: list[str]
    rows: dict[str, list[str]]


class Part:
    """A mixer as a layer has it, without its norm and its skip connection."""

    def __init__(self, word: str, dim: int, max_len: int):
        sizes = {"mixer": word, "dim": dim, "num_layers": 1, "vocab_size": 2, "max_seq_len": max_len, "mlp": "none",
                 "out_init": "same"}
        self.mixer: nn.Module = Model(override(ModelConfig(), sizes)).blocks[0]["mixer"].branch
        self.call = way_to_call(self.mixer)

    def __call__(self, x: Tensor, start: int = 0, cache: Any = None) -> Tensor:
        positions = torch.arange(start, start + x.shape[1])
        return self.call(self.mixer, x, Stream(x), Context(positions), cache)[0]

    def step(self, x: Tensor) -> None:
        """Forward and backward."""
        y = self(x)
        y.backward(torch.ones_like(y))
        self.mixer.zero_grad(set_to_none=True)
        x.grad = None

    def kept(self, x: Tensor) -> int:
        """The bytes that are held after the forward pass, which the backward pass frees."""
        with StorageLog() as log:
            y = self(x)
            held = log.asked_bytes
        del y
        return held


class TorchAttention(Part):
    """Causal attention by torch's fused kernel with projections and nothing else, as a yardstick without a cache."""

    def __init__(self, dim: int):
        self.mixer = nn.ModuleList([Linear(dim, 3 * dim, bias=False), Linear(dim, dim, bias=False)])

    def __call__(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.mixer[0](x), "b t (three h p) -> three b h t p", three=3,
                            h=ModelConfig().attention.num_heads)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.mixer[1](rearrange(y, "b h t p -> b t (h p)"))


class Decoding:
    """A mixer that goes on with cached texts: each call adds some tokens, one at a time. Shape: x (b, t, d)."""

    def __init__(self, part: Part, x: Tensor, calls: int):
        self.part, self.place, self.token = part, x.shape[1], x[:, :1]
        with torch.no_grad():
            self.cache = part.mixer.make_cache(x.shape[1] + DECODED * calls)
            part(x, cache=self.cache)

    def __call__(self) -> None:
        with torch.no_grad():
            for _ in range(DECODED):
                self.part(self.token, self.place, self.cache)
                self.place += 1


def run(options: Length, console: Console) -> bool:
    """Measure all mixers, print the tables and write the page. Raises ValueError for a word that is no mixer."""
    words = chosen(options.mixers)
    choose_allocator("fast")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sections = [*training(words, options), decoding(words, options)]
    finally:
        torch.set_num_threads(threads)
    for section in sections:
        table = Table(*section.headings, title=section.title, title_justify="left")
        for word, cells in section.rows.items():
            table.add_row(word, *cells)
        console.print(table)
    write_text(ROOT / options.page, page(sections, options))
    console.print(f"written to {ROOT / options.page}")
    return True


def chosen(words: Sequence[str]) -> list[str]:
    """The base, and the words to compare with it: all of the menu if none is given."""
    menu = [word for word in get_args(config.Mixer) if word not in ("none", BASE)]
    if unknown := [word for word in words if word not in (*menu, BASE)]:
        raise ValueError(f"mixers={unknown[0]} is not a mixer: use some of {', '.join(menu)}")
    return [BASE, *(word for word in words or menu if word != BASE)]


def training(words: Sequence[str], options: Length) -> list[Section]:
    """The tables on training steps."""
    parts = {word: Part(word, options.dim, max(options.lengths)) for word in words}
    parts = {BASE: parts.pop(BASE), TORCH: TorchAttention(options.dim), **parts}
    texts = {t: torch.randn(max(1, options.tokens // t), t, options.dim, requires_grad=True) for t in options.lengths}
    kept = {(word, t): part.kept(x) / (len(x) * t) for word, part in parts.items() for t, x in texts.items()}
    ways = {(word, t): lambda part=part, x=x: part.step(x) for word, part in parts.items() for t, x in texts.items()}
    best = best_seconds(ways, options.rounds + 1)  # the first is a warm-up
    each = {(word, t): seconds / (len(texts[t]) * t) for (word, t), seconds in best.items()}
    usual = min(options.lengths, key=lambda t: abs(t - USUAL))
    headings = ["mixer", *(f"{t:,}" for t in options.lengths)]

    def section(title: str, cell) -> Section:
        return Section(title, headings, {word: [cell(word, t) for t in options.lengths] for word in parts})

    return [
        section("Microseconds of a training step for each token", lambda word, t: f"{1e6 * each[word, t]:,.1f}"),
        *(section(f"The same, compared with {base}", lambda word, t, base=base: f"{each[word, t] / each[base, t]:.2f}")
          for base in (BASE, TORCH)),
        section(f"Time for each token, compared with texts of {usual:,}",
                lambda word, t: f"{each[word, t] / each[word, usual]:.2f}"),
        section("Kept for the backward pass, kB for each token", lambda word, t: f"{kept[word, t] / 1e3:,.1f}"),
    ]


def decoding(words: Sequence[str], options: Length) -> Section:
    """The table on decoding, by the number of cached tokens."""
    parts = {word: Part(word, options.dim, max(options.cached) + DECODED * (options.rounds + 1)) for word in words}
    ways = {(word, t): Decoding(part, torch.randn(ROWS, t, options.dim), options.rounds + 1)
            for word, part in parts.items() for t in options.cached}
    best = {key: seconds / DECODED for key, seconds in best_seconds(ways, options.rounds + 1).items()}
    few, many = options.cached
    of_each = [[f"{unit} after {t:,}" for t in options.cached] for unit in ("ms", "kB")]
    rows = {}
    for word in words:
        sizes = [f"{cache_bytes(parts[word], torch.randn(1, t, options.dim)) / 1e3:,.1f}" for t in options.cached]
        times = [f"{1e3 * best[word, t]:.2f}" for t in options.cached]
        rows[word] = [*times, f"{best[word, many] / best[word, few]:.2f}", *sizes]
    return Section("A decoded token, and what the cache takes",
                   ["mixer", *of_each[0], "ratio", *of_each[1]], rows)


def cache_bytes(part: Part, x: Tensor) -> int:
    """What a cache for the tokens of x takes when it holds them."""
    cache = part.mixer.make_cache(x.shape[1])
    with torch.no_grad():
        part(x, cache=cache)
    return sum({id(x): x.nbytes for x in tensors_in(cache)}.values())


def tensors_in(thing: Any) -> Iterator[Tensor]:
    """The tensors of a cache, which may have further ones in it."""
    if isinstance(thing, Tensor):
        yield thing
        return
    inside = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list | tuple) else ()
    for part in [*inside, *getattr(thing, "__dict__", {}).values()]:
        yield from tensors_in(part)


def page(sections: Sequence[Section], options: Length) -> str:
    """The page of the manual, in Markdown."""
    flags = "".join(f" --{name.replace('_', '-')} {spell_value(value)}"
                    for name, (_, value) in diff(Length(), options).items())
    found = [TEXT.format(dim=options.dim, tokens=options.tokens, rounds=options.rounds, flags=flags, rows=ROWS,
                         vector=4 * options.dim / 1e3, torch=torch.__version__)]
    for section in sections:
        lines = [section.headings, ["---", *["---:"] * (len(section.headings) - 1)],
                 *([f"`{word}`", *cells] for word, cells in section.rows.items())]
        found.append(f"\n## {section.title}\n\n" + "".join(map(line_of, lines)))
    return "".join(found)
