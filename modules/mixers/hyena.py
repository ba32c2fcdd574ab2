"""Hyena: gates around a convolution over the whole text, whose kernel a small network makes of the distance."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.long_conv import LongConvolution, PastState
from modules.mixers.recurrent import CausalConv
from modules.norm import fill
from modules.precision import widen
from modules.stream import Context
from tools import LoggingModule, log_io


class KernelLayer(LoggingModule):
    """W z + b in float32, with small matrices at first, as kernels are. For an optimizer W is no matrix.

    Shape: (n, _) -> (n, _).
    """

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        if self.bias is not None:
            fill(self.bias, 0.0)

    def extra_repr(self) -> str:
        out_dim, in_dim = self.weight.shape
        return f"in_features={in_dim}, out_features={out_dim}, bias={self.bias is not None}"

    @log_io("_ _ -> _ _")
    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, widen(self.weight), None if self.bias is None else widen(self.bias))


class ImplicitKernel(LoggingModule):
    """K_i = window_i(c) layers(features_i) for each channel c and distance i of max_seq_len. Arithmetic in float32.

    Poli et al. 2023, arXiv:2302.10866, section 3.3. The features are i / (max_seq_len - 1), and cosines and sines of
    `bands` frequencies, from 0 to bands - 1 turns in max_seq_len; the layers are sines of a learned `frequency` times
    W z + b, and a last matrix. The window falls to 1/100 within `slow_decay` of max_seq_len in the first channel and
    `fast_decay` of it in the last. Shape: distances (n,) -> (d, n).
    """

    def __init__(
        self, dim: int, *, max_seq_len: int, filter_dim: int, filter_layers: int, bands: int, frequency: float,
        fast_decay: float, slow_decay: float,
    ):
        super().__init__()
        self.max_seq_len, self.bands, self.start = max_seq_len, bands, frequency
        self.decays = [math.log(100) / share for share in (slow_decay, fast_decay)]
        widths = (2 * bands + 1, *[filter_dim] * (filter_layers + 1))
        self.layers = nn.ModuleList(KernelLayer(*pair) for pair in pairwise(widths))
        self.last, self.frequency = KernelLayer(filter_dim, dim, bias=False), nn.Parameter(torch.empty(filter_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill(self.frequency, self.start)

    def features(self, distances: Tensor) -> Tensor:
        """Shape: (n,) -> (n, 2 bands + 1)."""
        turns = torch.linspace(1e-4, self.bands - 1, self.bands, dtype=distances.dtype, device=distances.device)
        angles = 2 * math.pi / self.max_seq_len * distances.unsqueeze(-1) * turns
        share = distances.unsqueeze(-1) / max(1, self.max_seq_len - 1)
        return torch.cat((share, angles.cos(), -angles.sin()), dim=-1)

    def window(self, distances: Tensor) -> Tensor:
        """Shape: (n,) -> (n, d)."""
        decays = torch.linspace(*self.decays, len(self.last.weight), dtype=distances.dtype, device=distances.device)
        return torch.exp(-distances.unsqueeze(-1) / max(1, self.max_seq_len - 1) * decays)

    @log_io("_ -> d _")
    def forward(self, distances: Tensor) -> Tensor:
        distances = distances.to(widen(self.frequency).dtype)
        z = self.features(distances)
        for layer in self.layers:
            z = torch.sin(widen(self.frequency) * layer(z))
        return (self.last(z) * self.window(distances)).t()


class Hyena(LongConvolution):
    """out(x2 (kernel * (x1 v) + skip x1 v)), where a short convolution of three projections gives x1, x2 and v.

    Poli et al. 2023, arXiv:2302.10866, of order 2. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, max_seq_len: int, conv_len: int, kernel: ImplicitKernel):
        super().__init__(dim, max_seq_len=max_seq_len)
        self.kernel = kernel
        self.in_gate, self.out_gate, self.value = (Linear(dim, dim) for _ in range(3))
        self.conv = CausalConv(3 * dim, length=conv_len, bias=True, activation="none")
        self.out = Linear(dim, dim)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "Hyena":
        own = cfg.hyena
        kernel = ImplicitKernel(
            cfg.dim, max_seq_len=cfg.max_seq_len, filter_dim=own.filter_dim, filter_layers=own.filter_layers,
            bands=own.bands, frequency=own.frequency, fast_decay=own.fast_decay, slow_decay=own.slow_decay)
        return cls(cfg.dim, max_seq_len=cfg.max_seq_len, conv_len=own.conv_len, kernel=kernel)

    def make_kernel(self, number: int) -> Tensor:
        return self.kernel(torch.arange(number, device=self.skip.device))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: PastState | None = None) -> Tensor:
        read = torch.cat((self.in_gate(x), self.out_gate(x), self.value(x)), dim=-1)
        in_gate, out_gate, value = self.conv(read, context, cache and cache.conv).chunk(3, dim=-1)
        return self.out(out_gate * self.convolve(in_gate * value, context, cache))
