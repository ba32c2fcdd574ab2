"""The search's side of prediction: ask the process that predicts, and decide what is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import Config, to_dict
from configuration.command_line import spell_bytes
from experiments.processes.signals import Signals
from experiments.processes.worker import Worker, wait_for_answers
from experiments.searching.jobs import Ending, Job
from experiments.searching.options import Options
from experiments.searching.samplers import set_constraint
from experiments.searching.shared import SharedStudy
from experiments.searching.studies import note, unless_revoked

POLL_SECONDS = 0.1
MAX_BYTES = 1 << 30  # some predictions take real steps, and not all of their memory is freed


class Predictor:
    """The process that predicts how much memory configurations take."""

    def __init__(self, options: Options, function: str, logs: Path):
        self._options = options
        self.worker = Worker("experiments.searching.predicting", function, threads=options.threads,
                             log=logs / "predictor.txt")

    def idle_bytes(self, base: Config, signals: Signals) -> int | None:
        """What a process holds before it trains; the text is read and encoded on the way.

        Raises ValueError if the base cannot be trained.
        """
        self.worker.ask({"id": -1, "config": to_dict(base)})
        while not (answers := self.worker.answers()):
            wait_for_answers([self.worker], POLL_SECONDS)
            signals.raise_if_any()
        if "died" in answers[0]:
            raise ValueError(f"the process that predicts has ended; {self.worker.log} says why")
        if "invalid" in answers[0]:
            raise ValueError(f"the base cannot be trained: {answers[0]['invalid']}")
        return answers[0]["baseline_bytes"]

    def ask(self, job: Job, limit_bytes: int) -> None:
        self.worker.ask({"id": job.number, "config": to_dict(job.cfg), "limit_bytes": limit_bytes,
                         "shrink": self._options.on_exceed == "shrink"})

    def ended(self, jobs: Sequence[Job], shared: SharedStudy) -> Iterator[tuple[Job, Ending | None]]:
        """The jobs that end with their prediction: None = skipped, and recorded. The others wait to be trained."""
        for answer in self.worker.answers():
            asked = [job for job in jobs if job.phase == "predicting" and answer.get("id", job.number) == job.number]
            if "died" in answer:
                yield from ((job, Ending("crashed", f"the predictor ended with status {answer['died']}"))
                            for job in asked)
            else:
                yield from ((job, None) for job in asked if not accept(job, answer, self._options, shared))

    def restart_if_large(self, jobs: Sequence[Job]) -> None:
        """Free its memory by a restart, which comes with the next question."""
        if self.worker.rss_bytes() > MAX_BYTES and all(job.phase != "predicting" for job in jobs):
            self.worker.close()


@unless_revoked()
def accept(job: Job, answer: dict[str, Any], options: Options, shared: SharedStudy) -> bool:
    """Record a prediction; whether the trial waits to be trained now. What does not fit is skipped."""
    note(job.trial, predict_seconds=answer["seconds"])
    if "invalid" in answer:
        shared.skip(job.trial, "invalid", answer["invalid"])
        return False
    low, limit_bytes = answer["low_bytes"], shared.limit_bytes
    note(job.trial, predicted_low_bytes=low, predicted_high_bytes=answer["high_bytes"],
         **{name: answer[name] for name in ("shrunk", "allocator", "parameters")})
    excess = low / limit_bytes - 1
    if answer["allocator"] is None:
        reason = f"{spell_bytes(low)} predicted, over the {spell_bytes(limit_bytes)} allowed"
        shared.skip(job.trial, "oversized", reason, excess)
        return False
    set_constraint(job.trial, options.sampler, excess)
    shared.skipped_in_a_row.clear()
    job.prediction, job.phase = answer, "waiting"
    job.granted_bytes = limit_bytes if options.jobs == 1 else min(limit_bytes, job.needed_bytes)
    return True
