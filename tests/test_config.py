"""Every flag is documented and checked; what is refused is refused in a sentence that names the flag."""

import dataclasses
import inspect
import re

import pytest
import yaml

from config import (
    Config,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
    from_dict,
    load_config,
    override,
    replace,
    save_config,
    to_dict,
)
from presets import PLAIN_MODEL, PRESETS, load_preset, parse_command_line, tiny

SECTIONS = {"model": ModelConfig, "data": DataConfig, "tokenizer": TokenizerConfig, "train": TrainConfig,
            "sample": SampleConfig}
FLAGS = [(section, field.name) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]


def comment_of(section: str, flag: str) -> str:
    """What stands behind a flag on its line in config.py."""
    found = re.search(rf"^    {flag}: [^\n]*?  # (\S[^\n]*)$", inspect.getsource(SECTIONS[section]), re.MULTILINE)
    assert found, f"{section}.{flag} has no comment on its line"
    return found[1]


# ---- documentation ----


def test_sections_are_all_there():
    assert {field.name for field in dataclasses.fields(Config)} == set(SECTIONS)


@pytest.fixture(scope="module")
def help_text() -> str:
    """What --help prints, without frames and line breaks."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        written: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: written.extend(map(str, words)))
        patch.setenv("COLUMNS", "100")
        parse_command_line(["--help"], program="train.py", description="Train a model.")
    assert stop.value.code == 0
    return " ".join(re.sub("[│─╭╮╰╯]", " ", " ".join(written)).split())


@pytest.mark.parametrize(("section", "flag"), FLAGS)
def test_every_flag_has_a_comment_that_help_shows(help_text, section, flag):
    assert f"--{section}.{flag.replace('_', '-')} " in help_text.replace(",", " ")
    assert " ".join(comment_of(section, flag).split()) in help_text


# ---- what is refused ----


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"model.dimension": 3}, "model.dimension is no flag"),
    ({"modle.dim": 3}, "modle.dim is no flag"),
    ({"dim": 3}, "dim is no flag"),
    ({"model.norm": "layr"}, "model.norm='layr' is not known: use one of rms, layer"),
    ({"model.mixers": ("atention",)}, "model.mixers.0='atention' is not known: use one of attention"),
    ({"model.dim": "wide"}, "model.dim='wide' is wrong"),
    ({"model.dim": 3.5}, "model.dim=3.5 is wrong"),
    ({"model.dim": 0}, "model.dim=0 must be above 0"),
    ({"model.embed_scale": "sqrt"}, "model.embed_scale='sqrt'"),
    ({"model.window": -1}, "model.window=-1 must be above 0"),
    ({"model.attn_dropout": 1.5}, "model.attn_dropout=1.5 must lie between 0 and 1"),
    ({"model.mixers": ()}, "mixers=() is empty"),
    ({"model.num_heads": 5}, "num_heads=5 does not divide dim=128"),
    ({"model.num_kv_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
    ({"model.window": 4, "model.window_pattern": "SX"}, "window_pattern='SX'"),
    ({"model.window": 4, "model.window_pattern": ""}, "window_pattern=''"),
    ({"model.rope_fraction": 0.3}, "rope_fraction=0.3 of head_dim=32 is 9.6"),
    ({"model.rope_fraction": 1.5}, "rope_fraction=1.5"),
    ({"model.rope_fraction": 0.0}, "rope_fraction=0"),
    ({"model.position": "sinusoidal", "model.dim": 33, "model.num_heads": 3}, "dim=33"),
    ({"data.val_ratio": 1.0}, "data.val_ratio=1.0 must lie between 0 and 1"),
    ({"data.separator": ""}, "separator=''"),
    ({"tokenizer.kind": "byte", "tokenizer.vocab_size": 9}, "vocab_size=9 would change nothing"),
    ({"tokenizer.path": "tales_512", "tokenizer.vocab_size": 9}, "path='tales_512'"),
    ({"train.steps": 0}, "train.steps=0 must be above 0"),
    ({"train.beta1": 1.1}, "train.beta1=1.1 must lie between 0 and 1"),
    ({"train.warmup_steps": -1}, "train.warmup_steps=-1 is below 0"),
    ({"train.name": "a/b"}, "train.name='a/b' is no folder name"),
    ({"sample.temperature": -0.1}, "sample.temperature=-0.1 is below 0"),
    ({"sample.top_p": 0.0}, "sample.top_p=0"),
    ({"sample.top_k": 0}, "sample.top_k=0 must be above 0"),
    ({"sample.min_p": 2.0}, "sample.min_p=2.0 must lie between 0 and 1"),
], ids=str)
def test_a_mistake_is_refused_by_name(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        override(Config(), changes)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


NOTHING = {"mixers": ("none",), "mlp": "none"}


@pytest.mark.parametrize(("flags", "name"), [
    *(({"mixers": ("none",), name: value}, name) for name, value in {
        "qk_norm": "full", "window": 4, "attn_softcap": 9.0, "attn_scale": 1.0, "attn_dropout": 0.1,
        "attn_kernel": "explicit", "head_dim": 8, "num_kv_heads": 2, "q_bias": True, "k_bias": True, "v_bias": True,
        "out_bias": True, "position": "alibi"}.items()),
    *(({"mlp": "none", name: value}, name) for name, value in {
        "activation": "gelu", "mlp_bias": True, "mlp_dropout": 0.1, "hidden_dim": 8, "hidden_mult": 2.0,
        "hidden_multiple_of": 8}.items()),
    *(({"norm": "none", name: value}, name) for name, value in {
        "embed_norm": True, "qk_norm": "full", "norm_eps": 0.1, "norm_bias": True, "norm_unit_offset": True}.items()),
    *((NOTHING | {name: value}, name) for name, value in {
        "residual": "post", "residual_scale": 0.5, "residual_dropout": 0.1}.items()),
    ({"norm": "cosine", "norm_bias": True}, "norm_bias"),
    ({"norm": "dyt", "norm_unit_offset": True}, "norm_unit_offset"),
    ({"norm_affine": False, "norm_bias": True}, "norm_bias"),
    ({"norm_affine": False, "norm_unit_offset": True}, "norm_unit_offset"),
    ({"norm": "dyt", "norm_eps": 0.1}, "norm_eps"),
    ({"window_pattern": "SF"}, "window_pattern"),
    ({"position": "alibi", "rope_theta": 99.0}, "rope_theta"),
    ({"position": "none", "rope_fraction": 0.5}, "rope_fraction"),
    ({"position": "learned", "rope_layout": "interleaved"}, "rope_layout"),
    ({"hidden_dim": 8, "hidden_mult": 2.0}, "hidden_mult"),
    ({"tie_embeddings": True, "head_zero_init": True}, "head_zero_init"),
], ids=str)
def test_a_flag_that_would_be_ignored_is_refused(flags, name):
    with pytest.raises(ValueError, match=rf"{name}=.* would change nothing: it acts only when "):
        override(Config(), {"model": flags})


def test_several_mistakes_are_all_named():
    with pytest.raises(ValueError, match=r"model\.norm='a'.*; train\.optimizer='b'"):
        from_dict({"model": {"norm": "a"}, "train": {"optimizer": "b"}})


# ---- changes ----


def test_replace_and_override_check_again_and_leave_the_old_one():
    cfg = ModelConfig(dim=24, num_heads=4)
    with pytest.raises(ValueError, match="num_heads=5"):
        replace(cfg, num_heads=5)
    assert replace(cfg, num_heads=3).head_width == 8
    assert cfg.num_heads == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.num_heads = 3


def test_override_takes_dotted_and_nested_names():
    dotted = override(Config(), {"model.dim": 96, "train.steps": 7})
    assert dotted == override(Config(), {"model": {"dim": 96}, "train": {"steps": 7}})
    assert (dotted.model.dim, dotted.train.steps, dotted.model.num_layers) == (96, 7, Config().model.num_layers)


# ---- files ----


@pytest.mark.parametrize("preset", PRESETS)
def test_json_and_yaml_give_the_same_again(preset, tmp_path):
    cfg = override(load_preset(preset), {"sample.prompts": ("Zoë said:", ""), "data.name": ("a.txt", "tales")})
    save_config(cfg, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == cfg
    plain = {section: {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
             for section, flags in to_dict(cfg).items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == cfg


def test_missing_flags_take_their_defaults(tmp_path):
    (tmp_path / "some.yaml").write_text("model:\n  dim: 96\n")
    assert load_config(tmp_path / "some.yaml") == override(Config(), {"model.dim": 96})


@pytest.mark.parametrize(("content", "sentence"), [
    (b"model: {dim: wide}", "model.dim='wide'"), (b"model: {dimension: 9}", "model.dimension is no flag"),
    (b"models: {}", "models is no flag"), (b"- 1", "holds no configuration"), (b"", "holds no configuration"),
    (b"model: [", "neither JSON nor YAML"), (b"\xff\xfe\xfa", "neither JSON nor YAML"),
    (b"model: 3", "model=3 is wrong"),
])
def test_a_bad_file_is_named_with_its_mistake(content, sentence, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.yaml.*{re.escape(sentence)}") as error:
        load_config(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.yaml cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


# ---- presets and the command line ----


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_everything_that_makes_its_architecture(preset):
    sizes = {"dim", "num_layers", "num_heads", "vocab_size", "max_seq_len"}
    said = set(PRESETS[preset].get("model", {}))
    if preset != "default":
        assert said >= {name for section, name in FLAGS if section == "model"} - {"attn_kernel"}
        assert sizes <= said <= set(PLAIN_MODEL) | sizes


@pytest.mark.parametrize("preset", PRESETS)
def test_tiny_keeps_every_choice(preset):
    cfg, small = load_preset(preset).model, tiny(load_preset(preset)).model
    sizes = {"dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim", "vocab_size", "max_seq_len",
             "window"}
    changed = {name for name, value in dataclasses.asdict(cfg).items() if getattr(small, name) != value}
    assert changed <= sizes
    assert (small.num_kv_heads is None) == (cfg.num_kv_heads is None)
    assert (small.window is None) == (cfg.window is None)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"preset='gpt5' is not known: use one of default, gpt2"):
        load_preset("gpt5")


def parse(*words: str) -> Config:
    return parse_command_line(words, program="train.py", description="")[0]


def test_the_command_line_takes_preset_file_and_flags_in_this_order(tmp_path):
    save_config(override(Config(), {"model.dim": 96, "train.steps": 7, "data.seed": 5}), tmp_path / "base.json")
    cfg = parse("gpt2", "--config", str(tmp_path / "base.json"), "--train.steps", "9", "--model.norm-bias")
    assert (cfg.model.dim, cfg.train.steps, cfg.data.seed, cfg.model.norm_bias) == (768, 9, 5, True)
    assert parse("gpt2", "--model.no-norm-bias").model.norm_bias is False
    assert parse("--model.mixers", "attention", "none").model.mixers == ("attention", "none")
    assert parse("--train.grad-clip", "None").train.grad_clip is None


def test_a_program_has_options_of_its_own():
    cfg, options = parse_command_line(["--resume", "toy", "--train.steps", "3"], program="train.py", description="",
                                      options={"resume": "a run to go on with", "out-dir": "where"})
    assert (cfg.train.steps, options) == (3, {"resume": "toy", "out-dir": None, "preset": None})


@pytest.mark.parametrize(("words", "sentence"), [
    (["gpt5"], "preset='gpt5' is not known"), (["--model.dimm", "3"], "--model.dim"),
    (["--model.num-heads", "5"], "model.num_heads=5 does not divide dim"), (["--model.dim", "wide"], "wide"),
    (["--model.norm", "layr"], "layr"), (["--config", "no/such.yaml"], "no/such.yaml cannot be read"),
    (["--model.rope-theta", "3", "--model.position", "alibi"], "model.rope_theta=3.0 would change nothing"),
], ids=str)
def test_a_mistake_on_the_command_line_is_one_sentence_and_status_2(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    output, errors = capsys.readouterr()
    assert (stop.value.code, output) == (2, "")
    assert sentence in errors and errors.startswith("error: ") and errors.count("\n") == 1


def test_a_separator_typed_in_a_shell_is_a_newline():
    assert override(Config(), {"data.name": "a.txt", "data.separator": r"\n\n"}).data.separator == "\n\n"
