"""Where the embedded server listens, and as whom to connect."""

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

DATABASE = "mlops"
OWNER_ROLE = "mlops_owner"
APP_ROLE = "mlops_app"


@dataclass(frozen=True, slots=True)
class EmbeddedAddress:
    """A unix socket and the passwords of the two roles. Passwords are kept out of `repr`."""

    socket_dir: Path
    port: int
    owner_password: str = field(repr=False)
    app_password: str = field(repr=False)

    def app_dsn(self, database: str = DATABASE) -> str:
        """For the services: reads and writes what migrations granted, changes no schema."""
        return self.dsn(APP_ROLE, self.app_password, database=database)

    def owner_dsn(self, database: str = DATABASE) -> str:
        """For migrations: owns the database, and is no superuser."""
        return self.dsn(OWNER_ROLE, self.owner_password, database=database)

    def dsn(self, role: str, password: str, *, database: str) -> str:
        """A URL that asyncpg, libpq and SQLAlchemy (after its driver is put in the scheme) all read alike."""
        where = urlencode({"host": str(self.socket_dir), "port": self.port}, quote_via=quote)
        return f"postgresql://{role}:{quote(password, safe='')}@/{quote(database, safe='')}?{where}"
