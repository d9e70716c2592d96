"""Services and versions that are closed, retired or about to be, dated, each with its source.

Checked on 2026-11-21.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CHECKED", "CLOSED", "GLUE", "RUNTIMES", "Closed"]

CHECKED = "2026-11-21"


@dataclass(frozen=True, kw_only=True)
class Closed:
    """What is no longer there for everybody.

    Args:
        what: the service or feature.
        state: ``closed`` to new customers: who had it keeps it; ``retired``: nobody has it.
        since: the day, or the month or year where no day is known.
        instead: what to build on.
        source: where that is said.
    """

    what: str
    state: str
    since: str
    instead: str
    source: str


_MONITOR = Closed(
    what="SageMaker Model Monitor",
    state="closed",
    since="2026-07-30",
    instead="a container of one's own in SageMaker Processing on a schedule (monitoring.engine: processing)",
    source="SageMaker AI, availability change of Model Monitor",
)
_GROUND_TRUTH = Closed(
    what="SageMaker Ground Truth and Augmented AI",
    state="closed",
    since="2026-07-30",
    instead="a labelling flow of one's own (labelling.engine: own)",
    source="SageMaker AI, availability change of Ground Truth",
)
_KDA_SQL = Closed(
    what="Kinesis Data Analytics for SQL",
    state="retired",
    since="2026-01-27",
    instead="Managed Service for Apache Flink",
    source="Kinesis Data Analytics for SQL, discontinuation",
)
_FORECAST = Closed(
    what="Forecast",
    state="closed",
    since="2024-07-29",
    instead="a model of one's own",
    source="AWS machine learning blog on Forecast",
)
_LOOKOUT = Closed(
    what="Lookout",
    state="retired",
    since="2025-10",
    instead="a model of one's own",
    source="AWS, end of support of Lookout",
)
_FRAUD = Closed(
    what="Fraud Detector",
    state="closed",
    since="2025-11-07",
    instead="a model of one's own",
    source="AWS, availability change of Fraud Detector",
)
_EDGE = Closed(
    what="SageMaker Edge Manager",
    state="retired",
    since="2024-04-26",
    instead="Greengrass with ONNX",
    source="SageMaker Edge Manager, end of life",
)
#: By CloudFormation type, or by service and operation as a document calls it.
CLOSED: Mapping[str, Closed] = {
    "AWS::SageMaker::MonitoringSchedule": _MONITOR,
    "AWS::SageMaker::DataQualityJobDefinition": _MONITOR,
    "AWS::SageMaker::ModelQualityJobDefinition": _MONITOR,
    "AWS::SageMaker::ModelBiasJobDefinition": _MONITOR,
    "AWS::SageMaker::ModelExplainabilityJobDefinition": _MONITOR,
    "AWS::SageMaker::Workteam": _GROUND_TRUTH,
    "AWS::SageMaker::DeviceFleet": _EDGE,
    "AWS::SageMaker::Device": _EDGE,
    "AWS::KinesisAnalytics::Application": _KDA_SQL,
    "AWS::KinesisAnalytics::ApplicationOutput": _KDA_SQL,
    "AWS::KinesisAnalytics::ApplicationReferenceDataSource": _KDA_SQL,
    "AWS::Forecast::Dataset": _FORECAST,
    "AWS::Forecast::DatasetGroup": _FORECAST,
    "AWS::LookoutMetrics::AnomalyDetector": _LOOKOUT,
    "AWS::LookoutVision::Project": _LOOKOUT,
    "AWS::LookoutEquipment::InferenceScheduler": _LOOKOUT,
    "AWS::FraudDetector::Detector": _FRAUD,
    "sagemaker CreateLabelingJob": _GROUND_TRUTH,
    "sagemaker CreateFlowDefinition": _GROUND_TRUTH,
    "sagemaker CreateMonitoringSchedule": _MONITOR,
}
#: Lambda runtimes and the day from which no function is made with them ("Runtime deprecation policy").
RUNTIMES: Mapping[str, str] = {
    "python3.7": "2024-01-09",
    "python3.8": "2025-02-28",
    "python3.9": "2026-08-31",
    "nodejs14.x": "2024-01-09",
    "nodejs16.x": "2025-02-28",
    "nodejs18.x": "2026-08-31",
    "java8": "2024-02-08",
    "go1.x": "2024-02-08",
    "provided": "2024-02-08",
    "ruby2.7": "2024-01-09",
    "dotnet6": "2025-02-28",
}
#: Glue versions that are retired ("Glue version support policy").
GLUE: Mapping[str, str] = {"0.9": "2026-04-01", "1.0": "2026-04-01", "2.0": "2026-04-01"}
