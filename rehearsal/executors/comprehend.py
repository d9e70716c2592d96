"""Amazon Comprehend, emulated: the limits of its API are kept, the model is a list of words.

What it answers is no statement about a text. Each call stands in the ledger as such.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rehearsal.services.engine import ApiError, instead

if TYPE_CHECKING:
    from rehearsal.services.engine import Call, Service

__all__: list[str] = []

_EMULATED = "EMULATED: a list of words answered, not Comprehend's model"
#: Documents a call, UTF-8 bytes a document (BatchDetectSentiment, BatchDetectEntities: TextList).
_MOST_DOCUMENTS, _MOST_BYTES = 25, 5_000
_GOOD = frozenset({"good", "great", "thanks", "happy", "early", "fast", "kind", "gut", "danke", "schnell"})
_BAD = frozenset({"bad", "broken", "late", "lost", "angry", "damaged", "slow", "rude", "schlecht", "kaputt"})
_WORD = re.compile(r"[^\W\d_]+")
_ENTITIES = (
    ("DATE", re.compile(r"\b\d{4}-\d{2}-\d{2}\b")),
    ("QUANTITY", re.compile(r"\b\d+(?:\.\d+)? ?(?:kg|km|days?|hours?|euros?|dollars?)\b")),
    # A capital within a sentence; which kind of name it is, no list of words can say.
    ("OTHER", re.compile(r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")),
)


def _sentiment(text: str) -> dict[str, Any]:
    words = [word.lower() for word in _WORD.findall(text)]
    good, bad = sum(w in _GOOD for w in words), sum(w in _BAD for w in words)
    # One of each is assumed, so that no score is 0 or 1; nothing is left for a verdict without words.
    weights = {
        "Positive": float(good * 4 + 1),
        "Negative": float(bad * 4 + 1),
        "Neutral": 6.0 if good == bad == 0 else 1.0,
        "Mixed": 10.0 * min(good, bad) + 1,
    }
    whole = sum(weights.values())
    scores = {name: weight / whole for name, weight in weights.items()}
    return {"Sentiment": max(scores, key=lambda name: scores[name]).upper(), "SentimentScore": scores}


def _entities(text: str) -> dict[str, Any]:
    found = [
        {
            "Text": match.group(),
            "Type": kind,
            "Score": 0.5,
            "BeginOffset": match.start(),
            "EndOffset": match.end(),
        }
        for kind, pattern in _ENTITIES
        for match in pattern.finditer(text)
    ]
    return {"Entities": sorted(found, key=lambda one: (one["BeginOffset"], one["Type"]))}


_READERS = {"BatchDetectSentiment": _sentiment, "BatchDetectEntities": _entities}


def _batch(service: Service, call: Call) -> dict[str, Any]:
    texts = call.params["TextList"]
    if len(texts) > _MOST_DOCUMENTS:
        raise ApiError(
            "BatchSizeLimitExceededException", f"{len(texts)} documents; at most {_MOST_DOCUMENTS} a call"
        )
    results, errors = [], []
    for index, text in enumerate(texts):
        if len(text.encode()) > _MOST_BYTES:
            errors.append(
                {
                    "Index": index,
                    "ErrorCode": "TEXT_SIZE_LIMIT_EXCEEDED",
                    "ErrorMessage": f"at most {_MOST_BYTES} bytes of UTF-8",
                }
            )
        else:
            results.append({"Index": index, **_READERS[call.operation](text)})
    language = call.params["LanguageCode"]
    service.runtime.ledger.recorded("comprehend", f"{call.operation} {len(texts)} {language}", _EMULATED)
    return {"ResultList": results, "ErrorList": errors}


for _operation in _READERS:
    instead("comprehend", _operation)(_batch)
