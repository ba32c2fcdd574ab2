"""The learning rate and the batch size of every step, and drawings of them."""

import bisect
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from config import Config, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Place(NamedTuple):
    """The position of a step after the warmup, in every unit that a schedule may need."""

    progress: float  # 0 at the end of the warmup, 1 at the end of the run or the start of its flat part
    position: float  # since the start of the run, in steps or in forward passes
    warmup: float  # its end, in the same unit
    steps: int  # since the warmup's end
    epochs: float  # passes over the training part since the run's start


# A schedule maps a place to a fraction of the peak learning rate.
def constant(place: Place, cfg: TrainConfig) -> float:
    return 1.0


def linear(place: Place, cfg: TrainConfig) -> float:
    return 1 - (1 - cfg.min_lr_ratio) * place.progress


def cosine(place: Place, cfg: TrainConfig) -> float:
    """Loshchilov & Hutter 2016, arXiv:1608.03983, without restarts."""
    return cfg.min_lr_ratio + (1 - cfg.min_lr_ratio) * (1 + math.cos(math.pi * place.progress)) / 2


def restarts(place: Place, cfg: TrainConfig) -> float:
    """Cosines in a row, each `cycle_growth` times as long as the last. arXiv:1608.03983."""
    lengths = [cfg.cycle_growth**cycle for cycle in range(cfg.num_cycles)]
    left = place.progress * sum(lengths)
    for length in lengths[:-1]:
        if left < length:
            return cosine(place._replace(progress=left / length), cfg)
        left -= length
    return cosine(place._replace(progress=min(1.0, left / lengths[-1])), cfg)


def wsd(place: Place, cfg: TrainConfig) -> float:
    """Warmup, stable, decay: flat until the last `decay_fraction`, then linear. arXiv:2404.06395."""
    if place.progress <= 1 - cfg.decay_fraction:
        return 1.0
    return linear(place._replace(progress=(place.progress - 1 + cfg.decay_fraction) / cfg.decay_fraction), cfg)


def inverse_sqrt(place: Place, cfg: TrainConfig) -> float:
    """One over the root of the position, 1 at the warmup's end. Vaswani et al. 2017, arXiv:1706.03762."""
    warmup = max(1.0, place.warmup)
    return math.sqrt(warmup / max(warmup, place.position))


def step(place: Place, cfg: TrainConfig) -> float:
    """Multiply by `step_gamma` every `step_size` epochs or steps."""
    count = place.steps if cfg.step_unit == "steps" else math.floor(place.epochs)
    return cfg.step_gamma ** (count // cfg.step_size)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "restarts": restarts, "wsd": wsd,
             "inverse_sqrt": inverse_sqrt, "step": step}


class Schedule:
    """The learning rate and the forward passes of each step, from 0: pure functions of the step's number.

    `rows_per_epoch` is the size of the training part in rows. Raises ValueError if the schedule counts epochs and it is
    not given.
    """

    def __init__(self, cfg: Config, *, rows_per_epoch: int | None = None):
        self.cfg, self.rows_per_epoch = cfg.train, rows_per_epoch
        if self.cfg.schedule == "step" and self.cfg.step_unit == "epochs" and rows_per_epoch is None:
            raise ValueError("train.step_unit=epochs follows the size of the text, which is known only when it is "
                             "read: use train.step_unit=steps")
        self.pass_tokens = self.cfg.batch_size * cfg.row_len
        self._ramp = self._passes_while_ramping()
        self.end = self._position(self.cfg.steps)
        self.warmup = self._warmup()

    def rate(self, number: int) -> float:
        """The learning rate of a step."""
        position = self._position(number)
        if position < self.warmup:
            return self.cfg.lr * min(1.0, self._position(number + 1) / self.warmup)
        low = self.end * (1 - self.cfg.flat_fraction)
        progress = min(1.0, (position - self.warmup) / max(1, low - self.warmup))
        rows = self.passes_before(number) * self.cfg.batch_size
        place = Place(progress, position, self.warmup, steps=number - int(self.warmup),
                      epochs=rows / (self.rows_per_epoch or math.inf))
        return self.cfg.lr * SCHEDULES[self.cfg.schedule](place, self.cfg)

    def passes(self, number: int) -> range:
        """The numbers of a step's forward passes, which are also the numbers of its batches."""
        return range(self.passes_before(number), self.passes_before(number + 1))

    def passes_before(self, number: int) -> int:
        """Forward passes taken before a step."""
        ramping = len(self._ramp) - 1
        if number <= ramping:
            return self._ramp[number]
        return self._ramp[-1] + (number - ramping) * self.cfg.accumulation

    def tokens_before(self, number: int) -> int:
        """Tokens trained on before a step."""
        return self.passes_before(number) * self.pass_tokens

    def steps_for(self, tokens: float) -> int:
        """The number of steps, at least 1, whose tokens come closest to `tokens`."""
        most = math.ceil(tokens / self.pass_tokens) + 1
        after = bisect.bisect_left(range(most), tokens, key=self.tokens_before)
        return min((max(1, after - 1), max(1, after)), key=lambda steps: abs(self.tokens_before(steps) - tokens))

    def _position(self, number: int) -> int:
        return number if self.cfg.schedule_unit == "steps" else self.passes_before(number)

    def _warmup(self) -> float:
        cfg = self.cfg
        if cfg.schedule_unit == "tokens":
            return self.end / 50 if cfg.warmup_tokens is None else cfg.warmup_tokens / self.pass_tokens
        return cfg.steps // 50 if cfg.warmup_steps is None else cfg.warmup_steps

    def _passes_while_ramping(self) -> list[int]:
        """Forward passes before each step until the batch is full, from 0. Linear in tokens, arXiv:2005.14165, B."""
        cfg, taken = self.cfg, [0]
        while cfg.ramp_tokens is not None and len(taken) <= cfg.steps:
            count = 1 + (cfg.accumulation - 1) * taken[-1] * self.pass_tokens // cfg.ramp_tokens
            if count >= cfg.accumulation:
                break
            taken.append(taken[-1] + count)
        return taken


def schedule_warnings(schedule: Schedule) -> list[str]:
    """A sentence for each flag that is allowed but probably a mistake."""
    cfg, found = schedule.cfg, []
    if schedule.warmup >= schedule.end:
        given = (f"train.warmup_steps={cfg.warmup_steps} is not below train.steps={cfg.steps}"
                 if cfg.schedule_unit == "steps" else f"train.warmup_tokens={cfg.warmup_tokens} is not below the "
                 f"run's {schedule.tokens_before(cfg.steps):,}")
        found.append(f"{given}: the learning rate rises to the end")
    last = cfg.steps
    while last and schedule.rate(last - 1) == 0:
        last -= 1
    if last < cfg.steps:
        found.append(f"the learning rate is zero after step {last:,} of {cfg.steps:,}, so that nothing is learned "
                     "there: give train.min_lr_ratio, or take less train.flat_fraction")
    if cfg.ramp_tokens is not None and len(schedule.passes(cfg.steps - 1)) < cfg.accumulation:
        tokens = schedule.tokens_before(cfg.steps)
        found.append(f"train.ramp_tokens={cfg.ramp_tokens} is more than the run's {tokens:,}:"
                     f" no step has all train.accumulation={cfg.accumulation} forward passes")
    return found


# ---- drawings ----


def _points(cfg: Config, most: int) -> tuple[Schedule, list[int]]:
    """The schedule and at most `most` steps, spread evenly."""
    spread = np.linspace(0, cfg.train.steps - 1, min(most, cfg.train.steps))
    return Schedule(cfg), [round(number) for number in spread.tolist()]


def draw_schedule(cfg: Config) -> "Figure":
    """Draw the learning rate of every step and, with train.ramp_tokens, the tokens of every step.

    Raises ValueError if the schedule counts epochs, whose length depends on the text.
    """
    from matplotlib.figure import Figure  # takes 0.4 s, and training draws no schedule

    schedule, steps = _points(cfg, 2000)
    curves = {"learning rate": [schedule.rate(number) for number in steps]}
    if cfg.train.ramp_tokens is not None:
        curves["tokens per step"] = [len(schedule.passes(number)) * schedule.pass_tokens for number in steps]
    figure = Figure(figsize=(8, 2.5 + 1.5 * len(curves)), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(len(curves), squeeze=False, sharex=True)[:, 0], curves.items(),
                                    strict=True):
        axes.plot([number + 1 for number in steps], values, drawstyle="steps-mid")
        axes.set(ylabel=name, ylim=(0, 1.05 * max(values)))
        axes.grid(alpha=0.3)
    axes.set(xlabel=f"step ({schedule.tokens_before(cfg.train.steps):,} tokens in all)")
    return figure


def schedule_text(cfg: Config, *, width: int = 72, height: int = 8) -> str:
    """The same for a terminal, in block characters, with the first and the last value of each curve.

    Raises ValueError as `draw_schedule` does.
    """
    schedule, steps = _points(cfg, width)
    rates = [schedule.rate(number) for number in steps]
    parts = [f"learning rate, {rates[0]:.3g} at first, {rates[-1]:.3g} at last, train.lr {cfg.train.lr:g}",
             *_bars(rates, height)]
    if cfg.train.ramp_tokens is not None:
        tokens = [len(schedule.passes(number)) * schedule.pass_tokens for number in steps]
        parts += [f"tokens per step, {tokens[0]:,} at first, {tokens[-1]:,} at last", *_bars(tokens, height)]
    return "\n".join([*parts, f"{cfg.train.steps:,} steps, {schedule.tokens_before(cfg.train.steps):,} tokens"])


def _bars(values: list[float], height: int) -> list[str]:
    """A column for each value, from the bottom, in eighths of a line."""
    eighths = [round(8 * height * value / max(values)) for value in values]
    return ["".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, filled - 8 * line))] for filled in eighths).rstrip()
            for line in reversed(range(height))]
