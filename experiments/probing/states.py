"""The state of a mixer: what it keeps of a text, and the flag that scales it."""

import bisect
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from config import Config, ModelConfig, flat, get, override
from memory_prediction.dry_run import sequence_bytes

# word of the mixer menu -> the flag that scales its state; a mixer without a line keeps its state as it is
STATE_FLAGS = {"attention": "model.attention.window", "latent": "model.attention.window"}
NEAR = 1.1  # states whose sizes differ by less than this factor count as equal


@cache
def _state_bytes(model: ModelConfig) -> float:
    return sequence_bytes(Config(model=model)) / model.num_layers


def state_bytes(cfg: Config) -> float:
    """Bytes in float32 that a layer keeps of a text of max_seq_len tokens: the mean over the layers."""
    return _state_bytes(cfg.model)


def equalised(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """For each configuration the flags that make its state as large as the smallest one's, or a little less.

    Raises ValueError if a mixer that keeps more has no flag for that.
    """
    target = NEAR * min(map(state_bytes, configs))
    return [{} if state_bytes(cfg) <= target else shrunk(cfg, target) for cfg in configs]


def shrunk(cfg: Config, target: float) -> dict[str, Any]:
    """The flag that makes the state as large as possible within `target` bytes. Raises ValueError if none can."""
    mixers = {layer.mixer for layer in cfg.model.by_kind.values()} - {"none"}
    flags = {STATE_FLAGS.get(mixer) for mixer in mixers}
    if len(flags) != 1 or None in flags:
        raise ValueError(f"equal_state: {' and '.join(sorted(mixers))} would have to keep less than "
                         f"{state_bytes(cfg):,.0f} bytes in a layer, and no flag in experiments/probing/states.py does "
                         "that for all its layers")
    (flag,), sizes = flags, []
    for value in range(1, (get(cfg, flag) or cfg.model.max_seq_len) + 1):
        with suppress(ValueError):  # e.g. a width that the heads do not divide
            sizes.append(override(cfg, {flag: value}))
    place = bisect.bisect_right(sizes, target, key=state_bytes)
    if place == 0:
        raise ValueError(f"equal_state: {flag} cannot make the state of {' and '.join(sorted(mixers))} smaller than "
                         f"{target:,.0f} bytes in a layer")
    return {flag: flat(sizes[place - 1])[flag]}
