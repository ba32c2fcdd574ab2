"""Every parameter is in one group; every optimizer learns, and goes on exactly; averages are what they say."""

import copy
import io
import os
import re
import signal
from itertools import count

import pytest
import torch
from helpers import assert_close, loss_of, small_config
from rich.console import Console
from small_runs import assert_same_run, small_run_config, weights
from thorough import some
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import inference
import runs
import train
import training.step
from config import Config, TrainConfig, replace
from corpora.corpus import load_corpus
from corpora.shards import prepare
from model import Model
from objective import NextToken
from optim import GROUPS, OPTIMIZERS, MovingAverage, make_optimizer, parameter_groups, roles
from optimizing import stacked_muon
from optimizing.schedules import Schedule
from optimizing.stacked_muon import StackedMuon
from presets import PRESETS, load_preset, tiny
from runs import Run
from train import Interrupted
from train import train as train_run
from training.evaluation import evaluate
from training.step import clip

MULTIPLIERS = {"embed_lr_mult": 2.0, "head_lr_mult": 3.0, "vector_lr_mult": 5.0}
RATES = {"adamw": 6e-3, "muon": 6e-3, "adam": 6e-3, "sgd": 0.1, "lion": 1e-3, "adafactor": 0.03, "soap": 6e-3,
         "schedule_free": 1e-2}
QUIET = Console(quiet=True)


def flags_of(kind: str) -> dict[str, str]:
    """The flags that choose an optimizer, with the schedule that it can have."""
    return {"optimizer": kind} | ({"schedule": "constant"} if kind == "schedule_free" else {})


def small(**flags) -> Model:
    torch.manual_seed(0)
    return Model(small_config(**flags))


def learn(model: Model, optimizer, steps: range, cfg: TrainConfig) -> None:
    """Take optimizer steps on random tokens, which follow from the step's number."""
    schedule = Schedule(Config(train=cfg))
    for number in steps:
        tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(number))
        optimizer.set_lr(schedule.rate(number))
        loss_of(model, tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()


# ---- groups ----


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("preset", some(PRESETS, 3))
def test_the_groups_hold_every_parameter_once(preset, tied):
    cfg = tiny(load_preset(preset))
    model = Model(replace(cfg.model, tie_embeddings=tied, head_zero_init=cfg.model.head_zero_init and not tied))
    for kind in OPTIMIZERS:
        held = [p for group in make_optimizer(model, TrainConfig(**flags_of(kind))).param_groups
                for p in group["params"]]
        assert len(held) == len(set(map(id, held)))
        assert set(map(id, held)) == set(map(id, model.parameters()))


def test_a_parameter_is_grouped_by_where_it_stands():
    model = small(position="learned", head_bias=True, mlp_bias=True, norm="layer", norm_bias=True)
    groups = {name: GROUPS[role] for name, role in roles(model).items()}
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
    (part,) = make_optimizer(small(mixer="none", mlp="none"), TrainConfig(optimizer="muon")).parts
    assert isinstance(part, torch.optim.AdamW)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_group_has_its_own_rate(kind):
    optimizer = make_optimizer(small(), TrainConfig(**flags_of(kind), lr=0.1, **MULTIPLIERS))
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


def test_what_is_not_given_follows_from_the_optimizer():
    muon, lion = (make_optimizer(small(), TrainConfig(optimizer=name)).parts[-1] for name in ("muon", "lion"))
    for optimizer, betas, mult in ((muon, (0.8, 0.98), 4.0), (lion, (0.9, 0.95), 1.0)):
        assert {group["betas"] for group in optimizer.param_groups} == {betas}
        assert {group["lr_mult"] for group in optimizer.param_groups if group["name"] == "embedding"} == {mult}
    given = TrainConfig(embed_lr_mult=1.0, beta1=0.9)
    assert given.betas == (0.9, 0.98) and parameter_groups(small(), given)["embedding"]["lr_mult"] == 1.0


# ---- steps ----


def test_adamw_takes_the_published_step():
    cfg = TrainConfig(optimizer="adamw", lr=0.02, weight_decay=0.3, beta1=0.8, beta2=0.9, adam_eps=1e-6)
    model = small()
    optimizer = make_optimizer(model, cfg)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    m, v = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    for t in (1, 2, 3):
        tokens = torch.randint(37, (2, 9), generator=torch.Generator().manual_seed(t))
        loss_of(model, tokens[:, :-1], tokens[:, 1:]).backward()
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


def test_sgd_takes_nesterovs_step():
    cfg = TrainConfig(optimizer="sgd", lr=0.1, momentum=0.8)
    weight = torch.nn.Linear(1, 1, bias=False)
    optimizer, expected, speed = make_optimizer(weight, cfg), weight.weight.item(), 0.0
    for grad in (1.0, 3.0, -2.0):
        weight.weight.grad = torch.full((1, 1), grad)
        optimizer.step()
        speed = 0.8 * speed + grad
        expected -= 0.1 * (grad + 0.8 * speed)
        assert weight.weight.item() == pytest.approx(expected, rel=1e-5)


def test_muon_steps_have_the_size_of_adamw():
    cfg = TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.0)
    model = small(out_init="same")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn(model, make_optimizer(model, cfg), range(1), replace(cfg, schedule="constant", warmup_steps=0))
    for name, p in model.named_parameters():
        if roles(model)[name] == "matrix":
            moved = (p.detach() - before[name]).square().mean().sqrt().item()
            # 0.2 * lr, times the spread of Newton-Schulz's singular values, arXiv:2502.16982
            assert 0.1 * cfg.lr < moved < 0.3 * cfg.lr, name


def same_weights(model: Model, other: Model) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_decay_is_in_the_gradient_of_adam_and_beside_it_in_adamw():
    """With a huge floor of the denominator, a step is the gradient's; its decay then tells where it came in."""
    decays = {}
    for kind in ("adam", "adamw"):
        moved = []
        for decay in (0.0, 0.5):
            cfg = TrainConfig(optimizer=kind, lr=0.1, weight_decay=decay, adam_eps=1e3)
            model = small()
            learn(model, make_optimizer(model, cfg), range(1), replace(cfg, schedule="constant", warmup_steps=0))
            moved.append(model.embed.tokens.weight.detach().clone())
        decays[kind] = ((moved[0] - moved[1]).norm() / small().embed.tokens.weight.detach().norm()).item()
    assert decays["adamw"] == pytest.approx(0.1 * 0.5, rel=1e-3)
    assert decays["adam"] == pytest.approx(0.1 * 0.5 / 1e3, rel=1e-2)


def test_decay_is_a_tenth_but_where_it_would_be_in_the_gradient():
    decays = {kind: TrainConfig(**flags_of(kind)).decay for kind in OPTIMIZERS}
    assert {kind for kind, decay in decays.items() if decay == 0} == {"adam", "sgd"}
    assert set(decays.values()) == {0.0, 0.1}
    assert TrainConfig(optimizer="sgd", weight_decay=0.3).decay == 0.3


def test_soap_has_the_matrices_of_the_blocks_and_its_bases_turn_as_often_as_asked():
    cfg = TrainConfig(optimizer="soap", precondition_every=3)
    model = small()
    soap, adamw = (optimizer := make_optimizer(model, cfg)).parts
    assert [group["name"] for group in soap.param_groups] == ["matrices"]
    assert {group["name"] for group in adamw.param_groups} == {"embedding", "head", "vectors"}
    bases = []
    for number in range(8):
        learn(model, optimizer, range(number, number + 1), cfg)
        bases.append(next(iter(soap.state.values()))["Q"][0].clone())
    turned = [number for number in range(1, 8) if not torch.equal(bases[number - 1], bases[number])]
    assert turned == [3, 6]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_bit_for_bit(kind):
    cfg = TrainConfig(**flags_of(kind), steps=6)
    model, other = small(), small()
    optimizer, restored = make_optimizer(model, cfg), make_optimizer(other, cfg)
    learn(model, optimizer, range(3), cfg)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    learn(model, optimizer, range(3, 6), cfg)
    learn(other, restored, range(3, 6), cfg)
    assert same_weights(model, other)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_learns(kind):
    cfg = tiny(load_preset("default"))
    cfg = replace(cfg, train=TrainConfig(**flags_of(kind), lr=RATES[kind], steps=25))
    model, schedule = Model(cfg.model), Schedule(cfg)
    optimizer = make_optimizer(model, cfg.train)
    tokens = torch.randint(61, (4, 33))
    losses = []
    for number in range(25):
        optimizer.set_lr(schedule.rate(number))
        loss = loss_of(model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        clip(model, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


# ---- weights to train, weights to use ----


def test_looking_at_the_average_leaves_the_trained_weights_as_they_were():
    cfg = TrainConfig(**flags_of("schedule_free"), lr=0.01)
    model = small()
    optimizer = make_optimizer(model, cfg)
    learn(model, optimizer, range(5), cfg)
    trained = copy.deepcopy(model)
    optimizer.eval()
    average = copy.deepcopy(model)
    optimizer.eval()
    assert same_weights(model, average) and not same_weights(model, trained)
    optimizer.train()
    optimizer.train()
    assert same_weights(model, trained)


def test_the_average_is_that_of_the_published_recursion():
    """y = 0.1 z + 0.9 x is trained, x is the mean of the z so far: arXiv:2405.15682, equations 3 to 5."""
    cfg = TrainConfig(**flags_of("schedule_free"), lr=0.01, warmup_steps=0, steps=4)
    model = small()
    optimizer = make_optimizer(model, cfg)
    name, watched = "blocks.0.mlp.branch.out.weight", model.blocks[0].mlp.branch.out.weight
    assert dict(model.named_parameters())[name] is watched
    points = []
    for number in range(4):
        learn(model, optimizer, range(number, number + 1), cfg)
        points.append(optimizer.parts[0].state[watched]["z"].clone())
    trained = watched.detach().clone()
    optimizer.eval()
    mean = torch.stack(points).mean(0)
    torch.testing.assert_close(watched.detach(), mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trained, 0.1 * points[-1] + 0.9 * mean, atol=1e-5, rtol=1e-4)


def test_a_moving_average_begins_at_the_first_weights_and_forgets_at_its_rate():
    model = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(model, 0.8)
    seen = [3.0, 1.0, 4.0, 1.0, 5.0]
    for steps, value in enumerate(seen, start=1):
        torch.nn.init.constant_(model.weight, value)
        average.update(model, steps)
        kept = [0.2 * 0.8 ** (steps - 1 - i) for i in range(steps)]
        expected = sum(w * v for w, v in zip(kept, seen, strict=False)) / (1 - 0.8**steps)
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not average.model.weight.requires_grad


# ---- whole runs ----


@pytest.fixture
def go(tmp_path_factory, tmp_path, monkeypatch):
    """Train a toy with changes, whole or stopped after some steps."""
    folder = tmp_path_factory.getbasetemp() / "optim_text"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    short = {"train.steps": 8, "train.eval_every": 4, "train.checkpoint_every": 4, "train.sample_every": 8,
             "train.log_every": 3}

    def run(changes: dict, *, stop_after: int | None = None) -> Run:
        cfg, taken = small_run_config(folder, short | changes), count(1)

        def clip_and_stop(model, limit):
            if next(taken) == stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            return clip(model, limit)

        with monkeypatch.context() as patch:
            patch.setattr(training.step, "clip", clip_and_stop)
            if stop_after is None:
                return train_run(cfg, console=QUIET)
            with pytest.raises(Interrupted):
                train_run(cfg, console=QUIET)
        return train_run(cfg, run=Run(cfg.train.name), console=QUIET)

    return run


STATES = {**{kind: flags_of(kind) | {"lr": RATES[kind]} for kind in OPTIMIZERS},
          "ema": {"ema_decay": 0.7},
          "ramp": {"batch_size": 2, "accumulation": 3, "ramp_tokens": 500, "schedule": "cosine",
                   "schedule_unit": "tokens", "log_noise_scale": True, "log_grad_norms": True}}


@pytest.mark.parametrize("flags", [{"norm": "cosine"}, {"position": "alibi"}, {"tie_embeddings": True}], ids=str)
def test_a_moving_average_can_be_made_of_tensors_without_data(flags):
    with FakeTensorMode():
        model = Model(small_config(**flags))
        average = MovingAverage(model, 0.8)
        average.update(model, 1)
    assert average.model.num_parameters() == model.num_parameters()
    assert not {id(p) for p in model.parameters()} & {id(p) for p in average.model.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("flags", some(STATES.values(), 3), ids=STATES)
def test_a_stopped_run_goes_on_to_the_same_bits(go, flags):
    changes = {f"train.{name}": value for name, value in flags.items()}
    whole = go(changes | {"train.name": "whole"})
    stopped = go(changes, stop_after=5)
    assert_same_run(stopped, whole)
    ours, theirs = (run.checkpoint("last").path / "ema.safetensors" for run in (stopped, whole))
    assert ours.exists() == theirs.exists() == ("ema_decay" in flags)
    assert not ours.exists() or ours.read_bytes() == theirs.read_bytes()


def evaluated(run: Run, *, ema: bool = False) -> float:
    """The last checkpoint's validation loss, by its file alone."""
    cfg = run.config
    _, part = prepare(load_corpus(cfg.data), run.tokenizer(), cfg.data.cache_path)
    return evaluate(NextToken(run.load_model("last", ema=ema)), part, run.tokenizer(), cfg.train.batch_size).loss


def test_a_schedule_free_checkpoint_holds_the_weights_that_were_evaluated(go):
    flags = {"train.optimizer": "schedule_free", "train.schedule": "constant", "train.lr": 0.01}
    run = go(flags)
    assert evaluated(run) == run.log().val_loss.iloc[-1]
    model = run.load_model("last")
    optimizer = make_optimizer(model, run.config.train)
    used = copy.deepcopy(model)
    run.checkpoint("last").load_training(model, optimizer)
    assert not same_weights(model, used)
    optimizer.eval()
    assert same_weights(model, used)
    seldom = go(flags | {"train.name": "seldom", "train.eval_every": 100, "train.checkpoint_every": 100})
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), weights(seldom).values(), strict=True))


def test_a_run_that_was_not_reported_is_reported_with_the_average(go, monkeypatch):
    run = go({"train.optimizer": "schedule_free", "train.schedule": "constant", "train.lr": 0.01})
    (run.path / "loss.png").unlink()
    reported = []
    monkeypatch.setattr(train.report, "finish", lambda console, run, model, *_: reported.append(model))
    train_run(run.config, run=Run("toy"), console=QUIET)
    assert same_weights(reported[0], run.load_model("last"))


def test_the_moving_average_is_saved_evaluated_and_changes_nothing_else(go):
    short = {"train.eval_tokens": 64, "train.final_eval_share": None}
    plain, run = go(short | {"train.name": "plain"}), go(short | {"train.ema_decay": 0.7})
    assert all(torch.equal(a, b) for a, b in zip(weights(run).values(), weights(plain).values(), strict=True))
    log = run.log()
    assert log.ema_val_loss.notna().tolist() == log.val_loss.notna().tolist()
    assert log.drop(columns=["ema_val_loss", "seconds", "tokens_per_second"]).equals(
        plain.log().drop(columns=["seconds", "tokens_per_second"]))
    assert evaluated(run, ema=True) == log.ema_val_loss.iloc[-1] != log.val_loss.iloc[-1]
    with pytest.raises(ValueError, match="has no ema.safetensors: only a run with train.ema_decay"):
        plain.load_model(ema=True)


def test_the_command_uses_the_average_by_choice(go, tmp_path, capsys):
    run = go({"train.ema_decay": 0.9})
    (tmp_path / "some.txt").write_text("the old fox saw a hen")
    command = ["toy", "--checkpoint", "last", "--score", str(tmp_path / "some.txt")]
    losses = []
    for more in ([], ["--ema"]):
        inference.main(command + more)
        losses.append(float(re.search(r"loss\D*([\d.]+) nats", capsys.readouterr().out)[1]))
    expected = [inference.score(run.load_model("last", ema=ema), run.tokenizer(), "the old fox saw a hen").loss
                for ema in (False, True)]
    assert losses == pytest.approx(expected, abs=1e-4) and losses[0] != losses[1]


def test_a_damaged_average_is_noticed(go):
    checkpoint = go({"train.ema_decay": 0.7}).checkpoint("last")
    (checkpoint.path / "ema.safetensors").unlink()
    assert "ema.safetensors" in checkpoint.problem()


# ---- what is refused ----


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"optimizer": "schedule_free"}, "schedule='wsd' does not go with optimizer=schedule_free.*schedule=constant"),
    ({"optimizer": "schedule_free", "schedule": "constant", "beta1": 0.0}, "beta1=0 .* use e.g. 0.9"),
    ({"optimizer": "schedule_free", "schedule": "constant", "ema_decay": 0.9}, "ema_decay=0.9 would average"),
    ({"beta2": 1.0}, "beta2=1.0 never lets a gradient in"),
    ({"ema_decay": 1.0}, "ema_decay=1.0 must lie between 0 and 1"),
    ({"optimizer": "sgd", "beta1": 0.8}, "beta1=0.8 would change nothing: it acts only when"),
    ({"optimizer": "adafactor", "beta2": 0.8}, "beta2=0.8 would change nothing: it acts only when"),
    ({"optimizer": "lion", "adam_eps": 1e-5}, "adam_eps=1e-05 would change nothing: it acts only when"),
    ({"optimizer": "adamw", "momentum": 0.5}, "momentum=0.5 would change nothing: it acts only when"),
    ({"optimizer": "muon", "precondition_every": 5}, "precondition_every=5 would change nothing: it acts only when"),
], ids=str)
def test_flags_that_an_optimizer_cannot_use_are_refused(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainConfig(**flags)


@pytest.mark.parametrize("shape", [(3, 8, 5), (2, 3, 4, 9)])
def test_muon_on_a_stack_of_matrices_is_torchs_muon_on_each(shape):
    stack = torch.randn(shape)
    alone = [nn.Parameter(matrix.clone()) for matrix in stack.flatten(0, -3)]
    together = nn.Parameter(stack)
    ours = StackedMuon([together], lr=0.1, momentum=0.9, weight_decay=0.2)
    theirs = torch.optim.Muon(alone, lr=0.1, momentum=0.9, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        together.grad = torch.randn(shape)
        for p, grad in zip(alone, together.grad.flatten(0, -3), strict=True):
            p.grad = grad.clone()
        ours.step()
        theirs.step()
    assert_close(together.detach().flatten(0, -3), torch.stack(alone).detach(), "bfloat16")


SHAPES = [(8, 5), (8, 5), (5, 8), (300, 270), (3, 8), (8, 5), (5, 8)]


@pytest.mark.parametrize("most", [1, 80, 2**20], ids=["each alone", "two at a time", "all"])
def test_muon_in_batches_is_torchs_muon(most, monkeypatch):
    monkeypatch.setattr(stacked_muon, "MOST", most)
    together, alone = ([nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i)))
                        for i, shape in enumerate(SHAPES)] for _ in range(2))
    ours = stacked_muon.BatchedMuon(together, lr=0.1, momentum=0.9, weight_decay=0.2)
    theirs = torch.optim.Muon(alone, lr=0.1, momentum=0.9, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        for p, q in list(zip(together, alone, strict=True))[step % 2:]:  # some have no gradient
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for p, q in zip(together, alone, strict=True):
        assert_close(p.detach(), q.detach(), "bfloat16")
        assert torch.equal(ours.state[p]["momentum_buffer"], theirs.state[q]["momentum_buffer"])
    ours.load_state_dict(theirs.state_dict())  # a run that was begun with the other goes on
    ours.step()


def test_small_matrices_of_one_shape_are_one_batch_and_large_ones_are_alone():
    matrices = [torch.empty(shape) for shape in SHAPES]
    assert [len(batch) for batch in stacked_muon.batches(matrices)] == [1, 3, 2, 1]
    assert [len(batch) for batch in stacked_muon.batches([torch.empty(200, 2000)] * 5)] == [2, 2, 1]


def test_a_role_is_what_the_owner_says_then_what_the_class_says():
    class Experts(nn.Module):
        roles = {"up": "matrix", "head.weight": "head"}

        def __init__(self):
            super().__init__()
            self.up, self.scale = nn.Parameter(torch.ones(3, 4, 5)), nn.Parameter(torch.ones(4, 5))
            self.head, self.table, self.norm = nn.Linear(4, 2), nn.Embedding(7, 4), nn.LayerNorm(4)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Experts()
            self.shared = nn.Linear(4, 7, bias=False)
            self.shared.weight = self.inner.table.weight

    assert roles(Whole()) == {
        "inner.up": "matrix", "inner.scale": "vector", "inner.head.weight": "head", "inner.head.bias": "vector",
        "inner.table.weight": "embedding", "inner.norm.weight": "vector", "inner.norm.bias": "vector"}


def test_an_average_covers_buffers_and_copies_what_is_not_a_number():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.steps = nn.Buffer(torch.zeros(2)), nn.Buffer(torch.zeros(1, dtype=torch.int64))
            self.weight = nn.Parameter(torch.zeros(3))

    model = Counted()
    average = MovingAverage(model, 0.5)
    for step, value in enumerate((1.0, 4.0), start=1):
        model.bias.fill_(value)
        model.steps.fill_(step)
        average.update(model, step)
    weight = 0.5 / (1 - 0.5**2)
    assert_close(average.model.bias, torch.full((2,), 1.0 + weight * 3.0), "rounding")
    assert average.model.steps.item() == 2
