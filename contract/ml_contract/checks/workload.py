"""What holds between the blocks of a workload, and between it and its ``features.py``."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ml_contract.checks.alternatives import check_alternatives
from ml_contract.checks.enrich import check_enrich
from ml_contract.checks.evaluation import check_evaluation
from ml_contract.checks.feature_store import check_feature_store
from ml_contract.checks.governance import check_governance
from ml_contract.checks.labelling import check_labelling
from ml_contract.checks.monitoring import check_monitoring
from ml_contract.checks.preparation import check_preparation
from ml_contract.checks.retraining import check_retraining
from ml_contract.checks.serving import check_serving
from ml_contract.checks.sources import source_problems
from ml_contract.checks.streaming import check_stream
from ml_contract.checks.training import check_training
from ml_contract.checks.tuning import check_tuning
from ml_contract.checks.windows import check_windows
from ml_contract.expressions import Expr, ExpressionError, type_of
from ml_contract.problems import Lines, Location, Problem, closest, join, nearest, short, suggest
from ml_contract.records.dates import FormatError, date_parser
from ml_contract.spec.features import (
    BinFeature,
    DatePartFeature,
    DaysBetweenFeature,
    DerivedFeature,
    PythonFeature,
    RatioFeature,
)
from ml_contract.spec.judging import METRICS
from ml_contract.spec.preparation import QuantileBinFeature
from ml_contract.spec.record import DELIVERY_COLUMNS, RESERVED_COLUMNS, RecordField, RegressionLabel
from ml_contract.spec.workload import Workload

__all__ = ["Checks", "field_features"]

#: Feature Store takes 2,500 feature definitions per group (Service Quotas, "Maximum number of feature
#: definitions").
MAX_COLUMNS: Final = 2_500


class Checks:
    """Checks over the whole workload; each appends to ``problems``."""

    def __init__(self, workload: Workload, file: Path, lines: Lines) -> None:
        self.workload = workload
        self.fields = workload.record.fields
        self.file = str(file)
        self.lines = lines
        self.problems: list[Problem] = []

    def wrong(self, path: Location, message: str) -> None:
        self.problems.append(Problem(self.file, nearest(self.lines, path), join(path), message))

    def field(self, path: Location, name: str) -> RecordField | None:
        """The field that a key names; what is wrong with the name is noted."""
        found = self.fields.get(name)
        if found is None:
            close = closest(name, self.fields)
            hint = f"did you mean {close}?" if close else "add it to record.fields or use one that is there"
            self.wrong(path, f"got {name!r}, which is no field of the record; {hint}")
        return found

    def all(self, features_file: Path) -> dict[str, Expr]:
        """Every check; the expressions of the workload's ``features.py``."""
        self.record()
        self.label()
        self.acceptance()
        check_labelling(self.workload, self.wrong)
        check_stream(self)
        check_training(self)
        check_tuning(self)
        check_alternatives(self)
        check_serving(self)
        check_governance(self)
        check_enrich(self)
        check_feature_store(self)
        for path, message in source_problems(self.workload, self.lines):
            self.wrong(path, message)
        expressions = self.python(features_file)
        self.features(expressions)
        check_evaluation(self, self._derived_types())
        check_monitoring(self, field_features(self.workload), self._derived_types())
        check_retraining(self)
        check_windows(self)
        return expressions

    def record(self) -> None:
        """Fields, identifier and event time."""
        sources: dict[str, str] = {}
        for name, field in self.fields.items():
            path: Location = ("record", "fields", name)
            self._names(path, name, field, sources)
            self._values(path, field)
        record = self.workload.record
        self._key("identifier", record.identifier, ("string", "integer"))
        self._key("event_time", record.event_time, ("date", "timestamp"))
        if record.identifier == record.event_time:
            message = f"got {record.event_time!r}, which is the identifier; name another field"
            self.wrong(("record", "event_time"), message)
        expected = len(self.fields) + len(DELIVERY_COLUMNS)
        if expected > MAX_COLUMNS:
            self.wrong(("record", "fields"), f"got {expected} columns; at most {MAX_COLUMNS}")

    def _names(self, path: Location, name: str, field: RecordField, sources: dict[str, str]) -> None:
        rename = f"rename the column and give source: {name}"
        if name in RESERVED_COLUMNS:
            self.wrong(path, f"Feature Store reserves the name {name}; {rename}")
        if name in DELIVERY_COLUMNS:
            self.wrong(path, f"{name} is a column that delivery adds; {rename}")
        source = field.source if field.source is not None else name
        if source in sources:
            self.wrong(
                path, f"reads the source field {source!r}, which {sources[source]} reads too; keep one"
            )
        sources[source] = name
        if any(ord(c) < 32 or c in '"\\' for c in source):
            message = f"got {source!r}; quotes, backslashes and control characters are not allowed"
            self.wrong((*path, "source"), message)

    def _values(self, path: Location, field: RecordField) -> None:
        for bound in ("minimum", "maximum") if field.type == "integer" else ():
            value = getattr(field, bound)
            if value is not None and (value != int(value) or abs(value) >= 2**63):
                self.wrong((*path, bound), f"got {value:g}; an integer field needs a whole number of 64 bits")
        for key in ("missing", "allowed"):
            texts = getattr(field, key) or ()
            if len(set(texts)) != len(texts):
                self.wrong((*path, key), f"got {short(list(texts))}, which names a text twice")
            if "" in texts:
                self.wrong((*path, key), "names the empty text, which always means 'no value'; remove it")
        both = sorted(set(field.missing) & set(field.allowed or ()))
        if both:
            message = f"{both[0]!r} is both allowed and missing; keep it in one of them"
            self.wrong((*path, "missing"), message)
        if field.format is not None:
            try:
                date_parser(field.type, field.format)
            except FormatError as error:
                self.wrong((*path, "format"), str(error))

    def _key(self, role: str, name: str, types: tuple[str, ...]) -> None:
        field = self.field(("record", role), name)
        if field is None:
            return
        if field.type not in types:
            self.wrong(("record", role), f"{name} is {field.type}; allowed here: {' or '.join(types)}")
        if not field.required:
            self.wrong(("record", "fields", name), f"is the record's {role}, so it needs required: true")

    def label(self) -> None:
        label = self.workload.label
        path: Location = ("label", "field")
        field = self.field(path, label.field)
        if label.field in (self.workload.record.identifier, self.workload.record.event_time):
            self.wrong(
                path, f"got {label.field!r}, which is the identifier or the event time; name another field"
            )
        if field is None:
            return
        if isinstance(label, RegressionLabel):
            if field.type not in ("integer", "number"):
                self.wrong(path, f"{label.field} is {field.type}; a regression label is integer or number")
            return
        if field.type not in ("string", "integer", "boolean"):
            self.wrong(path, f"{label.field} is {field.type}; a class label is string, integer or boolean")
            return
        wanted = {"string": str, "integer": int, "boolean": bool}[field.type]
        for i, value in enumerate(label.values):
            here: Location = ("label", "values", i)
            if type(value) is not wanted:
                fix = "; put quotes around it" if field.type == "string" else ""
                self.wrong(here, f"got {short(value)}; {label.field} is {field.type}{fix}")
            elif field.allowed is not None and value not in field.allowed:
                self.wrong(here, f"got {short(value)}; {label.field} allows {', '.join(field.allowed)}")
            elif isinstance(value, str) and value in field.missing:
                self.wrong(here, f"got {short(value)}, which {label.field} calls missing; name a class")
        if len(set(label.values)) != len(label.values):
            self.wrong(("label", "values"), f"got {short(list(label.values))}, which names a class twice")
        if field.sensitive == "pii":
            self.wrong(path, f"{label.field} is pii; a label goes into training data, so it cannot be")

    def acceptance(self) -> None:
        workload = self.workload
        allowed = METRICS[workload.label.task]
        metric = workload.acceptance.metric
        if metric not in allowed:
            self.wrong(
                ("acceptance", "metric"),
                f"got {metric!r}; for a {workload.label.task} label: {', '.join(allowed)}",
            )

    def _feature_names(self) -> list[str]:
        windows = self.workload.windows
        over_time = () if windows is None else windows.features
        return [*field_features(self.workload), *self.workload.features.derive, *over_time]

    def _derived_types(self) -> dict[str, str]:
        """Type of every derived and every window feature."""
        kinds: dict[str, str] = {}
        for name, derived in self.workload.features.derive.items():
            category = isinstance(derived, BinFeature) or (
                isinstance(derived, PythonFeature) and derived.type == "category"
            )
            kinds[name] = "category" if category else "number"
        if self.workload.windows is not None:
            kinds |= dict.fromkeys(self.workload.windows.features, "number")
        return kinds

    def features(self, expressions: Mapping[str, Expr]) -> None:
        features = self.workload.features
        keys = (self.workload.record.identifier, self.workload.record.event_time, self.workload.label.field)
        if features.fields != "all":
            for i, name in enumerate(features.fields):
                self._named_feature(("features", "fields", i), name, keys)
            if len(set(features.fields)) != len(features.fields):
                self.wrong(("features", "fields"), "names a field twice")
        for i, exclusion in enumerate(features.exclude):
            here: Location = ("features", "exclude", i, "field")
            if self.field(here, exclusion.field) is None:
                continue
            if features.fields != "all" and exclusion.field not in features.fields:
                self.wrong(
                    here, f"got {exclusion.field!r}, which features.fields does not name; remove it here"
                )
            elif exclusion.field in keys:
                self.wrong(here, f"got {exclusion.field!r}, which is never a feature; remove it here")
        for name, derived in features.derive.items():
            self._derived(("features", "derive", name), name, derived, expressions)
        if not self._feature_names():
            self.wrong(("features",), "leaves no feature; name fields or derive some")
        check_preparation(self.workload, self._feature_names(), self.wrong)
        total = len(self._feature_names()) + 4
        if total > MAX_COLUMNS:
            self.wrong(("features",), f"makes {total} columns; Feature Store takes {MAX_COLUMNS}")

    def _named_feature(self, path: Location, name: str, keys: tuple[str, ...]) -> None:
        field = self.field(path, name)
        if field is None:
            return
        if name in keys:
            self.wrong(path, f"got {name!r}, which is the identifier, the event time or the label; remove it")
        elif field.sensitive == "pii":
            self.wrong(path, f"got {name!r}, which is pii and never a feature; remove it")
        elif field.type in ("date", "timestamp"):
            self.wrong(path, f"got {name!r}, a {field.type}; derive date_part or days_between from it")

    def _derived(
        self, path: Location, name: str, derived: DerivedFeature, expressions: Mapping[str, Expr]
    ) -> None:
        if name in self.fields:
            self.wrong(path, f"{name} is a field of the record; give the feature another name")
        if name in RESERVED_COLUMNS or name in DELIVERY_COLUMNS:
            self.wrong(path, f"{name} is reserved; give the feature another name")
        uses: list[tuple[str, str, tuple[str, ...]]] = []
        numbers, dates = ("integer", "number"), ("date", "timestamp")
        if isinstance(derived, BinFeature | QuantileBinFeature):
            uses = [("field", derived.field, numbers)]
        elif isinstance(derived, DaysBetweenFeature):
            uses = [("since", derived.since, dates), ("until", derived.until, dates)]
        elif isinstance(derived, RatioFeature):
            uses = [("numerator", derived.numerator, numbers), ("denominator", derived.denominator, numbers)]
        elif isinstance(derived, DatePartFeature):
            uses = [("field", derived.field, ("timestamp",) if derived.part == "hour" else dates)]
        elif name in expressions:
            self._used_by_python(path, expressions[name])
        for key, used, types in uses:
            field = self.field((*path, key), used)
            if field is None:
                continue
            if field.type not in types:
                self.wrong((*path, key), f"{used} is {field.type}; {derived.kind} takes {' or '.join(types)}")
            self.may_be_used((*path, key), used, field)

    def may_be_used(self, path: Location, used: str, field: RecordField) -> None:
        """Note when a feature must not be made from the field."""
        if field.sensitive == "pii":
            self.wrong(path, f"{used} is pii and never part of a feature; use another field")
        if used == self.workload.label.field:
            self.wrong(path, f"{used} is the label; a feature made from it would tell the answer")

    def _used_by_python(self, path: Location, expression: Expr) -> None:
        for used in sorted(expression.columns()):
            field = self.fields.get(used)
            if field is not None:
                self.may_be_used(path, used, field)

    def python(self, file: Path) -> dict[str, Expr]:
        """Expressions of ``features.py``, each checked against its declaration."""
        declared = {n: d for n, d in self.workload.features.derive.items() if isinstance(d, PythonFeature)}
        if not file.is_file():
            for name in declared:
                self.wrong(
                    ("features", "derive", name),
                    f"kind python, but there is no {file.name} beside it; define FEATURES[{name!r}] there",
                )
            return {}
        defined, problem = _run_features(file)
        if problem is not None:
            self.problems.append(problem)
            return {}
        types: dict[str, str] = {name: field.type for name, field in self.fields.items()}
        if self.workload.windows is not None:
            types |= dict.fromkeys(self.workload.windows.features, "number")
        result: dict[str, Expr] = {}
        for name, expression in defined.items():
            place = Problem(str(file), _line_of_key(file, name), f"FEATURES[{name!r}]", "")
            if name not in declared:
                hint = suggest(name, list(declared)).removeprefix("; ")
                self._at(
                    place, f"is not declared; add features.derive.{name}: {{kind: python, type: ...}}", hint
                )
                continue
            if not isinstance(expression, Expr):
                self._at(
                    place, f"got {type(expression).__name__}; an expression is needed, e.g. col('field') + 1"
                )
                continue
            result[name] = expression
            unknown = sorted(expression.columns() - set(types))
            for used in unknown:
                self._at(place, f"uses {used!r}, which is no field of the record", _close(used, types))
            if not unknown:
                self._typed(place, expression, types, declared[name].type)
        for name in declared:
            if name not in defined:
                close = closest(name, defined)
                hint = f"did you mean {close}?" if close else f"add FEATURES[{name!r}] to it"
                self.wrong(
                    ("features", "derive", name), f"kind python, but {file.name} does not define it; {hint}"
                )
        return result

    def _typed(self, place: Problem, expression: Expr, types: Mapping[str, str], wanted: str) -> None:
        try:
            kind = type_of(expression, types)
        except ExpressionError as error:
            self._at(place, str(error))
            return
        fits = kind in ("number", "boolean") if wanted == "number" else kind == "string"
        if not fits:
            fix = "; use .cast('string')" if wanted == "category" and kind in ("number", "boolean") else ""
            self._at(place, f"is {kind}, declared as type: {wanted}{fix}")

    def _at(self, place: Problem, message: str, hint: str = "") -> None:
        text = f"{message}; {hint}" if hint else message
        self.problems.append(Problem(place.file, place.line, place.path, text))


def _close(name: str, known: Mapping[str, str]) -> str:
    close = closest(name, known)
    return f"did you mean {close}?" if close else ""


def _run_features(file: Path) -> tuple[dict[str, Any], Problem | None]:
    """``FEATURES`` of the file; whatever it raises becomes one problem at its line."""

    def failed(message: str, line: int = 1) -> tuple[dict[str, Any], Problem]:
        return {}, Problem(str(file), line, "", message)

    try:
        source = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return failed("is not UTF-8; save the file as UTF-8")
    except OSError as error:
        return failed(f"cannot be read: {error.strerror}")
    namespace: dict[str, Any] = {"__name__": "features", "__file__": str(file)}
    try:
        # The workload's own code, from the repository that is being synthesised: trusted as the app itself
        # is.
        exec(compile(source, str(file), "exec"), namespace)  # noqa: S102
    except SyntaxError as error:
        return failed(f"is not Python: {error.msg}", error.lineno or 1)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, whatever it is
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        line = frames[-1].lineno if frames else None
        return failed(f"raises {type(error).__name__}: {error}", line or 1)
    features = namespace.get("FEATURES")
    if not isinstance(features, dict) or not all(isinstance(k, str) for k in features):
        got = "nothing" if features is None else type(features).__name__
        return failed(f"must define FEATURES as a dict from feature name to expression, got {got}")
    return features, None


def _line_of_key(file: Path, name: str) -> int:
    """First line of the file that writes the feature's name as a text."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if f'"{name}"' in line or f"'{name}'" in line:
            return number
    return 1


def field_features(workload: Workload) -> list[str]:
    """Fields that are features by themselves, in the order of the record."""
    features = workload.features
    keys = {workload.record.identifier, workload.record.event_time, workload.label.field}
    excluded = {e.field for e in features.exclude}
    if features.fields != "all":
        named = set(features.fields)
        return [n for n in workload.record.fields if n in named and n not in excluded]
    return [
        name
        for name, field in workload.record.fields.items()
        if name not in keys
        and name not in excluded
        and field.sensitive is None
        and field.type not in ("date", "timestamp")
    ]
