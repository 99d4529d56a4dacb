#!/bin/sh
# Prints .env.example with a new random value for each password and key:
#   (umask 077 && sh deploy/new-env.sh > .env)
set -eu
hex() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_'; }
while IFS= read -r line; do
  case "$line" in
    NOVA_SECRET_KEY=) printf '%s%s\n' "$line" "$(fernet)" ;;
    *_DB_PASSWORD=|*_DB_ADMIN_PASSWORD=) printf '%s%s\n' "$line" "$(hex)" ;;
    *) printf '%s\n' "$line" ;;
  esac
done < "$(dirname "$0")/../.env.example"
