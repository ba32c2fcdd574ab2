"""The configurations whose memory is measured: they span the menus, and a draw can be repeated."""

from itertools import islice
from typing import get_args

import pytest

import config
from configuration.rules import check_run
from experiments.benchmarks.memory_cases import drawn_cases, named_cases

MENUS = {"mlp": config.Mlp, "norm": config.Norm, "residual": config.Residual, "position": config.Position,
         "backend": config.AttentionBackend, "mixer": config.Mixer, "optimizer": config.Optimizer,
         "packing": config.Packing, "memory": config.Memory, "objective": config.ObjectiveKind,
         "ahead": config.Ahead}
BESIDES = {"mlp": set(), "norm": {"none"}, "residual": {"none"}, "position": {"none"}, "backend": set(),
           "mixer": set(), "optimizer": {"adam"}, "packing": set(),
          "memory": set(), "objective": set(), "ahead": set()}  # nothing that takes memory of its own


def settings(name):
    """What the named cases choose for a flag."""
    for cfg in named_cases().values():
        parts = (cfg.model, cfg.model.attention, cfg.train, cfg.data)
        if name == "mixer":
            yield from (layer.mixer for layer in cfg.model.by_kind.values())
            continue
        value = next(getattr(part, name) for part in parts if hasattr(part, name))
        yield from value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", MENUS)
def test_they_span_each_menu(name):
    assert set(get_args(MENUS[name])) - BESIDES[name] <= set(settings(name))


@pytest.mark.parametrize(("name", "least"), [
    ("checkpoint_activations", 2), ("loss_chunk", 2), ("accumulation", 2), ("precision", 2), ("vocab_size", 6),
    ("ema_decay", 2), ("z_loss", 2), ("residual_dropout", 2), ("pointer", 2), ("log_noise_scale", 2),
])
def test_they_differ_in_what_takes_memory(name, least):
    assert len(set(settings(name))) >= least


def test_a_draw_is_that_of_its_seed():
    first, again, other = (list(islice(drawn_cases(seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_each_can_be_trained():
    for cfg in (*named_cases().values(), *islice(drawn_cases(0), 20)):
        check_run(cfg)  # raises no ValueError
