"""Environment variables of templates against what the programs read, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator

from verify.code.deployed import Deployed
from verify.code.variables import Reads, reads
from verify.context import Context
from verify.finding import Check, Finding

_ID = "variables"
#: Variables that other programs in the image read: the runtime, its libraries, AWS's agents.
#: Sources: AWS Lambda, "Defined runtime environment variables"; boto3, "Configuration"; OpenTelemetry,
#: "Environment Variable Specification"; SageMaker, "How Amazon SageMaker AI runs your inference image".
_FOREIGN = re.compile(
    r"AWS_.*|OTEL_.*|LAMBDA_.*|_X_AMZN.*|PYTHON.*|PATH|LD_LIBRARY_PATH|TZ|HOME|SAGEMAKER_.*|OMP_NUM_THREADS"
    r"|[A-Z]+_NUM_THREADS|NCCL_.*|MLFLOW_.*|POWERTOOLS_.*|UVICORN_.*|MODEL_CACHE_.*"
)
#: What a service sets beside the template: Model Monitor gives its containers theirs in lower case.
_GIVEN_BY_SERVICE = re.compile(r"[a-z_]+|SAGEMAKER_.*|AWS_.*")


def run(context: Context) -> Iterator[Finding]:
    """Compare both sides of every program."""
    known: dict[int, Reads] = {}
    for item in context.deployed:
        if item.program is None:
            continue
        if id(item.program) not in known:
            known[id(item.program)] = reads(item.program)
        if item.kind == "glue":
            continue
        yield from _compare(item, known[id(item.program)])


def _compare(item: Deployed, read: Reads) -> Iterator[Finding]:
    entry = ".".join(filter(None, item.program.entry)) if item.program is not None else ""
    for place in read.unclear:
        yield Finding(
            check=_ID,
            place=item.place,
            value=f"{place} reads a variable whose name the code does not say",
            allowed="names that stand in the code: constants, tuples of constants, fields of a dataclass",
            fix="write the name where it is read",
        )
    # A state machine writes ``NAME.$`` where the value is a path of its input.
    given = {name.removesuffix(".$") for name in item.variables}
    for name in sorted(given - read.names):
        if not _FOREIGN.fullmatch(name) and not read.unclear:
            yield Finding(
                check=_ID,
                place=item.place,
                value=f"variable {name} is set and {entry} never reads it",
                allowed=f"{', '.join(sorted(read.names)) or 'none'}",
                fix="take it out of the template, or read it",
            )
    for name in sorted(read.required - given):
        if not _GIVEN_BY_SERVICE.fullmatch(name):
            yield Finding(
                check=_ID,
                place=item.place,
                value=f"variable {name} is not set and {entry} cannot do without it",
                allowed=f"{', '.join(sorted(given)) or 'none'} and {name}",
                fix="set it in the template",
            )


CHECK = Check(
    id=_ID,
    title="Environment variables against what the code reads",
    proves="every variable that a template sets is read by the program that gets it, and every variable that "
    "the program refuses to do without is set",
    source="the code that the assembly deploys, from its entry; variables of runtimes are AWS's",
    run=run,
)
