"""Text to token ids and back, lossless: characters, bytes, SentencePiece, Hugging Face.

    python tokenizer.py train --data FILE [FILE ...] --kind bpe --vocab-size 2048 --out FOLDER
    python tokenizer.py grow FOLDER --data FILE [FILE ...] --vocab-size 4096 --out FOLDER
    python tokenizer.py show tales_1024 "Once upon a time"
    python tokenizer.py build            # the tokenizers in tokenizers/, from the built-in corpus
"""

if __name__ == "__main__":
    from configuration import garbage, startup  # noqa: F401, before all that needs a package

    garbage.wait()

import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

import tales
from configuration.checks import require_folder_name
from configuration.command_line import run_command
from tokenization import foreign
from tokenization.base import Tokenizer, consumed, require_unicode, sample_evenly
from tokenization.documents import documents_in
from tokenization.grow import grow as grow_merges
from tokenization.hugging_face import HuggingFaceBPETokenizer, HuggingFaceTokenizer
from tokenization.pieces import OthersPieces
from tokenization.plain import BYTE_FALLBACK_ABOVE, ByteTokenizer, CharTokenizer
from tokenization.saved import rebuild, saved_description
from tokenization.sentence_piece import BPETokenizer, UnigramTokenizer
from tokenization.symbols import SymbolTokenizer

__all__ = [
    "BUILT_SIZES", "TOKENIZERS", "ByteTokenizer", "CharTokenizer", "Tokenizer", "built_tokenizer",
    "documents_in", "grow_tokenizer", "load_tokenizer", "train_tokenizer",
]

Kind = Literal["char", "byte", "bpe", "unigram", "hf_bpe"]
BUILT_FOLDER = Path(__file__).parent / "tokenizers"
BUILT_SIZES = (128, 256, 512, 1024, 2048, 4096)
BUILT_SEED, BUILT_STORIES = 0, 20_000
MAX_TRAIN_BYTES = 32_000_000  # at most, of text that a vocabulary is learned from

TOKENIZERS = {kind.kind: kind for kind in (
    CharTokenizer, ByteTokenizer, BPETokenizer, UnigramTokenizer, HuggingFaceBPETokenizer)}
# read from others' files, or made by a synthetic task
KINDS = TOKENIZERS | {kind.kind: kind for kind in (HuggingFaceTokenizer, OthersPieces, SymbolTokenizer)}


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int | None = None, *, others: Iterable[str] = (),
) -> Tokenizer:
    """Train a tokenizer; the same texts give the same tokenizer, byte for byte.

    Of more than 100 MB of text an even sample is used, in bounded memory; but every character of all of it is known.
    Those of `others` too, from which nothing else is learned. `vocab_size` counts all ids, specials included; None for
    char and byte, which derive it.
    Raises ValueError if the kind is unknown, the text is empty or not Unicode, or the size does not suit the text.
    """
    if kind not in TOKENIZERS:
        raise ValueError(f"kind={kind!r} is not known: use one of {', '.join(TOKENIZERS)}")
    texts, others = map(require_unicode, texts), map(require_unicode, others)
    if kind in ("char", "byte"):
        return TOKENIZERS[kind].train(chain(texts, others), vocab_size)
    if kind == "hf_bpe" or (vocab_size or 0) > BYTE_FALLBACK_ABOVE:  # they have all bytes
        return TOKENIZERS[kind].train(consumed(sample_evenly(texts, MAX_TRAIN_BYTES)), vocab_size)
    alphabet = set()
    kept = sample_evenly(noting_characters(texts, alphabet), MAX_TRAIN_BYTES)
    for _ in noting_characters(others, alphabet):
        pass
    return TOKENIZERS[kind].train(consumed(kept), vocab_size, alphabet)


def noting_characters(texts: Iterable[str], alphabet: set[str]) -> Iterator[str]:
    """The texts, whose characters are added to the alphabet."""
    for text in texts:
        alphabet.update(text)
        yield text


def grow_tokenizer(tokenizer: Tokenizer, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Enlarge the vocabulary of a bpe or hf_bpe tokenizer, by merges learned from at most 100 MB of the texts.

    The old ids keep their meaning, and no text gets more tokens. Raises ValueError if the kind has no merges, or the
    size does not suit it or the text.
    """
    return grow_merges(tokenizer, sample_evenly(map(require_unicode, texts), MAX_TRAIN_BYTES), vocab_size)


def load_tokenizer(name: str | Path) -> Tokenizer:
    """Load a tokenizer from a folder, a file, tokenizers/ ("tales_1024") or the Hugging Face Hub ("OWNER/NAME").

    A folder is one that `save` wrote, or has vocab.json and merges.txt (as GPT-2's), a tokenizer.json or a
    tokenizer.model, as which a file is read too. Only other files and the Hub need transformers.
    Raises ValueError if nothing is there, a file is damaged, or ids do not stand for fixed bytes.
    """
    path = Path(name) if Path(name).exists() else BUILT_FOLDER / name
    if path.is_file() and saved_description(path.parent) != path:
        return foreign.from_file(path)
    path = path.parent if path.is_file() else path
    if path.is_dir():
        saved = saved_description(path)
        return foreign.from_folder(path) if saved is None else rebuild(path, saved, str(name), KINDS)
    if foreign.HUB_NAME.fullmatch(str(name)):
        return foreign.from_hub(str(name))
    raise ValueError(f"tokenizer={str(name)!r} is not a folder or a file: give a tokenizer's, one of the Hugging Face "
                     f"Hub as OWNER/NAME, or one of {', '.join(f'tales_{size}' for size in BUILT_SIZES)}")


def built_tokenizer(vocab_size: int) -> Tokenizer:
    """The tokenizer built from the tales with this size. Raises ValueError if there is none."""
    if vocab_size not in BUILT_SIZES:
        raise ValueError(f"vocab_size={vocab_size} has no built tokenizer: "
                         f"use one of {', '.join(map(str, BUILT_SIZES))}, or train one")
    return load_tokenizer(f"tales_{vocab_size}")


# ---- command line ----


def train(
    *, data: tuple[Path, ...], kind: Kind, out: Path, vocab_size: int | None = None,
    separator: str | None = None,
) -> None:
    """Train a tokenizer on text files and save it. Of more than 100 MB an even sample is used.

    Args:
        data: UTF-8 text files.
        kind: char, byte, bpe or unigram (SentencePiece), or hf_bpe (byte pairs within words as GPT-4 splits them).
        out: the folder to write.
        vocab_size: number of ids, specials included (bpe, unigram and hf_bpe only).
        separator: text between the documents of a file, such as "<|endoftext|>".
    """
    require_place(out)
    save(train_tokenizer(kind, texts_of(data, separator), vocab_size), out)


def grow(
    tokenizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENIZER")],
    *, data: tuple[Path, ...], vocab_size: int, out: Path, separator: str | None = None,
) -> None:
    """Enlarge a vocabulary by further merges; the old ids keep their meaning.

    Args:
        tokenizer: a bpe or hf_bpe tokenizer's folder, a built one such as tales_1024, or GPT-2's.
        data: UTF-8 text files; of more than 100 MB an even sample is used.
        vocab_size: number of ids, the old ones included.
        out: the folder to write.
        separator: text between the documents of a file, such as "<|endoftext|>".
    """
    require_place(out)
    save(grow_tokenizer(load_tokenizer(tokenizer), texts_of(data, separator), vocab_size), out)


def texts_of(data: tuple[Path, ...], separator: str | None) -> Iterator[str]:
    """The documents of all files. Raises ValueError if one is missing."""
    for path in data:
        if not path.is_file():
            raise ValueError(f"data={str(path)!r} is not a file: give UTF-8 text files")
    return (text for path in data for text in documents_in(path, separator))


def require_place(out: Path) -> None:
    """Raise ValueError if a tokenizer cannot be saved there: another thing than a saved tokenizer has the name."""
    require_folder_name("out", out.absolute().name)
    if out.is_dir() and any(out.iterdir()) and saved_description(out) is None:
        raise ValueError(f"out={out} is there, and is not a saved tokenizer: give another folder")


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Save a tokenizer and print its folder, size and fingerprint."""
    tokenizer.save(out)
    print(f"{out}: {tokenizer.kind}, {tokenizer.vocab_size} ids, {tokenizer.fingerprint[:16]}")


def show(
    tokenizer: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TOKENIZER")],
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")], *, ids: bool = False,
) -> None:
    """Print a text with one colour per token.

    Args:
        tokenizer: a tokenizer's folder or file, a built one such as tales_1024, or OWNER/NAME on the Hugging Face Hub.
        text: the text to split.
        ids: print each id behind its token.
    """
    Console().print(load_tokenizer(tokenizer).show(text, ids=ids))


README = """# Built tokenizers

SentencePiece BPE, trained on the built-in corpus, for `load_tokenizer("tales_1024")`. The three with up to 512 ids
have no byte pieces: they encode the characters of the tales only, and raise an error for any other. The larger ones
encode any text.

`python tokenizer.py build` builds them again, byte for byte, with sentencepiece {version}, from the stories 0 to {last}
of `tales.stories({seed})`. SHA-256 of that text: `{corpus}`.

| folder | ids | bytes per token | SHA-256 of tokenizer.model |
|---|---|---|---|
{rows}
"""


def build(out: Path = BUILT_FOLDER) -> None:
    """Build the tokenizers of the built-in corpus again, and their README.

    Args:
        out: the folder to write them to.
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
    """Run the subcommand of the command line."""
    run_command(sys.argv[1:], {"train": train, "grow": grow, "show": show, "build": build}, "tokenizer.py", __doc__)


if __name__ == "__main__":
    main()
