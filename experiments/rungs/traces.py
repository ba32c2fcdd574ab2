"""How the forward pass of a rung differs from that of the rung below."""

import torch

from config import ModelConfig, replace
from experiments.rungs.definitions import RUNGS, Rung
from model import Model
from presets import load_preset
from tools import Trace, seed_everything, trace


def trace_rung(cfg: ModelConfig, *, vocab_size: int = 63) -> Trace:
    """The shapes of a training forward on 2 rows of 8 tokens."""
    seed_everything(0)
    model = Model(replace(cfg, vocab_size=vocab_size))
    tokens = torch.randint(vocab_size, (2, 8))  # (b, t)
    with torch.no_grad(), trace(model, stats="none") as t:
        model(tokens)
    return t


def trace_diff(rung: Rung) -> str:
    """What differs from the trace of the rung below."""
    below, here = (trace_rung(load_preset(RUNGS[place].preset).model) for place in (rung.number - 2, rung.number - 1))
    return below.diff(here)
