#!/usr/bin/env python3
"""octavo bench: figures that fit together, files, refusals that name the flag, and Ctrl-C."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

OCTAVO = os.environ["OCTAVO"]
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 512,
    "tie_word_embeddings": True, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
}
DUMMY = ["--load-format", "dummy", "--quantization", "w8a8"]
LAYER = 64 * 128 * 2 + 64 * 64 * 2 + 64 * 128 * 3
HEAD = 64 * 512


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        (self.dir / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    def bench(self, name, *args, code=0):
        r = subprocess.run([OCTAVO, "bench", name, str(self.dir), *DUMMY, *args], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=120)
        self.assertEqual(r.returncode, code, r.stderr)
        return r


class Latency(Case):
    def test_figures(self):
        r = self.bench("latency", "--batch-size", "3", "--num-iters", "4", "--num-iters-warmup", "1", "--output-len",
                       "5", "--output-json", "-")
        out = json.loads(r.stdout)
        self.assertEqual(len(out["latencies"]), 4)
        self.assertAlmostEqual(out["avg_latency"], sum(out["latencies"]) / 4, delta=1e-6 * out["avg_latency"])
        self.assertGreater(min(out["latencies"]), out["ttft"]["percentiles"]["10"])
        self.assertGreater(out["tpot"]["mean"], 0)
        self.assertEqual(list(out["percentiles"]), ["10", "25", "50", "75", "90", "99"])

    def test_for_people(self):
        r = self.bench("latency", "--num-iters", "1", "--num-iters-warmup", "0", "--output-len", "2", "--profile")
        for words in ["Avg latency: ", "99% percentile latency: ", "Time to first token:"]:
            self.assertIn(words, r.stdout)
        self.assertIn("lm_head", r.stderr)


class Throughput(Case):
    def test_figures(self):
        path = self.dir / "out.json"
        r = self.bench("throughput", "--num-prompts", "9", "--input-len", "40", "--output-len", "3", "--max-num-seqs",
                       "2", "--output-json", str(path))
        out = json.loads(path.read_text(encoding="utf-8"))
        self.assertEqual((out["num_requests"], out["total_num_tokens"]), (9, 9 * 43))
        self.assertAlmostEqual(out["requests_per_second"] * out["elapsed_time"], 9, places=5)
        self.assertAlmostEqual(out["tokens_per_second"] / out["requests_per_second"], 43, places=5)
        self.assertIn("requests/s", r.stdout)
        self.assertIn("Total num prompt tokens:  360", r.stdout)


class Sweep(Case):
    def test_figures(self):
        files = self.dir / "out.json", self.dir / "out.svg"
        r = self.bench("sweep", "--depths", "64,16", "--decode-tokens", "4", "--batch-size", "3", "--repeat", "2",
                       "--output-json", str(files[0]), "--output-svg", str(files[1]))
        out = json.loads(files[0].read_text(encoding="utf-8"))
        points = out["points"]
        self.assertEqual([(p["kv_cache_dtype"], p["depth"]) for p in points],
                         [("int8", 16), ("int8", 64), ("bfloat16", 16), ("bfloat16", 64)])
        self.assertEqual(out["limit_macs"], "int8_macs_per_second")
        for p in points:
            depth, kv = p["depth"], 2 * 2 * 2 * 32 * (1 if p["kv_cache_dtype"] == "int8" else 2)
            self.assertAlmostEqual(p["prefill"]["macs_per_token"] * depth,
                                   depth * 2 * LAYER + HEAD + 2 * 2 * 4 * 32 * depth * (depth + 1) / 2, places=2)
            self.assertAlmostEqual(p["decode"]["bytes_per_token"], 2 * LAYER + HEAD + kv * (depth + 2.5), places=2)
            for key in ["prefill", "decode", "decode_batch"]:
                figure, peak = p[key], p[key]["peak"]
                seconds = figure["macs_per_token"] / peak["int8_macs_per_second"]
                if key != "prefill":
                    seconds = max(seconds, figure["bytes_per_token"] / peak["read_bytes_per_second"])
                self.assertAlmostEqual(figure["share_of_limit"] / (figure["middle_tokens_per_second"] * seconds), 1,
                                       places=5)
                self.assertGreaterEqual(figure["tokens_per_second"], figure["middle_tokens_per_second"])
                for limit, best in out["peak"].items():
                    self.assertTrue(0 < peak[limit] <= best)
        self.assertIn("3 streams", r.stdout)
        svg = xml.etree.ElementTree.parse(files[1]).getroot()
        texts = [e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")]
        for words in ["Prefill", "tokens per second", "context depth (tokens)", "int8", "bfloat16", "16", "64"]:
            self.assertIn(words, texts)

    def test_float_checkpoint_leaves_int8_out(self):
        r = subprocess.run([OCTAVO, "bench", "sweep", "--depths", "8", "--decode-tokens", "1", "--repeat", "1"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("bfloat16", r.stdout)
        self.assertNotIn("int8  ", r.stdout)


class Refusals(Case):
    def test_names_the_flag(self):
        for flag, args in [
                ("--depths", ["sweep", "--depths", "16,1k"]),
                ("--depths", ["sweep", "--depths", "16,,64"]),
                ("--depths", ["sweep", "--depths", "0"]),
                ("--depths", ["sweep", "--depths", ",".join(map(str, range(1, 70)))]),
                ("--kv-cache-dtypes", ["sweep", "--kv-cache-dtypes", "int8,int4"]),
                ("--kv-cache-dtypes", ["sweep", "--kv-cache-dtypes", "int8,int8"]),
                ("--kv-cache-dtypes", ["sweep", "--kv-cache-dtype", "int8"]),
                ("--batch-size", ["sweep", "--batch-size", "4", "--max-num-seqs", "2", "--depths", "16"]),
                ("--max-num-batched-tokens", ["sweep", "--batch-size", "4", "--max-num-batched-tokens", "4"]),
                ("--max-model-len", ["sweep", "--depths", "512", "--max-model-len", "128"]),
                ("--enable-prefix-caching", ["sweep", "--enable-prefix-caching"]),
                ("--input-len", ["latency", "--input-len", "1000"]),
                ("--batch-size", ["latency", "--batch-size", "0"]),
                ("--num-prompts", ["throughput", "--num-prompts", "1e9"]),
                ("--output-json", ["throughput", "--output-json", "/nowhere/out.json"]),
        ]:
            with self.subTest(args=args):
                r = self.bench(*args, code=1)
                self.assertIn(flag, r.stderr)
                self.assertEqual(len(r.stderr.splitlines()), 1, r.stderr)
        self.assertEqual(subprocess.run([OCTAVO, "bench", "latncy"], capture_output=True, check=False).returncode, 2)

    def test_failure_leaves_no_file(self):
        path = self.dir / "out.json"
        self.bench("latency", "--input-len", "1000", "--output-json", str(path), code=1)
        self.assertFalse(path.exists())

    def test_interrupt(self):
        path = self.dir / "out.json"
        p = subprocess.Popen([OCTAVO, "bench", "throughput", str(self.dir), *DUMMY, "--num-prompts", "100000",
                              "--input-len", "64", "--output-json", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        time.sleep(1)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err)
        self.assertEqual(out, b"")
        self.assertFalse(path.exists())


if __name__ == "__main__":
    unittest.main()
