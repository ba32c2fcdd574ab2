"""The benchmark train: a training step of ours beside those of other libraries, of the same model."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import torch
import torch._dynamo
from rich.console import Console
from torch import Tensor, nn

from config import Config, TrainConfig, override
from configuration.command_line import print_line
from data import Batch
from experiments.benchmarks.beside import OURS, Book, Cell, counted, counted_alone, in_turns, require_some
from experiments.benchmarks.machine_limits import ADAMW_BYTES, copy_rate, in_words, matmul_rate
from experiments.benchmarks.peer_options import Train
from experiments.benchmarks.peers import Peer, Say, family_of, installed, peers_of, without_dropout
from memory_prediction.process import choose_allocator
from model import Model
from tools import pick_device, seed_everything
from training.flops import flops_per_token
from training.step import TrainState

RATE = 1e-6  # of learning, so that the weights stay near those that were drawn
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SAME = {"float32": 1e-4, "bfloat16": 0.05}  # how far logits may be from ours, of the largest


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
    require_some(options)
    device = pick_device(options.device)
    cells = {f"{setting}, {options.batch_size} rows, vocabulary {options.vocab_size}, {device.type}":
             (setting, configured(setting, options)) for setting in settings(options)}
    book = Book("train", cells, new=options.json, old=options.against, console=console)
    say = cache(partial(print_line, console))  # each sentence once
    libraries = installed(options.libraries, say)
    threads = torch.get_num_threads()
    if device.type == "cpu":
        choose_allocator("fast")
    try:
        for name, (setting, cfg) in cells.items():
            torch.set_num_threads(setting.threads)
            book.add(measure(name, setting, cfg, options.rounds, libraries, device, say))
    finally:
        torch.set_num_threads(threads)
    return not book.is_slower


def settings(options: Train) -> Iterator[Setting]:
    compiled = {"off": (False,), "on": (True,), "both": (False, True)}[options.compile]
    return map(Setting._make, product(options.presets, options.scales, options.precision, compiled, options.threads))


def configured(setting: Setting, options: Train) -> Config:
    cfg = without_dropout(setting.preset, setting.scale, vocab_size=options.vocab_size)
    return override(cfg, {"train": {"optimizer": "adamw", "precision": setting.precision, "compile": setting.compiled,
                                    "batch_size": options.batch_size}})


def measure(
    name: str, setting: Setting, cfg: Config, rounds: int, libraries: list[str], device: torch.device, say: Say,
) -> Cell:
    """A setting of ours and of the libraries that have the model."""
    torch._dynamo.reset()  # compiled code of other models counts against a limit
    seed_everything(0)
    ours, batch = Model(cfg.model).to(device), random_batch(cfg, device)
    state, tokens = TrainState(ours, cfg.train), batch.x.numel()
    steps: dict[str, Callable[[], object]] = {OURS: partial(state.step, [batch], number=1, lr=RATE, noise=[])}
    numbers = {OURS: ours.num_parameters()}
    for peer in peers_of(ours, family_of(setting.preset), libraries, say):
        steps[peer.name], numbers[peer.name] = PeerStep(peer, cfg.train, batch), peer.num_parameters
        require_same_logits(peer, ours, batch.x[:1], setting.precision)
    by = counted_alone(device, setting.threads)
    rate, copied = matmul_rate(ours, tokens, DTYPES[setting.precision], by, backward=True), copy_rate(device, by)
    return Cell(
        name=name, tokens=tokens, machine=in_words(rate, copied), parameters=numbers,
        limit=flops_per_token(cfg) * tokens / rate + ADAMW_BYTES * numbers[OURS] / copied,
        by=counted(device, setting.threads), times=in_turns(steps, rounds, device))


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
    return torch.optim.AdamW(groups, lr=RATE, betas=cfg.betas, eps=cfg.adam_eps, fused=True)


@torch.no_grad()
def require_same_logits(peer: Peer, ours: Model, tokens: Tensor, precision: str) -> None:
    """Raise ValueError if a model with our weights has other logits, and so is another model."""
    if not peer.has_our_weights:
        return
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        own, theirs = ours(tokens).float(), peer.logits(tokens).float()
    difference, largest = (own - theirs).abs().max().item(), own.abs().max().item()
    if not difference <= SAME[precision] * largest:
        raise ValueError(f"{peer.name} has our weights, and its logits differ by {difference:.2g} from ours, of which "
                         f"the largest is {largest:.2g}")
