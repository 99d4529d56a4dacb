#!/bin/sh
# Starts any command of NOVA or Dagster with Dagster's instance on PostgreSQL, where DAGSTER_DATABASE_URL is given.
# Platforms write postgres:// or postgresql://, which SQLAlchemy 2.1 reads as psycopg 3; dagster-postgres needs
# psycopg2. (NOVA's own two URLs are normalised in settings.py.)
set -eu
case "${DAGSTER_DATABASE_URL-}" in
  "") exec "$@" ;;
  postgres://*|postgresql://*) export DAGSTER_DATABASE_URL="postgresql+psycopg2://${DAGSTER_DATABASE_URL#*://}" ;;
esac
export NOVA_HOME="${NOVA_HOME:-$PWD/.nova}"
export DAGSTER_LOCAL_DIR="${DAGSTER_LOCAL_DIR:-$NOVA_HOME/dagster}"
# A DAGSTER_HOME without DAGSTER_CONFIGURATION is the user's own. Dagster writes into it, so it is not deploy/ itself.
if [ -n "${DAGSTER_CONFIGURATION-}" ] || [ -z "${DAGSTER_HOME-}" ]; then
  configuration="${DAGSTER_CONFIGURATION:-$(cd "$(dirname "$0")" && pwd)/process/dagster.yaml}"
  export DAGSTER_HOME="${DAGSTER_HOME:-$NOVA_HOME/dagster-server}"
  (umask 077 && mkdir -p "$DAGSTER_HOME")
  cp "$configuration" "$DAGSTER_HOME/.dagster.yaml.$$"
  mv -f "$DAGSTER_HOME/.dagster.yaml.$$" "$DAGSTER_HOME/dagster.yaml"
fi
exec "$@"
