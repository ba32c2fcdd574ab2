"""Run a command whose runs are kept in a bucket: fetched before it begins, sent after each checkpoint and at its end.

    python -m experiments.remote.synced s3://my-bucket/runs tales python train.py tales --resume-or-begin tales
    python -m experiments.remote.synced s3://my-bucket/runs 'tales-*'        no command: only fetch

The bucket is any address that fsspec knows: s3://, gs://, az:// with the packages s3fs, gcsfs, adlfs, or a folder. What
training reads and writes is on the local disk. A checkpoint in the bucket counts from the moment its SHA256SUMS are
there, which are sent last and removed first, and a run from the moment its config.json is. So whatever ends the command
at whatever moment, what is fetched can be read.
"""

from configuration import startup  # noqa: F401, before all that needs a package

# isort: split
import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from configuration.command_line import complain, warn
from experiments.common.program import one_sentence
from run_store.atomic_files import PRIVATE, SUMS
from run_store.listing import MODELS, run_folders, step_folders
from run_store.unfinished import private_folder, publish

SECONDS = 5.0  # between looks for a new checkpoint
PART = ".part"  # ends the name of a file that is being sent


class Bucket:
    """Runs in a bucket."""

    def __init__(self, address: str):
        self.files, self.root = opened(address)
        self._sent: dict[Path, tuple[int, int]] = {}  # size and time of files as they were sent

    def runs(self, pattern: str) -> list[str]:
        """The names of its runs that match a pattern."""
        self.files.invalidate_cache()
        return sorted(PurePosixPath(path).parent.name for path in self.files.glob(f"{self.root}/{pattern}/config.json"))

    def fetch(self, name: str, models: Path) -> None:
        """Write a run into a folder of runs, whole or not at all, without checkpoints that are not whole."""
        place = PurePosixPath(self.root, name)
        paths = [PurePosixPath(path).relative_to(place) for path in self.files.find(str(place))]
        whole = {path.parent for path in paths if path.name == SUMS}
        with private_folder(models / name) as folder:
            for path in paths:
                if path.suffix == PART or (path.parts[0] == "checkpoints" and path.parent not in whole):
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(str(place / path), str(folder / path))
            publish(folder, models / name)

    def send(self, run: Path) -> None:
        """Make the copy of a run like the run.

        The checkpoints are noted first, so that the log is never older, and the newest of them is sent first.
        """
        self.files.invalidate_cache()
        place, saved = PurePosixPath(self.root, run.name), step_folders(run)
        for file in files_of(run):
            self._send_small(file, place / file.relative_to(run).as_posix())
        for folder in reversed(saved):
            self._send_checkpoint(folder, place / "checkpoints" / folder.name)
        for old in self.files.glob(f"{place}/checkpoints/step_*"):
            if PurePosixPath(old).name not in [folder.name for folder in saved]:
                self._withdraw(PurePosixPath(old))
                self.files.rm(old, recursive=True)

    def _send_small(self, file: Path, place: PurePosixPath) -> None:
        """Replace a file atomically, unless it is as it was sent."""
        now = (file.stat().st_size, file.stat().st_mtime_ns)
        if self._sent.get(file) != now:
            self.files.put_file(str(file), f"{place}{PART}")
            self.files.mv(f"{place}{PART}", str(place))
            self._sent[file] = now

    def _send_checkpoint(self, folder: Path, place: PurePosixPath) -> None:
        """Send a checkpoint, which may have the name of another, unless it is there."""
        sums = (folder / SUMS).read_bytes()
        if self._sums(place) == sums:
            return
        self._withdraw(place)
        for file in folder.iterdir():
            if file.name != SUMS:
                self.files.put_file(str(file), str(place / file.name))
        self.files.pipe_file(str(place / SUMS), sums)

    def _sums(self, place: PurePosixPath) -> bytes | None:
        try:
            return self.files.cat_file(str(place / SUMS))
        except FileNotFoundError:
            return None

    def _withdraw(self, place: PurePosixPath) -> None:
        """Let a checkpoint count no more."""
        if self._sums(place) is not None:
            self.files.rm_file(str(place / SUMS))


def opened(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it. Raises ValueError if there is none."""
    try:
        files, root = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"bucket={address} cannot be opened: {error}") from None
    if isinstance(files, LocalFileSystem):
        files.auto_mkdir = True
    return files, root.rstrip("/")


def files_of(run: Path) -> Iterator[Path]:
    """The files of a run outside its checkpoints, config.json last."""
    files = [path for path in run.rglob("*") if path.is_file() and path.relative_to(run).parts[0] != "checkpoints"]
    yield from sorted((path for path in files if not PRIVATE.fullmatch(path.name)),
                      key=lambda path: path == run / "config.json")


class Kept:
    """The local runs that match a pattern, and their copies in a bucket."""

    def __init__(self, bucket: Bucket, pattern: str, models: Path):
        self._bucket, self._pattern, self._models = bucket, pattern, models
        self._sent: dict[Path, list[tuple[Path, int]]] = {}  # checkpoints as they were sent, with their times

    def fetch(self) -> None:
        """Fetch the runs that are not here. Raises ValueError if the bucket cannot be read."""
        try:
            for name in self._bucket.runs(self._pattern):
                if (self._models / name).exists():
                    print(f"{name} is here, and stays as it is", flush=True)
                else:
                    self._bucket.fetch(name, self._models)
                    print(f"{name} is fetched", flush=True)
        except Exception as error:  # each kind of bucket has errors of its own
            raise ValueError(f"bucket={self._bucket.root} cannot be read: {said(error)}") from error

    def send(self, *, all_of_it: bool = False) -> bool:
        """Send the runs that have a new checkpoint, or all; warn and return False if one could not be sent."""
        is_well = True
        for run in run_folders(self._models, [self._pattern]):
            try:
                saved = [(folder, (folder / SUMS).stat().st_mtime_ns) for folder in step_folders(run)]
                if all_of_it or saved != self._sent.get(run, []):
                    self._bucket.send(run)
                    self._sent[run] = saved
            except Exception as error:  # each kind of bucket has errors of its own
                is_well = False
                if (run / "config.json").exists():  # else it is deleted
                    warn(f"{run.name} could not be sent: {said(error)}")
        return is_well


def said(error: Exception) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split()) or type(error).__name__


def run(command: Sequence[str], kept: Kept) -> int:
    """Run a command, and send its runs meanwhile; its exit status, or 128 and the number of a signal that ended it.

    SIGTERM is passed on to the command. Ctrl-C reaches it from the terminal.
    """
    heard: list[int] = []
    begun: list[subprocess.Popen] = []

    def hear(number: int, _) -> None:
        heard.append(number)
        for process in begun if number == signal.SIGTERM else ():
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hear)
    begun.append(process := subprocess.Popen(command))
    if signal.SIGTERM in heard:  # while it began
        process.send_signal(signal.SIGTERM)
    while True:
        try:
            status = process.wait(SECONDS)
            break
        except subprocess.TimeoutExpired:
            kept.send()
    if not kept.send(all_of_it=True):
        complain("error: what the command left is here and not in the bucket")
        status = status or 1
    if status and heard:  # torchrun tells 1 of any end
        return 128 + heard[0]
    return status if status >= 0 else 128 - status


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.remote.synced", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-send", action="store_true",
                        help="fetch nothing: for a study in a database, which needs no runs to go on")
    parser.add_argument("bucket", help="where the runs are kept")
    parser.add_argument("runs", help="the name of a run, or a pattern of names")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what trains them; none = only fetch")
    return parser.parse_args(words)


def main() -> None:
    options = parse(sys.argv[1:])
    with one_sentence():
        kept = Kept(Bucket(options.bucket), options.runs, MODELS)
        if not options.only_send:
            kept.fetch()
        if options.command:
            raise SystemExit(run(options.command, kept))


if __name__ == "__main__":
    main()
