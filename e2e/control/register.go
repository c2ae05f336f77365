package control

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// requestLimit bounds the body of a node's request, in bytes.
const requestLimit = 1 << 20

// serveRegister answers a node that joins, comes back or logs out. A refusal is
// an answer with a reason, which the node shows to its user.
func (s *Server) serveRegister(w http.ResponseWriter, r *http.Request) {
	var req tailcfg.RegisterRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, requestLimit)).Decode(&req); err != nil {
		http.Error(w, "register: "+err.Error(), http.StatusBadRequest)
		return
	}
	if req.NodeKey.IsZero() || req.Hostinfo == nil {
		http.Error(w, "register: no node key or no host information", http.StatusBadRequest)
		return
	}

	if req.Followup != "" { // waits until somebody has logged in with a browser: nobody will
		select {
		case <-r.Context().Done():
		case <-s.ctx.Done():
		}
		return
	}
	var res tailcfg.RegisterResponse
	if isLogout(&req) {
		s.reg.logout(req.NodeKey, machineOf(r))
		res.NodeKeyExpired = true
	} else if n, err := s.reg.register(&req, machineOf(r)); errors.Is(err, errNoKey) {
		res.AuthURL = s.url + "/a/" + rand.Text()
	} else if err != nil {
		res.Error = err.Error()
	} else {
		res = n
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(res)
}

// isLogout reports whether the node asks for its key to have expired long ago.
func isLogout(req *tailcfg.RegisterRequest) bool {
	return !req.Expiry.IsZero() && req.Expiry.Before(time.Now())
}

func (r *registry) logout(k key.NodePublic, machine key.MachinePublic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[k]
	if n == nil || n.wire.Machine != machine {
		return
	}
	if n.ephemeral {
		r.removeLocked(n, "ephemeral and logged out")
		return
	}
	r.logf("node %s logged out", n.label)
	n.expired = true
	n.endPollLocked()
	r.notifyLocked()
}

// errNoKey says that a node is not known and shows no key.
var errNoKey = errors.New("no auth key")

// register admits a node, or refreshes one that is known.
func (r *registry) register(req *tailcfg.RegisterRequest, machine key.MachinePublic) (tailcfg.RegisterResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[req.NodeKey]
	if n != nil && n.wire.Machine != machine {
		return tailcfg.RegisterResponse{}, errors.New("this node key is another machine's")
	}
	if n == nil && !req.OldNodeKey.IsZero() {
		if old := r.nodes[req.OldNodeKey]; old != nil && old.wire.Machine == machine {
			n = old // a rotated key is not a new node
		}
	}

	var authKey string
	if req.Auth != nil {
		authKey = req.Auth.AuthKey
	}
	i := slices.IndexFunc(r.keys, func(k AuthKey) bool { return k.Key == authKey })
	// Someone who comes back needs no key, and may show the one it once used up.
	// Anybody else needs one, or a browser.
	if i < 0 && (n == nil || n.expired) {
		if authKey == "" {
			return tailcfg.RegisterResponse{}, errNoKey
		}
		return tailcfg.RegisterResponse{}, errors.New("invalid key: unable to validate API key")
	}
	var tags []string
	if i >= 0 {
		var err error
		if tags, err = grantTags(r.keys[i], req.Hostinfo.RequestTags); err != nil {
			return tailcfg.RegisterResponse{}, err
		}
	}

	if n == nil {
		n = r.addLocked(req.NodeKey, machine)
	} else if n.wire.Key != req.NodeKey {
		delete(r.nodes, n.wire.Key)
		n.wire.Key = req.NodeKey
		r.nodes[req.NodeKey] = n
		n.endPollLocked()
	}
	n.expired = false
	n.wire.Cap = req.Version
	if i >= 0 {
		n.wire.Tags = tags
		n.login = cmp.Or(r.keys[i].User, Person)
		n.ephemeral = req.Ephemeral || r.keys[i].Ephemeral
		n.wire.MachineAuthorized = !r.deviceApproval || !r.keys[i].NeedsApproval
	}
	r.spendLocked(authKey)
	n.wire.User = userOf(n).ID
	r.setHostinfoLocked(n, req.Hostinfo)
	if n.poll == nil {
		r.expireLaterLocked(n) // in case it never polls
	}
	r.logf("node %s registered: %s, claims %q, tags %v", n.label, n.wire.Addresses[0].Addr(), req.Hostinfo.Hostname, n.wire.Tags)
	r.notifyLocked()

	u := userOf(n)
	return tailcfg.RegisterResponse{
		MachineAuthorized: n.wire.MachineAuthorized,
		User:              tailcfg.User{ID: u.ID, DisplayName: u.DisplayName, Created: n.wire.Created},
		Login:             tailcfg.Login{ID: tailcfg.LoginID(u.ID), Provider: "lab", LoginName: u.LoginName, DisplayName: u.DisplayName},
	}, nil
}

// grantTags returns the tags that a node of this key gets.
func grantTags(k AuthKey, requested []string) ([]string, error) {
	if len(requested) == 0 {
		return slices.Clone(k.Tags), nil
	}
	for _, t := range requested {
		if !slices.Contains(k.Tags, t) {
			return nil, fmt.Errorf("requested tags [%s] are invalid or not permitted", strings.Join(requested, " "))
		}
	}
	return slices.Clone(requested), nil
}

// setHostinfoLocked takes over what the node says about itself. A new hostname
// renames the node.
func (r *registry) setHostinfoLocked(n *node, hi *tailcfg.Hostinfo) {
	renamed := !n.wire.Hostinfo.Valid() || n.wire.Hostinfo.Hostname() != hi.Hostname
	n.wire.Hostinfo = hi.View()
	if ni := hi.NetInfo; ni != nil && ni.PreferredDERP != 0 {
		n.wire.HomeDERP = ni.PreferredDERP
	}
	if renamed {
		r.nameLocked(n, hi.Hostname)
	}
}

// userOf returns the profile that peers see as the node's owner. All tagged
// nodes belong to one made-up user, as on the real service.
func userOf(n *node) tailcfg.UserProfile {
	if len(n.wire.Tags) > 0 {
		return tailcfg.UserProfile{ID: 1, LoginName: "tagged-devices", DisplayName: "Tagged Devices"}
	}
	var id tailcfg.UserID
	for _, c := range []byte(n.login) { // stable and distinct enough for a lab
		id = (id*131 + tailcfg.UserID(c)) & (1<<40 - 1)
	}
	return tailcfg.UserProfile{ID: 2 + id, LoginName: n.login, DisplayName: n.login}
}
