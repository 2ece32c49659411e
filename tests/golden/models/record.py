#!/usr/bin/env python3
"""Records the golden models: small random checkpoints and what `transformers` computes from them in float32.

    record.py             write every model beside this file
    record.py NAME...     only these
    record.py --check     recompute; fail when a recorded logit is off by more than 1e-4

Needs numpy, torch and transformers; the tests themselves need none of them. README.md describes the files.
"""
import argparse
import json
import os
import struct
import sys
import zlib

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT_LENGTHS = [1, 2, 31, 33, 200, 600]
MAX_POSITIONS = 12
GREEDY_TOKENS = 32
GREEDY_MIN_GAP = 0.05

# ---- the models ----------------------------------------------------------------------------------------------


def qwen3(**kw):
    c = {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "head_dim": 32, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 160, "max_position_embeddings": 4096, "max_window_layers": 2, "model_type": "qwen3",
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
        "vocab_size": 300,
    }
    return edit(c, kw)


def qwen2(**kw):
    c = {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 150,
        "max_position_embeddings": 4096, "max_window_layers": 2, "model_type": "qwen2", "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1", "use_cache": True, "use_sliding_window": False, "vocab_size": 320,
    }
    return edit(c, kw)


def llama(**kw):
    c = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
        "intermediate_size": 172, "max_position_embeddings": 2048, "mlp_bias": False, "model_type": "llama",
        "num_attention_heads": 2, "num_hidden_layers": 2, "num_key_value_heads": 2, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": True, "vocab_size": 288,
    }
    return edit(c, kw)


ABSENT = object()


def edit(config, changes):
    for key, value in changes.items():
        if value is ABSENT:
            config.pop(key, None)
        else:
            config[key] = value
    return dict(sorted(config.items()))


def new_style(**rope):
    """What transformers 5 writes: one rope_parameters object and `dtype`."""
    return {"rope_scaling": ABSENT, "rope_theta": ABSENT, "rope_parameters": rope, "torch_dtype": ABSENT,
            "dtype": "bfloat16", "transformers_version": "5.0.0"}


# name -> config and how to write it: dtype of the weights, shards, greedy prompt length, edges worth recording.
MODELS = {
    "qwen3-tied": dict(config=qwen3(eos_token_id=[2, 5]), greedy=24),
    "qwen3-mha-128": dict(
        config=qwen3(hidden_size=48, head_dim=ABSENT, num_attention_heads=2, vocab_size=257, intermediate_size=101,
                     tie_word_embeddings=False)),
    "qwen3-yarn-bias": dict(
        config=qwen3(hidden_size=72, head_dim=48, num_attention_heads=5, num_key_value_heads=1, attention_bias=True,
                     max_position_embeddings=160, vocab_size=301, intermediate_size=131, tie_word_embeddings=False,
                     rope_scaling={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128}),
        shards=3, edges=[127, 128, 159, 160]),
    "qwen3-layer-types": dict(
        config=qwen3(head_dim=64, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=3, vocab_size=277,
                     intermediate_size=96, use_sliding_window=True, sliding_window=48, max_window_layers=ABSENT,
                     layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                     **new_style(rope_theta=10000.0, rope_type="default")),
        edges=[46, 47, 48, 49, 95, 96], greedy=40),
    "qwen3-yarn-params": dict(
        config=qwen3(hidden_size=48, head_dim=80, num_attention_heads=8, num_key_value_heads=1, vocab_size=290,
                     intermediate_size=93, max_position_embeddings=1024,
                     **new_style(rope_theta=10000.0, rope_type="yarn", factor=16.0, truncate=False, beta_fast=8.0,
                                 beta_slow=0.5, attention_factor=1.15, original_max_position_embeddings=64)),
        edges=[63, 64]),
    "qwen2-f16": dict(
        config=qwen2(hidden_size=128, num_attention_heads=4, vocab_size=389, torch_dtype="float16",
                     intermediate_size=127),
        dtype="F16"),
    "qwen2-sliding": dict(
        config=qwen2(hidden_size=96, num_hidden_layers=3, use_sliding_window=True, sliding_window=33,
                     max_window_layers=1, rope_theta=10000.0, intermediate_size=67, tie_word_embeddings=False),
        edges=[31, 32, 33, 34, 65, 66], greedy=48),
    "qwen2-dynamic": dict(
        config=qwen2(num_key_value_heads=2, max_position_embeddings=128, rope_theta=10000.0, vocab_size=261,
                     rope_scaling={"type": "dynamic", "factor": 8.0}),
        edges=[126, 127, 128, 129]),
    "qwen2-yarn-mscale": dict(
        config=qwen2(hidden_size=128, num_attention_heads=4, max_position_embeddings=1024, vocab_size=333,
                     tie_word_embeddings=False, intermediate_size=79, rope_theta=10000.0,
                     rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256,
                                   "mscale": 1.0, "mscale_all_dim": 0.6, "beta_fast": 32, "beta_slow": 1}),
        shards=2, edges=[255, 256]),
    "qwen2-linear-params": dict(
        config=qwen2(hidden_size=48, num_attention_heads=16, num_key_value_heads=2, head_dim=32, vocab_size=259,
                     intermediate_size=90, max_position_embeddings=256,
                     **new_style(rope_theta=10000.0, rope_type="linear", factor=4.0)),
        edges=[255, 256]),
    "llama2-f32": dict(
        config=llama(num_key_value_heads=ABSENT, rope_theta=ABSENT, rope_scaling=ABSENT, head_dim=ABSENT,
                     attention_bias=ABSENT, mlp_bias=ABSENT, torch_dtype="float32", vocab_size=256,
                     intermediate_size=43, transformers_version="4.31.0.dev0"),
        dtype="F32", leftovers=True),
    "llama3-tied": dict(
        config=llama(hidden_size=64, num_attention_heads=8, num_key_value_heads=2, head_dim=64, vocab_size=431,
                     max_position_embeddings=1024, tie_word_embeddings=True, eos_token_id=[2, 3, 4],
                     intermediate_size=110,
                     rope_scaling={"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                   "original_max_position_embeddings": 128, "rope_type": "llama3"}),
        edges=[127, 128], greedy=33),
    "llama-linear-bias": dict(
        config=llama(hidden_size=96, num_attention_heads=3, num_key_value_heads=3, attention_bias=True, mlp_bias=True,
                     max_position_embeddings=256, rope_theta=10000.0, vocab_size=270, intermediate_size=53,
                     rope_scaling={"type": "linear", "factor": 4.0}),
        edges=[255, 256]),
    "llama-dynamic-mixed": dict(
        config=llama(hidden_size=64, head_dim=96, num_key_value_heads=1, max_position_embeddings=150,
                     vocab_size=281, intermediate_size=99,
                     **new_style(rope_theta=10000.0, rope_type="dynamic", factor=6.0)),
        dtype="mixed", edges=[148, 149, 150, 151]),
    "llama3-params": dict(
        config=llama(hidden_size=60, num_attention_heads=5, num_key_value_heads=1, head_dim=80, vocab_size=310,
                     intermediate_size=71, max_position_embeddings=2048,
                     **new_style(rope_theta=500000.0, rope_type="llama3", factor=32.0, low_freq_factor=1.0,
                                 high_freq_factor=4.0, original_max_position_embeddings=256)),
        edges=[255, 256]),
    "llama-yarn": dict(
        config=llama(hidden_size=96, num_attention_heads=3, num_key_value_heads=1, rope_theta=10000.0, vocab_size=519,
                     intermediate_size=67, max_position_embeddings=256,
                     rope_scaling={"type": "yarn", "factor": 4.0, "mscale": 0.7}),
        edges=[255, 256]),
}

# ---- safetensors ---------------------------------------------------------------------------------------------

STORED = {"F32": "<f4", "F16": "<f2", "I32": "<i4"}


def to_bytes(array, dtype):
    if dtype != "BF16":
        return np.ascontiguousarray(array).astype(STORED[dtype]).tobytes()
    u = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").tobytes()


def st_write(path, tensors, pad=True):
    """tensors: {name: (dtype, array)}. Without pad the data starts at an odd offset, which the format allows."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, array) in sorted(tensors.items()):
        blob = to_bytes(array, dtype)
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if not pad:
        text += b" " * 3
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def st_read(path):
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack("<Q", raw[:8])
    out = {}
    for name, e in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            begin, end = e["data_offsets"]
            out[name] = np.frombuffer(raw[8 + n + begin:8 + n + end], STORED[e["dtype"]]).reshape(e["shape"])
    return out


# ---- weights -------------------------------------------------------------------------------------------------


def make_weights(c, rng):
    """{name: float32 array}. Spread so that attention is far from flat and logits span a few units."""
    hidden, inter, vocab = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads = c["num_attention_heads"]
    kv = c.get("num_key_value_heads") or heads
    hd = c.get("head_dim") or (128 if c["model_type"] == "qwen3" else hidden // heads)
    out = {}

    def linear(name, n, k, gain, bias):
        out[name + ".weight"] = rng.standard_normal((n, k)) * gain / np.sqrt(k)
        if bias:
            out[name + ".bias"] = rng.standard_normal(n) * 0.3

    def norm(name, n, mean=1.0):
        out[name + ".weight"] = mean + 0.2 * rng.standard_normal(n)

    tied = c["tie_word_embeddings"]
    out["model.embed_tokens.weight"] = rng.standard_normal((vocab, hidden)) * (2.0 / np.sqrt(hidden) if tied else 0.7)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        attn_bias = c.get("attention_bias", False)
        qkv_bias = attn_bias or c["model_type"] == "qwen2"
        norm(p + "input_layernorm", hidden)
        linear(p + "self_attn.q_proj", heads * hd, hidden, 1.5, qkv_bias)
        linear(p + "self_attn.k_proj", kv * hd, hidden, 1.5, qkv_bias)
        linear(p + "self_attn.v_proj", kv * hd, hidden, 1.0, qkv_bias)
        linear(p + "self_attn.o_proj", hidden, heads * hd, 1.0, attn_bias)
        if c["model_type"] == "qwen3":
            norm(p + "self_attn.q_norm", hd, 1.5)
            norm(p + "self_attn.k_norm", hd, 1.5)
        norm(p + "post_attention_layernorm", hidden)
        mlp_bias = c.get("mlp_bias", False)
        linear(p + "mlp.gate_proj", inter, hidden, 1.0, mlp_bias)
        linear(p + "mlp.up_proj", inter, hidden, 1.0, mlp_bias)
        linear(p + "mlp.down_proj", hidden, inter, 1.0, mlp_bias)
    norm("model.norm", hidden)
    if not tied:
        linear("lm_head", vocab, hidden, 2.0, False)
    return {name: a.astype(np.float32) for name, a in out.items()}


def dtype_of(name, spec):
    if spec != "mixed":
        return spec
    if "norm" in name:
        return "F32"
    return ["BF16", "F16", "F32"][zlib.crc32(name.encode()) % 3]


def shard_of(name, shards, layers):
    """Layers go round the shards; what precedes them is in the first, what follows in the last."""
    if name.startswith("model.layers."):
        return int(name.split(".")[2]) * shards // layers
    return 0 if name.startswith("model.embed") else shards - 1


def write_model(path, m, seed):
    c = m["config"]
    os.makedirs(path, exist_ok=True)
    for f in os.listdir(path):
        os.remove(os.path.join(path, f))
    with open(os.path.join(path, "config.json"), "w") as f:
        f.write(json.dumps(c, indent=2) + "\n")
    weights = make_weights(c, np.random.default_rng(seed))
    tensors = {name: (dtype_of(name, m.get("dtype", "BF16")), a) for name, a in weights.items()}
    if m.get("leftovers"):  # early Llama 2 conversions carry these; every reader skips them
        inv = (10000.0 ** (-np.arange(0, 32, 2) / 32)).astype(np.float32)
        for i in range(c["num_hidden_layers"]):
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = ("F32", inv)
    shards = m.get("shards", 1)
    if shards == 1:
        st_write(os.path.join(path, "model.safetensors"), tensors, pad=m.get("dtype") != "mixed")
        return
    weight_map, total = {}, 0
    for s in range(shards):
        name = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = {n: t for n, t in tensors.items() if shard_of(n, shards, c["num_hidden_layers"]) == s}
        st_write(os.path.join(path, name), part)
        weight_map.update({n: name for n in part})
        total += sum(len(to_bytes(a, dt)) for dt, a in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    with open(os.path.join(path, "model.safetensors.index.json"), "w") as f:
        f.write(json.dumps(index, indent=2) + "\n")


# ---- expectations --------------------------------------------------------------------------------------------


def forward(model, ids):
    """Logits (len(ids), vocab) of one forward pass over the whole prompt."""
    # dynamic RoPE remembers the longest prompt it has seen: begin each prompt afresh
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def pick_positions(n, edges, rng):
    wanted = [0, n - 1, 1, 30, 31, 32, 33] + edges + [n - 2, 63, 64]
    chosen = []
    for p in wanted:
        if 0 <= p < n and p not in chosen and len(chosen) < MAX_POSITIONS:
            chosen.append(p)
    while len(chosen) < min(n, MAX_POSITIONS):
        p = int(rng.integers(n))
        if p not in chosen:
            chosen.append(p)
    return sorted(chosen)


def greedy(model, vocab, prompt_len, rng):
    """A prompt whose greedy continuation has no near tie: (prompt, tokens, smallest gap of the top two)."""
    while True:
        prompt = rng.integers(0, vocab, prompt_len).tolist()
        ids, gap = list(prompt), np.inf
        for _ in range(GREEDY_TOKENS):
            top = torch.topk(torch.from_numpy(forward(model, ids)[-1]), 2)
            gap = min(gap, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
        if gap >= GREEDY_MIN_GAP:
            return prompt, ids[prompt_len:], gap


def expectations(path, m, seed):
    c = m["config"]
    rng = np.random.default_rng(seed + 1)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    out = {}
    for i, n in enumerate(PROMPT_LENGTHS):
        ids = rng.integers(0, c["vocab_size"], n).tolist()
        pos = pick_positions(n, m.get("edges", []), rng)
        logits = forward(model, ids)[pos]
        out[f"ids.{i}"] = ("I32", np.array(ids))
        out[f"positions.{i}"] = ("I32", np.array(pos))
        out[f"logits.{i}"] = ("F32", logits)
    if m.get("greedy"):
        prompt, tokens, gap = greedy(model, c["vocab_size"], m["greedy"], rng)
        out["greedy.prompt"] = ("I32", np.array(prompt))
        out["greedy.tokens"] = ("I32", np.array(tokens))
        out["greedy.min_gap"] = ("F32", np.array([gap]))
    return out


def check(path, fresh):
    recorded = st_read(os.path.join(path, "expected.st"))
    assert recorded.keys() == fresh.keys(), "other tensors than recorded"
    worst = 0.0
    for name, (dtype, array) in fresh.items():
        if dtype == "I32":
            assert (recorded[name] == array).all(), f"{name} differs"
        else:
            worst = max(worst, float(np.abs(recorded[name] - array).max()))
    return worst


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("names", nargs="*", metavar="NAME")
    a = ap.parse_args()
    unknown = [n for n in a.names if n not in MODELS]
    if unknown:
        ap.error(f"no such model: {', '.join(unknown)} (there are {', '.join(MODELS)})")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of additions, whatever machine records
    failed = 0
    for name in a.names or MODELS:
        m, path, seed = MODELS[name], os.path.join(HERE, name), zlib.crc32(name.encode())
        if not a.check:
            write_model(path, m, seed)
        fresh = expectations(path, m, seed)
        logits = np.concatenate([t.ravel() for n, (_, t) in fresh.items() if n.startswith("logits.")])
        line = f"{name}: logits std {logits.std():.2f}, |max| {np.abs(logits).max():.1f}"
        if "greedy.min_gap" in fresh:
            line += f", greedy gap {fresh['greedy.min_gap'][1][0]:.3f}"
        if a.check:
            worst = check(path, fresh)
            failed += worst > 1e-4
            line += f", off by {worst:.1e}"
        else:
            st_write(os.path.join(path, "expected.st"), fresh)
        print(line, flush=True)
    if not a.check:
        versions = {"python": sys.version.split()[0], "numpy": np.__version__, "torch": torch.__version__,
                    "transformers": transformers.__version__}
        with open(os.path.join(HERE, "versions.json"), "w") as f:
            f.write(json.dumps(versions, indent=2) + "\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
