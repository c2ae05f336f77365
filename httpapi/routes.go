package httpapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// Base is the path that all calls are under.
const Base = "/v1"

// handler answers a request, or returns the error that tells why not before it has answered
// anything.
type handler func(w http.ResponseWriter, r *http.Request) error

// router has the calls of openapi.yaml and who may make them.
func (s *Server) router() chi.Router {
	builders, readers, stoppers := s.ownBuilder(), s.mayRead(), s.mayStop()

	r := chi.NewRouter()
	r.Use(s.logRequests, s.metrics.count, s.recoverPanics, s.guard, bodyTime(s.limits.Body), headAsGet)
	r.NotFound(s.handle(s.notFound))
	r.MethodNotAllowed(s.handle(s.methodNotAllowed(r)))
	r.Route(Base, func(r chi.Router) {
		call := func(method, path string, who rule, h handler) {
			r.Method(method, path, s.handle(s.only(who, h)))
		}
		call("POST", "/check-ins", builders, s.checkIn)
		call("GET", "/builders/{id}/teardown", builders, s.awaitTeardown)
		call("POST", "/builders/{id}/departure", builders, s.depart)

		call("GET", "/paths", readers, s.listPaths)

		call("POST", "/stop-nix-builders", stoppers, s.stop)
		call("GET", "/cluster", readers, s.readCluster)
		call("GET", "/events", readers, s.streamEvents)

		call("GET", "/metrics", readers, s.readMetrics)
		call("GET", "/openapi.yaml", readers, s.readContract)
		call("GET", "/healthz", anyone(), s.health)
	})
	return r
}

// handle makes an http.Handler of h: its error is rendered as a problem.
func (s *Server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			if _, ok := errors.AsType[excess](err); ok {
				hold(w, r)
			}
			s.render(w, r, err)
		}
	}
}

func (s *Server) notFound(http.ResponseWriter, *http.Request) error {
	return &refusal{problem.NotFound, "GET " + Base + "/openapi.yaml lists the calls", ""}
}

func (s *Server) methodNotAllowed(routes chi.Routes) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var allowed []string
		for _, method := range []string{"GET", "POST"} {
			if routes.Match(chi.NewRouteContext(), method, r.URL.Path) {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 {
			return s.notFound(w, r)
		}
		allow := strings.Join(allowed, ", ")
		w.Header().Set("Allow", allow)
		return &refusal{problem.MethodNotAllowed, "the call takes " + allow, ""}
	}
}

// headAsGet lets HEAD through to what GET reads. It does not go to a builder's poll: that
// would renew a lease and take the place of the poll that is open.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && !strings.HasSuffix(r.URL.Path, "/teardown") {
			chi.RouteContext(r.Context()).RouteMethod = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}
