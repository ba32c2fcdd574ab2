"""The options of a scaling study: which sizes, how many tokens, which learning rates."""

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from config import CHECKED
from configuration.checks import require_folder_name, require_not_negative, require_positive, words_of
from configuration.units import parse_count
from run_store.listing import RESULTS

Entropy = Literal["free", "known"]


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class ScalingOptions:
    """Sizes and numbers of tokens; the flags after these are those of all runs."""

    scales: tuple[str, ...] = ("40k", "60k", "80k", "120k", "160k", "240k", "320k")  # sizes, as --scale of train.py makes them, but all with the context of the base
    sizes: tuple[str, ...] = ()  # sizes by their flags instead, each in quotes: "model.dim=32 model.num_layers=2"
    tokens: tuple[str, ...] = ("1.6M", "3.2M", "4.8M", "6.4M", "12.8M")  # training tokens; each size is trained on each of these, with a schedule that ends there
    sweep: tuple[float, ...] = ()  # learning rates tried with the smallest size on the middle number of tokens; the best is that of the smallest size. () = train.lr is that of a model as wide as the base
    rate_power: float | None = None  # a model w times as wide has a rate / w to this power; None = 0.5 for muon, 1 for others
    rates: tuple[float, ...] = ()  # learning rates of the sizes, the smallest first, in place of this rule
    batches: tuple[int, ...] = ()  # train.batch_size of each number of tokens, the smallest number first: more tokens want larger ones; () = the base's for all
    entropy: Entropy = "free"  # free: the fit finds the loss that is left; known: a second fit has the text's entropy in its place, which tales knows
    seeds: int = 1  # runs of each size and number of tokens, with seeds from train.seed on; a larger number later adds runs
    jobs: int = 1  # runs at a time
    threads: int = 1  # of each run
    name: str | None = None  # of the results' folder, and the start of the runs' names; None = scaling

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    @property
    def token_counts(self) -> dict[int, str]:
        """The numbers of tokens with their spellings, ascending."""
        return dict(sorted((round(parse_count(word)), word) for word in self.tokens))

    def batch_for(self, tokens: int) -> int | None:
        """The batch of a number of tokens; None = the base's."""
        return self.batches[[*self.token_counts].index(tokens)] if self.batches else None

    @property
    def num_sizes(self) -> int:
        return len(self.sizes or self.scales)

    def __post_init__(self):
        require_folder_name("name", self.name)
        require_positive(self, "seeds", "jobs", "threads")
        require_not_negative(self, "rate_power")
        if wrong := next((word for word in self.tokens if not parse_count(word)), None):
            raise ValueError(f"tokens={wrong} is not a number of tokens: use e.g. 50k, 400k or 1.5M")
        if not self.tokens or not self.num_sizes:
            raise ValueError(f"{'scales' if self.tokens else 'tokens'}=() is empty: give at least one")
        if len(self.token_counts) < len(self.tokens):
            raise ValueError(f"tokens={words_of(self.tokens)} has a number twice: leave one out")
        for flag in ("sweep", "rate_power"):
            if self.rates and getattr(self, flag) not in ((), None):
                raise ValueError(f"{flag} would change nothing beside rates, which has one for each size: leave one out")
        if self.rates and len(self.rates) != self.num_sizes:
            raise ValueError(f"rates={words_of(self.rates)} are {len(self.rates)}, and the sizes are {self.num_sizes}: "
                             "give one for each")
        if self.batches and len(self.batches) != len(self.tokens):
            raise ValueError(f"batches={words_of(self.batches)} are {len(self.batches)}, and the numbers of tokens are "
                             f"{len(self.tokens)}: give one for each")
        if min(self.batches, default=1) < 1:
            raise ValueError(f"batches={min(self.batches)} is no number of rows: use 1 or more")
