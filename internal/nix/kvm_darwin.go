package nix

import "errors"

// probeKVM says why builds can't use KVM: it is Linux'.
func probeKVM(string) error { return errors.New("macOS has no KVM") }
