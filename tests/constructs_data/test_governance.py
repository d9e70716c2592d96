"""Governance: tags, what each persona is granted, filters, masks, the audit trail; nag over all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from cdk_support import Template, resources, synthesise_stacks
from ml_lifecycle.analysis import QueryWorkgroup, SavedQuery
from ml_lifecycle.data_lake import DataLake, parquet_table
from ml_lifecycle.governance import (
    AuditTrail,
    LakeTags,
    MaskedView,
    MaskKey,
    Personas,
    RowsOf,
    TableGovernance,
)

GRANT = "AWS::LakeFormation::PrincipalPermissions"
ASSOCIATION = "AWS::LakeFormation::TagAssociation"
CELLS = "AWS::LakeFormation::DataCellsFilter"
COLUMNS = [("parcel", "string"), ("carrier", "string"), ("weight", "double"), ("sex", "string")]
PERSON = "arn:aws:iam::111122223333:role/Ana"


def _lake(stack: cdk.Stack) -> DataLake:
    return DataLake(stack, "Lake", database_prefix="t", governed=True)


def _governed(stack: cdk.Stack, **options: Any) -> None:
    lake = _lake(stack)
    tags = LakeTags(stack, "Tags", prefix="t")
    personas = Personas(
        stack, "Personas", tags=tags, lake=lake, principals={"data_scientist": [PERSON]}, **options
    )
    log_key = kms.Key(stack, "LogKey", enable_key_rotation=True)
    key = MaskKey(stack, "MaskKey", zone=lake.curated, database_name="t_governance", log_key=log_key)
    for name, zone in (("Curated", lake.curated), ("Features", lake.features), ("Raw", lake.raw)):
        table = parquet_table(
            stack,
            f"{name}Table",
            zone=zone,
            name="parcels",
            columns=COLUMNS if name != "Features" else COLUMNS[:1] + COLUMNS[2:],
            prefix="parcels/data/",
            partition_key=("month", "string"),
        )
        columns = [column for column, _ in (COLUMNS if name != "Features" else COLUMNS[:1] + COLUMNS[2:])]
        TableGovernance(
            stack,
            f"{name}Governance",
            tags=tags,
            personas=personas,
            zone=zone,
            table_name=table.ref,
            columns=columns,
            classification="confidential",
            sensitive={"parcel": "pii", "sex": "protected"},
            row_filters={"data_scientist": RowsOf(column="carrier", expression="carrier IN ('north')")},
            depends_on=[table],
        )
    MaskedView(
        stack,
        "Masked",
        key=key,
        zone=lake.curated,
        table_name="parcels",
        columns=COLUMNS,
        masks={"parcel": "hash", "sex": "redact"},
        condition="carrier IN ('north')",
    )
    group = QueryWorkgroup(stack, "Queries", name="t-queries", zone=lake.curated, prefix="results/")
    group.save([SavedQuery(id="One", name="one", description="d", database="t_curated", sql="SELECT 1")])
    group.grant_query(personas.roles["data_scientist"])
    trail = AuditTrail(
        stack,
        "Trail",
        name="t-audit",
        access_logs=lake.access_logs,
        database_name="t_audit",
        data_zones=lake.zones,
    )
    trail.grant_read(personas.roles["auditor"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return synthesise_stacks(tmp_path_factory.mktemp("governance"), {"Whole": _governed})["Whole"]


def _of(template: Template, kind: str) -> dict[str, Template]:
    return {name: resource["Properties"] for name, resource in resources(template, kind).items()}


def _expression(grant: Template) -> dict[str, list[str]]:
    return {e["TagKey"]: e["TagValues"] for e in grant["Resource"]["LFTagPolicy"]["Expression"]}


def _by_tags(template: Template, persona: str, kind: str) -> Template:
    (found,) = [
        grant
        for name, grant in _of(template, GRANT).items()
        if name.startswith(f"Personas{persona}")
        and grant["Resource"].get("LFTagPolicy", {}).get("ResourceType") == kind
    ]
    return found


def test_should_put_lake_formation_in_force(template: Template) -> None:
    registrations = _of(template, "AWS::LakeFormation::Resource").values()
    assert [r["HybridAccessEnabled"] for r in registrations] == [False] * 3
    for database in ("t_raw", "t_curated", "t_features", "t_governance"):
        (found,) = [
            d["DatabaseInput"]
            for d in _of(template, "AWS::Glue::Database").values()
            if d["DatabaseInput"]["Name"] == database
        ]
        assert found["CreateTableDefaultPermissions"] == [], database
    (settings,) = _of(template, "AWS::LakeFormation::DataLakeSettings").values()
    assert settings["MutationType"] == "APPEND"
    assert "cfn-exec-role" in json.dumps(settings["Admins"])


def test_should_make_the_tags_before_they_are_used(template: Template) -> None:
    tags = {t["TagKey"]: t["TagValues"] for t in _of(template, "AWS::LakeFormation::Tag").values()}
    assert tags == {
        "t_zone": ["raw", "curated", "features"],
        "t_classification": ["public", "internal", "confidential", "restricted"],
        "t_sensitivity": ["none", "protected", "pii"],
        "t_rows": ["all", "filtered"],
    }
    named = {t["TagKey"]: name for name, t in _of(template, "AWS::LakeFormation::Tag").items()}
    for name, resource in resources(template, ASSOCIATION).items():
        used = {named[pair["TagKey"]] for pair in resource["Properties"]["LFTags"]}
        assert used <= set(resource["DependsOn"]), name


def test_should_mark_columns_by_their_own_sensitivity(template: Template) -> None:
    marked = [
        (a["Resource"]["TableWithColumns"]["ColumnNames"], a["LFTags"][0]["TagValues"])
        for name, a in _of(template, ASSOCIATION).items()
        if name.startswith("CuratedGovernance") and "TableWithColumns" in a["Resource"]
    ]
    assert sorted(marked) == [(["parcel"], ["pii"]), (["sex"], ["protected"])]
    (table,) = [
        {pair["TagKey"]: pair["TagValues"] for pair in a["LFTags"]}
        for name, a in _of(template, ASSOCIATION).items()
        if name.startswith("CuratedGovernance") and "Table" in a["Resource"]
    ]
    assert table == {
        "t_classification": ["confidential"],
        "t_sensitivity": ["none"],
        "t_rows": ["filtered"],
    }


def test_should_grant_each_persona_by_tags(template: Template) -> None:
    scientist = _by_tags(template, "DataScientist", "TABLE")
    assert scientist["Permissions"] == ["SELECT", "DESCRIBE"]
    assert _expression(scientist) == {
        "t_zone": ["curated", "features"],
        "t_classification": ["public", "internal", "confidential"],
        "t_sensitivity": ["none", "protected"],
        "t_rows": ["all"],
    }
    assert _expression(_by_tags(template, "MlopsEngineer", "TABLE"))["t_sensitivity"] == ["none"]
    assert _expression(_by_tags(template, "DataEngineer", "TABLE")) == {
        "t_zone": ["raw", "curated", "features"]
    }
    assert _by_tags(template, "Auditor", "TABLE")["Permissions"] == ["DESCRIBE"]
    changing = [
        name
        for name, policy in _of(template, "AWS::IAM::Policy").items()
        if name.startswith("Personas") and "glue:UpdateTable" in json.dumps(policy)
    ]
    assert [name.startswith("PersonasDataEngineer") for name in changing] == [True]


def test_should_narrow_rows_by_filters_whose_names_follow_their_content(template: Template) -> None:
    cells = {(f["DatabaseName"], f["Name"].rpartition("-")[0]): f for f in _of(template, CELLS).values()}
    # The features have no carrier: the scientist is granted nothing on them. Raw is in nobody's zones.
    assert set(cells) == {("t_curated", "data_scientist"), ("t_features", "mlops_engineer")}
    narrowed = cells["t_curated", "data_scientist"]
    assert narrowed["RowFilter"] == {"FilterExpression": "carrier IN ('north')"}
    assert narrowed["ColumnWildcard"] == {"ExcludedColumnNames": ["parcel"]}
    whole = cells["t_features", "mlops_engineer"]
    assert whole["ColumnWildcard"] == {"ExcludedColumnNames": ["parcel", "sex"]}
    granted = [g for g in _of(template, GRANT).values() if "DataCellsFilter" in g["Resource"]]
    assert {g["Resource"]["DataCellsFilter"]["Name"] for g in granted} == {
        narrowed["Name"],
        whole["Name"],
    }


def test_should_give_no_persona_an_object_of_the_lake(template: Template) -> None:
    buckets = {name for name in resources(template, "AWS::S3::Bucket") if "Lake" in name}
    for name, policy in _of(template, "AWS::IAM::Policy").items():
        if not name.startswith("Personas"):
            continue
        for statement in policy["PolicyDocument"]["Statement"]:
            if "s3:GetObject" in statement["Action"]:
                text = json.dumps(statement["Resource"])
                assert "results/" in text or not any(bucket in text for bucket in buckets), (name, statement)


def test_should_let_the_people_named_take_the_role(template: Template) -> None:
    roles = _of(template, "AWS::IAM::Role")
    trusts = {
        name: role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["AWS"]
        for name, role in roles.items()
        if name.startswith("Personas")
    }
    (scientist,) = [who for name, who in trusts.items() if "DataScientist" in name]
    assert scientist == PERSON
    (engineer,) = [who for name, who in trusts.items() if "DataEngineer" in name]
    assert json.dumps(engineer).count(":root") == 1


def test_should_mask_by_a_key_that_only_the_definer_reads(template: Template) -> None:
    (view,) = [
        t["TableInput"]
        for t in _of(template, "AWS::Glue::Table").values()
        if t["TableInput"]["Name"] == "parcels_masked"
    ]
    (text,) = view["ViewDefinition"]["Representations"]
    assert text["ViewOriginalText"] == (
        'SELECT lower(to_hex(hmac_sha256(to_utf8(CAST(t."parcel" AS VARCHAR)), from_hex(k.secret)))) '
        'AS "parcel", t."carrier", t."weight", CAST(NULL AS VARCHAR) AS "sex" '
        'FROM "t_curated"."parcels" t CROSS JOIN "t_governance"."mask_key" k WHERE carrier IN (\'north\')'
    )
    assert view["ViewDefinition"]["IsProtected"] is True
    readers = [
        name
        for name, grant in _of(template, GRANT).items()
        if grant["Resource"].get("Table", {}).get("DatabaseName") == "t_governance"
    ]
    assert len(readers) == 1
    assert "DefinerReadsKey" in readers[0]
    # Nothing of the key is in the template but where it will lie.
    (key,) = _of(template, "Custom::MaskKey").values()
    assert set(key) == {"ServiceToken", "Bucket", "Object"}


def test_should_enforce_the_settings_of_a_workgroup(template: Template) -> None:
    (group,) = _of(template, "AWS::Athena::WorkGroup").values()
    settings = group["WorkGroupConfiguration"]
    assert settings["EnforceWorkGroupConfiguration"] is True
    assert settings["BytesScannedCutoffPerQuery"] == 10 * 1024**3
    assert settings["EngineVersion"] == {"SelectedEngineVersion": "Athena engine version 3"}
    result = settings["ResultConfiguration"]
    assert result["EncryptionConfiguration"]["EncryptionOption"] == "SSE_KMS"
    (query,) = resources(template, "AWS::Athena::NamedQuery").values()
    assert query["Properties"]["WorkGroup"] == "t-queries"
    assert any(name.startswith("QueriesWorkgroup") for name in query["DependsOn"])


def test_should_let_cloudtrail_write_and_the_auditor_read(template: Template) -> None:
    (trail,) = _of(template, "AWS::CloudTrail::Trail").values()
    assert trail["EnableLogFileValidation"] is True
    assert trail["IsLogging"] is True
    selected = [s["FieldSelectors"] for s in trail["AdvancedEventSelectors"]]
    (objects,) = [f for f in selected[1] if f["Field"] == "resources.ARN"]
    assert len(objects["StartsWith"]) == 4
    sid = {
        s.get("Sid"): s
        for p in _of(template, "AWS::S3::BucketPolicy").values()
        for s in p["PolicyDocument"]["Statement"]
    }
    assert sid["CloudTrailWrites"]["Condition"]["StringEquals"]["s3:x-amz-acl"] == "bucket-owner-full-control"
    assert "aws:SourceArn" in sid["CloudTrailWrites"]["Condition"]["StringEquals"]
    (bucket,) = [name for name in resources(template, "AWS::S3::Bucket") if name.startswith("Trail")]
    readers = [
        name
        for name, policy in _of(template, "AWS::IAM::Policy").items()
        for statement in policy["PolicyDocument"]["Statement"]
        if "s3:GetObject" in statement["Action"] and bucket in json.dumps(statement["Resource"])
    ]
    assert [name.startswith("PersonasAuditor") for name in readers] == [True]


def test_should_pass_the_security_pack(tmp_path: Path) -> None:
    from cdk_nag import AwsSolutionsChecks
    from cdk_support import cdk_context

    app = cdk.App(context=cdk_context(), outdir=str(tmp_path))
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    _governed(cdk.Stack(app, "Governed"))
    app.synth()


# -- what is refused ----------------------------------------------------------------------------------------


def _refused(build: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        build(cdk.Stack())


def test_should_refuse_personas_of_a_lake_that_iam_rules() -> None:
    def build(stack: cdk.Stack) -> None:
        lake = DataLake(stack, "Lake", database_prefix="t")
        tags = LakeTags(stack, "Tags", prefix="t")
        Personas(stack, "P", tags=tags, lake=lake, readable=["secret"])

    _refused(build, "readable must hold some of public.*got 'secret'; lake must be governed=True")


def test_should_refuse_what_a_table_cannot_be() -> None:
    def build(stack: cdk.Stack) -> None:
        lake = _lake(stack)
        tags = LakeTags(stack, "Tags", prefix="t")
        personas = Personas(stack, "P", tags=tags, lake=lake)
        TableGovernance(
            stack,
            "T",
            tags=tags,
            personas=personas,
            zone=lake.artifacts,
            table_name="t",
            columns=["a"],
            classification="top",
            sensitive={"b": "pii"},
            row_filters={"auditor": RowsOf(column="a", expression="a = 1")},
        )

    _refused(build, "sensitive names 'b'.*got 'auditor'; classification must be.*zone must have a database")


def test_should_refuse_masks_of_no_column_and_of_no_kind() -> None:
    def build(stack: cdk.Stack) -> None:
        lake = _lake(stack)
        key = MaskKey(stack, "K", zone=lake.curated, database_name="g", log_key=kms.Key(stack, "Key"))
        MaskedView(
            stack,
            "V",
            key=key,
            zone=lake.curated,
            table_name="t",
            columns=[("a", "string")],
            masks={"b": "hash", "a": "blur"},
        )

    _refused(build, "masks names 'b', which is no column; masks must be hash or redact, got 'blur' for a")


def test_should_refuse_a_workgroup_that_may_read_nothing() -> None:
    def build(stack: cdk.Stack) -> None:
        lake = _lake(stack)
        QueryWorkgroup(stack, "Q", name="q", zone=lake.raw, prefix="/x", scan_limit=cdk.Size.kibibytes(1))

    _refused(build, "scan_limit must be at least 10 MB, got 1024 bytes; prefix must end with")


def test_should_refuse_a_trail_that_keeps_nothing() -> None:
    def build(stack: cdk.Stack) -> None:
        lake = _lake(stack)
        AuditTrail(stack, "A", name="a", access_logs=lake.access_logs, database_name="d", retention_days=0)

    _refused(build, "retention_days must be at least 1, got 0")


def test_should_refuse_a_tag_that_is_not_there() -> None:
    tags = LakeTags(cdk.Stack(), "Tags", prefix="t")
    with pytest.raises(ValueError, match="tag must be one of zone, classification, sensitivity, rows"):
        tags.key("owner")
