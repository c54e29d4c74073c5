"""TLS certificates of a Dask cluster: a folder with ca.pem, cert.pem and key.pem for scheduler, workers and sweeps.

Anyone who can connect to a Dask scheduler can run any code on it, and so can anyone who holds the key. All parties
share one certificate, since each of them can control the others anyway. The key of the authority is discarded: no
certificate can be added later, and another cluster needs another folder.
"""

import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from netsim.errors import SettingsError

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
ROLES = ("client", "scheduler", "worker")

CLOCK_SKEW = timedelta(hours=1)
"""Certificates are valid from this long ago, so that machines whose clocks differ accept them."""


def make_certificates(folder: str | Path, *, days: int) -> datetime:
    """Create an authority and a certificate valid for `days`, readable by their owner only.

    Returns the expiry date. Raises SettingsError if `folder` is not empty or can't be written.
    """
    folder = Path(folder).absolute()
    now = datetime.now(UTC).replace(microsecond=0)
    since, until = now - CLOCK_SKEW, now + timedelta(days=days)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name, authority_name = _name("netsim Dask cluster"), _name("netsim Dask authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), since, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(name, authority_name, key.public_key(), since, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    contents = {AUTHORITY: authority.public_bytes(pem), CERTIFICATE: certificate.public_bytes(pem), KEY: private}
    try:
        _write_folder(folder, contents)
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise SettingsError(f"{folder} must be a new or empty folder: certificates are never overwritten") from None
        raise SettingsError(f"cannot write certificates to {folder}: {error.strerror}") from None
    return until


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files or none, readable by their owner only. Raises OSError if `folder` is not empty."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir(mode=0o700)
        for name, content in contents.items():
            descriptor = os.open(new / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        new.rename(folder)


def read_certificates(folder: str | Path) -> Security:
    """Return the certificates for Dask. Raises SettingsError if files are missing, invalid, mismatched or expired."""
    folder = Path(folder).absolute()  # jobs start in other folders
    missing = [name for name in (AUTHORITY, CERTIFICATE, KEY) if not (folder / name).is_file()]
    if missing:
        raise SettingsError(
            f"tls: {folder} must have {' and '.join(missing)}. Create them with `netsim certificates FOLDER`"
        )
    try:
        for name in (AUTHORITY, CERTIFICATE):
            _require_valid_now(folder / name)
        security = Security(
            require_encryption=True,
            tls_ca_file=str(folder / AUTHORITY),
            **{f"tls_{role}_cert": str(folder / CERTIFICATE) for role in ROLES},
            **{f"tls_{role}_key": str(folder / KEY) for role in ROLES},
        )
        security.get_connection_args("client")  # loads them, so that a key of another certificate is an error
    except ssl.SSLError as error:
        raise SettingsError(f"tls: cannot use the certificates in {folder}: {error.reason or error}") from None
    except OSError as error:
        raise SettingsError(f"tls: cannot read {error.filename or folder}: {error.strerror or error}") from None
    return security


def _require_valid_now(path: Path) -> None:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise SettingsError(f"tls: {path} must be a PEM certificate") from None
    now = datetime.now(UTC)
    for certificate in certificates:
        since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not since <= now <= until:
            raise SettingsError(
                f"tls: {path} is valid from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC only. Create new "
                "certificates with `netsim certificates NEW_FOLDER` and restart the scheduler and its workers with them"
            )
