"""Unpacks ``model.tar.gz``, which whoever can write to the bucket could have made."""

from __future__ import annotations

import pathlib
import tarfile
import zlib

from ml_runtime.job import BadInputError

#: Sum of the unpacked files. A model of thousands of deep trees stays far below it.
SIZE_LIMIT = 2 * 1024**3
FILES_LIMIT = 1000


def unpack(archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpack plain files and folders that stay inside ``target``.

    Anything else, or too much of it, is refused.
    """
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for number, member in enumerate(tar, 1):
                if not (member.isfile() or member.isdir()):
                    raise BadInputError(f"{archive.name} holds {member.name!r}, which is no plain file")
                total += member.size
                if total > SIZE_LIMIT or number > FILES_LIMIT:
                    raise BadInputError(
                        f"{archive.name} unpacks to more than {SIZE_LIMIT} bytes or {FILES_LIMIT} files;"
                        " it is refused"
                    )
                tar.extract(member, target, filter="data")
    except tarfile.FilterError as error:
        raise BadInputError(f"{archive.name} holds a file outside its folder: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BadInputError(f"{archive.name} is no readable tar.gz: {error}") from error
