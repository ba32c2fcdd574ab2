"""Where a run's log goes: its own files."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runs import Run


class Tracker:
    """Somewhere a run's log goes; `after` is the step the run stands at, so the first one told will be the next."""

    def __init__(self, run: Run, after: int):
        raise NotImplementedError

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        """A step's line of log.csv and the texts written after it; either may be empty, or both."""
        raise NotImplementedError

    def picture(self, step: int, path: Path) -> None:
        """The loss curve at the end, a PNG."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing comes after this."""


class Files(Tracker):
    """log.csv and samples.jsonl, which every run has."""

    def __init__(self, run: Run, after: int):
        self._run = run

    def record(self, step: int, line: dict[str, Any], samples: Sequence[dict[str, str]]) -> None:
        if line:
            self._run.append(line)
        if samples:
            self._run.append_samples(step, samples)

    def picture(self, step: int, path: Path) -> None:
        """The picture is a file of the run's already."""

    def close(self) -> None:
        """Nothing is kept open."""


@contextlib.contextmanager
def opened(run: Run, after: int) -> Iterator[list[Tracker]]:
    """The run's own files, until they are closed."""
    with contextlib.ExitStack() as stack:
        trackers: list[Tracker] = [Files(run, after)]
        for tracker in trackers:
            stack.callback(tracker.close)
        yield trackers
