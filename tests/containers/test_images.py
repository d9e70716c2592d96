"""The images as Docker would build them: their files, their versions, their imports."""

from __future__ import annotations

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from container_support import ROOT
from packaging.requirements import Requirement

CONTAINERS = ROOT / "containers"
IMAGES = ("batch", "monitoring", "processing", "serving", "training", "training_torch")
#: Where the images run.
ENVIRONMENT = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.12.0",
    "python_version": "3.12",
    "sys_platform": "linux",
}
#: What a laptop has another build of, or has no use for (docs/decisions/0005).
OTHER_BUILDS = {"xgboost": "xgboost-cpu"}
NOT_LOCKED = {"nvidia-nccl-cu12", "torch"}
#: Packages whose modules have another name.
MODULES = {
    "scikit-learn": "sklearn",
    "imbalanced-learn": "imblearn",
    "python-dateutil": "dateutil",
    "xgboost-cpu": "xgboost",
}


def requirements(path: pathlib.Path) -> dict[str, str]:
    """Return the pinned version of every requirement that holds in the images' environment."""
    found = {}
    for line in path.read_text().splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            requirement = Requirement(line.rstrip(" \\"))
            if requirement.marker is None or requirement.marker.evaluate(ENVIRONMENT):
                (specifier,) = requirement.specifier
                assert specifier.operator == "==", line
                found[requirement.name.lower().replace("_", "-")] = specifier.version
    return found


def instructions(image: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile."""
    lines = (CONTAINERS / image / "Dockerfile").read_text().splitlines()
    return [
        (word, rest.strip())
        for line in lines
        if line and not line.startswith("#")
        for word, _, rest in [line.partition(" ")]
    ]


def copied(image: str) -> list[pathlib.Path]:
    """Return what COPY takes, by where image_context finds it."""
    parts = (CONTAINERS / image, CONTAINERS / "shared", ROOT / "glue", ROOT / "contract")
    places = (*parts, ROOT / "lambda")
    found = []
    for word, rest in instructions(image):
        if word == "COPY":
            source, _ = rest.split()
            (path,) = [place / source for place in places if (place / source).exists()]
            found.append(path)
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_should_pin_what_the_project_locks(image: str) -> None:
    lock = requirements(ROOT / "requirements.txt")
    pinned = requirements(CONTAINERS / image / "requirements.txt")
    assert pinned
    for name, version in pinned.items():
        if name not in NOT_LOCKED:
            assert (name, version) == (name, lock[OTHER_BUILDS.get(name, name)])


def imports(folder: pathlib.Path) -> set[str]:
    """Return the top-level modules that a package imports when its modules are loaded."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text())
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in guarded:
                continue
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_should_install_what_its_program_imports(image: str) -> None:
    pinned = requirements(CONTAINERS / image / "requirements.txt")
    installed = {MODULES.get(name, name).replace("-", "_") for name in pinned}
    packages = {path.name for path in copied(image) if path.is_dir()}
    missing = (
        imports(CONTAINERS / image / f"ml_{image}") - installed - packages - set(sys.stdlib_module_names)
    )
    assert missing == set()


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_should_import_nothing_that_it_does_not_install(image: str, tmp_path: pathlib.Path) -> None:
    """Load every module of the program from its staged context, with only its requirements to be found."""
    for path in copied(image):
        if path.is_dir():
            shutil.copytree(path, tmp_path / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    pinned = requirements(CONTAINERS / image / "requirements.txt")
    others = {"google", "torchgen", "functorch"}
    installed = sorted({MODULES.get(name, name).replace("-", "_") for name in pinned} | others)
    program = f"""
import importlib, pathlib, sys
allowed = set({installed!r}) | set(sys.stdlib_module_names)
own = {{path.name for path in pathlib.Path.cwd().iterdir()}}
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top not in allowed and top not in own and not top.startswith('_'):
            raise ModuleNotFoundError(f'not in the image: {{name}}', name=name)
sys.meta_path.insert(0, Gate())
for path in sorted(pathlib.Path('ml_{image}').rglob('*.py')):
    if path.name != '__main__.py':
        importlib.import_module('.'.join(path.with_suffix('').parts).removesuffix('.__init__'))
importlib.import_module('ml_{image}.__main__')
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_should_start_its_own_program_from_where_it_is_copied(image: str) -> None:
    found = instructions(image)
    assert found[0][0] == "FROM"
    assert ":3.12-slim" in found[0][1]
    assert ("ENTRYPOINT", f'["python", "-m", "ml_{image}"]') in found
    assert next(rest for word, rest in found if word == "ENV").startswith("PYTHONPATH=/opt/program ")
    for word, rest in found:
        if word == "COPY" and "requirements" not in rest:
            source, target = rest.split()
            assert target == f"/opt/program/{source}"
    assert {path.name for path in copied(image)} >= {"requirements.txt", "ml_contract", f"ml_{image}"}
    # Layers of packages come before layers of code: a changed line of ours installs nothing again.
    order = [word + rest for word, rest in found]
    assert next(i for i, line in enumerate(order) if "pip install" in line) < next(
        i for i, line in enumerate(order) if "ml_contract" in line
    )


@pytest.mark.parametrize("image", IMAGES)
def test_should_copy_every_shared_package_that_it_imports(image: str) -> None:
    shared = {path.name for path in (CONTAINERS / "shared").iterdir() if path.is_dir()}
    copies = {path.name for path in copied(image)}
    needed = imports(CONTAINERS / image / f"ml_{image}") & shared
    for name in list(needed):
        needed |= imports(CONTAINERS / "shared" / name) & shared & needed
    assert needed <= copies


@pytest.mark.parametrize("image", IMAGES)
def test_should_run_as_root_as_sagemaker_asks(image: str) -> None:
    assert [rest for word, rest in instructions(image) if word == "USER"] == []


def test_should_load_no_pickle_anywhere() -> None:
    for path in CONTAINERS.rglob("*.py"):
        words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not words & {"pickle", "joblib", "dill", "cloudpickle"}, path
        assert not {"pickle", "joblib", "dill", "cloudpickle"} & imports(path.parent), path
