"""Who is answered: this page's own windows, by the name of this machine, with the token where there is one."""

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.serve.conftest import HOST, ORIGIN, Open
from v3s.serve.guard import Guard, own_hosts


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:9000", "localhost:8000.evil", ""]
)
def test_another_host_is_refused(client: Open, files: Path, host: str) -> None:
    """A name of a foreign page that leads to this machine (DNS rebinding)."""
    answer = client(files).get("/api/collection", headers={"Host": host})
    assert answer.status_code == 421
    assert "left" not in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:9000", f"{ORIGIN}.evil"])
@pytest.mark.parametrize("path", ["/api/labels", "/api/probe"])
def test_only_the_page_itself_may_change_something(client: Open, files: Path, origin: str, path: str) -> None:
    served = client(files)
    answer = served.post(path, content='{"rows": [0], "label": "a"}', headers={"Origin": origin})
    assert answer.status_code == 403
    assert not (files / "labels").exists()


def test_a_form_of_another_page_cannot_send_json(client: Open, files: Path) -> None:
    headers = {"Content-Type": "text/plain"}
    assert client(files).post("/api/labels", content='{"rows": [0], "label": "a"}', headers=headers).status_code == 415


def test_nothing_changes_by_get(client: Open, files: Path) -> None:
    served = client(files)
    for path in ("/api/labels?rows=0&label=a", "/api/probe"):
        served.get(path)
    assert not (files / "labels").exists()


def test_a_request_of_another_site_is_refused(client: Open, files: Path) -> None:
    served = client(files)
    assert served.get("/api/spans", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert served.get("/api/spans", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert served.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_on_the_port_of_http_hosts_have_no_port() -> None:
    assert own_hosts(8000) == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}
    assert own_hosts(80) == {"127.0.0.1:80", "localhost:80", "[::1]:80", "127.0.0.1", "localhost", "[::1]"}


def guarded(token: str) -> TestClient:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("inside"))])
    return TestClient(Guard(app, hosts=None, token=token), base_url=f"http://{HOST}")


def test_with_a_token_only_who_knows_it_comes_in() -> None:
    client = guarded("secret-token")
    for path in ("/", "/?token=", "/?token=wrong", "/?token=secret-toke", "/?token=%00%ff"):
        assert client.get(path).status_code == 403
    assert client.get("/", headers={"Cookie": "v3s-8000=wrong"}).status_code == 403
    answer = client.get("/?token=secret-token", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert client.get("/").text == "inside"  # the client keeps the cookie


@pytest.mark.parametrize("host", ["[fd00::2]", "machine.example"])
def test_on_the_port_of_http_the_token_is_kept_too(host: str) -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("inside"))])
    client = TestClient(Guard(app, hosts=None, token="secret-token"), base_url=f"http://{host}")
    answer = client.get("/?token=secret-token", follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert answer.headers["Set-Cookie"].startswith("v3s-80=secret-token;")
    assert client.get("/", headers={"Cookie": "v3s-80=secret-token"}).text == "inside"


@pytest.mark.parametrize("knows", [False, True])
def test_only_the_token_is_taken_out_of_an_address(knows: bool) -> None:
    """A bookmark of what was shown, or a link that someone sent; with a cookie the token of an earlier server too."""
    client = guarded("secret-token")
    if knows:
        client.cookies.set("v3s-8000", "secret-token")
    addresses = {
        "/?token=secret-token&order=like%3A3&mark=a+b": "/?order=like%3A3&mark=a+b",
        "/?mark=&token=secret-token&folder=1": "/?mark=&folder=1",
        "/labels.csv?%74oken=secret-token": "/labels.csv",
        "//evil.example/?token=secret-token": "/evil.example/",
        "/\\evil.example/?token=secret-token": "/%5Cevil.example/",
    }
    if knows:
        addresses |= {"/?token=old&view=map": "/?view=map", "/?token=": "/"}
    for address, rest in addresses.items():
        answer = client.get(f"http://{HOST}{address}", follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, rest), address
    assert client.get("/?order=listed&tokens=2", follow_redirects=False).text == "inside"
