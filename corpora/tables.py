"""Texts in tables: .jsonl, .csv and .parquet files, read with the `datasets` library.

Rows are read in batches from the files themselves: nothing is copied. A dataset's script is never run.
"""

import contextlib
import dataclasses
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpora.cards import check_card
from corpora.files import byte_blocks, digest, state_of, uncompressed, writing
from corpora.rows import Column, column_types, find_column, texts_in

KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
HUB_KINDS = ("json", "csv", "parquet", "arrow", "text")
ROWS_PER_READ, BYTES_PER_READ = 256, 1 << 20  # read at a time


class DatasetSpec(NamedTuple):
    """A dataset on the Hub, or a folder laid out like one. `name` is the user's name for it."""

    name: str
    location: str  # owner/name on the Hub, or a folder
    subset: str | None
    split: str
    revision: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Files of one kind, and the options of `datasets` to read them with."""

    name: str
    kind: str
    files: tuple[str, ...]
    cache: Path
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def batches(self, columns: tuple[str, ...] = ()) -> Iterator[Any]:
        """The rows, of some columns or all, as Arrow tables. Raises ValueError if a file is not of its kind."""
        import pyarrow

        local_parquet = self.kind == "parquet" and not any(file.startswith("hf://") for file in self.files)
        try:
            yield from self._parquet(columns) if local_parquet else self._others(columns)
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"data.name={self.name!r} cannot be read as {self.kind} ({one_line(error)}): "
                             "repair the file or leave it out") from error

    def _parquet(self, wanted: tuple[str, ...]) -> Iterator[Any]:
        """Read local parquet with Arrow: `datasets` holds a whole row group, and some files are a single one."""
        from pyarrow.parquet import ParquetFile

        for path in self.files:
            with open(path, "rb") as file:
                parquet = ParquetFile(file, buffer_size=BYTES_PER_READ, pre_buffer=False)
                columns = list(wanted) if wanted and {*wanted} <= {*parquet.schema_arrow.names} else None
                yield from parquet.iter_batches(ROWS_PER_READ, columns=columns)

    def _others(self, columns: tuple[str, ...]) -> Iterator[Any]:
        builder = import_datasets().load_dataset_builder(self.kind, data_files={"train": list(self.files)},
                                                        cache_dir=str(self.cache / "datasets"), **self.options)
        config = builder.config
        if self.kind == "parquet":
            config.batch_size, config.columns = ROWS_PER_READ, list(columns) or None
        if self.kind == "json":
            config.chunksize = BYTES_PER_READ
        if self.kind == "csv":  # keep text as it is: "NA" is not a missing value, "007" not a number
            config.na_filter, config.converters = False, dict.fromkeys(columns, str) or None
        with contextlib.suppress(StopIteration):  # from `datasets`, if the files are empty
            yield from builder.as_streaming_dataset(split="train").with_format("arrow").iter(batch_size=ROWS_PER_READ)

    def columns(self) -> dict[str, str]:
        """The type of each column, by name. Raises ValueError if there are no rows."""
        first = next(self.batches(), None)
        if first is None:
            raise ValueError(f"data.name={self.name!r} has no text: give a file with at least one row")
        return column_types(first)

    def texts(self, columns: Sequence[Column], left_out: Counter[str]) -> Iterator[tuple[str, ...]]:
        """The texts of some columns, row by row. Rows that lack one are counted in `left_out`, by the reason."""
        tops, names = tuple({column.top: None for column in columns}), [column.name for column in columns]
        for batch in self.batches(tops):
            choose_columns(self, column_types(batch), names[-1], *names[:-1])  # a later file may have other columns
            yield from texts_in(batch, columns, left_out)


def choose_columns(table: Table, columns: dict[str, str], asked: str | None, source: str | None = None) -> list[Column]:
    """The column of the text: `asked`, else `text`; of pairs that of the sources before it.

    Raises ValueError, with the names of the columns, without one.
    """
    found = []
    for flag, name in [*([("source_column", source)] if source else []), ("column", asked or "text")]:
        try:
            found.append(find_column(columns, name))
        except ValueError as problem:
            raise ValueError(f"data.{flag}={name} {problem} {table.name!r}: use one of {', '.join(columns)}") from None
    return found


def local_table(name: str, files: list[Path], cache: Path) -> Table:
    """Files of one kind, told by their suffix; compressed parquet is unpacked into the cache."""
    kinds = {kind_of(path) for path in files}
    if len(kinds) > 1:
        raise ValueError(f"data.name={name!r} has files of several kinds ({', '.join(sorted(map(str, kinds)))}): "
                         "give a glob of one kind")
    kind = kinds.pop()
    return Table(name, kind, tuple(str(unpacked(path, cache) if kind == "parquet" else path) for path in files), cache)


def files_of(name: str) -> list[Path]:
    """The file, the text files in the folder and below, or the files that match the glob, sorted by name."""
    path = Path(name)
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(name, recursive=True))
    files = sorted(file for file in found if file.is_file())
    if not path.is_dir():
        return files
    texts = [file for file in files if uncompressed(file).suffix.lower() == ".txt"]
    tables = [file for file in files if kind_of(file)]
    if (path / "README.md").is_file() and tables:  # a copy of a Hub dataset, described by its card
        return []
    if texts and tables:
        raise ValueError(f"data.name={name!r} has {texts[0].name} and {tables[0].name}, of different kinds: give a "
                         f"glob of one kind, e.g. '{name}/*.txt'")
    return texts


def kind_of(path: Path) -> str | None:
    """The kind of a file, as `datasets` calls it; None = text."""
    return KINDS.get(uncompressed(path).suffix.lower())


def unpacked(path: Path, cache: Path) -> Path:
    """The file; if it is compressed, its content in the cache, since parquet is read from its end."""
    if path == uncompressed(path):
        return path
    target = cache / "unpacked" / f"{digest(str(path.resolve()), *state_of(path))[:32]}.parquet"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            unpack(path, unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


def unpack(path: Path, target: Path) -> None:
    """Write the content of a compressed file. Raises ValueError if it is damaged, or the disk is full."""
    with open(path, "rb") as packed, open(target, "wb", buffering=0) as plain:
        for block in byte_blocks(packed, path):
            with writing(target):
                rest = memoryview(block)
                while rest:
                    rest = rest[plain.write(rest):]


def resolve_dataset(source: DatasetSpec, cache: Path) -> dict[str, Any]:
    """Kind, options, files of the split and hash, as `datasets` reads them from a dataset's card and files.

    Raises ValueError if there is no such split, or the files are not tables.
    """
    datasets = import_datasets()
    builder = datasets.load_dataset_builder(source.location, source.subset, revision=source.revision,
                                            cache_dir=str(cache / "datasets"))
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in HUB_KINDS:
        raise ValueError(f"data.name={source.name!r} holds files of kind {kind}: use one of {', '.join(HUB_KINDS)}")
    splits = builder.config.data_files
    if source.split not in splits:
        raise ValueError(f"data.name={source.name!r} has no split {source.split}: use one of "
                         f"{', '.join(f'{source.location}:{split}' for split in splits)}")
    shared = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    options = {field.name: getattr(builder.config, field.name) for field in dataclasses.fields(builder.config)
               if field.name not in shared and getattr(builder.config, field.name) != field.default}
    return {"kind": kind, "options": {name: value for name, value in options.items() if value is not None},
            "files": list(splits[source.split]), "hash": builder.hash}


def folder_table(source: DatasetSpec, cache: Path) -> Table:
    """A folder of tables: laid out like a Hub dataset, or just files of one kind."""
    datasets = import_datasets()
    check_card(Path(source.location), source.name)
    try:
        found = resolve_dataset(source, cache)
    except (FileNotFoundError, datasets.exceptions.DatasetsError, RuntimeError) as error:
        raise ValueError(f"data.name={source.name!r} cannot be read ({one_line(error)}): give a folder of .txt, "
                         ".jsonl, .csv or .parquet files") from error
    except ValueError as error:
        raise subset_error(error, source) from error
    files = [Path(file) for file in found["files"]]
    return dataclasses.replace(local_table(source.name, files, cache), kind=found["kind"], options=found["options"])


def subset_error(error: ValueError, source: DatasetSpec) -> ValueError:
    """One sentence for a missing or wrong subset; any other error unchanged."""
    if found := re.search(r"(?:Available: |available configs: )\[(.*?)\]", str(error), re.DOTALL):
        return ValueError(f"data.subset={source.subset} is none of {source.name!r}: use one of "
                          f"{found[1].replace(chr(39), '')}")
    return error


def import_datasets() -> Any:
    """Import `datasets` on first use, since that takes a second, and silence its log: our errors say it."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def one_line(error: BaseException) -> str:
    """The text of an error on one line of at most 200 characters; its class if it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__
