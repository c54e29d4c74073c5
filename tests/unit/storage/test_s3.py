"""S3: the options of its clients, its times, and its errors as netsim's own."""

import errno
import os
import subprocess
import sys

import pytest
from botocore import exceptions
from botocore.utils import parse_timestamp
from s3fs.errors import translate_boto_error

from netsim.errors import StoreError, UnreachableError
from netsim.storage.s3 import (
    BUCKET as BUCKET_NAME,
)
from netsim.storage.s3 import (
    S3_CLIENT,
    aws_environment,
    is_missing,
    parse_time,
    require_certificates,
    storage_options,
    translate_errors,
)
from support.seaweed import BUCKET, KEYS

URL = "s3://bucket/run"


@pytest.mark.parametrize("text", ["2026-11-25T01:04:23.123Z", "2026-11-25T01:04:23Z", "Wed, 25 Nov 2026 01:04:23 GMT"])
def test_times_are_parsed_as_botocore_parses_them(text):
    assert parse_time(text) == parse_timestamp(text)


@pytest.mark.parametrize("name", ["bucket", "my.bucket-1", "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"])
def test_names_of_buckets_and_access_points_are_valid(name):
    assert BUCKET_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "my bucket", "buck*t", "b" * 256])
def test_names_that_s3_cannot_have_are_invalid(name):
    assert not BUCKET_NAME.fullmatch(name)


def test_only_s3_gets_a_client_configuration():
    assert storage_options("/a/path") == {}
    assert storage_options("memory://x") == {"use_listings_cache": False}
    options = storage_options(URL)
    assert options["config_kwargs"] == S3_CLIENT and options["max_concurrency"] == 1
    options["config_kwargs"]["retries"]["max_attempts"] = 1
    assert S3_CLIENT["retries"] == {"mode": "adaptive", "max_attempts": 10}


def test_one_session_serves_as_long_as_credentials_stay_the_same(monkeypatch):
    session = storage_options(URL)["session"]
    assert storage_options("s3://other/run")["session"] is session
    monkeypatch.setenv("AWS_PROFILE", "another")
    assert storage_options(URL)["session"] is not session
    assert ("AWS_PROFILE", "another") in aws_environment()


def test_a_missing_file_of_certificates_is_an_error_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(
        StoreError, match=rf"^AWS_CA_BUNDLE must name a file .* for {URL}, got missing {tmp_path}/ca.pem$"
    ):
        require_certificates(URL)
    require_certificates("/a/path")
    (tmp_path / "ca.pem").write_text("certificates")
    require_certificates(URL)


def server_error() -> OSError:
    return OSError(errno.EIO, "Internal Server Error")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError("x"), StoreError, rf"^{URL}: not found \(x\)$"),
        (
            PermissionError("Forbidden"),
            StoreError,
            rf"^no permission to read or write {URL} \(Forbidden\); use another --store$",
        ),
        (
            ConnectionResetError("reset"),
            UnreachableError,
            rf"^{URL} does not answer \(reset\); run the command again to resume$",
        ),
        (TimeoutError("slow"), UnreachableError, "does not answer"),
        (exceptions.EndpointConnectionError(endpoint_url="x"), UnreachableError, "does not answer"),
        (exceptions.ReadTimeoutError(endpoint_url="x"), UnreachableError, "does not answer"),
        (exceptions.ConnectTimeoutError(endpoint_url="x"), StoreError, "Connect timeout"),
        (
            exceptions.SSLError(endpoint_url="x", error="y"),
            StoreError,
            "set AWS_CA_BUNDLE to a file of the certificates",
        ),
        (exceptions.NoCredentialsError(), StoreError, "Unable to locate credentials; set AWS_ACCESS_KEY_ID and"),
        (exceptions.ProfileNotFound(profile="p"), StoreError, r"\(p\) could not be found; set AWS_ACCESS_KEY_ID and"),
        (server_error(), UnreachableError, rf"^server error from {URL} \(.*\); run the command again to resume$"),
        (
            OSError(errno.ENOSPC, "full"),
            StoreError,
            rf"^no space left for {URL} \(full\); free some and run the command again",
        ),
        (OSError(errno.EROFS, "ro"), StoreError, "is on a read-only file system; use another --store$"),
        (OSError(errno.EINVAL, "odd"), StoreError, rf"^{URL}: .*odd$"),
    ],
)
def test_an_error_of_storage_says_what_happened_and_the_way_out(error, kind, message):
    with pytest.raises(StoreError, match=message) as caught, translate_errors(URL):
        raise error
    assert type(caught.value) is kind and caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("code", "status", "kind", "message"),
    [
        ("ExpiredToken", 400, StoreError, f"^the credentials for {URL} have expired; renew them"),
        ("RequestTimeTooSkewed", 403, StoreError, "clock of this machine must agree .*timedatectl set-ntp true"),
        ("InvalidAccessKeyId", 403, StoreError, "does not know these credentials .*; correct AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, StoreError, "no permission .*; correct AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", 403, StoreError, "no permission .* use other credentials, or use another --store$"),
        ("403", 403, StoreError, "no permission to read or write"),
        ("NoSuchBucket", 404, StoreError, f"^{URL}: there is no such bucket; create it, or use another --store$"),
        ("AuthorizationHeaderMalformed", 400, StoreError, "in another region .*; set AWS_REGION"),
        ("PermanentRedirect", 301, StoreError, "in another region .*; set AWS_REGION, or AWS_ENDPOINT_URL$"),
        ("XMinioStorageFull", 507, StoreError, f"^no space left for {URL} .*; free some and run the command again"),
        ("NotImplemented", 501, StoreError, "the checksums .*; set AWS_REQUEST_CHECKSUM_CALCULATION=when_required$"),
        ("InvalidArgument", 400, StoreError, f"^{URL}: the server refuses the request .InvalidArgument: some"),
        ("SlowDown", 503, UnreachableError, f"^server error from {URL} .SlowDown: .*run the command again to resume$"),
        ("InternalError", 500, UnreachableError, "^server error from"),
        ("TooManyRequests", 429, UnreachableError, "^server error from"),
        ("OperationAborted", 409, UnreachableError, "^server error from"),
        ("NeverHeardOf", 400, StoreError, "the server refuses the request .NeverHeardOf: "),
    ],
)
def test_an_answer_of_s3_says_what_to_do(code, status, kind, message):
    """As s3fs raises it, and as botocore does."""
    text = "not implemented" if code == "NotImplemented" else "some words"
    answer = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    bare = exceptions.ClientError(answer, "PutObject")
    for error in (bare, translate_boto_error(bare)):
        with pytest.raises(StoreError, match=message) as caught, translate_errors(URL, missing_ok=True):
            raise error
        assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_missing_object_may_pass_but_a_missing_bucket_may_not():
    for code, passes in (("NoSuchKey", True), ("404", True), ("NoSuchBucket", False)):
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        error = translate_boto_error(exceptions.ClientError(answer, "GetObject"))
        assert is_missing(error) is passes
        with pytest.raises(FileNotFoundError if passes else StoreError), translate_errors(URL, missing_ok=True):
            raise error


def test_a_broken_disk_is_not_a_server_that_may_answer_later():
    with pytest.raises(StoreError) as caught, translate_errors("/a/path"):
        raise server_error()
    assert type(caught.value) is StoreError


def test_a_missing_file_may_pass():
    with pytest.raises(FileNotFoundError), translate_errors(URL, missing_ok=True):
        raise FileNotFoundError("x")


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), StoreError("already one")])
def test_an_error_that_storage_did_not_cause_passes_unchanged(error):
    with pytest.raises(type(error)) as caught, translate_errors(URL):
        raise error
    assert caught.value is error and error.__cause__ is None


@pytest.mark.parametrize("wrong", ["none", "secret"])
def test_missing_or_wrong_credentials_are_an_error_that_does_not_repeat_them(object_storage, wrong, tmp_path):
    """Run in a separate process, because botocore looks for credentials once."""
    secret = "not-the-secret-of-the-server"
    env = {key: value for key, value in os.environ.items() if key not in KEYS} | {"HOME": str(tmp_path)}
    if wrong == "secret":
        env |= KEYS | {"AWS_SECRET_ACCESS_KEY": secret}
    code = f"from flows.cli.main import main; import sys; sys.argv = ['netsim', 'status', 's3://{BUCKET}/x']; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    expected = {
        "none": "Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or",
        "secret": "no permission to read or write ",
    }
    assert expected[wrong] in done.stderr and len(done.stderr.splitlines()) == 1
    assert secret not in done.stderr
