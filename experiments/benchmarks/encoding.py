"""The `encode` benchmark: how fast a text is encoded beside the bare tokenizer library, and in how much memory."""

import sys
from pathlib import Path

if not __package__:  # run as a file, from whichever folder
    import _project  # noqa: F401

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sentencepiece
from rich.console import Console
from rich.table import Table

import tales
from config import DataConfig
from corpora.corpus import load_corpus
from corpora.encoder import grouped, num_cores
from corpora.shards import prepare
from tokenizer import load_tokenizer

SEPARATOR = "\n\n"
MEMORY_LIMIT = 500  # MB, over all processes


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Encode generated stories, each way in a process of its own; the text is not in memory anywhere.

    The bare library is SentencePiece, given the same groups of documents; reading the text does not count for it,
    and nothing is written. Ours counts everything, from the path of the text to the files on disk.
    """

    megabytes: int = 300  # of text
    tokenizer: str = "tales_4096"  # a SentencePiece tokenizer's folder, or a built one
    workers: tuple[int, ...] = (1, num_cores())  # processes of ours, threads of the library's
    repetitions: int = 1  # of each way, in turn; the fastest counts, and the largest memory

    def run(self, console: Console) -> bool:
        table = Table("", "at once", "tokens/s", "ours / library", "tokens/CPU s", "ours / library", "peak MB")
        peaks = []
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder, "text.txt")
            number = write_stories(text, self.megabytes * 10**6)
            console.print(f"{number:,} stories, {text.stat().st_size / 1e6:.0f} MB")
            for workers in dict.fromkeys(self.workers):
                runs = [(self.measure("bare", text, workers), self.measure("ours", text, workers))
                        for _ in range(self.repetitions)]
                bare, ours = (best(side) for side in zip(*runs, strict=True))
                peaks.append(ours["peak"])
                for way, result in (("library", bare), ("ours", ours)):
                    cells = []
                    for unit in ("seconds", "cpu"):
                        ratio = f"{bare[unit] / result[unit]:.2f}" if result is ours else ""
                        cells += [f"{result['tokens'] / result[unit]:,.0f}", ratio]
                    table.add_row(way, str(workers), *cells, f"{result['peak']:.0f}")
        console.print(table)
        return max(peaks) < MEMORY_LIMIT

    def measure(self, way: str, text: Path, workers: int) -> dict[str, float]:
        """Run one way in a process of its own, and add up what it and its own processes hold."""
        process = subprocess.Popen([sys.executable, __file__, way, text, self.tokenizer, str(workers)],
                                   stdout=subprocess.PIPE, text=True)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(memory, family(process.pid))))
            time.sleep(0.05)
        said, _ = process.communicate()
        if process.returncode:
            raise ValueError(f"tokenizer={self.tokenizer}: encoding failed, see above")
        return json.loads(said) | {"peak": peak / 1e6}


def best(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The fastest of each, and the largest memory."""
    pick = {"tokens": max, "seconds": min, "cpu": min, "peak": max}
    return {name: choose(run[name] for run in runs) for name, choose in pick.items()}


def write_stories(path: Path, num_bytes: int) -> int:
    """Fill a file with so many bytes of stories; return their number."""
    with path.open("w", encoding="utf-8") as file:
        for number, story in enumerate(tales.stories(0), 1):
            file.write(story.text + SEPARATOR)
            if file.tell() >= num_bytes:
                return number


def family(number: int) -> list[int]:
    """A process and all that it started, by their numbers; Linux."""
    try:
        children = [int(child) for task in Path(f"/proc/{number}/task").iterdir()
                    for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return []
    return [number, *(each for child in children for each in family(child))]


def memory(number: int) -> int:
    """Bytes that a process holds, its part of what it shares with others included."""
    try:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def encode_ours(text: str, tokenizer: str, workers: int) -> dict[str, float]:
    """Tokens, seconds and CPU seconds from the path of a text to its encoded files."""
    with tempfile.TemporaryDirectory() as cache:
        began, cpu_began = time.perf_counter(), time.process_time()
        corpus = load_corpus(DataConfig(name=text, separator=SEPARATOR, cache_dir=cache))
        [(train, _)], val = prepare(corpus, load_tokenizer(tokenizer), Path(cache), workers=workers)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began + sum(os.times()[2:4])
        num_tokens = train.num_tokens + val.num_tokens - 2 * (train.num_documents + val.num_documents)
    return {"tokens": num_tokens, "seconds": seconds, "cpu": cpu}


def encode_bare(text: str, tokenizer: str, workers: int) -> dict[str, float]:
    """Tokens, seconds and CPU seconds inside the library alone."""
    library = sentencepiece.SentencePieceProcessor(model_proto=load_tokenizer(tokenizer).model)
    num_tokens, seconds, cpu = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as cache:
        corpus = load_corpus(DataConfig(name=text, separator=SEPARATOR, cache_dir=cache))
        for texts in groups(corpus.chunks(), workers):
            began, cpu_began = time.perf_counter(), time.process_time()
            ids = library.encode(texts, num_threads=workers)
            seconds, cpu = seconds + time.perf_counter() - began, cpu + time.process_time() - cpu_began
            num_tokens += sum(map(len, ids))
    return {"tokens": num_tokens, "seconds": seconds, "cpu": cpu}


def groups(chunks: Iterator, workers: int) -> Iterator[list[str]]:
    """The texts of a group for each thread, in one list."""
    texts: list[str] = []
    for number, group in enumerate(grouped(chunks), 1):
        texts += [chunk.text for chunk in group]
        if number % workers == 0:
            yield texts
            texts = []
    if texts:
        yield texts


if __name__ == "__main__":
    way, text, tokenizer, workers = sys.argv[1:]
    print(json.dumps({"ours": encode_ours, "bare": encode_bare}[way](text, tokenizer, int(workers))))
