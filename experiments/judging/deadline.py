"""A client whose requests end in time, however the server drips its reply."""

from concurrent.futures import Future
from threading import Thread
from typing import Any

import httpx
import openai


class Deadline(openai.DefaultHttpxClient):
    """Gives up a request after so many seconds in all; httpx itself counts from byte to byte."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The response with its body. Raises httpx.ReadTimeout."""
        answer = Future()

        def work() -> None:
            try:
                answer.set_result(super(Deadline, self).send(request, **options))
            except BaseException as error:
                answer.set_exception(error)

        Thread(target=work, daemon=True).start()  # whose connection may go on, but nobody waits for it
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no whole reply within {self._seconds:g} seconds", request=request) from None
