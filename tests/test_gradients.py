"""Layer norms add up to the whole; the noise scale is that of a gradient whose noise is known."""

import math

import pytest
import torch
from helpers import loss_of, small_config, small_tokens
from rich.console import Console
from small_runs import small_run_config, untimed_log, weights
from torch import nn

import runs
from model import Model
from train import train as train_run
from training.gradients import NoiseScale, layer_norms


def test_the_norms_of_the_layers_add_up_to_that_of_the_model():
    model = Model(small_config())
    tokens = small_tokens()
    loss_of(model, tokens[:, :-1], tokens[:, 1:]).backward()
    norms = layer_norms(model)
    assert list(norms) == ["embed", "blocks.0", "blocks.1", "norm", "head"]
    assert math.hypot(*norms.values()) == pytest.approx(nn.utils.clip_grad_norm_(model.parameters(), math.inf).item())
    block = torch.cat([p.grad.flatten() for p in model.blocks[1].parameters()])
    assert norms["blocks.1"] == pytest.approx(block.norm().item())


class Known(nn.Module):
    """Two parameters of 3 numbers; a pass's gradient is 2 in each, plus noise."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(3)) for _ in range(2))

    def step(self, measure: NoiseScale, passes: int, noise: float) -> tuple[float, float] | None:
        for _ in range(passes):
            for p in self.parameters():
                added = (2 + noise * torch.randn(3)) / passes
                p.grad = torch.zeros(3) if p.grad is None else p.grad
                p.grad += added  # in place, as torch does
            measure.after_pass(self)
        for p in self.parameters():
            p.grad = None
        return measure.after_step(pass_tokens=5)


def test_signal_and_noise_are_those_that_went_in():
    model, measure = Known(), NoiseScale()
    found = torch.tensor([model.step(measure, 4, noise=3.0) for _ in range(3000)]).mean(0)
    assert found[0].item() == pytest.approx(6 * 2**2, rel=0.05)
    assert found[1].item() == pytest.approx(6 * 3.0**2 * 5, rel=0.05)  # of a token: a pass averages 5 of them


def test_equal_passes_have_no_noise_and_one_pass_tells_nothing():
    model, measure = Known(), NoiseScale()
    signal, noise = model.step(measure, 3, noise=0.0)
    assert (signal, noise) == (pytest.approx(24, rel=1e-5), pytest.approx(0, abs=1e-3))
    assert model.step(measure, 1, noise=1.0) is None
    assert model.step(measure, 3, noise=0.0)[0] == pytest.approx(24, rel=1e-5)


@pytest.fixture
def go(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    short = {"train.steps": 6, "train.eval_every": 6, "train.checkpoint_every": 6, "train.sample_every": 6,
             "train.log_every": 2, "train.batch_size": 2, "train.accumulation": 3}
    return lambda changes: train_run(small_run_config(tmp_path, short | changes), console=Console(quiet=True))


def test_the_log_has_the_columns_that_were_asked_and_the_run_is_the_same(go):
    plain = go({"train.name": "plain"})
    both = go({"train.name": "both", "train.log_grad_norms": True, "train.log_noise_scale": True})
    more = [name for name in both.log().columns if name not in plain.log().columns]
    layers = ["embed", "blocks.0", "blocks.1", "norm", "head"]
    assert more == [*(f"grad_norm.{layer}" for layer in layers), "grad_signal", "grad_noise", "noise_scale"]
    log = both.log()
    norms = log[[f"grad_norm.{layer}" for layer in layers]]
    assert (norms.pow(2).sum(axis=1) ** 0.5).tolist() == pytest.approx(log.grad_norm.tolist(), rel=1e-5)
    assert log.noise_scale.tolist() == pytest.approx((log.grad_noise / log.grad_signal).tolist())
    every = go({"train.name": "every", "train.log_noise_scale": True, "train.log_every": 1}).log()
    for name in ("grad_signal", "grad_noise"):
        assert log[name].tolist() == pytest.approx(every[name].rolling(2).mean()[1::2].tolist())
    assert untimed_log(both).drop(columns=more).equals(untimed_log(plain))
    assert all(torch.equal(a, b) for a, b in zip(weights(both).values(), weights(plain).values(), strict=True))
