package control

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// apiRoutes adds the calls of Tailscale's API with which a node turns the secret
// of an OAuth client, or an identity token, into an auth key of its own. The
// words of the refusals are the real API's: people see them.
func (s *Server) apiRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /api/v2/oauth/token", func(w http.ResponseWriter, r *http.Request) {
		_, secret, ok := r.BasicAuth()
		if !ok {
			secret = r.PostFormValue("client_secret")
		}
		c, ok := s.credentials.bySecret(secret)
		if !ok {
			apiError(w, http.StatusUnauthorized, "API token invalid")
			return
		}
		s.answerToken(w, c)
	})
	mux.HandleFunc("POST /api/v2/oauth/token-exchange", func(w http.ResponseWriter, r *http.Request) {
		jwt := r.PostFormValue("jwt")
		if n := strings.Count(jwt, ".") + 1; n != 3 {
			apiError(w, http.StatusBadRequest, fmt.Sprintf("invalid JWT format: expected 3 parts separated by '.', got %d", n))
			return
		}
		id := r.PostFormValue("client_id")
		c, ok := s.credentials.federated(id)
		err := fmt.Errorf("no federated identity %q", id)
		if ok {
			err = s.oidc.verify(jwt, c)
		}
		if err != nil {
			s.cfg.Logf("token exchange refused: %v", err)
			apiError(w, http.StatusForbidden, "Unauthorized") // the real one says no more
			return
		}
		s.answerToken(w, c)
	})
	mux.HandleFunc("POST /api/v2/tailnet/-/keys", func(w http.ResponseWriter, r *http.Request) {
		c, ok := s.credentials.byToken(accessToken(r))
		if !ok {
			apiError(w, http.StatusUnauthorized, "API token invalid")
			return
		}
		if !slices.Contains(c.Scopes, scopeAuthKeys) {
			apiError(w, http.StatusForbidden, "calling actor does not have enough permissions to perform this function")
			return
		}
		s.serveNewKey(w, r, c)
	})
}

func (s *Server) serveNewKey(w http.ResponseWriter, r *http.Request, c Credential) {
	var req struct {
		Capabilities struct {
			Devices struct {
				Create struct {
					Reusable      bool     `json:"reusable"`
					Ephemeral     bool     `json:"ephemeral"`
					Preauthorized bool     `json:"preauthorized"`
					Tags          []string `json:"tags"`
				} `json:"create"`
			} `json:"devices"`
		} `json:"capabilities"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, requestLimit)).Decode(&req); err != nil {
		apiError(w, http.StatusBadRequest, err.Error())
		return
	}
	want := req.Capabilities.Devices.Create
	key, err := s.reg.mintKey(c, AuthKey{
		Tags: want.Tags, Ephemeral: want.Ephemeral, NeedsApproval: !want.Preauthorized, once: !want.Reusable,
	})
	if err != nil {
		apiError(w, http.StatusBadRequest, err.Error())
		return
	}
	apiAnswer(w, map[string]any{"id": key[len(key)-8:], "key": key, "created": time.Now().UTC()})
}

// answerToken gives an access token that may do what the credential may.
func (s *Server) answerToken(w http.ResponseWriter, c Credential) {
	apiAnswer(w, map[string]any{"access_token": s.credentials.token(c), "token_type": "Bearer", "expires_in": 3600})
}

// accessToken returns the token of a call of the API, which takes it in either
// form.
func accessToken(r *http.Request) string {
	if user, _, ok := r.BasicAuth(); ok {
		return user
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

func apiAnswer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func apiError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"message": message})
}
