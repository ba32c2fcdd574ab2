"""Load a corpus by name: tales, a synthetic task, a path, or a dataset of the Hub."""

from pathlib import Path

from config import TALES, DataConfig
from corpora.files import cached_for_file
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
from corpora.kinds import Corpus, Mixture, TableCorpus, TalePairs, TalesCorpus, TextCorpus
from corpora.probe_rows import ProbeCorpus
from corpora.tables import DatasetSpec, Table, choose_columns, files_of, folder_table, kind_of, local_table
from probes import PROBES
from run_store.atomic_files import sha256

VAL_SEED = -1  # tales: the same validation stories whatever the training seed
MAX_VAL_STORIES = 1000


def load_corpus(cfg: DataConfig) -> Corpus:
    """The corpus, or the mixture of corpora, named by data.name.

    Raises ValueError if a text is missing, empty or unreadable, a part would be empty, or a flag would change nothing.
    """
    sources = [load_one(name, cfg, held_out=not cfg.val_name) for name in cfg.name]
    try:
        validation = [load_one(name, cfg, held_out=None) for name in cfg.val_name]
    except ValueError as error:
        raise ValueError(str(error).replace("data.name=", "data.val_name=", 1)) from None
    known_flags = {flag for corpus in sources + validation for flag in corpus.flags}
    for flag in ("separator", "column", "source_column", "subset", "revision", "streaming"):
        if getattr(cfg, flag) and flag not in known_flags:
            raise ValueError(f"data.{flag}={getattr(cfg, flag)!r} would change nothing for {' '.join(cfg.name)}: "
                             "leave it out")
    for corpus in sources + validation:
        if corpus.is_pairs != sources[0].is_pairs:
            pairs, others = sorted((corpus, sources[0]), key=lambda one: not one.is_pairs)
            raise ValueError(f"data.name={pairs.name} gives pairs of a source and a target, and {others.name} texts: "
                             "use one kind in all of data.name and data.val_name")
    return sources[0] if len(sources) == 1 and not validation else Mixture(sources, cfg.weights, validation)


def load_one(name: str, cfg: DataConfig, *, held_out: bool | None) -> Corpus:
    """One corpus by its name. Without `held_out` all of it is its train part; None = it is a validation text."""
    if name in PROBES:
        return ProbeCorpus(name, cfg)
    if name in TALES:
        num_val = min(max(1, round(cfg.num_stories * cfg.val_ratio)), MAX_VAL_STORIES)
        streams = {"train": (cfg.seed, cfg.num_stories)} | ({"val": (VAL_SEED, num_val)} if held_out else {})
        if held_out is None:
            streams = {"train": (VAL_SEED, num_val)}
        return TalesCorpus(streams) if name == "tales" else TalePairs(name, streams)
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
                     f"give a path, a Hub dataset as owner/name, one of {', '.join((*TALES, TINYSTORIES_V2, *NAMES))}"
                     f", or a synthetic task: {', '.join(PROBES)}")


def local_corpus(name: str, paths: list[Path], cfg: DataConfig, *, held_out: bool) -> Corpus:
    """Files of one kind: text, or a table."""
    if all(kind_of(path) is None for path in paths):
        return TextCorpus(name, paths, cfg, separator=cfg.separator, held_out=held_out)
    return local_table_corpus(local_table(name, paths, cfg.cache_path), cfg, held_out=held_out)


def local_table_corpus(table: Table, cfg: DataConfig, *, held_out: bool, flags: tuple[str, ...] = ()) -> TableCorpus:
    content = [cached_for_file(Path(file), "sha256", cfg.cache_path, lambda file=file: sha256(Path(file)))
               for file in table.files]
    columns = choose_columns(table, table.columns(), cfg.column, cfg.source_column)
    return TableCorpus(table, columns, cfg, [table.kind, table.options, content], held_out=held_out, flags=flags)


def hub_corpus(source: DatasetSpec, cfg: DataConfig, *, held_out: bool) -> TableCorpus:
    table, commit, columns = hub_table(source, cfg.cache_path, streaming=cfg.streaming)
    found = choose_columns(table, columns, cfg.column or COLUMNS.get(source.location), cfg.source_column)
    content = [source.location, source.subset, source.split, commit]
    return TableCorpus(table, found, cfg, content, held_out=held_out, flags=("subset", "revision", "streaming"))
