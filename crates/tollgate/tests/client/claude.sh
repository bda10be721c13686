#!/bin/bash
# Runs the stock Claude Code client against a gateway, apart from this machine's own settings.
#   CLAUDE_BIN=path/to/claude ./claude.sh GATEWAY_URL STATE_DIR [client arguments...]
# The client sees an /etc/claude-code of its own (managed settings that force the gateway's sign-in) through a
# private mount namespace, and a HOME of its own; nothing outside STATE_DIR is written.
set -euo pipefail
: "${CLAUDE_BIN:?set CLAUDE_BIN to the native claude binary}"
url=$1 state=$2
shift 2
mkdir -p "$state/etc/claude-code" "$state/home" "$state/tmp" "$state/work"
printf '{"forceLoginMethod":"gateway","forceLoginGatewayUrl":"%s","parentSettingsBehavior":"merge"}\n' "$url" \
  > "$state/etc/claude-code/managed-settings.json"
export CLAUDE_BIN state
namespace=(unshare --mount)
[ "$(id -u)" = 0 ] || namespace=(unshare --map-root-user --mount)
exec "${namespace[@]}" bash -c '
  mount -t overlay overlay -o "lowerdir=$state/etc:/etc" /etc
  cd "$state/work"
  exec env -i HOME="$state/home" TMPDIR="$state/tmp" CLAUDE_CODE_TMPDIR="$state/tmp" PATH=/usr/bin:/bin TERM=xterm-256color LANG=C.UTF-8 \
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1 ${CA:+NODE_EXTRA_CA_CERTS="$CA"} \
    "$CLAUDE_BIN" "$@"' claude "$@"
