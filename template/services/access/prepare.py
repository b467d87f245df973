# /// script
# requires-python = ">=3.11"
# dependencies = ["certifi", "cryptography>=45", "pyjwt>=2.10"]
# ///
"""Make what services/access.yaml needs: `uv run services/access/prepare.py`, in the project's root folder.

Secrets go to `.env`, each key that is missing there. Certificates, hashed passwords and tokens go to
`.cascade/access`, which git ignores. Run it again to add people (`ACCESS_PEOPLE` in `.env`), to change the
host's name (`ACCESS_HOST`), and before a year has passed: certificates of servers and tokens are made anew,
the authority stays. Then restart.
"""

import base64
import datetime as dt
import hashlib
import ipaddress
import os
import re
import secrets
import sys
from pathlib import Path

import certifi
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

NOW = dt.datetime.now(dt.UTC)
YEAR = dt.timedelta(days=365)
SOON = dt.timedelta(days=30)
# Which roles of services/access/nessie.properties a token has. The pipeline promotes its runs by itself: to
# leave that to people, take `promoter` away from it.
ROLES = {"pipeline": ["pipeline", "promoter"], "operator": ["operator"], "analyst": ["analyst"]}
# Keys of `.env`. Of those without a value one is generated.
KEYS = {
    "ACCESS_HOST": "localhost",
    "ACCESS_OPERATOR_PASSWORD": None,
    "ACCESS_ANALYST_PASSWORD": None,
    "ACCESS_BI_PASSWORD": None,
    "ACCESS_TRINO_SECRET": None,
    "ACCESS_S3_ROOT_KEY": None,
    "ACCESS_S3_ROOT_SECRET": None,
    "ACCESS_S3_READER_KEY": None,
    "ACCESS_S3_READER_SECRET": None,
    "CASCADE_TRINO__PASSWORD": None,
    "CASCADE_TRINO__URL": "https://127.0.0.1:${TRINO_PORT}",
    "CASCADE_NESSIE__URL": "https://127.0.0.1:${NESSIE_PORT}/api/v2",
    "CASCADE_CA_FILE": ".cascade/access/authorities.pem",
}


def main() -> None:
    """Make it all, in the folder where it is started."""
    env = Path(".env")
    if not env.is_file():
        sys.exit(
            "There is no .env here. Go to the project's root folder, and first: uv run cascade services env"
        )
    values = dict(re.findall(r"^(\w+)=(.*)$", env.read_text("utf-8"), re.MULTILINE))
    added = {
        key: value or secrets.token_hex(24)
        for key, value in KEYS.items()
        # The addresses that `cascade services env` wrote are of servers without TLS: below them, ours win.
        if key not in values or (key.endswith("__URL") and values[key].startswith("http:"))
    }
    values |= added
    folder = Path(".cascade/access")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # the files in it are mounted one by one, and read by the users of containers
    (folder / "trino-passwords").write_text(_trino_passwords(values))
    _certificates(folder, values["ACCESS_HOST"])
    # Whom runs trust: ours, the public ones, and that of an S3 or PostgreSQL of your own.
    trusted = [str(folder / "ca.pem"), certifi.where(), *filter(None, [values.get("ACCESS_AUTHORITY")])]
    (folder / "authorities.pem").write_text("".join(Path(file).read_text("utf-8") for file in trusted))
    if issuer := values.get("ACCESS_OIDC_ISSUER"):
        properties = {"auth-server-url": issuer, "client-id": values.get("ACCESS_OIDC_CLIENT", "nessie")}
    else:
        tokens, key = _tokens(folder)
        properties = {"public-key": key}
        mine = {"CASCADE_NESSIE__TOKEN": tokens["pipeline"], "ACCESS_NESSIE_READER_TOKEN": tokens["analyst"]}
        added |= {name: token for name, token in mine.items() if _ends_soon(values.get(name, ""))}
    (folder / "nessie.properties").write_text(
        "".join(f"quarkus.oidc.{k}={v}\n" for k, v in properties.items())
    )
    if added:
        lines = ["", "# For services/access.yaml: made by services/access/prepare.py."]
        with os.fdopen(os.open(env, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
            file.write("\n".join([*lines, *(f"{key}={value}" for key, value in added.items()), ""]))
    print(f"{folder} is made; added to .env: {', '.join(added) or 'nothing'}")


def _trino_passwords(values: dict[str, str]) -> str:
    """Return Trino's password file: the four of `.env`, and `ACCESS_PEOPLE`: `name=password`, by spaces."""
    people = {name: values[f"ACCESS_{name.upper()}_PASSWORD"] for name in ("analyst", "bi", "operator")}
    people["cascade"] = values["CASCADE_TRINO__PASSWORD"]
    people |= dict(one.split("=", 1) for one in values.get("ACCESS_PEOPLE", "").strip("'\"").split())
    lines = []
    for name, password in people.items():
        salt = secrets.token_bytes(16)
        hashed = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, 100_000)  # what Trino reads
        lines.append(f"{name}:100000:{salt.hex()}:{hashed.hex()}\n")
    return "".join(lines)


def _certificates(folder: Path, host: str) -> None:
    """Make the authority, once, and the servers' certificate."""
    if not (folder / "ca.pem").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Cascade of {host}")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = _builder(name, name, key, 10 * YEAR).add_extension(
            x509.BasicConstraints(True, 1), critical=True
        )
        made = made.add_extension(usage, critical=True)
        (folder / "ca.key").write_bytes(_pem(key))
        (folder / "ca.pem").write_bytes(
            made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = dict.fromkeys(["localhost", "postgres", "trino", host])
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    alternatives = x509.SubjectAlternativeName([*map(x509.DNSName, names), *addresses])
    made = _builder(subject, authority.subject, key, YEAR).add_extension(alternatives, critical=False)
    made = made.add_extension(x509.BasicConstraints(False, None), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    certificate = made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "server.crt").write_bytes(certificate)
    (folder / "server.key").write_bytes(_pem(key))
    (folder / "server.pem").write_bytes(_pem(key) + certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(hours=1))
        .not_valid_after(NOW + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _tokens(folder: Path) -> tuple[dict[str, str], str]:
    """Return a token of Nessie for each role, and the key that proves them."""
    place = folder / "tokens.key"
    if not place.exists():
        place.write_bytes(_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        place.chmod(0o600)
    key = serialization.load_pem_private_key(place.read_bytes(), None)
    tokens = {}
    for name, roles in ROLES.items():
        claims = {"iss": "cascade", "sub": name, "upn": name, "groups": roles, "iat": NOW, "exp": NOW + YEAR}
        tokens[name] = jwt.encode(claims, place.read_bytes(), "RS256")
        (folder / f"{name}.jwt").write_text(tokens[name])
        (folder / f"{name}.jwt").chmod(0o600)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return tokens, base64.b64encode(public).decode()


def _ends_soon(token: str) -> bool:
    if not token:
        return True
    claims = jwt.decode(token, options={"verify_signature": False})
    return claims.get("exp", 0) < (NOW + SOON).timestamp()


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


if __name__ == "__main__":
    main()
