"""Which process trains which trial: no trial is given to two, and a dead process loses its trials.

A database (PostgreSQL, MySQL, SQLite) keeps Optuna's heartbeats, so several machines can share a study. A journal
belongs to one machine: each process holds a lock on a file, and the system releases it when the process dies.
"""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path

import optuna
from filelock import Timeout
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url

from experiments.searching.options import Options
from experiments.searching.queue import tell_lost
from experiments.searching.studies import lock_of


def claims_on(study: Study, options: Options) -> "Claims":
    """The claims of this process on the trials of a study."""
    if isinstance(study._storage, JournalStorage):
        return Locks(study, Path(options.settled_storage))
    return Heartbeats(study, make_url(options.storage))


class Claims:
    """What this process claims; while it asks for a trial it holds `asking`."""

    def __init__(self, study: Study, asking: contextlib.AbstractContextManager, **signature: str):
        self._study, self._asking = study, asking
        self._worker = {"host": socket.gethostname(), "pid": os.getpid()} | signature

    def ask(self) -> Trial:
        """Take the next trial."""
        with self._asking:
            trial = self._study.ask()
            self.beat([trial])
            trial.set_user_attr("worker", self._worker)
        return trial

    def beat(self, trials: Iterable[Trial | FrozenTrial]) -> None:
        """Tell the other processes that these trials are alive."""

    def fail_the_dead(self) -> None:
        """Fail the trials of dead processes."""

    def close(self) -> None:
        """Give up what is claimed."""


class Heartbeats(Claims):
    """Claims in a database: a trial without a heartbeat for long has failed, and waits to be retried."""

    def __init__(self, study: Study, url: URL):
        # SQLite locks no rows: it would give a waiting trial to two processes that ask at once
        on_disk = url.get_backend_name() == "sqlite" and url.database
        super().__init__(study, lock_of(Path(url.database), "asking") if on_disk else contextlib.nullcontext())
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self.beat(trial for trial in running if "worker" not in trial.user_attrs)  # without a first, none is stale

    def beat(self, trials: Iterable[Trial | FrozenTrial]) -> None:
        for trial in trials:
            self._study._storage.record_heartbeat(trial._trial_id)

    def fail_the_dead(self) -> None:
        optuna.storages.fail_stale_trials(self._study)


class Locks(Claims):
    """Claims in a journal: each trial names the lock that its process holds."""

    def __init__(self, study: Study, journal: Path):
        name = f"worker-{uuid.uuid4().hex}"
        super().__init__(study, lock_of(journal, "asking"), lock=name)
        self._journal, self._own = journal, lock_of(journal, name)
        with self._asking:
            self._own.acquire()

    def fail_the_dead(self) -> None:
        with self._asking:  # so that no running trial is seen before it names its lock
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self._is_held(trial.user_attrs.get("worker", {}).get("lock")):
                    tell_lost(self._study, trial, "the process that searched was killed")
            for left in Path(self._own.lock_file).parent.glob("worker-*"):  # also of those that died without a trial
                self._is_held(left.name)

    def _is_held(self, name: str | None) -> bool:
        if name is None or name == Path(self._own.lock_file).name:
            return name is not None
        lock = lock_of(self._journal, name)
        try:
            with lock.acquire(timeout=0):
                Path(lock.lock_file).unlink()
        except Timeout:
            return True
        return False

    def close(self) -> None:
        Path(self._own.lock_file).unlink(missing_ok=True)
        self._own.release()
