"""The search's side of prediction: ask the process that predicts, and decide what is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from config import Config, to_dict
from configuration.command_line import spell_bytes
from experiments.processes.children import Child, Children, Task
from experiments.processes.named_pipes import NamedPipes
from experiments.processes.worker import wait_for_answers
from experiments.searching.jobs import Ending, Job
from experiments.searching.options import Options
from experiments.searching.samplers import set_constraint
from experiments.searching.shared import SharedStudy
from experiments.searching.studies import note, unless_revoked
from memory_prediction.process import rss_bytes

POLL_SECONDS = 0.1
MAX_BYTES = 1 << 30  # some predictions take real steps, and not all of their memory is freed


class Predictor:
    """The process that predicts how much memory configurations take.

    It starts with the first question, as a fork of the process that the trials are forks of, and again after it died.
    """

    def __init__(self, options: Options, function: str, children: Children, logs: Path):
        self._options, self._function, self._children = options, function, children
        self._log = logs / "predictor.txt"
        self._child: Child | None = None
        self._pipes: NamedPipes | None = None

    @property
    def is_running(self) -> bool:
        return self._child is not None

    def fileno(self) -> int:
        return self._pipes.fileno()

    def _ask(self, question: dict[str, Any]) -> None:
        if self._child is None:
            self._pipes = NamedPipes()
            words = (self._function, *self._pipes.names)
            self._child = self._children.begin(
                Task("predictor", "experiments.searching.predicting:main", words, self._log))
        self._pipes.write(question)

    def _answers(self, ended: Sequence[Child]) -> list[dict[str, Any]]:
        """The answers since the last call; {"died": exit status} is the last one if its process has `ended`."""
        if self._child is None:
            return []
        child, found = self._child, self._pipes.read()
        if child in ended:
            self.close()
            found.append({"died": child.status})
        return found

    def close(self) -> None:
        """Leave the process: it ends when it finds no more questions, at the latest with its server."""
        if self._child is not None:
            self._pipes.close()
            self._child = None

    def idle_bytes(self, base: Config) -> int | None:
        """What a process holds before it trains; the text is read and encoded on the way.

        Raises ValueError if the base cannot be trained, and Stopped after SIGINT or SIGTERM.
        """
        self._ask({"id": -1, "config": to_dict(base)})
        while not (answers := self._answers(self._children.ended())):
            wait_for_answers([self._children.server, self], POLL_SECONDS)
            self._children.signals.raise_if_any()
        if "died" in answers[0]:
            raise ValueError(f"the process that predicts has ended; the files in {self._log.parent} say why")
        if "invalid" in answers[0]:
            raise ValueError(f"the base cannot be trained: {answers[0]['invalid']}")
        return answers[0]["baseline_bytes"]

    def ask(self, job: Job, limit_bytes: int) -> None:
        self._ask({"id": job.number, "config": to_dict(job.cfg), "limit_bytes": limit_bytes,
                   "shrink": self._options.on_exceed == "shrink"})

    def ended(
        self, ended: Sequence[Child], jobs: Sequence[Job], shared: SharedStudy,
    ) -> Iterator[tuple[Job, Ending | None]]:
        """The jobs that end with their prediction: None = skipped, and recorded. The others wait to be trained."""
        for answer in self._answers(ended):
            asked = [job for job in jobs if job.phase == "predicting" and answer.get("id", job.number) == job.number]
            if "died" in answer:
                yield from ((job, Ending("crashed", f"the predictor ended with status {answer['died']}"))
                            for job in asked)
            else:
                yield from ((job, None) for job in asked if not accept(job, answer, self._options, shared))

    def restart_if_large(self, jobs: Sequence[Job]) -> None:
        """Free its memory by a restart, which comes with the next question."""
        held = self._child and self._child.pid and rss_bytes(self._child.pid)
        if (held or 0) > MAX_BYTES and all(job.phase != "predicting" for job in jobs):
            self.close()


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
