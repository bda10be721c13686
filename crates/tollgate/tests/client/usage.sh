#!/bin/bash
# Shows a signed-in client's screen after a prompt, and what /usage says.
#   CLAUDE_BIN=path/to/claude ./usage.sh GATEWAY_URL STATE_DIR NOTICE
# Sends one prompt, waits until the screen matches the pattern NOTICE, and prints it; then asks for /usage and prints that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
url=$1 state=$2 notice=$3
# A terminal server and shell of our own: the developer's sessions and settings have no part in this.
terminal() { SHELL=/bin/bash tmux -S "$state/terminal" -f /dev/null "$@"; }
screen() { terminal capture-pane -t client -p 2>/dev/null || true; }
shows() { screen | grep -qE "$1"; }
press() { terminal send-keys -t client "$@"; }
wait_for() { for _ in $(seq 1 200); do shows "$1" && return 0; sleep 0.1; done; echo "never shown: $1"; return 1; }
finish() { screen | grep -v '^ *$' || true; terminal kill-server 2>/dev/null || true; }
trap finish EXIT

export CLAUDE_BIN CA=${CA:-}
terminal new-session -d -s client -x 150 -y 50 "$(printf '%q ' "$here/claude.sh" "$url" "$state")"
# Whatever a first start asks - text style, security notes, trust in the folder - is answered with yes.
for _ in $(seq 1 60); do
  shows 'shift.tab to cycle|for shortcuts' && break
  if shows '❯ No, exit'; then press Up
  elif shows 'text style|Enter to continue|❯ Yes, I trust'; then press Enter
  fi
  sleep 0.5
done
wait_for 'shift.tab to cycle|for shortcuts' || exit 1
press -l 'say hello'
press Enter
wait_for "$notice" || exit 1
screen | grep -v '^ *$'
press -l '/usage'
sleep 0.5
press Enter
wait_for 'spent' || exit 1
