"""Which instance types SageMaker offers for what.

The lists are SageMaker's own enumerations (see ``ml_lifecycle.training.service_model``), never a copy by
hand: training, processing, endpoints and batch transform each have another one. An account's quota may allow
less; a Region may offer less.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import Literal, get_args

from ml_contract.load import ContractError, LoadedWorkload

from ml_lifecycle.training import service_model

__all__ = [
    "Accelerator",
    "Architecture",
    "Purpose",
    "accelerator",
    "allowed",
    "architecture",
    "check",
    "check_workload",
    "families",
    "has_efa",
    "has_local_disk",
]

Purpose = Literal["training", "processing", "endpoint", "transform"]
Accelerator = Literal["gpu", "inferentia", "trainium", "gaudi"]
Architecture = Literal["x86_64", "arm64"]

_ENUMS: dict[Purpose, str] = {
    "training": "TrainingInstanceType",
    "processing": "ProcessingInstanceType",
    "endpoint": "ProductionVariantInstanceType",
    "transform": "TransformInstanceType",
}
#: Accelerated families whose instances hold NVMe disks though no ``d`` in the name says so
#: (EC2 user guide, "Instance store volumes": accelerated computing).
_DISKS_WITHOUT_D = re.compile(r"g4dn|g[5-9]\w*|p3dn|p4de?|p5\w*|p6\S*|trn[12]n?|dl1")

#: Instance types with an Elastic Fabric Adapter among those that train (EC2 user guide, "Elastic Fabric
#: Adapter": supported instance types); of these families the large ones only.
_EFA = re.compile(
    r"ml\.(p3dn\.24xlarge|p4de?\.24xlarge|p5(e|en)?\.48xlarge|p6\S*|trn1\.32xlarge|trn1n\.32xlarge"
    r"|trn2\.48xlarge|dl1\.24xlarge|c5n\.18xlarge|g4dn\.(8|12|16)xlarge|g[56]\.(8|12|16|24|48)xlarge"
    r"|g6e\.(8|12|16|24|48)xlarge)"
)


@functools.cache
def allowed(purpose: Purpose) -> tuple[str, ...]:
    """Instance types that SageMaker takes for a purpose, sorted; ``ValueError`` for an unknown purpose."""
    if purpose not in _ENUMS:
        raise ValueError(f"purpose must be one of {', '.join(get_args(Purpose))}, got {purpose!r}")
    return tuple(sorted(service_model.enum(_ENUMS[purpose])))


def families(purpose: Purpose) -> tuple[str, ...]:
    """Families that SageMaker offers for a purpose, sorted, e.g. ``c5``, ``g6e``, ``inf2``."""
    return tuple(sorted({_family(value) for value in allowed(purpose)}))


def check(instance_type: str, purpose: Purpose, *, where: str | None = None) -> str:
    """Return ``instance_type`` when SageMaker offers it for ``purpose``.

    Args:
        instance_type: e.g. ``ml.m5.xlarge``.
        purpose: ``training``, ``processing``, ``endpoint`` or ``transform``.
        where: what the message starts with, e.g. ``workload.yaml:84: training.instance_type``.

    Raises:
        ValueError: SageMaker does not offer it; the message names the nearest types that it does.
    """
    if instance_type in allowed(purpose):
        return instance_type
    elsewhere = [other for other in get_args(Purpose) if instance_type in allowed(other)]
    known = f" (it is one for {' and '.join(elsewhere)})" if elsewhere else ""
    raise ValueError(
        f"{f'{where}: ' if where else ''}{instance_type!r} is no instance type for {purpose}{known}; "
        f"nearest are {', '.join(_nearest(instance_type, allowed(purpose)))}; "
        f"families are {', '.join(families(purpose))}"
    )


def check_workload(workload: LoadedWorkload) -> None:
    """Check every instance type that a workload names; raise ``ContractError`` with all problems, each at its
    line.
    """
    spec = workload.workload
    named: list[tuple[str, str, Purpose]] = [
        ("training.instance_type", spec.training.instance_type, "training"),
        ("training.processing_instance_type", spec.training.processing_instance_type, "processing"),
        ("serving.instance_type", spec.serving.instance_type, "endpoint"),
        ("monitoring.instance_type", spec.monitoring.instance_type, "processing"),
        ("batch.instance_type", spec.batch.instance_type, "processing"),
    ]
    if spec.serving.batch is not None:
        named.append(("serving.batch.instance_type", spec.serving.batch.instance_type, "transform"))
    if spec.alternatives.wrangler is not None:
        wrangler = spec.alternatives.wrangler.instance_type
        named.append(("alternatives.wrangler.instance_type", wrangler, "processing"))
    if spec.serving.recommend is not None:
        for number, value in enumerate(spec.serving.recommend.instance_types):
            named.append((f"serving.recommend.instance_types[{number}]", value, "endpoint"))
    problems = []
    for path, value, purpose in named:
        try:
            check(value, purpose)
        except ValueError as error:
            problems.append(workload.problem(path, str(error)))
    accelerated = accelerator(spec.training.instance_type) if not problems else None
    if accelerated in ("trainium", "gaudi") and spec.training.algorithm != "image":
        problems.append(
            workload.problem(
                "training.instance_type",
                f"{spec.training.instance_type} runs programs compiled for {accelerated}, which no image of "
                f"{spec.training.algorithm} holds; use algorithm: image with one that does, or a p or g type",
            )
        )
    if problems:
        raise ContractError(problems)


def accelerator(instance_type: str) -> Accelerator | None:
    """What an instance type computes on beside its CPU."""
    family = _family(instance_type)
    if family.startswith("inf"):
        return "inferentia"
    if family.startswith("trn"):
        return "trainium"
    if family.startswith("dl"):
        return "gaudi"
    return "gpu" if re.match(r"[pg]\d", family) else None


def architecture(instance_type: str) -> Architecture:
    """Processor an image must be built for: Graviton and Grace are ``arm64``."""
    family = _family(instance_type)
    return "arm64" if re.match(r"[a-z]+\d+g|p6e-gb", family) else "x86_64"


def has_local_disk(instance_type: str) -> bool:
    """Whether an instance type brings NVMe disks of its own.

    They are encrypted by the hardware, and SageMaker refuses a request that names a KMS key for the storage
    volume of such an instance (CreateTrainingJob, ResourceConfig.VolumeKmsKeyId; CreateEndpointConfig,
    KmsKeyId).
    """
    family = _family(instance_type)
    return bool(re.fullmatch(r"[a-z]+\d+[a-z]*d[a-z]*", family)) or bool(_DISKS_WITHOUT_D.fullmatch(family))


def has_efa(instance_type: str) -> bool:
    """Whether instances of a type can talk to each other past the kernel, as NCCL does with libfabric."""
    return _EFA.fullmatch(instance_type) is not None


def _family(instance_type: str) -> str:
    parts = instance_type.split(".")
    if len(parts) != 3 or parts[0] != "ml":
        raise ValueError(f"an instance type looks like ml.m5.xlarge, got {instance_type!r}")
    return parts[1]


def _nearest(value: str, types: tuple[str, ...]) -> list[str]:
    family, _, size = value.removeprefix("ml.").partition(".")
    accelerated = re.match(r"(p|g|inf|trn|dl)\d", family) is not None
    types = tuple(t for t in types if (accelerator(t) is not None) == accelerated)
    letter = re.match(r"[a-z]*", family)
    kin = [t for t in types if letter and t.startswith(f"ml.{letter[0]}") and t.endswith(f".{size}")]
    return list(dict.fromkeys([*difflib.get_close_matches(value, types, n=3), *kin]))[:5] or list(types[:3])
