#!/usr/bin/env python3
"""The flags of `octavo serve`: values as vLLM writes them, errors that help, help that teaches."""
import os
import subprocess
import tempfile
import unittest

from harness import OCTAVO, Server, dummy


def run(*args, env=None):
    return subprocess.run([OCTAVO, *args], capture_output=True, text=True, timeout=30, env={**os.environ, **(env or {})})


class Flags(unittest.TestCase):
    def assert_fails(self, *args, text, env=None):
        r = run("serve", *args, env=env)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertIn(text, r.stderr)
        self.assertTrue(r.stderr.splitlines()[-1].startswith("octavo serve: "), r.stderr)

    def test_wrong_flags(self):
        for args, text in [
                (["--prot", "1"], "did you mean --port?"), (["--max-modl-len=5"], "did you mean --max-model-len?"),
                (["--zzzzzzzzzzz"], "unknown flag"), (["-x"], "unknown flag"), (["---port", "1"], "unknown flag"),
                (["--port"], "needs a value"), (["--port", "--uds"], "needs a value"), (["--port", "x"], "takes an integer"),
                (["--port", "70000"], "between 0 and 65535"), (["--port", "-1"], "between"), (["--port="], "takes an integer"),
                (["--max-model-len", "2.5"], "takes an integer"), (["--max-model-len", "1.2.3k"], "takes an integer"),
                (["--max-model-len", "99999999999999999999"], "takes an integer"), (["--max-model-len", "1kk"], "takes an integer"),
                (["--max-model-len", "k"], "takes an integer"), (["--isa", "sse"], "one of auto"),
                (["--kv-cache-dtype", "fp8"], "one of auto"), (["--skip-tokenizer-init=maybe"], "true or false"),
                (["a", "b"], "unexpected argument 'b'"), (["--tensor-parallel-size", "2"], "--threads"), (["-tp", "4"], "not supported"),
                (["--quantization", "awq"], "takes one of none, w8a8"), (["--quantization", "ascend"], "is for a ModelSlim"), (["--enable-auto-tool-choice"], "not supported"),
                (["/nonexistent/model"], "no such folder"), (["/dev/null"], "is not a folder")]:
            with self.subTest(args=args):
                self.assert_fails(*args, text=text)
        self.assert_fails(text="OCTAVO_MODEL", env={"OCTAVO_MODEL": "/nonexistent"})

    def test_broken_model(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assert_fails(folder, "--port", "0", "--load-format", "dummy", "--skip-tokenizer-init", text="config.json")
            self.assert_fails(folder, "--port", "0", text="tokenizer.json")

    def test_harmless_flags(self):
        with Server(*dummy("tiny"), "--gpu-memory-utilization", "0.9", "--enforce-eager", "--tensor-parallel-size=1",
                    "--no-enable-chunked-prefill", "--dtype=auto", "--max_num_seqs", "3") as server:
            self.assertIn("--kv-cache-memory-bytes", server.text())
            self.assertEqual(server.get("/health")[0], 200)
            self.assertIn("3 requests at once", server.text())

    def test_human_integers(self):
        for text, value in [("1000", 1000), ("1k", 1000), ("1K", 1024), ("0.5k", 500), ("1_000", 1000), ("auto", 1024),
                            ("-1", 1024)]:
            with Server(*dummy("tiny"), "--max-model-len", text) as server:
                self.assertEqual(server.get("/v1/models")[1]["data"][0]["max_model_len"], value, text)
        for text, blocks in [("1MiB", 1 << 20), ("1M", 1 << 20), ("1m", 1000000), ("1MB", 1000000)]:
            with Server(*dummy("tiny"), "--kv-cache-memory-bytes", text) as server:
                # 2 layers, 2 heads of 32, K and V of 2 bytes
                self.assertIn(f"({blocks // (32 * 2 * 2 * 32 * 2 * 2)} blocks of 32)", server.text(), text)

    def test_help(self):
        r = run("serve", "--help")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        for word in ("usage: octavo serve", "--max-model-len", "--served-model-name", "Default: 8000", "curl "):
            self.assertIn(word, r.stdout)
        self.assertLessEqual(max(len(line) for line in r.stdout.splitlines()), 112)
        self.assertIn("serve", run("--help").stdout)
        self.assertIn("did you mean serve?", run("server").stderr)


if __name__ == "__main__":
    unittest.main()
