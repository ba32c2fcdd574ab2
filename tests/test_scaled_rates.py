"""Rates tuned on a narrow model serve wide and deep ones: each rule by its formula, and a small coordinate check."""

import json
from dataclasses import replace as with_changes
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from conftest import QUIET
from helpers import assert_close, loss_of, small_config, small_model, small_tokens
from small_runs import write_text_file
from torch import nn

import config
from config import Config, ModelConfig, TrainConfig, override
from configuration.rules import check_run
from configuration.scaling import ADAM_LIKE, SCALED_OPTIMIZERS, in_standard_form, widened
from exchange.exporting import choose_family, with_plain_factors
from experiments import coordinate_check
from experiments.coordinates import check_report, measuring
from families import FAMILIES
from memory_prediction.dry_run import dry_run, sequence_bytes
from model import Model, growths_of
from modules.residuals import RESIDUALS
from modules.stream import Context, Stream
from optim import OPTIMIZERS, make_optimizer, roles
from optimizing.scaling import RULES
from presets import load_preset, tiny
from training.command import parse, what_was_taken

M, DEEPER = 4.0, 2.0  # how much wider and deeper than the base SCALED is
SCALED = {"scaling": "completep", "base_dim": 6, "base_layers": 1}
MIXERS = [word for word in get_args(config.Mixer) if word != "none"]
WORDS = [*({"mixer": word} for word in MIXERS), *({"mlp": word} for word in get_args(config.Mlp)),
         {"mlp": "moe", "moe.shared_dim": 16, "moe.shared_gate": True, "moe.router_bias": True}]
IDS = [" ".join(f"{flag}={value}" for flag, value in flags.items()) for flags in WORDS]


def scaled_model(**flags: Any) -> Model:
    torch.manual_seed(0)
    return Model(small_config(**SCALED | flags))


def options_of(model: nn.Module, cfg: TrainConfig) -> dict[str, dict[str, Any]]:
    """The options of each parameter's group, by its name."""
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: group for group in make_optimizer(model, cfg).param_groups for p in group["params"]}


def train_cfg(kind: str, **flags: Any) -> TrainConfig:
    decay = {} if kind == "adam" else {"weight_decay": 0.3}
    return TrainConfig(**{"optimizer": kind, "lr": 0.01} | decay | flags | (
        {"schedule": "constant"} if kind == "schedule_free" else {}))


# ---- the base ----


@pytest.mark.parametrize("kind", SCALED_OPTIMIZERS)
def test_at_the_width_and_depth_of_the_base_nothing_changes(kind):
    found = []
    for flags in ({}, {"scaling": "mup", "base_dim": 24}, {"scaling": "completep", "base_dim": 24, "base_layers": 2}):
        if kind == "sgd" and flags.get("scaling") == "completep":
            continue
        torch.manual_seed(0)
        model = Model(small_config(**{"attention.scale": 0.5, "mlp": "moe", "mixer": "attention"} | flags))
        optimizer = make_optimizer(model, train_cfg(kind))
        optimizer.train()
        for step in range(3):
            tokens = small_tokens(t=9, seed=step)
            loss_of(model, tokens[:, :-1], tokens[:, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(model.state_dict())
    for weights in found[1:]:
        assert all(torch.equal(weights[name], found[0][name]) for name in found[0])


@pytest.mark.parametrize("scaling", ["mup", "completep"])
def test_scores_are_divided_by_the_width_of_a_head_unless_queries_and_keys_are_normalised(scaling):
    flags = {"scaling": scaling, "attention.num_heads": 3}
    assert Model(small_config(**flags)).blocks[0]["mixer"].branch.attend.scale == 1 / 8
    assert Model(small_config()).blocks[0]["mixer"].branch.attend.scale == 6**-0.5
    normalised = Model(small_config(scaling=scaling, qk_norm="head"))
    assert normalised.blocks[0]["mixer"].branch.attend.scale == 6**-0.5
    assert Model(small_config(**flags | {"attention.scale": 0.3})).blocks[0]["mixer"].branch.attend.scale == 0.3
    latent = Model(small_config(scaling=scaling, mixer="latent"))
    assert latent.blocks[0]["mixer"].branch.attend.scale == 1 / 48


# ---- what is drawn, and the forward pass ----


@pytest.mark.parametrize("init", ["normal", "fan_in"])
def test_matrices_are_drawn_narrower_by_the_root_of_m(init):
    plain, ours = small_model_drawn(init=init), small_model_drawn(init=init, **SCALED)
    for name, drawn in ours.items():
        if name.startswith("blocks.") and name.endswith("weight"):
            factor = M**-0.5 if init == "normal" else 1.0  # 1 / sqrt(inputs) has it
        elif name == "head.unembed.weight":
            factor = 1.0 if init == "normal" else M**0.5  # the head is drawn as at the base
        else:
            factor = 1.0
        assert_close(drawn, plain[name] * factor, "rounding")


def small_model_drawn(**flags: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Model(small_config(**flags)).state_dict()


def test_a_matrix_of_fixed_fan_in_is_drawn_as_at_the_base():
    plain, ours = small_model_drawn(mixer="gla"), small_model_drawn(mixer="gla", **SCALED)
    name = "blocks.0.mixer.branch.logits.{}.weight"
    assert_close(ours[name.format("up")], plain[name.format("up")], "rounding")
    assert_close(ours[name.format("down")], plain[name.format("down")] * M**-0.5, "rounding")


def test_the_head_reads_a_share_of_the_stream_and_its_bias_is_whole():
    head = scaled_model(head_bias=True).head
    nn.init.normal_(head.unembed.bias)
    x = torch.randn(2, 3, 24)
    assert_close(head(x), x @ head.unembed.weight.T / M + head.unembed.bias, "rounding")


@pytest.mark.parametrize("residual", ["pre", "sandwich", "branch_post"])
def test_what_a_branch_adds_is_divided_by_the_depth(residual):
    wiring = RESIDUALS[residual].from_config(small_config(**SCALED, residual=residual).at(1), nn.Linear(24, 24))
    plain = RESIDUALS[residual].from_config(small_config(residual=residual).at(1), wiring.branch)
    x, context = torch.randn(2, 3, 24), Context(torch.arange(3))
    added = plain(Stream(x), context).x - x
    assert_close(wiring(Stream(x), context).x, x + added / DEEPER, "rounding")


def test_the_parts_that_look_ahead_add_as_little_as_the_last_layer():
    model = scaled_model(ahead="modules")
    wirings = [model.blocks[1]["mixer"], model.ahead.parts[0].alone.block["mixer"]]
    assert [wiring.scale for wiring in wirings] == [1 / DEEPER] * 2


# ---- how parameters grow ----

POWERS = [  # flags, the end of a parameter's name, and the power of the width with which its inputs grow
    ({}, "blocks.0.mixer.branch.q.weight", 1), ({}, "blocks.0.mlp.branch.out.weight", 1),
    ({}, "embed.tokens.weight", 0), ({}, "head.unembed.weight", 1), ({}, "blocks.0.mixer.norm.scale", 0),
    ({"hidden_dim": 40}, "mlp.branch.out.weight", 1), ({"attention.head_dim": 6}, "mixer.branch.out.weight", 1),
    ({"mlp": "moe"}, "router.logits.weight", 1), ({"mlp": "moe", "hidden_dim": 8}, "experts.out.weight", 1),
    ({"mixer": "latent"}, "kv_up.weight", 0), ({"mixer": "latent"}, "branch.out.weight", 1),
    ({"mixer": "mamba"}, "dt.weight", 1), ({"mixer": "gla", "gla.rank": 5}, "logits.down.weight", 1),
    ({"mixer": "mamba"}, "conv.weight", 0), ({"mixer": "mamba"}, "A_log", 0), ({"mixer": "mamba2"}, "dt_bias", 0),
    ({"mixer": "gla"}, "logits.up.weight", 0), ({"mixer": "kda"}, "gate.up.weight", 1),
    ({"mixer": "rwkv7"}, "decay.down", 1), ({"mixer": "rwkv7"}, "decay.up", 0.5),
    ({"mixer": "mlstm"}, "input_gate.weight", 1), ({"mixer": "mlstm_v1"}, "branch.q.weight", 0),
    ({"mixer": "gru"}, "recurrent", 1), ({"mixer": "slstm"}, "recurrent", 1),
    ({"mixer": "rg_lru"}, "input_gate.weight", 1), ({"mixer": "hyena"}, "kernel.last.weight", 0),
    ({"cross": "attention"}, "cross.branch.k.weight", 1), ({"residual": "attnres"}, "mixture.query", 1),
    ({"residual": "mhc"}, "logits.follow.weight", 1), ({"mlp": "scaled_glu"}, "gate_scale.vector", 0.5),
    ({"memory": "engram"}, "memory.out.weight", 0), ({"memory": "bigram"}, "table.weight", 0),
    ({"smear": True}, "smear.gate.weight", 0), ({"pointer": True}, "pointer.gate.weight", 1),
    ({"position": "learned"}, "position.table.weight", 0), ({"position": "t5"}, "distance_bias.table", 0),
    ({"noised": True, "tie_embeddings": True}, "embed.tokens.weight", 0), ({"noised": True, "tie_embeddings": True},
                                                                         "embed.up.first.weight", 0),
    ({"attention.value_embedding": True}, "value_embedding.gate.weight", 0),
]


@pytest.mark.parametrize(("flags", "end", "power"), POWERS, ids=[end for _, end, _ in POWERS])
def test_inputs_grow_with_the_width_or_do_not(flags, end, power):
    found = {growth.powers.inputs for name, growth in growths_of(small_config(**SCALED_WIDTH | flags)).items()
             if name.endswith(end)}
    assert found == {float(power)}


SCALED_WIDTH = {"scaling": "mup", "base_dim": 6}


@pytest.mark.parametrize("flags", WORDS, ids=IDS)
def test_each_part_builds_with_a_rate_for_every_parameter(flags):
    model = scaled_model(**flags)
    found = options_of(model, train_cfg("muon"))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, growth in model.growths.items():
        if growth.powers.size > 1:  # two sizes follow the width: it is a matrix, whose part says what it reads
            assert growth.powers.inputs > 0, f"{name}: let its part say its inputs in `fan_in`"
        if roles(model).get(name) == "vector" and growth.powers.inputs == 0:
            assert found[name]["lr_mult"] == 1.0


def test_a_wider_model_has_more_heads_of_the_same_width():
    wide = widened(small_config(hidden_dim=40, layers=("a", "base"), kinds={"a": {"hidden_dim": 8}}), 3)
    assert (wide.dim, wide.attention.num_heads, wide.head_width) == (72, 12, 6)
    assert [wide.at(i).hidden_width for i in range(2)] == [24, 120]


# ---- rates ----


@pytest.mark.parametrize("kind", ADAM_LIKE)
def test_rates_and_decay_of_adam_by_the_table(kind):
    model = scaled_model(mixer="gla", mlp="moe", head_bias=True)
    found = options_of(model, train_cfg(kind, embed_lr_mult=2.0, head_lr_mult=3.0, vector_lr_mult=5.0))
    decay = 0.0 if kind == "adam" else 0.3

    def has(name: str, lr: float, decay: float) -> None:
        group = found[name]
        assert (group["lr"], group["weight_decay"]) == pytest.approx((lr, decay)), name

    has("embed.tokens.weight", 0.02, decay)
    has("head.unembed.weight", 0.03, decay)
    has("blocks.0.mixer.norm.scale", 0.05, 0.0)
    has("norm.scale", 0.05, 0.0)
    for name in ("mixer.branch.q", "mixer.branch.out", "mixer.branch.logits.down", "mlp.branch.router.logits",
                 "mlp.branch.experts.up", "mlp.branch.experts.out"):
        has(f"blocks.1.{name}.weight", 0.01 / M, decay * M)
    has("blocks.1.mixer.branch.logits.up.weight", 0.01, decay)
    if kind != "lion":
        assert {group["eps"] for group in found.values()} == {1e-8 / (M * DEEPER)}


def test_muons_steps_have_a_norm_that_goes_with_the_root_of_outputs_by_inputs():
    base = Model(small_config(mixer="gla", mlp="moe", scaling="mup", base_dim=24))
    wide = Model(widened(base.cfg, 4))
    norms = []
    for model in (base, wide):
        for name, group in options_of(model, train_cfg("muon")).items():
            if roles(model)[name] == "matrix":
                inputs, outputs, _ = model.growths[name].fans
                norm = group["lr"] * 0.2 * max(inputs, outputs) ** 0.5  # of match_rms_adamw
                norms.append({"name": name, "norm": norm / (outputs / inputs) ** 0.5,
                              "decay": group["lr"] * group["weight_decay"], "power": model.growths[name].powers.inputs})
    table = pd.DataFrame(norms).groupby("name").agg({"norm": list, "decay": list, "power": "first"})
    assert len(table) > 10
    for _, (norm, decay, power) in table.iterrows():
        assert norm[1] == pytest.approx(norm[0])
        assert decay[1] == pytest.approx(decay[0] * 4**-power)


def test_muon_leaves_the_rest_to_adams_rules():
    found = options_of(scaled_model(mixer="mlstm"), train_cfg("muon", embed_lr_mult=1.0))
    rates = {name: found[name]["lr"] for name in (
        "embed.tokens.weight", "head.unembed.weight", "norm.scale", "blocks.0.mixer.branch.input_gate.weight")}
    assert [*rates.values()] == pytest.approx([0.01, 0.01, 0.01, 0.01 / M])
    assert found["blocks.0.mixer.branch.q.weight"]["lr"] == pytest.approx(0.01 * M**-0.5 * 1.0)


def test_the_rates_of_sgd_go_with_outputs_by_inputs():
    found = options_of(scaled_model(scaling="mup", base_layers=3, mixer="gla", mlp="moe"), train_cfg("sgd"))
    expected = {"embed.tokens.weight": M, "head.unembed.weight": M, "norm.scale": M,
                "blocks.0.mixer.branch.q.weight": 1, "blocks.0.mixer.branch.logits.down.weight": 1 / M,
                "blocks.0.mixer.branch.logits.up.weight": M, "blocks.0.mlp.branch.router.logits.weight": 1 / M}
    assert {name: found[name]["lr"] / 0.01 for name in expected} == pytest.approx(expected)
    assert all(found[name]["lr"] * found[name]["weight_decay"] == pytest.approx(0.01 * 0.3)
               for name in expected if name != "norm.scale")


def test_every_optimizer_has_a_rule_or_is_refused():
    assert set(RULES) == set(SCALED_OPTIMIZERS) and set(SCALED_OPTIMIZERS) < set(OPTIMIZERS)
    for kind in set(OPTIMIZERS) - set(RULES):
        with pytest.raises(ValueError, match=f"train.optimizer={kind} does not go with model.scaling=completep"):
            make_optimizer(scaled_model(), train_cfg(kind))


# ---- what is refused ----


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"base_dim": 64}, "base_dim=64 would change nothing: it acts only when scaling is not standard"),
    ({"scaling": "mup", "base_layers": 2}, "base_layers=2 would change nothing: it acts only when scaling is complete"),
    ({"scaling": "mup", "base_dim": 0}, "base_dim=0 must be above 0"),
    ({"scaling": "completep", "residual": "post"}, "and residual=post is not one: use scaling=mup"),
    ({"scaling": "mup", "residual": "ngpt", "out_init": "same"}, "scaling=mup does not go with residual=ngpt"),
    ({"scaling": "mup", "init": "xavier"}, "scaling=mup does not go with init=xavier"),
    ({"scaling": "mup", "embed_scale": "sqrt_dim"}, "scaling=mup does not go with embed_scale=sqrt_dim"),
    ({"scaling": "completep", "out_init": "depth"}, "scaling=completep does not go with out_init=depth"),
])
def test_what_does_not_go_with_a_scaling_is_a_sentence(flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        override(ModelConfig(), flags)


@pytest.mark.parametrize(("model", "train", "sentence"), [
    ({"scaling": "mup"}, {"optimizer": "soap"}, "train.optimizer=soap does not go with model.scaling=mup"),
    ({"scaling": "completep"}, {"optimizer": "sgd"}, "whose rule for the depth is that of Adam: use model.scaling=mup"),
    ({"scaling": "mup"}, {"optimizer": "adam", "weight_decay": 0.1}, "has no rule for model.scaling=mup: use adamw"),
])
def test_an_optimizer_whose_rates_do_not_transfer_is_refused(model, train, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_run(Config(model=ModelConfig(**model), train=TrainConfig(**train)))


# ---- the rates of another run ----


def write_run(models, name: str, **flags: Any) -> None:
    (models / name).mkdir(parents=True)
    (models / name / "config.json").write_text(json.dumps(config.to_dict(override(Config(), flags))))


def test_the_rates_of_a_narrow_run_are_taken_and_flags_still_change_them(tmp_path):
    write_run(tmp_path, "narrow", **{"model.dim": 64, "model.scaling": "mup", "model.base_dim": 64, "train.lr": 0.003,
                                     "train.optimizer": "adamw", "train.schedule": "cosine", "train.min_lr_ratio": 0.2,
                                     "train.weight_decay": 0.05, "train.steps": 7})
    cfg, _ = parse(["gpt2", "--transfer-from", "narrow", "--train.lr", "0.001"], tmp_path)
    assert (cfg.model.dim, cfg.model.scaling, cfg.model.base_dim) == (768, "mup", 64)
    train = cfg.train
    assert (train.lr, train.optimizer, train.schedule, train.min_lr_ratio, train.weight_decay, train.steps) == (
        0.001, "adamw", "cosine", 0.2, 0.05, load_preset("gpt2").train.steps)
    said = what_was_taken("narrow", cfg, tmp_path)
    assert said.startswith("rates of narrow, 64 wide, for a width of 768: model.scaling=mup model.base_dim=64 ")
    assert "train.weight_decay=0.05" in said and "train.lr" not in said
    assert said.endswith("its 3 layers are not the 12 here: only model.scaling=completep transfers between them")


@pytest.mark.parametrize(("words", "sentence"), [
    (["--transfer-from", "plain"], "--transfer-from plain: it was trained with model.scaling=standard, whose rates"),
    (["--transfer-from", "nowhere"], "nowhere is not a run"),
    (["--resume", "plain", "--transfer-from", "plain"], "--resume plain keeps the run's rates: leave out --transfer"),
])
def test_rates_that_do_not_transfer_are_refused(words, sentence, tmp_path, capsys):
    write_run(tmp_path, "plain")
    with pytest.raises(SystemExit) as stop:
        parse(words, tmp_path)
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in errors and errors.count("\n") == 1


def test_a_run_with_a_scaling_learns_and_its_rates_transfer(go, models):
    log = go({"train.name": "narrow", "model.scaling": "completep", "model.base_dim": 8, "model.base_layers": 1}).log()
    assert log["val_loss"].dropna().iloc[-1] < 0.9 * log["val_loss"].dropna().iloc[0]
    cfg, _ = parse(["--transfer-from", "narrow"], models)
    assert (cfg.model.scaling, cfg.model.base_dim, cfg.train.lr) == ("completep", 8, 0.01)


# ---- memory, export ----


def test_how_parameters_grow_is_found_without_memory():
    sizes = []
    for flags in ({}, {"scaling": "mup", "base_dim": 24}):
        one = override(Config(), {"model": small_config(**flags), "train.optimizer": "muon"})
        growths_of.cache_clear()
        sizes.append(({where: found.num_bytes for where, found in dry_run(one, rows=2, num_texts=1).items()},
                      sequence_bytes(one)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_an_exported_model_has_the_same_logits_by_its_factors(tied):
    flags = {"norm": "rms", "mlp": "glu", "activation": "silu", "tie_embeddings": tied, "head_bias": not tied}
    model = small_model(**SCALED | flags)
    plain = with_plain_factors(model)
    assert plain.cfg.scaling == "standard"
    assert (plain.cfg.residual_scale, plain.cfg.logit_scale, plain.cfg.attention.scale) == (1 / DEEPER, 1 / M, 1 / 6)
    assert_close(plain(small_tokens()), model(small_tokens()), "same")


def test_a_granite_can_be_exported_and_a_qwen_is_refused_by_its_factors():
    flags = {"scaling": "completep", "base_dim": 24, "base_layers": 2}
    granite, qwen = (override(tiny(load_preset(name)).model, flags) for name in ("granite", "qwen3"))
    assert FAMILIES["granite"].misfits(in_standard_form(granite)) == []
    with pytest.raises(ValueError, match="model.logit_scale=0.5, and a .* has 1.0"):
        choose_family(in_standard_form(qwen), "qwen3", "toy")


def test_a_factor_that_is_no_flag_has_no_other_form():
    with pytest.raises(ValueError, match="scaling=completep gives cema a factor that is no flag"):
        in_standard_form(small_config(**SCALED, mixer="cema", position="none"))


# ---- coordinate checks ----


def check_config(tmp_path, **flags: Any) -> Config:
    text = write_text_file(tmp_path / "text.txt", num_words=2000)
    return override(coordinate_check.parse([]).config, {
        "data": {"name": (str(text),), "cache_dir": str(tmp_path / "cache"), "num_stories": 60_000},
        "tokenizer": {"kind": "char", "path": None},
        "model.dim": 32, "model.max_seq_len": 32, "train.batch_size": 4, **flags})


def slopes(cfg: Config, axis: str = "width", **options: Any) -> dict[tuple[str, str, str], float]:
    wanted = with_changes(coordinate_check.parse([]), **{"widths": (32, 128), "seeds": 1, "steps": 4} | options)
    table = measuring.measure(wanted, cfg, axis, QUIET)
    return {(line.scaling, line.place, line.kind): line.slope for line in check_report.lines_of(table, axis)}


@pytest.mark.parametrize("flags", [{}, {"model.mlp": "moe", "model.activation": "silu"}, {"model.mixer": "mamba2"}],
                         ids=["attention", "moe", "mamba2"])
def test_numbers_keep_their_size_at_any_width(tmp_path, flags):
    found = slopes(check_config(tmp_path, **flags))
    changes = {scaling: found[scaling, "block 2", "change"] for scaling in ("standard", "mup")}
    assert abs(changes["mup"]) < 0.25 < 0.5 < changes["standard"]
    spectral = {scaling: found[scaling, measuring.MATRICES, "change"] for scaling in ("standard", "mup")}
    assert abs(spectral["mup"]) < 0.1 < 0.4 < spectral["standard"]


def test_numbers_keep_their_size_at_any_depth(tmp_path):
    found = slopes(check_config(tmp_path), "depth", depths=(2, 8), scalings=("mup", "completep"))
    assert abs(found["completep", "last block", "change"]) < 0.2 < 0.4 < found["mup", "last block", "change"]


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_steps_of_every_mixer_keep_their_size(tmp_path, mixer):
    cfg = check_config(tmp_path, **{"model.mixer": mixer, "model.num_layers": 1, "model.mlp": "none"})
    found = slopes(cfg, scalings=("mup",), steps=3, widths=(32, 256))
    assert abs(found["mup", "block 1", "change"]) < 0.35
    assert abs(found["mup", measuring.MATRICES, "change"]) < 0.35


def test_the_program_prints_slopes_and_writes_tables_and_pictures(tmp_path, monkeypatch, call):
    cfg = check_config(tmp_path)
    (tmp_path / "base.json").write_text(json.dumps(config.to_dict(cfg)))
    monkeypatch.setattr("experiments.coordinates.check_options.RESULTS", tmp_path / "results")
    status, output, errors = call(coordinate_check.main, "--config", tmp_path / "base.json", "--widths", 32, 64,
                                  "--depths", 1, 2, "--seeds", 1, "--steps", 2, "--scalings", "completep")
    assert (status, errors) == (0, "")
    assert "completep: the steepest slope inside the blocks is" in output and "attention's scores" in output
    folder = tmp_path / "results" / "coordinate-check"
    assert {path.name for path in folder.iterdir()} == {"width.csv", "width.png", "depth.csv", "depth.png"}
    assert set(pd.read_csv(folder / "depth.csv").columns) == {"scaling", "depth", "seed", "place", "kind", "value"}


@pytest.mark.parametrize(("words", "sentence"), [
    ("--widths 64", "widths=64 must be two or more different numbers: a slope needs them"),
    ("--widths 64 100", "a width of 100 is not a multiple of model.dim=64"),
    ("--widths --steps 3", "widths=() and depths=() leave nothing to compare"),
    ("--scalings mup mup", "scalings=mup mup must name one or more, each once"),
    ("--stps 3", "perhaps --steps was meant"),
])
def test_a_mistake_of_the_program_is_one_sentence(words, sentence, call):
    status, output, errors = call(coordinate_check.main, *words.split())
    assert (status, output) == (2, "") and sentence in errors and errors.count("\n") == 1
