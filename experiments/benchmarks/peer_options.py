"""The flags of the benchmarks beside other libraries."""

from dataclasses import dataclass
from typing import Literal

Library = Literal["transformers", "litgpt", "x-transformers"]  # what `pip install` calls them
EVERY: tuple[Library, ...] = ("transformers", "litgpt", "x-transformers")
WRITERS: tuple[Library, ...] = ("transformers", "litgpt")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Time training steps beside other libraries: forward, loss, backward, clipping and AdamW, in turns.

    All have the same sizes, tokens, precision, threads and optimizer, and no dropout; transformers and litgpt have our
    weights, and must compute our logits. A ratio is that of two steps of one round, by processor time on one thread of
    a CPU, else by the time that passes. The limit is the time that a step's operations take at the speed of its matrix
    products alone, and AdamW's numbers at the speed of a copy. Libraries that are not installed are left out.
    """

    presets: tuple[str, ...] = ("gpt2", "llama2")  # those of a family of transformers; the two have most libraries
    scales: tuple[str, ...] = ("1M", "10M")  # parameters in the blocks
    precision: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)  # bfloat16: autocast, weights in float32
    compile: Literal["off", "on", "both"] = "off"  # torch.compile, of all; it takes minutes on a CPU
    threads: tuple[int, ...] = (1,)  # of torch on a CPU
    vocab_size: int = 4096
    batch_size: int = 8  # rows of the context that the scale has
    rounds: int = 5  # after two that do not count
    libraries: tuple[Library, ...] = EVERY
    device: str = "auto"  # auto = cuda, else mps, else cpu
    json: str | None = None  # a new file, to keep the times in
    against: str | None = None  # a kept file: the benchmark fails if a ratio is below all of that file


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Time greedy texts beside other libraries, from the same weights in float32 with a cache, in turns.

    All must write the same texts. transformers writes with its dynamic and with its static cache. Ratios are as in
    `train`. The limit is the time that the operations take at the speed of the model's matrix products alone, of the
    prompt and of single tokens, and the cache at the speed of a copy. Libraries that are not installed are left out.
    """

    presets: tuple[str, ...] = ("gpt2", "llama2")  # those of a family of transformers
    scales: tuple[str, ...] = ("1M", "10M")  # parameters in the blocks
    texts: tuple[int, ...] = (1, 16)  # at a time
    prompts: tuple[int, ...] = (32, 512)  # tokens before those that are written
    new_tokens: int = 64  # of each text
    threads: tuple[int, ...] = (1,)  # of torch on a CPU
    vocab_size: int = 4096
    rounds: int = 9  # after two that do not count
    libraries: tuple[Library, ...] = WRITERS
    device: str = "auto"  # auto = cuda, else mps, else cpu
    json: str | None = None  # a new file, to keep the times in
    against: str | None = None  # a kept file: the benchmark fails if a ratio is below all of that file


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Draw what `train` and `generate` measured: how many times as fast ours is, for each setting and library."""

    files: tuple[str, ...]  # of --json, in the order of the picture
    picture: str  # a new .png, .svg or .pdf
