"""Folders of Hugging Face become runs, and runs become folders that their library loads with the same logits."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from thorough import some

transformers = pytest.importorskip("transformers")

from small_families import TOYS, build_theirs, ends, family_of, together, toy  # noqa: E402
from small_runs import DATA  # noqa: E402
from small_tokenizers import byte_level_backend  # noqa: E402

import exchange.reference  # noqa: E402
from config import Config, override  # noqa: E402
from exchange.command import COMMANDS  # noqa: E402
from families.weights import WeightMap  # noqa: E402
from generation.sampling import generate  # noqa: E402
from inference import encode_prompts  # noqa: E402
from model import Model  # noqa: E402
from run_store import commands  # noqa: E402
from runs import Run  # noqa: E402
from tokenizer import built_tokenizer, load_tokenizer, train_tokenizer  # noqa: E402
from training.transfer import find_source, load_weights  # noqa: E402


def unlike() -> list[str]:
    """Models that have every kind of field and of rule for weights that there is; test_families.py compares all."""
    found, seen = ["gpt2"], kinds_of(family_of("gpt2"))
    for name in dict.fromkeys(TOYS):
        if kinds := kinds_of(family_of(name)) - seen:
            seen |= kinds
            found.append(name)
    return found


def kinds_of(part: object) -> set[type]:
    """The classes of the parts of a family."""
    if isinstance(part, Mapping):
        part = tuple(part.values())
    if isinstance(part, tuple | list):
        return set().union(*map(kinds_of, part))
    if not is_dataclass(part) or isinstance(part, type):
        return set()
    return {type(part)}.union(*(kinds_of(getattr(part, one.name)) for one in fields(part)))


SOME = unlike()
PROMPTS = ("Once", "a b c")
NEW_TOKENS = 4
SIZES = {"unigram": 34, "hf_bpe": 270}  # of tokenizers
# in a process of its own: what transformers makes of each folder
LOAD = """
import json, sys, torch, transformers
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
found, (prompts, folders, number) = {}, json.load(sys.stdin)
for folder in folders:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    made = [model.generate(torch.tensor([row]), max_new_tokens=number, do_sample=False)[0, len(row):] for row in ids]
    with torch.no_grad():
        logits = model(torch.tensor([ids[0] * 3])).logits[0].tolist()
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in made]
    found[folder] = {"class": type(model).__name__, "ids": ids, "logits": logits, "texts": texts,
                     "new": [row.tolist() for row in made]}
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def backend():
    return byte_level_backend(special_tokens=["<|endoftext|>"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory, backend):
    """A folder of each model as `save_pretrained` writes it, every second one in shards."""
    place, words = tmp_path_factory.mktemp("hub"), transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>")
    for number, preset in enumerate(SOME):
        cfg = toy(preset, vocab_size=backend.get_vocab_size() + 3)
        build_theirs(family_of(preset).write(cfg) | ends(family_of(preset))).save_pretrained(
            place / preset, max_shard_size="30KB" if number % 2 else "5GB")
        words.save_pretrained(place / preset)
    return place


def import_or_export() -> None:
    commands.main(COMMANDS)


@pytest.fixture
def command(call, models):
    """`python runs.py ...` in this process."""
    return lambda *words: call(import_or_export, *words)


def greedy(run: Run, model: Model) -> list[str]:
    """What a run's model writes after the prompts, as inference.py does."""
    tokenizer, cfg = run.tokenizer(), override(Config(), {"sample.prompts": PROMPTS, "sample.num_samples": 1,
                                                          "sample.temperature": 0.0,
                                                          "sample.max_new_tokens": NEW_TOKENS}).sample
    adds_bos = run.data.get("imported", {}).get("adds_bos", True)
    prompts = [ids if adds_bos else ids[1:] for ids in encode_prompts(tokenizer, cfg)]
    ids = generate(model, prompts, cfg, eos_id=tokenizer.eos_id, num_ids=tokenizer.vocab_size)
    return [tokenizer.decode(new) for new in ids]


def small_run(name: str, tokenizer, **flags) -> Run:
    """A run as `train` leaves it, with random weights and the defaults of config.py."""
    cfg = override(Config(), {"model": {"dim": 32, "num_layers": 2, "vocab_size": tokenizer.vocab_size,
                                        "max_seq_len": 64, "out_init": "same"} | flags})
    return Run.create(name, cfg, tokenizer, DATA, Model(cfg.model))


@pytest.mark.parametrize("turn", some(range(3), 3))
def test_families_come_in_and_go_out_with_equal_logits_and_text(turn, folders, models, command, tmp_path):
    names = SOME[turn::3]
    for preset in names:
        status, out, error = command("import", folders / preset, preset)
        assert status == 0 and "logits equal those of transformers to" in out, error
        status, out, error = command("export", preset, tmp_path / preset)
        assert status == 0 and f"is a {family_of(preset).architecture}" in out, error
    small_run("ours", built_tokenizer(1024))  # the defaults of config.py
    status, out, error = command("export", "ours", tmp_path / "ours")
    assert status == 0 and "is a ApertusForCausalLM" in out, error
    exported = [str(tmp_path / name) for name in (*names, "ours")]
    done = subprocess.run([sys.executable, "-c", LOAD], input=json.dumps([PROMPTS, exported, NEW_TOKENS]), text=True,
                          capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    for preset, found in zip((*names, "ours"), json.loads(done.stdout).values(), strict=True):
        run = Run(preset)
        model, tokenizer = run.load_model(), run.tokenizer()
        written = greedy(run, model)
        assert [tokenizer.decode(ids) for ids in found["new"]] == written, preset
        with torch.no_grad():
            logits = model(torch.tensor([found["ids"][0] * 3]))[0]
        torch.testing.assert_close(torch.tensor(found["logits"]), logits, atol=2e-5, rtol=1e-5)
        if preset != "ours":
            assert found["texts"] == written
            assert found["class"] == family_of(preset).architecture
            assert_same_tensors(folders / preset, tmp_path / preset, made_by_theirs(family_of(preset).weights))


def made_by_theirs(weights: WeightMap) -> tuple[str, ...]:
    """The ends of names of buffers that are not exported, since their class makes them."""
    return tuple(end for end in weights.buffers if not any(end.endswith(name) for _, name, _ in weights.constants))


def assert_same_tensors(before: Path, after: Path, buffers: tuple[str, ...]) -> None:
    """The same tensors, but rows that no token reads, and buffers that their class makes itself."""
    old = together({name: tensor for file in before.glob("*.safetensors") for name, tensor in load_file(file).items()})
    new = together(load_file(after / "model.safetensors"))
    assert not [name for name in old.keys() ^ new.keys() if not name.endswith(buffers)]
    for name in old.keys() & new.keys():
        if "embed_positions" not in name:
            torch.testing.assert_close(new[name], old[name], atol=0, rtol=0)


def test_an_imported_run_is_a_run_without_a_training(folders, models, command):
    assert command("import", folders / "gpt2", "mine")[0] == 0
    run = Run("mine")
    assert run.data["name"] == "imported from gpt2" and run.data["train_tokens"] is None
    assert run.checkpoint("best").problem() is None and run.config.tokenizer.path == str(run.path / "tokenizer")
    assert run.tokenizer().encode("Once") == load_tokenizer(folders / "gpt2").encode("Once")
    assert list(run.log()["step"]) == [0]
    source = find_source("mine")  # --init-from: every tensor fits
    assert load_weights(source, Model(run.config.model), run.tokenizer(), allow_partial=False) is None
    status, out, _ = command("show", run.path)
    assert status == 0 and "mine: imported" in out
    status, _, error = command("import", folders / "gpt2", "mine")
    assert status == 2 and "NAME=mine is taken: choose another" in error


def test_a_name_that_is_no_folder_and_a_folder_that_is_there_are_refused(folders, models, command, tmp_path):
    status, _, error = command("import", folders / "gpt2", "../mine")
    assert status == 2 and "NAME='../mine' is not a folder name" in error
    small_run("here", built_tokenizer(128))
    status, _, error = command("export", "here", tmp_path)
    assert status == 2 and "is there already: give another folder" in error


# ---- folders of strangers ----


def change_config(**changes):
    def act(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(content))
    return act


def change_tensors(change):
    def act(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return act


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))


def an_index(**places: str):
    def act(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return act


def nan(tensors: dict) -> None:
    tensors["transformer.wte.weight"][3, 3] = float("nan")


def integers(tensors: dict) -> None:
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"].int()


def a_head_of_its_own(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1


WRONG = {
    "pickle": (only_a_pickle, "pytorch_model.bin is a pickle, which may run code and is never read"),
    "cut": (cut_short, "model.safetensors cannot be read"),
    "shape": (change_config(n_embd=64), "and config.json makes it"),
    "missing": (change_tensors(lambda t: t.pop("transformer.ln_f.bias")), "lacks transformer.ln_f.bias"),
    "left over": (change_tensors(lambda t: t.update(extra=torch.zeros(2))), "the folder has extra"),
    "nan": (change_tensors(nan), "embed.tokens.weight is not finite"),
    "integers": (change_tensors(integers), "as I32, which is not a type of weights"),
    "untied": (change_tensors(a_head_of_its_own), "lm_head.weight is not transformer.wte.weight"),
    "outside": (an_index(x="../../model.safetensors"), "is not a safetensors file of the folder"),
    "lost shard": (an_index(x="model-1.safetensors"), "model-1.safetensors is missing"),
    "many layers": (change_config(n_layer=9_999), "tensors, and config.json says 9,999 layers"),
    "more layers": (change_config(n_layer=10**15), "is not a number of layers"),
    "huge": (change_config(n_embd=2**40), "cannot be made"),
    "model type": (change_config(model_type="secret"), "model_type='secret', which is not known here"),
    "unknown": (change_config(new_trick=2), "new_trick=2, which may change what a GPT2LMHeadModel computes"),
    "vocabulary": (change_config(vocab_size=64), "ids, and the model 64"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    "a list": (lambda folder: (folder / "config.json").write_text("[1]"), "config.json cannot be read"),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "--tokenizer"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_folder_that_is_not_understood_is_refused_and_leaves_nothing(what, folders, models, command, tmp_path,
                                                                      monkeypatch):
    change, sentence = WRONG[what]
    shutil.copytree(folders / "gpt2", tmp_path / "bad")
    change(tmp_path / "bad")
    monkeypatch.chdir(tmp_path)
    status, out, error = command("import", tmp_path / "bad", "bad")
    assert (status, out) == (2, "") and sentence in error and error.count("\n") == 1
    assert not models.exists() or not list(models.iterdir())
    assert not (tmp_path / "evil").exists()


def test_code_in_a_folder_is_never_run(folders, models, command, tmp_path, monkeypatch):
    folder = shutil.copytree(folders / "gpt2", tmp_path / "code")
    change_config(auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})(folder)
    (folder / "evil.py").write_text("import os; os.mkdir('evil')")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    monkeypatch.chdir(tmp_path)
    assert command("import", folder, "code")[0] == 0
    assert not (tmp_path / "evil").exists()


def test_logits_that_differ_are_an_error_and_without_transformers_nothing_is_compared(folders, models, command,
                                                                                     monkeypatch):
    monkeypatch.setattr(exchange.reference, "TOLERANCE", -1.0)
    status, _, error = command("import", folders / "gpt2", "differs")
    assert status == 2 and "its logits differ by" in error and not (models / "differs").exists()
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, out, _ = command("import", folders / "gpt2", "alone")
    assert status == 0 and "not compared: transformers with GPT2LMHeadModel is not installed" in out


# ---- runs of ours ----


def test_a_run_that_no_family_expresses_is_refused_with_the_flag(models, command, tmp_path):
    small_run("copies", built_tokenizer(128), pointer=True)
    status, _, error = command("export", "copies", tmp_path / "out")
    assert status == 2 and "model.pointer=True" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["char", "byte", "unigram", "bpe", "hf_bpe"])
def test_each_kind_of_tokenizer_gives_its_ids_in_transformers(kind, models, command, tmp_path):
    text = ["Once upon a time, there was a fox.\nIt said: 'no 123'.\n"] * 50
    tokenizer = built_tokenizer(1024) if kind == "bpe" else train_tokenizer(kind, text, SIZES.get(kind))
    small_run("mine", tokenizer, **{"mlp": "glu", "activation": "silu", "hidden_dim": 64})
    status, out, error = command("export", "mine", tmp_path / "out")
    assert status == 0 and "gives the ids" in out, error
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    for words in ("Once upon", "a fox.\nIt  said"):
        assert theirs(words)["input_ids"] == tokenizer.encode(words, bos=True)
        assert theirs.decode(tokenizer.encode(words)) == words
    assert theirs.eos_token_id == tokenizer.eos_id
