"""Unpacking a model archive that somebody else could have made."""

from __future__ import annotations

import io
import pathlib
import tarfile

import pytest
from ml_runtime import archive
from ml_runtime.job import BadInputError


def make(path: pathlib.Path, *members: tuple[tarfile.TarInfo, bytes]) -> pathlib.Path:
    """Write an archive of the members."""
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, kind: bytes, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info, b""


def test_should_unpack_files(tmp_path: pathlib.Path) -> None:
    made = make(
        tmp_path / "model.tar.gz", (tarfile.TarInfo("model.onnx"), b"1"), (tarfile.TarInfo("a/b"), b"2")
    )
    archive.unpack(made, tmp_path / "out")
    assert (tmp_path / "out/model.onnx").read_bytes() == b"1"
    assert (tmp_path / "out/a/b").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
def test_should_not_write_outside(tmp_path: pathlib.Path, name: str) -> None:
    made = make(tmp_path / "model.tar.gz", (tarfile.TarInfo(name), b"x"))
    target = tmp_path / "in" / "out"
    if name.startswith("/"):
        # The filter makes an absolute name a relative one.
        archive.unpack(made, target)
        assert (target / "tmp/evil").exists()
    else:
        with pytest.raises(BadInputError, match="outside its folder"):
            archive.unpack(made, target)
    assert not (tmp_path / "in/evil").exists()
    assert not pathlib.Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_should_refuse_what_is_no_file(tmp_path: pathlib.Path, kind: bytes) -> None:
    made = make(tmp_path / "model.tar.gz", link("model.onnx", kind, "/etc/passwd"))
    with pytest.raises(BadInputError, match="no plain file"):
        archive.unpack(made, tmp_path / "out")


def test_should_refuse_too_much(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(
        tmp_path / "model.tar.gz", (tarfile.TarInfo("a"), b"x" * 600), (tarfile.TarInfo("b"), b"x" * 600)
    )
    monkeypatch.setattr(archive, "SIZE_LIMIT", 1000)
    with pytest.raises(BadInputError, match="more than 1000 bytes"):
        archive.unpack(made, tmp_path / "out")
    monkeypatch.setattr(archive, "SIZE_LIMIT", 10_000)
    monkeypatch.setattr(archive, "FILES_LIMIT", 1)
    with pytest.raises(BadInputError, match="or 1 files"):
        archive.unpack(made, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_should_say_that_an_archive_is_damaged(tmp_path: pathlib.Path, damage: str) -> None:
    made = make(tmp_path / "model.tar.gz", (tarfile.TarInfo("a"), bytes(range(256)) * 40))
    whole = made.read_bytes()
    made.write_bytes({"cut": whole[: len(whole) // 2], "noise": b"\x00" * 500, "empty": b""}[damage])
    with pytest.raises(BadInputError, match=r"no readable tar\.gz"):
        archive.unpack(made, tmp_path / "out")
