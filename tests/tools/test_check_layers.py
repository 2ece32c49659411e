#!/usr/bin/env python3
"""tools/check_layers finds each kind of violation in a small tree made for it, and nothing in a clean one."""
import os
import subprocess
import sys
import tempfile
import unittest

CHECK_LAYERS = sys.argv.pop()

HEADER = """/* x */
#define OCTAVO_API __attribute__((visibility("default")))
OCTAVO_API const char *octavo_version(void);
OCTAVO_API int octavo_open(int x);
"""
CLEAN = {
    "include/octavo/octavo.h": HEADER,
    "src/base/err.h": "#include <octavo/octavo.h>\n",
    "src/base/mem.c": '#include "base/err.h"\nvoid *mem_alloc(void)\n{\n    return malloc(1);\n}\n',
    "src/ckpt/config.h": '#include "base/err.h"\n',
    "src/text/tokenizer.h": '#include "base/err.h"\n',
    "src/kernel/ops.c": '#if defined(__x86_64__)\n#include <immintrin.h>\n#endif\n#include "ref/math.h"\n',
    "src/kernel/ref/math.h": "\n",
    "src/model/model.h": '#include "ckpt/config.h"\n#include "octavo/octavo.h"\n',
    "src/engine/engine.h": '#include "model/model.h"\n#include "text/tokenizer.h"\n',
    "src/server/server.h": '#include "text/tokenizer.h"\n#include <octavo/octavo.h>\n',
    "src/cli/main.c": '#include "server/server.h"\n#include "engine/engine.h"\n'
                      '/* strcpy( and malloc( in a comment */\nconst char *s = "malloc(1) atoi(s)";\n',
}


class CheckLayers(unittest.TestCase):
    def run_on(self, changes, library_source=None):
        """Exit code and output of check_layers on the clean tree with some files changed."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **changes}.items():
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
            args = [sys.executable, CHECK_LAYERS, "--root", root]
            if library_source is not None:
                source, library = os.path.join(root, "lib.c"), os.path.join(root, "lib.so")
                with open(source, "w", encoding="utf-8") as f:
                    f.write(library_source)
                subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source], check=True)
                args += ["--library", library]
            p = subprocess.run(args, capture_output=True, text=True)
            return p.returncode, p.stdout + p.stderr

    def assert_finds(self, changes, *words):
        code, out = self.run_on(changes)
        self.assertEqual(code, 1, out)
        self.assertIn("1 violations", out)
        for word in words:
            self.assertIn(word, out)

    def test_clean(self):
        self.assertEqual(self.run_on({}), (0, ""))

    def test_include_upwards(self):
        self.assert_finds({"src/base/buf.c": '\n#include "ckpt/config.h"\n'}, "src/base/buf.c:2", "above")

    def test_include_upwards_beside(self):
        self.assert_finds({"src/base/buf.c": '#include "../model/model.h"\n'}, "src/base/buf.c:1", "above")

    def test_include_sibling(self):
        self.assert_finds({"src/text/bpe.c": '#include "ckpt/config.h"\n'}, "src/text/bpe.c:1", "siblings")

    def test_server_sees_little(self):
        self.assert_finds({"src/server/routes.c": '#include "engine/engine.h"\n'}, "server sees base, text")

    def test_public_header_stands_alone(self):
        self.assert_finds({"include/octavo/octavo.h": '#include "base/mem.c"\n' + HEADER}, "stands alone")

    def test_unknown_folder(self):
        self.assert_finds({"src/misc/x.c": "\n"}, "src/misc/x.c:1", "no layer")

    def test_missing_file_still_has_a_layer(self):
        self.assert_finds({"src/base/buf.c": '#include "engine/gone.h"\n'}, "above")

    def test_isa(self):
        self.assert_finds({"src/model/a.c": "#ifdef __AVX2__\n#endif\n"}, "src/model/a.c:1", "instruction set")
        self.assert_finds({"src/model/a.c": "#include <immintrin.h>\n"}, "src/model/a.c:1", "instruction set")

    def test_allocator(self):
        self.assert_finds({"src/model/a.c": "\nvoid *p = malloc (3);\n"}, "src/model/a.c:2", "mem_alloc")
        self.assert_finds({"src/model/a.c": "char *p = strdup(s);\n"}, "mem_strdup")
        self.assertEqual(self.run_on({"src/model/a.c": "void *p = ops->malloc(3), *q = mem_malloc(4);\n"})[0], 0)

    def test_banned(self):
        self.assert_finds({"src/base/a.c": "/* a\n b */ int x = atoi(s);\n"}, "src/base/a.c:2", "strtol")
        self.assertEqual(self.run_on({"src/base/a.c": "int x = snprintf(p, n, s);\n"})[0], 0)

    def test_long_file(self):
        self.assertEqual(self.run_on({"src/base/a.c": "\n" * 800})[0], 0)
        self.assert_finds({"src/base/a.c": "\n" * 801}, "801 lines")
        self.assert_finds({"tests/unit/a.c": "\n" * 801}, "801 lines")

    def test_exports(self):
        good = "int octavo_open(int x) { return x; } const char *octavo_version(void) { return 0; }\n"
        self.assertEqual(self.run_on({}, good), (0, ""))
        code, out = self.run_on({}, good + "int helper(void) { return 1; }\n")
        self.assertEqual(code, 1)
        self.assertIn("exports helper", out)
        code, out = self.run_on({}, "const char *octavo_version(void) { return 0; }\n")
        self.assertEqual(code, 1)
        self.assertIn("octavo.h:4: octavo_open is declared but not exported", out)


if __name__ == "__main__":
    unittest.main()
