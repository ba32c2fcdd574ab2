"""What others' tokenizers must be: lossless, each id standing for fixed bytes."""

from collections.abc import Iterable

from tokenization.base import Tokenizer

END = "<|endoftext|>"
FILES = "tokenizer.json and tokenizer_config.json (or vocab.json and merges.txt, or tokenizer.model)"
CONSEQUENCE = "so bits per byte could not be counted: use a byte-level one, such as GPT-2's, or train one"
# texts that a tokenizer must give back byte for byte; normalizers, word splitters and prefixes would change them
HARD_TEXTS = (
    "Hello", " ", "\n", " two  spaces   and\ttabs\r\n\r\n lines \n", "UPPER lower 12345 don't I'LL", "\0\x01\x7f\u0080",
    "na\u00efve cafe\u0301 \u212b \ufb01 \uff21", "\ufeff\u00a0\u200d\u3000", "\u2581a \u2581\u2581b",
    "\u4f60\u597d\u4e16\u754c \U0001f600\U0001f468\u200d\U0001f469",
)


def check_lossless(tokenizer: Tokenizer, source: str, added: Iterable[str]) -> None:
    """Raise ValueError if a text differs from the bytes of its ids; `added` are words that are found before others."""
    for text in (*HARD_TEXTS, *(f"a {word} b" for word in added)):
        if b"".join(tokenizer.token_bytes[i] for i in tokenizer.encode(text)) != text.encode():
            raise ValueError(f"tokenizer={source!r} does not give the text {text!r} back, {CONSEQUENCE}")


def unreadable(source: str, error: Exception | str) -> ValueError:
    """The error for a tokenizer's files that are missing or damaged."""
    return ValueError(f"tokenizer={source!r} cannot be read ({first_line(error)}): save it again, "
                      f"or give a folder with {FILES}")


def incomplete(source: str, kind: str | None) -> ValueError:
    """The error for a vocabulary that has no ids for some texts: lower-cased words, characters without an id."""
    return ValueError(f"tokenizer={source!r} cannot encode every text ({kind} without all 256 bytes), {CONSEQUENCE}")


def first_line(error: Exception | str) -> str:
    """The first line of an error's text."""
    return str(error).strip().split("\n")[0].rstrip(".")
