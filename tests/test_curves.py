"""Pictures of lines, the flags in which they differ, what is said of them."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import runs
from config import Config, override
from experiments.common.reports import Markdown, csv_text, fenced, markdown_table, write_picture
from experiments.comparing.compare_page import write_page
from experiments.comparing.curve_pictures import draw_lines, not_drawn
from experiments.comparing.differences import differences, remarks
from experiments.comparing.lines import Line, lines
from experiments.comparing.run_tables import line_table, run_table
from experiments.comparing.sources import CurveSource, find
from tokenizer import ByteTokenizer, CharTokenizer

DATA = {"fingerprint": "f", "val_bytes": 100, "floor_bits_per_byte": None, "val_tokens_per_byte": 1.0,
        "train_bytes": 2, "train_tokens": 1}


def source(name: str, *, tokenizer=None, changes=None, steps: int = 4, **data) -> CurveSource:
    """A run that was never trained."""
    cfg = override(Config(), {"train.name": name, "train.steps": 4} | (changes or {}))
    run = SimpleNamespace(config=cfg, data=DATA | data, tokenizer=lambda: tokenizer or ByteTokenizer())
    return CurveSource(name, pd.DataFrame({"step": np.arange(steps) + 1}), run, Path(name))


def line(name: str, *members: CurveSource, band: float | None = None, **columns) -> Line:
    table = pd.DataFrame({"step": [1, 2, 3, 4], "tokens": [10, 20, 30, 40], "bytes": [20, 40, 60, 80]} | columns)
    ends = [None, None] if band is None else [table + sign * band * (table.columns != "tokens") for sign in (-1, 1)]
    return Line(name, members or (CurveSource(name, table, None, Path(name)),), table, *ends)


def drawn(figure, panel: int = 0) -> dict[str, list]:
    return {curve.get_label(): curve.get_xydata().tolist() for curve in figure.axes[panel].get_lines()}


LOSS = {"bits_per_byte": [4.0, 2.0, 1.0, 0.5]}


# ---- pictures ----


def test_curves_are_what_was_measured_against_the_axis_that_is_asked_for():
    gaps = {"bits_per_byte": [4.0, np.nan, 1.0, 0.5]}
    assert drawn(draw_lines([line("a", **gaps)])) == {"a": [[10, 4.0], [30, 1.0], [40, 0.5]]}
    assert drawn(draw_lines([line("a", **gaps)], x="step", start=3)) == {"a": [[3, 1.0], [4, 0.5]]}


def test_several_columns_have_a_panel_each_and_one_legend():
    figure = draw_lines([line("a", **LOSS, lr=[1.0, 2.0, 3.0, 4.0]), line("b", **LOSS)], y=["bits_per_byte", "lr"])
    assert [list(drawn(figure, panel)) for panel in (0, 1)] == [["a", "b"], ["a"]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert not_drawn([line("a", **LOSS)], ["bits_per_byte", "lr"], "flops") == [
        "a has no flops in its log: it is not drawn in this panel.",
        "a has no lr in its log: it is not drawn in this panel."]


def test_smoothing_is_the_mean_that_it_says():
    values = LOSS["bits_per_byte"]
    figure = draw_lines([line("a", **LOSS)], smooth=0.75)
    weights = [0.75**age for age in range(4)]
    expected = [np.average(values[: n + 1][::-1], weights=weights[: n + 1]) for n in range(4)]
    assert [y for _, y in drawn(figure)["a"]] == pytest.approx(expected)
    assert figure.axes[0].get_title(loc="left") == "smoothed: exponential mean, 0.75 for the past"
    figure = draw_lines([line("a", **LOSS)], smooth=3)
    assert [y for _, y in drawn(figure)["a"]] == pytest.approx([3.0, 7 / 3, 3.5 / 3, 0.75])
    assert figure.axes[0].get_title(loc="left") == "smoothed: mean of 3 rows"


def test_what_is_left_out_at_the_start_still_counts_in_the_mean():
    curve = drawn(draw_lines([line("a", **LOSS)], smooth=3, start=20))["a"]
    assert curve[0] == [20, pytest.approx(7 / 3)]


def test_seeds_are_one_line_with_a_band_that_does_not_set_the_scale():
    figure = draw_lines([line("a", source("a-1"), source("a-2"), band=0.3, **LOSS)], log_y=False)
    assert list(drawn(figure)) == ["a (2 seeds)"]
    (band,) = figure.axes[0].collections
    ends = band.get_paths()[0].vertices
    for x, y in zip((10, 20, 30, 40), LOSS["bits_per_byte"], strict=True):
        assert {round(end, 9) for end in ends[ends[:, 0] == x][:, 1]} == {round(y - 0.3, 9), round(y + 0.3, 9)}
    wide = draw_lines([line("a", source("a-1"), source("a-2"), band=50, **LOSS)], log_y=False)
    assert wide.axes[0].get_ylim() == figure.axes[0].get_ylim()


def test_the_entropy_is_drawn_where_it_is_known_and_shown_where_it_is_near():
    near, far = (source("a", floor_bits_per_byte=floor) for floor in (0.4, 0.001))
    figure = draw_lines([line("a", near, **LOSS)])
    assert [y for _, y in drawn(figure)["entropy of the text, 0.400"]] == [0.4, 0.4]
    assert figure.axes[0].get_ylim()[0] < 0.4
    figure = draw_lines([line("a", far, **LOSS)])
    assert "entropy of the text, 0.001 (below)" in drawn(figure) and figure.axes[0].get_ylim()[0] > 0.3


@pytest.mark.parametrize(("log_x", "log_y"), [(False, False), (True, True), (True, False)])
def test_axes_are_logarithmic_as_asked_and_only_above_zero(log_x, log_y):
    axes = draw_lines([line("a", **LOSS)], log_x=log_x, log_y=log_y).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == tuple("log" if on else "linear" for on in (log_x, log_y))
    assert draw_lines([line("a", lr=[0.0, 1, 2, 1])], y=["lr"]).axes[0].get_yscale() == "linear"


def test_a_loss_per_token_is_refused_between_tokenizers_and_left_by_the_default():
    columns = LOSS | {"val_loss": [4.0, 3.0, 2.0, 1.0]}
    two = [line("a", source("a"), **columns), line("b", source("b", tokenizer=CharTokenizer("abc")), **columns)]
    theirs = line("c", val_loss=[4.0, 3.0, 2.0, 1.0])
    assert drawn(draw_lines(two))["a"][0] == [20, 4.0]  # against bytes of text, for a token is not the same for both
    with pytest.raises(ValueError, match="y=val_loss counts tokens, and the runs have different tokenizers"):
        draw_lines(two, y=["val_loss"])
    assert list(drawn(draw_lines([*two, theirs]))) == ["a", "b"]
    assert list(drawn(draw_lines([two[0], theirs]))) == ["a", "c"]


ODD = ["$x_1$", "$\\frac{$", "_hidden", "[/old]", "a\x1b[31m\x00\nb", "cost $5", "<b>`|`</b>", "\udcff"]


def test_odd_names_are_shown_as_they_are_and_none_is_a_formula_or_hidden(tmp_path):
    column = "$\\undefined_loss$"
    figure = draw_lines([line(name, **{column: [4.0, 2.0, 1.0, 0.5]}) for name in ODD], y=[column])
    write_picture(tmp_path / "odd.png", figure)
    texts = [text._preprocess_math(text.get_text()) for text in figure.legends[0].get_texts()]
    shown = [*ODD[:2], " _hidden", "[/old]", r"a\x1b[31m\x00 b", *ODD[5:7], r"\udcff"]
    assert texts == [(name, False) for name in shown]
    axes = figure.axes[0]
    assert axes.yaxis.label._preprocess_math(axes.get_ylabel()) == (column, False)


def test_names_of_other_logs_are_readable_wherever_they_are_shown(tmp_path):
    for name in (b"_$x$[old].csv", b"a\x1b\n|<i>`.csv", b"\xff.csv"):
        (tmp_path / os.fsdecode(name)).write_text('step,"$y$ [/b]\x1b<i>|",loss\n1,2,3\n2,3,4\n')
    sources, problems = find([str(tmp_path)])
    found = lines(sources)
    assert not problems and [one.name for one in found] == ["_$x$[old]", r"a\x1b |<i>`", r"\udcff"]
    assert list(sources[0].table) == ["step", r"$y$ [/b]\x1b<i>|", "train_loss"]
    table = line_table(run_table(found, {}, None, {}), found)
    write_page(tmp_path / "page.html", title="odd", lines=found, table=table, differences=differences(found),
               remarks=remarks(found), samples={}, floor=None)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not any(raw in page for raw in ("<i>`", "<i>|", "\x1b")) and "&lt;i&gt;`" in page


def test_reports_hold_no_html_no_code_and_no_formula():
    rows = markdown_table([{"<b>": "a|b\nc", "`x": "\\`<img src=x>&amp;"}])
    assert rows.splitlines() == ["| &lt;b> | \\`x |", "| --- | --- |", "| a/b c | \\\\\\`&lt;img src=x>&amp;amp; |"]
    assert markdown_table([{"a": Markdown("`x` **b**")}]).endswith("| `x` **b** |")
    assert fenced("a\n```\n") == "````\na\n```\n\n````"
    table = pd.DataFrame({"=a": ["=1+1", "+x", "-y", "@z", "\tt", "plain", None, ""], "n": [-1.5] * 8},
                         index=["@i", *"bcdefgh"])
    assert csv_text(table).splitlines()[:4] == [",'=a,n", "'@i,'=1+1,-1.5", "b,'+x,-1.5", "c,'-y,-1.5"]
    assert pd.read_csv(io.StringIO(csv_text(table)))["n"].tolist() == [-1.5] * 8


def test_every_table_that_is_written_for_a_spreadsheet_is_without_formulas():
    programs = Path(__file__).resolve().parent.parent / "experiments"
    assert [path.name for path in programs.rglob("*.py") if ".to_csv(" in path.read_text()] == ["reports.py"]


# ---- flags and remarks ----


def test_flags_that_differ_are_rows_and_seeds_are_listed():
    lines = [line("a", source("a-0"), source("a-1", changes={"train.seed": 1})),
             line("b", source("b", changes={"model.dim": 64, "model.layers": ("attention", "none")})), line("theirs")]
    assert differences(lines).to_dict("index") == {
        "model.dim": {"a": "128", "b": "64", "theirs": ""},
        "model.layers": {"a": "base", "b": "attention none", "theirs": ""},
        "train.seed": {"a": "0, 1", "b": "0", "theirs": ""}}


def test_lines_of_the_same_seeds_do_not_differ_in_them():
    lines = [line(name, *(source(f"{name}-{seed}", changes={"train.seed": seed, "model.dim": dim}) for seed in (0, 1)))
             for name, dim in (("a", 32), ("b", 64))]
    assert list(differences(lines).index) == ["model.dim"]
    assert differences([line("a", source("a")), line("theirs")]).empty


def test_what_keeps_numbers_from_being_compared_is_said():
    whole = source("a", floor_bits_per_byte=0.3)
    assert remarks([line("a", whole), line("b", source("b", fingerprint="g", floor_bits_per_byte=0.3))]) == []
    lines = [line("a", whole), line("b", source("b", fingerprint="g", tokenizer=CharTokenizer("abc"), steps=3)),
             line("theirs")]
    tokenizers, texts, foreign, stopped = remarks(lines)
    assert tokenizers.startswith("The tokenizers differ (a: byte, 259 ids; b: char, 6 ids): the runs are compared in "
                                 "bits per byte.")
    assert texts.startswith("a and b were validated on different texts")
    assert foreign.startswith("There is only a log of theirs")
    assert stopped == "b stopped at step 3 of 4."


@pytest.mark.slow
def test_a_long_noisy_curve_is_drawn_in_little_memory(tmp_path):
    """In one piece these points took 300 MB."""
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from experiments.common.reports import write_picture
def draw(count):
    figure = Figure()
    figure.subplots().plot(np.random.default_rng(0).random(count))
    write_picture(Path(sys.argv[1]), figure)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = draw(10)
assert draw(60_000) - few < 60_000  # kilobytes
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "picture.png"], cwd=runs.ROOT, check=True)
