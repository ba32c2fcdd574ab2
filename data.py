"""Encoded text -> batches of ids (b, t)."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from corpora.packing import EVAL_LAYOUTS, LAYOUTS, Layout, ranges
from corpora.probe_rows import ProbeCorpus, ProbeRows
from corpora.shards import JoinedTokenFile, TokenFile

KEYS = 1  # sets the keys apart from other draws of a seed
IGNORED = -100  # the target of a position without one, as in torch's cross_entropy


class Batch(NamedTuple):
    """Rows of token ids. Shape: x, y and documents (b, t), int64."""

    x: Tensor
    y: Tensor  # the token after each token of x; -100 = nothing to predict
    documents: Tensor | None  # the number of a token's document in its row, which it alone sees; None = a row is one
    num_targets: int
    keys: Tensor | None = None  # (b,) int64, what an objective draws random numbers of a row from; None = of its tokens
    cuts: Tensor | None = None  # (b, 3) int64, where rows are cut: the middle's begin and end, the text's end

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        is_async = device.type == "cuda"  # a copy out of pinned memory goes on while the step begins
        return self.map(lambda tensor: tensor.to(device, non_blocking=is_async))

    def pin(self) -> "Batch":
        """The batch in page-locked memory, which a GPU reads by itself."""
        return self.map(Tensor.pin_memory)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `function` applied to each of its tensors."""
        return self._replace(**{name: function(x) for name, x in self._asdict().items() if isinstance(x, Tensor)})


class BatchBuilder:
    """A batch that is filled row by row; the rest is padding."""

    def __init__(self, num_rows: int, seq_len: int, pad_id: int):
        self.shape = num_rows, seq_len
        self.x, self.y, self.documents = (np.full(num_rows * seq_len, value) for value in (pad_id, IGNORED, -1))

    def write(
        self, where: np.ndarray, part: TokenFile | JoinedTokenFile | ProbeRows, layout: Layout,
        rows: np.ndarray, offset: int = 0,
    ) -> None:
        """Fill the rows `where` with `rows` of a part, shifted by `offset` tokens; the text's start follows its end."""
        place, token, segment = layout.places(rows, where * self.shape[1])
        for values, tokens, shift in ((self.x, part.tokens, offset), (self.y, part.targets, offset + 1)):
            shifted = token + shift
            values[place] = tokens[shifted if shifted.max() < part.num_tokens else shifted % part.num_tokens]
        self.documents[place] = segment

    def batch(self, packing: str) -> Batch:
        """The batch as tensors."""
        x, y, documents = (torch.from_numpy(array).view(self.shape) for array in (self.x, self.y, self.documents))
        num_targets = int((self.y != IGNORED).sum())
        return Batch(x, y, documents if packing == "documents" else None, num_targets)


class ShuffledRows:
    """The rows of a part, in a new order in each epoch."""

    def __init__(self, part: TokenFile, *, seq_len: int, packing: str, seed: list[int], shuffle: bool):
        if packing == "stream" and part.num_tokens <= seq_len:
            raise ValueError(f"model.max_seq_len={seq_len} is longer than the text ({part.num_tokens} tokens): "
                             f"use {part.num_tokens - 1} or less, or more text")
        self.part, self.seed, self.shuffle = part, seed, shuffle
        self.layout = LAYOUTS[packing](part.document_starts, part.num_tokens, seq_len)
        self.slack = seq_len if packing == "stream" and len(part.document_starts) == 1 else 1
        self._cached = (-1, np.arange(self.layout.num_rows), 0)

    def write(self, builder: BatchBuilder, where: np.ndarray, numbers: np.ndarray) -> None:
        """Fill the rows `where` of a batch with the rows of these `numbers`, counted from the first epoch's first."""
        epochs, within = np.divmod(numbers, self.layout.num_rows)
        for epoch in np.unique(epochs):
            order, offset = self._epoch(int(epoch))
            here = epochs == epoch
            builder.write(where[here], self.part, self.layout, order[within[here]], offset)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, int]:
        """The order of an epoch's rows, and the number of tokens by which they are shifted."""
        if self.shuffle and self._cached[0] != epoch:
            random = np.random.default_rng([self.seed[0], epoch, *self.seed[1:]])
            offset = int(random.integers(self.slack)) if self.slack > 1 else 0
            self._cached = (epoch, random.permutation(self.layout.num_rows), offset)
        return self._cached[1:]


class Batches:
    """Training batches: `batches[step]` is a Batch of `batch_size` rows.

    A pure function of the seed and the step: to resume exactly, it is enough to save the number of batches taken.
    Each epoch takes all rows, in a new order. `packing` says how the text is cut into rows:
    stream: contiguous text. A row begins with a document, and the next row with the document that was cut, so each
        is seen from its start; one longer than a row goes on over several. A text of one document is cut in other
        places in each epoch. The first document follows the last.
    pad, documents: see corpora/packing.py. No target crosses the end of a document.

    Each of several parts has its own epochs, and gives targets in proportion to its weight. `change` is done with each
    batch. Raises ValueError if a part is shorter than a row of a stream.
    """

    def __init__(
        self, parts: Sequence[tuple[TokenFile, float]], *, batch_size: int, seq_len: int, packing: str = "stream",
        seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1,
        change: Callable[[Batch], Batch] | None = None,
    ):
        if seed < 0:
            raise ValueError(f"train.seed={seed} is negative: use 0 or more")
        self.batch_size, self.seq_len, self.packing, self.seed = batch_size, seq_len, packing, seed
        self.rank, self.world_size, self.pad_id, self.change = rank, world_size, parts[0][0].pad_id, change
        self.row_sources = [ShuffledRows(part, seq_len=seq_len, packing=packing, seed=[seed, number], shuffle=shuffle)
                        for number, (part, _) in enumerate(parts)]
        layouts = [source.layout for source in self.row_sources]
        self.rates = np.array([weight * layout.num_rows / layout.num_targets
                               for (_, weight), layout in zip(parts, layouts, strict=True)])
        self.rows_per_epoch = sum(layout.num_rows for layout in layouts)
        self.num_tokens = sum(part.num_tokens for part, _ in parts)

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f"step={step} is negative: the first batch is 0")
        first = (step * self.world_size + self.rank) * self.batch_size
        sources, numbers = interleave(self.rates, first, self.batch_size)
        builder = BatchBuilder(self.batch_size, self.seq_len, self.pad_id)
        for which in np.unique(sources):
            where = np.flatnonzero(sources == which)
            self.row_sources[which].write(builder, where, numbers[where])
        batch = builder.batch(self.packing)._replace(keys=keys_of_rows(self.seed, first, self.batch_size))
        return batch if self.change is None else self.change(batch)


class NewBatches:
    """Training batches of a synthetic task: `batches[step]` is a Batch of rows that no other batch has.

    A pure function of the seed and the step, like Batches, and of no length.
    """

    rows_per_epoch = num_tokens = math.inf

    def __init__(
        self, corpus: ProbeCorpus, *, batch_size: int, seq_len: int, seed: int = 0, rank: int = 0, world_size: int = 1,
    ):
        self.corpus, self.batch_size, self.seq_len, self.seed = corpus, batch_size, seq_len, seed
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f"step={step} is negative: the first batch is 0")
        first = (step * self.world_size + self.rank) * self.batch_size
        rows = self.corpus.rows(first, self.batch_size, self.seq_len, part="train", seed=self.seed)
        x, y = map(torch.from_numpy, rows)
        keys = keys_of_rows(self.seed, first, self.batch_size)
        return Batch(x, y, None, int((y != IGNORED).sum()), keys)


def keys_of_rows(seed: int, first: int, count: int) -> Tensor:
    """A key of each row from number `first` on. Shape: (count,), int64."""
    sequence = np.random.SeedSequence([seed, KEYS])
    return torch.from_numpy(sequence.generate_state(1, np.uint64).view(np.int64)) + torch.arange(first, first + count)


def interleave(rates: np.ndarray, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(source, number among its own rows) of row number `first` and the `count` - 1 rows after it.

    The k-th row of a source is due at time (k + 1/2) / rate, and rows come in the order in which they are due. So at
    any time each source has given its share, to about a row, and any row is found without those before it.
    Shape: rates (sources,) -> twice (count,), int64.
    """
    rates = rates / rates.sum()  # one row is due in each unit of time
    early, late = first - len(rates), first + count + len(rates)
    begins = np.maximum(0, (early * rates).astype(np.int64) - 1)
    counts = (late * rates).astype(np.int64) + 2 - begins
    source = np.repeat(np.arange(len(rates)), counts)
    number = ranges(counts) + begins[source]
    due = np.lexsort((source, (number + 0.5) / rates[source]))
    rows = due[first - begins.sum() :][:count]
    return source[rows], number[rows]


def eval_batches(
    part: TokenFile | JoinedTokenFile | ProbeRows, batch_size: int, seq_len: int, packing: str = "stream", *,
    max_tokens: int | None = None,
) -> Iterator[Batch]:
    """Batches of one shape, with every token of the part once as a target.

    Except the first token of each document (packing pad or documents), or of the text (stream): nothing precedes it.
    A document that fits into a row is never cut. Of more than `max_tokens`, padding included, every second row is
    taken, or every fourth, eighth, and so on; so what a smaller number takes is among what a larger one takes.
    """
    layout = EVAL_LAYOUTS[packing](part.document_starts, part.num_tokens, seq_len)
    most = layout.num_rows if max_tokens is None else max(1, max_tokens // seq_len)
    numbers = np.arange(0, layout.num_rows, stride(layout.num_rows, most))
    for first in range(0, len(numbers), batch_size):
        rows = numbers[first : first + batch_size]
        builder = BatchBuilder(batch_size, seq_len, part.pad_id)
        builder.write(np.arange(len(rows)), part, layout, rows)
        yield builder.batch(packing)


def stride(count: int, most: int) -> int:
    """The smallest power of two k such that every k-th of `count` things makes at most `most` of them."""
    return 1 << (-(-count // most) - 1).bit_length()


@contextlib.contextmanager
def prefetched(batches: Batches, numbers: range, *, depth: int, pin: bool = False) -> Iterator[Iterator[Batch]]:
    """An iterator over batches[n] for each number; a thread makes up to `depth` of them before they are asked for.

    With `depth` 0 there is no thread. An exception in the thread is raised in the place of its batch. The thread ends
    with the `with` block, however that is left.
    """
    if depth == 0:
        yield (batches[number] for number in numbers)
        return

    def make(number: int) -> Batch:
        return batches[number].pin() if pin else batches[number]

    def take() -> Iterator[Batch]:
        while ready:
            future = ready.popleft()
            ready.extend(thread.submit(make, number) for number in islice(rest, 1))
            yield future.result()

    rest = iter(numbers)
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        ready = deque(thread.submit(make, number) for number in islice(rest, depth))
        yield take()
    finally:
        thread.shutdown(cancel_futures=True)
