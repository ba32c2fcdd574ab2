"""Many questions to one judge: what it may cost, then the answers, as many at a time as was asked for."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.judging.endpoint import OVERHEAD, Endpoint, Reply
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.rubric import Question

AGAIN = "\n\nYour last reply was refused: {fault}. Reply with the JSON object alone."
MAX_FAULT = 200  # characters


@dataclass(frozen=True)
class QuestionState:
    """How far a question is: its answer, None where there is none (yet), and what to ask next, None = it is settled."""

    answer: dict[str, Any] | None
    attempt: int
    prompt: str | None


@dataclass(frozen=True)
class Tokens:
    """Tokens that the judge reads and writes, in so many replies."""

    replies: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.replies + other.replies, self.read + other.read, self.written + other.written)

    def cost(self, options: JudgeOptions) -> float | None:
        """USD; None where no prices were given."""
        if options.price_in is None:
            return None
        return (self.read * options.price_in + self.written * options.price_out) / 1e6

    def told(self, options: JudgeOptions) -> str:
        cost = self.cost(options)
        money = "" if cost is None else f": ${cost:.4f}"
        return f"{self.replies:,} replies, {self.read:,} tokens read, {self.written:,} written{money}"


class JudgeClient:
    """Questions to an endpoint, each again where a reply is not what was asked for, `options.retries` times."""

    def __init__(self, endpoint: Endpoint, options: JudgeOptions):
        self._endpoint, self._options, self._lock = endpoint, options, threading.Lock()
        self.spent = Tokens()  # by this process, where the endpoint does not say at most

    def progress(self, question: Question) -> QuestionState:
        """How far earlier replies bring a question."""
        prompt = question.prompt
        for attempt in range(self._options.retries + 1):
            reply = self._endpoint.known(prompt, attempt)
            if reply is None:
                return QuestionState(None, attempt, prompt)
            try:
                return QuestionState(question.read(reply.text), attempt, None)
            except ValueError as fault:
                prompt = question.prompt + AGAIN.format(fault=str(fault)[:MAX_FAULT])
        return QuestionState(None, attempt, None)

    def open(self, questions: Sequence[Question]) -> list[Question]:
        """Those that are not settled, each once."""
        return [question for question in dict.fromkeys(questions) if self.progress(question).prompt is not None]

    def at_most(self, questions: Sequence[Question]) -> Tokens:
        """What the open ones can take: a token is a byte or more, and every reply may be refused but the last."""
        total = Tokens()
        for question in self.open(questions):
            state = self.progress(question)
            left = self._options.retries + 1 - state.attempt
            again = len(question.prompt.encode()) + 4 * MAX_FAULT + len(AGAIN)  # a character has 4 bytes at most
            read = len(state.prompt.encode()) + (left - 1) * again
            total += Tokens(left, read + left * OVERHEAD, left * self._options.max_tokens)
        return total

    def likely(self, questions: Sequence[Question]) -> Tokens:
        """What the open ones take where the next reply will do, of half its limit, and a token is four bytes."""
        total = Tokens()
        for question in self.open(questions):
            total += Tokens(1, len(question.prompt.encode()) // 4, self._options.max_tokens // 2)
        return total

    def answers(
        self, questions: Sequence[Question], on_answer: Callable[[], None] = lambda: None,
    ) -> list[dict[str, Any] | None]:
        """The answer to each question, None where every reply was refused.

        Ctrl-C and errors are raised when the replies under way have come, and are kept; Ctrl-C again does not wait.
        Raises Refused or Unreachable as the endpoint does.
        """
        left, settled, stop = self.open(questions), queue.SimpleQueue(), threading.Event()
        waiting = queue.SimpleQueue()
        for question in left:
            waiting.put(question)
        workers = [threading.Thread(target=self._work, args=(waiting, settled, stop), daemon=True)
                   for _ in range(min(self._options.parallel, len(left)))]
        for worker in workers:
            worker.start()
        try:
            for _ in left:
                if isinstance(result := settled.get(), Exception):
                    raise result
                on_answer()
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        return [self.progress(question).answer for question in questions]

    def _work(self, waiting: queue.SimpleQueue, settled: queue.SimpleQueue, stop: threading.Event) -> None:
        try:
            while True:
                question = waiting.get_nowait()
                while (state := self.progress(question)).prompt is not None:
                    if stop.is_set():
                        return
                    self._count(state.prompt, self._endpoint.ask(state.prompt, state.attempt))
                settled.put(None)
        except queue.Empty:
            return
        except Exception as error:  # whatever it is belongs to the thread that waits for the answers
            settled.put(error)

    def _count(self, prompt: str, reply: Reply) -> None:
        read = len(prompt.encode()) + OVERHEAD if reply.tokens_in is None else reply.tokens_in
        written = self._options.max_tokens if reply.tokens_out is None else reply.tokens_out
        with self._lock:
            self.spent += Tokens(1, read, written)
