"""Tokenizers of the `tokenizers` library: byte-pair encoding trained here, or others' tokenizer.json."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tokenization.base import PARALLELISM, Tokenizer, require_size, too_large_error
from tokenization.cuts import safe_cuts
from tokenization.sentence_piece import SPACE_MARK, encode_around_marks

MAX_IDS = 1 << 24
SPECIALS = ("<|pad|>", "<|bos|>", "<|eos|>")  # ids 0, 1, 2 if trained here
SPLIT = "|".join([  # the words of a text, as GPT-4 splits it; no merge crosses their bounds
    r"'(?i:s|t|d|m|ll|re|ve)",  # the end of a contraction
    r"[^\r\n\p{L}\p{N}]?\p{L}+",  # letters, after one space or other character
    r"\p{N}{1,3}",  # digits, up to three
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation, and the newlines after it
    r"\s*[\r\n]+",  # newlines, and the space before them
    r"\s+(?!\S)",  # space, except its last character, which belongs to the next word
    r"\s+",
])


def byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTES = byte_alphabet()


def parse(content: str) -> Backend:
    """The library's tokenizer of a tokenizer.json. Raises ValueError if it is damaged."""
    try:
        return Backend.from_str(content)
    except Exception as error:  # the library has no narrower class
        raise ValueError(f"tokenizer.json is damaged ({error})") from None


def steps(node: dict | None) -> Iterator[dict]:
    """The steps of a normalizer, pre-tokenizer or decoder in a tokenizer.json, sequences flattened."""
    if node is not None:
        inner = [node[name] for name in ("normalizers", "pretokenizers", "decoders") if name in node]
        yield from (step for part in inner[0] for step in steps(part)) if inner else [node]


def is_byte_level(state: dict) -> bool:
    """Whether a character in the vocabulary of a tokenizer.json stands for a byte."""
    return any(step["type"] == "ByteLevel" for step in steps(state.get("decoder")))


def places_to_cut(backend: Backend, state: dict, token_bytes: list[bytes]) -> re.Pattern[str] | None:
    """Where a text may be cut; None if what is done before its tokens are merged may look across any place."""
    replaced = [step["pattern"] for step in steps(state.get("normalizer")) if step["type"] == "Replace"]
    splitting = list(steps(state.get("pre_tokenizer")))
    if (any(len(pattern.get("String", "")) != 1 for pattern in replaced)
            or any("(?<" in step["pattern"].get("Regex", "") for step in splitting if step["type"] == "Split")
            or any(token.get("single_word") for token in state["added_tokens"])):
        return None
    is_plain = all(step["type"] in ("Metaspace", "Digits")  # which look at single characters
                   or step["type"] == "ByteLevel" and not step.get("use_regex", True) for step in splitting)
    split = backend.pre_tokenizer and backend.pre_tokenizer.pre_tokenize_str
    return safe_cuts(token_bytes, None if is_plain else lambda text: [word for word, _ in split(text)])


class HuggingFaceTokenizer(Tokenizer):
    """The tokenizer of a tokenizer.json in which each id stands for fixed bytes.

    That holds for byte-level vocabularies (GPT-2, GPT-4, Llama 3, Qwen) and for SentencePiece's with byte fallback
    (Llama 2, Gemma). `content` must not change text: `foreign.make_lossless` takes care of that.
    """

    kind = "hf"
    file_names = ("tokenizer.json",)

    def __init__(self, content: str, *, pad_id: int = 0, bos_id: int = 1, eos_id: int = 2):
        self.content = content
        self.backend = parse(content)
        self.backend.encode_special_tokens = True  # "<|endoftext|>" in a text is thirteen characters
        self.byte_level = is_byte_level(json.loads(content))
        super().__init__(self._all_bytes(), pad_id=pad_id, bos_id=bos_id, eos_id=eos_id)
        self._mark_ids = [self.backend.token_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self.cuts = places_to_cut(self.backend, json.loads(content), self.token_bytes)

    def _all_bytes(self) -> list[bytes]:
        """The bytes of each id; empty for specials and unused ids."""
        added = self.backend.get_added_tokens_decoder()
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        if (last := max(vocabulary.values())) >= MAX_IDS:
            raise ValueError(f"tokenizer.json is damaged (it has the id {last:,})")
        found = [b""] * (last + 1)
        for token, i in vocabulary.items():
            if i in added:
                found[i] = b"" if added[i].special else added[i].content.encode()
            else:
                found[i] = self._bytes(token)
        return found

    def _bytes(self, token: str) -> bytes:
        if self.byte_level:
            return bytes(BYTES[character] for character in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[1:-1], 16)])
        return token.replace(SPACE_MARK, " ").encode()

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        ids = {name: description[name] for name in ("pad_id", "bos_id", "eos_id")}
        return cls(files["tokenizer.json"].decode(), **ids)

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.json": self.content.encode()}

    def details(self) -> dict:
        return {"tokenizer_sha256": hashlib.sha256(self.content.encode()).hexdigest()}

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        batch = self._encode(texts)
        if not self.byte_level:
            for n, text in enumerate(texts):
                if SPACE_MARK in text:
                    batch[n] = encode_around_marks(text, self._encode, self._mark_ids)
        return batch

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


class HuggingFaceBPETokenizer(HuggingFaceTokenizer):
    """Byte-pair encoding over bytes, within words as GPT-4 splits them. Encodes any text.

    Sennrich et al. 2016, arXiv:1508.07909; over bytes: Radford et al. 2019 (GPT-2).
    """

    kind = "hf_bpe"

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        vocab_size, least = require_size(cls.kind, vocab_size), len(SPECIALS) + 256
        if vocab_size < least:
            raise ValueError(f"vocab_size={vocab_size} is too small for kind={cls.kind}: use {least} or more, "
                             "which is its specials and all bytes, or kind=bpe")
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise ValueError("the training text is empty: give text with at least one word")
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        backend.decoder = decoders.ByteLevel()
        backend.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(SPECIALS), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        if (most := backend.get_vocab_size()) < vocab_size:
            raise too_large_error(vocab_size, most)
        return cls(backend.to_str())


# ---- threads and processes ----


def single_thread_forks() -> None:
    """Have a forked process use one thread: it lacks the library's other threads, and would wait for them.

    The variable is set during the fork, when the library reads it; otherwise the library prints a warning.
    """
    before: list[str | None] = []

    def disable() -> None:
        before.append(os.environ.get(PARALLELISM))
        os.environ[PARALLELISM] = "false"

    def restore() -> None:
        value = before.pop()
        if value is None:
            del os.environ[PARALLELISM]
        else:
            os.environ[PARALLELISM] = value

    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(before=disable, after_in_parent=restore)


single_thread_forks()
