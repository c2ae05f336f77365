package control

import (
	"context"
	"encoding/json"
	"net/http"

	"golang.org/x/net/http2"
	"tailscale.com/control/controlhttp/controlhttpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// machineKey is the context key of the machine key at the other end of a Noise
// connection.
type machineKey struct{}

// handler serves what comes in the clear: the server's public key, and the
// upgrade to Noise.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /key", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(tailcfg.OverTLSPublicKeyResponse{PublicKey: s.noise.Public()})
	})
	// Nodes ask for it to tell a captive portal from the Internet.
	mux.HandleFunc("GET /generate_204", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /ts2021", s.serveNoise)
	return mux
}

// serveNoise upgrades the connection and serves HTTP/2 inside it until the
// node hangs up or the server closes.
func (s *Server) serveNoise(w http.ResponseWriter, r *http.Request) {
	conn, err := controlhttpserver.AcceptHTTP(r.Context(), w, r, s.noise, nil)
	if err != nil {
		s.cfg.Logf("noise handshake with %s: %v", r.RemoteAddr, err)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })
	defer stop()

	mux := http.NewServeMux()
	mux.HandleFunc("POST /machine/register", s.serveRegister)
	mux.HandleFunc("POST /machine/map", s.serveMap)
	mux.HandleFunc("POST /machine/update-health", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	ctx := context.WithValue(s.ctx, machineKey{}, key.MachinePublic(conn.Peer()))
	new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{
		Context:    ctx,
		BaseConfig: &http.Server{Handler: mux},
	})
}
