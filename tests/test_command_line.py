"""Words on the command line: both ways to say on or off, and start-up without torch."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import tyro
from thorough import some

from config import Config, SampleConfig
from configuration import heap
from configuration.command_line import parse_command, parse_flags
from generation.command import Options
from presets import parse_command_line

ROOT = Path(__file__).resolve().parent.parent


def parse(*words: str) -> Config:
    return parse_command_line(words, program="train.py", description="")[0]


# ---- bytes that are no text ----


@pytest.mark.parametrize("words", [
    ["tokenizer.py", "show", "tales_128", b"caf\xe9"], ["tokenizer.py", "show", b"caf\xe9", "text"],
    ["inference.py", b"caf\xe9", "text"], ["train.py", "--data.name", b"caf\xe9.txt"], ["train.py", b"caf\xe9"],
    ["train.py", "--data.name", "text.txt", "--data.separator", b"\xe9"], ["train.py", b"--data.n\xe9me", "text.txt"],
], ids=str)
def test_a_word_that_is_not_utf8_is_one_sentence(words):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr.decode()
    assert said.startswith("error: ") and said.count("\n") == 1 and "\\xe9" in said.replace("\\udce9", "\\xe9")


def test_a_prompt_that_is_not_utf8_says_so():
    with pytest.raises(ValueError, match=r"^'caf.xe9' is not UTF-8: type it as UTF-8, or rename the file"):
        parse_flags(["Once", "caf\udce9"], Options(sample=SampleConfig()), "", "")


# ---- on or off ----


@pytest.mark.parametrize(("words", "value"), [
    ("--model.norm-bias", True), ("--model.norm_bias", True), ("--model.no-norm-bias", False),
    ("--model.norm-bias true", True), ("--model.norm-bias false", False), ("--model.norm-bias=true", True),
    ("--model.norm_bias=False", False), ("--model.norm-bias false --model.norm-bias", True)])
def test_a_boolean_takes_all_forms(words, value):
    assert parse("gpt2", *words.split()).model.norm_bias is value


def test_a_boolean_may_stand_between_other_flags():
    cfg = parse("--train.steps", "3", "--train.compile", "true", "--train.lr", "0.5", "--train.deterministic",
                "--train.seed", "7").train
    assert (cfg.steps, cfg.compile, cfg.lr, cfg.deterministic, cfg.seed) == (3, True, 0.5, True, 7)


def test_a_short_name_takes_a_boolean():
    assert parse("--init-from", "toy", "--allow-partial", "true").train.allow_partial is True


def test_true_is_a_text_for_a_flag_that_takes_texts():
    assert parse("--data.name", "true", "false", "--model.norm-bias", "true").data.name == ("true", "false")


def test_a_boolean_without_its_section_takes_all_forms():
    options = parse_flags(["--ema", "true", "--stop-at-eos", "false"], Options(sample=SampleConfig()), "", "")
    assert options == Options(sample=SampleConfig(stop_at_eos=False), ema=True)


@pytest.mark.parametrize(("words", "ids"), [("--ids", True), ("--ids true", True), ("--no-ids", False),
                                            ("--ids=false", False)])
def test_a_boolean_of_a_command_takes_all_forms(words, ids):
    said = []

    def show(text: Annotated[str, tyro.conf.Positional], *, ids: bool = False) -> None:
        said.append((text, ids))

    def hide() -> None:
        """Another command."""

    parse_command(["show", "fox", *words.split()], {"show": show, "hide": hide}, "", "")()
    assert said == [("fox", ids)]


@pytest.mark.parametrize(("words", "sentence"), [
    ("--model.norm-bias=1", "--model.norm-bias=1 is wrong: use true or false"),
    ("--model.norm-bias maybe", "maybe is not a flag"),
    ("--model.no-norm-bias true", "true is not a flag"),
    ("--model.norm-bais true", "perhaps --model.norm-bias was meant")])
def test_what_is_neither_on_nor_off_is_a_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*words.split())
    output, errors = capsys.readouterr()
    assert (stop.value.code, output) == (2, "")
    assert sentence in errors and errors.startswith("error: ") and errors.count("\n") == 1


# ---- help ----


@dataclass(frozen=True, kw_only=True)
class Oven:
    """What bakes.

    More of it.
    """

    heat: int | None = None  # degrees; "# 1" = low
    word: ClassVar[str] = "oven"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a kitchen is told."""

    cakes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CAKE")] = ()  # to bake
    oven: Oven = field(default_factory=Oven)
    icing: bool = True  # on top
    kind: Literal["sponge", "tart"] = "sponge"  # of cake
    spare: tyro.conf.OmitArgPrefixes[Oven] = field(default_factory=Oven)  # if the first one fails


HELP = """usage: bake [CAKE ...] [-h] [--flag value ...]

Bake cakes in the order in which they are
named.

    bake plum
--quick: no icing

flags
  CAKE ...
      to bake (default: ())
  --icing, --no-icing
      on top (default: False)
  --kind {sponge, tart}
      of cake (default: sponge)

oven: What bakes.
  --oven.heat None | INT
      degrees; "# 1" = low (default: 180)

spare: if the first one fails
  --heat None | INT
      degrees; "# 1" = low (default: None)
"""


def test_help_tells_each_flag_by_groups_with_its_values_meaning_and_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "42")
    default = Order(oven=Oven(heat=180), icing=False)
    with pytest.raises(SystemExit, match="0"):
        parse_flags(["--help"], default, "bake",
                    "Bake cakes in the order\nin which they are named.\n\n    bake plum\n--quick: no icing\n")
    assert capsys.readouterr() == (HELP, "")


def test_what_belongs_to_a_class_is_no_flag():
    with pytest.raises(ValueError, match="^--oven.word is not a flag"):
        parse_flags(["--oven.word", "stove"], Order(), "bake", "")


# ---- start-up ----

MISTAKES = {  # and what the sentence says that answers each
    "train.py --train.setps 5": "--train.steps was meant",
    "train.py --resume toy --train.setps 5": "--train.steps was meant",
    "train.py gpt2 --scale 1X": "--scale 1X is not a number of parameters",
    "train.py --seeds three": "--seeds 'three' is not a number of runs",
    "model.py nowhere": "nowhere is neither a preset",
    "model.py --model.dimm 3": "--model.dim was meant",
    "presets.py show gema3": "gemma3 was meant",
    "memory.py --limit much": "--limit much is not a size",
    "optim.py --train.lrr 1": "--train.lr was meant",
    "inference.py nowhere": "nowhere is not a run",
    "inference.py toy --temprature 1": "--temperature was meant",
    "tokenizer.py show a b --idz": "--ids was meant",
    "runs.py list --srt name": "--sort was meant",
    "experiments/compare.py a --smoth 3": "--smooth was meant",
    "experiments/ablate.py --sedes 3": "--seeds was meant",
    "experiments/coordinate_check.py --stps 3": "--steps was meant",
    "experiments/search.py --trails 3": "--trials was meant",
    "experiments/ladder.py --sedes 3": "--seeds was meant",
    "experiments/scaling.py --sedes 3": "--seeds was meant",
    "experiments/judge.py grade --yess": "Unrecognized options: --yess",
    "experiments/benchmark.py tracing --fast": "Unrecognized options: --fast",
    "experiments/benchmark.py memory --randm 3": "--random was meant",
    "experiments/benchmark.py gallery --stps 3": "--steps was meant",
    "experiments/benchmark.py tracking": "benchmark='tracking' is not known: use one of tokens-to-loss",
}
DOORS = {line.split()[0] for line in MISTAKES}
ANSWERS = ["runs.py list", *(f"{door} --help" for door in sorted(DOORS))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of runs with one that was configured and never trained."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "toy").mkdir()
    (folder / "toy" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("door", sorted(DOORS))
def test_without_its_packages_a_program_says_how_to_start_it(door):
    """-S leaves out the folder of packages."""
    done = subprocess.run([sys.executable, "-S", ROOT / door, "--help"], text=True, capture_output=True,
                          env={"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.fullmatch(r"error: .* has no package \w+: run `make` once, then start .*\n", done.stderr)


@pytest.fixture(scope="module")
def without_torch(models):
    """A process that forks itself for each program: see without_torch.py."""
    process = subprocess.Popen([sys.executable, ROOT / "tests" / "without_torch.py"], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, cwd=ROOT, env=heap.with_joined() | {
                                   "SHAPESHIFTER_MODELS": str(models), "PYTHONPATH": str(ROOT)})
    yield process
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("line", "said"), some([*((line, "") for line in ANSWERS), *MISTAKES.items()], 2))
def test_help_and_mistakes_do_not_import_torch(line, said, without_torch):
    door, *words = line.split()
    print(json.dumps([str(ROOT / door), *words]), file=without_torch.stdin, flush=True)
    status, output, errors = json.loads(without_torch.stdout.readline())
    assert status == (2 if said else 0), errors
    assert errors.count("\n") == bool(said) and said in errors and bool(output) != bool(said)
