package fleet

import (
	_ "embed"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// policyText is the policy that README.md asks users to set. The lab runs under it, so
// whatever works here needs no more than that.
//
//go:embed policy.hujson
var policyText []byte

// Policy returns a copy of the tailnet policy that users are asked to set.
func Policy() (control.Policy, error) { return control.ParsePolicy(policyText) }
