"""The judge at its endpoint: one prompt in, one reply out, over the protocol of OpenAI's chat completions."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from corpora.files import digest
from experiments.judging.judge_options import JudgeOptions
from experiments.judging.reply_cache import ReplyCache

BASE_URL = "https://api.openai.com/v1"
OVERHEAD = 64  # tokens at most that an endpoint puts around a prompt
RETRIES = 4  # of a request, by the openai package: after 429, 5xx, a lost connection, a timeout; it waits in between


class Refused(ValueError):
    """The endpoint does not take the request, and never will."""


class Unreachable(Exception):
    """The endpoint gave no answer, however often it was asked."""


@dataclass(frozen=True)
class Reply:
    """What came back for a prompt, and the tokens it took; None = the endpoint did not say."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


class Endpoint:
    """A judge that many threads may ask; every reply is kept, so that none is paid for twice.

    Raises ValueError where OPENAI_BASE_URL is no address.
    """

    def __init__(self, options: JudgeOptions, notes: ReplyCache):
        self._options, self._notes, self._lock, self._client = options, notes, threading.Lock(), None
        self._url = (os.environ.get("OPENAI_BASE_URL") or BASE_URL).rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise ValueError(f"OPENAI_BASE_URL={self._url} is no address: use e.g. http://localhost:8000/v1")

    @property
    def host(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]

    def known(self, prompt: str, attempt: int) -> Reply | None:
        """What it replied before."""
        key = self._key(prompt, attempt)
        return Reply(**self._notes[key]) if key in self._notes else None

    def ask(self, prompt: str, attempt: int) -> Reply:
        """What it replies now. Raises Refused or Unreachable, with one sentence."""
        reply = self._send(prompt)
        self._notes[self._key(prompt, attempt)] = asdict(reply)
        return reply

    def require_key(self) -> None:
        """Raise ValueError where nothing can be asked: without a key, or without the openai package."""
        with self._lock:
            self._client = self._client or self._connect()

    def _connect(self):
        try:
            import openai
        except ModuleNotFoundError:
            raise ValueError("judging needs the openai package: pip install openai") from None
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ValueError(f"OPENAI_API_KEY is not set: set it to your key for {self.host}; where a server asks for "
                             "none, to any word")
        return openai.OpenAI(api_key=key, base_url=self._url, max_retries=RETRIES, timeout=self._options.timeout)

    def _key(self, prompt: str, attempt: int) -> str:
        return digest(self._url, self._request(prompt), attempt)

    def _request(self, prompt: str) -> dict:
        options = self._options
        request = {"model": options.judge_model, "messages": [{"role": "user", "content": prompt}],
                   options.limit_name: options.max_tokens}
        if options.judge_temperature is not None:
            request["temperature"] = options.judge_temperature
        if options.reply_format != "text":
            request["response_format"] = {"type": options.reply_format}
        return request

    def _send(self, prompt: str) -> Reply:
        import openai

        self.require_key()
        try:
            raw = self._client.chat.completions.with_raw_response.create(**self._request(prompt))
        except (openai.RateLimitError, openai.InternalServerError, openai.ConflictError) as error:
            raise Unreachable(f"{self.host} still says {error.status_code} after {RETRIES + 1} requests: "
                              f"{said(error)}") from None
        except openai.APIStatusError as error:
            raise Refused(f"{self.host} refuses judge_model={self._options.judge_model} with {error.status_code}: "
                          f"{said(error)}; look at OPENAI_BASE_URL, OPENAI_API_KEY and the flags") from None
        except openai.APITimeoutError:
            raise Unreachable(f"{self.host} sent nothing within timeout={self._options.timeout:g} seconds, "
                              f"{RETRIES + 1} times") from None
        except openai.APIConnectionError as error:
            raise Unreachable(f"{self.host} cannot be reached ({error.__cause__ or error}): is OPENAI_BASE_URL right, "
                              "and the server up?") from None
        return read_body(raw.http_response.text)


def said(error) -> str:
    """The server's own words on an error, in one short line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error.message).split())[:300]


def read_body(text: str) -> Reply:
    """The reply in a server's answer; empty where the answer is damaged, so that it is asked again."""
    try:
        body = json.loads(text)
        content = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return Reply("", None, None)
    usage = body.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    return Reply(content if isinstance(content, str) else "", *(n if isinstance(n, int) else None for n in counts))
