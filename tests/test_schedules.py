"""Schedules pass through their points, a growing batch adds up, and what is hardly meant is said."""

import math
import re

import pytest
from helpers import loss_of, small_tokens

import optim
from config import Config, TrainConfig, override
from model import Model
from optim import make_optimizer
from optimizing.schedules import SCHEDULES, Schedule, draw_schedule, schedule_text, schedule_warnings
from presets import load_preset, tiny

UNITS = {"step": {"step_unit": "steps"}}  # what a schedule needs where there is no text


def plan(**flags) -> Schedule:
    """Of a model with 8 tokens in a row and one row in a forward pass, where no more are asked."""
    return Schedule(override(Config(), {"model.max_seq_len": 8, "train.batch_size": 1, **{
        f"train.{name}": value for name, value in flags.items()}}))


def rates(**flags) -> list[float]:
    """The rate of every step, as a share of the peak."""
    schedule = plan(lr=0.5, **flags)
    return [schedule.rate(number) / 0.5 for number in range(schedule.cfg.steps)]


def sizes(schedule: Schedule) -> list[int]:
    return [len(schedule.passes(number)) for number in range(schedule.cfg.steps)]


# ---- rates ----


def test_each_schedule_passes_through_its_points():
    assert rates(steps=5, schedule="constant", warmup_steps=0) == [1.0] * 5
    assert rates(steps=5, schedule="linear", warmup_steps=0) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert rates(steps=4, schedule="linear", warmup_steps=0, min_lr_ratio=0.2) == pytest.approx([1, 0.8, 0.6, 0.4])
    assert rates(steps=4, schedule="cosine", warmup_steps=0) == pytest.approx(
        [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert rates(steps=4, schedule="cosine", warmup_steps=0, min_lr_ratio=0.5)[2] == pytest.approx(0.75)
    assert rates(steps=8, schedule="wsd", warmup_steps=0, decay_fraction=0.5) == pytest.approx(
        [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert rates(steps=4, schedule="wsd", warmup_steps=0, decay_fraction=0.0) == [1.0] * 4
    assert rates(steps=4, schedule="wsd", warmup_steps=0, decay_fraction=1.0) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(steps=65, schedule="inverse_sqrt", warmup_steps=4)[3::12] == pytest.approx(
        [1, 4**0.5 / 15**0.5, 4**0.5 / 27**0.5, 4**0.5 / 39**0.5, 4**0.5 / 51**0.5, 4**0.5 / 63**0.5])


def test_restarts_are_cosines_in_a_row_of_growing_length():
    cycle = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert rates(steps=12, schedule="restarts", warmup_steps=0, num_cycles=3) == pytest.approx(cycle * 3)
    grown = rates(steps=14, schedule="restarts", warmup_steps=0, num_cycles=3, cycle_growth=2.0)
    assert [number for number, rate in enumerate(grown) if rate == pytest.approx(1.0)] == [0, 2, 6]
    assert grown[2:6] == pytest.approx(cycle)
    one = rates(steps=9, schedule="restarts", num_cycles=1, min_lr_ratio=0.2)
    assert one == rates(steps=9, schedule="cosine", min_lr_ratio=0.2)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd", "restarts"])
def test_a_flat_part_follows_at_the_last_rate(schedule):
    flat = rates(steps=20, schedule=schedule, warmup_steps=2, min_lr_ratio=0.1, flat_fraction=0.25)
    assert flat[:15] == pytest.approx(rates(steps=15, schedule=schedule, warmup_steps=2, min_lr_ratio=0.1))
    assert flat[15:] == pytest.approx([0.1] * 5)


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "inverse_sqrt"])
def test_a_warmup_rises_to_the_peak_and_the_schedule_begins_there(schedule):
    every = rates(steps=12, schedule=schedule, warmup_steps=4, **UNITS.get(schedule, {}))
    assert every[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert every[4:] == pytest.approx(rates(steps=8, schedule=schedule, warmup_steps=0, **UNITS.get(schedule, {})))


def test_the_warmup_is_two_percent_where_no_other_is_given():
    assert plan(steps=1000).warmup == 20
    assert plan(steps=49).warmup == 0
    assert plan(steps=1000, warmup_steps=0).warmup == 0


def test_a_warmup_longer_than_the_run_never_reaches_the_peak():
    assert max(rates(steps=5, warmup_steps=10)) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "restarts"])
def test_a_rate_is_never_above_the_last_nor_above_the_peak(schedule):
    own = {"constant": {}, "inverse_sqrt": {}, "step": {"step_unit": "steps", "step_gamma": 0.99}}
    every = rates(steps=50, schedule=schedule, **own.get(schedule, {"min_lr_ratio": 0.1}))
    assert all(0.1 <= rate <= 1.0 for rate in every[1:])
    assert every[1:] == sorted(every[1:], reverse=True)


def test_step_falls_every_so_many_steps():
    falls = rates(steps=7, schedule="step", warmup_steps=1, step_size=2, step_unit="steps", step_gamma=0.5)
    assert falls == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("step", "expected"), [(0, 1), (9, 1), (10, 0.5), (19, 0.5), (20, 0.25)])
def test_step_falls_every_so_many_epochs(step, expected):
    cfg = override(Config(), {"train.schedule": "step", "train.step_size": 2, "train.step_gamma": 0.5,
                              "train.warmup_steps": 0, "train.lr": 0.5, "train.batch_size": 2, "train.accumulation": 2})
    assert Schedule(cfg, rows_per_epoch=20).rate(step) == 0.5 * expected


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_learns(schedule):
    flags = {"train.schedule": schedule, "train.steps": 16, "train.optimizer": "adamw"}
    cfg = override(tiny(load_preset("default")), flags)
    model, plan_ = Model(cfg.model), Schedule(cfg, rows_per_epoch=100)
    optimizer = make_optimizer(model, cfg.train)
    tokens = small_tokens(4, 33, vocab_size=61)
    losses = []
    for number in range(16):
        optimizer.set_lr(plan_.rate(number))
        loss = loss_of(model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


# ---- a growing batch, and tokens as the unit ----


def test_a_batch_without_a_ramp_is_the_same_at_every_step():
    schedule = plan(steps=5, accumulation=3)
    assert [list(schedule.passes(number)) for number in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert schedule.tokens_before(5) == 5 * 3 * 8


def test_a_ramp_grows_the_batch_linearly_in_tokens_and_misses_no_pass():
    schedule = plan(steps=30, accumulation=5, ramp_tokens=240)  # 30 forward passes of 8 tokens
    assert [number for step in range(30) for number in schedule.passes(step)] == list(range(schedule.passes_before(30)))
    for number, size in enumerate(sizes(schedule)):
        assert size == min(5, 1 + math.floor(4 * schedule.passes_before(number) / 30))
    assert sizes(schedule)[0] == 1 and sizes(schedule)[-1] == 5
    assert len(set(sizes(schedule))) == 5


def test_a_far_step_is_found_without_walking_there():
    schedule = plan(steps=10**9, accumulation=4, ramp_tokens=1000)
    assert len(schedule.passes(10**9 - 1)) == 4
    assert schedule.rate(10**9 - 1) < schedule.rate(5 * 10**8)


def test_counted_in_tokens_the_schedule_follows_them_and_the_recipe_of_gpt3_comes_out():
    """Brown et al. 2020, arXiv:2005.14165, appendix B: warmup, cosine to 10 % and flat, all counted in tokens."""
    schedule = plan(steps=300, lr=1.0, accumulation=8, ramp_tokens=2400, schedule="cosine", schedule_unit="tokens",
                    warmup_tokens=1600, min_lr_ratio=0.1, flat_fraction=0.2)
    total = schedule.tokens_before(300)
    for number in range(300):
        tokens, after = schedule.tokens_before(number), schedule.tokens_before(number + 1)
        share = min(1.0, (tokens - 1600) / (0.8 * total - 1600))
        expected = min(1.0, after / 1600) if tokens < 1600 else 0.55 + 0.45 * math.cos(math.pi * share)
        assert schedule.rate(number) == pytest.approx(expected)
    assert sizes(schedule)[0] == 1 and sizes(schedule)[-1] == 8
    assert schedule.rate(299) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "step"])
def test_where_the_batch_stays_the_units_agree(schedule):
    in_steps = rates(steps=20, schedule=schedule, warmup_steps=5)
    in_tokens = rates(steps=20, schedule=schedule, schedule_unit="tokens", warmup_tokens=40)
    assert in_tokens == pytest.approx(in_steps)


# ---- what is said and refused ----


@pytest.mark.parametrize(("flags", "sentence"), [
    ({"steps": 5, "warmup_steps": 5}, "train.warmup_steps=5 is not below train.steps=5: the learning rate rises"),
    ({"steps": 5, "schedule_unit": "tokens", "warmup_tokens": 40}, "train.warmup_tokens=40 is not below the run's 40"),
    ({"steps": 20, "flat_fraction": 0.25}, "the learning rate is zero after step 15 of 20"),
    ({"steps": 5, "accumulation": 4, "ramp_tokens": 999}, "no step has all train.accumulation=4 forward passes"),
], ids=str)
def test_what_is_hardly_meant_is_one_sentence(flags, sentence):
    (said,) = schedule_warnings(plan(**flags))
    assert sentence in said and "\n" not in said


@pytest.mark.parametrize("flags", [
    {}, {"schedule": "cosine"}, {"schedule": "restarts"},
    {"schedule": "cosine", "flat_fraction": 0.2, "min_lr_ratio": 0.1},
    {"accumulation": 4, "ramp_tokens": 100}, {"schedule": "inverse_sqrt", "warmup_steps": 0}], ids=str)
def test_a_plan_that_works_is_not_warned_of(flags):
    assert schedule_warnings(plan(steps=100, **flags)) == []


@pytest.mark.parametrize(("flags", "flag"), [
    ({"schedule": "constant", "flat_fraction": 0.1}, "flat_fraction"),
    ({"schedule": "inverse_sqrt", "min_lr_ratio": 0.1}, "min_lr_ratio"),
    ({"num_cycles": 3}, "num_cycles"), ({"cycle_growth": 2.0}, "cycle_growth"),
    ({"schedule": "restarts", "num_cycles": 1, "cycle_growth": 2.0}, "cycle_growth"),
    ({"schedule": "wsd", "step_gamma": 0.5}, "step_gamma"), ({"ramp_tokens": 100}, "ramp_tokens"),
    ({"schedule_unit": "tokens"}, "schedule_unit"), ({"warmup_tokens": 100}, "warmup_tokens"),
    ({"schedule_unit": "tokens", "warmup_tokens": 9, "warmup_steps": 9}, "warmup_steps"),
    ({"schedule_unit": "tokens", "warmup_tokens": 9, "warmup_steps": 0}, "warmup_steps"),
    ({"schedule": "step", "schedule_unit": "tokens", "warmup_tokens": 9}, "schedule_unit"),
    ({"log_noise_scale": True}, "log_noise_scale"),
], ids=str)
def test_a_flag_that_would_be_ignored_is_refused(flags, flag):
    with pytest.raises(ValueError, match=f"{flag}=.* would change nothing"):
        TrainConfig(**flags)


def test_epochs_without_a_text_are_refused():
    with pytest.raises(ValueError, match=r"train\.step_unit=epochs .* use train\.step_unit=steps"):
        Schedule(load_preset("babyjoey"))


# ---- what it looks like ----

RAMP = {"train.steps": 40, "train.accumulation": 4, "train.ramp_tokens": 40_000, "train.batch_size": 2}


def test_the_picture_is_the_schedule():
    cfg = override(Config(), RAMP)
    rate, batch = draw_schedule(cfg).axes
    schedule = Schedule(cfg)
    assert rate.get_lines()[0].get_ydata().tolist() == [schedule.rate(number) for number in range(40)]
    assert batch.get_lines()[0].get_ydata().tolist() == [512 * size for size in sizes(schedule)]
    assert len(draw_schedule(Config()).axes) == 1


def test_the_chart_rises_and_falls_as_the_rate_does():
    cfg = override(Config(), {"train.steps": 8, "train.schedule": "linear", "train.warmup_steps": 0, "train.lr": 0.5})
    first, *bars, last = schedule_text(cfg, height=1).splitlines()
    assert first == "learning rate, 0.5 at first, 0.0625 at last, train.lr 0.5"
    assert bars == ["█▇▆▅▄▃▂▁"]
    assert last == "8 steps, 16,384 tokens"


def test_the_command_draws_and_says_where(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["optim.py", "--train.steps", "20", "--out", str(tmp_path / "rate.png")])
    optim.main()
    assert (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(rf"^learning rate.*\npicture: {tmp_path}/rate.png\n$", capsys.readouterr().out, re.DOTALL)


@pytest.mark.parametrize("words", [["babyjoey"], ["--out", "no/such/folder/rate.png"]], ids=str)
def test_what_cannot_be_drawn_is_one_sentence(words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["optim.py", *words])
    with pytest.raises(SystemExit) as stop:
        optim.main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.startswith("error: ") and errors.count("\n") == 1

