"""A judge is asked fairly, read strictly, and never paid twice: against a server process that speaks the protocol."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from judge_server import KEY, MODEL, USAGE, serving
from rich.console import Console
from scipy import stats
from small_runs import small_run_config

import runs
import tales
import train
from config import override
from experiments import judge
from experiments.judging import continuations, endpoint, judging
from experiments.judging.client import ReplyCache
from experiments.judging.continuations import cut_within_sentence, held_out_prompts, shorten
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.judge_report import duel_lines, gap_lines
from experiments.judging.rubric import AGES, PlotVerdict, Preference, Question, Verdict
from experiments.judging.verdict_tables import Duel, criteria_table, duel
from runs import Run

TALES = {"data.name": "tales", "data.num_stories": 30, "tokenizer.kind": "bpe", "tokenizer.vocab_size": 128,
         "train.steps": 4, "train.eval_every": 2, "train.checkpoint_every": 2, "train.graded_stories": 0}
FEW = ("--judge-model", MODEL, "--stories", "3", "--room", "60", "--device", "cpu")
PRICES = ("--price-in", "10", "--price-out", "20")


@pytest.fixture(scope="module")
def tellers(folder):
    """Two runs on tales."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", folder / "models")
        for name, seed in (("ann", 0), ("bob", 1)):
            cfg = override(small_run_config(folder), {**TALES, "train.name": name, "train.seed": seed})
            train.train(cfg, console=Console(quiet=True))
        yield folder / "models"


@pytest.fixture(scope="module")
def process():
    with serving() as server:
        yield server


@pytest.fixture
def server(process, monkeypatch):
    """The server with a fresh plan, and the way to it."""
    process.plan()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{process.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return process


@pytest.fixture
def ask(tellers, tmp_path, monkeypatch, capsys):
    """`python experiments/judge.py ...` in this process: (exit status, standard output, standard error)."""
    monkeypatch.setattr(runs, "MODELS", tellers)
    monkeypatch.setattr(judging, "RESULTS", tmp_path / "results")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["judge.py", *words, "--cache-dir", str(tmp_path / "cache")])
        try:
            judge.main()
        except SystemExit as stop:
            return stop.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


@pytest.fixture
def table(tmp_path):
    return lambda name: pd.read_csv(tmp_path / "results" / name, keep_default_na=False)


def prompts(server) -> list[str]:
    return [request["messages"][0]["content"] for request in server.requests]


# ---- grades ----


def test_every_text_is_graded_and_the_means_have_students_intervals(server, ask, table):
    status, said, _ = ask("grade", "ann", "bob", *FEW, "--yes")
    judged = table("judge-ann-bob/stories.csv")
    assert status == 0 and list(judged.run) == 3 * ["ann"] + 3 * ["bob"]
    assert list(judged.grammar) == [1 + len(text) % 10 for text in judged.text]  # as this judge grades
    criteria = table("judge-ann-bob/criteria.csv")
    row = criteria[(criteria.run == "bob") & (criteria.criterion == "consistency")].iloc[0]
    ours, base = (judged[judged.run == name].consistency.to_numpy() for name in ("bob", "ann"))
    assert (row["mean"], row["count"]) == (pytest.approx(ours.mean()), 3)
    low, high = stats.t.interval(0.95, 2, ours.mean(), stats.sem(ours))
    assert (row.low, row.high) == pytest.approx((low, high))
    gaps = ours - base  # on the same beginnings
    low, high = stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps))
    assert tuple(map(float, (row.gap_mean, row.gap_low, row.gap_high))) == pytest.approx((gaps.mean(), low, high))
    assert f"| bob | {1 + sum(len(text) % 10 for text in judged.text[3:]) / 3:.2f} (" in said
    assert "unparsable" in said and said.count("| 3 | 0 |") == 2


def test_the_judge_reads_the_beginning_the_mark_the_text_and_no_runs_name(server, ask, table):
    ask("grade", "ann", *FEW, "--yes")
    judged = table("judge-ann/stories.csv")
    asked = prompts(server)
    assert len(asked) == 3 and not any("ann" in prompt.split("***")[0] + prompt.split("First think")[1]
                                       for prompt in asked)
    for row in judged.itertuples():
        assert any(f"{row.beginning}***{row.text}\n" in prompt for prompt in asked)
    request = server.requests[0]
    assert request["response_format"] == {"type": "json_object"} and request["temperature"] == 0
    assert request["max_tokens"] == 300 and "plot" not in asked[0]


def test_the_plot_is_graded_where_it_is_asked_for_and_the_request_follows_the_flags(server, ask, table):
    ask("grade", "ann", *FEW, "--yes", "--plot", "--reply-format", "text", "--judge-temperature", "None",
        "--limit-name", "max_completion_tokens", "--max-tokens", "99")
    judged = table("judge-ann/stories.csv")
    assert list(judged["plot"]) == [1 + len(text) % 5 for text in judged.text]
    assert set(server.requests[0]) == {"model", "messages", "max_completion_tokens"}
    assert server.requests[0]["max_completion_tokens"] == 99


def test_the_report_says_what_was_judged_how_and_shows_examples(server, ask, tmp_path, table):
    ask("grade", "ann", "bob", *FEW, "--yes", "--name", "mine")
    page = (tmp_path / "results" / "mine" / "report.md").read_text()
    assert "graded by owl-1" in page and "3 beginnings of held-out texts" in page and KEY not in page
    assert f"owl-1 at {server.url.removeprefix('http://')}" in page and "ann at step" in page
    first = table("mine/stories.csv").iloc[0]
    assert f"grammar {first.grammar}, creativity {first.creativity}" in page and f"age {first.age}" in page


# ---- pairs ----


def test_a_win_needs_both_orders(server, ask, table):
    status, said, _ = ask("versus", "ann", "bob", *FEW, "--yes")
    pairs = table("judge-ann-versus-bob/pairs.csv")
    longer = ["ann" if len(one) > len(two) else "bob" if len(two) > len(one) else "tie"
              for one, two in zip(pairs.ann, pairs.bob, strict=True)]
    assert status == 0 and list(pairs.outcome) == longer and len(server.requests) == 6
    assert "The order never changed the judge's mind" in said


def test_a_judge_that_goes_by_the_order_decides_nothing_and_is_told_of(server, ask, table):
    server.plan(taste="first")
    _, said, _ = ask("versus", "ann", "bob", *FEW, "--yes")
    assert set(table("judge-ann-versus-bob/pairs.csv").outcome) == {"tie"} and "No pair was decided" in said
    assert ("changed the judge's mind in 3 pairs, which count as ties: for what it read first in 3, for what it read "
            "second in 0 (p = 0.2500)") in said


def test_the_report_on_pairs_shows_what_the_judge_said_in_both_orders(server, ask, tmp_path, table):
    ask("versus", "ann", "bob", *FEW, "--yes", "--name", "mine")
    page, pair = (tmp_path / "results" / "mine" / "report.md").read_text(), table("mine/pairs.csv").iloc[0]
    assert "compared by owl-1" in page and f"1: {pair.outcome}\n" in page
    assert page.count("ann first: ") == page.count("bob first: ") == 3


def test_the_two_orders_swap_the_texts_and_nothing_else(server, ask, table):
    ask("versus", "ann", "bob", *FEW, "--yes", "--parallel", "1")
    pair, (one, two, *_) = table("judge-ann-versus-bob/pairs.csv").iloc[0], prompts(server)
    assert one.index(f"***{pair.ann}\n") < one.index(f"***{pair.bob}\n")
    assert two == one.replace(pair.ann, "@").replace(pair.bob, pair.ann).replace("@", pair.bob)


def test_wins_are_tested_by_their_signs():
    better = {"a": ("1", "2"), "b": ("2", "1"), "order": ("2", "2"), "equal": ("equal", "equal"),
              "half": ("1", "equal")}
    pairs = [better[kind] for kind in 9 * ["a"] + ["b"] + 4 * ["order", "equal", "half"]]
    verdicts = [[{"better": pair[place]} for pair in pairs] + [None, None] for place in (0, 1)]
    found = duel(*verdicts, [False] * 22 + [False, True])
    assert (found.wins, found.losses, found.ties, found.missing) == (9, 1, 13, 1)
    assert (found.for_first, found.for_second) == (0, 4)
    assert found.p == pytest.approx(2 * 11 / 2**10) and found.bias_p == pytest.approx(2 / 2**4)
    assert found.share[0] == 0.9 and 0.59 < found.share[1] < 0.6 < 0.98 < found.share[2] < 0.99


@pytest.mark.parametrize(("wins", "losses", "said"), [
    (9, 1, "ann wins 90% of the 10 pairs that were decided (95 %: 60% to 98%); p = 0.0215: ann is better."),
    (0, 6, "ann wins 0% of the 6 pairs that were decided (95 %: 0% to 39%); p = 0.0312: bob is better."),
    (8, 2, "ann wins 80% of the 10 pairs that were decided (95 %: 49% to 94%); p = 0.1094: inside the noise."),
])
def test_what_luck_explains_is_called_noise(wins, losses, said):
    assert duel_lines("ann", "bob", Duel((*wins * ["a"], *losses * ["b"], "tie"), 0, 0))[0] == said


def test_two_runs_that_write_the_same_are_a_tie_that_costs_nothing(server, ask, tellers, tmp_path, table):
    copy = tmp_path / "ann-again"
    subprocess.run(["cp", "-r", tellers / "ann", copy], check=True)
    status, *_ = ask("versus", "ann", str(copy), *FEW)
    assert status == 0 and server.requests == []
    assert set(table("judge-ann-versus-ann-again/pairs.csv").outcome) == {"tie"}


# ---- replies ----


@pytest.mark.parametrize(("kind", "reply", "fault"), [
    (Preference, 'Sure! {"assessment": "a", "better": "1"}', "not one JSON object"),
    (Preference, '```json\n{"assessment": "a", "better": "1"}\n```', "not one JSON object"),
    (Preference, '{"assessment": "a", "better": "1"} I hope that helps', "not one JSON object"),
    (Preference, '{"assessment": "a", "better": "1"', "not one JSON object"),
    (Preference, "[" * 100_000, "not one JSON object"),
    (Preference, '["1"]', "dictionary"),
    (Preference, '{"assessment": "a", "better": 1}', "better: "),
    (Preference, '{"assessment": "a", "better": "ann"}', "better: "),
    (Preference, '{"assessment": "a", "better": "1", "better": "2"}', "twice"),
    (Preference, '{"assessment": "a", "better": "1", "why": "b"}', "why: "),
    (Preference, '{"better": "1"}', "assessment: "),
    (Verdict, '{"assessment": "a", "grammar": 0, "creativity": 5, "consistency": 5, "age": "B"}', "grammar: "),
    (Verdict, '{"assessment": "a", "grammar": 11, "creativity": 5, "consistency": 5, "age": "B"}', "grammar: "),
    (Verdict, '{"assessment": "a", "grammar": "7", "creativity": 5, "consistency": 5, "age": "B"}', "grammar: "),
    (Verdict, '{"assessment": "a", "grammar": 7.5, "creativity": 5, "consistency": 5, "age": "B"}', "grammar: "),
    (Verdict, '{"assessment": "a", "grammar": true, "creativity": 5, "consistency": 5, "age": "B"}', "grammar: "),
    (Verdict, '{"assessment": "a", "grammar": 7, "creativity": 5, "consistency": 5, "age": "G"}', "age: "),
    (PlotVerdict, '{"assessment": "a", "grammar": 7, "creativity": 5, "consistency": 5, "age": "B"}', "plot: "),
])
def test_a_reply_that_is_not_what_was_asked_for_is_refused(kind, reply, fault):
    with pytest.raises(ValueError, match=fault):
        Question("", kind).read(reply)


def test_a_reply_to_the_letter_is_taken():
    said = {"assessment": "well\nwell", "grammar": 10, "creativity": 1, "consistency": 5, "age": "F", "plot": 3}
    assert Question("", PlotVerdict).read(f"\n{json.dumps(said)} ") == said
    assert set(Verdict.model_fields["age"].annotation.__args__) == set(AGES)


def test_bad_replies_are_asked_again_with_what_is_wrong(server, ask, table):
    ask("grade", "ann", *FEW, "--yes")
    expected = table("judge-ann/stories.csv")
    server.plan(faults=["prose", "range", None, "garbage", "half", None, "empty", "fence"])
    status, said, _ = ask("grade", "ann", *FEW, "--yes", "--parallel", "1", "--max-tokens", "301", "--name", "again")
    pd.testing.assert_frame_equal(table("again/stories.csv"), expected)
    asked = prompts(server)
    assert status == 0 and len(asked) == 9 and "| 3 | 0 |" in said
    assert asked[1].startswith(asked[0]) and "refused: it is not one JSON object" in asked[1]
    assert asked[2].startswith(asked[0]) and "refused: grammar: " in asked[2]


@pytest.mark.parametrize("fault", ["deep", "deep object", "surrogate", "surrogate key", "digits", "deep body", "bytes"])
def test_a_reply_that_no_file_can_hold_is_asked_for_again(server, ask, fault):
    server.plan(faults=[fault])
    status, said, errors = ask("grade", "ann", *FEW, "--yes", "--parallel", "1")
    assert status == 0 and "| 3 | 0 |" in said and "spent: 4 replies" in errors
    server.plan()
    assert ask("grade", "ann", *FEW)[0] == 0 and not server.requests


def test_a_server_that_lies_about_its_tokens_is_not_believed(server, ask):
    server.plan(faults=["greedy"])
    status, _, errors = ask("grade", "ann", *FEW, *PRICES, "--yes")
    assert status == 0 and "spent: 3 replies" in errors


def test_a_reply_that_drips_is_given_up_in_time(server, ask, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    server.plan(faults=["drip", "drip"])
    began = time.monotonic()
    status, _, errors = ask("grade", "ann", *FEW, "--yes", "--timeout", "0.5", "--parallel", "1")
    assert status == 1 and "timeout=0.5 seconds, 2 times, that was a whole reply" in errors
    assert time.monotonic() - began < 10  # a whole reply would take half a minute


def test_a_reply_without_end_is_read_to_a_limit_and_asked_for_again(server, ask):
    server.plan(faults=["endless"])
    status, said, errors = ask("grade", "ann", *FEW, "--yes", "--parallel", "1")
    assert status == 0 and "| 3 | 0 |" in said and "spent: 4 replies" in errors
    assert server.seen()["megabytes"] < 30


@pytest.mark.parametrize("flag", ["--budget", "--price-in", "--timeout", "--temperature", "--judge-temperature"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_not_finite_is_refused(ask, flag, value):
    status, _, errors = ask("grade", "ann", *FEW, *PRICES, flag, value)
    assert status == 2 and "finite" in errors and errors.count("\n") == 1


def test_what_stays_unparsable_is_counted_and_left_out_of_the_means(server, ask, table):
    server.plan(faults=["prose", "prose", "range", "range"])
    status, said, errors = ask("grade", "ann", *FEW, "--yes", "--parallel", "1", "--retries", "1")
    assert status == 0 and "| 1 | 2 |" in said and "spent: 5 replies" in errors
    assert list(table("judge-ann/criteria.csv")["count"]) == [1, 1, 1]
    assert ask("grade", "ann", *FEW, "--retries", "1")[0] == 0  # known to be so: asked, paid for, and kept
    assert len(server.requests) == 5


def test_busy_and_broken_servers_are_asked_again_by_the_client(server, ask):
    server.plan(faults=[429, 500, 503])
    status, said, _ = ask("grade", "ann", *FEW, "--yes")
    assert status == 0 and "| 3 | 0 |" in said and len(server.requests) == 6


# ---- once and for all ----


def test_the_same_command_asks_nothing_again_and_needs_no_key(server, ask, monkeypatch):
    first = ask("grade", "ann", "bob", *FEW, "--yes")
    monkeypatch.delenv("OPENAI_API_KEY")
    second = ask("grade", "ann", "bob", *FEW)
    assert second[:2] == first[:2] and len(server.requests) == 6 and second[2] == ""


def test_more_stories_or_another_run_pay_only_for_what_is_new(server, ask):
    ask("grade", "ann", *FEW, "--yes")
    server.plan()
    _, _, errors = ask("grade", "ann", "bob", *FEW, "--yes")
    assert len(server.requests) == 3 and "3 questions" in errors and "(3 are answered already)" in errors


def test_another_judge_server_or_setting_is_asked_anew(server, ask, monkeypatch):
    ask("grade", "ann", *FEW, "--yes")
    ask("grade", "ann", *FEW, "--yes", "--judge-temperature", "0.5")
    assert len(server.requests) == 6
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1/".replace("127.0.0.1", "localhost"))
    ask("grade", "ann", *FEW, "--yes")
    assert len(server.requests) == 9


def test_a_half_written_note_costs_one_question_and_spoils_no_other(server, ask, tmp_path):
    first = ask("grade", "ann", *FEW, "--yes")
    notes = tmp_path / "cache" / "replies.jsonl"
    notes.write_bytes(notes.read_bytes()[:-20])  # a kill in the midst of a write
    assert ask("grade", "ann", *FEW, "--yes")[:2] == first[:2]
    assert len(server.requests) == 4
    assert ask("grade", "ann", *FEW)[:2] == first[:2]  # the new line stands on a line of its own
    assert len(server.requests) == 4


def test_notes_cut_anywhere_keep_every_whole_line_and_take_new_ones(tmp_path):
    path = tmp_path / "notes.jsonl"
    first = ReplyCache(path)
    for key, value in (("a", "once"), ("b", {"text": "zwölf\n\u2028"})):
        first[key] = value
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        notes = ReplyCache(path)
        assert ["a" in notes, "b" in notes] == [cut >= end for end in ends]
        notes["c"] = cut
        assert ("b" in ReplyCache(path), ReplyCache(path)["c"]) == (cut >= ends[1], cut)


def test_an_error_midway_keeps_what_was_judged(server, ask):
    server.plan(faults=[None, None, 400])
    status, _, errors = ask("grade", "ann", *FEW, "--yes", "--parallel", "1")
    assert status == 2 and "400: not now" in errors and "spent: 2 replies" in errors
    server.plan()
    assert ask("grade", "ann", *FEW, "--yes")[0] == 0 and len(server.requests) == 1


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_judged_and_the_same_command_goes_on(server, ask, tellers, tmp_path):
    server.plan(wait=0.3)
    flags = [*FEW, "--yes", "--parallel", "1", "--cache-dir", str(tmp_path / "cache")]
    environment = os.environ | {"SHAPESHIFTER_MODELS": str(tellers), "SHAPESHIFTER_RESULTS": str(tmp_path / "other")}
    process = subprocess.Popen([sys.executable, judge.__file__, "versus", "ann", "bob", *flags], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while len(server.requests) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "what was judged is kept" in errors
    done = len(server.requests)
    assert done < 6 and f"spent: {done} replies" in errors  # the one under way was waited for
    server.plan()
    assert ask("versus", "ann", "bob", *FEW, "--yes")[0] == 0
    assert len(server.requests) == 6 - done


def test_questions_go_side_by_side_and_no_more_than_were_asked_for(server, ask):
    server.plan(wait=0.1)
    ask("grade", "ann", "bob", *FEW, "--yes", "--parallel", "3")
    assert server.seen()["at_once"] == 3


# ---- money ----


def test_the_most_it_can_cost_is_said_before_and_what_it_cost_after(server, ask):
    status, _, errors = ask("grade", "ann", *FEW, *PRICES, "--yes", "--retries", "0")
    before, after = errors.strip().splitlines()
    sizes = [len(prompt.encode()) for prompt in prompts(server)]
    read, written = sum(sizes) + 3 * endpoint.OVERHEAD, 3 * 300
    assert before.startswith(f"3 questions for {MODEL} at {server.url.removeprefix('http://')}: likely 3 replies, ")
    assert before.endswith(f"; at most 3 replies, {read:,} tokens read, {written:,} written: "
                           f"${(10 * read + 20 * written) / 1e6:.4f}")
    read, written = 3 * USAGE["prompt_tokens"], 3 * USAGE["completion_tokens"]
    assert after == (f"spent: 3 replies, {read:,} tokens read, {written:,} written: "
                     f"${(10 * read + 20 * written) / 1e6:.4f}")


def test_the_most_holds_where_every_reply_is_refused_and_the_server_counts_nothing(server, ask):
    server.plan(faults=8 * ["range"] + ["prose"], usage=False)
    _, _, errors = ask("grade", "ann", *FEW, *PRICES, "--yes")
    before, after = (float(line.rpartition("$")[2]) for line in errors.strip().splitlines())
    assert len(server.requests) == 9 and 0.8 * before < after <= before


def test_above_the_budget_nothing_is_asked(server, ask):
    status, said, errors = ask("grade", "ann", *FEW, *PRICES, "--budget", "0.01")
    assert (status, said) == (2, "") and errors.startswith("error: budget=0.01 is less than it may cost: 3 questions")
    assert server.requests == []
    assert ask("grade", "ann", *FEW, *PRICES, "--budget", "1")[0] == 0 and len(server.requests) == 3


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("", 2), ("no", 2)])
def test_on_a_terminal_it_asks_before_it_spends(server, ask, monkeypatch, answer, status):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert ask("grade", "ann", *FEW)[0] == status
    assert len(server.requests) == (3 if status == 0 else 0)


def test_without_anyone_to_ask_it_spends_nothing(server, ask):
    status, _, errors = ask("grade", "ann", *FEW)
    assert status == 2 and "give --yes" in errors and server.requests == []


# ---- mistakes ----


def test_a_wrong_key_and_an_unknown_model_are_one_sentence(server, ask, monkeypatch):
    status, _, errors = ask("grade", "ann", *FEW, "--yes", "--judge-model", "owl-2")
    assert status == 2 and "judge_model=owl-2 with 404: there is no model owl-2" in errors.splitlines()[-1]
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    status, _, errors = ask("grade", "ann", *FEW, "--yes")
    assert status == 2 and "401: that is not the key" in errors.splitlines()[-1]


def test_without_a_key_nothing_is_sent(server, ask, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    status, _, errors = ask("grade", "ann", *FEW, "--yes")
    assert status == 2 and errors.startswith("error: OPENAI_API_KEY is not set") and server.requests == []


def test_an_address_that_is_none_is_refused(server, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000")
    status, _, errors = ask("grade", "ann", *FEW, "--yes")
    assert status == 2 and errors.startswith("error: OPENAI_BASE_URL=localhost:8000 is not an address")


def test_where_no_server_is_the_sentence_says_so_and_nothing_is_lost(server, ask, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    status, _, errors = ask("grade", "ann", *FEW, "--yes")
    assert status == 1 and "error: 127.0.0.1:9 cannot be reached" in errors and "the same command goes on" in errors


def test_a_server_that_takes_too_long_is_given_up(server, ask, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    server.plan(wait=0.5)
    status, _, errors = ask("grade", "ann", *FEW, "--yes", "--timeout", "0.1", "--parallel", "1")
    assert status == 1 and "sent nothing within timeout=0.1 seconds, 2 times" in errors


def test_a_server_that_stays_busy_is_given_up(server, ask):
    server.plan(faults=30 * [429])
    status, _, errors = ask("grade", "ann", *FEW, "--yes", "--parallel", "1")
    assert status == 1 and "still says 429 after 5 requests: not now" in errors and len(server.requests) == 5


@pytest.mark.parametrize(("words", "sentence"), [
    (("grade", *FEW), "no run is named"),
    (("grade", "ann", "ann", *FEW), "names a run twice"),
    (("grade", "nobody", *FEW), "nobody is not a run"),
    (("grade", "ann", *FEW, "--budget", "1"), "budget=1.0 needs prices"),
    (("grade", "ann", *FEW, "--price-in", "1"), "price_in and price_out belong together"),
    (("grade", "ann", *FEW, "--room", "0"), "room=0 must be above 0"),
    (("grade", "ann", *FEW, "--name", "../x"), "name='../x' is not a folder name"),
    (("grade", "ann", *FEW, "--prompts", "nowhere.txt"), "prompts=nowhere.txt cannot be read"),
    (("grade", "ann", "--judge-model", MODEL, "--stories", "9999"), "stories=9999 is more than the "),
    (("grade", "ann", *FEW, "--retries", "-1"), "retries=-1 is below 0"),
    (("versus", "ann", *FEW), "is missing"),
    (("grade", "ann"), "--judge-model is missing"),
])
def test_a_users_mistake_is_one_sentence(server, ask, words, sentence):
    status, said, errors = ask(*words)
    assert (status, said) == (2, "") and sentence in errors and errors.count("\n") == 1
    assert server.requests == []


# ---- beginnings ----


def test_beginnings_are_held_out_texts_cut_within_a_sentence(tellers):
    found = held_out_prompts(Run(tellers / "ann"), 3)
    texts = [tales.story(-1, number).text for number in range(3)]
    assert len(found) == 3
    for beginning, text in zip(found, texts, strict=True):
        assert text.startswith(f"{beginning} ") and 0.3 < len(beginning) / len(text) < 0.45
        assert beginning[-1] not in ".!?\n" and text[len(beginning) + 1] != "\n"


def test_one_long_document_gives_many_beginnings(go, folder, models, tmp_path):
    words = ["the red fox ran home.", "an old hen saw it, and the fox saw her!", "so both sat down by the fire"]
    text = tmp_path / "long.txt"
    text.write_text(" ".join(f"{number} {words[number % 3]}" for number in range(3000)))
    run = go({"data.name": str(text), "train.steps": 2, "train.name": "long", "data.cache_dir": str(tmp_path / "c")})
    found = held_out_prompts(run, 10)
    held_out = text.read_text()[-round(0.1 * len(text.read_text())):]
    assert len(set(found)) == 10 and all(beginning in held_out for beginning in found)
    with pytest.raises(ValueError, match="stories=5000 is more than the .* beginnings that the held-out text of long"):
        held_out_prompts(run, 5000)


def test_a_text_that_has_changed_since_gives_no_beginnings(go, models, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the red fox ran home, and an old hen saw it there. " * 100)
    run = go({"data.name": str(text), "train.steps": 2, "train.name": "moved", "data.cache_dir": str(tmp_path / "c")})
    text.write_text("the red fox stayed at home, and no hen saw it there. " * 100)
    with pytest.raises(ValueError, match="has changed since moved began"):
        held_out_prompts(run, 3)


def test_a_cut_is_within_a_sentence_or_nowhere():
    text = "One two three four five six seven. Eight nine ten eleven twelve, and then thirteen came along."
    assert cut_within_sentence(text) == "One two three four five six seven. Eight"
    assert cut_within_sentence("Oh! " * 40) is None and cut_within_sentence("") is None


def test_beginnings_of_a_file_stand_between_blank_lines(server, ask, tmp_path, table):
    file = tmp_path / "mine.txt"
    file.write_text("Once, a fox\nran\n\n\nOnce, a hen \n \nOnce, a fox\nran\n")
    status, *_ = ask("grade", "ann", "--judge-model", MODEL, "--room", "30", "--prompts", str(file), "--yes")
    assert status == 0 and list(table("judge-ann/stories.csv").beginning) == ["Once, a fox\nran", "Once, a hen"]
    status, _, errors = ask("grade", "ann", *FEW, "--prompts", str(file), "--yes")
    assert status == 2 and "stories=3 is more than the 2 beginnings" in errors


def test_a_text_is_judged_up_to_the_room_at_the_end_of_a_word():
    assert [shorten("the fox ran", room) for room in (11, 10, 7, 2)] == ["the fox ran", "the fox", "the fox", "th"]


def test_every_tokenizer_has_tokens_for_the_whole_room(go, models, tellers, tmp_path, monkeypatch):
    go({"train.name": "dora", "tokenizer.kind": "byte", "train.steps": 2})
    given = []
    monkeypatch.setattr(continuations, "continue_prompts", lambda model, tokenizer, cfg: given.append(cfg) or ["", ""])
    texts = [tales.story(-1, number).text for number in range(2)]
    for path in (tellers / "ann", models / "dora"):
        options, cache = JudgeOptions(judge_model=MODEL, room=300, device="cpu"), tmp_path / f"{path.name}.jsonl"
        continuations.let_write(Run(path), "one", [text[:200] for text in texts], options, ReplyCache(cache))
        needed = max(len(Run(path).tokenizer().encode(text[200:500])) for text in texts)
        assert needed < given[-1].max_new_tokens < 2 * needed


@pytest.mark.slow
def test_runs_on_different_texts_are_judged_with_a_warning(server, ask, go):
    go({"train.name": "carl", "tokenizer.kind": "byte", "train.steps": 2})
    status, _, errors = ask("grade", "ann", "carl", *FEW, "--yes")
    assert status == 0 and "carl has not learned from the text of ann" in errors
    go({**TALES, "train.name": "eve", "data.num_stories": 31})  # whose held-out tales are the same
    assert "warning" not in ask("grade", "ann", "eve", *FEW, "--yes")[2]


def test_gaps_are_tested_by_their_signs_and_corrected_for_their_number():
    def graded(*grammar):
        return [{"assessment": "", "grammar": g, "creativity": 5, "consistency": c, "age": "B"}
                for g, c in zip(grammar, (4, 5, 6, 5, 4, 5, 6, 5), strict=True)]

    found = criteria_table({"base": graded(*8 * [3]), "other": graded(*8 * [4])})
    gaps = found[found.run == "other"].set_index("criterion")
    assert gaps.gap_mean.to_dict() == {"grammar": 1, "creativity": 0, "consistency": 0}
    assert gaps.p.to_dict() == pytest.approx({"grammar": 3 * 2 / 2**8, "creativity": 1, "consistency": 1})
    assert found[found.run == "base"].p.isna().all()


def test_a_gap_inside_the_noise_is_called_so():
    def graded(*grammar):
        return [{"assessment": "", "grammar": g, "creativity": c, "consistency": 5, "age": "B"}
                for g, c in zip(grammar, (4, 5, 6, 5, 4, 5, 6, 5), strict=True)]

    lines = gap_lines(criteria_table({"base": graded(*8 * [3]), "other": graded(5, 5, 4, 5, 5, 4, 5, 5)}))
    assert lines[0] == ("grammar: other has +1.75 against base on the same beginnings (95 %: +1.36 to +2.14), "
                        "p = 0.0234 after correction.")
    assert lines[1].endswith("p = 1.0000 after correction: inside the noise.")


def test_a_criterion_of_one_text_has_a_mean_and_no_interval():
    verdict = {"assessment": "", "grammar": 7, "creativity": 5, "consistency": 3, "age": "B"}
    found = criteria_table({"one": [verdict, None], "two": [verdict, verdict]})
    one, two = found[found.run == "one"], found[found.run == "two"]
    assert list(one["mean"]) == [7, 5, 3] and all(map(math.isnan, one.low)) and list(one["count"]) == [1, 1, 1]
    assert list(two.gap_mean) == [0, 0, 0] and all(map(math.isnan, two.p)) and list(two.gap_count) == [1, 1, 1]
