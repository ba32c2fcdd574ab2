"""What the JSON files of a run hold, checked when they are read."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

from pydantic import Field, PlainValidator, TypeAdapter
from typing_extensions import TypedDict  # that of Python 3.11 cannot be checked

from configuration.reading import Count, Finite, check_as, parse_json, read_as

T = TypeVar("T")


def as_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it should be a text")
    return value


Text = Annotated[str, PlainValidator(as_text)]  # also with lone surrogates
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeastOne = Annotated[Count, Field(ge=1)]


class Origin(TypedDict):
    """What is known of a model that was imported."""

    model_type: str  # of its family
    adds_bos: bool  # whether its own tokenizer began texts with a special token


class DataFacts(TypedDict):
    """data.json: the text that a run trains on; of an imported model its numbers are unknown, None."""

    name: str
    fingerprint: str
    imported: NotRequired[Origin]
    train_tokens: AtLeastOne | None
    train_bytes: AtLeastOne | None
    train_documents: NotRequired[Count]
    val_tokens: NotRequired[AtLeastOne]
    val_bytes: AtLeastOne | None
    val_documents: NotRequired[Count]
    val_tokens_per_byte: Positive | None
    floor_bits_per_byte: Finite | None  # the entropy of the text, if it is known
    sources: NotRequired[list[dict[str, Any]]]
    rows_left_out: NotRequired[dict[str, Count]]  # by the reason


class Sample(TypedDict):
    """A line of samples.jsonl: a text written during training."""

    step: Count
    prompt: Text
    text: Text


class GradedStory(TypedDict):
    """A story of grades.json."""

    passed: bool
    text: str


class GradedPair(TypedDict):
    """A pair of pairs.json."""

    exact: bool


class MemoryFacts(TypedDict):
    """memory.json: the memory of the process, predicted and measured."""

    peak_bytes: Count | None


class SavedLoss(TypedDict, total=False):
    """What progress.json says of an evaluation."""

    val_loss: Finite | None  # nats per token; None = not evaluated at this step


LOSS = TypeAdapter(SavedLoss)
DATA, SAMPLE = TypeAdapter(DataFacts), TypeAdapter(Sample)
GRADES, MEMORY = TypeAdapter(list[GradedStory]), TypeAdapter(MemoryFacts)
PAIRS = TypeAdapter(list[GradedPair])


def as_sample(line: str) -> Sample:
    """A line of samples.jsonl. Raises ValueError if it is damaged."""
    return check_as(SAMPLE, parse_json(line, "samples.jsonl"), "samples.jsonl")


def in_folder(run: Path, read: Callable[[Path], T]) -> T:
    """The result of `read`; a mistake names the run's folder."""
    try:
        return read(run)
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from None


def read_data(run: Path) -> DataFacts:
    """What data.json says. Raises ValueError if it is missing or damaged."""
    return read_as(DATA, run / "data.json")


def peak_bytes(run: Path) -> int | None:
    """The measured memory of a run's process; None = unknown. Raises ValueError if memory.json is damaged."""
    return read_as(MEMORY, run / "memory.json")["peak_bytes"] if (run / "memory.json").exists() else None


def exact_targets(run: Path) -> float | None:
    """The share of targets that were exactly right after the last step; None = of no pairs, or not graded.

    Raises ValueError if pairs.json is damaged.
    """
    pairs = read_as(PAIRS, run / "pairs.json") if (run / "pairs.json").exists() else []
    return sum(pair["exact"] for pair in pairs) / len(pairs) if pairs else None
