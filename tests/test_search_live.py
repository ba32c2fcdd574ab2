"""A search's live table in a notebook."""

from types import SimpleNamespace

import pytest
from made_studies import add, empty_study

from experiments.searching import display as live
from experiments.searching.display import LiveTable
from experiments.searching.loop import Snapshot
from experiments.searching.options import Options


@pytest.fixture
def shown(monkeypatch):
    """The pages that the cell's place was given, in turn."""
    pages = []
    place = SimpleNamespace(update=lambda page: pages.append(page.data))
    monkeypatch.setattr("IPython.display.display", lambda page, display_id: place)
    return pages


@pytest.fixture
def options(tmp_path):
    return Options(space=tmp_path / "toy.yaml")


def job(number: int) -> SimpleNamespace:
    """A trial that waits for room."""
    return SimpleNamespace(number=number, phase="waiting", began=0.0, reader=None, granted_bytes=500 * 10**6,
                           flags={"model.dim": 64 + number})


def test_it_shows_what_runs_the_counts_and_the_best_so_far(options, shown):
    study = empty_study()
    add(study, "done", 0.75, flags={"model.dim": 48})
    LiveTable(options)(Snapshot(study, [job(1)], {"done": 1}, 12.0))
    assert shown[0].startswith("<pre>") and "\x1b" not in shown[0]
    assert "waiting" in shown[0] and "dim=65" in shown[0] and "1 done" in shown[0]
    assert "best: trial 0, bits_per_byte 0.75" in shown[0] and "dim=48" in shown[0]


def test_it_is_drawn_at_most_every_half_second_and_always_at_the_end(options, shown, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    table, study = LiveTable(options), empty_study()
    for seconds in (0.0, 0.1, 0.3, 0.6, 0.7):
        now[0] = 100 + seconds
        table(Snapshot(study, [job(1)], {}, seconds))
    assert [page.count("0 s, toy") + page.count("1 s, toy") for page in shown] == [1, 1]
    table(Snapshot(study, [], {"done": 1}, 0.75))
    assert len(shown) == 3 and "1 done" in shown[-1]


def test_before_there_is_a_study_it_says_so(options, shown):
    LiveTable(options)(Snapshot(None, [], {}, 0.0))
    assert "reading the text" in shown[0]
