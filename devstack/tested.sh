#!/bin/sh
# Runs a test command as it is. At the end it says once more, in a few lines, what was not run, and what has failed: of many
# packages and with the logs of processes both are easily lost.
#
#   tested.sh COMMAND [ARG...]
printed=$(mktemp) || exit 1
trap 'rm -f "$printed" "$printed.status"' EXIT
trap 'exit 130' INT TERM
{ "$@" 2>&1; echo $? >"$printed.status"; } | tee "$printed"
status=$(cat "$printed.status")
if grep -q '_test\.go:[0-9]*: .*\(NOT RUN\|LEFT OUT\)' "$printed"; then
	printf '\nWhat was not run:\n'
	grep '_test\.go:[0-9]*: .*\(NOT RUN\|LEFT OUT\)' "$printed"
fi
if [ "$status" != 0 ]; then
	printf '\nWhat has failed:\n'
	awk '
		/^ *--- FAIL/ { print; messages = 3; next }
		/_test\.go:[0-9]+: / && messages > 0 && !/: the log of / { print substr($0, 1, 300); messages-- }
		/^panic: |^FAIL\t|WARNING: DATA RACE|^[^ ]+\.go:[0-9]+:[0-9]+: / { print }
	' "$printed" | tail -n 18
fi
exit "$status"
