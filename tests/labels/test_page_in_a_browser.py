"""The page of the labellers, in a real browser: signed in, labelled by mouse and by key, refused, seen."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import Answer, Asked, Browser, chromium
from label_support import REGION, RULES, Steps, item, item_table, name_of, request, stored
from label_tasks import review, rules
from label_tasks.tasks import Tasks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None, reason="no Chromium here: apt-get install chromium, or set CHROMIUM"
    ),
]

PAGE = "https://abc123.execute-api.eu-central-1.amazonaws.com/"
SIGN_IN = "https://parcels.auth.eu-central-1.amazoncognito.com"


class World:
    """API Gateway, the user pool's sign-in and the function behind them."""

    def __init__(self, table: Any) -> None:
        self.tasks = Tasks(table)
        self.steps = Steps()
        self.person, self.groups = "ada", "[labellers]"
        self.codes: dict[str, str] = {}
        self.tokens: set[str] = set()
        self.outside: list[str] = []
        self.broken = False

    def answer(self, asked: Asked) -> Answer:
        """What the network answers."""
        parts = urlsplit(asked.url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if f"{origin}/" == PAGE:
            return self._page(asked, parts.path)
        if origin == SIGN_IN:
            return self._sign_in(asked, parts.path, parts.query)
        self.outside.append(asked.url)
        return Answer(status=404, headers={})

    def _page(self, asked: Asked, path: str) -> Answer:
        if self.broken:
            return Answer(status=503, headers={"content-type": "application/json"}, body=b"{}")
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if path.startswith("/api/") and token not in self.tokens:
            return Answer(status=401, headers={}, body=b'{"message":"Unauthorized"}')
        body = None if asked.body is None else json.loads(asked.body)
        event = request(asked.method, path, person=self.person, groups=self.groups, body=body)
        answer = review.handler(event, None)
        return Answer(status=answer["statusCode"], headers=answer["headers"], body=answer["body"].encode())

    def _sign_in(self, asked: Asked, path: str, query: str) -> Answer:
        if path == "/oauth2/authorize":
            given = {k: v[0] for k, v in parse_qs(query).items()}
            assert given["code_challenge_method"] == "S256"
            assert given["client_id"] == "client"
            assert given["scope"] == "labels/label"
            code = secrets.token_hex(4)
            self.codes[code] = given["code_challenge"]
            back = f"{given['redirect_uri']}?code={code}&state={given['state']}"
            return Answer(status=302, headers={"location": back})
        assert (asked.method, path) == ("POST", "/oauth2/token")
        assert asked.body is not None
        form = {k: v[0] for k, v in parse_qs(asked.body.decode()).items()}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        # As a user pool: a code is good once, for who knows the verifier.
        good = self.codes.pop(form["code"], None) == challenge
        token = secrets.token_hex(8)
        self.tokens |= {token} if good else set()
        return Answer(
            status=200 if good else 400,
            headers={"access-control-allow-origin": "*", "content-type": "application/json"},
            body=json.dumps({"access_token": token} if good else {"error": "invalid_grant"}).encode(),
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    file = tmp_path / "label_rules.json"
    file.write_text(json.dumps(RULES))
    monkeypatch.setattr(rules, "RULES", file)
    rules.load_rules.cache_clear()
    for name, value in {
        "TABLE": "items",
        "SIGN_IN_URL": SIGN_IN,
        "CLIENT_ID": "client",
        "SCOPE": "labels/label",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with item_table() as table:
        world = World(table)
        resource = type("Resource", (), {"Table": lambda _self, _name: table})()
        monkeypatch.setattr(review, "_clients", lambda: (resource, world.steps))
        monkeypatch.setattr(review.Review.__init__, "__kwdefaults__", {"now": _now})
        yield world
    rules.load_rules.cache_clear()


def _now() -> Any:
    from label_support import NOW

    return NOW


@pytest.fixture
def browser(world: World, tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    assert program is not None
    with Browser(program, tmp_path / "profile", world.answer) as browser:
        browser.look(width=1100, height=800, scheme="light")
        yield browser


SHOWN = "!document.getElementById('{}').hidden"


def sign_in(browser: Browser) -> None:
    browser.open(PAGE)
    browser.wait(SHOWN.format("welcome"))
    browser.click("#sign-in")
    browser.wait("document.getElementById('person').textContent")


def test_should_label_by_mouse_and_by_key_and_skip_until_nothing_waits(
    world: World, browser: Browser
) -> None:
    stored(world.tasks, item(1), item(2), item(3))
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    text = browser.text()
    assert "1.5" in text
    assert "3 items left" in text
    # The model's word and what identifies the record are not on the page, whatever the item holds.
    html = browser.run("document.documentElement.outerHTML")
    assert "P1" not in html
    assert "low_confidence" not in html
    assert browser.run("location.href") == PAGE  # the code is gone from the address
    browser.click("#choices button[data-value=yes]")
    browser.wait("document.getElementById('fields').textContent.includes('2.5')")
    browser.key("1")
    browser.wait("document.getElementById('fields').textContent.includes('3.5')")
    browser.key("s")
    browser.wait(SHOWN.format("nothing"))
    votes = [world.tasks.get(name_of(n)).votes for n in (1, 2, 3)]  # type: ignore[union-attr]
    assert [[(v.by, v.label) for v in vote] for vote in votes] == [[("ada", "yes")], [("ada", "no")], []]
    assert world.tasks.get(name_of(3)).skipped == ("ada",)  # type: ignore[union-attr]
    assert world.outside == []
    assert browser.console == []


def test_should_mark_personal_data_and_what_is_not_given(world: World, browser: Browser) -> None:
    stored(world.tasks, item(1, shown=(("weight_kg", ""), ("addressee", '<b>Jo</b> & "Co"'))))
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    rows = browser.run(
        "[...document.querySelectorAll('#fields > div')].map(r => "
        "[r.querySelector('dt').innerText, r.querySelector('dd').innerText])"
    )
    # What a record holds is text, never markup.
    assert rows == [["Weight kg", "not given"], ["Addressee personal data", '<b>Jo</b> & "Co"']]


def test_should_say_so_and_take_the_next_item_when_somebody_was_faster(
    world: World, browser: Browser
) -> None:
    stored(world.tasks, item(1), item(2))
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    # Two others have labelled the first one meanwhile and it is decided.
    world.tasks.change(
        name_of(1), lambda t: type(t)(**{**t.__dict__, "queue": None, "token": None, "locks": {}})
    )
    browser.key("2")
    browser.wait(SHOWN.format("problem"))
    assert "decided" in browser.run("document.getElementById('problem').textContent")
    browser.wait("document.getElementById('fields').textContent.includes('2.5')")


def test_should_keep_the_item_when_the_server_fails(world: World, browser: Browser) -> None:
    stored(world.tasks, item(1))
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    world.broken = True
    browser.key("2")
    browser.wait(SHOWN.format("problem"))
    assert browser.run(SHOWN.format("item"))
    world.broken = False
    browser.wait("!document.querySelector('#choices button').disabled")
    browser.key("2")
    browser.wait(SHOWN.format("nothing"))
    assert len(world.tasks.get(name_of(1)).votes) == 1  # type: ignore[union-attr]


def test_should_ask_to_sign_in_again_when_the_token_has_ended(world: World, browser: Browser) -> None:
    stored(world.tasks, item(1))
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    world.tokens.clear()
    browser.key("2")
    browser.wait(SHOWN.format("welcome"))
    browser.click("#sign-in")
    browser.wait(SHOWN.format("item"))


def test_should_refuse_a_sign_in_that_was_not_started_here(world: World, browser: Browser) -> None:
    browser.open(f"{PAGE}?code=stolen&state=forged")
    browser.wait(SHOWN.format("problem"))
    assert browser.run(SHOWN.format("welcome"))
    assert browser.run("sessionStorage.getItem('token')") is None


def test_should_tell_an_adjudicator_what_others_said(world: World, browser: Browser) -> None:
    from label_tasks.consensus import Vote

    said = (("x", "yes"), ("y", "no"), ("z", "no"))
    votes = tuple(Vote(by=who, label=label, at=who) for who, label in said)
    stored(world.tasks, item(1, queue="adjudication", needed=1, votes=votes))
    world.groups = "[labellers adjudicators]"
    sign_in(browser)
    browser.wait(SHOWN.format("said"))
    assert browser.run("document.getElementById('said').textContent") == "Said so far: In time 2, Late 1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height", "touch"), [(1100, 800, False), (390, 844, True)])
def test_should_be_readable_and_reachable(
    world: World, browser: Browser, scheme: str, width: int, height: int, touch: bool, tmp_path: Path
) -> None:
    stored(world.tasks, item(1))
    browser.look(width=width, height=height, scheme=scheme, touch=touch)
    sign_in(browser)
    browser.wait(SHOWN.format("item"))
    facts = browser.run(FACTS)
    # WCAG 2.2: text has a contrast of 4.5 (AA), targets are 24 pixels at least, pages do not scroll sideways.
    assert {k: v for k, v in facts["contrast"].items() if v < 4.5} == {}
    assert facts["smallest_target"] >= 36
    assert facts["sideways"] <= width
    assert facts["unnamed"] == []
    assert facts["language"] == "en"
    assert facts["focus"] == "item-title"
    picture = browser.picture()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5_000


#: Contrast of each text against the ground behind it, and other facts that can be computed.
FACTS = """(() => {
  document.getAnimations().forEach((a) => a.finish());
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= .03928 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4; }; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0) return c; } return [255, 255, 255, 1]; };
  const contrast = {};
  for (const e of document.querySelectorAll('h1, h2, p, dt, dd, button, summary, span')) {
    if (!e.offsetParent || !e.innerText.trim() || e.id === 'status') continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    contrast[`${e.tagName}#${e.id}.${e.className} ${e.innerText.slice(0, 20)}`] = (a + .05) / (b + .05);
  }
  const buttons = [...document.querySelectorAll('button')].filter((b) => b.offsetParent);
  return {
    contrast, sideways: document.documentElement.scrollWidth, language: document.documentElement.lang,
    focus: document.activeElement.id,
    smallest_target: Math.min(...buttons.map((b) => b.getBoundingClientRect().height)),
    unnamed: buttons.filter((b) => !b.innerText.trim()).map((b) => b.id),
  };
})()"""
