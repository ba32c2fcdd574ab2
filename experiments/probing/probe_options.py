"""The options of probing: which mixers on which tasks."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from config import CHECKED
from configuration.checks import require_folder_name, words_of
from run_store.listing import RESULTS


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ProbeOptions:
    """Mixers and tasks; the flags after these are those of all runs."""

    mixers: tuple[str, ...] = ("attention",)  # words of model.mixer, each alone or in quotes with flags: "attention model.attention.window=8"; or flags alone: "model.layers=[attention,none]"
    tasks: tuple[str, ...] = ("mqar", "selective_copying", "induction", "parity")  # words of data.name, each alone or in quotes with flags: "mqar data.probe.items=16 model.max_seq_len=129"; all = each task with its own numbers
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)  # learning rates; each mixer has the one that is best on each task, by the mean over the seeds
    longer: tuple[int, ...] = (2, 4)  # also evaluated on rows this many times as long; never with learned positions
    seeds: int = 3  # runs of each mixer, task and rate, with seeds from train.seed on; a larger number later adds runs
    sweep_seeds: int | None = None  # seeds with which every rate is tried; the others train at the best rate alone; None = all
    equal_state: int | None = None  # bytes in float32 that a layer of every mixer keeps of a row, or a little less, by the flags in experiments/probing/states.py; None = as many as its own flags make it
    jobs: int = 1  # runs at a time
    threads: int = 1  # of each run
    name: str | None = None  # of the results' folder, and the start of the runs' names; None = probe

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    def __post_init__(self):
        for name in ("seeds", "jobs", "threads", "sweep_seeds", "equal_state"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        if (self.sweep_seeds or 1) > self.seeds:
            raise ValueError(f"sweep_seeds={self.sweep_seeds} is more than seeds={self.seeds}: use as many or fewer")
        for name in ("mixers", "tasks", "rates"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name}=() is empty: give at least one")
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"{name}={words_of(values)} has {twice} twice: leave one out")
        require_folder_name("name", self.name)
