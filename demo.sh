#!/bin/sh
# The main job, end to end, in ./demo-home: prompt -> picture -> sealed record -> listed and opened again.
# No terminal, no keyring and no network are needed. A second run uses the same vault.
set -eu
bin=${1:-.venv/bin}
home=$(pwd)/demo-home
export SAFELIGHT_HOME="$home" SAFELIGHT_VAULT="$home/vault" SAFELIGHT_PASSPHRASE_FILE="$home/passphrase"
say() { printf '\n== %s\n' "$1" >&2; }

umask 077
mkdir -p "$home"
if [ ! -e "$SAFELIGHT_VAULT/VAULT" ]; then
  say "A demo vault. Its passphrase lies beside it, which only a demo may do."
  "$bin/python" -c 'import secrets; print(secrets.token_urlsafe(24))' > "$SAFELIGHT_PASSPHRASE_FILE"
  "$bin/safelight" init --recovery-file "$home/recovery-phrase"
fi

say "Four pictures, sealed one by one."
printf '%s\n' "red apple" "blue cat face" "rocket" "purple automobile" |
  "$bin/safelight" generate --prompts - --seed 7

say "What the vault holds, newest first."
"$bin/safelight" ls --limit 4

say "The newest one, opened again: everything that made it, and a copy in the clear."
id=$("$bin/safelight" ls --limit 1 --json | "$bin/python" -c 'import json, sys; print(json.loads(sys.stdin.readline())["id"])')
"$bin/safelight" show "$id"
rm -f "$home/picture.png"
"$bin/safelight" reveal "$id" --to "$home/picture.png"

say "What protects it."
"$bin/safelight" status

say "Everything is in $home: vault/ (sealed), picture.png (the copy in the clear),"
printf '   passphrase and recovery-phrase (in a real vault: in your keyring, and on paper).\n   Make your own: safelight init, then safelight generate "red apple".\n' >&2
