"""The options of an ablation."""

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from config import CHECKED
from configuration.checks import require_folder_name
from families.ideas import IDEAS
from run_store.listing import RESULTS

Match = Literal["params", "flops", "seconds", "none"]
MatchBy = Literal["width", "depth", "mlp", "steps"]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class AblationOptions:
    """An ablation; the flags after these are those of the base."""

    vary: tuple[str, ...] = ()  # e.g. model.norm=rms,layer model.mlp=glu,mlp: each value is a variant, except the base's own
    also: tuple[str, ...] = ()  # variants of several flags each, in quotes: "train.optimizer=adamw train.lr=3e-3"
    ideas: tuple[str, ...] = ()  # variants by their names in `python presets.py ideas`; all = each of them
    grid: bool = False  # vary all combinations of the values of --vary, instead of one flag at a time
    seeds: int = 3  # runs of each variant, with seeds from train.seed on; a larger number later adds runs
    match: Match = "params"  # what variants have as much of as the base: parameters; flops of the whole run; seconds of training, measured beforehand; none = variants keep their size
    match_by: MatchBy | None = None  # how they are matched: width (model.dim) or depth (model.num_layers), each with the MLP's width for the remainder; mlp: that alone; steps: longer or shorter training. None = steps for seconds, else width
    sweep: str | None = None  # e.g. train.lr=1e-3,3e-3,1e-2: each variant takes the value that is best on the first seed, which then does not count
    jobs: int = 1  # runs at a time
    threads: int = 1  # of each run
    name: str | None = None  # of the results' folder, and the start of the runs' names; None = the names of the preset and the flags

    @property
    def settled_match_by(self) -> MatchBy | None:
        """`match_by` without its default; None if nothing is matched."""
        if self.match == "none":
            return None
        return self.match_by or ("steps" if self.match == "seconds" else "width")

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    def __post_init__(self):
        for name in ("seeds", "jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.match == "none" and self.match_by:
            raise ValueError(f"match_by={self.match_by} would change nothing with match=none: leave one of them out")
        if self.match == "params" and self.match_by == "steps":
            raise ValueError("match_by=steps changes no parameters: use width, depth or mlp, or match=flops")
        for name in self.ideas:
            if name != "all" and name not in IDEAS:
                raise ValueError(f"ideas={name} is not known: use all, or some of {', '.join(IDEAS)}")
        if self.grid and not self.vary:
            raise ValueError("grid combines the values of vary: give e.g. --vary model.norm=rms,layer")
        require_folder_name("name", self.name)
