"""The staircase: its picture, its table, and a page with each rung's words, flags, trace and sample.

    experiments/results/<name>/
        staircase.png  report.md  table.csv     logs/: what each run said
"""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.rungs.definitions import trace_diff
from experiments.rungs.staircase import RungResult, floor, last, table
from model import Model
from run_store.atomic_files import write_bytes, write_text
from runs import Run

COLOURS = {True: "#2a9d5c", False: "#d1495b", None: "#8a8f98"}  # of a rung, by whether it helps; None = not to be told
MEANINGS = {True: "helps", False: "hurts", None: "not to be told from chance"}
INK = "#22313f"
SAMPLE_LENGTH = 220  # characters shown
ONE_SEED = "One seed does not tell a small difference from chance: --seeds 3 does."


def draw_staircase(steps: Sequence[RungResult]) -> Figure:
    """Bits per byte of each rung, its seeds as dots; each riser with its height, in colour where that is sure."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    means = [step.mean.mean for step in steps]
    for place, step in enumerate(steps):
        axes.hlines(means[place], place - 0.5, place + 0.5, color=INK, linewidth=2.5)
        if len(step.values) > 1:
            axes.fill_between([place - 0.5, place + 0.5], step.mean.low, step.mean.high, color=INK, alpha=0.15, lw=0)
        axes.plot([place] * len(step.values), step.values, "o", color=INK, markersize=4, zorder=3)
        if step.change is not None:
            draw_riser(axes, place, means[place - 1], step)
    if entropy := floor(steps):
        axes.axhline(entropy, color="black", linestyle="--", linewidth=1)
        axes.annotate(f"entropy of the text, {entropy:.3f}", (-0.45, entropy), (0, 4), textcoords="offset points")
    labels = [f"{step.rung.number}\n{step.rung.title.split(',')[0].replace(' ', chr(10))}" for step in steps]
    axes.set_xticks(range(len(steps)), labels, fontsize=9)
    axes.set(ylabel="bits per byte, text held out", xlim=(-0.5, len(steps) - 0.5))
    axes.set_ylim(0, 1.15 * max(means))
    axes.set_title(f"{steps[0].runs[0].data['name']}, {tokens_of(steps):,.0f} tokens for each rung", fontsize=11)
    shown = {step.helps for step in steps[1:]}
    axes.legend([Line2D([], [], color=COLOURS[helps], linewidth=4) for helps in MEANINGS if helps in shown],
                [words for helps, words in MEANINGS.items() if helps in shown], frameon=False, loc="upper right")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_riser(axes: Axes, place: int, below: float, step: RungResult) -> None:
    """The way from one rung to the next, with how far it is."""
    mean, colour = step.mean.mean, COLOURS[step.helps]
    axes.vlines(place - 0.5, below, mean, color=colour, linewidth=4)
    top = max(below, mean)
    axes.annotate(f"{step.change.mean:+.2f}".replace("-", "\N{MINUS SIGN}"), (place - 0.5, top), (0, 6), ha="center",
                  textcoords="offset points", color=colour, fontsize=9, fontweight="bold")


def tokens_of(steps: Sequence[RungResult]) -> float:
    return last(steps[0].runs[0], "tokens")


def sample_of(run: Run) -> str:
    """The start of what a run wrote at its end."""
    text = run.samples()[-1]["text"]
    return text if len(text) <= SAMPLE_LENGTH else text[:SAMPLE_LENGTH].rstrip() + " ..."


def outcome(run: Run) -> str:
    """What a run has come to: its size, its loss, what that took, and a sample."""
    return (f"{Model(run.config.model).num_parameters():,} parameters, {last(run, 'bits_per_byte'):.3f} bits per byte "
            f"after {last(run, 'tokens'):,.0f} tokens and {last(run, 'seconds'):.1f} s\n\n{sample_of(run)}")


def flags_of(step: RungResult) -> str:
    """What its preset changes, as flags."""
    changed = (f"`{flag}` {spell(before)} → {spell(after)}" for flag, (before, after) in step.rung.changes().items())
    return ", ".join(changed) or "—"


def spell(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def markdown_table(steps: Sequence[RungResult]) -> str:
    """The table of the page and of the README."""
    lines = ["| | rung | what changes | parameters | bits per byte | against the one before | seconds |",
             "|---|---|---|---|---|---|---|"]
    for step in steps:
        mean, change = step.mean, step.change
        spread = f" ± {mean.high - mean.mean:.3f}" if mean.count > 1 else ""
        against = "" if change is None else f"{change.mean:+.3f}"
        if change is not None and mean.count > 1:
            against += f" ({change.low:+.3f} to {change.high:+.3f}), {MEANINGS[step.helps]}"
        lines.append(f"| {step.rung.number} | {step.rung.title} | {flags_of(step)} | {step.parameters:,} | "
                     f"{mean.mean:.3f}{spread} | {against} | {step.seconds:,.0f} |")
    return "\n".join(lines)


def describe(step: RungResult) -> str:
    """A rung's part of the page: words, flags, verdict, trace, sample."""
    traced = f"\n\nIts trace beside that of rung {step.rung.number - 1}:\n\n```\n{trace_diff(step.rung)}\n```" \
        if step.rung.number > 1 else ""
    return (f"## {step.rung.number} · {step.rung.title}\n\n{step.rung.words}\n\nFlags: {flags_of(step)}\n\n"
            f"{step.parameters:,} parameters, {step.mean.mean:.4f} bits per byte. {step.verdict()}{traced}\n\n"
            f"It writes:\n\n```\n{sample_of(step.runs[0])}\n```")


def page(steps: Sequence[RungResult]) -> str:
    """The whole report in Markdown."""
    entropy, seeds = floor(steps), {len(step.runs) for step in steps}
    least = f" The entropy of the text is {entropy:.3f}: no model gets below it." if entropy else ""
    noise = (f"± and intervals are 95 % over {min(seeds)} seeds or more; differences are Welch's test, corrected for "
             "their number (Holm)." if min(seeds) > 1 else ONE_SEED)
    head = (f"# The ladder\n\nEach rung is the one before it and one change more. All have learned from "
            f"{tokens_of(steps):,.0f} tokens of {steps[0].runs[0].data['name']}, and are measured on text that was "
            f"held out.{least} {noise}\n\n![the staircase](staircase.png)\n\n{markdown_table(steps)}")
    return "\n\n".join([head, *map(describe, steps)]) + "\n"


def write_report(steps: Sequence[RungResult], folder: Path) -> list[Path]:
    """Write the picture, the page and the numbers; their files."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, files = io.BytesIO(), [folder / name for name in ("staircase.png", "report.md", "table.csv")]
    draw_staircase(steps).savefig(picture, dpi=100)
    write_bytes(files[0], picture.getvalue())
    write_text(files[1], page(steps))
    write_text(files[2], table(steps).to_csv())
    return files
