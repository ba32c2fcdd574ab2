"""Where the middle of a row begins and ends, between tokens or between characters."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from data import IGNORED, Batch
from objectives.noise import uniform
from objectives.rows import Row
from tokenizer import Tokenizer

Spelled = list[str | int]  # characters, and tokens that are none: specials, parts of a character


class Cut(NamedTuple):
    """Where rows are cut: the prefix is [first, left), the middle [left, right), the suffix [right, end).

    After `end` comes the last token of a text that ends in the row; of one that goes on, nothing. Shape: (b, 1).
    """

    first: Tensor
    left: Tensor
    right: Tensor
    end: Tensor

    @classmethod
    def of(cls, row: Row, cuts: Tensor | None = None) -> "Cut":
        """The cuts of a batch: left, right and end (b, 3); None = two between tokens, at uniform places."""
        first = row.source_len.unsqueeze(-1)
        if cuts is not None:
            return cls(first, *cuts.split(1, dim=1))
        last = row.positions.amax(-1, keepdim=True)
        end = last + (last == row.tokens.shape[1] - 1)
        left_right = first + places_of(row, end - first + 1)
        return cls(first, left_right[:, :1], left_right[:, 1:], end)

    def places(self, row: Row, *, is_cut: Tensor, is_spm: Tensor) -> Tensor:
        """Where the t tokens of a row go, and then PRE, SUF and MID; to the end of a row that is not cut.

        SPM is PSM with an empty prefix, and a middle that begins with it. Shape: is_cut, is_spm (b,) -> (b, t + 3).
        """
        token = torch.arange(row.tokens.shape[1], device=row.tokens.device).expand_as(row.tokens)
        left = self.first.where(is_spm.unsqueeze(-1), self.left)
        in_suffix = (token >= self.right) & (token < self.end)
        moved = torch.where(token < left, token + 1, token + 3 + self.end - self.right)
        moved = torch.where(in_suffix, token + 2 - (self.right - left), moved)
        moved = token.where(token < self.first, moved.where(token < self.end, token + 3))
        new = torch.cat([self.first, left + 1, left + 2 + self.end - self.right], dim=1)
        spare = (row.tokens.shape[1] + torch.arange(3, device=token.device)).expand_as(new)
        is_moved = (is_cut & row.is_target.any(-1)).unsqueeze(-1)
        return torch.cat([moved.where(is_moved, token), new.where(is_moved, spare)], dim=1)

    def is_middle(self, row: Row) -> Tensor:
        """The targets in the middle of a row, and the end of its text. Shape: (b, t)."""
        token = torch.arange(row.tokens.shape[1], device=row.tokens.device)
        return row.is_target & (token >= self.left) & ((token < self.right) | (token >= self.end))


def places_of(row: Row, number: Tensor) -> Tensor:
    """Two uniform places of so many (b, 1), in order. Shape: -> (b, 2)."""
    return (uniform(row.keys, (2,), draw=2) * number).long().sort(-1).values


def chosen(keys: Tensor, rate: float) -> Tensor:
    """The rows of training that are cut. Shape: (b,) -> (b,) bool."""
    return uniform(keys, draw=0) < rate


class CharacterCuts:
    """Cuts rows of a batch at two uniform characters, and encodes the three parts anew, each as if it stood alone.

    So are a prompt and a suffix encoded in generation; where they end, the text as a whole may have no token end.
    Bavarian et al. 2022, arXiv:2207.14255. Rows keep their length: what no longer fits is left out at the end of the
    text, which then goes on. A special token counts as a character; tokens with a part only of a character at the edge
    of a row are not divided. The rows of an evaluation, which have no keys, are all cut; of others a share `rate`.
    """

    def __init__(self, tokenizer: Tokenizer, *, rate: float):
        self.tokenizer, self.rate = tokenizer, rate

    def __call__(self, batch: Batch) -> Batch:
        """The batch with `cuts`; those of rows that are not cut mean nothing."""
        row = Row.of(batch)
        is_cut = torch.ones(len(row.tokens)) if batch.keys is None else chosen(batch.keys, self.rate)
        cut, t = Cut.of(row), row.tokens.shape[1]
        tokens, is_target, cuts = row.tokens.clone(), row.is_target.clone(), torch.cat(cut[1:], dim=1)
        numbers = is_cut.nonzero().flatten().tolist()
        for n, (prefix, middle, suffix) in zip(numbers, self.divide(row, cut, numbers), strict=True):
            head, tail = row.tokens[n, : cut.first[n]].tolist(), row.tokens[n, cut.end[n] : row.positions[n].amax() + 1]
            text = [*head, *prefix, *middle, *suffix, *tail.tolist()][:t]
            tokens[n] = torch.tensor(text + [self.tokenizer.pad_id] * (t - len(text)))
            is_target[n, len(head) :] = torch.arange(len(head), t) < len(text)
            lengths = torch.tensor([len(head) + len(prefix), len(middle), len(suffix)])
            cuts[n] = lengths.cumsum(0).clamp(max=t)
        y = tokens.where(is_target, IGNORED)[:, 1:]
        return batch._replace(x=tokens[:, :-1], y=y, cuts=cuts, num_targets=int((y != IGNORED).sum()))

    def divide(self, row: Row, cut: Cut, numbers: list[int]) -> Iterator[tuple[list[int], list[int], list[int]]]:
        """The ids of the prefix, the middle and the suffix of each of the rows with these numbers."""
        texts = [self.spell(row.tokens[n, cut.first[n] : cut.end[n]].tolist()) for n in numbers]
        count = torch.tensor([len(text) + 1 for text in texts]).unsqueeze(-1)
        places = places_of(row._replace(keys=row.keys[numbers]), count).tolist()
        parts = iter(self.encode([part for text, (left, right) in zip(texts, places, strict=True)
                                  for part in (text[:left], text[left:right], text[right:])]))
        return zip(parts, parts, parts, strict=True)

    def spell(self, ids: Sequence[int]) -> Spelled:
        """The characters of tokens."""
        runs = ((is_text, list(run)) for is_text, run in groupby(ids, key=self._has_text))
        return [unit for is_text, run in runs for unit in (self._characters(run) if is_text else run)]

    def _has_text(self, token: int) -> bool:
        return bool(self.tokenizer.token_bytes[token])

    def _characters(self, ids: list[int]) -> Spelled:
        first, end = 0, len(ids)
        while True:
            try:
                text = b"".join([self.tokenizer.token_bytes[i] for i in ids[first:end]]).decode()
            except UnicodeDecodeError as error:  # an edge of the row divides a character
                first, end = (first + 1, end) if error.start == 0 else (first, end - 1)
            else:
                return [*ids[:first], *text, *ids[end:]]

    def encode(self, parts: Sequence[Spelled]) -> list[list[int]]:
        """The ids of each part."""
        joined = [join(part) for part in parts]
        texts = iter(self.tokenizer.encode_batch([unit for part in joined for unit in part if isinstance(unit, str)]))
        return [[i for unit in part for i in (next(texts) if isinstance(unit, str) else [unit])] for part in joined]


def join(units: Spelled) -> Spelled:
    """The same with each run of characters as one text."""
    runs = ((kind, list(run)) for kind, run in groupby(units, key=type))
    return [unit for kind, run in runs for unit in (["".join(run)] if kind is str else run)]
