"""A synthetic task as a corpus: rows of ids, drawn when they are needed."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from config import DataConfig
from corpora.chunks import Chunk
from corpora.files import digest
from corpora.kinds import Corpus
from probes import IGNORED, PROBES, SOURCES, Numbers
from run_store.atomic_files import sha256
from tokenization.symbols import SymbolTokenizer

BLOCK = 64  # rows that are drawn together
VAL_ROWS = 1024  # of the length that training has; of longer ones fewer, so that they are as many symbols
SHOWN_ROWS = 64  # as texts
PARTS = {"val": 0, "train": 1}
Part = Literal["val", "train"]


class ProbeCorpus(Corpus):
    """A task of probes/: training rows without end, and validation rows, the same whatever the training seed.

    Raises ValueError if a number of data.probe is one that the task does not have.
    """

    def __init__(self, name: str, cfg: DataConfig):
        self.name, self.task, self.numbers = name, PROBES[name], numbers(name, cfg)
        self.tokenizer = SymbolTokenizer(self.task.words(self.numbers))
        self.fingerprint = digest("probe", name, self.numbers, [sha256(path) for path in SOURCES])
        self._block = None

    def rows(self, first: int, count: int, seq_len: int, *, part: Part, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows from number `first` on: their ids, and the id to predict after each, -100 = none.

        A row is the begin-of-text token and a row of the task. Shape: twice (count, seq_len), int64. Raises ValueError
        if the row is too short for the task.
        """
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        drawn = [self._drawn(part, seed, number, seq_len - 1) for number in blocks]
        rows = slice(first - blocks.start * BLOCK, first - blocks.start * BLOCK + count)
        inputs, answers = (np.concatenate(each)[rows] for each in zip(*drawn, strict=True))
        special = self.tokenizer.num_special
        begin = np.full((count, 1), self.tokenizer.bos_id), np.full((count, 1), IGNORED)
        asked = np.where(answers == IGNORED, IGNORED, answers + special)
        return np.hstack([begin[0], inputs + special]), np.hstack([begin[1], asked])

    def _drawn(self, part: Part, seed: int, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """A block of rows of the task; the last one is kept, for batches that are smaller."""
        key, kept = (part, seed, number, length), self._block  # read once: a thread makes batches too
        if kept is None or kept[0] != key:
            rng = np.random.default_rng([self.numbers.seed, PARTS[part], seed, number])
            kept = self._block = key, self.task.draw(rng, BLOCK, length, self.numbers)
        return kept[1]

    def chunks(self) -> Iterator[Chunk]:
        """Some rows of the task's own length as texts, to read and to show."""
        for part in PARTS:
            ids, _ = self.rows(0, SHOWN_ROWS, self.task.length + 1, part=part)
            yield from (Chunk(self.tokenizer.decode(row), part=part) for row in ids)


class ProbeRows:
    """The validation rows of a length, with the interface of a TokenFile: each is a document.

    Shape: tokens and targets (rows * (seq_len + 1),); a target stands one place behind the input that asks for it.
    """

    def __init__(self, corpus: ProbeCorpus, seq_len: int, num_rows: int = VAL_ROWS):
        tokenizer = corpus.tokenizer
        x, y = corpus.rows(0, num_rows, seq_len, part="val")
        self.tokens = np.pad(x, ((0, 0), (0, 1)), constant_values=tokenizer.pad_id).ravel()
        self.targets = np.pad(y, ((0, 0), (1, 0)), constant_values=IGNORED).ravel()
        self.num_documents, self.num_tokens, self.pad_id = num_rows, len(self.tokens), tokenizer.pad_id
        self.document_starts = np.arange(num_rows) * (seq_len + 1)
        asked = y[y != IGNORED]
        self.num_targets, self.num_bytes = len(asked), int(tokenizer.byte_lengths[asked].sum())
        self.bits = None  # what can be known of an answer differs from task to task


def numbers(name: str, cfg: DataConfig) -> Numbers:
    """The numbers of a task: its own, or those of the flags. Raises ValueError for one that it does not have."""
    task, found = PROBES[name], {}
    for flag in ("symbols", "items", "noise"):
        own, given = getattr(task.numbers, flag), getattr(cfg.probe, flag)
        if own is None and given is not None:
            raise ValueError(f"data.probe.{flag}={given} would change nothing: data.name={name} has no such number; "
                             "leave it out")
        found[flag] = own if given is None else given
    return Numbers(**found, seed=cfg.seed)


def longer_rows(corpus: ProbeCorpus, seq_len: int, factor: int) -> ProbeRows:
    """Validation rows `factor` times as long."""
    return ProbeRows(corpus, factor * seq_len, max(BLOCK, VAL_ROWS // factor))
