"""The judge's endpoint: a prompt in, a reply out, by the protocol of OpenAI's chat completions."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from corpora.files import digest
from experiments.judging.judge_options import JudgeOptions, Unreachable
from experiments.judging.reply_cache import ReplyCache

BASE_URL = "https://api.openai.com/v1"
OVERHEAD = 64  # tokens at most that an endpoint adds around a prompt
RETRIES = 4  # of a request, by the openai package: after 429, 5xx, a lost connection, a timeout; it waits in between


class Refused(ValueError):
    """The endpoint rejects the request for good."""


@dataclass(frozen=True)
class Reply:
    """The reply to a prompt, and its tokens; None = the endpoint did not report them."""

    text: str
    tokens_in: int | None
    tokens_out: int | None


class Endpoint:
    """A judge that several threads may ask; every reply is kept, so that none is paid for twice.

    Raises ValueError if OPENAI_BASE_URL is not an address.
    """

    def __init__(self, options: JudgeOptions, cache: ReplyCache):
        self._options, self._cache, self._lock, self._client = options, cache, threading.Lock(), None
        self._url = (os.environ.get("OPENAI_BASE_URL") or BASE_URL).rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise ValueError(f"OPENAI_BASE_URL={self._url} is not an address: use e.g. http://localhost:8000/v1")

    @property
    def host(self) -> str:
        return urlsplit(self._url).netloc.rpartition("@")[2]

    def known(self, prompt: str, attempt: int) -> Reply | None:
        """The kept reply, if there is one."""
        key = self._key(prompt, attempt)
        return Reply(**self._cache[key]) if key in self._cache else None

    def ask(self, prompt: str, attempt: int) -> Reply:
        """Ask for a reply and keep it. Raises Refused or Unreachable with one sentence."""
        reply = self._send(prompt)
        self._cache[self._key(prompt, attempt)] = asdict(reply)
        return reply

    def require_key(self) -> None:
        """Raise ValueError if there is no key or no openai package."""
        with self._lock:
            self._client = self._client or self._connect()

    def _connect(self):
        try:
            import openai
        except ModuleNotFoundError:
            raise ValueError("judging needs the openai package: pip install openai") from None
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ValueError(f"OPENAI_API_KEY is not set: set it to your key for {self.host}; if the server needs "
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
                              f"{server_message(error)}") from None
        except openai.APIStatusError as error:
            raise Refused(f"{self.host} refuses judge_model={self._options.judge_model} with {error.status_code}: "
                          f"{server_message(error)}; check OPENAI_BASE_URL, OPENAI_API_KEY and the flags") from None
        except openai.APITimeoutError:
            raise Unreachable(f"{self.host} sent nothing within timeout={self._options.timeout:g} seconds, "
                              f"{RETRIES + 1} times") from None
        except openai.APIConnectionError as error:
            raise Unreachable(f"{self.host} cannot be reached ({error.__cause__ or error}): is OPENAI_BASE_URL right, "
                              "and the server up?") from None
        return read_body(raw.http_response.text)


def server_message(error) -> str:
    """The server's message on an error, in one short line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error.message).split())[:300]


def read_body(text: str) -> Reply:
    """The reply in a response body; an empty one if the body is damaged, so that it is asked for again."""
    try:
        body = json.loads(text)
        content = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return Reply("", None, None)
    usage = body.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    return Reply(content if isinstance(content, str) else "", *(n if isinstance(n, int) else None for n in counts))
