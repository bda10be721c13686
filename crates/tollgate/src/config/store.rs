//! `store`: the database.

use std::path::Path;
use std::time::Duration;

use control::store::{Config, PostgresConfig};
use secrecy::SecretString;

use super::read::{Field, Mapping};
use super::reference::{Section, key};

pub(super) const SECTION: Section = Section {
    path: "store",
    about: "The database. PostgreSQL for one or many replicas; without `postgres_url`, and without the whole section, an \
            SQLite file that serves one process.",
    keys: &[
        key(
            "postgres_url",
            "`postgres://` or `postgresql://` URL",
            "",
            "PostgreSQL 14 or later. `sslmode` may be disable, prefer, require, verify-ca or verify-full, and `sslrootcert` \
             names a file of authorities.",
        ),
        key("username", "text", "", "User; wins over the one in the URL."),
        key("password", "text", "", "Password; wins over the one in the URL and may hold any character."),
        key("max_connections", "whole number, 1 to 1000", "5", "Connections to PostgreSQL per replica."),
        key(
            "connect_timeout_seconds",
            "whole number, 1 to 60",
            "5",
            "How long one attempt to connect to PostgreSQL may take.",
        ),
        key(
            "readiness_grace_seconds",
            "whole number, 0 to 3600",
            "0",
            "How long `/readyz` stays ready after the database stopped answering.",
        ),
        key(
            "sqlite_path",
            "path; a relative one starts at the folder of this file",
            "tollgate.db",
            "The SQLite file; made with mode 0600 when it does not exist.",
        ),
    ],
    later: &[],
};

const SSL_MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const POSTGRES_ONLY: &[&str] = &["username", "password", "max_connections", "connect_timeout_seconds"];

/// The database, and the grace of `/readyz`. `folder` is where the configuration file is.
pub(super) fn read(store: Option<&Mapping<'_>>, folder: &Path) -> Option<(Config, Duration)> {
    let embedded = || Config::Sqlite { path: folder.join("tollgate.db") };
    let Some(store) = store else { return Some((embedded(), Duration::ZERO)) };
    let grace = store.or("readiness_grace_seconds", 0, |field| field.whole(0..=3600));
    let database = match (store.get("postgres_url"), store.get("sqlite_path")) {
        (Some(_), Some(sqlite)) => {
            sqlite.refuse("postgres_url is written too; keep one of them");
            None
        }
        (Some(url), None) => read_postgres(store, &url).map(Config::Postgres),
        (None, sqlite) => {
            for field in POSTGRES_ONLY.iter().filter_map(|key| store.get(key)) {
                field.refuse("only PostgreSQL takes this; write postgres_url, or leave it out");
            }
            match sqlite {
                Some(field) => field.text().map(|path| Config::Sqlite { path: folder.join(path) }),
                None => Some(embedded()),
            }
        }
    };
    Some((database?, Duration::from_secs(grace?)))
}

fn read_postgres(store: &Mapping<'_>, url: &Field<'_>) -> Option<PostgresConfig> {
    let url = read_postgres_url(url);
    let username = store.maybe("username", Field::string);
    let password = store.maybe("password", Field::secret);
    let max_connections = store.or("max_connections", 5, |field| field.whole(1..=1000));
    let timeout = store.or("connect_timeout_seconds", 5, |field| field.whole(1..=60));
    Some(PostgresConfig {
        url: url?,
        username: username?,
        password: password?,
        max_connections: usize::try_from(max_connections?).ok()?,
        connect_timeout: Duration::from_secs(timeout?),
    })
}

fn read_postgres_url(field: &Field<'_>) -> Option<SecretString> {
    // Never shown: it may hold the password.
    let url = field.text()?.trim();
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
        field.refuse("must begin with postgres:// or postgresql://, such as postgres://host:5432/tollgate");
        return None;
    };
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "sslmode" && !SSL_MODES.contains(&&*value) {
            field.refuse("its sslmode must be disable, prefer, require, verify-ca or verify-full");
            return None;
        }
        if name == "sslrootcert" && value != "system" && !Path::new(&*value).is_file() {
            field.refuse("its sslrootcert must name a file of PEM certificates that exists");
            return None;
        }
    }
    Some(SecretString::from(url))
}
