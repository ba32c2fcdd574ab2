"""Text to ids, in this process or in several.

A worker process is a program of its own, which reads the tokenizer from a folder. So it holds no model, lock or thread
of the run; Ctrl-C does not reach it; and it ends when the run does, however that ends. A child of `concurrent.futures`
or `multiprocessing` would import the run's main program: that of train.py starts in 2.3 s of CPU instead of 0.16 s.
"""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpora.chunks import CHUNK_CHARS, Chunk, recut, whole_pairs
from corpora.files import writing
from tokenization.base import PARALLELISM, Tokenizer, group_by_chars
from tokenization.cuts import last_cut
from tokenizer import load_tokenizer

MAX_UNCUT = 1 << 20  # characters in a row without a place to cut, which are encoded at once
GROUPS_BEFORE_WORKERS = 16  # groups that this process encodes before it starts others: 4 MB, less than a second


class Encoded(NamedTuple):
    """A group of chunks with their ids, bos and eos included, concatenated."""

    chunks: list[Chunk]
    ids: np.ndarray
    num_ids: np.ndarray  # of each chunk
    num_bytes: np.ndarray  # of UTF-8


def dtype_of(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that holds all ids."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def grouped(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks in groups of CHUNK_CHARS characters, no pair in two of them."""
    pieces = group_by_chars(whole_pairs(chunks), lambda piece: sum(len(chunk.text) for chunk in piece), CHUNK_CHARS)
    return (list(chain.from_iterable(group)) for group in pieces)


def encode_group(tokenizer: Tokenizer, chunks: list[Chunk]) -> Encoded:
    """Encode a group in this process, with bos before each document, and eos after it and after a source."""
    texts = [chunk.text for chunk in chunks]
    batch = [[tokenizer.bos_id] * chunk.is_first + ids + [tokenizer.eos_id] * chunk.ends
             for chunk, ids in zip(chunks, tokenizer.encode_batch(texts), strict=True)]
    num_ids = np.fromiter(map(len, batch), np.int64, len(batch))
    ids = np.fromiter(chain.from_iterable(batch), dtype_of(tokenizer), num_ids.sum())
    return Encoded(chunks, ids, num_ids, np.array([len(text.encode()) for text in texts]))


def encode(chunks: Iterable[Chunk], tokenizer: Tokenizer, workers: int | None) -> Iterator[Encoded]:
    """Encode chunks group by group, in order, in `workers` processes; None = by the cores and the text's length.

    The ids are those of whole documents, except where a document has MAX_UNCUT characters without a place to cut.
    """
    groups = grouped(recut(chunks, partial(last_cut, cuts=tokenizer.cuts), MAX_UNCUT))
    count = workers or num_cores()
    for group in islice(groups, GROUPS_BEFORE_WORKERS if workers is None or count == 1 else 0):
        yield encode_group(tokenizer, group)
    if count == 1:
        yield from (encode_group(tokenizer, group) for group in groups)
    elif (first := next(groups, None)) is not None:
        with worker_pool(tokenizer, count) as submit:
            yield from in_order(submit, chain([first], groups), max_waiting=2 * count)


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def worker_pool(tokenizer: Tokenizer, count: int) -> Iterator[Callable[[list[Chunk]], Future[Encoded]]]:
    """Start the processes, and give a function that has one of them encode a group; end them on the way out."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with writing(Path(folder)):
            tokenizer.save(folder)
        threads, idle = ThreadPoolExecutor(count), queue.SimpleQueue()
        stack.callback(threads.shutdown, cancel_futures=True)  # last, when no thread waits for a process any more
        for _ in range(count):
            worker = WorkerProcess(folder)
            stack.callback(worker.stop)
            idle.put(worker)

        def encode_in_worker(group: list[Chunk]) -> Encoded:
            worker = idle.get()
            try:
                return worker.encode(group)
            finally:
                idle.put(worker)

        yield lambda group: threads.submit(encode_in_worker, group)


def in_order(
    submit: Callable[[list[Chunk]], Future[Encoded]], groups: Iterable[list[Chunk]], *, max_waiting: int,
) -> Iterator[Encoded]:
    """The results in the order of the groups, of which memory holds a bounded number."""
    waiting: deque[Future[Encoded]] = deque()
    for group in groups:
        waiting.append(submit(group))
        if len(waiting) > max_waiting:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class WorkerProcess:
    """A process that encodes: it gets groups of chunks, and gives (ids, num_ids, num_bytes), or what is wrong."""

    def __init__(self, folder: str):
        self.connection, theirs = Pipe()
        path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])  # it finds what we find
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "corpora.encoder", str(theirs.fileno()), folder],
            pass_fds=[theirs.fileno()], env=os.environ | {PARALLELISM: "false", "PYTHONPATH": path},
            process_group=0)  # the terminal sends Ctrl-C to the run's group alone
        theirs.close()

    def encode(self, chunks: list[Chunk]) -> Encoded:
        """Have a group encoded. Raises ValueError if a character has no id, or the process has ended."""
        try:
            self.connection.send(chunks)
            reply = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise ValueError(f"data.workers: a process that encodes has ended (status {self.process.wait()}), as "
                             "happens if memory runs out: use fewer, e.g. 1") from error
        if isinstance(reply, str):
            raise ValueError(reply)
        return Encoded(chunks, *reply)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def main(connection: Connection, folder: str) -> None:
    """Encode what comes in, until the run has ended."""
    tokenizer = load_tokenizer(folder)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            chunks = connection.recv()
            try:
                _, *reply = encode_group(tokenizer, chunks)
            except ValueError as error:
                reply = str(error)
            connection.send(reply)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), sys.argv[2])
