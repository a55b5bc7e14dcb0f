"""deploy/compose.yaml: each profile by itself, with nothing set and with values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drills.containers.engine import IMAGE, CommandFailed, Report, ask, docker, last
from drills.containers.images import is_vector

#: Not the project that a person may have running here.
COMPOSE = ("compose", "--project-name", "clipsrv-try", "--file", "deploy/compose.yaml")
SERVER = "http://localhost:5000"
POSTGRES = "pgvector/pgvector:pg17"


def compose(report: Report) -> None:
    print(f"  Compose {last(docker('compose', 'version', '--short'))}", flush=True)
    with up("cpu"):
        report.expect("cpu: serves with nothing set", is_vector(ask(f"{SERVER}/embed", IMAGE), 192))
    with up("cpu", CLIPSRV_API_KEYS="a-key-of-the-drill", CLIPSRV_ALLOWED_HOSTS="clip.example"):
        key, host = {"Authorization": "Bearer a-key-of-the-drill"}, {"Host": "clip.example"}
        report.expect(
            "cpu: with a key set, serves who has it", is_vector(ask(f"{SERVER}/embed", IMAGE, key | host), 192)
        )
        report.expect("cpu: and nobody else", ask(f"{SERVER}/embed", IMAGE, host)[0] == 401)
        other = ask(f"{SERVER}/embed", IMAGE, key | {"Host": "other.example"})[0]
        report.expect("cpu: nor by a name that is not allowed", other == 403, other)
    have_postgres()
    for variables, password in (({}, "catalogue"), ({"POSTGRES_PASSWORD": "of the drill"}, "of the drill")):
        with up("catalogue", **variables):
            said = query("CREATE EXTENSION vector; SELECT '[1,2]'::vector <-> '[1,3]'", password)
            report.expect(f"catalogue: pgvector answers, password {password!r}", last(said) == "1", last(said))
            said = query("SELECT 1", "another")
            report.expect("catalogue: another password is refused", "password authentication failed" in said)
    said = docker(*COMPOSE, "--profile", "gpu", "up", "--detach", check=False)
    docker(*COMPOSE, "--profile", "gpu", "down", "--volumes")
    report.expect("gpu: without one it says so", "nvidia" in said, last(said))


def have_postgres() -> None:
    """Makes the stand-in if the database's image is neither here nor in a registry, and says which it is."""
    if not docker("image", "ls", "--quiet", POSTGRES).strip():
        docker("pull", "--quiet", POSTGRES, check=False)
    if not docker("image", "ls", "--quiet", POSTGRES).strip():
        docker("build", "--tag", POSTGRES, Path(__file__).parent / "postgres")
    digests = docker("image", "inspect", "--format", "{{.RepoDigests}}", POSTGRES)
    print(
        f"  {POSTGRES}: {'from a registry' if '@' in digests else 'a stand-in from the Python package pgserver'}",
        flush=True,
    )


@contextmanager
def up(profile: str, **variables: str) -> Iterator[None]:
    """The profile, started as its first line says, until every health check passes. Nothing of it stays."""
    words = (*COMPOSE, "--profile", profile)
    try:
        docker(*words, "up", "--build", "--detach", "--wait", variables=variables)
        yield
    except CommandFailed as error:
        raise CommandFailed(f"{error}\n{docker(*words, 'logs', check=False)[-3000:]}") from None
    finally:
        docker(*words, "down", "--volumes", "--timeout", "30", variables=variables)


def query(text: str, password: str) -> str:
    """What the database says to a client that comes over the network."""
    words = ("psql", "-h", "127.0.0.1", "-U", "catalogue", "-d", "catalogue", "-At", "-c", text)
    return docker(*COMPOSE, "exec", "-T", "--env", f"PGPASSWORD={password}", "database", *words, check=False).strip()
