"""Linear attention whose weights are exponentials of any size, over the sum of its weights: the memory of an mLSTM."""

import torch
from torch import Tensor

from modules.precision import widen
from modules.scans.decayed import decayed_attention
from modules.scans.maximum import decayed_maximum


def normalised_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, i: Tensor, state: Tensor | None = None, m: Tensor | None = None, *,
    eps: float, runs: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y_t = S_t^T q_t / (max(|n_t^T q_t|, 1) + eps e^{m_t}), S_t = e^{g_t} S_{t-1} + e^{i_t} k_t v_t^T, g <= 0.

    n is the same sum of keys alone, one more value of 1, and m_t = max(g_t + m_{t-1}, i_t) from 0. Beck et al. 2024,
    arXiv:2405.04517. S and n are kept divided by e^c with c = max(m, 0), so that no weight in them is above 1: they are
    then a decayed_attention with log decays g_t + c_{t-1} - c_t and log weights i_t - c_t. As c leaves y as it is, no
    gradient goes through it.

    Shape: q and k (b, h, t, n), v (b, h, t, p), g and i (b, h, t), state (b, h, n, p + 1), m (b, h), both or neither
    None -> (b, h, t, p), (b, h, n, p + 1), (b, h). In float32; float64 stays.
    """
    g, i = widen(g), widen(i)
    largest = decayed_maximum(g, i, m, runs=runs)
    c = largest.detach().clamp(min=0.0)
    g = g + before(c, m, runs) - c
    k = widen(k) * (i - c).exp().unsqueeze(-1)
    v = torch.cat((widen(v), torch.ones_like(g).unsqueeze(-1)), dim=-1)
    sums, state = decayed_attention(q, k, v, g, state, runs=runs)
    below = torch.maximum(sums[..., -1].abs(), (-c).exp()) + eps * (largest - c).exp()
    return sums[..., :-1] / below.unsqueeze(-1), state, largest[..., -1]


def before(c: Tensor, m: Tensor | None, runs: Tensor | None) -> Tensor:
    """c before each token: from m before the row, and 0 before a further document.

    Shape: (b, h, t), (b, h) or None = 0, (b, t) -> (b, h, t).
    """
    first = torch.zeros_like(c[..., :1]) if m is None else m.detach().clamp(min=0.0).unsqueeze(-1)
    earlier = c[..., :-1] if runs is None else c[..., :-1].where((runs.diff() == 0).unsqueeze(1), 0.0)
    return torch.cat((first, earlier), dim=-1)
