"""Files elsewhere, read through Daft: `file://`, which takes the same way, and a small S3 on this machine."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus
from foundling.corpus.inputs import find_inputs
from foundling.corpus.remote import RemoteFile, is_url, list_files
from foundling.corpus.streams import Stream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    (top / "a.txt").write_text("a text\n" * 1000)
    (top / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b one"}\n{"text": "b two"}\n'))
    pq.write_table(pa.table({"text": ["c one", "c two"]}), top / "deep" / "c.parquet")
    return top


def test_what_is_elsewhere() -> None:
    assert is_url("s3://bucket/a")
    assert is_url("hf://datasets/user/name")
    assert not is_url("-")
    assert not is_url("a/b.txt")
    assert not is_url("C:/a.txt")


def test_files_folders_and_globs(folder: Path, tmp_path: Path) -> None:
    url = f"file://{folder}"
    assert [file.name for file in list_files(url)] == ["a.txt", "b.jsonl.gz", "c.parquet"]
    assert [file.name for file in list_files(f"{url}/*.txt")] == ["a.txt"]
    assert list_files(f"{url}/a.txt")[0].num_bytes == 7000
    with pytest.raises(UserError, match="that can be reached"):
        list_files(f"{url}/nothing")
    found = find_inputs([url], None, tmp_path / "out")
    assert [(file.name, file.source) for file in found] == [
        ("top/a.txt", "top"),
        ("top/b.jsonl.gz", "top"),
        ("top/deep/c.parquet", "top"),
    ]


def test_bytes_and_seeking(folder: Path) -> None:
    file = list_files(f"file://{folder}/a.txt")[0]
    assert b"".join(Stream(file)) == (folder / "a.txt").read_bytes()
    with file.open("rb") as opened:
        opened.seek(-3, 2)
        assert opened.read() == b"xt\n"
    with pytest.raises(OSError, match="not"):
        RemoteFile(f"file://{folder}/gone.txt", 1).open("rb")


def test_a_corpus_of_them(folder: Path, tmp_path: Path) -> None:
    config = Config(workers=1, valid_fraction=0, steps=[])
    there = build_corpus([f"file://{folder}"], tmp_path / "there", config)
    here = build_corpus([folder], tmp_path / "here", config)
    assert list(there.documents()) == list(here.documents())


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as reading needs: ListObjectsV2, and GetObject with ranges."""

    top: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = url.path.removeprefix("/bucket").lstrip("/")
        path = self.top / key
        if "list-type" in parse_qs(url.query):
            self._list(parse_qs(url.query))
        elif key and path.is_file():
            self._send(path.read_bytes())
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys = sorted(path.relative_to(self.top).as_posix() for path in self.top.rglob("*") if path.is_file())
        contents, below = [], set()
        for key in keys:
            if key.startswith(prefix):
                rest = key.removeprefix(prefix)
                if delimiter and delimiter in rest:
                    below.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    size = (self.top / key).stat().st_size
                    contents.append(f"<Contents><Key>{key}</Key><Size>{size}</Size></Contents>")
        folders = "".join(f"<CommonPrefixes><Prefix>{p}</Prefix></CommonPrefixes>" for p in sorted(below))
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(contents)}{folders}</ListBucketResult>"
        self._answer(200, body.encode(), "application/xml")

    def _send(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if not asked:
            self._answer(200, data)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = (
            (int(first), min(int(last or len(data)), len(data) - 1))
            if first
            else (len(data) - int(last), len(data) - 1)
        )
        self._answer(206, data[start : end + 1], content_range=f"bytes {start}-{end}/{len(data)}")

    def _answer(self, status: int, body: bytes, kind: str = "binary/octet-stream", content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"0"')
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def bucket(folder: Path) -> Iterator[None]:
    import daft
    from daft.io import IOConfig, S3Config

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bucket", (_Bucket,), {"top": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    config = IOConfig(
        s3=S3Config(endpoint_url=endpoint, region_name="us-east-1", key_id="k", access_key="s", num_tries=1)
    )
    daft.set_planning_config(default_io_config=config)
    yield
    daft.set_planning_config(default_io_config=IOConfig())
    server.shutdown()


def test_s3(bucket: None, folder: Path, tmp_path: Path) -> None:
    files = list_files("s3://bucket/")
    assert (files[0].url, files[0].num_bytes) == ("s3://bucket/a.txt", 7000)
    assert [file.name for file in files] == ["a.txt", "b.jsonl.gz", "c.parquet"]
    corpus = build_corpus(["s3://bucket/"], tmp_path / "out", Config(workers=1, valid_fraction=0, steps=[]))
    assert sorted(d.text for d in corpus.documents())[1:] == ["b one", "b two", "c one", "c two"]
