"""Staging of deployed code: equal input, equal folder; complete; nothing that does not belong."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from data_support import parcels
from ml_lifecycle import code


def test_should_give_the_same_folder_for_the_same_content_and_another_for_another(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    first = code.staged("sample", {"p": tmp_path, "note.txt": "hello"})
    assert code.staged("sample", {"note.txt": "hello", "p": tmp_path}) == first
    assert (first / "p/a.py").read_text() == "x = 1\n"
    assert (first / "note.txt").read_text() == "hello"
    (tmp_path / "a.py").write_text("x = 2\n")
    assert code.staged("sample", {"p": tmp_path, "note.txt": "hello"}) != first


def test_should_mend_a_folder_that_somebody_changed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("mend = 1\n")
    folder = code.staged("mended", {"p": tmp_path})
    (folder / "p/a.py").write_text("broken")
    (folder / "extra").write_text("left over")
    assert code.staged("mended", {"p": tmp_path}) == folder
    assert (folder / "p/a.py").read_text() == "mend = 1\n"
    assert not (folder / "extra").exists()


_STAGE_AND_READ = """
import pathlib, sys
from ml_lifecycle import code
source, name = pathlib.Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
folder = code.staged(name, {"p": source})
for _ in range(50):
    assert [p.read_text() for p in sorted((folder / "p").iterdir())] == [str(n) for n in range(100, 200)]
"""


def test_should_never_take_a_folder_away_from_another_process_that_staged_the_same(tmp_path: Path) -> None:
    source, name = tmp_path / "source", f"shared-{uuid.uuid4().hex}"
    source.mkdir()
    for n in range(100, 200):
        (source / f"{n}.txt").write_text(str(n))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _STAGE_AND_READ, str(source), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait(timeout=60) for process in processes] == [0] * 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    (left,) = code.staged(name, {"p": source}).parent.glob(f"*{name}*")
    shutil.rmtree(left)


def test_should_leave_out_caches_and_tests(tmp_path: Path) -> None:
    for name in ("m.py", "__pycache__/m.pyc", "tests/test_m.py", "m.pyc", "m.py~"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    folder = code.staged("clean", {"p": tmp_path})
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["m.py"]


def test_should_refuse_a_part_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"existing file or folder or a text, got .*nowhere for 'p'"):
        code.staged("absent", {"p": tmp_path / "nowhere"})


def test_should_name_what_there_is_when_code_is_asked_for_that_is_not() -> None:
    with pytest.raises(ValueError, match=r"containers must be one of .*training.*, got 'imaginary'"):
        code.image_context("imaginary")


@pytest.mark.parametrize("image", ["batch", "processing", "training", "serving", "monitoring"])
def test_should_stage_every_image_with_its_dockerfile_and_the_contract_reader(image: str) -> None:
    context = code.image_context(image)
    assert (context / "Dockerfile").is_file()
    assert (context / "ml_contract/compiled.py").is_file()
    assert (context / f"ml_{image}/__main__.py").is_file()
    # Whatever the Dockerfile copies is there, from whichever folder of ours.
    for line in (context / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert (context / line.split()[1]).exists(), line


def test_should_stage_the_transform_with_the_compiled_contract(tmp_path: Path) -> None:
    contract = parcels(tmp_path).compiled
    context = code.lambda_context("record_transform", contract)
    assert (context / "Dockerfile").is_file()
    assert (context / "record_transform/handler.py").is_file()
    assert (context / "contract.json").read_text() == contract.to_json()
    assert code.contract_file(contract).read_text() == contract.to_json()


def test_should_stage_what_glue_jobs_import() -> None:
    library = code.glue_library()
    for module in ("curate", "build_features", "ml_contract", "narwhals"):
        assert (library / module / "__init__.py").is_file(), module
    for job in ("curate", "build_features"):
        assert code.glue_script(job).is_file()


def test_should_stage_a_zip_function_as_a_package_of_its_name() -> None:
    assert (code.lambda_package("retrain_trigger") / "retrain_trigger/handler.py").is_file()


def test_should_stage_with_a_function_the_packages_of_ours_that_it_imports() -> None:
    found = {p.name for p in code.lambda_package("mask_key").iterdir()}
    assert found == {"mask_key", "custom_resource"}
    folder = code.lambda_folder("retrain_trigger", {"rules.json": "{}"})
    assert {p.name for p in folder.iterdir()} >= {"retrain_trigger", "function_log", "rules.json"}


def test_should_copy_into_an_image_every_package_of_ours_that_its_function_imports() -> None:
    root = code.code_root("lambda")
    ours = {p.name for p in root.iterdir() if p.is_dir()}
    for dockerfile in root.glob("*/Dockerfile"):
        copied = {line.split()[1] for line in dockerfile.read_text().splitlines() if line.startswith("COPY ")}
        imported: set[str] = set()
        for package in copied & ours:
            imported |= code.imports(root / package) & ours
        assert imported <= copied, dockerfile
