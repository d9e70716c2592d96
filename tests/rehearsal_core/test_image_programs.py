"""Images without Docker: Dockerfiles are followed, the shim remembers, nothing unknown passes silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal import docker_shim
from rehearsal.images import ImageError, Images, read_dockerfile

CONTEXT = Path(__file__).resolve().parent / "app" / "image"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(docker_shim.STATE_VARIABLE, str(tmp_path))
    return tmp_path


def _dockerfile(folder: Path, text: str) -> Path:
    path = folder / "Dockerfile"
    path.write_text(text)
    return path


def test_should_run_the_program_that_a_container_would(state: Path) -> None:
    docker_shim.main(["build", "--tag", "probe", "--build-arg", "GREETING=hi", str(CONTEXT)])
    program = Images(state).program("probe")
    assert program.argv == [sys.executable, "-m", "program", "serve"]
    assert program.user == "1000"
    assert program.base == "python:3.12-slim"
    assert program.skipped == ("pip install --no-cache-dir numpy",)
    run = subprocess.run(
        program.argv,
        env={**os.environ, **program.env},
        cwd=program.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "hi serve\n"


def test_should_replace_the_command_and_keep_the_entry_point(state: Path) -> None:
    docker_shim.main(["build", "-t", "probe", str(CONTEXT)])
    program = Images(state).program("probe")
    assert program.entrypoint == [sys.executable, "-m", "program"]
    assert program.command == ["serve"]


def test_should_refuse_an_image_that_was_never_built(state: Path) -> None:
    docker_shim.main(["build", "-t", "probe", str(CONTEXT)])
    with pytest.raises(ImageError, match="image other was not built in this rehearsal; known: probe"):
        Images(state).program("other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY a b", "COPY stands before FROM"),
        ("FROM x\nONBUILD RUN y", "ONBUILD is not followed"),
        ("FROM x\nCOPY --from=build a b", "copying from another stage"),
        ("FROM x\nADD https://example.com/a b", "adding a URL is not followed"),
        ("FROM x\nCMD [1]", "exec form must be a list of strings"),
        ("FROM x\nCOPY a", "needs a source and a destination"),
        ("# nothing", "no FROM"),
    ],
)
def test_should_refuse_what_it_cannot_follow(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_dockerfile(_dockerfile(tmp_path, text))


def test_should_read_continued_lines_arguments_and_the_shell_form(tmp_path: Path) -> None:
    text = (
        'ARG TAG=3\nFROM python:${TAG}\nARG A=x\nENV B="${A}y" \\\n    C=${D:-z}\n'
        "WORKDIR /opt\nWORKDIR app\nCMD run me"
    )
    read = read_dockerfile(_dockerfile(tmp_path, text))
    assert read.base == "python:3"
    assert read.env == {"B": "xy", "C": "z"}
    assert str(read.workdir) == "/opt/app"
    assert read.command == ["/bin/sh", "-c", "run me"]


def test_should_copy_files_folders_and_patterns(tmp_path: Path, state: Path) -> None:
    context = tmp_path / "context"
    (context / "pkg").mkdir(parents=True)
    (context / "pkg" / "a.py").write_text("a")
    for name in ("one.txt", "two.txt"):
        (context / name).write_text(name)
    _dockerfile(
        context, "FROM x\nWORKDIR /app\nCOPY pkg ./pkg\nCOPY *.txt /data/\nCOPY one.txt /etc/other.txt\n"
    )
    docker_shim.main(["build", "-t", "copies", str(context)])
    root = Images(state).program("copies").root
    assert (root / "app/pkg/a.py").read_text() == "a"
    assert sorted(path.name for path in (root / "data").iterdir()) == ["one.txt", "two.txt"]
    assert (root / "etc/other.txt").read_text() == "one.txt"


@pytest.mark.parametrize("destination", [".", "./", "/opt/program", "/opt/program/"])
def test_should_copy_a_file_into_the_working_folder(tmp_path: Path, state: Path, destination: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "requirements.txt").write_text("numpy\n")
    _dockerfile(context, f"FROM scratch\nWORKDIR /opt/program\nCOPY requirements.txt {destination}\n")
    docker_shim.main(["build", "-t", "probe", str(context)])
    program = Images(state).program("probe")
    assert (program.cwd / "requirements.txt").read_text() == "numpy\n"


def test_should_refuse_to_copy_what_is_not_there_or_outside(tmp_path: Path, state: Path) -> None:
    for number, (source, message) in enumerate(
        [("nope", "nothing in"), ("../secret", "outside of the build context")]
    ):
        context = tmp_path / f"c{number}"
        context.mkdir()
        _dockerfile(context, f"FROM x\nCOPY {source} /a\n")
        docker_shim.main(["build", "-t", f"bad{number}", str(context)])
        with pytest.raises(ImageError, match=message):
            Images(state).program(f"bad{number}")


def test_should_remember_a_tag_and_say_whether_an_image_is_there(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker_shim.main(["build", "-t", "asset", str(CONTEXT)])
    docker_shim.main(["tag", "asset", "1.dkr.ecr/repo:tag"])
    docker_shim.main(["inspect", "1.dkr.ecr/repo:tag"])
    assert capsys.readouterr().out == "[{}]\n"
    images = json.loads((state / "images.json").read_text())
    assert images["1.dkr.ecr/repo:tag"]["context"] == str(CONTEXT)
    with pytest.raises(SystemExit, match="no such image: nope"):
        docker_shim.main(["inspect", "nope"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "x"], "docker run: not answered by the rehearsal"),
        (["push", "a/b:c"], "was not built or tagged"),
        (["build", "--target", "t", str(CONTEXT)], "--target is not followed"),
        (["build", "-f", "Nope", str(CONTEXT)], "no Nope in"),
        (["tag", "a", "b"], "no such image: a"),
    ],
)
def test_should_refuse_what_docker_would_have_to_do(state: Path, command: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        docker_shim.main(command)


def test_should_refuse_to_run_outside_of_a_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(docker_shim.STATE_VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="is not set"):
        docker_shim.main(["build", "."])
