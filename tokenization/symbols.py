"""The tokenizer of synthetic tasks: an id for each word."""

from collections.abc import Iterable, Mapping
from typing import Self

from tokenization.base import Tokenizer


class SymbolTokenizer(Tokenizer):
    """One id per symbol, a word with a space before it; other white space between words does not count."""

    kind = "symbols"
    cuts = None
    num_special = 3  # pad, bos and eos come first

    def __init__(self, words: Iterable[str]):
        self.words = list(words)
        super().__init__([b""] * self.num_special + [f" {word}".encode() for word in self.words])
        self._ids = {word: number + self.num_special for number, word in enumerate(self.words)}

    @classmethod
    def rebuild(cls, description: Mapping, files: Mapping[str, bytes]) -> Self:
        return cls(description["words"])

    def details(self) -> dict:
        return {"words": self.words}

    def encode_small_batch(self, texts: list[str]) -> list[list[int]]:
        if unknown := [word for text in texts for word in text.split() if word not in self._ids]:
            raise ValueError(f"text has the word {unknown[0]!r}, which is no symbol of this task: use spaces between "
                             f"symbols such as {', '.join(self.words[:3])}")
        return [[self._ids[word] for word in text.split()] for text in texts]
