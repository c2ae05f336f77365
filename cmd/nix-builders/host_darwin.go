package main

const (
	defaultNetworking = "userspace"
	defaultStateDir   = "/var/run/nix-builders"
	rootHome          = "/var/root"
)
