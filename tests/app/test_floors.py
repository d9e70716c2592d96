"""Who may import whom: lower floors never import higher ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from cdk_support import ROOT
from ml_contract.load import load_workload


def packages(folder: str) -> set[str]:
    """Packages that stand in a folder."""
    return {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}


LAMBDAS = packages("lambda")
GLUE = packages("glue")
IMAGES = {
    package
    for image in sorted((ROOT / "containers").iterdir())
    for package in packages(f"containers/{image.name}")
}
OURS = (
    {
        "ml_contract",
        "ml_lifecycle",
        "cost",
        "delivery",
        "verify",
        "environments",
        "stacks",
        "rehearsal",
        "app",
        "benchmarks",
        "workloads",
    }
    | LAMBDAS
    | GLUE
    | IMAGES
)
#: Folder -> what of ours it may import.
FLOORS: dict[str, set[str]] = {
    "contract": {"ml_contract"},
    "workloads": {"ml_contract"},
    # One floor: functions and images may read the lake as jobs do.
    "lambda": {"ml_contract", "lake_files"} | LAMBDAS,
    "glue": {"ml_contract"} | GLUE,
    "flink": set(),
    # Jobs and images write the lines of functions.
    "containers": {"ml_contract", "function_log"} | IMAGES | GLUE,
    "constructs": {"ml_contract", "ml_lifecycle"},
    "environments": {"ml_contract", "ml_lifecycle", "environments"},
    "stacks": {"ml_contract", "ml_lifecycle", "environments", "stacks"},
    "cost": {"ml_contract", "cost"},
    "delivery": {"ml_contract", "cost", "delivery"},
    "verify": {"ml_contract", "verify"},
    "rehearsal": {"ml_contract", "rehearsal"},
    "examples": {"ml_contract", "ml_lifecycle", "environments", "stacks"},
}
#: Rooms of the contract, the lower ones first: none imports one that stands after it.
RUNTIME_ROOMS = ("records", "made_up", "windows", "features", "quality", "algorithms")
ROOMS = (*RUNTIME_ROOMS, "spec", "extracts", "checks", "reading", "evolution", "load", "commands", "__main__")
#: What every room may read, in the order in which they read each other.
BESIDE = ("problems", "expressions", "compiled")
#: What runs in an account reads the compiled contract: neither the CDK nor what reads YAML.
RUNTIME = ("lambda", "glue", "containers")
NEVER_AT_RUNTIME = {"aws_cdk", "constructs", "pydantic", "ruamel", "yaml"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Top-level package of every import, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def sources(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if not {"__pycache__", "cdk.out"} & {*p.parts})


@pytest.mark.parametrize("floor", FLOORS)
def test_should_import_from_the_same_floor_or_below(floor: str) -> None:
    found = sources(floor)
    assert found, f"{floor} holds no source"
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in found
        for line, name in imports(path)
        if name in OURS - FLOORS[floor]
    ]
    assert wrong == []


@pytest.mark.parametrize("floor", RUNTIME)
def test_should_run_in_an_account_without_the_cdk_and_yaml(floor: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources(floor)
        for line, name in imports(path)
        if name in NEVER_AT_RUNTIME
    ]
    assert wrong == []


def contract_modules() -> Iterator[tuple[Path, str]]:
    """Every module of the contract and the room, or the name at the top, that it belongs to."""
    root = ROOT / "contract/ml_contract"
    for path in sources("contract/ml_contract"):
        yield path, path.relative_to(root).with_suffix("").parts[0]


def contract_imports(path: Path) -> Iterator[tuple[int, str]]:
    """The rooms that a module imports from, for types only included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        package, _, rest = node.module.partition(".")
        if package == "ml_contract":
            names = [rest] if rest else [alias.name for alias in node.names]
            yield from ((node.lineno, name.partition(".")[0]) for name in names)


def test_should_know_every_room_of_the_contract() -> None:
    assert {room for _, room in contract_modules()} == {*BESIDE, *ROOMS, "__init__"}
    said = (ROOT / "contract/ml_contract/__init__.py").read_text()
    places = [said.index(f"``{room}``") for room in (*BESIDE, *ROOMS)]
    assert places == sorted(places)


def test_should_look_down_from_room_to_room() -> None:
    order = (*BESIDE, *ROOMS)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, room in contract_modules()
        for line, name in contract_imports(path)
        if order.index(name) > order.index(room)
    ]
    assert wrong == []


def test_should_have_rooms_that_run_without_pydantic_and_yaml() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, room in contract_modules()
        if room in (*RUNTIME_ROOMS, *BESIDE)
        for line, name in imports(path)
        if name in NEVER_AT_RUNTIME
    ]
    assert wrong == []


def test_should_see_an_import_wherever_it_stands(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("def f():\n    from stacks.stage import LifecycleStage\n    import rehearsal.cdk\n")
    assert list(imports(source)) == [(2, "stacks"), (3, "rehearsal")]


def test_should_not_shadow_the_package_constructs() -> None:
    assert not (ROOT / "constructs" / "__init__.py").exists()
    import constructs

    assert "site-packages" in str(constructs.__file__)


def test_should_make_no_package_of_the_path_roots() -> None:
    for folder in ("lambda", "glue", "containers"):
        assert not (ROOT / folder / "__init__.py").exists(), folder


def test_should_keep_the_app_short() -> None:
    assert len((ROOT / "app.py").read_text().splitlines()) <= 40


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """Names and texts that a program acts on: no docstrings, no comments."""
    tree = ast.parse(path.read_text(), str(path))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_should_know_nothing_of_the_worked_example_outside_its_folder() -> None:
    example = {*load_workload(ROOT / "workloads/claims_fraud").workload.record.fields} | {"fraud"}
    # Words that other domains have too.
    example -= {"age"}
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for floor in FLOORS
        if floor != "workloads"
        for path in sources(floor)
        # The default of --workload is the example; AWS had a service of that name.
        if path not in (ROOT / "rehearsal/__main__.py", ROOT / "verify/tables/services.py")
        for line, text in spoken(path)
        for word in example
        if word in text.lower()
    ]
    assert wrong == []
