"""Pictures of lines, the flags in which they differ, what is said of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from config import Config, override
from experiments.comparing.curve_pictures import draw_lines, not_drawn
from experiments.comparing.differences import differences, remarks
from experiments.comparing.lines import Line
from experiments.comparing.sources import CurveSource
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
