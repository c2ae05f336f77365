package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// A person whom the tailnet's policy grants something may have a browser open, and a
// browser sends what any page tells it to. Two checks keep pages out. The host that a
// request names must be ours: a page that had its own name resolved to our address would
// otherwise be of the same origin as we are (DNS rebinding). And a request that changes
// something must not come from another origin.

// guard stands in front of everything else.
func (s *Server) guard(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.render(w, r, &refusal{problem.CrossOrigin, "a web page of another origin may not call this server", ""})
	}))
	protected := origin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		if !s.isOurs(r) {
			s.render(w, r, &refusal{problem.Misdirected,
				"this server does not go by the name in the request's Host; use its tailnet address or name", "Host"})
			return
		}
		protected.ServeHTTP(w, r)
	})
}

// isOurs reports whether the host that r names is one of ours: a name that the server was
// given, or the very address at which the connection arrived. Its port does not matter.
// Local listeners are no concern: over a unix socket any host will do, as for curl.
func (s *Server) isOurs(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && local.Network() == "unix" {
		return true
	}
	host := canonicalHost(r.Host)
	if s.hosts[host] {
		return true
	}
	if local == nil {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	return err == nil && host == at.Addr().Unmap().WithZone("").String()
}

// canonicalHost returns the host of HOST or HOST:PORT: an address in its shortest form, a
// name in lower case without a final dot.
func canonicalHost(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
