"""The kinds of corpora: tales, text files, tables, and mixtures. A corpus has two parts, train and val."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tales.pairs
from config import DataConfig
from corpora.chunks import (
    Chunk,
    cut_document,
    drop_blank,
    first_documents,
    pair,
    sample_documents,
    split_by_characters,
    split_by_documents,
    split_evenly,
)
from corpora.files import Scan, cached_for_file, checked_unchanged, digest, read_documents, scan, state_of
from corpora.rows import Column
from corpora.tables import Table
from run_store.atomic_files import sha256


class Corpus:
    """Documents in two parts, train and val; `fingerprint` names their content.

    `total` is the number of documents in both parts, or of characters if `counts_characters`; None = not known.
    With `is_pairs` each document is a pair of a source and a target.
    `flags` are the flags of DataConfig that this corpus uses, of those that not all corpora use. `left_out` counts the
    rows without text that the last `chunks` has met, by the reason.
    """

    name: str
    fingerprint: str
    total: int | None = None
    counts_characters = False
    is_pairs = False
    flags: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})

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
        self.name, self.is_pairs = " ".join(source.name for source in sources), sources[0].is_pairs
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


class TalePairs(TalesCorpus):
    """A task on the built-in stories: one pair of each."""

    is_pairs = True

    def __init__(self, name: str, streams: dict[str, tuple[int, int]]):
        super().__init__(streams)
        self.name = name
        self.fingerprint = digest(name, self.fingerprint, sha256(Path(tales.pairs.__file__)))

    def chunks(self) -> Iterator[Chunk]:
        for part, (seed, count) in self._streams.items():
            for number in range(count):
                found = tales.pairs.TASKS[self.name](seed, number)
                yield from (chunk._replace(part=part) for chunk in pair(found.source, found.target))


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
    """A column of a table, one document per row, or a pair with a column of sources; validated on evenly spaced rows.

    `columns` is that of the texts, or those of the sources and of the targets.
    """

    def __init__(self, table: Table, columns: Sequence[Column], cfg: DataConfig, content: list[Any], *, held_out: bool,
                 flags: tuple[str, ...] = ()):
        self.name, self._table, self._columns, self._cfg = table.name, table, columns, cfg
        self._val_ratio, self.is_pairs = cfg.val_ratio if held_out else 0, len(columns) > 1
        self.flags = ("column", "source_column", *flags)
        names = [column.name for column in reversed(columns)]
        self.fingerprint = digest("table", content, *names, self._val_ratio, *selection_key(cfg))

    def chunks(self) -> Iterator[Chunk]:
        self.left_out = Counter()
        cut = pair if self.is_pairs else cut_document
        rows = (chunk for texts in self._table.texts(self._columns, self.left_out) for chunk in cut(*texts))
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
