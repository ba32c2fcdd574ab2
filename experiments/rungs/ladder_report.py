"""The report on the ladder.

    experiments/results/<name>/
        staircase.png  the loss of each rung     report.md  a section for each: words, flags, trace, sample
        table.csv      the figures               logs/      the output of each run
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from config import ModelConfig, replace
from configuration.command_line import spell_value
from experiments.common.axes import label
from experiments.common.figures import num_parameters
from experiments.common.reports import Markdown, csv_text, fenced, markdown_table, plain, write_picture
from experiments.rungs.definitions import RUNGS, Rung
from experiments.rungs.staircase import RungResult, floor, last, table
from model import Model
from presets import load_preset
from run_store.atomic_files import write_text
from runs import Run
from tools import Trace, seed_everything, trace

COLOURS = {True: "#2a9d5c", False: "#d1495b", None: "#8a8f98"}  # by whether a rung helps; None = may be chance
MEANINGS = {True: "helps", False: "hurts", None: "not to be told from chance"}
INK = "#22313f"
SAMPLE_LENGTH = 220  # characters shown
ONE_SEED = "One seed does not tell a small difference from chance: --seeds 3 does."


def write_report(results: Sequence[RungResult], folder: Path) -> list[Path]:
    """Write the picture, the page and the table, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, text, numbers = (folder / name for name in ("staircase.png", "report.md", "table.csv"))
    write_picture(picture, draw_staircase(results), dpi=100)
    write_text(text, page(results))
    write_text(numbers, csv_text(table(results)))
    return [picture, text, numbers]


# ---- the picture ----


def draw_staircase(results: Sequence[RungResult]) -> Figure:
    """Bits per byte of each rung with its seeds as dots; risers are coloured by verdict."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    means = [one.mean.mean for one in results]
    for place, one in enumerate(results):
        axes.hlines(means[place], place - 0.5, place + 0.5, color=INK, linewidth=2.5)
        if len(one.values) > 1:
            axes.fill_between([place - 0.5, place + 0.5], one.mean.low, one.mean.high, color=INK, alpha=0.15, lw=0)
        axes.plot([place] * len(one.values), one.values, "o", color=INK, markersize=4, zorder=3)
        if one.change is not None:
            _draw_riser(axes, place, means[place - 1], one)
    if entropy := floor(results):
        axes.axhline(entropy, color="black", linestyle="--", linewidth=1)
        axes.annotate(f"entropy of the text, {entropy:.3f}", (-0.45, entropy), (0, 4), textcoords="offset points")
    axes.set_ylim(0, 1.15 * max(means))
    _label(axes, results)
    return figure


def _draw_riser(axes: Axes, place: int, below: float, one: RungResult) -> None:
    """The difference to the rung below, as a line with its length."""
    mean, colour = one.mean.mean, COLOURS[one.helps]
    axes.vlines(place - 0.5, below, mean, color=colour, linewidth=4)
    axes.annotate(f"{one.change.mean:+.2f}".replace("-", "\N{MINUS SIGN}"), (place - 0.5, max(below, mean)), (0, 6),
                  ha="center", textcoords="offset points", color=colour, fontsize=9, fontweight="bold")


def _label(axes: Axes, results: Sequence[RungResult]) -> None:
    """Title, ticks, legend."""
    labels = [f"{one.rung.number}\n{one.rung.title.split(',')[0].replace(' ', chr(10))}" for one in results]
    axes.set_xticks(range(len(results)), labels, fontsize=9)
    axes.set(ylabel="bits per byte, text held out", xlim=(-0.5, len(results) - 0.5))
    text = label(results[0].runs[0].data["name"])
    axes.set_title(f"{text}, {tokens_of(results):,.0f} tokens for each rung", fontsize=11)
    shown = {one.helps for one in results[1:]}
    axes.legend([Line2D([], [], color=COLOURS[helps], linewidth=4) for helps in MEANINGS if helps in shown],
                [words for helps, words in MEANINGS.items() if helps in shown], frameon=False, loc="upper right")
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


# ---- the page ----


def page(results: Sequence[RungResult]) -> str:
    """The whole report in Markdown."""
    entropy, seeds = floor(results), min(len(one.runs) for one in results)
    least = f" The entropy of the text is {entropy:.3f}: no model gets below it." if entropy else ""
    noise = (f"± and intervals are 95 % over {seeds} seeds or more; differences are Welch's test, corrected for "
             "their number (Holm)." if seeds > 1 else ONE_SEED)
    head = (f"# The ladder\n\nEach rung is the one before it and one change more. All have learned from "
            f"{tokens_of(results):,.0f} tokens of {plain(results[0].runs[0].data['name'])}, and are measured on text "
            f"that was held out.{least} {noise}\n\n![the staircase](staircase.png)\n\n{rung_table(results)}")
    return "\n\n".join([head, *map(section, results)]) + "\n"


def rung_table(results: Sequence[RungResult]) -> str:
    """The table of the page and of the README."""
    rows = []
    for one in results:
        mean, change = one.mean, one.change
        spread = f" ± {mean.high - mean.mean:.3f}" if mean.count > 1 else ""
        against = "" if change is None else f"{change.mean:+.3f}"
        if change is not None and mean.count > 1:
            against += f" ({change.low:+.3f} to {change.high:+.3f}), {MEANINGS[one.helps]}"
        rows.append({"": one.rung.number, "rung": one.rung.title, "what changes": Markdown(flags_of(one)),
                     "parameters": f"{one.parameters:,}", "bits per byte": f"{mean.mean:.3f}{spread}",
                     "against the one before": against, "seconds": f"{one.seconds:,.0f}"})
    return markdown_table(rows)


def section(one: RungResult) -> str:
    """A rung's part of the page: words, flags, verdict, trace, sample."""
    traced = f"\n\nIts trace beside that of rung {one.rung.number - 1}:\n\n{fenced(trace_diff(one.rung))}" \
        if one.rung.number > 1 else ""
    return (f"## {one.rung.number} · {one.rung.title}\n\n{one.rung.words}\n\nFlags: {flags_of(one)}\n\n"
            f"{one.parameters:,} parameters, {one.mean.mean:.4f} bits per byte. {one.verdict()}{traced}\n\n"
            f"It writes:\n\n{fenced(sample_of(one.runs[0]))}")


def flags_of(one: RungResult) -> str:
    """The flags that its preset changes."""
    changed = (f"`{flag}` {spell_value(before)} → {spell_value(after)}"
               for flag, (before, after) in one.rung.changes().items())
    return ", ".join(changed) or "—"


def tokens_of(results: Sequence[RungResult]) -> float:
    return last(results[0].runs[0], "tokens")


def sample_of(run: Run) -> str:
    """The start of its last sample."""
    text = run.samples()[-1]["text"]
    return text if len(text) <= SAMPLE_LENGTH else text[:SAMPLE_LENGTH].rstrip() + " ..."


def describe(run: Run) -> str:
    """The size of a run, its loss, its cost, and a sample."""
    return (f"{num_parameters(run.config.model):,} parameters, {last(run, 'bits_per_byte'):.3f} bits per byte "
            f"after {last(run, 'tokens'):,.0f} tokens and {last(run, 'seconds'):.1f} s\n\n{sample_of(run)}")


# ---- traces ----


def trace_rung(cfg: ModelConfig, *, vocab_size: int = 63) -> Trace:
    """The shapes of a training forward on 2 rows of 8 tokens."""
    seed_everything(0)
    model = Model(replace(cfg, vocab_size=vocab_size))
    tokens = torch.randint(vocab_size, (2, 8))  # (b, t)
    with torch.no_grad(), trace(model, stats="none") as t:
        model(tokens)
    return t


def trace_diff(rung: Rung) -> str:
    """What differs in shape from the trace of the rung below."""
    below, here = (trace_rung(load_preset(RUNGS[place].preset).model) for place in (rung.number - 2, rung.number - 1))
    return below.diff(here).partition(";")[0]  # traces without statistics say what else they do not compare
