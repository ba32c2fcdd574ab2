"""Datasets of the Hugging Face Hub, downloaded once into the cache folder, or streamed."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpora.files import cached_json, uncompressed
from corpora.tables import DatasetSpec, Table, import_datasets, kind_of, one_line, resolve_dataset, subset_error
from tokenization.foreign import check_hub_reachable

NAMES = {"tinystories": "roneneldan/TinyStories", "fineweb-edu": "HuggingFaceFW/fineweb-edu",
         "wikipedia": "wikimedia/wikipedia"}
SUBSETS = {"fineweb-edu": "sample-10BT", "wikipedia": "20231101.en"}
FOLDERS = {"sample-10BT": "sample/10BT", "20231101.en": "20231101.en"}  # of these subsets' files
# read as text, one file per split, with END_OF_STORY between the stories
TINYSTORIES_V2 = "tinystories-v2"
STORY_FILES = {"train": "TinyStoriesV2-GPT4-train.txt", "validation": "TinyStoriesV2-GPT4-valid.txt"}
END_OF_STORY = "<|endoftext|>"
COLUMNS = {"SouthernCrossAI/Tweets_cricket": "tweet"}  # datasets whose text is not in the column `text`


def is_hub_name(name: str) -> bool:
    """Whether a name is a short name or owner/dataset, and not a path to a file."""
    is_file = kind_of(Path(name)) or uncompressed(Path(name)).suffix == ".txt"
    return name in NAMES or bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) and not is_file)


def hub_table(source: DatasetSpec, cache: Path, *, streaming: bool) -> tuple[Table, str, dict[str, str]]:
    """A dataset of the Hub as (table, commit, columns): downloaded once, unless streamed.

    Raises ValueError if it cannot be found or reached, or lacks the subset or split.
    """
    found = cached_json(cache / "hub", [*source[1:], streaming], lambda: find_on_hub(source, cache, streaming))
    files = found["files"] if streaming else [download(source, found["commit"], path, cache) for path in found["files"]]
    table = Table(source.name, found["kind"], tuple(files), cache, found["options"])
    return table, found["commit"], found["columns"]


def story_file(source: DatasetSpec, cache: Path) -> Path:
    """The file of a split of tinystories-v2, downloaded once."""
    path = STORY_FILES[source.split]

    def find() -> dict[str, str]:
        with hub_errors(source):
            check_hub_reachable()
        file = download(source, source.revision, path, cache)
        return {"commit": Path(file).relative_to(hub_folder(cache)).parts[2]}  # datasets--o--n/snapshots/commit/...

    return Path(download(source, cached_json(cache / "hub", [*source[1:], path], find)["commit"], path, cache))


def find_on_hub(source: DatasetSpec, cache: Path, streaming: bool) -> dict[str, Any]:
    """Ask the Hub for the files of a dataset's split. The result is all that a later use needs, without the Hub."""
    with hub_errors(source), datasets_cache_at(cache):
        check_hub_reachable()
        found = resolve_dataset(source, cache)
    commit, prefix = found["hash"], f"hf://datasets/{source.location}@{found['hash']}/"
    files = found["files"] if streaming else [file.removeprefix(prefix) for file in found["files"]]
    local = files if streaming else [download(source, commit, path, cache) for path in files]
    columns = Table(source.name, found["kind"], tuple(local), cache, found["options"]).columns()
    return {"commit": commit, "kind": found["kind"], "options": found["options"], "files": files, "columns": columns}


def download(source: DatasetSpec, revision: str | None, path: str, cache: Path) -> str:
    """Download a file of a dataset into the cache, unless it is there; an interrupted download goes on."""
    os.environ.setdefault("HF_XET_CACHE", str(cache.resolve() / "hub" / "xet"))  # read by the library's Rust part
    from huggingface_hub import hf_hub_download

    with hub_errors(source):
        return hf_hub_download(source.location, path, repo_type="dataset", revision=revision,
                               cache_dir=str(hub_folder(cache)))


def hub_folder(cache: Path) -> Path:
    return cache.resolve() / "hub" / "files"


@contextlib.contextmanager
def datasets_cache_at(cache: Path) -> Iterator[None]:
    """Have `datasets` download into the cache folder, for which it has no argument."""
    from huggingface_hub import constants

    before, constants.HF_HUB_CACHE = constants.HF_HUB_CACHE, str(hub_folder(cache))
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


@contextlib.contextmanager
def hub_errors(source: DatasetSpec) -> Iterator[None]:
    """Turn errors of the Hub and its libraries into one sentence."""
    import httpx
    from huggingface_hub import errors

    datasets = import_datasets()
    flag, get, give = f"data.name={source.name!r}", "", "data.name=FOLDER"
    if source.name.startswith(TINYSTORIES_V2):
        get, give = (f" {STORY_FILES[source.split]}",
                     f"data.name=FOLDER/{STORY_FILES[source.split]} and data.separator='{END_OF_STORY}'")
    elif source.subset in FOLDERS:
        get = f" --include '{FOLDERS[source.subset]}/*'"
    try:
        yield
    except (datasets.exceptions.DatasetNotFoundError, errors.RepositoryNotFoundError,
            errors.RevisionNotFoundError) as error:
        raise ValueError(f"{flag} is not a file or folder here, and the Hub has no such dataset, or not for you "
                         f"({one_line(error)}): check the name and data.revision, or log in (`hf auth login`)"
                         ) from error
    except (ConnectionError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx.HTTPError) as error:
        raise ValueError(f"{flag} is not a file or folder here, and the Hub cannot be reached: on a machine that "
                         f"reaches it run `hf download {source.location}{get} --repo-type dataset --local-dir FOLDER`, "
                         f"and give {give}") from error
    except (datasets.exceptions.DatasetsError, errors.HfHubHTTPError, RuntimeError) as error:
        raise ValueError(f"{flag} cannot be used ({one_line(error)}): choose another dataset") from error
    except ValueError as error:
        raise subset_error(error, source) from error
