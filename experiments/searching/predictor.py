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
from experiments.searching.records import Records
from experiments.searching.samplers import set_constraint
from experiments.searching.studies import unless_revoked

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

    def ended(self, jobs: Sequence[Job], records: Records, limit_bytes: int) -> Iterator[tuple[Job, Ending | None]]:
        """The jobs that end with their prediction: None = skipped, and recorded. The others wait to be trained."""
        for answer in self.worker.answers():
            for job in [job for job in jobs if job.phase == "predicting"]:
                if "died" in answer:
                    yield job, Ending("crashed", f"the predictor ended with status {answer['died']}")
                elif job.number == answer["id"] and not accept(job, answer, self._options, records, limit_bytes):
                    yield job, None

    def restart_if_large(self, jobs: Sequence[Job]) -> None:
        """Free its memory by a restart, which comes with the next question."""
        if self.worker.rss_bytes() > MAX_BYTES and all(job.phase != "predicting" for job in jobs):
            self.worker.close()


@unless_revoked
def accept(job: Job, answer: dict[str, Any], options: Options, records: Records, limit_bytes: int) -> bool:
    """Record a prediction; whether the trial waits to be trained now. What does not fit is skipped."""
    job.trial.set_user_attr("predict_seconds", answer["seconds"])
    if "invalid" in answer:
        records.skip(job.trial, "invalid", answer["invalid"], 1.0)
        return False
    low, high = answer["low_bytes"], answer["high_bytes"]
    for name, value in {"predicted_low_bytes": low, "predicted_high_bytes": high, "shrunk": answer["shrunk"],
                        "allocator": answer["allocator"], "parameters": answer["parameters"]}.items():
        job.trial.set_user_attr(name, value)
    excess = low / limit_bytes - 1
    if answer["allocator"] is None:
        reason = f"{spell_bytes(low)} predicted, over the {spell_bytes(limit_bytes)} allowed"
        records.skip(job.trial, "oversized", reason, excess)
        return False
    set_constraint(job.trial, options.sampler, excess)
    records.feasible()
    job.prediction, job.phase = answer, "waiting"
    job.granted_bytes = limit_bytes if options.jobs == 1 else min(limit_bytes, job.needed_bytes)
    return True
