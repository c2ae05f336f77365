#!/bin/sh
# Runs outside the new root file system, whose path is $1.
set -eu
root=$1

# Nix builds each derivation as a user of its own.
chroot "$root" groupadd --system --gid 30000 nixbld
for i in 1 2 3 4 5 6 7 8; do
	chroot "$root" useradd --system --uid $((30000 + i)) --gid nixbld --groups nixbld \
		--no-create-home --home-dir /var/empty --shell /usr/sbin/nologin "nixbld$i"
done

# The user that a workflow's steps run as.
chroot "$root" groupadd --gid 1001 runner
chroot "$root" useradd --uid 1001 --gid runner --create-home --shell /bin/bash runner
echo 'runner ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/runner"
chmod 0440 "$root/etc/sudoers.d/runner"

# What derivations are built with: one static program, no nixpkgs.
mkdir -p "$root/opt/bb/bin"
cp "$root/usr/bin/busybox" "$root/opt/bb/bin/busybox"
for applet in awk cat cksum cp cut date dd echo env expr false grep head hostname id ls mkdir mv \
	nproc printf rm sed seq sh sleep sort tail test touch tr true uname uniq wc; do
	ln -s busybox "$root/opt/bb/bin/$applet"
done

# The lab writes these for each host.
rm -f "$root/etc/hostname" "$root/etc/hosts" "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_*
rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
mkdir -p "$root/nix" "$root/opt/lab/bin" "$root/var/cache/apt" "$root/var/lib/apt/lists"
