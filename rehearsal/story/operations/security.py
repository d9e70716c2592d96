"""Cells of security: what each persona and each job's role is let and refused, by calls that are made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rehearsal.story.governance import Persona, persona
from rehearsal.story.operations.cells import Cell
from rehearsal.story.operations.isolation import jobs_of
from rehearsal.story.telling import Evidence, require

if TYPE_CHECKING:
    from rehearsal.story.tale import Tale

__all__ = ["CELLS"]

CHAPTER = "Security"
#: Where the constructs leave their table of rights: the Metadata of a template.
RIGHTS = "MLLifecycle::Rights"
#: The same of a job's role: the Metadata of the role.
JOB_ROLE = "MLLifecycle::JobRole"
KINDS = ("pipeline", "processing", "training", "model", "monitor")
PERSONAS = ("data_scientist", "data_engineer", "mlops_engineer", "auditor")
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "Forbidden"})
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_EVERYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)


def metadata(tale: Tale, part: str, key: str) -> Any:
    """What a template of the stage says in its Metadata."""
    found = [a for a in tale.stage_stacks if a.id.partition(" (")[0] == f"{tale.stage}/{part}"]
    require(found, f"there is no stack {tale.stage}/{part}")
    said = json.loads(found[0].template.read_text(encoding="utf-8")).get("Metadata", {})
    require(key in said, f"the template of {part} has no {key} in its Metadata")
    return said[key]


def bucket_of(uri: str) -> str:
    """The bucket of an S3 URI."""
    return urlsplit(uri).netloc


def values(tale: Tale) -> dict[str, str]:
    """What the placeholders of the calls stand for."""
    models, data = tale.outputs("Models"), tale.outputs("Data")
    return {
        "Account": tale.cloud.server.account,
        "Region": tale.cloud.server.environment()["AWS_REGION"],
        "Environment": tale.stage.lower(),
        "Stage": tale.stage,
        "Slug": tale.workload.slug,
        "PipelineName": models["PipelineName"],
        "ModelPackageGroupName": models["ModelPackageGroupName"],
        "ArtifactsBucket": bucket_of(models["ArtifactsUri"]),
        "LakeBucket": bucket_of(data["CuratedDataUri"]),
        "RawBucket": bucket_of(data["RawDataUri"]),
        "FeaturesBucket": bucket_of(data["FeaturesDataUri"]),
        "ApprovedModelParameter": models["ApprovedModelParameter"],
    }


def filled(value: Any, known: Mapping[str, str]) -> Any:
    """The parameters of a call, its placeholders filled."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: known[match.group(1)], value)
    if isinstance(value, Mapping):
        return {name: filled(part, known) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, known) for part in value]
    return value


def made(client: Any, call: Mapping[str, Any], known: Mapping[str, str]) -> tuple[str | None, str]:
    """Make a call; return its error code, None when it succeeded, and what was said."""
    from botocore import xform_name
    from botocore.exceptions import ClientError

    try:
        getattr(client, xform_name(call["operation"]))(**filled(call["parameters"], known))
    except ClientError as error:
        return str(error.response["Error"]["Code"]), str(error.response["Error"].get("Message", ""))
    return None, ""


class Acting:
    """A role of a job, taken on by a session that the rehearsal gives out: only services can assume it."""

    def __init__(self, tale: Tale, role_arn: str) -> None:
        given = tale.cloud.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="rehearsal")
        self.role = role_arn
        self._endpoint = tale.cloud.server.endpoint
        self._region = tale.cloud.server.environment()["AWS_REGION"]
        self._given = given["Credentials"]
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client that acts as the role."""
        if service not in self._clients:
            self._clients[service] = _client(self._given, self._region, self._endpoint, service)
        return self._clients[service]


def _client(given: Mapping[str, str], region: str, endpoint: str, service: str) -> Any:
    """A client that signs with what STS gave, and asks once."""
    import boto3.session
    from botocore.config import Config

    session: Any = boto3.session.Session(
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        region_name=region,
    )
    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
    return session.client(service, endpoint_url=endpoint, config=config)


def job_roles(tale: Tale) -> Iterator[tuple[str, dict[str, Any]]]:
    """The roles that say of which kind of job they are: ARN, and the calls that show it."""
    cloudformation, iam = tale.cloud.client("cloudformation"), tale.cloud.client("iam")
    for stack in tale.stage_stacks:
        if tale.workload.id not in stack.id:
            continue
        template = json.loads(stack.template.read_text(encoding="utf-8"))
        for logical_id, resource in template["Resources"].items():
            shown = resource.get("Metadata", {}).get(JOB_ROLE)
            if shown is None:
                continue
            found = cloudformation.describe_stack_resource(StackName=stack.name, LogicalResourceId=logical_id)
            name = found["StackResourceDetail"]["PhysicalResourceId"]
            yield str(iam.get_role(RoleName=name)["Role"]["Arn"]), shown


def _attempt(who: Persona, call: Mapping[str, Any], known: Mapping[str, str]) -> tuple[str | None, str]:
    other = next(role for name, role in known.items() if name.startswith("Role:") and role != who.role)
    own = {"OwnRole": who.role.rsplit("/", 1)[-1], "OtherRoleArn": other}
    return made(who.client(call["service"]), call, {**known, **own})


def _known(tale: Tale) -> dict[str, str]:
    return {**values(tale), **{f"Role:{name}": persona(tale, name).role for name in PERSONAS}}


def _personas(tale: Tale, evidence: Evidence) -> None:
    """Every right is had by those that the table lists, and refused to everybody else."""
    table, known = metadata(tale, "Governance", RIGHTS), _known(tale)
    shown: dict[str, dict[str, str]] = {}
    evidence["rights"] = shown
    counts = {"let": 0, "refused": 0}
    for call in table["allowed"]:
        row = shown.setdefault(f"{call['title']} ({call['operation']})", {})
        for name in PERSONAS:
            code, text = _attempt(persona(tale, name), call, known)
            listed = name in call["personas"]
            row[name] = "let" if code not in _DENIED else "refused"
            counts[row[name]] += 1
            if not listed:
                require(code in _DENIED, f"{name} may {call['title']}: {code or 'it succeeded'} {text}")
            else:
                require(code not in _DENIED, f"{name} may not {call['title']}: {text}")
                wanted = call.get("answers", [None])
                require(
                    code in wanted,
                    f"{name}, {call['operation']}: one of {wanted} was expected, got {code} {text}",
                )
    evidence |= {"calls_let": counts["let"], "calls_refused": counts["refused"]}


def _never(tale: Tale, evidence: Evidence) -> None:
    """What none may, none may."""
    table, known = metadata(tale, "Governance", RIGHTS), _known(tale)
    for call in table["forbidden"]:
        for name in PERSONAS:
            code, text = _attempt(persona(tale, name), call, known)
            require(code in _DENIED, f"{name}: {call['id']} was not refused: {code or 'it succeeded'} {text}")
    evidence["refused_to_all"] = [f"{call['service']}:{call['operation']}" for call in table["forbidden"]]


def _pending_only(tale: Tale, evidence: Evidence) -> None:
    """Who registers cannot approve by the same call."""
    known = _known(tale)
    call = {
        "service": "sagemaker",
        "operation": "CreateModelPackage",
        "parameters": {
            "ModelPackageGroupName": "${ModelPackageGroupName}",
            "ModelApprovalStatus": "Approved",
        },
    }
    code, text = _attempt(persona(tale, "data_scientist"), call, known)
    evidence |= {"registered_as_approved": code, "said": text[:240]}
    require(code in _DENIED, f"the data scientist registered an approved version: {code} {text}")


def _boundary(tale: Tale, evidence: Evidence) -> None:
    """A policy that allows everything, attached to a persona, still does not lead beyond the boundary."""
    table, known = metadata(tale, "Governance", RIGHTS), _known(tale)
    iam = tale.cloud.client("iam")
    evidence["boundary"] = {}
    for name in PERSONAS:
        who = persona(tale, name)
        role = iam.get_role(RoleName=who.role.rsplit("/", 1)[-1])["Role"]
        arn = role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        require(arn, f"the role of {name} has no boundary")
        beyond = next((call for call in table["allowed"] if name not in call["personas"]), None)
        iam.put_role_policy(RoleName=role["RoleName"], PolicyName="Everything", PolicyDocument=_EVERYTHING)
        try:
            if beyond is not None:
                code, text = _attempt(who, beyond, known)
                # The policy is in force, or the refusals below would show nothing.
                require(code not in _DENIED, f"the policy that allows everything changes nothing: {text}")
            for call in table["forbidden"]:
                code, text = _attempt(who, call, known)
                require(
                    code in _DENIED,
                    f"{name}, allowed everything: {call['id']}: {code or 'it succeeded'} {text}",
                )
        finally:
            iam.delete_role_policy(RoleName=role["RoleName"], PolicyName="Everything")
        if beyond is not None:
            code, text = _attempt(who, beyond, known)
            require(code in _DENIED, f"{name} keeps what the removed policy gave: {code} {text}")
        evidence["boundary"][name] = {
            "policy": arn.rsplit("/", 1)[-1],
            "let_by_the_policy": None if beyond is None else beyond["operation"],
            "still_refused": len(table["forbidden"]),
        }


def _abort(s3: Any, *, Bucket: str, Key: str) -> None:  # noqa: N803 - as S3 names them
    for upload in s3.list_multipart_uploads(Bucket=Bucket, Prefix=Key).get("Uploads", ()):
        if upload["Key"] == Key:
            s3.abort_multipart_upload(Bucket=Bucket, Key=Key, UploadId=upload["UploadId"])


def _jobs(tale: Tale, evidence: Evidence) -> None:
    """The role of each kind of job makes the calls of its kind, and none of what no job may."""
    known = values(tale)
    s3, seen = tale.cloud.client("s3"), set()
    evidence["session"] = "given out by the rehearsal: the roles trust services only"
    evidence["roles"] = {}
    for role, shown in job_roles(tale):
        seen.add(shown["kind"])
        who = Acting(tale, role)
        own = {**known, "OwnRole": role.rsplit("/", 1)[-1]}
        for title, call in shown["let"].items():
            code, text = made(who.client(call["service"]), call, own)
            wanted = call.get("answers", [None])
            require(code in wanted, f"the {shown['kind']} role cannot {title}: {code} {text}")
            if call["operation"] == "CreateMultipartUpload":
                _abort(s3, **filled(call["parameters"], own))
        for title, call in shown["refused"].items():
            code, text = made(who.client(call["service"]), call, own)
            require(code in _DENIED, f"the {shown['kind']} role may {title}: {code or 'it succeeded'} {text}")
        name = role.rsplit("/", 1)[-1]
        evidence["roles"][name] = {
            "kind": shown["kind"],
            "let": list(shown["let"]),
            "refused": list(shown["refused"]),
        }
    require(seen == set(KINDS), f"roles of {sorted(seen)} were found, not of {sorted(KINDS)}")


def _unused(tale: Tale, evidence: Evidence) -> None:
    """What the jobs' roles are granted and nothing has needed so far; the report lists every role."""
    kinds = {arn: shown["kind"] for arn, shown in job_roles(tale)}
    listed: dict[str, Any] = {}
    for role in tale.cloud.permissions():
        kind = kinds.get(role["role"])
        if kind is None:
            continue
        unused = sorted({grant["action"] for grant in role["grants"] if not grant["used"]})
        used = sorted({grant["action"] for grant in role["grants"] if grant["used"]})
        listed[role["role"].rsplit("/", 1)[-1]] = {"kind": kind, "used": used, "unused": unused}
    evidence["job_roles"] = listed
    for name, found in listed.items():
        # The monitor's schedule is not due yet.
        require(
            found["used"] or found["kind"] == "monitor", f"no call has needed anything that {name} is granted"
        )


def _job_settings(tale: Tale, evidence: Evidence) -> None:
    """Every job that a template describes is cut off and encrypts, or its template says why not."""
    jobs = [job for stack in tale.stage_stacks for job in jobs_of(stack.id, stack.template)]
    require(jobs, "no template describes a job")
    silent = [
        f"{job.stack} {job.resource}: {job.kind} lacks {', '.join(job.missing)}"
        for job in jobs
        if job.missing and job.reason is None
    ]
    evidence |= {
        "jobs": len(jobs),
        "isolated_and_encrypting": sum(1 for job in jobs if not job.missing),
        "with_a_reason": sorted(
            {f"{job.resource} ({', '.join(job.missing)}): {job.reason}" for job in jobs if job.reason}
        ),
    }
    require(not silent, f"open without a reason: {'; '.join(silent)}")


def _endpoints(tale: Tale, evidence: Evidence) -> None:
    """Every endpoint of the VPC has a policy that ends at own principals and own resources."""
    found: dict[str, list[str]] = {}
    for stack in tale.stage_stacks:
        template = json.loads(stack.template.read_text(encoding="utf-8"))
        for name, resource in template["Resources"].items():
            if resource["Type"] != "AWS::EC2::VPCEndpoint":
                continue
            statements = resource["Properties"].get("PolicyDocument", {}).get("Statement", [])
            require(statements, f"{stack.id} {name} lets everything through")
            for statement in statements:
                keys = {key for part in statement.get("Condition", {}).values() for key in part}
                narrow = statement["Resource"] != "*" or any("Resource" in key for key in keys)
                require(narrow, f"{stack.id} {name}: {statement.get('Sid')} ends nowhere")
            found[name] = [str(statement.get("Sid")) for statement in statements]
    require(found, "the stage has no endpoint in a VPC")
    evidence["endpoints"] = found


def _classified_keys(tale: Tale, evidence: Evidence) -> None:
    """The key of a classification serves roles of its workloads, whatever others are granted."""
    kms, iam = tale.cloud.client("kms"), tale.cloud.client("iam")
    stream = tale.cloud.client("kinesis").describe_stream_summary(
        StreamName=tale.outputs("Data")["StreamName"]
    )["StreamDescriptionSummary"]
    require(stream.get("EncryptionType") == "KMS", f"the stream is not encrypted: {stream}")
    key = kms.describe_key(KeyId=stream["KeyId"])["KeyMetadata"]
    evidence |= {"classification": tale.workload.classification, "key": key["Description"]}
    require(
        tale.workload.classification in key["Description"],
        f"the stream's key is no key of the classification: {key['Description']}",
    )
    policy = json.loads(kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default")["Policy"])
    actions = {action for statement in policy["Statement"] for action in _listed(statement["Action"])}
    evidence["actions_of_its_policy"] = sorted(actions)
    require(not any("*" in action for action in actions), "its policy has a wildcard")
    call = {
        "service": "kms",
        "operation": "GenerateDataKeyWithoutPlaintext",
        "parameters": {"KeyId": key["Arn"], "KeySpec": "AES_256"},
    }
    training = next(arn for arn, shown in job_roles(tale) if shown["kind"] == "training")
    code, text = made(Acting(tale, training).client("kms"), call, {})
    require(code is None, f"the training role of the workload cannot use its key: {code} {text}")
    evidence["the_workloads_own_role"] = "let"
    stranger = persona(tale, "data_engineer")
    name = stranger.role.rsplit("/", 1)[-1]
    reading = {**call, "operation": "GenerateDataKey"}
    iam.put_role_policy(RoleName=name, PolicyName="Everything", PolicyDocument=_EVERYTHING)
    try:
        code, text = made(stranger.client("kms"), reading, {})
    finally:
        iam.delete_role_policy(RoleName=name, PolicyName="Everything")
    evidence["a_stranger_that_is_allowed_everything"] = code
    require(code in _DENIED, f"a role of no workload uses the key: {code or 'it succeeded'} {text}")


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


CELLS: Sequence[Cell] = (
    Cell(
        id="secure.network.jobs",
        title="Every job is cut off from the network and encrypts between containers, or says why not",
        chapter=CHAPTER,
        run=_job_settings,
        ground="synthesised",
        capabilities=("secure.network",),
    ),
    Cell(
        id="secure.network.endpoints",
        title="The endpoints of the VPC let own roles reach own resources",
        chapter=CHAPTER,
        run=_endpoints,
        ground="synthesised",
        capabilities=("secure.network",),
        why_recorded="no process of the rehearsal runs inside the VPC, so no call passes an endpoint",
    ),
    Cell(
        id="secure.kms.classification",
        title="The key of a classification serves the roles of its workloads only",
        chapter=CHAPTER,
        run=_classified_keys,
        ground="deployed",
        capabilities=("secure.kms",),
    ),
    Cell(
        id="secure.roles.unused",
        title="What the roles of the jobs are granted and nothing needed is listed",
        chapter=CHAPTER,
        run=_unused,
        ground="serving",
        capabilities=("secure.roles",),
    ),
    Cell(
        id="secure.roles.jobs",
        title="The role of each kind of job makes the calls of its kind, and no others",
        chapter=CHAPTER,
        run=_jobs,
        ground="deployed",
        capabilities=("secure.roles",),
    ),
    Cell(
        id="secure.personas.rights",
        title="Each persona makes the calls of its table, and is refused those of the others",
        chapter=CHAPTER,
        run=_personas,
        ground="deployed",
        capabilities=("secure.personas",),
    ),
    Cell(
        id="secure.personas.never",
        title="No persona destroys keys, data, logs or trails, nor widens itself",
        chapter=CHAPTER,
        run=_never,
        ground="deployed",
        capabilities=("secure.personas",),
    ),
    Cell(
        id="secure.personas.pending",
        title="A data scientist registers versions that wait, never approved ones",
        chapter=CHAPTER,
        run=_pending_only,
        ground="deployed",
        capabilities=("secure.personas",),
    ),
    Cell(
        id="secure.personas.boundary",
        title="With a policy that allows everything, a persona still does not leave its boundary",
        chapter=CHAPTER,
        run=_boundary,
        ground="deployed",
        capabilities=("secure.personas",),
    ),
)
