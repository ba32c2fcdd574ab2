"""The plan: a cell for each mixer and task, with its configuration and those of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from config import Config, Mixer, diff, override
from corpora.corpus import load_corpus
from corpora.probe_rows import ProbeRows
from experiments.ablating.variants import flags_line, read_point, slug, spell
from experiments.common.figures import num_parameters
from experiments.probing.probe_options import ProbeOptions
from experiments.probing.states import equalised, state_bytes
from probes import PROBES
from training.setup import Settler

# what the plan sets in each run, and the option that says how
SET = {"data.name": "tasks", "model.mixer": "mixers", "train.lr": "rates", "data.probe.longer": "longer",
       "model.max_seq_len": "tasks"}


@dataclass(frozen=True)
class Entry:
    """A mixer or a task with its flags."""

    label: str
    flags: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A mixer on a task."""

    mixer: str
    task: str
    cfg: Config  # except for the rate, the seed and the name of a run
    runs: dict[tuple[float, int], Config]  # by rate and seed
    length: int  # symbols of a row
    longer: tuple[int, ...]
    parameters: int
    state_bytes: float  # that a layer keeps of a row
    guess: float  # accuracy of always giving the commonest answer
    swept: frozenset[tuple[float, int]]  # the runs that every rate has


def make_cells(options: ProbeOptions, base: Config, plain: Config) -> list[Cell]:
    """The cells, task by task; `plain` is the base without the flags of the command line. Raises ValueError."""
    for flag, (value, _) in diff(base, plain).items():
        if flag in SET:
            raise ValueError(f"{flag}={spell(value)} would change nothing: --{SET[flag]} says what it is in each run")
    mixers = [read_entry(entry, "model.mixer", get_args(Mixer), base, "mixers") for entry in options.mixers]
    tasks = [entry for word in options.tasks for entry in (PROBES if word == "all" else [word])]
    tasks = [read_entry(entry, "data.name", PROBES, base, "tasks") for entry in tasks]
    settled, cells = Settler(), []
    for task in tasks:
        configs = [cell_config(options, base, mixer, task, settled) for mixer in mixers]
        sizing = [equalised(cfg, options.equal_state) if options.equal_state else {} for cfg in configs]
        guess = commonest(configs[0])
        for mixer, cfg, flags in zip(mixers, configs, sizing, strict=True):
            label = " ".join(filter(None, [mixer.label, flags_line(flags)]))
            cells.append(make_cell(options, label, task.label, override(cfg, flags), guess))
    require_distinct(cells)
    return cells


def read_entry(entry: str, flag: str, known: Sequence[str], base: Config, option: str) -> Entry:
    """Read "WORD flag=value ..." or "flag=value ...". Raises ValueError."""
    first, _, rest = entry.strip().partition(" ")
    if "=" in first:
        flags = read_point(entry, base, option)
        return Entry(flags_line(flags), flags)
    if first not in known:
        raise ValueError(f"{option}={first} is not known: use some of {', '.join(known)}")
    flags = read_point(rest, base, option)
    return Entry(" ".join(filter(None, [first, flags_line(flags)])), {flag: first} | flags)


def cell_config(options: ProbeOptions, base: Config, mixer: Entry, task: Entry, settled: Settler) -> Config:
    """The settled configuration of a mixer on a task. Raises ValueError that names both."""
    if "data.name" not in task.flags:
        raise ValueError(f"tasks={task.label!r} names no task: begin with one of {', '.join(PROBES)}")
    length = {"model.max_seq_len": PROBES[task.flags["data.name"]].length + 1}
    flags = length | mixer.flags | task.flags | {"data.name": [task.flags["data.name"]]}
    try:
        cfg = override(base, flags)
        longer = () if cfg.model.position == "learned" else options.longer
        return settled(override(cfg, {"data.probe.longer": longer}))
    except ValueError as error:
        raise ValueError(f"{mixer.label} on {task.label}: {error}") from None


def make_cell(options: ProbeOptions, mixer: str, task: str, cfg: Config, guess: float) -> Cell:
    seeds = range(cfg.train.seed, cfg.train.seed + options.seeds)
    runs = {}
    for rate in options.rates:
        for seed in seeds:
            name = "-".join([options.name, slug(mixer), slug(task), slug(f"lr={spell(rate)}"), f"seed-{seed}"])
            runs[rate, seed] = override(cfg, {"train.lr": rate, "train.seed": seed, "train.name": name})
    return Cell(mixer, task, cfg, runs, cfg.model.max_seq_len - 1, cfg.data.probe.longer, num_parameters(cfg.model),
                state_bytes(cfg), guess, frozenset(key for key in runs if key[1] in seeds[: options.sweep_seeds]))


def commonest(cfg: Config) -> float:
    """The share of the commonest answer among those of the validation rows."""
    part = ProbeRows(load_corpus(cfg.data), cfg.model.max_seq_len)
    return float(np.bincount(part.targets[part.targets >= 0]).max() / part.num_targets)


def require_distinct(cells: Sequence[Cell]) -> None:
    """Raise ValueError if two cells have the same runs."""
    names = [cfg.train.name for cell in cells for cfg in cell.runs.values()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two mixers or tasks would share the run {twice}: leave one out")
