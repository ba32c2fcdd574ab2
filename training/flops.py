"""Count the floating-point operations of training."""

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.utils.flop_counter import FlopCounterMode

from config import ModelConfig
from model import Model, some_source, spelled_out


def flops_per_token(cfg: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of a forward and backward pass, per token of a text of `seq_len`.

    Counted by running the model without data, or with data if its shapes depend on data. The backward pass counts twice
    the forward pass. Attention counts in full, with its masked half, as is usual. A source that the model reads is as
    long as the text; its encoder counts with the text, and so do the parts of model.ahead with their logits.
    """
    try:
        with torch.device("meta"):
            return _count_flops(cfg, seq_len)
    except (DynamicOutputShapeException, NotImplementedError, RuntimeError):  # what nonzero and item raise on meta
        with torch.random.fork_rng(devices=[]):
            return _count_flops(cfg, seq_len)


def _count_flops(cfg: ModelConfig, seq_len: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model, tokens = Model(spelled_out(cfg)), torch.zeros(1, seq_len, dtype=torch.int64)
        hidden = model.read(tokens, source=some_source(model, tokens))
        model.predict(hidden)
        for last in model.look_ahead(hidden)[0] if model.ahead else ():
            model.head(last)
    return 3 * counter.get_total_flops() / seq_len
