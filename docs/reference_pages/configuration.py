"""The three configuration files. The readers in compose and pilot decide; a test compares the keys."""

# ruff: noqa: E501 - the page's text has lines of its own length
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from consumers.domain.shares import Policy
from consumers.settings import LeaseSettings, ProxySettings

from . import docstrings
from .markdown import generated, table

NEEDED = "needed"

Keys = Mapping[tuple[str, str], tuple[str, str]]

_BROKER: Keys = {
    ("broker", "host"): (NEEDED, "Where RabbitMQ listens (AMQP over TLS)."),
    ("broker", "port"): (NEEDED, "Its port."),
    ("broker", "ca_file"): (NEEDED, "Authority of its TLS certificate, PEM."),
    ("broker", "server_name"): ("the host", "Name that its certificate must carry."),
    ("broker", "virtual_host"): ("`/`", "Virtual host."),
}
_DEPLOYMENT: Keys = {
    ("broker", "name"): (NEEDED, "The deployment's name: the audience of logins."),
    ("broker", "gatekeeper"): (NEEDED, "DN of the gatekeeper, the one service that is known beforehand."),
}

CLIENT: Keys = {
    **_BROKER,
    **_DEPLOYMENT,
    ("trust", "ca_dir"): (
        "`$X509_CERT_DIR`, `/etc/grid-security/certificates`",
        "Trust directory in grid layout; for logging in it goes before the variable.",
    ),
    ("trust", "voms_dir"): ("`$X509_VOMS_DIR`, `/etc/grid-security/vomsdir`", "LSC files of the VOMS servers."),
    ("user", "cert"): ("`$X509_USER_CERT`, `~/.globus/usercert.pem`", "Your certificate, for `proxy init`."),
    ("user", "key"): ("`$X509_USER_KEY`, `~/.globus/userkey.pem`", "The private key to it."),
    ("user", "proxy"): ("`$X509_USER_PROXY`, `/tmp/x509up_u<uid>`", "Your proxy."),
    ("user", "group"): ("your first group", "Group to act for; `$PILOTAGE_GROUP` goes before it."),
    ("myproxy", "host"): ("none", "MyProxy server for `proxy init --renewable`; needed if the section is there."),
    ("myproxy", "port"): ("`7512`", "Its port."),
    ("myproxy", "renewer"): ("none", "DN of the service that may renew, as the MyProxy server writes it."),
    ("myproxy", "server"): ("the host's name in its certificate", "DN that the MyProxy server must have."),
}

SERVER: Keys = {
    ("deployment", "name"): (NEEDED, "Name of the deployment: the audience of logins."),
    **_BROKER,
    ("store", "url"): (NEEDED, "SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`, without a password in it."),
    ("store", "password_file"): ("none", "File with the database password."),
    ("trust", "ca_dir"): (NEEDED, "Trust directory in grid layout."),
    ("trust", "voms_dir"): ("none", "LSC files of the VOMS servers."),
    ("registry", "file"): (NEEDED, "Users, groups, services, sites: seeds the registry at each start."),
    ("registry", "sources"): ("none", "The VO's own lists of members: `[[registry.sources]]`, see below."),
    ("registry", "cycle"): ("`300`", "Seconds between two looks at the sources."),
    ("registry", "on_removed"): (
        "`kill`",
        "Jobs of who is removed or leaves a group: `kill`, `hold` (running ones end, waiting ones wait for him) or `finish` (running ones go on).",
    ),
    ("registry", "on_suspended"): ("`hold`", "Jobs of who is suspended; whatever it says, nothing of his is matched."),
    ("services", "credentials"): (NEEDED, "Folder with `<service>.pem` (chain and key) and `<service>.secret`."),
    ("services", "master_keys"): (NEEDED, "Files with Fernet keys, newest first, for what is encrypted at rest."),
    ("myproxy", "host"): ("none", "MyProxy server that stored proxies are renewed from; without it none are."),
    ("myproxy", "port"): ("`7512`", "Its port."),
    ("myproxy", "credential"): (NEEDED, "The authorized renewer: host certificate and key in one file, mode 0600."),
    ("myproxy", "server"): ("the host's name in its certificate", "DN that the MyProxy server must have."),
    ("voms", "vomses"): ("none", "File or folder of VOMS servers; without it proxies get no attributes."),
    ("pilots", "authority"): (
        "none",
        "Certificate and key of the authority for enrolled pilots; without it none enrol.",
    ),
    ("gatekeeper", "host"): ("`127.0.0.1`", "Loopback address where RabbitMQ asks."),
    ("gatekeeper", "port"): (NEEDED, "And the port."),
    ("gatekeeper", "cert_file"): (NEEDED, "Certificate that it shows to RabbitMQ, which checks it (`ssl_options`)."),
    ("gatekeeper", "key_file"): (NEEDED, "And its key."),
    ("gatekeeper", "management_port"): (
        NEEDED,
        "RabbitMQ's management interface on the same address, by HTTPS: where connections are closed.",
    ),
}

PILOT: Keys = {
    **_BROKER,
    **_DEPLOYMENT,
    ("trust", "ca_dir"): (NEEDED, "Trust directory in grid layout."),
    ("trust", "voms_dir"): ("none", "LSC files of the VOMS servers."),
    ("pilot", "enrolment"): (
        NEEDED,
        "Where its one-time secret comes from: a file of mode 0600, `-` for standard input, `env` for `$PILOTAGE_ENROLMENT`.",
    ),
    ("pilot", "credential"): ("none", "In place of an enrolment: the pilot's own certificate and key, mode 0600."),
    ("pilot", "site"): (NEEDED, "Where it runs."),
    ("pilot", "work_dir"): (NEEDED, "Work area; each payload gets a fresh directory in it."),
    ("pilot", "ce"): ("none", "Computing element."),
    ("pilot", "slots"): ("what the node has", "Processors to offer."),
    ("pilot", "memory_mb"): ("what the node has", "Memory to offer, MB."),
    ("pilot", "wall_seconds"): ("no end", "What is left of the batch slot."),
    ("pilot", "cpu_power"): ("`10.0`", "Normalised power of one processor (HS06)."),
    ("pilot", "idle_seconds"): ("`600.0`", "Ends after so long without work; 0: never."),
    ("pilot", "heartbeat_seconds"): ("`30.0`", "How often it says that it lives."),
    ("pilot", "platforms"): ("what the node is", "Platform names that run here, best first."),
    ("pilot", "tags"): ("none", "What the node has besides."),
    ("pilot", "required_tags"): ("none", "Takes only jobs that carry all of these."),
    ("pilot", "group"): ("the first one", "With a credential: the group to act for."),
    ("pilot", "pool"): ("none", "Takes only jobs that name this pool; without one, only jobs that name none."),
    ("pilot", "job_types"): ("all", "Takes only jobs of these types."),
    ("pilot", "groups"): ("all", "Takes only jobs of these groups."),
    ("pilot", "owners"): ("all", "Takes only jobs of these owners (DNs). A private pilot has its own only, always."),
    ("pilot", "gpus"): (
        "what the node has",
        "GPUs to offer: a list of tables with `device` (index or UUID), `model` and `memory_mb`; `[]` for none.",
    ),
    ("stores", "<SE>"): ("none", "Folder of that storage element on this node."),
}

SOURCE: Mapping[str, tuple[str, str]] = {
    "name": (NEEDED, "By which it is known: its entries come from `sync:<name>`."),
    "kind": (NEEDED, "`voms-database` or `iam-scim`."),
    "url": (
        NEEDED,
        "`mysql+pymysql://user@host/database` (needs `pip install pilotage[voms]`), or `https://host` of IAM.",
    ),
    "password_file": ("none", "Password of the database's account, mode 0600."),
    "token_file": (NEEDED, "IAM's bearer token with the scope `scim:read`, mode 0600; read anew each time."),
    "ca_file": (
        "the system's",
        "Authorities that its server's certificate may come from; a database on this machine needs none.",
    ),
    "groups": (
        "all without power",
        "Groups of ours that it feeds, by their FQAN. Groups with `Operator`, `JobAdministrator`, `GenericPilot` or `DataManager` only if they are named here.",
    ),
    "max_loss": (
        "`0.2`",
        "Share of its users or memberships that it may take away at once; more is refused until an operator says `--force`.",
    ),
}

_TEXT = """\
# Configuration

{generated}

TOML. Relative paths start at the file's own folder. `pilotage up` writes all three files for the private stack.

## `client.toml`: users' tools

Which file counts: `$PILOTAGE_CONFIG`; else `$XDG_CONFIG_HOME/pilotage/config.toml`; else the one that `pilotage up` wrote,
`$XDG_DATA_HOME/pilotage/local/client.toml`; else none, which is enough for all that stays on this machine. Unknown
sections and keys are errors.

{client}

## `server.toml`: services

`pilotage-serve --config FILE`; `/etc/pilotage/server.toml` by default.

{server}

Section `[leases]`, all in seconds and all optional:

{leases}

Section `[shares]`, all in seconds and all optional: how the matcher remembers what groups and owners had
([whose job is next](../explanation/matching.md)):

{shares}

Section `[proxies]`, all in seconds and all optional:

{proxies}

Tables `[[registry.sources]]`, one for each source:

{sources}

## `pilot.toml`: pilots

{pilot}
"""


def render() -> str:
    """The page."""
    return _TEXT.format(
        generated=generated("docs/reference_pages/configuration.py; a test compares it with the readers"),
        client=_table(CLIENT),
        server=_table(SERVER),
        leases=_times(LeaseSettings),
        shares=_times(Policy),
        proxies=_times(ProxySettings),
        pilot=_table(PILOT),
        sources=table(("Key", "Default", "Meaning"), ((f"`{key}`", *row) for key, row in SOURCE.items())),
    )


def _table(keys: Keys) -> str:
    rows = ((f"`[{section}]`", f"`{key}`", default, text) for (section, key), (default, text) in keys.items())
    return table(("Section", "Key", "Default", "Meaning"), rows)


def _times(settings: type[LeaseSettings | Policy | ProxySettings]) -> str:
    meaning = docstrings.fields(settings)
    rows = ((f"`{field.name}`", f"`{field.default}`", meaning.get(field.name, "")) for field in fields(settings))
    return table(("Key", "Default", "Meaning"), rows)
