# SPDX-License-Identifier: Apache-2.0
"""What downloads are tested with: a web server on this machine, a cache, a row with its mirrors."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger

from uniformer_mm.weights import download, resolve, zoo
from uniformer_mm.weights.zoo import Mirror


@pytest.fixture(autouse=True, scope='session')
def _logger() -> None:
    """Make mmengine's logger now: it keeps the stream of its birth, which one test may close."""
    MMLogger.get_current_instance()


@dataclass
class Web:
    """What the server gives, and what it was asked for.

    Attributes:
        root: Address, ending in a slash.
        files: Bodies by name.
        break_after: Bytes after which the first answer for a name breaks off.
        requests: Name and Range header of each request.
    """

    root: str = ''
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    """A server on 127.0.0.1."""
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            name = self.path.lstrip('/')
            asked = self.headers.get('Range')
            state.requests.append((name, asked))
            body = state.files.get(name)
            if body is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix('bytes=').rstrip('-')) if asked else 0
            rest = body[start:]
            self.send_response(206 if asked else 200)
            page = body.lstrip()[:1] == b'<'
            self.send_header('Content-Type', 'text/html' if page else 'application/octet-stream')
            self.send_header('Content-Length', str(len(rest)))
            self.send_header('ETag', '"1"')
            if asked:
                self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
            self.end_headers()
            cut = state.break_after.pop(name, None)
            self.wfile.write(rest[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    state.root = f'http://127.0.0.1:{server.server_port}/'
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope='module')
def body() -> bytes:
    """A checkpoint of some 3 MB: gdown writes pieces of half a megabyte."""
    file = io.BytesIO()
    torch.save({'x': torch.arange(750_000.0)}, file)
    return file.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / 'cache'
    monkeypatch.setenv('UNIFORMER_WEIGHTS', str(folder))
    monkeypatch.setattr(download, 'RETRIES', 0)
    return folder


@pytest.fixture
def mirrors(monkeypatch):
    """Give the row of small_in1k other mirrors."""
    row = zoo.find_row('small_in1k')

    def set_hosts(*given: Mirror) -> None:
        changed = replace(row, mirrors=given)
        monkeypatch.setattr(resolve, 'find_row', lambda name: changed)

    return set_hosts


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that all may enter, and no rights beyond its own for this process."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / 'locked').mkdir()
        try:
            yield Path(folder) / 'locked'
        finally:
            os.seteuid(user)
