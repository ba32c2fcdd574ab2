"""State tracking: each input changes a state, and the state is asked for after it."""

from functools import cache
from itertools import permutations

import numpy as np
from numpy.random import Generator

from probes.task import IGNORED, Numbers, Rows, named, require, require_length

OPERATIONS = "+-*"


def parity(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Bits; after each, whether the ones so far are odd in number."""
    bits = rng.integers(2, size=(count, length))
    return Rows(bits, bits.cumsum(axis=1) % 2)


def modular_arithmetic(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Residues with +, - and * between them; after each residue the result so far, read from left to right."""
    modulus = n.symbols
    require(modulus >= 2, f"data.probe.symbols={modulus} has one residue: use 2 or more")
    require_length(length, 3, "a sum")
    inputs, answers = rng.integers(modulus, size=(count, length)), np.full((count, length), IGNORED)
    operation = rng.integers(len(OPERATIONS), size=(count, length // 2))
    state = answers[:, 0] = inputs[:, 0]
    for step in range(1, -(-length // 2)):
        number = inputs[:, 2 * step]
        state = np.choose(operation[:, step - 1], [state + number, state - number, state * number]) % modulus
        answers[:, 2 * step] = state
    inputs[:, 1::2] = modulus + operation
    return Rows(inputs, answers)


def residue_words(n: Numbers) -> list[str]:
    """Residues, and the operations."""
    return [*named("", n.symbols), *OPERATIONS]


@cache
def elements(group: str) -> list[tuple[int, ...]]:
    """The permutations of a group: s3, s5 all of so many points, a5 the even ones, z60 the powers of a 60-cycle."""
    if group[0] == "z":
        points = range(int(group[1:]))
        return [tuple((point + shift) % len(points) for point in points) for shift in points]
    found = sorted(permutations(range(int(group[1:]))))
    return [one for one in found if group[0] == "s" or not inversions(one) % 2]


def inversions(permutation: tuple[int, ...]) -> int:
    """The number of pairs that stand in the wrong order; it is even for an even permutation."""
    return sum(earlier > later for place, later in enumerate(permutation) for earlier in permutation[:place])


@cache
def products(group: str) -> np.ndarray:
    """The product of two elements, by their numbers: first a, then b. Shape: (elements, elements)."""
    table = np.array(elements(group))
    number = {one: place for place, one in enumerate(elements(group))}
    return np.array([[number[tuple(row)] for row in table[:, list(a)]] for a in elements(group)])  # b[a[x]]


def word_problem(group: str, rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """Elements of a group; after each the product of all so far."""
    table = products(group)
    inputs = rng.integers(len(table), size=(count, length))
    answers = inputs.copy()
    for place in range(1, length):
        answers[:, place] = table[answers[:, place - 1], inputs[:, place]]
    return Rows(inputs, answers)


def group_words(group: str, n: Numbers) -> list[str]:
    """The elements, e.g. (120) for 0 -> 1, 1 -> 2, 2 -> 0; those of z60 are its powers."""
    if group[0] == "z":
        return named("z", len(elements(group)))
    return [f"({''.join(map(str, one))})" for one in elements(group)]
