package fleet

import (
	"github.com/Misaka13514/setup-distributed-nix-builds/docs"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
)

// Policy returns a copy of the tailnet policy that users are asked to set,
// docs/tailnet-policy.hujson. The lab runs under it, so whatever works here needs no more
// than that.
func Policy() (control.Policy, error) { return control.ParsePolicy(docs.TailnetPolicy) }
