package direct

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Caller is who the tailnet says is at the other end of a connection.
type Caller struct {
	ID   string     // the node's stable id
	Name string     // first label of the node's name
	Addr netip.Addr // the node's tailnet address
	Tags []string   // the node's tags, with "tag:"
}

type callerKey struct{}

// CallerOf returns who makes a request that [Server.Handle] let through.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// only lets callers through to next whom allow has nothing against. It looks at the
// connection alone.
func (s *Server) only(allow func(Caller) error, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not earlier: where tailscaled forwards connections, it learns late whose they are.
		ctx, cancel := context.WithTimeout(r.Context(), s.limits.WhoIs)
		c, err := s.cfg.WhoIs(ctx, r.RemoteAddr)
		cancel()
		if err == nil && c.ID == "" {
			err = errors.New("the answer names no node")
		}
		if err != nil {
			s.log.Info("a caller that the tailnet does not know", "remote", r.RemoteAddr, "error", err)
			http.Error(w, "the tailnet does not know you", http.StatusForbidden)
			return
		}
		if err := allow(c); err != nil {
			s.log.Info("a caller was refused", "path", r.URL.Path, "node", c.Name, "error", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// ofCoordinator allows the coordinator that has claimed this builder.
func (s *Server) ofCoordinator(c Caller) error {
	if !slices.Contains(c.Tags, s.cfg.CoordinatorTag) {
		is := "no tags"
		if len(c.Tags) > 0 {
			is = strings.Join(c.Tags, ", ")
		}
		return fmt.Errorf("the call is for a node with %s; %s has %s", s.cfg.CoordinatorTag, c.Name, is)
	}
	s.mu.Lock()
	coordinator := s.coordinator
	s.mu.Unlock()
	switch {
	case !coordinator.IsValid():
		return errors.New("no coordinator has claimed this builder yet")
	case coordinator != c.Addr:
		return errors.New("another coordinator has claimed this builder")
	}
	return nil
}
