package coordinator

import "strings"

// MatchName reports whether a node whose name's first label is node may claim the
// expected label: they are equal, or the node's has the suffix that a tailnet adds
// when a name is taken, "-" and a number from 1.
func MatchName(expected, node string) bool {
	if expected == "" || expected == node {
		return expected != ""
	}
	suffix, ok := strings.CutPrefix(node, expected+"-")
	return ok && isCount(suffix)
}

// isCount reports whether s is a decimal number from 1 without leading zeros.
func isCount(s string) bool {
	if s == "" || s[0] == '0' {
		return false
	}
	return strings.Trim(s, "0123456789") == ""
}

// claimLocked returns the slot that the claimed name is, if the node may have it.
//
// A node that is called exactly as another expected builder is that one: "b-1" is
// taken for a renamed "b" only while another node holds "b-1" (a lost one too).
func (c *Cluster) claimLocked(node Node, claim string) (*slot, error) {
	s, ok := c.byLabel[c.cfg.Label(claim)]
	if !ok {
		return nil, ErrNotExpected
	}
	label := strings.ToLower(node.Name)
	if !MatchName(s.label, label) {
		return nil, ErrNotYours
	}
	if other, ok := c.byLabel[label]; ok && other != s {
		held := other.State.Present() || other.State == Lost
		if !held || other.Node.ID == node.ID {
			return nil, ErrNotYours
		}
	}
	return s, nil
}
