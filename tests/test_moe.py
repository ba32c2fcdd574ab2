"""Mixtures of experts against their formulas: the experts of each token, their shares, the losses and the load."""

import math

import pytest
import torch
from helpers import assert_close, flops_of, loss_of, randomise, small_config, small_model, small_tokens
from torch import nn
from torch.nn import functional as F

from config import TrainConfig
from data import Batch
from model import Model
from modules.mlps.grouped import grouped_mm, grouped_outer
from modules.mlps.moe import MoE
from modules.stream import Stream
from optim import roles
from training.step import TrainState

# ---- products of groups of rows ----

ENDS = torch.tensor([2, 2, 7, 9], dtype=torch.int32)  # the second group has no rows


@pytest.mark.parametrize(("width", "dtype"), [(5, torch.float64), (5, torch.float32), (8, torch.float32),
                                              (8, torch.bfloat16)], ids=str)
def test_each_group_of_rows_meets_its_own_matrix(width, dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(9, width, dtype=dtype), torch.randn(4, width, 2 * width, dtype=dtype)
    parts = [x[:2] @ weight[0], x[2:7] @ weight[2], x[7:] @ weight[3]]
    tolerance = "bfloat16" if dtype == torch.bfloat16 else "rounding"
    assert_close(grouped_mm(x, weight, ENDS), torch.cat(parts), tolerance)
    expected = torch.stack([x[:2].mT @ parts[0], torch.zeros_like(weight[0]), x[2:7].mT @ parts[1],
                            x[7:].mT @ parts[2]])
    assert_close(grouped_outer(x, torch.cat(parts), ENDS), expected, "bfloat16" if dtype != torch.float64 else "same")


def test_their_gradients_are_right_and_they_are_operations_of_fixed_shape():
    torch.manual_seed(0)
    x, y, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True)
                    for shape in ((9, 5), (9, 3), (4, 5, 3)))
    for operation, inputs in ((grouped_mm, (x, weight, ENDS)), (grouped_outer, (x, y, ENDS))):
        assert torch.autograd.gradcheck(operation, inputs) and torch.autograd.gradgradcheck(operation, inputs)
        torch.library.opcheck(operation, inputs)


# ---- the layer ----

EXPERTS = {"mlp": "moe", "moe.num_experts": 6, "moe.top_k": 2, "hidden_dim": 20}
KINDS = {
    "A": {}, "B": {"moe.renormalise": False},
    "D": {"moe.scores": "sigmoid", "moe.num_groups": 3, "moe.top_groups": 2, "moe.balance_bias": True,
          "moe.scale": 2.5, "moe.top_k": 3, "moe.shared_dim": 28},
    "E": {"moe.scores": "sigmoid", "moe.renormalise": False, "moe.top_k": 1, "moe.weigh_inputs": True},
    "groups of a softmax": {"moe.renormalise": False, "moe.num_groups": 2, "moe.top_groups": 1},
    "gpt-oss": {"moe.expert": "clamped_glu", "mlp_bias": True, "moe.router_bias": True, "activation": "quick_gelu"},
    "in turn": {"moe.scores": "sparsemixer", "moe.margin": 2.0, "moe.renormalise": False, "moe.top_k": 3},
    "bias of logits": {"moe.scores": "sigmoid", "moe.balance_bias": True, "moe.balance_logits": True},
    "gated": {"moe.shared_dim": 16, "moe.shared_gate": True, "moe.expert": "mlp"},
}


def expert(layer: MoE, number: int, x: torch.Tensor) -> torch.Tensor:
    """What an expert gives for one token: an MLP of its own matrices."""
    def linear(name, x):
        part = getattr(layer.experts, name)
        return F.linear(x, part.weight[number], None if part.bias is None else part.bias[number])

    up = linear("up", x)
    kind = type(layer.experts).__name__
    if kind == "GLU":
        up = layer.experts.act(linear("gate", x)) * up
    elif kind == "ClampedGLU":
        up = layer.experts.act(linear("gate", x).clamp(max=7.0)) * (up.clamp(-7.0, 7.0) + 1)
    else:
        up = layer.experts.act(up)
    return linear("out", up)


def of_token(layer: MoE, x: torch.Tensor) -> torch.Tensor:
    """The layer's result for one token, one expert after the other."""
    cfg, logits = layer.router.cfg, layer.router.logits(x)
    scores = logits.sigmoid() if cfg.scores == "sigmoid" else logits.softmax(0)
    ranks = logits if cfg.balance_logits else scores
    ranks = ranks if layer.router.balance is None else ranks + layer.router.balance
    numbers, size = range(cfg.num_experts), cfg.num_experts // cfg.num_groups
    groups = [list(numbers[i:i + size]) for i in numbers[::size]]
    best = 1 if cfg.scores == "softmax" else 2
    groups.sort(key=lambda group: -sum(sorted((ranks[i].item() for i in group), reverse=True)[:best]))
    allowed = sum(groups[:cfg.top_groups], []) if cfg.num_groups > 1 else list(numbers)
    chosen = sorted(allowed, key=lambda i: -ranks[i].item())[:cfg.top_k]
    total = sum(scores[i] for i in chosen) if cfg.renormalise else 1.0
    y = torch.zeros_like(x)
    for place, i in enumerate(chosen):
        score = scores[i]
        if cfg.scores == "sparsemixer":  # a softmax over those that are left and near
            near = [j for j in numbers if j not in chosen[:place] and
                    (logits[i] - logits[j]) <= cfg.margin * max(logits[j].abs(), logits[i])]
            score = logits[i].exp() / logits[near].exp().sum()
        share = cfg.scale * score / total
        y = y + (expert(layer, i, share * x) if cfg.weigh_inputs else share * expert(layer, i, x))
    if layer.shared is not None:
        shared = layer.shared.mlp(x)
        y = y + (shared if layer.shared.gate is None else shared * layer.shared.gate(x).sigmoid())
    return y


def layer_of(**flags) -> MoE:
    return small_model(**EXPERTS | flags).blocks[0].mlp.branch


@pytest.mark.parametrize("kind", KINDS)
def test_each_token_gets_what_its_experts_give_by_their_shares(kind):
    layer, x = layer_of(**KINDS[kind]), torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    y, _ = layer(x, None, None, Stream(x))
    expected = torch.stack([torch.stack([of_token(layer, token) for token in row]) for row in x])
    assert_close(y, expected, "same")
    parameters = [p for p in layer.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in (y, expected)]
    assert_close(*gradients, "parity_grad")


@pytest.mark.parametrize("changes", [
    {"moe.top_k": 1}, {"moe.renormalise": True}, {"moe.scale": 1.0}, {"moe.top_groups": 3}, {"moe.scores": "softmax"},
    {"moe.weigh_inputs": True}, {"moe.expert": "clamped_glu"}], ids=str)
def test_another_flag_is_another_layer(changes):
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    flags = KINDS["D"] | {"moe.renormalise": False}
    layer, other = layer_of(**flags), layer_of(**flags | changes)
    other.load_state_dict(layer.state_dict())
    assert not torch.allclose(layer(x, None, None, Stream(x))[0], other(x, None, None, Stream(x))[0], atol=1e-3)


def test_the_losses_are_their_formulas_and_the_mean_over_the_layers_that_have_experts():
    flags = {"layers": ("base", "routed", "routed"), "num_layers": 3, "kinds": {"routed": EXPERTS | {
        "moe.balance_loss": 0.5, "moe.router_z_loss": 0.25, "moe.top_k": 2}}}
    model, tokens = small_model(**flags), small_tokens()
    inputs = []
    for block in model.blocks[1:]:
        block.mlp.branch.router.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0])))
    losses = model.read(tokens).losses
    balance, z = 0.0, 0.0
    for router, x in inputs:
        logits = router.logits(x)
        chances, chosen = logits.softmax(-1), logits.topk(2).indices.flatten()
        shares = torch.tensor([(chosen == i).float().mean() for i in range(6)])
        balance += 0.5 * 6 * (shares * chances.mean(0)).sum() / 2
        z += 0.25 * logits.exp().sum(-1).log().square().mean() / 2
    assert_close(losses, {"balance": balance, "router_z": z}, "same")


def test_experts_with_an_equal_load_have_a_balance_loss_of_its_coefficient():
    layer = layer_of(**{"moe.balance_loss": 0.3})
    logits = torch.eye(6)
    assert_close(layer.router.losses(logits, logits.softmax(-1), torch.full((6,), 4.0))["balance"], torch.tensor(0.3),
                 "rounding")


# ---- the load ----


def train_state(**flags) -> TrainState:
    torch.manual_seed(0)
    return TrainState(Model(small_config(**EXPERTS | flags)), TrainConfig(precision="float32", lr=1e-3))


def batch(seed: int = 0) -> Batch:
    return Batch(small_tokens(4, 16, seed=seed), small_tokens(4, 16, seed=seed + 1), None, 64)


def test_the_bias_rises_for_experts_with_few_tokens_after_each_step_and_is_never_learned():
    state = train_state(**{"moe.balance_bias": True, "moe.bias_rate": 0.01, "moe.top_k": 1})
    router = state.model.blocks[0].mlp.branch.router
    with torch.no_grad():
        router.logits.weight.zero_()
        router.balance.copy_(torch.tensor([0.5, 0.4, 0.0, 0.0, 0.0, 0.0]))
    before = router.balance.clone()
    state.step([batch(), batch(2)], number=1, lr=0.0, noise=[])
    assert_close(router.load, torch.tensor([6.0, 0, 0, 0, 0, 0]), "rounding")  # all chose the first
    assert_close(router.balance - before, 0.01 * torch.tensor([-1.0, 1, 1, 1, 1, 1]), "rounding")
    assert "blocks.0.mlp.branch.router.balance" in state.model.state_dict()
    assert "balance" not in " ".join(name for name, _ in state.model.named_parameters())


def test_evaluation_and_generation_count_for_no_load():
    state = train_state(**{"moe.balance_bias": True})
    router = state.model.blocks[0].mlp.branch.router
    with torch.no_grad():
        state.model(small_tokens())
    state.objective.score(batch())
    assert router.counts.sum() == 0
    loss_of(state.model, small_tokens(), small_tokens(seed=1))
    assert router.counts.sum() == 2 * 26


def test_the_bias_brings_a_load_that_a_router_of_its_own_does_not():
    loads = []
    for flags in ({}, {"moe.balance_bias": True, "moe.bias_rate": 0.002}):
        state = train_state(**{"moe.router_bias": True} | flags)
        with torch.no_grad():  # two experts that most tokens prefer
            state.model.blocks[0].mlp.branch.router.logits.bias[:2] = 0.15
        for number in range(1, 61):
            state.step([batch(number)], number=number, lr=0.0, noise=[])
        loads.append(state.model.blocks[0].mlp.branch.router.load.max().item())
    assert loads[1] < 1.5 < 2.0 < loads[0]


# ---- sizes, roles, cost ----


def test_stacked_matrices_are_matrices_for_the_optimizer_and_drawn_as_the_flags_say():
    torch.manual_seed(0)
    model = Model(small_config(**EXPERTS | {"init": "fan_in", "out_init": "depth", "num_layers": 2, "mlp_bias": True}))
    experts, role_of = model.blocks[0].mlp.branch.experts, roles(model)
    assert {role_of[f"blocks.0.mlp.branch.experts.{name}.weight"] for name in ("up", "gate", "out")} == {"matrix"}
    assert role_of["blocks.0.mlp.branch.experts.up.bias"] == "vector"
    assert experts.up.weight.std().item() == pytest.approx(24**-0.5, rel=0.1)
    assert experts.out.weight.std().item() == pytest.approx(20**-0.5 / math.sqrt(4), rel=0.1)
    assert experts.up.bias.abs().max() == 0


def test_time_follows_the_experts_of_a_token_and_not_all_of_them():
    few, many, more = (flops_of(small_config(**EXPERTS | {"moe.num_experts": number, "moe.top_k": top_k}), 16)
                       for number, top_k in ((4, 2), (16, 2), (16, 4)))
    one = 3 * 2 * 3 * 24 * 20 * 2  # forward and backward, of three matrices in two layers
    router = 3 * 2 * 24 * 2  # an expert more to score
    assert many - few == pytest.approx(12 * router)
    assert more - many == pytest.approx(2 * one)


def test_bfloat16_and_autocast_are_near_float32():
    model, tokens = small_model(**EXPERTS), small_tokens()
    with torch.no_grad():
        expected = model(tokens)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(model(tokens), expected, "rounded weights")
        assert_close(model.to(torch.bfloat16)(tokens).float(), expected, "rounded weights")
    assert nn.utils.parameters_to_vector(randomise(model.float()).parameters()).dtype == torch.float32


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"moe.top_k": 9}, "moe.top_k=9 is more than the 8 experts that a token can choose from"),
    ({"moe.num_groups": 3}, "moe.num_groups=3 does not divide num_experts=8"),
    ({"moe.num_groups": 2, "moe.top_groups": 3}, "moe.top_groups=3 is more than num_groups=2"),
    ({"moe.num_groups": 4, "moe.top_k": 3}, "moe.top_k=3 is more than the 2 experts"),
    ({"moe.num_groups": 8, "moe.scores": "sigmoid"}, "leaves one expert in a group"),
    ({"moe.scores": "sparsemixer", "moe.balance_bias": True}, "scores=sparsemixer takes the best experts in turn"),
    ({"moe.margin": 0.1}, "moe.margin=0.1 would change nothing"),
    ({"moe.shared_gate": True}, "moe.shared_gate=True would change nothing"),
    ({"moe.balance_loss": -1.0}, "moe.balance_loss=-1.0"),
    ({"mlp": "glu", "moe.top_k": 3}, "moe.top_k=3 would change nothing: it acts only when a layer has moe"),
], ids=str)
def test_what_cannot_be_is_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**{"mlp": "moe"} | flags)
