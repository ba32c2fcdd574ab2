"""The gallery: presets at a scale keep their proportions, and `python presets.py` lists, compares and shows them."""

import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from thorough import some

from config import ModelConfig, flat, load_config, override
from configuration.recurrent import RECURRENT
from configuration.scaling import recurrent_rules
from configuration.units import parse_count
from data import Batch
from experiments.benchmarks import gallery_table
from experiments.benchmarks.benchmark_options import Gallery
from experiments.common import figures
from families import FAMILIES, ideas
from families.ideas import IDEAS
from memory_prediction.dry_run import sequence_bytes
from model import Model
from presets import ABOUT, PRESETS, at_scale, block_parameters, load_preset, parse_command_line
from showing import gallery, gallery_commands
from training.step import TrainState

ROOT = Path(__file__).resolve().parent.parent
EMPTY = tuple(f"ladder-0{rung}" for rung in range(1, 5))  # rungs without a mixer and an MLP
SCALABLE = [name for name in PRESETS if not name.startswith(EMPTY)]
SIZES = {"dim", "num_layers", "encoder_layers", "hidden_dim", "vocab_size", "max_seq_len", "rope.original_len",
         "moe.shared_dim", "attention.temperature_len", "cema.chunk", "final_norm_groups"} | {
    f"attention.{name}" for name in ("num_heads", "num_kv_heads", "head_dim", "window", "chunk", "scale")} | {
    f"latent.{name}" for name in ("kv_rank", "q_rank", "nope_dim", "rope_dim", "v_dim")} | {
    f"{word}.{name}" for word, group in RECURRENT.items() if hasattr(group, "resized") for name in group().resized(1.0)}


def heads_to_a_group(cfg: ModelConfig) -> float:
    return cfg.attention.num_heads / cfg.attention.kv_heads


# ---- at a scale ----


@pytest.mark.parametrize("preset", some(SCALABLE, 3))
def test_a_scaled_preset_has_the_parameters_and_the_proportions(preset):
    whole, cfg = load_preset(preset), at_scale(load_preset(preset), "1M")
    model = cfg.model
    assert block_parameters(model) == pytest.approx(1e6, rel=0.15)
    changed = {name for name, value in flat(model).items() if value != flat(whole.model)[name]}
    if len(whole.model.layers) == whole.model.num_layers:  # said one by one: fewer of each kind
        assert set(model.layers) == set(whole.model.layers)
        changed -= {"layers"}
    sizes = SIZES | {*recurrent_rules(whole.model, model.dim / whole.model.dim)}
    assert {re.sub(r"^kinds\.[\w-]+\.", "", name) for name in changed} <= sizes
    assert model.num_layers % len(model.layers) == 0
    usual = whole.model.hidden_width / whole.model.dim
    assert model.hidden_width == pytest.approx(usual * model.dim, rel=0.07, abs=4)  # a multiple of 8
    mixers = {layer.mixer for layer in model.by_kind.values()}
    width = model.latent.nope_dim if "latent" in mixers else model.head_width
    assert 12 <= width <= 48 or mixers <= set(RECURRENT)  # these have no heads that attend
    assert model.max_seq_len == min(256, whole.model.max_seq_len)
    if model.attention.kv_heads > 1 or heads_to_a_group(whole.model) < 20:  # falcon's 71 heads do not fit
        assert heads_to_a_group(model) == heads_to_a_group(whole.model)
    windows = {layer.attention.window or layer.attention.chunk for layer in model.by_kind.values()} - {None}
    assert all(32 <= window <= 128 for window in windows)


@pytest.mark.parametrize("preset", ["gemma3", "falcon", "llama3.1", "glm4"])
@pytest.mark.parametrize("scale", ["300k", "10M", "100M"])
def test_other_scales_are_near_too(scale, preset):
    cfg = at_scale(load_preset(preset), scale)
    assert block_parameters(cfg.model) == pytest.approx(parse_count(scale), rel=0.15)


def test_a_scaled_preset_has_the_vocabulary_of_the_tokenizer_and_a_rate_for_its_width():
    small, large = (at_scale(load_preset("gemma3"), scale) for scale in ("1M", "100M"))
    assert small.model.vocab_size is None and small.tokenizer == load_preset("default").tokenizer
    assert (small.train.lr, large.train.lr) == (3e-3, 6e-4)
    assert at_scale(load_preset("default"), "10M").train.lr == load_preset("default").train.lr  # Muon's


def test_scores_are_scaled_for_the_width_of_a_head():
    for preset in ("grok1", "granite", "ngpt"):
        whole, small = load_preset(preset).model, at_scale(load_preset(preset), "1M").model
        assert math.log(small.attention.scale, small.head_width) == pytest.approx(
            math.log(whole.attention.scale, whole.head_width))
    small = at_scale(load_preset("nanochat-2026"), "1M").model
    assert small.attention.scale == pytest.approx(1.44 * small.head_width**-0.5)


def test_a_mixer_without_heads_is_scaled_too():
    cfg = override(load_preset("llama3"), {"model.mixer": "none", "model.position": "none", "model.rope.theta": 1e4,
                                           "model.attention.num_heads": 4, "model.attention.num_kv_heads": None})
    assert block_parameters(at_scale(cfg, "1M").model) == pytest.approx(1e6, rel=0.15)


@pytest.mark.parametrize("preset", ["gemma3", "falcon", "bloom", "qwen3-moe", "nanochat-2026", "modded", "xlstm-v1"])
def test_a_scaled_preset_trains(preset):
    cfg = override(at_scale(load_preset(preset), "1M"), {"model.vocab_size": 61, "train.precision": "float32"})
    torch.manual_seed(0)
    state = TrainState(Model(cfg.model), cfg.train)
    tokens = torch.randint(61, (2, 65))
    batch = Batch(tokens[:, :-1], tokens[:, 1:], None, 128)
    first, second = (state.step([batch], number=number, lr=1e-3, noise=[]).loss for number in (1, 2))
    assert second < first


def parse(*words: str):
    return parse_command_line(words, program="train.py", description="")


def test_flags_change_the_scaled_preset():
    cfg, options = parse("qwen3", "--scale", "1M", "--model.max-seq-len", "64", "--train.lr", "0.5")
    scaled = at_scale(load_preset("qwen3"), "1M")
    assert cfg == override(scaled, {"model.max_seq_len": 64, "train.lr": 0.5}) and options["scale"] == "1M"


@pytest.mark.parametrize(("words", "sentence"), [
    (["llama3", "--scale", "1X"], "--scale 1X is not a number of parameters: use e.g. 1M, 2.5M or 100M"),
    (["ladder-01-bigram", "--scale", "1M"], "--scale 1M: the blocks have no parameters that could be scaled"),
    (["starcoder2", "--scale", "5k"], r"--scale 5k: no such model has 5,000 parameters: the nearest has \d{3},\d{3}"),
])
def test_a_scale_that_is_not_possible_is_one_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert re.fullmatch(f"error: {sentence}\n", capsys.readouterr().err)


# ---- the gallery ----


def test_every_preset_has_a_year_and_a_paper():
    assert list(ABOUT.keys() ^ PRESETS.keys()) == []
    for family in FAMILIES.values():
        assert family.about.keys() == family.presets.keys()
        assert all(about.apart and about.paper and 2019 <= about.year <= 2026 for about in family.about.values())


@pytest.mark.parametrize(("preset", "growth", "windows"), [
    ("llama3", 131_072, 0), ("falcon", 8192, 0), ("mistral", 0, 32 * 4096 * 4096),
    ("gemma3", 4 * 1024, 22 * 1024 * 512)])
def test_the_cache_is_keys_and_values_in_bfloat16_and_windows_stop_growing(preset, growth, windows):
    assert gallery.cache_bytes(load_preset(preset).model) == (growth, windows)


def test_the_cache_is_what_generation_takes():
    cfg = at_scale(load_preset("llama3"), "1M")
    long, short = (override(cfg, {"model.vocab_size": 61, "model.max_seq_len": length}) for length in (64, 32))
    positions = 8 * long.model.num_layers  # int64, for each token
    in_float32 = 2 * gallery.cache_bytes(long.model)[0]
    assert sequence_bytes(long) - sequence_bytes(short) == pytest.approx(32 * (in_float32 + positions), rel=0.05)


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "presets.py", *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("preset", ["gpt2", "gemma3", "tales", "phi", "rwkv7", "ladder-01-bigram"])
def test_parameters_are_counted_from_one_pattern_of_layers(preset):
    cfg = load_preset(preset)
    whole = gallery.whole(cfg)
    assert gallery.num_parameters(cfg) == (figures.num_parameters(whole), figures.num_active_parameters(whole))


def test_the_program_lists_a_line_for_each_preset():
    done = run()
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and [line.split()[0] for line in lines[1:-2]] == list(PRESETS)
    assert re.fullmatch(r"gemma3 +1\.00B +4\.1 kB \+ 11\.5 MB  2025  arXiv:2503\.19786 +five local .*", lines[16])


def test_two_presets_differ_in_the_flags_that_tell_them_apart(capsys):
    gallery_commands.diff_presets("llama3", "qwen3")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["flag", "llama3", "qwen3"] and ["model.qk_norm", "none", "head"] in lines
    for one, other in pairwise(PRESETS):
        gallery_commands.diff_presets(one, other)
        same = "differ in no flag" in capsys.readouterr().out
        assert same == (load_preset(one) == load_preset(other))


def test_the_picture_has_the_pattern_of_layers_and_their_sizes():
    text = gallery.picture(load_preset("gemma3"))
    for line in ("999,885,952 parameters", "local, 5 times", "global, once", "4 times, then local twice: 26 layers",
                 "x + norm2(attention(norm1(x)))  attention: 4 heads of 256, 1 for keys and values, rope",
                 "window=512", "theta=1e+06", "glu: 6,912 wide, gelu_tanh", "the matrix of embed"):
        assert line in text
    assert "x + attention(norm(x)) + mlp(norm(x))" in gallery.picture(load_preset("phi"))
    text = gallery.picture(load_preset("modded"))
    for line in ("norm, smear\n", "  a x + b x_0\n  │   x + a e\n  │   x + attention", "  x - w x_middle\n  norm"):
        assert line in text


@pytest.mark.parametrize("preset", some(PRESETS, 3))
def test_every_preset_has_a_picture(preset):
    cfg = load_preset(preset)
    assert f" {cfg.model.num_layers} layer" in gallery.picture(cfg)


def test_the_page_of_the_benchmark_has_a_row_for_presets_that_are_equal_at_a_scale():
    options = Gallery(presets=("gpt2", "gpt2-xl", "mistral"), steps=7)
    names = gallery_table.different(options)
    assert names == [("gpt2", "gpt2-xl"), ("mistral",)]
    rows = [gallery_table.Row(some, override(gallery_table.scaled(some[0], options), {"model.vocab_size": 61}), bits,
                              floor=0.5, speed=1.25) for some, bits in zip(names, (1.0, math.inf), strict=True)]
    top = gallery_table.heading(options, torch.device("cpu"), 0.5)
    text = gallery_table.page(top, [gallery_table.line_of(row.cells()) for row in rows])
    assert "benchmark.py gallery --steps 7\n" in text
    assert "| `gpt2`, `gpt2-xl` | 978,880 | 927,840 | 1.000 | 2.00 | 1.25 | 1,920 |  |" in text
    assert "| `mistral` | 1,019,040 | 999,360 | diverged |  | 1.25 | 0 | 15,360 |" in text


def test_rows_that_are_not_measured_again_stay_on_the_page(tmp_path):
    top = gallery_table.heading(Gallery(), torch.device("cpu"), 0.5)
    lines = [gallery_table.line_of((f"`{name}`", "1")) for name in ("mistral", "gpt2`, `gpt2-xl", "gone")]
    path = tmp_path / "page.md"
    path.write_text(gallery_table.page(top, lines[:2]) + lines[2])
    assert gallery_table.rows_of(path, top) == [lines[1], lines[0]]  # in the order of the gallery
    other = gallery_table.heading(Gallery(steps=7), torch.device("cpu"), 0.5)
    with pytest.raises(ValueError, match="were measured in another way"):
        gallery_table.rows_of(path, other)


# ---- ideas ----


def test_ideas_are_listed_with_what_was_found(capsys, monkeypatch, tmp_path):
    table = tmp_path / "ideas.csv"
    table.write_text("idea,ablation,difference,low,high,verdict,base,parameters,time\n"
                     "canon,ideas-tales-small,-0.0512,-0.0600,-0.0400,better,1.1,1.0100,1.2300\n"
                     "canon,ideas-tales-medium,0.0012,-0.0100,0.0200,inside the noise,1.0,1.0200,1.1000\n")
    monkeypatch.setattr(ideas, "FOUND", table)
    monkeypatch.setattr("sys.argv", ["presets.py", "ideas"])
    gallery_commands.main()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"idea", *IDEAS}
    assert "model.canon=mixer mlp  " in lines["canon"]
    assert "x 1.02  x 1.23  tales-small -0.051 better, tales-medium +0.001 " in lines["canon"]
    assert "not measured" in lines["smear"]


def test_the_table_of_measured_ideas_is_of_ideas_that_there_are():
    measured = ideas.found()
    assert measured.keys() <= IDEAS.keys() and len(measured) >= 10
    assert all(float(row["low"]) <= float(row["difference"]) <= float(row["high"]) for rows in measured.values()
               for row in rows)


@pytest.mark.parametrize("name", IDEAS)
def test_an_idea_changes_a_base_of_its_own(name):
    base = load_config(ROOT / "experiments" / "bases" / "ideas.yaml")
    assert override(base, IDEAS[name].flags) != base
