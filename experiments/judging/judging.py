"""Grades and compares runs: prompts, continuations, estimated cost, the judge's answers, the report."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configuration.command_line import warn
from experiments.judging.client import JudgeClient, ReplyCache, TokenUsage
from experiments.judging.continuations import Submission, choose_prompts, let_write
from experiments.judging.endpoint import Endpoint
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.judge_report import write_duel, write_grades
from experiments.judging.rubric import Question, compare_question, grade_question
from experiments.judging.verdict_tables import duel
from run_store.listing import RESULTS
from runs import Run

MAX_NAME = 80  # characters of a folder


def grade_runs(words: Sequence[str], options: JudgeOptions) -> str:
    """Have the runs' texts graded, write the results, and return what to print.

    Raises ValueError for mistakes, Unreachable if the judge does not answer.
    """
    submission = submit(find_runs(words), options)
    asked = {writer.name: [grade_question(prompt, text, plot=options.plot)
                           for prompt, text in zip(submission.prompts, writer.texts, strict=True)]
             for writer in submission.writers}
    answers = ask([question for questions in asked.values() for question in questions], options)
    verdicts = {name: [answers[question] for question in questions] for name, questions in asked.items()}
    return write_grades(results_folder(submission, "-"), submission, verdicts)


def versus_runs(words: Sequence[str], options: JudgeOptions) -> str:
    """Have two runs' texts compared, each pair in both orders, write the results, and return what to print.

    Raises ValueError for mistakes, Unreachable if the judge does not answer.
    """
    submission = submit(find_runs(words), options)
    pairs = list(zip(submission.prompts, *(writer.texts for writer in submission.writers), strict=True))
    orders = [(compare_question(prompt, one, other), compare_question(prompt, other, one))
              for prompt, one, other in pairs]
    identical = [one == other for _, one, other in pairs]
    answers = ask([question for order, same in zip(orders, identical, strict=True) if not same for question in order],
                  options)
    forward, backward = ([answers.get(order[place]) for order in orders] for place in (0, 1))
    result = duel(forward, backward, identical)
    return write_duel(results_folder(submission, "-versus-"), submission, forward, backward, result)


def find_runs(words: Sequence[str]) -> dict[str, Run]:
    """The runs by name, or by path if names are equal. Raises ValueError if there is none, or one is given twice."""
    if not words:
        raise ValueError("no run is named: give one or more of models/, or paths")
    runs = [Run(word) for word in words]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ValueError(f"{' '.join(words)} names a run twice: name each once")
    alike = len({run.name for run in runs}) < len(runs)
    return {str(run.path) if alike else run.name: run for run in runs}


def submit(runs: dict[str, Run], options: JudgeOptions) -> Submission:
    """Choose the prompts, and have each run continue them."""
    host = Endpoint(options).host
    first, *others = runs.values()
    prompts = choose_prompts(first, options)
    for other in others if options.prompts is None else ():
        both_tales = first.config.data.name == other.config.data.name == ("tales",)  # whose held-out part is always one
        if not both_tales and first.data["fingerprint"] != other.data["fingerprint"]:
            warn(f"{other.name} has not learned from the text of {first.name}, whose held-out part the beginnings are "
                 "of: --prompts FILE gives others")
    cache = ReplyCache(options.cache_path / "texts.jsonl")
    writers = [let_write(run, name, prompts, options, cache) for name, run in runs.items()]
    return Submission(options, host, tuple(prompts), tuple(writers))


def results_folder(submission: Submission, between: str) -> Path:
    names = between.join(Path(writer.name).name for writer in submission.writers)
    folder = RESULTS / (submission.options.name or f"judge-{names}"[:MAX_NAME])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ask(questions: list[Question], options: JudgeOptions) -> dict[Question, dict[str, Any] | None]:
    """The judge's answers; the estimated and the actual cost are printed on stderr."""
    endpoint = Endpoint(options)
    client = JudgeClient(endpoint, options, ReplyCache(options.cache_path / "replies.jsonl"))
    if left := client.open(questions):
        endpoint.connect()
        likely, most = client.estimate(left)
        known = f" ({len(questions) - len(left):,} are answered already)" if len(left) < len(questions) else ""
        require_consent(f"{len(left):,} questions for {options.judge_model} at {endpoint.host}{known}: likely "
                        f"{likely.describe(options)}; at most {most.describe(options)}", most.cost(options), options)
    try:
        client.ask(left)
    finally:
        if client.spent:
            print(f"spent: {sum(client.spent, TokenUsage()).describe(options)}", file=sys.stderr)
    return {question: client.state(question).answer for question in questions}


def require_consent(estimate: str, cost: float | None, options: JudgeOptions) -> None:
    """Print the estimate. Raises ValueError if it exceeds --budget or the user does not agree."""
    if options.budget is not None and cost > options.budget:
        raise ValueError(f"budget={options.budget:g} is less than it may cost: {estimate}. Use fewer --stories, or a "
                         f"budget of {cost:.4f}")
    print(estimate, file=sys.stderr)
    if options.yes or options.budget is not None:
        return
    if not sys.stdin.isatty():
        raise ValueError("nobody is here to agree to that: give --yes, or --budget with both prices")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ValueError("nothing was asked: the answer was not yes")
