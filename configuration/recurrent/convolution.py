"""The numbers of convolutions over a whole text, whose kernels have max_seq_len numbers for each channel."""

from configuration.checked import flags
from configuration.checks import require_not_negative, require_positive


@flags
class HyenaConfig:
    """The numbers of mixer=hyena."""

    conv_len: int = 3  # tokens that the convolution of gates and values reads, its own included
    filter_dim: int = 64  # width of the network that makes the kernel of the distance
    filter_layers: int = 2  # its square layers, between the first and the last
    bands: int = 16  # cosines that it reads, and sines: from 0 to bands - 1 turns in max_seq_len
    frequency: float = 14.0  # factor on what its sines read, at first; learned
    fast_decay: float = 0.3  # share of max_seq_len in which the kernel of the last channel falls to 1/100, besides what the network makes
    slow_decay: float = 1.5  # the same of the first channel

    def __post_init__(self):
        require_positive(self, "conv_len", "filter_dim", "bands", "frequency", "fast_decay", "slow_decay")
        require_not_negative(self, "filter_layers")
        if self.fast_decay > self.slow_decay:
            raise ValueError(f"fast_decay={self.fast_decay} is slower than slow_decay={self.slow_decay}: it must be at "
                             "most as large")


@flags
class LongConvConfig:
    """The numbers of mixer=long_conv."""

    threshold: float = 0.003  # taken from the size of each number of the kernel; smaller ones count as 0

    def __post_init__(self):
        require_not_negative(self, "threshold")
