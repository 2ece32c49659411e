#!/usr/bin/env python3
"""Clients that leave, dally, flood or send rubbish; loading, draining, aborting. After each the server still serves."""
import json
import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from harness import OCTAVO, PATIENCE, STORYTELLER, Server, dummy, read_until

LONG = [i % 500 for i in range(12000)]  # seconds of prefill for the slow model


def reset(sock):
    """Closes with a RST, as a killed process may."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock):
    """Says that nothing more comes, and goes."""
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


class Leaving(unittest.TestCase):
    """A client that leaves stops its request wherever it is: seen by the log, and by how soon others are served."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*dummy("slow"), "--max-num-seqs", "2", "--max-num-batched-tokens", "64")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def check_free(self, left):
        """left clients have gone so far; a small request is served at once, so nothing of theirs still runs."""
        self.server.wait_for("client left, stopping", 5, count=left)
        start = time.monotonic()
        self.server.complete(prompt=[1, 2], max_tokens=2)
        self.assertLess(time.monotonic() - start, 1.5 * PATIENCE)

    def test_leaving(self):
        decode = {"prompt": [1, 2, 3], "max_tokens": 15000, "ignore_eos": True}
        left = 0
        for stream in (False, True):
            for close in (socket.socket.close, reset, half_close):
                # prefilling
                s = self.server.open("/v1/completions", {"prompt": LONG, "max_tokens": 5, "stream": stream})
                time.sleep(0.3)
                close(s)
                left += 1
                self.check_free(left)
                # decoding
                s = self.server.open("/v1/completions", {**decode, "stream": stream})
                if stream:
                    read_until(s, b"data: ")
                time.sleep(0.3)
                close(s)
                left += 1
                self.check_free(left)
        # queued: two others run, and go on
        runners = [self.server.open("/v1/completions", {**decode, "max_tokens": 150, "stream": True}) for _ in range(2)]
        for r in runners:
            read_until(r, b"data: ")
        waiting = self.server.open("/v1/completions", decode)
        time.sleep(0.2)
        waiting.close()
        left += 1
        self.server.wait_for("client left, stopping", 5, count=left)
        for r in runners:
            data = read_until(r, b"[DONE]")
            self.assertIn(b'"finish_reason":"length"', data)
            r.close()
        self.check_free(left)
        # a list of prompts goes as one
        s = self.server.open("/v1/completions", {**decode, "prompt": [[1], [2], [3], [4]], "n": 3})
        time.sleep(0.3)
        s.close()
        self.check_free(left + 1)


class Rubbish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(STORYTELLER, "--client-timeout", "2", "--keep-alive", "3", "--max-connections", "40")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def tearDown(self):
        self.server.complete(prompt="x", max_tokens=1)  # still there

    def raw(self, data, timeout=10):
        """What comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout * PATIENCE) as s:
            try:
                s.sendall(data)
                return read_until(s, b"\0never\0")
            except ConnectionError:
                return b""

    def assert_refused(self, body, status=400, path="/v1/completions", text=None):
        got, answer = self.server.post(path, body)
        self.assertEqual(got, status, answer)
        self.assertEqual(answer["error"]["code"], status)
        if text:
            self.assertIn(text, answer["error"]["message"])

    def test_bodies(self):
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            for body in (b"", b"{", b"[]", b"3", b'"x"', b"null", b"{}x", b'{"prompt": }', b"\xff\xfe{\x00}\x00",
                         b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\\ud800"}',
                         b'{"\\u0000": 1}', b'{"prompt": "x", "add_special_tokens": 123456789012345678901234567890}',
                         b'{"prompt": "x", "temperature": 1e999}', b'{"prompt": "x", "temperature": NaN}',
                         b'{"prompt": "x", "temperature": Infinity}', b"{" * 1000, b'{"a":' * 300 + b"1" + b"}" * 300):
                with self.subTest(path=path, body=body[:40]):
                    self.assert_refused(body, path=path)

    def test_deep_json(self):
        for n in (257, 10000, 1000000):
            self.assert_refused(b'{"prompt": ' + b"[" * n + b"]" * n + b"}", text="nested")
        self.assert_refused(b'{"prompt": "' + b"[" * 10000 + b'", "top_p": 3}')  # brackets in a string are no nesting

    def test_many_values(self):
        self.assert_refused(b'{"prompt": "x", "junk": [' + b"[]," * 300000 + b"1]}", text="too many")
        self.assert_refused(b'{"prompt": "x", "junk": [' + b"1," * 5000000 + b"1]}", text="too many")

    def test_large_body(self):
        size = 200 << 20
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            piece = b"x" * (1 << 20)
            for _ in range(size >> 20):
                s.sendall(piece)
            data = read_until(s, b'"code":413')
        self.assertTrue(data.startswith(b"HTTP/1.1 413"), data[:100])
        self.assertIn(b'{"error":{"message":"Request body too large', data)
        self.assertLess(time.monotonic() - start, 30 * PATIENCE)
        # chunked: the length is not known beforehand
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as s:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(40):
                s.sendall(b"100000\r\n" + piece + b"\r\n")
            s.sendall(b"0\r\n\r\n")
            self.assertTrue(read_until(s, b'"code":413').startswith(b"HTTP/1.1 413"))
            # and the connection is still good
            s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(read_until(s, b"\r\n\r\n").startswith(b"HTTP/1.1 200"))

    def test_expect_continue(self):
        body = b'{"prompt": "x", "max_tokens": 1}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as s:
            s.sendall(head % len(body))
            self.assertTrue(read_until(s, b"\r\n\r\n").startswith(b"HTTP/1.1 100"))
            s.sendall(body)
            self.assertTrue(read_until(s, b"}}").startswith(b"HTTP/1.1 200"))
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as s:
            s.sendall(head % (1 << 40))  # told before it sends anything
            self.assertTrue(read_until(s, b'"code":413').startswith(b"HTTP/1.1 413"))

    def test_rubbish_on_the_wire(self):
        rng = random.Random(1)
        for data in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
                     b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 100000 + b"\r\n",
                     b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 1000000 + b"\r\n\r\n",
                     b"GET /%00%0a%1b[31m HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                     bytes(rng.randrange(256) for _ in range(5000)), b"\0" * 5000):
            with self.subTest(data=data[:50]):
                answer = self.raw(data)
                self.assertFalse(answer.startswith(b"HTTP/1.1 200"), answer[:200])

    def test_log_is_clean(self):
        self.raw(b'GET /a%0aINJECTED%1b[31m"\xc2\x9b?key=secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        line = [x for x in self.server.text().splitlines() if "INJECTED" in x]
        self.assertEqual(len(line), 1, line)
        self.assertTrue(line[0].isascii() and line[0].isprintable(), line)
        self.assertNotIn("secret", line[0])

    def test_slow_senders(self):
        """Clients that send, but hardly: their time for a request is bounded, head and body."""
        def drip(data, results, i):
            s = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
            start = time.monotonic()
            try:
                for b in data:
                    s.send(bytes([b]))
                    time.sleep(0.3)
                    s.setblocking(False)
                    try:
                        if s.recv(1000) == b"":
                            break
                    except BlockingIOError:
                        pass
                    s.setblocking(True)
            except ConnectionError:
                pass
            results[i] = time.monotonic() - start
            s.close()
        attacks = [b"GET /health HTTP/1.1\r\nX-A: " + b"a" * 1000,
                   b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1000, b"G" * 1000]
        results = [None] * len(attacks)
        threads = [threading.Thread(target=drip, args=(a, results, i)) for i, a in enumerate(attacks)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for r in results:
            self.assertLess(r, 9 * PATIENCE)
        # a connection that never says anything
        start = time.monotonic()
        self.assertEqual(self.raw(b""), b"")
        self.assertLess(time.monotonic() - start, 6 * PATIENCE)

    def test_slow_reader(self):
        """A client that does not read is cut off, and its request stopped; others do not notice."""
        before = self.server.text().count("(client left)")
        stopped = self.server.text().count("client left, stopping")
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", self.server.port))
            body = json.dumps({"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True, "logprobs": 20})
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(body), body.encode()))
            start = time.monotonic()
            self.server.complete(prompt="y", max_tokens=5)
            self.assertLess(time.monotonic() - start, 2 * PATIENCE)
            self.server.wait_for(r"\(client left\)", 30, count=before + 1)
            self.server.wait_for("client left, stopping", 5, count=stopped + 1)

    def test_idle_connections_do_not_block_others(self):
        """All places taken by silent clients: they lose them after --client-timeout."""
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(60)]
        try:
            start = time.monotonic()
            self.server.complete(prompt="x", max_tokens=1)
            self.assertLess(time.monotonic() - start, 15 * PATIENCE)
        finally:
            for s in idle:
                s.close()


class Overload(unittest.TestCase):
    def test_many_at_once(self):
        with Server(STORYTELLER, "--max-num-seqs", "4", "--max-num-batched-tokens", "64") as server:
            results = []

            def one(i):
                results.append(server.post("/v1/completions", {"prompt": "Once upon a time " * (i % 7 + 1),
                                                               "max_tokens": 10, "ignore_eos": True}))
            threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual([s for s, _ in results], [200] * 64)
            self.assertEqual({a["usage"]["completion_tokens"] for _, a in results}, {10})

    def test_queue_limit(self):
        with Server(*dummy("slow"), "--max-num-seqs", "1", "--max-num-queued-reqs", "2") as server:
            body = {"prompt": [1], "max_tokens": 10000, "ignore_eos": True, "stream": True}
            running = server.open("/v1/completions", body)
            read_until(running, b"data: ")
            queued = [server.open("/v1/completions", body) for _ in range(2)]
            for q in queued:
                read_until(q, b"\r\n\r\n")  # accepted
            end = time.monotonic() + 5
            status = 0
            while status != 503 and time.monotonic() < end:
                probe = server.open("/v1/completions", body)
                head = read_until(probe, b"\r\n\r\n")
                probe.close()
                status = int(head.split()[1])
            self.assertEqual(status, 503)
            self.assertIn(b"Retry-After", head)
            for s in [running, *queued]:
                s.close()


class Life(unittest.TestCase):
    def test_loading(self):
        """The socket is there before the model, and says so."""
        with Server(*dummy("slow"), wait=False) as server:
            status, headers, data = server.request("GET", "/health")
            if status == 503:  # it may have been quick
                self.assertEqual(json.loads(data)["error"]["code"], 503)
                self.assertTrue(headers["Retry-After"])
                self.assertEqual(server.request("GET", "/version")[0], 200)
            server.wait_for("ready at", 60)
            self.assertEqual(server.request("GET", "/health")[0], 200)

    def test_signal_while_loading(self):
        server = Server(*dummy("slow"), wait=False)
        self.assertEqual(server.stop(), 0)

    def test_drain(self):
        for stream in (False, True):
            server = Server(*dummy("slow"))
            s = server.open("/v1/completions", {"prompt": [1], "max_tokens": 60, "ignore_eos": True, "stream": stream})
            kept = socket.create_connection(("127.0.0.1", server.port))
            server.wait_for("1 prompt", 5)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("shutting down", 5)
            status, answer = server.post("/v1/completions", {"prompt": [1], "max_tokens": 1})
            self.assertEqual((status, answer["error"]["code"]), (503, 503))
            self.assertEqual(server.get("/health")[0], 503)
            data = read_until(s, b"\0never\0")
            self.assertIn(b'"finish_reason":"length"', data)
            self.assertEqual(server.stop(sig=0), 0)
            kept.close()
            s.close()

    def test_abort(self):
        endless = {"prompt": [1], "max_tokens": 15000, "ignore_eos": True}
        for flags, signals in ((["--shutdown-timeout", "0"], 1), (["--shutdown-timeout", "1"], 1), ([], 2)):
            server = Server(*dummy("slow"), *flags)
            whole = server.open("/v1/completions", endless)
            stream = server.open("/v1/completions", {**endless, "stream": True})
            read_until(stream, b"data: ")
            start = time.monotonic()
            for _ in range(signals):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            self.assertEqual(server.stop(sig=0), 0)
            self.assertLess(time.monotonic() - start, 5 * PATIENCE)
            data = read_until(stream, b"\0never\0")
            self.assertIn(b'data: {"error":', data)
            self.assertIn(b"data: [DONE]", data)
            self.assertTrue(read_until(whole, b"\0never\0").startswith(b"HTTP/1.1 503"))
            whole.close()
            stream.close()

    def test_unix_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            for _ in range(2):  # a stale socket is replaced
                p = subprocess.Popen([OCTAVO, "serve", *dummy("tiny"), "--uds", path], stderr=subprocess.PIPE)
                end = time.monotonic() + 20
                data = b""
                while b" 200 " not in data[:20] and time.monotonic() < end:
                    try:
                        with socket.socket(socket.AF_UNIX) as s:
                            s.connect(path)
                            s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                            data = s.recv(1000)
                    except OSError:
                        time.sleep(0.05)
                self.assertIn(b" 200 ", data[:20])
                p.kill()
                p.communicate()

    def test_ipv6(self):
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            self.skipTest("no IPv6 here")
        with Server(*dummy("tiny"), "--host", "::1") as server:
            with socket.create_connection(("::1", server.port)) as s:
                s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                self.assertIn(b" 200 ", read_until(s, b"\r\n\r\n"))

    def test_port_in_use(self):
        with Server(*dummy("tiny")) as server:
            p = subprocess.run([OCTAVO, "serve", *dummy("tiny"), "--port", str(server.port)], capture_output=True,
                               text=True, timeout=30)
            self.assertEqual(p.returncode, 1)
            self.assertIn("--port", p.stderr)


if __name__ == "__main__":
    unittest.main()
