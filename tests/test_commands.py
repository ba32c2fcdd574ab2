"""Whatever is typed wrong, missing or damaged: one sentence, a status that says so, and nothing is lost."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_runs import content, small_run_config, write_text_file

import inference
import runs
import showing.command
import tales.__main__
import tokenizer
import train
from config import save_config
from runs import Run
from train import train as train_run

PROGRAMS = {"train": train.main, "model": showing.command.main, "tales": tales.__main__.main,
            "tokenizer": tokenizer.main, "inference": lambda: inference.main(sys.argv[1:])}


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_files(place: Path) -> None:
    """What the commands are given."""
    write_text_file(place / "text.txt")
    (place / "empty.txt").write_text("")
    (place / "blank.txt").write_text(" \n \n")
    (place / "short.txt").write_text("a few words")
    (place / "binary.txt").write_bytes(b"text\xff")
    (place / "no-text").mkdir()
    (place / "cut.yaml").write_text("model: {")
    (place / "list.yaml").write_text("- 1\n")
    (place / "key.yaml").write_text("model:\n  dimm: 3\n")
    (place / "section.yaml").write_text("modle:\n  dim: 3\n")
    (place / "value.yaml").write_text("train:\n  steps: many\n")
    (place / "tokenizer").mkdir()
    (place / "tokenizer" / "meta.json").write_text("{")
    save_config(small_run_config(place, {"train.name": None, "train.steps": 2}), place / "small.json")


def write_runs(place: Path) -> None:
    """A finished run, and copies of it that are damaged in one way each."""
    toy = train_run(small_run_config(place, {"train.steps": 12}), console=Console(quiet=True)).path
    for name, files in {"cut-weights": "checkpoints/*/model.safetensors", "cut-optimizer": "checkpoints/*/optimizer.pt",
                        "cut-progress": "checkpoints/*/progress.json", "cut-config": "config.json",
                        "cut-tokenizer": "tokenizer/meta.json", "cut-data": "data.json"}.items():
        copy = shutil.copytree(toy, toy.with_name(name))
        for file in copy.glob(files):
            cut(file)
    copy = shutil.copytree(toy, toy.with_name("odd-config"))
    (copy / "config.json").write_text((copy / "config.json").read_text().replace('"dim"', '"dimm"'))
    shutil.copytree(toy, toy.with_name("no-checkpoint"))
    shutil.rmtree(toy.with_name("no-checkpoint") / "checkpoints")
    shutil.copytree(toy, toy.with_name("other-width"))
    text = (copy := toy.with_name("other-width") / "config.json").read_text()
    copy.write_text(text.replace('"dim": 16', '"dim": 32'))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with files and runs, good and bad."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "MODELS", place / "models")
        write_files(place)
        write_runs(place)
    return place


@pytest.fixture
def command(place, monkeypatch, call):
    """Run a program in that folder."""
    monkeypatch.setattr(runs, "MODELS", place / "models")
    monkeypatch.setattr("run_store.listing.MODELS", place / "models")
    monkeypatch.chdir(place)

    return lambda program, *words: call(PROGRAMS[program], *words)


MISTAKES = {
    # what is typed
    "unknown flag": ("train --nonsense 3", "--nonsense is not a flag: see --help for all of them"),
    "misspelt flag": ("train --train.stps 3", "perhaps --train.steps was meant"),
    "misspelt section": ("train --trian.steps 3", "perhaps --train.steps was meant"),
    "unknown choice": ("train --train.optimizer sdg",
                       "train.optimizer='sdg' is not known: use one of adamw, muon, ... perhaps sgd was meant"),
    "unknown choice in a list": ("train --train.trackers tensorboard wandbb",
                                 "train.trackers='wandbb' is not known: use one of tensorboard or wandb ... wandb"),
    "a word for a number": ("train --train.steps many", "train.steps='many' is wrong: use a whole number"),
    "a fraction for a count": ("train --train.steps 2.5", "train.steps='2.5' is wrong: use a whole number"),
    "a word for a fraction": ("train --train.lr fast", "train.lr='fast' is wrong: use a number"),
    "a word for a number or None": ("train --model.attention.window wide",
                                    "model.attention.window='wide' is wrong: use a whole number"),
    "flag without a value": ("train --train.steps", "--train.steps needs a value"),
    "zero steps": ("train --train.steps 0", "train.steps=0 must be above 0"),
    "negative rate": ("train --train.lr -1", "train.lr=-1.0 must be above 0"),
    "share above one": ("train --data.val-ratio 1.5", "data.val_ratio=1.5 must lie between 0 and 1"),
    "heads that do not divide": ("train --model.attention.num-heads 5",
                                 "model.attention.num_heads=5 does not divide dim"),
    "ignored flag": ("train --model.mixer none --model.attention.window 5",
                     "model.attention.window=5 would change nothing ... a mixer is attention"),
    "ignored size": ("train --tokenizer.kind char --tokenizer.vocab-size 99", "tokenizer.vocab_size=99 ... kind=bpe"),
    "unknown preset": ("train gtp2", "preset='gtp2' is not known: use one of default, tales, gpt2"),
    "preset after the flags": ("train --train.steps 3 gpt2", "gpt2 is not a flag: flags begin with --"),
    "two presets": ("train gpt2 llama3", "llama3 is not a flag: flags begin with --"),
    # --config
    "no config": ("train --config nowhere.yaml", "nowhere.yaml is missing"),
    "a folder as config": ("train --config no-text", "no-text cannot be read: Is a directory"),
    "config without a name": ("train --config", "--config: expected one argument"),
    "config that is no YAML": ("train --config cut.yaml", "cut.yaml is neither JSON nor YAML"),
    "config that is no text": ("train --config binary.txt", "binary.txt cannot be read: it is not UTF-8 (byte 4)"),
    "config without sections": ("train --config list.yaml", "list.yaml holds no configuration"),
    "unknown key in a config": ("train --config key.yaml",
                                "key.yaml: model.dimm is not a flag ... perhaps model.dim was meant"),
    "unknown section in a config": ("train --config section.yaml",
                                    "section.yaml: modle.dim is not a flag ... perhaps model.dim was meant"),
    "wrong value in a config": ("train --config value.yaml", "value.yaml: train.steps='many' is wrong"),
    # the text
    "no data": ("train --config small.json --data.name nowhere.txt",
                "data.name='nowhere.txt' is not a text file ... tales"),
    "a folder without text": ("train --config small.json --data.name no-text",
                              "data.name='no-text' is not a text file"),
    "empty data": ("train --config small.json --data.name empty.txt", "data.name='empty.txt' has no text"),
    "blank data": ("train --config small.json --data.name blank.txt", "data.name='blank.txt' has no text"),
    "data that is no UTF-8": ("train --config small.json --data.name binary.txt",
                              "binary.txt is not UTF-8 text (byte 4)"),
    "text shorter than a row": ("train --config small.json --data.name short.txt",
                                "model.max_seq_len=16 is longer than the text"),
    "separator that is nowhere": ("train --config small.json --data.separator @@", "data.separator='@@' is not in"),
    # tokenizer, vocabulary, prompts, device
    "no tokenizer": ("train --config small.json --tokenizer.kind bpe --tokenizer.path nowhere",
                     "tokenizer='nowhere' is not a folder ... tales_128"),
    "no tokenizer on the Hub": ("train --config small.json --tokenizer.kind bpe --tokenizer.path some/model",
                                "tokenizer='some/model' is not a folder ... Hub ... tokenizer.json"),
    "damaged tokenizer": ("train --config small.json --tokenizer.kind bpe --tokenizer.path tokenizer",
                          "tokenizer='tokenizer' cannot be read"),
    "vocabulary too large for the text": (
        "train --config small.json --tokenizer.kind bpe --tokenizer.vocab-size 400", "vocab_size=400 is more than"),
    "vocabulary below the tokenizer's": ("train --config small.json --model.vocab-size 5",
                                         "model.vocab_size=5 is smaller than the tokenizer's"),
    "prompt outside the alphabet": ("train --config small.json --sample.prompts café", "'é' (U+00E9) ... kind=byte"),
    "no such device": ("train --config small.json --train.device abacus", "device=abacus is not available"),
    # runs
    "taken name": ("train --config small.json --train.name toy", "train.name=toy is taken by ... --resume toy"),
    "a path as name": ("train --config small.json --train.name a/b", "train.name='a/b' is not a folder name"),
    "resume without a run": ("train --resume", "--resume: expected one argument"),
    "resume of nothing": ("train --resume nowhere", "nowhere is not a run ... toy"),
    "resume with another rate": ("train --resume toy --train.lr 0.5",
                                 "--resume toy cannot change train.lr=0.5 (it has 0.01) ... --init-from toy"),
    "resume or begin another run": ("train --config small.json --resume-or-begin toy --model.dim 32",
                                    "--resume toy cannot change model.dim=32 (it has 16)"),
    "resume, or resume or begin": ("train --resume toy --resume-or-begin toy", "--resume both say which run"),
    "resume with another model": ("train --resume=toy --model.dim=32", "cannot change model.dim=32 (it has 16)"),
    "resume for fewer steps": ("train --resume toy --train.steps 11", "train.steps=11 is less than the 12 that toy"),
    "resume with a preset": ("train gpt2 --resume toy", "--resume toy keeps ... leave out the preset"),
    "resume at a scale": ("train --resume toy --scale 1M", "--resume toy keeps ... leave out the preset, --scale"),
    "resume with a config": ("train --resume toy --config small.json", "--resume toy keeps ... and --config"),
    **{f"{word} seeds": (f"train --config small.json --seeds {word}", f"--seeds {word!r} is not a number of runs: use")
       for word in ("0", "-1", "1.5", "nan", "three", "1001")},
    "seeds without a number": ("train --seeds", "--seeds: expected one argument"),
    "seeds of a resumed run": ("train --resume toy --seeds 2", "--resume toy goes on with one run"),
    "seeds with a time limit": ("train --config small.json --seeds 2 --time-limit 5m",
                                "train.time_limit=5m with --seeds"),
    "rates of a run that has no scaling": ("train --transfer-from toy",
                                           "--transfer-from toy: it was trained with model.scaling=standard, whose"),
    "a time without a unit": ("train --time-limit 50", "train.time_limit=50 is not a time ... 50m"),
    "a tracker twice": ("train --train.trackers wandb wandb", "train.trackers=wandb wandb names one twice"),
    "weights from nowhere": ("train --config small.json --init-from nowhere",
                             "train.init_from=nowhere is not a run, nor a folder or file with ... toy"),
    "weights of another width": ("train --config small.json --init-from toy --model.dim 32",
                                 "does not fit (of another shape: embed.tokens.weight (24, 16) instead of (24, 32)"
                                 " ... and 11 more): --allow-partial"),
    "damaged weights": ("train --config small.json --init-from cut-weights", "is damaged: model.safetensors"),
    "no weights to be partial": ("train --allow-partial", "train.allow_partial=True would change nothing ... init_fr"),
    "resume of cut weights": ("train --resume cut-weights",
                              "cut-weights has no whole checkpoint ... model.safetensors is not as it was saved"),
    "resume of a cut optimizer": ("train --resume cut-optimizer", "optimizer.pt is not as it was saved ... delete"),
    "resume of a cut progress": ("train --resume cut-progress", "progress.json is not as it was saved"),
    "resume of a cut config": ("train --resume cut-config", "config.json is neither JSON nor YAML"),
    "resume of an odd config": ("train --resume odd-config", "model.dimm is not a flag"),
    "resume of another width": ("train --resume other-width", "does not fit its configuration"),
    "resume of a cut tokenizer": ("train --resume cut-tokenizer", "tokenizer' cannot be read"),
    "resume of cut data": ("train --resume cut-data", "data.json cannot be read"),
    # the other programs
    "model: misspelt flag": ("model --model.dimm 3", "perhaps --model.dim was meant"),
    "model: out of range": ("model --model.dim -4", "model.dim=-4 must be above 0"),
    "model: neither preset nor run": ("model gtp2", "gtp2 is neither a preset ... nor a run ... gpt2 was meant"),
    "model: path of no run": ("model models/nowhere", "models/nowhere is not a run ... toy"),
    "model: weights of another width": ("model toy --model.dim 32",
                                        "model.dim=32 (it has 16) does not fit the weights of toy: leave it out"),
    "model: weights of fewer layers": ("model toy --model.num-layers 1", "model.num_layers=1 (it has 2) does not fit"),
    "model: weights of another preset": ("model toy gpt2", "toy has its own configuration: leave out gpt2"),
    "model: weights of a file": ("model toy --config small.json", "toy has its own configuration: leave out --config"),
    "model: flag of training": ("model toy --train.lr 1", "--train.lr changes nothing in how ... toy is shown"),
    "model: empty text": ("model toy --text=", "--text is empty"),
    "model: text outside the alphabet": ("model toy --text café", "'é' (U+00E9)"),
    "model: text for a preset": ("model gpt2 --text fox", "--text is for a saved run"),
    "model: unknown checkpoint": ("model toy --checkpoint 7", "checkpoint=7 is not in ... (6, 12)"),
    "model: no checkpoint": ("model no-checkpoint", "checkpoint=best is not in ... none yet"),
    "model: cut weights": ("model cut-weights", "model.safetensors cannot be read"),
    "model: cut config": ("model cut-config", "config.json is neither JSON nor YAML"),
    "model: cut tokenizer": ("model cut-tokenizer", "tokenizer' cannot be read"),
    "model: cut data": ("model cut-data", "data.json cannot be read ... --text TEXT shows cut-data on a text of yours"),
    "model: a run of another width": ("model other-width", "does not fit its configuration"),
    "model: flag of another program": ("model --resume toy", "--resume is not a flag"),
    "inference: no run": ("inference", "RUN is missing: name one of ... toy"),
    "inference: unknown run": ("inference nowhere", "nowhere is not a run ... toy"),
    "inference: misspelt flag": ("inference toy --temprature 1", "perhaps --temperature was meant"),
    "inference: a word for a number": ("inference toy --temperature warm",
                                       "sample.temperature='warm' is wrong: use a number"),
    "inference: out of range": ("inference toy --top-k 0", "sample.top_k=0 must be above 0"),
    "inference: unknown checkpoint": ("inference toy --checkpoint 7", "checkpoint=7 is not in ... (6, 12)"),
    "inference: no checkpoint": ("inference no-checkpoint", "checkpoint=best is not in ... none yet"),
    "inference: prompt outside the alphabet": ("inference toy café", "'é' (U+00E9)"),
    "inference: no text to score": ("inference toy --score nowhere.txt", "score='nowhere.txt' cannot be read"),
    "inference: empty text to score": ("inference toy --score empty.txt", "score='empty.txt' is empty"),
    "inference: short option": ("inference toy -t 0", "-t is not a flag: flags begin with --"),
    "inference: ignored prompt": ("inference toy fox --score text.txt", "score='text.txt' generates nothing"),
    "inference: cut weights": ("inference cut-weights", "model.safetensors cannot be read"),
    "inference: cut progress": ("inference cut-progress", "progress.json is not as it was saved"),
    "inference: cut config": ("inference cut-config", "config.json is neither JSON nor YAML"),
    "inference: cut tokenizer": ("inference cut-tokenizer", "tokenizer' cannot be read"),
    "inference: no such device": ("inference toy --device abacus", "device=abacus is not available"),
    "tokenizer: no command": ("tokenizer", "Expected one of {train, grow, show, build}"),
    "tokenizer: unknown command": ("tokenizer learn",
                                   "learn is not a command: use one of train, grow, show, build"),
    "tokenizer: misspelt command": ("tokenizer shwo", "perhaps show was meant"),
    "tokenizer: unknown flag": ("tokenizer train --no-such-flag x",
                                "Unrecognized options: --no-such-flag x; --data, --kind, --out are missing"),
    "tokenizer: misspelt flag": ("tokenizer show tales_128 hello --idz", "perhaps --ids was meant"),
    "tokenizer: missing flag": ("tokenizer train --data text.txt --kind char", "--out is missing"),
    "tokenizer: missing text": ("tokenizer show tales_128", "TEXT is missing"),
    "tokenizer: one text too many": ("tokenizer show tales_128 hello again", "Unrecognized options: again"),
    "tokenizer: unknown kind": ("tokenizer train --data text.txt --kind words --out new",
                                "'words' ... --kind ... 'char', 'byte', 'bpe', 'unigram'"),
    "tokenizer: a word for a number": ("tokenizer train --data text.txt --kind bpe --vocab-size many --out new",
                                       "--vocab-size='many' is wrong: use {None}|INT"),
    "tokenizer: a file for a folder": ("tokenizer train --data text.txt --kind char --out text.txt",
                                       "text.txt cannot be read or written: File exists"),
    "tokenizer: unknown one": ("tokenizer show nowhere hello", "tokenizer='nowhere' is not a folder ... tales_128"),
    "tokenizer: damaged one": ("tokenizer show tokenizer hello", "tokenizer='tokenizer' cannot be read"),
    "tokenizer: character it lacks": ("tokenizer show tales_128 日", "'日' (U+65E5)"),
    "tokenizer: no data": ("tokenizer train --data nowhere.txt --kind char --out new",
                           "data='nowhere.txt' is not a file"),
    "tokenizer: empty data": ("tokenizer train --data empty.txt --kind char --out new", "the training text is empty"),
    "tokenizer: no UTF-8": ("tokenizer train --data binary.txt --kind char --out new",
                           "binary.txt is not UTF-8 text (byte 4)"),
    "tokenizer: no size": ("tokenizer train --data text.txt --kind bpe --out new", "vocab_size is missing: kind=bpe"),
    "tokenizer: size without a choice": ("tokenizer train --data text.txt --kind byte --vocab-size 9 --out new",
                                         "vocab_size=9 cannot be chosen for kind=byte"),
    "tokenizer: no larger": ("tokenizer grow tales_128 --data text.txt --vocab-size 128 --out new",
                             "vocab_size=128 is not above the 128 ids"),
    "tales: no stories": ("tales --num-stories -1", "--num-stories: -1 is not a number of stories"),
    "tales: a word for a number": ("tales --seed one", "--seed: invalid int value: 'one'"),
    "tales: nothing to grade": ("tales --grade nowhere.txt", "--grade: nowhere.txt cannot be read"),
    "tales: no text to grade": ("tales --grade binary.txt", "--grade: binary.txt cannot be read: no UTF-8 text"),
    "tokenizer: size too large": ("tokenizer train --data text.txt --kind bpe --vocab-size 400 --out new",
                                  "vocab_size=400 is more than this text supports"),
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(command, place, line, said):
    before = content(place / "models")
    status, output, errors = command(*line.split())
    assert (status, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n")
    place_of = [errors.find(part) for part in said.split(" ... ")]
    assert -1 not in place_of and place_of == sorted(place_of), errors
    assert content(place / "models") == before
    assert not (place / "new").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("line", ["train --config small.json --train.device cuda", "inference toy --device cuda"])
def test_a_gpu_that_is_not_there_is_a_sentence(command, line):
    assert command(*line.split()) == (2, "", "error: device=cuda is not available: use one of auto, cpu\n")


def test_a_file_in_place_of_the_models_folder_is_a_sentence(command, place, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", place / "text.txt")
    status, output, errors = command("train", "--config", "small.json")
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {place / 'text.txt'}") and "Not a directory" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(("program", "words"), [
    ("train", ["--train.steps", "--config FILE", "--resume", "--seeds", "gpt2"]),
    ("model", ["--model.dim", "--config FILE", "gpt2", "RUN", "--text"]),
    ("inference", ["--temperature", "--checkpoint"]), ("tokenizer", ["train", "show", "build"])])
def test_help_is_no_mistake(command, program, words):
    status, output, errors = command(program, "--help")
    assert (status, errors) == (0, "")
    assert all(word in output for word in words)


# ---- as processes of their own ----


@pytest.fixture(scope="module")
def processes(place):
    """A mistake in each program, all started together: by name, (exit status, output, errors)."""
    mistakes = {"train": ["--train.stps", "3"], "model": ["--model.dim", "0"], "tokenizer": ["show", "nowhere", "text"],
                "experiments/benchmark": ["memory", "--randm", "3"]}
    started = {name: start(place, name, *words) for name, words in mistakes.items()}
    return {name: (*process.communicate(), process.returncode) for name, process in started.items()}


def start(place: Path, name: str, *words: str, **options) -> subprocess.Popen:
    program = Path(train.__file__).parent / f"{name}.py"
    environment = os.environ | {"SHAPESHIFTER_MODELS": str(place / "models"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, program, *words], cwd=place, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "model", "tokenizer", "experiments/benchmark"])
def test_a_program_fails_with_one_line(processes, name):
    output, errors, status = processes[name]
    assert (output, status) == ("", 2)
    assert errors.count("\n") == 1 and "Traceback" not in errors


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(place, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "MODELS", tmp_path / "models")
    run = train_run(small_run_config(place, {"train.steps": 18}), console=Console(quiet=True))
    shutil.rmtree(run.path / "checkpoints" / "step_00000018")
    before = content(run.path / "checkpoints")

    def fill_the_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(tmp_path, "train", "--resume", "toy", preexec_fn=fill_the_disk)
    _, errors = process.communicate()
    assert process.returncode == 2 and errors.count("\n") == 1
    assert "step_00000018 cannot be written" in errors and "File too large" in errors and "--resume toy" in errors
    assert content(run.path / "checkpoints") == before
    train_run(run.config, run=Run("toy"), console=Console(quiet=True))
    assert Run("toy").checkpoint("last").step == 18
