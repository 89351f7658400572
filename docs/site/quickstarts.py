"""Types what the front page of the built site prints, for each language, in a new folder.

    python quickstarts.py SITE

The Python runs in a new environment with the wheel that `make build-python` made for this
interpreter, where a reader builds it by the command that is printed; the Rust in a new crate that
depends on this one by its path; the C after `make install` into a folder, with the printed command.
"""

import os
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Tabs(HTMLParser):
    """The tabs of the front page: of each its commands (code in text), and its program."""

    def __init__(self, text):
        super().__init__()
        self.languages, self.commands, self.programs = [], [], []
        self.open = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        classes = dict(attrs).get("class") or ""
        if tag == "label" and "sd-tab-label" in classes:
            self.open = ""
        elif tag == "div" and "sd-tab-content" in classes:
            self.commands.append([])
        elif len(self.commands) > len(self.programs) and tag in ("code", "pre"):
            self.open = ""

    def handle_data(self, text):
        if self.open is not None:
            self.open += text

    def handle_endtag(self, tag):
        if self.open is None or tag not in ("label", "code", "pre"):
            return
        if tag == "label":
            self.languages.append(self.open.strip())
        elif tag == "code":
            self.commands[-1].append(self.open)
        else:
            self.programs.append(self.open)
        self.open = None


def run(command, folder, **environment):
    """Runs a command, and returns what it prints; fails if it fails."""
    print(f"$ {command}", flush=True)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
    return done.stdout


def python(folder, commands, program):
    assert commands == ["pip install ./bindings/python"], commands
    wheels = ROOT / "target/python/wheels/{}.{}".format(*sys.version_info)
    run(f"{sys.executable} -m venv environment", folder)
    run(f"environment/bin/pip install --quiet --no-index {wheels}/*.whl", folder)
    (folder / "quickstart.py").write_text(program)
    assert "<html>/index <html>/index CacheInfo(hits=1, misses=1" in run("environment/bin/python quickstart.py", folder)


def rust(folder, commands, program):
    [dependency] = commands
    assert dependency == 'hotset = { path = "hotset" }', dependency
    run("cargo init --quiet --bin --vcs none --name quickstart .", folder)
    (folder / "hotset").symlink_to(ROOT)
    manifest = folder / "Cargo.toml"
    manifest.write_text(f"{manifest.read_text()}{dependency}\n")
    (folder / "src/main.rs").write_text(program)
    # (With the dependencies' versions of this workspace, which are on the disk.)
    (folder / "Cargo.lock").write_bytes((ROOT / "Cargo.lock").read_bytes())
    assert "Stats" in run("cargo run --quiet", folder, CARGO_TARGET_DIR=str(ROOT / "target/quickstarts"))


def c(folder, commands, program):
    install, compile_it = commands
    assert install == "make install", commands
    (folder / "quickstart.c").write_text(program)
    run(f"{install} --quiet PREFIX={folder}/usr", ROOT)
    there = {"PKG_CONFIG_PATH": ":".join(str(path.parent) for path in folder.rglob("hotset.pc")), "LD_LIBRARY_PATH": ":".join({str(path.parent) for path in folder.rglob("libhotset.so*")})}
    run(compile_it, folder, **there)
    assert run("./a.out", folder, **there) == "<html>\n"


def main(site):
    tabs = Tabs((site / "index.html").read_text())
    assert tabs.languages == ["Python", "Rust", "C"], tabs.languages
    for language, commands, program in zip(tabs.languages, tabs.commands, tabs.programs, strict=True):
        print(f"== {language}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            {"Python": python, "Rust": rust, "C": c}[language](Path(folder), commands, program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
