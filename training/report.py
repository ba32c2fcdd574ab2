"""What a training run prints and writes: announcement, progress bar, log lines, samples, graded stories, loss curve."""

import contextlib
import io
import json
import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

import tales
from config import Config, SampleConfig, replace
from configuration import BUSY, load_per_processor
from configuration.command_line import print_line, printable, warn
from corpora.shards import JoinedTokenFile, TokenFile
from inference import OPENINGS, continue_prompts, prompts_or_opening
from model import Model, spell_parameters
from objective import Objective
from optimizing.schedules import schedule_warnings
from run_store.atomic_files import write_bytes, write_text
from run_store.checkpoint import Progress
from run_store.listing import shown
from runs import Run
from tokenizer import Tokenizer
from training.evaluation import Evaluation
from training.events import Results, Timer
from training.pairs import grade_pairs, validation_pairs
from training.setup import Setup
from training.step import TrainState
from training.trackers import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def opening_prompts(
    cfg: Config, tokenizer: Tokenizer, val_part: TokenFile | JoinedTokenFile | None = None,
) -> list[str]:
    """The prompts of samples; of pairs without any, a source of the validation part.

    Raises ValueError if one cannot be encoded, so that this shows before training.
    """
    if cfg.data.is_pairs and not cfg.sample.prompts:
        prompts = [tokenizer.decode(source) for source, _ in validation_pairs(val_part, 1)]
    else:
        prompts = prompts_or_opening(cfg.sample, cfg.data.name)
    try:
        tokenizer.encode_batch(list(prompts))
    except ValueError as error:
        raise ValueError(f"sample.prompts: {error}") from None
    return [prompt for prompt in prompts for _ in range(cfg.sample.num_samples)]


def write_samples(
    model: Objective | Model, tokenizer: Tokenizer, prompts: list[str], cfg: SampleConfig, *, are_sources: bool = False,
) -> list[dict[str, str]]:
    """Continue each prompt; a target stands on a line below its source. Training is not affected."""
    new = continue_prompts(model, tokenizer, replace(cfg, prompts=tuple(prompts), num_samples=1),
                           are_sources=are_sources)
    between = "\n" if are_sources else ""
    return [{"prompt": prompt, "text": prompt + between + text} for prompt, text in zip(prompts, new, strict=True)]


def announce(console: Console, run: Run, model: Model, setup: Setup, progress: Progress) -> None:
    """Print what is trained, on how much text and on which device; warn of flags that are probably a mistake."""
    schedule, batches, device = setup.schedule, setup.batches, setup.device
    steps = schedule.cfg.steps
    sizes = sorted({len(schedule.passes(number)) * schedule.pass_tokens for number in (0, steps - 1)})
    spelled = " to ".join(f"{size:,}" for size in sizes)
    epochs = schedule.passes_before(steps) * schedule.cfg.batch_size / batches.rows_per_epoch
    passes = f"{epochs:.2g} passes over {batches.num_tokens:,}" if epochs else "new rows at every step"
    threads = torch.get_num_threads()
    place = f"cpu, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type
    console.print(f"[bold]{escape(printable(run.name))}[/]: {spell_parameters(model)}, {steps:,} steps of "
                  f"{spelled} tokens ({passes}), "
                  f"{place}, in {escape(printable(str(shown(run.path))))}", highlight=False, soft_wrap=True)
    if progress.step:
        console.print(f"going on after step {progress.step:,}", highlight=False)
    if schedule.cfg.deterministic and device.type != "cpu":
        print_line(console, "note: train.deterministic repeats the bits on this model of GPU with this driver and "
                            "torch only, and they are not those of a CPU")
    print_line(console, busy_machine())
    for sentence in schedule_warnings(schedule):
        warn(sentence)


def busy_machine() -> str | None:
    """A sentence if other programs need the processors, which makes training slow; None = they do not, or unknown."""
    if (load := load_per_processor()) < BUSY:
        return None
    return f"the machine is busy: {load:.1f} programs for each of its processors, so training takes longer"


@contextlib.contextmanager
def progress_bar(console: Console, cfg: Config, progress: Progress) -> Iterator:
    """Give a function that shows a step's loss and speed on a progress bar, if the console is a terminal."""
    columns = (MofNCompleteColumn(), BarColumn(None), TextColumn("loss {task.fields[loss]}"),
               TextColumn("{task.fields[speed]} tokens/s"), TimeRemainingColumn(compact=True))
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=cfg.train.steps, completed=progress.step, loss="-", speed="-")
        yield lambda loss, speed: bar.update(task, completed=progress.step, loss=f"{loss:.3f}",
                                             speed="-" if speed is None else f"{speed:,.0f}")


def print_evaluation(console: Console, run: Run, progress: Progress, evaluation: Evaluation) -> None:
    facts = run.config.facts
    floor = None if facts.of else run.data["floor_bits_per_byte"]
    error, sign = evaluation.bits_per_byte_error, facts.sign
    within = "" if error is None else f" ± {error:.4f}"
    above = f" ({evaluation.bits_per_byte / floor:.2f} x the floor {floor:.3f})" if floor else ""
    console.print(f"step {progress.step:6,}  {progress.seconds:5.0f} s  val loss {evaluation.loss:.4f}  "
                  f"bits/byte {sign}{evaluation.bits_per_byte:.4f}{within}{above}  accuracy {evaluation.accuracy:.1%}",
                  highlight=False, soft_wrap=True)


def write_line(progress: Progress, state: TrainState, results: Results, timer: Timer) -> dict[str, Any]:
    """Make the line of log.csv for the steps since the last line, and begin the next one."""
    line = log_line(progress, results.evaluation, timer.tokens_per_second())
    line |= state.watch.columns(progress.recent_noise)
    line |= results.others
    line |= {"ema_val_loss": results.averaged and results.averaged.loss} if state.average else {}
    for recent in (progress.recent_losses, progress.recent_parts, progress.recent_noise):
        recent.clear()
    timer.begin_line()
    return line


def log_line(progress: Progress, evaluation: Evaluation | None, speed: float | None) -> dict[str, Any]:
    """The columns: the progress of the run, its mean losses since the last line, and an evaluation if there is one."""
    line = {"step": progress.step, "tokens": progress.tokens, "seconds": round(progress.seconds, 3),
            "flops": progress.flops, "train_loss": sum(progress.recent_losses) / len(progress.recent_losses),
            **progress.last_step}
    line |= {name: sum(losses) / len(losses) for name, losses in progress.recent_parts.items()}
    if speed is not None:
        line["tokens_per_second"] = round(speed, 1)
    if evaluation:
        line |= {"val_loss": evaluation.loss, "bits_per_byte": evaluation.bits_per_byte,
                 "bits_per_byte_error": evaluation.bits_per_byte_error,
                 "perplexity": math.exp(min(evaluation.loss, 700)), "accuracy": evaluation.accuracy}
    return line


def finish(
    console: Console, run: Run, model: Model, tokenizer: Tokenizer, prompts: list[str],
    trackers: Sequence[Tracker] = (), val_part: TokenFile | JoinedTokenFile | None = None,
) -> None:
    """Print the last samples and the grades of stories or targets, and draw the loss curve."""
    for sample in run.samples()[-len(prompts):]:
        console.print(printable(f"\n{sample['text']}"), markup=False, highlight=False)
    if count := run.config.num_graded:
        said = (said_of_pairs(run, model, tokenizer, val_part) if run.config.data.is_pairs
                else grade_stories(run, model, tokenizer, count))
        console.print(printable(f"\n{said}"), markup=False, highlight=False)
    plot_loss([run], run.path / "loss.png")
    for tracker in trackers:
        tracker.picture(run.config.train.steps, run.path / "loss.png")
    print_line(console, f"\nloss curve: {shown(run.path / 'loss.png')}")
    print_line(console, f"write more: python inference.py {run.name} {shlex.quote(prompts[0])}")


def grade_stories(run: Run, model: Objective | Model, tokenizer: Tokenizer, count: int) -> str:
    """Sample stories from their first word at temperature 0.8; say how many are grammatical and consistent.

    grades.json gets every story, its grade and the place of its first mistake.
    """
    own = run.config.sample
    cfg = SampleConfig(max_new_tokens=2 * run.config.model.max_seq_len, temperature=0.8, denoise=own.denoise,
                       vectors=own.vectors)
    return grade_texts(run, [s["text"] for s in write_samples(model, tokenizer, [OPENINGS["tales"]] * count, cfg)])


def said_of_pairs(
    run: Run, model: Objective | Model, tokenizer: Tokenizer, val_part: TokenFile | JoinedTokenFile,
) -> str:
    """Grade the targets written after validation sources; those of tales-opening also as stories."""
    said, texts = grade_pairs(run, model, tokenizer, val_part)
    data = run.config.data
    return said if (data.val_name or data.name) != ("tales-opening",) else f"{said}\n{grade_texts(run, texts)}"


def grade_texts(run: Run, texts: list[str]) -> str:
    """Grade stories, write grades.json, and say how many are grammatical and consistent."""
    count, grades = len(texts), [tales.grade(text) for text in texts]
    lines = [asdict(grade) | {"text": text} for grade, text in zip(grades, texts, strict=True)]
    write_text(run.path / "grades.json", json.dumps(lines, indent=1) + "\n")
    broken = [(grade, text) for grade, text in zip(grades, texts, strict=True) if not grade.passed]
    summary = f"{count - len(broken)} of {count} stories are grammatical and consistent"
    if not broken:
        return summary
    kinds = ", ".join(f"{kind} {number}" for kind, number in Counter(g.kind for g, _ in broken).most_common())
    middle = sorted(g.position / max(1, len(text)) for g, text in broken)[len(broken) // 2]
    examples = "\n".join(f"  {g.message}" for g, _ in broken[:3])
    return f"{summary}; the others break ({kinds}), half of them in the first {middle:.0%}, for example:\n{examples}"


def draw_loss(runs: list[Run]) -> "Figure":
    """Draw validation and training loss in bits per byte against tokens, with the entropy of the text if known."""
    from matplotlib.figure import Figure  # takes 0.4 s, which the first step would wait for

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        tokens, seen, _ = np.reshape(run.points("tokens", "bits_per_byte", "val_loss"), (-1, 3)).T
        meaning = run.config.facts.meaning
        name = f"{run.name}, validation" + f", {meaning}" * bool(meaning)
        (line,) = axes.plot(tokens, seen, "o-", markersize=3, label=name)
        if run.config.facts.trains_as_evaluated:
            tokens, losses = np.reshape(run.points("tokens", "train_loss"), (-1, 2)).T
            bits = losses * run.data["val_tokens_per_byte"] / math.log(2)
            axes.plot(tokens, bits, color=line.get_color(), alpha=0.35, label=f"{run.name}, training")
    floors = {run.data["floor_bits_per_byte"] for run in runs} - {None}
    for floor in floors:
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label=f"entropy of the text, {floor:.3f}")
    axes.set(xlabel="tokens", ylabel="bits per byte", yscale="log")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    return figure


def plot_loss(runs: list[Run], path: Path) -> None:
    """Write the figure of `draw_loss` as a PNG, atomically."""
    picture = io.BytesIO()
    draw_loss(runs).savefig(picture, dpi=130)
    write_bytes(path, picture.getvalue())
