#!/bin/bash
# Signs the stock client in through the gateway's device flow, pressing through its screens in a terminal.
#   CLAUDE_BIN=path/to/claude ./login.sh GATEWAY_URL STATE_DIR
# Prints the user code as its first line; whoever reads it completes the browser part. Ends with status 0 when the
# client says that it is connected; prints the client's last screen either way.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
url=$1 state=$2
# A terminal server and shell of our own: the developer's sessions and settings have no part in this.
terminal() { SHELL=/bin/bash tmux -S "$state/terminal" -f /dev/null "$@"; }
screen() { terminal capture-pane -t client -p 2>/dev/null || true; }
shows() { screen | grep -qE "$1"; }
press() { terminal send-keys -t client "$@"; }
wait_for() { for _ in $(seq 1 300); do shows "$1" && return 0; sleep 0.1; done; echo "never shown: $1"; return 1; }
finish() { screen | grep -v '^ *$' | tail -20 || true; terminal kill-server 2>/dev/null || true; }
trap finish EXIT

mkdir -p "$state"
export CLAUDE_BIN CA=${CA:-}
terminal new-session -d -s client -x 150 -y 50 "$(printf '%q ' "$here/claude.sh" "$url" "$state")"
wait_for 'text style|Cloud gateway' || exit 1
! shows 'text style' || press Enter
wait_for 'Enter to connect' || exit 1
press Enter
wait_for 'Trust gateway|Code:' || exit 1
if shows 'Trust gateway'; then press Up; sleep 0.5; press Enter; fi
wait_for 'Code: *[A-Z]{4}-[A-Z]{4}' || exit 1
screen | grep -oE '[A-Z]{4}-[A-Z]{4}' | head -1
# A gateway that names the account in its token reply makes the client ask for a confirmation first, with the cursor on no.
wait_for 'Connected to Cloud gateway|Yes, continue' || exit 1
if ! shows 'Connected to Cloud gateway'; then
  press Up
  wait_for '❯ Yes, continue' || exit 1
  press Enter
fi
wait_for 'Connected to Cloud gateway' || exit 1
