"""Train a model: `python train.py [preset] [--section.flag value ...]`, with `--seeds N` N times, or `--resume RUN`.

A run is a folder in models/; see runs.py for what is in it.
"""

if __name__ == "__main__":  # before the imports: help and mistakes need no torch, whose import takes seconds
    import sys

    from configuration import garbage, heap, startup  # noqa: F401, before all that needs a package

    heap.restart()
    garbage.wait()
    from training.command import parse

    command = parse(sys.argv[1:])

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from rich.console import Console

import runs
from config import Config, override
from configuration.command_line import complain, fail, is_first_process, print_line
from data import Batch, prefetched
from memory_prediction.budget import EXIT_OUT_OF_MEMORY, Budget, OutOfMemory
from memory_prediction.process import choose_allocator
from run_store.checkpoint import Progress
from runs import NameTaken, Run, free_name, require_free, require_locks, saved_runs
from tools import deterministic, pick_device
from training import report
from training.command import TRANSFER, parse, what_was_taken
from training.events import Events, Results, Timer
from training.flops import flops_per_token
from training.group import Group, PeerLost, exit_at_once, joined, size_of_group, stepping
from training.saving import Diverged, Interrupted, Saver, load_newest, require_changeable
from training.seeds import train_seeds
from training.setup import Setup, prepare_run
from training.step import NotFinite, TrainState, Useless
from training.stopping import EXIT_STATUS, Stop, follow_parent, process_seconds
from training.trackers import Tracker, opened, require_packages


@dataclass(frozen=True)
class Session:
    """One session of training a run: from its start, or a resume, until it ends or is stopped."""

    run: Run
    setup: Setup
    state: TrainState
    progress: Progress
    stop: Stop
    timer: Timer
    prompts: list[str]
    flops_per_pass: float

    def passes_left(self) -> range:
        """The numbers of the forward passes that are still to be taken."""
        schedule, steps = self.setup.schedule, self.setup.cfg.train.steps
        return range(schedule.passes_before(self.progress.step), schedule.passes_before(steps))


def train(
    cfg: Config, *, run: Run | None = None, console: Console | None = None, spent_seconds: float = 0.0,
    force: bool = False,
) -> Run:
    """Train as `cfg` says, or continue `run` from its newest checkpoint; return the saved run.

    The same configuration gives the same weights and log, interrupted or not: bit for bit on a CPU. If
    train.time_limit ends training, the run comes back unfinished; `spent_seconds` of the limit are already used.
    Raises ValueError for what the user can fix, such as a run that does not fit into memory, unless `force`; Diverged
    if the loss or a weight is no longer finite; OutOfMemory; and Interrupted after SIGINT or SIGTERM, once a checkpoint
    is written.
    """
    require_locks()
    require_packages(cfg.train.trackers)
    device = pick_device(cfg.train.device)
    if device.type == "cpu":
        choose_allocator("fast")
    with joined(device) as group:
        quiet = None if group.is_first else Console(quiet=True)
        return train_in(group, cfg, device, run=run, console=quiet or console or Console(), force=force,
                        stop=Stop(cfg.train.time_limit_seconds, spent=spent_seconds, group=group))


def train_in(
    group: Group, cfg: Config, device: torch.device, *, run: Run | None, console: Console, stop: Stop, force: bool,
) -> Run:
    """`train`, as one process of a group; the first one alone writes."""
    is_first, name = group.is_first, group.firsts(cfg.train.name or free_name("default"))
    if run is None and is_first:
        require_free(name)  # before the text is encoded, which can take long
    setup = prepare_run(cfg, device, run=run, console=console, group=group)
    if run is not None:
        require_changeable(run, setup.cfg)
    prompts = report.opening_prompts(setup.cfg, setup.tokenizer, setup.val_part)
    budget = Budget.of(setup.cfg, device, force=force, processes=group.size, on_this_machine=group.on_this_machine)
    state = setup.make_state(console, resumed=run is not None and bool(run.checkpoints()))
    cfg = setup.cfg
    flops_per_pass = flops_per_token(cfg) * setup.schedule.pass_tokens
    if run is None and is_first:
        run = Run.create(name, cfg, setup.tokenizer, setup.describe_data())
    group.wait()
    run = run or Run(name)
    with (run.locked() if is_first else contextlib.nullcontext(), stop.listening(),
          deterministic(cfg.train.deterministic), stepping(group),
          budget.enforced_on(run.path if is_first else None) if budget else contextlib.nullcontext()):
        progress = load_newest(run, cfg, state)
        if group.firsts(run.is_finished):
            print_line(console, f"{run.name} is finished: all {cfg.train.steps:,} steps are taken")
            return run
        saver = Saver(run, state, progress, stop, copies=budget is not None and budget.copies_checkpoints)
        session = Session(run, setup, state, progress, stop, Timer(progress), prompts, flops_per_pass)
        if cfg.train.init_from and not run.checkpoints():
            saver.save()  # from here on the run that the weights come from may be deleted
        report.announce(console, run, state.model, setup, progress)
        print_line(console, budget and budget.announcement())
        take_steps(session, saver, console)
        print_line(console, budget and budget.result())
    return run


def take_steps(session: Session, saver: Saver, console: Console) -> None:
    """Take all steps that are left, with what is due after each, and show and note at the end what has come of it."""
    run, setup, state, progress = session.run, session.setup, session.state, session.progress
    cfg, group = setup.cfg, setup.group
    with (report.progress_bar(console, cfg, progress) as show, opened(run, progress.logged_steps, group) as trackers,
          prefetched(setup.batches, session.passes_left(), depth=cfg.data.prefetch, pin=state.device.type == "cuda")
          as batches, saver.saving_when_stopped(console)):
        while progress.logged_steps < cfg.train.steps:
            take_step(session, batches)
            events = Events(progress.step, cfg.train)
            results = examine(session, events)
            show(progress.recent_losses[-1], session.timer.tokens_per_second())
            record(session, events, results, trackers, console)
            saver.save_if_due(events)
        state.optimizer.eval()
        with saver.reporting(), state.whole() as whole:
            if group.is_first:
                report.finish(console, run, whole.objective, setup.tokenizer, session.prompts, trackers,
                              setup.val_part)
        group.wait()


def take_step(session: Session, coming: Iterator[Batch]) -> None:
    """Take the next step on the coming batches and note it in the progress. Raises Diverged or Stopped.

    Does nothing if the last step has no line in the log yet: training was stopped between the two.
    """
    state, setup, progress = session.state, session.setup, session.progress
    if progress.step > progress.logged_steps:
        return
    session.stop.before_step()
    with session.timer.step(session.stop):
        lr, passes = setup.schedule.rate(progress.step), setup.schedule.passes(progress.step)
        batches = [batch.to(state.device) for batch in islice(coming, len(passes))]
        setup.group.seed(setup.cfg.train.seed, progress.step)
        try:
            step = state.step(batches, number=progress.step + 1, lr=lr, noise=progress.recent_noise)
        except NotFinite as error:
            where = state.first_bad_module(error.batch)
            raise Diverged(session.run, progress.step + 1, str(error), where) from None
        except Useless as error:
            raise Diverged(session.run, progress.step + 1, str(error)) from None
        progress.step += 1
        progress.tokens += step.num_targets
        progress.flops += len(passes) * session.flops_per_pass
        progress.recent_losses.append(step.loss)
        for name, loss in step.parts.items():
            progress.recent_parts.setdefault(name, []).append(loss)
        progress.last_step = {"lr": lr, "grad_norm": step.grad_norm} | state.watch.columns([]) | step.loads


def examine(session: Session, events: Events) -> Results:
    """Evaluate and sample if that is due. Raises Diverged if the weights have gone bad, and Stopped at any moment."""
    run, setup, state, progress = session.run, session.setup, session.state, session.progress
    results = Results(others=dict.fromkeys(setup.other_columns(state.objective)))
    progress.val_loss, progress.seconds = None, session.timer.seconds()
    if events.evaluation or events.samples:
        state.optimizer.eval()
        with session.stop.interruptible():
            if events.evaluation:
                results = evaluate_all(state, setup, events)
            if events.samples and results.is_finite:
                results.samples = write_samples(session)
    if not results.is_finite:
        last = setup.batches[setup.schedule.passes(progress.step - 1)[-1]].to(state.device)
        raise Diverged(run, progress.step, f"validation loss {results.evaluation.loss:g}", state.first_bad_module(last))
    progress.val_loss, progress.seconds = results.val_loss, session.timer.seconds()
    return results


def write_samples(session: Session) -> list[dict[str, str]]:
    """The first process continues the prompts, with whole weights; the others have no samples."""
    setup = session.setup
    with session.state.whole() as whole:
        return report.write_samples(whole.objective, setup.tokenizer, session.prompts, setup.cfg.sample,
                                    are_sources=setup.cfg.data.is_pairs) if setup.group.is_first else []


def evaluate_all(state: TrainState, setup: Setup, events: Events) -> Results:
    """Evaluate the weights, and their moving average if there is one, on the validation part.

    On at most train.eval_tokens of it, and after the last step on more, see train.final_eval_share.
    """
    some = events.eval_tokens
    most = setup.final_eval_tokens if events.last else some
    with state.precision:
        evaluation = setup.evaluate(state.objective, some)
        return Results(
            val_loss=evaluation.loss, evaluation=evaluation if most == some else setup.evaluate(state.objective, most),
            averaged=state.averaged and setup.evaluate(state.averaged, most),
            others=setup.evaluate_others(state.objective, some))


def record(
    session: Session, events: Events, results: Results, trackers: Sequence[Tracker], console: Console,
) -> None:
    """Write the step's line of the log, if one is due, and its samples; print its evaluation."""
    progress = session.progress
    line = report.write_line(progress, session.state, results, session.timer) if events.line else {}
    for tracker in trackers:
        tracker.record(progress.step, line, results.samples)
    progress.logged_steps = progress.step
    if results.evaluation:
        report.print_evaluation(console, session.run, progress, results.evaluation)


class Terminated(KeyboardInterrupt):
    """SIGTERM before there is anything to save; like Ctrl-C, it is not an error."""


def terminate(*_) -> None:
    """Handle SIGTERM until training has begun."""
    raise Terminated


def train_as(name: str, cfg: Config, options: dict[str, Any]) -> bool:
    """Train a run of this name, or resume it; False if another process has just taken a name that nobody asked for."""
    try:
        if options["resume"] is not None:
            train(cfg, run=Run(name), spent_seconds=process_seconds(), force=options["force"])
        else:
            train(override(cfg, {"train.name": name}), spent_seconds=process_seconds(), force=options["force"])
    except NameTaken:
        if cfg.train.name or size_of_group() > 1:
            raise
        return False
    return True


@exit_at_once()
def main(command: tuple[Config, dict[str, Any]] | None = None) -> None:
    """Train the run of the command line, or of a command that is already parsed."""
    signal.signal(signal.SIGTERM, terminate)
    if size_of_group() > 1:
        follow_parent(signal.SIGTERM)  # torchrun, whose processes would go on without it
    cfg, options = command or parse(sys.argv[1:], runs.MODELS)
    stem = "-".join(filter(None, (options["preset"] or "default", options.get("scale"))))
    name = options["resume"] or cfg.train.name or free_name(stem)
    if options[TRANSFER] is not None and is_first_process():
        print_line(Console(), what_was_taken(options[TRANSFER], cfg, runs.MODELS))
    try:
        train_or_tell(name, stem, cfg, options)
    except KeyboardInterrupt as interrupt:  # it may also come while an error is told
        go_on = f"go on with: python train.py --resume {name}" if name in saved_runs() else "nothing was saved yet"
        complain(f"stopped at once; {go_on}")
        raise SystemExit(EXIT_STATUS["SIGTERM" if isinstance(interrupt, Terminated) else "SIGINT"]) from None


def train_or_tell(name: str, stem: str, cfg: Config, options: dict[str, Any]) -> None:
    """Train; what goes wrong is one sentence and an exit status."""
    try:
        if options["seeds"] and size_of_group() > 1:
            raise ValueError("--seeds trains one run after another, each in one process: leave out torchrun")
        if options["seeds"]:
            raise SystemExit(train_seeds(cfg, cfg.train.name or stem, options["seeds"], force=options["force"]))
        while not train_as(name, cfg, options):
            name = free_name(stem)
    except OSError as error:
        fail(f"{error.filename or 'the disk'} cannot be read or written: {error.strerror or error}")
    except ValueError as error:
        fail(error)
    except Diverged as error:
        complain(f"error: {error}")
        raise SystemExit(1) from None
    except (OutOfMemory, PeerLost) as error:
        go_on = f"; what was saved is kept: --resume {name}" if name in saved_runs() else ""
        complain(f"error: {error}{go_on}")
        raise SystemExit(EXIT_OUT_OF_MEMORY if isinstance(error, OutOfMemory) else 1) from None
    except Interrupted as error:
        complain(error)
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    garbage.begin()
    main(command)
