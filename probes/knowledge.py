"""Knowledge in several steps, after Physics of Language Models 4.1 (Allen-Zhu 2025): tasks like its Depo and Mano."""

import numpy as np
from numpy.random import Generator

from probes.task import IGNORED, Numbers, Rows, blank_rows, distinct, named, require, require_length
from probes.tracking import OPERATIONS


def depo(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """The edges of a directed cycle, in random order, then questions: how many steps, from where, and the answer.

    A quarter as many nodes as the row has symbols, or all there are; a question asks for 1 to `items` steps.
    """
    nodes = min(n.symbols, length // 4)
    require_length(length, 8, "a cycle and a question")
    require(n.symbols >= 2, f"data.probe.symbols={n.symbols} makes no cycle: use 2 or more")
    cycle = distinct(rng, count, n.symbols, nodes)
    edges = rng.permuted(np.tile(np.arange(nodes), (count, 1)), axis=1)
    follow = np.roll(cycle, -1, axis=1)
    asked = -(-(length - 2 * nodes) // 3)
    steps, start = rng.integers(n.items, size=(count, asked)), rng.integers(nodes, size=(count, asked))
    node, answer = (np.take_along_axis(cycle, place, axis=1) for place in (start, (start + 1 + steps) % nodes))
    inputs = [np.take_along_axis(part, edges, axis=1) for part in (cycle, follow)], [n.symbols + steps, node, answer]
    joined = np.concatenate([np.stack(parts, axis=-1).reshape(count, -1) for parts in inputs], axis=1)
    answers = np.full(joined.shape, IGNORED)
    answers[:, 2 * nodes + 1::3] = answer
    return Rows(joined[:, :length], answers[:, :length])


def depo_words(n: Numbers) -> list[str]:
    """Nodes, and numbers of steps."""
    return [*named("x", n.symbols), *(f"+{steps}" for steps in range(1, n.items + 1))]


def mano(rng: Generator, count: int, length: int, n: Numbers) -> Rows:
    """An expression of residues in prefix notation, and an equals sign, which asks for its value.

    It has between half and all of the operations for which a row has room. What is left is blank.
    """
    require(n.symbols >= 2, f"data.probe.symbols={n.symbols} has one residue: use 2 or more")
    require_length(length, 4, "a sum")
    most = (length - 2) // 2
    rows = blank_rows(count, length, n.symbols + len(OPERATIONS) + 1)
    for row, size in enumerate(rng.integers(-(-most // 2), most + 1, size=count)):
        said, value = expression(rng, size, n.symbols)
        rows.inputs[row, :len(said) + 1] = [*said, n.symbols + len(OPERATIONS)]
        rows.answers[row, len(said)] = value
    return rows


def expression(rng: Generator, size: int, modulus: int) -> tuple[list[int], int]:
    """A random expression of `size` operations, as symbols, and its value."""
    if size == 0:
        residue = int(rng.integers(modulus))
        return [residue], residue
    operation, left = int(rng.integers(len(OPERATIONS))), int(rng.integers(size))
    (first, a), (second, b) = expression(rng, left, modulus), expression(rng, size - 1 - left, modulus)
    return [modulus + operation, *first, *second], (a + b, a - b, a * b)[operation] % modulus


def mano_words(n: Numbers) -> list[str]:
    """Residues, operations, an equals sign and a blank."""
    return [*named("", n.symbols), *OPERATIONS, "=", "_"]
