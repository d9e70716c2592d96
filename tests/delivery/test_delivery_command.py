"""``python -m delivery diff``: exit status, pages, what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from delivery import __main__ as command
from delivery.accounts import NoAccessError
from delivery.assemblies import Stack, write_assembly

BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "one"}}


def assembly(folder: Path, **resources: Any) -> str:
    folder.mkdir()
    write_assembly([Stack(id="Dev/Data", name="Dev-Data", template={"Resources": resources})], folder)
    return str(folder)


def test_should_say_no_when_data_would_be_lost_and_write_the_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = assembly(tmp_path / "old", Data=BUCKET), assembly(tmp_path / "new")
    pages = tmp_path / "pages"
    assert command.main(["diff", old, new, "--out", str(pages)]) == command.SAYS_NO
    said = capsys.readouterr().out
    assert "DATA-LOST (1)" in said
    assert "USD a month" in said
    assert (pages / "what-changes.txt").read_text() == said
    assert json.loads((pages / "what-changes.json").read_text())["counts"] == {"data-lost": 1}
    assert "data-lost" in (pages / "what-changes.html").read_text()
    assert command.main(["diff", old, new, "--fail-on", "refused"]) == 0
    assert command.main(["diff", old, new, "--fail-on", "nothing"]) == 0
    assert command.main(["diff", old, old]) == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--stage", "Live"], "the assembly has no stage Live; it has Dev"),
        (["--fail-on", "access,weather"], "--fail-on has no kind weather; there are data-lost"),
    ],
)
def test_should_refuse_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str
) -> None:
    place = assembly(tmp_path / "one", Data=BUCKET)
    assert command.main(["diff", place, place, *more]) == command.FAILED
    assert why in capsys.readouterr().err


def test_should_tell_all_as_new_where_nothing_can_be_read_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise NoAccessError("not authorized to perform: sts:AssumeRole")

    monkeypatch.setattr("delivery.accounts.Accounts.client", refused)
    gateway = {"Type": "AWS::EC2::InternetGateway", "Properties": {}}
    place = assembly(tmp_path / "one", Way=gateway)
    assert command.main(["diff", "deployed", place, "--region", "eu-central-1"]) == 0
    said = capsys.readouterr().out
    assert "1 stacks new" in said
    assert "NETWORK (1)" in said
    assert "note: Dev: nothing could be read, as before its first deploy; all is told as new" in said
