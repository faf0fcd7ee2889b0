"""What the platform's own routes demand."""

from mlops_platform.core.identity import Permission

# Everyone who is let in may look at themselves and renew their own keys.
SELF_READ = Permission("self:read")
KEYS_READ = Permission("keys:read")
KEYS_ADMIN = Permission("keys:admin")
GRANTS_ADMIN = Permission("grants:admin")
PROJECTS_READ = Permission("projects:read")
PROJECTS_ADMIN = Permission("projects:admin")
AUDIT_ADMIN = Permission("audit:admin")
EVENTS_READ = Permission("events:read")
WEBHOOKS_ADMIN = Permission("webhooks:admin")
