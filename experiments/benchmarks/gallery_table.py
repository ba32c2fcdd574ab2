"""The benchmark gallery: every preset at one scale, trained on the built-in stories, as a page of the manual."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from config import Config, diff, override
from configuration.command_line import spell_value
from experiments.benchmarks.benchmark_options import Gallery
from experiments.benchmarks.measuring import best_seconds, clock_of
from memory_prediction.process import choose_allocator
from presets import LADDER, PRESETS, at_scale, block_parameters, load_preset
from run_store.atomic_files import write_text
from run_store.listing import ROOT
from showing.gallery import cache_bytes, num_parameters
from tools import pick_device
from training.setup import Setup, prepare_run
from training.step import NotFinite

BASELINE = "gpt2"  # whose speed is 1
HEADINGS = ("preset", "parameters", "in blocks", "bits/byte", "x floor", "tokens/s, x gpt2", "cache a token, bytes",
            "windows and states, bytes")
TEXT = """# The gallery at {scale}

Every preset at `--scale {scale}`: about so many parameters in its blocks, in its own proportions, trained for {steps:,}
steps on the built-in stories, whose entropy is the floor: {floor:.3f} bits per byte. On {device}, torch {torch}:

```
python experiments/benchmark.py gallery{flags}
```

- One seed, {steps:,} steps, and one learning rate for all that AdamW trains: how each begins, and not which is best.
- Bits per byte are of {tokens:,} held-out tokens. Presets of characters read less text in as many steps.
- Speed is that of training steps without loading: the best of {rounds}, in turns with gpt2's in one process{clock}.
- The cache is that of generation in bfloat16: what each further token adds, and what does not grow, windows that are
  full and the states of recurrent mixers.
- Presets that are equal at this scale share a row.

"""


@dataclass(frozen=True)
class Row:
    """A preset, or several that are equal at this scale, and what was measured."""

    names: tuple[str, ...]
    cfg: Config  # settled
    bits_per_byte: float  # inf = it diverged
    floor: float
    speed: float  # tokens per second / gpt2's

    def cells(self) -> tuple[str, ...]:
        names = ", ".join(f"`{name}`" for name in self.names)
        counts = (f"{num_parameters(self.cfg)[0]:,}", f"{block_parameters(self.cfg.model):,}")
        bits = (f"{self.bits_per_byte:.3f}", f"{self.bits_per_byte / self.floor:.2f}")
        bits = bits if math.isfinite(self.bits_per_byte) else ("diverged", "")
        growth, windows = cache_bytes(self.cfg.model)
        return (names, *counts, *bits, f"{self.speed:.2f}", f"{growth:,}", f"{windows:,}" if windows else "")


def run(options: Gallery, console: Console) -> bool:
    """Measure each preset and write the page after each; whether none has diverged.

    Raises ValueError if some presets are named and the page's other rows were measured in another way.
    """
    device, path = pick_device(options.device), ROOT / options.page
    if device.type == "cpu":
        choose_allocator("fast")
    baseline = prepare_run(scaled(BASELINE, options), device)
    top = heading(options, device, baseline.describe_data()["floor_bits_per_byte"])
    lines, rows = rows_of(path, top) if options.presets and path.exists() else [], []
    console.print(*HEADINGS, sep="  ", highlight=False)
    for names in different(options):
        rows.append(measure(names, options, baseline))
        lines = [line for line in lines if not set(names) & set(names_in(line))] + [line_of(rows[-1].cells())]
        console.print(*rows[-1].cells(), sep="  ", highlight=False)
        write_text(path, page(top, lines))
    console.print(f"written to {path}")
    return all(math.isfinite(row.bits_per_byte) for row in rows)


def scaled(name: str, options: Gallery) -> Config:
    flags = {"data": {"name": "tales"}, "train": {"steps": options.steps, "tokens": None, "epochs": None}}
    return override(at_scale(load_preset(name), options.scale), flags)


def different(options: Gallery) -> list[tuple[str, ...]]:
    """The names of the presets; those that are equal at this scale together. None that reads a source is among them."""
    names = options.presets or [name for name in PRESETS if name not in LADDER
                                and load_preset(name).model.cross == "none"]
    found: dict[Config, list[str]] = {}
    for name in names:
        found.setdefault(scaled(name, options), []).append(name)
    return [tuple(equal) for equal in found.values()]


def measure(names: tuple[str, ...], options: Gallery, baseline: Setup) -> Row:
    """Train a preset, and time its steps beside the baseline's."""
    setup = prepare_run(scaled(names[0], options), baseline.device)
    ways = {"own": timed_step(setup), "baseline": timed_step(baseline)}
    clock = clock_of(baseline.device.type)
    best = best_seconds(ways, options.rounds + 2, clock)  # the first are a warm-up
    tokens = {"own": setup.schedule.tokens_before(1), "baseline": baseline.schedule.tokens_before(1)}
    speed = tokens["own"] / best["own"] * best["baseline"] / tokens["baseline"]
    return Row(names, setup.cfg, train(setup, options), setup.describe_data()["floor_bits_per_byte"], speed)


def timed_step(setup: Setup) -> partial:
    """A training step on the first batches, with weights of its own; it waits for its loss, on a GPU too."""
    batches = [setup.batches[number].to(setup.device) for number in setup.schedule.passes(0)]
    return partial(setup.make_state().step, batches, number=1, lr=1e-6, noise=[])


def train(setup: Setup, options: Gallery) -> float:
    """The bits per byte of the held-out text after training; inf if it diverges."""
    state, schedule = setup.make_state(), setup.schedule
    try:
        for step in range(setup.cfg.train.steps):
            taken = [setup.batches[number].to(setup.device) for number in schedule.passes(step)]
            state.step(taken, number=step + 1, lr=schedule.rate(step), noise=[])
    except NotFinite:
        return math.inf
    state.optimizer.eval()
    with state.precision:
        return setup.evaluate(state.objective, options.eval_tokens).bits_per_byte


def heading(options: Gallery, device: torch.device, floor: float) -> str:
    """How the rows are measured, in Markdown; the same whatever presets are named."""
    of_cpu, clock = f"{torch.get_num_threads()} threads of a CPU", ", in processor time"
    flags = [f" --{name.replace('_', '-')} {spell_value(value)}"
             for name, (_, value) in diff(Gallery(), options).items() if name != "presets"]
    return TEXT.format(
        scale=options.scale, steps=options.steps, floor=floor, tokens=options.eval_tokens,
        rounds=options.rounds, flags="".join(flags), torch=torch.__version__,
        clock=clock if device.type == "cpu" else "",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else of_cpu)


def page(top: str, lines: Sequence[str]) -> str:
    """The page of the manual, in Markdown, with its rows in the order of `python presets.py`."""
    order = list(PRESETS)
    rows = sorted(lines, key=lambda line: order.index(names_in(line)[0]))
    return top + line_of(HEADINGS) + line_of(("---",) + ("---:",) * (len(HEADINGS) - 1)) + "".join(rows)


def rows_of(path: Path, top: str) -> list[str]:
    """The rows of a page, without those of presets that are no more. Raises ValueError unless its heading is `top`."""
    text = path.read_text(encoding="utf-8")
    if not text.startswith(top):
        raise ValueError(f"the rows of {path} were measured in another way: give another --page, or name no presets")
    rows = [line for line in text.splitlines(keepends=True) if line.startswith("| `")]
    return [line for line in rows if names_in(line)[0] in PRESETS]


def line_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def names_in(line: str) -> list[str]:
    """The presets of a row of the page."""
    return line.partition(" | ")[0].strip("| ").replace("`", "").split(", ")
