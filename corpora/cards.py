"""The card of a dataset, README.md, which says where its files are."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

MAX_BYTES = 1 << 24


def check_card(folder: Path, name: str) -> None:
    """Raise ValueError if the card of a folder names files elsewhere: `datasets` would read them, or ask for them."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    card = folder / "README.md"
    if not card.is_file():
        return
    try:
        if card.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        described = metadata_load(card) or {}
    except (ValueError, RecursionError, YAMLError) as error:
        raise ValueError(f"data.name={name!r}: its README.md cannot be read ({' '.join(str(error).split())[:200]}): "
                         "repair its head or delete it") from None
    configs = [config for config in described.get("configs") or () if isinstance(config, dict)]
    for place in words_in([[config.get(key) for key in ("data_files", "data_dir")] for config in configs]):
        if "://" in place or PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise ValueError(f"data.name={name!r}: its README.md names {place!r}, which is not in the folder: take it "
                             "out, or give the file itself")


def words_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, except keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from words_in(inner)
