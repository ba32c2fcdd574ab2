"""A mixture of experts with a balance loss, as a new word of the `mlp` flag."""

import torch
from einops import einsum
from torch import Tensor, nn

from config import LayerConfig, flags
from modules.stream import Carrying, Context, Stream
from tools import log_io


@flags
class MoEConfig:
    """The numbers of mlp=moe."""

    num_experts: int = 3
    top_k: int = 2
    hidden_dim: int = 20


class MoE(Carrying):
    """Each token goes through its top_k experts. Balance loss: Fedus et al. 2021, arXiv:2101.03961, equation 4.

    Shape: x (b, t, d) -> (b, t, d). All experts see all tokens, so that shapes are fixed.
    """

    roles = {"up": "matrix", "out": "matrix"}

    def __init__(self, dim: int, *, num_experts: int, hidden_dim: int, top_k: int):
        super().__init__()
        self.router, self.top_k = nn.Linear(dim, num_experts, bias=False), top_k
        self.up = nn.Parameter(torch.empty(num_experts, dim, hidden_dim))
        self.out = nn.Parameter(torch.empty(num_experts, hidden_dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.up, std=0.1)
        nn.init.normal_(self.out, std=0.1)

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MoE":
        return cls(cfg.dim, num_experts=cfg.moe.num_experts, hidden_dim=cfg.moe.hidden_dim, top_k=cfg.moe.top_k)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: None, stream: Stream) -> tuple[Tensor, Stream]:
        shares = self.router(x).softmax(-1)  # (b, t, e)
        chosen = torch.zeros_like(shares).scatter(-1, shares.topk(self.top_k).indices, 1.0)
        hidden = einsum(x, self.up, "b t d, e d f -> b t e f").relu()
        y = einsum(hidden, self.out, shares * chosen, "b t e f, e f d, b t e -> b t d")
        balance = (chosen.mean((0, 1)) * shares.mean((0, 1))).sum() * shares.shape[-1]
        return y, stream.add_loss("balance", 0.01 * balance)
