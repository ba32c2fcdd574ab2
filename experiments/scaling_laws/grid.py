"""The grid of a scaling study: its sizes, their learning rates, and a run for each number of tokens and seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from config import Config, diff, override, replace
from experiments.ablating.plan import evaluated_alike, num_flops, schedule
from experiments.ablating.variants import flags_line, read_point, slug, spell
from experiments.common.figures import num_multiplied
from experiments.scaling_laws.scaling_options import ScalingOptions
from families.sizing import read_scale, scaled
from presets import block_parameters
from training.setup import Settler

# what the grid sets in each run, and the option that says how
SET = {"train.steps": "tokens", "train.tokens": "tokens", "train.epochs": "tokens"}
POWERS = {"muon": 0.5}  # of the width in the learning rate; of other optimizers it is 1


@dataclass(frozen=True)
class Size:
    """A model size."""

    label: str
    cfg: Config  # settled, except for the number of steps, the seed, the rate and the name of a run
    parameters: int  # in matrices and the head

    @property
    def flops(self) -> float:
        """FLOPs of training on one token of a row."""
        return num_flops(self.cfg)


@dataclass(frozen=True)
class Planned:
    """A run of the grid, or of the sweep before it."""

    size: Size
    tokens: int  # as asked for; the log says how many it was
    seed: int
    cfg: Config

    @property
    def name(self) -> str:
        return self.cfg.train.name


class Grid:
    """The runs of a study; `plain` is the base without the flags of the command line. Raises ValueError."""

    def __init__(self, options: ScalingOptions, base: Config, plain: Config):
        self.options, self.counts, self.base = options, options.token_counts, base
        require_free(options, base, plain)
        self.sizes = make_sizes(options, base)

    def sweep(self) -> dict[float, Planned]:
        """The runs of the smallest size with each rate of the sweep, on the middle number of tokens."""
        smallest, middle = self.sizes[0], [*self.counts][len(self.counts) // 2]
        return {rate: self._run(smallest, middle, smallest.cfg.train.seed, rate, f"lr-{spell(rate)}")
                for rate in self.options.sweep}

    def runs(self, swept: float | None = None) -> list[Planned]:
        """All runs, the longest first, so that no core idles at the end. `swept` is the best rate of the sweep."""
        rates = self.rates(swept)
        first = self.sizes[0].cfg.train.seed
        found = [self._run(size, tokens, seed, rates[size.label], f"seed-{seed}")
                 for seed in range(first, first + self.options.seeds) for size in self.sizes for tokens in self.counts]
        return sorted(found, key=lambda run: (run.seed, -run.size.flops * run.tokens))

    def rates(self, swept: float | None = None) -> dict[str, float]:
        """The learning rate of each size, by its label."""
        if self.options.rates:
            return {size.label: rate for size, rate in zip(self.sizes, self.options.rates, strict=True)}
        own = self.base if swept is None else self.sizes[0].cfg
        rate, width = swept or self.base.train.lr, own.model.dim
        return {size.label: float(f"{rate * (width / size.cfg.model.dim) ** self.rate_power:.3g}")
                for size in self.sizes}

    @property
    def rate_power(self) -> float:
        given = self.options.rate_power
        return POWERS.get(self.sizes[0].cfg.train.optimizer, 1.0) if given is None else given

    def _run(self, size: Size, tokens: int, seed: int, rate: float, end: str) -> Planned:
        name = "-".join([self.options.name, slug(size.label), self.counts[tokens], end])
        cfg = evaluated_alike(self._of_length(size, tokens), self._of_length(size, max(self.counts)))
        return Planned(size, tokens, seed, override(cfg, {
            "train.lr": rate, "train.seed": seed, "train.name": name}))

    def _of_length(self, size: Size, tokens: int) -> Config:
        """The configuration with its batch and the number of steps nearest to these tokens."""
        batch = self.options.batch_for(tokens) or size.cfg.train.batch_size
        cfg = override(size.cfg, {"train.batch_size": batch})
        return override(cfg, {"train.steps": schedule(cfg).steps_for(tokens)})


def require_free(options: ScalingOptions, base: Config, plain: Config) -> None:
    """Raise ValueError if a flag says what the grid says, or does not go with a study."""
    taken = SET | ({"train.lr": "rates" if options.rates else "sweep"} if options.rates or options.sweep else {})
    taken |= {"train.batch_size": "batches"} if options.batches else {}
    for flag, (value, _) in diff(base, plain).items():
        if flag in taken:
            raise ValueError(f"{flag}={spell(value)} would change nothing: --{taken[flag]} says what it is in each run")
    text = {*(base.data.val_name or base.data.name)}
    if options.entropy == "known" and (text != {"tales"} or base.facts.of):
        raise ValueError(f"entropy=known: the entropy of {', '.join(sorted(text))} is not known for "
                         f"train.objective={base.train.objective}: leave it out, or use the text tales")
    if base.train.time_limit is not None:
        raise ValueError(f"train.time_limit={base.train.time_limit} could end runs before they are done: leave it out")


def make_sizes(options: ScalingOptions, base: Config) -> list[Size]:
    """The sizes, the smallest first. Raises ValueError."""
    settled, found = Settler(), []
    base = replace(base, train=replace(base.train, tokens=None, epochs=None, name=None))
    for label, cfg in labelled(options, base):
        try:
            cfg = settled(override(cfg, {"train.lr": base.train.lr}))
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
        found.append(Size(label, cfg, num_multiplied(cfg.model)))
    found.sort(key=lambda size: size.parameters)
    for one, other in zip(found, found[1:], strict=False):
        if one.parameters == other.parameters:
            raise ValueError(f"{one.label} and {other.label} are one size, {one.parameters:,} parameters: leave one "
                             "out")
    return found


def labelled(options: ScalingOptions, base: Config) -> Iterator[tuple[str, Config]]:
    """Each size with its label, in the order of the options. All have the base's context: the loss depends on it."""
    for words in options.sizes:
        flags: dict[str, Any] = read_point(words, base, "sizes")
        if not flags:
            raise ValueError("sizes='' has no flags: give e.g. \"model.dim=32 model.num_layers=2\"")
        yield flags_line(flags), override(base, flags)
    for scale in () if options.sizes else options.scales:
        try:
            yield scale, scaled(base, read_scale(scale), block_parameters, context=base.model.max_seq_len)
        except ValueError as error:
            raise ValueError(f"scales={scale}: {str(error).removeprefix(f'--scale {scale} ')}") from None

