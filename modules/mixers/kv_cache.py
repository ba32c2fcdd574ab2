"""What attention keeps of the tokens so far: keys, values and positions, of all tokens or of a window."""

import torch
from torch import Tensor

from modules.masks import Pattern

Keys = tuple[Tensor, Tensor, Tensor]  # keys and values (b, g, s, p), and their positions (s,) or (b, s)


class KVCache:
    """Keys, values and positions of the tokens of a layer so far, up to `max_len`.

    Shape: keys and values (b, g, s, p), each with its own p; positions (s,) or (b, s).
    """

    def __init__(self, max_len: int):
        self.max_len, self.length = max_len, 0
        self.keys = self.values = self.positions = None

    def allocate(self, k: Tensor, v: Tensor, positions: Tensor) -> None:
        """Make room for `max_len` tokens like these."""
        self.keys, self.values = (x.new_empty(*x.shape[:2], self.max_len, x.shape[3]) for x in (k, v))
        self.positions = positions.new_empty(*positions.shape[:-1], self.max_len)

    def write(self, place: slice, k: Tensor, v: Tensor, positions: Tensor) -> None:
        if positions.dim() > self.positions.dim():
            self.positions = self.positions.repeat(len(positions), 1)
        self.keys[:, :, place], self.values[:, :, place], self.positions[..., place] = k, v, positions

    def at(self, place: slice) -> Keys:
        return self.keys[:, :, place], self.values[:, :, place], self.positions[..., place]

    def append(self, k: Tensor, v: Tensor, positions: Tensor) -> Keys:
        """Append t tokens; return all s so far. Raises ValueError if the cache is full."""
        start, stop = self.length, self.length + k.shape[2]
        if stop > self.max_len:
            raise ValueError(f"the cache holds {self.max_len} tokens, not {stop}")
        if self.keys is None:
            self.allocate(k, v, positions)
        self.write(slice(start, stop), k, v, positions)
        self.length = stop
        return self.at(slice(stop))

    def drop_last(self, number: int) -> None:
        """Forget the last `number` tokens."""
        self.length -= number

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        """Keep these rows, without their first `padding` tokens, which are padding in all of them."""
        self.length -= padding
        self.keys, self.values = (x[rows].roll(-padding, dims=2) for x in (self.keys, self.values))
        if self.positions.dim() == 2:
            positions = self.positions[rows].roll(-padding, dims=1)
            kept = positions[:, : self.length]
            alike = (kept >= 0).all() and (kept == kept[:1]).all()
            self.positions = positions[0] if alike else positions


def joined(old: Keys, new: Keys) -> Keys:
    """Keys, values and positions after earlier ones; rows whose positions were the same may differ from here on."""
    rows = torch.broadcast_shapes(old[2].shape[:-1], new[2].shape[:-1])
    k, v = (torch.cat(pair, dim=2) for pair in zip(old[:2], new[:2], strict=True))
    return k, v, torch.cat([places.expand(*rows, -1) for places in (old[2], new[2])], dim=-1)


class WindowCache(KVCache):
    """Of a layer with a window: the tokens that the next ones can see, and as many more as save moving them each time.

    Its size follows the window and not the text: `max_len` is the length of a text, and room is for a quarter more
    tokens than the window has.
    """

    drop_last = None  # earlier tokens are gone

    def __init__(self, max_len: int, window: int):
        super().__init__(room_of(window))
        self.text_len, self.reach, self.seen = max_len, window - 1, 0

    def count(self, number: int) -> None:
        """Note that so many tokens came. Raises ValueError if the text is longer than was said."""
        self.seen += number
        if self.seen > self.text_len:
            raise ValueError(f"the cache holds {self.text_len} tokens, not {self.seen}")

    def append(self, k: Tensor, v: Tensor, positions: Tensor) -> Keys:
        """Append t tokens; return them, and those before them that the first one sees.

        Raises ValueError if the text is longer than was said.
        """
        self.count(k.shape[2])
        if self.keys is None:
            self.allocate(k, v, positions)
        start, stop = max(0, self.length - self.reach), self.length + k.shape[2]
        if stop <= self.max_len:
            self.write(slice(self.length, stop), k, v, positions)
            self.length = stop
            return self.at(slice(start, stop))
        k, v, positions = joined(self.at(slice(start, self.length)), (k, v, positions))
        self.length = min(self.reach, k.shape[2])
        last = slice(k.shape[2] - self.length, None)
        self.allocate(k, v, positions)  # what is held may be returned to, see modules/rewind.py
        self.write(slice(self.length), k[:, :, last], v[:, :, last], positions[..., last])
        return k, v, positions

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        left = max(0, padding - (self.seen - self.length))  # of the padding, what has not gone yet
        self.seen -= padding
        super().keep_rows(rows, padding=left)


class AnchoredCache(WindowCache):
    """Of a layer with a window and global tokens: those, the first of each text, and the tokens of a WindowCache.

    Rows that begin with padding have their first tokens in other places than the rest, which are then all kept.
    """

    def __init__(self, max_len: int, window: int, num_global: int):
        super().__init__(max_len, window)
        self.num_global = num_global
        self.max_len += num_global

    def append(self, k: Tensor, v: Tensor, positions: Tensor) -> Keys:
        """Append t tokens; return them and all that are kept. Raises ValueError if the text is longer than was said."""
        self.count(k.shape[2])
        if self.keys is not None:
            k, v, positions = joined((self.keys, self.values, self.positions), (k, v, positions))
        self.keys, self.values, self.positions = k, v, positions
        self.forget()
        return k, v, positions

    def forget(self) -> None:
        """Drop what no later token of any row can see, if there is more than there was room for."""
        if self.keys.shape[2] <= self.max_len:
            return
        newest = self.positions.max(-1, keepdim=True).values
        wanted = (self.positions >= 0) & (self.positions < self.num_global) | (self.positions > newest - self.reach)
        self.keep_columns(wanted & (self.positions >= 0))

    def keep_columns(self, wanted: Tensor) -> None:
        """Drop the tokens that no row wants. Shape: (s,) or (b, s)."""
        columns = wanted.reshape(-1, wanted.shape[-1]).any(0).nonzero()[:, 0]
        self.keys, self.values = (x[:, :, columns] for x in (self.keys, self.values))
        self.positions = self.positions[..., columns]

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        self.seen -= padding
        self.keys, self.values = self.keys[rows], self.values[rows]
        if self.positions.dim() == 2:
            self.positions = self.positions[rows]
            self.keep_columns(self.positions >= 0)


class SourceCache:
    """What cross-attention keeps of its source, which is read once: keys and values (b, g, s, p), and the mask.

    The mask (b, 1, 1, s), as in Context.source_seen, is that of a cache: there are no documents. None = all is seen.
    """

    def __init__(self):
        self.keys = self.values = self.seen = None

    def keep_rows(self, rows: list[int], *, padding: int) -> None:
        """Keep these rows; `padding` is of the tokens that read the source, and nothing of them is kept here."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.seen = self.seen if self.seen is None or len(self.seen) == 1 else self.seen[rows]


def room_of(window: int) -> int:
    """The tokens that the cache of a window has room for."""
    return window + window // 4


def make_kv_cache(max_len: int, pattern: Pattern) -> KVCache:
    """A cache for a text of `max_len` tokens."""
    kept = pattern.num_kept
    if kept is None or room_of(pattern.near) + pattern.global_tokens >= max_len:
        return KVCache(max_len)
    if pattern.global_tokens:
        return AnchoredCache(max_len, pattern.near, pattern.global_tokens)
    return WindowCache(max_len, pattern.near)
