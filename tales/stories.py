"""Write, parse and grade the stories of the built-in corpus, and compute its entropy.

A story has exactly one derivation, so its probability is exact, and so is the entropy of the corpus: a lower bound of
bits per byte for every model. `grade` says whether a generated story is grammatical and consistent.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import sqrt
from pathlib import Path

from tales.grammar import WORD, FixedText, Grammar, Pick, Repeat
from tales.interpreters import ParsedChoice, ParseError, Reader, Writer
from tales.words import MENUS, PLOTS, RULES

GRAMMAR = Grammar(MENUS, RULES, PLOTS)
STORY = GRAMMAR.rules["story"]
# the files that determine the text of the corpus
SOURCES = [Path(__file__).with_name(name) for name in ("stories.py", "grammar.py", "interpreters.py", "words.py")]


@dataclass(frozen=True)
class Story:
    """One story; `bits` is its exact -log2 probability, its end included."""

    text: str
    bits: float
    plot: str


@dataclass(frozen=True)
class Parse:
    """The one derivation of a story; `bits` is -log2 of its probability."""

    plot: str
    picks: tuple[ParsedChoice, ...]
    bits: float


@dataclass(frozen=True)
class Grade:
    """Whether a text is a complete, consistent story; if not, where and why it first breaks.

    `position` is the number of characters before the break. `kind` is "" if passed, "unfinished" if the text ends too
    early, "consistency" if it contradicts an earlier choice, else "grammar".
    """

    passed: bool
    position: int
    plot: str | None
    message: str
    kind: str


@dataclass(frozen=True)
class Entropy:
    """The entropy of the corpus, a lower bound of every loss on it; `standard_error` is that of `bits_per_byte`.

    Bytes are those of the stories, without separators between them.
    """

    bits_per_story: float
    bytes_per_story: float
    bits_per_byte: float
    standard_error: float
    num_stories: int


def write(seed: int, index: int) -> Writer:
    """Write one story; return its writer."""
    writer = Writer(random.Random(f"{seed}:{index}"))
    STORY.apply(writer)
    return writer


def story(seed: int, index: int) -> Story:
    """Story `index` of the corpus `seed`, the same on every platform and Python >= 3.11.

    Each story has its own generator, random.Random(f"{seed}:{index}"), of which only random() is
    used: Python keeps both the seeding by a string and that sequence the same between versions.
    """
    writer = write(seed, index)
    return Story("".join(writer.parts), writer.bits, writer.plot)


def stories(seed: int, start: int = 0) -> Iterator[Story]:
    """Yield the stories of the corpus `seed` from index `start` on, without end."""
    return (story(seed, index) for index in count(start))


def bits(text: str) -> float:
    """The exact -log2 probability of a story. Raises ValueError if the text is not one."""
    return Reader(text).read(STORY).bits


def parse(text: str) -> Parse:
    """The derivation of a story. Raises ParseError, a ValueError, if the text is not one."""
    reader = Reader(text).read(STORY)
    return Parse(reader.plot, tuple(reader.picks), reader.bits)


def grade(text: str) -> Grade:
    """Grade a text: whether it is a complete, consistent story, and if not, where and why it breaks.

    The text is the story alone: space before or after it is a break.
    """
    reader = Reader(text)
    try:
        reader.read(STORY)
    except ParseError as error:
        return Grade(False, error.position, reader.plot, str(error), error.kind)
    return Grade(True, len(text), reader.plot, "", "")


def entropy(seed: int = 0, num_stories: int = 2000) -> Entropy:
    """Estimate the entropy of the corpus in bits per byte from a sample of stories.

    Averages the exact entropy of every choice met, which has the same mean as -log2 p of the stories and a smaller
    variance. The standard error is that of a ratio of two means.
    """
    writers = [write(seed, index) for index in range(num_stories)]
    bits = [writer.entropy for writer in writers]
    sizes = [sum(map(len, writer.parts)) for writer in writers]
    ratio = sum(bits) / sum(sizes)
    spread = sum((b - ratio * size) ** 2 for b, size in zip(bits, sizes, strict=True))
    return Entropy(
        bits_per_story=sum(bits) / num_stories,
        bytes_per_story=sum(sizes) / num_stories,
        bits_per_byte=ratio,
        standard_error=sqrt(spread) / sum(sizes),
        num_stories=num_stories,
    )


def words() -> set[str]:
    """Every distinct word, in lower case, that the grammar can write."""
    found: set[str] = set()
    menus = {}
    parts = [part for rule in GRAMMAR.rules.values() for body in rule.bodies for part in body]
    for part in parts:
        texts = [part.text] if isinstance(part, FixedText) else []
        if isinstance(part, Pick):
            menus[part.name] = part.menu
            texts = part.menu.texts(part.form)
        if isinstance(part, Repeat):
            texts = menus[part.name].texts(part.form)
        found.update(word.lower() for text in texts for word in WORD.findall(text))
    return found
