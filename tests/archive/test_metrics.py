"""Metrics: the numbers, two formats, a server and a file that do no harm."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpuenc import __version__
from gpuenc.archive.job import run
from gpuenc.archive.metrics import Metrics, metrics_watcher
from gpuenc.archive.report import Record, Summary
from gpuenc.archive.request import Job
from gpuenc.archive.scrape import MetricsFile, MetricsServer, destination_of
from gpuenc.errors import InvalidOption
from gpuenc.syntaxes import find
from gpuenc.targets import target
from tests import made
from tests.archive.exposition import parse
from tests.archive.records import records

SOME = list(records(500, failed=0.1))


def clock(*moments):
    times = iter(moments)
    return lambda: next(times)


@pytest.fixture(scope="module")
def metrics():
    counting = Metrics(clock=lambda: 1_795_300_000.5)
    counting.start(600, 10**12)
    counting.workers(["worker 1: 3 files, CT", "worker 2: idle"])
    for record in SOME:
        counting.done(record)
    return counting


@pytest.mark.parametrize("openmetrics", [False, True])
def test_numbers_are_those_of_the_records(metrics, openmetrics):
    samples, types = parse(metrics.render(openmetrics=openmetrics), openmetrics=openmetrics)

    def value(name, **labels):
        return samples[f"gpuenc_{name}", tuple(labels.items())]

    for status in ("encoded", "copied", "skipped", "failed"):
        those = [record for record in SOME if record.status == status]
        assert value("files_total", status=status) == len(those) > 0
        assert value("source_bytes_total", status=status) == sum(record.bytes_in for record in those)
        assert value("output_bytes_total", status=status) == sum(record.bytes_out for record in those)
    for name in ("frames", "pixel_bytes"):
        assert value(f"{name}_total") == sum(getattr(record, name) for record in SOME)
    assert value("verified_files_total") == sum(record.verified for record in SOME)
    reasons = Counter(record.reason for record in SOME if record.status == "failed")
    assert {labels[0][1]: n for (name, labels), n in samples.items() if name == "gpuenc_failures_total"} == reasons
    plugins, stages, refused = Counter(), Counter(), Counter()
    for record in SOME:
        plugins.update(record.plugins)
        stages.update(record.stage_seconds)
        refused.update(record.fallbacks)
    for label, number in plugins.items():
        assert value("plugin_frames_total", plugin=label) == number
    for stage, seconds in stages.items():
        assert value("stage_seconds_total", stage=stage) == pytest.approx(seconds)
    assert set(refused) == {"nvimgcodec: device-refused"}
    expected = refused["nvimgcodec: device-refused"]
    assert value("fallback_frames_total", plugin="nvimgcodec", reason="device-refused") == expected
    assert (value("planned_files"), value("planned_bytes"), value("workers")) == (600, 10**12, 2)
    assert value("build_info", version=__version__) == 1
    assert value("start_time_seconds") == value("last_file_time_seconds") == 1_795_300_000.5
    assert (value("running"), value("interrupted")) == (1, 0)
    counters = {name for name, kind in types.items() if kind == "counter"}
    assert len(counters) == 10
    assert all(name.endswith("_total") != openmetrics for name in counters)


def test_from_begin_to_end():
    metrics = Metrics(clock=clock(10.0, 20.0, 30.0))
    samples, _ = parse(metrics.render())
    assert samples["gpuenc_start_time_seconds", ()] == 10
    assert samples["gpuenc_files_total", (("status", "failed"),)] == 0
    assert not {name for name, _ in samples} & {"gpuenc_workers", "gpuenc_end_time_seconds"}
    metrics.workers(["a", "b"])
    metrics.done(Record("a", "copied"))
    metrics.finish(Summary(stopped="interrupted"))
    samples, _ = parse(metrics.render())
    told = ("last_file_time_seconds", "end_time_seconds", "running", "interrupted", "workers")
    assert [samples[f"gpuenc_{name}", ()] for name in told] == [20, 30, 0, 1, 0]


@pytest.mark.parametrize("openmetrics", [False, True])
def test_labels_are_escaped(openmetrics):
    metrics = Metrics()
    names = ['quote"', "back\\slash", "line\nfeed", 'all\\n"\n', "größe", "a{b}=c,d"]
    for name in names:
        metrics.done(Record("a", "failed", reason=name, plugins={name: 1}, fallbacks={f"{name}: {name}": 1}))
    metrics.done(Record("a", "failed", reason="\udcff"))
    samples, _ = parse(metrics.render(openmetrics=openmetrics), openmetrics=openmetrics)
    assert {labels[0][1] for name, labels in samples if name == "gpuenc_failures_total"} == {*names, "\\udcff"}
    assert {labels for name, labels in samples if name == "gpuenc_fallback_frames_total"} == {
        (("plugin", name), ("reason", name)) for name in names
    }
    metrics.render().encode()


def test_other_parsers_agree(metrics):
    pytest.importorskip("prometheus_client", reason="prometheus_client, Prometheus' own parser, is not installed")
    from prometheus_client.openmetrics import parser as openmetrics
    from prometheus_client.parser import text_string_to_metric_families

    for text, theirs, flag in (
        (metrics.render(), text_string_to_metric_families, False),
        (metrics.render(openmetrics=True), openmetrics.text_string_to_metric_families, True),
    ):
        found = {(s.name, frozenset(s.labels.items())): s.value for family in theirs(text) for s in family.samples}
        ours = {(name, frozenset(labels)): value for (name, labels), value in parse(text, openmetrics=flag)[0].items()}
        assert found == ours


@pytest.mark.parametrize(
    "wrong",
    [
        "a 1", "a 1\n# TYPE b gauge\nc 2\n", "# TYPE a counter\na -1\n", "# TYPE a counter\na 1\n",
        "# TYPE a gauge\na x\n", "# TYPE a gauge\na 1\na 2\n", '# TYPE a gauge\na{b="\\q"} 1\n',
        '# TYPE a gauge\na{b="1",b="2"} 1\n', '# TYPE a gauge\na{b="line\nfeed"} 1\n',
    ],
)  # fmt: skip
def test_the_reader_is_strict(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        parse(wrong)


@pytest.mark.parametrize(
    ("spec", "means"),
    [
        ("9100", ("127.0.0.1", 9100)), ("0.0.0.0:9100", ("0.0.0.0", 9100)), ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65535)), ("a.prom", Path("a.prom")), ("x/y:1.prom", Path("x/y:1.prom")),
    ],
)  # fmt: skip
def test_what_can_be_asked_for(spec, means):
    assert destination_of(spec) == means


@pytest.mark.parametrize(
    "spec",
    ["", "0", "65536", "99999999999", "-1", "91OO", "localhost", "localhost:", ":9100", "::1:9100", "a b:1", "file.txt",
     ".prom", "x/.prom", "1.5", "٣٤", "http://localhost:9100"],
)  # fmt: skip
def test_what_cannot(spec):
    with pytest.raises(InvalidOption, match=r"a port from 1 to 65535, HOST:PORT, or a file whose name ends in \.prom"):
        destination_of(spec)


def ask(port, method="GET", path="/metrics", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body, int(answer.headers["Content-Length"])


def test_server(metrics):
    with MetricsServer(("127.0.0.1", 0), metrics.render) as server:
        status, kind, body, length = ask(server.port)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert (body, length) == (metrics.render(), len(body.encode()))
        accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
        status, kind, body, _ = ask(server.port, Accept=accept)
        assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        parse(body, openmetrics=True)
        assert ask(server.port, "HEAD")[2:] == ("", length)
        assert ask(server.port, path="/")[0] == 404
        assert ask(server.port, path="/metrics?x=1")[0] == 200
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_server_is_not_for_the_network(metrics):
    with MetricsServer((destination_of("9100")[0], 0), metrics.render) as server:
        assert server._server.server_address[0] == "127.0.0.1"


def test_bad_readers_do_no_harm(metrics, capfd):
    with MetricsServer(("127.0.0.1", 0), metrics.render) as server:
        address = ("127.0.0.1", server.port)
        silent = socket.create_connection(address)
        long = b"GET /metrics HTTP/1.1\r\n" + b"x" * 70_000
        for said in (b"\0\xff\r\n\r\n", b"GET\r\n\r\n", long, b"POST / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(address) as reader, contextlib.suppress(OSError):
                reader.sendall(said)
                reader.shutdown(socket.SHUT_WR)
                reader.recv(100)
        with socket.create_connection(address) as rude:
            rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert ask(server.port)[0] == 200
    silent.close()
    assert capfd.readouterr() == ("", "")


def test_scrapes_while_files_are_done():
    metrics = Metrics()
    with MetricsServer(("127.0.0.1", 0), metrics.render) as server, ThreadPoolExecutor(2) as pool:
        scraped = pool.submit(lambda: [ask(server.port)[2] for _ in range(20)])
        for record in SOME:
            metrics.done(record)
        last = 0.0
        for text in scraped.result():
            samples, _ = parse(text)
            done = sum(value for (name, _), value in samples.items() if name == "gpuenc_files_total")
            assert last <= done <= len(SOME)
            last = done


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidOption, match=rf"cannot listen on 127\.0\.0\.1, port {port}: "):
            metrics_watcher(str(port)).__enter__()
    with pytest.raises(InvalidOption, match=r"cannot listen on 192\.0\.2\.1"):
        metrics_watcher("192.0.2.1:9100").__enter__()


def test_file(tmp_path):
    path = tmp_path / "gpuenc.prom"
    before = os.umask(0o022)
    try:
        with metrics_watcher(str(path)) as metrics:
            first, _ = parse(path.read_text(encoding="utf-8"))
            assert first["gpuenc_running", ()] == 1
            for record in SOME:
                metrics.done(record)
            metrics.finish(Summary())
    finally:
        os.umask(before)
    samples, _ = parse(path.read_text(encoding="utf-8"))
    assert samples["gpuenc_running", ()] == 0
    assert sum(value for (name, _), value in samples.items() if name == "gpuenc_files_total") == len(SOME)
    # The exporter is another user, and must find nothing half written that it takes for metrics.
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044
    assert [each.name for each in tmp_path.iterdir()] == ["gpuenc.prom"]
    with metrics_watcher(str(path)):  # the next run's takes its place
        assert parse(path.read_text(encoding="utf-8"))[0]["gpuenc_running", ()] == 1


def test_file_is_written_again_and_again(tmp_path):
    written = threading.Semaphore(0)
    calls = []

    def render(*, openmetrics=False):
        calls.append(openmetrics)
        written.release()
        return f"# HELP gpuenc_x {len(calls)}\n"

    with MetricsFile(tmp_path / "a.prom", render, every_s=0.0):
        for _ in range(4):
            assert written.acquire(timeout=60)
    assert (tmp_path / "a.prom").read_text(encoding="utf-8") == f"# HELP gpuenc_x {len(calls)}\n"
    assert not any(calls)


def test_files_that_cannot_be_written(tmp_path):
    (tmp_path / "foreign.prom").write_text("node_load1 1\n", encoding="utf-8")
    (tmp_path / "folder.prom").mkdir()
    for name, said in (("foreign", "left as it is"), ("folder", "cannot be written"), ("no/x", "cannot be written")):
        with pytest.raises(InvalidOption, match=said):
            metrics_watcher(str(tmp_path / f"{name}.prom")).__enter__()
    assert (tmp_path / "foreign.prom").read_text(encoding="utf-8") == "node_load1 1\n"


def test_a_folder_that_goes_away_does_not_stop_the_job(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "gone").mkdir()
    made.of(made.noise((1, 8, 8), "u2")).write(tmp_path / "in" / "1.dcm")
    with metrics_watcher(str(tmp_path / "gone" / "a.prom")) as metrics:
        (tmp_path / "gone" / "a.prom").unlink()
        (tmp_path / "gone").rmdir()
        summary = run(Job((tmp_path / "in",), tmp_path / "out", target(find("rle"))), metrics)
    assert (summary.files["encoded"], summary.interrupted) == (1, False)


def test_a_job_is_counted(tmp_path):
    (tmp_path / "in").mkdir()
    made.of(made.noise((2, 8, 8), "u2")).write(tmp_path / "in" / "1.dcm")
    (tmp_path / "in" / "2.txt").write_text("nothing", encoding="utf-8")
    with metrics_watcher(str(tmp_path / "a.prom")) as metrics:
        run(Job((tmp_path / "in",), tmp_path / "out", target(find("rle"))), metrics)
    samples, _ = parse((tmp_path / "a.prom").read_text(encoding="utf-8"))
    assert samples["gpuenc_planned_files", ()] == 2
    assert samples["gpuenc_files_total", (("status", "encoded"),)] == 1
    assert samples["gpuenc_files_total", (("status", "skipped"),)] == 1
    assert samples["gpuenc_frames_total", ()] == 2
    assert samples["gpuenc_output_bytes_total", (("status", "encoded"),)] == (tmp_path / "out" / "1.dcm").stat().st_size
