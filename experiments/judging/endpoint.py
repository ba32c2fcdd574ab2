"""The judge's endpoint: a prompt in, a reply out, by the protocol of OpenAI's chat completions."""

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from experiments.judging.judge_options import JudgeOptions, Unreachable

BASE_URL = "https://api.openai.com/v1"
OVERHEAD = 64  # tokens at most that an endpoint adds around a prompt
MOST_TOKENS = 2**53  # that a reply may say it took
RETRIES = 4  # of a request, by the openai package: after 429, 5xx, a lost connection, a timeout; it waits in between


class Refused(ValueError):
    """The endpoint rejects the request for good."""


@dataclass(frozen=True)
class Reply:
    """The reply to a prompt, and its tokens; None = the endpoint did not report them."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None


class Endpoint:
    """A judge that several threads may ask. Raises ValueError if OPENAI_BASE_URL is not an address."""

    def __init__(self, options: JudgeOptions):
        self._options, self._client = options, None
        self.url = (os.environ.get("OPENAI_BASE_URL") or BASE_URL).rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"OPENAI_BASE_URL={self.url} is not an address: use e.g. http://localhost:8000/v1")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def connect(self) -> None:
        """Make ready to send. Raises ValueError if there is no key or no openai package."""
        try:
            import openai
        except ModuleNotFoundError:
            raise ValueError("judging needs the openai package: pip install openai") from None
        key = os.environ.get("OPENAI_API_KEY")
        if not key:
            raise ValueError(f"OPENAI_API_KEY is not set: set it to your key for {self.host}; if the server needs "
                             "none, to any word")
        from experiments.judging.deadline import Deadline

        self._client = openai.OpenAI(api_key=key, base_url=self.url, max_retries=RETRIES,
                                     timeout=self._options.timeout, http_client=Deadline(self._options.timeout))

    def request(self, prompt: str) -> dict[str, Any]:
        """The body of a request."""
        options = self._options
        request = {"model": options.judge_model, "messages": [{"role": "user", "content": prompt}],
                   options.limit_name: options.max_tokens}
        if options.judge_temperature is not None:
            request["temperature"] = options.judge_temperature
        if options.reply_format != "text":
            request["response_format"] = {"type": options.reply_format}
        return request

    def send(self, prompt: str) -> Reply:
        """Ask for a reply. Raises Refused or Unreachable with one sentence."""
        import openai

        try:
            return read_reply(self._client.chat.completions.create(**self.request(prompt)))
        except (openai.RateLimitError, openai.InternalServerError, openai.ConflictError) as error:
            raise Unreachable(f"{self.host} still says {error.status_code} after {RETRIES + 1} requests: "
                              f"{server_message(error)}") from None
        except openai.APIStatusError as error:
            raise Refused(f"{self.host} refuses judge_model={self._options.judge_model} with {error.status_code}: "
                          f"{server_message(error)}; check OPENAI_BASE_URL, OPENAI_API_KEY and the flags") from None
        except openai.APITimeoutError:
            raise Unreachable(f"{self.host} sent nothing within timeout={self._options.timeout:g} seconds, "
                              f"{RETRIES + 1} times, that was a whole reply") from None
        except openai.APIConnectionError as error:
            raise Unreachable(f"{self.host} cannot be reached ({error.__cause__ or error}): is OPENAI_BASE_URL right, "
                              "and the server up?") from None
        except (ValueError, RecursionError):  # a damaged body is asked for again
            return Reply("")


def server_message(error) -> str:
    """The server's message on an error, in one short line."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error.message).split())[:300]


def read_reply(completion) -> Reply:
    """The reply in a completion, which openai does not check; an empty one if it has none."""
    try:
        text = completion.choices[0].message.content
    except (AttributeError, LookupError, TypeError):
        return Reply("")
    usage = getattr(completion, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    counts = (n if isinstance(n, int) and 0 <= n < MOST_TOKENS else None for n in counts)
    return Reply(text if isinstance(text, str) else "", *counts)
