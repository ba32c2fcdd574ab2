"""Grading and comparing, in the order of time: beginnings, texts, what it may cost, the judge, the report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from configuration.command_line import warn
from experiments.judging.client import JudgeClient
from experiments.judging.continuations import Exam, let_write
from experiments.judging.endpoint import Endpoint
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.judge_report import write_duel, write_grades
from experiments.judging.prompts import choose_prompts
from experiments.judging.reply_cache import ReplyCache
from experiments.judging.rubric import Question, compare_question, grade_question
from experiments.judging.verdict_tables import duel
from runs import RESULTS, Run

MAX_NAME = 80  # characters of a folder


def grade_runs(words: Sequence[str], options: JudgeOptions) -> str:
    """Have the runs' texts graded, and write the results; what to say of them.

    Raises ValueError for what the user can mend, endpoint.Unreachable where the judge gives no answer.
    """
    exam = sit(find_runs(words), options)
    questions = [grade_question(beginning, text, plot=options.plot)
                 for writer in exam.writers for beginning, text in zip(exam.beginnings, writer.texts, strict=True)]
    answers, host = ask(questions, options)
    count = len(exam.beginnings)
    verdicts = {writer.name: answers[first : first + count]
                for writer, first in zip(exam.writers, range(0, len(answers), count), strict=True)}
    return write_grades(results_folder(exam, "-"), exam, host, verdicts)


def versus_runs(words: Sequence[str], options: JudgeOptions) -> str:
    """Have two runs' texts compared, each pair in both orders, and write the results; what to say of them.

    Raises ValueError for what the user can mend, endpoint.Unreachable where the judge gives no answer.
    """
    exam = sit(find_runs(words), options)
    pairs = list(zip(exam.beginnings, *(writer.texts for writer in exam.writers), strict=True))
    orders = [(compare_question(beginning, one, other), compare_question(beginning, other, one))
              for beginning, one, other in pairs]
    identical = [one == other for _, one, other in pairs]
    questions = [question for order, same in zip(orders, identical, strict=True) if not same for question in order]
    answers, host = ask(questions, options)
    found = dict(zip(questions, answers, strict=True))
    forward, backward = ([found.get(order[place]) for order in orders] for place in (0, 1))
    result = duel(forward, backward, identical)
    return write_duel(results_folder(exam, "-versus-"), exam, host, forward, backward, result)


def find_runs(words: Sequence[str]) -> dict[str, Run]:
    """The runs under the names they are told by. Raises ValueError where there is none, or one is given twice."""
    if not words:
        raise ValueError("no run is named: give one or more of models/, or paths")
    runs = [Run(word) for word in words]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ValueError(f"{' '.join(words)} names a run twice: name each once")
    alike = len({run.name for run in runs}) < len(runs)
    return {str(run.path) if alike else run.name: run for run in runs}


def sit(runs: dict[str, Run], options: JudgeOptions) -> Exam:
    """The beginnings, and how each run goes on with them."""
    first, *others = runs.values()
    beginnings = choose_prompts(first, options)
    for other in others:
        if options.prompts is None and not same_text(first, other):
            warn(f"{other.name} has not learned from the text of {first.name}, whose held-out part the beginnings are "
                 "of: --prompts FILE gives others")
    notes = ReplyCache(options.cache_path / "texts.jsonl")
    writers = [let_write(run, name, beginnings, options, notes) for name, run in runs.items()]
    return Exam(options, tuple(beginnings), tuple(writers))


def same_text(run: Run, other: Run) -> bool:
    """Whether what was held out from one was held out from the other; of tales it always is the same."""
    both_tales = run.config.data.name == other.config.data.name == ("tales",)
    return both_tales or run.data["fingerprint"] == other.data["fingerprint"]


def results_folder(exam: Exam, between: str) -> Path:
    names = between.join(Path(writer.name).name for writer in exam.writers)
    folder = RESULTS / (exam.options.name or f"judge-{names}"[:MAX_NAME])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ask(questions: list[Question], options: JudgeOptions) -> tuple[list[dict[str, Any] | None], str]:
    """The judge's answers, and where it is; what it may cost and has cost is said on stderr."""
    endpoint = Endpoint(options, ReplyCache(options.cache_path / "replies.jsonl"))
    asking = JudgeClient(endpoint, options)
    if left := asking.open(questions):
        endpoint.require_key()
        most, likely = asking.at_most(left), asking.likely(left)
        known = f" ({len(questions) - len(left):,} are answered already)" if len(left) < len(questions) else ""
        require_consent(f"{len(left):,} questions for {options.judge_model} at {endpoint.host}{known}: likely "
                        f"{likely.told(options)}; at most {most.told(options)}", most.cost(options), options)
    bar = Progress(MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn(compact=True),
                   console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    try:
        with bar:
            task = bar.add_task("", total=len(left))
            answers = asking.answers(questions, lambda: bar.advance(task))
    finally:
        if asking.spent.replies:
            print(f"spent: {asking.spent.told(options)}", file=sys.stderr)
    return answers, endpoint.host


def require_consent(said: str, cost: float | None, options: JudgeOptions) -> None:
    """Say what it may cost; ValueError where that is above --budget, or nobody agreed to it."""
    if options.budget is not None and cost > options.budget:
        raise ValueError(f"budget={options.budget:g} is less than it may cost: {said}. Use fewer --stories, or a "
                         f"budget of {cost:.4f}")
    print(said, file=sys.stderr)
    if options.yes or options.budget is not None:
        return
    if not sys.stdin.isatty():
        raise ValueError("nobody is here to agree to that: give --yes, or --budget with both prices")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was asked: the answer was not yes")
