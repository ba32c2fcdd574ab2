"""Two mixers side by side, and the constant factors of Falcon-H1: each equals its formula."""

import pytest
import torch
from helpers import assert_close, small_config, small_model, small_tokens

from config import override
from configuration.stacks import require_both_ways
from modules.mixers.beside import SideBySide
from modules.mlps.dense import GLU, MLP, ClampedGLU
from modules.residuals.wiring import way_to_call
from modules.stream import Context, Stream
from presets import load_preset
from showing.gallery import cached_numbers, picture, state_bytes

SCALES = {"mixer_scales": (0.8, 0.9), "beside_scales": (1.3, 0.4)}


@pytest.mark.parametrize(("mixer", "beside"), [("attention", "mamba2"), ("rwkv7", "gru"), ("mamba", "latent"),
                                               ("min_gru", "attention"), ("cema", "short_conv")])
def test_what_both_mixers_give_is_added_with_a_factor_on_what_each_reads_and_gives(mixer, beside):
    pair = small_model(mixer=mixer, beside=beside, **SCALES).blocks[0]["mixer"].branch
    assert isinstance(pair, SideBySide) and [*pair] == [mixer, beside]
    x, context = torch.randn(2, 13, 24, generator=torch.Generator().manual_seed(1)), Context(torch.arange(13))
    parts = (way_to_call(pair[word])(pair[word], factor * x, Stream(x), context, None)[0]
             for word, factor in ((mixer, 0.8), (beside, 1.3)))
    first, second = parts
    y, _ = pair(x, context, None, Stream(x))
    assert_close(y, 0.9 * first + 0.4 * second, "same")


def test_factors_of_mamba2_are_those_of_its_projections():
    scales = (0.4, 0.6, 0.7, 1.2, 0.5)
    flags = {"mixer": "mamba2", "mamba2.num_groups": 2, "mamba2.bias": True, "mamba2.norm": "none"}
    scaled, folded = small_model(**flags, **{"mamba2.scales": scales}), small_model(**flags)
    for block in folded.blocks:
        own = block["mixer"].branch
        rows = torch.tensor(scales[1:4]).repeat_interleave(torch.tensor(own.sizes))
        with torch.no_grad():
            for linear, factor in ((own.gate, scales[0]), (own.xbc, rows), (own.dt, scales[4])):
                linear.weight.mul_(factor if linear is not own.xbc else rows[:, None])
                linear.bias.mul_(factor)
    assert_close(scaled(small_tokens()), folded(small_tokens()), "same")


@pytest.mark.parametrize("kind", [MLP, GLU, ClampedGLU])
def test_factors_of_an_mlp_are_on_what_its_activation_reads_and_on_what_it_gives(kind):
    torch.manual_seed(0)
    mlp, x = kind(6, hidden_dim=10, activation="silu", bias=True, scales=(0.7, 1.6)), torch.randn(3, 6)
    up = mlp.up(x)
    hidden = {MLP: lambda: torch.nn.functional.silu(0.7 * up),
              GLU: lambda: torch.nn.functional.silu(0.7 * mlp.gate(x)) * up,
              ClampedGLU: lambda: torch.nn.functional.silu(0.7 * mlp.gate(x)) * (up + 1)}[kind]()
    assert_close(mlp(x), 1.6 * mlp.out(hidden), "same")


def test_the_cache_of_two_mixers_is_that_of_both():
    recurrent, attending = small_config(mixer="mamba2"), small_config()
    both = small_config(beside="mamba2")
    assert state_bytes(both) == state_bytes(recurrent) > 0 == state_bytes(attending)
    assert cached_numbers(both.at(0)) == cached_numbers(attending.at(0)) == 48
    assert cached_numbers(small_config(beside="latent").at(0)) == 48 + cached_numbers(
        small_config(mixer="latent").at(0))
    two = small_config(mixer="rwkv7", beside="mamba2", canon=("mixer",))
    assert state_bytes(two) == state_bytes(recurrent) + state_bytes(small_config(mixer="rwkv7"))


def test_a_picture_has_both_mixers_and_their_factors():
    line = next(line for line in picture(load_preset("falcon-h1")).splitlines() if "attention + mamba2" in line)
    for said in ("x + (attention + mamba2)(norm(x))", "attention: 8 heads of 64", "mixer_scales=1 0.9375",
                 "mamba2: num_heads=24", "beside_scales=1.25 0.235702"):
        assert said in line


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"beside": "attention"}, "beside=attention with mixer=attention: two different mixers stand side by side"),
    ({"mixer": "none", "beside": "gru"}, "beside=gru with mixer=none"),
    ({"layers": ("base", "gru"), "beside": "gru"}, "kinds.gru.beside=gru with mixer=gru"),
    ({"mixer_scales": (1.0, 2.0)}, "mixer_scales=(1.0, 2.0) would change nothing: it acts only when beside is not"),
    ({"beside": "gru", "beside_scales": (1.0,)}, "beside_scales=1.0 must be 2 factors, above 0 and finite"),
    ({"beside": "gru", "mixer_scales": (0.0, 1.0)}, "mixer_scales=0.0 1.0 must be 2 factors"),
    ({"mlp": "none", "mlp_scales": (1.0, 2.0)}, "mlp_scales=(1.0, 2.0) would change nothing"),
    ({"mixer": "mamba2", "mamba2.scales": (1.0, 2.0)}, "mamba2.scales=1.0 2.0 must be 5 factors"),
    ({"gru.expand": 2.0}, "gru.expand=2.0 would change nothing"),
    ({"beside": "gru", "gru.num_heads": 7}, "gru.num_heads=7 does not divide the 24 channels of gru.expand=1.0"),
    ({"mixer": "gru", "beside": "attention", "attention.num_heads": 5}, "attention.num_heads=5 does not divide dim=24"),
])
def test_what_cannot_stand_side_by_side_is_refused(flags, sentence):
    with pytest.raises(ValueError, match=".") as error:
        small_config(**flags)
    assert sentence in str(error.value)


def test_a_second_mixer_that_reads_from_left_to_right_is_in_no_encoder():
    with pytest.raises(ValueError, match="beside=mamba2 reads a text from left to right"):
        require_both_ways(small_config(beside="mamba2"), "an encoder")
    require_both_ways(small_config(beside="latent"), "an encoder")


def test_the_groups_of_both_mixers_act():
    cfg = override(small_config(beside="mamba2"), {"mamba2.num_heads": 4, "attention.window": 5})
    assert cfg.mamba2.num_heads == 4 and cfg.attention.window == 5
