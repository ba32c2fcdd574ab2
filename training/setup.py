"""Prepare a run before its first step: text, tokenizer, settled flags, batches, schedule, model."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console

from config import TALES, Config, DataConfig, TokenizerConfig, override
from configuration.command_line import complain
from configuration.rules import check_run
from corpora.corpus import Corpus, load_corpus
from corpora.probe_rows import ProbeCorpus, ProbeRows, longer_rows
from corpora.rows import reasons
from corpora.shards import JoinedTokenFile, TokenFile, prepare
from data import Batch, Batches, NewBatches
from model import Model
from objective import Objective, batch_change
from optimizing.schedules import Schedule
from runs import Run
from tokenizer import BUILT_SIZES, Tokenizer, built_tokenizer, load_tokenizer, train_tokenizer
from tools import has_fast_bfloat16, pick_device, seed_everything
from training.evaluation import Evaluation, evaluate
from training.group import ALONE, Group, share
from training.step import TrainState
from training.transfer import begin_with_weights

TALES_SIZE, OTHER_SIZE = 4096, 2048  # of a vocabulary, if the flags set none


@dataclass
class Setup:
    """Everything a run needs except its model, which `make_state` makes."""

    cfg: Config  # settled: nothing in it depends on the text or the device any more
    device: torch.device
    corpus: Corpus
    tokenizer: Tokenizer
    train_parts: list[tuple[TokenFile, float]]
    val_part: TokenFile | JoinedTokenFile | ProbeRows
    longer_parts: dict[str, ProbeRows]  # validation rows longer than in training, by column of the log
    batches: Batches | NewBatches
    schedule: Schedule
    change: Callable[[Batch], Batch] | None  # what the objective does with batches beforehand
    group: Group

    def make_state(self, console: Console | None = None, *, resumed: bool = False) -> TrainState:
        """Make the model with weights drawn by the seed or from train.init_from, ready for the first step."""
        train = self.cfg.train
        import torch._dynamo  # 70 MB, which encoding does not need

        seed_everything(train.seed)
        torch._dynamo.reset()  # compiled code of other models counts against a limit
        model = Model(self.cfg.model, causal=train.facts.causal, checkpoint_activations=train.checkpoint_activations)
        if not (train.shard and self.group.size > 1):  # the whole of a sharded model may not fit there
            model = model.to(self.device)
        if train.init_from and not resumed:
            self.cfg = begin_with_weights(self.cfg, model, self.tokenizer, console or Console(quiet=True))
        return TrainState(model, train, self.group)

    def evaluate(self, objective: Objective, max_tokens: int | None = None, **options: Any) -> Evaluation:
        """Evaluate an objective on the validation part, or on at most `max_tokens` spread over it."""
        return evaluate(objective, self.val_part, self.tokenizer, self.own_batch_size, max_tokens,
                        packing=self.cfg.data.packing, group=self.group, **options)

    @property
    def own_batch_size(self) -> int:
        """The rows of a batch that this process takes."""
        return share(self.cfg.train.batch_size, self.group.size)

    def other_columns(self, objective: Objective) -> list[str]:
        """The columns of the log with what evaluate_others gives."""
        return [*self.longer_parts, *objective.other_scores()]

    def evaluate_others(self, objective: Objective, max_tokens: int | None = None) -> dict[str, float]:
        """The accuracy on longer rows than those of the training, and bits per byte by the objective's other scores.

        A batch has fewer of the longer rows, by the square of their length, so that they take no more memory.
        """
        seq_len, found = self.cfg.row_len, {}
        for column, part in self.longer_parts.items():
            longer = part.num_tokens // part.num_documents - 1
            rows = max(1, self.own_batch_size * seq_len**2 // longer**2)
            found[column] = evaluate(objective, part, self.tokenizer, rows, max_tokens, packing="pad",
                                     seq_len=longer, group=self.group).accuracy
        return found | {column: self.evaluate(objective, max_tokens, score=score, change=self.change).bits_per_byte
                        for column, score in objective.other_scores().items()}

    @property
    def final_eval_tokens(self) -> int | None:
        """The most tokens that the evaluation after the last step takes; None = all."""
        train = self.cfg.train
        if train.eval_tokens is None or train.final_eval_share is None:
            return None
        return max(train.eval_tokens, round(train.final_eval_share * self.schedule.tokens_before(train.steps)))

    def describe_data(self) -> dict[str, Any]:
        """What a run saves about its text: fingerprint, sizes, and its entropy in bits per byte if known."""
        corpus, val = self.corpus, self.val_part
        if isinstance(val, ProbeRows):
            return {"name": corpus.name, "fingerprint": corpus.fingerprint, "train_tokens": None, "train_bytes": None,
                    "val_tokens": val.num_tokens, "val_bytes": val.num_bytes, "val_documents": val.num_documents,
                    "val_tokens_per_byte": val.num_targets / val.num_bytes, "floor_bits_per_byte": None}
        files = [file for file, _ in self.train_parts]
        floor = None if val.bits is None else val.bits / val.num_bytes
        first = 0 if self.cfg.data.packing == "stream" else val.num_documents  # tokens that nothing precedes
        num_targets = val.num_tokens - (val.num_source_tokens or first)
        described = {"name": corpus.name, "fingerprint": corpus.fingerprint,
                     "train_tokens": sum(file.num_tokens for file in files),
                     "train_bytes": sum(file.num_bytes for file in files),
                     "train_documents": sum(file.num_documents for file in files), "val_tokens": val.num_tokens,
                     "val_bytes": val.num_bytes, "val_documents": val.num_documents,
                     "val_tokens_per_byte": num_targets / val.num_bytes, "floor_bits_per_byte": floor}
        sources = [{"name": source.name, "tokens": file.num_tokens, "share": weight}
                   for source, (file, weight) in zip(corpus.sources, self.train_parts, strict=True)]
        left_out = sum((Counter(file.left_out) for file in files), Counter())
        return (described | ({"sources": sources} if len(sources) > 1 else {})
                | ({"rows_left_out": dict(left_out)} if left_out else {}))


def prepare_run(
    cfg: Config, device: torch.device, *, run: Run | None = None, console: Console | None = None, group: Group = ALONE,
) -> Setup:
    """Read and encode the text, and settle every flag that depends on it or on the device.

    Of several processes each calls it, one after the first, which encodes.

    With `run`, uses the tokenizer of the run. Raises ValueError if its text has changed, or for impossible flags.
    """
    if run is not None and "imported" in run.data:
        raise ValueError(f"{run.name} was imported, without the state of its training: train a new run on a text of "
                         f"yours with --init-from {run.name}")
    check_run(cfg)
    corpus = load_corpus(cfg.data)
    with group.in_turns():
        if run is None:
            tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
        else:
            require_same_text(run, corpus)
            tokenizer = run.tokenizer()
        cfg = settle_precision(fit_vocabulary(cfg, tokenizer), device)
        train_parts, val_part = encoded_parts(cfg, corpus, tokenizer, console)
    longer_parts = {f"accuracy_{factor}x": longer_rows(corpus, cfg.row_len, factor)
                    for factor in cfg.data.probe.longer}
    change = batch_change(cfg.train, tokenizer)
    batches = make_batches(cfg, corpus, train_parts, change, group)
    cfg = settle_steps(cfg, batches.rows_per_epoch)
    schedule = Schedule(cfg, rows_per_epoch=batches.rows_per_epoch)
    return Setup(cfg, device, corpus, tokenizer, train_parts, val_part, longer_parts, batches, schedule, change,
                 group)


def encoded_parts(
    cfg: Config, corpus: Corpus, tokenizer: Tokenizer, console: Console | None = None,
) -> tuple[list[tuple[TokenFile, float]], TokenFile | JoinedTokenFile | ProbeRows]:
    """The parts of `prepare`; of a synthetic task no training part, for its rows are drawn when they are needed."""
    if isinstance(corpus, ProbeCorpus):
        return [], ProbeRows(corpus, cfg.row_len)
    train_parts, val_part = prepare(corpus, tokenizer, cfg.data.cache_path, workers=cfg.data.workers, console=console,
                                    max_pair_len=cfg.max_pair_len)
    for source, (file, _) in zip(corpus.sources, train_parts, strict=True):
        if file.left_out and console is not None:
            complain(f"data.name={source.name}{reasons(file.left_out)}")
    return train_parts, val_part


class Settler:
    """Settles configurations as `prepare_run` does, and encodes each text once; for programs that plan many runs."""

    def __init__(self):
        self._texts: dict[Any, tuple[Corpus, Tokenizer, list[tuple[TokenFile, float]]]] = {}

    def __call__(self, cfg: Config) -> Config:
        check_run(cfg)
        key = cfg.data, cfg.tokenizer, cfg.max_pair_len
        if key not in self._texts:
            corpus = load_corpus(cfg.data)
            tokenizer = choose_tokenizer(cfg.tokenizer, cfg.data, corpus)
            self._texts[key] = corpus, tokenizer, encoded_parts(cfg, corpus, tokenizer)[0]
        corpus, tokenizer, parts = self._texts[key]
        cfg = settle_precision(fit_vocabulary(cfg, tokenizer), pick_device(cfg.train.device))
        if cfg.train.tokens is None and cfg.train.epochs is None:
            return cfg
        return settle_steps(cfg, make_batches(cfg, corpus, parts).rows_per_epoch)


def make_batches(
    cfg: Config, corpus: Corpus, parts: list[tuple[TokenFile, float]], change: Callable[[Batch], Batch] | None = None,
    group: Group = ALONE,
) -> Batches | NewBatches:
    """The batches of a run, or what a process has of them, from the encoded parts of its text, or drawn."""
    options = {"batch_size": share(cfg.train.batch_size, group.size), "seq_len": cfg.row_len, "seed": cfg.train.seed,
               "rank": group.rank, "world_size": group.size}
    if isinstance(corpus, ProbeCorpus):
        return NewBatches(corpus, **options)
    return Batches(parts, packing=cfg.data.packing, change=change, **options)


def choose_tokenizer(cfg: TokenizerConfig, data: DataConfig, corpus: Corpus) -> Tokenizer:
    """The tokenizer of a synthetic task, a saved one, a built one, or one trained on the corpus, all whose characters
    it knows.
    """
    if isinstance(corpus, ProbeCorpus):
        return corpus.tokenizer
    if cfg.path is not None:
        return load_tokenizer(cfg.path)
    if cfg.kind in ("char", "byte"):
        return train_tokenizer(cfg.kind, corpus.train(), others=corpus.val())
    is_built_in = {*data.name} <= {*TALES}
    size = cfg.vocab_size or (TALES_SIZE if is_built_in and cfg.kind == "bpe" else OTHER_SIZE)
    if is_built_in and cfg.kind == "bpe" and size in BUILT_SIZES:
        return built_tokenizer(size)
    try:
        return train_tokenizer(cfg.kind, corpus.train(), size, others=corpus.val())
    except ValueError as error:
        raise ValueError(f"tokenizer.kind={cfg.kind}: {error}") from None


def fit_vocabulary(cfg: Config, tokenizer: Tokenizer) -> Config:
    """Set the model's vocabulary, and the end of a text for its n-grams, to the tokenizer's, unless flags set them.

    Raises ValueError if they set a smaller one.
    """
    size, more = cfg.model.vocab_size, cfg.train.facts.num_ids
    needed = tokenizer.vocab_size + more
    if size is not None and size < needed:
        beside = f", and the {more} that train.objective={cfg.train.objective} needs beside them" * bool(more)
        raise ValueError(f"model.vocab_size={size} is smaller than the tokenizer's {tokenizer.vocab_size}{beside}: "
                         "leave it out, or choose a smaller tokenizer")
    cfg = override(cfg, {"model.vocab_size": size or needed})
    unknown = cfg.model.engram.eos_id is None and any(kind.memory == "engram" for kind in cfg.model.by_kind.values())
    return override(cfg, {"model.engram.eos_id": tokenizer.eos_id}) if unknown else cfg


def settle_precision(cfg: Config, device: torch.device) -> Config:
    """Replace "auto" by what the device computes fast, so that the saved run has the actual precision."""
    if cfg.train.precision != "auto":
        return cfg
    return override(cfg, {"train.precision": "bfloat16" if has_fast_bfloat16(device) else "float32"})


def settle_steps(cfg: Config, rows_per_epoch: int) -> Config:
    """Convert train.tokens or train.epochs into steps, so that the saved run has their number."""
    train, tokens = cfg.train, cfg.train.tokens
    if train.epochs is not None:
        tokens = train.epochs * rows_per_epoch * cfg.row_len
    if tokens is None:
        return cfg
    steps = Schedule(cfg, rows_per_epoch=rows_per_epoch).steps_for(tokens)
    return override(cfg, {"train.steps": steps, "train.tokens": None, "train.epochs": None})


def require_same_text(run: Run, corpus: Corpus) -> None:
    """Raise ValueError if the text is not what the run began with."""
    if run.data.get("fingerprint") != corpus.fingerprint:
        raise ValueError(f"data.name={corpus.name} has changed since {run.name} began: put the text back as it was, "
                         "or train a new run on it")
