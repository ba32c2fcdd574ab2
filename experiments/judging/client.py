"""Asks one judge many questions: estimates the cost, then sends them in parallel. No reply is paid for twice."""

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track

from corpora.files import digest
from experiments.judging.endpoint import OVERHEAD, Endpoint
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.rubric import Question
from run_store.append_log import append_whole

AGAIN = "\n\nYour last reply was refused: {fault}. Reply with the JSON object alone."
MAX_FAULT = 200  # characters


class QuestionState(NamedTuple):
    """The state of a question: its valid answer if there is one, and the next prompt; None = it is settled."""

    answer: dict[str, Any] | None
    attempt: int
    prompt: str | None


@dataclass(frozen=True)
class TokenUsage:
    """Tokens that the judge reads and writes, and the number of replies."""

    replies: int = 0
    read: int = 0
    written: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(self.replies + other.replies, self.read + other.read, self.written + other.written)

    def cost(self, options: JudgeOptions) -> float | None:
        """USD; None without prices."""
        if options.price_in is None:
            return None
        return (self.read * options.price_in + self.written * options.price_out) / 1e6

    def describe(self, options: JudgeOptions) -> str:
        cost = self.cost(options)
        money = "" if cost is None else f": ${cost:.4f}"
        return f"{self.replies:,} replies, {self.read:,} tokens read, {self.written:,} written{money}"


class ReplyCache(dict):
    """A mapping in a file, shared by threads. A half-written line is skipped and does not harm the next one."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        for line in text.splitlines():
            try:
                self.update([json.loads(line)])
            except (TypeError, ValueError, RecursionError):  # half a line, or not of this file
                continue
        if text and not text.endswith("\n"):
            append_whole(path, b"\n")  # so that the next line does not join the half one

    def __setitem__(self, key: str, value: Any) -> None:
        with self._lock:
            super().__setitem__(key, value)
            append_whole(self._path, (json.dumps([key, value]) + "\n").encode())


class JudgeClient:
    """Sends questions to an endpoint, and each again after an invalid reply, up to `options.retries` times."""

    def __init__(self, endpoint: Endpoint, options: JudgeOptions, cache: ReplyCache):
        self._endpoint, self._options, self._cache = endpoint, options, cache
        self.spent: list[TokenUsage] = []  # by this process; upper bounds for replies whose usage is not reported

    def state(self, question: Question) -> QuestionState:
        """The state of a question after the replies so far."""
        prompt = question.prompt
        for attempt in range(self._options.retries + 1):
            key = self._key(prompt, attempt)
            if key not in self._cache:
                return QuestionState(None, attempt, prompt)
            try:
                return QuestionState(question.read(self._cache[key]["text"]), attempt, None)
            except ValueError as fault:
                prompt = question.prompt + AGAIN.format(fault=str(fault)[:MAX_FAULT])
        return QuestionState(None, attempt, None)

    def open(self, questions: Sequence[Question]) -> list[Question]:
        """The questions that are not settled, each once."""
        return [question for question in dict.fromkeys(questions) if self.state(question).prompt is not None]

    def estimate(self, questions: Sequence[Question]) -> tuple[TokenUsage, TokenUsage]:
        """The likely and the largest usage of open questions.

        Likely, the next reply is valid and half as long as allowed, and a token has four bytes. At most, a token has
        one byte, and only the last reply is valid.
        """
        likely = most = TokenUsage()
        limit, retries = self._options.max_tokens, self._options.retries
        for question in questions:
            state, size = self.state(question), len(question.prompt.encode())
            left = retries + 1 - state.attempt
            again = size + 4 * MAX_FAULT + len(AGAIN)  # a character has 4 bytes at most
            read = len(state.prompt.encode()) + (left - 1) * again + left * OVERHEAD
            likely += TokenUsage(1, size // 4, limit // 2)
            most += TokenUsage(left, read, left * limit)
        return likely, most

    def ask(self, questions: Sequence[Question]) -> None:
        """Settle open questions, `options.parallel` at a time.

        Ctrl-C and the endpoint's Refused and Unreachable are raised after the requests in flight have been answered,
        a second Ctrl-C at once.
        """
        stop = threading.Event()

        def settle(question: Question) -> None:
            try:
                while not stop.is_set() and (state := self.state(question)).prompt is not None:
                    self._send(state.prompt, state.attempt)
            except Exception:
                stop.set()  # before this thread takes another question
                raise

        pool = ThreadPool(self._options.parallel)  # of daemon threads, which a second Ctrl-C need not wait for
        try:
            for _ in track(pool.imap_unordered(settle, questions), "", len(questions), transient=True,
                           console=Console(stderr=True), disable=not sys.stderr.isatty()):
                pass
        finally:
            stop.set()
            pool.close()
            pool.join()

    def _send(self, prompt: str, attempt: int) -> None:
        """Send a prompt and keep the reply."""
        reply = self._endpoint.send(prompt)
        self._cache[self._key(prompt, attempt)] = asdict(reply)
        read = len(prompt.encode()) + OVERHEAD if reply.tokens_in is None else reply.tokens_in
        written = self._options.max_tokens if reply.tokens_out is None else reply.tokens_out
        self.spent.append(TokenUsage(1, read, written))

    def _key(self, prompt: str, attempt: int) -> str:
        return digest(self._endpoint.url, self._endpoint.request(prompt), attempt)
