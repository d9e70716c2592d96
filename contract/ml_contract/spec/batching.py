"""The ``batch`` block: how raw records become curated rows and features, and on which engine."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ml_contract.spec.blocks import Strict

__all__ = ["ENGINE_OPTIONS", "Batch", "Dedup", "Enrich", "Language", "Profile", "Severity"]

Severity = Literal["stop", "quarantine", "warn"]
#: What BatchDetectSentiment and BatchDetectEntities take (Amazon Comprehend API reference, LanguageCode).
Language = Literal["en", "es", "fr", "de", "it", "pt", "ar", "hi", "ja", "ko", "zh", "zh-TW"]
RuleOrKind = Annotated[str, Field(min_length=3)]

#: Options that one engine reads and no other. Set for another scale they would be ignored: refused instead.
ENGINE_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "small": ("instance_type", "volume_gb"),
    "medium": ("worker_type", "workers", "execution_class"),
    "large": ("max_vcpu", "max_memory_gb", "idle_minutes"),
}


class Dedup(Strict):
    """Which of several records with one identifier is kept.

    Ties are broken by the record's digest, so that the choice never depends on the order of files.
    """

    keep: Literal["latest_event", "latest_arrival", "first_arrival"] = Field(
        default="latest_event",
        description="latest_event: the newest event time, then the newest arrival; latest_arrival: what came "
        "last; first_arrival: what came first, later ones never change a record.",
    )


class Profile(Strict):
    """A profile of the raw table by AWS Glue DataBrew, and a project to look at it by hand."""

    schedule: str = Field(
        default="cron(0 4 ? * SUN *)",
        pattern=r"^cron\([^()]+\)$",
        description="UTC; DataBrew knows no rates.",
    )
    sample_rows: int | None = Field(
        default=20_000, ge=1, description="Rows that are profiled; null for every row."
    )


class Enrich(Strict):
    """Sentiment and entities of a text field, by Amazon Comprehend, as a table beside the curated one."""

    field: str = Field(description="A string field of the record; one text a row.")
    language: Language = Field(description="Of every text: Comprehend's batch operations detect none.")
    sentiment: bool = True
    entities: bool = True
    allow_pii: bool = Field(
        default=False,
        description="The field is marked sensitive: pii and is sent to Comprehend all the same.",
    )
    most_texts: int = Field(
        default=100_000,
        ge=1,
        le=10_000_000,
        description="Texts a run at most, since each costs; the next run takes the rest.",
    )

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not (self.sentiment or self.entities):
            raise ValueError("sentiment and entities are both false, so nothing is asked; leave enrich out")
        return self


class Batch(Strict):
    """How raw records become curated rows and features."""

    scale: Literal["small", "medium", "large"] = Field(
        default="small",
        description="small: one machine (polars, SageMaker Processing), quickest as long as it holds the "
        "table; medium: Spark on AWS Glue; large: the same Spark code on EMR Serverless.",
    )
    instance_type: str = Field(
        default="ml.m5.xlarge", description="small only: the machine; its memory bounds the table."
    )
    volume_gb: int = Field(
        default=60, ge=1, le=16_384, description="small only: disk for the raw files and the result."
    )
    worker_type: Literal["G.1X", "G.2X", "G.4X", "G.8X"] = Field(default="G.1X", description="medium only.")
    workers: int = Field(default=2, ge=2, le=299, description="medium only.")
    execution_class: Literal["standard", "flex"] = Field(
        default="standard",
        description="medium only. flex: spare capacity, cheaper, may start late and may be interrupted.",
    )
    max_vcpu: int = Field(default=64, ge=8, le=4_000, description="large only: bound of the application.")
    max_memory_gb: int = Field(
        default=256, ge=32, le=30_000, description="large only: bound of the application."
    )
    idle_minutes: int = Field(
        default=15, ge=1, le=10_080, description="large only: idle application stops after this long."
    )
    schedule: str | None = Field(
        default="cron(0 2 * * ? *)", description="UTC; EventBridge cron or rate; null for none."
    )
    on_landing: bool = Field(default=True, description="Also run when new data lands in the raw zone.")
    rules: tuple[str, ...] = Field(
        default=(), description="Further DQDL rules beside those made from the fields."
    )
    severity: dict[RuleOrKind, Severity] = Field(
        default_factory=dict,
        description="What a broken rule does, by rule type (ColumnValues) or by the whole rule, which wins: "
        "stop refuses the run (default), quarantine sets the offending rows aside and goes on, warn reports.",
    )
    dedup: Dedup = Dedup()
    profile: Profile | None = Field(
        default=None, description="A DataBrew profile of the raw table on a schedule; null for none."
    )

    enrich: Enrich | None = Field(
        default=None,
        description="Sentiment and entities of a text field by Amazon Comprehend; null for none.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        for scale, options in ENGINE_OPTIONS.items():
            if scale != self.scale:
                problems += [
                    f"{name} goes with scale: {scale}, got scale: {self.scale}; leave one of them out"
                    for name in options
                    if name in self.model_fields_set
                ]
        # AWS Glue Developer Guide, "Flexible execution class": G.1X and G.2X workers only.
        if self.execution_class == "flex" and self.worker_type not in ("G.1X", "G.2X"):
            problems.append(
                f"execution_class: flex runs on G.1X and G.2X workers, got worker_type: {self.worker_type}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self
