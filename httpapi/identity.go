package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// Caller is who the tailnet says is at the other end of a connection.
type Caller struct {
	ID   string     // the node's stable id
	Name string     // first label of the node's name, as the tailnet gave it
	FQDN string     // the node's whole name
	User string     // login name, for a node that is a person's
	Addr netip.Addr // the node's tailnet address
	Tags []string   // the node's tags, with "tag:"
	Caps []string   // what the tailnet's policy grants: "read", "stop"
	Self bool       // it is the coordinator's own node
}

// String names the caller in logs and reports.
func (c Caller) String() string {
	switch {
	case c.User != "" && c.Name != "":
		return c.User + " on " + c.Name
	case c.Name != "":
		return c.Name
	case c.Self:
		return "the coordinator's host"
	}
	return "node " + c.ID
}

// node is the caller as the domain knows it.
func (c Caller) node() coordinator.Node {
	return coordinator.Node{ID: c.ID, Name: c.Name, FQDN: c.FQDN, Addr: c.Addr}
}

// A rule says who may make a call.
type rule struct {
	allows func(Caller) bool // nil: everybody may, and nobody is asked who they are
	wants  string            // who may, for the problem's detail
}

func anyone() rule { return rule{} }

// ownBuilder allows nodes with the builder tag. That a builder acts for itself only is the
// domain's to say, for it knows which node holds which name.
func (s *Server) ownBuilder() rule {
	return rule{
		allows: func(c Caller) bool { return slices.Contains(c.Tags, s.builderTag) },
		wants:  "a node with " + s.builderTag,
	}
}

func (s *Server) mayStop() rule {
	return rule{
		allows: func(c Caller) bool { return c.Self || slices.Contains(c.Caps, "stop") },
		wants:  `the coordinator's own node, or whoever the tailnet's policy grants "stop"`,
	}
}

func (s *Server) mayRead() rule {
	return rule{
		allows: func(c Caller) bool {
			return c.Self || slices.Contains(c.Caps, "read") ||
				slices.Contains(c.Tags, s.builderTag) || slices.Contains(c.Tags, s.coordinatorTag)
		},
		wants: fmt.Sprintf("a node with %s or %s, or whoever the tailnet's policy grants \"read\"",
			s.builderTag, s.coordinatorTag),
	}
}

// only lets a call through to next for callers that the rule allows, who next then finds in
// the request's context. It looks at the connection alone: no body has been read yet.
func (s *Server) only(who rule, next handler) handler {
	if who.allows == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.identify(r)
		if err != nil {
			return err
		}
		noteCaller(r, c)
		if !who.allows(c) {
			is := "no tags"
			if len(c.Tags) > 0 {
				is = strings.Join(c.Tags, ", ")
			}
			return &refusal{problem.Forbidden, fmt.Sprintf("the call is for %s; %s has %s", who.wants, c, is), ""}
		}
		leave, err := s.nodes.enter(c)
		if err != nil {
			return err
		}
		defer leave()
		return next(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	}
}

type callerKey struct{}

// callerOf returns the caller whom only let through.
func callerOf(r *http.Request) Caller {
	c, _ := r.Context().Value(callerKey{}).(Caller)
	return c
}

// identify asks the tailnet who is at the other end of r's connection. Over a listener made
// by Local nobody is asked: it is the coordinator's host.
func (s *Server) identify(r *http.Request) (Caller, error) {
	if isLocal(r.Context()) {
		c := s.self
		c.Self = true
		return c, nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.WhoIs)
	defer cancel()
	c, err := s.whoIs(ctx, r.RemoteAddr)
	switch {
	case err == nil && c.ID != "":
		return c, nil
	case err == nil:
		err = errors.New("the answer names no node")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.log.Warn("ask the tailnet who calls", "remote", r.RemoteAddr, "error", err)
		return Caller{}, &refusal{problem.Unavailable, "the tailnet did not say in time who you are; try again", ""}
	case r.Context().Err() != nil:
		return Caller{}, context.Cause(r.Context())
	}
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "a caller that the tailnet does not know",
		slog.String("remote", r.RemoteAddr), slog.Any("error", err))
	return Caller{}, &refusal{problem.Forbidden, "the tailnet does not know you", ""}
}

// Local marks a listener that only the coordinator's own host can reach, such as a unix
// socket: who calls over it is the coordinator's own node, and WhoIs is not asked. Such a
// listener must be closed to others by its own means, a socket's mode or a loopback
// address that the tailnet forwards nothing to.
func Local(l net.Listener) net.Listener { return localListener{l} }

type localListener struct{ net.Listener }

func (l localListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return localConn{c}, nil
}

type localConn struct{ net.Conn }

type localKey struct{}

// connContext carries over to each request what its listener knows of the connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if counted, ok := c.(*countedConn); ok {
		c = counted.Conn
	}
	if _, ok := c.(localConn); ok {
		return context.WithValue(ctx, localKey{}, true)
	}
	return ctx
}

func isLocal(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }
