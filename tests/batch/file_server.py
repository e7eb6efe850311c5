"""A server of files for tests, in a process of its own: `python file_server.py FOLDER LOG` prints its port.

While a file LOG.status is there, it answers everything with the HTTP status that stands in it.
GDAL keeps Python's lock while it opens a file; a server in the same process could never answer it.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ranged(SimpleHTTPRequestHandler):
    """Files of a folder, whole or in the part that is asked for, as object stores give them."""

    def do_GET(self) -> None:
        status = Path(f"{sys.argv[2]}.status")
        if status.is_file():
            self.send_response(int(status.read_text()))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        file = Path(self.translate_path(self.path))
        if part is None or not file.is_file():
            super().do_GET()
            return
        data = file.read_bytes()
        first, last = int(part[1]), min(int(part[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_request(self, *_: object) -> None:
        """A line for each request: its path."""
        with Path(sys.argv[2]).open("a", encoding="utf-8") as log:
            log.write(f"{self.path}\n")

    def log_error(self, *_: object) -> None:
        """Missing files are meant."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranged, directory=sys.argv[1])) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
