"""The job of a JDBC source on a started server: what is new beyond the bookmark, as its role may."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rehearsal.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.rehearsal]

SCRIPT = Path(__file__).resolve().parents[2] / "glue" / "read_jdbc" / "main.py"
BUCKET = "jdbc-tests"


@pytest.fixture(scope="module")
def database(server: ServerProcess) -> Path:
    """The database that stands behind the connection."""
    file = Path(server.state) / "databases" / "db.example.com" / "parcels.sqlite"
    file.parent.mkdir(parents=True)
    connection = sqlite3.connect(file)
    connection.execute(
        'CREATE TABLE "public.parcels" (parcel TEXT, changed INTEGER, sent_at TIMESTAMP, weight REAL, '
        "express BOOLEAN, day DATE, secret TEXT)"
    )
    connection.commit()
    connection.close()
    return file


def insert(database: Path, *parcels: tuple[str, int]) -> None:
    connection = sqlite3.connect(database)
    rows = [(p, n, "2026-11-21T10:00:00", 1.5, n % 2, "2026-11-21", "x") for p, n in parcels]
    connection.executemany('INSERT INTO "public.parcels" VALUES (?, ?, ?, ?, ?, ?, ?)', rows)
    connection.commit()
    connection.close()


@pytest.fixture(scope="module")
def job(client: Callable[[str], Any], role: Any) -> str:
    """The job as JdbcTable makes it."""
    client("s3").create_bucket(Bucket=BUCKET)
    client("s3").put_object(Bucket=BUCKET, Key="code/main.py", Body=SCRIPT.read_bytes())
    login = json.dumps({"username": "reader", "password": "x"})
    secret = client("secretsmanager").create_secret(Name="login", SecretString=login)["ARN"]
    client("glue").create_connection(
        ConnectionInput={
            "Name": "parcels",
            "ConnectionType": "JDBC",
            "ConnectionProperties": {
                "JDBC_CONNECTION_URL": "jdbc:postgresql://db.example.com:5432/parcels",
                "JDBC_ENFORCE_SSL": "true",
                "SECRET_ID": secret,
            },
        }
    )
    arn = role(
        "jdbc-tests",
        "glue.amazonaws.com",
        [
            {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"]},
            {"Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"]},
            # As JdbcTable grants it.
            {
                "Action": "glue:GetConnection",
                "Resource": [
                    f"arn:aws:glue:{client('glue').meta.region_name}:123456789012:{what}"
                    for what in ("catalog", "connection/parcels")
                ],
            },
            {"Action": "secretsmanager:GetSecretValue", "Resource": secret},
        ],
    )
    client("glue").create_job(
        Name="read",
        Role=arn,
        Command={"Name": "glueetl", "ScriptLocation": f"s3://{BUCKET}/code/main.py"},
        GlueVersion="5.0",
        DefaultArguments={
            "--job-bookmark-option": "job-bookmark-enable",
            "--connection_name": "parcels",
            "--connection_type": "postgresql",
            "--table": "public.parcels",
            "--bookmark": "changed,parcel",
            "--columns": "parcel,changed,sent_at,weight,express,day",
            "--drop_uri": f"s3://{BUCKET}/drop/parcels/",
        },
    )
    return "read"


def run(server: ServerProcess, client: Callable[[str], Any], job: str) -> list[dict[str, Any]]:
    """Run the job; the rows that it wrote."""
    run_id = client("glue").start_job_run(JobName=job)["JobRunId"]
    assert server.control("GET", "/idle?timeout_seconds=120")["idle"]
    found = client("glue").get_job_run(JobName=job, RunId=run_id)["JobRun"]
    assert found["JobRunState"] == "SUCCEEDED", found.get("ErrorMessage")
    prefix = f"drop/parcels/{run_id}"
    keys = [
        item["Key"]
        for item in client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        if item["Key"].endswith(".parquet")
    ]
    rows: list[dict[str, Any]] = []
    for key in keys:
        body = client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
        rows += pq.read_table(io.BytesIO(body)).to_pylist()
    return sorted(rows, key=lambda row: (row["changed"], row["parcel"]))


def test_should_read_what_is_new_since_the_last_run(
    server: ServerProcess, client: Callable[[str], Any], database: Path, job: str
) -> None:
    insert(database, ("a", 1), ("b", 1), ("c", 2))
    first = run(server, client, job)
    assert [row["parcel"] for row in first] == ["a", "b", "c"]
    assert set(first[0]) == {"parcel", "changed", "sent_at", "weight", "express", "day"}
    assert first[0]["day"].isoformat() == "2026-11-21"
    assert run(server, client, job) == []
    insert(database, ("d", 2), ("a", 3))
    assert [row["parcel"] for row in run(server, client, job)] == ["d", "a"]


def test_should_fail_when_the_role_may_not_read_the_secret(
    server: ServerProcess,
    client: Callable[[str], Any],
    allow: Callable[..., None],
    role: Any,
    database: Path,
    job: str,
) -> None:
    arn = role(
        "jdbc-poor",
        "glue.amazonaws.com",
        [{"Action": ["logs:CreateLogStream", "logs:PutLogEvents", "s3:GetObject", "glue:GetConnection"]}],
    )
    settings = client("glue").get_job(JobName=job)["Job"]
    client("glue").create_job(
        Name="poor",
        Role=arn,
        Command=settings["Command"],
        GlueVersion="5.0",
        DefaultArguments=settings["DefaultArguments"],
    )
    run_id = client("glue").start_job_run(JobName="poor")["JobRunId"]
    assert server.control("GET", "/idle?timeout_seconds=120")["idle"]
    found = client("glue").get_job_run(JobName="poor", RunId=run_id)["JobRun"]
    assert found["JobRunState"] == "FAILED"
    assert "secretsmanager:GetSecretValue" in found["ErrorMessage"]
