"""The built-in corpus: endless children's stories from a grammar whose exact entropy is known.

The words and plots stand in words.py, the engine in grammar.py. A story has exactly one
derivation, so its probability is exact, and the corpus has a floor in bits per byte that no model
can beat; `grade` says whether a generated story is grammatical and keeps to its own facts.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import sqrt
from pathlib import Path

from tales.grammar import WORD, Break, Choice, Grammar, Pick, Reader, Repeat, Say, Writer
from tales.words import MENUS, PLOTS, RULES

GRAMMAR = Grammar(MENUS, RULES, PLOTS)
STORY = GRAMMAR.rules["story"]
# what decides the text of the corpus
SOURCES = [Path(__file__).with_name(name) for name in ("stories.py", "grammar.py", "words.py")]


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
    picks: tuple[Choice, ...]
    bits: float


@dataclass(frozen=True)
class Grade:
    """Whether a text is a whole story; if not, where it first breaks and why.

    `position` counts the characters before the break. `kind` is "" when passed, "unfinished" when
    the text stops too early, "consistency" when an earlier choice was contradicted, else "grammar".
    """

    passed: bool
    position: int
    plot: str | None
    message: str
    kind: str


@dataclass(frozen=True)
class Entropy:
    """The floor under every loss on this corpus; `standard_error` is that of `bits_per_byte`.

    Bytes are those of the stories' text; what separates stories in a file is not counted.
    """

    bits_per_story: float
    bytes_per_story: float
    bits_per_byte: float
    standard_error: float
    num_stories: int


def write(seed: int, index: int) -> Writer:
    """Return the writer of one story, when it has written it."""
    writer = Writer(random.Random(f"{seed}:{index}"))
    STORY.tell(writer)
    return writer


def story(seed: int, index: int) -> Story:
    """Return story `index` of the corpus `seed`, the same on every platform and Python >= 3.11.

    Each story has its own generator, random.Random(f"{seed}:{index}"), of which only random() is
    used: Python keeps both the seeding by a string and that stream the same between versions.
    """
    writer = write(seed, index)
    return Story("".join(writer.parts), writer.bits, writer.plot)


def stories(seed: int, start: int = 0) -> Iterator[Story]:
    """Yield the stories of the corpus `seed` from index `start` on, without end."""
    return (story(seed, index) for index in count(start))


def bits(text: str) -> float:
    """Return the exact -log2 probability of a whole story; ValueError where it is not one."""
    return Reader(text).read(STORY).bits


def parse(text: str) -> Parse:
    """Return the one derivation of a whole story; ValueError where the text is not one."""
    reader = Reader(text).read(STORY)
    return Parse(reader.plot, tuple(reader.picks), reader.bits)


def grade(text: str) -> Grade:
    """Say whether a text is a whole, consistent story, and if not, where it breaks and why.

    The text is the story alone: space before or after it is a break as well.
    """
    reader = Reader(text)
    try:
        reader.read(STORY)
    except Break as stop:
        return Grade(False, stop.position, reader.plot, str(stop), stop.kind)
    return Grade(True, len(text), reader.plot, "", "")


def entropy(seed: int = 0, num_stories: int = 2000) -> Entropy:
    """Estimate the entropy of the corpus in bits per byte from a sample of stories.

    It averages the exact entropy of every choice met, which has the same mean as -log2 p of the
    stories but varies less. The standard error is that of a ratio of two means.
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
    """Return every distinct word, in lower case, that the grammar can write."""
    found: set[str] = set()
    menus = {}
    parts = [part for rule in GRAMMAR.rules.values() for body in rule.bodies for part in body]
    for part in parts:
        texts = [part.text] if isinstance(part, Say) else []
        if isinstance(part, Pick):
            menus[part.name] = part.menu
            texts = part.menu.texts(part.form)
        if isinstance(part, Repeat):
            texts = menus[part.name].texts(part.form)
        found.update(word.lower() for text in texts for word in WORD.findall(text))
    return found
