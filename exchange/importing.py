"""Import a folder of Hugging Face as a run."""

import hashlib
import json
from pathlib import Path

from config import Config, DataConfig, TokenizerConfig, TrainConfig
from configuration.checks import require_folder_name
from configuration.reading import read_json
from exchange.folder import SavedTensors, read_model_type
from exchange.reference import sentence
from exchange.weights import load_model
from model import spell_parameters
from run_store.facts import DataFacts
from runs import NameTaken, Run, require_free
from tokenizer import Tokenizer, load_tokenizer

IMPORTED = "imported"


def import_folder(folder: Path, name: str, *, tokenizer: str | None = None, check: bool = True) -> list[str]:
    """Make a run of a folder; return sentences on what was done.

    Raises ValueError, and leaves nothing, if the folder is not understood or its logits differ from transformers'.
    """
    require_folder_name("NAME", name)
    try:
        path = require_free(name)
    except NameTaken:
        raise ValueError(f"NAME={name} is taken: choose another, or remove it with python runs.py rm {name}") from None
    family, theirs = read_model_type(folder)
    cfg, saved = family.read(theirs), SavedTensors(folder)
    words = their_tokenizer(folder, tokenizer, cfg.vocab_size)
    tensors = saved.renamed(family.weights.full_names(list(saved)))
    model = load_model(family, cfg, tensors)
    compared = "its logits are not compared: --no-check"
    if check:
        compared = sentence(model, family, theirs, tensors)
    config = Config(model=cfg, data=DataConfig(name=(IMPORTED,)), tokenizer=TokenizerConfig(
        path=str(path / "tokenizer")), train=TrainConfig(name=name))
    facts = describe(folder, family.model_type, saved, adds_bos=adds_bos(folder))
    run = Run.create(name, config, words, facts, model)
    return [f"{folder} is a {family.architecture} of {spell_parameters(model)}; {compared}",
            f"it is in {run.path}: python inference.py {name} \"Once upon\""]


def their_tokenizer(folder: Path, given: str | None, vocab_size: int) -> Tokenizer:
    """The tokenizer of a folder, or another that is given. Raises ValueError if it has more ids than the model."""
    try:
        found = load_tokenizer(given or folder)
    except ValueError as error:
        if given:
            raise
        raise ValueError(f"{error}; or give another tokenizer with --tokenizer") from None
    if found.vocab_size > vocab_size:
        raise ValueError(f"the tokenizer has {found.vocab_size:,} ids, and the model {vocab_size:,}: give another with "
                         "--tokenizer")
    return found


def describe(folder: Path, model_type: str, saved: SavedTensors, *, adds_bos: bool) -> DataFacts:
    """What data.json says: nothing is known of the text that others trained on."""
    shapes = hashlib.sha256(json.dumps(sorted(saved.shapes.items())).encode()).hexdigest()
    unknown = dict.fromkeys(("train_tokens", "train_bytes", "val_bytes", "val_tokens_per_byte", "floor_bits_per_byte"))
    return {"name": f"imported from {folder.absolute().name}", "fingerprint": f"imported {shapes[:16]}", **unknown,
            "imported": {"model_type": model_type, "adds_bos": adds_bos}}


def adds_bos(folder: Path) -> bool:
    """Whether their tokenizer begins each text with a special token."""
    try:
        state = read_json(folder / "tokenizer.json")
        steps = state["post_processor"]["single"] if state["post_processor"]["type"] == "TemplateProcessing" else []
        return bool(steps) and "SpecialToken" in steps[0]
    except (OSError, ValueError, LookupError, TypeError):
        return False
