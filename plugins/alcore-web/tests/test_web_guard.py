"""Who may ask: by Host, Origin, token and cookie; and what is sent with every answer."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from alcore_web import Guard, Runs, create_app
from alcore_web.guard import HEADERS
from alcore_web.server import bound
from fastapi import FastAPI, WebSocketDisconnect
from fastapi.testclient import TestClient

from alcore.errors import UsageError

HOST = "127.0.0.1:8765"


@pytest.fixture
def guard(tmp_path):
    app = create_app(Runs(tmp_path))

    @app.post("/change")
    def change() -> str:
        return "changed"

    return Guard(app, hosts={HOST, "localhost:8765"}, port=8765, token="the-token")


@pytest.fixture
def stranger(guard):
    return TestClient(guard, base_url=f"http://{HOST}", follow_redirects=False)


@pytest.fixture
def friend(guard):
    client = TestClient(guard, base_url=f"http://{HOST}", follow_redirects=False)
    client.get("/?token=the-token")
    return client


def test_token_gives_a_cookie_and_leaves_the_address(stranger):
    opened = stranger.get("/run/x?token=the-token")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert cookie.startswith("alcore-8765=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "the-token" not in cookie
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=other", "?token=the-token&token=the-token", "?token=the-tokén"]
)
def test_without_the_token_nothing_is_answered(stranger, query):
    for address in ("/", "/run/x", "/static/style.css", "/live/runs"):
        refused = stranger.get(address + query)
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
        assert "alcore dash" in refused.text


def test_token_in_place_of_the_cookie_is_refused(stranger):
    stranger.cookies.set("alcore-8765", "the-token")
    assert stranger.get("/").status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", "localhost", "127.0.0.1:8765.evil.example"],
)
def test_another_host_is_refused_whatever_the_cookie(friend, host):
    assert friend.get("/", headers={"host": host}).status_code == 403
    assert friend.get("/?token=the-token", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:8765", "http://localhost:8765", "http://127.0.0.1"],
)
def test_change_from_elsewhere_is_refused_whatever_the_cookie(friend, origin):
    headers = {} if origin is None else {"origin": origin}
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert friend.request(method, "/change", headers=headers).status_code == 403


def test_change_from_an_own_page_is_let_through(friend):
    assert friend.post("/change", headers={"origin": f"http://{HOST}"}).text == '"changed"'


def test_every_answer_has_the_headers_and_allows_no_other_site(friend, stranger):
    answers = [friend.get("/"), friend.get("/static/htmx.min.js"), friend.get("/none"), stranger.get("/"),
               friend.get("/?token=the-token")]  # fmt: skip
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_websockets_are_refused():
    refused = Guard(FastAPI(), hosts={HOST}, port=1)
    with pytest.raises(WebSocketDisconnect) as error, TestClient(refused).websocket_connect("/"):
        pass
    assert error.value.code == 1008


def test_port_is_taken_and_waits_for_the_server_once_it_is_bound():
    with closing(bound("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(UsageError, match="can't be listened on"):
            bound("127.0.0.1", port)
