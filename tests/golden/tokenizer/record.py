#!/usr/bin/env python3
"""Records what Hugging Face's `tokenizers` makes of many strings. Needs: pip install tokenizers.

usage: record.py TOKENIZER_JSON OUT_JSON [SEED]
       record.py --llama-schema STORYTELLER_JSON OUT_TOKENIZER_JSON
       record.py --compact TOKENIZER_JSON OUT_JSON_GZ

OUT_JSON is a list of [text, ids, decoded]: text a string, or {"hex": bytes} when it is not UTF-8; decoded is null when it
equals the NFC form (or, without an NFC normalizer, the text) that the ids stand for. --llama-schema dresses a byte-level
vocabulary in Llama 3's parts: \\p{N}{1,3}, ignore_merges, a post-processor that adds a first token.
"""
import gzip
import json
import random
import sys
import unicodedata

from tokenizers import Tokenizer

CODE = """static int f(const char *s)\n{\n\tfor (size_t i = 0; s[i]; i++) {\n\t\tif (s[i] == '\\n')\n\t\t\treturn -1;\n\t}\n\treturn 0x7fff;\n}\n
def main(argv=None):\r\n    x = [i**2 for i in range(10) if i % 2 == 0]\r\n    print(f"{x!r:>10}")  # don't\r\n
SELECT a.id, COUNT(*) FROM t AS a WHERE a.x >= 3.14159 GROUP BY 1;\n<div class="a b">&nbsp;</div>\n{"k": [1, 2.5e-3, null]}\n"""
PROSE = """It's the reader's choice; they're sure we've said I'd, you'll, can't, I'M, WE'LL and THEY'RE. O\u2019Brien isn\u2019t 1,234,567.89 \u20ac.
\u6df1\u5ea6\u5b66\u4e60\u6a21\u578b\u7684\u63a8\u7406\u670d\u52a1\uff0c\u4f60\u597d\u3002\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a\u3002\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.
\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5. \u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u05e9\u05dc\u05d5\u05dd \u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 Ti\u1ebfng Vi\u1ec7t na\u00efve caf\u00e9 stra\u00dfe \u01c4\u0149"""
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f",
         "\U0001f44d\U0001f3fd", "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"]
MARKS = [chr(c) for c in (0x300, 0x301, 0x303, 0x308, 0x323, 0x327, 0x345, 0x5b0, 0x64b, 0x93c, 0x3099, 0x1abf, 0x1dc0, 0x20d0)]
SPACES = [" ", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028", "\u202f",
          "\u3000", "\u200b", "\ufeff"]
FOLDS = ["'s", "'S", "'\u017f", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'m", "'ll", "'L\u017f", "'d", "'K", "'\u212a"]


def texts(rng, specials, count):
    out = ["", " ", "\n", "a", "0"]
    words = PROSE.split() + CODE.split()
    lines = (PROSE + CODE).splitlines(keepends=True)

    def scalar():
        plane = rng.choice([0, 0, 0, 1, 1, 2, 3, 14, 15, 16, rng.randrange(17)])
        while True:
            c = plane << 16 | rng.randrange(0x10000)
            if not 0xD800 <= c <= 0xDFFF:
                return chr(c)

    def near(s):
        i = rng.randrange(len(s))
        return rng.choice([s[:i] + s[i + 1:], s[:i] + " " + s[i:], s[:-1], s + s[-1], s[:i] + s[i].swapcase() + s[i + 1:]])

    def piece():
        k = rng.randrange(17)
        if k < 3:
            return rng.choice(words)
        if k == 3:
            return rng.choice(lines)
        if k == 4:
            return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 6)))
        if k == 5:
            return rng.choice(SPACES) * rng.choice([1, 2, 3, 7, 17, 60])
        if k == 6:
            return "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 2, 3, 4, 5, 9, 30])))
        if k == 7:
            return rng.choice(EMOJI)
        if k == 8:
            return rng.choice("aeiouAnc\u0915\u304b\uac00") + "".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 5)))
        if k == 9:
            return "".join(chr(rng.randrange(0x20)) for _ in range(rng.randrange(1, 4)))
        if k == 10:
            return "".join(scalar() for _ in range(rng.randrange(1, 5)))
        if k == 11:
            return rng.choice(specials) if specials else "<"
        if k == 12:
            return near(rng.choice(specials)) if specials else "<|"
        if k == 13:
            return rng.choice(words) + rng.choice(FOLDS)
        if k == 14:
            return "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randrange(1, 8)))
        if k == 15:
            return rng.choice("\u00b2\u00bd\u2167\u0663\u0e53\U0001d7d8\u3289\u4e09") * rng.randrange(1, 4)
        return rng.choice("aA1 .\n") * rng.choice([5, 20, 80])

    while len(out) < count:
        out.append("".join(piece() + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 7))))
    return out


def broken(rng, text):
    b = bytearray(text.encode())
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(b) + 1)
        b[at:at] = rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f", b"\xe4", b"\x80\x80", b"\xf4\x90\x80\x80"])
    return bytes(b)


def record(path, out_path, seed):
    rng = random.Random(seed)
    tok = Tokenizer.from_file(path)
    spec = json.load(open(path, encoding="utf-8"))
    specials = [t["content"] for t in spec["added_tokens"]]
    cases = []
    inputs = texts(rng, specials, 2000)
    inputs += [broken(rng, t) for t in inputs[5:105]]
    for text in inputs:
        clean = text if isinstance(text, str) else text.decode("utf-8", "replace")
        ids = tok.encode(clean, add_special_tokens=False).ids
        decoded = tok.decode(ids, skip_special_tokens=False)
        shown = text if isinstance(text, str) else {"hex": text.hex()}
        want = tok.normalizer.normalize_str(clean) if tok.normalizer else clean
        cases.append([shown, ids, None if decoded == want else decoded])
    with open(out_path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "\n]\n")
    with_special = tok.encode("x").ids
    print(f"{out_path}: {len(cases)} cases, 'x' with special tokens is {with_special}, "
          f"{sum(c[2] is not None for c in cases)} decode to something else, Unicode {unicodedata.unidata_version}")


def llama_schema(path, out_path):
    spec = json.load(open(path, encoding="utf-8"))
    spec["normalizer"] = None
    split = spec["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace("|\\p{N}|", "|\\p{N}{1,3}|")
    first = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    spec["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [first, text], "pair": [first, text],
         "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}}]}
    model = spec["model"]
    model["ignore_merges"] = True
    # tokens that only ignore_merges can give
    for word in ("\u0120zxqj", "Zyx", "\u0120\u0120\u0120\u0120zz", "\u00e6\u00b7\u00b1"):
        if word not in model["vocab"]:
            model["vocab"][word] = max(model["vocab"].values()) + 1
    model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    with open(out_path, "w", encoding="utf-8") as f:
        json.dump(spec, f, ensure_ascii=False, separators=(",", ":"))


def compact(path, out_path):
    """The same tokenizer with merges as "a b" and no white space. Qwen3's is Apache-2.0."""
    spec = json.load(open(path, encoding="utf-8"))
    spec["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":")).encode()
    with open(out_path, "wb") as f, gzip.GzipFile("", "wb", 9, f, 0) as z:
        z.write(text)


if __name__ == "__main__":
    if sys.argv[1] == "--llama-schema":
        llama_schema(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "--compact":
        compact(sys.argv[2], sys.argv[3])
    else:
        record(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
