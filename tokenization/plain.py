"""Tokenizers without merges: one id per character, one id per byte."""

from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np

from tokenization.base import Tokenizer, check_fixed_size
from tokenization.cuts import ANYWHERE

BYTE_FALLBACK_ABOVE = 512  # ids; a smaller SentencePiece vocabulary has no byte pieces


def unknown_character(character: str, *, learnable: bool = True) -> ValueError:
    """The error for a character that a tokenizer without byte fallback cannot encode, and perhaps could not learn."""
    return ValueError(
        f"text has the character {character!r} (U+{ord(character):04X}), which this vocabulary "
        f"{'lacks' if learnable else 'cannot have'}: use kind=byte, kind=bpe with vocab_size>{BYTE_FALLBACK_ABOVE}, or "
        f"{'train the tokenizer on text that has it' if learnable else 'text without it'}")


class CharTokenizer(Tokenizer):
    """One id per character of the training text, in code point order."""

    kind = "char"
    cuts = ANYWHERE

    def __init__(self, alphabet: str):
        super().__init__([b"", b"", b"", *(character.encode() for character in alphabet)])
        self.alphabet = alphabet
        codes = np.array([ord(character) for character in alphabet])
        self._ids = np.zeros(codes.max() + 2, np.int64)  # by code point; 0 = no id, as for all code points beyond
        self._ids[codes] = np.arange(len(alphabet)) + 3

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        alphabet = set()
        for text in texts:
            alphabet.update(text)
        if not alphabet:
            raise ValueError("the training text is empty: give text with at least one character")
        check_fixed_size("char", vocab_size, len(alphabet) + 3)
        return cls("".join(sorted(alphabet)))

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        return cls(description["alphabet"])

    def details(self) -> dict:
        return {"alphabet": self.alphabet}

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        return [self._encode(text).tolist() for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if not ids.all():
            raise unknown_character(text[ids.argmin()])
        return ids


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8: byte value + 3. Encodes any text."""

    kind = "byte"
    cuts = ANYWHERE
    _ID = bytes((value + 3) % 256 for value in range(256))  # UTF-8 has no byte above 244, so nothing wraps

    def __init__(self):
        super().__init__([b"", b"", b"", *(bytes([value]) for value in range(256))])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        check_fixed_size("byte", vocab_size, 259)
        return cls()

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        return cls()

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode().translate(self._ID)) for text in texts]
