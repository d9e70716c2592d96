"""Cells: dashboards show what is published, saved queries find what they seek, one id leads on."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from rehearsal.lineage import Tracer
from rehearsal.story.lake import read_curated
from rehearsal.story.operations.cells import Cell
from rehearsal.story.telling import Evidence, require, wait_until
from rehearsal.story.traffic import questions

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS", "ORDER", "metrics_of", "searched"]

CHAPTER = "Observability"
#: After monitors and retraining, whose metrics the dashboards show.
ORDER = 80
#: Where ``environment.tracing`` of the play sends its spans.
COLLECTOR = ("127.0.0.1", 4318)
#: CloudWatch quotas: widgets a dashboard, metrics a widget.
MOST_WIDGETS, MOST_METRICS = 500, 500


def metrics_of(widget: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Namespace, name and dimensions of what a widget shows; of a search those that every match has."""
    for entry in widget.get("properties", {}).get("metrics", ()):
        if isinstance(entry[0], dict):
            if "expression" in entry[0] and (found := searched(entry[0]["expression"])):
                yield found
            continue
        words = [part for part in entry if isinstance(part, str)]
        yield words[0], words[1], dict(zip(words[2::2], words[3::2], strict=True))


def searched(expression: str) -> tuple[str, str, dict[str, str]] | None:
    """What a SEARCH looks for: the schema's namespace, the metric, the dimensions as they are sought."""
    found = re.match(r"""SEARCH\('\{([^}]+)\} MetricName="([^"]+)"(.*?)', '""", expression)
    if found is None:
        return None
    namespace, *dimensions = found[1].split(",")
    terms = dict(re.findall(r'(\w+)="?([\w-]+)"?', found[3]))
    return namespace, found[2], {name: terms.get(name, "") for name in dimensions}


def _is_published(known: set[tuple[str, str, frozenset[tuple[str, str]]]], metric: Any) -> bool:
    namespace, name, dimensions = metric
    return any(
        (namespace, name) == (n, m)
        and {key for key, _ in given} == set(dimensions)
        # A search finds a part of the value, as a word; a metric has the whole.
        and all(value.lower() in dict(given)[key].lower() for key, value in dimensions.items())
        for n, m, given in known
    )


def _dashboards(tale: Tale, evidence: Evidence) -> None:
    cloudwatch = tale.cloud.client("cloudwatch")
    known = {
        (m["Namespace"], m["MetricName"], frozenset((d["Name"], d["Value"]) for d in m.get("Dimensions", ())))
        for page in cloudwatch.get_paginator("list_metrics").paginate()
        for m in page["Metrics"]
    }
    alarms = {
        alarm["AlarmArn"]
        for page in cloudwatch.get_paginator("describe_alarms").paginate()
        for alarm in page["MetricAlarms"]
    }
    names = [entry["DashboardName"] for entry in cloudwatch.list_dashboards()["DashboardEntries"]]
    own = tale.outputs("Serving").get("EndpointName")
    require(own in names, f"there is no dashboard {own}: {names}")
    for name in names:
        body = json.loads(cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
        widgets = body["widgets"]
        require(len(widgets) <= MOST_WIDGETS, f"{name} has {len(widgets)} widgets")
        shown = [metric for widget in widgets for metric in metrics_of(widget)]
        for widget in widgets:
            require(len(list(metrics_of(widget))) <= MOST_METRICS, f"a widget of {name} has too many metrics")
            gone = [arn for arn in widget.get("properties", {}).get("alarms", ()) if arn not in alarms]
            require(not gone, f"{name} shows alarms that are not there: {gone}")
        missing = sorted({f"{m[0]} {m[1]}" for m in shown if not _is_published(known, m)})
        evidence[name] = {
            "widgets": len(widgets),
            "metrics": len(shown),
            "published": sum(_is_published(known, m) for m in shown),
            "not_published_yet": missing,
        }
        require("AWS/SageMaker Invocations" not in missing, f"{name} shows no request of the traffic")


# -- saved queries ---------------------------------------------------------------------------------------


def _ask_logs(tale: Tale, query: str, groups: list[str]) -> list[dict[str, str]]:
    logs = tale.cloud.client("logs")
    day = 86_400
    started = logs.start_query(
        logGroupNames=groups,
        # Lines carry the wall clock's time, whatever the rehearsal's says.
        startTime=int(time.time()) - 30 * day,
        endTime=int(time.time()) + day,
        queryString=query,
    )["queryId"]

    def done() -> Any:
        answer = logs.get_query_results(queryId=started)
        return answer if answer["status"] == "Complete" else None

    answer = wait_until("the answer of a query", done, seconds=20)
    return [{field["field"]: field["value"] for field in row} for row in answer["results"]]


def _queries(tale: Tale, evidence: Evidence) -> None:
    logs = tale.cloud.client("logs")
    folder = f"{tale.stage.lower()}/{tale.contract.slug}/"
    found = logs.describe_query_definitions(queryDefinitionNamePrefix=folder)["queryDefinitions"]
    evidence["saved"] = sorted(query["name"].removeprefix(folder) for query in found)
    require(found, f"no query is saved below {folder}")
    there = {group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]}
    absent = {
        name
        for query in found
        for name in query.get("logGroupNames", ())
        # Of SageMaker's own groups each is there once something has written to it.
        if name not in there and not name.startswith("/aws/sagemaker/")
    }
    require(not absent, f"queries read log groups that are not there: {sorted(absent)}")
    follow = next(query for query in found if query["name"] == f"{folder}follow one id")
    package = str(tale.known["serving"])
    # A pattern ends at a slash, so the one within the name is written as any character.
    pattern = package.rsplit(":", 1)[-1].replace("/", ".")
    query = follow["queryString"].replace("REPLACE-WITH-THE-ID", pattern)
    rows = _ask_logs(tale, query, [name for name in follow["logGroupNames"] if name in there])
    evidence["followed"] = {"id": package, "lines": len(rows)}
    require(rows, f"no decision names {package}")
    evidence["only_kept"] = "the others: the emulated Logs Insights filters @message, not JSON fields"


# -- one id ----------------------------------------------------------------------------------------------


def _lines(tale: Tale, word: str) -> list[tuple[str, dict[str, Any]]]:
    """JSON lines of every log group that hold a word, with their group."""
    logs = tale.cloud.client("logs")
    found = []
    for group in logs.describe_log_groups()["logGroups"]:
        for event in logs.filter_log_events(logGroupName=group["logGroupName"], filterPattern=f'"{word}"')[
            "events"
        ]:
            try:
                found.append((group["logGroupName"], json.loads(event["message"])))
            except ValueError:
                continue
    return found


def _one_id(tale: Tale, evidence: Evidence) -> None:
    identifier = tale.contract.identifier
    sent = {str(row[tale.contract.by_name[identifier].source]): row for row in tale.inputs.live}
    rows = read_curated(tale, [identifier, "record_id", "received_at"]).to_pylist()
    require(rows, "no record has been curated")
    record = rows[0]
    evidence["record"] = {
        "identifier": "held back" if not record[identifier] else str(record[identifier]),
        "record_id": record["record_id"],
        "received_at": str(record["received_at"]),
    }
    # The prediction is asked for by the same identifier that its record came with.
    question = next(iter(sent.values()))
    name = str(question[tale.contract.by_name[identifier].source])
    endpoint = tale.outputs("Serving")["EndpointName"]
    body = questions(tale, [question])[0]
    tale.cloud.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, ContentType="application/json", Body=body, InferenceId=name
    )
    tale.cloud.server.control("POST", "/endpoints/flush", {})
    trace = Tracer(tale.cloud.client, endpoint).trace(name)
    evidence["prediction"] = trace.prediction
    evidence["model"] = trace.model["package"]
    execution = str(trace.training["execution"])
    jobs = {step: str(arn).rsplit("/", 1)[-1] for step, arn in trace.training["jobs"].items()}
    evidence["training"] = {"execution": execution, "jobs": jobs}
    ended = {
        line["correlation_id"]: line["seconds"]
        for _, line in _lines(tale, "job ended")
        if line.get("message") == "job ended"
    }
    told = {step: ended[job] for step, job in jobs.items() if job in ended}
    evidence["jobs_in_the_logs"] = told
    require(told, f"no line tells the end of {jobs}; ended were {sorted(map(str, ended))[:5]}")
    decided = [line for _, line in _lines(tale, execution) if line.get("correlation_id") == execution]
    evidence["started_by"] = [
        {key: line.get(key) for key in ("message", "reason", "action", "why") if line.get(key)}
        for line in decided
    ]
    promoted = [
        {"log": group, "message": line.get("message"), "why": line.get("why")}
        for group, line in _lines(tale, trace.model["package"])
    ]
    evidence["promoted"] = promoted[:3]
    require(promoted, f"no line tells of the promotion of {trace.model['package']}")


# -- a trace ---------------------------------------------------------------------------------------------


@contextmanager
def _collector() -> Iterator[list[dict[str, Any]]]:
    """An OpenTelemetry collector on this machine, OTLP over HTTP with JSON; the spans that it was sent."""
    spans: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/v1/traces"
            if known:
                spans.extend(_spans_of(body))
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing: the spans are the evidence."""

    server = ThreadingHTTPServer(COLLECTOR, Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _spans_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for resource in body["resourceSpans"]:
        service = {a["key"]: a["value"].get("stringValue") for a in resource["resource"]["attributes"]}
        for scope in resource["scopeSpans"]:
            found += [{**span, "service": service.get("service.name")} for span in scope["spans"]]
    return found


def _trace(tale: Tale, evidence: Evidence) -> None:
    endpoint = tale.outputs("Serving")["EndpointName"]
    body = questions(tale, tale.inputs.live[:1])[0]
    runtime = tale.cloud.client("sagemaker-runtime")
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)

    def ask(flags: str, name: str) -> None:
        runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType="application/json",
            Body=body,
            CustomAttributes=f"traceparent=00-{trace}-{caller}-{flags}",
            InferenceId=name,
        )

    with _collector() as spans:
        ask("01", "traced")
        ask("00", "not-sampled")
        tale.cloud.server.control("POST", "/endpoints/logs", {})
        wait_until("a span at the collector", lambda: spans, seconds=60)
    mine = [span for span in spans if span["traceId"] == trace]
    evidence |= {
        "caller": {"traceparent": f"00-{trace}-{caller}-01"},
        "spans": [
            {
                "name": span["name"],
                "service": span["service"],
                "parent": span.get("parentSpanId"),
                "milliseconds": (int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e6,
            }
            for span in mine
        ],
        "of_two_requests_sampled": len(mine),
        "way": "line of the container's log, subscription, function, OTLP over HTTP",
    }
    require(len(mine) == 1, f"one request was sampled, {len(mine)} spans came")
    require(mine[0].get("parentSpanId") == caller, "the span does not hang below its caller's")
    lines = [line for _, line in _lines(tale, trace) if line.get("message") == "span"]
    require(any(line["correlation_id"] == "traced" for line in lines), "the log does not name the prediction")


CELLS = (
    Cell(
        id="observe.dashboards",
        title="Each dashboard shows metrics that are published",
        chapter=CHAPTER,
        run=_dashboards,
        capabilities=("observe.dashboards",),
    ),
    Cell(
        id="observe.queries",
        title="Saved queries read logs that are there, and find one id",
        chapter=CHAPTER,
        run=_queries,
        capabilities=("observe.logs",),
    ),
    Cell(
        id="observe.correlation",
        title="One id leads from a record to its prediction, its model and the training behind it",
        chapter=CHAPTER,
        run=_one_id,
        capabilities=("observe.logs",),
    ),
    Cell(
        id="observe.tracing",
        title="A caller's trace goes on in the endpoint and arrives at an OpenTelemetry collector",
        chapter=CHAPTER,
        run=_trace,
        capabilities=("observe.tracing",),
    ),
)
