#!/usr/bin/env python3
"""Server-sent events: framing, what each chunk holds, agreement with whole answers, timing on the wire."""
import re
import socket
import time
import unittest

from harness import PATIENCE, STORYTELLER, Server, dummy, parse_events, read_until


class Stream(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(STORYTELLER, "--served-model-name", "storyteller")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def test_completion_stream_is_the_whole_in_pieces(self):
        for extra in ({}, {"stop": " and"}, {"stop": "ed th", "include_stop_str_in_output": True}, {"logprobs": 2},
                      {"echo": True}, {"echo": True, "logprobs": 1}, {"echo": True, "logprobs": 1, "max_tokens": 0},
                      {"return_token_ids": True}, {"n": 3}, {"prompt": ["Once", "The king", "A"]}):
            with self.subTest(extra=extra):
                body = {"prompt": "Once upon a time", "max_tokens": 30, "temperature": 0.9, "seed": 5, **extra}
                whole = self.server.complete(**body)
                status, events, _ = self.server.stream("/v1/completions",
                                                       {**body, "stream_options": {"include_usage": True}})
                self.assertEqual(status, 200)
                self.assertEqual(events[-1], "[DONE]")
                usage = events[-2]
                self.assertEqual((usage["choices"], usage["usage"]), ([], whole["usage"]))
                for e in events[:-2]:
                    self.assertEqual((e["object"], e["model"], len(e["choices"])), ("text_completion", "storyteller", 1))
                    self.assertIsNone(e["usage"])
                self.assertEqual(len({e["id"] for e in events[:-1]}), 1)
                for choice in whole["choices"]:
                    mine = [e["choices"][0] for e in events[:-2] if e["choices"][0]["index"] == choice["index"]]
                    self.assertEqual("".join(c["text"] for c in mine), choice["text"])
                    self.assertEqual([c["finish_reason"] for c in mine[:-1]], [None] * (len(mine) - 1))
                    self.assertEqual((mine[-1]["finish_reason"], mine[-1]["stop_reason"]),
                                     (choice["finish_reason"], choice["stop_reason"]))
                    if "logprobs" in extra:
                        for key, values in choice["logprobs"].items():
                            self.assertEqual(sum((c["logprobs"][key] for c in mine if c["logprobs"]), []), values)
                    if "return_token_ids" in extra:
                        self.assertEqual(sum((c["token_ids"] for c in mine), []), choice["token_ids"])
                        self.assertEqual(mine[0]["prompt_token_ids"], choice["prompt_token_ids"])
                if "n" not in extra and isinstance(body["prompt"], str):
                    # one chunk for each token, whether it shows text or not: clients count them
                    self.assertEqual(len(events) - 2, max(1, whole["usage"]["completion_tokens"]))

    def test_chat_stream(self):
        body = {"messages": [{"role": "user", "content": "Tell me a tale."}], "max_tokens": 12, "seed": 2,
                "logprobs": True, "top_logprobs": 2, "n": 2}
        _, whole = self.server.post("/v1/chat/completions", body)
        status, events, _ = self.server.stream("/v1/chat/completions", {
            **body, "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
        self.assertEqual(status, 200)
        self.assertEqual(events[-1], "[DONE]")
        self.assertEqual((events[-2]["choices"], events[-2]["usage"]), ([], whole["usage"]))
        for choice in whole["choices"]:
            mine = [e for e in events[:-2] if e["choices"][0]["index"] == choice["index"]]
            deltas = [e["choices"][0]["delta"] for e in mine]
            self.assertEqual(deltas[0]["role"], "assistant")
            self.assertTrue(deltas[0]["content"])  # the role comes with the first token, not before it
            self.assertFalse(any("role" in d for d in deltas[1:]))
            self.assertEqual("".join(d["content"] for d in deltas), choice["message"]["content"])
            self.assertEqual([e["usage"]["completion_tokens"] for e in mine], list(range(1, len(mine) + 1)))
            self.assertEqual(sum((e["choices"][0]["logprobs"]["content"] for e in mine), []),
                             choice["logprobs"]["content"])
            self.assertEqual(mine[-1]["choices"][0]["finish_reason"], choice["finish_reason"])
            self.assertEqual(mine[0]["object"], "chat.completion.chunk")

    def test_no_usage_unless_asked(self):
        _, events, _ = self.server.stream("/v1/completions", {"prompt": "x", "max_tokens": 2, "ignore_eos": True})
        self.assertEqual(len(events), 3)
        self.assertFalse(any("usage" in e for e in events[:-1]))

    def test_errors_come_before_the_stream(self):
        for body in ({"prompt": [5] * 5000}, {"prompt": "x", "max_tokens": 5000}, {"prompt": "x", "model": "y"},
                     {"prompt": "x", "top_p": 7}, {"prompt": ""}, {"prompt": [[1], [99999]]}):
            status, answer = self.server.post("/v1/completions", {**body, "stream": True})
            self.assertIn(status, (400, 404))
            self.assertIn("message", answer["error"])

    def test_framing_on_the_wire(self):
        with self.server.open("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                                       "max_tokens": 3, "stream": True, "ignore_eos": True}) as s:
            data = read_until(s, b"0\r\n\r\n")
        head, _, body = data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "))
        self.assertRegex(head, rb"(?i)content-type: text/event-stream")
        self.assertRegex(head, rb"(?i)transfer-encoding: chunked")
        text = b""
        while body:  # undo the chunked coding by hand
            size, _, body = body.partition(b"\r\n")
            n = int(size, 16)
            text += body[:n]
            self.assertEqual(body[n:n + 2], b"\r\n")
            body = body[n + 2:]
        events = parse_events(text.decode())
        self.assertEqual(len(events), 4)
        self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")

    def test_http_1_0(self):
        body = b'{"prompt": "x", "max_tokens": 2, "stream": true, "ignore_eos": true}'
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            s.sendall(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            data = read_until(s, b"never")
        head, _, rest = data.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head)
        self.assertEqual(len(parse_events(rest.decode())), 3)

    def test_keep_alive(self):
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            for stream in (True, False, True):
                body = b'{"prompt": "x", "max_tokens": 2, "stream": %s}' % str(stream).lower().encode()
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                data = read_until(s, b"0\r\n\r\n" if stream else b"kv_transfer_params\":null}")
                self.assertTrue(data.startswith(b"HTTP/1.1 200"), data)
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            data = read_until(s, b"\r\n\r\n")
            self.assertTrue(data.startswith(b"HTTP/1.1 200"), data)


class Timing(unittest.TestCase):
    def test_tokens_leave_at_once(self):
        """Each token is on the wire when it is made: no event waits for the next, and Nagle holds none back."""
        with Server(*dummy("slow")) as server:
            with server.open("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 40, "ignore_eos": True,
                                                 "stream": True}) as s:
                read_until(s, b"\r\n\r\n")
                arrivals, pieces = [], []
                while True:
                    piece = s.recv(65536)
                    arrivals.append(time.monotonic())
                    pieces.append(piece)
                    if b"[DONE]" in piece:
                        break
            events = len(re.findall(rb"data: \{", b"".join(pieces)))
            self.assertEqual(events, 40)
            self.assertGreater(len(pieces), 30)  # not in a few large writes
            gaps = sorted(b - a for a, b in zip(arrivals, arrivals[1:]))
            whole = time.monotonic()
            server.complete(prompt=[1, 2, 3], max_tokens=40, ignore_eos=True)
            per_token = (time.monotonic() - whole) / 40
            # a delayed acknowledgement would show as 40 ms on top
            self.assertLess(gaps[len(gaps) // 2], (3 * per_token + 0.02) * PATIENCE)


if __name__ == "__main__":
    unittest.main()
