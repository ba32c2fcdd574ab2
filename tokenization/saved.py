"""Tokenizers that this project has saved."""

from collections.abc import Mapping
from pathlib import Path

from configuration.reading import read_bytes, read_json
from tokenization.base import META, Tokenizer


def saved_description(folder: Path) -> Path | None:
    """The file in which `save` described a tokenizer; None in a folder that `save` did not write."""
    older = folder / "tokenizer.json"  # an older name of meta.json; now Hugging Face's file has it
    if (folder / META).exists():
        return folder / META
    return older if older.is_file() and read_bytes(older).startswith(b'{\n "kind"') else None


def rebuild(folder: Path, description: Path, name: str, kinds: Mapping[str, type[Tokenizer]]) -> Tokenizer:
    """The tokenizer that `save` wrote. Raises ValueError if a file is damaged, or belongs to another tokenizer."""
    try:
        said = read_json(description)
        kind = kinds[said["kind"]]
        tokenizer = kind.rebuild(said, {file: read_bytes(folder / file) for file in kind.file_names})
        matches = said == tokenizer.description() | {"fingerprint": tokenizer.fingerprint}
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"tokenizer={name!r} cannot be read ({error!r}): save it again") from error
    if not matches:
        raise ValueError(f"tokenizer={name!r} does not match its fingerprint: save it again")
    return tokenizer
