#!/usr/bin/env python3
"""The commands of a terminal: what they say, what happens when nobody reads, and when a flag does not fit."""
import json
import os
import pathlib
import subprocess
import time
import unittest

OCTAVO = os.environ["OCTAVO"]
LONG = ["generate", "-p", "Once upon a time", "--max-tokens", "1500", "--ignore-eos"]


def run(*args, stdout=subprocess.PIPE, env=None):
    return subprocess.run([OCTAVO, *args], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
                          timeout=120, env={**os.environ, **(env or {})})


class Greedy(unittest.TestCase):
    def test_same_text_as_transformers(self):
        recorded = pathlib.Path(__file__).parent.parent / "golden" / "storyteller-greedy.json"
        for case in json.loads(recorded.read_text(encoding="utf-8")):
            with self.subTest(prompt=case["prompt"]):
                r = run("generate", "-p", case["prompt"], "--max-tokens", str(case["n"]), "--temperature", "0",
                        "--kv-cache-dtype", "float32")
                self.assertEqual(r.stdout, case["text"] + "\n", r.stderr)


class Output(unittest.TestCase):
    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full here")
    def test_full_disk(self):
        for args in [["version"], ["--help"], ["serve", "--help"], ["tokenize", "-p", "Once upon a time"],
                     ["generate", "-p", "Once", "--max-tokens", "3"]]:
            with self.subTest(args=args), open("/dev/full", "w") as full:
                r = run(*args, stdout=full)
                self.assertEqual(r.returncode, 1, r.stderr)
                self.assertIn("cannot write", r.stderr)
                self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)

    def test_reader_leaves(self):
        p = subprocess.Popen([OCTAVO, *LONG], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(p.stdout.read(1))
        p.stdout.close()
        began = time.monotonic()
        err = p.stderr.read().decode()
        p.stderr.close()
        self.assertEqual(p.wait(60), 1)
        left = time.monotonic() - began
        self.assertIn("cannot write the answer", err)
        began = time.monotonic()
        self.assertEqual(run(*LONG).returncode, 0)
        self.assertLess(left, (time.monotonic() - began) / 2)


class Flags(unittest.TestCase):
    def test_text_needs_a_tokenizer(self):
        for command in ["generate", "chat"]:
            r = run(command, "--skip-tokenizer-init")
            self.assertEqual(r.returncode, 1)
            self.assertIn("leave --skip-tokenizer-init out", r.stderr)

    def test_isa_from_the_environment(self):
        args = ["bench", "latency", "--num-iters", "1", "--num-iters-warmup", "0", "--output-len", "1", "--output-json",
                "-"]
        for flag, env, tier in [([], "ref", "ref"), (["--isa", "ref"], "nonsense", "ref"), ([], "", None)]:
            r = run(*args, *flag, env={"OCTAVO_ISA": env})
            self.assertEqual(r.returncode, 0, r.stderr)
            if tier:
                self.assertEqual(json.loads(r.stdout)["isa"], tier)
        r = run(*args, env={"OCTAVO_ISA": "avx1"})
        self.assertEqual(r.returncode, 1)
        self.assertIn("OCTAVO_ISA must be auto, ref, ", r.stderr)
        self.assertIn("not 'avx1'", r.stderr)

    def test_small_cache_is_found_before_loading(self):
        r = run("serve", "--port", "0", "--kv-cache-memory-bytes", "1", "--max-model-len", "100")
        self.assertEqual(r.returncode, 1)
        self.assertIn("raise --kv-cache-memory-bytes", r.stderr)
        self.assertNotIn("packing", r.stderr)


if __name__ == "__main__":
    unittest.main()
