"""Tensors that lie in parts in several processes: the first writes the files that one process would, byte for byte.

The others send it their parts of one tensor after the other, so nobody has more than one whole tensor at a time. To
read a file, each process takes its own part of each tensor.
"""

import contextlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves, tree_map_only

HEAD = 8  # bytes of a safetensors file that tell the length of its JSON


class Part:
    """This process's rows of a tensor whose first axis is divided as by torch.chunk. Shape: (own rows, ...)."""

    def __init__(self, rows: Tensor, shape: torch.Size, group: distributed.ProcessGroup):
        self.rows, self.shape, self.dtype, self._group = rows, shape, rows.dtype, group
        self.was_sent = False

    def copied(self) -> "Part":
        """A copy on the CPU."""
        return Part(self.rows.to("cpu", copy=True), self.shape, self._group)

    def whole(self) -> Tensor:
        """In the first process the whole tensor, on the CPU; in the others an empty one.

        All must call it for the same tensors in the same order.
        """
        is_first = distributed.get_rank(self._group) == 0
        found = torch.empty(self.shape if is_first else 0, dtype=self.dtype)
        self.was_sent = True
        if not is_first:
            send(self.rows.contiguous().cpu(), self._group)
            return found
        own, *others = found.chunk(distributed.get_world_size(self._group))
        own.copy_(self.rows)
        for rank, rows in enumerate(others, 1):
            receive(rows, rank, self._group)
        return found

    @torch.no_grad()
    def take(self, saved: Any) -> None:
        """Read this process's rows of a tensor in a file: a SavedTensor, or what get_slice of safetensors gives."""
        first = distributed.get_rank(self._group) * -(-self.shape[0] // distributed.get_world_size(self._group))
        if len(self.rows):
            self.rows.copy_(saved[first : first + len(self.rows)])

    def __reduce_ex__(self, _) -> tuple:
        """What pickle writes of the whole tensor, for torch.save, which writes the bytes of all tensors at the end."""
        storage = torch.storage.TypedStorage(wrap_storage=LaterStorage.of(self), dtype=self.dtype, _internal=True)
        storage._fake_device = "cpu"  # which the file names as the tensor's device
        stride = torch.empty(self.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, tuple(self.shape), stride, False, OrderedDict())


class LaterStorage(torch.UntypedStorage):
    """The bytes of a tensor that is put together when torch.save comes to them and asks for their place on the CPU."""

    part: Part

    @classmethod
    def of(cls, part: Part) -> "LaterStorage":
        storage = cls(part.shape.numel() * part.dtype.itemsize, device="meta")
        storage.part = part
        return storage

    def cpu(self) -> torch.UntypedStorage:
        return self.part.whole().untyped_storage()


States = Mapping[str, Tensor | Part]  # of a model, by name


def send(rows: Tensor, group: distributed.ProcessGroup) -> None:
    if rows.numel():
        distributed.send(rows, 0, group)


def receive(rows: Tensor, rank: int, group: distributed.ProcessGroup) -> None:
    if rows.numel():
        distributed.recv(rows, rank, group)


def parts_of(tree: Any) -> list[Part]:
    """The parts in a tree, in the order in which torch.save writes them."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Part)]


@contextlib.contextmanager
def all_sent(parts: Iterable[Part]) -> Iterator[None]:
    """A block that may put tensors together; at its end, however it ends, those that are left are sent in their order.

    So the others, which do nothing in the block, send all, also if the first fails to write a file.
    """
    try:
        yield
    finally:
        for part in parts:
            if not part.was_sent:
                part.whole()


# ---- weights ----


def write_weights(states: States, path: Path) -> None:
    """Write the file that safetensors' save_model writes. The first process alone calls it."""
    header, tensors = layout(states)
    with path.open("wb") as file:
        file.write(header)
        for tensor in tensors:
            whole = tensor.whole() if isinstance(tensor, Part) else tensor.detach().cpu().contiguous()
            file.write(bytes_of(whole))


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def layout(states: States) -> tuple[bytes, list[Tensor | Part]]:
    """The header of a safetensors file, and its tensors in their order; of names that share a tensor the first counts.

    safetensors orders the tensors, and says how they are called, by a file in which all are empty.
    """
    first: dict[int, str] = {}
    for name in sorted(states):
        first.setdefault(id(states[name]), name)
    kept = {name: states[name] for name in first.values()}
    shared = {name: first[id(tensor)] for name, tensor in states.items() if name not in kept}
    empty = save({name: torch.empty(0, dtype=tensor.dtype) for name, tensor in kept.items()}, shared or None)
    header, end = json.loads(empty[HEAD:]), 0
    for name, tensor in ((name, kept[name]) for name in header if name in kept):
        begin, end = end, end + tensor.shape.numel() * tensor.dtype.itemsize
        header[name] |= {"shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEAD)
    return len(text).to_bytes(HEAD, "little") + text, [kept[name] for name in header if name in kept]


@torch.no_grad()
def read_weights(states: States, path: Path) -> None:
    """Copy what write_weights wrote into tensors and parts. Raises RuntimeError if it does not fit."""
    names: dict[int, list[str]] = {}
    for name, tensor in states.items():
        names.setdefault(id(tensor), []).append(name)
    with safe_open(path, "pt") as file:
        saved = {*file.keys()}
        if unknown := saved - {*states}:
            raise RuntimeError(f"{', '.join(sorted(unknown))} in the file, not in the model")
        for own in names.values():
            name = next((name for name in own if name in saved), None)
            if name is None:
                raise RuntimeError(f"{own[0]} is not in the file")
            copy_from(file, name, states[name])


def copy_from(file: Any, name: str, tensor: Tensor | Part) -> None:
    """Copy a tensor of an open file, or this process's part of it. Raises RuntimeError if it has another shape."""
    found = file.get_slice(name)
    if (shape := found.get_shape()) != list(tensor.shape):
        raise RuntimeError(f"{name} is {tuple(shape)}, in the model it is {tuple(tensor.shape)}")
    if isinstance(tensor, Part):
        tensor.take(found)
    else:
        tensor.copy_(file.get_tensor(name))


# ---- optimizer states ----


class SavedTensor:
    """A tensor in a file of torch.save, of which an index reads what it selects, and no more if these are rows."""

    def __init__(self, path: Path, stand_in: Tensor):
        self._path, self._stand_in = path, stand_in
        self.shape, self.dtype = stand_in.shape, stand_in.dtype

    def __getitem__(self, index: Any) -> Tensor:
        part = self._stand_in[index]
        last = sum((n - 1) * stride for n, stride in zip(part.shape, part.stride(), strict=True))
        found = torch.empty(last + 1 if part.numel() else 0, dtype=part.dtype)
        with self._path.open("rb") as file:
            file.seek(part.untyped_storage()._checkpoint_offset + part.storage_offset() * part.itemsize)
            if file.readinto(bytes_of(found)) < found.nbytes:
                raise EOFError(f"{self._path} ends too soon")
        return found.as_strided(part.shape, part.stride())


def read_states(path: Path) -> Any:
    """What torch.save wrote, with a SavedTensor for each tensor. Raises what torch.load raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        states = torch.load(path, map_location="cpu", weights_only=True)
    return tree_map_only(Tensor, partial(SavedTensor, path), states)
