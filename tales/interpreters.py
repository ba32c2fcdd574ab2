"""The two interpreters of the grammar: one writes stories, one reads them."""

import os.path
import random
from bisect import bisect_right
from dataclasses import dataclass
from math import log2

from tales.grammar import WORD, FixedText, Interpreter, Menu, Odds, Rule, odds


@dataclass(frozen=True)
class ParsedChoice:
    """One choice of a derivation: the menu or rule, and the span of text that determines the option."""

    menu: str
    text: str
    start: int
    end: int


class ParseError(ValueError):
    """The text leaves the grammar at `position`, where one of the `expected` words should be."""

    def __init__(self, position: int, expected: set[str], found: str, kind: str, reason: str = ""):
        self.position, self.expected, self.found, self.kind = position, expected, found, kind
        some = sorted(expected)[:3] + ["..."] * (len(expected) > 3)
        wanted = " or ".join(repr(word) if word != "..." else word for word in some)
        what = f"found {found!r}" if found else "the text ends"
        super().__init__(f"at character {position}: expected {wanted}, {what}{reason}")


class Writer(Interpreter):
    """Draws every choice. `entropy` is the sum of the exact entropies, in bits, of the choices met."""

    def __init__(self, rng: random.Random):
        super().__init__()
        self.draw = rng.random
        self.parts: list[str] = []
        self.entropy = 0.0

    def literal(self, text: str) -> None:
        self.parts.append(text)

    def repeat(self, name: str, form: str) -> None:
        self.parts.append(self.recall(name, form))

    def pick(self, menu: Menu, form: str, used) -> int:
        i = self.sample(menu.odds, used)
        self.parts.append(menu.texts(form)[i])
        return i

    def choose(self, rule: Rule) -> int:
        return self.sample(odds(len(rule.bodies)), ())

    def sample(self, chances: Odds, used) -> int:
        i = bisect_right(chances.cumulative, int(self.draw() * chances.total))
        while i in used:
            i = bisect_right(chances.cumulative, int(self.draw() * chances.total))
        total = self.count(chances, i, used)
        lost = sum(chances.weights[j] * chances.log2[j] for j in set(used))
        self.entropy += log2(total) - (chances.weighted_log2 - lost) / total
        return i


class Reader(Interpreter):
    """Finds the choices that give a text. Raises ParseError at the position at which the text leaves the grammar."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.position = text, 0
        self.picks: list[ParsedChoice] = []

    def read(self, story: Rule) -> "Reader":
        """Read one story to the end of the text."""
        story.apply(self)
        if self.position < len(self.text):
            found = word_at(self.text, self.position)
            raise ParseError(self.position, {"the end of the story"}, found, "grammar")
        return self

    def literal(self, text: str) -> None:
        if not self.text.startswith(text, self.position):
            raise mismatch(self.text, self.position, [text])
        self.position += len(text)

    def repeat(self, name: str, form: str) -> None:
        text = self.recall(name, form)
        end = self.position + len(text)
        if not self.text.startswith(text, self.position) or is_inside_word(self.text, end):
            error = mismatch(self.text, self.position, [text])
            menu, i = self.known[name]
            if error.kind == "grammar" and find_option(menu, form, self.text, self.position) is not None:
                reason = f" ({menu.texts('')[i]} was chosen before)"
                error = ParseError(error.position, error.expected, error.found, "consistency", reason)
            raise error
        self.position = end

    def pick(self, menu: Menu, form: str, used) -> int:
        i = find_option(menu, form, self.text, self.position)
        if i is None:
            raise mismatch(self.text, self.position, menu.texts(form), f" (of the menu {menu.name!r})")
        text = menu.texts(form)[i]
        if i in used:
            expected = {f"another {menu.name}"}
            raise ParseError(self.position, expected, text, "consistency", " (it was used before)")
        self.count(menu.odds, i, used)
        self.position = self.note(menu.name, text)
        return i

    def choose(self, rule: Rule) -> int:
        for i, lead in enumerate(rule.leads):
            text = self.wording(lead)
            if self.text.startswith(text, self.position):
                self.count(odds(len(rule.bodies)), i)
                self.note(rule.name, text)
                return i
        raise self.no_alternative(rule)

    def note(self, menu: str, text: str) -> int:
        """Record a choice; return the position after its text."""
        end = self.position + len(text)
        self.picks.append(ParsedChoice(menu, text, self.position, end))
        return end

    def wording(self, lead: list) -> str:
        """The text of fixed and repeated parts."""
        return "".join(
            part.text if isinstance(part, FixedText) else self.recall(part.name, part.form)
            for part in lead
        )

    def no_alternative(self, rule: Rule) -> ParseError:
        """The error of the alternative that matches furthest."""
        position, errors = self.position, []
        for lead in rule.leads:
            self.position = position
            try:
                for part in lead:
                    part.apply(self)
            except ParseError as error:
                errors.append(error)
        return furthest_error(errors)


def furthest_error(errors: list[ParseError]) -> ParseError:
    """The error at the furthest position; of several one about consistency, else one that expects all their words."""
    furthest = max(error.position for error in errors)
    errors = [error for error in errors if error.position == furthest]
    for error in errors:
        if error.kind == "consistency":
            return error
    expected = set().union(*(error.expected for error in errors))
    return ParseError(furthest, expected, errors[0].found, errors[0].kind)


def mismatch(text: str, position: int, options: list[str], reason: str = "") -> ParseError:
    """The error of a text that continues with none of the options at a position."""
    rest = text[position:]
    unfinished = [word_at(option, len(rest)) for option in options if option.startswith(rest)]
    if unfinished:
        return ParseError(len(text), set(unfinished), "", "unfinished", reason)
    starts = [word_start(option, rest) for option in options]
    furthest = max(starts)
    pairs = zip(options, starts, strict=True)
    expected = {word_at(option, start) for option, start in pairs if start == furthest}
    return ParseError(position + furthest, expected, word_at(rest, furthest), "grammar", reason)


def find_option(menu: Menu, form: str, text: str, position: int) -> int | None:
    """The option of a menu at a position of a text, as a whole word; None if there is none."""
    for length in menu.lengths(form):
        end = position + length
        i = menu.index(form).get(text[position:end])
        if i is not None and not is_inside_word(text, end):
            return i
    return None


def is_inside_word(text: str, position: int) -> bool:
    character = text[position : position + 1]
    return character.isalpha() or character == "-"


def word_at(text: str, position: int) -> str:
    """The word, or the single other character, at a position."""
    start = position
    while start and text[start - 1 : start + 1].isalpha():
        start -= 1
    match = WORD.match(text, start)
    return match[0] if match else text[start : start + 1]


def word_start(option: str, text: str) -> int:
    """The start of the first word in which a text differs from an option."""
    i = len(os.path.commonprefix([option, text]))
    while i and option[i - 1].isalpha():
        i -= 1
    return i
