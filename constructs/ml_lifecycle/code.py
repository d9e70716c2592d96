"""Where the code that the constructs deploy comes from, and how it becomes build contexts and zips.

A build context is staged: files from several places are gathered in one folder that an asset can point at.
The folder's name holds the hash of its content, so equal input is equal output on every machine, and
staging the same context for three environments happens once.

In a checkout the code stands at the repository's root (``lambda/``, ``glue/``, ``containers/``) and is
staged under ``build/staged``; in an installed wheel it stands in ``ml_lifecycle/_code/`` and is staged
under the user's temporary folder.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import ml_contract

if TYPE_CHECKING:
    from ml_contract.compiled import CompiledContract

_PACKAGED = Path(__file__).resolve().parent / "_code"
_CHECKOUT = Path(__file__).resolve().parents[2]
#: Never deployed: caches, tests and what editors leave.
_EXCLUDED_FOLDERS = frozenset(
    {"__pycache__", "tests", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
)
_EXCLUDED_SUFFIXES = frozenset({".pyc", ".pyo", ".swp", ".orig"})
#: What stands beside a function's package in its build context.
_IMAGE_FILES = ("Dockerfile", "requirements.txt")


def code_root(kind: str) -> Path:
    """Return the folder that holds ``lambda``, ``glue`` or ``containers``; raise when it does not exist."""
    root = (_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT) / kind
    if not root.is_dir():
        raise ValueError(
            f"code folder must exist, got {root}; install ml-lifecycle from its wheel or work in a checkout"
        )
    return root


def staged(name: str, parts: Mapping[str, Path | str]) -> Path:
    """Gather ``parts`` in one folder and return it.

    ``parts`` maps a path inside the folder to what stands there: a ``Path`` of a file or folder, or a text.
    The folder is named by its content, complete when it appears (a rename), and put right when somebody
    changed it.
    """
    files = dict(_files(parts))
    digest = hashlib.sha256()
    for path, content in sorted(files.items()):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    folder = _staging_root() / f"{name}-{digest.hexdigest()[:16]}"
    if _holds(folder, files):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    for path, content in files.items():
        target = building / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    building.chmod(0o755)
    _take_place(building, folder, files)
    return folder


@functools.cache
def image_context(image: str) -> Path:
    """Stage the build context of ``containers/<image>``.

    Beside its content stand ``ml_contract`` and those packages of ``containers/shared`` and ``glue``, and
    ``lambda/function_log``, that the Dockerfile copies, no others: a change of a package that it does not use
    must not make a new image.
    """
    root = code_root("containers")
    source = _existing(root, image)
    copied = _copied(source / "Dockerfile")
    log = _existing(code_root("lambda"), "function_log")
    packages = {**_children(code_root("glue")), **_children(root / "shared"), "function_log": log}
    shared = {name: path for name, path in packages.items() if name in copied}
    return staged(f"image-{image}", {**_children(source), **shared, "ml_contract": _contract_package()})


def lambda_context(
    function: str, contract: CompiledContract, extra: Mapping[str, Path | str] | None = None
) -> Path:
    """Stage the build context of a container-image function.

    It holds the Dockerfile, the function's package, ``ml_contract`` and ``contract.json``, the packages of
    ``lambda`` that the Dockerfile copies, and what is ``extra``.
    """
    return staged(
        f"lambda-{function}-{contract.name}",
        {
            **_image_parts(function),
            "ml_contract": _contract_package(),
            "contract.json": contract.to_json(),
            **(extra or {}),
        },
    )


def lake_lambda_context(function: str) -> Path:
    """Stage the build context of a container-image function that uses ``glue/lake_files``."""
    lake_files = _existing(code_root("glue"), "lake_files")
    return staged(f"lambda-{function}", {**_image_parts(function), "lake_files": lake_files})


def lambda_folder(function: str, files: Mapping[str, str]) -> Path:
    """Stage a function that reads ``files``, texts by name, which stand beside its package."""
    return staged(f"lambda-{function}", {**_imported_packages(function), **files})


@functools.cache
def lambda_package(function: str) -> Path:
    """Stage a function that needs nothing but its runtime: its package, and those of ours it imports."""
    return staged(f"lambda-{function}", _imported_packages(function))


@functools.cache
def glue_library() -> Path:
    """Stage what Glue jobs import (``--extra-py-files``): our packages, ``ml_contract`` and narwhals."""
    import narwhals

    return staged(
        "glue-library",
        {
            **_children(code_root("glue")),
            "ml_contract": _contract_package(),
            "narwhals": Path(narwhals.__file__).parent,
        },
    )


def glue_script(job: str, shell: str = "main") -> Path:
    """Return ``glue/<job>/main.py``, or its ``shell`` for another service than Glue."""
    return _existing(code_root("glue"), f"{job}/{shell}.py")


def training_script(workload: str, folder: Path, launch: Mapping[str, object]) -> Path:
    """Stage a workload's training program with the launcher that starts it: a zip of it is a program."""
    launcher = _existing(code_root("containers"), "shared") / "ml_script"
    return staged(
        f"script-{workload}",
        {
            **{f"program/{name}": part for name, part in _children(folder).items()},
            "__main__.py": launcher / "__main__.py",
            "launch.json": json.dumps(launch, sort_keys=True),
        },
    )


def contract_file(contract: CompiledContract) -> Path:
    """Stage the compiled contract as one JSON file and return the file."""
    return staged(f"contract-{contract.name}", {"contract.json": contract.to_json()}) / "contract.json"


def _contract_package() -> Path:
    return Path(ml_contract.__file__).resolve().parent


def _copied(dockerfile: Path) -> set[str]:
    """What a Dockerfile copies out of its build context."""
    return {line.split()[1] for line in dockerfile.read_text().splitlines() if line.startswith("COPY ")}


def _image_parts(function: str) -> dict[str, Path | str]:
    """Parts of an image function: its Dockerfile and requirements, the packages of ``lambda`` it copies."""
    root = code_root("lambda")
    folder = _existing(root, function)
    parts: dict[str, Path | str] = {name: folder / name for name in _IMAGE_FILES if (folder / name).exists()}
    for name, package in _children(root).items():
        if name in _copied(folder / "Dockerfile") and isinstance(package, Path):
            modules = _children(package).items()
            parts |= {f"{name}/{key}": path for key, path in modules if key not in _IMAGE_FILES}
    return parts


def _imported_packages(function: str) -> dict[str, Path | str]:
    """Return a function's package and every package of ``lambda`` that it imports, by name."""
    root = code_root("lambda")
    found: dict[str, Path | str] = {}
    wanted = [function]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = package = _existing(root, name)
            wanted += sorted(imports(package) & _children(root).keys())
    return found


def imports(package: Path) -> set[str]:
    """Top-level names that the modules of a package import."""
    names: set[str] = set()
    for module in package.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


def _existing(root: Path, name: str) -> Path:
    path = root / name
    if not path.exists():
        known = ", ".join(
            sorted(p.name for p in root.iterdir() if p.is_dir() and p.name not in _EXCLUDED_FOLDERS)
        )
        raise ValueError(
            f"{root.name} must be one of {known or 'nothing'}, got {name!r} ({path} does not exist)"
        )
    return path


def _children(folder: Path) -> dict[str, Path | str]:
    return {p.name: p for p in sorted(folder.iterdir()) if _deployed(p)}


def _deployed(path: Path) -> bool:
    return (
        path.name not in _EXCLUDED_FOLDERS
        and path.suffix not in _EXCLUDED_SUFFIXES
        and not path.name.endswith("~")
    )


def _files(parts: Mapping[str, Path | str]) -> Iterator[tuple[str, bytes]]:
    for destination, source in parts.items():
        if isinstance(source, str):
            yield destination, source.encode()
        elif source.is_file():
            yield destination, source.read_bytes()
        elif source.is_dir():
            for path in _walk(source):
                yield f"{destination}/{path.relative_to(source).as_posix()}", path.read_bytes()
        else:
            raise ValueError(
                f"a part must be an existing file or folder or a text, got {source} for {destination!r}"
            )


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not _deployed(path):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    if not folder.is_dir():
        return False
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return found.keys() == files.keys() and all(
        found[path].read_bytes() == content for path, content in files.items()
    )


def _take_place(building: Path, folder: Path, files: Mapping[str, bytes]) -> None:
    """Put ``building`` where ``folder`` is to be, unless another process has put the same content there.

    A folder that holds what it should is never moved or removed: somebody may be reading it. Only what a
    person changed is set aside, and that by a rename, so that no reader ever meets half a folder.
    """
    for _attempt in range(3):
        try:
            building.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return
        if _holds(folder, files):
            shutil.rmtree(building)
            return
        aside = Path(tempfile.mkdtemp(prefix=".changed-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process set it aside first
            folder.rename(aside / folder.name)
        shutil.rmtree(aside)
    raise RuntimeError(f"{folder} is changed by somebody while it is staged; stop that and run again")


def _staging_root() -> Path:
    if _PACKAGED.is_dir():
        return Path(tempfile.gettempdir()) / f"ml-lifecycle-{os.getuid()}"
    return _CHECKOUT / "build" / "staged"
