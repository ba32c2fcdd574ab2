"""A server process that speaks the chat completions protocol on loopback, and fails as it is told to.

    POST /plan   {"faults": [...], "taste": "longer", "first" or "equal", "wait": seconds, "usage": bool}: begins anew
    GET /seen    {"requests": [bodies], "at_once": most under way at a time, "megabytes": of white space that were read}
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY, MODEL = "sesame", "owl-1"
ENDLESS = 300  # megabytes of white space
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}
BROKEN = {  # what a judge says that has not understood
    "prose": 'Here you are: {"assessment": "good", "better": "1"}',
    "fence": '```json\n{"assessment": "good", "better": "1"}\n```',
    "range": '{"assessment": "good", "grammar": 11, "creativity": 5, "consistency": 5, "age": "B"}',
    "empty": "",
    "deep": 100_000 * "[",
    "deep object": '{"assessment": "a", "better": ' + 100_000 * '{"a": ' + "1" + 100_000 * "}" + "}",
    "surrogate": '{"assessment": "\\ud800", "grammar": 7, "creativity": 5, "consistency": 5, "age": "B"}',
    "surrogate key": '{"\\udfff": 1, "better": "1"}',
    "digits": '{"assessment": "a", "better": ' + 10_000 * "1" + "}",
}


def grades(prompt: str) -> dict[str, Any]:
    """What this judge thinks: it goes by length."""
    text = prompt.split("***")[2].split("\n\nFirst think")[0]
    found = {"assessment": f"{len(text)} characters", "grammar": 1 + len(text) % 10, "creativity": 1 + len(text) % 7,
             "consistency": 10 - len(text) % 10, "age": "ABCDEF"[len(text) % 6]}
    return found | ({"plot": 1 + len(text) % 5} if '"plot"' in prompt else {})


def choice(prompt: str, taste: str) -> dict[str, Any]:
    first, second = (part.partition("***")[2] for part in prompt.split("What child ")[1:])
    first, second = first.strip(), second.split("\n\nReply")[0]
    longer = "equal" if len(first) == len(second) else "1" if len(first) > len(second) else "2"
    return {"assessment": taste, "better": {"longer": longer, "first": "1", "equal": "equal"}[taste]}


class Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plan: dict[str, Any] = {}
    seen: list[dict] = []
    under_way = at_once = megabytes = 0
    lock = threading.Lock()

    def log_message(self, *words) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, json.dumps({"requests": Judge.seen, "at_once": Judge.at_once, "megabytes": Judge.megabytes}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/plan":
            Judge.plan, Judge.seen, Judge.at_once, Judge.megabytes = body, [], 0, 0
            return self.send(200, "{}")
        with Judge.lock:
            Judge.seen.append(body)
            Judge.under_way += 1
            Judge.at_once = max(Judge.at_once, Judge.under_way)
            fault = Judge.plan["faults"].pop(0) if Judge.plan.get("faults") else None
        try:
            self.judge(body, fault)
        finally:
            with Judge.lock:
                Judge.under_way -= 1

    def judge(self, body: dict, fault: str | int | None) -> None:
        time.sleep(Judge.plan.get("wait", 0))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.fail(401, "that is not the key")
        if self.path != "/v1/chat/completions" or body["model"] != MODEL:
            return self.fail(404, f"there is no model {body['model']}")
        if isinstance(fault, int):
            return self.fail(fault, "not now")
        prompt = body["messages"][0]["content"]
        said = choice(prompt, Judge.plan.get("taste", "longer")) if "child 2" in prompt else grades(prompt)
        content = BROKEN.get(fault, json.dumps(said))
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}]}
        if Judge.plan.get("usage", True):
            answer["usage"] = USAGE
        if fault == "greedy":
            answer["usage"] = {"prompt_tokens": 10**4000, "completion_tokens": -5}
        text = {"garbage": "<html>busy</html>", "half": json.dumps(answer)[:60], "deep body": 100_000 * "[",
                "bytes": "\udcff", "endless": ""}.get(fault, json.dumps(answer))
        self.send(200, text, drip=0.1 if fault == "drip" else 0.0, more=ENDLESS if fault == "endless" else 0)

    def fail(self, status: int, message: str) -> None:
        self.send(status, json.dumps({"error": {"message": message, "type": "t", "code": None}}))

    def send(self, status: int, text: str, drip: float = 0.0, more: int = 0) -> None:
        """Send a text, byte by byte with a pause of `drip` seconds, and after it `more` megabytes of white space."""
        data = text.encode(errors="surrogateescape")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client did not wait
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data) + more * 10**6))
            if status >= 400:
                self.send_header("Retry-After-Ms", "5")
            self.end_headers()
            plan, places = Judge.plan, iter(range(len(data) if drip else 0))
            while (place := next(places, None)) is not None and Judge.plan is plan:
                self.wfile.write(data[place:place + 1])
                time.sleep(drip)
            self.wfile.write(b"" if drip else data)
            for _ in range(more):
                self.wfile.write(10**6 * b" ")
                Judge.megabytes += 1


class Server:
    """The process, seen from a test."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def plan(self, **plan: Any) -> None:
        request = urllib.request.Request(f"{self.url}/plan", json.dumps(plan).encode(), method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def seen(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/seen", timeout=30) as answer:
            return json.load(answer)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.seen()["requests"]


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """The server as a process of its own."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        print(server.server_address[1], flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()  # until the one who started it is gone
