"""N-grams of token ids: the last tokens of each, and the numbers that hash them."""

from math import isqrt

from torch import Tensor, nn

from modules.short_conv import ConvCache, with_earlier
from modules.stream import Context

BITS = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio
LAYER_STEP = 10007  # between the seeds of layers
MAX_INT = (1 << 63) - 1


class IdCache(ConvCache):
    """The last ids of each row, (b, n - 1), as a convolution keeps its last inputs; None = no token yet."""


def last_tokens(context: Context, *, number: int, absent: int, cache: IdCache | None) -> list[Tensor]:
    """Each token, the one before it, and so on: `number` tensors (b, t).

    What lies before a text or its document counts as `absent`, and padding too.
    """
    tokens, reach = context.tokens, number - 1
    if context.positions.dim() > 1:
        tokens = tokens.where(context.positions >= 0, absent)
    seen = with_earlier(tokens, cache, reach=reach, absent=absent)
    found = [seen[:, reach - back:seen.shape[1] - back] for back in range(number)]
    if context.documents is not None:
        ids = nn.functional.pad(context.documents.ids, (reach, 0), value=-1)
        found = [x.where(ids[:, reach - back:ids.shape[1] - back] == ids[:, reach:], absent)
                 for back, x in enumerate(found)]
    return found


def splitmix64(value: int) -> int:
    """A bijection of 64-bit numbers that looks random. Steele, Lea & Flood 2014 (SplitMix)."""
    value = (value + GOLDEN) & BITS
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & BITS
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & BITS
    return value ^ value >> 31


def hash_multipliers(vocab_size: int, number: int, *, seed: int, index: int) -> list[int]:
    """Odd factors whose products with ids below `vocab_size` fit into 63 bits; `index` counts the layers that hash."""
    bound = max(1, MAX_INT // vocab_size // 2)
    first = seed + LAYER_STEP * index
    return [2 * (splitmix64((first + GOLDEN * i) & BITS) % bound) + 1 for i in range(1, number + 1)]


def primes(least: int, *, number: int) -> list[int]:
    """The first prime numbers that are at least `least`."""
    found, candidate = [], max(2, least)
    while len(found) < number:
        if all(candidate % divisor for divisor in range(2, isqrt(candidate) + 1)):
            found.append(candidate)
        candidate += 1
    return found
