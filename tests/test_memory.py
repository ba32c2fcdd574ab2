"""What a run will take, before it takes it."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fresh_process import child_baseline_bytes
from helpers import small_config
from thorough import some
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

import memory
from config import Config, override, parse_bytes
from configuration import heap
from configuration.command_line import spell_bytes
from memory_prediction import budget, prediction, suggestions
from memory_prediction import dry_run as dry
from memory_prediction.allocations import GROUP_SIZES, PAGE, StorageLog
from memory_prediction.data_parallel import sums
from memory_prediction.dry_run import dry_run, sequence_bytes, some_batch
from memory_prediction.prediction import predict
from memory_prediction.process import peak_rss_bytes, reset_peak_rss, rss_bytes
from memory_prediction.suggestions import Room, cards, cheaper, in_words, largest
from model import Model
from modules.mlps import MLPS
from presets import load_preset
from tools import LoggingModule, log_io
from training.step import TrainState

MB = 10**6
BASE = {"model.vocab_size": 512, "model.dim": 64, "model.num_layers": 2, "model.max_seq_len": 64,
        "train.precision": "float32", "train.graded_stories": 0}


def configured(changes: dict | None = None) -> Config:
    return override(Config(), BASE | (changes or {}))


KINDS = {
    "default": {}, "adamw": {"train.optimizer": "adamw"}, "sgd": {"train.optimizer": "sgd", "train.lr": 0.1},
    "lion": {"train.optimizer": "lion"}, "adafactor": {"train.optimizer": "adafactor"},
    "checkpointed": {"train.checkpoint_activations": True}, "chunked": {"train.loss_chunk": 16},
    "documents, pointer": {"data.packing": "documents", "model.pointer": True},
    "bfloat16": {"train.precision": "bfloat16"}, "large vocabulary": {"model.vocab_size": 20_000},
    "explicit alibi": {"model.attention.backend": "eager", "model.position": "alibi"},
    "gated, tied": {"model.mlp": "glu", "model.norm": "layer", "model.tie_embeddings": True},
    "peak in the optimizer": {"model.dim": 192, "model.max_seq_len": 8, "train.batch_size": 1},
    "average, window": {"train.ema_decay": 0.9, "model.attention.window": 8, "model.residual": "sandwich"},
}


def tracked(cfg: Config) -> int:
    """The peak of the same two steps by torch's own tracker."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        tracker = MemTracker()
        with tracker, pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "item", lambda self: 1.0)
            model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations)
            state = TrainState(model, cfg.train)
            tracker.track_external(model, *state.optimizer.parts)
            batch = some_batch(cfg, cfg.train.batch_size)
            for number in (1, 2):
                state.step([batch], number=number, lr=0.0, noise=[])
                tracker.reset_mod_stats()  # what it knows of each module is of one pass
        peak = tracker.get_tracker_snapshot("peak")
    return sum(kinds["Total"] for kinds in peak.values())


# torch's tracker holds on to what is made again for the gradient, and takes no gradient that is made in a forward
UNTRACKED = ("checkpointed", "chunked", "large vocabulary")


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(KINDS, 3))
def test_what_is_alive_at_the_peak_adds_up_to_it_and_torchs_own_tracker_sees_the_steps_peak(kind):
    cfg = configured({"model.num_layers": 1} | KINDS[kind])
    found = predict(cfg)
    assert sum(found.by_part.values()) == sum(found.by_module.values()) == found.peak_bytes
    assert found.how == "exact" and 0 < found.peak_bytes < found.low_bytes < found.high_bytes
    weights = 4 * Model(cfg.model).num_parameters()
    assert weights <= found.by_part["weights"] <= 1.1 * weights + 64 * 100
    if kind not in UNTRACKED:
        steps = [peak.num_bytes for (phase, _), peak in found.breakdowns.items() if phase not in
                 ("evaluation", "sampling")]
        assert max(steps) == pytest.approx(tracked(cfg), rel=2e-3)


def test_the_optimizer_and_the_average_are_told_from_the_rest():
    weights = predict(configured()).by_part["weights"]
    adamw = predict(configured({"train.optimizer": "adamw", "train.ema_decay": 0.9})).by_part
    assert adamw["optimizer"] == pytest.approx(2 * weights, rel=0.02)
    assert adamw["average"] == pytest.approx(weights, rel=0.02)
    assert predict(configured({"train.optimizer": "sgd", "train.momentum": 0.0})).by_part["optimizer"] < 0.02 * weights


def test_the_batches_that_wait_for_their_pass_count():
    few, many = (predict(configured({"train.accumulation": passes})) for passes in (3, 5_003))
    assert many.peak_bytes - few.peak_bytes == 5_000 * 2 * 8 * few.train.batch_size * 64  # inputs and targets, int64


def test_the_compiler_counts():
    plain, compiled = predict(configured()), predict(configured({"train.compile": True}))
    assert compiled.peak_bytes == plain.peak_bytes and compiled.low_bytes > plain.low_bytes + 60 * MB


@pytest.mark.slow
@pytest.mark.parametrize("changes", some([
    {"model.layers": ("local", "local", "global"), "model.num_layers": 10,
     "model.kinds": {"local": {"attention.window": 8}, "global": {}}}, {}, {"train.batch_size": 1},
    {"train.checkpoint_activations": True, "train.batch_size": 32}, {"model.layers": ("attention", "none")},
], 5), ids=str)
def test_many_layers_are_predicted_from_few(changes, monkeypatch):
    cfg = configured({"model.num_layers": 6} | changes)
    monkeypatch.setattr(prediction, "DEEP", 4)
    fast = predict(cfg)
    monkeypatch.setattr(prediction, "DEEP", 10)
    whole = predict(cfg)
    assert (fast.how, whole.how) == ("from two depths", "exact")
    assert fast.peak_bytes == pytest.approx(whole.peak_bytes, rel=1e-3) and fast.where == whole.where
    for part, num_bytes in whole.by_part.items():
        assert fast.by_part[part] == pytest.approx(num_bytes, rel=0.01, abs=10_000)


@pytest.mark.parametrize("changes", [{"model.residual": "attnres"}, {"model.stack": "unet"}], ids=str)
def test_layers_that_read_those_far_below_are_not_predicted_from_few(changes, monkeypatch):
    cfg = configured({"model.num_layers": 4, "train.optimizer": "sgd"} | changes)
    monkeypatch.setattr(prediction, "DEEP", 2)
    found = predict(cfg)
    monkeypatch.setattr(prediction, "DEEP", 4)
    assert found.peak_bytes == pytest.approx(predict(cfg).peak_bytes, rel=1e-3)


# ---- what a log sees that torch does otherwise while it looks ----


class Summing(torch.autograd.Function):
    """x; its gradient is a sum of tensors that others hold, and of some that no one holds. Shape: (n,) -> (n,)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.sin())
        return x.clone()

    @staticmethod
    def backward(ctx, of_y):
        (saved,) = ctx.saved_tensors
        return of_y * 2 + of_y + (saved + of_y) + (of_y + saved)


def some_loss() -> torch.Tensor:
    x = torch.randn(7, requires_grad=True) * 3
    y = x + x.sin()
    z = y + Summing.apply(y) + y.square() + Summing.apply(x)
    return z.sum() + z.exp().sum() + z.cos().sum()


def test_gradients_that_autograd_sums_in_place_are_no_new_tensors():
    with torch.profiler.profile() as profile:
        some_loss().backward()
    done = [event.name for event in profile.events()]

    class Noted(StorageLog):
        def run(self, function, args, kwargs):
            functions.append(str(function))
            return super().run(function, args, kwargs)

    functions = []
    with Noted():
        some_loss().backward()
    new, in_place = done.count("aten::add"), done.count("aten::add_")
    assert (functions.count("aten.add.Tensor"), functions.count("aten.add_.Tensor")) == (new, in_place)
    assert in_place > 4 and new > 8


def test_of_a_tensor_that_was_made_empty_the_pages_count_to_which_something_was_written():
    with StorageLog() as log:
        x = torch.empty(4, 2**16)
        assert log.alive_bytes == 0
        x[:, : 2**14] = 1.0
        assert log.alive_bytes == 4 * (2**16 + PAGE)
        x[:, : 2**14].sum()
        assert log.alive_bytes == 4 * (2**16 + PAGE) and sum(log.unwritten.values()) == 3 * 2**18 - 4 * PAGE
        x.zero_()
        assert log.alive_bytes == x.nbytes and not log.unwritten
        del x
        assert log.alive_bytes == 0


def test_room_in_a_cache_for_tokens_to_come_takes_no_memory_but_may_be_asked_for():
    cfg = configured({"model.max_seq_len": 512, "model.attention.num_heads": 4, "train.graded_stories": 100})
    found, texts = predict(cfg), 64  # at a time
    row = 4 * 512 * 16 // 2  # bytes of the later half of a head's keys or values
    assert found.unwritten_bytes == pytest.approx(2 * 2 * texts * 4 * (row - PAGE), rel=1e-3)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "limit_growth", lambda num_bytes: asked.append(num_bytes) or (lambda: None))
        for unwritten in (0, 5 * MB):
            room, kept = Room(rss_bytes() + 2**30, 0), SimpleNamespace(unwritten_bytes=unwritten)
            with budget.limited(SimpleNamespace(room=room, prediction=kept, device=torch.device("cpu"))):
                pass
    assert asked[1] - asked[0] == pytest.approx(5 * MB, abs=MB)


def test_groups_of_rows_of_many_sizes_have_programs_of_their_own_in_bfloat16():
    flags = {"model.mlp": "moe", "model.num_layers": 1, "model.hidden_dim": 32}
    full, half = (dry_run(configured(flags | {"train.precision": precision}), rows=2, num_texts=0)["step", ""]
                  for precision in ("float32", "bfloat16"))
    assert half.num_products - full.num_products > 3 * GROUP_SIZES


def test_copies_of_weights_count_while_texts_are_written(monkeypatch):
    cfg = configured({"model.dim": 256, "model.mlp": "glu", "model.hidden_dim": 512, "train.batch_size": 1})
    copied, real = (dry_run(cfg, rows=1, num_texts=3, fake=fake)["sampling", "texts"] for fake in (True, False))
    monkeypatch.setattr(dry, "MOST_PACKED", 0)
    without = dry_run(cfg, rows=1, num_texts=3)["sampling", "blocks.mlp"]
    joined = 2 * 4 * 256 * (3 * 256 + 2 * 512)  # bytes of queries, keys and values, and of the two maps of a GLU
    assert copied.num_bytes == real.num_bytes
    assert sums(copied)["activations"] > joined > 2 * sums(without)["activations"]


# ---- parts whose memory depends on data ----


class Experts(LoggingModule):
    """Each token goes to one of four MLPs, as its router says. Shape: (b, t, d) -> (b, t, d)."""

    def __init__(self, dim: int):
        super().__init__()
        self.router = nn.Linear(dim, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
                                     for _ in range(4))

    @classmethod
    def from_config(cls, cfg):
        return cls(cfg.dim)

    @log_io
    def forward(self, x):
        flat, weights = x.flatten(0, 1), self.router(x.flatten(0, 1)).softmax(-1)
        out, chosen = torch.zeros_like(flat), weights.argmax(-1)
        for number, expert in enumerate(self.experts):
            (tokens,) = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, tokens, expert(flat[tokens]) * weights[tokens, number, None])
        return out.view_as(x)


class Asks(Experts):
    """Doubles what it gets where a number of it is large."""

    def forward(self, x):
        return 2 * x if self.router(x).abs().max().item() > 3 else x * self.router(x).sum()


@pytest.mark.parametrize("part", [Experts, Asks])
def test_a_part_that_looks_at_its_data_is_predicted_from_a_trial(part, monkeypatch):
    monkeypatch.setitem(MLPS, "mlp", part)
    cfg = configured({"train.batch_size": 16})
    found = predict(cfg)
    assert found.how == "from a trial"
    real = dry_run(cfg, rows=16, num_texts=3, fake=False)
    assert found.peak_bytes == pytest.approx(max(peak.num_bytes for peak in real.values()), rel=0.03)


# ---- nothing is taken ----


def test_a_model_of_a_billion_parameters_is_predicted_in_little_memory():
    predict(configured())
    if not reset_peak_rss():
        pytest.skip("the peak of a process is read from /proc")
    before = rss_bytes()
    found = predict(override(load_preset("llama3"), {"model.num_layers": 4, "train.batch_size": 1}))
    assert found.peak_bytes > 30e9 and peak_rss_bytes() - before < 50 * MB


def test_predicting_moves_no_random_state():
    state = torch.get_rng_state()
    predict(configured())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_without_a_vocabulary_cannot_be_predicted():
    with pytest.raises(ValueError, match="^model.vocab_size=None: give a number"):
        predict(Config())


# ---- generation ----


@pytest.mark.parametrize(("kv_heads", "pointer"), [(4, False), (1, False), (2, True)])
def test_each_text_keeps_its_keys_and_values(kv_heads, pointer):
    model = small_config(dim=64, num_layers=3, max_seq_len=64, pointer=pointer, **{"attention.num_kv_heads": kv_heads})
    keys_and_values = 3 * 2 * kv_heads * 16 * 64 * 4
    copied = 64 * (64 * 4 + 8) if pointer else 0  # the pointer's keys, and the tokens
    positions = (3 + pointer) * 64 * 8
    assert sequence_bytes(Config(model=model)) == keys_and_values + copied + positions


def test_the_cache_of_a_text_has_no_size_if_its_tokens_decide_what_is_kept():
    kept = {"model.attention.window": 8, "model.attention.global_tokens": 2}
    assert sequence_bytes(configured(kept)) is None and sequence_bytes(configured()) > 0


# ---- what fits ----


@pytest.mark.thorough
def test_the_largest_that_fits_does_and_the_next_does_not():
    cfg, room = configured({"model.num_layers": 1}), Room(300 * MB, 100 * MB)
    rows = largest(cfg, "train.batch_size", 1, lambda found: room.allocator_for(found) is not None)
    assert room.allocator_for(predict(override(cfg, {"train.batch_size": rows}))) == "tight"
    assert room.allocator_for(predict(override(cfg, {"train.batch_size": rows + max(1, rows // 50)}))) is None
    assert largest(cfg, "train.batch_size", 1, lambda found: False) is None


@pytest.mark.thorough
def test_three_changes_that_make_a_run_fit_are_found_and_they_do(monkeypatch):
    monkeypatch.setattr(suggestions, "time", SimpleNamespace(monotonic=lambda: 0.0))  # or a busy machine finds fewer
    known = {}  # what is asked twice is predicted once
    monkeypatch.setattr(suggestions, "predict", lambda cfg, **rest: known.get(repr((cfg, rest))) or known.setdefault(
        repr((cfg, rest)), predict(cfg, **rest)))
    cfg = configured({"train.batch_size": 64, "model.num_layers": 3})
    room = Room(predict(cfg).low_bytes // 2, 0)
    assert room.allocator_for(predict(cfg)) is None
    found = list(cheaper(cfg, room))
    assert len(found) == 3 == len({str(changes) for changes, _ in found})
    for changes, predicted in found:
        again = predict(override(cfg, changes))
        assert room.allocator_for(again) is not None and again.low_bytes == predicted.low_bytes
    sentences = in_words(cfg, room)
    assert len(sentences) == 3 and all(word.startswith("--train.") for word in sentences)


def test_looking_for_what_fits_ends_soon_and_names_what_saves_most(monkeypatch):
    clock, cfg = [0.0], override(configured({"train.batch_size": 64}), {"train.graded_stories": 100})

    def slow(cfg: Config, **rest):
        clock[0] += 4  # seconds that a prediction takes
        return predict(cfg, **rest)

    room = Room(predict(cfg).low_bytes * 0.75, 0)
    monkeypatch.setattr(suggestions, "predict", slow)
    monkeypatch.setattr(suggestions, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert [list(changes) for changes, _ in cheaper(cfg, room)] == [[
        "train.batch_size", "train.accumulation", "train.loss_chunk", "train.checkpoint_activations"]]
    assert clock[0] == 8 and list(cheaper(cfg, Room(1, 0))) == [] and clock[0] == 16


@pytest.mark.parametrize("saved", [0, 80])
def test_logits_in_chunks_are_suggested_only_where_they_save(saved, monkeypatch):
    def taken(cfg: Config, **_):
        chunks, kept = cfg.train.loss_chunk is not None, cfg.train.checkpoint_activations
        held = 10 * cfg.train.batch_size + 90 - saved * chunks - 70 * kept
        return SimpleNamespace(low_bytes=held, high_bytes=held)

    monkeypatch.setattr(suggestions, "predict", taken)
    found = [changes for changes, _ in cheaper(configured({"train.batch_size": 8}), Room(100, 0))]
    assert len(found) == 3 and {"train.checkpoint_activations": True} in found
    assert ({"train.loss_chunk": 32} in found) == any("train.loss_chunk" in changes for changes in found) == bool(saved)


def test_a_device_that_is_not_here_is_predicted_with_its_blocks_and_workspace():
    cfg = configured({"train.optimizer": "adamw"})
    here, there = predict(cfg), predict(cfg, device="cuda")
    assert there.low_bytes == there.high_bytes > there.peak_bytes
    assert here.peak_bytes <= there.peak_bytes < 1.05 * here.peak_bytes  # blocks of 512 bytes, not 64


# ---- the command ----


@pytest.fixture
def command(monkeypatch, capfd):
    """`python memory.py ...` in this process: what it prints; it must end well, and complain of nothing."""
    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["memory.py", *words])
        memory.main()
        output, errors = capfd.readouterr()
        assert errors == ""
        return output

    return run


@pytest.mark.slow
def test_the_command_shows_the_parts_and_what_fits(command, monkeypatch):
    monkeypatch.setattr(memory, "trainer_baseline_bytes", lambda: 300 * MB)
    words = "gpt2", "--model.num-layers", "2", "--train.batch-size", "1", "--model.dim", "192"
    limit = "840MB"
    output = command(*words, "--limit", limit)
    assert "of which 300 MB are Python" in output
    for word in ("most is alive in", "weights", "blocks.mixer", "generation:",
                 f"does not fit into {spell_bytes(parse_bytes(limit))}", "it would with --train",
                 "largest train.batch_size that fits: none", "largest model.dim that fits: "):
        assert word in output


def test_what_an_optimizer_imports_is_told_with_the_run_and_not_with_python(monkeypatch):
    monkeypatch.setattr(memory, "trainer_baseline_bytes", lambda: 300 * MB)
    bases = [memory.base_bytes(SimpleNamespace(imported_bytes=number)) for number in (0, 19 * MB)]
    assert bases == [300 * MB, 281 * MB]
    monkeypatch.setattr(memory, "trainer_baseline_bytes", lambda: None)  # a system that does not tell
    assert memory.base_bytes(SimpleNamespace(imported_bytes=19 * MB)) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_program_tells_what_a_process_that_trains_holds():
    done = subprocess.run([sys.executable, memory.__file__, "--model.num-layers", "1"], text=True, capture_output=True,
                          check=True, env=heap.with_joined())
    told = int(re.search(r"of which (\d+) MB are Python", done.stdout)[1])
    assert abs(told * MB - child_baseline_bytes()) < 16 * MB


@pytest.mark.parametrize(("words", "sentence"), [
    (("--limit", "lots"), "error: --limit lots is not a size: use e.g. 800MB or 2GB\n"),
    (("--device", "tpu"), "error: --device tpu is not known: use cpu or cuda\n"),
])
def test_a_wrong_word_is_one_sentence(words, sentence, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["memory.py", *words])
    with pytest.raises(SystemExit, match="2"):
        memory.main()
    assert capfd.readouterr() == ("", sentence)


def test_each_of_several_processes_has_its_part_of_what_lasts():
    cfg = override(configured({"train.optimizer": "adamw", "train.ema_decay": 0.9}), {"train.batch_size": 8})
    alone, each = predict(override(cfg, {"train.batch_size": 2})), predict(
        override(cfg, {"train.shard": True}), processes=4)
    before, parts = (sums(found.breakdowns["optimizer", ""]) for found in (alone, each))
    for part in ("weights", "optimizer", "average"):
        assert parts[part] == pytest.approx(before[part] / 4, rel=0.01)
    weights = sums(alone.breakdowns["forward", "head"])["weights"]
    with torch.device("meta"):
        model = Model(cfg.model)
    blocks = [sum(p.nbytes for p in block.parameters()) for block in model.blocks]
    gathered = weights - sum(blocks) + 3 * max(blocks)
    assert sums(each.breakdowns["forward", "head"])["weights"] == pytest.approx(weights / 4 + gathered, rel=0.01)
    largest = max(p.nbytes for p in model.parameters())
    lasting = sum(before[part] for part in ("weights", "optimizer", "average"))
    assert each.checkpoint_bytes == pytest.approx(lasting / 4 + largest, rel=0.01)


def test_each_of_several_copies_keeps_its_gradients():
    cfg = override(configured({"train.optimizer": "adamw"}), {"train.batch_size": 8})
    alone, each = predict(override(cfg, {"train.batch_size": 2})), predict(cfg, processes=4)
    weights = sums(alone.breakdowns["evaluation", ""])["weights"]
    for where in (("forward", "head"), ("backward", "head"), ("optimizer", ""), ("sampling", "texts")):
        assert sums(each.breakdowns[where])["gradients"] == pytest.approx(weights, rel=0.01)
        kept = {**sums(each.breakdowns[where]), "gradients": 0}
        assert kept == {**sums(alone.breakdowns[where]), "gradients": 0}


def test_the_cards_for_a_run_are_told():
    cfg = override(load_preset("gpt2-xl"), {"train.batch_size": 8, "train.optimizer": "adamw"})
    found = dict(cards(cfg, predict(cfg, device="cuda")))
    assert list(found) == [1, 2, 4, 8] and found[8] < found[2] <= found[1]
    each = predict(override(cfg, {"train.shard": True}), device="cuda", processes=8)
    assert each.high_bytes < found[8] * 2**30
    with pytest.raises(ValueError, match=r"train\.batch_size=8 cannot be shared by 3 processes"):
        predict(cfg, processes=3)
