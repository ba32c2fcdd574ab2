"""Every flag is documented and checked; what is refused is refused in a sentence that names the flag."""

import dataclasses
import functools
import inspect
import json
import re
from typing import get_type_hints

import pytest
import yaml
from thorough import some

from config import (
    Config,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TokenizerConfig,
    TrainConfig,
    diff,
    flat,
    from_dict,
    load_config,
    override,
    replace,
    save_config,
    to_dict,
)
from configuration.mistakes import nearest
from configuration.plain import PLAIN_MODEL
from configuration.recurrent import RECURRENT
from configuration.tree import flag_names, nested
from presets import PRESETS, load_preset, parse_command_line, tiny

SECTIONS = {"model": ModelConfig, "data": DataConfig, "tokenizer": TokenizerConfig, "train": TrainConfig,
            "sample": SampleConfig}
FLAGS = flag_names(Config)


@functools.cache
def source_of(group: str) -> str:
    """The source of a group of flags, and of those that it derives from."""
    owner = functools.reduce(lambda kind, part: get_type_hints(kind)[part], filter(None, group.split(".")), Config)
    return "".join(inspect.getsource(kind) for kind in owner.__mro__ if dataclasses.is_dataclass(kind))


def comment_of(flag: str) -> str:
    """The comment on a flag's line, in its group or in one that this derives from."""
    group, _, name = flag.rpartition(".")
    found = re.search(rf"^    {name}: [^\n]*?  # (\S[^\n]*)$", source_of(group), re.MULTILINE)
    assert found, f"{flag} has no comment on its line"
    return found[1]


# ---- documentation ----


def test_sections_are_all_there():
    assert {field.name for field in dataclasses.fields(Config)} == set(SECTIONS)


@pytest.fixture(scope="module")
def help_text() -> str:
    """What --help prints, without line breaks."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        written: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: written.extend(map(str, words)))
        patch.setenv("COLUMNS", "100")
        parse_command_line(["--help"], program="train.py", description="Train a model.")
    assert stop.value.code == 0
    return " ".join(" ".join(written).split())


def test_every_flag_has_a_comment_that_help_shows(help_text):
    names, missing = set(help_text.replace(",", " ").split()), []
    for flag in FLAGS:
        if flag == "model.kinds":  # its flags are those of the model, one level down
            shown = comment_of(flag) and "--model.kinds.NAME.FLAG VALUE" in help_text
        else:
            comment = " ".join(comment_of(flag).split())
            shown = comment and comment in help_text and f"--{flag.replace('_', '-')}" in names
        missing += [] if shown else [flag]
    assert not missing


# ---- what is refused ----


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"model.dimension": 3}, "model.dimension is not a flag"),
    ({"modle.dim": 3}, "modle.dim is not a flag"),
    ({"dim": 3}, "dim is not a flag"),
    ({"model.norm": "layr"}, "model.norm='layr' is not known: use one of rms, layer"),
    ({"model.mixer": "atention"},
     "model.mixer='atention' is not known: use one of attention"),
    ({"model.layers": ("atention",)},
     "model.layers=atention names atention, which is not a kind: describe it in kinds"),
    ({"model.layers": ("attention,none",)},
     "model.layers=attention,none names attention,none, which is not a kind: put spaces between kinds"),
    ({"model.layers": ("attention", "none"), "model.num_layers": 1},
     "model.num_layers=1 leaves no layer for none of layers=attention none: use more layers or fewer kinds"),
    ({"model.num_heads": 3},
     "model.num_heads is not a flag: see --help for all of them; perhaps model.attention.num_heads"),
    ({"model.kinds.local.attention.window": 3}, "model.kinds.local is in no layer"),
    ({"model.layers": ("x",), "model.kinds": {"x": {"dim": 3}}}, "model.kinds.x.dim would change nothing"),
    ({"model.layers": ("x",), "model.kinds": {"x": {"attention.num_heads": 5}}},
     "model.kinds.x.attention.num_heads=5 does not divide dim=128"),
    ({"model.layers": ("x",), "model.kinds": {"x": {"atention.window": 5}}},
     "model.kinds.x.atention.window is not a flag: see --help for all of them; perhaps attention.window"),
    ({"model.layers": ("x",), "model.kinds": {"x": {"position": "learned"}}},
     "model.kinds.x.position=learned does not go with position=rope"),
    ({"model.activation": "silu", "model.layers": ("x",), "model.kinds": {"x": {"activation": "relu"}}},
     "model.activation=silu would change nothing: every kind of layer has its own"),
    ({"model.rope": 3}, "model.rope=3 is wrong: it is a group of flags"),
    ({"sample.temperature": 0.0, "sample.top_k": 3},
     "sample.top_k=3 would change nothing: it acts only when temperature"),
    ({"model.layers": ("base",), "model.kinds": {"base": {"norm": "layer"}}}, "model.kinds.base is not a name"),
    ({"model.dim": "wide"}, "model.dim='wide' is wrong"),
    ({"model.dim": 3.5}, "model.dim=3.5 is wrong"),
    ({"model.dim": 0}, "model.dim=0 must be above 0"),
    ({"model.embed_scale": "sqrt"}, "model.embed_scale='sqrt'"),
    ({"model.attention.window": -1}, "model.attention.window=-1 must be above 0"),
    ({"model.attention.dropout": 1.5}, "model.attention.dropout=1.5 must lie between 0 and 1"),
    ({"model.layers": ()}, "layers=() is empty"),
    ({"model.attention.num_heads": 5}, "num_heads=5 does not divide dim=128"),
    ({"model.attention.num_kv_heads": 3}, "attention.num_kv_heads=3 does not divide attention.num_heads=4"),
    ({"model.rope.fraction": 0.3}, "rope.fraction=0.3 of attention.head_dim=32 is 9.6"),
    ({"model.rope.fraction": 1.5}, "rope.fraction=1.5"),
    ({"model.rope.fraction": 0.0}, "rope.fraction=0"),
    ({"model.position": "sinusoidal", "model.dim": 33, "model.attention.num_heads": 3}, "dim=33"),
    ({"data.val_ratio": 1.0}, "data.val_ratio=1.0 must lie between 0 and 1"),
    ({"data.separator": ""}, "separator=''"),
    ({"tokenizer.kind": "byte", "tokenizer.vocab_size": 9}, "vocab_size=9 would change nothing"),
    ({"tokenizer.path": "tales_512", "tokenizer.vocab_size": 9}, "path='tales_512'"),
    ({"train.steps": 0}, "train.steps=0 must be above 0"),
    ({"train.lr": 1e31}, "train.lr=1e+31 is larger than 1e+30"),
    ({"train.lr": 1e308}, "train.lr=1e+308 is larger than 3.4e+38, float32's largest number"),
    ({"model.attention.clip": 1e308}, "model.attention.clip=1e+308 is larger than 3.4e+38"),
    ({"model.kinds": {"a": {"attention.clip": 1e39}}, "model.layers": ("a",)}, "is larger than 3.4e+38"),
    ({"train.accumulation": 10**9}, "train.accumulation=1000000000 is larger than 100000"),
    ({"train.embed_lr_mult": 1e9}, "train.embed_lr_mult=1000000000.0 is larger than 1e+06"),
    ({"train.beta1": 1.1}, "train.beta1=1.1 must lie between 0 and 1"),
    ({"train.warmup_steps": -1}, "train.warmup_steps=-1 is below 0"),
    ({"train.name": "a/b"}, "train.name='a/b' is not a folder name"),
    ({"train.name": ".twin.tmp"}, "train.name='.twin.tmp' is not a folder name"),
    ({"train.name": "-x"}, "train.name='-x' is not a folder name"),
    ({"train.name": "n" * 201}, "train.name=nnnnnnnnnnnnnnnnnnnn... is 201 bytes long: use at most 200"),
    ({"train.name": "é" * 101}, "is 202 bytes long: use at most 200"),
    ({"sample.temperature": -0.1}, "sample.temperature=-0.1 is below 0"),
    ({"sample.top_p": 0.0}, "sample.top_p=0"),
    ({"sample.top_k": 0}, "sample.top_k=0 must be above 0"),
    ({"sample.min_p": 2.0}, "sample.min_p=2.0 must lie between 0 and 1"),
], ids=str)
def test_a_mistake_is_refused_by_name(changes, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        override(Config(), changes)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400  # it may list a menu


NOTHING = {"mixer": "none", "mlp": "none"}


@pytest.mark.parametrize(("flags", "name"), [
    *(({"mixer": "none", name: value}, name) for name, value in {
        "qk_norm": "full", "attention.window": 4, "attention.softcap": 9.0, "attention.scale": 1.0,
        "attention.dropout": 0.1,
        "attention.backend": "eager", "attention.head_dim": 8, "attention.num_kv_heads": 2, "attention.q_bias": True,
        "attention.k_bias": True, "attention.v_bias": True,
        "attention.out_bias": True, "position": "alibi"}.items()),
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
    ({"layers": ("x",), "kinds": {"x": {"mixer": "none", "attention.window": 5}}}, "kinds.x.attention.window"),
    ({"layers": ("x", "base"), "kinds": {"x": {"norm": "dyt", "norm_eps": 0.1}}}, "kinds.x.norm_eps"),
    ({"layers": ("base", "x"), "kinds": {"x": {"moe.top_k": 3}}}, "kinds.x.moe.top_k"),
    ({"layers": ("base", "x"), "kinds": {"x": {"min_gru.start": 3.0}}}, "kinds.x.min_gru.start"),
    ({"layers": ("none",), "attention.window": 5}, "attention.window"),
    ({"position": "alibi", "rope.theta": 99.0}, "rope.theta"),
    ({"position": "none", "rope.fraction": 0.5}, "rope.fraction"),
    ({"position": "learned", "rope.layout": "interleaved"}, "rope.layout"),
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
    cfg = ModelConfig(dim=24)
    with pytest.raises(ValueError, match="num_heads=5"):
        replace(cfg, **{"attention.num_heads": 5})
    assert replace(cfg, **{"attention.num_heads": 3}).head_width == 8
    assert cfg.attention.num_heads == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.dim = 3


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: ModelConfig(nrom="rms"), "nrom is not a flag: see --help for all of them; perhaps norm was meant"),
    (lambda: replace(ModelConfig(), norm="layernorm"),
     "norm='layernorm' is not known: use one of rms, layer, cosine, l2, dyt or none; perhaps layer was meant"),
    (lambda: ModelConfig(dim="wide"), "dim='wide' is wrong: use a whole number"),
    (lambda: TrainConfig(lr="fast"), "lr='fast' is wrong: use a number"),
])
def test_a_mistake_in_python_is_one_sentence_with_the_nearest_name(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$") as error:
        make()
    assert type(error.value) is ValueError


def test_the_nearest_name_is_the_same_leaf_then_the_most_alike():
    names = ["model.attention.window", "model.norm", "train.lr"]
    assert nearest("model.window", names) == "; perhaps model.attention.window was meant"
    assert nearest("model.nrom", names) == "; perhaps model.norm was meant"
    assert nearest("model.xyzzy", names) == ""


def test_a_dotted_name_changes_one_flag_of_one_kind_and_a_mapping_replaces_all():
    cfg = override(ModelConfig(), {"layers": ("x", "y"), "kinds": {"x": {"rope.theta": "1e6"}, "y": {}}})
    assert cfg.kinds == {"x": {"rope": {"theta": 1e6}}, "y": {}}
    both = override(cfg, {"kinds.y.norm": "layer"})
    assert diff(cfg, both) == {"kinds.y": ({}, None), "kinds.y.norm": (None, "layer")}
    assert [both.at(i).norm for i in range(3)] == ["rms", "layer", "rms"] and both.at(2).rope.theta == 1e6
    assert override(both, {"layers": ("base",), "kinds": {}}) == ModelConfig()
    assert len({hash(cfg), hash(both), hash(ModelConfig())}) == 3


def test_a_kind_that_is_a_mixer_needs_no_description():
    cfg = ModelConfig(layers=("attention", "none"))
    assert [cfg.at(i).mixer for i in range(4)] == ["attention", "none"] * 2


def test_a_flag_that_acts_in_one_kind_of_layer_is_accepted_for_all():
    cfg = override(ModelConfig(), {"layers": ("rope", "nope"), "kinds": {"rope": {}, "nope": {"position": "none"}},
                                   "rope.theta": 5e6})
    assert cfg.at(1).rope.theta == 5e6


def test_override_takes_dotted_and_nested_names():
    dotted = override(Config(), {"model.dim": 96, "train.steps": 7})
    assert dotted == override(Config(), {"model": {"dim": 96}, "train": {"steps": 7}})
    assert (dotted.model.dim, dotted.train.steps, dotted.model.num_layers) == (96, 7, Config().model.num_layers)


# ---- files ----


@pytest.mark.parametrize("preset", some(PRESETS, 3))
def test_json_and_yaml_give_the_same_again(preset, tmp_path):
    cfg = override(load_preset(preset), {"sample.prompts": ("Zoë said:", ""), "data.name": ("a.txt", "tales")})
    save_config(cfg, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == cfg
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain, allow_unicode=True), encoding="utf-8")
    assert load_config(tmp_path / "config.yaml") == cfg
    assert from_dict(to_dict(cfg)) == from_dict(nested(flat(cfg))) == cfg


def test_a_file_of_the_first_format_is_the_same_model_in_the_newest(tmp_path):
    old = {"model": {"dim": 64, "num_heads": 2, "num_kv_heads": 1, "mixers": ["attention", "none"], "window": 7,
                     "window_pattern": "SSF", "attn_kernel": "explicit", "rope_theta": 5e5, "pointer": True}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    model = load_config(tmp_path / "old.json").model
    assert (model.dim, model.attention.num_heads, model.attention.num_kv_heads, model.pointer) == (64, 2, 1, True)
    assert (model.attention.backend, model.rope.theta) == ("eager", 5e5)
    assert [(model.at(i).mixer, model.at(i).attention.window) for i in range(6)] == [
        ("attention", 7), ("none", None), ("attention", None), ("none", None), ("attention", 7), ("none", None)]


@pytest.mark.parametrize(("pattern", "windows"), [("S", [7, 7]), ("F", [None, None])])
def test_one_kind_of_layer_in_the_first_format_needs_no_kinds(tmp_path, pattern, windows):
    (tmp_path / "old.json").write_text(json.dumps({"model": {"mixers": ["attention"], "window": 7,
                                                             "window_pattern": pattern}}))
    model = load_config(tmp_path / "old.json").model
    assert model.kinds == {} and [model.at(i).attention.window for i in range(2)] == windows


def test_cuts_of_the_second_format_are_between_tokens(tmp_path):
    tree = {"train": {"objective": "fill_in_the_middle", "fim": {"rate": 0.9}}}
    for written_in, cut in ((2, "token"), (3, "character"), (None, "character")):
        (tmp_path / "old.json").write_text(json.dumps(tree | ({"format": written_in} if written_in else {})))
        fim = load_config(tmp_path / "old.json").train.fim
        assert (fim.rate, fim.cut) == (0.9, cut)
    (tmp_path / "old.json").write_text('{"format": 2, "train": {"steps": 3}}')
    assert load_config(tmp_path / "old.json") == override(Config(), {"train.steps": 3})


def test_a_format_that_is_not_known_is_refused_by_its_number(tmp_path):
    (tmp_path / "new.json").write_text('{"format": 99, "model": {}}')
    with pytest.raises(ValueError, match="new.json: format=99 is not known: this version reads formats 1 to 3"):
        load_config(tmp_path / "new.json")


def test_missing_flags_take_their_defaults(tmp_path):
    (tmp_path / "some.yaml").write_text("model:\n  dim: 96\n")
    assert load_config(tmp_path / "some.yaml") == override(Config(), {"model.dim": 96})


LAUGHS = b"a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghi")  # 9 to the power of 9


@pytest.mark.parametrize(("content", "sentence"), [
    (b"model: {dim: wide}", "model.dim='wide'"), (b"model: {dimension: 9}", "model.dimension is not a flag"),
    (b"models: {}", "models is not a flag"), (b"- 1", "holds no configuration"), (b"", "holds no configuration"),
    (b"model: [", "neither JSON nor YAML"), (b"\xff\xfe\xfa", "it is not UTF-8"),
    (b"model: 3", "model=3 is wrong"), (LAUGHS, "it holds more than 100,000 values"),
    (b"model: " + b"[" * 100_000, "it is nested too deeply"), (b"model: &a {b: *a}", "it is nested too deeply"),
    (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it is nested too deeply"),
    (b"model: {dim: yes}", "model.dim='yes' is wrong: use a whole number"),
    (b"model: {dim: true}", "model.dim=True is wrong: use a number"),
    (b"train: {steps: 1:30}", "train.steps='1:30' is wrong"),
    (b"model: {pointer: yes}", "model.pointer='yes' is wrong: use true or false"),
    (b"model: {pointer: 1}", "model.pointer=1 is wrong: use true or false"),
    (b"model: {1: 2}", "the key 1 is not a word"), (b"1.5: {}", "the key 1.5 is not a word"),
    (b'{"data": {"name": "a\\ud800"}}', "is not UTF-8 text"), (b"model: {dim: 99999999999999999999}", "64 bits"),
    (b"model: {dim: 0" + b"9" * 5000 + b"}", "cannot be read: Exceeds the limit"),
    (b"model: {dim: [" + b"1, " * 50_000 + b"]}", "model.dim=[1, 1, 1, 1, 1, 1, ...] is wrong"),
    (b"model: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
])
def test_a_bad_file_is_named_with_its_mistake(content, sentence, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.yaml.*{re.escape(sentence)}") as error:
        load_config(tmp_path / "bad.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.yaml is missing"):
        load_config(tmp_path / "nowhere.yaml")


# ---- presets and the command line ----


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_everything_that_makes_its_architecture(preset):
    sizes = {"final_norm_groups", "cema.chunk", "dim", "num_layers", "attention.num_heads", "vocab_size", "max_seq_len"}
    said = set(PRESETS[preset].get("model", {}))
    if preset not in ("default", "tales"):
        assert said >= set(PLAIN_MODEL)
        assert sizes <= said | {"attention.num_heads"}


@pytest.mark.parametrize("preset", PRESETS)
def test_tiny_keeps_every_choice(preset):
    cfg, small = load_preset(preset).model, tiny(load_preset(preset)).model
    sizes = {"dim", "num_layers", "encoder_layers", "attention.num_heads", "attention.num_kv_heads",
             "attention.head_dim", "hidden_dim", "vocab_size", "max_seq_len", "attention.window", "attention.chunk",
             "cema.chunk", "final_norm_groups",
             "moe.num_experts", "moe.top_k", "moe.num_groups", "moe.top_groups", "moe.shared_dim"} | {
                 f"latent.{name}" for name in (
                 "kv_rank", "q_rank", "nope_dim", "rope_dim", "v_dim")} | {
                     f"{word}.{name}" for word, group in RECURRENT.items() if hasattr(group, "resized")
                     for name in group().resized(1.0)}
    changed = diff(cfg, small)
    if len(cfg.layers) == cfg.num_layers:  # said one by one: fewer of each kind
        assert set(small.layers) == set(changed.pop("layers", ((), cfg.layers))[1])
    assert {re.sub(r"^kinds\.[\w-]+\.", "", name) for name in changed} <= sizes
    assert all((before is None) == (after is None) for name, (before, after) in changed.items() if name != "vocab_size")


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"preset='gpt5' is not known: use one of default, tales, gpt2"):
        load_preset("gpt5")


def parse(*words: str) -> Config:
    return parse_command_line(words, program="train.py", description="")[0]


def test_the_command_line_takes_preset_file_and_flags_in_this_order(tmp_path):
    save_config(override(Config(), {"model.dim": 96, "train.steps": 7, "data.seed": 5}), tmp_path / "base.json")
    cfg = parse("gpt2", "--config", str(tmp_path / "base.json"), "--train.steps", "9", "--model.norm-bias")
    assert (cfg.model.dim, cfg.train.steps, cfg.data.seed, cfg.model.norm_bias) == (768, 9, 5, True)
    assert parse("gpt2", "--model.no-norm-bias").model.norm_bias is False
    assert parse("--model.layers", "attention", "none").model.layers == ("attention", "none")
    local = ("--model.layers", "x", "base", "--model.kinds.x.attention.window", "16", "--model.kinds.x.rope.theta",
             "1e6")
    assert parse(*local).model.kinds == {"x": {"attention": {"window": 16}, "rope": {"theta": 1e6}}}
    assert parse("--train.grad-clip", "None").train.grad_clip is None


def test_a_program_has_options_of_its_own():
    cfg, options = parse_command_line(["--resume", "toy", "--train.steps", "3"], program="train.py", description="",
                                      options={"resume": "a run to go on with", "out-dir": "where"})
    assert (cfg.train.steps, options) == (3, {"resume": "toy", "out-dir": None, "preset": None, "scale": None})


@pytest.mark.parametrize(("words", "sentence"), [
    (["gpt5"], "preset='gpt5' is not known"), (["--model.dimm", "3"], "--model.dim"),
    (["--model.attention.num-heads", "5"], "model.attention.num_heads=5 does not divide dim"), (["--model.dim",
                                                                                                 "wide"], "wide"),
    (["--model.norm", "layr"], "layr"), (["gpt-2"], "perhaps gpt2 was meant"),
    (["--model.kinds", "{}"], "use --model.kinds.NAME.FLAG VALUE"),
    (["--train.steps", "3", "--train.tokens", "99"], "--train.steps and --train.tokens both say how long to train"),
    (["--config", "no/such.yaml"], "no/such.yaml is missing"),
    (["--model.rope.theta", "3", "--model.position", "alibi"], "model.rope.theta=3.0 would change nothing"),
], ids=str)
def test_a_mistake_on_the_command_line_is_one_sentence_and_status_2(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*words)
    output, errors = capsys.readouterr()
    assert (stop.value.code, output) == (2, "")
    assert sentence in errors and errors.startswith("error: ") and errors.count("\n") == 1


def test_a_separator_typed_in_a_shell_is_a_newline():
    assert override(Config(), {"data.name": "a.txt", "data.separator": r"\n\n"}).data.separator == "\n\n"
