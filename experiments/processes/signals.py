"""SIGINT and SIGTERM: noted when they come, obeyed when it does no harm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The command was told to stop; what is done is kept."""

    def __init__(self, number: int):
        self.number = number
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on")
        self.exit_status = 128 + number


class Signals:
    """Note the signals in the main thread; a second SIGINT raises KeyboardInterrupt at once."""

    def __init__(self):
        self._noted: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def raise_if_any(self) -> None:
        """Raise Stopped if a signal has come."""
        if self._noted is not None:
            raise Stopped(self._noted)

    def _note(self, number: int, _) -> None:
        if self._noted is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number
