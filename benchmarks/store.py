"""Thousands of finished experiments for the benchmarks, made from one real run as a template:

`python benchmarks/store.py OUTPUTS COUNT`.

The experiments are those of the grid in `planning.py`. Each has the files that the real run left.
Its large files are links to those of the template, and its metrics differ a little.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
LARGE = (".ckpt", ".tar.gz", ".log", ".csv", ".yaml")


def overrides(index: int) -> list[str]:
    """Those of one experiment. There are six, and one is a choice of a group."""
    return [
        f"optim.lr={0.001 * (index + 1)!r}",
        f"seed={index % 7}",
        f"data={'cifar10' if index % 2 else 'mnist'}",
        f"data.batch_size={16 * (1 + index % 4)}",
        "optim.momentum=0.8",
        f"trainer.max_epochs={10 + index % 9}",
    ]


def template(out: Path, root: Path = ROOT) -> Path:
    """The folder of a real run of three epochs, which this trains."""
    env = os.environ | {"DORA_DIR": str(out), "DORA_QUEUE": f"{out}/queue"}
    dora = Path(sys.executable).with_name("dora")
    words = [str(dora), "run", "trainer.max_epochs=3"]
    subprocess.run(words, cwd=root, env=env, check=True, stdout=subprocess.DEVNULL)
    return next((out / "xps").iterdir())


def fill(out: Path, made: Path, argvs: Iterable[list[str]], grid: str = "") -> list[str]:
    """Make a finished experiment for each list of overrides, and return their signatures.

    Args:
        made: the folder of the template.
        grid: the grid that names them. Empty: none.
    """
    from dora_train.train import main

    files: dict[str, Any] = {}
    linked = []
    for path in sorted(made.rglob("*")):
        name = str(path.relative_to(made))
        if path.suffix == ".json" and "birth" not in name and "argv" not in name:
            files[name] = json.loads(path.read_text())
        elif path.is_file() and (name.endswith(LARGE) or "tfevents" in name or ".gz" in name):
            linked.append(name)
    sigs = []
    for index, argv in enumerate(argvs):
        xp = main.get_xp(argv)
        folder = out / "xps" / xp.sig
        for name in ("attempts", "code"):
            (folder / name).mkdir(parents=True)
        for name in linked:
            os.link(made / name, folder / name)
        contents = files | _with_metrics(files, 0.001 * math.sin(index))
        contents["birth.json"] = asdict(main._birth(xp))
        contents[".argv.json"] = list(xp.argv)
        for name, content in contents.items():
            if name == "attempts/1.json":
                (folder / name).touch()
                inode = (folder / name).stat().st_ino
                content = {**content, "folder": str(folder.absolute()), "inode": inode}
            (folder / name).write_text(json.dumps(content) + "\n")
        if grid:
            link = out / "grids" / grid / xp.sig
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"../../xps/{xp.sig}")
        sigs.append(xp.sig)
    return sigs


def _with_metrics(files: dict[str, Any], change: float) -> dict[str, Any]:
    """The files that hold metrics, with the accuracy of validation and test changed a little."""
    found = json.loads(json.dumps({name: files[name] for name in ("history.json", "result.json")}))
    for entry in found["history.json"]:
        entry["valid"]["acc"] += change
    found["result.json"]["best"]["acc"] += change
    found["result.json"]["test"]["acc"] += change
    return found


def main() -> None:
    out, count = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    os.environ |= {"DORA_DIR": str(out), "DORA_QUEUE": f"{out}/queue"}
    os.chdir(ROOT)
    made = template(out.with_name(f"{out.name}.template"))
    fill(out, made, map(overrides, range(count)), "big")


if __name__ == "__main__":
    main()
