package httpapi

import (
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/go-json-experiment/json"
)

const mediaJSON = "application/json"

// writeJSON answers with v. Its error is that v can't be JSON; a caller who went away needs
// no answer and is none.
func writeJSON(w http.ResponseWriter, mediaType string, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// requestID returns the id of r that the log has, nil if it has none.
func requestID(r *http.Request) *string {
	if id := middleware.GetReqID(r.Context()); id != "" {
		return &id
	}
	return nil
}
