"""The part that acts on each position separately: the `mlp` and `activation` flags."""

import torch
from torch import Tensor, nn

from config import LayerConfig
from tools import LoggingModule, log_io


class ReLU2(nn.Module):
    """relu(x)^2. So et al. 2021, arXiv:2109.08668. Shape: any."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu2": ReLU2,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
}


class MLP(LoggingModule):
    """out(act(up(x))): two matrices with a nonlinearity between them. Vaswani et al. 2017.

    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    def __init__(
        self, dim: int, *, hidden_dim: int, activation: str = "gelu", bias: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.act = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.out = nn.Linear(hidden_dim, dim, bias=bias)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MLP":
        return cls(cfg.dim, hidden_dim=cfg.hidden_width, activation=cfg.activation,
                   bias=cfg.mlp_bias, dropout=cfg.mlp_dropout)

    @log_io("b t d -> b t f")
    def hidden(self, x: Tensor) -> Tensor:
        return self.act(self.up(x))

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.hidden(x)))


class GLU(MLP):
    """out(act(gate(x)) * up(x)): a gate for each hidden unit; silu makes it SwiGLU, gelu GeGLU.

    Shazeer 2020, arXiv:2002.05202.
    Shape: (b, t, d) -> (b, t, d), through (b, t, f).
    """

    def __init__(
        self, dim: int, *, hidden_dim: int, activation: str = "silu", bias: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(dim, hidden_dim=hidden_dim, activation=activation, bias=bias,
                         dropout=dropout)
        self.gate = nn.Linear(dim, hidden_dim, bias=bias)

    @log_io("b t d -> b t f")
    def hidden(self, x: Tensor) -> Tensor:
        return self.act(self.gate(x)) * self.up(x)


MLPS = {"mlp": MLP, "glu": GLU, "none": None}
