import copy
import functools
import math
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_model, small_tokens
from small_models import MLP, MODELS, VOCAB, Tower, gpt, llama, tokens
from thorough import some
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tools import LoggingModule, Trace, deterministic, log_io, pick_device, seed_everything, shapes, trace
from tracing.axes import AxisNamer


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Tiny(LoggingModule):
    """Two small parts, for contexts that are slow."""

    def __init__(self):
        super().__init__()
        self.mlp, self.out = MLP(4, 8), nn.Linear(4, 3)

    @log_io("b t d -> b t v")
    def forward(self, x):
        return self.out(self.mlp(x))


X = torch.linspace(-1, 1, 40).view(2, 5, 4)


def call(t: Trace, name: str, index: int = 0):
    return next(c for c in t.walk() if c.name == name and c.index == index)


def traced(model, *inputs, **options) -> Trace:
    with trace(model, **options) as t:
        model(*inputs)
    return t


# ------------------------------------------------------------------------------------------ marking


def test_a_mark_leaves_the_function_as_it_is():
    def f(self, x):
        return x

    assert log_io(f) is f
    assert log_io("b t -> b t", name="same")(f) is f
    assert f.__log_io__ == ("b t -> b t", "same")


@pytest.mark.parametrize("dims", ["b t d", "a -> b -> c", "b $ -> b", "... ... d -> d"])
def test_malformed_dims_are_refused_where_they_are_written(dims):
    with pytest.raises(ValueError, match="dims="):
        log_io(dims)


def test_the_very_same_functions_are_back_after_a_trace_and_after_an_error():
    before = [vars(cls)[name] for cls in (Tiny, MLP, nn.Linear) for name in ["forward"]]
    model = Tiny()
    traced(model, X)
    with pytest.raises(RuntimeError), trace(model):
        assert vars(MLP)["forward"] is not before[1]
        model(X[..., :3])
    assert all(vars(cls)["forward"] is f for cls, f in zip((Tiny, MLP, nn.Linear), before, strict=True))
    assert "forward" not in vars(model)


def test_a_compiled_model_has_one_whole_graph_and_the_same_operations():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp, self.out = copy.deepcopy(marked.mlp), copy.deepcopy(marked.out)

        def forward(self, x):
            return self.out(self.mlp.down(self.mlp.act(self.mlp.up(x))))

    marked = Tiny()
    counts = []
    for model in (marked, Plain()):
        torch._dynamo.reset()
        explained = torch._dynamo.explain(model)(X)
        counts.append((explained.graph_count, explained.graph_break_count, explained.op_count))
    assert counts[0] == counts[1] == (1, 0, counts[0][2])


def guard_lines(base, mark) -> int:
    """Lines of the guards that torch.compile sets for a small module, written with this base and this mark."""
    class Part(base):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(4, 8)

        @mark("b t d -> b t f")
        def widen(self, x):
            return torch.relu(self.up(x))

        @mark("b t d -> b t f")
        def forward(self, x):
            return self.widen(x)

    torch._dynamo.reset()
    torch.compile(Part(), backend="eager", fullgraph=True)(X)
    (entry,) = torch._dynamo.eval_frame._debug_get_cache_entry_list(Part.forward.__code__)
    return len(str(entry.guard_manager).splitlines())


def test_marks_add_no_guard_to_a_compiled_model():
    def unmarked(dims):
        return lambda function: function

    assert guard_lines(LoggingModule, log_io) == guard_lines(nn.Module, unmarked) > 20


# ---------------------------------------------------------------------------------------- recording


def test_arguments_have_their_names_and_results_those_of_the_returned_variables():
    t = traced(gpt(), tokens())
    project = call(t, "blocks.0.mixer.project")
    assert [v.name for v in project.outputs] == ["q", "k", "v"]
    assert [v.name for v in call(t, "blocks.0.mixer.mix").inputs] == ["scores", "v"]
    assert [v.name for v in call(t, "Net").outputs] == ["logits"]
    assert project.title == "queries, keys, values"


def test_methods_and_modules_are_nested_as_they_ran():
    t = traced(gpt(), tokens())
    mixer = call(t, "blocks.1.mixer")
    names = [c.name.removeprefix("blocks.1.mixer.") for c in mixer.children]
    assert names == ["project", "scores", "mix", "out"]
    assert [c.kind for c in mixer.children[0].children] == ["Linear"] * 3


def test_containers_and_plain_arguments_are_taken_apart():
    class Part(LoggingModule):
        @log_io
        def forward(self, pair, *rest, scale=2.0, extra=None):
            return {"sum": pair[0] + pair[1], "rest": rest}

    part = Part()
    with trace(part) as t:
        part((X, X), X, X, scale=3.0, extra={"mask": X})
    names = [v.name for v in t.calls[0].inputs]
    assert names == ["pair[0]", "pair[1]", "rest[0]", "rest[1]", "scale", "extra[mask]"]
    assert t.calls[0].inputs[4].text == "3.0"
    assert [v.name for v in t.calls[0].outputs] == ["[sum]", "[rest][0]", "[rest][1]"]


def test_statistics_are_those_of_the_tensor():
    x = torch.randn(3, 5, 4) * 7
    value = call(traced(Tiny(), x), "Tiny").inputs[0]
    expected = {"min": x.min(), "max": x.max(), "mean": x.mean(), "std": x.std(correction=0)}
    assert value.stats == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "complex64", "int64", "uint8",
                                   "bool", "uint16", "float8_e4m3fn"])  # fmt: skip
def test_every_dtype_is_measured_or_passed_over(dtype):
    class Part(LoggingModule):
        @log_io
        def forward(self, x):
            return x

    x = torch.tensor([0, 1, 1, 0]).to(getattr(torch, dtype))
    value = traced(Part(), x, stats="full").calls[0].inputs[0]
    passed_over = dtype in ("uint16", "float8_e4m3fn")
    assert value.dtype == dtype
    assert [value.stats.get(k) for k in ("min", "max", "mean", "std")] == (
        [None] * 4 if passed_over else [0, 1, 0.5, 0.5])  # fmt: skip


def test_a_large_offset_does_not_spoil_the_deviation():
    value = call(traced(Tiny(), X + 1000), "Tiny").inputs[0]
    assert value.stats["std"] == pytest.approx(X.std(correction=0).item(), rel=1e-3)


def test_min_and_max_see_every_element_of_a_sampled_tensor():
    x = torch.zeros(1, 100, 4)
    x[0, 51, 3] = math.nan
    value = call(traced(Tiny(), x, max_elems=10), "Tiny").inputs[0]
    assert math.isnan(value.stats["min"])
    assert value.stats["mean"] == 0


def test_a_tensor_changed_in_place_is_measured_again():
    class InPlace(LoggingModule):
        @log_io
        def double(self, x):
            return x.mul_(2)

        def forward(self, x):
            return self.double(self.double(x))

    t = traced(InPlace(), X.clone())
    assert [c.outputs[0].stats["max"] for c in t.calls[0].children] == [2, 4]


def test_filters_choose_what_is_kept_and_the_root_stays():
    model = gpt()
    names = {c.name for c in traced(model, tokens(), include="blocks.1.mlp*").walk()}
    assert names == {"Net", *(f"blocks.1.mlp{x}" for x in ("", ".up", ".act", ".down"))}
    assert max(c.path.count(".") for c in traced(model, tokens(), depth=1).walk()) == 1
    kept = list(traced(model, tokens(), methods=["scores"]).walk())
    assert [c.method for c in kept] == ["forward", "scores", "scores"]
    assert not [c for c in traced(model, tokens(), exclude=["*mlp*"]).walk() if "mlp" in c.path]
    assert not [c for c in traced(model, tokens(), leaves=False).walk() if c.kind == "Linear"]


@pytest.mark.parametrize(("flag", "glob", "words"), [
    ("include", "blocks.0.mixr*",
     "include='blocks.0.mixr*' fits no module of this model: the nearest is 'blocks.0.mixer'"),
    ("exclude", ["*mlp*", "heads"], "exclude='heads' fits no module of this model: the nearest is 'head'"),
    ("methods", ["score"], "methods='score' fits no marked method of this model: the nearest is 'scores'"),
])
def test_a_glob_that_fits_nothing_is_refused_with_the_nearest_name(flag, glob, words):
    model, before = gpt(), vars(MLP)["forward"]
    with pytest.raises(ValueError) as error, trace(model, **{flag: glob}):
        pass
    assert str(error.value) == words and vars(MLP)["forward"] is before
    with pytest.raises(ValueError, match="^include='x' fits no module of this model$"), trace(nn.ReLU(), include="x"):
        pass


def test_other_models_and_other_threads_are_not_recorded():
    model, other = Tiny(), Tiny()
    with trace(model) as t:
        other(X)
        thread = threading.Thread(target=model, args=(X,))
        thread.start()
        thread.join()
    assert not t.calls
    assert "no call" in t.notes[0]


def test_traces_may_be_nested():
    model = Tiny()
    with trace(model) as outer:
        model(X)
        with trace(model.mlp, leaves=False) as inner:
            model(X)
    assert len(outer.calls) == 2
    assert [c.name for c in inner.walk()] == ["MLP"]


def test_super_static_and_class_methods_and_instance_forwards_are_recorded_once():
    class Base(LoggingModule):
        @log_io
        def forward(self, x):
            return self.twice(x) + self.kind(x)

        @staticmethod
        @log_io
        def twice(x):
            return 2 * x

        @classmethod
        @log_io
        def kind(cls, x):
            return x

    class Child(Base):
        @log_io
        def forward(self, x):
            return super().forward(x)

    model = nn.Sequential(Child(), nn.Linear(4, 4))
    model[1].forward = lambda input: input + 1
    t = traced(model, X)
    assert [c.name for c in t.walk()] == ["Sequential", "0", "0.twice", "0.kind", "1"]
    assert torch.equal(model(X), 3 * X + 1)


class Menu(LoggingModule):
    """Calls its marked methods under other names."""

    def __init__(self):
        super().__init__()
        self.inner = MLP(4, 8)
        self.methods = {"rms": self.rms, "deep": [{"half": self.half}]}
        self.rows, self.pair = [self.rms, self.half], (self.rms, [self.half])
        self.late, self.f, self.forward_of = functools.partial(self.shifted, by=2.0), self.rms, self.inner.forward
        self.static, self.kind = self.twice, self.named

    @log_io("b t d -> b t d")
    def rms(self, x):
        return x / x.square().mean(-1, keepdim=True).sqrt()

    @log_io
    def half(self, x):
        return x / 2

    @log_io
    def shifted(self, x, by):
        return x + by

    @staticmethod
    @log_io
    def twice(x):
        return 2 * x

    @classmethod
    @log_io
    def named(cls, x):
        return x


Menu.table = {"half": Menu.half}
WAYS = {  # how a method is called -> its name in a trace
    "dict": (lambda m, x: m.methods["rms"](x), "rms"), "nested": (lambda m, x: m.methods["deep"][0]["half"](x), "half"),
    "list": (lambda m, x: m.rows[1](x), "half"), "tuple": (lambda m, x: m.pair[0](x), "rms"),
    "list in a tuple": (lambda m, x: m.pair[1][0](x), "half"), "partial": (lambda m, x: m.late(x), "shifted"),
    "attribute": (lambda m, x: m.f(x), "rms"), "static": (lambda m, x: m.static(x), "twice"),
    "class method": (lambda m, x: m.kind(x), "named"),
    "menu of the class": (lambda m, x: m.table["half"](m, x), "half"),
    "forward of a part": (lambda m, x: m.forward_of(x), "forward"), "by name": (lambda m, x: m.rms(x), "rms"),
}  # fmt: skip


def everything_kept(model) -> list:
    """What a Menu keeps, to the functions in it."""
    return [vars(model)[name] for name in ("methods", "rows", "pair", "late", "f", "forward_of", "static", "kind")] + [
        *model.rows, *model.methods.values(), model.methods["deep"][0]["half"], *model.pair, model.pair[1][0],
        model.table, model.table["half"]]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_method_kept_under_another_name_is_recorded_as_any_call_of_it(way):
    act, name = WAYS[way]
    model = type("Way", (Menu,), {"forward": lambda self, x: act(self, x)})()
    expected, before = model(X), everything_kept(model)
    t = traced(model, X)
    (call,) = t.calls[0].children
    assert (call.path, call.method) == ("inner" if name == "forward" else "", name)
    assert [v.name for v in call.inputs][:1] == ["x"] and call.outputs[0].shape == (2, 5, 4)
    with trace(model), trace(model) as inner:
        assert torch.equal(model(X), expected)
    assert [c.method for c in inner.calls[0].children] == [name]
    assert all(a is b for a, b in zip(everything_kept(model), before, strict=True))


def test_kept_methods_are_printed_and_outlast_a_trace_that_ends_before_logging(capsys):
    model = type("Way", (Menu,), {"forward": lambda self, x: self.methods["rms"](x)})()
    with trace(model) as t:
        model.enable_logging()
        model(X)
    assert t.calls[0].children[0].method == "rms"
    capsys.readouterr()
    model(X)
    model.disable_logging()
    assert "Way.rms(x float32 " in capsys.readouterr().out
    model(X)
    assert not capsys.readouterr().out and model.methods["rms"].__func__ is Menu.rms


def test_what_a_model_puts_in_the_place_of_a_kept_method_stays():
    class Changing(Menu):
        def forward(self, x):
            self.f, self.methods = self.half, {}
            self.rows.clear()
            return self.f(x)

    model = Changing()
    traced(model, X)
    assert model.methods == {} and model.rows == [] and model.f(X).equal(X / 2)
    assert [c.method for c in traced(model, X).walk()][:2] == ["forward", "half"]


def test_an_error_in_the_model_is_recorded_annotated_and_raised_again():
    model = gpt()
    model.blocks[1].mlp.down = nn.Linear(7, 7)
    with pytest.raises(RuntimeError) as error, trace(model) as t:
        model(tokens())
    assert t.failed.name == "blocks.1.mlp.down"
    assert "blocks.1.mlp.down(input float32 [b=3, t=7, f=192])" in error.value.__notes__[0]
    assert "[b=3, t=7, f=192]" in str(t).split("blocks.1")[1]
    assert [c.exception for c in t.walk() if c.exception] == [t.failed.exception]


def test_checkpointed_blocks_show_their_second_run_as_recomputed():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = MLP(4, 8)

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=False).sum()

    model = Net()
    with trace(model) as t:
        model(X.clone().requires_grad_()).backward()
    assert [(c.index, c.recompute) for c in t.walk() if c.name == "block"] == [(0, False), (1, True)]


def test_a_trace_leaves_random_numbers_and_results_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    torch.manual_seed(1)
    expected = model(X)
    torch.manual_seed(1)
    with trace(model, stats="full", grad=True):
        assert torch.equal(model(X), expected)


@pytest.mark.parametrize("words", [{"stats": "all"}, {"stats": "none", "stop_on_nan": True}])
def test_unknown_words_are_refused(words):
    with pytest.raises(ValueError, match="stats="), trace(Tiny(), **words):
        pass


# ----------------------------------------------------------------------------------- names of axes


TRUE_AXES = {  # per module: what the last axis of its result may be called; "h*p" is 48 = d, too
    "embed": {"d"}, "norm1": {"d"}, "norm2": {"d"}, "norm": {"d"}, "head": {"v"}, "mlp": {"d"},
    "mixer": {"d"}, "q": {"h*p"}, "k": {"g*p", "p", "h*p"}, "v": {"g*p", "p", "h*p"}, "out": {"d"}, "up": {"f"},
    "act": {"f"}, "down": {"d"}, "router": {"e"}, "project": {"p"}, "rotate": {"p"},
    "scores": {"s"}, "mix": {"h*p"}, "step": {"n"}, "gates": {None}, "conv": {None},
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_no_axis_of_six_architectures_has_a_wrong_name(name):
    t = traced(MODELS[name](), tokens(b=3, t=9))
    checked = 0
    for c in t.walk():
        if c.path.isdigit() or not c.path or c.path.split(".")[-1].isdigit():
            continue
        truth = TRUE_AXES[c.method if c.method != "forward" else c.path.split(".")[-1]]
        for value in c.outputs:
            *leading, last = value.labels
            assert not last or truth & set(last.split("|")), c.name
            assert (None in truth) == (last is None), c.name
            if value.shape[0] == 3:
                assert leading[0] == "b", c.name
            for label, size in zip(value.labels, value.shape, strict=True):
                assert label != "t" or size == 9
                assert size != 9 or label in ("t", "s"), c.name
                checked += 1
    assert checked > 50


def test_equal_sizes_are_marked_as_ambiguous():
    model = gpt()
    model.sizes = model.sizes | {"n": 192}
    assert call(traced(model, tokens()), "blocks.0.mlp.up").outputs[0].labels == ("b", "t", "f|n")


def test_a_size_that_happens_to_be_that_of_the_batch_is_not_called_so():
    namer = AxisNamer({"d": 48, "h": 3})
    bound = (("b", 3), ("t", 7))
    assert namer.guess((3, 48), bound) == (None, "d")  # three tokens that chose an expert
    assert namer.guess((3, 7, 48), bound) == ("b", "t", "d")
    assert namer.guess((21, 48), bound) == ("b*t", "d")
    assert namer.guess((3, 3, 7, 7), bound) == ("b", "h", "t", "t")


def test_what_a_module_declares_of_its_result_decides_for_the_layer_that_made_it():
    class Part(LoggingModule):
        def __init__(self):
            super().__init__()
            self.q, self.out = nn.Linear(16, 16), nn.Linear(16, 16)

        @log_io("b t d -> b t d")
        def forward(self, x):
            return self.out(self.q(x).exp())

    t = traced(Part(), torch.randn(3, 7, 16), dims={"d": 16, "h": 2, "p": 8})
    assert [call(t, x).outputs[0].labels[2] for x in ("q", "out")] == ["d|h*p", "d"]


def test_a_declaration_wins_over_sizes_and_a_broken_one_is_shown():
    class Part(LoggingModule):
        @log_io("b t d -> b d t")
        def forward(self, x, flip):
            return x.transpose(1, 2) if flip else x

    part = Part()
    with trace(part, {"d": 4}) as t:
        part(torch.ones(2, 4, 4), True)
        part(X, False)
    right, wrong = t.calls
    assert right.outputs[0].labels == ("b", "d", "t") and not right.problem
    assert wrong.problem == (
        "result: declared 'b d t', got [2, 5, 4]: d is 4, not 5; t is 5, not 4"
    )
    assert wrong.problem in str(t)


def test_products_and_ellipses_are_verified():
    class Part(LoggingModule):
        @log_io("... (h p) -> ... h p")
        def forward(self, x):
            return x.unflatten(-1, (2, -1))

    good = traced(Part(), X, dims={"h": 2}).calls[0]
    assert good.outputs[0].labels[-2:] == ("h", "p") and not good.problem
    assert "h is 4, not 2" in traced(Part(), X, dims={"h": 4}).calls[0].problem


def test_unmarked_models_get_names_from_the_sizes_given():
    t = traced(Tower(), torch.randn(3, 7, 16), dims={"d": 16, "h": 2, "p": 8})
    assert [c.outputs[0].labels for c in t.walk()] == [
        ("b", "t", "d|h*p"), ("b", "t", "3*d"), ("b", "t", "d|h*p")]  # fmt: skip


STEPS = {"rope": {}, "one head": {"attention.num_heads": 1}, "one key head": {"attention.num_kv_heads": 1},
         "eager": {"attention.backend": "eager"}, "alibi": {"position": "alibi"}, "pointer": {"pointer": True},
         "window": {"attention.window": 3}, "learned": {"position": "learned"},
         "no mixer": {"layers": ("none", "base")},
         "heads differ": {"layers": ("x", "base"), "kinds": {"x": {"attention.num_heads": 2, "hidden_dim": 40}}}}


def labels_of(t: Trace) -> dict[tuple, list]:
    """The labels of the arguments and results of every call that are tensors, by call and name."""
    return {(c.name, c.index, side, v.name): v.labels for c in t.walk() for side in ("inputs", "outputs")
            for v in getattr(c, side) if v.shape is not None}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("flags", STEPS.values(), ids=STEPS)
def test_a_decoding_step_has_the_letters_of_a_whole_pass(flags, ragged, rows):
    model, ids = small_model(**flags), small_tokens(rows, 13)
    positions = torch.arange(13).expand(rows, 13) if ragged else torch.arange(13)
    cache = model.make_cache(13)
    with torch.no_grad():
        with trace(model) as whole:
            model(ids, positions=positions)
        model(ids[:, :-1], positions=positions[..., :-1], cache=cache)
        with trace(model) as step:
            model(ids[:, -1:], positions=positions[..., -1:], cache=cache)
    assert not [c.problem for c in (*whole.walk(), *step.walk()) if c.problem]
    expected, found = labels_of(whole), labels_of(step)
    both = [key for key in found if key in expected and key[-1] not in ("k", "v", "k_positions")]  # s instead of t
    assert len(both) > 20
    assert {key: found[key] for key in both} == {key: expected[key] for key in both}
    assert {labels[-1] for key, labels in expected.items() if key[-1].endswith("positions")} <= {"t", "s"}


def test_given_positions_masks_and_angles_have_the_letters_of_time():
    model = small_model(pointer=True, **{"attention.backend": "eager"})
    with torch.no_grad(), trace(model) as t:
        model(small_tokens(3, 7), positions=torch.arange(7))
        model(small_tokens(3, 7), documents=torch.tensor([[0] * 3 + [1] * 4] * 3))
    first, second = t.calls
    assert next(v for v in first.inputs if v.name == "positions").labels == ("t",)
    labels = [(v.name, v.labels) for c in t.walk() for v in c.inputs if v.shape]
    assert {found for name, found in labels if name.startswith("angles")} == {("t", None), ("b", None, "t", None)}
    assert {found[-2:] for name, found in labels if "mask" in name} == {("t", "s")}
    keys = {found[-1] for c in t.walk() if c.path in ("pointer.q", "pointer.k", "pointer") for v in c.outputs
            for found in [v.labels]}  # fmt: skip
    assert keys == {"c", "v"} | {"s"}


class Headless(LoggingModule):
    """A mixer without heads."""

    def __init__(self, d: int):
        super().__init__()
        self.value, self.out = nn.Linear(d, d), nn.Linear(d, d)

    @log_io("b t d -> b t d")
    def forward(self, x):
        return self.out(self.value(x).cumsum(1))


def test_a_part_is_offered_no_letters_of_another():
    model = gpt(2)
    model.blocks[0].mixer = Headless(48)
    t = traced(model, tokens())
    assert [call(t, f"blocks.0.mixer.{x}").outputs[0].labels[2] for x in ("value", "out")] == ["d", "d"]
    assert call(t, "blocks.1.mixer.q").outputs[0].labels[2] == "d|h*p"
    assert call(t, "blocks.1.mlp.up").outputs[0].labels[2] == "f"


def test_a_declared_name_is_that_of_all_earlier_records_of_the_tensor():
    class Passing(nn.Module):
        def forward(self, x):
            return x

    class Part(LoggingModule):
        def __init__(self):
            super().__init__()
            self.q, self.same = nn.Linear(16, 16), Passing()

        @log_io("b t d -> b t e")
        def forward(self, x):
            return self.same(self.q(x))

    t = traced(Part(), torch.randn(3, 7, 16), dims={"d": 16, "h": 2, "p": 8})
    assert {c.outputs[0].labels for c in t.walk()} == {("b", "t", "e")}


def test_a_size_of_one_is_time_only_beside_the_last_axis():
    namer = AxisNamer({"d": 48, "h": 3})
    bound = (("b", 2), ("t", 1))
    assert namer.guess((2, 1, 48), bound) == ("b", "t", "d")
    assert namer.guess((2, 1), bound) == ("b", "t")
    assert namer.guess((2, 3, 1, 48), bound) == ("b", "h", "t", "d")
    assert namer.guess((2, 1, 1, 48), bound) == ("b", None, "t", "d")
    assert namer.guess((2, 1, 3, 48), bound) == ("b", "t", "h", "d")
    shared = AxisNamer({"p": 48, "h": 3, "g": 1})
    longer = (("b", 2), ("t", 7))
    assert shared.guess((2, 1, 1, 48), bound) == shared.guess((2, 1, 7, 48), longer) == ("b", "g", "t", "p")
    assert shared.guess((2, 1, 7, 7), longer) == ("b", None, "t", "t")  # a mask for all heads
    assert namer.guess((1,), bound) == ("t",)
    assert namer.guess((2,), bound) == namer.guess((3,), (("b", 3), ("t", 3))) == (None,)
    assert namer.guess((7,), (("b", 2), ("t", 7))) == ("t",)


def test_an_axis_without_a_name_is_declared_with_a_bar():
    class Part(LoggingModule):
        @log_io("... t _ -> ... t _")
        def forward(self, x):
            return x * 2

    found = traced(Part(), torch.randn(3, 7, 16), dims={"d": 16}).calls[0]
    assert found.outputs[0].labels == (None, "t", None) and not found.problem


# ------------------------------------------------------------------------- shapes without any data


@pytest.mark.parametrize("name", some([name for name in MODELS if name != "mamba"], 2))
@pytest.mark.slow
def test_shapes_are_symbols_under_which_b_and_t_are_exact(name):
    t = shapes(MODELS[name])
    assert t.calls[0].outputs[0].shape == ("b", "t", VOCAB)
    declared = [call(t, "blocks.1"), call(t, "blocks.1.norm2"), call(t, "blocks.0.mlp")]
    assert all(c.outputs[0].shape[:2] == ("b", "t") for c in declared)


def test_shapes_takes_dims_strings_with_sizes_types_and_numbers():
    t = shapes(lambda: gpt().blocks[0], "b 6 48 float32")
    assert (t.calls[0].inputs[0].shape, t.calls[0].inputs[0].dtype) == (("b", 6, 48), "float32")
    with pytest.raises(ValueError, match="not an axis"):
        shapes(gpt, "b t!")


@pytest.mark.slow
def test_shapes_of_a_model_with_a_billion_parameters_take_no_memory():
    import resource

    shapes(gpt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    t = shapes(lambda: gpt(layers=4, d=4800))
    assert t.parts[""].parameters > 1e9
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


# ----------------------------------------------------------------------------- parameters and FLOPs


def test_parameters_are_counted_once_and_parts_add_up():
    model = gpt(tie=True)
    t = traced(model, tokens())
    assert t.parts[""].parameters == sum(p.numel() for p in set(model.parameters()))
    assert t.parts["head"].parameters == 0
    assert t.parts["head"].shared == ["embed.weight"]
    children = [t.parts[name].parameters for name, _ in model.named_children()]
    assert sum(children) == t.parts[""].parameters


def test_flops_are_those_of_the_formula_with_cpu_attention():
    b, t, d = 3, 32, 16
    flops = traced(Tower(d), torch.randn(b, t, d)).calls[0].flops
    linear, attention = 2 * b * t * d * (3 * d + d), 4 * b * t * t * d
    assert flops == pytest.approx(linear + attention, rel=0.02)


def test_flops_of_attention_spelled_out_equal_those_of_a_gpt_by_hand():
    b, t, d, v = 3, 7, 48, VOCAB
    expected = 2 * b * t * (2 * (4 * d * d + 8 * d * d) + d * v) + 2 * 4 * b * t * t * d
    assert traced(gpt(), tokens(b, t)).calls[0].flops == pytest.approx(expected, rel=0.02)


def test_grouped_queries_count_all_query_heads():
    class Part(nn.Module):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)

    q, k = torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8)
    assert traced(Part(), q, k).calls[0].flops == 4 * 2 * 6 * 5 * 5 * 8


# --------------------------------------------------------------------- NaN, gradients, dead channels


class Poison(torch.autograd.Function):
    """Puts one bad number into the values, or into the gradient."""

    @staticmethod
    def forward(ctx, x, bad, backward):
        ctx.bad = bad if backward else None
        return x.clone() if backward else with_bad(x, bad)

    @staticmethod
    def backward(ctx, grad):
        return grad if ctx.bad is None else with_bad(grad, ctx.bad), None, None


def with_bad(x, bad):
    x = x.clone()
    x.view(-1)[0] = bad
    return x


def test_the_origin_of_nan_and_inf_is_named_in_twenty_random_places():
    rng = random.Random(0)
    models = {name: make() for name, make in MODELS.items()}
    ran = {name: sorted({c.path for c in traced(m, tokens()).walk() if c.path and
                         c.method == "forward"}) for name, m in models.items()}  # fmt: skip
    for _ in range(20):
        name = rng.choice(list(models))
        path, bad, backward = rng.choice(ran[name]), rng.choice([math.nan, math.inf]), rng.random() < 0.5
        module = models[name].get_submodule(path)
        plain = module.forward
        module.forward = lambda *x, f=plain, bad=bad, back=backward: Poison.apply(f(*x), bad, back)
        with trace(models[name], grad=backward) as t:
            loss = models[name](tokens()).square().mean()
            if backward:
                loss.backward()
        del module.forward
        origin = t.first_nonfinite
        direction = "backward" if backward else "forward"
        assert (origin.path, origin.method, origin.direction) == (path, "forward", direction)
        assert str(origin) in str(t)


@pytest.mark.parametrize("name", MODELS)
def test_clean_models_have_no_origin_though_masks_are_minus_infinity(name):
    model = MODELS[name]()
    with trace(model, grad=True) as t:
        model(tokens()).square().mean().backward()
    assert t.first_nonfinite is None


def test_a_row_that_is_masked_altogether_is_traced_back_to_its_mask():
    class Masked(LoggingModule):
        @log_io
        def scores(self, x):
            return x.masked_fill(torch.ones_like(x, dtype=torch.bool), -math.inf)

        @log_io
        def weights(self, x):
            return x.softmax(-1)

        def forward(self, x):
            return self.weights(self.scores(x))

    assert traced(Masked(), X).first_nonfinite.method == "scores"


def test_nan_in_the_input_is_not_of_the_models_making():
    assert traced(Tiny(), with_bad(X, math.nan)).first_nonfinite is None


def test_stop_on_nan_raises_at_the_origin():
    model = gpt()
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[3, 3] = math.nan
    with pytest.raises(FloatingPointError, match="blocks.1.mlp.up"), trace(model, stop_on_nan=True) as t:
        model(tokens())
    assert t.failed.name == "blocks.1.mlp.up"


def test_gradient_norms_are_those_of_autograd():
    model = gpt()
    with trace(model, grad=True) as t:
        out = model(tokens())
        out.retain_grad()
        out.square().sum().backward()
    assert call(t, "Net").grad_norms["logits"] == pytest.approx(out.grad.norm().item(), rel=1e-4)
    up = model.blocks[0].mlp.up
    expected = math.hypot(up.weight.grad.norm(), up.bias.grad.norm())
    assert t.parts["blocks.0.mlp.up"].grad_norm == pytest.approx(expected, rel=1e-4)


def test_hooks_for_gradients_do_not_change_them():
    model, grads = llama(), []
    for options in ({}, {"grad": True}):
        model.zero_grad()
        with trace(model, **options):
            model(tokens()).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_dead_units_are_those_that_no_token_wakes_in_any_call():
    model = nn.Sequential(nn.ReLU())
    with trace(model) as t:
        model(torch.tensor([[1.0, -1, -1, -1], [1, -1, 0, -1]]))
        model(torch.tensor([[-1.0, 2, 0, -1], [-1, 2, -1, -1]]))
    assert t.dead_units() == {"0": (4, [2, 3])}
    assert "0: 2 of 4 units are 0 for every token" in str(t)


# ---------------------------------------------------------------------------------------- contexts


def with_meta(model):
    model.to("meta")(X.to("meta"))


def with_fake(model):
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(X))


def with_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        model(X)


def with_inference(model):
    with torch.inference_mode():
        model(X)


def with_vmap(model):
    torch.func.vmap(model)(X)


def with_func_grad(model):
    def loss(params):
        return torch.func.functional_call(model, params, (X,)).sum()

    torch.func.grad(loss)(dict(model.named_parameters()))


CONTEXTS = {
    "eager": lambda m: m(X),
    "empty": lambda m: m(X[:0]),
    "meta": with_meta,
    "fake": with_fake,
    "autocast": with_autocast,
    "inference": with_inference,
    "no_grad": lambda m: torch.no_grad()(m)(X),
    "vmap": with_vmap,
    "func_grad": with_func_grad,
    "jvp": lambda m: torch.func.jvp(m, (X,), (X,)),
    "checkpoint": lambda m: checkpoint(m, X.clone().requires_grad_(), use_reentrant=False).sum().backward(),
    "reentrant": lambda m: checkpoint(m, X.clone().requires_grad_(), use_reentrant=True).sum().backward(),
    "deepcopy": lambda m: copy.deepcopy(m)(X) is m(X),
    "pickle": lambda m: pickle.loads(pickle.dumps(m))(X) is m(X),
    "jit_trace": lambda m: torch.jit.trace(m, (X,)),
    "jit_script": lambda m: torch.jit.script(m) and m(X),
    "fx": lambda m: torch.fx.symbolic_trace(m.mlp),
    "compile": lambda m: torch.compile(m, backend="eager")(X),
    "fullgraph": lambda m: torch.compile(m, backend="eager", fullgraph=True)(X),
    "export": lambda m: torch.export.export(m, (X,), strict=False),
}


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.filterwarnings("ignore")
def test_a_trace_works_in_every_context(name, grad):
    model = Tiny()
    with trace(model, grad=grad) as t:
        CONTEXTS[name](model)
    assert next(t.walk()).inputs
    assert "Linear" in str(t) or name == "fx"  # fx looks no deeper than it has to


def test_a_checkpointed_block_is_no_failure_when_it_stops_recomputing():
    model = Tiny()
    with trace(model) as t:
        checkpoint(model, X.clone().requires_grad_(), use_reentrant=False).sum().backward()
    assert any(c.recompute for c in t.walk())
    assert t.failed is None and "✗" not in str(t)


@pytest.mark.filterwarnings("ignore")
def test_strict_export_is_exported_whole_and_the_trace_says_it_saw_nothing():
    model = Tiny()
    with trace(model) as t:
        program = torch.export.export(model, (X,), strict=True)
    assert torch.allclose(program.module()(X), model(X))
    assert "no call" in t.notes[0]


@pytest.mark.parametrize("stats", ["none", "basic"])
def test_a_compiled_model_is_traced_eagerly_with_a_note_and_compiled_again_after(stats):
    model = Tiny()
    compiled = torch.compile(model, backend="eager")
    expected = compiled(X)
    t = traced(compiled, X, stats=stats)
    assert "compile" in t.notes[0]
    assert call(t, "mlp.up").outputs[0].shape == (2, 5, 8)
    assert torch.equal(compiled(X), expected)


# ------------------------------------------------------------------------------------ live logging


def test_logging_prints_calls_with_names_axes_and_indents(capsys):
    model = gpt()
    model.enable_logging()
    model(tokens())
    lines = capsys.readouterr().out.splitlines()
    model.disable_logging()
    assert lines[0].startswith("Net(tokens int64 [b=3, t=7]")
    assert any(x.startswith("│  │  │  blocks.0.mixer.scores(q float32 [b=3, h=4, t=7, p=12]") for x in lines)
    assert lines[-1].startswith("└→ logits float32 [b=3, t=7, v=97]")


def test_logging_of_one_module_is_not_of_its_children_and_off_is_silent(capsys):
    model, before = gpt(), vars(MLP)["forward"]
    model.blocks[0].mlp.enable_logging(recursive=False)
    model(tokens())
    assert len(capsys.readouterr().out.splitlines()) == 2
    model.disable_logging()
    model(tokens())
    assert not capsys.readouterr().out
    assert vars(MLP)["forward"] is before


def test_single_methods_are_muted_and_heard_again(capsys):
    model = gpt()
    model.enable_logging()
    model.disable_function_logging("scores")
    model(tokens())
    assert ".scores(" not in capsys.readouterr().out
    model.enable_function_logging("scores")
    model(tokens())
    model.disable_logging()
    assert ".scores(" in capsys.readouterr().out


def test_a_method_that_does_not_exist_is_neither_muted_nor_heard():
    model = gpt()
    for switch in (model.disable_function_logging, model.enable_function_logging):
        with pytest.raises(ValueError) as error:
            switch("score")
        assert str(error.value) == "'score' is no marked method of Net or of its parts: the nearest is 'scores'"
        with pytest.raises(ValueError, match="^'scores' is no marked method of Net: the nearest is "):
            switch("scores", recursive=False)
        switch("scores")
    model.blocks[0].mixer.disable_function_logging("scores", recursive=False)


def test_full_tensors_are_printed_on_request(capsys):
    model = Tiny()
    model.enable_logging()
    model.enable_full_tensor_printing()
    model(X)
    assert "0.4872" in capsys.readouterr().out
    model.disable_full_tensor_printing()
    model(X)
    model.disable_logging()
    assert "0.4872" not in capsys.readouterr().out


# ---------------------------------------------------------------------------------- device and seed


def test_devices_that_are_missing_are_refused():
    assert pick_device("auto").type in ("cuda", "mps", "cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=warp is not available: use one of auto"):
        pick_device("warp")


def test_a_seed_fixes_all_random_numbers():
    draws = []
    for _ in range(2):
        seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


@pytest.mark.slow
def test_importing_tools_does_not_import_the_compiler():
    code = "import sys, tools; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


def test_deterministic_holds_inside_only_and_names_what_it_cannot_repeat():
    def mode():
        return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    before = mode()
    with deterministic(True):
        assert mode() == (True, False)
    with deterministic(False):
        assert mode() == before
    with pytest.raises(ValueError, match="^train.deterministic=True: mine has no deterministic form on this device"), \
            deterministic(True):
        raise RuntimeError("mine does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="^another"), deterministic(True):
        raise RuntimeError("another error")
    assert mode() == before
