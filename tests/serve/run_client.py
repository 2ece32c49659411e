#!/usr/bin/env python3
"""Runs the test of one official OpenAI client against the bundled model: run_client.py python|node BUILD_DIR.

The client is installed into BUILD_DIR (a virtual environment, or node_modules) the first time. Exits 77, which Meson
counts as skipped, when it cannot be installed.
"""
import os
import pathlib
import shutil
import subprocess
import sys

from harness import HERE, STORYTELLER, Server

OPENAI_PYTHON = "openai==3.54.0"
OPENAI_NODE = "openai@5.23.2"     # wants Node 20
OPENAI_NODE_18 = "openai@4.104.0"  # what Debian 12's own Node runs


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def install(command, what, **kw):
    try:
        r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, **kw)
    except (OSError, subprocess.TimeoutExpired) as e:
        skip(f"{what}: {e}")
    if r.returncode:
        print(r.stdout[-2000:])
        skip(f"{what} could not be installed")


def python_client(build):
    venv = build / "venv"
    python = venv / "bin" / "python"
    marker = venv / OPENAI_PYTHON
    if not marker.exists():
        install([sys.executable, "-m", "venv", "--clear", str(venv)], "venv")
        install([str(python), "-m", "pip", "install", "--quiet", OPENAI_PYTHON], OPENAI_PYTHON)
        marker.touch()
    return [str(python), str(HERE / "openai_client.py")]


def node_client(build):
    if not shutil.which("node") or not shutil.which("npm"):
        skip("there is no node or npm here")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=60).stdout
    package = OPENAI_NODE if int(version.lstrip("v").split(".")[0]) >= 20 else OPENAI_NODE_18
    folder = build / "node"
    marker = folder / package
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        install(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), package], package)
        marker.touch()
    script = folder / "openai_client.mjs"  # imports are looked up beside the script
    shutil.copy(HERE / "openai_client.mjs", script)
    return ["node", str(script)]


def main():
    client, build = sys.argv[1], pathlib.Path(sys.argv[2])
    command = {"python": python_client, "node": node_client}[client](build)
    with Server(STORYTELLER, "--served-model-name", "storyteller", "--api-key", "secret") as server:
        env = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{server.port}/v1", "OPENAI_API_KEY": "secret",
               "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        sys.exit(subprocess.run(command, env=env, timeout=120).returncode)


if __name__ == "__main__":
    main()
