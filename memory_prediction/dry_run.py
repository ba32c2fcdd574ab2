"""A dry run of training: every phase that takes memory, on tensors that have shapes and no data.

The model is built, trained and used by the functions that train.py calls. Nothing here depends on its parts, so a new
part needs no change here.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves

from config import Config, replace
from data import Batch
from memory_prediction.allocations import Peak, StorageLog
from model import Model, some_source
from modules.causal import few_heads
from objective import Objective
from training.evaluation import score_batch
from training.step import TrainState

PARTS = ("weights", "gradients", "optimizer", "average", "activations", "loss", "temporaries")
LOSS = {"head", "pointer", "loss"}  # modules that make logits, or tensors of their size
BLOCK = 2**17  # bytes
SHORT_PROMPT = 16  # tokens of a usual prompt
NO_VALUE = (torch.ops.aten._local_scalar_dense.default,)  # operations that read the value of a tensor
DRAW, SAME_SIZE = torch.ops.aten.rand.generator, torch.ops.aten.empty.memory_format  # each text has its generator


class DataDecides(Exception):
    """The memory of the model depends on the values in its tensors."""


@dataclass(frozen=True)
class Breakdown:
    """What is alive at the peak of one phase and module."""

    num_bytes: int
    operation: str
    parts: Counter  # (module, part) -> bytes; "" = outside all modules
    num_blocks: int  # of 128 kB or more, each mapped by itself
    num_products: int  # of bfloat16 matrices in the whole run, equal shapes once


Breakdowns = dict[tuple[str, str], Breakdown]  # by phase and module


class FakeStorageLog(StorageLog):
    """Counts the storages of fake tensors, and makes up a value if the code reads one."""

    def run(self, function, args, kwargs):
        if function is DRAW:  # torch remembers what it knows of a call without a generator, which is quicker
            return SAME_SIZE(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if function not in NO_VALUE:
            return function(*args, **kwargs)
        if self.position.modules:
            raise DataDecides(f"{self.position.modules[-1]} asks for the value of a tensor")
        return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1


def dry_run(cfg: Config, *, rows: int, num_texts: int, device: str = "cpu", fake: bool = True) -> Breakdowns:
    """Build the model, take enough steps to reach the peak, evaluate, and continue `num_texts` texts.

    A batch has `rows` rows. With `fake` no tensor has data; raises DataDecides if the model needs data.
    """
    if not fake:
        return _run_all_phases(cfg, rows, num_texts, StorageLog(device=device))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), few_heads():
            return _run_all_phases(cfg, rows, num_texts, FakeStorageLog(device=device))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise DataDecides(f"the model calls {error.func}") from error


def _run_all_phases(cfg: Config, rows: int, num_texts: int, log: StorageLog) -> Breakdowns:
    train, gradients = cfg.train, {}
    with log.watching(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by copy.deepcopy of a model
        model = Model(cfg.model, causal=train.facts.causal, checkpoint_activations=train.checkpoint_activations)
        state = TrainState(model, train)
        for options in state.optimizer.param_groups:
            if "ns_steps" in options:  # Muon's iterations: the second and later ones hold the same
                options["ns_steps"] = min(2, options["ns_steps"])
        log.position.names = groups(model) | {id(state.objective.loss): "loss"}
        for name, parameter in model.named_parameters():
            parameter.register_post_accumulate_grad_hook(_noting(gradients, log, group(name)))
        batches = [some_batch(cfg, rows) for _ in range(min(2, train.accumulation))]
        waiting = torch.empty(train.accumulation - len(batches), 2, *batches[0].x.shape, dtype=torch.long)
        log.position.phase = "step"
        last = num_steps(cfg)
        for number in range(1, last):
            fill_states(state, number)
        state.step(batches, number=last, lr=0.0, noise=[])
        del waiting
        log.position.phase = "evaluation"
        state.optimizer.eval()
        with state.precision:
            score_batch(state.objective.score, batches[0])
        if num_texts:
            log.position.phase = "sampling"
            begin_texts(cfg, state.objective, num_texts)
        owners = dict(owned(state, log)) | gradients
        return {where: break_down(log, peak, owners) for where, peak in log.peaks.items()}


def num_steps(cfg: Config) -> int:
    """Steps until the peak is reached: the optimizer's state exists, and has been used."""
    return 3 if cfg.train.optimizer == "soap" else 2


def fill_states(state: TrainState, number: int) -> None:
    """Make what a step leaves to the next one, without its slow forward and backward pass."""
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad()
    if state.average:
        state.average.update(state.model, number)


def some_batch(cfg: Config, rows: int) -> Batch:
    """A batch of random tokens; with packing=documents in documents of half a row."""
    shape = rows, cfg.row_len
    x, y = (torch.randint(cfg.model.vocab_size, shape) for _ in range(2))
    places = torch.arange(shape[1]).expand(shape)
    documents = places * 2 // shape[1] if cfg.data.packing == "documents" else None
    return Batch(x, y, documents, math.prod(shape), torch.arange(rows))


def begin_texts(cfg: Config, objective: Objective, num_texts: int) -> None:
    """Generate two tokens of each text when most is read: at its start, or once it has outgrown the context."""
    context, new = cfg.model.max_seq_len, cfg.sample.max_new_tokens
    if cfg.num_graded:
        new = max(new, 2 * context)
    length = max(1, context // 2) if new >= context else min(SHORT_PROMPT, context)
    if cfg.data.is_pairs:  # a source may be as long
        length = max(1, context - 1)
    objective.rehearse([[1] * length] * num_texts, replace(cfg.sample, max_new_tokens=new))


def groups(model: nn.Module) -> dict[int, str]:
    """The modules that have a line in the table of memory.py, by id."""
    return {id(module): group(name) for name, module in model.named_modules() if name and group(name) == plain(name)}


def plain(name: str) -> str:
    """A name without the layer's number."""
    words = name.split(".")
    return ".".join([words[0], *words[2:]]) if words[0] == "blocks" else name


def group(name: str) -> str:
    """The line of the table that a module or parameter belongs to: embed, blocks.mixer, head, ..."""
    words = plain(name).split(".")
    return ".".join(words[:2]) if words[0] == "blocks" else words[0]


def _noting(found: dict[int, tuple[str, str]], log: StorageLog, module: str) -> Callable[[Tensor], None]:
    def note(parameter: Tensor) -> None:
        found[log.key_of(parameter.grad)] = module, "gradients"

    return note


def owned(state: TrainState, log: StorageLog) -> Iterator[tuple[int, tuple[str, str]]]:
    """(storage, (module, part)) of everything that lasts from step to step."""
    names = {id(p): group(name) for name, p in state.model.named_parameters()}
    for name, tensor in (*state.model.named_parameters(), *state.model.named_buffers()):
        yield log.key_of(tensor), (group(name), "weights")
    if state.average:
        for name, tensor in state.average.model.named_parameters():
            yield log.key_of(tensor), (group(name), "average")
    for tensor in filter(torch.is_tensor, tree_leaves(state.optimizer.state_dict())):
        yield log.key_of(tensor), ("", "optimizer")
    for parameter, value in optimizer_states(state):
        yield log.key_of(value), (names.get(id(parameter), ""), "optimizer")


def optimizer_states(state: TrainState) -> Iterator[tuple[Tensor, Tensor]]:
    """(parameter, tensor that the optimizer keeps for it)."""
    for part in state.optimizer.parts:
        for parameter, values in part.state.items():
            tensors = filter(torch.is_tensor, tree_leaves(values))
            yield from ((parameter, value) for value in tensors)


def break_down(log: StorageLog, peak: Peak, owners: dict[int, tuple[str, str]]) -> Breakdown:
    """Sum what is alive at a peak by module and part."""
    table, alive = Counter(), log.alive_at(peak.place)
    for key, num_bytes in alive.items():
        storage = log.storages[key]
        if storage.module in LOSS:
            part = "loss"
        elif storage.phase in ("forward", "evaluation", "sampling"):
            part = "activations"
        else:
            part = "temporaries"
        table[owners.get(key, (storage.module, part))] += num_bytes
    num_blocks = sum(num_bytes >= BLOCK for num_bytes in alive.values())
    return Breakdown(peak.num_bytes, peak.operation, table, num_blocks, len(log.products))


def sequence_bytes(cfg: Config) -> int:
    """The size of the cache of a text of max_seq_len tokens, and of a source as long: keys and values, or a state."""
    log = FakeStorageLog()
    with FakeTensorMode(allow_non_fake_inputs=True), log.watching(), torch.inference_mode():
        model, length = Model(cfg.model), cfg.model.max_seq_len
        tokens = torch.zeros(1, length, dtype=torch.int64)
        before, cache = log.alive_bytes, model.make_cache(length)
        model(tokens, source=some_source(model, tokens), cache=cache, last_only=True)
        return log.alive_bytes - before
