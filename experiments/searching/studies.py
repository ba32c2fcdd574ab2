"""A study and its storage: open it, share it between processes, and go on only with the same question."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from config import diff, from_dict, to_dict
from experiments.common.program import without_password
from experiments.searching.options import Options
from experiments.searching.space import Space, plain
from runs import MODELS

OPENINGS = 6  # of a database, before the search gives up
RACES = (StorageInternalError, IntegrityError)  # two processes set the same attribute at once
HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 120  # a trial without a heartbeat for so long has failed
LIVES = 3  # of a configuration: it is given up when so many processes have died with it

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used with Study.optimize")  # claims.py beats
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=LIVES - 1)


def open_storage(options: Options) -> BaseStorage:
    """The study's journal, or a database. Raises ValueError if it cannot be opened."""
    where = options.settled_storage
    if "://" not in where:
        return _open_journal(Path(where))
    for attempt in range(OPENINGS):
        try:
            return _open_database(where)
        except (SQLAlchemyError, StorageInternalError) as error:  # or another process was making the same tables
            problem = error
            time.sleep(0.1 * attempt)
    raise ValueError(without_password(f"storage={where} cannot be opened: {' '.join(str(problem).split())}"))


def _open_database(url: str) -> RDBStorage:
    arguments = {"timeout": 100} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": arguments, "pool_pre_ping": True},
                          heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS,
                          heartbeat_stale_trial_callback=RETRY)
    except ImportError as error:
        raise ValueError(without_password(f"storage={url} needs a package: {error}")) from None


def _open_journal(path: Path) -> JournalStorage:
    try:
        lock = lock_of(path)
        with lock, path.open("ab+") as file:  # a power cut may have left half a line, which nobody can read
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise ValueError(f"storage={path} cannot be opened: {error.strerror}") from None


def lock_of(file: Path, name: str = "file") -> FileLock:
    """A lock that belongs to a file; the system releases it when its holder dies.

    Not beside the file: optuna-dashboard locks a journal by a link of the name journal.log.lock.
    """
    folder = file.with_name(f"{file.name}.locks")
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / name, poll_interval=0.01)


def open_study(options: Options, space: Space, limit_bytes: int, baseline_bytes: int | None) -> optuna.Study:
    """Begin the study, or go on with it, even while other processes do.

    Raises ValueError if it was begun with another base, space, objective or limit.
    """
    storage = open_storage(options)
    names = optuna.get_all_study_names(storage)
    if options.name not in names and (taken := sorted(MODELS.glob(f"{options.name}-[0-9][0-9][0-9][0-9]*"))):
        raise ValueError(f"study={options.name} would name its runs like {taken[0].name}, which is there: choose "
                         f"another --study, or delete {taken[0].parent / options.name}-*")
    study = optuna.create_study(storage=storage, study_name=options.name, directions=options.directions,
                                load_if_exists=True)
    objectives = [{"column": column, "direction": direction}
                  for column, direction in zip(options.objective, options.directions, strict=True)]
    question = {"base": to_dict(space.base), "space": plain(space.plain), "objectives": objectives,
                "limit_bytes": limit_bytes, "baseline_bytes": baseline_bytes}
    for key in question.keys() - study.user_attrs.keys():
        with contextlib.suppress(*RACES):
            study.set_user_attr(key, question[key])
    if study.metric_names is None:
        with contextlib.suppress(*RACES):
            study.set_metric_names(list(options.objective))  # for optuna-dashboard
    if difference := _difference(question | study.user_attrs, question, options):
        raise ValueError(f"study={options.name} was begun with another {difference}: choose another --study")
    return study


def _difference(begun: dict[str, Any], now: dict[str, Any], options: Options) -> str:
    """How the question of a study differs from that of this search, in words; "" = it does not."""
    if changed := diff(from_dict(begun["base"]), from_dict(now["base"])):
        return ", ".join(f"{flag}={old} (now {new})" for flag, (old, new) in changed.items())
    if begun["space"] != now["space"]:
        return "space"
    if begun["objectives"] != now["objectives"]:
        return f"objective, {begun['objectives']} (now {now['objectives']})"
    if options.limit_bytes not in (None, begun["limit_bytes"]):
        return f"ram_limit, {begun['limit_bytes']} (now {options.limit_bytes})"
    return ""


def note(trial: Trial, **attributes: Any) -> None:
    """Write attributes of a trial, in this order."""
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


@contextlib.contextmanager
def unless_revoked() -> Iterator[None]:
    """As a decorator: the function does nothing, and returns None, if another process has failed its trial."""
    with contextlib.suppress(UpdateFinishedTrialError):
        yield
