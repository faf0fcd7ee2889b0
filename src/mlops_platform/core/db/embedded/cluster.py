"""The data directory: made whole or not at all, with its roles and its database."""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from mlops_platform.core.crypto.secrets_file import sync_directory
from mlops_platform.core.db.embedded.address import APP_ROLE, DATABASE, OWNER_ROLE
from mlops_platform.core.db.embedded.binaries import MAJOR_VERSION
from mlops_platform.core.db.embedded.places import Places
from mlops_platform.core.db.embedded.process import kill_leftovers, run
from mlops_platform.core.errors import ConfigurationError

SUPERUSER = "postgres"
_DRAFT = "initdb-"

# Each statement ends with an empty line: that is how `postgres --single -j` tells them apart. All can be run again.
_ROLES = """\
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{owner}') THEN CREATE ROLE {owner}; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{app}') THEN CREATE ROLE {app}; END IF;
END $$;

ALTER ROLE {superuser} PASSWORD '{superuser_password}';

ALTER ROLE {owner} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{owner_password}';

ALTER ROLE {app} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{app_password}';

"""
# template1 first: every database made later takes its schema rights over. CONNECT is granted by name only.
_DATABASE = """\
REVOKE ALL ON SCHEMA public FROM PUBLIC;

REVOKE ALL ON DATABASE template1 FROM PUBLIC;

REVOKE ALL ON DATABASE postgres FROM PUBLIC;

CREATE DATABASE {database} OWNER {owner};

REVOKE ALL ON DATABASE {database} FROM PUBLIC;

GRANT CONNECT ON DATABASE {database} TO {app};

"""

_CONFIGURATION = """\
# Written at every start of the platform: changes made here are lost.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
port = {port}
hba_file = '{access}'
external_pid_file = ''
password_encryption = scram-sha-256
allow_alter_system = off
max_connections = {max_connections}
superuser_reserved_connections = 3
timezone = 'UTC'
log_timezone = 'UTC'
# Durable: a commit that was answered is on the disk.
fsync = {fsync}
full_page_writes = {fsync}
synchronous_commit = on
# One machine, nobody replicates from it.
wal_level = minimal
max_wal_senders = 0
max_wal_size = 512MB
min_wal_size = 64MB
max_logical_replication_workers = 0
# Small when idle: no workers for input and output, few for cleaning, none compiled code.
shared_buffers = 64MB
work_mem = 8MB
maintenance_work_mem = 64MB
io_method = sync
jit = off
autovacuum_max_workers = 2
max_worker_processes = 4
max_parallel_workers = 2
max_parallel_workers_per_gather = 1
# Errors of statements are answered to the client. The log keeps none, for they quote user data (LOG ranks above ERROR).
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_checkpoints = off
log_connections = ''
log_line_prefix = '%m [%p] '
"""

_ACCESS = """\
# Written at every start of the platform: changes made here are lost.
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""


def check_version(data: Path) -> None:
    """Refuse data of another major version: PostgreSQL reads only its own."""
    try:
        version = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        version = "?"
    if version != MAJOR_VERSION:
        raise ConfigurationError(
            f"The database in {data} was made by PostgreSQL {version}, and this platform brings {MAJOR_VERSION}. "
            f"Dump it with pg_dump {version} and restore it into a new MLOPS_HOME, or use the platform that made it."
        )


def create(places: Places, programs: Path, passwords: Mapping[str, str], *, sync: bool) -> None:
    """Make the data directory under another name and rename it when it is whole: a crash leaves only a draft."""
    draft = places.root / f"{_DRAFT}{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    places.account.own(draft)
    try:
        data = draft / "data"
        password_file = draft / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(passwords[SUPERUSER], encoding="ascii")
        places.account.own(password_file)
        run(_initdb(programs, data, password_file), places.account, cwd=draft)
        password_file.unlink()
        single(places, programs, data, _statements(_ROLES + _DATABASE, passwords), sync=False)
        if sync:  # once at the end, not after each of the thousand files
            run([str(programs / "bin/initdb"), "--sync-only", "-D", str(data)], places.account, cwd=draft)
        data.rename(places.data)
        if sync:
            for folder in (places.root, places.root.parent, places.home, places.home.parent):
                sync_directory(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def set_passwords(places: Places, programs: Path, passwords: Mapping[str, str]) -> None:
    """Give the roles of an existing cluster the passwords in the secret files, for a home whose files were lost."""
    single(places, programs, places.data, _statements(_ROLES, passwords), sync=True)


def single(places: Places, programs: Path, data: Path, statements: str, *, sync: bool) -> None:
    """Run statements as the superuser in a process without any socket, so that no password is needed or sent."""
    options = [] if sync else ["-F"]
    command = [str(programs / "bin/postgres"), "--single", "-j", *options, "-D", str(data), "-c", "exit_on_error=on"]
    run([*command, "-c", "log_checkpoints=off", "template1"], places.account, cwd=data, text=statements)


def sweep_drafts(places: Places) -> None:
    """Remove what a start that was killed during initdb left."""
    for draft in places.root.glob(f"{_DRAFT}*"):
        kill_leftovers(draft)
        shutil.rmtree(draft)


def configure(places: Places, socket_dir: Path, *, port: int, max_connections: int, fsync: bool) -> None:
    """Write the server's configuration anew, so that an upgraded platform brings its own."""
    configuration = _CONFIGURATION.format(
        socket_dir=_quoted(socket_dir),
        access=_quoted(places.access),
        port=port,
        max_connections=max_connections,
        fsync="on" if fsync else "off",
    )
    for path, content in ((places.config, configuration), (places.access, _ACCESS)):
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644 if places.account.switch else 0o600)  # root's file: the server reads, never writes it


def _initdb(programs: Path, data: Path, password_file: Path) -> list[str]:
    return [
        str(programs / "bin/initdb"),
        *("-D", str(data), "--username", SUPERUSER, "--pwfile", str(password_file)),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--data-checksums"),
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        *("--no-sync", "--no-instructions"),
    ]


def _statements(template: str, passwords: Mapping[str, str]) -> str:
    # The passwords are our own hexadecimal digits: nothing in them needs quoting.
    if not all(password.isalnum() and password.isascii() for password in passwords.values()):
        raise ConfigurationError("The generated database passwords hold other characters than letters and digits.")
    return template.format(
        owner=OWNER_ROLE,
        app=APP_ROLE,
        superuser=SUPERUSER,
        database=DATABASE,
        superuser_password=passwords[SUPERUSER],
        owner_password=passwords[OWNER_ROLE],
        app_password=passwords[APP_ROLE],
    )


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("'", "''")
