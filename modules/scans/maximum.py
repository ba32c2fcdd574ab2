"""Running maxima that decay, by which states with exponential gates are scaled."""

import torch
from torch import Tensor

from modules.precision import widen

NEVER = float("-inf")


def decayed_maximum(log_decay: Tensor, x: Tensor, start: Tensor | None = None, *, runs: Tensor | None = None) -> Tensor:
    """m_t = max(log_decay_t + m_{t-1}, x_t), from m = `start` before the row and from 0 in each further document.

    In log2(t) steps, each of which doubles the tokens that a maximum is over. Shape: log_decay and x (b, h, t), start
    (b, h) or None = 0, runs (b, t), equal within a document -> (b, h, t), in float32.
    """
    decay, m = widen(log_decay), widen(x)
    start = torch.zeros_like(m[..., 0]) if start is None else start
    begin = torch.zeros_like(decay[..., 1:])  # what is there before each later token that begins a document
    begins = torch.zeros_like(begin, dtype=torch.bool) if runs is None else (runs.diff() != 0).unsqueeze(1)
    begin = torch.cat((start.unsqueeze(-1), begin), dim=-1)
    first = torch.cat((torch.ones_like(begin[:, :, :1], dtype=torch.bool), begins.expand_as(decay[..., 1:])), dim=-1)
    m = torch.maximum(m, (decay + begin).where(first, NEVER))
    decay, back = decay.where(~first, NEVER), 1
    while back < m.shape[-1]:
        reached = decay[..., back:] + m[..., :-back]
        m = torch.cat((m[..., :back], torch.maximum(m[..., back:], reached)), dim=-1)
        decay, back = torch.cat((decay[..., :back], decay[..., back:] + decay[..., :-back]), dim=-1), 2 * back
    return m
