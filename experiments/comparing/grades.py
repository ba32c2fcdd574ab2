"""Grades of a run's stories: how many are grammatical and consistent, and where the others break."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

from scipy.stats import binomtest

import tales
from config import SampleConfig
from corpora.files import digest
from experiments.common.caches import cached
from inference import OPENINGS, continue_prompts, load_objective
from run_store.atomic_files import sha256
from runs import Run
from tools import pick_device

CACHE = "graded_stories.json"
TEMPERATURE, SEED = 0.8, 0
LONGEST = 1000  # bytes; none of 20,000 tales is longer
ROOM = 1.5  # x the tokens of the longest tale: the limit of a story


@dataclass(frozen=True)
class Grades:
    """Stories of one checkpoint with the grade of each by `tales.grade`."""

    step: int  # of the checkpoint
    texts: tuple[str, ...]
    grades: tuple[tales.Grade, ...]

    @property
    def count(self) -> int:
        return len(self.grades)

    @property
    def num_passed(self) -> int:
        return sum(grade.passed for grade in self.grades)

    @property
    def share(self) -> float:
        """Share of stories that are whole, grammatical and consistent."""
        return self.num_passed / self.count

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share."""
        low, high = binomtest(self.num_passed, self.count).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    @property
    def kinds(self) -> dict[str, int]:
        """The number of broken stories by reason (grammar, consistency, unfinished), the most frequent first."""
        return dict(Counter(grade.kind for grade in self.grades if not grade.passed).most_common())

    @property
    def break_at(self) -> float | None:
        """The median number of characters before the break; None if no story is broken."""
        places = [grade.position for grade in self.grades if not grade.passed]
        return median(places) if places else None

    def __str__(self) -> str:
        low, high = self.interval
        said = f"{self.num_passed} of {self.count} stories are grammatical and consistent ({low:.0%} to {high:.0%})"
        if self.break_at is None:
            return said
        kinds = ", ".join(f"{kind} {number}" for kind, number in self.kinds.items())
        return f"{said}; the others break ({kinds}), half of them within {self.break_at:.0f} characters"


def grade_run(run: Run, *, num_stories: int = 100, checkpoint: str = "best", device: str = "auto") -> Grades | None:
    """Sample stories from their first word at temperature 0.8 and grade them; None = not trained on tales.

    The limit in characters is the same for all tokenizers and contexts. Grades are kept in the run's folder.
    Raises ValueError if there is no such checkpoint, or if its model has diverged.
    """
    if "tales" not in run.config.data.name:
        return None
    if num_stories < 1:
        raise ValueError(f"num_stories={num_stories} is not a number of stories: use 1 or more")
    saved = run.checkpoint(checkpoint)
    room = math.ceil(ROOM * LONGEST * run.data["val_tokens_per_byte"])
    sample = SampleConfig(prompts=(OPENINGS["tales"],), num_samples=num_stories, temperature=TEMPERATURE, seed=SEED,
                          max_new_tokens=room, denoise=run.config.sample.denoise)
    key = digest(saved.fingerprint, asdict(sample), [sha256(path) for path in tales.SOURCES])

    def grade() -> dict[str, Any]:
        objective = load_objective(run, str(saved.step), pick_device(device))
        texts = [OPENINGS["tales"] + new for new in continue_prompts(objective, run.tokenizer(), sample)]
        return {"step": saved.step, "stories": [asdict(tales.grade(text)) | {"text": text} for text in texts]}

    found = cached(run.path / CACHE, key, grade)
    lines = [dict(line) for line in found["stories"]]
    texts = tuple(line.pop("text") for line in lines)
    return Grades(found["step"], texts, tuple(tales.Grade(**line) for line in lines))
