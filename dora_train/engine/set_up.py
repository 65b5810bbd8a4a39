"""Makes the environment of `make run`: uv where it is on the path, else venv and pip.

`python3 dora_train/engine/set_up.py FOLDER OPTIONS`, with the options of `pip install`. It runs
before anything is installed, so the standard library is all it has. uv does not read pip's
settings, so they are passed on. If uv has no word for one of them, pip is used.
"""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# settings of pip -> options of uv. Each value is one word, or several with spaces between them.
OPTIONS = {
    "index-url": "--index-url",
    "extra-index-url": "--extra-index-url",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "timeout": "UV_HTTP_TIMEOUT"}
VARIABLES["default-timeout"] = VARIABLES["timeout"]
# settings of pip that change nothing of what uv installs
WITHOUT_EFFECT = {
    "break-system-packages",
    "cache-dir",
    "debug",
    "disable-pip-version-check",
    "no-cache-dir",
    "no-color",
    "no-input",
    "no-warn-script-location",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "retries",
    "root-user-action",
    "verbose",
}
# options of pip that uv takes as well
SHARED = {"-c", "-f", "-i", "-r", "--constraint", "--extra-index-url", "--find-links"}
SHARED |= {"--index-url", "--no-index", "--requirement", "--upgrade", "-U"}
LAST = 15  # lines of the output that are shown if the installation failed


def main(folder: Path, options: Sequence[str]) -> None:
    """Make the environment unless it is there, and install into it.

    Raises:
        SystemExit: it could not be made, or not be installed into. The reason is printed.
    """
    uv = shutil.which("uv")
    # An environment without pip is half-made, unless uv made it.
    if not (folder / "bin/python").exists() or not (uv or (folder / "bin/pip").exists()):
        make(folder, uv)
    python, name = str(folder / "bin/python"), "pip"
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", *options]
    if uv:
        settings, variables, unknown = of_uv(settings_of_pip(python), options)
        if unknown:
            print(f"uv has no word for {unknown}: pip installs", flush=True)
        else:
            # As pip does: all indexes count, and modules are compiled once and not at each start.
            alike = ["--index-strategy", "unsafe-best-match", "--compile-bytecode"]
            command = ["env", *variables, uv, "pip", "install", "--python", python, *alike]
            command, name = [*command, *settings, *options], "uv"
    install(command, name)


def make(folder: Path, uv: str | None) -> None:
    """Make a virtual environment with pip in it.

    Raises:
        SystemExit: it could not be made. Nothing of it is left, so the next call begins anew.
    """
    command = [sys.executable, "-m", "venv", str(folder)]
    if uv:
        command = [uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(folder)]
    was_there = folder.exists()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except BaseException:  # Ctrl-C
        _remove_unless(was_there, folder)
        raise
    if done.returncode == 0:
        return
    _remove_unless(was_there, folder)
    if "ensurepip" in done.stdout:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        sys.exit(
            f"{sys.executable} has no ensurepip, which makes a virtual environment.\n"
            f"on Debian and Ubuntu: apt-get install {package}, and the same command again"
        )
    sys.exit(f"{done.stdout.strip()}\nthe environment {folder} could not be made.")


def _remove_unless(was_there: bool, folder: Path) -> None:
    if not was_there:
        shutil.rmtree(folder, ignore_errors=True)


def settings_of_pip(python: str) -> dict[str, str]:
    """The settings of pip by their names, from its files and from the environment."""
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return settings_in(done.stdout)


def settings_in(text: str) -> dict[str, str]:
    """The settings in lines such as `global.index-url='https://...'`.

    `install.KEY` counts more than `global.KEY`, and `:env:.KEY` more than both.
    """
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section not in ("global", "install", ":env:") or not value:
            continue
        rank = ("global", "install", ":env:").index(section)
        if rank >= found.get(key, (0, ""))[0]:
            found[key] = rank, _unquoted(value)
    return {key: value for key, (_, value) in found.items()}


def _unquoted(value: str) -> str:
    """A value as pip prints it: Python's `repr` of a text, which may have several lines."""
    try:
        return " ".join(str(ast.literal_eval(value)).split())
    except (ValueError, SyntaxError):
        return " ".join(shlex.split(value))


def of_uv(settings: dict[str, str], options: Sequence[str]) -> tuple[list[str], list[str], str]:
    """pip's settings in the words of uv.

    Args:
        options: those of the command. They count more than the settings.

    Returns:
        (options, environment variables as `NAME=VALUE`, a setting or option that uv does not have).
    """
    words: list[str] = []
    variables: list[str] = []
    for option in options:
        name = option.partition("=")[0]
        if name.startswith("-") and name not in SHARED:
            return [], [], name
    for key, value in settings.items():
        if key == "index-url" and {"-i", "--index-url"} & {o.partition("=")[0] for o in options}:
            continue
        if key in OPTIONS:
            for word in value.split():
                words += [OPTIONS[key], word]
        elif key in VARIABLES:
            variables.append(f"{VARIABLES[key]}={value}")
        elif key == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            words.append("--no-index")
        elif key not in WITHOUT_EFFECT and key != "no-index":
            return [], [], f"pip's setting {key}"
    return words, variables, ""


def install(command: Sequence[str], name: str) -> None:
    """Run a command that installs, with its progress in one line.

    Raises:
        SystemExit: it failed. The end of its output is printed.
    """
    began, lines = time.monotonic(), ["no output"]
    on_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns or 80  # Python 3.10 says 0 if it is not known
    print(f"installing with {name} ...", end="" if on_terminal else "\n", flush=True)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if on_terminal and line.strip():
                text = f"installing with {name}: {line.strip()}"
                print("\r\x1b[K" + text[: width - 1], end="", flush=True)
    if on_terminal:
        print("\r\x1b[K", end="")
    if process.returncode:
        print("\n".join(lines[-LAST:]))
        sys.exit(f"{name} could not install: {shlex.join(command)}")
    print(f"installed with {name} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit(130)
