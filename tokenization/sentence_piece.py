"""SentencePiece's byte-pair encoding and unigram language model."""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Set
from random import Random
from typing import Any, Self

import sentencepiece as spm

from tokenization.base import Tokenizer, consumed, one_thread, require_size, too_large_error
from tokenization.plain import BYTE_FALLBACK_ABOVE, unknown_character

# SentencePiece writes a space as U+2581, so a text is encoded around that character itself. Its trainer drops
# sentences with reserved characters or more than 4192 bytes.
SPACE_MARK = "\u2581"
RESERVED = "\n\t\0\u2581\u2585"
SYMBOLS = "\t\u2585"  # reserved characters that a vocabulary without byte pieces can have as tokens of their own
NEVER = "\0\u2581"  # and those that it cannot
SENTENCE = re.compile(rf"[^{RESERVED}]{{1,1000}}(?![^ {RESERVED}])|[^{RESERVED}]{{1,1000}}")


class SentencePieceTokenizer(Tokenizer):
    """Subwords by SentencePiece, Kudo & Richardson 2018, arXiv:1808.06226.

    Text is not changed: no normalization, no added or removed space. Digits and newlines are tokens of their own. With
    more than 512 ids, a character without a piece is encoded as its bytes; with fewer it raises ValueError.
    """

    file_names = ("tokenizer.model",)

    def __init__(self, model: bytes, **special_ids: int):
        self.model = model
        self.processor = spm.SentencePieceProcessor()
        self.processor.LoadFromSerializedProto(model)
        ids = range(self.processor.vocab_size())
        super().__init__([self._piece_bytes(i) for i in ids], **special_ids)
        mark = [self.processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self._mark_ids = mark if self.processor.is_byte(mark[0]) else None

    def _piece_bytes(self, i: int) -> bytes:
        piece = self.processor.id_to_piece(i)
        if self.processor.is_control(i) or self.processor.is_unknown(i):
            return b""
        if self.processor.is_byte(i):  # "<0x0A>"
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(SPACE_MARK, " ").encode()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None, alphabet: Set[str] = frozenset()) -> Self:
        """Train on a uniform sample of 200,000 lines, in bounded memory.

        Without byte pieces the vocabulary has the characters of the sample, and those of the `alphabet`.
        """
        vocab_size = require_size(cls.kind, vocab_size)
        sentences = sample(line for text in texts for line in SENTENCE.findall(text))
        if not sentences:
            raise ValueError("the training text is empty: give text with at least one word")
        model, byte_fallback = io.BytesIO(), vocab_size > BYTE_FALLBACK_ABOVE
        known = {} if byte_fallback else characters_to_add(sentences, alphabet)
        try:
            spm.SentencePieceTrainer.train(
                sentence_iterator=consumed(sentences), model_writer=model, model_type=cls.kind,
                vocab_size=max(vocab_size, 5), byte_fallback=byte_fallback,  # fewer give no usable error
                character_coverage=0.9995 if byte_fallback else 1.0, split_digits=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, allow_whitespace_only_pieces=True,
                **{"user_defined_symbols": ["\n"]} | known, pad_id=0, bos_id=1, eos_id=2, unk_id=3,
                num_threads=1, minloglevel=2)  # one thread: deterministic
        except RuntimeError as error:
            raise size_error(vocab_size, str(error)) from error
        return cls(model.getvalue())

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        return cls(files["tokenizer.model"])

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.model": self.model}

    def details(self) -> dict:
        return {"model_sha256": hashlib.sha256(self.model).hexdigest()}

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        batch = self.processor.encode(texts, num_threads=1 if one_thread() else -1)
        if self._mark_ids is None:
            self._check_known(texts, batch)
            return batch
        for n, text in enumerate(texts):
            if SPACE_MARK in text:
                batch[n] = encode_around_marks(text, self.processor.encode, self._mark_ids)
        return batch

    def _check_known(self, texts: list[str], batch: list[list[int]]) -> None:
        unknown = self.processor.unk_id()
        for text, ids in zip(texts, batch, strict=True):
            if unknown in ids or SPACE_MARK in text:
                found = next(character for character in text
                             if character == SPACE_MARK or unknown in self.processor.encode(character))
                raise unknown_character(found, learnable=found not in NEVER)


class BPETokenizer(SentencePieceTokenizer):
    """Byte-pair encoding: merge the most frequent pair. Sennrich et al. 2016, arXiv:1508.07909."""

    kind = "bpe"


class UnigramTokenizer(SentencePieceTokenizer):
    """Unigram language model: prune the least useful pieces. Kudo 2018, arXiv:1804.10959."""

    kind = "unigram"


def encode_around_marks(
    text: str, encode: Callable[[list[str]], list[list[int]]], mark_ids: list[int],
) -> list[int]:
    """Ids of a text with U+2581, which the library would read as a space."""
    first, *others = encode(text.split(SPACE_MARK))
    return first + [i for ids in others for i in (*mark_ids, *ids)]


def characters_to_add(sentences: Iterable[str], alphabet: Set[str]) -> dict[str, Any]:
    """The trainer's options for the characters of an alphabet that the sentences lack; none if they lack none."""
    lacking = sorted(alphabet.difference(RESERVED, *sentences))
    symbols = [character for character in SYMBOLS if character in alphabet]
    return ({"required_chars": "".join(lacking).replace(" ", SPACE_MARK)} if lacking else {}) | (
        {"user_defined_symbols": ["\n", *symbols]} if symbols else {})


def sample(sentences: Iterable[str], size: int = 200_000) -> list[str]:
    """A uniform sample in bounded memory (reservoir sampling), with a fixed seed."""
    kept, random = [], Random(0)
    for n, sentence in enumerate(sentences):
        if n < size:
            kept.append(sentence)
        elif (place := random.randrange(n + 1)) < size:
            kept[place] = sentence
    return kept


def size_error(vocab_size: int, message: str) -> Exception:
    """One sentence for SentencePiece's message on a vocabulary size."""
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return ValueError(f"vocab_size={vocab_size} is too small for the characters of this text: "
                          f"use {needed[1]} or more, or kind=byte")
    if limit := re.search(r"value <= (\d+)", message):
        most = int(limit[1])
        if most <= BYTE_FALLBACK_ABOVE < vocab_size:
            most -= 256  # so small a vocabulary has no byte pieces
        return too_large_error(vocab_size, most)
    return RuntimeError(message)
