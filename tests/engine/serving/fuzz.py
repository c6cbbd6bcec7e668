"""Requests that nobody should send, from a seed: the same seed gives the same requests."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.engine.serving.rawhttp import Reply, get, post
from tests.engine.serving.servables import expected

INFER = "/v2/models/tiny/infer"
HUGE = "1" + "0" * 400


class Raw(str):
    """A token that goes into JSON as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class Case:
    """What is sent, and what must come back.

    Args:
        kind: the generator's name, for messages.
        data: the bytes.
        replies: how many responses must come; None where the bytes are no whole HTTP request: any number may.
        check: holds the responses against what they should be, beyond a status that blames the sender.
        head: responses carry no body.
    """

    kind: str
    data: bytes
    replies: int | None = 1
    check: Callable[[list[Reply]], None] | None = None
    head: bool = False


def dump(value: Any) -> str:
    """Write JSON, and what only looks like it."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


JUNK: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 0.5, -0.0, 1e308,
    "", "x", "y", "k", "FP32", "BYTES", "fp32", "é", "\u0000", "\U0001f600", "a" * 5000, [], {}, [[]], [None],
    [1, [2]], {"a": {}}, [True, "x", 1.5], {"binary_data_size": 16}, [0] * 2000, [-1], [2**62, 2**62],
    Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("1e999"), Raw("-1e999"), Raw("1e-999"), Raw(HUGE),
    Raw("-" + HUGE), Raw("0x10"), Raw("01"), Raw("1."), Raw("+1"), Raw("'x'"), Raw('"\\ud800"'), Raw('"\\u12"'),
    Raw('"\\udc00\\ud800"'), Raw('"\x01"'), Raw("undefined"), Raw("[" * 50), Raw("1e39"), Raw("3.5e38"), Raw(""),
]  # fmt: skip
SIZES: list[Any] = [
    -1, 0, 1, 15, 17, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 + 16, -(2**63), 16.0, 16.5, "16", True, None, [], {},
    Raw("1e2"), Raw(HUGE), Raw("NaN"), 10**9,
]  # fmt: skip
LENGTHS = [
    "-1", "0", "1", "99999999", "18446744073709551616", "1e2", "0x20", "+5", " 5", "5 ", "5.0", "", "five", "5,5",
    "\u00b2",
    "\u0661".encode().decode("latin-1"), "-0", "00000000000000000000005", "1_0", HUGE,
]  # fmt: skip
PATHS = [
    "/", "//", "/v2/", "/v2//", "/v2/models", "/v2/models/", "/v2/models//infer", "/v2/models/tiny/infer/", "*",
    "/v2/models/tiny/versions/", "/v2/models/tiny/versions//infer", "/v2/models/tiny/versions/v1/infer/x",
    "/v2/models/../../etc/passwd", "/v2/models/%2e%2e/infer", "/v2/models/tiny%2Finfer", "/v2/models/tiny%00/infer",
    "/v2/models/%ff%fe/infer", "/v2/models/%/infer", "/v2/models/%zz/infer", "/v2/models/tiny/infer?x=1#y",
    "/v2/models/" + "a" * 3000 + "/infer", "/" + "/" * 2000, "/v2/models/tiny/infer;x", "/metrics?x=%s%n",
    "http://elsewhere/v2", "/v2/models/${jndi:ldap://x}/infer", "/v2/repository/index", "/docs", "/V2",
]  # fmt: skip
METHODS = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"]
HEADERS = [
    "Content-Type: text/plain", "Content-Type: application/json; charset=utf-16", "Content-Type: \x80\xff",
    "Content-Type: multipart/form-data; boundary=x", "Accept: text/html", "Accept-Encoding: br;q=nan",
    "Expect: 100-continue", "Expect: a miracle", "Upgrade: websocket\r\nConnection: Upgrade",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    "Connection: banana",
    "Cookie: " + "a=b; " * 500, "X-Forwarded-For: " + "1.1.1.1, " * 200, "X: " + "\xff" * 200, "Range: bytes=0-1",
    "traceparent: 00-zz", "Host: a\r\nHost: b", "If-None-Match: *", "TE: trailers", "Content-Encoding: identity",
    "Content-Encoding: br", "Content-Encoding: gzip", "Content-Encoding: deflate, gzip", "Transfer-Encoding: identity",
]  # fmt: skip


class Fuzzer:
    """Makes cases for a model of x FP32 [-1, 4] and k INT8 [-1, 2]: y = linear(x), z = k."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0
        kinds = [
            (14, self.well_formed),
            (8, self.well_formed_binary),
            (26, self.mutated_json),
            (6, self.mutated_text),
            (6, self.deep),
            (16, self.mutated_binary),
            (4, self.mutated_header_length),
            (5, self.other_path),
            (4, self.other_method),
            (5, self.other_headers),
            (2, self.compressed),
            (3, self.chunked),
            (3, self.pipelined),
            (3, self.truncated),
            (3, self.lying_length),
            (3, self.broken_chunks),
            (4, self.mutated_bytes),
        ]
        self.kinds = [kind for _, kind in kinds]
        self.weights = [weight for weight, _ in kinds]

    def case(self) -> Case:
        self.number += 1
        return self.random.choices(self.kinds, self.weights)[0]()

    # What is right

    def values(self) -> tuple[list[list[float]], list[int]]:
        rows = self.random.randint(1, 4)
        x = [[round(self.random.uniform(-9, 9), 3) for _ in range(4)] for _ in range(rows)]
        return x, [self.random.randint(-128, 127) for _ in range(rows * 2)]

    def document(self) -> dict[str, Any]:
        x, k = self.values()
        flat = [value for row in x for value in row]
        return {
            "id": f"request-{self.number}",
            "inputs": [
                {"name": "x", "shape": [len(x), 4], "datatype": "FP32", "data": flat},
                {"name": "k", "shape": [len(x), 2], "datatype": "INT8", "data": k},
            ],
        }

    def binary(self, document: dict[str, Any]) -> list[bytes]:
        """Move the tensors of a document behind it."""
        raw = []
        for record in document["inputs"]:
            dtype = "<f4" if record["datatype"] == "FP32" else "i1"
            raw.append(np.array(record.pop("data"), dtype).tobytes())
            record["parameters"] = {"binary_data_size": len(raw[-1])}
        return raw

    def well_formed(self) -> Case:
        document = self.document()
        return Case("well_formed", post(dump(document).encode()), check=right(document))

    def well_formed_binary(self) -> Case:
        document = self.document()
        check = right(json.loads(dump(document)))
        raw = self.binary(document)
        document["parameters"] = {"binary_data_output": self.random.random() < 0.7}
        return Case("well_formed_binary", self.with_raw(document, raw), check=check)

    def with_raw(self, document: dict[str, Any], raw: list[bytes], length: str | None = None) -> bytes:
        head = dump(document).encode("utf-8", "surrogatepass")
        declared = str(len(head)) if length is None else length
        return post(head + b"".join(raw), headers=[f"Inference-Header-Content-Length: {declared}"])

    # Well-formed HTTP around something else

    def mutate(self, document: dict[str, Any]) -> None:
        """Replace, drop or repeat a random part of the document."""
        holder: Any = document
        key: Any = self.random.choice(list(document))
        while isinstance(holder[key], (dict, list)) and holder[key] and self.random.random() < 0.8:
            holder = holder[key]
            key = self.random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        action = self.random.random()
        if action < 0.7:
            holder[key] = self.random.choice(JUNK)
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.extend(holder[:] * self.random.randint(1, 5))
        else:
            holder[key] = Raw(f"{dump(holder[key])},{json.dumps(key)}:{dump(self.random.choice(JUNK))}")

    def mutated_json(self) -> Case:
        document = self.document()
        if self.random.random() < 0.3:
            document["outputs"] = [
                {"name": "y", "parameters": {"binary_data": self.random.choice([True, False])}}
            ]
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            if document:
                self.mutate(document)
        return Case("mutated_json", post(dump(document).encode("utf-8", "surrogatepass")))

    def mutated_text(self) -> Case:
        return Case("mutated_text", post(self.spoiled(dump(self.document()).encode())))

    def spoiled(self, data: bytes) -> bytes:
        """Flip, insert, drop or repeat a few bytes."""
        out = bytearray(data)
        for _ in range(self.random.randint(1, 8)):
            at = self.random.randrange(len(out) + 1)
            action = self.random.randrange(4)
            if action == 0 and at < len(out):
                out[at] = self.random.randrange(256)
            elif action == 1:
                out[at:at] = self.random.choice(
                    [b"\x00", b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b'"', b"}", b"["]
                )
            elif action == 2:
                del out[at : at + self.random.randint(1, 20)]
            else:
                out[at:at] = out[at : at + self.random.randint(1, 50)]
        return bytes(out)

    def deep(self) -> Case:
        depth = self.random.choice([10, 33, 64, 200, 1000, 1025, 20_000])
        opened, closed = self.random.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
        nested = Raw(opened * depth + "1" + closed * depth)
        document = self.document()
        where = self.random.randrange(5)
        if where == 0:
            return Case("deep", post(nested.encode()))
        if where == 1:
            document["parameters"] = nested
        elif where == 2:
            document["inputs"][0]["data"] = nested
        elif where == 3:
            document["inputs"][0]["shape"] = nested
        else:
            document["outputs"] = nested
        return Case("deep", post(dump(document).encode()))

    def mutated_binary(self) -> Case:
        document = self.document()
        raw = self.binary(document)
        records = document["inputs"]
        action = self.random.randrange(8)
        if action < 3:
            self.random.choice(records)["parameters"]["binary_data_size"] = self.random.choice(SIZES)
        elif action == 3:  # both name the same bytes
            records[1]["parameters"] = records[0]["parameters"]
        elif action == 4:
            records[0]["data"] = self.random.choice([[], [1.0] * 4, None])
        elif action == 5:
            raw = [part[: self.random.randrange(len(part) + 1)] for part in raw]
        elif action == 6:
            raw.append(bytes(self.random.randrange(1, 100)))
        else:
            self.mutate(document)
        return Case("mutated_binary", self.with_raw(document, raw))

    def mutated_header_length(self) -> Case:
        document = self.document()
        raw = self.binary(document) if self.random.random() < 0.7 else []
        return Case("mutated_header_length", self.with_raw(document, raw, self.random.choice(LENGTHS)))

    def other_path(self) -> Case:
        path = self.random.choice(PATHS)
        if self.random.random() < 0.5:
            return Case("other_path", get(path))
        return Case("other_path", post(dump(self.document()).encode(), path))

    def other_method(self) -> Case:
        method = self.random.choice(METHODS)
        path = self.random.choice([INFER, "/v2", "/v2/health/ready", "/metrics", "/nowhere"])
        body = self.random.choice([b"", dump(self.document()).encode()])
        data = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        return Case("other_method", data, head=method == "HEAD")

    def other_headers(self) -> Case:
        header = self.random.choice(HEADERS)
        data = post(dump(self.document()).encode(), headers=[header])
        # Not all of them leave a request that a server has to answer.
        sure = not any(word in header for word in ("Upgrade", "Host", "Transfer", "\xff"))
        return Case("other_headers", data, replies=1 if sure else None)

    def compressed(self) -> Case:
        body = gzip.compress(dump(self.document()).encode(), 1)
        if self.random.random() < 0.5:
            body = self.spoiled(body)
        return Case("compressed", post(body, headers=["Content-Encoding: gzip"]))

    def chunked(self) -> Case:
        document = self.document()
        body, chunks = dump(document).encode(), []
        while body:
            size = self.random.randint(1, 60)
            extension = self.random.choice([b"", b";x=y", b';x="\xff"'])
            chunks.append(b"%x%s\r\n%s\r\n" % (len(body[:size]), extension, body[:size]))
            body = body[size:]
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        data = head + b"".join(chunks) + b"0\r\n\r\n"
        return Case(
            "chunked",
            data,
            check=None if b"\xff" in data else right(document),
            replies=None if b"\xff" in data else 1,
        )

    def pipelined(self) -> Case:
        documents = []
        for _ in range(self.random.randint(2, 12)):
            self.number += 1
            documents.append(self.document())

        def check(replies: list[Reply]) -> None:
            for reply, document in zip(replies, documents, strict=True):
                right(document)([reply])

        data = b"".join(post(dump(document).encode()) for document in documents)
        return Case("pipelined", data, len(documents), check)

    # No whole HTTP request, or more than one: any answer that isn't the server's fault will do

    def truncated(self) -> Case:
        data = post(dump(self.document()).encode())
        return Case("truncated", data[: self.random.randrange(1, len(data))], None)

    def lying_length(self) -> Case:
        body = dump(self.document()).encode()
        length = self.random.choice(
            ["1", "-1", "0", str(len(body) - 3), str(len(body) + 7), "1e3", "+5", HUGE, "2147483648"]
        )
        doubled = f"\r\nContent-Length: {len(body)}" if self.random.random() < 0.3 else ""
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}{doubled}\r\n\r\n"
        return Case("lying_length", head.encode() + body, None)

    def broken_chunks(self) -> Case:
        size = self.random.choice(
            ["zz", "-1", "ffffffffffffffff", "7fffffffffffffff", "", "5 5", "0" * 1000 + "5", "1" * 100]
        )
        encoding = self.random.choice(
            ["chunked", "chunked, chunked", "gzip, chunked", "chunked, gzip", "xchunked", "\x0bchunked"]
        )
        length = self.random.choice(["", "\r\nContent-Length: 5"])
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {encoding}{length}\r\n\r\n"
        return Case("broken_chunks", f"{head}{size}\r\nhello\r\n0\r\nTrailer: x\r\n\r\n".encode(), None)

    def mutated_bytes(self) -> Case:
        lines = self.random.choice(
            [
                post(dump(self.document()).encode()),
                get("/v2/health/ready"),
                b"GET /v2\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET /v2 HTTP/9.9\r\nHost: x\r\n\r\n",
                b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
                b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
                b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
                b"GET /v2 HTTP/1.0\r\n\r\n",
                b"\r\n\r\n\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n",
            ]
        )
        return Case("mutated_bytes", self.spoiled(lines), None)


def right(document: dict[str, Any]) -> Callable[[list[Reply]], None]:
    """A check that the one reply is the right answer to this document."""
    x, k = (record["data"] for record in document["inputs"])
    rows = [x[i : i + 4] for i in range(0, len(x), 4)]

    def check(replies: list[Reply]) -> None:
        (reply,) = replies
        assert reply.status == 200, (reply, document)
        got = reply.tensors()
        np.testing.assert_allclose(np.reshape(got["y"], (-1, 3)), expected(rows), rtol=1e-4, atol=1e-4)
        assert got["z"] == k
        assert f'"{document["id"]}"'.encode() in reply.body

    return check
