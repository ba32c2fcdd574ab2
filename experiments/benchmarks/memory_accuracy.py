"""The benchmark memory: predicted memory compared with what a fresh process took."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import mean, median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from config import Config, from_dict, replace, to_dict
from data import IGNORED, Batch
from experiments.benchmarks import memory_runs
from experiments.benchmarks.benchmark_options import Memory
from experiments.benchmarks.measuring import start
from experiments.benchmarks.memory_cases import CASES, drawn_cases, named_cases
from memory_prediction.baseline import baseline_bytes
from memory_prediction.dry_run import begin_texts
from memory_prediction.prediction import Prediction, num_texts, predict
from memory_prediction.process import choose_allocator, peak_rss_bytes, reset_peak_rss
from model import Model
from tools import seed_everything
from training.evaluation import score_batch
from training.flops import flops_per_token
from training.step import TrainState

MB = 2**20
SMALLEST, LARGEST = 48 * MB, 2**31  # bytes of drawn cases; smaller processes hold mostly libraries
LONGEST = 5e12  # FLOPs of drawn cases: some minutes of a core
GPT2 = "gpt2 124M"


class MemoryOutcome(NamedTuple):
    """The memory of a configuration, predicted and measured."""

    name: str
    prediction: Prediction
    seconds: float  # that the prediction took
    parameters: int
    measured: int  # bytes

    @property
    def difference(self) -> int:
        return self.prediction.low_bytes - self.measured

    @property
    def error(self) -> float:
        return self.difference / self.measured

    @property
    def is_in_range(self) -> bool:
        """Whether the process stayed between the low and the high prediction; 2 % or 8 MB below low is still low."""
        low = self.prediction.low_bytes
        return low - max(0.02 * low, 8 * MB) <= self.measured <= self.prediction.high_bytes

    def cells(self) -> list[str]:
        """A row of the table."""
        tensors, low = self.prediction.peak_bytes, self.prediction.low_bytes
        sizes = [f"{size / MB:.1f}" for size in (tensors, low, self.measured)]
        return [self.name, f"{self.parameters:,}", *sizes, f"{self.error:+.1%}", f"{self.measured / tensors:.3f}",
                f"{self.seconds:.2f}"]

def run(options: Memory, console: Console) -> bool:
    """Print a row for each configuration; whether the predictions are as good as claimed."""
    if options.runs:
        return memory_runs.run(options.runs, options.seed, console)
    torch.set_num_threads(options.threads)
    predict(Config(model=replace(Config().model, vocab_size=512)), device=options.device)  # the first one imports
    table = Table("configuration", "parameters", "tensors, MB", "predicted, MB", "measured, MB", "error",
                  "measured / tensors", "seconds")
    outcomes = []
    for name, cfg in configurations(options):
        began = time.perf_counter()
        prediction = predict(cfg, device=options.device)
        seconds = time.perf_counter() - began
        outcomes.append(MemoryOutcome(name, prediction, seconds, *measure(cfg, options)))
        table.add_row(*outcomes[-1].cells())
        console.print(f"{name}: {outcomes[-1].error:+.1%}", highlight=False)
    console.print(table)
    return check(outcomes, options, console)


def configurations(options: Memory) -> Iterator[tuple[str, Config]]:
    """The named cases, then drawn ones whose size and length suit this machine."""
    named = {name: cfg for name, cfg in named_cases().items() if (options.only or "") in name}
    if not named and not options.random:
        raise ValueError(f"only={options.only} is in no name: use a part of one of {', '.join(CASES)}")
    yield from named.items()
    short = (cfg for cfg in drawn_cases(options.seed) if num_flops(cfg, options.steps) < LONGEST)
    right_size = (cfg for cfg in short if SMALLEST < predict(cfg, device=options.device).low_bytes < LARGEST)
    for number, cfg in zip(range(options.random), right_size, strict=False):
        yield f"drawn {options.seed}.{number}", cfg


def measure(cfg: Config, options: Memory) -> tuple[int, int]:
    """(parameters, bytes) of a run in a process of its own. Raises ValueError if it fails."""
    task = {"cfg": to_dict(cfg), "allocator": options.allocator, "threads": options.threads, "steps": options.steps,
            "device": options.device}
    process = start("memory_accuracy", threads=options.threads, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate(json.dumps(task))
    if process.returncode:
        raise ValueError(f"the run failed with exit status {process.returncode}:\n{errors[-2000:]}")
    return tuple(json.loads(output))


def check(outcomes: list[MemoryOutcome], options: Memory, console: Console) -> bool:
    """Print each figure with its limit; whether all are within."""
    errors = sorted(abs(o.error) for o in outcomes)
    ninth = errors[math.ceil(0.9 * len(errors)) - 1]
    figures = [("median seconds", median(o.seconds for o in outcomes), 0.6)]
    figures += [(f"seconds of {GPT2}", o.seconds, 1.0) for o in outcomes if o.name == GPT2]
    if options.device != "cpu":
        figures += [("worst error", errors[-1], 0.1)]
    elif options.allocator == "fast":
        figures += [("share outside low to high", mean(not o.is_in_range for o in outcomes), 0.05)]
    else:
        beyond = [abs(o.error) for o in outcomes if abs(o.difference) > 16 * MB]
        figures += [("median error", median(errors), 0.02), ("90th percentile", ninth, 0.05),
                    ("worst of those wrong by more than 16 MB", max(beyond, default=0.0), 0.1)]
    for name, figure, allowed in figures:
        verdict = "ok" if figure <= allowed else "[red]missed[/]"
        console.print(f"{name}: {figure:.3f}, at most {allowed}: {verdict}", highlight=False)
    return all(figure <= allowed for _, figure, allowed in figures)


def num_steps(cfg: Config, steps: int) -> int:
    """The steps to measure; more if the optimizer allocates something only later."""
    if cfg.train.optimizer == "soap":
        return max(steps, cfg.train.precondition_every + 1)  # until its bases have been updated
    return steps


def num_flops(cfg: Config, steps: int) -> float:
    """FLOPs of a process's training."""
    rows = num_steps(cfg, steps) * cfg.train.batch_size * cfg.train.accumulation
    return rows * cfg.row_len * flops_per_token(cfg)


# ---- in the process of its own ----


def train_and_measure(cfg: Config, allocator: str, threads: int, steps: int, device: str) -> tuple[int, int]:
    """(parameters, peak bytes) of steps, evaluations and samples, as train.py makes them."""
    choose_allocator(allocator)
    torch.set_num_threads(threads)
    seed_everything(0)
    before = baseline_bytes()
    reset_peak_rss()
    model = Model(cfg.model, causal=cfg.train.facts.causal, checkpoint_activations=cfg.train.checkpoint_activations)
    model = model.to(device)
    state = TrainState(model, cfg.train)
    for number in range(1, num_steps(cfg, steps) + 1):
        batches = [random_batch(cfg).to(state.device) for _ in range(cfg.train.accumulation)]
        state.step(batches, number=number, lr=1e-4, noise=[])
        if number == 2:
            evaluate_and_sample(cfg, state, batches[0])
    evaluate_and_sample(cfg, state, batches[0])
    taken = torch.cuda.max_memory_allocated() if device == "cuda" else peak_rss_bytes() - before
    return model.num_parameters(), taken


def evaluate_and_sample(cfg: Config, state: TrainState, batch: Batch) -> None:
    state.optimizer.eval()
    with state.precision:
        score_batch(state.objective.score, batch)
    begin_texts(cfg, state.objective, num_texts(cfg))


def random_batch(cfg: Config) -> Batch:
    """A batch as the packing makes it: a full row, a row that is half padding, or several documents in a row."""
    shape = cfg.train.batch_size, cfg.row_len
    num_ids = cfg.model.vocab_size - cfg.train.facts.num_ids
    x, y = (torch.randint(num_ids, shape) for _ in range(2))  # (b, t)
    if cfg.data.packing == "pad":
        y[:, shape[1] // 2:] = IGNORED
    documents = (torch.rand(shape) < 0.02).cumsum(1) if cfg.data.packing == "documents" else None  # (b, t)
    return Batch(x, y, documents, int((y != IGNORED).sum()))


if __name__ == "__main__":
    task = json.load(sys.stdin)
    print(json.dumps(train_and_measure(from_dict(task.pop("cfg")), **task)))
