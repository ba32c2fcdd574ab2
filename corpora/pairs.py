"""Pairs of a source and a target in token files: `[bos] source [eos] target [eos]`, predicted from the target on."""

from collections.abc import Iterable, Iterator
from itertools import compress

import numpy as np

from corpora.encoder import Encoded
from probes import IGNORED


class PairTargets:
    """The tokens of a part, and -100 in place of each source and its end; indexed like an array.

    Shape: tokens (num_tokens,), document_starts and target_starts (num_documents,) -> (num_tokens,), int64.
    """

    dtype = np.dtype(np.int64)

    def __init__(self, tokens: np.ndarray, document_starts: np.ndarray, target_starts: np.ndarray):
        self._tokens, self._document_starts, self._target_starts = tokens, document_starts, target_starts

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, where: int | slice | np.ndarray) -> np.ndarray:
        places = np.arange(len(self))[where]
        document = np.searchsorted(self._document_starts, places, side="right") - 1
        return np.where(places < self._target_starts[document], IGNORED, self._tokens[places].astype(np.int64))


def without_longer(groups: Iterable[Encoded], max_len: int, left_out: dict[str, int]) -> Iterator[Encoded]:
    """Leave out pairs of more than `max_len` tokens, which would lose their source or their end; count them."""
    reason = f"pairs with more than the {max_len - 1:,} tokens of a row"
    for group in groups:
        is_source = np.array([chunk.is_source for chunk in group.chunks])
        lengths = np.add.reduceat(group.num_ids, np.flatnonzero(is_source))
        fits = np.repeat(lengths <= max_len, 2)  # a pair is two chunks
        if not fits.all():
            left_out[reason] = left_out.get(reason, 0) + int((~fits).sum()) // 2
        yield Encoded(list(compress(group.chunks, fits)), group.ids[np.repeat(fits, group.num_ids)],
                      group.num_ids[fits], group.num_bytes[fits])
