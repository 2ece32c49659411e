#!/usr/bin/env python3
"""Record what an independent reader finds in the cases of this folder, as linears.json.

    record.py READER_DIR        needs numpy; READER_DIR holds oracle.py, which opens checkpoints and knows their layouts

For each linear: its kind and size, and sums of its integers, scales, zero points, folded biases and input scale, each
weighted by position so that a swapped row or nibble shows. For each layer: the same of its cache scales, or null.
"""
import json, os, sys
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))

def integers(a):
    a = np.asarray(a).astype(np.int64).reshape(-1)
    return int((a * (np.arange(a.size) * 7 % 251 + 1)).sum())

def reals(a):
    a = np.asarray(a, np.float64).reshape(-1)
    return float((a * (np.arange(a.size) % 31 + 1)).sum())

def linear(O, ck, mod, n, k):
    kind = ck.kind(mod)
    f = lambda name: ck.get(mod + "." + name)
    out = {"module": mod, "kind": kind, "n": n, "k": k}
    bias = f("bias")
    if kind == "FLOAT":
        return dict(out, bias=bias is not None and reals(bias))
    w = f("weight") if f("weight") is not None else f("weight_packed")
    if kind == "W4A8_DYNAMIC":
        w = O.unpack_pairs_n(w, n)
    elif kind == "CT_W4A16":
        w = O.unpack_i32(w, 4, (n, k))
    assert w.shape == (n, k)
    out["q"] = integers(w)
    if kind == "W8A8":
        deq = f("deq_scale")
        if deq.dtype == np.int64:
            deq = (deq & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
        out.update(quant_bias=integers(f("quant_bias")), deq_scale=reals(deq), input_scale=ck.scalar(mod + ".input_scale"),
                   input_offset=ck.scalar(mod + ".input_offset"))
        return out
    scale = f("weight_scale").reshape(n, -1)
    out.update(groups=scale.shape[1], scale=reals(scale), bias=bias is not None and reals(bias))
    if kind == "W8A16":
        out["zero"] = reals(f("weight_offset"))
    if kind == "CT_W8A8":
        out.update(input_scale=ck.scalar(mod + ".input_scale"), input_offset=ck.scalar(mod + ".input_zero_point") or 0)
    return out

def main():
    sys.path.insert(0, sys.argv[1])
    import oracle as O
    cases = {}
    for name in sorted(os.listdir(HERE)):
        path = os.path.join(HERE, name)
        if not os.path.isdir(path):
            continue
        ck = O.Checkpoint(path)
        c = ck.config
        h, ff, nh, n_kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
        hd = c.get("head_dim") or h // nh
        shapes = {"self_attn.q_proj": (nh * hd, h), "self_attn.k_proj": (n_kv * hd, h), "self_attn.v_proj": (n_kv * hd, h),
                  "self_attn.o_proj": (h, nh * hd), "mlp.gate_proj": (ff, h), "mlp.up_proj": (ff, h), "mlp.down_proj": (h, ff)}
        linears, caches = [], []
        for L in range(c["num_hidden_layers"]):
            for m, (n, k) in shapes.items():
                linears.append(linear(O, ck, f"model.layers.{L}.{m}", n, k))
            kv = O.kv_params(ck, L, n_kv, hd)
            caches.append(kv and [reals(np.float32(a)) for a in kv])
        if "lm_head.weight" in ck.tensors:
            linears.append(linear(O, ck, "lm_head", c["vocab_size"], h))
        biases = {k[:-5]: reals(t[1]) for k, t in ck.tensors.items() if k.endswith("norm.bias")}
        cases[name] = {"linears": linears, "caches": caches, "norm_biases": biases}
    with open(os.path.join(HERE, "linears.json"), "w") as f:
        json.dump(cases, f, indent=0)
        f.write("\n")

main()
