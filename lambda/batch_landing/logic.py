"""The three tasks of a batch: is it all there, land one file, keep the record of it.

Names in the raw zone come from what a file holds, so landing it again writes the same objects. ``claim``
fixes when it was first seen, before anything is written; ``result`` says that everything is. Between the two
a crash leaves what the next try overwrites, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from ml_contract.records.codec import Reason, RecordCodec
from ml_contract.records.landing import LandingSpec, UnreadableFileError, land, refused_file

from batch_landing.errors import BadEventError, IncompleteBatchError
from batch_landing.settings import Settings
from batch_landing.storage import Store, Stored

__all__ = ["Landing"]

MANIFEST_SUFFIX: Final = ".manifest.json"
#: The answer for all files of a batch is the input of the next state: 256 KiB at most (Step Functions
#: quotas, "Maximum input or output size").
MOST_FILES: Final = 400
MANIFEST_BYTES: Final = 256 * 1024
_BEGINNING: Final = 4_096


class _ManifestError(ValueError):
    """A manifest that says nothing one can act on."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the parts of one file go."""

    data: str
    quarantine: str
    deletions: str
    claim: str
    result: str


class Landing:
    """What the handler calls. ``now`` gives the time in UTC."""

    def __init__(
        self, settings: Settings, drop: Store, raw: Store, codec: RecordCodec, now: Callable[[], dt.datetime]
    ) -> None:
        self._settings = settings
        self._drop = drop
        self._raw = raw
        self._codec = codec
        self._now = now

    # --- is it all there --------------------------------------------------------------------------------

    def check(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What the batch of a new object is: its files, or that the object is none of its own.

        ``status``: ``ready``, ``skip`` (a file that waits for its manifest) or ``refused`` (a manifest that
        cannot be used). Raises IncompleteBatchError while files that a manifest names are missing, unless
        the event says that it is asked for the ``last`` time: ``incomplete`` then.
        """
        key, version = _object(event)
        source = self._source_of(key)
        found = self._drop.look(key, version)
        # Each version of an object is a delivery of its own.
        delivered_as = version if found is None else (found.version or found.etag)
        identity = f"{source.name}\0{key}\0{delivered_as}"
        answer: dict[str, Any] = {
            "batch": blake2b(identity.encode(), digest_size=12).hexdigest(),
            "source": source.name,
            "object": key,
            "status": "ready",
            "files": [],
            "reason": None,
        }
        if found is None:
            return {**answer, "status": "skip", "reason": "the object is gone"}
        answer["arrived_at"] = found.modified
        is_manifest = key.endswith(MANIFEST_SUFFIX)
        hidden = _hidden(key.removeprefix(self._settings.drop_prefix).partition("/")[2])
        if hidden or is_manifest != source.manifest:
            reason = "waits for its manifest" if source.manifest else "no file of records"
            return {**answer, "status": "skip", "reason": reason}
        if not is_manifest:
            return {**answer, "files": [_file(found, None)]}
        try:
            return {**answer, "files": self._named(source, found)}
        except IncompleteBatchError as error:
            if not event.get("last"):
                raise
            return {**answer, "status": "incomplete", "reason": str(error)}
        except _ManifestError as error:
            return {**answer, "status": "refused", "reason": str(error)}

    def _source_of(self, key: str) -> LandingSpec:
        prefix = self._settings.drop_prefix
        name = key.removeprefix(prefix).partition("/")[0]
        source = self._settings.sources.get(name)
        if source is None or not key.startswith(prefix):
            known = ", ".join(sorted(self._settings.sources))
            raise BadEventError(f"{key!r} is below no source's folder; known below {prefix}: {known}")
        return source

    def _named(self, source: LandingSpec, manifest: Stored) -> list[dict[str, Any]]:
        """The files that a manifest names, all of them there."""
        text = self._drop.read(manifest.key, manifest.version, most=MANIFEST_BYTES + 1)
        entries = _entries(text or b"")
        folder = manifest.key.rsplit("/", 1)[0] + "/"
        files: list[dict[str, Any]] = []
        absent: list[str] = []
        for entry in entries:
            found = self._drop.look(folder + entry["name"])
            if found is None or found.size != entry["size"]:
                absent.append(
                    f"{entry['name']} ({'absent' if found is None else f'{found.size} bytes'}; "
                    f"{entry['size']} expected)"
                )
            else:
                files.append(_file(found, entry.get("sha256")))
        if absent:
            shown = ", ".join(absent[:5])
            raise IncompleteBatchError(
                f"{len(absent)} of {len(entries)} files of {source.name} are not there as the manifest says: "
                f"{shown}"
            )
        return files

    # --- land one file ----------------------------------------------------------------------------------

    def land(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Land one file of a batch, or say that it was landed before."""
        source = self._settings.sources[event["source"]]
        given = event["file"]
        stored = Stored(
            key=given["key"],
            version=given["version"],
            etag=given["etag"],
            size=given["size"],
            modified=given["modified"],
        )
        uri = f"s3://{self._drop.bucket}/{stored.key}"
        answer = {"file": uri, "version": stored.version, "etag": stored.etag, "bytes": stored.size}
        with tempfile.TemporaryDirectory(prefix="landing-") as folder:
            return answer | self._landed(source, stored, given.get("sha256"), Path(folder))

    def _landed(
        self, source: LandingSpec, stored: Stored, wanted: str | None, folder: Path
    ) -> dict[str, Any]:
        if stored.size > self._settings.largest_file_bytes:
            most = self._settings.largest_file_bytes
            identity = blake2b(f"{stored.key}\0{stored.version}".encode(), digest_size=16).hexdigest()
            beginning = self._drop.read(stored.key, stored.version, most=_BEGINNING) or b""
            why = f"{stored.size:,} bytes; at most {most:,}: send it in parts"
            reason = Reason("too_large", None, None, None, why)
            return self._refused(source, stored, identity, reason, beginning)
        path = folder / "file"
        content = self._drop.download(stored, path)
        if wanted is not None and wanted.lower() != content.sha256:
            why = f"its SHA-256 is {content.sha256}, the manifest says {wanted}"
            # The name of the refusal is not that of the content: sent again as it should be, it is landed.
            identity = blake2b(f"{content.blake2b}\0{wanted}".encode(), digest_size=16).hexdigest()
            reason = Reason("checksum_mismatch", None, content.sha256, wanted, why)
            return self._refused(source, stored, identity, reason, _beginning(path))
        place, received_at, done = self._claimed(source, stored, content.blake2b)
        if done is not None:
            return self._before(done, stored)
        data, quarantine, deletions = folder / "data", folder / "quarantine", folder / "deletions"
        uri = f"s3://{self._drop.bucket}/{stored.key}"
        try:
            landed = land(
                path,
                source,
                self._codec,
                file=uri,
                received_at=received_at,
                data=data,
                quarantine=quarantine,
                deletions=deletions,
            )
        except UnreadableFileError as error:
            reason = Reason("unreadable_file", None, None, None, str(error))
            return self._refused(source, stored, content.blake2b, reason, _beginning(path))
        for made, key in (
            (data, place.data),
            (quarantine, place.quarantine),
            (deletions, place.deletions),
        ):
            if made.exists():
                self._raw.upload(made, key)
        counts = _counts(
            read=landed.read,
            delivered=landed.delivered,
            quarantined=landed.quarantined,
            deleted=landed.deleted,
            reasons=dict(landed.reasons),
        )
        return self._commit(place, stored, {**counts, "outcome": "landed", "reason": None})

    def _refused(
        self, source: LandingSpec, stored: Stored, identity: str, reason: Reason, beginning: bytes
    ) -> dict[str, Any]:
        """Quarantine a whole file. It counts as one record, since nobody knows how many it holds."""
        place, received_at, done = self._claimed(source, stored, identity)
        if done is not None:
            return self._before(done, stored)
        uri = f"s3://{self._drop.bucket}/{stored.key}"
        line = refused_file(
            reason,
            beginning,
            identity=identity,
            received_at=received_at,
            source=source.name,
            file=uri,
        )
        self._raw.write(place.quarantine, line)
        counts = _counts(read=1, quarantined=1, reasons={reason.code: 1})
        return self._commit(place, stored, {**counts, "outcome": "refused", "reason": reason.message})

    def _claimed(
        self, source: LandingSpec, stored: Stored, identity: str
    ) -> tuple[_Place, str, dict[str, Any] | None]:
        """Where the file's rows go, when it was first seen, and the result when it was landed before."""
        settings = self._settings
        files = f"{settings.batches_prefix}files/{source.name}/{identity}"
        claim = self._raw.claim(
            f"{files}.claim.json",
            {
                "received_at": stored.modified,
                "file": f"s3://{self._drop.bucket}/{stored.key}",
                "version": stored.version,
            },
        )
        received_at = str(claim["received_at"])
        day = f"ingest_date={received_at[:10]}"
        name = f"{source.name}-{identity}"
        place = _Place(
            data=f"{settings.data_prefix}{day}/{name}.parquet",
            quarantine=f"{settings.quarantine_prefix}{day}/{name}.jsonl",
            deletions=f"{settings.deletions_prefix}{source.name}/{name}.jsonl",
            claim=f"{files}.claim.json",
            result=f"{files}.result.json",
        )
        return place, received_at, self._raw.read_json(place.result)

    def _before(self, done: dict[str, Any], stored: Stored) -> dict[str, Any]:
        """The result of a file that was landed before: its own when this is the same delivery of it."""
        if (done["file"], done["version"]) == (f"s3://{self._drop.bucket}/{stored.key}", stored.version):
            return {k: v for k, v in done.items() if k not in ("file", "version")}
        return {**_counts(), "outcome": "repeated", "reason": f"landed before as {done['file']}"}

    def _commit(self, place: _Place, stored: Stored, result: dict[str, Any]) -> dict[str, Any]:
        kept = {**result, "file": f"s3://{self._drop.bucket}/{stored.key}", "version": stored.version}
        self._raw.write(place.result, json.dumps(kept, sort_keys=True).encode())
        return result

    # --- keep the record --------------------------------------------------------------------------------

    def finish(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Write the batch's audit record, unless it has one, and return it without its files."""
        batch = event["batch"]
        source = self._settings.sources[batch["source"]]
        files: Sequence[dict[str, Any]] = event.get("files") or ()
        outcome = _outcome(batch, files)
        totals = {
            key: sum(f.get(key, 0) for f in files) for key in ("read", "delivered", "quarantined", "deleted")
        }
        reasons: Counter[str] = Counter()
        for file in files:
            reasons.update(file.get("reasons") or {})
        record = {
            "batch": batch["batch"],
            "workload": self._settings.contract.name,
            "source": source.name,
            "kind": source.kind,
            "owner": source.owner,
            "schema_version": source.schema_version,
            "object": f"s3://{self._drop.bucket}/{batch['object']}",
            "started_at": event["started_at"],
            "ended_at": self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "outcome": outcome,
            "reason": batch.get("reason") or event.get("reason"),
            **totals,
            "reasons": dict(sorted(reasons.items())),
            "files": list(files),
        }
        day = str(batch.get("arrived_at") or event["started_at"])[:10]
        key = f"{self._settings.batches_prefix}audit/{source.name}/{day}/{batch['batch']}.json"
        kept = self._raw.read_json(key)
        # A batch that failed may be run again; any other record stays what it is.
        if kept is None or kept["outcome"] == "failed":
            self._raw.write(key, json.dumps(record, sort_keys=True).encode())
            kept = record
        summary = {k: v for k, v in kept.items() if k != "files"}
        return {**summary, "files": len(files), "audit": f"s3://{self._raw.bucket}/{key}"}


def _object(event: Mapping[str, Any]) -> tuple[str, str | None]:
    try:
        found = event["object"]
        return str(found["key"]), found.get("version-id")
    except (KeyError, TypeError, AttributeError) as error:
        raise BadEventError(f"the event names no object of S3: {error!r}") from error


def _hidden(name: str) -> bool:
    """Whether an object is a folder's marker, a sign of success or half a file, as Spark leaves them."""
    parts = name.split("/")
    return not parts[-1] or parts[-1].endswith("_$folder$") or any(p.startswith(("_", ".")) for p in parts)


def _file(found: Stored, sha256: str | None) -> dict[str, Any]:
    return {
        "key": found.key,
        "version": found.version,
        "etag": found.etag,
        "size": found.size,
        "modified": found.modified,
        "sha256": sha256,
    }


def _entries(text: bytes) -> list[dict[str, Any]]:
    """The files of a manifest: ``{"files": [{"name": ..., "size": ..., "sha256": ...}]}``."""
    if len(text) > MANIFEST_BYTES:
        raise _ManifestError(f"a manifest has at most {MANIFEST_BYTES:,} bytes")
    try:
        entries = json.loads(text)["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise _ManifestError(f"no manifest with a list 'files': {error!r}"[:300]) from None
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_FILES:
        raise _ManifestError(f"'files' must be a list of 1 to {MOST_FILES} files")
    for i, entry in enumerate(entries):
        known = isinstance(entry, dict) and isinstance(entry.get("name"), str)
        if not known or type(entry.get("size")) is not int or entry["size"] < 0:
            raise _ManifestError(f"files[{i}] must have a name and a size in bytes, got {str(entry)[:100]}")
        name, digest = entry["name"], entry.get("sha256")
        if not name or name.endswith("/") or ".." in name.split("/") or name.startswith("/"):
            raise _ManifestError(f"files[{i}].name must lie beside or below the manifest, got {name[:100]!r}")
        if digest is not None and not (isinstance(digest, str) and len(digest) == 64):
            raise _ManifestError(f"files[{i}].sha256 must be 64 hexadecimal digits, got {str(digest)[:80]!r}")
    names = [entry["name"] for entry in entries]
    if len(set(names)) != len(names):
        raise _ManifestError("a file is named twice")
    return entries


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BEGINNING)


def _counts(
    *,
    read: int = 0,
    delivered: int = 0,
    quarantined: int = 0,
    deleted: int = 0,
    reasons: dict[str, int] | None = None,
) -> dict[str, Any]:
    return {
        "read": read,
        "delivered": delivered,
        "quarantined": quarantined,
        "deleted": deleted,
        "reasons": {} if reasons is None else reasons,
    }


def _outcome(batch: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> str:
    """One word for a batch. Files that were refused are in quarantine: the batch has landed."""
    if batch["status"] in ("refused", "incomplete"):
        return str(batch["status"])
    outcomes = {file["outcome"] for file in files}
    if "failed" in outcomes:
        return "failed"
    if outcomes == {"repeated"}:
        return "repeated"
    return "refused" if outcomes == {"refused"} else "landed"
