#!/usr/bin/env python3
"""Installs into an empty folder, and does with what is there what its users do.

    test_install.py BUILD SOURCE [compiler flags]

 - examples/generate.c compiles with nothing but pkg-config's flags, runs, and prints the recorded greedy text
 - the header is C++ as well
 - the installed program runs and says the version that pkg-config says
"""
import glob
import json
import os
import shlex
import subprocess
import sys
import tempfile
import unittest

FLAGS = sys.argv[3:]
BUILD, SOURCE = sys.argv[1:3]
del sys.argv[1:]
MODEL = os.path.join(SOURCE, "models", "storyteller")


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
        with open(os.path.join(SOURCE, "tests", "golden", "storyteller-greedy.json"), encoding="utf-8") as f:
            case = json.load(f)[2]
        out = run(program, MODEL, case["prompt"], str(case["n"]), env=self.env)
        self.assertEqual(out, case["text"] + "\n[length]\n")

    def test_example_says_what_is_wrong(self):
        program = os.path.join(BUILD, "examples", "generate")
        for args, word in [(["/no/such/folder", "a"], "/no/such/folder"), ([MODEL, "a", "99999"], "max_tokens"),
                           ([MODEL, ""], "empty"), ([MODEL], "usage")]:
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
