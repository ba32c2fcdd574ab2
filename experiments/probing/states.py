"""The state of a mixer: what it keeps of a text, and the flag that scales it."""

import bisect
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from config import Config, ModelConfig, get, override
from configuration.acting import mixers_of
from memory_prediction.dry_run import sequence_bytes

# word of the mixer menu -> the flag that scales its state
STATE_FLAGS = {"attention": "model.attention.window", "latent": "model.attention.window",
               **{word: f"model.{word}.key_dim" for word in ("deltanet", "gated_delta", "gdn2", "kda")},
               "gru": "model.gru.expand", "hgrn2": "model.hgrn2.key_dim", "lstm": "model.lstm.expand",
               "mamba": "model.mamba.state_dim", "mamba2": "model.mamba2.state_dim",
               "mamba3": "model.mamba3.state_dim",
               "min_gru": "model.min_gru.expand", "min_lstm": "model.min_lstm.expand",
               "mlstm": "model.mlstm.key_dim", "mlstm_v1": "model.mlstm_v1.expand",
               "rg_lru": "model.rg_lru.inner_dim"}
NEAR = 1.1  # states whose sizes differ by less than this factor count as equal
MOST = 8  # x the flag's value: the largest that is tried


@cache
def _state_bytes(model: ModelConfig) -> float:
    return sequence_bytes(Config(model=model)) / model.num_layers


def state_bytes(cfg: Config) -> float:
    """Bytes in float32 that a layer keeps of a text of max_seq_len tokens: the mean over the layers."""
    return _state_bytes(cfg.model)


def equalised(cfg: Config, target: float) -> dict[str, Any]:
    """The flag that makes a layer keep `target` bytes, or as many below it as it allows; {} if it does already.

    Attention without a window keeps all that there is, and stays so if that is less. Raises ValueError if the mixers
    have no such flag in common, or none of its values is small enough.
    """
    if 1 / NEAR <= state_bytes(cfg) / target <= NEAR:
        return {}
    mixers = sorted({word for layer in cfg.model.by_kind.values() for word in mixers_of(layer)})
    flags = {STATE_FLAGS.get(mixer) for mixer in mixers}
    if len(flags) != 1 or None in flags:
        raise ValueError(f"equal_state={target:g}: {' and '.join(mixers)} would have to keep another number of bytes "
                         f"in a layer than {state_bytes(cfg):,.0f}, and experiments/probing/states.py has no flag for "
                         "that")
    (flag,) = flags
    sizes = list(at_values(cfg, flag))
    place = bisect.bisect_right(sizes, NEAR * target, key=state_bytes)
    if place == 0:
        raise ValueError(f"equal_state={target:g} is less than {flag} can make of {' and '.join(mixers)}: it keeps "
                         f"{state_bytes(sizes[0]):,.0f} bytes in a layer at least")
    value = get(sizes[place - 1], flag)
    return {} if value == get(cfg, flag) else {flag: value}


def at_values(cfg: Config, flag: str) -> Iterator[Config]:
    """The configuration at every value of the flag that it allows, from a small state to a large one."""
    value = get(cfg, flag)
    if value is None and flag != STATE_FLAGS["attention"]:
        values = range(1, cfg.model.dim + 1)  # widths, which follow the model's
    elif value is None:
        values = [*range(1, cfg.model.max_seq_len), None]
    elif isinstance(value, float):
        values = [value * part / MOST for part in range(1, MOST**2 + 1)]
    else:
        values = range(1, MOST * value + 1)
    for one in values:
        with suppress(ValueError):  # e.g. a width that the heads do not divide
            yield override(cfg, {flag: one})
