"""Pairs of a source and a target made of the stories: their openings, sentences in reverse order, and questions."""

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tales.grammar import Menu
from tales.interpreters import Writer
from tales.stories import STORY

NUMBERS = ("no", "one", "two", "three", "four", "five")
ADJECTIVES = ("color", "look", "taste", "trait")  # menus


class Pair(NamedTuple):
    """A source, and the target that is written after it."""

    source: str
    target: str


class Pick(NamedTuple):
    """A choice from a menu, and its place among the parts of the story."""

    place: int
    menu: str
    form: str
    word: str  # without an article


class Recorder(Writer):
    """Writes the story of a number, and keeps its choices and its sections: the opening, the habit, the plot."""

    def __init__(self, seed: int, index: int):
        super().__init__(random.Random(f"{seed}:{index}"))
        self.picks: list[Pick] = []
        self.sections: list[str] = []
        for part in STORY.bodies[0]:
            begin = len(self.parts)
            part.apply(self)
            self.sections.append("".join(self.parts[begin:]))
        self.text = "".join(self.parts)

    def pick(self, menu: Menu, form: str, used) -> int:
        i = super().pick(menu, form, used)
        word = menu.texts("" if form == "a" else form)[i]
        self.picks.append(Pick(len(self.parts) - 1, menu.name, form, word))
        return i

    @property
    def hero(self) -> str:
        return self.recall("hero", "")

    def phrases(self, *menus: str) -> Iterator[list[Pick]]:
        """Choices that stand side by side, with a space between two, from a choice of the menus to a noun."""
        by_place = {pick.place: pick for pick in self.picks}
        for first in self.picks:
            phrase = [first]
            while first.menu in menus and self.parts[phrase[-1].place + 1:][:1] == [" "]:
                following = by_place.get(phrase[-1].place + 2)
                if following is None:
                    break
                phrase.append(following)
                if following.menu not in ADJECTIVES:
                    yield phrase
                    break


# ---- questions: each function gives those of one kind, with their only answers ----


def about(story: Recorder) -> Iterator[Pair]:
    yield Pair("Who is the story about?", story.hero)


def animals(story: Recorder) -> Iterator[Pair]:
    """A name is followed by an animal: Mia the eager goose."""
    yield Pair(f"What animal is {story.hero}?", story.recall("kind", ""))
    for number, pick in enumerate(story.picks):
        following = next((other for other in story.picks[number + 1:] if other.menu != "trait"), None)
        if pick.menu == "name" and pick.word != story.hero and following and following.menu == "animal":
            yield Pair(f"What animal is {pick.word}?", following.word)


def names(story: Recorder) -> Iterator[Pair]:
    yield Pair("How many names are in the story?", NUMBERS[sum(pick.menu == "name" for pick in story.picks)])


def amounts(story: Recorder) -> Iterator[Pair]:
    """Four plump squirrels, if the story speaks of squirrels nowhere else."""
    for number, *_, noun in story.phrases("number"):
        if noun.form == "s" and count_of(noun.word, story.text) == 1:
            yield Pair(f"How many {noun.word}?", number.word)


def colors(story: Recorder) -> Iterator[Pair]:
    """A silver belt, if every belt of the story is silver."""
    for color, noun in (phrase for phrase in story.phrases("color") if len(phrase) == 2):
        phrase = f"{color.word} {noun.word}"
        if noun.form == "" and count_of(noun.word, story.text) == count_of(phrase, story.text):
            yield Pair(f"What color is the {noun.word}?", color.word)


def homes(story: Recorder) -> Iterator[Pair]:
    """In a cozy dale, if the opening names a land."""
    for scene, *_, noun in story.phrases("scene"):
        home = f"in {story.parts[scene.place]} {noun.word}"
        if noun.menu == "land" and home.removeprefix("in ") in story.sections[0]:
            yield Pair(f"Where does {story.hero} live?", home)


QUESTIONS: tuple[Callable[[Recorder], Iterator[Pair]], ...] = (about, animals, names, amounts, colors, homes)


def count_of(words: str, text: str) -> int:
    """How often words stand in a text as whole words."""
    return len(re.findall(rf"\b{re.escape(words)}\b", text))


# ---- tasks ----


def opening(seed: int, index: int) -> Pair:
    """The first sentence of a story, and the rest of it."""
    first, *rest = Recorder(seed, index).sections
    return Pair(first, "".join(rest))


def in_reverse(seed: int, index: int) -> Pair:
    """The first or the second sentence of a story, and its words in reverse order."""
    first, _, second, *_ = Recorder(seed, index).sections
    sentence = random.Random(f"{seed}:{index}:reversed").choice((first, second))
    return Pair(sentence, " ".join(reversed(sentence.split(" "))))


def question(seed: int, index: int) -> Pair:
    """A story and a question about it, of a kind drawn from those that can be asked, and the answer."""
    story, rng = Recorder(seed, index), random.Random(f"{seed}:{index}:questions")
    kinds = list(filter(None, (list(kind(story)) for kind in QUESTIONS)))
    asked, answer = rng.choice(rng.choice(kinds))
    return Pair(f"{story.text}\n{asked}", answer)


# word of data.name -> its pair of a seed and a number
TASKS = {"tales-opening": opening, "tales-reversed": in_reverse, "tales-questions": question}
