"""Folders of a user who has no home: in a container, with a user id that is in no list."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torchvision
from data_files import write_image_folder

from dora_train.data import check_data, load_data
from dora_train.data.cache import cache_folder
from dora_train.data.home import expanded, user_folder
from dora_train.data_error import DataError
from dora_train.networks.pretrained import downloaded


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No HOME, and no entry in passwd; the temporary folder is this one."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "DORA_TRAIN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DORA_TRAIN_DATA", raising=False)
    assert user_folder(".cache") == cache_folder() == tmp_path / ".cache" / "dora_train"
    assert cache_folder("~/mine") == expanded("~/mine") == tmp_path / "mine"


def test_images_are_packed_without_a_home(homeless: Path):
    write_image_folder(homeless / "images", {"train": {"cat": 60, "dog": 60}}, size=8)
    load_data("image_folder", 8, root=str(homeless / "images"), image_size=8)
    folder = homeless / f"dora_train-{os.getuid()}" / "cache" / "packed"
    assert len([path for path in folder.iterdir() if path.suffix != ".lock"]) == 1


@pytest.mark.parametrize(
    "keys",
    [
        {"root": "~/images"},
        {"root": "~nobody of this name/images"},
        {"root": ".", "folder": "~/cache"},
    ],
)
def test_a_path_below_a_home_that_there_is_not(
    keys: dict[str, str], homeless: Path, monkeypatch: pytest.MonkeyPatch
):
    """Python leaves such a path as it is: a folder called "~" would be made."""
    write_image_folder(homeless, {"train": {"cat": 60, "dog": 60}}, size=8)
    monkeypatch.chdir(homeless)
    with pytest.raises(DataError, match=r'"~.*" has no home folder here\. Write the whole path\.'):
        check_data("image_folder", 8, **keys)
        load_data("image_folder", 8, image_size=8, **keys)  # type: ignore[arg-type]
    assert not (homeless / "~").exists()


def test_a_folder_that_another_user_has_made(homeless: Path, monkeypatch: pytest.MonkeyPatch):
    (homeless / "dora_train-99").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 99)
    with pytest.raises(DataError, match="belongs to another user: set HOME"):
        user_folder(".cache")


def test_pretrained_have_a_place_without_a_home(homeless: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("torchvision.models.get_model", refuse)
    with pytest.raises(DataError, match=f"put the file into {homeless}/dora_train-"):
        downloaded("resnet18", torchvision.models.ResNet18_Weights.DEFAULT)
