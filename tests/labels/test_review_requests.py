"""Requests of the page: who is let in, what is answered, what headers say."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_support import NOW, RULES, Steps, item, item_table, name_of, request, stored
from label_tasks import review
from label_tasks import rules as rules_module
from label_tasks.errors import BadEventError
from label_tasks.review import Person, RefusalError
from label_tasks.tasks import Tasks


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    file = tmp_path / "label_rules.json"
    file.write_text(json.dumps(RULES))
    monkeypatch.setattr(rules_module, "RULES", file)
    rules_module.load_rules.cache_clear()
    for name, value in {
        "TABLE": "items",
        "SIGN_IN_URL": "https://people.example.com",
        "CLIENT_ID": "client",
        "SCOPE": "labels/label",
    }.items():
        monkeypatch.setenv(name, value)
    with item_table() as table:
        resource = type("Resource", (), {"Table": lambda _self, _name: table})()
        monkeypatch.setattr(review, "_clients", lambda: (resource, Steps()))
        # The items of these tests are of that moment.
        monkeypatch.setattr(review.Review.__init__, "__kwdefaults__", {"now": lambda: NOW})
        yield table
    rules_module.load_rules.cache_clear()


def ask(method: str, path: str, **options: Any) -> tuple[int, Any]:
    answer = review.handler(request(method, path, **options), None)
    return answer["statusCode"], json.loads(answer["body"])


def test_should_label_through_the_api(table: Any) -> None:
    stored(Tasks(table), item(1))
    status, about = ask("GET", "/api/me")
    assert status == 200
    assert about["title"] == RULES["title"]
    assert about["classes"] == RULES["classes"]
    status, answer = ask("POST", "/api/next", body={})
    assert answer["task"]["task"] == name_of(1)
    path = f"/api/tasks/{name_of(1)}/label"
    assert ask("POST", path, body={"label": "yes"}) == (
        200,
        {"task": name_of(1), "counted": True, "again": False},
    )
    assert ask("POST", path, body={"label": "no"})[0] == 409
    assert ask("POST", "/api/next", body={}) == (200, {"task": None, "left": 0})
    assert ask("POST", f"/api/tasks/{name_of(1)}/skip", person="ben")[0] == 200


@pytest.mark.parametrize("path", ["/api/me", "/api/next", f"/api/tasks/{name_of(1)}/label", "/api/other"])
def test_should_let_nobody_in_without_a_sign_in(table: Any, path: str) -> None:
    # API Gateway refuses them before; a route that were left open must not answer either.
    for method in ("GET", "POST"):
        assert ask(method, path, person=None)[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/me"),
        ("GET", "/api/next"),
        ("GET", "/other"),
        ("POST", "/"),
        ("POST", "/api/tasks/short/label"),
        ("POST", f"/api/tasks/{name_of(1)}/label/x"),
        ("GET", "/../rules.py"),
    ],
)
def test_should_know_no_other_path(table: Any, method: str, path: str) -> None:
    assert ask(method, path)[0] == 404


@pytest.mark.parametrize("body", ["{", "[]", '"yes"', "[" * 10_000, ""])
def test_should_refuse_a_body_that_is_no_object(table: Any, body: str) -> None:
    event = {**request("POST", f"/api/tasks/{name_of(1)}/label"), "body": body}
    assert review.handler(event, None)["statusCode"] == 400


def is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


@given(st.binary(max_size=60).filter(lambda body: not is_object(body)))
def test_should_refuse_any_encoded_body_that_is_no_object(body: bytes) -> None:
    event = {
        **request("POST", f"/api/tasks/{name_of(1)}/label"),
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    with pytest.raises(RefusalError) as refused:
        review._body(event)
    assert refused.value.status == 400


def test_should_read_a_body_that_api_gateway_has_encoded(table: Any) -> None:
    stored(Tasks(table), item(1))
    event = request("POST", f"/api/tasks/{name_of(1)}/label")
    event |= {"body": base64.b64encode(b'{"label": "yes"}').decode(), "isBase64Encoded": True}
    assert review.handler(event, None)["statusCode"] == 200


@pytest.mark.parametrize("path", ["/", "/app.js", "/app.css", "/config"])
def test_should_serve_the_page_with_a_strict_policy_and_no_data(table: Any, path: str) -> None:
    answer = review.handler(request("GET", path, person=None), None)
    assert answer["statusCode"] == 200
    headers = answer["headers"]
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "connect-src 'self' https://people.example.com;" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert RULES["title"] not in answer["body"]
    assert RULES["instructions"] not in answer["body"]


def test_should_load_nothing_from_elsewhere(table: Any) -> None:
    for path in ("/", "/app.js", "/app.css"):
        body = review.handler(request("GET", path, person=None), None)["body"]
        assert "http://" not in body
        assert "https://" not in body


@pytest.mark.parametrize(
    ("groups", "adjudicator"),
    [
        ("[labellers adjudicators]", True),
        ("[adjudicators]", True),
        ("[labellers]", False),
        ("", False),
        ("[not-adjudicators]", False),
        (["labellers", "adjudicators"], True),
    ],
)
def test_should_know_adjudicators_by_their_group(groups: Any, adjudicator: bool) -> None:
    assert Person.of(request("GET", "/api/me", groups=groups)).adjudicator is adjudicator


def test_should_refuse_what_is_no_request(table: Any) -> None:
    with pytest.raises(BadEventError):
        review.handler({"step": "open"}, None)
