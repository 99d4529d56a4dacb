#!/bin/sh
# Run by the PostgreSQL image when its volume is empty: for each name in DATABASES a database and a role that
# owns it and nothing else. The password of `nova` is in NOVA_PASSWORD, and so on: never on a command line.
set -eu
for name in $DATABASES; do
  PASSWORD="$(printenv "$(printf %s "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD")"
  export PASSWORD
  psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 -v name="$name" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password PASSWORD
CREATE ROLE :"name" LOGIN NOSUPERUSER PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
