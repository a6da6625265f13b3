"""From a path to its endpoint."""

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from shared.web import Endpoint
from shared.web.application import application


def answering(path: str, text: str) -> Endpoint:
    endpoint = Endpoint(path)
    endpoint.get(lambda: text)
    return endpoint


APP = application([answering("/api/notes/new", "fixed"), answering("/api/notes/{id}", "one"), answering("/", "root")])


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/", "root"),
        ("/api/notes/new", "fixed"),
        ("/api/notes/7", "one"),
        ("/api/notes/%C3%A9", "one"),
        ("/api/notes/7/", None),
        ("/api/notes/", None),
        ("/api/notes/7/more", None),
        ("/api/notes/new/", None),
        ("/API/notes/7", None),
    ],
)
@pytest.mark.parametrize("root", ["", "/under", "/under/it"])
def test_a_path_is_answered_wherever_the_app_is_mounted(root: str, path: str, answer: str | None) -> None:
    response = TestClient(APP, root_path=root).get(f"{root}{path}")

    assert response.status_code == (404 if answer is None else 200)
    assert answer is None or response.json() == answer


def test_a_path_that_only_looks_like_the_mount_is_not_below_it() -> None:
    assert TestClient(APP, root_path="/api/not").get("/api/notes/7").json() == "one"


def test_a_web_socket_is_refused() -> None:
    with pytest.raises(WebSocketDisconnect), TestClient(APP).websocket_connect("/api/notes/7"):
        pass
