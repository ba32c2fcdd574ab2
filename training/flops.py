"""Count the floating-point operations of training."""

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.utils.flop_counter import FlopCounterMode

from config import Config
from data import Batch
from model import Model, spelled_out
from objective import make_objective


def flops_per_token(cfg: Config) -> float:
    """Floating-point operations of a forward and backward pass of the objective, per token of a row.

    Counted by running it without data, or with data if its shapes depend on data. The backward pass counts twice the
    forward pass. Attention counts in full, with its masked half, as is usual.
    """
    try:
        with torch.device("meta"):
            return _count_flops(cfg)
    except (DynamicOutputShapeException, NotImplementedError, RuntimeError):  # what nonzero and item raise on meta
        with torch.random.fork_rng(devices=[]):
            return _count_flops(cfg)


def _count_flops(cfg: Config) -> float:
    row, key = torch.zeros(1, cfg.row_len, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model = Model(spelled_out(cfg.model), causal=cfg.train.facts.causal)
        make_objective(model, cfg.train)(Batch(row, row, None, cfg.row_len, key))
    return 3 * counter.get_total_flops() / cfg.row_len
