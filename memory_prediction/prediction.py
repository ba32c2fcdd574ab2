"""Predict the memory of a training run from a dry run, and from measured costs of the libraries."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from config import Config, TrainConfig, override
from configuration.heap import joins_freed
from configuration.rules import check_run
from generation.sampling import rows_at_a_time
from memory_prediction.data_parallel import checkpoint_bytes, of_each
from memory_prediction.dry_run import PARTS, Breakdown, Breakdowns, DataDecides, copies_weights, dry_run
from memory_prediction.free_memory import free_bytes
from model import Model
from tools import has_fast_bfloat16
from training.group import share

MB = 2**20
# what a process takes besides its tensors, as measured by experiments/benchmark.py memory
LIBRARIES = 2 * MB  # code and scratch of the kernels
LIBRARIES_PER_THREAD = 3 * MB  # the same, of each further thread
LIBRARIES_PER_BLOCK = 28 * 1024  # ends of pages, and what autograd writes down
LIBRARIES_PER_PRODUCT = 0.68 * MB  # by oneDNN, equal shapes once: it compiles a program for each
IMPORTED = dict.fromkeys(("lion", "soap", "schedule_free"), 19 * MB)  # optimizer -> code of pytorch_optimizer
# what torch.compile imports and keeps in a process, and how much more or less it may be; the C++ compilers are others.
# It keeps most when it compiles a model for the first time; each chunk of logits is in its graph once more
COMPILER, COMPILER_PER_LAYER, COMPILER_SPARE, COMPILER_PER_CHUNK = 90 * MB, 6 * MB, 45 * MB, 10 * MB
FUSED = 0.5  # x the tensors: the least that a compiled model makes, in which most intermediate ones are fused away
# x the tensors: the most that the fast allocator holds, with gaps between them that fit no other tensor; and what
# logits in chunks leave besides, x all logits of a batch. Drawn runs held at most 1.9 x
FAST_ALLOCATOR, GAPS_OF_CHUNKS = 1.9, 0.75
APART = 2.5  # x these gaps, in a process that does not join freed memory: see configuration/heap.py
WORKSPACE = {"cuda": 64 * MB}  # cuBLAS on Hopper: half for the thread of the forward, half for that of the backward
DEEP = 6  # layers; a deeper model is predicted from two shallow ones, unless its layers read those far below


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The memory of a training run in bytes, without what Python and the libraries hold before it begins."""

    breakdowns: Breakdowns
    checkpoint_bytes: int  # of the copy of what a checkpoint holds: weights, average and optimizer state
    how: str  # exact, from two depths, or from a trial: see predict
    device: str
    threads: int
    cfg: Config  # settled for the device

    @property
    def train(self) -> TrainConfig:
        return self.cfg.train

    @property
    def bfloat16(self) -> bool:
        return self.train.precision == "bfloat16"

    @cached_property
    def where(self) -> tuple[str, str]:
        """The phase and the module in which the most is alive."""
        return max(self.breakdowns, key=lambda where: self.breakdowns[where].num_bytes)

    @property
    def peak(self) -> Breakdown:
        return self.breakdowns[self.where]

    @property
    def peak_bytes(self) -> int:
        """Bytes of all tensors alive at the peak."""
        return self.peak.num_bytes

    @property
    def low_bytes(self) -> int:
        """What a process grows by with the tight allocator: its tensors and what the libraries allocate."""
        if self.device != "cpu":
            return round(self.peak_bytes + WORKSPACE[self.device])
        own = LIBRARIES + LIBRARIES_PER_THREAD * (self.threads - 1) + LIBRARIES_PER_BLOCK * self.peak.num_blocks
        own += LIBRARIES_PER_PRODUCT * self.peak.num_products
        compiler = COMPILER + COMPILER_PER_LAYER * self.cfg.model.num_layers if self.train.compile else 0
        return round(self.peak_bytes + own + self.imported_bytes + compiler)

    @property
    def unwritten_bytes(self) -> int:
        """What is asked for beyond the peak and takes no memory; a limit on requests must leave room for it."""
        return max(found.num_bytes + found.unwritten_bytes for found in self.breakdowns.values()) - self.peak_bytes

    @property
    def least_bytes(self) -> int:
        """The least that a process grows by, whatever the compiler saves."""
        saved = (1 - FUSED) * self.peak_bytes if self.train.compile else 0
        return self.low_bytes - self._compiler_spare - round(saved)

    @property
    def imported_bytes(self) -> int:
        """The code that the optimizer imports, which a process holds once it has predicted the run."""
        return IMPORTED.get(self.train.optimizer, 0)

    @property
    def high_bytes(self) -> int:
        """The most that a process grows by, with the fast allocator."""
        if self.device != "cpu":
            return self.low_bytes
        chunks = COMPILER_PER_CHUNK * num_chunks(self.cfg) if self.train.compile else 0
        gaps = gap_bytes(self.cfg, self.peak_bytes)
        return self.low_bytes + self._compiler_spare + chunks + round(gaps if joins_freed() else APART * gaps)

    @property
    def _compiler_spare(self) -> int:
        return COMPILER_SPARE if self.train.compile and self.device == "cpu" else 0

    def bytes_with(self, allocator: str) -> int:
        """The most that a process grows by, with the "fast" or the "tight" allocator."""
        return self.high_bytes if allocator == "fast" else self.low_bytes

    @property
    def by_part(self) -> dict[str, int]:
        """What is alive at the peak: weights, gradients, optimizer, average, activations, loss, temporaries."""
        found = Counter()
        for (_, part), num_bytes in self.peak.parts.items():
            found[part] += num_bytes
        return {part: found[part] for part in PARTS}

    @property
    def by_module(self) -> dict[str, int]:
        """The same by module, all layers together; "" = outside all modules."""
        found = Counter()
        for (module, _), num_bytes in self.peak.parts.items():
            found[module] += num_bytes
        return dict(found)

    @property
    def peak_name(self) -> str:
        """The phase, module and operation of the peak, in words."""
        phase, module = self.where
        return f"{phase}{f' of {module}' if module else ''} ({self.peak.operation})"


def num_chunks(cfg: Config) -> int:
    """The pieces in which the logits of a batch are computed; 0 = all at once."""
    return math.ceil(cfg.model.max_seq_len / cfg.train.loss_chunk) if cfg.train.loss_chunk else 0


def gap_bytes(cfg: Config, peak_bytes: int) -> float:
    """The most that the fast allocator holds besides tensors, if freed memory joins."""
    logits = 4 * cfg.train.batch_size * cfg.model.max_seq_len * cfg.model.padded_vocab_size if num_chunks(cfg) else 0
    return (FAST_ALLOCATOR - 1) * peak_bytes + GAPS_OF_CHUNKS * logits


def predict(cfg: Config, *, device: str = "cpu", threads: int | None = None, processes: int = 1) -> Prediction:
    """Predict the memory of a run on a device, which this machine need not have; `threads` of a CPU, None = torch's.

    Of several processes that share the batch, that of the first, which takes most.

    A deep model is extrapolated from two shallow ones ("from two depths"), exact to a thousandth. A model whose memory
    depends on its data, such as experts that choose their tokens, takes real steps on one row and on two rows ("from a
    trial").
    Raises ValueError if the vocabulary has no size yet, if a trial is too large for this machine, and for a model that
    the objective cannot train.
    """
    check_run(cfg)
    if cfg.model.vocab_size is None:
        raise ValueError("model.vocab_size=None: give a number to predict with, e.g. the tokenizer's")
    cfg = override(cfg, {"train.batch_size": share(cfg.train.batch_size, processes)})
    compiled, cfg = cfg.train.compile, _settle(cfg, device)
    texts, rows = num_texts(cfg), cfg.train.batch_size
    try:
        breakdowns, how = _at_depth(cfg, rows, texts, device)
    except DataDecides:
        _require_small(cfg)
        one, two = (dry_run(cfg, rows=number, num_texts=number, device=device, fake=False) for number in (1, 2))
        trained, written = (extrapolate(one, two, number - 1) for number in (rows, texts))
        breakdowns = {where: (written if where[0] == "sampling" else trained)[where] for where in trained}
        how = "from a trial"
    copied = checkpoint_bytes(breakdowns, cfg, processes)
    if processes > 1:
        breakdowns = of_each(breakdowns, cfg, processes)
    cfg = override(cfg, {"train.compile": compiled})
    return Prediction(breakdowns=breakdowns, checkpoint_bytes=copied, how=how, device=device, cfg=cfg,
                      threads=torch.get_num_threads() if threads is None else threads)


def _settle(cfg: Config, device: str) -> Config:
    """Settle the flags that decide about memory as they will be on the device."""
    changes: dict[str, Any] = {"train.compile": False}
    if cfg.train.precision == "auto":
        fast = device == "cuda" or has_fast_bfloat16(torch.device("cpu"))
        changes["train.precision"] = "bfloat16" if fast else "float32"
    if cfg.train.optimizer == "soap":
        changes["train.precondition_every"] = 1  # a step that updates its bases takes the most
    if device == "cuda":
        changes["model.attention.dropout"] = 0.0  # its kernel drops weights without storing them; a CPU's stores them
    return override(cfg, changes)


def num_texts(cfg: Config) -> int:
    """The largest number of texts that a run continues at once."""
    samples = max(1, len(cfg.sample.prompts)) * cfg.sample.num_samples
    texts = max(samples, cfg.num_graded)
    return min(texts, rows_at_a_time(cfg.model))


def _at_depth(cfg: Config, rows: int, texts: int, device: str) -> tuple[Breakdowns, str]:
    layers, period = cfg.model.num_layers, len(cfg.model.layers)
    few = period + layers % period if period > 1 else 2
    if layers <= max(DEEP, few + period) or cfg.model.residual == "attnres" or cfg.model.stack == "unet":
        return dry_run(cfg, rows=rows, num_texts=texts, device=device), "exact"
    with torch.device("meta"):
        copies = copies_weights(Model(cfg.model), device)
    shallow, deeper = (dry_run(override(cfg, {"model.num_layers": number}), rows=rows, num_texts=texts, device=device,
                               copies=copies) for number in (few, few + period))
    return extrapolate(shallow, deeper, (layers - few) / period), "from two depths"


def extrapolate(one: Breakdowns, two: Breakdowns, steps: float) -> Breakdowns:
    """Extrapolate linearly, `steps` times the difference from `one` to `two`, for each phase and module by itself."""
    def go_on(where: tuple[str, str]) -> Breakdown:
        a, b = one[where], two[where]
        parts = {key: a.parts[key] + steps * (b.parts[key] - a.parts[key]) for key in a.parts | b.parts}
        parts = Counter({key: round(num_bytes) for key, num_bytes in parts.items() if num_bytes > 0})
        return Breakdown(round(a.num_bytes + steps * (b.num_bytes - a.num_bytes)), b.operation, parts,
                      round(a.num_blocks + steps * (b.num_blocks - a.num_blocks)),
                      round(a.num_products + steps * (b.num_products - a.num_products)),
                      round(a.unwritten_bytes + steps * (b.unwritten_bytes - a.unwritten_bytes)))

    return {where: go_on(where) for where in one if where in two}


def _require_small(cfg: Config) -> None:
    with torch.device("meta"):
        needed = 24 * Model(cfg.model).num_parameters()
    if needed > (free_bytes() or math.inf):
        raise ValueError("the memory of this model depends on its data, and a trial with one row would not fit here: "
                         "predict a smaller one")
