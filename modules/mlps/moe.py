"""Mixtures of experts: each token goes through a few of many MLPs, which a router chooses for it."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from config import LayerConfig, MoeConfig, override
from modules.across import per_process
from modules.linear import Linear
from modules.mlps.dense import DENSE, MLP
from modules.mlps.grouped import StackedLinear
from modules.precision import Float32Buffers, widen
from modules.stream import Carrying, Context, Stream
from tools import LoggingModule, log_io

TINY = 1e-20  # keeps a sum of scores above 0


class Routed(NamedTuple):
    """What a router decides for n tokens."""

    experts: Tensor  # (n, k) int64
    shares: Tensor  # (n, k), factors on what these experts give
    counts: Tensor  # (e,) the tokens of each expert


class Router(Float32Buffers):
    """Score all experts for each token, and choose the best k of them.

    Scores are a softmax over the experts (Shazeer et al. 2017, arXiv:1701.06538) or a sigmoid of each (DeepSeek-V3,
    arXiv:2412.19437). The shares are those of the chosen experts, with `renormalise` divided by their sum, times
    `scale`. With `num_groups`, a token chooses within the `top_groups` best groups; a group is as good as its best
    expert or, of sigmoids, as its best two together.

    With `balance_bias` a number of each expert is added to its score, or with `balance_logits` to its logit, for the
    choice alone. After each step it moves by
    `bias_rate` towards an equal load, so no loss is needed (Wang et al. 2024, arXiv:2408.15664). It is not learned.
    Shape: x (n, d) -> Routed; the logits and scores (n, e) in float32.
    """

    def __init__(self, dim: int, cfg: MoeConfig):
        super().__init__()
        self.cfg = cfg
        self.logits = Linear(dim, cfg.num_experts, bias=cfg.router_bias)
        self.balance = nn.Buffer(torch.empty(cfg.num_experts)) if cfg.balance_bias else None
        self.counts = nn.Buffer(torch.empty(cfg.num_experts), persistent=False)  # tokens of each expert in this step
        self.load = nn.Buffer(torch.empty(cfg.num_experts), persistent=False)  # in the last step; 1 = an equal share
        self.reset_parameters()

    def extra_repr(self) -> str:
        return f"top_k={self.cfg.top_k}, scores={self.cfg.scores}"

    def reset_parameters(self) -> None:
        for state in (self.balance, self.counts, self.load):
            if state is not None:
                nn.init.zeros_(state)

    @log_io
    def forward(self, x: Tensor) -> tuple[Routed, dict[str, Tensor]]:
        logits = widen(self.logits(x))
        scores = logits.sigmoid() if self.cfg.scores == "sigmoid" else logits.softmax(-1)
        experts = self.choose(logits if self.cfg.balance_logits else scores)
        shares = self.share(logits, scores, experts)
        if self.cfg.renormalise:
            shares = shares / (shares.sum(-1, keepdim=True) + TINY)
        chosen = experts.flatten()
        counts = torch.zeros_like(self.counts).scatter_add(0, chosen, torch.ones_like(chosen, dtype=torch.float32))
        of_all = per_process(counts)
        if self.training and torch.is_grad_enabled():
            self.counts.add_(of_all)
        return Routed(experts, shares * self.cfg.scale, counts), self.losses(logits, scores, of_all)

    @log_io("(b t) e -> (b t) k")
    def choose(self, scores: Tensor) -> Tensor:
        """The k best experts of each token."""
        ranks = scores.detach() if self.balance is None else scores.detach() + self.balance
        if self.cfg.num_groups > 1:
            groups = rearrange(ranks, "n (group e) -> n group e", group=self.cfg.num_groups)
            best = groups.topk(1 if self.cfg.scores == "softmax" else 2).values.sum(-1)
            allowed = torch.zeros_like(best).scatter(1, best.topk(self.cfg.top_groups).indices, 1.0).bool()
            ranks = rearrange(groups.where(allowed.unsqueeze(-1), -torch.inf), "n group e -> n (group e)")
        return ranks.topk(self.cfg.top_k).indices

    def share(self, logits: Tensor, scores: Tensor, experts: Tensor) -> Tensor:
        """The share of each chosen expert. Shape: (n, e), (n, e), (n, k) -> (n, k)."""
        return scores.gather(1, experts)

    def losses(self, logits: Tensor, scores: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """The losses of this layer, times their coefficients.

        balance: e * sum over experts of share of all choices * mean score; 1 if all are chosen alike. Fedus et al.
        2021, arXiv:2101.03961, equation 4. router_z: mean of logsumexp(logits)^2. Zoph et al. 2022, arXiv:2202.08906,
        equation 5.
        """
        found = {}
        if self.cfg.balance_loss:
            chances = (scores / scores.sum(-1, keepdim=True)).mean(0)
            found["balance"] = self.cfg.balance_loss * len(counts) * (counts / counts.sum() * chances).sum()
        if self.cfg.router_z_loss:
            found["router_z"] = self.cfg.router_z_loss * logits.logsumexp(-1).square().mean()
        return found

    def after_step(self) -> None:
        """Note the load of the step, and move the bias."""
        mean = self.counts.mean()
        self.load.copy_(self.counts / mean.clamp(min=1))
        if self.balance is not None:
            self.balance.add_((mean - self.counts).sign(), alpha=self.cfg.bias_rate)
        self.counts.zero_()


class SparseMixer(Router):
    """A router whose choices come one after the other, each with a softmax over the experts near the best that is left.

    Liu et al. 2024 (GRIN), arXiv:2409.12136, at inference: the best is chosen. In training they draw one of those near
    it, and correct the gradient for the draw; here the choice and the gradient are those of inference.
    Shape: x (n, d) -> Routed.
    """

    def share(self, logits: Tensor, scores: Tensor, experts: Tensor) -> Tensor:
        left, shares = logits, []
        for chosen in experts.split(1, dim=1):  # (n, 1), the best first
            best = logits.gather(1, chosen)
            is_far = (best - logits) / logits.abs().maximum(best) > self.cfg.margin
            shares.append(left.masked_fill(is_far, -torch.inf).softmax(-1).gather(1, chosen))
            left = left.scatter(1, chosen, -torch.inf)
        return torch.cat(shares, dim=1)


ROUTERS = {"softmax": Router, "sigmoid": Router, "sparsemixer": SparseMixer}


def routers(model: nn.Module) -> dict[str, Router]:
    """The router of each layer that has one, by the layer's name."""
    return {path.partition(".mlp.")[0]: part for path, part in model.named_modules() if isinstance(part, Router)}


def loads(routers: Mapping[str, Router], *, each: bool) -> dict[str, float]:
    """The load of experts in the last step as columns of a log; 1 = the mean of a layer. No columns without experts.

    max_load is that of the busiest expert of all layers, starved_experts the number of those without a token, and
    load.blocks.<i>.<expert> is that of each expert.
    """
    if not routers:
        return {}
    found = {path: router.load.tolist() for path, router in routers.items()}
    line = {"max_load": max(map(max, found.values())),
            "starved_experts": sum(load == 0 for layer in found.values() for load in layer)}
    return line | ({f"load.{path}.{number}": load for path, layer in found.items() for number, load in enumerate(layer)}
                   if each else {})


class SharedExpert(LoggingModule):
    """An MLP for every token, with `gated` times a sigmoid of the token (Qwen2-MoE). Dai et al. 2024, arXiv:2401.06066.

    Shape: (b, t, d) -> (b, t, d).
    """

    def __init__(self, mlp: MLP, dim: int, *, gated: bool = False):
        super().__init__()
        self.mlp, self.gate = mlp, Linear(dim, 1, bias=False) if gated else None

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) if self.gate is None else self.mlp(x) * self.gate(x).sigmoid()


class MoE(Carrying):
    """Each token goes through k of e experts; the result is the mean or sum of what they give, by their shares.

    No token is dropped: rows are sorted by their expert, so that time follows the experts that are used. With
    `weigh_inputs` the shares are factors on what the experts read (Llama 4).
    Shape: x (b, t, d) -> (b, t, d), through (b t k, f).
    """

    def __init__(
        self, router: Router, experts: MLP, *, shared: SharedExpert | None = None, weigh_inputs: bool = False,
        num_layers: int = 1,
    ):
        super().__init__()
        self.router, self.experts, self.shared = router, experts, shared
        self.weigh_inputs, self.num_layers = weigh_inputs, num_layers

    @classmethod
    def from_config(cls, cfg: LayerConfig) -> "MoE":
        kind, stack = DENSE[cfg.moe.expert], partial(StackedLinear, num_groups=cfg.moe.num_experts)
        shared = None
        if cfg.moe.shared_dim:
            mlp = kind.from_config(override(cfg, {"hidden_dim": cfg.moe.shared_dim}))
            shared = SharedExpert(mlp, cfg.dim, gated=cfg.moe.shared_gate)
        layers = [cfg.model.by_kind[cfg.model.kind_at(i)] for i in range(cfg.model.num_layers)]
        router = ROUTERS[cfg.moe.scores](cfg.dim, cfg.moe)
        return cls(router, kind(cfg.dim, **kind.options_of(cfg), linear=stack), shared=shared,
                   weigh_inputs=cfg.moe.weigh_inputs, num_layers=sum(layer.mlp == "moe" for layer in layers))

    def num_idle(self) -> int:
        """The parameters of the experts that a token is not sent to."""
        cfg, stacked = self.router.cfg, [part for part in self.experts.modules() if isinstance(part, StackedLinear)]
        each = sum(p.numel() // cfg.num_experts for part in stacked for p in part.parameters())
        return each * (cfg.num_experts - cfg.top_k)

    @log_io("b t d -> b t d")
    def forward(self, x: Tensor, context: Context, cache: None, stream: Stream) -> tuple[Tensor, Stream]:
        rows = rearrange(x, "b t d -> (b t) d")
        routed, losses = self.router(rows)
        y = rearrange(self.mix(rows, routed), "(b t) d -> b t d", b=len(x))
        for name, loss in losses.items():
            stream = stream.add_loss(name, loss / self.num_layers)  # the mean over layers
        return y if self.shared is None else y + self.shared(x), stream

    @log_io("(b t) d, (b t) k, (b t) k, e -> (b t) d")
    def mix(self, x: Tensor, routed: Routed) -> Tensor:
        """What the experts of each token give, by their shares."""
        top_k = routed.experts.shape[1]
        order = routed.experts.flatten().argsort(stable=True)  # (b t k), by expert
        ends = routed.counts.cumsum(0).int()
        shares = routed.shares.flatten()[order].unsqueeze(-1).type_as(x)
        rows = x.index_select(0, order // top_k)  # (b t k, d)
        y = self.experts(rows * shares, ends) if self.weigh_inputs else self.experts(rows, ends) * shares
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return reduce(y.index_select(0, back), "(n k) d -> n d", "sum", k=top_k)
