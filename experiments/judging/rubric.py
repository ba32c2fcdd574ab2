"""The questions to the judge, and what counts as an answer.

As in TinyStories (Eldan & Li 2023, arXiv:2305.07759, section 4) it reads a prompt and, after a mark, a continuation,
writes an assessment, and then grades. It never learns which run wrote what.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CRITERIA = ("grammar", "creativity", "consistency", "plot")
AGES = {"A": "3 or younger", "B": "4 or 5", "C": "6 or 7", "D": "8 or 9", "E": "10 to 12", "F": "13 to 16"}
NOTHING = "(nothing)"  # stands for an empty continuation

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
    """Grades of one continuation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    assessment: str
    grammar: int = Field(ge=1, le=10)
    creativity: int = Field(ge=1, le=10)
    consistency: int = Field(ge=1, le=10)
    age: Literal["A", "B", "C", "D", "E", "F"]


class PlotVerdict(Verdict):
    """Grades that include the plot."""

    plot: int = Field(ge=1, le=10)


class Preference(BaseModel):
    """The better of two continuations."""

    model_config = ConfigDict(extra="forbid", strict=True)
    assessment: str
    better: Literal["1", "2", "equal"]


@dataclass(frozen=True)
class Question:
    """A prompt for the judge, and the form of a valid reply."""

    prompt: str
    answer: type[BaseModel]

    def read(self, reply: str) -> dict[str, Any]:
        """Read a reply strictly. Raises ValueError with its first fault."""
        try:
            said = json.loads(reply, object_pairs_hook=once)
            json.dumps(said, ensure_ascii=False).encode()  # half a surrogate pair could not be written to any file
            return self.answer.model_validate(said).model_dump()
        except (json.JSONDecodeError, RecursionError, UnicodeEncodeError):
            raise ValueError("it is not one JSON object and nothing else") from None
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{place}: {fault['msg']}" if place else fault["msg"]) from None


def grade_question(prompt: str, text: str, *, plot: bool) -> Question:
    """Ask for grades of one continuation."""
    ages = ", ".join(f"{letter} ({years})" for letter, years in AGES.items())
    asked = GRADE.format(beginning=prompt, text=text or NOTHING, scale=OUT_OF_TEN, plot=PLOT * plot, ages=ages)
    return Question(asked, PlotVerdict if plot else Verdict)


def compare_question(prompt: str, first: str, second: str) -> Question:
    """Ask for the better of two continuations."""
    asked = COMPARE.format(beginning=prompt, first=first or NOTHING, second=second or NOTHING)
    return Question(asked, Preference)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a repeated key."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands in it twice")
    return dict(pairs)
