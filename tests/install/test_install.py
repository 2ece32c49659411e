#!/usr/bin/env python3
"""Installs into an empty folder, and does with what is there what its users do.

    test_install.py BUILD SOURCE GOLDEN_MODEL [compiler flags]

 - examples/generate.c compiles with nothing but pkg-config's flags, runs, and prints the recorded greedy tokens
 - the header is C++ as well
 - the installed program runs and says the version that pkg-config says
"""
import glob
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile
import unittest

FLAGS = sys.argv[4:]
BUILD, SOURCE, MODEL = sys.argv[1:4]
del sys.argv[1:]


def read_ids(name):
    """An I32 vector of the golden model's expected.st."""
    with open(os.path.join(MODEL, "expected.st"), "rb") as f:
        raw = f.read()
    (n,) = struct.unpack("<Q", raw[:8])
    begin, end = json.loads(raw[8:8 + n])[name]["data_offsets"]
    return [str(x[0]) for x in struct.iter_unpack("<i", raw[8 + n + begin:8 + n + end])]


def run(*command, **kw):
    p = subprocess.run(command, capture_output=True, text=True, timeout=300, **kw)
    if p.returncode:
        raise AssertionError(f"{shlex.join(command)} exited with {p.returncode}\n{p.stdout}{p.stderr}")
    return p.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.root = os.path.join(cls.folder.name, "root")
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", cls.root)
        cls.env = {**os.environ, "PKG_CONFIG_SYSROOT_DIR": cls.root,
                   "PKG_CONFIG_PATH": os.path.dirname(cls.find("octavo.pc"))}
        cls.env["LD_LIBRARY_PATH"] = os.path.dirname(cls.find("liboctavo.so"))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def find(cls, name):
        found = [os.path.join(d, name) for d, _, names in os.walk(cls.root) if name in names]
        assert len(found) == 1, f"{name} installed as {found}"
        return found[0]

    def pkg_config(self, *args):
        return shlex.split(run("pkg-config", *args, "octavo", env=self.env))

    def test_example(self):
        program = os.path.join(self.folder.name, "generate")
        run(*shlex.split(os.environ.get("CC", "cc")), os.path.join(SOURCE, "examples", "generate.c"), "-o", program,
            *FLAGS, *self.pkg_config("--cflags", "--libs"))
        libraries = run("ldd", program, env=self.env)
        self.assertIn(self.find("liboctavo.so") + ".", libraries)
        prompt, want = read_ids("greedy.prompt"), read_ids("greedy.tokens")
        out = run(program, MODEL, str(len(want)), *prompt, env=self.env).splitlines()
        self.assertRegex(out[-1], "^finish_reason: (length|stop)$")
        got = [line.split("\t")[0] for line in out[:-1]]
        self.assertEqual(got, want[:len(got)])  # an EOS id may end it early
        self.assertTrue(len(got) == len(want) or out[-1] == "finish_reason: stop")

    def test_example_says_what_is_wrong(self):
        program = os.path.join(BUILD, "examples", "generate")
        for args, word in [(["/no/such/folder", "1", "1"], "/no/such/folder"), ([MODEL, "1", "99999"], "prompt"),
                           ([MODEL, "0", "1"], "MAX_TOKENS")]:
            p = subprocess.run([program, *args], capture_output=True, text=True, timeout=300)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(word, p.stderr)

    def test_header_in_cpp(self):
        source = os.path.join(self.folder.name, "header.cpp")
        with open(source, "w", encoding="utf-8") as f:
            f.write("#include <octavo/octavo.h>\nint main() { return octavo_version() == nullptr; }\n")
        run("c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", source, *self.pkg_config("--cflags"))

    def test_program_and_model(self):
        run(self.find("octavo"), "version", env=self.env)
        models = glob.glob(os.path.join(self.root, "**", "octavo", "models", "*", "config.json"), recursive=True)
        self.assertEqual(len(models), 1, models)


if __name__ == "__main__":
    unittest.main()
