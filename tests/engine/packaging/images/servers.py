"""A small registry and a proxy in front of a real one, both of which fail when a test says so."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import struct
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    method: str
    path: str
    headers: dict
    received: int = 0


@dataclass
class Server:
    """What a handler answers with; `fault(handler)` may answer in its place by returning True."""

    fault: object = None
    log: list = field(default_factory=list)
    blobs: dict = field(default_factory=dict)
    manifests: dict = field(default_factory=dict)
    uploads: dict = field(default_factory=dict)
    upstream: str = ""
    host: str = ""

    def count(self, method, part=""):
        return sum(seen.method == method and part in seen.path for seen in self.log)

    def received(self, method, part="/blobs/uploads/"):
        return sum(seen.received for seen in self.log if seen.method == method and part in seen.path)

    def tags(self, repository):
        return sorted(name for repo, name in self.manifests if repo == repository and ":" not in name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_):
        pass

    @property
    def state(self):
        return self.server.state

    def handle_any(self):
        self.seen = Seen(self.command, self.path, dict(self.headers))
        self.state.log.append(self.seen)
        self.left = int(self.headers.get("Content-Length", 0))
        if self.state.fault is not None and self.state.fault(self):
            return
        (self.forward if self.state.upstream else self.serve)()

    def take(self, most=None):
        """Read up to `most` bytes of the body."""
        data = self.rfile.read(self.left if most is None else min(most, self.left))
        self.left -= len(data)
        self.seen.received += len(data)
        return data

    def answer(self, status, headers=None, body=b""):
        self.take()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message="", headers=None):
        self.answer(status, headers, json.dumps({"errors": [{"code": code, "message": message}]}).encode())

    def cut(self):
        """Break the connection at once, as a pulled cable or a killed process does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        raise ConnectionAbortedError

    def forward(self):
        upstream = http.client.HTTPConnection(self.state.upstream, timeout=20)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        upstream.request(
            self.command, self.path, self.take(), headers
        )  # keeps Host: Locations lead back here
        response = upstream.getresponse()
        body = response.read()
        kept = {name: value for name, value in response.getheaders() if name.lower() != "transfer-encoding"}
        self.answer(response.status, kept, body)
        upstream.close()

    def serve(self):
        for pattern, name in (
            (r"/v2/(.+)/blobs/uploads/?(?:\?(.*))?", "begin"),
            (r"/v2/(.+)/blobs/uploads/([0-9a-f-]+)(?:\?digest=(.*))?", "upload"),
            (r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", "blob"),
            (r"/v2/(.+)/manifests/(.+)", "manifest"),
        ):
            match = re.fullmatch(pattern, self.path)
            if match:
                return getattr(self, name)(*match.groups())
        return self.refuse(404, "NAME_UNKNOWN")

    def begin(self, repository, query):
        mount = re.fullmatch(r"mount=(.+)&from=(.+)", (query or "").replace("%3A", ":").replace("%2F", "/"))
        if mount and (mount[2], mount[1]) in self.state.blobs:
            self.state.blobs[repository, mount[1]] = self.state.blobs[mount[2], mount[1]]
            return self.answer(201)
        name = str(uuid.uuid4())
        self.state.uploads[name] = bytearray()
        return self.answer(202, {"Location": f"/v2/{repository}/blobs/uploads/{name}", "Range": "0-0"})

    def upload(self, repository, name, digest):
        held = self.state.uploads.get(name)
        if held is None:
            return self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "PATCH" and self.headers.get("Content-Range", "").split("-")[0] != str(len(held)):
            return self.answer(416, {"Range": f"0-{max(0, len(held) - 1)}"})
        while self.left:
            held += self.take(1 << 16)
        if self.command == "DELETE":
            del self.state.uploads[name]
            return self.answer(204)
        if self.command == "PUT":
            if "sha256:" + hashlib.sha256(held).hexdigest() != digest:
                return self.refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            self.state.blobs[repository, digest] = bytes(held)
            return self.answer(201)
        status = 204 if self.command == "GET" else 202
        return self.answer(status, {"Location": self.path, "Range": f"0-{max(0, len(held) - 1)}"})

    def blob(self, repository, digest):
        data = self.state.blobs.get((repository, digest))
        if data is None:
            return self.refuse(404, "BLOB_UNKNOWN")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            return self.answer(206, body=data[int(wanted[1]) :])
        return self.answer(200, {"Content-Length": str(len(data))}, data)

    def manifest(self, repository, name):
        if self.command == "PUT":
            data = self.take()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            for known in (name, digest):
                self.state.manifests[repository, known] = (self.headers["Content-Type"], data)
            return self.answer(201, {"Docker-Content-Digest": digest})
        if (repository, name) not in self.state.manifests:
            return self.refuse(404, "MANIFEST_UNKNOWN")
        kind, data = self.state.manifests[repository, name]
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        return self.answer(200, {"Content-Type": kind, "Docker-Content-Digest": digest}, data)


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", Handler.handle_any)


class _Threads(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # connections that tests break on purpose


@contextmanager
def running(state, tls=None):
    server = _Threads(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.state = state
    state.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def once(condition, act):
    """A fault that happens to the first request for which `condition(handler)` holds."""
    left = [1]

    def fault(handler):
        if left[0] and condition(handler):
            left[0] -= 1
            return act(handler) is not False
        return False

    fault.happened = lambda: left[0] == 0
    return fault
