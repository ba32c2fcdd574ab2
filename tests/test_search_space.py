"""A space says what may vary, and what it cannot mean is refused in one sentence."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from config import Config, override
from experiments.searching.space import Chance, Space
from experiments.searching.space_file import load_space, make_space

SPACES = Path(__file__).resolve().parent.parent / "experiments" / "spaces"
DECLARED = {
    "base": "default", "set": {"train.steps": 100},
    "search": {"model.mlp": ["mlp", "glu"], "model.num_layers": {"int": [2, 6], "step": 2},
               "train.lr": {"float": ["1e-3", "2e-2"], "log": True},
               "model.activation": {"choice": ["silu", "gelu"], "when": {"model.mlp": "glu"}},
               "model.layers": [["attention"], ["attention", "none"]]},
    "forbid": [{"model.mlp": "glu", "model.num_layers": [4, 6]}],
}


def points(space: Space, number: int = 300) -> list[dict]:
    return [space.suggest(Chance(seed)) for seed in range(number)]


def test_a_yaml_file_and_a_python_file_declare_the_same(tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(DECLARED))
    (tmp_path / "space.py").write_text(f"SPACE = {DECLARED!r}")
    assert load_space(tmp_path / "space.yaml") == load_space(tmp_path / "space.py")


def test_a_space_is_the_same_after_json():
    space = make_space(DECLARED)
    assert make_space(json.loads(json.dumps(space.plain))) == space


def test_the_base_has_what_the_space_sets():
    assert make_space(DECLARED).base == override(Config(), {"train.steps": 100})


def test_a_point_has_each_kind_of_value_in_its_range():
    for flags in points(make_space(DECLARED)):
        assert flags["model.num_layers"] in (2, 4, 6)
        assert 1e-3 <= flags["train.lr"] <= 2e-2
        assert flags["model.layers"] in (["attention"], ["attention", "none"])


def test_a_conditional_flag_is_there_exactly_when_its_condition_holds():
    drawn = points(make_space(DECLARED))
    assert all(("model.activation" in flags) == (flags["model.mlp"] == "glu") for flags in drawn)
    assert {flags["model.mlp"] for flags in drawn} == {"mlp", "glu"}


def test_a_forbidden_combination_is_named_and_others_are_not():
    space = make_space(DECLARED)
    for flags in points(space):
        forbidden = flags["model.mlp"] == "glu" and flags["model.num_layers"] > 2
        assert bool(space.problem(flags)) == forbidden
    assert space.problem({"model.mlp": "glu", "model.num_layers": 4}) == (
        "the space forbids model.mlp=glu, model.num_layers=4")


def test_what_is_forbidden_may_name_a_flag_of_the_base():
    space = make_space({"search": {"model.mlp": ["mlp", "glu"]}, "forbid": [{"model.norm": "rms",
                                                                                  "model.mlp": "glu"}]})
    assert space.problem({"model.mlp": "glu"}) and not space.problem({"model.mlp": "mlp"})


def test_the_grid_has_every_point_once():
    declared = DECLARED | {"search": DECLARED["search"] | {"train.lr": {"float": [0.1, 0.3], "step": 0.1}}}
    grid = make_space(declared).grid()
    keys = {json.dumps(point) for point in grid}
    # mlp: 3 depths; glu: 1 depth that is not forbidden, with 2 activations; 3 rates, 2 mixers each
    assert len(grid) == len(keys) == (3 + 2) * 3 * 2
    assert {round(point["train.lr"], 6) for point in grid} == {0.1, 0.2, 0.3}


def test_a_grid_needs_steps():
    with pytest.raises(ValueError, match="sampler=grid needs choices or a step: train.lr has neither"):
        make_space(DECLARED).grid()


@pytest.mark.parametrize(("search", "said"), [
    ({"model.width": [1]}, "search: model.width is not a flag"),
    ({"train.lr": {"float": [0.1, 0.01]}}, r"search: train.lr: float: \[0.1, 0.01\] has its ends the wrong way round"),
    ({"train.lr": {"float": [0.1]}}, "search: train.lr: float: .* expected two numbers"),
    ({"train.lr": {"float": [0, 1], "log": True}}, "search: train.lr: log needs a range above 0"),
    ({"train.lr": {"float": [0.1, 1], "log": True, "step": 0.1}}, "step=0.1 must be above 0, and does not go with log"),
    ({"train.steps": {"int": [1, 2.5]}}, "search: train.steps: int: .* expected two numbers"),
    ({"train.lr": {"floats": [0, 1]}}, "search: train.lr: expected a list of choices, or one of choice, int and float"),
    ({"train.lr": {"float": [0.1, 1], "when": {"model.mlp": "glu"}}},
     "search: train.lr: when: model.mlp is not a flag that is searched"),
    ({"train.lr": {"float": [0.1, 1], "steps": 1}}, "search: train.lr: 'steps' is not known here"),
    ({"model.mlp": ["glu", "glu"]}, "search: model.mlp: a choice stands there twice"),
    ({"model.mlp": []}, "search: model.mlp: choice expects a list"),
    ({"model.mlp": ["mlp", "swiglu"]},
     "search: model.mlp: 'swiglu' is never accepted: model.mlp='swiglu' is not known"),
    ({"model.layers": ["attention", ["none"]]},
     r"search: model.layers: 'attention' is never accepted: model.layers='attention' is wrong: use a list, as in "
     r"\[attention\]"),
    ({"train.lr": {"float": [-1, 1]}}, "search: train.lr: -1.0 is never accepted: train.lr=-1.0 must be above 0"),
    ({"train.lr": {"float": [0.1, 1], "when": {"model.mlp": "glu"}},
      "model.mlp": {"choice": ["glu"], "when": {"train.lr": 0.1}}}, "model.mlp, train.lr wait for each other"),
    ({"train.lr": {"float": [0.1, 1], "when": {"model.mlp": "none"}}, "model.mlp": ["mlp", "glu"]},
     "search: train.lr: when: model.mlp is never none"),
    ({"train.lr": {"float": [0.1, 1], "when": {"model.dim": 65}}, "model.dim": {"int": [32, 64]}},
     "search: train.lr: when: model.dim is never 65"),
    ({"train.lr": {"float": [0.1, 1], "when": {"model.mlp": []}}, "model.mlp": ["mlp", "glu"]}, "one of no values"),
    ({}, "expected a mapping with search"),
])
def test_a_mistake_is_one_sentence_that_names_file_and_flag(tmp_path, search, said):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"search": search}))
    with pytest.raises(ValueError, match=said) as found:
        load_space(path)
    assert str(found.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("name", "content", "said"), [
    ("space.yaml", "search: {model.dim: [32, 64]}\nset: [a]\n", "expected a mapping with set: {flag: value}"),
    ("space.yaml", "search: {model.dim: [32, 64]}\nset: {model.layers: attention}\n",
     "model.layers='attention' is wrong: use a list, as in [attention]"),
    ("space.yaml", "search: {model.dim: [32, 64]}\nbase: {model.dim: 32}\n", "expected base: the name of a preset"),
    ("space.yaml", "search: {model.dim: [32, 64]}\nforbid: 3\n", "expected a list with forbid: [{flag: value}]"),
    ("space.yaml", "search: {model.dim: [32, 64]}\nset: {1: 2}\n", "the key 1 is not a word"),
    ("space.yaml", "search: {model.pointer: [yes, false]}\n", "model.pointer='yes' is wrong: use true or false"),
    ("space.yaml", "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in pairwise("abcdefg")), "more than 100,000 values"),
    ("space.py", "SPACE = 1 / 0\n", "ends in ZeroDivisionError: division by zero"),
    ("space.py", "SPACE = {\n", "ends in SyntaxError: "),
])
def test_a_file_that_is_no_space_is_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        load_space(tmp_path / name)


def test_a_value_that_only_some_points_accept_is_no_mistake():
    make_space({"search": {"model.dim": [96, 128], "model.attention.num_heads": [3, 4]}})  # 3 divides 96 only


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="none.yaml is missing"):
        load_space(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_space_draws_what_can_be_trained(path):
    space = load_space(path)
    drawn = [flags for flags in points(space) if not space.problem(flags)]
    assert len(drawn) > 200
    for flags in drawn:
        override(space.base, flags)


def test_a_base_may_change_what_is_not_searched_only():
    space = make_space(DECLARED)
    assert space.on(override(space.base, {"train.steps": 7})).base.train.steps == 7
    with pytest.raises(ValueError, match="train.lr is searched by the space: leave the flag out"):
        space.on(override(space.base, {"train.lr": 0.5}))


@pytest.mark.parametrize(("search", "point"), [
    ({"train.lr": {"float": ["1e-3", "1e-1"], "log": True}, "model.mlp": ["glu", "mlp"]},
     {"train.lr": 0.006, "model.mlp": "mlp"}),
    ({"model.layers": [["none"], ["base"]]}, {"model.layers": '["base"]'}),
    ({"model.mlp": ["glu", "mlp"], "model.activation": {"choice": ["silu"], "when": {"model.mlp": "glu"}}},
     {"model.mlp": "mlp"}),
    ({"model.dim": {"int": [64, 256], "step": 32}}, {"model.dim": 128}),
    ({"model.dim": {"int": [64, 256], "step": 48}}, None),
    ({"model.dim": {"int": [16, 64]}}, None),
    ({"train.decay_fraction": {"float": [0.1, 1.0], "step": 0.1}}, {"train.decay_fraction": 0.5}),
    ({"train.decay_fraction": {"float": [0.1, 1.0], "step": 0.3}}, None),
    ({"model.attention.window": {"int": [8, 16]}}, None),
    ({"model.mlp": ["glu"]}, None)])
def test_the_base_is_a_point_where_the_space_holds_all_its_values(search, point):
    base = {"model.dim": 128, "model.mlp": "mlp", "train.lr": 0.006, "train.decay_fraction": 0.5}
    assert make_space({"set": base, "search": search}).base_point() == point
