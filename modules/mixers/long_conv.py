"""Convolutions whose kernels are as long as a text: what they keep of one, and kernels that are learned freely."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from modules.linear import Linear
from modules.mixers.recurrent import Recurrent, State, runs_of
from modules.precision import full_precision, widen
from modules.scans import long_conv
from modules.short_conv import without_padding
from modules.stream import Context
from tools import log_io


class PastState(State):
    """A state, and what a convolution over the whole text read so far, which grows with the text as keys do.

    `inputs` are those of `length` tokens, with room for `max_len`; `kernel` is that of the mixer, which is the same for
    all rows. Shape: inputs (b, max_len, d), kernel (d, n).
    """

    def __init__(self, max_len: int):
        super().__init__()
        self.max_len, self.length = max_len, 0
        self.inputs: Tensor | None = None
        self.kernel: Tensor | None = None

    def append(self, u: Tensor) -> Tensor:
        """Append the inputs of t tokens; return those of the s tokens before them. Shape: (b, t, d) -> (b, s, d).

        Raises ValueError if the cache is full.
        """
        start, stop = self.length, self.length + u.shape[1]
        if stop > self.max_len:
            raise ValueError(f"the cache holds {self.max_len} tokens, not {stop}")
        if self.inputs is None:
            self.inputs = u.new_empty(len(u), self.max_len, u.shape[2])
        self.inputs[:, start:stop], self.length = u, stop
        return self.inputs[:, :start]

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        super().keep_rows(rows, padding=padding)
        self.length -= padding
        self.inputs = self.inputs[rows].roll(-padding, dims=1)


class LongConvolution(Recurrent):
    """A mixer whose tokens are convolved with a kernel of max_seq_len numbers for each channel.

    `make_kernel(n)` gives the first n of them, (d, n) in float32; `skip` is a factor on the token itself. A token of a
    longer text reads the last max_seq_len tokens, as the kernel has no further numbers.
    """

    def __init__(self, dim: int, *, max_seq_len: int):
        super().__init__()
        self.max_seq_len, self.skip = max_seq_len, nn.Parameter(torch.empty(dim))

    def make_cache(self, max_len: int) -> PastState:
        return PastState(max_len)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.skip)

    def kernel_for(self, t: int, cache: PastState | None) -> Tensor:
        """The numbers that t tokens need, or of a cache those for all of its tokens, made once."""
        if cache is not None and cache.kernel is not None:
            return cache.kernel
        with full_precision(self.skip.device.type):
            kernel = self.make_kernel(min(self.max_seq_len, t if cache is None else cache.max_len))
        if cache is not None:
            cache.kernel = kernel
        return kernel

    @log_io("b t d -> b t d")
    def convolve(self, u: Tensor, context: Context, cache: PastState | None) -> Tensor:
        """u with the kernel, and `skip` times u; nothing passes from padding or from another document."""
        kernel, past = self.kernel_for(u.shape[1], cache), None if cache is None else cache.append(u)
        y = long_conv(u, kernel, past, runs=runs_of(context))
        return (y + widen(self.skip) * widen(u)).type_as(u)


class LongConv(LongConvolution):
    """out(y) sigmoid(gate(y)) with y = gelu(kernel * x + skip x), and a kernel whose numbers are learned freely.

    Fu et al. 2023, arXiv:2302.06646. The numbers of the kernel count as nearer to 0 by `threshold`, and those within it
    as 0 (squash). At first they fall with the distance, in later channels faster. Shape: x (b, t, d) -> (b, t, d).
    """

    def __init__(self, dim: int, *, max_seq_len: int, threshold: float):
        super().__init__(dim, max_seq_len=max_seq_len)
        self.threshold, self.kernel = threshold, nn.Parameter(torch.empty(dim, max_seq_len))
        self.gate, self.out = Linear(dim, dim), Linear(dim, dim)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "LongConv":
        return cls(cfg.dim, max_seq_len=cfg.max_seq_len, threshold=cfg.long_conv.threshold)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        dim, length = self.kernel.shape
        channels, places = (torch.arange(size, dtype=torch.float32, device=self.kernel.device) / size
                            for size in (dim, length))
        fall = torch.exp(-max(1, dim // 2) ** channels.unsqueeze(-1) * places)
        self.kernel.normal_(std=0.02).mul_(fall)

    def make_kernel(self, number: int) -> Tensor:
        return nn.functional.softshrink(widen(self.kernel[:, :number]), self.threshold)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: PastState | None = None) -> Tensor:
        u = without_padding(x, context.positions)
        y = nn.functional.gelu(self.convolve(u, context, cache))
        return self.out(y) * self.gate(y).sigmoid()
