"""Parts that the product does not have fit into its frame, each by one file in parts/ and one word of a menu.

They train with and without checkpointed activations, are traced, predicted and compiled like any other part.
"""

import functools
import re
from pathlib import Path
from typing import Literal

import pytest
import torch
from helpers import SMALL, assert_close, randomise, small_config, small_tokens
from parts.translate import Translate
from pydantic import Field
from thorough import some

import objective
from config import Config, TrainConfig, flags, override
from configuration.objectives import FACTS, Facts
from data import Batch
from memory_prediction.dry_run import dry_run
from memory_prediction.prediction import predict
from model import Model
from modules.mixers import MIXERS
from modules.stream import Context
from objective import Losses
from optim import parameter_groups
from tools import trace
from training.step import TrainState


@flags
class MoreTrain(TrainConfig):
    objective: Literal["next_token", "translate"] = "next_token"


@flags
class More(Config):
    train: MoreTrain = Field(default_factory=MoreTrain)


PARTS = {
    "moe": {"model.mlp": "moe", "model.moe.balance_loss": 0.01},
    "moe in some layers": {"model.layers": ("base", "experts"), "model.kinds": {"experts": {
        "mlp": "moe", "moe.balance_loss": 0.01, "moe.balance_bias": True}}},
    "indexer": {"model.indexer.top_k": 4, "model.position": "t5", "model.attention.sinks": True},
    "sharing": {"model.position": "t5", "model.attention.value_residual": "learned", "model.num_layers": 4,
                "model.layers": ("base", "borrow"), "model.kinds": {"borrow": {"attention.share_kv": True}}},
    "differential": {"model.attention.differential": True},
    "ngpt": {f"model.{flag}": value for flag, value in {
        "residual": "ngpt", "mlp": "scaled_glu", "qk_norm": "unit", "token_scale": True, "unit_weights": True}.items()},
    "hyper-connections": {"model.residual": "hyper"}, "mhc": {"model.residual": "mhc"},
    "attention over depth": {"model.residual": "attnres"},
    "bigrams, value embeddings": {"model.memory": "bigram", "model.attention.value_embedding": True},
    "engram of several streams": {"model.residual": "hyper", "model.memory": "engram", "model.engram.rows": 20},
    "backout": {"model.backout": 0.3, "model.num_layers": 3, "model.smear": True},
    "encoder and decoder": {"model.cross": "attention", "model.encoder_layers": 3, "model.position": "t5",
                            "train.objective": "translate"},
}
each_part = pytest.mark.parametrize("name", PARTS)
# for what takes seconds: without those that another one includes
UNLIKE = [name for name in PARTS if name not in ("moe", "hyper-connections")]
a_third = pytest.mark.parametrize("name", some(UNLIKE, 3))


@pytest.fixture(autouse=True)
def menus(monkeypatch):
    """The words of the new parts."""
    monkeypatch.setitem(objective.OBJECTIVES, "translate", Translate)
    monkeypatch.setitem(FACTS, "translate", Facts(encodes=True))


def configured(name: str, **train) -> More:
    return override(More(), {"model": SMALL, **PARTS[name], "train": {"precision": "float32"} | train})


def shallow(name: str) -> More:
    """With as few layers as the part can have."""
    cfg = configured(name)
    return override(cfg, {"model.num_layers": PARTS[name].get("model.num_layers", len(cfg.model.layers))})


def batch() -> Batch:
    return Batch(small_tokens(), small_tokens(seed=1), None, 26)


def make_state(name: str, **train) -> TrainState:
    return state_of(configured(name, **train))


def state_of(cfg: More) -> TrainState:
    model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations)
    state = TrainState(model, cfg.train)
    randomise(state.objective)
    return state


def gradients(state: TrainState) -> tuple[Losses, dict[str, torch.Tensor]]:
    losses = state.objective(batch())
    losses.total.backward()
    return losses, {name: p.grad for name, p in state.model.named_parameters()}


@each_part
def test_it_has_the_same_gradients_with_and_without_checkpointed_activations(name):
    plain, checkpointed = (make_state(name, checkpoint_activations=on) for on in (False, True))
    (losses, grads), (others, other_grads) = gradients(plain), gradients(checkpointed)
    assert_close(others.total, losses.total, "rounding")
    assert not {path for path, grad in grads.items() if grad is None}
    assert_close(other_grads, grads, "rounding")


@each_part
def test_it_learns_by_every_step_of_training(name):
    state = make_state(name, lr=3e-3, schedule="constant", ema_decay=0.9)
    steps = [state.step([batch()], number=number, lr=3e-3, noise=[]) for number in range(1, 9)]
    assert steps[-1].loss < steps[0].loss
    assert set(steps[0].parts) == ({"balance"} if "moe" in name else {"indexer"} if name == "indexer" else set())
    grouped = [p for group in parameter_groups(state.model, configured(name).train).values() for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(state.model.parameters()))


@each_part
def test_it_is_traced(name):
    state = make_state(name)
    with torch.no_grad(), trace(state.objective) as t:
        state.objective(batch())
    said = str(t)
    part = {"moe": "MoE", "sharing": "BorrowingAttention", "ngpt": "SphereStep", "differential": "Differential",
            "hyper": "HyperConnections", "mhc": "ManifoldHyperConnections", "attention": "AttentionResidual",
            "bigrams,": "BigramMemory", "engram": "Engram", "backout": "Backout", "encoder": "CrossAttention",
            "indexer": "Indexer"}
    assert part[name.replace("-", " ").split()[0]] in said
    assert not [call.problem for call in t.walk() if call.problem]


@a_third
@pytest.mark.slow
def test_its_memory_is_predicted(name):
    cfg = override(shallow(name), {"train.batch_size": 64})
    prediction = predict(cfg)
    assert prediction.how == "exact" and prediction.peak_bytes != bare_peak_bytes(cfg.model.num_layers)


@functools.cache
def bare_peak_bytes(num_layers: int) -> int:
    """What is predicted without a part."""
    bare = override(More(), {"model": SMALL | {"num_layers": num_layers}, "train.precision": "float32",
                             "train.batch_size": 64})
    return predict(bare).peak_bytes


@pytest.mark.slow
def test_the_memory_of_an_encoder_is_that_of_real_tensors():
    cfg = configured("encoder and decoder")
    fake, real = (dry_run(cfg, rows=3, num_texts=2, fake=fake) for fake in (True, False))
    assert {where: part.num_bytes for where, part in fake.items()} == {
        where: part.num_bytes for where, part in real.items()}
    assert ("forward", "encoder") in fake and fake["forward", "encoder"].parts["encoder", "activations"]


@a_third
@pytest.mark.slow
def test_it_compiles_in_one_piece(name):
    torch._dynamo.reset()
    state = state_of(shallow(name))
    compiled = torch.compile(state.objective, backend="eager", fullgraph=True)
    assert_close(compiled(batch()).total, state.objective(batch()).total, "rounding")


@each_part
def test_building_on_meta_and_giving_weights_equals_building_directly(name):
    def states(model: Model) -> dict[str, torch.Tensor]:
        return dict([*model.named_parameters(), *model.named_buffers()])

    cfg = configured(name).model
    torch.manual_seed(0)
    direct = Model(cfg)
    with torch.device("meta"):
        later = Model(cfg)
    torch.manual_seed(0)
    later.to_empty(device="cpu").init_weights()
    assert states(direct).keys() == states(later).keys()
    assert all(torch.equal(value, states(later)[path]) for path, value in states(direct).items())


def test_the_flags_of_a_new_part_are_refused_without_it():
    with pytest.raises(ValueError, match="model.moe.top_k=1 would change nothing: it acts only when a layer has moe"):
        override(More(), {"model.moe.top_k": 1})
    assert override(More(), {"model.moe.top_k": 1, "model.mlp": "moe"}).model.moe.top_k == 1


def test_the_balance_loss_is_a_column_and_never_the_loss_of_the_text():
    losses, _ = gradients(make_state("moe"))
    assert losses.parts.keys() == {"next_token", "balance"}
    assert_close(losses.total, losses.parts["next_token"] + losses.parts["balance"], "rounding")


def test_the_mixer_of_readme_is_one(monkeypatch):
    text = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "(Recurrent)" in block)
    scope = {"__name__": "fading"}
    exec(code, scope)
    monkeypatch.setitem(MIXERS, "min_gru", scope["Fading"])
    model, tokens = randomise(Model(small_config(mixer="min_gru"))).eval(), small_tokens()
    mixer, cache = model.blocks[0]["mixer"].branch, model.make_cache(13)
    x = torch.randn(2, 13, 24, generator=torch.Generator().manual_seed(0))
    decay, h, expected = mixer.logit.sigmoid(), 0.0, []
    for value in mixer.value(x).unbind(1):
        h = decay * h + (1 - decay) * value
        expected.append(mixer.out(h))
    assert_close(mixer(x, Context(torch.arange(13))), torch.stack(expected, dim=1), "same")
    pieces = [model(piece, cache=cache) for piece in tokens.split([4, 1, 8], dim=1)]
    assert_close(torch.cat(pieces, dim=1), model(tokens), "same")


def test_a_mixer_without_numbers_of_its_own_has_no_axes_of_its_own(monkeypatch):
    model = Model(small_config())
    sizes = model.dims()
    monkeypatch.setattr("modules.sizes.mixers_of", lambda layer: ["fading"])  # a word without a group
    assert model.dims() == sizes
