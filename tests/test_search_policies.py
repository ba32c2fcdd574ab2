"""What a sampler is told of configurations that do not fit, when a search ends, and who may take which trial."""

import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from thorough import some

import runs
from config import Config, override
from experiments import ablate, ladder
from experiments import search as program
from experiments.processes.children import Child, Task
from experiments.searching import queue
from experiments.searching.claims import claims_on
from experiments.searching.jobs import Ending, Job, LogReader, ending
from experiments.searching.loop import Search
from experiments.searching.losses import require_one_text
from experiments.searching.options import Options
from experiments.searching.outcomes import outcome as outcome_of
from experiments.searching.plan import Plan
from experiments.searching.samplers import make_pruner, make_sampler, set_constraint, tell_infeasible
from experiments.searching.shared import limit_with_room
from experiments.searching.space_file import make_space
from experiments.searching.studies import LIVES, lock_of, open_storage, open_study
from experiments.searching.trainer import length, mark
from optimizing.schedules import Schedule

SPACE = {"search": {"model.num_layers": {"int": [1, 12]}, "model.dim": {"int": [32, 512], "step": 32},
                    "model.mlp": ["mlp", "glu"],
                    "model.hidden_mult": {"float": [1.0, 4.0], "when": {"model.mlp": "glu"}},
                    "train.lr": {"float": [1e-4, 1e-1], "log": True}}}
SAMPLERS = ("tpe", "gp", "cmaes", "random", "grid", "qmc")
LIMIT = 1.0


def options(**changes) -> Options:
    return Options(**{"space": Path("toy.yaml"), "study": "toy"} | changes)


def size(flags: dict) -> float:
    """Of a model, 1 = the limit, which half of the space exceeds."""
    return flags["model.num_layers"] * (flags["model.dim"] / 512) ** 2 / 1.2


def loss(flags: dict) -> float:
    """Best at the limit, with a rate of 0.01."""
    return 2 - 0.3 * math.log(size(flags) + 0.05) + 0.2 * abs(math.log10(flags["train.lr"]) + 2)


def simulate(sampler: str, number: int = 25, *, seed: int = 0, most: int = 400) -> optuna.Study:
    """A search without training: so many trials that fit, or `most` in all."""
    space = make_space(SPACE)
    chosen = options(sampler=sampler, seed=seed)
    study = optuna.create_study(sampler=make_sampler(chosen, space))
    done = in_a_row = 0
    while done < number and len(study.trials) < most:
        trial = study.ask()
        flags = space.suggest(trial)
        if size(flags) > LIMIT:
            in_a_row += 1
            trial.set_user_attr("outcome", "oversized")
            tell_infeasible(study, trial, sampler, size(flags) - 1, in_a_row)
            continue
        set_constraint(trial, sampler, size(flags) - 1)
        trial.set_user_attr("outcome", "done")
        study.tell(trial, loss(flags))
        done, in_a_row = done + 1, 0
    return study


def told(study: optuna.Study) -> Counter:
    """The states of those that do not fit."""
    return Counter(trial.state.name for trial in study.trials if trial.user_attrs["outcome"] == "oversized")


# ---- samplers ----


@pytest.mark.slow
@pytest.mark.parametrize("sampler", some(["tpe", "random", "cmaes", "qmc", "gp"], 5))
def test_a_sampler_finds_what_fits_where_half_the_space_does_not(sampler):
    if sampler in ("gp", "cmaes", "qmc"):
        pytest.importorskip({"cmaes": "cmaes"}.get(sampler, "scipy"))
    study = simulate(sampler)
    done = [trial for trial in study.trials if trial.user_attrs["outcome"] == "done"]
    assert len(done) == 25
    assert study.best_trial.user_attrs["outcome"] == "done"
    assert min(trial.value for trial in done) == study.best_value


def test_tpe_is_told_of_each_fourth_in_a_row_only():
    study = simulate("tpe", most=200)
    in_a_row = 0
    for trial in study.trials:
        in_a_row = in_a_row + 1 if trial.user_attrs["outcome"] == "oversized" else 0
        if in_a_row:
            assert trial.state == (TrialState.PRUNED if in_a_row % 4 == 0 else TrialState.FAIL)
            assert trial.constraints["fits"] > 0


@pytest.mark.thorough
def test_gp_is_told_of_all_as_soon_as_there_is_a_median():
    pytest.importorskip("scipy")
    study = simulate("gp", 14)
    first_done = next(trial.number for trial in study.trials if trial.user_attrs["outcome"] == "done")
    for trial in study.trials:
        if trial.user_attrs["outcome"] == "oversized":
            assert trial.state == (TrialState.COMPLETE if trial.number > first_done else TrialState.FAIL)
    assert all(trial.constraints for trial in study.trials if trial.state == TrialState.COMPLETE)
    params = [json.dumps(trial.params) for trial in study.trials]
    assert len(set(params)) == len(params)  # it does not ask again for what does not fit


@pytest.mark.parametrize("sampler", ["random", "cmaes", "qmc"])
def test_the_others_are_told_of_a_failure(sampler):
    if sampler != "random":
        pytest.importorskip({"cmaes": "cmaes"}.get(sampler, "scipy"))
    assert set(told(simulate(sampler))) == {"FAIL"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_draws_the_same_when_it_is_interrupted(sampler):
    space = make_space(SPACE)
    drawn = []
    for lives in (1, 6):
        study = optuna.create_study()
        for _ in range(lives):
            study.sampler = make_sampler(options(sampler=sampler), space)
            for _ in range(24 // lives):
                trial = study.ask()
                study.tell(trial, loss(space.suggest(trial)))
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) == 24


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    with pytest.raises(ValueError, match="sampler=cmaes needs the package cmaes"):
        make_sampler(options(sampler="cmaes"), make_space(SPACE))


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_pruner_ends_what_is_far_worse(pruner):
    study = optuna.create_study(pruner=make_pruner(options(pruner=pruner)))
    ended = 0
    for number in range(20):
        trial = study.ask()
        for step in range(1, 11):
            trial.report(9.0 if number >= 10 else 1.0 + 0.01 * number, step)
            if trial.should_prune():
                ended += 1
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, 1.0)
    assert (ended >= 5) == (pruner != "none")


# ---- options ----


@pytest.mark.parametrize(("changes", "said"), [
    ({"ram_limit": "2 giga"}, "ram_limit=2 giga is no size"), ({"budget": "20"}, "budget=20 is no time"),
    ({"jobs": 0}, "jobs=0 must be above 0"), ({"trials": -1}, "trials=-1 is below 0"),
    ({"objective": ("speed",)}, "objective=speed is not known: use one of step, tokens"),
    ({"objective": ("seconds", "seconds")}, "names one twice"),
    ({"objective": ("bits_per_byte", "seconds"), "pruner": "median"}, "pruner=median needs one objective"),
    ({"objective": ("bits_per_byte", "seconds"), "sampler": "cmaes"}, "sampler=cmaes has one objective"),
    ({"pruner": "wilcoxon", "seeds": 4}, "pruner=wilcoxon can end a trial after four seeds, and seeds=4 leaves none"),
    ({"pruner": "median", "seeds": 2}, "pruner=median follows one run"),
    ({"trial_seconds": 3.0, "trial_tokens": 5}, "trial_seconds and trial_tokens both fix"),
    ({"study": "../x"}, "study='../x' is not a folder name"),
])
def test_a_wrong_option_is_one_sentence(changes, said):
    with pytest.raises(ValueError, match=said):
        options(**changes)


def test_sizes_and_times_are_read_in_their_units():
    chosen = options(ram_limit="1.5GB", budget="20m")
    assert (chosen.limit_bytes, chosen.budget_seconds) == (1_500_000_000, 1200)


def test_only_whole_trials_teach_gp_so_it_prunes_none_by_default():
    assert [options(sampler=sampler).settled_pruner for sampler in SAMPLERS] == [
        "median", "none", "none", "median", "median", "median"]


# ---- the command line ----


def test_the_command_line_has_the_searchs_options_and_the_bases_flags(tmp_path):
    space = tmp_path / "toy.yaml"
    space.write_text(json.dumps(SPACE | {"set": {"train.steps": 50}}))
    command = program.parse(["--space", str(space), "--trials", "7", "--objective", "val_loss", "seconds",
                             "--model.norm", "layer"])
    assert (command.trials, command.objective, command.name) == (7, ("val_loss", "seconds"), "toy")
    assert (command.config.model.norm, command.config.train.steps) == ("layer", 50)


@pytest.mark.parametrize(("words", "said"), [
    (["--space", "none.yaml"], "error: space=none.yaml is missing"),
    (["--ram-limit", "2x"], "error: ram_limit=2x is no size: use e.g. 800MB or 2GB"),
    (["--train.lr", "0.5"],
     "error: train.lr is searched by the space: leave the flag out, or take it out of the space"),
    (["--samplr", "tpe"], "error: --samplr is not a flag: see --help for all of them; perhaps --sampler was meant"),
])
def test_a_mistake_on_the_command_line_is_one_sentence_and_exits_2(monkeypatch, capsys, words, said):
    monkeypatch.setattr("sys.argv", ["search.py", *words])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert (stopped.value.code, capsys.readouterr().err.strip()) == (2, said)


# ---- lengths ----


def test_trials_of_any_batch_are_compared_at_the_same_tokens():
    base = override(Config(), {"train.steps": 100, "train.batch_size": 8, "model.max_seq_len": 128})
    marks = {}
    for batch, seq_len in ((8, 128), (32, 128), (4, 256), (2, 64)):
        cfg = override(base, {"train.batch_size": batch, "model.max_seq_len": seq_len})
        flags = length(options(trial_tokens=102_400), base, cfg, None)
        step_tokens, every = batch * seq_len, flags["train.eval_every"]
        assert flags["train.steps"] * step_tokens == 102_400
        marks[batch] = [mark(options(trial_tokens=102_400), base, cfg, {"tokens": step * step_tokens})
                        for step in range(every, flags["train.steps"] + 1, every)]
    assert all(set(range(1, 11)) <= set(one) for one in (marks[8], marks[4], marks[2]))
    assert set(marks[32]) <= set(range(11)) and marks[32][-1] >= 9


def test_tokens_count_while_the_passes_of_a_step_grow():
    base = override(Config(), {"train.steps": 100, "train.batch_size": 8, "model.max_seq_len": 128,
                               "train.accumulation": 4, "train.ramp_tokens": 50_000})
    flags = length(options(trial_tokens=102_400), base, base, None)
    cfg = override(base, flags)
    assert abs(Schedule(cfg).tokens_before(cfg.train.steps) - 102_400) <= 2 * 8 * 128
    assert cfg.train.steps > 25  # as many as without the growth
    whole = mark(options(), base, base, {"tokens": Schedule(base).tokens_before(100)})
    assert whole == 10
    halved = override(base, {"train.tokens": 51_200})
    assert mark(options(), halved, halved, {"tokens": 51_200}) == 10


def test_a_trials_steps_fill_its_seconds():
    flags = length(options(trial_seconds=30.0), Config(), Config(), 0.05)
    assert flags["train.steps"] == 600
    assert flags["train.steps"] // flags["train.eval_every"] == 10


# ---- who works on what ----


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study in a journal, with the space above."""
    monkeypatch.setattr("experiments.searching.options.RESULTS", tmp_path)
    monkeypatch.setattr("experiments.searching.studies.MODELS", tmp_path / "models")
    return open_study(options(), make_space(SPACE), 10**9, 10**8)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.fixture
def claims(study):
    """What this process claims of the study."""
    claims = claims_on(study, options())
    yield claims
    claims.close()


def test_only_the_dead_lose_their_trials(study, claims):
    claims.ask()
    dead = claims_on(study, options())
    dead.ask()
    dead.close()
    study.ask()  # by a process that died before it signed
    live = claims_on(study, options())
    live.ask()
    claims.fail_the_dead()
    assert states(study) == ["RUNNING", "FAIL", "FAIL", "RUNNING"]
    assert study.trials[1].user_attrs["outcome"] == "lost"
    live.close()


def test_a_killed_process_holds_no_trial(study, claims):
    pid = os.fork()
    if pid == 0:
        same = open_study(options(), make_space(SPACE), 10**9, 10**8)
        claims_on(same, options()).ask()
        os._exit(0)
    os.waitpid(pid, 0)
    assert states(study) == ["RUNNING"]
    claims.fail_the_dead()
    assert states(study) == ["FAIL"]


def test_a_process_killed_before_its_first_trial_leaves_no_lock(study, claims, tmp_path):
    pid = os.fork()
    if pid == 0:
        claims_on(study, options())
        os._exit(0)
    os.waitpid(pid, 0)
    claims.ask()
    live = claims_on(study, options())
    assert len(list(tmp_path.rglob("worker-*"))) == 3
    claims.fail_the_dead()
    live.fail_the_dead()
    assert len(list(tmp_path.rglob("worker-*"))) == 2 and states(study) == ["RUNNING"]
    live.close()


@pytest.mark.slow
def test_in_a_database_a_trial_without_a_heartbeat_is_retried(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.searching.options.RESULTS", tmp_path)
    monkeypatch.setattr("experiments.searching.studies.MODELS", tmp_path / "models")
    monkeypatch.setattr("experiments.searching.studies.GRACE_SECONDS", 2)
    chosen = options(storage=f"sqlite:///{tmp_path}/study.db")
    study = open_study(chosen, make_space(SPACE), 10**9, 10**8)
    claims, dead = claims_on(study, chosen), claims_on(study, chosen)
    ours, theirs = claims.ask(), dead.ask()
    lr = theirs.suggest_float("train.lr", 0.1, 0.2)
    study.ask()  # by a process that died before its first heartbeat
    claims_on(study, chosen)
    for _ in range(5):
        time.sleep(1)
        claims.beat([ours])
    claims.fail_the_dead()
    queue.queue_lost(study)
    assert states(study) == ["RUNNING", "FAIL", "FAIL", "WAITING", "WAITING"]
    again = claims.ask()
    assert again.suggest_float("train.lr", 0.1, 0.2) == lr and not queue.is_second(study, again)
    assert outcome_of(study.trials[1]) == "lost"


def test_a_lost_trial_is_queued_once_with_its_parameters_by_any_number_of_searches(study):
    trial = study.ask()
    lr = trial.suggest_float("train.lr", 0.1, 0.2)
    queue.tell_lost(study, trial, "gone")
    for _ in range(3):
        queue.queue_lost(study)
    assert states(study) == ["FAIL", "WAITING"]
    again = study.ask()
    assert again.suggest_float("train.lr", 0.1, 0.2) == lr and not queue.is_second(study, again)


def test_what_a_lost_trial_began_to_train_is_removed_and_nothing_else(study, models):
    lost, never_began, goes_on = (study.ask() for _ in range(3))
    for trial in (lost, goes_on):
        trial.set_user_attr("run", queue.run_name(study, trial))
    for name in ("toy-0000", "toy-0000-seed-1", "toy-0001", "toy-0002", "toy-00000"):
        (models / name).mkdir(parents=True)
        (models / name / "config.json").touch()
    for trial in (lost, never_began):
        queue.tell_lost(study, trial, "gone")
    queue.queue_lost(study)
    assert sorted(path.name for path in models.iterdir()) == ["toy-00000", "toy-0001", "toy-0002"]


def test_a_password_is_shown_nowhere():
    for url in ("postgresql://me:s3cret@localhost:1/db", "nosuch://me:s3cret@h/db?password=s3cret", "mysql://me:s3cret@h"):
        with pytest.raises(ValueError, match=r"storage=.*me:\*\*\*@") as raised:
            open_storage(options(storage=url))
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(("words", "parse"), [
    (["--space"], program.parse), (["--trials", "3", "--space"], program.parse), (["--config"], ablate.parse),
    (["--data.name"], ladder.parse), (["--data.name", "--tokens", "3"], ladder.parse)])
def test_a_flag_without_its_value_is_one_sentence(words, parse):
    with pytest.raises(ValueError, match=rf"^{words[-1] if len(words) != 3 or '--space' in words else words[0]} needs"):
        parse(words)


def test_a_password_on_the_command_line_is_not_repeated(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["search.py", "postgresql://me:s3cret@h/db"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    said = capsys.readouterr().err
    assert "s3cret" not in said and "postgresql://me:***@h/db is not a flag" in said


def test_a_limit_below_an_idle_process_is_refused():
    with pytest.raises(ValueError, match="ram_limit=10MB has no room for any trial: a process holds 500 MB before it"):
        limit_with_room(options(ram_limit="10MB"), 500 * 10**6)
    assert limit_with_room(options(ram_limit="501MB"), 500 * 10**6) == 501 * 10**6


def test_where_free_memory_is_not_known_there_is_no_limit(monkeypatch):
    monkeypatch.setattr("experiments.searching.shared.free_bytes", lambda: None)
    assert limit_with_room(options(), 10**9) > 2**60


def test_the_base_is_trained_first_and_once(study):
    space = make_space({"search": {"train.lr": [0.1, Config().train.lr]}})
    for _ in range(2):
        queue.queue_base(study, space)
    assert states(study) == ["WAITING"]
    trial = study.ask()
    assert space.suggest(trial) == {"train.lr": Config().train.lr}
    queue.tell_lost(study, trial, "gone")
    queue.queue_lost(study)
    assert study.ask().user_attrs["is_base"]  # which it stays when it is trained again


def test_of_two_that_were_queued_at_once_the_second_is_dropped(study):
    for _ in range(2):
        study.enqueue_trial({"train.lr": 0.1}, user_attrs={"ticket": "again 7"})
    assert [queue.is_second(study, study.ask()) for _ in range(2)] == [False, True]


def test_what_is_drawn_when_another_process_took_the_last_point_of_the_grid_is_dropped(study):
    space = make_space({"search": {"train.lr": [0.1, 0.2]}})
    queue.queue_grid(study, space)
    plan = Plan(options(sampler="grid"), Config(), study, began=0.0)
    assert [plan.is_one_too_many(study.ask()) for _ in range(3)] == [False, False, True]


def test_what_was_lost_too_often_is_given_up(study):
    study.enqueue_trial({"train.lr": 0.15})
    for _ in range(LIVES):
        trial = study.ask()
        queue.tell_lost(study, trial, "gone")
        queue.queue_lost(study)
    assert states(study) == LIVES * ["FAIL"]


def test_a_search_is_over_when_so_many_are_trained(study):
    plan = Plan(options(trials=3), Config(), study, began=time.monotonic())
    for outcome, over in (("done", False), ("oversized", False), ("invalid", False), ("lost", False),
                          ("crashed", False), ("pruned", True)):
        trial = study.ask()
        for name, value in (("outcome", outcome), ("seconds", 1.0), ("worker", {})):
            trial.set_user_attr(name, value)
        study.tell(trial, *([1.0] if outcome == "done" else []),
                   state=None if outcome == "done" else TrialState.FAIL)
        assert plan.is_over() == over


@pytest.mark.parametrize(("limits", "most"), [
    ({}, 50), ({"trials": 3}, 3), ({"budget": "1h"}, math.inf), ({"trials": 3, "budget": "1h"}, 3), ({"trials": 0}, 0)])
def test_a_budget_alone_is_used_up(limits, most):
    assert options(**limits).max_trials == most


def test_no_trial_begins_that_the_budget_would_cut(study):
    trial = study.ask()
    trial.set_user_attr("outcome", "done")
    trial.set_user_attr("seconds", 30.0)
    study.tell(trial, 1.0)
    assert not Plan(options(budget="60s"), Config(), study, began=time.monotonic() - 20).is_over()
    assert Plan(options(budget="60s"), Config(), study, began=time.monotonic() - 40).is_over()


def test_what_is_left_of_the_budget_is_for_the_repeats(study):
    trial = study.ask()
    trial.set_user_attr("outcome", "done")
    trial.set_user_attr("seconds", 30.0)
    trial.set_user_attr("worker", {})
    study.tell(trial, 1.0)
    plan = Plan(options(budget="60s", repeat_best=1, repeat_seeds=1), Config(), study, began=time.monotonic() - 20)
    assert not plan.is_over()
    assert study.ask().user_attrs["repeat_of"] == trial.number
    assert plan.is_over()


@pytest.mark.parametrize(("words", "data", "judged_by", "sentence"), [
    (["next_token", "masked_diffusion", "multi_token"], "tales", "bits_per_byte", None),  # a bound is said to be one
    (["next_token", "masked"], "tales", "val_loss", "of the whole text with train.objective=next_token, of masked "
                                                    "tokens with train.objective=masked, which do not compare"),
    (["next_token", "prefix"], "tales", "accuracy", "of the part after a prefix with train.objective=prefix"),
    (["next_token", "masked"], "tales", "tokens_per_second", None),
    (["next_token", "prefix"], "tales-reversed", "bits_per_byte", None),
    (["masked"], "tales", "bits_per_byte", None),
])
def test_trials_are_judged_by_losses_of_one_text(words, data, judged_by, sentence):
    settings = {"data.name": data, **({"data.packing": "pad"} if data != "tales" else {})}
    space = make_space({"set": settings, "search": {"train.objective": words, "train.lr": [0.1, 0.01]}})
    if sentence is None:
        return require_one_text(["parameters", judged_by], space)
    with pytest.raises(ValueError, match=f"objective={judged_by} is .*{sentence}"):
        require_one_text(["parameters", judged_by], space)


def test_a_search_asks_that_trials_are_judged_by_losses_of_one_text(tmp_path):
    (tmp_path / "toy.yaml").write_text("search: {train.objective: [next_token, masked]}")
    with pytest.raises(ValueError, match="search each apart, or judge trials by another objective"):
        Search(options(space=tmp_path / "toy.yaml"), None, lambda _: None, "", "")


def test_a_study_goes_on_only_with_the_same_question(study):
    space = make_space(SPACE)
    assert open_study(options(), space, 5, 5).user_attrs["limit_bytes"] == 10**9
    with pytest.raises(ValueError, match=r"was begun with another train.steps=2000 \(now 7\): choose another --study"):
        open_study(options(), space.on(override(Config(), {"train.steps": 7})), 10**9, 5)
    with pytest.raises(ValueError, match="was begun with another objective"):
        open_study(options(objective=("val_loss",)), space, 10**9, 5)
    with pytest.raises(ValueError, match="study=toy was begun with another space: choose another --study"):
        open_study(options(), make_space({"search": {"train.lr": [0.1, 0.2]}}), 10**9, 5)
    with pytest.raises(ValueError, match="was begun with another ram_limit"):
        open_study(options(ram_limit="2GB"), space, 2 * 10**9, 5)


def test_a_new_study_refuses_runs_that_would_be_taken_for_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.searching.options.RESULTS", tmp_path)
    monkeypatch.setattr("experiments.searching.studies.MODELS", tmp_path / "models")
    (tmp_path / "models" / "toy-0003").mkdir(parents=True)
    with pytest.raises(ValueError, match="study=toy would name its runs like toy-0003"):
        open_study(options(), make_space(SPACE), 1, 1)


def test_half_a_line_at_the_end_of_a_journal_is_dropped(study, tmp_path):
    journal = tmp_path / "toy" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    open_storage(options())
    assert journal.read_bytes() == whole


def test_a_dead_process_holds_no_lock(tmp_path):
    pid = os.fork()
    if pid == 0:
        lock_of(tmp_path / "journal.log").acquire()
        os._exit(0)
    os.waitpid(pid, 0)
    assert lock_of(tmp_path / "journal.log").acquire(timeout=0)


@pytest.mark.slow
def test_a_database_that_is_not_there_is_one_sentence():
    with pytest.raises(ValueError, match="storage=sqlite:////nowhere/at/all.db cannot be opened"):
        open_storage(options(storage="sqlite:////nowhere/at/all.db"))


# ---- how a trial ended ----


@pytest.mark.parametrize(("status", "said", "found"), [
    (0, "", Ending("done")),
    (1, "error: step 7: loss nan, gradient norm 1; blocks.0", Ending("diverged", "step 7: loss nan, gradient norm 1; "
                                                                                 "blocks.0")),
    (1, "KeyError: 'x'", Ending("crashed", "exit status 1: KeyError: 'x'")),
    (2, "error: data.name=x is not there", Ending("invalid", "data.name=x is not there")),
    (76, "memory ran out", Ending("out of memory", "memory ran out")),
    (77, "ended by the watchdog", Ending("out of memory", "ended by the watchdog")),
    (-9, "", Ending("lost", "its process was ended from outside")),
    (143, "", Ending("lost", "its process was ended from outside")),
    (-11, "", Ending("crashed", "exit status -11")),
])
def test_an_exit_status_is_told_in_words(study, tmp_path, status, said, found):
    job = Job(study.ask(), {}, Config(), [0], granted_bytes=100)
    (tmp_path / "log.txt").write_text(f"step 1\n{said}\n" if said else "")
    child = Child(Task("toy", "train:main", (), tmp_path / "log.txt"), status=status, peak_bytes=50)
    assert ending(job, child, None) == found


def test_a_kill_at_the_limit_is_the_memorys(study, tmp_path):
    job = Job(study.ask(), {}, Config(), [0], granted_bytes=100, prediction={"low_bytes": 50})
    child = Child(Task("toy", "train:main", (), tmp_path / "none"), status=-9, peak_bytes=99)
    assert ending(job, child, None).outcome == "out of memory"


def test_a_log_is_read_as_it_grows_and_only_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path)
    reader, log = LogReader("toy"), tmp_path / "toy" / "log.csv"
    assert reader.new_lines() == []
    log.parent.mkdir()
    log.write_text("step,val_loss,lr\n1,,0.5\n2,3.5,0.")
    assert reader.new_lines() == [{"step": 1, "lr": 0.5}]
    log.write_text("step,val_loss,lr\n1,,0.5\n2,3.5,0.25\n")
    assert reader.new_lines() == [{"step": 2, "val_loss": 3.5, "lr": 0.25}]
    assert reader.last == {"step": 2, "val_loss": 3.5, "lr": 0.25}
