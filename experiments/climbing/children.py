"""Runs trained side by side, each in a process of its own; those that are finished stay, others go on."""

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from searching.jobs import last_line
from searching.service import Service, wait_for_answers
from searching.signals import Signals

from config import Config, replace, to_dict
from runs import Run, saved_runs
from training.checkpoint import write_text
from training.report import shown
from training.saving import MAY_CHANGE

POLL_SECONDS = 0.5
SAVING_SECONDS = 30.0  # for a run that is stopped to save


def train_all(configs: Sequence[Config], *, jobs: int, folder: Path, on_end: Callable[[Run], None]) -> None:
    """Train the runs that the configurations name, `jobs` at a time, in this order; `on_end` is told of each.

    What a run says goes to a file in `folder`. Raises ValueError where the name is that of another run, and where one
    ends otherwise than finished; Stopped after SIGINT or SIGTERM, when those under way have saved.
    """
    waiting, running = deque(cfg for cfg in configs if not is_finished(cfg)), {}
    folder.mkdir(parents=True, exist_ok=True)
    # one thread each: for models this small more of them wait for each other most of the time
    signals, starter = Signals(), Service("searching.starter", "train", threads=1, log=folder / "starter.txt")
    with signals.listening():
        try:
            while waiting or running:
                signals.raise_if_any()
                while waiting and len(running) < jobs:
                    cfg = waiting.popleft()
                    running[cfg.train.name] = None
                    starter.ask(request(cfg, folder))
                wait_for_answers([starter], POLL_SECONDS)
                for name, status in ended(starter, running):
                    require_success(name, status, folder)
                    on_end(Run(name))
        finally:
            stop(starter, running)


def is_finished(cfg: Config) -> bool:
    """Whether the run is there and done. Raises ValueError where a run of that name is another."""
    if cfg.train.name not in saved_runs():
        return False
    run = Run(cfg.train.name)
    before = to_dict(run.config)
    after = to_dict(replace(cfg, model=replace(cfg.model, vocab_size=run.config.model.vocab_size)))
    free = {f"{section}.{name}" for section, names in MAY_CHANGE.items() for name in names} - {"train.steps"}
    others = [f"{section}.{name}={before[section][name]}, not {value}" for section, flags in after.items()
              for name, value in flags.items() if before[section][name] != value and f"{section}.{name}" not in free]
    if others:
        raise ValueError(f"train.name={run.name} is another run, which has {'; '.join(others)}: use another --name, or "
                         f"delete {shown(run.path)}")
    return run.is_finished


def request(cfg: Config, folder: Path) -> dict:
    """What to ask of the starter: begin the run, or go on with it."""
    name = cfg.train.name
    write_text(folder / f"{name}.json", json.dumps(to_dict(cfg), indent=2) + "\n")
    words = ["--resume", name] if name in saved_runs() else ["--config", str(folder / f"{name}.json")]
    return {"id": name, "call": "train:main", "argv": words, "log": str(folder / f"{name}.txt")}


def ended(starter: Service, running: dict[str, int | None]) -> list[tuple[str, int]]:
    """The runs whose processes have ended since, with their exit statuses; notes those that have begun."""
    found = []
    for answer in starter.answers():
        if "died" in answer:
            running.clear()  # they die with it
            found.append(("starter", answer["died"]))
        elif "pid" in answer:
            running[answer["id"]] = answer["pid"]
        else:
            del running[answer["id"]]
            found.append((answer["id"], answer["status"]))
    return found


def require_success(name: str, status: int, folder: Path) -> None:
    """Raise ValueError, with what a process said last, where it has failed."""
    if status:
        said = last_line(folder / f"{name}.txt").removeprefix("error: ")
        raise ValueError(f"{name} has ended with status {status}: {said or 'without a word'}")


def stop(starter: Service, running: dict[str, int | None]) -> None:
    """Have the runs under way save, and end all processes."""
    for pid in filter(None, running.values()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + SAVING_SECONDS
    while running and time.monotonic() < deadline:
        wait_for_answers([starter], POLL_SECONDS)
        ended(starter, running)
    starter.close()
