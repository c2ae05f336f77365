package main

const (
	defaultNetworking = "tun"
	defaultStateDir   = "/run/nix-builders"
	rootHome          = "/root"
)
