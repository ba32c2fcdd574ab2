"""Every parameter is in one group; schedules pass through their points; optimizers go on exactly."""

import copy
import math

import pytest
import torch
from helpers import small_config

from config import TrainConfig, replace
from model import Model
from optim import OPTIMIZERS, SCHEDULES, group_of, learning_rate, make_optimizer, parameter_groups, warmup_steps
from presets import PRESETS, load_preset, tiny

MULTIPLIERS = {"embed_lr_mult": 2.0, "head_lr_mult": 3.0, "vector_lr_mult": 5.0}


def small(**flags) -> Model:
    torch.manual_seed(0)
    return Model(small_config(**flags))


def learn(model: Model, optimizer, steps: range, cfg: TrainConfig) -> None:
    """Take optimizer steps on random tokens, which follow from the step's number."""
    for number in steps:
        tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(number))
        optimizer.set_lr(learning_rate(number, cfg))
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


# ---- groups ----


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_groups_hold_every_parameter_once(preset, tied):
    cfg = tiny(load_preset(preset))
    model = Model(replace(cfg.model, tie_embeddings=tied))
    for kind in OPTIMIZERS:
        held = [p for group in make_optimizer(model, replace(cfg.train, optimizer=kind)).param_groups
                for p in group["params"]]
        assert len(held) == len(set(map(id, held)))
        assert set(map(id, held)) == set(map(id, model.parameters()))


def test_a_parameter_is_grouped_by_where_it_stands():
    model = small(position="learned", head_bias=True, mlp_bias=True, norm="layer", norm_bias=True)
    groups = {name: group_of(name, parameter) for name, parameter in model.named_parameters()}
    assert groups["embed.tokens.weight"] == "embedding"
    assert groups["head.unembed.weight"] == "head"
    assert groups["head.unembed.bias"] == "vectors"
    assert {name for name, group in groups.items() if group == "embedding"} == {
        name for name in groups if name.startswith("embed.")}
    inside = {name: group for name, group in groups.items() if name.startswith("blocks.")}
    assert all(group == ("vectors" if "norm" in name or name.endswith("bias") else "matrices")
               for name, group in inside.items())


def test_a_shared_matrix_is_the_embedding():
    groups = parameter_groups(small(tie_embeddings=True), TrainConfig(**MULTIPLIERS))
    assert "head" not in groups
    assert groups["embedding"]["lr_mult"] == 2.0


def test_vectors_are_not_decayed():
    groups = parameter_groups(small(), TrainConfig(weight_decay=0.3))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "embedding": 0.3, "head": 0.3, "matrices": 0.3, "vectors": 0.0}


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else():
    model = small()
    muon, adamw = make_optimizer(model, TrainConfig(optimizer="muon")).parts
    (group,) = muon.param_groups
    expected = {id(p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.dim() == 2}
    assert isinstance(muon, torch.optim.Muon)
    assert {id(p) for p in group["params"]} == expected
    assert {group["name"] for group in adamw.param_groups} == {"embedding", "head", "vectors"}


def test_muon_on_a_model_without_matrices_is_adamw():
    (part,) = make_optimizer(small(mixers=("none",), mlp="none"), TrainConfig(optimizer="muon")).parts
    assert isinstance(part, torch.optim.AdamW)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_group_has_its_own_rate(kind):
    optimizer = make_optimizer(small(), TrainConfig(optimizer=kind, lr=0.1, **MULTIPLIERS))
    expected = {"embedding": 0.2, "head": 0.3, "matrices": 0.1, "vectors": 0.5}
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(expected)
    optimizer.set_lr(0.01)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(
        {name: rate / 10 for name, rate in expected.items()})


def test_flags_reach_the_optimizers():
    cfg = TrainConfig(beta1=0.8, beta2=0.9, adam_eps=1e-6, momentum=0.7, weight_decay=0.2)
    muon, adamw = make_optimizer(small(), cfg).parts
    assert {(g["betas"], g["eps"]) for g in adamw.param_groups} == {((0.8, 0.9), 1e-6)}
    assert [(g["momentum"], g["weight_decay"]) for g in muon.param_groups] == [(0.7, 0.2)]


# ---- steps ----


def test_adamw_takes_the_published_step():
    cfg = TrainConfig(optimizer="adamw", lr=0.02, weight_decay=0.3, beta1=0.8, beta2=0.9, adam_eps=1e-6)
    model = small()
    optimizer = make_optimizer(model, cfg)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    m, v = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    for t in (1, 2, 3):
        tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(t))
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        for name, p in model.named_parameters():
            m[name] = 0.8 * m[name] + 0.2 * p.grad
            v[name] = 0.9 * v[name] + 0.1 * p.grad**2
            decay = 0.02 * 0.3 if p.dim() == 2 else 0.0
            step = 0.02 * (m[name] / (1 - 0.8**t)) / ((v[name] / (1 - 0.9**t)).sqrt() + 1e-6)
            weights[name] = weights[name] * (1 - decay) - step
        optimizer.step()
        optimizer.zero_grad()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), weights[name], atol=1e-5, rtol=1e-4)


def test_muon_steps_have_the_size_of_adamw():
    cfg = TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.0)
    model = small(out_init="same")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn(model, make_optimizer(model, cfg), range(1), replace(cfg, schedule="constant", warmup_steps=0))
    for name, p in model.named_parameters():
        if group_of(name, p) == "matrices":
            moved = (p.detach() - before[name]).square().mean().sqrt().item()
            # 0.2 * lr, times the spread of Newton-Schulz's singular values, arXiv:2502.16982
            assert 0.1 * cfg.lr < moved < 0.3 * cfg.lr, name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_bit_for_bit(kind):
    cfg = TrainConfig(optimizer=kind, steps=6)
    model = small()
    optimizer = make_optimizer(model, cfg)
    learn(model, optimizer, range(3), cfg)
    other = small()
    other.load_state_dict(model.state_dict())
    restored = make_optimizer(other, cfg)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(model, optimizer, range(3, 6), cfg)
    learn(other, restored, range(3, 6), cfg)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


# ---- schedules ----


def rates(**flags) -> list[float]:
    """The rate of every step, as a share of the peak."""
    cfg = TrainConfig(lr=0.5, **flags)
    return [learning_rate(number, cfg) / 0.5 for number in range(cfg.steps)]


def test_each_schedule_passes_through_its_points():
    assert rates(steps=5, schedule="constant", warmup_steps=0) == [1.0] * 5
    assert rates(steps=5, schedule="linear", warmup_steps=0) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert rates(steps=4, schedule="linear", warmup_steps=0, min_lr_ratio=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    assert rates(steps=4, schedule="cosine", warmup_steps=0) == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert rates(steps=4, schedule="cosine", warmup_steps=0, min_lr_ratio=0.5)[2] == pytest.approx(0.75)
    assert rates(steps=8, schedule="wsd", warmup_steps=0, decay_fraction=0.5) == pytest.approx(
        [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert rates(steps=4, schedule="wsd", warmup_steps=0, decay_fraction=0.0) == [1.0] * 4
    assert rates(steps=4, schedule="wsd", warmup_steps=0, decay_fraction=1.0) == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warmup_rises_to_the_peak_and_the_schedule_begins_there(schedule):
    unit = {"step_unit": "steps"} if schedule == "step" else {}
    every = rates(steps=12, schedule=schedule, warmup_steps=4, **unit)
    assert every[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    after = rates(steps=8, schedule=schedule, warmup_steps=0, **unit)
    assert every[4:] == pytest.approx(after)


def test_the_warmup_is_two_percent_where_no_other_is_given():
    assert warmup_steps(TrainConfig(steps=1000)) == 20
    assert warmup_steps(TrainConfig(steps=49)) == 0
    assert warmup_steps(TrainConfig(steps=1000, warmup_steps=0)) == 0


def test_a_warmup_longer_than_the_run_never_reaches_the_peak():
    assert max(rates(steps=5, warmup_steps=10)) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_rate_is_never_below_the_last_nor_above_the_peak(schedule):
    own = {"constant": {}, "step": {"step_unit": "steps", "step_gamma": 0.99}}.get(schedule, {"min_lr_ratio": 0.1})
    every = rates(steps=50, schedule=schedule, **own)
    assert all(0.1 <= rate <= 1.0 for rate in every[1:])
    assert every[1:] == sorted(every[1:], reverse=True)


def test_step_falls_every_so_many_steps():
    falls = rates(steps=7, schedule="step", warmup_steps=1, step_size=2, step_unit="steps", step_gamma=0.5)
    assert falls == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("epochs", "expected"), [(0.0, 1), (1.99, 1), (2.0, 0.5), (3.9, 0.5), (4.0, 0.25)])
def test_step_falls_every_so_many_epochs(epochs, expected):
    cfg = TrainConfig(lr=0.5, schedule="step", step_size=2, step_unit="epochs", step_gamma=0.5, warmup_steps=0)
    assert learning_rate(700, cfg, epochs=epochs) == 0.5 * expected
