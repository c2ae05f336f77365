package httpapi

import (
	"net/http"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	if err := plainCall(w, r); err != nil {
		return err
	}
	quiet(r)
	return writeJSON(w, mediaJSON, http.StatusOK, apiclient.Health{Status: apiclient.Ok})
}

func (s *Server) readMetrics(w http.ResponseWriter, r *http.Request) error {
	if err := plainCall(w, r); err != nil {
		return err
	}
	quiet(r)
	s.metrics.serve(w, r)
	return nil
}

func (s *Server) readContract(w http.ResponseWriter, r *http.Request) error {
	if err := plainCall(w, r); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(s.contract) // a caller who went away needs no answer
	return nil
}

// plainCall refuses what a call without parameters and body does not take.
func plainCall(w http.ResponseWriter, r *http.Request) error {
	if err := noBody(w, r); err != nil {
		return err
	}
	_, err := parseQuery(r)
	return err
}
