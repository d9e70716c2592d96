"""Synthetic labellers: each signs in as a browser does and labels through the API of the page.

They know the truth and err now and then, by a seed, so that some of them disagree.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from rehearsal.story.telling import StoryError

__all__ = ["Labeller", "Site", "invite"]

#: Fits the pool's rules; everything is synthetic here, and the pool ends with the rehearsal.
PASSWORD = "Rehearsal-Only-2026!"  # noqa: S105


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the page and its sign-in answer: at the embedded AWS, which stands in for their host names."""

    endpoint: str
    api: str
    url: str
    client_id: str

    def page(self, path: str) -> str:
        """Address of a path of the page, as the embedded API Gateway knows it."""
        return f"{self.endpoint}/_aws/execute-api/{self.api}/$default/{path.lstrip('/')}"

    def status_without_sign_in(self) -> int:
        """What the API answers to somebody who has not signed in."""
        return _send("GET", self.page("api/me"), {}, None)[0]


def invite(cognito: Any, pool: str, name: str, *groups: str) -> None:
    """Make a person of the user pool, as an administrator does. A second time changes nothing."""
    try:
        cognito.admin_create_user(
            UserPoolId=pool, Username=name, MessageAction="SUPPRESS", TemporaryPassword=PASSWORD
        )
    except cognito.exceptions.UsernameExistsException:
        return
    cognito.admin_set_user_password(UserPoolId=pool, Username=name, Password=PASSWORD, Permanent=True)
    for group in groups:
        cognito.admin_add_user_to_group(UserPoolId=pool, Username=name, GroupName=group)


def _send(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[int, Mapping[str, str], bytes]:
    """One request; a redirect is an answer, as it is to a browser's network."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


class Labeller:
    """One person at the page. ``mistakes`` is the share of items that they get wrong."""

    def __init__(self, site: Site, name: str, *, seed: int, mistakes: float = 0.0) -> None:
        self.name = name
        self._site = site
        self._random = random.Random(f"{seed} {name}")  # noqa: S311 - made up people
        self._mistakes = mistakes
        self._token = self._sign_in()

    def _sign_in(self) -> str:
        """The authorisation code flow with PKCE, form and all; return the access token."""
        site, verifier = self._site, secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": site.client_id,
            "redirect_uri": site.url,
            "scope": "labels/label",
            "state": "rehearsal",
            "code_challenge_method": "S256",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        }
        form = {"content-type": "application/x-www-form-urlencoded"}
        login = urlencode({**query, "username": self.name, "password": PASSWORD}).encode()
        status, headers, body = _send("POST", f"{site.endpoint}/login", form, login)
        location = headers.get("location", "")
        code = parse_qs(urlsplit(location).query).get("code", [""])[0]
        if status != 302 or not location.startswith(site.url) or not code:
            raise StoryError(f"{self.name} cannot sign in: {status} {body[:200]!r}")
        redeem = urlencode(
            {
                "grant_type": "authorization_code",
                "client_id": site.client_id,
                "redirect_uri": site.url,
                "code": code,
                "code_verifier": verifier,
            }
        ).encode()
        status, _, body = _send("POST", f"{site.endpoint}/oauth2/token", form, redeem)
        if status != 200:
            raise StoryError(f"{self.name} gets no token: {status} {body[:200]!r}")
        token: str = json.loads(body)["access_token"]
        return token

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """One request to the page's API; status and answer."""
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        status, _, answer = _send(method, self._site.page(path), headers, data)
        try:
            return status, json.loads(answer or b"{}")
        except ValueError:
            raise StoryError(f"{method} {path} answered {status} {answer[:200]!r}") from None

    def next(self) -> dict[str, Any] | None:
        """Take the next item, ``None`` when nothing waits for this person."""
        status, answer = self.ask("POST", "api/next", {})
        if status != 200:
            raise StoryError(f"{self.name} asked for an item: {status} {answer}")
        task: dict[str, Any] | None = answer["task"]
        return task

    def says(self, truth: str, values: tuple[str, ...]) -> str:
        """What this person says of an item whose truth is known."""
        if self._random.random() >= self._mistakes:
            return truth
        return self._random.choice([value for value in values if value != truth])

    def label(self, task: str, label: str) -> tuple[int, dict[str, Any]]:
        """Label an item; status and answer."""
        return self.ask("POST", f"api/tasks/{task}/label", {"label": label})

    def skip(self, task: str) -> None:
        """Give an item back."""
        status, answer = self.ask("POST", f"api/tasks/{task}/skip", {})
        if status != 200:
            raise StoryError(f"{self.name} cannot give {task} back: {status} {answer}")
