"""A report written by hand, with every part filled: what the renderer and the schema are tested with."""

from __future__ import annotations

import math
from typing import Any

from rehearsal.report import Report, StepResult


def step(step_id: str, title: str, chapter: str, seconds: float, **more: Any) -> StepResult:
    return StepResult(
        id=step_id,
        title=title,
        chapter=chapter,
        status=more.pop("status", "passed"),
        seconds=seconds,
        capabilities=tuple(more.pop("capabilities", ())),
        evidence=more,
    )


def stack(name: str, *types: tuple[str, int], depends_on: tuple[str, ...] = ()) -> dict[str, Any]:
    resources = [
        {"logical_id": f"{kind.split('::')[-1]}{i}", "type": kind}
        for kind, count in types
        for i in range(count)
    ]
    return {
        "name": f"Dev-{name}",
        "id": f"Dev/{name}",
        "resources": resources,
        "depends_on": [f"Dev/{d}" for d in depends_on],
    }


def series(
    length: int, switch: int, *, failed: float = 0.0, back: int | None = None
) -> list[dict[str, float]]:
    points = []
    for second in range(length):
        share = 0.0 if second < switch else (0.1 if second < switch + 10 else 1.0)
        if back is not None and second >= back:
            share = 0.0
        elif back is not None:
            share = min(share, 0.1)
        rate = 42 + 5 * math.sin(second / 3)
        points.append(
            {
                "at": float(second),
                "old": rate * (1 - share),
                "new": rate * share * (1 - failed),
                "failed": rate * share * failed,
            }
        )
    return points


def curve(power: float) -> list[list[float]]:
    return [[x / 50, (x / 50) ** power] for x in range(51)]


def report() -> Report:
    metrics = {"auc": 0.842, "average_precision": 0.71, "accuracy": 0.835, "f1": 0.66, "log_loss": 0.38}
    better = {"auc": 0.861, "average_precision": 0.74, "accuracy": 0.842, "f1": 0.68, "log_loss": 0.36}
    names = ["incident_severity", "insured_hobbies", "auto_make", "total_claim_amount", "age", "witnesses"]
    drifts = [0.92, 0.61, 0.44, 0.27, 0.08, 0.02]
    return Report(
        workload="claims_fraud",
        title="Car insurance claims that are probably fraud",
        stage="Dev",
        started="2026-11-21T10:00:00+00:00",
        seed=7,
        seconds=251.3,
        data={"source": "the workload's generate.py", "rows": 1000},
        machine={"python": "3.11.9", "cpus": 2},
        sources=[
            {
                "source": "partner_claims",
                "kind": "drop",
                "owner": "partner-integration@example.com",
                "description": "",
                "schema_version": 1,
                "fresh_within_hours": 48,
                "classification": "confidential",
                "sends": "csv files with a manifest",
                "lands": "claims-fraud/data/ of the raw zone",
                "sent": 28,
                "delivered": 25,
                "quarantined": 3,
            }
        ],
        records={
            "sent": 1100,
            "delivered": 1035,
            "quarantined": 65,
            "duplicates_dropped": 20,
            "lost": 0,
            "reasons": [
                {"code": "wrong_type", "records": 20, "example": "age: got 'abc'; an integer is allowed"},
                {"code": "not_json", "records": 15, "example": "<b>{not json</b>"},
            ],
        },
        model={
            "metrics": better,
            "version": 2,
            "approved": True,
            "history": [
                {
                    "version": 1,
                    "reason": "on demand: first model",
                    "status": "Approved",
                    "metrics": metrics,
                    "rows": 200,
                    "roc": curve(0.25),
                    "confusion": [[138, 12], [18, 32]],
                    "labels": ["N", "Y"],
                },
                {
                    "version": 2,
                    "reason": "drift: alarm Dev-ClaimsFraud-drift",
                    "status": "Approved",
                    "metrics": better,
                    "rows": 380,
                    "roc": curve(0.2),
                    "confusion": [[270, 20], [31, 59]],
                    "labels": ["N", "Y"],
                },
                {"version": 3, "reason": "broken on purpose", "status": "Rejected", "metrics": metrics},
            ],
        },
        drift={
            "metric": "auc",
            "usual": {"auc": 0.84},
            "before": {"auc": 0.61},
            "after": {"auc": 0.83},
            "violations": [
                {
                    "feature_name": name,
                    "constraint_check_type": "baseline_drift_check",
                    "description": f"psi {value} exceeds the threshold 0.25",
                }
                for name, value in zip(names, drifts, strict=True)
                if value > 0.25
            ],
            "features": [
                {"feature": n, "distance": "psi", "before": 0.03 + 0.01 * i, "after": d, "threshold": 0.25}
                for i, (n, d) in enumerate(zip(names, drifts, strict=True))
            ],
        },
        traffic={
            "canary": {
                "requests": 2480,
                "failed": 0,
                "p50_ms": 4.2,
                "p99_ms": 19.0,
                "series": series(50, 12),
            },
            "rollback": {
                "requests": 1604,
                "failed": 31,
                "p50_ms": 4.1,
                "p99_ms": 21.0,
                "series": series(40, 10, failed=1.0, back=19),
            },
        },
        stacks=[
            stack("Foundation", ("AWS::KMS::Key", 3), ("AWS::EC2::Subnet", 4), ("AWS::IAM::Role", 3)),
            stack("DataLake", ("AWS::S3::Bucket", 5), ("AWS::Glue::Database", 3), depends_on=("Foundation",)),
            stack(
                "ClaimsFraudData",
                ("AWS::Glue::Job", 2),
                ("AWS::Kinesis::Stream", 1),
                ("AWS::Lambda::Function", 1),
                ("AWS::SageMaker::FeatureGroup", 1),
                depends_on=("Foundation", "DataLake"),
            ),
            stack(
                "ClaimsFraudModels",
                ("AWS::SageMaker::Pipeline", 1),
                ("AWS::SSM::Parameter", 1),
                ("AWS::IAM::Role", 3),
                depends_on=("DataLake", "ClaimsFraudData"),
            ),
            stack("ClaimsFraudServing", ("AWS::SageMaker::Endpoint", 1), depends_on=("ClaimsFraudModels",)),
            stack(
                "ClaimsFraudOperations",
                ("AWS::CloudWatch::Alarm", 5),
                ("AWS::Events::Rule", 3),
                depends_on=("ClaimsFraudServing", "ClaimsFraudModels"),
            ),
        ],
        steps=[
            step("synth", "Synthesise the app", "Deploy", 6.2, stacks=9, resources=312),
            step(
                "deploy",
                "Deploy every stack of the stage with the CDK CLI",
                "Deploy",
                61.0,
                capabilities=["secure.kms", "secure.network"],
                stacks=[
                    {"stack": "Dev-Foundation", "seconds": 20.5},
                    {"stack": "Dev-DataLake", "seconds": 11.0},
                ],
            ),
            step(
                "deploy-delivery",
                "Deploy the delivery pipeline",
                "Deploy",
                12.0,
                status="recorded",
                capabilities=["deliver.pipeline"],
            ),
            step(
                "send",
                "Send the records to the stream",
                "Ingest",
                1.4,
                capabilities=["stream.kinesis"],
                sent=1100,
                dirt={"wrong_type": 20, "not_json": 15},
                examples=["a", "b"],
                empty=[],
                nothing=None,
                good=True,
            ),
        ],
        ledger={
            "ran": [
                {"kind": "lambda", "name": "RecordTransform", "why": ""},
                {"kind": "lambda", "name": "RetrainTrigger", "why": ""},
                {"kind": "training job", "name": "xgboost", "why": ""},
            ],
            "recorded": [
                {"kind": "codepipeline", "name": "Delivery", "why": "only an account runs a pipeline"}
            ],
            "failed": [],
        },
        iam={
            "unused": [{"role": "RetrainRole", "called": False, "actions": ["sqs:SendMessage"]}],
            "denied": [],
        },
        survivors=[{"stack": "Dev-DataLake", "type": "AWS::S3::Bucket", "name": "raw"}],
    )
