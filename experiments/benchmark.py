"""Measured claims, reproducible: `python experiments/benchmark.py NAME --help` for each.

    tokens-to-loss   how many training tokens a recipe needs to reach a validation loss
    optimizer-steps  how long an optimizer's step takes, beside torch's own AdamW and Muon
    tokenizers       MB of text per second, of each kind of tokenizer beside the bare library beneath it
    encode           tokens per second from text to files beside the bare tokenizer library, and peak memory
    memory           predicted memory beside what a fresh process took
    loader           how much of a training step waits for its batch
"""

import sys

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

if __name__ == "__main__" and sys.argv[1:2] in ([], ["-h"], ["--help"]):  # needs no torch, whose import takes seconds
    print(__doc__)
    raise SystemExit

import math
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from config import Config, TrainConfig, override, replace
from configuration.command_line import fail, parse_words
from corpora.corpus import load_corpus
from corpora.shards import prepare
from data import Batches
from experiments.benchmarks.encoding import Encode
from experiments.benchmarks.loader_wait import Loader
from experiments.benchmarks.memory_accuracy import Memory
from experiments.benchmarks.tokenizer_speed import Tokenizers
from model import Model
from optim import OPTIMIZERS, Optimizers, make_optimizer
from optimizing.schedules import Schedule
from presets import load_preset
from tools import pick_device, seed_everything
from train import choose_tokenizer, evaluate, fit_vocabulary, settle_precision
from training.step import Learner


@dataclass(frozen=True, kw_only=True)
class TokensToLoss:
    """Train on a text from scratch and tell after how many tokens the validation loss is reached.

    The loss is that of the whole validation part, the last tenth of the text.
    """

    data: str  # a .txt file
    target: float = 1.88  # validation loss to reach, nats per token
    presets: tuple[str, ...] = ("char",)  # recipes; nanogpt-char is the one to beat
    budget: int | None = None  # training tokens; None = what the preset's steps make
    seeds: int = 1  # repetitions, with seeds 0, 1, ...
    evaluations: int = 20  # spread over the run
    device: str = "auto"  # auto = cuda, else mps, else cpu

    def run(self, console: Console) -> bool:
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} is no number of repetitions: use 1 or more")
        table = Table("recipe", "seed", "tokens to target", "final loss", "tokens", "seconds")
        reached = True
        for preset in self.presets:
            for seed in range(self.seeds):
                curve, seconds = self.train(preset, seed, console)
                first = next((tokens for tokens, loss in curve if loss <= self.target), None)
                tokens, loss = curve[-1]
                table.add_row(preset, str(seed), f"{first:,}" if first else "not reached", f"{loss:.4f}",
                              f"{tokens:,}", f"{seconds:.0f}")
                reached &= first is not None
        console.print(table)
        return reached

    def train(self, preset: str, seed: int, console: Console) -> tuple[list[tuple[int, float]], float]:
        """(tokens, validation loss) along a run, and its seconds without the evaluations."""
        cfg = override(load_preset(preset), {"data.name": self.data, "train.seed": seed})
        corpus = load_corpus(cfg.data)
        tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
        device = pick_device(self.device)
        cfg = self.with_budget(settle_precision(fit_vocabulary(cfg, tokenizer), device))
        train_parts, val_part = prepare(corpus, tokenizer, cfg.data.cache_path)
        seed_everything(seed)
        model = Model(cfg.model).to(device)
        learner = Learner(model, cfg.train)
        batches = Batches(train_parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len,
                          seed=seed, packing=cfg.data.packing)
        schedule = Schedule(cfg, rows_per_epoch=batches.rows_per_epoch)
        points = {math.ceil(cfg.train.steps * (i + 1) / self.evaluations) for i in range(self.evaluations)}
        curve, seconds = [], 0.0
        for step in range(cfg.train.steps):
            began = time.perf_counter()
            taken = [batches[number].to(device) for number in schedule.passes(step)]
            learner.step(taken, number=step + 1, lr=schedule.rate(step), noise=[])
            seconds += time.perf_counter() - began
            if step + 1 in points:
                learner.optimizer.eval()
                loss = evaluate(model, val_part, tokenizer, 64, packing=cfg.data.packing).loss
                curve.append((schedule.tokens_before(step + 1), loss))
                console.print(f"{preset} seed {seed}: {curve[-1][0]:9,} tokens  validation loss {loss:.4f}")
        return curve, seconds

    def with_budget(self, cfg: Config) -> Config:
        if self.budget is None:
            return cfg
        rows = cfg.train.batch_size * cfg.train.accumulation
        return override(cfg, {"train.steps": self.budget // (rows * cfg.model.max_seq_len)})


@dataclass(frozen=True, kw_only=True)
class OptimizerSteps:
    """Time each optimizer's steps on a preset's weights, all taking turns; the best of several rounds counts.

    Processor time where the device is a CPU.
    """

    preset: str = "default"
    vocab_size: int = 4096  # where the preset names none
    steps: int = 20  # in a round
    rounds: int = 5
    device: str = "auto"  # auto = cuda, else mps, else cpu

    def run(self, console: Console) -> bool:
        device = pick_device(self.device)
        model_cfg = load_preset(self.preset).model
        model = Model(replace(model_cfg, vocab_size=model_cfg.vocab_size or self.vocab_size)).to(device)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        makers = {"torch: AdamW": self.torch_adamw, "torch: Muon and AdamW": self.torch_muon}
        makers |= {kind: lambda model, kind=kind: make_optimizer(model, TrainConfig(
            optimizer=kind, schedule="constant", lr=1e-5)) for kind in OPTIMIZERS}
        optimizers = {name: make(model) for name, make in makers.items()}
        best = dict.fromkeys(makers, math.inf)
        for _ in range(self.rounds + 1):  # the first warms up
            for name, optimizer in optimizers.items():
                best[name] = min(best[name], self.seconds(optimizer, device))
        table = Table("optimizer", "ms a step", "x torch's AdamW")
        for name, seconds in best.items():
            table.add_row(name, f"{1e3 * seconds:.2f}", f"{seconds / best['torch: AdamW']:.2f}")
        console.print(table)
        return True

    def seconds(self, optimizer, device: torch.device) -> float:
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        began = clock()
        for _ in range(self.steps):
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (clock() - began) / self.steps

    def torch_adamw(self, model: Model) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-5)

    def torch_muon(self, model: Model) -> Optimizers:
        named = dict(model.named_parameters())
        matrices = [p for name, p in named.items() if name.startswith("blocks.") and p.dim() == 2]
        rest = [p for name, p in named.items() if not (name.startswith("blocks.") and p.dim() == 2)]
        return Optimizers(torch.optim.Muon(matrices, lr=1e-5), torch.optim.AdamW(rest, lr=1e-5))


BENCHMARKS = {"tokens-to-loss": TokensToLoss, "optimizer-steps": OptimizerSteps, "tokenizers": Tokenizers,
              "encode": Encode, "loader": Loader, "memory": Memory}
WIDTH = 120  # of a table in a file


def main() -> None:
    name, *words = sys.argv[1:]
    try:
        if name not in BENCHMARKS:
            raise ValueError(f"benchmark={name!r} is not known: use one of {', '.join(BENCHMARKS)}")
        benchmark = parse_words(words, BENCHMARKS[name], f"python experiments/benchmark.py {name}")
        reached = benchmark.run(Console(width=None if sys.stdout.isatty() else WIDTH))
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0 if reached else 1)


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    main()
