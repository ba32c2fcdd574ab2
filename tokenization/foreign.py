"""Others' tokenizers: GPT-2's two files, a tokenizer.json or .model, anything that AutoTokenizer loads.

Special tokens: if a tokenizer has only one of bos and eos, that one is used for both (as GPT-2's <|endoftext|>). If it
has neither, <|endoftext|> is used, and added if missing. Without pad, eos is used: padding is masked, so its id does
not matter.
"""

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from configuration.reading import read_bytes, read_json
from tokenization.base import META, Tokenizer
from tokenization.hugging_face import BYTES, HuggingFaceTokenizer, is_byte_level, parse, steps
from tokenization.lossless import END, FILES, check_lossless, first_line, incomplete, unreadable
from tokenization.pieces import TRAINED_HERE, from_model

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def from_file(path: Path, source: str | None = None) -> Tokenizer:
    """The tokenizer of a tokenizer.json or of a SentencePiece .model. Raises ValueError if it is not one."""
    source = source or str(path)
    if path.suffix == ".json" and path.name != META:
        return from_json(path, source)
    if path.suffix == ".model":
        return from_model(_content(path, source), source)
    raise ValueError(f"tokenizer={source!r} is a file of another kind: give a tokenizer.json, a SentencePiece .model "
                     "or a folder; a pickle is never read, since it may run code, but converted: see docs/tokenizer.md")


def from_json(path: Path, source: str) -> HuggingFaceTokenizer:
    """The tokenizer of a tokenizer.json, with the special tokens that the files beside it name."""
    content = _content(path, source).decode(errors="replace")
    beside = path.parent if path.name == "tokenizer.json" else path / "none"
    named = {name: word for name, word in _json(beside / "tokenizer_config.json").items() if word is not None}
    return make_lossless(content, _json(beside / "special_tokens_map.json") | named, source)


def from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder of Hugging Face files, or of a tokenizer.model. Raises ValueError if there is none."""
    config = _json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        return from_json(folder / "tokenizer.json", str(folder))
    is_gpt2 = config.get("tokenizer_class", "GPT2Tokenizer") in ("GPT2Tokenizer", "GPT2TokenizerFast")
    if is_gpt2 and (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return make_lossless(gpt2_content(folder), config, str(folder))
    if (model := folder / "tokenizer.model").is_file():
        if _content(model, str(folder)).startswith(TRAINED_HERE):
            raise ValueError(f"tokenizer={str(folder)!r} cannot be read (no {META} beside a model as it is trained here"
                             f"): save it again, or give {str(model)!r}")
        return from_file(model, str(folder))
    if not config and not (folder / "config.json").is_file():
        raise unreadable(str(folder), f"no {META}, no tokenizer.json, no tokenizer.model")
    try:
        return from_auto(str(folder), local_files_only=True)
    except OSError as error:
        raise unreadable(str(folder), error) from None


def from_hub(name: str) -> HuggingFaceTokenizer:
    """The tokenizer OWNER/NAME of the Hugging Face Hub, from its cache on the disk or else the network.

    Raises ValueError if neither has it.
    """
    with contextlib.suppress(OSError):  # not in the cache
        return from_auto(name, local_files_only=True)
    try:
        check_hub_reachable()
        return from_auto(name, local_files_only=False)
    except OSError as error:
        raise ValueError(f"tokenizer={name!r} is not a folder, and the Hugging Face Hub does not give it "
                         f"({first_line(error)}): get its {FILES} on a machine with a network, and give their folder"
                         ) from None


def check_hub_reachable() -> None:
    """Raise ConnectionError if the Hub cannot be reached. One request: its library would retry for a minute."""
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10):
            pass
    except OSError as error:
        raise ConnectionError(first_line(getattr(error, "reason", error))) from None


def from_auto(name: str, *, local_files_only: bool) -> HuggingFaceTokenizer:
    """The tokenizer that transformers' AutoTokenizer loads. Code beside its files is neither run nor asked about.

    Raises OSError if it finds no files, ValueError if it needs such code or is not lossless.
    """
    try:
        from transformers import AutoTokenizer, logging
    except ImportError:
        raise ValueError(f"tokenizer={name!r} needs the package transformers: install it, or give a folder with {FILES}"
                         ) from None
    logging.set_verbosity_error()  # its warnings are about models
    try:
        auto = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:  # raised by its many classes
        if "trust_remote_code" in str(error):
            raise ValueError(f"tokenizer={name!r} consists of a program of its own, which is never run: use one with a "
                             "tokenizer.json, or save it as one with the library that it is for") from None
        raise unreadable(name, error) from None
    if getattr(auto, "backend_tokenizer", None) is None:
        raise ValueError(f"tokenizer={name!r} is a {type(auto).__name__}, which has no tokenizer.json: "
                         "use one that has, or kind=byte")
    names = {role: getattr(auto, role) for role in ("pad_token", "bos_token", "eos_token")}
    return make_lossless(auto.backend_tokenizer.to_str(), names, name)


def gpt2_content(folder: Path) -> str:
    """The tokenizer.json of GPT-2's vocab.json and merges.txt. Radford et al. 2019."""
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library has no narrower class
        raise unreadable(str(folder), error) from None
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if END in backend.get_vocab():
        backend.add_special_tokens([END])
    return backend.to_str()


def make_lossless(content: str, names: Mapping[str, Any], source: str) -> HuggingFaceTokenizer:
    """The tokenizer of a tokenizer.json, without the steps that change text; the ids of other text stay the same.

    Removed are normalization, a space before the text, specials around it, truncation and padding. `names` are the
    words of bos, eos and pad. Raises ValueError if an id does not stand for fixed bytes.
    """
    try:
        vocabulary = parse(content).get_vocab()
    except ValueError as error:
        raise unreadable(source, error) from None
    state = {name: None for name in ("normalizer", "pre_tokenizer", "decoder")} | json.loads(content)
    _check_family(state, source)
    remove_text_changes(state)
    ids = special_ids(vocabulary, names)
    mark_special(state, vocabulary, ids)
    try:
        tokenizer = HuggingFaceTokenizer(json.dumps(state, ensure_ascii=False), **ids)
    except (ValueError, KeyError) as error:
        raise unreadable(source, error) from None
    check_lossless(tokenizer, source, (token["content"] for token in state["added_tokens"]))
    return tokenizer


def remove_text_changes(state: dict) -> None:
    """Remove from a tokenizer.json, in place, all steps that change the text or are random."""
    state["truncation"] = state["padding"] = state["post_processor"] = None
    if "dropout" in state["model"]:
        state["model"]["dropout"] = None
    kept = [step for step in steps(state["normalizer"]) if step["type"] in ("Replace", "ByteLevel")]
    state["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in steps(state["pre_tokenizer"]):
        if "add_prefix_space" in step:
            step["add_prefix_space"] = False
        if "prepend_scheme" in step:
            step["prepend_scheme"] = "never"


def special_ids(vocabulary: Mapping[str, int], names: Mapping[str, Any]) -> dict[str, int]:
    """pad_id, bos_id and eos_id; see the top of this file for missing ones."""
    words = {role: names.get(f"{role}_token") for role in ("pad", "bos", "eos")}
    words = {role: word.get("content") if isinstance(word, dict) else word for role, word in words.items()}
    ids = {role: vocabulary[word] for role, word in words.items() if isinstance(word, str) and word in vocabulary}
    end = vocabulary.get(END, max(vocabulary.values()) + 1)
    eos = ids.get("eos", ids.get("bos", end))
    return {"pad_id": ids.get("pad", eos), "bos_id": ids.get("bos", eos), "eos_id": eos}


def mark_special(state: dict, vocabulary: Mapping[str, int], ids: Mapping[str, int]) -> None:
    """Make the ids special tokens of a tokenizer.json, in place; a new one is <|endoftext|>."""
    added, words = {token["id"]: token for token in state["added_tokens"]}, {i: word for word, i in vocabulary.items()}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i in ids.values():
        added.setdefault(i, {"id": i, "content": words.get(i, END), **plain})["special"] = True
    state["added_tokens"] = [added[i] for i in sorted(added)]


def _check_family(state: dict, source: str) -> None:
    """Raise ValueError if ids do not stand for fixed bytes: lower-cased words, characters without an id."""
    model = state["model"]
    words = {entry if isinstance(entry, str) else entry[0] for entry in model["vocab"]}  # Unigram: [word, score]
    needed = set(BYTES) if is_byte_level(state) else {f"<0x{byte:02X}>" for byte in range(256)}
    if not (is_byte_level(state) or model.get("byte_fallback")) or not needed <= words:
        raise incomplete(source, model.get("type"))


def _content(path: Path, source: str) -> bytes:
    """The content of a file. Raises ValueError if it cannot be read."""
    try:
        return read_bytes(path)
    except ValueError as error:
        raise unreadable(source, error) from None


def _json(path: Path) -> dict:
    """The content of a JSON file; empty if there is no file. Raises ValueError if it is damaged."""
    try:
        found = read_json(path) if path.is_file() else {}
    except ValueError as error:
        raise unreadable(str(path.parent), error) from None
    if not isinstance(found, dict):
        raise unreadable(str(path.parent), f"{path.name} is not a JSON object")
    return found
