import json
import math
import re

import pytest
import torch
from small_models import MODELS, Net, gpt, llama, moe, tokens
from torch import nn

from tools import LoggingModule, Trace, log_io, trace
from tracing.checksums import checksum, checksum_later, written
from tracing.formats import amount, duration, number
from tracing.module_tables import parameter_table


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def traced(model, x=None, **options) -> Trace:
    with trace(model, **options) as t:
        model(tokens() if x is None else x)
    return t


# ----------------------------------------------------------------------------------------- the tree


def answer(text: str, words: str, value: str = "") -> str:
    """What a reader finds: the first shape on or below the line with `words`, of `value` if given."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if re.search(rf"[─ ]{re.escape(words)}\s", line))
    for line in lines[start:]:
        if not value or re.search(rf"(→ | ){value} ", line):
            return re.search(r"\[(.*?)\]", line)[1]
    raise AssertionError(f"{words} {value} is not shown")


def test_a_reader_answers_ten_questions_about_shapes_from_the_text():
    class Unseen(LoggingModule):
        """Two maps and a gate in the place of an attention."""

        def __init__(self):
            super().__init__()
            self.wide, self.gate, self.close = nn.Linear(40, 60), nn.Linear(40, 60), nn.Linear(60, 40)

        @log_io("b t d -> b t f, b t f")
        def split(self, x):
            left, right = self.wide(x), self.gate(x)
            return left, right

        @log_io("b t f, b t f -> b f f")
        def gram(self, left, right):
            return left.transpose(1, 2) @ right

        def forward(self, x):
            left, right = self.split(x)
            return self.close(left @ self.gram(left, right))

    text = traced(Net([Unseen()], 40, {"f": 60})).text(100)
    attention = traced(llama()).text(100)
    questions = [
        (text, "Net", "tokens", "b=3, t=7"),
        (text, "embed", "", "b=3, t=7, d=40"),
        (text, ".split", "left", "b=3, t=7, f=60"),
        (text, ".split", "right", "b=3, t=7, f=60"),
        (text, ".gram", "", "b=3, f=60, f=60"),
        (text, "close", "", "b=3, t=7, d=40"),
        (text, "Net", "logits", "b=3, t=7, v=97"),
        (attention, ".project", "q", "b=3, h=6, t=7, p=8"),
        (attention, ".project", "v", "b=3, g=2, s=7, p=8"),
        (attention, ".scores", "", "b=3, h=6, t=7, s=7"),
        (attention, "up", "", "b=3, t=7, f=112"),
    ]
    right = [answer(shown, words, value) == shape for shown, words, value, shape in questions]
    assert all(right)


def test_twelve_layers_take_at_most_sixty_lines_of_a_hundred_columns():
    lines = traced(gpt(12)).text(100).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert sum("blocks.1 … blocks.11: 11 more, same shapes" in line for line in lines) == 1


def test_statistics_stand_beside_the_shapes_where_there_is_room():
    text = traced(gpt()).text(130)
    assert re.search(r"up  Linear.*\[b=3, t=7, f=192\] +-\d.* … \d.* σ 0\.\d+ +μ ", text)


def test_layers_that_alternate_fold_in_groups_and_unlike_layers_do_not_fold():
    def net(*widths):
        return nn.Sequential(*(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)))

    x = torch.ones(2, 3, 4)
    assert "2 … 5: 2 more groups of 2" in traced(net(4, 6, 4, 6, 4, 6, 4), x).text(100)
    assert "more" not in traced(net(4, 6, 8, 10), x).text(100)


def test_experts_fold_though_the_tokens_they_get_differ_in_number():
    text = traced(moe()).text(100)
    assert "experts.1 … experts.5: 5 more, same shapes but for the first axis" in text


def test_a_spoilt_layer_is_not_folded_away():
    model = gpt(6)
    with torch.no_grad():
        model.blocks[3].mlp.up.weight[0] = math.nan
    text = traced(model).text(100)
    assert "blocks.1 … blocks.2: 2 more" in text
    assert re.search(r"blocks.3 +Block", text) and re.search(r"up +Linear ✗ FIRST", text)


def test_nothing_is_folded_on_request_and_depth_cuts():
    t = traced(gpt(3))
    assert t.text(fold=False).count("  Attention") == 3
    assert "Attention" not in t.text(depth=1)


def test_colours_come_on_request_only_and_leave_the_words(monkeypatch):
    t = traced(gpt())
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain, coloured = t.text(100, color=False), t.text(100, color=True)
    assert "\x1b[" not in plain and "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


@pytest.mark.parametrize(("terminal", "no_color", "coloured"),
                         [(True, None, True), (True, "1", False), (False, None, False)])  # fmt: skip
def test_colour_asks_the_terminal_and_no_color(monkeypatch, terminal, no_color, coloured):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    assert ("\x1b[" in str(traced(gpt()))) == coloured


def test_a_terminal_without_unicode_gets_ascii(monkeypatch):
    class Terminal:
        encoding = "ascii"

        @staticmethod
        def isatty():
            return False

    t = traced(gpt(3))
    monkeypatch.setattr("sys.stdout", Terminal)
    assert t.text(120).isascii()


# --------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_trace_equals_the_saved_one(name, tmp_path):
    model = MODELS[name]()
    with trace(model, stats="full", grad=True) as t:
        model(tokens()).mean().backward()
    loaded = Trace.load(t.to_json(tmp_path / "trace.json"))
    assert loaded == t
    assert loaded.text(120) == t.text(120)
    assert list(loaded.walk()) == list(t.walk())


def test_a_saved_trace_is_strict_json_even_with_nan(tmp_path):
    model = gpt()
    with torch.no_grad():
        model.embed.weight[:, 0] = math.nan
    with trace(model, grad=True) as t:
        model(tokens()).mean().backward()
    path = t.to_json(tmp_path / "trace.json")
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert Trace.load(path) == t
    assert Trace.load(path).first_nonfinite == t.first_nonfinite


def test_other_numbers_make_another_trace_and_another_schema_is_refused(tmp_path):
    t = traced(gpt())
    assert t != traced(gpt())
    path = t.to_json(tmp_path / "trace.json")
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 99'))
    with pytest.raises(ValueError, match="schema 99: this code reads 1"):
        Trace.load(path)


# --------------------------------------------------------------------------------------------- HTML


def test_the_page_is_whole_static_and_holds_every_call():
    t = traced(gpt(12))
    html = t._repr_html_()
    assert html.count("<details") == html.count("</details>") > len(list(t.walk()))
    assert "<script" not in html and "http" not in html
    assert html.count("<b>.scores</b>") == 12
    assert "11 more, same shapes" in html


def test_the_page_escapes_what_the_model_says(tmp_path):
    class Part(LoggingModule):
        @log_io(name="<script>")
        def method(self, x, word):
            raise RuntimeError("<b>bold</b>")

        def forward(self, x):
            return self.method(x, "<i>")

    part = Part()
    with pytest.raises(RuntimeError), trace(part) as t:
        part(torch.ones(2))
    html = t.html(tmp_path / "trace.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "<script>" not in html and "<b>bold" not in html and "&lt;i&gt;" in html


# ------------------------------------------------------------------------------------ diff and tables


def test_a_diff_points_at_the_one_activation_that_changed():
    model = gpt(4)
    first = traced(model)
    assert first.diff(traced(model)).startswith("no difference in ")
    model.blocks[2].mlp.act = nn.ReLU()
    lines = first.diff(traced(model)).splitlines()
    assert lines[0] == "first difference: blocks.2.mlp.act"
    assert lines[1].strip() == "GELU | ReLU"
    assert "blocks.1" not in "".join(lines)


def test_a_diff_shows_shapes_and_calls_that_only_one_has():
    model = gpt(2)
    first = traced(model)
    assert "[b=3, t=7, d=48] | float32 [b=3, t=5, d=48]" in first.diff(traced(model, tokens(3, 5)))
    model.blocks = model.blocks[:1]
    assert "only in the first" in first.diff(traced(model))
    assert "only in the second" in traced(model).diff(first)


class Scaled(LoggingModule):
    """x times a number; of one that sums over time, the order of its input is no matter."""

    def __init__(self, factor: float = 1.0, *, summed: bool = False):
        super().__init__()
        self.factor, self.summed = factor, summed

    @log_io
    def forward(self, x, note="a"):
        return x.sum(1) * self.factor if self.summed else x.mul(self.factor) if x.is_floating_point() else x


DTYPES = ["float32", "float64", "float16", "bfloat16", "complex64", "int64", "int8", "uint8", "bool", "uint16",
          "float8_e4m3fn"]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_diff_tells_an_input_in_another_order(dtype):
    class Part(LoggingModule):
        @log_io
        def forward(self, x):
            return x.view(-1)

    x = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 1, 1, 0]]).to(getattr(torch, dtype))
    assert traced(Part(), x).diff(traced(Part(), x.clone())) == "no difference in 1 calls"
    for other in (x.clone().view(-1)[[1, 0, *range(2, 10)]].view(2, 5), x.view(-1)[torch.arange(9, -1, -1)].view(2, 5)):
        lines = traced(Part(), x).diff(traced(Part(), other)).splitlines()
        assert lines[0] == "first difference: Part" and "other values" in lines[1]
        assert "beyond" not in "".join(lines)


def test_a_diff_of_values_does_not_depend_on_how_they_lie_in_memory():
    x = torch.randn(3, 7, 5)
    other = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not other.is_contiguous()
    assert traced(Scaled(), x).diff(traced(Scaled(), other)) == "no difference in 1 calls"


def test_a_diff_tells_arguments_where_the_results_are_alike():
    x = torch.arange(20.0).view(2, 10)
    lines = traced(Scaled(summed=True), x).diff(traced(Scaled(summed=True), x.flip(1))).splitlines()
    assert lines[1].strip() == "argument x other values, statistics alike"
    model = Scaled()
    with trace(model) as first:
        model(x, "a")
    with trace(model) as second:
        model(x, "b")
    assert "argument note='a' | note='b'" in first.diff(second)


def test_a_diff_says_which_call_first_differs_by_more_than_rounding():
    x = torch.randn(2, 5, 8)
    model = nn.Sequential(Scaled(), Scaled(2.0))
    first = traced(model, x)
    model[0].factor, model[1].factor = 1 + 1e-6, 3.0
    lines = first.diff(traced(model, x)).splitlines()
    assert lines[:3] == ["first difference: 0", "  other values, statistics alike", "first beyond rtol and atol: 1"]


def test_a_diff_says_what_it_did_not_compare(tmp_path):
    model = gpt(1)
    full, shapes_only, other = traced(model), traced(model, stats="none"), traced(model, tokens().flip(1), stats="none")
    for a, b in ((shapes_only, other), (full, other), (other, full)):
        text = a.diff(b)
        assert text.startswith("the same shapes and dtypes in 19 calls; values were not compared")
        assert "no difference" not in text
    path = full.to_json(tmp_path / "trace.json")
    path.write_text(re.sub(r', "checksum": "[0-9a-f]*"', "", path.read_text()))  # as older code saved it
    older = Trace.load(path)
    assert not any(value.checksum for c in older.walk() for value in c.outputs)
    text = older.diff(full)
    assert text.startswith("the same shapes, dtypes and statistics in 19 calls; values were not compared")
    assert "first difference" in older.diff(traced(gpt(1))) and "values were not compared" in older.diff(traced(gpt(1)))


def test_a_checksum_is_the_same_wherever_it_is_made():
    for x in (torch.randn(300, 1111), torch.randn(7)[3:], torch.tensor(3), torch.zeros(0), torch.ones(5).bool()):
        assert written(checksum(x)) == written(checksum_later(x).item())


@pytest.mark.parametrize("stats", ["basic", "full"])
def test_what_an_accelerator_gives_later_is_what_a_cpu_gives_at_once(monkeypatch, stats):
    model = llama()
    at_once = traced(model, stats=stats)
    monkeypatch.setattr("tracing.readings.at_hand", lambda x: False)
    later = traced(model, stats=stats)
    assert later.diff(at_once) == f"no difference in {len(list(later.walk()))} calls"
    for a, b in zip(later.walk(), at_once.walk(), strict=True):
        for x, y in zip((*a.inputs, *a.outputs), (*b.inputs, *b.outputs), strict=True):
            assert (x.name, x.checksum, x.labels) == (y.name, y.checksum, y.labels)
            assert bool(x.checksum) == (x.shape is not None)
            assert {k: v for k, v in x.stats.items() if k != "histogram"} == pytest.approx(
                {k: v for k, v in y.stats.items() if k != "histogram"}, rel=1e-4, abs=1e-5)


def test_a_checksum_tells_signs_that_change_places():
    x = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64)
    orders = {tuple(x[torch.randperm(100)].tolist()) for _ in range(500)}
    assert len({checksum(torch.tensor(order, dtype=torch.float64)) % 2**64 for order in orders}) == len(orders)
    big = torch.arange(200_000)
    swapped = big.clone()
    swapped[[3, 150_000]] = big[[150_000, 3]]
    assert checksum(big) % 2**64 != checksum(swapped) % 2**64


def test_the_table_adds_up_and_folds_layers():
    model = gpt(5)
    t = traced(model)
    table = t.table(["part", "parameters", "flops", "output_bytes", "seconds"])
    rows = {row["path"]: row for row in t.rows()}
    assert f"{sum(p.numel() for p in model.parameters()):,}" in table
    assert "1 … 4" in table and table.count("norm1") == 1
    assert rows["blocks.0.mlp.up"]["flops"] == 2 * 21 * 48 * 192
    assert rows["blocks.0.mlp.up"]["output_bytes"] == 4 * 21 * 192
    assert sum(rows[f"blocks.{i}"]["seconds"] for i in range(5)) < rows[""]["seconds"]
    with pytest.raises(ValueError, match="columns='speed' is not known: use some of part"):
        t.table(["speed"])


def test_the_parameter_table_counts_shared_ones_once():
    lines = parameter_table(gpt(3, tie=True)).splitlines()
    total = sum(p.numel() for p in gpt(3, tie=True).parameters())
    assert re.search(rf"Net +Net +{total:,} +100.0 %", lines[2])
    assert any(re.search(r"blocks.0 … 2 +3 × Block", line) for line in lines)
    assert re.search(r"head +Linear +0 +0.0 % +=? embed.weight", lines[-1])


def test_numbers_are_short():
    assert [number(x) for x in (0.0, 3.0, -3.4149, 1.2e-9, 123456.7, math.nan, -math.inf)] == [
        "0", "3", "-3.41", "1.2e-9", "1.2e5", "nan", "-inf"]  # fmt: skip
    assert [amount(x, "B") for x in (12, 4096, 2.5e9)] == ["12 B", "4.1 kB", "2.5 GB"]
    assert [duration(x) for x in (2.0, 0.0123, 4e-6)] == ["2 s", "12.3 ms", "4 us"]
