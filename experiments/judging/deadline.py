"""A client whose requests end in time and in bounded memory, however the server drips its reply, or goes on with it."""

import contextlib
from concurrent.futures import Future
from threading import Thread
from typing import Any

import httpx
import openai

MOST_BYTES = 1 << 22  # of a reply; a judge's is a few kilobytes, with all its thoughts hundreds


class Deadline(openai.DefaultHttpxClient):
    """Gives up a request after so many seconds in all; httpx itself counts from byte to byte.

    What a reply has beyond MOST_BYTES is not read, so that it cannot be parsed. A small compressed one could unfold to
    gigabytes: none is asked for, and none is unfolded.
    """

    def __init__(self, seconds: float):
        super().__init__(headers={"Accept-Encoding": "identity"})
        self._seconds = seconds

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """The response with its body. Raises httpx.ReadTimeout."""
        answer = Future()

        def work() -> None:
            try:
                with contextlib.closing(super(Deadline, self).send(request, **options | {"stream": True})) as response:
                    answer.set_result(beginning(response))
            except BaseException as error:
                answer.set_exception(error)

        Thread(target=work, daemon=True).start()  # whose connection may go on, but nobody waits for it
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no whole reply within {self._seconds:g} seconds", request=request) from None


def beginning(response: httpx.Response) -> httpx.Response:
    """The first MOST_BYTES of a streamed response as a response that is read."""
    body = bytearray()
    for block in response.iter_raw():
        body += block
        if len(body) >= MOST_BYTES:
            break
    headers = [(name, value) for name, value in response.headers.items()
               if name not in ("content-encoding", "content-length", "transfer-encoding")]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body[:MOST_BYTES]),
                          request=response.request)
