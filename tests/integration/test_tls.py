"""A store reached over https, at a server whose certificate authority only AWS_CA_BUNDLE knows."""

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.errors import StoreError
from netsim.storage.s3 import S3_CLIENT
from netsim.store.run import Run
from support.seaweed import BUCKET
from support.sweeps import new_run, tiny


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
def certificate(object_storage, monkeypatch, tmp_path) -> Iterator[Path]:
    """Puts TLS before the S3 server; gives the certificate, which is its own authority."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=netsim -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, there = await asyncio.open_connection("127.0.0.1", object_storage.ports[0])
        await asyncio.gather(copy(reader, there), copy(answers, writer))

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a client that does not trust it hangs up in the middle
    threading.Thread(target=loop.run_forever, daemon=True).start()
    listening = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = asyncio.run_coroutine_threadsafe(listening, loop).result().sockets[0].getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
    yield tmp_path / "cert.pem"
    loop.call_soon_threadsafe(loop.stop)


def test_a_store_over_https_is_written_and_read_with_the_authority_of_aws_ca_bundle(certificate, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    run = new_run(f"s3://{BUCKET}/over-https", tiny())
    assert Run.open(run.url).digest == run.digest


def test_a_certificate_of_an_unknown_authority_is_one_clear_error(certificate, monkeypatch):
    monkeypatch.setitem(S3_CLIENT, "retries", {"max_attempts": 1})  # ten take a minute
    with pytest.raises(
        StoreError, match=r"s3://netsim-tests/over-https: .*certificate verify failed.*; set AWS_CA_BUNDLE"
    ) as refused:
        Run.open(f"s3://{BUCKET}/over-https")
    assert "\n" not in str(refused.value)


def test_certificates_that_are_not_there_are_said_at_once(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(StoreError, match=r"AWS_CA_BUNDLE must name a file .*, got missing /nowhere/ca.pem"):
        Run.open(f"s3://{BUCKET}/over-https")
