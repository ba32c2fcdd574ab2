"""Checkpoints of what lies in parts in several processes: the files of one process, and nobody has all of it."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from test_group import begin, new_store
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_map_only

from config import Config, override
from memory_prediction.process import choose_allocator, peak_rss_bytes, reset_peak_rss, rss_bytes
from model import Model
from run_store.checkpoint import Checkpoint, Progress
from run_store.checkpoint_files import write_checkpoint
from run_store.parts import Part, all_sent, read_states, read_weights, write_weights
from training.group import joined
from training.snapshot import Frozen, Snapshot
from training.step import TrainState


@pytest.fixture
def group():
    """A group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


class Mixed(nn.Module):
    """Tensors of several types, sizes and names, and two that are shared."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.b, self.a = nn.Linear(3, 5), nn.Linear(3, 5)
        self.a.weight, self.b.bias = self.b.weight, self.a.bias
        self.größe = nn.Parameter(torch.randn(7).bfloat16())
        for number, dtype in enumerate((torch.int64, torch.bool, torch.float64, torch.uint8, torch.float16)):
            self.register_buffer(f"x{number}", torch.arange(number).to(dtype))
        self.register_buffer("one", torch.tensor(3))


def divided(tree, group):
    """The same in parts; what has no rows stays as it is."""
    found = {}
    return tree_map_only(Tensor, lambda x: found.setdefault(id(x), Part(x.detach(), x.shape, group) if x.dim() else x),
                         tree)


def test_weights_are_written_as_safetensors_writes_them(group, tmp_path):
    model = Mixed()
    save_model(model, str(tmp_path / "expected"))
    expected = (tmp_path / "expected").read_bytes()
    states = model.state_dict(keep_vars=True)
    for written in (states, divided(states, group)):
        write_weights(written, tmp_path / "file")
        found = (tmp_path / "file").read_bytes()
        size = int.from_bytes(found[:8], "little")
        assert json.loads(found[8:8 + size]) == json.loads(expected[8:8 + size])  # safetensors shuffles metadata
        assert len(found) == len(expected) and found[8 + size:] == expected[8 + size:]


def test_weights_that_were_written_are_read(group, tmp_path):
    model = Mixed()
    save_model(model, str(tmp_path / "file"))
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    read_weights(divided(model.state_dict(keep_vars=True), group), tmp_path / "file")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda states: states.pop("a.bias") is states.pop("b.bias"), "a.bias in the file, not in the model"),
    (lambda states: states.update(more=torch.zeros(2)), "more is not in the file"),
    (lambda states: states.update(größe=torch.zeros(7, 2)), r"größe is \(7,\), in the model it is \(7, 2\)"),
])
def test_weights_of_another_model_are_refused(change, sentence, group, tmp_path):
    (path := tmp_path / "step_00000001").mkdir()
    write_checkpoint(path, Mixed(), Frozen([]), Progress())
    states = Mixed().state_dict(keep_vars=True)
    change(states)
    with pytest.raises(ValueError, match=f"does not fit its configuration: {sentence}"):
        Checkpoint(path).load_weights(Frozen(divided(states, group)))


STATES = [{"state": {0: {"step": torch.tensor(3.0), "mean": torch.randn(5, 7), "square": torch.randn(5, 7).bfloat16()},
                     2: {"step": torch.tensor(4.0), "mean": torch.randn(1), "none": None}},
           "param_groups": [{"lr": 0.1, "betas": [0.9, 0.95], "params": [0, 2]}]}, {"trained": [torch.randn(3, 1, 2)]}]


def test_states_are_written_as_torch_writes_them(group, tmp_path):
    for name, states in (("expected", STATES), ("file", divided(STATES, group))):
        with (tmp_path / name).open("wb") as file:
            torch.save({"optimizer": states, "random": [torch.get_rng_state()]}, file)
    assert (tmp_path / "file").read_bytes() == (tmp_path / "expected").read_bytes()


def test_of_saved_states_any_rows_are_read(tmp_path):
    strided = torch.randn(6, 4).t()
    torch.save({"optimizer": STATES, "strided": strided}, tmp_path / "file")
    found = read_states(tmp_path / "file")
    mean = found["optimizer"][0]["state"][0]["mean"]
    assert torch.equal(mean[1:4], STATES[0]["state"][0]["mean"][1:4]) and mean[5:].shape == (0, 7)
    assert torch.equal(found["strided"][1:3], strided[1:3])
    assert found["optimizer"][0]["state"][2]["step"][...] == 4 and found["optimizer"][0]["param_groups"][0]["lr"] == 0.1
    assert torch.equal(found["optimizer"][0]["state"][0]["square"][...], STATES[0]["state"][0]["square"])


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9])
def test_a_part_takes_the_rows_that_chunk_gives_its_process(rows, monkeypatch):
    whole = torch.randn(rows, 3)
    monkeypatch.setattr(distributed, "get_world_size", lambda group: 4)
    for rank in range(4):
        monkeypatch.setattr(distributed, "get_rank", lambda group, rank=rank: rank)
        expected = (*whole.chunk(4), *[whole[:0]] * 4)[rank]
        part = Part(torch.zeros_like(expected), whole.shape, group=None)
        part.take(whole)
        assert torch.equal(part.rows, expected)


def test_what_was_not_sent_is_sent_at_the_end_of_the_block(monkeypatch):
    sent, parts = [], [Part(torch.zeros(1), torch.Size([1]), group=number) for number in range(4)]
    monkeypatch.setattr(Part, "whole", lambda part: (sent.append(part._group), setattr(part, "was_sent", True)))
    with pytest.raises(OSError), all_sent(parts):
        parts[0].whole()
        raise OSError
    assert sent == [0, 1, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_process_has_more_than_its_part_and_a_few_tensors(tmp_path):
    """The model has 19 MB of weights, of which the largest tensor has 1 MB, and AdamW's states have 38 MB."""
    with new_store() as port:
        programs = begin(2, partial(save_and_load, tmp_path / "step_00000001"), tmp_path, port)
        said = [program.communicate(100) for program in programs]
    for program, (out, err) in zip(programs, said, strict=True):
        assert program.returncode == 0, err
        saving, loading = json.loads(out)
        assert saving < 8, (saving, loading)
        assert 19 < loading < 19 + 8, (saving, loading)  # its part of AdamW's states


def save_and_load(path: Path) -> None:
    """Print by how many MB this process grew, at most, when its sharded state was saved and when it was loaded."""
    choose_allocator("tight")  # what is freed is given back at once
    cfg = override(Config(), {"train.optimizer": "adamw", "train.shard": True, "model.vocab_size": 64,
                              "model.dim": 256, "model.num_layers": 6})
    with joined(torch.device("cpu")) as group:
        states = [TrainState(Model(cfg.model), cfg.train, group) for _ in range(2)]
        for parameter in states[0].model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        states[0].optimizer.step()
        print([grown(partial(save, path, states[0])), grown(partial(load, path, states[1]))])


def save(path: Path, state: TrainState) -> None:
    model, average, optimizer = state.lasting()
    snapshot = Snapshot(model, optimizer, Progress(), average)
    with all_sent(snapshot.parts()):
        if state.group.is_first:
            path.mkdir()
            write_checkpoint(path, *snapshot)
    state.group.wait()


def load(path: Path, state: TrainState) -> None:
    model, average, optimizer = state.lasting()
    Checkpoint(path).load_training(model, optimizer, average)


def grown(act: Callable[[], None]) -> int:
    reset_peak_rss()
    before = rss_bytes()
    act()
    return (peak_rss_bytes() - before) // 10**6
