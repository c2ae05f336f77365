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

daemon() { cat /run/nix-daemon.pid; }

case $verb in
is-active)
	state=active status=0
	kill -0 "$(daemon)" || { state=inactive status=3; }
	[ -n "$quiet" ] || echo "$state"
	exit "$status"
	;;
restart)
	# Systemd holds the socket, so that nobody is refused meanwhile.
	old=$(daemon)
	kill "$old"
	for _ in $(seq 500); do
		if [ "$(daemon)" != "$old" ] && nix store info --store daemon >/dev/null 2>&1; then
			exit 0
		fi
		sleep 0.02
	done
	echo "Job for $unit failed." >&2
	exit 1
	;;
*)
	echo "Unknown command verb $verb." >&2
	exit 1
	;;
esac
