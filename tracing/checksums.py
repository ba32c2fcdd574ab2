"""Checksums of the bytes of tensors, by which two traces tell that values differ.

The bytes, in the order of the axes, are words of 64 bits. Each counts times an odd number of its own, so that their sum
modulo 2^64 depends on their order. It takes one pass on the device that holds them, and is the same on all devices.
"""

import functools

import numpy as np
import torch
from torch import Tensor

WORD = 8  # bytes
CHUNK = 1 << 14  # words with a factor each; every chunk has one, too
CHUNKS_AT_A_TIME = 256  # on an accelerator: 32 MiB


def has_bytes(x: Tensor) -> bool:
    """Whether the bytes of x can be read: not those of fake, meta, vmapped, traced or sparse tensors."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.layout is torch.strided
        and not x.is_meta
        and torch._C._functorch.peek_interpreter_stack() is None  # no vmap, no func.grad
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and torch._C._get_tracing_state() is None
    )


def written(checksum: int) -> str:
    """A checksum as text, which JSON does not round."""
    return f"{checksum % 2**64:016x}"


def checksum(x: Tensor) -> int:
    """The checksum of a CPU tensor."""
    words, factors, total = _words(x).numpy(), _factors(), 0
    for i in range(0, len(words), CHUNK):
        mixed = _mix(words[i : i + CHUNK])
        total += int(mixed.dot(factors[: len(mixed)])) * odd(i // CHUNK)
    return total


def checksum_later(x: Tensor) -> Tensor:
    """The checksum of a tensor as an int64 scalar on its device, without synchronizing."""
    words = _words(x)
    chunks = torch.nn.functional.pad(words, (0, -len(words) % CHUNK)).view(-1, CHUNK)
    of_chunk = torch.tensor([odd(i) for i in range(len(chunks))], dtype=torch.int64).to(x.device)
    total = torch.zeros((), dtype=torch.int64, device=x.device)
    for part, factors in zip(chunks.split(CHUNKS_AT_A_TIME), of_chunk.split(CHUNKS_AT_A_TIME), strict=True):
        total = total + ((_mix(part) * _factors_on(x.device)).sum(-1) * factors).sum()
    return total


def _words(x: Tensor) -> Tensor:
    """The bytes of a tensor as int64, the last ones filled up with zeros. Shape: any -> (words,)."""
    flat = x.detach().resolve_conj().resolve_neg().contiguous().view(-1).view(torch.uint8)
    missing = -len(flat) % WORD
    if missing or flat.storage_offset() % WORD:
        flat = torch.nn.functional.pad(flat, (0, missing))
    return flat.view(torch.int64)


def _mix(words):
    """Spread the highest bits: two words that differ in one of them alone would count alike if they changed places."""
    return words ^ (words >> 32)


@functools.cache
def _factors() -> np.ndarray:
    """The factor of each word of a chunk. Shape: (CHUNK,) int64."""
    return np.array([odd(CHUNK + i) for i in range(CHUNK)], dtype=np.int64)


@functools.cache
def _factors_on(device: torch.device) -> Tensor:
    return torch.from_numpy(_factors()).to(device)


def odd(i: int) -> int:
    """The i-th of a fixed series of odd 64-bit numbers without a pattern, signed (splitmix64, Steele et al. 2014)."""
    z = (i + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z = (z ^ z >> 31) | 1
    return z - 2**64 if z >= 2**63 else z
