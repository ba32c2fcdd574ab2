"""How many of the stories a run writes are grammatical and keep to their own facts, and where the others break."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median

from scipy.stats import binomtest

import tales
from config import SampleConfig
from corpora.files import digest
from experiments.comparing.caches import read_cache, write_cache
from inference import OPENINGS, continue_prompts
from run_store.atomic_files import sha256
from runs import Run
from tools import pick_device

CACHE = "graded_stories.json"
TEMPERATURE, SEED = 0.8, 0
LONGEST = 1000  # bytes: none of 20,000 tales is longer
ROOM = 1.5  # a story may have so many times the tokens that the longest takes


@dataclass(frozen=True)
class Grades:
    """Stories of one checkpoint, and what `tales.grade` says of each."""

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
        """Of stories that are whole, grammatical and consistent."""
        return self.num_passed / self.count

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share: where it may lie with endless stories."""
        low, high = binomtest(self.num_passed, self.count).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    @property
    def kinds(self) -> dict[str, int]:
        """How often what breaks a story is its grammar, its consistency, or that it stops too early; most first."""
        return dict(Counter(grade.kind for grade in self.grades if not grade.passed).most_common())

    @property
    def break_at(self) -> float | None:
        """The median number of characters before a broken story's break; None where none is broken."""
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
    """Sample stories from their first word at temperature 0.8 and grade them; None = it has not learned from tales.

    Two runs get the same room, in text, whatever their tokenizers and contexts. What was graded before is read from
    the run's folder. Raises ValueError where there is no such checkpoint, or its model has diverged.
    """
    if "tales" not in run.config.data.name:
        return None
    if num_stories < 1:
        raise ValueError(f"num_stories={num_stories} is no number of stories: use 1 or more")
    saved = run.checkpoint(checkpoint)
    room = math.ceil(ROOM * LONGEST * run.data["val_tokens_per_byte"])
    sample = SampleConfig(prompts=(OPENINGS["tales"],), num_samples=num_stories, temperature=TEMPERATURE, seed=SEED,
                          max_new_tokens=room)
    key = digest(saved.fingerprint, asdict(sample), [sha256(path) for path in tales.SOURCES])
    cached = read_cache(run, CACHE)
    if key not in cached:
        model = run.load_model(str(saved.step), pick_device(device))
        texts = [OPENINGS["tales"] + new for new in continue_prompts(model, run.tokenizer(), sample)]
        cached[key] = {"step": saved.step, "stories": [asdict(tales.grade(text)) | {"text": text} for text in texts]}
        write_cache(run, CACHE, cached, "the stories are graded again next time")
    lines = [dict(line) for line in cached[key]["stories"]]
    texts = tuple(line.pop("text") for line in lines)
    return Grades(cached[key]["step"], texts, tuple(tales.Grade(**line) for line in lines))
