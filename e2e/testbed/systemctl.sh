#!/bin/sh
# Stands in for systemctl on a host of the lab, where the service of the Nix
# daemon is all there is. Its first process starts a daemon again that has ended.
set -eu

quiet=
verb=
unit=
for arg in "$@"; do
	case $arg in
	--quiet | -q) quiet=1 ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$arg; else unit=$arg; fi ;;
	esac
done

case $unit in
nix-daemon | nix-daemon.service) ;;
*)
	echo "Unit $unit not found." >&2
	exit 5
	;;
esac

# On a fresh host Nix's programs are not on the path of root's services.
PATH=$PATH:/nix/var/nix/profiles/default/bin

daemon() { cat /run/nix-daemon.pid; }

# Systemd holds the socket, so that nobody is refused once its command has ended.
await() {
	for _ in $(seq 500); do
		if [ "$(daemon 2>/dev/null)" != "$1" ] && nix store info --store daemon >/dev/null 2>&1; then
			exit 0
		fi
		sleep 0.02
	done
	echo "Job for $unit failed." >&2
	exit 1
}

case $verb in
is-active)
	state=active status=0
	kill -0 "$(daemon 2>/dev/null)" 2>/dev/null || { state=inactive status=3; }
	[ -n "$quiet" ] || echo "$state"
	exit "$status"
	;;
restart)
	old=$(daemon)
	kill "$old"
	await "$old"
	;;
start)
	# The first process of a fresh host waits for this.
	[ -e /run/nix-daemon.pid ] || kill -USR1 1
	await ""
	;;
*)
	echo "Unknown command verb $verb." >&2
	exit 1
	;;
esac
