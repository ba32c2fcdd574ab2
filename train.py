"""Train a model: `python train.py [preset] [--section.flag value ...]`, or `--resume RUN`.

A run is a folder in models/; see runs.py for what is in it.
"""

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    import sys

    from training.command import parse

    command = parse(sys.argv[1:])

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from rich.console import Console

import runs
from config import Config, DataConfig, TokenizerConfig, TrainConfig, replace
from configuration.command_line import fail
from corpora.corpus import Corpus, load_corpus
from corpora.shards import JoinedTokenFile, TokenFile, prepare
from data import Batch, Batches, prefetched
from memory_prediction.budget import EXIT_OUT_OF_MEMORY, Budget, OutOfMemory
from memory_prediction.process import choose_allocator
from model import Model, flops_per_token
from optimizing.schedules import Schedule
from run_store.checkpoint import Progress
from runs import Run, free_name, require_free, require_locks, saved_runs
from tokenizer import BUILT_SIZES, Tokenizer, built_tokenizer, load_tokenizer, train_tokenizer
from tools import deterministic, has_fast_bfloat16, pick_device, seed_everything
from training import report
from training.command import parse
from training.evaluation import Evaluation, evaluate
from training.saving import Interrupted, Saver, load_newest, require_changeable
from training.step import Learner, NotFinite
from training.stopping import EXIT_STATUS, Stop, process_seconds
from training.trackers import opened, require_packages
from training.transfer import begin_with_weights

DEFAULT_SIZES = {("tales",): 4096}  # of a corpus's vocabulary, where the flags name none


def train(
    cfg: Config, *, run: Run | None = None, console: Console | None = None, spent_seconds: float = 0.0,
    force: bool = False,
) -> Run:
    """Train as `cfg` says, or go on with `run` from its newest checkpoint; return the saved run.

    The same configuration gives the same weights and log, bit for bit on a CPU, interrupted or not. Where
    train.time_limit ends it, of which `spent_seconds` are over already, the run comes back unfinished.
    Raises ValueError for what the user can mend, such as a run that does not fit into memory, unless `force`;
    Diverged where the loss is no number any more, OutOfMemory, and Interrupted after SIGINT or SIGTERM, when a
    checkpoint has been written.
    """
    require_locks()
    require_packages(cfg.train.trackers)
    stop = Stop(cfg.train.time_limit_seconds, spent=spent_seconds)
    console = console or Console()
    device = pick_device(cfg.train.device)
    if device.type == "cpu":
        choose_allocator("fast")
    name = cfg.train.name or free_name("default")
    if run is None:
        require_free(name)  # better said now than after the text is encoded
    corpus = load_corpus(cfg.data)
    if run is None:
        tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
    else:
        require_same_text(run, corpus)
        tokenizer = run.tokenizer()
    cfg = settle_precision(fit_vocabulary(cfg, tokenizer), device)
    if run is not None:
        require_changeable(run, cfg)
    train_parts, val_part = prepare(corpus, tokenizer, cfg.data.cache_path, workers=cfg.data.workers, console=console)
    prompts = report.opening_prompts(cfg, tokenizer)
    budget = Budget.of(cfg, device, force=force)

    seed_everything(cfg.train.seed)
    torch._dynamo.reset()  # compiled code of another model must not count against this one
    model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations,
                  loss_chunk=cfg.train.loss_chunk).to(device)
    if cfg.train.init_from and not (run and run.checkpoints()):
        cfg = begin_with_weights(cfg, model, tokenizer, console)
    learner = Learner(model, cfg.train)
    batches = Batches(train_parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len,
                      seed=cfg.train.seed, packing=cfg.data.packing)
    schedule = Schedule(cfg, rows_per_epoch=batches.rows_per_epoch)
    flops_per_pass = flops_per_token(cfg.model, batches.seq_len) * schedule.pass_tokens
    if run is None:
        run = Run.create(name, cfg, tokenizer, describe_data(corpus, train_parts, val_part, cfg.data.packing))
    with (run.locked(), stop.listening(), deterministic(cfg.train.deterministic),
          budget.kept(run.path) if budget else contextlib.nullcontext()):
        progress = load_newest(run, cfg, learner)
        if run.is_finished:
            console.print(f"{run.name} is finished: all {cfg.train.steps:,} steps are taken", highlight=False)
            return run
        saver = Saver(run, learner, progress, stop)
        if cfg.train.init_from and not run.checkpoints():
            saver.save()  # from here on the other run may be deleted
        report.announce(console, run, model, schedule, batches, progress, device)
        report.say(console, budget and budget.announcement())
        measure = partial(evaluate, part=val_part, tokenizer=tokenizer, batch_size=cfg.train.batch_size,
                          packing=cfg.data.packing)
        write = partial(report.write_samples, model, tokenizer, prompts, cfg.sample)
        clock = Clock(progress)
        numbers = range(schedule.passes_before(progress.step), schedule.passes_before(cfg.train.steps))
        with (report.progress_bar(console, cfg, progress) as show, opened(run, progress.seen_steps) as trackers,
              prefetched(batches, numbers, depth=cfg.data.prefetch, pin=device.type == "cuda") as coming,
              saver.saving_when_stopped(console)):
            while progress.unseen or progress.step < cfg.train.steps:
                if not progress.unseen:
                    stop.before_step()
                    with clock.step(stop):
                        take_step(run, learner, progress, schedule, coming, flops_per_pass)
                due, seen = Due(progress.step, cfg.train), Seen()
                progress.val_loss, progress.seconds = None, clock.seconds()
                if due.evaluation or due.samples:
                    learner.optimizer.eval()
                    with stop.look():
                        seen = look(learner, measure, write, due)
                if not seen.is_finite:
                    last = batches[schedule.passes(progress.step - 1)[-1]].to(device)
                    raise Diverged(run, progress.step, f"validation loss {seen.evaluation.loss:g}",
                                   learner.first_bad_module(last))
                progress.val_loss, progress.seconds = seen.val_loss, clock.seconds()
                speed = clock.tokens_per_second()
                show(progress.recent_losses[-1], speed)
                line = write_line(progress, learner, seen, speed) if due.line else {}
                for tracker in trackers:
                    tracker.record(progress.step, line, seen.samples)
                progress.unseen = None
                if line:
                    clock.begin_line()
                if seen.evaluation:
                    report.say_evaluation(console, run, progress, seen.evaluation)
                if due.checkpoint:
                    saver.save(is_last=due.last)
            learner.optimizer.eval()
            with saver.reporting():
                report.finish(console, run, model, tokenizer, prompts, trackers)
        report.say(console, budget and budget.result())
    return run


class Clock:
    """The seconds of a run over all its sittings, and its speed since the last line of the log."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.began = time.perf_counter() - progress.seconds
        self.begin_line()

    def begin_line(self) -> None:
        self.line_seconds, self.line_tokens = 0.0, self.progress.tokens

    def seconds(self) -> float:
        return time.perf_counter() - self.began

    @contextlib.contextmanager
    def step(self, stop: Stop) -> Iterator[None]:
        """Time a step."""
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self.line_seconds += took
        stop.after_step(took)

    def tokens_per_second(self) -> float | None:
        """In the steps since the last line; None where there was none."""
        return (self.progress.tokens - self.line_tokens) / self.line_seconds if self.line_seconds else None


class Seen(NamedTuple):
    """What there is to see after a step, where it is due."""

    evaluation: Evaluation | None = None
    val_loss: float | None = None  # of the same tokens at every step, for the best checkpoint to be fair
    averaged: Evaluation | None = None  # of the moving average of the weights
    samples: Sequence[dict[str, str]] = ()

    @property
    def is_finite(self) -> bool:
        return self.evaluation is None or math.isfinite(self.evaluation.loss)


def take_step(
    run: Run, learner: Learner, progress: Progress, schedule: Schedule, coming: Iterator[Batch], flops_per_pass: float,
) -> None:
    """Take the next step on the batches that are coming, and note it in `progress`. Raises Diverged."""
    lr, passes = schedule.rate(progress.step), schedule.passes(progress.step)
    batches = [batch.to(learner.device) for batch in islice(coming, len(passes))]
    try:
        step = learner.step(batches, number=progress.step + 1, lr=lr, noise=progress.recent_noise)
    except NotFinite as error:
        where = learner.first_bad_module(error.batch)
        raise Diverged(run, progress.step + 1, str(error), where) from None
    progress.step += 1
    progress.tokens += step.num_targets
    progress.flops += len(passes) * flops_per_pass
    progress.recent_losses.append(step.loss)
    progress.unseen = {"lr": lr, "grad_norm": step.grad_norm} | learner.watch.columns([])


def look(learner: Learner, measure: Callable[..., Evaluation], write: Callable[[], list], due: "Due") -> Seen:
    """Evaluate and sample where that is due; no samples where the evaluation shows that the weights are bad."""
    seen, model, average, some = Seen(), learner.model, learner.average, due.eval_tokens
    if due.evaluation:
        with learner.precision:
            evaluation, whole = measure(model, max_tokens=some), due.last and some is not None
            seen = seen._replace(val_loss=evaluation.loss, evaluation=measure(model) if whole else evaluation,
                                 averaged=average and measure(average.model, max_tokens=None if due.last else some))
    if due.samples and seen.is_finite:
        seen = seen._replace(samples=write())
    return seen


def write_line(progress: Progress, learner: Learner, seen: Seen, speed: float | None) -> dict[str, Any]:
    """A line of the log, of what has happened since the one before."""
    line = report.log_line(progress, seen.evaluation, speed) | learner.watch.columns(progress.recent_noise)
    line |= {"ema_val_loss": seen.averaged and seen.averaged.loss} if learner.average else {}
    progress.recent_losses.clear()
    progress.recent_noise.clear()
    return line


class Diverged(Exception):
    """The loss or the gradient is no number any more; the last checkpoint is kept."""

    def __init__(self, run: Run, step: int, found: str, where: str):
        saved = run.checkpoints()
        kept = f"the last good checkpoint is {saved[-1].path}" if saved else "there was no checkpoint yet"
        super().__init__(f"step {step}: {found}; {where}; {kept}; a lower --train.lr often helps")


class Due:
    """What is to be done after a step."""

    def __init__(self, step: int, cfg: TrainConfig):
        self.last, self.eval_tokens = step == cfg.steps, cfg.eval_tokens
        self.checkpoint = step % cfg.checkpoint_every == 0 or self.last
        self.evaluation = step % cfg.eval_every == 0 or self.checkpoint
        self.samples = step % cfg.sample_every == 0 or self.last
        self.line = step % cfg.log_every == 0 or self.evaluation


def choose_tokenizer(cfg: TokenizerConfig, data: DataConfig, corpus: Corpus) -> Tokenizer:
    """A saved tokenizer, a built one where there is one, or one trained on the corpus."""
    if cfg.path is not None:
        return load_tokenizer(cfg.path)
    if cfg.kind in ("char", "byte"):
        return train_tokenizer(cfg.kind, chain(corpus.train(), corpus.val()), None)
    size = cfg.vocab_size or (DEFAULT_SIZES.get(data.name, 2048) if cfg.kind == "bpe" else 2048)
    if data.name == ("tales",) and cfg.kind == "bpe" and size in BUILT_SIZES:
        return built_tokenizer(size)
    return train_tokenizer(cfg.kind, corpus.train(), size)


def fit_vocabulary(cfg: Config, tokenizer: Tokenizer) -> Config:
    """Give the model the tokenizer's vocabulary, where the flags name no other.

    Raises ValueError where the flags name a smaller one.
    """
    size = cfg.model.vocab_size
    if size is not None and size < tokenizer.vocab_size:
        raise ValueError(f"model.vocab_size={size} is smaller than the tokenizer's {tokenizer.vocab_size}: "
                         "leave it out, or choose a smaller tokenizer")
    return replace(cfg, model=replace(cfg.model, vocab_size=size or tokenizer.vocab_size))


def settle_precision(cfg: Config, device: torch.device) -> Config:
    """Replace "auto" by what this machine computes fast, so that the saved run says what it was."""
    if cfg.train.precision != "auto":
        return cfg
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return replace(cfg, train=replace(cfg.train, precision=precision))


def describe_data(
    corpus: Corpus, train_parts: list[tuple[TokenFile, float]], val_part: TokenFile | JoinedTokenFile, packing: str,
) -> dict[str, Any]:
    """What a run writes down of its text: fingerprint, sizes, and the entropy (bits per byte) where known."""
    files = [file for file, _ in train_parts]
    floor = None if val_part.bits is None else val_part.bits / val_part.num_bytes
    num_targets = val_part.num_tokens - (0 if packing == "stream" else val_part.num_documents)
    described = {"name": corpus.name, "fingerprint": corpus.fingerprint,
                 "train_tokens": sum(file.num_tokens for file in files),
                 "train_bytes": sum(file.num_bytes for file in files),
                 "train_documents": sum(file.num_documents for file in files), "val_tokens": val_part.num_tokens,
                 "val_bytes": val_part.num_bytes, "val_documents": val_part.num_documents,
                 "val_tokens_per_byte": num_targets / val_part.num_bytes, "floor_bits_per_byte": floor}
    sources = [{"name": source.name, "tokens": file.num_tokens, "share": weight}
               for source, (file, weight) in zip(corpus.sources, train_parts, strict=True)]
    return described | ({"sources": sources} if len(sources) > 1 else {})


def require_same_text(run: Run, corpus: Corpus) -> None:
    """Raise ValueError where the text is not what the run began with."""
    if run.data.get("fingerprint") != corpus.fingerprint:
        raise ValueError(f"data.name={corpus.name} has changed since {run.name} began: put the text back as it was, "
                         "or train a new run on it")


def terminated(*_) -> None:
    """SIGTERM where there is nothing to save yet."""
    raise Terminated


class Terminated(KeyboardInterrupt):
    """SIGTERM; like Ctrl-C, it is no error."""


def main(command: tuple[Config, dict[str, Any]] | None = None) -> None:
    """Train as the command line says, which may have been read already."""
    signal.signal(signal.SIGTERM, terminated)
    cfg, options = command or parse(sys.argv[1:], runs.MODELS)
    name = options["resume"]
    try:
        if name is not None:
            train(cfg, run=Run(name), spent_seconds=process_seconds(), force=options["force"])
        else:
            name = cfg.train.name or free_name(options["preset"] or "default")
            train(replace(cfg, train=replace(cfg.train, name=name)), spent_seconds=process_seconds(),
                  force=options["force"])
    except OSError as error:
        fail(f"{error.filename or 'the disk'} cannot be read or written: {error.strerror or error}")
    except ValueError as error:
        fail(error)
    except Diverged as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OutOfMemory as error:
        go_on = f"; what was saved is kept: --resume {name}" if name in saved_runs() else ""
        print(f"error: {error}{go_on}", file=sys.stderr)
        raise SystemExit(EXIT_OUT_OF_MEMORY) from None
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt as interrupt:
        go_on = f"go on with: python train.py --resume {name}" if name in saved_runs() else "nothing was saved yet"
        print(f"stopped at once; {go_on}", file=sys.stderr)
        raise SystemExit(EXIT_STATUS["SIGTERM" if isinstance(interrupt, Terminated) else "SIGINT"]) from None


if __name__ == "__main__":
    main(command)
