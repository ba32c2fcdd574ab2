"""Text to token ids and back, with every byte accounted for: char, byte, BPE and unigram.

    python tokenizer.py train --data FILE [FILE ...] --kind bpe --vocab-size 2048 --out FOLDER
    python tokenizer.py show tales_1024 "Once upon a time"
    python tokenizer.py build            # the tokenizers in tokenizers/, from the built-in corpus
"""

import hashlib
import html
import io
import json
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from random import Random
from typing import Annotated, Literal, Self

import numpy as np
import sentencepiece as spm
import tyro
from rich.console import Console
from rich.text import Text

import tales
from command_line import fail, parse_command

Kind = Literal["char", "byte", "bpe", "unigram"]
BUILT_FOLDER = Path(__file__).parent / "tokenizers"
BUILT_SIZES = (128, 256, 512, 1024, 2048, 4096)
BUILT_SEED, BUILT_STORIES = 0, 20_000
BYTE_FALLBACK_ABOVE = 512  # ids; up to here there is no room for SentencePiece's 256 byte pieces
COLOURS = ("#a6cee3", "#b2df8a", "#fdbf6f", "#fb9a99", "#cab2d6", "#ffff99")  # ColorBrewer Paired
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})


class Tokenizer:
    """A reversible map from text to ids; each id stands for a fixed string of bytes.

    `token_bytes[id]` are the UTF-8 bytes of an id, empty for pad, bos, eos. Hence the
    `byte_lengths` of a text's ids add up to the bytes of the text, exactly.
    """

    kind: str
    pad_id, bos_id, eos_id = 0, 1, 2

    def __init__(self, token_bytes: list[bytes]):
        self.token_bytes = token_bytes
        self.vocab_size = len(token_bytes)
        self.byte_lengths = np.array([len(token) for token in token_bytes], dtype=np.int32)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """Fit to the texts; ValueError where `vocab_size` does not suit them."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, description: dict) -> Self:
        """Rebuild from the folder that `save` wrote."""
        raise NotImplementedError

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without bos and eos; ValueError names a character without an id."""
        raise NotImplementedError

    def details(self) -> dict:
        """What defines this tokenizer besides its kind and ids, as JSON values."""
        return {}

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of one text, between bos and eos where asked."""
        return [self.bos_id] * bos + self.encode_batch([text])[0] + [self.eos_id] * eos

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids: specials are skipped, bytes that are not UTF-8 become U+FFFD."""
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id={i} is not in the vocabulary: use 0 to {self.vocab_size - 1}")
        return b"".join(self.token_bytes[i] for i in ids).decode(errors="replace")

    def description(self) -> dict:
        """The content of tokenizer.json, but for the fingerprint."""
        ids = {"pad_id": self.pad_id, "bos_id": self.bos_id, "eos_id": self.eos_id}
        return {"kind": self.kind, "vocab_size": self.vocab_size, **ids, **self.details()}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that defines the tokenizer: equal ones give equal ids."""
        return hashlib.sha256(json.dumps(self.description(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json (and tokenizer.model, if SentencePiece) into the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.description() | {"fingerprint": self.fingerprint}, indent=1)
        (Path(folder) / "tokenizer.json").write_text(content + "\n", encoding="utf-8")

    def _labels(self, text: str, ids: bool) -> list[tuple[int, str]]:
        """(id, visible form) of each token; part of a character shows as its bytes in hex."""
        labels = []
        for i in self.encode(text):
            try:
                label = self.token_bytes[i].decode().translate(VISIBLE)
            except UnicodeDecodeError:
                label = "".join(f"\\x{byte:02x}" for byte in self.token_bytes[i])
            labels.append((i, label + f"[{i}]" * ids + "\n" * label.endswith("⏎")))
        return labels

    def _summary(self, text: str, num_tokens: int) -> str:
        num_bytes = len(text.encode())
        return (f"{num_tokens} tokens, {num_bytes} bytes, "
                f"{num_bytes / max(num_tokens, 1):.2f} bytes per token")

    def show(self, text: str, *, ids: bool = False) -> Text:
        """How the text is split, one colour per token, for `rich.print` (space ·, newline ⏎)."""
        shown, labels = Text(), self._labels(text, ids)
        for n, (_, label) in enumerate(labels):
            shown.append(label, style=f"black on {COLOURS[n % len(COLOURS)]}")
        return shown.append("\n" + self._summary(text, len(labels)))

    def show_html(self, text: str, *, ids: bool = False) -> str:
        """The same as static HTML for notebooks; the id appears when the mouse is over a token."""
        labels = self._labels(text, ids)
        spans = "".join(
            f'<span title="{i}" style="background:{COLOURS[n % len(COLOURS)]};color:black">'
            f"{html.escape(label)}</span>" for n, (i, label) in enumerate(labels))
        summary = self._summary(text, len(labels))
        return f'<pre style="white-space:pre-wrap">{spans}\n{summary}</pre>'


def unknown_character(character: str) -> ValueError:
    """The error for text that a tokenizer without byte fallback cannot write."""
    return ValueError(
        f"text has the character {character!r} (U+{ord(character):04X}), which this vocabulary "
        f"lacks: use kind=byte, kind=bpe with vocab_size>{BYTE_FALLBACK_ABOVE}, or train the "
        "tokenizer on text that has it")


def check_fixed_size(kind: str, vocab_size: int | None, actual: int) -> None:
    """ValueError where the user asks for a size that this kind cannot have."""
    if vocab_size not in (None, actual):
        raise ValueError(f"vocab_size={vocab_size} cannot be chosen for kind={kind}, it has "
                         f"{actual} ids here: leave vocab_size out, or use kind=bpe")


class CharTokenizer(Tokenizer):
    """One id per character of the training text, in code point order."""

    kind = "char"

    def __init__(self, alphabet: str):
        super().__init__([b"", b"", b"", *(character.encode() for character in alphabet)])
        self.alphabet = alphabet
        self._ids = {character: i for i, character in enumerate(alphabet, start=3)}

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
    def load(cls, folder: Path, description: dict) -> Self:
        return cls(description["alphabet"])

    def details(self) -> dict:
        return {"alphabet": self.alphabet}

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        try:
            return [[self._ids[character] for character in text] for text in texts]
        except KeyError as error:
            raise unknown_character(error.args[0]) from None


class ByteTokenizer(Tokenizer):
    """One id per byte of UTF-8: byte value + 3. Any text, nothing to learn."""

    kind = "byte"

    def __init__(self):
        super().__init__([b"", b"", b"", *(bytes([value]) for value in range(256))])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        check_fixed_size("byte", vocab_size, 259)
        return cls()

    @classmethod
    def load(cls, folder: Path, description: dict) -> Self:
        return cls()

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[value + 3 for value in text.encode()] for text in texts]


# SentencePiece writes a space as U+2581, so the character itself needs a way around it; its
# trainer drops every sentence that has one of these, or more than 4192 bytes.
SPACE_MARK = "\u2581"
RESERVED = "\n\t\0\u2581\u2585"
SENTENCE = re.compile(rf"[^{RESERVED}]{{1,1000}}(?![^ {RESERVED}])|[^{RESERVED}]{{1,1000}}")


class SentencePieceTokenizer(Tokenizer):
    """Subwords by SentencePiece, Kudo & Richardson 2018, arXiv:1808.06226.

    Text is kept as it is: no normalisation, no added or removed space; digits and newlines
    stand alone. Above 512 ids, a character without a piece is written as its bytes; up to
    512 it is a ValueError.
    """

    def __init__(self, model: bytes):
        self.model = model
        self._processor = spm.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        ids = range(self._processor.vocab_size())
        super().__init__([self._piece_bytes(i) for i in ids])
        mark = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        self._mark_ids = mark if self._processor.is_byte(mark[0]) else None

    def _piece_bytes(self, i: int) -> bytes:
        piece = self._processor.id_to_piece(i)
        if self._processor.is_control(i) or self._processor.is_unknown(i):
            return b""
        if self._processor.is_byte(i):  # "<0x0A>"
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(SPACE_MARK, " ").encode()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """Fit on a uniform sample of 200,000 lines, so in bounded memory."""
        if vocab_size is None:
            raise ValueError(f"vocab_size is missing: kind={cls.kind} needs a number, such as 1024")
        sentences = sample(line for text in texts for line in SENTENCE.findall(text))
        if not sentences:
            raise ValueError("the training text is empty: give text with at least one word")
        model, byte_fallback = io.BytesIO(), vocab_size > BYTE_FALLBACK_ABOVE
        try:
            spm.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=model, model_type=cls.kind,
                vocab_size=max(vocab_size, 5), byte_fallback=byte_fallback,  # 5: below, no advice
                character_coverage=0.9995 if byte_fallback else 1.0, split_digits=True,
                normalization_rule_name="identity", remove_extra_whitespaces=False,
                add_dummy_prefix=False, allow_whitespace_only_pieces=True,
                user_defined_symbols=["\n"], pad_id=0, bos_id=1, eos_id=2, unk_id=3,
                num_threads=1, minloglevel=2)  # one thread, so that it can be repeated
        except RuntimeError as error:
            raise size_error(vocab_size, str(error)) from error
        return cls(model.getvalue())

    @classmethod
    def load(cls, folder: Path, description: dict) -> Self:
        return cls((folder / "tokenizer.model").read_bytes())

    def save(self, folder: str | Path) -> None:
        super().save(folder)
        (Path(folder) / "tokenizer.model").write_bytes(self.model)

    def details(self) -> dict:
        return {"model_sha256": hashlib.sha256(self.model).hexdigest()}

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        batch = self._processor.encode(texts, num_threads=-1)
        if self._mark_ids is None:
            self._check_known(texts, batch)
            return batch
        return [self._encode_marked(text) if SPACE_MARK in text else ids
                for text, ids in zip(texts, batch, strict=True)]

    def _encode_marked(self, text: str) -> list[int]:
        first, *others = self._processor.encode(text.split(SPACE_MARK))
        return first + [i for ids in others for i in (*self._mark_ids, *ids)]

    def _check_known(self, texts: list[str], batch: list[list[int]]) -> None:
        unknown = self._processor.unk_id()
        for text, ids in zip(texts, batch, strict=True):
            if unknown in ids or SPACE_MARK in text:
                raise unknown_character(next(
                    character for character in text
                    if character == SPACE_MARK or unknown in self._processor.encode(character)))


class BPETokenizer(SentencePieceTokenizer):
    """Byte-pair encoding: merge the most frequent pair. Sennrich et al. 2016, arXiv:1508.07909."""

    kind = "bpe"


class UnigramTokenizer(SentencePieceTokenizer):
    """Unigram language model: prune the least useful pieces. Kudo 2018, arXiv:1804.10959."""

    kind = "unigram"


def sample(sentences: Iterable[str], size: int = 200_000) -> list[str]:
    """A uniform sample in bounded memory (reservoir sampling), the same every time."""
    kept, random = [], Random(0)
    for n, sentence in enumerate(sentences):
        if n < size:
            kept.append(sentence)
        elif (place := random.randrange(n + 1)) < size:
            kept[place] = sentence
    return kept


def size_error(vocab_size: int, message: str) -> Exception:
    """One sentence for what SentencePiece says about a vocabulary size."""
    if needed := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return ValueError(f"vocab_size={vocab_size} is too small for the characters of this text: "
                          f"use {needed[1]} or more, or kind=byte")
    if limit := re.search(r"value <= (\d+)", message):
        most = int(limit[1])
        if most <= BYTE_FALLBACK_ABOVE < vocab_size:
            most -= 256  # a vocabulary that small has no byte pieces
        return ValueError(f"vocab_size={vocab_size} is more than this text supports: "
                          f"use {most} or less, or give more text")
    return RuntimeError(message)


TOKENIZERS = {
    "char": CharTokenizer, "byte": ByteTokenizer, "bpe": BPETokenizer, "unigram": UnigramTokenizer,
}


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int | None = None) -> Tokenizer:
    """Fit a tokenizer; the same texts give the same tokenizer, byte for byte.

    `vocab_size` counts all ids, specials included; char and byte derive it, so it stays None.
    ValueError where the kind is unknown, the text empty, or the size does not suit the text.
    """
    if kind not in TOKENIZERS:
        raise ValueError(f"kind={kind!r} is not known: use one of {', '.join(TOKENIZERS)}")
    return TOKENIZERS[kind].train(texts, vocab_size)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a folder that `save` wrote, or a built one by its name ("tales_1024").

    ValueError where nothing is there, or what is there is not whole.
    """
    path = Path(folder) if Path(folder).is_dir() else BUILT_FOLDER / folder
    if not path.is_dir():
        built = ", ".join(f"tales_{size}" for size in BUILT_SIZES)
        raise ValueError(f"tokenizer={str(folder)!r} is no folder: give a saved tokenizer's folder,"
                         f" or one of {built}")
    try:
        description = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer = TOKENIZERS[description["kind"]].load(path, description)
        whole = description == tokenizer.description() | {"fingerprint": tokenizer.fingerprint}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"tokenizer={str(folder)!r} cannot be read ({error!r}): "
                         "save it again") from error
    if not whole:
        raise ValueError(f"tokenizer={str(folder)!r} does not match its fingerprint: save it again")
    return tokenizer


def built_tokenizer(vocab_size: int) -> Tokenizer:
    """The tokenizer built from the tales with so many ids; ValueError where there is none."""
    if vocab_size not in BUILT_SIZES:
        raise ValueError(f"vocab_size={vocab_size} has no built tokenizer: "
                         f"use one of {', '.join(map(str, BUILT_SIZES))}, or train one")
    return load_tokenizer(f"tales_{vocab_size}")


def documents_in(path: str | Path, separator: str | None = None) -> Iterator[str]:
    """The documents of a UTF-8 file: all of it, or what stands between separators.

    Blank documents are left out; memory holds one at a time. ValueError where it is not UTF-8.
    """
    if Path(path).stat().st_size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        mark, start = separator.encode() if separator else None, 0
        while start <= len(content):
            end = content.find(mark, start) if mark else -1
            end = len(content) if end < 0 else end
            try:
                text = content[start:end].decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path} is not UTF-8 text (byte {start + error.start}): "
                                 "convert it first") from error
            if text.strip():
                yield text
            start = end + len(mark or " ")


# ---- command line ----


def train(
    *, data: tuple[Path, ...], kind: Kind, out: Path, vocab_size: int | None = None,
    separator: str | None = None,
) -> None:
    """Train a tokenizer on text files and save it.

    Args:
        data: UTF-8 text files.
        kind: char, byte, or SentencePiece's bpe and unigram.
        out: the folder to write.
        vocab_size: all ids, specials included (bpe and unigram only).
        separator: what stands between documents in a file, such as "<|endoftext|>".
    """
    for path in data:
        if not path.is_file():
            raise ValueError(f"data={str(path)!r} is not a file: give UTF-8 text files")
    texts = (text for path in data for text in documents_in(path, separator))
    tokenizer = train_tokenizer(kind, texts, vocab_size)
    tokenizer.save(out)
    print(f"{out}: {kind}, {tokenizer.vocab_size} ids, {tokenizer.fingerprint[:16]}")


def show(
    tokenizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENIZER")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")], *, ids: bool = False,
) -> None:
    """Print a text with one colour per token.

    Args:
        tokenizer: a saved tokenizer's folder, or a built one such as tales_1024.
        text: the text to split.
        ids: write each id behind its token.
    """
    Console().print(load_tokenizer(tokenizer).show(text, ids=ids))


README = """# Built tokenizers

SentencePiece BPE over the built-in corpus, for `load_tokenizer("tales_1024")`. Up to 512 ids there
is no room for the 256 byte pieces: those three know the characters of the tales only, and say so
when a text has another one. The others write any text.

`python tokenizer.py build` makes them again, byte for byte: stories 0 to {last} of
`tales.stories({seed})`, sentencepiece {version}. The text has SHA-256 `{corpus}`.

| folder | ids | bytes per token | SHA-256 of tokenizer.model |
|---|---|---|---|
{rows}
"""


def build(out: Path = BUILT_FOLDER) -> None:
    """Build the tokenizers of the built-in corpus again, and their README.

    Args:
        out: the folder that holds them.
    """
    texts = [story.text for story in islice(tales.stories(BUILT_SEED), BUILT_STORIES)]
    num_bytes, rows = sum(len(text.encode()) for text in texts), []
    for size in BUILT_SIZES:
        tokenizer = train_tokenizer("bpe", texts, size)
        tokenizer.save(out / f"tales_{size}")
        bytes_per_token = num_bytes / sum(map(len, tokenizer.encode_batch(texts)))
        sha = tokenizer.details()["model_sha256"]
        rows.append(f"| tales_{size} | {size} | {bytes_per_token:.2f} | `{sha}` |")
        print(rows[-1])
    corpus = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    (out / "README.md").write_text(README.format(
        last=BUILT_STORIES - 1, seed=BUILT_SEED, version=version("sentencepiece"), corpus=corpus,
        rows="\n".join(rows)), encoding="utf-8")


def main() -> None:
    """Run a subcommand; a user's mistake prints its sentence and exits 2, Ctrl-C exits 130."""
    try:
        parse_command(sys.argv[1:], {"train": train, "show": show, "build": build}, "tokenizer.py", __doc__)()
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
