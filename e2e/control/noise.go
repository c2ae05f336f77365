package control

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"time"

	"tailscale.com/control/controlbase"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// outer serves what comes in the clear: the server's public key, and the
// upgrade to Noise, inside which the inner server goes on.
func (s *Server) outer() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /key", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(tailcfg.OverTLSPublicKeyResponse{PublicKey: s.noise.Public()})
	})
	// Nodes ask for it to tell a captive portal from the Internet.
	mux.HandleFunc("GET /generate_204", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /ts2021", func(w http.ResponseWriter, r *http.Request) {
		conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, s.noise, nil)
		if err != nil {
			s.cfg.Logf("noise handshake with %s: %v", r.RemoteAddr, err)
			return
		}
		s.upgraded.hand(conn)
	})
	s.apiRoutes(mux)
	s.oidc.routes(mux)
	return mux
}

// inner serves HTTP/2 on the connections that were upgraded to Noise.
func (s *Server) inner() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /machine/register", s.serveRegister)
	mux.HandleFunc("POST /machine/map", s.serveMap)
	mux.HandleFunc("POST /machine/update-health", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		Protocols:         new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, machineKey{}, c.(*controlbase.Conn).Peer())
		},
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

// machineKey is the context key of the machine key at the other end of a Noise
// connection.
type machineKey struct{}

func machineOf(r *http.Request) key.MachinePublic {
	k, _ := r.Context().Value(machineKey{}).(key.MachinePublic)
	return k
}

// handedConns is a listener whose connections were accepted elsewhere.
type handedConns struct {
	conns  chan net.Conn
	closed chan struct{} // closed by Close
	once   sync.Once
}

func newHandedConns() *handedConns {
	return &handedConns{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// hand gives the connection to whoever accepts next, or closes it.
func (l *handedConns) hand(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept implements [net.Listener].
func (l *handedConns) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *handedConns) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *handedConns) Addr() net.Addr { return &net.TCPAddr{} }
