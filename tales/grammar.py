"""The engine of tales.py: menus of words, rules of templates, and what writes and reads them.

    [fruit]        choose from the menu or rule `fruit`    {gift}      repeat what was remembered
    [gift=fruit]   choose, and remember it as `gift`       {gift.s}    repeat another form of it
    [other fruit]  choose one not yet used in this story   [run|walk]  choose from these words

Forms: `.a` with its article, `.s` plural, `.cap` with a capital; of names `.he .him .his .He .His`.
Every choice is written down at the moment it is made, and no option begins like another, so a text
names exactly one derivation.
"""

import os.path
import random
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from math import log2

from tales.words import GIRLS

PRONOUNS = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
ODD_ARTICLES = {"ukulele": "a", "honest": "an"}  # whose first letter is not their first sound
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


@dataclass(frozen=True)
class Choice:
    """One choice of a derivation: the menu or rule, and the span of text that names the option."""

    menu: str
    text: str
    start: int
    end: int


class Break(ValueError):
    """The text left the grammar at `position`, where one of the `expected` words had to stand."""

    def __init__(self, position: int, expected: set[str], found: str, kind: str, reason: str = ""):
        self.position, self.expected, self.found, self.kind = position, expected, found, kind
        some = sorted(expected)[:3] + ["..."] * (len(expected) > 3)
        wanted = " or ".join(repr(word) if word != "..." else word for word in some)
        what = f"found {found!r}" if found else "the text ends"
        super().__init__(f"at character {position}: expected {wanted}, {what}{reason}")


# ---- the grammar: menus of words, rules of templates ----


class Odds:
    """The probabilities of n options: the first is about twice as likely as the last."""

    def __init__(self, n: int):
        self.weights = [2 * n - i for i in range(n)]
        self.log2 = [log2(weight) for weight in self.weights]
        self.cumulative = list(accumulate(self.weights))
        self.total = self.cumulative[-1]
        self.weighted_log2 = sum(w * bits for w, bits in zip(self.weights, self.log2, strict=True))


@cache
def odds(n: int) -> Odds:
    """Return the one Odds of n options."""
    return Odds(n)


def inflect(item: str, form: str) -> str:
    """Return the form of a menu's entry; an irregular plural is written into it: "goose/geese"."""
    one, _, many = item.partition("/")
    if form == "a":
        article = "an" if one[0] in "aeiou" else "a"
        return f"{ODD_ARTICLES.get(one, article)} {one}"
    if form == "s":
        if many:
            return many
        if re.search(r"(s|x|z|ch|sh)$", one):
            return one + "es"
        return one[:-1] + "ies" if re.search(r"[^aeiou]y$", one) else one + "s"
    if form in PRONOUNS:
        return PRONOUNS[form] if one in GIRLS else form
    if form == "cap":
        return one[0].upper() + one[1:]
    assert not form, f"unknown form {form!r}"
    return one


class Menu:
    """A list of words to choose from, in all their forms."""

    def __init__(self, name: str, items: list[str]):
        self.name, self.items, self.odds = name, items, odds(len(items))
        self.texts = cache(lambda form: [inflect(item, form) for item in items])
        self.index = cache(lambda form: {text: i for i, text in enumerate(self.texts(form))})
        self.lengths = cache(lambda form: sorted({len(text) for text in self.texts(form)}))


@dataclass(frozen=True)
class Say:
    """Fixed text."""

    text: str

    def tell(self, teller: "Teller") -> None:
        teller.say(self.text)


@dataclass(frozen=True)
class Repeat:
    """The text of an earlier choice, perhaps in another form."""

    name: str
    form: str

    def tell(self, teller: "Teller") -> None:
        teller.repeat(self.name, self.form)


@dataclass(frozen=True)
class Pick:
    """A word chosen from a menu, and the name it is remembered by."""

    menu: Menu
    form: str
    name: str
    other: bool

    def tell(self, teller: "Teller") -> None:
        used = teller.used.setdefault(self.menu.name, [])
        i = teller.pick(self.menu, self.form, used if self.other else ())
        used.append(i)
        if self.name:
            teller.known[self.name] = (self.menu, i)


@dataclass(frozen=True)
class Rule:
    """Alternative templates; each starts with a lead of fixed or repeated text that tells it."""

    name: str
    labels: list[str] = field(default_factory=list)
    bodies: list[list] = field(default_factory=list)
    leads: list[list] = field(default_factory=list)

    def add(self, label: str, body: list) -> None:
        picks = [i for i, part in enumerate(body) if not isinstance(part, Say | Repeat)]
        self.labels.append(label)
        self.bodies.append(body)
        self.leads.append(body[: min(picks, default=len(body))])

    def tell(self, teller: "Teller") -> None:
        i = teller.choose(self) if len(self.bodies) > 1 else 0
        if self.name == "plot":
            teller.plot = self.labels[i]
        for part in self.bodies[i]:
            part.tell(teller)


class Grammar:
    """The menus and rules, compiled from templates."""

    def __init__(self, menus: dict[str, str], rules: dict[str, str], plots: dict[str, str]):
        self.menus = {name: Menu(name, text.split(", ")) for name, text in menus.items()}
        self.rules = {name: Rule(name) for name in [*rules, "plot"]}
        for name, text in rules.items():
            for alternative in text.split("\n- ")[1:]:
                self.rules[name].add("", self.compile(alternative))
        for label, text in plots.items():
            self.rules["plot"].add(label, self.compile(text))

    def compile(self, template: str) -> list:
        """Turn a template into parts; a line break is a space, an empty line a new paragraph."""
        paragraphs = [" ".join(lines.split()) for lines in template.strip().split("\n\n")]
        pieces = re.split(r"(\[[^]]*\]|\{[^}]*\})", "\n".join(paragraphs))
        return [self.part(piece) for piece in pieces if piece]

    def part(self, piece: str) -> Say | Repeat | Pick | Rule:
        if piece[0] == "{":
            name, _, form = piece[1:-1].partition(".")
            return Repeat(name, form)
        if piece[0] != "[":
            return Say(piece)
        name, _, source = piece[1:-1].rpartition("=")
        if "|" in source:
            menu = self.menus.setdefault(source, Menu(source, source.split("|")))
            return Pick(menu, "", name, False)
        if source in self.rules:
            return self.rules[source]
        menu_name, _, form = source.removeprefix("other ").partition(".")
        return Pick(self.menus[menu_name], form, name, source.startswith("other "))


# ---- the interpreters: one writes stories, one reads them ----


class Teller:
    """What is known while a story is told; a subclass makes the choices."""

    def __init__(self):
        self.plot: str | None = None
        self.known: dict[str, tuple[Menu, int]] = {}
        self.used: dict[str, list[int]] = {}
        self.bits = 0.0

    def recall(self, name: str, form: str) -> str:
        menu, i = self.known[name]
        return menu.texts(form)[i]

    def count(self, chances: Odds, i: int, used=()) -> float:
        """Add the bits of option i, where those in `used` were not allowed; return the total."""
        total = chances.total - sum(chances.weights[j] for j in set(used))
        self.bits += log2(total) - chances.log2[i]
        return total


class Writer(Teller):
    """Draws every choice; `entropy` adds up the exact entropy in bits of the choices met."""

    def __init__(self, rng: random.Random):
        super().__init__()
        self.draw = rng.random
        self.parts: list[str] = []
        self.entropy = 0.0

    def say(self, text: str) -> None:
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


class Reader(Teller):
    """Lets a text decide every choice; raises Break where the text leaves the grammar."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.position = text, 0
        self.picks: list[Choice] = []

    def read(self, story: Rule) -> "Reader":
        """Read one story to the end of the text."""
        story.tell(self)
        if self.position < len(self.text):
            found = word_at(self.text, self.position)
            raise Break(self.position, {"the end of the story"}, found, "grammar")
        return self

    def say(self, text: str) -> None:
        if not self.text.startswith(text, self.position):
            raise self.broken([text])
        self.position += len(text)

    def repeat(self, name: str, form: str) -> None:
        text = self.recall(name, form)
        end = self.position + len(text)
        if not self.text.startswith(text, self.position) or self.inside_word(end):
            stop = self.broken([text])
            menu, i = self.known[name]
            if stop.kind == "grammar" and self.find(menu, form) is not None:
                reason = f" ({menu.texts('')[i]} was chosen before)"
                stop = Break(stop.position, stop.expected, stop.found, "consistency", reason)
            raise stop
        self.position = end

    def pick(self, menu: Menu, form: str, used) -> int:
        i = self.find(menu, form)
        if i is None:
            raise self.broken(menu.texts(form), f" (of the menu {menu.name!r})")
        text = menu.texts(form)[i]
        if i in used:
            expected = {f"another {menu.name}"}
            raise Break(self.position, expected, text, "consistency", " (it was used before)")
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
        """Keep a choice; return the position after its text."""
        end = self.position + len(text)
        self.picks.append(Choice(menu, text, self.position, end))
        return end

    def wording(self, lead: list) -> str:
        """Return the text of fixed and repeated parts."""
        return "".join(
            part.text if isinstance(part, Say) else self.recall(part.name, part.form)
            for part in lead
        )

    def inside_word(self, position: int) -> bool:
        character = self.text[position : position + 1]
        return character.isalpha() or character == "-"

    def find(self, menu: Menu, form: str) -> int | None:
        """Return the option of a menu that stands here, whole."""
        for length in menu.lengths(form):
            end = self.position + length
            i = menu.index(form).get(self.text[self.position : end])
            if i is not None and not self.inside_word(end):
                return i
        return None

    def broken(self, options: list[str], reason: str = "") -> Break:
        """Return the break of a text that continues like none of the options."""
        rest = self.text[self.position :]
        unfinished = [word_at(option, len(rest)) for option in options if option.startswith(rest)]
        if unfinished:
            return Break(len(self.text), set(unfinished), "", "unfinished", reason)
        starts = [word_start(option, rest) for option in options]
        furthest = max(starts)
        pairs = zip(options, starts, strict=True)
        expected = {word_at(option, start) for option, start in pairs if start == furthest}
        found = word_at(rest, furthest)
        return Break(self.position + furthest, expected, found, "grammar", reason)

    def no_alternative(self, rule: Rule) -> Break:
        """Return the furthest break among a rule's alternatives."""
        position, breaks = self.position, []
        for lead in rule.leads:
            self.position = position
            try:
                for part in lead:
                    part.tell(self)
            except Break as stop:
                breaks.append(stop)
        furthest = max(stop.position for stop in breaks)
        breaks = [stop for stop in breaks if stop.position == furthest]
        for stop in breaks:
            if stop.kind == "consistency":
                return stop
        expected = set().union(*(stop.expected for stop in breaks))
        return Break(furthest, expected, breaks[0].found, breaks[0].kind)


def word_at(text: str, position: int) -> str:
    """Return the word (or the single other character) of which `position` is a part."""
    start = position
    while start and text[start - 1 : start + 1].isalpha():
        start -= 1
    match = WORD.match(text, start)
    return match[0] if match else text[start : start + 1]


def word_start(option: str, text: str) -> int:
    """Return where the first word starts in which a text differs from an option."""
    i = len(os.path.commonprefix([option, text]))
    while i and option[i - 1].isalpha():
        i -= 1
    return i
