"""The options of judging."""

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from config import CHECKED
from configuration.checks import require_folder_name, require_not_negative, require_positive
from run_store.listing import ROOT

NUM_STORIES = 50  # prompts, as in the paper


class Unreachable(Exception):
    """The endpoint gave no answer after all retries."""


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class JudgeOptions:
    """Which texts are judged, by which model, and at what price."""

    judge_model: str  # the judge, by its name at the endpoint
    stories: int | None = None  # prompts that each run continues; None = 50, or all of --prompts
    prompts: Path | None = None  # a text file of prompts separated by blank lines; None = held-out documents of the first run's text, cut within a sentence
    room: int = 1000  # characters of a continuation that are judged
    temperature: float = 0.8  # of the runs
    seed: int = 0  # of the runs' sampling
    checkpoint: str = "best"  # of each run: best, last or a step
    device: str = "auto"  # that the runs write on: auto = cuda, else mps, else cpu
    plot: bool = False  # also grade the plot
    yes: bool = False  # accept the estimated cost without asking
    budget: float | None = None  # USD: refuse if it could cost more; needs both prices
    price_in: float | None = None  # USD for a million tokens that the judge reads
    price_out: float | None = None  # USD for a million tokens that it writes
    parallel: int = 4  # requests at a time
    retries: int = 2  # how often to ask again after an invalid reply
    timeout: float = 120.0  # seconds that a reply may take
    max_tokens: int = 300  # of a reply; more for a model that thinks before it answers
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # the endpoint's name of that limit
    judge_temperature: float | None = 0.0  # of the judge; None = the endpoint's default
    reply_format: Literal["json_object", "text"] = "json_object"  # response_format; text = leave it out, for endpoints without
    name: str | None = None  # of the folder in experiments/results; None = judge-RUN...
    cache_dir: str = ".cache/judge"  # where texts and replies are kept

    @property
    def cache_path(self) -> Path:
        """The cache's folder; a relative cache_dir starts at the project's folder."""
        return ROOT / self.cache_dir

    def __post_init__(self):
        require_positive(self, "stories", "room", "parallel", "timeout", "max_tokens")
        require_not_negative(self, "temperature", "seed", "retries", "budget", "price_in", "price_out",
                             "judge_temperature")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("price_in and price_out belong together: give both, or none")
        if self.budget is not None and self.price_in is None:
            raise ValueError(f"budget={self.budget} needs prices: give --price-in and --price-out, USD for a million "
                             "tokens")
        require_folder_name("name", self.name)
