"""The grammar of the tales: menus of words, and rules that are templates with choices in them.

    [fruit]        choose from the menu or rule `fruit`    {gift}      repeat what was remembered
    [gift=fruit]   choose, and remember it as `gift`       {gift.s}    repeat another form of it
    [other fruit]  choose one not yet used in this story   [run|walk]  choose from these words

Forms: `.a` with its article, `.s` plural, `.cap` with a capital; of names `.he .him .his .He .His`.
No option is a prefix of another, and a choice is fixed as soon as it is made, so a text has exactly one derivation.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from math import log2

from tales.words import GIRLS

PRONOUNS = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
ODD_ARTICLES = {"ukulele": "a", "honest": "an"}  # words whose first letter is not their first sound
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


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
    """The Odds of n options, cached."""
    return Odds(n)


def inflect(item: str, form: str) -> str:
    """A form of a menu's entry; an irregular plural follows a slash: "goose/geese"."""
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


class Interpreter:
    """The state of a story; subclasses make the choices and produce or read the text.

    They have `literal(text)`, `repeat(name, form)`, `pick(menu, form, used) -> option`, `choose(rule) -> option`.
    """

    def __init__(self):
        self.plot: str | None = None
        self.known: dict[str, tuple[Menu, int]] = {}  # remembered choices
        self.used: dict[str, list[int]] = {}  # options chosen so far, by menu
        self.bits = 0.0  # -log2 of the probability of the choices so far

    def recall(self, name: str, form: str) -> str:
        """A form of a remembered choice."""
        menu, i = self.known[name]
        return menu.texts(form)[i]

    def count(self, chances: Odds, i: int, used=()) -> float:
        """Add the bits of option i, with the options in `used` excluded; return the total weight of the others."""
        total = chances.total - sum(chances.weights[j] for j in set(used))
        self.bits += log2(total) - chances.log2[i]
        return total


# ---- the parts of a template ----


@dataclass(frozen=True)
class FixedText:
    """Fixed text."""

    text: str

    def apply(self, interpreter: Interpreter) -> None:
        interpreter.literal(self.text)


@dataclass(frozen=True)
class Repeat:
    """The text of a remembered choice, perhaps in another form."""

    name: str
    form: str

    def apply(self, interpreter: Interpreter) -> None:
        interpreter.repeat(self.name, self.form)


@dataclass(frozen=True)
class Pick:
    """A choice from a menu; `name` remembers it, `other` excludes options that the story has used."""

    menu: Menu
    form: str
    name: str
    other: bool

    def apply(self, interpreter: Interpreter) -> None:
        used = interpreter.used.setdefault(self.menu.name, [])
        i = interpreter.pick(self.menu, self.form, used if self.other else ())
        used.append(i)
        if self.name:
            interpreter.known[self.name] = (self.menu, i)


@dataclass(frozen=True)
class Rule:
    """Alternative templates, told apart by their leads: the fixed or repeated text at their beginning."""

    name: str
    labels: list[str] = field(default_factory=list)
    bodies: list[list] = field(default_factory=list)
    leads: list[list] = field(default_factory=list)

    def add(self, label: str, body: list) -> None:
        picks = [i for i, part in enumerate(body) if not isinstance(part, FixedText | Repeat)]
        self.labels.append(label)
        self.bodies.append(body)
        self.leads.append(body[: min(picks, default=len(body))])

    def apply(self, interpreter: Interpreter) -> None:
        i = interpreter.choose(self) if len(self.bodies) > 1 else 0
        if self.name == "plot":
            interpreter.plot = self.labels[i]
        for part in self.bodies[i]:
            part.apply(interpreter)


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
        """Compile a template into parts; a line break is a space, an empty line a new paragraph."""
        paragraphs = [" ".join(lines.split()) for lines in template.strip().split("\n\n")]
        texts = re.split(r"(\[[^]]*\]|\{[^}]*\})", "\n".join(paragraphs))
        return [self.part(text) for text in texts if text]

    def part(self, text: str) -> FixedText | Repeat | Pick | Rule:
        if text[0] == "{":
            name, _, form = text[1:-1].partition(".")
            return Repeat(name, form)
        if text[0] != "[":
            return FixedText(text)
        name, _, source = text[1:-1].rpartition("=")
        if "|" in source:
            menu = self.menus.setdefault(source, Menu(source, source.split("|")))
            return Pick(menu, "", name, False)
        if source in self.rules:
            return self.rules[source]
        menu_name, _, form = source.removeprefix("other ").partition(".")
        return Pick(self.menus[menu_name], form, name, source.startswith("other "))
