"""The workload contract: the typed form of a ``workload.yaml``.

One frozen pydantic model per block, most of them in modules of their own beside this one. Pydantic reports
every problem of an input at once; ``ml_contract.load`` adds the line of each. The JSON Schema that editors
complete from is generated from these same classes.

Nothing here knows of AWS or of the CDK. Infrastructure reads this model; code that runs in an account reads
its compiled form (``ml_contract.compiled``), which needs neither pydantic nor YAML.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ml_contract.spec.alternatives import Alternatives
from ml_contract.spec.batching import Batch
from ml_contract.spec.blocks import Classification, Slug, Strict
from ml_contract.spec.evaluation import Evaluation
from ml_contract.spec.expected_load import ExpectedLoad
from ml_contract.spec.features import Features
from ml_contract.spec.governance import GovernanceSpec
from ml_contract.spec.judging import Acceptance
from ml_contract.spec.labelling import Labelling
from ml_contract.spec.monitoring import Monitoring
from ml_contract.spec.record import Label, RecordSpec
from ml_contract.spec.registry import Registry
from ml_contract.spec.retraining import Retraining
from ml_contract.spec.serving import Serving
from ml_contract.spec.sources import Sources
from ml_contract.spec.streaming import Stream
from ml_contract.spec.training import Training
from ml_contract.spec.tuning import Tuning
from ml_contract.spec.windows import Windows


class Workload(Strict):
    """One use case: its data, its model and its care."""

    version: Literal[1]
    name: Slug
    title: str = Field(min_length=3, max_length=120)
    owner: str = Field(min_length=3, description="Who answers for it: a team or an address.")
    classification: Classification = "confidential"
    record: RecordSpec
    label: Label
    features: Features = Features()
    windows: Windows | None = None
    stream: Stream = Stream()
    sources: Sources = Field(default_factory=dict, description="Batch sources by name, beside the stream.")
    batch: Batch = Batch()
    training: Training = Training()
    tuning: Tuning | None = None
    alternatives: Alternatives = Alternatives()
    acceptance: Acceptance
    evaluation: Evaluation = Evaluation()
    registry: Registry = Registry()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    retraining: Retraining = Retraining()
    governance: GovernanceSpec = GovernanceSpec()
    labelling: Labelling | None = None
    load: ExpectedLoad = ExpectedLoad()

    @property
    def id(self) -> str:
        """PascalCase form of the name, for construct ids: ``claims_fraud`` is ``ClaimsFraud``."""
        return "".join(part[:1].upper() + part[1:] for part in self.name.split("_"))

    @property
    def slug(self) -> str:
        """Hyphenated form of the name, for AWS names: ``claims_fraud`` is ``claims-fraud``."""
        return self.name.replace("_", "-")

    def json_dict(self) -> dict[str, Any]:
        """Plain JSON data of the whole workload, defaults included."""
        return self.model_dump(mode="json")
