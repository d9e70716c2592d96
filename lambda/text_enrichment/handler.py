"""Lambda entry point: ``text_enrichment.handler.handler``, called by the state machine until nothing is left.

An event is ``{"done": n}``: texts that earlier calls of the run have landed. The answer says how many there
are now and whether to call again. What was asked of Comprehend is committed in chunks, so a function that is
killed, or a call that fails for good, loses no more than one chunk, and the next run takes what is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from function_log import log
from lake_files.iceberg import glue_catalog

from text_enrichment.comprehend import BATCH, Answer, Comprehend, cut
from text_enrichment.errors import EnrichmentError, MisconfiguredError, TransientError
from text_enrichment.settings import Settings
from text_enrichment.table import Text, TextTable, curated_texts

__all__ = ["CHUNK", "enrich", "handler"]

#: Rows a commit. Fewer are lost with a function that is killed, more make fewer small files.
CHUNK = 1_000
#: Seconds that must be left to ask another batch and still commit: waits of a busy service included.
_MARGIN = 240.0
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=30)
#: ``Comprehend`` counts its own attempts.
_ONCE = Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=30)


def enrich(
    catalog: Any,
    comprehend: Comprehend,
    settings: Settings,
    *,
    done: int,
    seconds_left: Callable[[], float],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> dict[str, Any]:
    """Land what Comprehend finds in the texts that are not in the table yet, until the time is up.

    :raises TransientError: Comprehend or the catalog is too busy; what was answered so far has landed
    """
    target = TextTable(catalog, settings.texts)
    snapshot, texts = curated_texts(
        catalog, settings.curated, identifier=settings.identifier, field=settings.field
    )
    fresh = _fresh(texts, target.known())
    rows: list[dict[str, Any]] = []
    counts = {"landed": 0, "failed": 0}
    allowed = settings.most_texts - done
    more = False

    def land() -> None:
        if rows:
            counts["failed"] += sum(row["error"] is not None for row in rows)
            counts["landed"] += target.append(rows)
            rows.clear()

    try:
        while allowed > 0 and (batch := list(islice(fresh, min(BATCH, allowed)))):
            allowed -= len(batch)
            rows += _rows(batch, comprehend, settings, snapshot, now())
            if len(rows) >= CHUNK:
                land()
            if seconds_left() < _MARGIN:
                # At least one batch a call: a run always gets on.
                more = True
                break
    finally:
        # Also when Comprehend failed: what is answered is paid for.
        land()
    return {
        "done": done + counts["landed"],
        "more": more,
        "reached_most": allowed <= 0,
        "failed": counts["failed"],
        "snapshot_id": None if snapshot is None else str(snapshot),
    }


def _fresh(texts: Iterator[Text], known: set[bytes]) -> Iterator[Text]:
    for text in texts:
        if text.key not in known:
            known.add(text.key)
            yield text


def _rows(
    batch: list[Text], comprehend: Comprehend, settings: Settings, snapshot: int | None, moment: datetime
) -> list[dict[str, Any]]:
    # Texts of a batch that are the same are asked for once.
    shortened = {text.digest: cut(text.text) for text in batch}
    answers = dict(zip(shortened, comprehend.ask([text for text, _ in shortened.values()]), strict=True))
    return [
        {
            "identifier": text.identifier,
            "text_sha256": text.digest,
            "language": settings.language,
            "truncated": shortened[text.digest][1],
            **_found(answers[text.digest]),
            "enriched_at": moment,
            "snapshot_id": snapshot,
        }
        for text in batch
    ]


def _found(answer: Answer) -> dict[str, Any]:
    scores = {name: answer.scores.get(name.title()) for name in ("positive", "negative", "neutral", "mixed")}
    entities = None
    if answer.entities is not None:
        entities = json.dumps(
            [
                {
                    "text": one.get("Text"),
                    "type": one.get("Type"),
                    "score": one.get("Score"),
                    "begin": one.get("BeginOffset"),
                    "end": one.get("EndOffset"),
                }
                for one in answer.entities
            ],
            ensure_ascii=False,
        )
    errors = "; ".join(f"{kind}: {code}" for kind, code in answer.errors.items())
    return {"sentiment": answer.sentiment, **scores, "entities": entities, "error": errors or None}


@cache
def _clients() -> tuple[Any, Any]:
    return boto3.client("glue", config=_CONFIG), boto3.client("comprehend", config=_ONCE)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Enrich texts until the function's time is nearly up."""
    request = getattr(context, "aws_request_id", None)
    try:
        settings = Settings.from_environment(os.environ)
        done = event.get("done", 0) if isinstance(event, Mapping) else None
        if not isinstance(done, int) or isinstance(done, bool) or done < 0:
            raise MisconfiguredError(f"the event must be an object with a number 'done', got {type(event)}")
        glue, comprehend = _clients()
        answer = _run(
            glue,
            Comprehend(comprehend, language=settings.language, kinds=settings.kinds),
            settings,
            done,
            lambda: context.get_remaining_time_in_millis() / 1000,
        )
    except EnrichmentError as error:
        log("ERROR", "enrichment failed", error=type(error).__name__, why=str(error), request=request)
        raise
    log("INFO", "enriched", request=request, **answer)
    return answer


def _run(
    glue: Any, comprehend: Comprehend, settings: Settings, done: int, seconds_left: Callable[[], float]
) -> dict[str, Any]:
    try:
        return enrich(glue_catalog(glue), comprehend, settings, done=done, seconds_left=seconds_left)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise TransientError(str(error)) from error
        raise MisconfiguredError(str(error)) from error
    except (BotoCoreError, OSError) as error:
        raise TransientError(str(error)) from error
