"""A dry run of training: every phase that takes memory, on tensors that have shapes and no data.

The model is built, trained and used by the functions that train.py calls. Nothing here depends on its parts, so a new
part needs no change here.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from modules.decoding import MOST_PACKED
from objective import Objective
from training.evaluation import score_batch
from training.step import TrainState

PARTS = ("weights", "gradients", "optimizer", "average", "activations", "loss", "temporaries")
LOSS = {"head", "pointer", "loss"}  # modules that make logits, or tensors of their size
BLOCK = 2**17  # bytes
SHORT_PROMPT = 16  # tokens of a usual prompt
EQUAL = torch.ops.aten.equal.default
NO_VALUE = torch.ops.aten._local_scalar_dense.default, EQUAL  # operations that read the value of a tensor
DEVICE = torch.ops.prim.device.default
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
    num_products: int  # by oneDNN in the whole run, equal shapes once
    unwritten_bytes: int = 0  # asked for besides; nothing is written to them, so that the system gives no memory


Breakdowns = dict[tuple[str, str], Breakdown]  # by phase and module


class FakeStorageLog(StorageLog):
    """Counts the storages of fake tensors, and makes up a value if the code reads one."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is DEVICE:  # half of all calls
            return args[0].fake_device
        return super().__torch_dispatch__(function, types, args, kwargs)

    def run(self, function, args, kwargs):
        if function is DRAW:  # torch remembers what it knows of a call without a generator, which is quicker
            return SAME_SIZE(*args, **{name: value for name, value in kwargs.items() if name != "generator"})
        if function not in NO_VALUE:
            return function(*args, **kwargs)
        if self.position.modules:
            raise DataDecides(f"{self.position.modules[-1]} asks for the value of a tensor")
        if function is EQUAL:
            return args[0].shape == args[1].shape
        return True if args[0].dtype == torch.bool else 1.0 if args[0].is_floating_point() else 1


def dry_run(
    cfg: Config, *, rows: int, num_texts: int, device: str = "cpu", fake: bool = True, copies: bool | None = None,
) -> Breakdowns:
    """Build the model, take enough steps to reach the peak, evaluate, and continue `num_texts` texts.

    A batch has `rows` rows. With `fake` no tensor has data; raises DataDecides if the model needs data. `copies` says
    whether a model copies weights while it writes texts; None = by its size, see `copies_weights`.
    """
    if not fake:
        return _run_all_phases(cfg, rows, num_texts, device, copies, StorageLog(device=device))
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), few_heads():
            return _run_all_phases(cfg, rows, num_texts, device, copies, FakeStorageLog(device=device))
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise DataDecides(f"the model calls {error.func}") from error


def copies_weights(model: Model, device: str) -> bool:
    """Whether a model copies weights while it writes texts, see modules/decoding.py: a GPU copies a few."""
    return device == "cpu" and model.num_parameters() <= MOST_PACKED


def _run_all_phases(
    cfg: Config, rows: int, num_texts: int, device: str, copies: bool | None, log: StorageLog,
) -> Breakdowns:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # by copy.deepcopy of a model
        with log.watching():
            state, gradients = _train_and_evaluate(cfg, rows, log)
        if num_texts:
            log.position.phase, log.position.outside = "sampling", "texts"
            copies = copies_weights(state.model, device) if copies is None else copies
            with log if copies else log.watching():  # with the hooks of modules a model is called without copies
                begin_texts(cfg, state.objective, num_texts)
    owners = dict(owned(state, log)) | gradients
    return {where: break_down(log, peak, owners) for where, peak in log.peaks.items()}


def _train_and_evaluate(cfg: Config, rows: int, log: StorageLog) -> tuple[TrainState, dict[int, tuple[str, str]]]:
    """What is trained, and the owners of its gradients, which are gone."""
    train, gradients = cfg.train, {}
    model = Model(cfg.model, causal=train.facts.causal, checkpoint_activations=train.checkpoint_activations)
    state = TrainState(model, train)
    for options in state.optimizer.param_groups:
        if "ns_steps" in options:  # Muon's iterations: the second and later ones hold the same
            options["ns_steps"] = min(2, options["ns_steps"])
    log.position.names = groups(model) | {id(state.objective.loss): "loss"}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(_noting(gradients, log, group(name)))
    batches = [some_batch(cfg, rows) for _ in range(min(2, train.accumulation))]
    waiting = torch.zeros(train.accumulation - len(batches), 2, *batches[0].x.shape, dtype=torch.long)
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
    return state, gradients


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
    return Breakdown(peak.num_bytes, peak.operation, table, num_blocks, len(log.products), peak.unwritten_bytes)


def sequence_bytes(cfg: Config) -> int | None:
    """The size of the cache of a text of max_seq_len tokens, and of a source as long: keys and values, or a state.

    None if the tokens decide it.
    """
    log = FakeStorageLog()
    with (suppress(DataDecides, DataDependentOutputException, DynamicOutputShapeException),
          FakeTensorMode(allow_non_fake_inputs=True), log.watching(), torch.inference_mode()):
        model, length = Model(cfg.model), cfg.model.max_seq_len
        tokens = torch.zeros(1, length, dtype=torch.int64)
        before, cache = log.asked_bytes, model.make_cache(length)
        model(tokens, source=some_source(model, tokens), cache=cache, last_only=True)
        return log.asked_bytes - before
    return None
