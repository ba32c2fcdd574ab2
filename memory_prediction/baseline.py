"""What a process holds before a run begins: Python, the libraries, and what they make at their first use."""

import functools
import os
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from configuration.heap import return_freed
from memory_prediction.process import rss_bytes

# bytes, at most, of a run besides its steps: token files, checkpoints, matplotlib for the figure at its end
LASTLY = 56 * 2**20


def warm_up() -> None:
    """Make what training makes only once: thread pools, code of kernels, imports of torch.optim.

    Takes a step of a small layer in float32 and bfloat16. Draws no random numbers.
    """
    table, weight, scale = (nn.Parameter(torch.zeros(shape)) for shape in ((512, 256), (256, 256), (256,)))
    tokens = torch.zeros(4, 256, dtype=torch.int64)  # large enough for all threads to take part
    optimizers = torch.optim.Muon([weight]), torch.optim.AdamW([table, scale], fused=True)
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            checkpoint(_like_a_layer, tokens, table, weight, scale, use_reentrant=False).backward()
    nn.utils.clip_grad_norm_([table, weight, scale], 1.0)
    for optimizer in optimizers:
        optimizer.step()


@functools.cache
def _warm_up_once(pid: int) -> None:
    warm_up()


def _like_a_layer(tokens: Tensor, table: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """A loss that calls most kernels of a model."""
    x = nn.functional.embedding(tokens, table)  # (b, t, d)
    y = nn.functional.linear(x * (x.square().mean(-1, keepdim=True) + 1).rsqrt() * scale, weight)
    y = y + nn.functional.scaled_dot_product_attention(y, y, y, is_causal=True)
    y = nn.functional.gelu(y) * y.sigmoid() + nn.functional.layer_norm(y, y.shape[-1:])
    scores = (y @ y.mT).float().tril().softmax(-1)  # (b, t, t)
    logits = nn.functional.linear(y, table).float()  # (b, t, v)
    copied = logits.scatter_add(-1, tokens[:, None].expand_as(scores), scores)
    return nn.functional.cross_entropy(copied.flatten(0, 1), tokens.flatten()) + copied.logsumexp(-1).mean()


def baseline_bytes() -> int | None:
    """Resident memory of this process after `warm_up`, without what was freed. Call it when everything is imported."""
    _warm_up_once(os.getpid())
    return_freed()  # with the fast allocator 30 to 50 MB, from which the run takes its first tensors
    return rss_bytes()


def trainer_baseline_bytes() -> int | None:
    """`baseline_bytes` as train.py has it, if this process has predicted the run: it imports the rest."""
    import_module("train")  # by name: train.py stands above this file
    return baseline_bytes()
