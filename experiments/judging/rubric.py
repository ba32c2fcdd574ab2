"""What the judge is asked, and what counts as an answer.

In the way of TinyStories, Eldan & Li 2023, arXiv:2305.07759, section 4: it reads a beginning that was given, and after
a mark what a model made of it, says what it thinks, and then grades. It never learns which run wrote what.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CRITERIA = ("grammar", "creativity", "consistency", "plot")
AGES = {"A": "3 or younger", "B": "4 or 5", "C": "6 or 7", "D": "8 or 9", "E": "10 to 12", "F": "13 to 16"}
NOTHING = "(nothing)"  # in place of an empty continuation

OUT_OF_TEN = "a whole number from 1 (worst) to 10 (best)"
GRADE = """A child was given the beginning of a text, and went on with it. The beginning breaks off in the middle of \
a sentence, at the mark ***. All that follows the mark is the child's. Judge only that part; the beginning is not the \
child's work. The child had limited room, so an end that is missing is no fault.

{beginning}***{text}

First think about the child's part in general: does it finish the broken sentence in a way that fits, is it correct \
language, does it hold together with the beginning? Then give your grades.

Reply with one JSON object and nothing before or after it, with exactly these keys:
"assessment": what you think of the child's part, in one or two sentences;
"grammar": {scale}: correct and fluent language;
"creativity": {scale}: ideas of its own;
"consistency": {scale}: it fits the beginning and itself, in persons, things and events;
{plot}"age": how old you think the child is, one letter: {ages}."""
PLOT = f'"plot": {OUT_OF_TEN}: the events make sense and lead somewhere;\n'

COMPARE = """Two children were given the same beginning of a text, and each went on with it. The beginning breaks off \
in the middle of a sentence. Both children had limited room, so an end that is missing is no fault. Which child's part \
is better: in its language, in its ideas, and above all in how it fits the beginning and itself? The order in which \
the two stand here means nothing, and neither does their length.

The beginning:
{beginning}***

What child 1 went on with:
***{first}

What child 2 went on with:
***{second}

Reply with one JSON object and nothing before or after it, with exactly these keys:
"assessment": what decides between the two, in one or two sentences;
"better": "1" or "2", or "equal" where neither is better."""


class Verdict(BaseModel):
    """Grades of one continuation; `plot` is asked for on request."""

    model_config = ConfigDict(extra="forbid", strict=True)
    assessment: str
    grammar: int = Field(ge=1, le=10)
    creativity: int = Field(ge=1, le=10)
    consistency: int = Field(ge=1, le=10)
    age: Literal["A", "B", "C", "D", "E", "F"]


class PlotVerdict(Verdict):
    """With a grade for the plot."""

    plot: int = Field(ge=1, le=10)


class Preference(BaseModel):
    """Which of two continuations is better."""

    model_config = ConfigDict(extra="forbid", strict=True)
    assessment: str
    better: Literal["1", "2", "equal"]


@dataclass(frozen=True)
class Question:
    """What the judge reads, and what its reply must be."""

    prompt: str
    answer: type[BaseModel]

    def read(self, reply: str) -> dict[str, Any]:
        """Take a reply for what was asked for, to the letter. Raises ValueError with the first thing wrong with it."""
        try:
            return self.answer.model_validate(json.loads(reply, object_pairs_hook=once)).model_dump()
        except (json.JSONDecodeError, RecursionError):
            raise ValueError("it is not one JSON object and nothing else") from None
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None


def grade_question(beginning: str, text: str, *, plot: bool) -> Question:
    """Have one continuation graded."""
    ages = ", ".join(f"{letter} ({years})" for letter, years in AGES.items())
    prompt = GRADE.format(beginning=beginning, text=text or NOTHING, scale=OUT_OF_TEN, plot=PLOT * plot, ages=ages)
    return Question(prompt, PlotVerdict if plot else Verdict)


def compare_question(beginning: str, first: str, second: str) -> Question:
    """Have the better of two continuations named."""
    prompt = COMPARE.format(beginning=beginning, first=first or NOTHING, second=second or NOTHING)
    return Question(prompt, Preference)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a key stands in it twice, for which of the two is meant?"""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands in it twice")
    return dict(pairs)
