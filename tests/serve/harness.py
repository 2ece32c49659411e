"""What the serve tests share: the real binary on a free port, requests over plain sockets, and the way SSE is read.

Standard library only. The binary is $OCTAVO (the build's), the models are models/storyteller and the dummy configs
beside this file.
"""
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OCTAVO = os.environ.get("OCTAVO", str(ROOT / "build" / "octavo"))
STORYTELLER = str(ROOT / "models" / "storyteller")
# A sanitized or emulated build takes its time; limits below are multiplied by this.
PATIENCE = float(os.environ.get("OCTAVO_TEST_PATIENCE", "1"))


def dummy(name):
    return [str(HERE / "models" / name), "--load-format", "dummy", "--skip-tokenizer-init"]


class Server:
    """octavo serve, started on a free port; a context manager that demands a clean end."""

    def __init__(self, *args, wait=True, env=None):
        self.log = tempfile.NamedTemporaryFile(mode="w+", prefix="octavo-serve-", suffix=".log")
        self.process = subprocess.Popen(
            [OCTAVO, "serve", "--port", "0", "--log-level", "debug", *args],
            stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})})
        self.port = int(self.wait_for(r"listening on http://\S+:(\d+)", 20))
        if wait:
            self.wait_for("ready at", 60)

    def text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_for(self, pattern, seconds, count=1):
        """Waits until the log has the pattern count times; returns the group of the first match."""
        end = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            found = list(re.finditer(pattern, self.text()))
            if len(found) >= count:
                return found[0].group(1) if found[0].groups() else found[0].group(0)
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.text()}")
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} within {seconds} s:\n{self.text()[-4000:]}")

    def stop(self, sig=signal.SIGTERM, seconds=20):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end:\n{self.text()[-4000:]}") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        code = self.stop()
        if kind is None and (code != 0 or "ERROR: " in self.text() or "runtime error" in self.text()):
            raise AssertionError(f"exit code {code}:\n{self.text()[-6000:]}")
        self.log.close()

    # ---- requests ----

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, bytes)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * PATIENCE)
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            c.request(method, path, body, headers or {"Content-Type": "application/json"})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def post(self, path, body, **kw):
        """(status, parsed JSON)"""
        status, _, data = self.request("POST", path, body, **kw)
        return status, json.loads(data)

    def get(self, path, **kw):
        status, _, data = self.request("GET", path, **kw)
        return status, json.loads(data) if data else None

    def complete(self, **body):
        status, answer = self.post("/v1/completions", body)
        assert status == 200, (status, answer)
        return answer

    def chat(self, content="Tell me a tale.", **body):
        status, answer = self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **body})
        assert status == 200, (status, answer)
        return answer

    def open(self, path, body):
        """Sends a POST and returns the raw socket, unread."""
        s = socket.create_connection(("127.0.0.1", self.port), timeout=60 * PATIENCE)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        s.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                  % (path.encode(), len(data), data))
        return s

    def stream(self, path, body):
        """(status, list of parsed events, raw body text): events end with the string "[DONE]"."""
        status, _, data = self.request("POST", path, {**body, "stream": True})
        text = data.decode()
        return status, parse_events(text), text


def parse_events(text):
    """Reads an SSE body strictly: every event is one data line or a comment, then an empty line."""
    assert text.endswith("\n\n"), text[-100:]
    events = []
    for block in text[:-2].split("\n\n"):
        if block.startswith(":"):
            continue
        assert block.startswith("data: ") and "\n" not in block, block
        data = block[len("data: "):]
        events.append(data if data == "[DONE]" else json.loads(data))
    return events


def read_until(sock, pattern, limit=1 << 20):
    data = b""
    while pattern not in data and len(data) < limit:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data
