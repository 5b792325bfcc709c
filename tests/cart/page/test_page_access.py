"""Who may ask the page for what: each rule with what would pass without it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cart_folder import CartFolder, served
from small_study import PATIENT, pair
from starlette.routing import Route
from starlette.testclient import TestClient

from hipnet_edge.cart.configuration import ConfigurationInvalid
from hipnet_edge.cart.page import app as page_app
from hipnet_edge.cart.page.access import COOKIE, COOKIE_SECONDS, Access
from hipnet_edge.cart.page.app import make_app

TOKEN = "a token of the page 0123456789"
HOME = "http://10.1.2.3:8080"
PROGRAM = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def wide(make_cart: Callable[..., CartFolder], tmp_path: Path) -> TestClient:
    """A page that others on the network reach."""
    file = tmp_path / "page.token"
    file.write_text(TOKEN + "\n")
    cart = make_cart(page={"host": "0.0.0.0", "token_file": file, "names": ["cart.example.org"]})
    return TestClient(make_app(cart.backend), base_url=HOME)


def test_without_token_only_the_empty_page_and_the_health_are_there(wide):
    open_to_all = {"/", "/healthz", "/readyz", "/api/login"}
    routes = [route for route in wide.app.routes if isinstance(route, Route)]
    assert len(routes) > 12
    for route in routes:
        path = re.sub(r"\{(\w+)(:int)?\}", "1", route.path)
        method = "POST" if "POST" in (route.methods or ()) else "GET"
        answer = wide.request(method, path, headers={"origin": HOME})
        if path not in open_to_all:
            assert (answer.status_code, answer.json()["code"]) == (401, "token_needed"), path
            assert answer.headers["www-authenticate"] == "Bearer"
        elif method == "GET":
            assert answer.status_code == 200, path
    assert wide.get("/static/page.js").status_code == 200
    assert wide.get("/static/../api/studies").status_code == 401
    assert wide.get("/static/%2e%2e/app.py").status_code == 404
    assert wide.get("/static/..%2f..%2fapp.py").status_code == 404


def test_a_program_shows_the_token_and_needs_no_origin(wide):
    assert wide.get("/api/studies", headers=PROGRAM).status_code == 200
    assert wide.get("/metrics", headers=PROGRAM).status_code == 200
    brought = wide.post("/api/upload", content=pair(1)[0], headers=PROGRAM)
    assert brought.status_code == 200
    for given in (TOKEN[:-1], TOKEN + "x", "", "é"):
        headers = {"authorization": f"Bearer {given}".encode("latin-1")}
        assert wide.get("/api/studies", headers=headers).status_code == 401
    basic = {"authorization": f"Basic {TOKEN}"}
    assert wide.get("/api/studies", headers=basic).status_code == 401
    assert wide.get("/api/studies", params={"token": TOKEN}).status_code == 401


def test_a_person_gets_a_cookie_that_holds_no_token(wide, monkeypatch):
    monkeypatch.setattr("hipnet_edge.cart.page.upload._WRONG_TOKEN_WAIT_S", 0.0)
    mine = {"origin": HOME}
    wrong = wide.post("/api/login", content="not the token at all", headers=mine)
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_token")
    assert not wide.cookies
    right = wide.post("/api/login", content=TOKEN, headers=mine)
    assert right.status_code == 200
    cookie = right.headers["set-cookie"].lower()
    for part in ("httponly", "samesite=strict", "path=/", f"max-age={COOKIE_SECONDS}"):
        assert part in cookie
    assert "secure" not in cookie  # over plain HTTP a secure cookie would not come back
    assert TOKEN not in right.headers["set-cookie"]
    assert wide.get("/api/studies").status_code == 200
    wide.post("/api/logout", headers=mine)
    assert wide.get("/api/studies").status_code == 401
    through_tls = wide.post(
        "/api/login",
        content=TOKEN,
        headers={"origin": "https://cart.example.org", "host": "cart.example.org"},
    )
    assert "secure" in through_tls.headers["set-cookie"].lower()


def test_a_cookie_ends_and_cannot_be_made_longer():
    now = [1_000_000.0]
    access = Access("0.0.0.0", TOKEN, clock=lambda: now[0])
    cookie = access.new_cookie()
    headers = {"host": "10.1.2.3", "cookie": f"other=1; {COOKIE}={cookie}"}
    access.check("GET", "/api/studies", headers)
    ends, _, signature = cookie.partition(".")
    longer = {**headers, "cookie": f"{COOKIE}={int(ends) + 9}.{signature}"}
    of_another_token = Access("0.0.0.0", TOKEN + "x", clock=lambda: now[0]).new_cookie()
    forged = {**headers, "cookie": f"{COOKIE}={of_another_token}"}
    for bad in (longer, forged, {**headers, "cookie": f"{COOKIE}=x"}):
        with pytest.raises(page_app.Problem, match="token_needed"):
            access.check("GET", "/api/studies", bad)
    now[0] += COOKIE_SECONDS
    with pytest.raises(page_app.Problem, match="token_needed"):
        access.check("GET", "/api/studies", headers)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("10.1.2.3", 421),
        ("", 421),
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("[::1]:8080", 200),
    ],
)
def test_a_page_for_this_machine_is_known_under_its_own_names_alone(make_cart, host, expected):
    client = TestClient(make_app(make_cart().backend), base_url="http://localhost")
    assert client.get("/api/studies", headers={"host": host}).status_code == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("evil.example", 421),
        ("cart.example.org", 200),
        ("10.1.2.3:8080", 200),
        (socket.gethostname(), 200),
    ],
)
def test_a_wider_page_has_addresses_and_configured_names(wide, host, expected):
    headers = {**PROGRAM, "host": host}
    assert wide.get("/api/studies", headers=headers).status_code == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, 403),
        ("null", 403),
        ("http://evil.example", 403),
        ("http://localhost:9999", 403),
        ("http://localhost", 403),
        ("http://localhost:8080", 409),
    ],
)
def test_what_changes_something_needs_our_own_origin(make_cart, origin, expected):
    cart = make_cart()
    number = cart.assembled(*pair(1))
    client = TestClient(make_app(cart.backend), base_url="http://localhost:8080")
    headers = {} if origin is None else {"origin": origin}
    answer = client.post(f"/api/studies/{number}/retry", headers=headers)
    assert answer.status_code == expected


def test_every_answer_tells_the_browser_to_be_careful(wide):
    for path in ("/", "/static/page.css", "/api/studies", "/none", "/healthz"):
        headers = wide.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert wide.get("/api/studies", headers=PROGRAM).headers["cache-control"] == "no-store"


def test_without_a_usable_token_there_is_no_wide_page(make_cart, tmp_path):
    file = tmp_path / "short.token"
    file.write_text("short\n")
    cart = make_cart(page={"host": "0.0.0.0", "token_file": file})
    with pytest.raises(ConfigurationInvalid, match="16 characters"):
        make_app(cart.backend)


def test_what_goes_wrong_inside_reaches_neither_browser_nor_log(make_cart, monkeypatch, caplog):
    cart = make_cart()

    def broken() -> dict[str, int]:
        raise RuntimeError(PATIENT)

    monkeypatch.setattr(cart.queue, "counts", broken)
    with served(cart) as address:
        answer = httpx.get(f"{address}/api/studies")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "server" not in answer.headers
    assert "RuntimeError" in caplog.text
    assert PATIENT not in answer.text + caplog.text


def test_connections_that_ask_nothing_or_too_much_are_closed(make_cart, monkeypatch):
    monkeypatch.setattr(page_app, "_HEADERS_WITHIN_S", 0.3)
    with served(make_cart()) as address:
        at = ("127.0.0.1", httpx.URL(address).port)
        silent, slow, greedy = (socket.create_connection(at, 20) for _ in range(3))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: local")
        greedy.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert b"400" in greedy.recv(100)
        assert silent.recv(100) == slow.recv(100) == b""  # closed, or this times out
        crowd = [socket.create_connection(at, 20) for _ in range(70)]
        assert httpx.get(f"{address}/healthz").status_code == 503
        for each in (silent, slow, greedy, *crowd):
            each.close()
        ends = time.monotonic() + 20
        while httpx.get(f"{address}/healthz").status_code != 200:
            assert time.monotonic() < ends


def test_an_upload_that_does_not_go_on_is_ended(make_cart):
    cart = make_cart(receive={"idle_timeout_s": 0.2})
    with served(cart) as address:
        port = httpx.URL(address).port
        with socket.create_connection(("127.0.0.1", port), 20) as sender:
            lines = (
                "POST /api/upload HTTP/1.1",
                f"Host: 127.0.0.1:{port}",
                f"Origin: http://127.0.0.1:{port}",
                "Content-Length: 1000",
            )
            sender.sendall("\r\n".join(lines).encode() + b"\r\n\r\nonly this")
            assert b"408" in sender.recv(1000)
    assert list(cart.store.incoming.iterdir()) == []
