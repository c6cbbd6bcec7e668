from __future__ import annotations

import hashlib
import json
import logging
import socket
import time

import pytest

from airflow_model_deploy.engine.errors import InputError, IntegrityError, UnavailableError
from tests.engine.packaging.images.conftest import CHUNK, MANY, builder, serve_base
from tests.engine.packaging.images.servers import once

LAYER_BYTES = 512 + 512 + MANY + -MANY % 512 + 1024  # two headers, content, padding, end
DESTINATION = "models/digits"


def build(spec, registry, **options):
    return builder(**options).build(spec, f"{registry.host}/{DESTINATION}", log=lambda _: None)


def is_chunk(number):
    """The handler's request is the n-th chunk of a blob."""
    return lambda h: h.command == "PATCH" and h.headers["Content-Range"].startswith(f"{number * CHUNK}-")


def complete(registry, built):
    """Every blob that the tag's manifest names is there and is what it says."""
    manifest = json.loads(registry.manifests[DESTINATION, built.tag][1])
    for entry in (manifest["config"], *manifest["layers"]):
        data = registry.blobs[DESTINATION, entry["digest"]]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == entry["digest"]
    return True


@pytest.fixture
def spec(spec_on, base_layout):
    return spec_on(base_layout)


def test_a_large_blob_goes_in_chunks_and_once(registry, spec):
    built = build(spec, registry)
    assert registry.received("PATCH") == LAYER_BYTES
    assert registry.count("PATCH") == -(-LAYER_BYTES // CHUNK)
    received = sum(seen.received for seen in registry.log)
    assert built.uploaded_bytes == received
    assert complete(registry, built)
    assert [
        seen.path.rpartition("/")[2]
        for seen in registry.log
        if "manifests" in seen.path and seen.method == "PUT"
    ] == [
        built.digest,
        built.tag,
    ]


def test_a_connection_killed_in_a_blob_resumes_from_where_the_registry_stands(registry, spec):
    kept = 10_000

    def kill(handler):
        name = handler.path.rpartition("/")[2]
        registry.uploads[name] += handler.take(kept)
        handler.cut()

    registry.fault = once(is_chunk(2), kill)
    built = build(spec, registry)
    assert registry.fault.happened()
    ranges = [s.headers["Content-Range"].split("-")[0] for s in registry.log if s.method == "PATCH"]
    assert ranges[:4] == ["0", str(CHUNK), str(2 * CHUNK), str(2 * CHUNK + kept)]
    assert registry.received("PATCH") == LAYER_BYTES  # not one byte came twice
    assert complete(registry, built)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
def test_any_request_may_break_once(method, registry, spec):
    registry.fault = once(lambda h: h.command == method, lambda h: h.cut())
    built = build(spec, registry)
    assert registry.fault.happened()
    assert complete(registry, built)


def test_an_answer_that_is_lost_after_the_blob_was_stored(registry, spec):
    def store_and_cut(handler):
        answer = handler.answer
        handler.answer = lambda *_, **__: handler.cut()
        try:
            handler.serve()
        finally:
            handler.answer = answer

    registry.fault = once(lambda h: h.command == "PUT" and "uploads" in h.path, store_and_cut)
    built = build(spec, registry)
    assert complete(registry, built)
    assert (
        registry.count("PUT", "/blobs/uploads/") == 4
    )  # the base's layer, two layers, the config: none twice


def test_an_upload_that_the_registry_lost_begins_again(registry, spec):
    def lose(handler):
        handler.state.uploads.clear()
        handler.cut()

    registry.fault = once(is_chunk(2), lose)
    built = build(spec, registry)
    assert complete(registry, built)
    assert LAYER_BYTES < registry.received("PATCH") < 2 * LAYER_BYTES


def test_an_upload_that_is_lost_again_and_again_ends(registry, spec):
    def lose(handler):
        if is_chunk(2)(handler):
            handler.state.uploads.clear()
            handler.cut()

    registry.fault = lose
    with pytest.raises(UnavailableError, match="lost the upload"):
        build(spec, registry, patience_s=20)
    assert registry.tags(DESTINATION) == []


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_registry_that_fails_for_a_while(status, registry, spec):
    registry.fault = once(is_chunk(1), lambda h: h.refuse(status, "UNKNOWN"))
    built = build(spec, registry)
    assert registry.fault.happened()
    assert complete(registry, built)


def test_retry_after_is_respected(registry, spec):
    at = []

    def later(handler):
        at.append(time.monotonic())
        handler.refuse(429, "TOOMANYREQUESTS", headers={"Retry-After": "1"})

    registry.fault = once(lambda h: h.command == "POST", later)
    build(spec, registry, patience_s=5)
    assert time.monotonic() - at[0] >= 1


def test_a_wait_longer_than_patience_is_told_at_once(registry, spec):
    registry.fault = lambda h: h.refuse(503, "UNAVAILABLE", "maintenance", {"Retry-After": "3600"}) or True
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"maintenance.*wait 3600 s"):
        build(spec, registry)
    assert time.monotonic() - started < 1.5


def test_a_registry_that_is_down_is_named(spec):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnavailableError, match=host) as caught:
        builder(patience_s=0.5).build(spec, f"{host}/x/y", log=lambda _: None)
    assert "refused" in str(caught.value)
    assert not caught.value.permanent


def test_a_registry_that_answers_too_slowly(registry, spec):
    registry.fault = lambda h: time.sleep(1.2)
    with pytest.raises(UnavailableError, match="ReadTimeout") as caught:
        build(spec, registry, timeout_s=0.2, patience_s=0.6)
    assert registry.host in str(caught.value)


def test_a_registry_that_takes_a_blob_too_slowly(registry, spec, weights):
    weights.write_bytes(bytes(32 << 20))  # more than the buffers of a loopback connection

    def stall(handler):
        if handler.command == "PATCH":
            time.sleep(1)
            handler.cut()

    registry.fault = stall
    with pytest.raises(UnavailableError, match=r"WriteTimeout|did not answer"):
        build(spec, registry, timeout_s=0.3, patience_s=0.5, chunk_bytes=32 << 20)
    assert registry.tags(DESTINATION) == []


@pytest.mark.parametrize(
    ("status", "message"), [(507, "quota"), (500, "write /var/lib/registry: no space left on device")]
)
def test_a_registry_with_a_full_disk(status, message, registry, spec):
    full = [True]

    def no_room(handler):
        if full[0] and is_chunk(3)(handler):
            handler.refuse(status, "UNKNOWN", message)
            return True
        return False

    registry.fault = no_room
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="no room in the registry") as caught:
        build(spec, registry, patience_s=30)
    assert time.monotonic() - started < 5  # a full disk is no hiccup
    assert registry.host in str(caught.value)
    assert message in str(caught.value)
    assert registry.tags(DESTINATION) == []
    full[0] = False
    sent = registry.received("PUT")
    assert complete(registry, build(spec, registry))
    assert registry.received("PUT") - sent < 3000  # what had arrived was not sent again


def test_a_manifest_that_is_refused_leaves_no_tag_and_a_retry_sends_no_blob(registry, spec):
    registry.fault = lambda h: (
        h.command == "PUT" and "manifests" in h.path and (h.refuse(500, "UNKNOWN") or True)
    )
    with pytest.raises(UnavailableError):
        build(spec, registry, patience_s=0.3)
    assert registry.tags(DESTINATION) == []
    registry.fault, registry.log = None, []
    built = build(spec, registry)
    assert registry.received("PATCH") == registry.received("PUT") == 0
    assert built.uploaded_bytes < 10_000
    assert registry.tags(DESTINATION) == [built.tag]


def test_a_file_that_changes_during_the_push_is_refused(registry, spec, weights):
    registry.fault = once(is_chunk(1), lambda h: weights.write_bytes(bytes(MANY)) == 0)
    with pytest.raises(IntegrityError, match="changed while it was packaged") as caught:
        build(spec, registry)
    assert str(weights) in str(caught.value)
    assert registry.tags(DESTINATION) == []
    assert registry.count("DELETE") == 1  # and the half upload was given up


def test_a_blob_that_arrives_changed_is_refused(registry, spec):
    def flip(handler):
        name = handler.path.rpartition("/")[2]
        registry.uploads[name][:1] = b"!"
        return False

    registry.fault = once(is_chunk(2), flip)
    with pytest.raises(IntegrityError, match="received another blob"):
        build(spec, registry)
    assert registry.tags(DESTINATION) == []


def test_a_base_with_a_wrong_digest_is_refused(registry, other_registry, spec_on):
    serve_base(other_registry)
    for key, data in list(other_registry.blobs.items()):
        if not data.startswith(b"{"):
            other_registry.blobs[key] = data[:-1] + b"!"
    with pytest.raises(IntegrityError, match="isn't what its digest says"):
        build(spec_on(f"{other_registry.host}/base:1"), registry)
    assert registry.tags(DESTINATION) == []
    base = serve_base(other_registry, repository="two")
    other_registry.manifests["two", base.digest] = (base.media_type, base.data + b" ")
    with pytest.raises(IntegrityError, match="isn't what its digest says"):
        build(spec_on(f"{other_registry.host}/two@{base.digest}"), registry)


def test_a_base_that_breaks_off_is_read_on_from_there(registry, other_registry, spec_on):
    serve_base(other_registry)

    def half(handler):
        data = other_registry.blobs["base", handler.path.rpartition("/")[2]]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        time.sleep(0.1)
        handler.cut()

    other_registry.fault = once(lambda h: h.command == "GET" and "/blobs/" in h.path, half)
    built = build(spec_on(f"{other_registry.host}/base:1"), registry)
    assert complete(registry, built)
    assert sum("Range" in seen.headers for seen in other_registry.log) == 1


def test_base_layers_of_the_same_registry_are_mounted(registry, spec_on):
    serve_base(registry)
    built = build(spec_on(f"{registry.host}/base:1"), registry)
    assert complete(registry, built)
    assert registry.count("POST", "mount=sha256") == 1
    assert not any(seen.method == "GET" and "base/blobs" in seen.path for seen in registry.log[3:])


def test_a_registry_that_does_not_mount_gets_the_layers(registry, spec_on):
    serve_base(registry)
    registry.fault = lambda h: (
        setattr(h, "path", h.path.partition("?mount")[0]) if "?mount" in h.path else False
    )
    assert complete(registry, build(spec_on(f"{registry.host}/base:1"), registry))


def test_a_missing_base_is_named(registry, spec_on):
    with pytest.raises(InputError, match="base has no image 1"):
        build(spec_on(f"{registry.host}/base:1"), registry)


def test_plain_http_is_for_loopback_only(spec_on, base_layout, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UnavailableError) as caught:
        builder(patience_s=0.2, timeout_s=0.2).build(
            spec_on(base_layout), "192.0.2.1:5000/x", log=lambda _: None
        )
    assert "https://192.0.2.1:5000" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_mount_that_is_refused_costs_an_upload(registry, spec_on, status):
    serve_base(registry)

    def refuse(handler):
        if "mount=" in handler.path:
            handler.refuse(status, "DENIED")
            return True
        return False

    registry.fault = refuse
    built = build(spec_on(f"{registry.host}/base:1"), registry)
    assert registry.count("POST", "mount=") == 1
    assert complete(registry, built)


@pytest.mark.parametrize(
    ("status", "passes"), [(425, True), (429, True), (501, False), (505, False), (520, True)]
)
def test_which_answers_are_waited_out(registry, spec, status, passes):
    registry.fault = once(lambda h: h.command == "PUT", lambda h: h.answer(status))
    if passes:
        assert complete(registry, build(spec, registry))
    else:
        with pytest.raises(InputError, match=str(status)):
            build(spec, registry)
