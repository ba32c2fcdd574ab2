"""The benchmark train: a training step of ours beside those of other libraries, of the same model."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import torch._dynamo
from rich.console import Console
from torch import Tensor, nn

from config import Config, TrainConfig, override
from data import Batch
from experiments.benchmarks.beside import OURS, Book, Cell, clock_that_counts, counted, in_turns
from experiments.benchmarks.machine_limits import ADAMW_BYTES, copy_rate, in_words, matmul_rate
from experiments.benchmarks.peer_options import Train
from experiments.benchmarks.peers import Peer, family_of, installed, peers_of, without_dropout
from memory_prediction.process import choose_allocator
from model import Model
from tools import pick_device, seed_everything
from training.flops import flops_per_token
from training.step import TrainState

RATE = 1e-6  # of learning, so that the weights stay near those that were drawn
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SAME = {"float32": 1e-4, "bfloat16": 3e-3}  # how far a loss may be from ours, of ours


class Setting(NamedTuple):
    """A cell of the benchmark."""

    preset: str
    scale: str
    precision: str
    compiled: bool
    threads: int

    def __str__(self) -> str:
        return (f"{self.preset} {self.scale}, {self.precision}, {'compiled' if self.compiled else 'eager'}, "
                f"{self.threads} thread{'s' * (self.threads > 1)}")


def run(options: Train, console: Console) -> bool:
    """Measure all settings; whether none is slower than in the earlier file."""
    device = pick_device(options.device)
    wanted = list(settings(options))
    for preset in options.presets:
        family_of(preset)
    names = [f"{setting}, {options.batch_size} rows, vocabulary {options.vocab_size}" for setting in wanted]
    book = Book("train", names, new=options.json, old=options.against, console=console)
    libraries = installed(options.libraries, console.print)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        choose_allocator("fast")
    try:
        for name, setting in zip(names, wanted, strict=True):
            torch.set_num_threads(setting.threads)
            book.add(measure(name, setting, options, libraries, device, console))
    finally:
        torch.set_num_threads(threads)
    return not book.is_slower


def settings(options: Train) -> Iterator[Setting]:
    compiled = {"off": (False,), "on": (True,), "both": (False, True)}[options.compile]
    return map(Setting._make, product(options.presets, options.scales, options.precision, compiled, options.threads))


def measure(
    name: str, setting: Setting, options: Train, libraries: list[str], device: torch.device, console: Console,
) -> Cell:
    """A setting of ours and of the libraries that have the model."""
    cfg = configured(setting, options)
    torch._dynamo.reset()  # compiled code of other models counts against a limit
    seed_everything(0)
    ours, batch = Model(cfg.model).to(device), random_batch(cfg, device)
    steps: dict[str, Callable[[], object]] = {}
    numbers = {OURS: ours.num_parameters()}
    state = TrainState(ours, cfg.train)
    for peer in peers_of(ours, family_of(setting.preset), libraries, console.print):
        steps[peer.name], numbers[peer.name] = PeerStep(peer, cfg.train, batch), peer.num_parameters
        require_same_loss(peer, state, steps[peer.name], batch, SAME[setting.precision])
    steps = {OURS: partial(state.step, [batch], number=1, lr=RATE, noise=[])} | steps
    times = in_turns(steps, options.rounds, device)
    clock = clock_that_counts(device, setting.threads)
    rate = matmul_rate(ours, batch.x.numel(), DTYPES[setting.precision], clock, backward=True)
    copied = copy_rate(device, clock)
    limit = flops_per_token(cfg) * batch.x.numel() / rate + ADAMW_BYTES * numbers[OURS] / copied
    return Cell(name=name, tokens=batch.x.numel(), limit=limit, machine=in_words(rate, copied), parameters=numbers,
                by=counted(device, setting.threads), times=times)


def configured(setting: Setting, options: Train) -> Config:
    cfg = without_dropout(setting.preset, setting.scale, vocab_size=options.vocab_size)
    return override(cfg, {"train": {"optimizer": "adamw", "precision": setting.precision, "compile": setting.compiled,
                                    "batch_size": options.batch_size}})


def random_batch(cfg: Config, device: torch.device) -> Batch:
    """Rows of random tokens; speed does not depend on what they say."""
    tokens = torch.randint(cfg.model.vocab_size, (cfg.train.batch_size, cfg.row_len + 1))
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    return Batch(x, y, None, y.numel()).to(device)


class PeerStep:
    """A training step of another library's model, as a loop in plain torch takes it."""

    def __init__(self, peer: Peer, cfg: TrainConfig, batch: Batch):
        self.model, self.batch, self.limit = peer.model.train(), batch, cfg.grad_clip
        self.optimizer = fused_adamw(peer.model, cfg)
        self.precision = torch.autocast(batch.x.device.type, torch.bfloat16, enabled=cfg.precision == "bfloat16")
        self.logits = peer.logits
        self.loss = torch.compile(self.loss_of) if cfg.compile else self.loss_of

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.logits(x).flatten(0, 1), y.flatten())

    def __call__(self) -> None:
        with self.precision:
            loss = self.loss(self.batch.x, self.batch.y)
        loss.backward()
        if self.limit is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.limit)
        self.optimizer.step()
        self.optimizer.zero_grad()


def fused_adamw(model: nn.Module, cfg: TrainConfig) -> torch.optim.AdamW:
    """As ours: vectors are not decayed."""
    matrices, vectors = ([p for p in model.parameters() if (p.dim() > 1) is wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": cfg.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE, betas=(cfg.beta1, cfg.beta2), eps=cfg.adam_eps, fused=True)


def require_same_loss(peer: Peer, state: TrainState, step: PeerStep, batch: Batch, allowed: float) -> None:
    """Raise ValueError if a model with our weights has another loss, and so is another model."""
    if not peer.has_our_weights:
        return
    with torch.no_grad(), state.precision:
        ours, theirs = state.objective(batch).total.item(), step.loss_of(batch.x, batch.y).item()
    if not abs(ours - theirs) <= allowed * ours:
        raise ValueError(f"{peer.name} has our weights and the loss {theirs:.5f}, and ours is {ours:.5f}")
