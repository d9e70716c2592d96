"""A workload.yaml that is wrong gets one clear error per problem, all in one pass."""

# ruff: noqa: E501 - a table of cases reads best with one case a line

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from ml_contract.__main__ import main
from ml_contract.compiled import CompiledContract
from ml_contract.extracts.json_schema import schema_text, workload_json_schema
from ml_contract.load import ContractError, LoadedWorkload, discover_workloads, load_workload
from ml_contract.spec.workload import Workload

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]

FIELD = "    flag: {type: string}\n"


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(ContractError) as caught:
        load_workload(folder)
    lines = str(caught.value).splitlines()
    assert lines == [str(p) for p in caught.value.problems]
    assert all(line.startswith(str(folder)) for line in lines)
    return [line.removeprefix(f"{folder}/") for line in lines]


def test_should_read_the_worked_example(claims: LoadedWorkload) -> None:
    contract = claims.compiled
    assert (len(contract.columns), contract.identifier, contract.event_time) == (
        39,
        "policy_number",
        "incident_date",
    )
    names = {f.name: f.type for f in contract.features}
    assert names["age_band"] == "category"
    assert names["vehicle_age_years"] == "number"
    left_out = {
        "umbrella_limit",
        "auto_model",
        "insured_zip",
        "incident_location",
        "insured_sex",
        "policy_bind_date",
    }
    assert left_out & set(names) == set()
    assert contract.label.values == ("N", "Y")
    assert claims.line_of("training.instance_type") == 1 + (
        (ROOT / "workloads/claims_fraud/workload.yaml")
        .read_text()
        .splitlines()
        .index("  instance_type: ml.m5.xlarge")
    )


def test_should_make_every_field_a_feature_that_may_be_one(workload_file: Write) -> None:
    contract = load_workload(workload_file()).compiled
    assert [(f.name, f.type) for f in contract.features] == [
        ("length", "number"),
        ("crew", "number"),
        ("flag", "category"),
        ("motor", "number"),
    ]


def test_should_take_a_protected_field_only_when_it_is_named(workload_file: Write) -> None:
    folder = workload_file(extra="features: {fields: [sex, length]}\n")
    assert [f.name for f in load_workload(folder).compiled.features] == ["length", "sex"]


def test_should_say_the_columns_of_the_lake_and_of_the_feature_store(workload_file: Write) -> None:
    contract = load_workload(workload_file()).compiled
    assert contract.glue_columns() == [
        ("hull", "string"), ("seen", "date"), ("length", "double"), ("crew", "bigint"), ("flag", "string"),
        ("home", "string"), ("sex", "string"), ("motor", "boolean"), ("built", "date"), ("left_at", "timestamp"),
        ("repair", "string"), ("record_id", "string"), ("received_at", "timestamp"),
    ]  # fmt: skip
    assert contract.feature_columns() == [
        ("hull", "string"), ("seen", "string"), ("repair", "string"),
        ("length", "double"), ("crew", "double"), ("flag", "string"), ("motor", "double"),
    ]  # fmt: skip
    assert dict(contract.feature_definitions())["crew"] == "Fractional"


def test_should_compile_to_the_same_bytes_and_back(claims: LoadedWorkload) -> None:
    text = claims.compiled.to_json()
    again = CompiledContract.from_json(text.encode())
    assert again.to_json() == text
    assert again.columns == claims.compiled.columns
    assert load_workload(claims.path).compiled.to_json() == text


def test_should_refuse_a_contract_of_another_version() -> None:
    with pytest.raises(ValueError, match="compiled contract of version 99; this reader knows version 1"):
        CompiledContract.from_json('{"version": 99}')


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "workload.yaml:1: empty; start with 'version: 1'"),
        (b"# nothing\n", "workload.yaml:1: empty"),
        (b"- a\n- b\n", "workload.yaml:1: a workload is a mapping of keys to values, got a list"),
        (
            b"just text\n",
            "workload.yaml:1: a workload is a mapping of keys to values, got the text 'just text'",
        ),
        (b"a: 1\nb: \xff\n", "workload.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"a: [1, 2\nb: 3\n", "workload.yaml:2: not YAML: "),
        (b"a: 1\n---\nb: 2\n", "workload.yaml:3: more than one YAML document; keep one"),
        (b"a: *nowhere\n", "workload.yaml:1: not YAML: found undefined alias"),
        (b"a: 1\n\tb: 2\n", "workload.yaml:2: not YAML: "),
    ],
)
def test_should_say_what_is_wrong_with_a_file_that_is_no_workload(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "workload.yaml").write_bytes(content)
    assert problems_of(tmp_path)[0].startswith(expected)


def test_should_say_that_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"nowhere\.yaml:1: no such file"):
        load_workload(tmp_path / "nowhere.yaml")


def test_should_report_yaml_and_schema_problems_together(workload_file: Write) -> None:
    folder = workload_file(
        ("title: Boats that need repair", "title: x"),
        (FIELD, FIELD + FIELD + "    ? [a, b]\n    : {type: string}\n"),
        extra="training: {rounds: .inf, spott: true}\nloop: &me [*me]\n",
    )
    assert problems_of(folder) == [
        "workload.yaml:3: title: got 'x'; at least 3 characters",
        "workload.yaml:14: record.fields.flag: written twice, first on line 13; keep one",
        "workload.yaml:15: record.fields: a key must be a text, got a list",
        "workload.yaml:25: training.rounds: got .inf; numbers are finite",
        "workload.yaml:25: training.spott: unknown key; did you mean spot?",
        f"workload.yaml:26: loop: unknown key; known here: {', '.join(sorted(Workload.model_fields))}",
        "workload.yaml:26: loop[0]: an alias that contains itself; write the value out",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: boats", "name: Boats", "2: name: got 'Boats'; lower-case letters, digits and _, a letter first, 2 to 32"),
        ("version: 1", "version: 2", "1: version: got 2; allowed: 1"),
        ("owner: harbour@example.com\n", "", "1: owner: is missing; add it (Who answers for it: a team or an address)"),
        ("{type: string}\n", "{type: strnig}\n", "13: record.fields.flag.type: got 'strnig'; allowed: integer, number, string, boolean, date, timestamp; did you mean string?"),
        ("maximum: 200", "maximum: abc", "11: record.fields.length.maximum: got 'abc'; a number is needed"),
        ("maximum: 200", "maximum: 0", "11: record.fields.length: minimum 1 is above maximum 0"),
        ("minimum: 0", "minimum: 0.5", "12: record.fields.crew.minimum: got 0.5; an integer field needs a whole number of 64 bits"),
        ("{type: string}\n", '{type: string, pattern: "["}\n', "13: record.fields.flag: pattern '[' is no regular expression: "),
        ("{type: string}\n", "{type: string, minimum: 1}\n", "13: record.fields.flag: minimum and maximum go with integer and number, not with string"),
        ("{type: string}\n", '{type: string, missing: ["?", "?"]}\n', "13: record.fields.flag.missing: got [\"?\", \"?\"], which names a text twice"),
        ("{type: string}\n", '{type: string, missing: [a], allowed: [a, b]}\n', "13: record.fields.flag.missing: 'a' is both allowed and missing"),
        ("{type: string}\n", "{type: string, source: length}\n", "13: record.fields.flag: reads the source field 'length', which length reads too"),
        ("    flag:", "    year:", "13: record.fields.year: Feature Store reserves the name year; rename the column and give source: year"),
        ("    flag:", "    record_id:", "13: record.fields.record_id: record_id is a column that delivery adds"),
        ("    flag:", "    Flag:", "13: record.fields.Flag: got 'Flag'; lower-case letters, digits and _, a letter first, 63 at most"),
        ("built: {type: date}", 'built: {type: date, format: "%H:%M"}', "17: record.fields.built.format: got '%H:%M'; a date needs year, month and day"),
        ("built: {type: date}", 'built: {type: date, format: "%Y-%Q"}', "17: record.fields.built.format: got '%Y-%Q'; %Q is not known"),
        ("identifier: hull", "identifier: hul", "6: record.identifier: got 'hul', which is no field of the record; did you mean hull?"),
        ("identifier: hull", "identifier: length", "6: record.identifier: length is number; allowed here: string or integer"),
        ("event_time: seen", "event_time: built", "17: record.fields.built: is the record's event_time, so it needs required: true"),
        ("event_time: seen", "event_time: flag", "7: record.event_time: flag is string; allowed here: date or timestamp"),
        ("field: repair", "field: repairs", "20: label.field: got 'repairs', which is no field of the record; did you mean repair?"),
        ("field: repair", "field: hull", "20: label.field: got 'hull', which is the identifier or the event time"),
        ("field: repair", "field: length", "20: label.field: length is number; a class label is string, integer or boolean"),
        ('values: ["no", "yes"]', 'values: ["no", "maybe"]', "20: label.values[1]: got 'maybe'; repair allows no, yes"),
        ('values: ["no", "yes"]', "values: [0, 1]", "20: label.values[0]: got 0; repair is string; put quotes around it"),
        ('values: ["no", "yes"]', 'values: ["no", "no"]', "20: label.values: got [\"no\", \"no\"], which names a class twice"),
        ("task: binary", "task: binery", "20: label: task: got 'binery'; allowed: binary, multiclass, regression; did you mean binary?"),
        ("metric: auc, at_least: 0.6", "metric: rmse, at_most: 3", "21: acceptance.metric: got 'rmse'; for a binary label: auc"),
        ("metric: auc, at_least: 0.6", "metric: auc, at_most: 3", "21: acceptance: auc is better when it is higher: give at_least"),
    ],
)  # fmt: skip
def test_should_point_at_the_line_and_name_the_fix(
    workload_file: Write, old: str, new: str, expected: str
) -> None:
    found = problems_of(workload_file((old, new)))
    assert any(line.startswith(f"workload.yaml:{expected}") for line in found), found


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("features: {fields: [lenght]}", "features.fields[0]: got 'lenght', which is no field of the record; did you mean length?"),
        ("features: {fields: [home]}", "features.fields[0]: got 'home', which is pii and never a feature; remove it"),
        ("features: {fields: [built]}", "features.fields[0]: got 'built', a date; derive date_part or days_between from it"),
        ("features: {fields: [repair]}", "features.fields[0]: got 'repair', which is the identifier, the event time or the label"),
        ("features: {exclude: [{field: flg, reason: why not}]}", "features.exclude[0].field: got 'flg', which is no field of the record; did you mean flag?"),
        ("features: {fields: [flag], exclude: [{field: flag, reason: why not}]}", "features: leaves no feature; name fields or derive some"),
        ("features: {derive: {length: {kind: ratio, numerator: crew, denominator: length}}}", "features.derive.length: length is a field of the record"),
        ("features: {derive: {month: {kind: date_part, field: seen, part: month}}}", "features.derive.month: month is reserved"),
        ("features: {derive: {r: {kind: ratio, numerator: flag, denominator: length}}}", "features.derive.r.numerator: flag is string; ratio takes integer or number"),
        ("features: {derive: {r: {kind: days_between, since: seen, until: length}}}", "features.derive.r.until: length is number; days_between takes date or timestamp"),
        ("features: {derive: {r: {kind: date_part, field: seen, part: hour}}}", "features.derive.r.field: seen is date; date_part takes timestamp"),
        ("features: {derive: {r: {kind: bin, field: length, edges: [3, 1], labels: [a]}}}", "features.derive.r: edges must rise, got [3.0, 1.0]"),
        ("features: {derive: {r: {kind: bin, field: length, edges: [1, 3], labels: [a, b]}}}", "features.derive.r: 2 edges make 1 labels, got 2"),
        ("features: {derive: {r: {kind: python, type: number}}}", "features.derive.r: kind python, but there is no features.py beside it; define FEATURES['r'] there"),
        ("monitoring: {ignore: [flagg]}", "monitoring.ignore[0]: got 'flagg', which is no field and no feature; did you mean flag?"),
        ("monitoring: {every_hours: 5}", "monitoring.every_hours: got 5; allowed: 1, 2, 3, 4, 6, 8, 12, 24"),
        ("training: {split: {train: 0.9}}", "training.split: train + validation + test must be 1, got 1.2"),
        ("serving: {capture_percent: 0}", "serving.capture_percent: got 0; at least 1 is allowed"),
        ("stream: {shards: 2}", "stream.shards: goes with mode: provisioned; remove it or set the mode"),
        ("batch: {rules: yes}", "batch.rules: got 'yes'; a list is needed"),
    ],
)  # fmt: skip
def test_should_check_what_holds_between_blocks(workload_file: Write, extra: str, expected: str) -> None:
    found = problems_of(workload_file(extra=extra + "\n"))
    assert any(line.startswith(f"workload.yaml:22: {expected}") for line in found), found


PYTHON = "features: {derive: {big: {kind: python, type: number}}}\n"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("FEATURES = {", "features.py:1: is not Python: '{' was never closed"),
        ("import os\n\nraise RuntimeError('no luck')\n", "features.py:3: raises RuntimeError: no luck"),
        ("import sys\nsys.exit(1)\n", "features.py:2: raises SystemExit: 1"),
        ("import nothing_like_this\n", "features.py:1: raises ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("X = 1\n", "features.py:1: must define FEATURES as a dict from feature name to expression, got nothing"),
        ("FEATURES = [1]\n", "features.py:1: must define FEATURES as a dict from feature name to expression, got list"),
        ("FEATURES = {'big': 3}\n", "features.py:1: FEATURES['big']: got int; an expression is needed"),
        ("from ml_contract.expressions import col\nFEATURES = {\n 'big': col('lenght') > 3,\n}\n", "features.py:3: FEATURES['big']: uses 'lenght', which is no field of the record; did you mean length?"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': col('flag')}\n", "features.py:2: FEATURES['big']: is string, declared as type: number"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': col('flag') + 1}\n", "features.py:2: FEATURES['big']: add takes number, got string; use .cast('number')"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': 1 if col('length') > 1 else 0}\n", "features.py:2: raises ExpressionError: an expression has no truth value of its own; combine conditions with & | ~"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': col('length'), 'bigger': col('length')}\n", "features.py:2: FEATURES['bigger']: is not declared; add features.derive.bigger"),
        ("FEATURES = {}\n", "workload.yaml:22: features.derive.big: kind python, but features.py does not define it; add FEATURES['big'] to it"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': col('home').length()}\n", "workload.yaml:22: features.derive.big: home is pii and never part of a feature"),
        ("from ml_contract.expressions import col\nFEATURES = {'big': (col('repair') == 'yes')}\n", "workload.yaml:22: features.derive.big: repair is the label; a feature made from it would tell the answer"),
    ],
)  # fmt: skip
def test_should_say_what_is_wrong_with_features_py(
    workload_file: Write, features: str, expected: str
) -> None:
    found = problems_of(workload_file(extra=PYTHON, features=features))
    assert any(line.startswith(expected) for line in found), found


def test_should_never_show_a_stack_trace_whatever_stands_in_the_file(workload_file: Write) -> None:
    """Every value of the example is replaced by every kind of wrong value: problems, nothing else."""
    base = workload_file(
        extra="features: {derive: {r: {kind: bin, field: length, edges: [1, 3], labels: [a]}}}\n"
    )
    lines = (base / "workload.yaml").read_text().splitlines()
    for n, line in enumerate(lines):
        key = line.split(":", 1)[0]
        for wrong in (
            "null",
            "[]",
            "{}",
            "-1",
            "1e400",
            "'text'",
            "[[1]]",
            "{a: {b: 1}}",
            "!!python/name:os.system x",
        ):
            changed = [*lines[:n], f"{key}: {wrong}", *lines[n + 1 :]]
            (base / "workload.yaml").write_text("\n".join(changed) + "\n")
            with contextlib.suppress(ContractError):
                load_workload(base)


def test_should_find_every_workload_and_name_clashes(workload_file: Write, tmp_path: Path) -> None:
    import shutil

    folder = workload_file()
    (first,) = discover_workloads(tmp_path)
    assert first.name == "boats"
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(
        ContractError, match=r"other/workload.yaml:2: name: got 'boats', which .* has too; rename one"
    ):
        discover_workloads(tmp_path)
    with pytest.raises(ContractError, match="no such folder"):
        discover_workloads(tmp_path / "nowhere")


def test_should_keep_the_checked_in_schema_up_to_date() -> None:
    assert (ROOT / "contract" / "workload.schema.json").read_text() == schema_text()


def test_should_accept_the_workloads_by_the_schema() -> None:
    from ruamel.yaml import YAML

    schema = workload_json_schema()
    for path in (ROOT / "workloads").glob("*/workload.yaml"):
        jsonschema.validate(json.loads(json.dumps(YAML(typ="safe", pure=True).load(path))), schema)


def test_should_check_from_the_command_line(
    workload_file: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workload_file()
    assert main(["check", str(tmp_path)]) == 0
    assert "boats: 11 fields, 4 features, label repair (binary)" in capsys.readouterr().out
    (folder / "workload.yaml").write_text("version: 1\n")
    assert main(["check", str(folder)]) == 1
    assert "workload.yaml:1: name: is missing; add it" in capsys.readouterr().err
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "workload.yaml"


def test_should_read_the_compiled_contract_with_the_standard_library_alone(claims: LoadedWorkload) -> None:
    """Glue jobs and Lambda functions have neither pydantic nor YAML."""
    import subprocess
    import sys

    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT / 'contract')!r})\n"
        "for name in ('pydantic', 'ruamel', 'ruamel.yaml', 'msgspec', 'narwhals', 'numpy', 'polars'):\n"
        "    sys.modules[name] = None\n"
        "from ml_contract.compiled import CompiledContract\n"
        "from ml_contract.features.row import row_function\n"
        "from ml_contract.made_up import synthetic, dirt, identifiers\n"
        "from ml_contract.quality import rules\n"
        "from ml_contract.records import dates\n"
        "contract = CompiledContract.from_json(sys.stdin.read())\n"
        "print(row_function(contract)({'age': 30})['age_band'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input=claims.compiled.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("30-44\n", "")
