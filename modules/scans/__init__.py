"""Recurrences over time as functions of tensors: what carries the mixers that keep a state in place of keys and values.

    diagonal_scan       h_t = a_t h_{t-1} + b_t, each number for itself
    selective_scan      h_t = e^{step_t a} h_{t-1} + step_t x_t b_t, y_t = c_t h_t, with n states for each channel
    decayed_attention   S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T,  y_t = S_t^T q_t
    normalised_attention  the same with weights e^{i_t} of any size, and y_t over the sum of those weights
    delta_rule          the same with k_t (v_t - S^T k_t)^T: what is written replaces what was read
    erase_and_write     the same, what is read of S being chosen by a vector of its own
    ema                 h_t = q h_{t-1} + p x_t,  y_t = Re sum(gamma h_t), with complex numbers that no token changes
    low_rank_rule       S_t = diag(e^{g_t}) S_{t-1} + w_t (S_{t-1}^T e_t)^T + k_t v_t^T
    decayed_maximum     m_t = max(g_t + m_{t-1}, x_t)
    run_cell            a GRU, LSTM or sLSTM, token by token
    long_conv           y_t = sum over i of kernel_i x_{t-i}, over the whole text

Each works on a whole row at once, in time linear in its length, takes the state before the row (None = zeros) and
returns the one after it, so that a row can come in pieces of any length. Only long_conv has no state: it takes all
tokens before the row, and somewhat more than linear time. States, decays and sums are in float32
whatever the dtype of a model (float64 stays); y has the dtype of v or b.

`runs` (b, t) are equal within a document of a packed row, whose tokens are contiguous: no state passes from one to the
next. Padding needs no run of its own: zeros (v, b or k) add nothing to a state, which is zero before a text.
"""

from modules.scans.cells import run_cell
from modules.scans.convolution import long_conv
from modules.scans.decayed import decayed_attention
from modules.scans.delta import delta_rule, erase_and_write, low_rank_rule
from modules.scans.diagonal import diagonal_scan
from modules.scans.ema import ema
from modules.scans.maximum import decayed_maximum
from modules.scans.normalised import normalised_attention
from modules.scans.selective import selective_scan

__all__ = ["decayed_attention", "decayed_maximum", "delta_rule", "diagonal_scan", "ema", "erase_and_write",
           "long_conv", "low_rank_rule", "normalised_attention", "run_cell", "selective_scan"]
