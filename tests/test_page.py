"""The page of a comparison: what a reader finds on it, and what a browser does with it."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, Browser
from thorough import some, thorough

from experiments.comparing.compare_page import MAX_ROWS, write_page
from experiments.comparing.lines import Line
from experiments.comparing.sources import CurveSource

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="the page is opened in Chromium: install chromium")
pytestmark = pytest.mark.slow  # a browser opens each page
FLOOR = 0.36
HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b> & \"'%{y}"


def log(last: float, num_rows: int = 20) -> pd.DataFrame:
    """A falling curve, validated every other row."""
    steps = 10.0 * np.arange(1, num_rows + 1)
    bits = last * (1 + 5 / steps) / (1 + 5 / steps[-1])
    bits[::2] = np.nan
    return pd.DataFrame({"step": steps, "tokens": 100 * steps, "seconds": steps / 7, "flops": 1e9 * steps,
                         "train_loss": 2 + np.sin(steps), "bits_per_byte": bits, "lr": 0.01})


def line(
    name: str, table: pd.DataFrame, num_seeds: int = 1, *, foreign: bool = False, tokenizer: str = "bpe",
) -> Line:
    kind = SimpleNamespace(fingerprint=tokenizer, kind=tokenizer, vocab_size=300)
    run = None if foreign else SimpleNamespace(tokenizer=lambda: kind)
    members = tuple(CurveSource(f"{name}-{seed}", table, run, Path(name)) for seed in range(num_seeds))
    axes = ["step", "tokens", "seconds", "flops"]
    low, high = ((table * factor).assign(**table[axes]) if num_seeds > 1 else None for factor in (0.9, 1.1))
    return Line(name, members, table, low, high)


@pytest.fixture
def lines() -> list[Line]:
    foreign = pd.DataFrame({"step": [0, 100, 200], "train_loss": [4.0, 3.0, 2.5], "mfu": [31.0, 32.0, 33.0]})
    return [line("base", log(0.5), 3), line(HOSTILE, log(0.4)), line("theirs.csv", foreign, foreign=True)]


@pytest.fixture
def write(tmp_path, lines):
    def page(**changes) -> Path:
        names = [one.name for one in changes.get("lines", lines)]
        texts = [{"prompt": "Once", "text": "Once there was a hen.\nShe ran."}, {"prompt": "", "text": HOSTILE}]
        content = {
            "title": "Is it better?", "lines": lines, "floor": FLOOR, "remarks": [f"{HOSTILE} was skipped."],
            "table": pd.DataFrame({"tokens": "20,000", "bits/byte": "0.4000"}, index=names),
            "differences": pd.DataFrame([["rms", "layer", math.nan]], index=["model.norm"],
                                        columns=[one.name for one in lines]),
            "samples": dict.fromkeys(names[:2], texts)}
        write_page(tmp_path / "pages" / "page.html", **content | changes)
        return tmp_path / "pages" / "page.html"

    return page


class Reading(HTMLParser):
    """The elements of a page, and the texts in some of them."""

    def __init__(self, path: Path, *wanted: str):
        super().__init__()
        self.elements, self.texts, self.wanted, self.depth = [], [], wanted, 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.wanted:
            self.texts.append("")
            self.depth += 1

    def handle_endtag(self, tag):
        self.depth -= tag in self.wanted

    def handle_data(self, data):
        if self.depth:
            self.texts[-1] += data


def embedded(path: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())[1])


# ---- what is written ----


def test_the_tables_say_what_they_were_given(write):
    assert Reading(write(), "th", "td").texts == [
        "", " base", f" {HOSTILE}", " theirs.csv", "tokens", "20,000", "20,000", "20,000",
        "bits/byte", "0.4000", "0.4000", "0.4000",
        "", " base", f" {HOSTILE}", " theirs.csv", "model.norm", "rms", "layer", ""]


def test_many_runs_are_the_rows_of_their_table(write):
    many = [line(f"run-{number}", log(0.5)) for number in range(7)]
    page = Reading(write(lines=many, differences=pd.DataFrame()), "th", "td")
    assert page.texts[:6] == ["", "tokens", "bits/byte", " run-0", "20,000", "0.4000"]


def test_what_is_not_the_first_lines_value_stands_out(write):
    cells = [attributes.get("class") for tag, attributes in Reading(write()).elements if tag == "td"][-3:]
    assert cells == [None, "other", "other"]


def test_texts_stand_side_by_side_under_their_prompt(write):
    page = Reading(write(), "h3", "h4", "p")
    assert page.texts[-10:] == ["“Once”", "base", "Once there was a hen.\nShe ran.",
                                HOSTILE, "Once there was a hen.\nShe ran.",
                                "From nothing", "base", HOSTILE, HOSTILE, HOSTILE]


def test_sections_without_content_are_left_out(write):
    page = Reading(write(samples={}, differences=pd.DataFrame(), remarks=[]), "h2")
    assert page.texts == ["The runs"]
    assert ("ul", {"class": "remarks"}) not in page.elements


def test_no_text_becomes_an_element_or_ends_the_script(write, lines):
    tags = [tag for tag, _ in Reading(write(title=HOSTILE)).elements]
    assert "img" not in tags and tags.count("script") == 3
    assert [one["name"] for one in embedded(write())["lines"]] == [one.name for one in lines]


def test_the_page_names_no_address_and_allows_none(write):
    page = Reading(write())
    policy = next(attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; ") and "form-action 'none'; base-uri 'none'; " in policy
    assert re.fullmatch(r".*script-src 'sha256-\S{43}=' 'sha256-\S{43}='", policy)
    assert not [tag for tag, attributes in page.elements if {"src", "href"} & attributes.keys()]


def test_the_same_comparison_gives_the_same_page(write):
    assert write().read_bytes() == write().read_bytes()


def test_curves_hold_the_logs(write, lines):
    data = embedded(write())
    base, _, theirs = data["lines"]
    table = lines[0].table
    assert base["mean"]["bits_per_byte"] == [None if math.isnan(x) else pytest.approx(x) for x in table.bits_per_byte]
    assert base["low"]["train_loss"] == pytest.approx((0.9 * table.train_loss).tolist())
    assert theirs["mean"] == {"step": [0, 100, 200], "train_loss": [4, 3, 2.5], "mfu": [31, 32, 33]}
    assert theirs["low"] is None and base["count"] == 3
    assert [column["name"] for column in data["columns"]] == ["bits_per_byte", "train_loss", "lr", "mfu"]


def test_the_view_to_begin_with_is_the_callers(write):
    data = embedded(write(column="lr", axis="flops"))
    assert (data["columns"][data["column"]]["name"], data["axes"][data["axis"]]["name"]) == ("lr", "flops")


def test_with_different_tokenizers_no_loss_per_token_can_be_chosen(write):
    bare = log(0.5)[["step", "train_loss", "lr"]]
    data = embedded(write(lines=[line("bpe", bare), line("bytes", bare, tokenizer="byte")]))
    assert {column["name"]: column["barred"] for column in data["columns"]} == {
        "train_loss": True, "lr": False}
    assert not any(column["barred"] for column in embedded(write())["columns"])


def test_what_is_not_finite_is_a_gap(write):
    broken = pd.DataFrame({"step": [1, 2, 3, 4], "val_loss": [math.inf, math.nan, -math.inf, 1.5],
                           "note": ["a", "b", "c", "d"]})
    (only,) = embedded(write(lines=[line("broken", broken)]))["lines"]
    assert only["mean"] == {"step": [1, 2, 3, 4], "val_loss": [None, None, None, 1.5]}


def test_a_long_log_is_drawn_from_means_of_neighbours(write):
    table = pd.DataFrame({"step": np.arange(3 * MAX_ROWS), "train_loss": np.arange(3 * MAX_ROWS) / 2})
    (only,) = embedded(write(lines=[line("long", table)]))["lines"]
    assert only["mean"]["step"] == [3 * row + 1 for row in range(MAX_ROWS)]
    assert only["mean"]["train_loss"][:2] == [0.5, 2]


def test_runs_without_a_curve_are_refused(write):
    with pytest.raises(ValueError, match="none of the runs has a curve"):
        write(lines=[line("empty", pd.DataFrame({"step": [1, 2]}))])


def test_many_curves_differ_in_colour_or_dash(write):
    drawn = embedded(write(lines=[line(f"run-{number}", log(0.5)) for number in range(20)]))["lines"]
    assert len({(one["color"], one["dash"]) for one in drawn}) == 20


# ---- what a browser does with it ----


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def open_page(browser, write):
    """The page in a tab of its own, which must have nothing to complain of when the test ends."""
    tabs = []

    def opened(width: int = 1060, scheme: str = "light", **changes) -> "Page":
        view = {"column": "bits_per_byte", "axis": "tokens"}
        tabs.append(Page(browser.open(write(**view | changes), width, 900, prefers_color_scheme=scheme)))
        return tabs[-1]

    yield opened
    for page in tabs:
        assert page.tab.complaints() == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in page.tab.requests())
        page.tab.close()


class Page:
    """A page as a reader uses it."""

    def __init__(self, tab):
        self.tab, self.evaluate = tab, tab.evaluate

    def names(self) -> list[str]:
        """The curves drawn."""
        return self.evaluate("[...new Set(byId('plot').data.map((trace) => trace.meta))]")

    def curve(self, name: str) -> dict:
        """What is drawn as the last, and foremost, of a name."""
        return self.evaluate(f"byId('plot').data.filter((trace) => trace.meta === {json.dumps(name)}).at(-1)")

    def choose(self, control: str, value: str | float) -> None:
        script = (f"byId('{control}').value = value; "
                  f"byId('{control}').dispatchEvent(new Event('input', {{bubbles: true}}))")
        self.evaluate(f"{{ const value = {self.place(control, value)}; {script} }}")

    def place(self, control: str, value: str | float) -> str | float:
        """A choice's place in its menu."""
        if not isinstance(value, str):
            return value
        menu = {"column": "columns", "axis": "axes"}[control]
        return self.evaluate(f"data.{menu}.findIndex((choice) => choice.name === '{value}')")

    def click(self, selector: str, *, count: int = 1) -> None:
        x, y, width, height = self.box(selector)
        self.tab.click(x + width / 2, y + height / 2, count=count)

    def box(self, selector: str) -> list[float]:
        return self.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])(document.querySelector("
                             f"{json.dumps(selector)}).getBoundingClientRect())")

    def axis(self, which: str) -> tuple[list[float], str, str]:
        """Range, type and title."""
        return tuple(self.evaluate(f"(({{range, type, title}}) => [range, type, title.text])("
                                   f"byId('plot')._fullLayout.{which}axis)"))


@in_chromium
def test_it_opens_without_network_and_without_complaint(open_page):
    page = open_page()
    assert page.names() == ["base", HOSTILE]
    assert [url[:7] for url in page.tab.requests()] == ["file://"]
    assert page.evaluate("fetch('https://example.com').then(() => 'fetched', () => 'refused')") == "refused"
    assert "Content Security Policy" in page.tab.complaints()[0]
    page.tab.browser.events.clear()


@in_chromium
def test_a_click_on_a_name_switches_its_curve_off_and_on(open_page):
    page = open_page()
    button = "#legend button:nth-child(1)"
    page.click(button)
    assert page.names() == [HOSTILE]
    assert page.evaluate(f"document.querySelector('{button}').ariaPressed") == "false"
    assert page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.offsetWidth > 0)") == [
        False, True, False, True]
    page.click(button)
    assert page.names() == ["base", HOSTILE]


@in_chromium
@thorough
def test_a_double_click_on_a_name_shows_it_alone_and_then_all(open_page):
    page = open_page()
    page.click("#legend button:nth-child(2)", count=2)
    assert page.names() == [HOSTILE]
    page.click("#legend button:nth-child(2)", count=2)
    assert page.names() == ["base", HOSTILE]


@in_chromium
def test_names_are_shown_as_they_are(open_page):
    page = open_page()
    assert page.evaluate("byId('legend').children[1].children[1].textContent") == HOSTILE
    x, y, width, height = page.box("#plot .nsewdrag")
    page.tab.hover(x + width / 2, y + height / 2)
    page.tab.wait_for("document.querySelector('.hoverlayer').textContent")
    assert HOSTILE in page.evaluate("document.querySelector('.hoverlayer').textContent")
    assert page.evaluate("document.querySelector('#plot b, #plot img')") is None


@in_chromium
@thorough
def test_dragging_zooms_until_a_double_click_and_a_switch_keeps_it(open_page):
    page = open_page()
    before, _, _ = page.axis("x")
    x, y, width, height = page.box("#plot .nsewdrag")
    page.tab.drag((x + 0.5 * width, y + 0.2 * height), (x + 0.75 * width, y + 0.8 * height))
    zoomed, _, _ = page.axis("x")
    assert zoomed == pytest.approx([np.interp(share, [0, 1], before) for share in (0.5, 0.75)], rel=0.01)
    page.click("#legend button:nth-child(1)")
    assert page.axis("x")[0] == zoomed
    page.click("#legend button:nth-child(1)")
    page.evaluate("byId('plot')._context.doubleClickDelay = 10_000")  # a busy machine is slow to click twice
    page.tab.click(x + width / 2, y + height / 2, count=2)
    page.tab.wait_for(f"Math.abs(byId('plot')._fullLayout.xaxis.range[1] - {before[1]}) < 1e-6 * {before[1]}")


@in_chromium
def test_columns_and_axes_switch(open_page, lines):
    page = open_page()
    base = lines[0]
    for column, axis, scale in (("bits_per_byte", "tokens", "log"), ("lr", "flops", "linear"),
                                ("train_loss", "step", "log")):
        page.choose("column", column)
        page.choose("axis", axis)
        drawn = base.table.dropna(subset=column)
        assert page.curve("base")["y"] == pytest.approx(drawn[column].tolist())
        assert page.curve("base")["x"] == pytest.approx(drawn[axis].tolist())
        assert page.axis("y")[1] == scale
    assert page.axis("x")[2] == "steps" and page.axis("y")[2] == "training loss, nats per token"
    assert page.names() == ["base", HOSTILE, "theirs.csv"]


@in_chromium
@thorough
def test_a_name_says_its_last_value_or_what_its_log_lacks(open_page):
    page = open_page()
    said = page.evaluate("[...byId('legend').children].map((button) => button.lastElementChild.textContent)")
    assert said == ["0.5", "0.4", "no validation, bits per byte"]
    page.choose("column", "train_loss")
    page.choose("axis", "tokens")
    assert page.evaluate("byId('legend').children[2].lastElementChild.textContent") == "no tokens"


@in_chromium
@thorough
def test_both_axes_can_be_logarithmic_or_not(open_page):
    page = open_page()
    assert (page.axis("x")[1], page.axis("y")[1]) == ("linear", "log")
    page.click("#log-x")
    page.click("#log-y")
    assert (page.axis("x")[1], page.axis("y")[1]) == ("log", "linear")


@in_chromium
@thorough
def test_smoothing_is_an_exponential_average_with_the_rough_curve_behind(open_page, lines):
    page = open_page()
    page.choose("column", "train_loss")
    page.choose("smoothing", 0.9)
    expected = lines[1].table.train_loss.ewm(alpha=0.1).mean()
    assert page.curve(HOSTILE)["y"] == pytest.approx(expected.tolist())
    rough = page.evaluate("byId('plot').data.filter((trace) => trace.meta === data.lines[1].name)[0]")
    assert rough["y"] == pytest.approx(lines[1].table.train_loss.tolist()) and rough["opacity"] == 0.3


@in_chromium
@thorough
def test_the_early_part_can_be_left_out(open_page, lines):
    page = open_page()
    page.choose("from", 0.5)
    tokens = lines[0].table.dropna(subset="bits_per_byte").tokens
    assert page.curve("base")["x"] == tokens[tokens >= tokens.max() / 2].tolist()


@in_chromium
def test_the_band_of_several_seeds_is_drawn_and_told(open_page, lines):
    page = open_page()
    band, curve = page.evaluate("byId('plot').data.filter((trace) => trace.meta === 'base')")
    bits = lines[0].table.bits_per_byte.dropna()
    assert band["y"] == pytest.approx([*(1.1 * bits), *(0.9 * bits)[::-1]])
    assert curve["customdata"][-1] == " (0.45 to 0.55)"
    assert page.evaluate("byId('plot').data.length") == 3


@in_chromium
@thorough
def test_a_band_wider_than_the_picture_leaves_the_curves_their_room(open_page, lines, write):
    wide = lines[0]
    low, high = (wide.table.assign(bits_per_byte=wide.table.bits_per_byte + by) for by in (-9, 9))
    page = open_page(lines=[Line(wide.name, wide.members, wide.table, low, high)])
    for _ in ("log", "linear"):
        (bottom, top), scale, _ = page.axis("y")
        bits = wide.table.bits_per_byte
        ends = [math.log10(x) if scale == "log" else x for x in (bits.min(), bits.max())]
        assert bottom < ends[0] and ends[1] < top and ends[1] - ends[0] > 0.8 * (top - bottom)
        page.click("#log-y")


@in_chromium
def test_the_floor_is_drawn_where_the_column_has_one(open_page):
    page = open_page()
    assert page.evaluate("byId('plot').layout.shapes[0].y0") == FLOOR
    assert "entropy of the text, 0.36" in page.evaluate("document.querySelector('.shapelayer').textContent")
    for which in ("log", "linear"):
        (low, high), scale, _ = page.axis("y")
        floor = math.log10(FLOOR) if scale == "log" else FLOOR
        assert scale == which and low + 0.03 * (high - low) < floor < low + 0.15 * (high - low)
        page.click("#log-y")
    page.choose("column", "lr")
    assert page.evaluate("byId('plot').layout.shapes") == []


@in_chromium
@thorough
def test_a_floor_far_below_the_curves_leaves_them_their_room(open_page):
    page = open_page(floor=0.001)
    (low, high), _, _ = page.axis("y")
    assert math.log10(0.3) < low < math.log10(0.4) < high


@in_chromium
@pytest.mark.parametrize("width", some([400, 1060, 1600], 2))
def test_nothing_is_wider_than_the_window(open_page, width):
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.box("#plot")[2] > 0.8 * width
    page.evaluate("document.querySelector('.runs').style.width = '3000px'")
    page.evaluate("document.querySelector('.runs').parentElement.scrollLeft = 500")
    assert page.evaluate("document.querySelector('.runs').parentElement.scrollLeft") == 500
    assert page.box(".runs tbody th")[0] == pytest.approx(page.box(".scroll")[0], abs=2)


@in_chromium
def test_dark_is_dark_and_paper_is_light(open_page):
    page = open_page(scheme="dark")
    color = "byId('plot').data[0].fillcolor + getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(color) == "#4aa8e8rgb(18, 22, 30)"
    page.tab.emulate("print", prefers_color_scheme="dark")
    page.tab.wait_for(f"{color} === '#0072b2rgb(255, 255, 255)'")
    assert page.evaluate("document.querySelector('.controls').offsetHeight") == 0


@in_chromium
@thorough
def test_no_button_sends_the_curves_away(open_page):
    page = open_page()
    titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)")
    assert titles == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
