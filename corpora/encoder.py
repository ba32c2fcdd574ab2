"""Text to ids in several processes: each has read the tokenizer from a folder, and nothing else of the run.

They are started as programs of their own, so that they hold no model, no lock and no thread of the run; Ctrl-C
does not reach them, and they end when the run does, however it ends.
"""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpora.chunks import CHUNK_CHARS, Chunk
from tokenization.base import group_by_chars
from tokenizer import Tokenizer, load_tokenizer

GROUPS_BEFORE_WORKERS = 16  # groups that this process encodes before it calls for help: 4 MB, less than a second


class Encoded(NamedTuple):
    """Chunks with their ids, bos and eos included, one after the other."""

    chunks: list[Chunk]
    ids: np.ndarray
    num_ids: np.ndarray  # of each chunk
    num_bytes: np.ndarray  # of UTF-8


def dtype_of(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that holds all ids."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def grouped(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks in groups of CHUNK_CHARS characters."""
    return group_by_chars(chunks, lambda chunk: len(chunk.text), CHUNK_CHARS)


def encode_texts(
    tokenizer: Tokenizer, texts: list[str], is_first: Iterable[bool], is_last: Iterable[bool],
) -> tuple[np.ndarray, np.ndarray]:
    """(all ids, how many of each text), with bos before a first and eos behind a last chunk."""
    batch = [[tokenizer.bos_id] * first + ids + [tokenizer.eos_id] * last for ids, first, last in
             zip(tokenizer.encode_batch(texts), is_first, is_last, strict=True)]
    num_ids = np.fromiter(map(len, batch), np.int64, len(batch))
    return np.fromiter(chain.from_iterable(batch), dtype_of(tokenizer), num_ids.sum()), num_ids


def encode_group(tokenizer: Tokenizer, chunks: list[Chunk]) -> Encoded:
    """A group, encoded by this process."""
    ids, num_ids = encode_texts(tokenizer, [chunk.text for chunk in chunks], [chunk.is_first for chunk in chunks],
                                [chunk.is_last for chunk in chunks])
    return Encoded(chunks, ids, num_ids, np.array([len(chunk.text.encode()) for chunk in chunks]))


def encode(chunks: Iterable[Chunk], tokenizer: Tokenizer, workers: int | None) -> Iterator[Encoded]:
    """Groups of chunks with their ids, in order, from so many processes; None = by the cores and the text's length."""
    groups = grouped(chunks)
    count = workers or num_cores()
    for group in islice(groups, GROUPS_BEFORE_WORKERS if workers is None or count == 1 else 0):
        yield encode_group(tokenizer, group)
    if count == 1:
        yield from (encode_group(tokenizer, group) for group in groups)
    elif (first := next(groups, None)) is not None:
        with helpers(tokenizer, count) as encode_there:
            yield from encode_there(chain([first], groups))


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def helpers(tokenizer: Tokenizer, count: int) -> Iterator[Callable[[Iterable[list[Chunk]]], Iterator[Encoded]]]:
    """Start the processes; end them on the way out, also on an error or Ctrl-C."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        tokenizer.save(folder)
        threads, idle = ThreadPoolExecutor(count), queue.SimpleQueue()
        stack.callback(threads.shutdown, cancel_futures=True)  # when all helpers are gone, and none waits for one
        for _ in range(count):
            helper = Helper(folder, dtype_of(tokenizer))
            stack.callback(helper.stop)
            idle.put(helper)

        def encode_one(group: list[Chunk]) -> Encoded:
            helper = idle.get()
            try:
                return helper.encode(group)
            finally:
                idle.put(helper)

        def encode_all(groups: Iterable[list[Chunk]]) -> Iterator[Encoded]:
            waiting: deque = deque()
            for group in groups:
                waiting.append(threads.submit(encode_one, group))
                if len(waiting) > 2 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield encode_all


class Helper:
    """One process that encodes. Messages are bytes: lengths and marks, text; an error, counts, ids."""

    def __init__(self, folder: str, dtype: np.dtype):
        self.dtype = dtype
        self.connection, theirs = Pipe()
        root = str(Path(__file__).resolve().parent.parent)
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": root}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "corpora.encoder", str(theirs.fileno()), folder],
            pass_fds=[theirs.fileno()], env=environment,
            process_group=0)  # in the terminal's eyes a job of its own: Ctrl-C is ours to pass on
        theirs.close()

    def encode(self, chunks: list[Chunk]) -> Encoded:
        """Have a group encoded. Raises ValueError for a character without an id, or where the process is gone."""
        texts = [chunk.text.encode() for chunk in chunks]
        table = np.array([(len(text), chunk.is_first, chunk.is_last) for text, chunk in
                          zip(texts, chunks, strict=True)], np.int64)
        try:
            self.connection.send_bytes(table.tobytes())
            self.connection.send_bytes(b"".join(texts))
            problem = self.connection.recv_bytes().decode()
            if problem:
                raise ValueError(problem)
            num_ids = np.frombuffer(self.connection.recv_bytes(), np.int64)
            ids = np.frombuffer(self.connection.recv_bytes(), self.dtype)
        except (EOFError, ConnectionError) as error:
            raise ValueError(f"data.workers: a process that encodes has ended (status {self.process.wait()}), as "
                             "happens where memory runs out: use fewer, e.g. 1") from error
        return Encoded(chunks, ids, num_ids, table[:, 0])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def main(connection: Connection, folder: str) -> None:
    """Encode what comes in until the run is gone."""
    tokenizer = load_tokenizer(folder)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            lengths, is_first, is_last = np.frombuffer(connection.recv_bytes(), np.int64).reshape(-1, 3).T
            text, ends = connection.recv_bytes(), lengths.cumsum()
            texts = [text[end - length:end].decode() for end, length in zip(ends, lengths, strict=True)]
            try:
                ids, num_ids = encode_texts(tokenizer, texts, is_first, is_last)
            except ValueError as error:
                connection.send_bytes(str(error).encode())
                continue
            connection.send_bytes(b"")
            connection.send_bytes(num_ids.tobytes())
            connection.send_bytes(ids.tobytes())


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), sys.argv[2])
