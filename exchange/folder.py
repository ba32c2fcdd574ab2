"""A folder that `save_pretrained` wrote: its config.json, and its tensors, read one at a time from safetensors files.

A pickle is never read, and nothing that lies in the folder is run.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configuration.reading import read_json
from families import ENCODER_DECODERS, FAMILIES
from families.family import Family
from run_store.listing import read_object, read_tensors

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}  # types of a tensor that is a weight


def read_model_type(folder: Path) -> tuple[Family, dict[str, Any]]:
    """The family of a folder, and its config.json. Raises ValueError if it is of no family."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: give one with config.json and {WHOLE}")
    theirs = read_object(folder / "config.json")
    kind = theirs.get("model_type")
    if isinstance(kind, str) and kind in ENCODER_DECODERS:
        raise ValueError(f"config.json has model_type={kind!r}, an encoder and a decoder: only decoders are imported")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"config.json has model_type={kind!r}, which is not known here: use one of "
                         f"{', '.join(FAMILIES)}")
    return FAMILIES[kind], theirs


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of a folder by their names. Only headers are read before a tensor is asked for.

    Raises ValueError if a file is missing or damaged.
    """

    def __init__(self, folder: Path):
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        for file in weight_files(folder):
            for name, tensor in read_tensors(file).items():
                if tensor["dtype"] not in FLOATS:
                    raise ValueError(f"{file.name} has {name} as {tensor['dtype']}, which is not a type of weights "
                                     f"here: use one of {', '.join(sorted(FLOATS))}")
                if name in self._files:
                    raise ValueError(f"{file.name} and {self._files[name].name} both have {name}")
                self.shapes[name], self._files[name] = tuple(tensor["shape"]), file
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Tensor:
        file = self._files[name]
        try:
            if file not in self._open:
                self._open[file] = self._stack.enter_context(safe_open(file, "pt"))
            return self._open[file].get_tensor(name)
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ValueError(f"{file.name} cannot be read: {error}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def renamed(self, names: Mapping[str, str]) -> "RenamedTensors":
        """The same under other names: {new: saved}."""
        return RenamedTensors(self, names)


class RenamedTensors(Mapping[str, Tensor]):
    """Tensors under other names."""

    def __init__(self, saved: SavedTensors, names: Mapping[str, str]):
        self.saved, self.names = saved, names

    def __getitem__(self, name: str) -> Tensor:
        return self.saved[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.saved.shapes[self.names[name]]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or those of its index. Raises ValueError if there are none."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        said = f"; {pickles[0]} is a pickle, which may run code and is never read" if pickles else ""
        raise ValueError(f"{folder} has no {WHOLE} and no {INDEX}{said}: save the model with save_pretrained of "
                         "transformers")
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{INDEX} cannot be read: it has no weight_map of names of files")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{INDEX} names {name!r}, which is not a safetensors file of the folder")
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing: {INDEX} names it")
    return [folder / name for name in names]


def require_finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor. Raises ValueError if it has a NaN or Inf."""
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} is not finite: a model is imported only if all its weights are")
    return tensor
