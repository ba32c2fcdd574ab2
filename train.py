"""Train a model: `python train.py [preset] [--section.flag value ...]`, or `--resume RUN`.

A run is a folder in models/; see runs.py for what is in it.
"""

if __name__ == "__main__":  # first of all: help and mistakes need no torch, whose import takes seconds
    import sys

    from training.command import parse

    command = parse(sys.argv[1:])

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from rich.console import Console

import runs
from config import Config, replace
from configuration.command_line import fail
from data import Batch, prefetched
from memory_prediction.budget import EXIT_OUT_OF_MEMORY, Budget, OutOfMemory
from memory_prediction.process import choose_allocator
from model import flops_per_token
from run_store.checkpoint import Progress
from runs import Run, free_name, require_free, require_locks, saved_runs
from tools import deterministic, pick_device
from training import report
from training.command import parse
from training.evaluation import Evaluation
from training.events import Events, Results, Timer
from training.saving import Interrupted, Saver, load_newest, require_changeable
from training.setup import Setup, prepare_run
from training.step import NotFinite, TrainState
from training.stopping import EXIT_STATUS, Stop, process_seconds
from training.trackers import opened, require_packages


def train(
    cfg: Config, *, run: Run | None = None, console: Console | None = None, spent_seconds: float = 0.0,
    force: bool = False,
) -> Run:
    """Train as `cfg` says, or go on with `run` from its newest checkpoint; return the saved run.

    The same configuration gives the same weights and log, bit for bit on a CPU, interrupted or not. If
    train.time_limit ends it, of which `spent_seconds` are over already, the run comes back unfinished.
    Raises ValueError for what the user can mend, such as a run that does not fit into memory, unless `force`;
    Diverged if the loss is not finite any more, OutOfMemory, and Interrupted after SIGINT or SIGTERM, when a
    checkpoint has been written.
    """
    require_locks()
    require_packages(cfg.train.trackers)
    stop = Stop(cfg.train.time_limit_seconds, spent=spent_seconds)
    console, device = console or Console(), pick_device(cfg.train.device)
    if device.type == "cpu":
        choose_allocator("fast")
    name = cfg.train.name or free_name("default")
    if run is None:
        require_free(name)  # better said now than after the text is encoded
    setup = prepare_run(cfg, device, run=run, console=console)
    if run is not None:
        require_changeable(run, setup.cfg)
    prompts = report.opening_prompts(setup.cfg, setup.tokenizer)
    budget = Budget.of(setup.cfg, device, force=force)
    state = setup.make_state(console, resumed=run is not None and bool(run.checkpoints()))
    cfg, schedule = setup.cfg, setup.schedule
    flops_per_pass = flops_per_token(cfg.model, cfg.model.max_seq_len) * schedule.pass_tokens
    run = run or Run.create(name, cfg, setup.tokenizer, setup.describe_data())
    with (run.locked(), stop.listening(), deterministic(cfg.train.deterministic),
          budget.kept(run.path) if budget else contextlib.nullcontext()):
        progress = load_newest(run, cfg, state)
        if run.is_finished:
            console.print(f"{run.name} is finished: all {cfg.train.steps:,} steps are taken", highlight=False)
            return run
        saver, timer = Saver(run, state, progress, stop), Timer(progress)
        if cfg.train.init_from and not run.checkpoints():
            saver.save()  # from here on the other run may be deleted
        report.announce(console, run, state.model, schedule, setup.batches, progress, device)
        report.say(console, budget and budget.announcement())
        write = partial(report.write_samples, state.model, setup.tokenizer, prompts, cfg.sample)
        numbers = range(schedule.passes_before(progress.step), schedule.passes_before(cfg.train.steps))
        with (report.progress_bar(console, cfg, progress) as show, opened(run, progress.logged_steps) as trackers,
              prefetched(setup.batches, numbers, depth=cfg.data.prefetch, pin=device.type == "cuda") as coming,
              saver.saving_when_stopped(console)):
            while progress.logged_steps < cfg.train.steps:
                if progress.logged_steps == progress.step:  # unless it was stopped before its last line was written
                    stop.before_step()
                    with timer.step(stop):
                        take_step(run, state, progress, setup, coming, flops_per_pass)
                events = Events(progress.step, cfg.train)
                results = examine(run, state, setup, progress, write, events, stop, timer)
                show(progress.recent_losses[-1], timer.tokens_per_second())
                line = report.write_line(progress, state, results, timer) if events.line else {}
                for tracker in trackers:
                    tracker.record(progress.step, line, results.samples)
                progress.logged_steps = progress.step
                if results.evaluation:
                    report.say_evaluation(console, run, progress, results.evaluation)
                if events.checkpoint:
                    saver.save(is_last=events.last)
            state.optimizer.eval()
            with saver.reporting():
                report.finish(console, run, state.model, setup.tokenizer, prompts, trackers)
        report.say(console, budget and budget.result())
    return run


def take_step(
    run: Run, state: TrainState, progress: Progress, setup: Setup, coming: Iterator[Batch], flops_per_pass: float,
) -> None:
    """Take the next step on the batches that are coming, and note it in `progress`. Raises Diverged."""
    lr, passes = setup.schedule.rate(progress.step), setup.schedule.passes(progress.step)
    batches = [batch.to(state.device) for batch in islice(coming, len(passes))]
    try:
        step = state.step(batches, number=progress.step + 1, lr=lr, noise=progress.recent_noise)
    except NotFinite as error:
        where = state.first_bad_module(error.batch)
        raise Diverged(run, progress.step + 1, str(error), where) from None
    progress.step += 1
    progress.tokens += step.num_targets
    progress.flops += len(passes) * flops_per_pass
    progress.recent_losses.append(step.loss)
    for name, loss in step.parts.items():
        progress.recent_parts.setdefault(name, []).append(loss)
    progress.last_step = {"lr": lr, "grad_norm": step.grad_norm} | state.watch.columns([])


def examine(
    run: Run, state: TrainState, setup: Setup, progress: Progress, write: Callable[[], list], events: Events,
    stop: Stop, timer: Timer,
) -> Results:
    """Evaluate and sample if that is due. A stop may cut it short. Raises Diverged if the weights have gone bad."""
    results, progress.val_loss, progress.seconds = Results(), None, timer.seconds()
    if events.evaluation or events.samples:
        state.optimizer.eval()
        with stop.look():
            if events.evaluation:
                results = evaluate_all(state, setup, events)
            if events.samples and results.is_finite:
                results.samples = write()
    if not results.is_finite:
        last = setup.batches[setup.schedule.passes(progress.step - 1)[-1]].to(state.device)
        raise Diverged(run, progress.step, f"validation loss {results.evaluation.loss:g}", state.first_bad_module(last))
    progress.val_loss, progress.seconds = results.val_loss, timer.seconds()
    return results


def evaluate_all(state: TrainState, setup: Setup, events: Events) -> Results:
    """The weights, and their moving average if there is one, on the validation part; all of it after the last step."""
    def measure(objective, max_tokens: int | None) -> Evaluation:
        return setup.evaluate(objective, max_tokens)

    some = events.eval_tokens
    with state.precision:
        evaluation, whole = measure(state.objective, some), events.last and some is not None
        return Results(val_loss=evaluation.loss, evaluation=measure(state.objective, None) if whole else evaluation,
                       averaged=state.averaged and measure(state.averaged, None if events.last else some))


class Diverged(Exception):
    """The loss or the gradient is not finite any more; the last checkpoint is kept."""

    def __init__(self, run: Run, step: int, found: str, where: str):
        saved = run.checkpoints()
        kept = f"the last good checkpoint is {saved[-1].path}" if saved else "there was no checkpoint yet"
        super().__init__(f"step {step}: {found}; {where}; {kept}; a lower --train.lr often helps")


def terminated(*_) -> None:
    """SIGTERM before there is anything to save."""
    raise Terminated


class Terminated(KeyboardInterrupt):
    """SIGTERM; like Ctrl-C, it is not an error."""


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
