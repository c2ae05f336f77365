package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// Bounds of the contract's parameters.
const (
	MaxWait     = 300   // seconds; of every call that waits
	MaxReleases = 256   // names in one stop-nix-builders
	MaxDrain    = 21600 // seconds that a stop lets builds end
)

// query holds a request's parameters, each of which its call knows.
type query struct{ values url.Values }

// parseQuery takes r's query apart. Parameters other than those named are refused, and so
// are repeated ones, except for one that is named with "..." behind it.
func parseQuery(r *http.Request, names ...string) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, &refusal{problem.Malformed, "the query can't be read: " + err.Error(), ""}
	}
	for name, all := range values {
		switch {
		case slices.Contains(names, name+"..."):
		case !slices.Contains(names, name):
			return query{}, &refusal{problem.Malformed, "the call has no such parameter", name}
		case len(all) > 1:
			return query{}, repeated(name)
		}
	}
	return query{values}, nil
}

func (q query) has(name string) bool { return q.values.Has(name) }

// integer returns the parameter, or instead if it is absent. It must be from least to most.
func (q query) integer(name string, least, most, instead int64) (int64, error) {
	if !q.has(name) {
		return instead, nil
	}
	return integer(q.values.Get(name), name, least, most)
}

func repeated(name string) error {
	return &refusal{problem.Malformed, "the parameter is there more than once", name}
}

// integer reads text, the value of the parameter that is called name.
func integer(text, name string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || text[0] == '+' || text == "-0" || n < least || n > most {
		return 0, &refusal{problem.Malformed, fmt.Sprintf("want a whole number from %d to %d", least, most), name}
	}
	return n, nil
}

// builderID returns the id in r's path.
func builderID(r *http.Request) (uuid.UUID, error) {
	text := chi.URLParam(r, "id")
	id, err := uuid.Parse(text)
	if err != nil || len(text) != len(id.String()) {
		return uuid.UUID{}, &refusal{problem.Malformed, "not a uuid", "id"}
	}
	return id, nil
}
