"""`python model.py [PRESET or RUN]`: its command line is read without torch."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config import Config, diff, load_config
from configuration import garbage
from configuration.command_line import fail, quiet_end, spell_value
from configuration.mistakes import nearest
from presets import PRESETS, parse_command_line
from run_store import listing

DESCRIPTION = """Show a model: its architecture, its parameters, and the trace of one forward.

    python model.py [PRESET] [--section.flag value ...]     untrained, on random tokens
    python model.py RUN [--model.flag value ...]            with its trained weights, on real tokens

RUN is a name in models/, or a path. A word that is both a preset and a run means the preset: for the run give its path,
as models/tales. Flags of the model that fit a run's weights change how it is run, e.g. --model.attention.window 8."""
OPTIONS = {
    "text": "TEXT: what a run reads, through its own tokenizer; without it the beginning of its held-out text",
    "checkpoint": "best, last or STEP: the weights of a run to show; default best",
}


@dataclass(frozen=True)
class ShowCommand:
    """What to show. `run` is the folder of a saved run; None = the configuration, untrained."""

    cfg: Config
    title: str  # what is shown, in a line
    run: Path | None = None
    text: str | None = None  # None = the beginning of the held-out text
    checkpoint: str = "best"


def main() -> None:
    """Show what the command line names; a user's mistake exits with 2, Ctrl-C with 130."""
    command = parse(sys.argv[1:], listing.MODELS)
    try:
        from showing.display import show  # torch takes seconds

        garbage.begin()
        with quiet_end():
            show(command)
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def parse(words: Sequence[str], models: Path = listing.MODELS) -> ShowCommand:
    """Return what to show. Help, and mistakes in one sentence on stderr, exit."""
    word = words[0] if words and not words[0].startswith("-") else None
    try:
        run = None if word is None or word in PRESETS else find_run(word, models)
        return parse_preset(words, models) if run is None else parse_run(run, words[1:])
    except ValueError as error:
        fail(error)


def find_run(word: str, models: Path) -> Path:
    """The folder of a run that is not called like a preset. Raises ValueError if there is none."""
    try:
        return listing.find_run(word, models).absolute()
    except ValueError:
        if len(Path(word).parts) > 1:
            raise
    names = listing.saved_names(models)
    raise ValueError(f"{word} is neither a preset (python presets.py lists them) nor a run "
                     f"({listing.list_names(names, word)}){nearest(word, [*PRESETS, *names])}")


def parse_preset(words: Sequence[str], models: Path) -> ShowCommand:
    """An untrained model. Raises ValueError for an option that only a run has."""
    cfg, options = parse_command_line(words, program="python model.py", description=DESCRIPTION, options=OPTIONS)
    for name in OPTIONS:
        if options[name] is not None:
            raise ValueError(f"--{name} is for a saved run, whose weights are trained: name one, as a path if a preset "
                             "is called the same")
    preset = options["preset"]
    title = f"the preset {preset}" if preset else "the configuration"
    title += f" at the scale of {options['scale']}" if options["scale"] else ""
    title += ", untrained, on random tokens"
    if preset and (models / preset / "config.json").is_file():
        title += f"; the run of this name: python model.py {brief(models / preset)}"
    return ShowCommand(cfg, title)


def parse_run(run: Path, words: Sequence[str]) -> ShowCommand:
    """A trained model. Raises ValueError for flags that say nothing of it."""
    saved = load_config(run / "config.json")

    def base(options: Mapping[str, str | None]) -> Config:
        if options["preset"] or options["config"]:
            raise ValueError(f"{run.name} has its own configuration: leave out {options['preset'] or '--config'}")
        if options["scale"]:
            raise ValueError(f"--scale is for presets: {run.name} has the size that it was trained with")
        return saved

    cfg, options = parse_command_line(words, program="python model.py RUN", description=DESCRIPTION, options=OPTIONS,
                                      base=base)
    changes = diff(saved, cfg)
    if ignored := [flag for flag in changes if not flag.startswith("model.")]:
        raise ValueError(f"--{ignored[0]} changes nothing in how the trained model {run.name} is shown: leave it out")
    if options["text"] == "":
        raise ValueError("--text is empty: give at least one character")
    title = f"the run {run.name}{''.join(f', {change}' for change in in_words(changes))}"
    return ShowCommand(cfg, title, run, options["text"], options["checkpoint"] or "best")


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Each changed flag with what the run has, e.g. "model.norm=rms (it has layer)"."""
    return [f"{flag}={spell_value(after)} (it has {spell_value(before)})" for flag, (before, after) in changes.items()]


def brief(path: Path) -> Path:
    """A path relative to the working folder, if it lies inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
