"""A web server for tests: files, archives and the few endpoints of the Hugging Face Hub that a download needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes) and `repositories` (name -> revision -> file -> bytes); counts what is sent.

    A repository's revisions are commits of 40 digits; `branches` gives the commit of ("owner/name", "main").
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.sent: list[str] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        path = urlsplit(self.path).path
        if self.server.status != 200:
            return self._answer(b"", status=self.server.status)
        if path in self.server.files:
            body = self.server.files[path]
            tag = f'"{sha256(body).hexdigest()}"'
            if self.headers.get("If-None-Match") == tag:
                return self._answer(b"", status=304, ETag=tag)
            return self._answer(body, head=head, ETag=tag)
        return self._hub(path, head)

    def _hub(self, path: str, head: bool) -> None:
        api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        files = self.server.repositories.get("/".join(parts[:2]))
        if files is None:
            return self._answer(b"{}", status=404, **{"X-Error-Code": "RepoNotFound"})
        revision = parts[3] if len(parts) > 3 else "main"
        commit = self.server.branches.get(("/".join(parts[:2]), revision), revision)
        if commit not in files:
            return self._answer(b"{}", status=404, **{"X-Error-Code": "RevisionNotFound"})
        tags = {name: sha256(body).hexdigest()[:40] for name, body in files[commit].items()}
        if api and "tree" in parts:
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": tags[name]}
                for name, body in files[commit].items()
            ]
            return self._answer(json.dumps(entries).encode(), head=head)
        if api:
            answer = {"id": "/".join(parts[:2]), "sha": commit, "siblings": [{"rfilename": name} for name in tags]}
            return self._answer(json.dumps(answer).encode(), head=head)
        name = "/".join(parts[4:])
        if name not in tags:
            return self._answer(b"", status=404, **{"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{tags[name]}"'}
        return self._answer(files[commit][name], head=head, **headers)

    def _answer(self, body: bytes, *, status: int = 200, head: bool = False, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.server.sent += [urlsplit(self.path).path] if status == 200 else []  # before the client has it
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
