"""Lake Formation in force: what a role sees of a table, in the catalog and by Athena; what the trail says."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import time
from collections.abc import Callable
from typing import Any

import boto3.session
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal.server import ServerProcess

Client = Callable[[str], Any]
DATABASE, TABLE, BUCKET, RESULTS = "gov_curated", "parcels", "gov-lake", "gov-results"
COLUMNS = [("parcel", "string"), ("carrier", "string"), ("weight", "double")]
ROWS = {"parcel": ["p1", "p2", "p3"], "carrier": ["north", "south", "north"], "weight": [1.0, 2.0, None]}
QUERYING = [
    {"Action": ["athena:*"]},
    {"Action": ["glue:GetTable", "glue:GetTables", "glue:GetDatabase", "lakeformation:GetDataAccess"]},
    {"Action": ["s3:PutObject", "s3:GetBucketLocation"], "Resource": f"arn:aws:s3:::{RESULTS}*"},
]


@pytest.fixture(scope="module")
def person(
    server: ServerProcess, client: Client, allow: Callable[[str, Any], None]
) -> Callable[..., tuple[str, Client]]:
    """Make a role with statements; returns its ARN and clients of a session of it."""

    def make(name: str, statements: Any = QUERYING) -> tuple[str, Client]:
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{server.account}:root"},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
        arn = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        arn = arn["Role"]["Arn"]
        allow(name, statements)
        given = client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        session: Any = boto3.session.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=server.region,
        )

        def of(service: str) -> Any:
            return session.client(
                service,
                endpoint_url=server.endpoint,
                config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
            )

        return arn, of

    return make


@pytest.fixture(scope="module")
def lake(
    client: Client, role: Callable[[str, str, Any], str], person: Callable[..., tuple[str, Client]]
) -> Client:
    """A governed database with one Parquet table, tagged, in a registered location."""
    s3, glue, formation = client("s3"), client("glue"), client("lakeformation")
    for bucket in (BUCKET, RESULTS):
        s3.create_bucket(Bucket=bucket)
    file = io.BytesIO()
    pq.write_table(pa.table(ROWS), file)
    s3.put_object(Bucket=BUCKET, Key="parcels/month=2026-01/a.parquet", Body=file.getvalue())
    glue.create_database(DatabaseInput={"Name": DATABASE, "CreateTableDefaultPermissions": []})
    _table(glue, DATABASE)
    registration = role(
        "GovRegistration",
        "lakeformation.amazonaws.com",
        [{"Action": ["s3:GetObject", "s3:ListBucket"], "Resource": f"arn:aws:s3:::{BUCKET}*"}],
    )
    formation.register_resource(ResourceArn=f"arn:aws:s3:::{BUCKET}", RoleArn=registration)
    formation.create_lf_tag(TagKey="gov_sensitivity", TagValues=["none", "pii"])
    _tag(formation, {"Table": {"DatabaseName": DATABASE, "Name": TABLE}}, "none")
    columns = {"DatabaseName": DATABASE, "Name": TABLE, "ColumnNames": ["parcel"]}
    _tag(formation, {"TableWithColumns": columns}, "pii")
    client("athena").create_work_group(
        Name="gov",
        Configuration={
            "EnforceWorkGroupConfiguration": True,
            "BytesScannedCutoffPerQuery": 10_000_000,
            "ResultConfiguration": {"OutputLocation": f"s3://{RESULTS}/gov/"},
        },
    )
    del person
    return client


def _table(glue: Any, database: str, name: str = TABLE, *, location: str = f"s3://{BUCKET}/parcels/") -> None:
    glue.create_table(
        DatabaseName=database,
        TableInput={
            "Name": name,
            "PartitionKeys": [{"Name": "month", "Type": "string"}],
            "StorageDescriptor": {
                "Columns": [{"Name": column, "Type": kind} for column, kind in COLUMNS],
                "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                },
            },
        },
    )


def _tag(formation: Any, resource: dict[str, Any], value: str) -> None:
    answer = formation.add_lf_tags_to_resource(
        Resource=resource, LFTags=[{"TagKey": "gov_sensitivity", "TagValues": [value]}]
    )
    assert answer["Failures"] == []


def _grant(client: Client, principal: str, resource: dict[str, Any], *permissions: str) -> None:
    client("lakeformation").grant_permissions(
        Principal={"DataLakePrincipalIdentifier": principal},
        Resource=resource,
        Permissions=list(permissions),
    )


def _by_tag(*values: str) -> dict[str, Any]:
    expression = [{"TagKey": "gov_sensitivity", "TagValues": list(values)}]
    return {"LFTagPolicy": {"ResourceType": "TABLE", "Expression": expression}}


def _ask(of: Client, sql: str, workgroup: str = "gov") -> tuple[dict[str, Any], list[list[str | None]]]:
    athena = of("athena")
    query_id = athena.start_query_execution(
        QueryString=sql, WorkGroup=workgroup, QueryExecutionContext={"Database": DATABASE}
    )["QueryExecutionId"]
    for _ in range(400):
        execution = athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
        if execution["Status"]["State"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
            break
        time.sleep(0.02)
    if execution["Status"]["State"] != "SUCCEEDED":
        return execution, []
    rows = athena.get_query_results(QueryExecutionId=query_id)["ResultSet"]["Rows"]
    return execution, [[datum.get("VarCharValue") for datum in row["Data"]] for row in rows]


def _why(execution: dict[str, Any]) -> str:
    assert execution["Status"]["State"] == "FAILED", execution["Status"]
    return str(execution["Status"]["StateChangeReason"])


def test_should_refuse_a_table_that_is_not_granted(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    _, of = person("GovNobody")
    with pytest.raises(ClientError, match="Required Describe on parcels"):
        of("glue").get_table(DatabaseName=DATABASE, Name=TABLE)
    assert of("glue").get_tables(DatabaseName=DATABASE)["TableList"] == []
    execution, _ = _ask(of, f"SELECT carrier FROM {TABLE}")
    assert "Required Describe on parcels" in _why(execution)


def test_should_show_the_columns_that_tags_grant(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    arn, of = person("GovScientist")
    _grant(lake, arn, _by_tag("none"), "SELECT", "DESCRIBE")
    table = of("glue").get_table(DatabaseName=DATABASE, Name=TABLE)["Table"]
    assert [c["Name"] for c in table["StorageDescriptor"]["Columns"]] == ["carrier", "weight"]
    _, rows = _ask(of, f"SELECT * FROM {TABLE} ORDER BY weight")
    assert rows[0] == ["carrier", "weight", "month"]
    assert rows[1:] == [["north", "1.0", "2026-01"], ["south", "2.0", "2026-01"], ["north", None, "2026-01"]]
    for sql in (
        f"SELECT parcel FROM {TABLE}",
        f"SELECT count(*) FROM {TABLE} WHERE parcel = 'p1'",
        f"SELECT x.parcel FROM {TABLE} x",
        f"WITH t AS (SELECT * FROM {TABLE}) SELECT parcel FROM t",
        f"SELECT carrier FROM {TABLE} ORDER BY parcel",
    ):
        assert "'parcel' cannot be resolved or requester is not authorized" in _why(_ask(of, sql)[0]), sql


def test_should_unite_filters_cell_by_cell(lake: Client, person: Callable[..., tuple[str, Client]]) -> None:
    arn, of = person("GovFiltered")
    for name, where, columns in (
        ("north", "carrier = 'north'", ["parcel", "carrier"]),
        ("light", "weight < 3", ["carrier", "weight"]),
    ):
        lake("lakeformation").create_data_cells_filter(
            TableData={
                "TableCatalogId": "123456789012",
                "DatabaseName": DATABASE,
                "TableName": TABLE,
                "Name": name,
                "RowFilter": {"FilterExpression": where},
                "ColumnNames": columns,
            }
        )
        cells = {"TableCatalogId": "123456789012", "DatabaseName": DATABASE, "TableName": TABLE, "Name": name}
        _grant(lake, arn, {"DataCellsFilter": cells}, "SELECT")
    _, rows = _ask(of, f"SELECT carrier, parcel, weight FROM {TABLE} ORDER BY carrier, parcel")
    # p2 is light, not northern: its parcel is hidden. p3 is northern and has no weight to show.
    assert rows[1:] == [["north", "p1", "1.0"], ["north", "p3", None], ["south", None, "2.0"]]
    _, rows = _ask(of, f"SELECT count(*) AS n FROM {TABLE}")
    assert rows[1:] == [["3"]]


def test_should_refuse_a_filter_that_means_nothing(lake: Client) -> None:
    data = {"TableCatalogId": "123456789012", "DatabaseName": DATABASE, "TableName": TABLE, "Name": "wrong"}
    everything: dict[str, Any] = {"ColumnWildcard": {}}
    for rows in ({"FilterExpression": "nope = 1"}, {"FilterExpression": "SELECT ("}, {}):
        with pytest.raises(ClientError, match="InvalidInputException"):
            lake("lakeformation").create_data_cells_filter(
                TableData={**data, **everything, "RowFilter": rows}
            )


def test_should_let_alter_and_create_only_who_was_granted_it(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    arn, of = person("GovMaker", [{"Action": ["glue:*", "lakeformation:*"]}])
    _grant(lake, arn, _by_tag("none"), "SELECT")
    with pytest.raises(ClientError, match="Required Alter"):
        of("glue").update_table(DatabaseName=DATABASE, TableInput={"Name": TABLE})
    # A database is open to whom IAM lets in, by the account's default, until somebody takes that from it.
    lake("lakeformation").revoke_permissions(
        Principal={"DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS"},
        Resource={"Database": {"Name": DATABASE}},
        Permissions=["ALL"],
    )
    with pytest.raises(ClientError, match="Required Create Table"):
        _table(of("glue"), DATABASE, "own")
    _grant(lake, arn, {"Database": {"Name": DATABASE}}, "CREATE_TABLE")
    with pytest.raises(ClientError, match="Required Data Location Access"):
        _table(of("glue"), DATABASE, "own")
    location = {"DataLocation": {"ResourceArn": f"arn:aws:s3:::{BUCKET}"}}
    _grant(lake, arn, location, "DATA_LOCATION_ACCESS")
    _table(of("glue"), DATABASE, "own")
    # Who made it owns it.
    of("glue").update_table(DatabaseName=DATABASE, TableInput={"Name": "own", "Description": "mine"})
    of("glue").delete_table(DatabaseName=DATABASE, Name="own")


def test_should_leave_a_table_to_iam_where_the_database_says_nothing(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    lake("glue").create_database(DatabaseInput={"Name": "gov_open"})
    _table(lake("glue"), "gov_open")
    reading = {"Action": ["s3:GetObject", "s3:ListBucket"], "Resource": f"arn:aws:s3:::{BUCKET}*"}
    _, of = person("GovIam", [*QUERYING, reading])
    _, rows = _ask(of, f"SELECT parcel FROM gov_open.{TABLE} ORDER BY 1")
    assert rows[1:] == [["p1"], ["p2"], ["p3"]]
    # Without permission on the objects the catalog alone does not help.
    _, poor = person("GovIamPoor")
    assert "AccessDenied" in _why(_ask(poor, f"SELECT parcel FROM gov_open.{TABLE}")[0])
    # From now on grants decide.
    lake("lakeformation").revoke_permissions(
        Principal={"DataLakePrincipalIdentifier": "IAM_ALLOWED_PRINCIPALS"},
        Resource={"Table": {"DatabaseName": "gov_open", "Name": TABLE}},
        Permissions=["ALL"],
    )
    assert "Required Describe" in _why(_ask(of, f"SELECT parcel FROM gov_open.{TABLE}")[0])


def test_should_need_data_access_and_a_place_for_results(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    arn, of = person("GovNoAccess", [{"Action": ["athena:*", "glue:GetTable"]}, QUERYING[2]])
    _grant(lake, arn, _by_tag("none"), "SELECT")
    assert "lakeformation:GetDataAccess" in _why(_ask(of, f"SELECT carrier FROM {TABLE}")[0])
    arn, of = person("GovNoResults", QUERYING[:2])
    _grant(lake, arn, _by_tag("none"), "SELECT")
    assert "Access denied when writing output" in _why(_ask(of, f"SELECT carrier FROM {TABLE}")[0])


def test_should_evaluate_a_view_as_its_definer(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    definer, _ = person("GovDefiner")
    _grant(lake, definer, {"Table": {"DatabaseName": DATABASE, "Name": TABLE}}, "SELECT")
    sql = f'SELECT lower(to_hex(sha256(to_utf8(parcel)))) AS parcel, carrier FROM "{DATABASE}"."{TABLE}"'
    lake("glue").create_table(
        DatabaseName=DATABASE,
        TableInput={
            "Name": "masked",
            "TableType": "VIRTUAL_VIEW",
            "StorageDescriptor": {
                "Columns": [{"Name": "parcel", "Type": "string"}, {"Name": "carrier", "Type": "string"}]
            },
            "ViewDefinition": {
                "IsProtected": True,
                "Definer": definer,
                "Representations": [{"Dialect": "ATHENA", "DialectVersion": "3", "ViewOriginalText": sql}],
            },
        },
    )
    arn, of = person("GovReader")
    assert "Required Describe" in _why(_ask(of, "SELECT * FROM masked")[0])
    _grant(lake, arn, {"Table": {"DatabaseName": DATABASE, "Name": "masked"}}, "SELECT")
    _, rows = _ask(of, "SELECT parcel FROM masked WHERE carrier = 'south'")
    assert rows[1:] == [[hashlib.sha256(b"p2").hexdigest()]]
    assert "Required Describe" in _why(_ask(of, f"SELECT parcel FROM {TABLE}")[0])


def test_should_run_what_athena_runs_and_refuse_what_it_cannot(
    lake: Client, person: Callable[..., tuple[str, Client]]
) -> None:
    _, rows = _ask(
        lake,
        "WITH s AS (SELECT avg(weight) AS a, max(weight) AS b FROM parcels) SELECT k, v FROM s "
        "CROSS JOIN UNNEST(ARRAY['a', 'b'], ARRAY[a, b]) AS t(k, v) ORDER BY k",
    )
    assert rows[1:] == [["a", "1.5"], ["b", "2.0"]]
    for sql, why in (
        ("SELECT * FROM read_csv('/etc/passwd')", "FUNCTION_NOT_FOUND"),
        ("SELECT * FROM '/etc/passwd'", "TABLE_NOT_FOUND"),
        ("DROP TABLE parcels", "NOT_SUPPORTED"),
        ("SELECT 1; SELECT 2", "Only one sql statement"),
        ("SELECT * FROM nowhere", "TABLE_NOT_FOUND"),
        ("SELEC", "NOT_SUPPORTED"),
    ):
        execution, _ = _ask(lake, sql)
        assert execution["Status"]["State"] == "FAILED", sql
        assert why in execution["Status"]["StateChangeReason"], sql


def test_should_end_a_query_that_reads_too_much(lake: Client) -> None:
    lake("athena").create_work_group(
        Name="gov-small",
        Configuration={
            "BytesScannedCutoffPerQuery": 10_000_000,
            "ResultConfiguration": {"OutputLocation": f"s3://{RESULTS}/small/"},
        },
    )
    file = io.BytesIO()
    pq.write_table(pa.table({"parcel": [random.randbytes(11_000_000).hex()]}), file, compression="none")
    lake("s3").put_object(Bucket=RESULTS, Key="big/month=2026-01/a.parquet", Body=file.getvalue())
    lake("glue").create_database(DatabaseInput={"Name": "gov_big"})
    _table(lake("glue"), "gov_big", location=f"s3://{RESULTS}/big/")
    execution, _ = _ask(lake, f"SELECT count(parcel) FROM gov_big.{TABLE}", "gov-small")
    assert execution["Status"]["State"] == "CANCELLED"
    assert "limit of the workgroup is 10000000" in execution["Status"]["StateChangeReason"]


def test_should_deliver_who_touched_which_object(
    lake: Client, server: ServerProcess, person: Callable[..., tuple[str, Client]]
) -> None:
    logs, name = "gov-trail", "gov-audit"
    arn = f"arn:aws:cloudtrail:{server.region}:{server.account}:trail/{name}"
    s3 = lake("s3")
    s3.create_bucket(Bucket=logs)
    lake("cloudtrail").create_trail(Name=name, S3BucketName=logs)
    lake("cloudtrail").put_event_selectors(
        TrailName=name,
        AdvancedEventSelectors=[
            {
                "FieldSelectors": [
                    {"Field": "eventCategory", "Equals": ["Data"]},
                    {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
                    {"Field": "resources.ARN", "StartsWith": [f"arn:aws:s3:::{BUCKET}/"]},
                ]
            },
            {"FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}]},
        ],
    )
    lake("cloudtrail").start_logging(Name=name)
    role_arn, of = person("GovToucher")
    with pytest.raises(ClientError, match="403"):
        of("s3").head_object(Bucket=BUCKET, Key="parcels/month=2026-01/a.parquet")
    s3.put_object(Bucket=BUCKET, Key="touched", Body=b"x")
    s3.put_object(Bucket=RESULTS, Key="elsewhere", Body=b"x")
    # The bucket does not let CloudTrail in yet.
    assert server.control("POST", "/trails/flush", {})["files"] == []
    failed = server.control("GET", "/ledger?outcome=failed&kind=cloudtrail")["entries"]
    assert "does not let cloudtrail.amazonaws.com s3:PutObject" in failed[-1]["why"]
    s3.put_bucket_policy(
        Bucket=logs,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "cloudtrail.amazonaws.com"},
                        "Action": "s3:PutObject",
                        "Resource": f"arn:aws:s3:::{logs}/AWSLogs/{server.account}/*",
                        "Condition": {
                            "StringEquals": {
                                "aws:SourceArn": arn,
                                "s3:x-amz-acl": "bucket-owner-full-control",
                            }
                        },
                    }
                ],
            }
        ),
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        of("s3").get_object(Bucket=BUCKET, Key="parcels/month=2026-01/a.parquet")
    s3.put_object(Bucket=BUCKET, Key="touched", Body=b"y")
    (file,) = server.control("POST", "/trails/flush", {})["files"]
    assert file.startswith(f"s3://{logs}/AWSLogs/{server.account}/CloudTrail/{server.region}/")
    body = s3.get_object(Bucket=logs, Key=file.split("/", 3)[3])["Body"].read()
    records = json.loads(gzip.decompress(body))["Records"]
    data = [r for r in records if r["eventCategory"] == "Data"]
    assert [(r["eventName"], r.get("errorCode")) for r in data] == [
        ("GetObject", "AccessDenied"),
        ("PutObject", None),
    ]
    assert data[0]["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] == role_arn
    assert data[0]["requestParameters"] == {"bucketName": BUCKET, "key": "parcels/month=2026-01/a.parquet"}
    assert all(r["resources"][0]["ARN"].startswith(f"arn:aws:s3:::{BUCKET}/") for r in data)
