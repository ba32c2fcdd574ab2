"""Corpora by name or path. A corpus has two parts, train and val."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tales
from config import DataConfig
from corpora.chunks import (
    Chunk,
    cut_document,
    drop_blank,
    first_documents,
    sample_documents,
    split_by_characters,
    split_by_documents,
    split_evenly,
)
from corpora.files import (
    Scan,
    cached_for_file,
    checked_unchanged,
    digest,
    read_documents,
    scan,
    state_of,
)
from corpora.hub import (
    COLUMNS,
    END_OF_STORY,
    NAMES,
    STORY_FILES,
    SUBSETS,
    TINYSTORIES_V2,
    hub_table,
    is_hub_name,
    story_file,
)
from corpora.tables import DatasetSpec, Table, choose_column, files_of, folder_table, kind_of, local_table
from run_store.atomic_files import sha256

VAL_SEED = -1  # tales: the same validation stories whatever the training seed
MAX_VAL_STORIES = 1000


class Corpus:
    """Documents in two parts, train and val; `fingerprint` names their content.

    `total` is the number of documents in both parts, or of characters if `counts_characters`; None = not known.
    `flags` are the flags of DataConfig that this corpus uses, of those that not all corpora use.
    """

    name: str
    fingerprint: str
    total: int | None = None
    counts_characters = False
    flags: tuple[str, ...] = ()

    def chunks(self) -> Iterator[Chunk]:
        """The documents of both parts, in chunks."""
        raise NotImplementedError

    def train(self) -> Iterator[str]:
        """The training documents; a long one comes in several strings."""
        return (chunk.text for chunk in self.chunks() if chunk.part == "train")

    def val(self) -> Iterator[str]:
        """The validation documents; a long one comes in several strings."""
        return (chunk.text for chunk in self.chunks() if chunk.part == "val")

    @property
    def sources(self) -> list["Corpus"]:
        """The corpora to train on."""
        return [self]

    @property
    def weights(self) -> tuple[float, ...]:
        """Each source's share of the training tokens; empty = in proportion to their tokens."""
        return ()

    @property
    def held_out(self) -> list[tuple["Corpus", str]]:
        """(corpus, part) of each validation text, in order."""
        return [(self, "val")]


class Mixture(Corpus):
    """Several corpora to train on, each with a weight; or any that are validated on other texts."""

    def __init__(self, sources: list[Corpus], weights: tuple[float, ...], validation: list[Corpus]):
        self._sources, self._weights, self._validation = sources, weights, validation
        self.name = " ".join(source.name for source in sources)
        prints = ([corpus.fingerprint for corpus in corpora] for corpora in (sources, validation))
        self.fingerprint = digest("mixture", weights, *prints)

    sources = property(lambda self: self._sources)
    weights = property(lambda self: self._weights)

    @property
    def held_out(self) -> list[tuple[Corpus, str]]:
        return [(corpus, "train") for corpus in self._validation] or [(source, "val") for source in self._sources]

    def chunks(self) -> Iterator[Chunk]:
        for source in self._sources:
            yield from source.chunks()
        for corpus in self._validation:
            yield from (chunk._replace(part="val") for chunk in corpus.chunks())


class TalesCorpus(Corpus):
    """Stories of the built-in grammar. `streams` maps a part to its seed and number of stories."""

    name = "tales"

    def __init__(self, streams: dict[str, tuple[int, int]]):
        self._streams = streams
        self.total = sum(count for _, count in streams.values())
        self.fingerprint = digest(streams, [sha256(path) for path in tales.SOURCES])

    def chunks(self) -> Iterator[Chunk]:
        for part, (seed, count) in self._streams.items():
            for number in range(count):
                story = tales.story(seed, number)
                yield Chunk(story.text, bits=story.bits, part=part)


class TextCorpus(Corpus):
    """UTF-8 files: each is a document, or several between separators.

    Validated on the last documents; on the last characters if there is only one document.
    """

    def __init__(self, name: str, paths: list[Path], cfg: DataConfig, *, separator: str | None, held_out: bool,
                 flags: tuple[str, ...] = ("separator",)):
        self.name, self._paths, self._separator, self._cfg, self.flags = name, paths, separator, cfg, flags
        self._states = [state_of(path) for path in paths]
        scans = [Scan(**cached_for_file(path, f"scan {separator}", cfg.cache_path,
                                   lambda path=path: asdict(scan(path, separator)))) for path in paths]
        val_ratio = cfg.val_ratio if held_out else 0
        self.fingerprint = digest(separator, val_ratio, [found.sha256 for found in scans], *selection_key(cfg))
        if separator is not None and not any(found.num_separators for found in scans):
            raise ValueError(f"data.separator={separator!r} is not in {name!r}: leave it out, or "
                             "give the text that separates documents")
        count = sum(found.num_documents for found in scans)
        if count == 0:
            raise ValueError(f"data.name={name!r} has no text: give a file with at least a few words")
        self._single = self.counts_characters = count == 1
        if selection_key(cfg):
            count = sum(1 for _ in select_documents((Chunk("") for _ in range(count)), cfg))
        if count == 0:
            raise ValueError(f"data.sample_ratio={cfg.sample_ratio} leaves no document of {name!r}: use more")
        self.total = sum(found.num_chars for found in scans) if self._single else count
        num_val = round(self.total * val_ratio)
        if held_out and not self._single:
            num_val = max(1, num_val)
        if num_val >= self.total or num_val == 0 < val_ratio:
            raise ValueError(f"data.val_ratio={val_ratio} of {name!r} leaves the training or the "
                             "validation part empty: use another ratio, or more text")
        self._num_train = self.total - num_val

    def chunks(self) -> Iterator[Chunk]:
        found = (chunk for path, state in zip(self._paths, self._states, strict=True)
                 for chunk in checked_unchanged(read_documents(path, self._separator), path, state))
        split_parts = split_by_characters if self._single else split_by_documents
        return split_parts(select_documents(found, self._cfg), self._num_train)


class TableCorpus(Corpus):
    """A column of a table, one document per row; validated on evenly spaced rows."""

    def __init__(self, table: Table, column: str, cfg: DataConfig, content: list[Any], *, held_out: bool,
                 flags: tuple[str, ...] = ()):
        self.name, self._table, self._column, self._cfg = table.name, table, column, cfg
        self._val_ratio = cfg.val_ratio if held_out else 0
        self.flags = ("column", *flags)
        self.fingerprint = digest("table", content, column, self._val_ratio, *selection_key(cfg))

    def chunks(self) -> Iterator[Chunk]:
        rows = (chunk for text in self._table.texts(self._column) for chunk in cut_document(text))
        return split_evenly(select_documents(drop_blank(rows), self._cfg), self._val_ratio)


def select_documents(chunks: Iterable[Chunk], cfg: DataConfig) -> Iterator[Chunk]:
    """Keep the documents that data.sample_ratio and data.max_documents select."""
    if cfg.sample_ratio < 1:
        chunks = sample_documents(chunks, cfg.sample_ratio, cfg.seed)
    return iter(chunks) if cfg.max_documents is None else first_documents(chunks, cfg.max_documents)


def selection_key(cfg: DataConfig) -> list[Any]:
    """The values that `select_documents` depends on; empty if it keeps all documents."""
    sample = [cfg.sample_ratio, cfg.seed] if cfg.sample_ratio < 1 else None
    return [sample, cfg.max_documents] if sample or cfg.max_documents else []


# ---- by name ----


def load_corpus(cfg: DataConfig) -> Corpus:
    """The corpus, or the mixture of corpora, named by data.name.

    Raises ValueError if a text is missing, empty or unreadable, a part would be empty, or a flag would change nothing.
    """
    sources = [load_one(name, cfg, held_out=not cfg.val_name) for name in cfg.name]
    validation = [load_one(name, cfg, held_out=None) for name in cfg.val_name]
    known_flags = {flag for corpus in sources + validation for flag in corpus.flags}
    for flag in ("separator", "column", "subset", "revision", "streaming"):
        if getattr(cfg, flag) and flag not in known_flags:
            raise ValueError(f"data.{flag}={getattr(cfg, flag)!r} would change nothing for {' '.join(cfg.name)}: "
                             "leave it out")
    return sources[0] if len(sources) == 1 and not validation else Mixture(sources, cfg.weights, validation)


def load_one(name: str, cfg: DataConfig, *, held_out: bool | None) -> Corpus:
    """One corpus by its name. Without `held_out` all of it is its train part; None = it is a validation text."""
    if name == "tales":
        num_val = min(max(1, round(cfg.num_stories * cfg.val_ratio)), MAX_VAL_STORIES)
        if held_out is None:
            return TalesCorpus({"train": (VAL_SEED, num_val)})
        return TalesCorpus({"train": (cfg.seed, cfg.num_stories)} | ({"val": (VAL_SEED, num_val)} if held_out else {}))
    held_out = bool(held_out)
    if paths := files_of(name):
        return local_corpus(name, paths, cfg, held_out=held_out)
    base, _, split = name.partition(":")
    if Path(base).is_dir() and any(map(kind_of, Path(base).rglob("*"))):
        source = DatasetSpec(name, base, cfg.subset, split or "train")
        return local_table_corpus(folder_table(source, cfg.cache_path), cfg, held_out=held_out, flags=("subset",))
    if base == TINYSTORIES_V2 and (split or "train") in STORY_FILES:
        path = story_file(DatasetSpec(name, NAMES["tinystories"], None, split or "train", cfg.revision), cfg.cache_path)
        return TextCorpus(name, [path], cfg, separator=END_OF_STORY, held_out=held_out, flags=("revision",))
    if is_hub_name(base):
        return hub_corpus(DatasetSpec(name, NAMES.get(base, base), cfg.subset or SUBSETS.get(base), split or "train",
                                 cfg.revision), cfg, held_out=held_out)
    raise ValueError(f"data.name={name!r} is not a text file, a folder or glob with text files, or a built-in corpus: "
                     f"give a path, a Hub dataset as owner/name, or one of tales, {TINYSTORIES_V2}, {', '.join(NAMES)}")


def local_corpus(name: str, paths: list[Path], cfg: DataConfig, *, held_out: bool) -> Corpus:
    """Files of one kind: text, or a table."""
    if all(kind_of(path) is None for path in paths):
        return TextCorpus(name, paths, cfg, separator=cfg.separator, held_out=held_out)
    return local_table_corpus(local_table(name, paths, cfg.cache_path), cfg, held_out=held_out)


def local_table_corpus(table: Table, cfg: DataConfig, *, held_out: bool, flags: tuple[str, ...] = ()) -> TableCorpus:
    content = [cached_for_file(Path(file), "sha256", cfg.cache_path, lambda file=file: sha256(Path(file)))
               for file in table.files]
    column = choose_column(table, table.columns(), cfg.column)
    return TableCorpus(table, column, cfg, [table.kind, table.options, content], held_out=held_out, flags=flags)


def hub_corpus(source: DatasetSpec, cfg: DataConfig, *, held_out: bool) -> TableCorpus:
    table, commit, columns = hub_table(source, cfg.cache_path, streaming=cfg.streaming)
    column = choose_column(table, columns, cfg.column or COLUMNS.get(source.location))
    content = [source.location, source.subset, source.split, commit]
    return TableCorpus(table, column, cfg, content, held_out=held_out, flags=("subset", "revision", "streaming"))
