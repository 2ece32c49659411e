#!/usr/bin/env python3
"""Records what Hugging Face's `tokenizers` does with every part of tokenizer.json: each added-token flag, normalizer,
pre-tokenizer behavior, model option, post-processor and decoder, one small tokenizer each. Needs: pip install tokenizers.

usage: record_parts.py OUT_JSON      [[name, tokenizer, [[text, ids with special tokens, decoded], ...]], ...]
"""
import itertools
import json
import sys

from tokenizers import Tokenizer

BYTES = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
CHARS = {b: chr(b) for b in BYTES}
CHARS.update({b: chr(0x100 + i) for i, b in enumerate(b for b in range(256) if b not in BYTES)})
MERGES = ["h e", "l l", "he ll", "\u0120 w", "o r", "\u0120w or", "1 2", "\u0120 \u0120", "a b", "b c", "ab c", "\u0120 a"]
TEXTS = ["hello world", "  hello  12345 world!! ", "a-b--c...abc", "<x> <x>  y<x>z <x>_ _<x>", " <y>y <Y>\t\n<y> ", "don't WE'LL 3\u00bd\u0663",
         "caf\u00e9 cafe\u0301 \ufb01 \u0130I\u00df", "\u4f60\u597d\u3002\U0001f600 \U0001f468\u200d\U0001f469", "line\r\n\r\n  two\n\n", "", " ", "\u3000\u2003x\x85\u180e\u200b",
         "a1b22c333", "\U00011f50\U0001e4d0 \U00010d50\U000323af", "<x><x>abc<xx>", "aaa_bbb ccc__"]


def byte_model(**more):
    vocab = {CHARS[b]: b for b in range(256)}
    for m in MERGES:
        vocab.setdefault(m.replace(" ", ""), len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": MERGES, **more}


def char_model(**more):
    vocab = {c: i for i, c in enumerate("helowrdabc123 \u2581<>_xy")}
    merges = []
    for a, b in (("h", "e"), ("l", "l"), ("he", "ll"), ("a", "b")):
        merges.append([a, b])
        vocab[a + b] = len(vocab)
    for extra in ["<unk>", "##b", "##c", "a##", "d</w>"] + ["<0x%02X>" % b for b in range(256)]:
        vocab[extra] = len(vocab)
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges, **more}


def byte_level(**more):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False, **more}


def spec(model=None, **more):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": byte_level(), "post_processor": None, "decoder": byte_level(), "model": model or byte_model(), **more}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


FIRST_ADDED = 256 + len(MERGES)  # the library numbers added tokens on from the vocabulary, whatever the file says


def added(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False,
            **flags}


def specs():
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for on in itertools.product([False, True], repeat=5):
        f = dict(zip(flags, on))
        yield "added " + " ".join(k for k in flags if f[k]), spec(
            added_tokens=[added(FIRST_ADDED + i, t, **f) for i, t in enumerate(("<x>", "<Y>", "<x><x>", "\u4f60"))][:3 + on[0]],
            normalizer={"type": "Lowercase"})
    for behavior in ("Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for pattern, kind in (("[\\s\\p{P}]", "Regex"), ("-", "String"), ("\\d*", "Regex")):
                yield f"split {behavior} {invert} {pattern}", spec(
                    pre_tokenizer=sequence(split(pattern, behavior, invert, kind), byte_level()))
    for pattern in ("(?m:l.)", "\\h+", "\\p{N}{1,3}+", "\\p{^L}", "\\w+", "\\W", "[\\W\\d]", "\\b", "\\Bl", "[a-z&&[^l]]+", "[^a-c&&[^x]]",
                    "[[:alpha:]]+", "[[:^space:]]+", "l{,1}o", "(?:ab){1}?c", "l+{2}", "(?i:H|LL)", "\\p{Han}+|\\p{Alpha}", "x*+y|z++",
                    "^.|.$", "\\A.|.\\z", "(?<=l)l|(?<!\\s)w", "(?=o)", "[]<]", "[\\]\\-a]", "\\u0061|\\x62", "(a|b)\\1", "\\v|\\t",
                    "[a-c[x-z]]+", "[^a-c[x-z]]+", "\\s+(?!\\S)", "(?>l+)l|o", "{1}", "a{b", "\\p{Letter}+|\\p{decimal number}"):
        yield "pattern " + pattern, spec(pre_tokenizer=sequence(split(pattern), byte_level()))
    for step in ({"type": "Digits", "individual_digits": False}, {"type": "Digits", "individual_digits": True}, {"type": "Whitespace"},
                 {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Punctuation", "behavior": "Contiguous"},
                 {"type": "CharDelimiterSplit", "delimiter": "l"}):
        yield "pre " + json.dumps(step), spec(pre_tokenizer=sequence(step, byte_level()))
        yield "post " + json.dumps(step), spec(pre_tokenizer=sequence(byte_level(use_regex=True, add_prefix_space=True), step))
    yield "prefix space", spec(pre_tokenizer=byte_level(add_prefix_space=True), added_tokens=[added(FIRST_ADDED, "<x>")])
    yield "words", spec(pre_tokenizer=byte_level(use_regex=True, add_prefix_space=True))
    yield "words in pieces", spec(pre_tokenizer=sequence(split("o"), byte_level(use_regex=True, add_prefix_space=True)))
    for n in ([{"type": t}] for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")):
        yield "normalizer " + n[0]["type"], spec(normalizer=n[0])
    yield "normalizer strip", spec(normalizer={"type": "Strip", "strip_left": True, "strip_right": True})
    yield "normalizer lstrip", spec(normalizer={"type": "Strip", "strip_left": True, "strip_right": False})
    yield "normalizer sequence", spec(normalizer={"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"Regex": "l+"}, "content": "$0"},
        {"type": "Replace", "pattern": {"String": "."}, "content": ""}]})
    first = {"SpecialToken": {"id": "<x>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [first, text, first, first], "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<x>": {"id": "<x>", "ids": [FIRST_ADDED, 7], "tokens": ["<x>", "y"]}}}
    special = [added(FIRST_ADDED, "<x>", special=True)]
    yield "template", spec(post_processor=template, added_tokens=special)
    yield "templates", spec(post_processor={"type": "Sequence", "processors": [byte_level(), template, {
        **template, "single": [text, first]}]}, added_tokens=special)
    yield "bert", spec(post_processor={"type": "BertProcessing", "sep": ["h", 104], "cls": ["<x>", FIRST_ADDED]}, added_tokens=special)
    for f in itertools.product([False, True], repeat=3):
        o = dict(zip(("fuse_unk", "byte_fallback", "ignore_merges"), f))
        yield "model " + json.dumps(o), spec(char_model(**o), pre_tokenizer=split("[ ]"), decoder={"type": "Fuse"})
        yield "byte model " + json.dumps(o), spec(byte_model(**o))
    yield "prefix", spec(char_model(continuing_subword_prefix="##", merges=[["a", "##b"]]), pre_tokenizer={"type": "WhitespaceSplit"},
                         decoder=None)
    yield "suffix", spec(char_model(end_of_word_suffix="</w>", merges=[["h", "e"]]), pre_tokenizer={"type": "WhitespaceSplit"}, decoder=None)
    yield "no unk", spec(char_model(unk_token=None), pre_tokenizer=None, decoder=None)
    yield "sentencepiece", spec(
        char_model(byte_fallback=True, fuse_unk=True), pre_tokenizer=None,
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                                                  {"type": "ByteFallback"}, {"type": "Fuse"},
                                                  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})


def main(path):
    out = []
    for name, s in specs():
        try:
            tok = Tokenizer.from_str(json.dumps(s))
        except Exception as e:
            print("not recorded:", name, e)
            continue
        cases = []
        for t in TEXTS:
            try:
                ids = tok.encode(t).ids
                # tokenizers 0.23 decodes a normalized token to its normal form and never skips it: not copied
                quirk = "normalized" in name and "<y>" in t
                cases.append([t, ids, None if quirk else tok.decode(ids)])
            except BaseException as e:  # a panic of the library
                print("not recorded:", name, repr(t), e)
        # the two big vocabularies are written once
        base = {"byte": byte_model()["vocab"], "char": char_model()["vocab"]}
        s["model"]["vocab"] = next(k for k, v in base.items() if v == s["model"]["vocab"])
        out.append([name, s, cases])
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(base, ensure_ascii=False, separators=(",", ":")).join(["{\"vocabs\":", ",\n\"parts\":[\n"]))
        f.write(",\n".join(json.dumps(p, ensure_ascii=False, separators=(",", ":")) for p in out) + "\n]}\n")
    print(f"{path}: {len(out)} tokenizers, {sum(len(p[2]) for p in out)} cases")


if __name__ == "__main__":
    main(sys.argv[1])
