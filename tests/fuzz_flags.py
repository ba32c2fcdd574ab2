"""Draw flags of every kind with values of every kind: `python tests/fuzz_flags.py --seed 1 --draws 300`.

Each draw is a command line of train.py, run in a process of its own: it trains two steps, or ends in one sentence that
names a flag that was drawn. Prints what does neither; the exit status is their number.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from small_runs import small_run_config  # noqa: E402

import runs  # noqa: E402
import train  # noqa: E402
from config import Config, save_config  # noqa: E402
from configuration.flag_parser import Flag, flags_of  # noqa: E402
from training.command import parse  # noqa: E402

SECONDS = 20
NUMBERS = ["0", "1", "2", "3", "7", "-1", "1000000000", "1000000000000000000", "9" * 30, "1e3", "0.5", "1e-300",
           "1e308", "-0.1", "nan", "inf", "-inf", "٣", "0x10", "1_000"]
WORDS = ["", " ", "many", "None", "true", "caf\udce9", "🦊", "a\x1b]0;b", "../x", "/dev/null", "x" * 5000, "[1]", "{}",
         "a b", "--", "=", "%s", "$HOME", "1:30", "yes", "[/old]"]
LEFT_OUT = ("device", "cache_dir", "memory_limit", "time_limit", "trackers", "workers")  # depend on the machine
KEPT = ("train.steps", "train.tokens", "train.epochs")  # two steps


def choices_of(hint: Any) -> list[str]:
    """The words that a flag's type lists."""
    if get_origin(hint) is Literal:
        return list(map(str, get_args(hint)))
    return [word for part in get_args(hint) for word in choices_of(part)]


def drawn_value(flag: Flag, drawn: random.Random) -> str:
    choices = choices_of(flag.hint)
    if choices and drawn.random() < 0.7:
        return drawn.choice(choices)
    return drawn.choice(NUMBERS if drawn.random() < 0.7 else WORDS)


def drawn_line(drawn: random.Random) -> tuple[list[Flag], list[str]]:
    """Some flags, and the command line that gives them."""
    flags = [flag for name, flag in flags_of(Config).items() if flag.takes != "tree" and name not in KEPT
             and name.rpartition(".")[2] not in LEFT_OUT]
    chosen = drawn.sample(flags, drawn.choice([1, 1, 2, 3]))
    return chosen, [f"--{flag.name}={drawn_value(flag, drawn)}" for flag in chosen]


def run_alone(words: list[str], place: Path) -> tuple[int, str, float]:
    """(exit status, or minus the number of a signal; what was said on stderr; seconds) of train.py in a fork."""
    errors, began = place / "errors", time.monotonic()
    pid = os.fork()
    if not pid:
        sys.stderr, sys.stdout = open(errors, "w", encoding="utf-8"), open(os.devnull, "w")  # noqa: SIM115
        status = 70
        with contextlib.suppress(SystemExit):
            try:
                train.main(parse(words, runs.MODELS))
                status = 0
            except SystemExit as stop:
                status = stop.code or 0
            except BaseException as error:
                print(f"Traceback: {error!r}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(status)
    too_long = threading.Timer(1.1 * SECONDS, os.kill, (pid, signal.SIGKILL))
    too_long.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    too_long.cancel()
    return status, errors.read_text(errors="replace"), time.monotonic() - began


def fault(flags: list[Flag], status: int, said: str, seconds: float) -> str | None:
    """What is wrong with how a command ended; None = nothing."""
    if seconds > SECONDS:
        return f"took {seconds:.0f} s"
    errors = [line for line in said.splitlines() if not line.startswith("warning: ")]
    if status == 0:
        return "trained, with complaints" if errors else None
    if status not in (1, 2) or len(errors) != 1 or not errors[0].startswith("error: "):
        return f"status {status}"
    names = {part for flag in flags for part in (flag.name.rpartition(".")[2], flag.name.partition(".")[2])}
    spelled = {name.replace("_", "-") for name in names} | names
    if status == 2 and not errors[0].startswith("error: memory: ") and not any(name in errors[0] for name in spelled):
        return "names no flag"
    return "too long" if len(errors[0]) > 1500 else None


def fuzz(seed: int, draws: int, place: Path) -> list[str]:
    """The command lines that ended badly, and how."""
    torch.set_num_threads(1)  # a fork has no other threads
    runs.MODELS, found, drawn = place / "models", [], random.Random(seed)
    cfg = small_run_config(place, {"train.steps": 2, "train.name": None, "sample.max_new_tokens": 2})
    save_config(cfg, place / "small.json")
    train.train(cfg, console=Console(quiet=True))
    for _ in range(draws):
        flags, line = drawn_line(drawn)
        status, said, seconds = run_alone(["--config", str(place / "small.json"), *line], place)
        if problem := fault(flags, status, said, seconds):
            found.append(f"{problem}: {' '.join(word[:80] for word in line)}\n    {said[-600:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(options.seed, options.draws, Path(place))
    print(*found, sep="\n")
    raise SystemExit(min(len(found), 100))


if __name__ == "__main__":
    main()
