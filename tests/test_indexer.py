"""The lightning indexer against its formula: the keys that it chooses, what attention makes of them, and its loss."""

import math

import pytest
import torch
from helpers import assert_close, flops_of, loss_of, randomise, small_config, small_model, small_tokens

from config import Config, TrainConfig, override
from data import Batch
from model import Model
from modules.mixers.indexer import Indexer
from modules.stream import Context, Stream, make_context
from objective import NextToken
from optim import roles
from showing.gallery import cached_numbers, picture
from training.step import TrainState

INDEXED = {"indexer.top_k": 3, "indexer.num_heads": 5, "indexer.head_dim": 8, "mlp": "none"}
LATENT = INDEXED | {"mixer": "latent", "latent.rope_dim": 4, "latent.nope_dim": 6}
KINDS = {
    "shared heads": {"attention.num_kv_heads": 2}, "a window": {"attention.window": 5, "rope.fraction": 2 / 3,
                                                                "indexer.head_dim": 12},
    "distances, sinks, a cap": {"position": "alibi", "attention.sinks": True, "attention.softcap": 2.0},
    "shared values and table": {"position": "t5", "attention.value_residual": "learned"},
    "latent": LATENT | {"latent.q_rank": 10, "rope.layout": "interleaved", "indexer.head_dim": 9},
    "latent, queries from the stream": LATENT | {"attention.window": 6},
}
T = 9


def turned(x: torch.Tensor, channels: int) -> torch.Tensor:
    """Rotate pairs (i, i + channels / 2) of the first channels, by the place in the text. Shape: (..., t, p)."""
    half = channels // 2
    angles = torch.arange(T)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    first, second, rest = x.split((half, half, x.shape[-1] - channels), dim=-1)
    return torch.cat((first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin(), rest),
                     dim=-1)


def index_scores(indexer: Indexer, x: torch.Tensor, source: torch.Tensor, channels: int) -> torch.Tensor:
    """I of every query and key, one head at a time. Shape: (b, t, t)."""
    heads, width = indexer.cfg.num_heads, indexer.cfg.head_dim
    k = x @ indexer.k.weight.T
    k = (k - k.mean(-1, keepdim=True)) / (k.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    k = turned(k * indexer.k_norm.scale + indexer.k_norm.bias, channels)
    total = 0.0
    for head, rows in enumerate(indexer.q.weight.split(width)):
        near = (turned(source @ rows.T, channels) @ k.mT).clamp(min=0)
        total = total + (x @ indexer.weigh.weight[head])[..., None] * near / math.sqrt(width * heads)
    return total


def parts_of(model: Model, layer: int, x: torch.Tensor, context: Context, stream: Stream):
    """Queries, keys and values of each head (b, h, t, p); of the indexer, the source of queries and the rotation."""
    branch, cfg = model.blocks[layer].mixer.branch, model.cfg.at(layer)
    if cfg.mixer == "latent":
        source = branch.q.norm(branch.q.down(x)) if cfg.latent.q_rank else x
        return (*branch.expand(*branch.project(x, context.positions)), source, cfg.latent.rope_dim)
    q, k, v = branch.project(x, context.positions)
    v = v if branch.mix is None else branch.mix(v, stream)
    k, v = (y.repeat_interleave(4 // k.shape[1], dim=1) for y in (k, v))
    channels = round(cfg.indexer.head_dim * cfg.rope.fraction) if cfg.position == "rope" else 0
    return q, k, v, x, channels


def plainly(model: Model, layer: int, x: torch.Tensor, context: Context, stream: Stream):
    """The output of the branch and the loss of its indexer, one query at a time."""
    branch, cfg = model.blocks[layer].mixer.branch, model.cfg.at(layer)
    q, k, v, source, channels = parts_of(model, layer, x, context, stream)
    scores = index_scores(branch.indexer, x.detach(), source.detach(), channels)
    bias = torch.zeros(4, T, T, dtype=x.dtype)
    if cfg.position in ("alibi", "t5"):
        table = model.blocks[0].mixer.branch.distance_bias
        bias = table(context.positions, context.positions, causal=True)
    y, loss = torch.zeros_like(v), 0.0
    for row in range(len(x)):
        for t in range(T):
            seen = range(max(0, t + 1 - (cfg.attention.window or T)), t + 1)
            chosen = sorted(seen, key=lambda s: (-scores[row, t, s].item(), s))[:cfg.indexer.top_k]
            z = k[row, :, chosen] @ q[row, :, t, :, None] * q.shape[-1] ** -0.5
            z = z[..., 0] if cfg.attention.softcap is None else 2.0 * (z[..., 0] / 2.0).tanh()
            z = (z + bias[:, t, chosen]).exp()
            sink = branch.attend.sinks.exp()[:, None] if cfg.attention.sinks else 0.0
            weights = z / (z.sum(-1, keepdim=True) + sink)
            y[row, :, t] = (weights[..., None] * v[row, :, chosen]).sum(1)
            p, found = (weights.sum(0) / weights.sum()).detach(), scores[row, t, chosen]
            loss = loss + (p * (p.log() - found + found.exp().sum().log())).sum()
    return branch.out(y.transpose(1, 2).flatten(2)), loss / (len(x) * T * model.cfg.num_layers)


@pytest.mark.parametrize("kind", KINDS)
def test_each_query_attends_to_its_best_keys_and_the_indexer_learns_what_it_attends_to(kind):
    model = small_model(**INDEXED | {"indexer.loss": 0.7} | KINDS[kind]).double()
    x, context = torch.randn(2, T, 24, dtype=torch.float64), Context(torch.arange(T))
    stream = Stream(x)
    for layer in range(2):
        branch = model.blocks[layer].mixer.branch
        expected, loss = plainly(model, layer, x, context, stream)
        y, after = branch(x, context, None, stream)
        learnt = after.losses["indexer"] - stream.losses.get("indexer", 0.0)
        assert_close([y, learnt], [expected, 0.7 * loss], "same")
        parameters = list(branch.parameters())
        found, wanted = (torch.autograd.grad(out.square().sum() + part, parameters, retain_graph=True)
                         for out, part in ((y, learnt), (expected, 0.7 * loss)))
        assert_close(found, wanted, "same")
        stream = after._replace(losses={name: value.detach() for name, value in after.losses.items()},
                                carried={name: value.detach() for name, value in after.carried.items()})


@pytest.mark.parametrize("flags", [INDEXED, LATENT | {"latent.q_rank": 10}], ids=["attention", "latent"])
def test_its_loss_reaches_the_indexer_alone_and_no_other_loss_does(flags):
    model = small_model(**flags)
    hidden = model.read(small_tokens())
    own = {name for name, _ in model.named_parameters() if ".indexer." in name}
    names, parameters = zip(*model.named_parameters(), strict=True)
    for loss, taught in ((hidden.losses["indexer"], own), (hidden.last.square().sum(), {*names} - own)):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        reached = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        assert reached == taught - {"head.unembed.weight"} and reached


@pytest.mark.parametrize("flags", [
    {}, {"mixer": "latent", "latent.rope_dim": 4}, {"attention.window": 5, "attention.backend": "eager"},
    {"position": "t5"}, {"attention.num_kv_heads": 2, "attention.sinks": True}], ids=str)
def test_with_as_many_keys_as_tokens_it_is_dense_attention_to_the_bit(flags):
    flags = {"max_seq_len": 64} | flags
    indexed, dense = small_model(**INDEXED | flags | {"indexer.top_k": 40}), small_model(mlp="none", **flags)
    dense.load_state_dict({name: x for name, x in indexed.state_dict().items() if ".indexer." not in name})
    tokens, documents = small_tokens(t=40), torch.arange(40).expand(2, -1) // 17
    with torch.no_grad():
        for how in ({}, {"documents": documents}, {"positions": torch.arange(40) - torch.tensor([[0], [9]])}):
            assert torch.equal(indexed(tokens, **how), dense(tokens, **how))
        fewer = small_model(**INDEXED | flags | {"indexer.top_k": 4})
        assert not torch.allclose(fewer(tokens), dense(tokens), atol=1e-3)


WAYS = {"causal": {}, "both ways": {"causal": False}, "padding": {"positions": torch.arange(T) - torch.tensor(
    [[0], [4]])}, "documents": {"documents": torch.tensor([[0] * 2 + [1] * 7, [0] * 5 + [1] * 4])}}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("flags", [{}, {"attention.window": 4, "attention.global_tokens": 1}], ids=str)
def test_it_chooses_as_many_keys_as_it_may_of_those_that_a_query_sees(flags, how):
    model, x = small_model(**INDEXED | flags), torch.randn(2, T, 24)
    indexer, how = model.blocks[0].mixer.branch.indexer, {"positions": None, "documents": None, "causal": True} | how
    context = make_context(small_tokens(t=T), source=None, num_cached=None, patterns=model.patterns, **how)
    chosen = indexer(x, x, context).chosen
    places = context.positions.expand(2, -1)
    for row in range(2):
        for i in range(T):
            def sees(j: int, row: int = row, i: int = i) -> bool:
                if how["documents"] is not None and how["documents"][row, i] != how["documents"][row, j]:
                    return False
                query, key = places[row, i].item(), places[row, j].item()
                near = not flags or abs(query - key) < 4 or min(query, key) < 1
                return near and (key >= 0 or i == j) and (key <= query or not how["causal"])
            seen = {j for j in range(T) if sees(j)}
            found = set(chosen[row, i].nonzero()[:, 0].tolist())
            assert found <= seen and len(found) == min(3, len(seen))


def test_of_equal_keys_the_earliest_are_chosen():
    indexer = small_model(**INDEXED).blocks[0].mixer.branch.indexer
    scores = torch.tensor([[[1.0, 0, 2, 0, 0, 0, -torch.inf], [0, 0, 0, 0, 0, 0, 0], [1, *[-torch.inf] * 6]]])
    assert indexer.choose(scores)[0].int().tolist() == [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1] + [0] * 6]
    assert indexer.choose(torch.zeros(1, 1, 99)).nonzero()[:, 2].tolist() == [0, 1, 2]


def test_the_loss_is_a_column_the_mean_over_the_layers_that_have_one_and_never_that_of_the_text():
    flags = INDEXED | {"layers": ("sparse", "base", "sparse"), "num_layers": 3, "indexer.top_k": None,
                       "indexer.num_heads": 4, "indexer.head_dim": 32, "kinds": {"sparse": {"indexer.top_k": 3}}}
    model, batch = small_model(**flags), Batch(small_tokens(), small_tokens(seed=1), None, 26)
    losses = NextToken(model)(batch)
    assert losses.parts.keys() == {"next_token", "indexer"} and losses.parts["indexer"] > 0
    assert_close(losses.total, losses.parts["next_token"] + losses.parts["indexer"], "rounding")
    single = []
    for layer in (0, 2):
        branch, stream = model.blocks[layer].mixer.branch, Stream(torch.randn(2, T, 24))
        _, after = branch(stream.x, Context(torch.arange(T)), None, stream)
        single.append((after.losses["indexer"], plainly(model, layer, stream.x, Context(torch.arange(T)), stream)[1]))
    for found, of_three in single:
        assert_close(found, of_three * 3 / 2, "same")


def test_the_scores_become_those_of_attention():
    torch.manual_seed(0)
    state = TrainState(Model(small_config(**INDEXED | {"num_layers": 1, "indexer.top_k": 16})),
                       TrainConfig(precision="float32", optimizer="adamw"))
    randomise(state.model, std=0.7)
    batch, found = Batch(small_tokens(4, 16), small_tokens(4, 16, seed=1), None, 64), []
    for parameter in (p for name, p in state.model.named_parameters() if ".indexer." not in name):
        parameter.requires_grad_(False)
    for number in range(1, 31):
        found.append(state.step([batch], number=number, lr=0.02, noise=[]).parts["indexer"])
    assert found[-1] < 0.5 * found[0]


@pytest.mark.parametrize("flags", [INDEXED, LATENT], ids=["attention", "latent"])
def test_without_a_coefficient_it_chooses_and_does_not_learn(flags):
    plain, silent = small_model(**flags), small_model(**flags | {"indexer.loss": 0.0})
    assert torch.equal(plain(small_tokens()), silent(small_tokens()))
    loss_of(silent, small_tokens(), small_tokens(seed=1)).backward()
    assert {name for name, p in silent.named_parameters() if p.grad is None} == {
        name for name, _ in silent.named_parameters() if ".indexer." in name}


def test_no_dropout_is_in_what_it_learns():
    torch.manual_seed(0)
    model = small_model(**INDEXED | {"attention.dropout": 0.5, "num_layers": 1}).train()
    assert len({model.read(small_tokens()).losses["indexer"].item() for _ in range(3)}) == 1


# ---- sizes, roles, cost ----


def test_its_work_is_counted():
    def of_layer(**flags) -> float:
        return flops_of(small_config(num_layers=1, **flags), 16)

    heads, width, forward = 5, 8, 2 * 3  # a product and a sum; forward and backward count three times
    maps = 24 * heads * width + 24 * width + 24 * heads
    scores = 16 * heads * width + 16 * heads  # of a query with each key, and their sum over heads
    again = 16 * 24  # the weights of attention, to learn from
    assert of_layer(**INDEXED) - of_layer(mlp="none") == pytest.approx(forward * (maps + scores + again))


def test_the_cache_keeps_a_key_of_each_token():
    model = small_model(**INDEXED | {"attention.num_kv_heads": 2})
    plain, indexed = (small_config(**flags, **{"attention.num_kv_heads": 2}).at(0) for flags in ({}, INDEXED))
    assert cached_numbers(indexed) == cached_numbers(plain) + 8
    cache = model.make_cache(13)
    model(small_tokens(), cache=cache)
    own = cache.layers[0]["mixer"].indexer
    assert own.keys.shape == (2, 1, 13, 8) and own.values.numel() == 0


def test_its_matrices_are_matrices_for_the_optimizer_and_its_norm_is_a_vector():
    role_of = roles(Model(small_config(**INDEXED)))
    own = {name.partition(".indexer.")[2]: role for name, role in role_of.items() if name.startswith("blocks.0.mixer")}
    assert {own[name] for name in ("q.weight", "k.weight", "weigh.weight")} == {"matrix"}
    assert own["k_norm.scale"] == own["k_norm.bias"] == "vector"


def test_autocast_scores_in_float32():
    model, x = small_model(**INDEXED), torch.randn(2, T, 24)
    with torch.autocast("cpu", torch.bfloat16):
        choice = model.blocks[0].mixer.branch.indexer(x, x, Context(torch.arange(T)))
        loss = loss_of(model, small_tokens(), small_tokens(seed=1))
    assert choice.scores.dtype == torch.float32 and not torch.equal(choice.scores, choice.scores.bfloat16().float())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_picture_has_its_numbers():
    text = picture(override(Config(), {"model.indexer.top_k": 64, "model.indexer.num_heads": 2}))
    assert "indexer.top_k=64, indexer.num_heads=2" in text


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"indexer.top_k": 0}, "indexer.top_k=0 must be above 0"),
    ({"indexer.loss": -1.0}, "indexer.loss=-1.0 is below 0"),
    ({"attention.share_kv": True, "num_layers": 3}, "an indexer chooses among a layer's own keys"),
    ({"attention.differential": True}, "one less another is none"),
    ({"indexer.top_k": None}, "indexer.num_heads=5 would change nothing: it acts only when indexer.top_k is given"),
    ({"mixer": "gru"}, "indexer.top_k=3 would change nothing: it acts only when a mixer is attention or latent"),
    ({"mixer": "latent"}, "indexer.head_dim=8 is less than latent.rope_dim=16"),
    ({"indexer.head_dim": 7}, "is 7 channels"),
], ids=str)
def test_what_cannot_be_is_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_config(**INDEXED | flags)
